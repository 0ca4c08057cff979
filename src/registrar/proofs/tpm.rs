//! By a TPM 2.0 whose endorsement key an operator registered with the device: the TPM read a secret that it alone could read, and only
//! because the key to certify is in it.

use fleetmark_domain::{LedgerName, Refusal, Timestamp};
use ring::hmac;

use super::Proven;
use crate::registrar::challenge::{Answer, By, answer_message};
use crate::registrar::enroll::EnrollRequest;
use crate::registrar::{Registrar, Result};
use crate::store::acts::record::{Holder, Proof};
use crate::store::look_up;
use crate::store::model::HardwareSource;

/// The label of an answer.
const LABEL: &str = "fleetmark tpm v1";

impl Registrar {
    pub(super) async fn prove_by_tpm(&self, request: &EnrollRequest, answer: &Answer, now: Timestamp) -> Result<Proven> {
        let (fleet, name, by) = self.check_nonce(request, answer, |nonce| Ok(By::Tpm(nonce.endorsement_key()?)), now)?;
        let By::Tpm(id) = by else { return Err(Refusal::NonceExpired.into()) };
        let key = request.csr.key_hash();
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &*self.tpm_secret(&answer.nonce));
        if hmac::verify(&secret, &answer_message(LABEL, &answer.nonce, key), &answer.mac).is_err() {
            let what = format!("endorsement key {}, name {name}", hex::encode(id));
            self.raise("answer_wrong", LedgerName::Fleet(fleet.clone()), 0, &what, now);
            return Err(Refusal::AnswerWrong.into());
        }
        let (asked, fleet) = (name.clone(), fleet.clone());
        let found = look_up(&*self.store, move |rows| {
            let known = rows.hardware(&id)?.filter(|known| known.source == HardwareSource::EndorsementKey);
            let known = known.ok_or(Refusal::EndorsementKeyUnknown)?;
            // One that is registered in another fleet is not known in this.
            let subject = rows.subject(known.subject)?.filter(|subject| subject.fleet.as_ref() == Some(&fleet));
            let subject = subject.ok_or(Refusal::EndorsementKeyUnknown)?;
            if subject.name != asked {
                return Err(Refusal::HardwareOfAnother.into());
            }
            Ok((subject, rows.fleet(&fleet)?.ok_or(Refusal::FleetUnknown)?, rows.certificate_by_key(&key)?))
        });
        let (subject, fleet, existing) = found.await?;
        let rule = self.profile_of(&subject, Some(&fleet))?.reenroll;
        Ok(Proven {
            holder: Holder::Admitted(Box::new(subject.clone()), rule),
            subject,
            fleet: Some(fleet),
            existing,
            proof: Proof::Hardware(id),
            token: None,
            group: None,
            approval: false,
            note: format!("endorsement key {}", hex::encode(id)),
        })
    }
}
