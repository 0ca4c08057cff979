//! CRLs and OCSP answers: views of the ledger, for anybody.

use std::sync::Arc;

use fleetmark_domain::Timestamp;

use super::{Registrar, Result};
use crate::store::model::{AuthorityId, StoredCrl};

/// An OCSP answer in DER.
#[derive(Debug, Clone)]
pub struct OcspAnswer {
    /// The octets.
    pub der: Vec<u8>,
    /// How long a cache may keep it; None: not at all (nonce, or an unsigned failure).
    pub fresh_until: Option<Timestamp>,
    /// When the statuses were read.
    pub at: Timestamp,
}

impl Registrar {
    /// The authority's list as it was last made; it is made anew at once by [`Self::refresh_crls`] when a standing changed.
    pub fn crl(&self, _authority: AuthorityId) -> Option<Arc<StoredCrl>> {
        todo!()
    }

    /// Every authority's list, the root's with them.
    pub fn crls(&self) -> Vec<Arc<StoredCrl>> {
        todo!()
    }

    /// Makes anew each list that is past half of its life, or whose authority's certificates changed their standing.
    /// Returns how many were made.
    pub async fn refresh_crls(&self, _now: Timestamp) -> Result<usize> {
        todo!()
    }

    /// Answers an OCSP request.
    pub async fn ocsp(&self, _request: &[u8], _now: Timestamp) -> OcspAnswer {
        todo!()
    }
}
