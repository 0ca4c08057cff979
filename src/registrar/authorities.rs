//! The authorities in memory: certificates, keys, index leases. Swapped in whole when one is added.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::pki::issue::Issuer;
use crate::pki::ocsp::IssuerHashes;
use crate::pki::profile::Profiles;
use crate::store::model::{AuthorityId, AuthorityRecord};

/// An authority, ready to be used.
#[derive(Debug)]
pub struct Authority {
    /// Its record.
    pub record: AuthorityRecord,
    /// Its certificate and key.
    pub issuer: Issuer,
    /// How CertIDs name it.
    pub hashes: IssuerHashes,
    /// Its subject key identifier: the AKI of what it issued.
    pub key_id: Vec<u8>,
}

/// All authorities at one moment.
pub type AuthoritySet = Vec<Arc<Authority>>;

/// The authorities, and the profiles by which they issue.
pub struct Authorities {
    pub(crate) current: ArcSwap<AuthoritySet>,
    pub(crate) profiles: Profiles,
}

impl Authorities {
    /// All of them, as they are now.
    pub fn all(&self) -> Arc<AuthoritySet> {
        self.current.load_full()
    }

    /// The authority with this id.
    pub fn by_id(&self, id: AuthorityId) -> Option<Arc<Authority>> {
        self.current.load().iter().find(|authority| authority.record.id == id).cloned()
    }

    /// The profiles.
    pub const fn profiles(&self) -> &Profiles {
        &self.profiles
    }
}
