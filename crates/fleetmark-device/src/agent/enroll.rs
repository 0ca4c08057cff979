//! Enroll: a proof for the first certificate.

use super::Agent;
use crate::answer::Expected;
use crate::client::Client;
use crate::error::Error;
use crate::proof::Proof;
use crate::store::{Generation, Purpose};

/// What [`Agent::enroll`] came to.
#[derive(Debug, Clone)]
pub enum Enrollment {
    /// The directory held an identity already; nothing was asked for.
    Already(Generation),
    /// A new certificate is in use, not confirmed yet.
    Enrolled(Generation),
}

impl Agent {
    /// Shows `proof` and puts the certificate to use. An identity that is there stays, unless `replace` says otherwise.
    ///
    /// The key is made and synced before anything is sent, and a retry sends the same request: the server then gives the
    /// same certificate. A key that the server refuses as such is thrown away, and one new key is tried.
    pub async fn enroll(&mut self, proof: &Proof, replace: bool) -> Result<Enrollment, Error> {
        if let Some(current) = self.store.current()?
            && !replace
        {
            return Ok(Enrollment::Already(current));
        }
        let mut outcome = self.ask_to_enroll(proof).await;
        if let Err(error) = &outcome
            && self.may_mend(error).await
        {
            outcome = self.ask_to_enroll(proof).await;
        }
        match outcome {
            Err(Error::Refused(refused)) if refused.is_about_key() => {
                tracing::info!(code = refused.code, "the server refuses this key; trying a new one");
                self.store.discard_pending()?;
                self.ask_to_enroll(proof).await
            }
            outcome => outcome,
        }
        .map(Enrollment::Enrolled)
    }

    async fn ask_to_enroll(&mut self, proof: &Proof) -> Result<Generation, Error> {
        let (door, name) = (self.settings.door.clone(), self.settings.name.clone());
        let pending = self.store.stage(Purpose::Enroll { door: door.clone(), name: name.clone() })?;
        let client = match proof {
            Proof::Certificate(presented) => {
                Client::presenting(&self.settings.server, &door, &self.roots, &self.time, presented)?
            }
            Proof::Token(_) | Proof::DerivedKey(_) | Proof::Approval { .. } => self.anonymous()?,
        };
        let issued = client.enroll(proof, pending.key.hash(), &pending.csr, name.as_ref()).await?;
        self.take(&issued, &pending, &Expected::Newcomer { door, name })
    }
}
