//! Trust: from the roots that are here to those of today.

use super::Agent;
use crate::bootstrap::fetch_bundles;
use crate::bundle::{Known, follow};
use crate::error::Error;
use crate::pkcs7::messages;

/// What [`Agent::update_trust`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustUpdate {
    /// The server has nothing newer.
    Unchanged,
    /// The roots are those of the bundle with this number now.
    Updated(u64),
}

impl Agent {
    /// Follows the trust bundles from a root that is here. What no root whose word counts here signed changes nothing.
    ///
    /// # Errors
    /// [`Error::TrustBundle`]; those of a server that is not reached.
    pub async fn update_trust(&mut self) -> Result<TrustUpdate, Error> {
        let known = self.store.trust()?;
        let counting = match &known {
            Some(trust) => trust.counting()?,
            None => self.roots.fingerprints(),
        };
        let mut unavailable = Error::TrustBundle { name: "trust_bundle_unavailable", why: "there is no root here".to_owned() };
        let mut octets = None;
        for from in counting {
            match fetch_bundles(&self.settings.server, &from).await {
                Ok(found) => {
                    octets = Some(found);
                    break;
                }
                Err(error @ Error::TrustBundle { .. }) => unavailable = error,
                Err(error) => return Err(error),
            }
        }
        let octets = octets.ok_or(unavailable)?;
        let malformed =
            |error: crate::pkcs7::Pkcs7Error| Error::TrustBundle { name: "trust_bundle_malformed", why: error.to_string() };
        let bundles = messages(&octets).map_err(malformed)?;
        let known = Known { roots: &self.roots, trust: known.as_ref() };
        let Some(trust) = follow(&known, &bundles)? else { return Ok(TrustUpdate::Unchanged) };
        self.store.save_trust(&trust)?;
        self.roots = trust.server_roots()?;
        tracing::info!(
            number = trust.number,
            roots = trust.roots.len(),
            revoked = trust.revoked.len(),
            "a trust bundle was followed"
        );
        Ok(TrustUpdate::Updated(trust.number))
    }

    /// The same where something else failed that new roots may mend. Whether it is worth trying again.
    pub(super) async fn may_mend(&mut self, error: &Error) -> bool {
        if !matches!(error, Error::Untrusted(_) | Error::BadAnswer(_)) {
            return false;
        }
        match self.update_trust().await {
            Ok(TrustUpdate::Updated(_)) => true,
            Ok(TrustUpdate::Unchanged) => false,
            Err(error) => {
                tracing::warn!(code = error.code(), "no trust bundle was followed: {error}");
                false
            }
        }
    }
}
