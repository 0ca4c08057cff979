//! By the certificate of another authority that the fleet adopted: how a device moves over to one of ours.

use std::sync::Arc;

use fleetmark_domain::{Refusal, Timestamp};
use fleetmark_external::FIRST_ID;

use super::Proven;
use crate::pki::issue::facts;
use crate::registrar::caller::Peer;
use crate::registrar::enroll::EnrollRequest;
use crate::registrar::{Error, Registrar, Result};
use crate::store::acts::record::{Holder, Proof};
use crate::store::look_up;

impl Registrar {
    /// By an adopted certificate, else by a maker's group. `chain`: DER, the device's own first. The handshake proved that the device
    /// holds its key.
    pub(super) async fn prove_by_foreign(&self, request: &EnrollRequest, chain: &[Vec<u8>], now: Timestamp) -> Result<Proven> {
        let own = chain.first().ok_or(Refusal::ProofRequired)?;
        let facts = facts(own).map_err(|_| Refusal::CertificateForeign)?;
        let fingerprint = facts.fingerprint;
        let adopted = look_up(&*self.store, move |rows| rows.external_certificate(&fingerprint)).await?;
        let by_sight = match (&adopted, &request.group) {
            (None, None) => self.adopt_shown(chain, now).await,
            _ => Ok(()),
        };
        // Who asks for a group comes by that, whatever else the certificate is.
        if by_sight.is_ok() && request.group.is_none() {
            return self.prove_by_adopted(request, Peer { authority: FIRST_ID, facts: Arc::new(facts) }, now).await;
        }
        let by_maker = self.prove_by_maker(request, chain, now).await;
        by_maker.map_err(|error| match error.refusal {
            Refusal::MakerUnknown if self.external_trust().current().are_named_by(chain) => {
                by_sight.err().unwrap_or_else(|| Refusal::ExternalUnknown.into())
            }
            _ => error,
        })
    }

    /// It becomes the holder of its next certificate, whose confirmation supersedes the adopted one.
    async fn prove_by_adopted(&self, request: &EnrollRequest, peer: Peer, now: Timestamp) -> Result<Proven> {
        let caller = self.identify(&peer, now).await?;
        if caller.subject.fleet != request.fleet {
            return Err(Refusal::WrongFleet.into());
        }
        if request.name.as_ref().is_some_and(|name| *name != caller.subject.name) {
            return Err(Refusal::NameNotAllowed.into());
        }
        let key = request.csr.key_hash();
        if key == peer.facts.key_hash {
            let detail = "This is the key of the certificate that it shows. Make a new key.";
            return Err(Error::with_detail(Refusal::KeyReused, detail));
        }
        if caller.subject.permits.renewals_held {
            return Err(Refusal::RenewalHeld.into());
        }
        let fleet = caller.subject.fleet.clone();
        let found = look_up(&*self.store, move |rows| {
            let fleet = match &fleet {
                Some(fleet) => rows.fleet(fleet)?,
                None => None,
            };
            Ok((fleet, rows.certificate_by_key(&key)?))
        });
        let (fleet, existing) = found.await?;
        Ok(Proven {
            holder: Holder::Known(caller.subject.id),
            proof: Proof::Current(caller.certificate.serial),
            note: format!("certificate {} of another authority", peer.facts.fingerprint),
            subject: caller.subject,
            fleet,
            existing,
            token: None,
            group: None,
            approval: false,
        })
    }
}
