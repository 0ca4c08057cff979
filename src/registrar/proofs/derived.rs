//! By a key that a factory derived from an enrollment group's key and the device's name: no secret of a device is known to the
//! server, and none is listed.

use fleetmark_domain::{Kind, LedgerName, Name, Refusal, Timestamp};
use ring::hmac;
use zeroize::Zeroizing;

use super::{InGroup, Proven};
use crate::registrar::challenge::{Answer, By, answer_message};
use crate::registrar::enroll::EnrollRequest;
use crate::registrar::subjects::new_subject;
use crate::registrar::tokens::sha256;
use crate::registrar::{Error, Registrar, Result};
use crate::store::acts::record::{Admission, Holder, Proof};
use crate::store::look_up;
use crate::store::model::{GroupId, GroupProof, GroupState, HardwareId};
use crate::store::rows::Rows;

/// The label of an answer.
const LABEL: &str = "fleetmark derived key v1";

/// The key of a device: HMAC-SHA256 under the group's key, over the device's name. The name counts as it is written, in upper and
/// lower case: it is the one under which the device enrolls.
fn device_key(group_key: &[u8], device: &Name) -> Zeroizing<Vec<u8>> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, group_key);
    Zeroizing::new(hmac::sign(&key, device.as_str().as_bytes()).as_ref().to_vec())
}

impl Registrar {
    pub(super) async fn prove_by_derived_key(
        &self,
        request: &EnrollRequest,
        answer: &Answer,
        now: Timestamp,
    ) -> Result<Proven> {
        let group = request.group.as_ref().ok_or_else(|| {
            Error::with_detail(Refusal::InvalidValue, "Say in `group` which enrollment group the key is derived for.")
        })?;
        let (fleet, name, _) = self.check_nonce(request, answer, |_| Ok(By::DerivedKey(group)), now)?;
        let found = self.derived_standpoint(request, group).await?;
        let group_key = match &found {
            Some(found) => Some(self.group_key(&found.group)?),
            None => None,
        };
        // One answer to a wrong key and to a wrong group: who has no key of the fleet's learns of no group.
        let Some(found) = found.filter(|_| group_key.is_some_and(|key| is_right(&key, name, answer, request))) else {
            let what = format!("derived key, group {group}, name {name}");
            self.raise("answer_wrong", LedgerName::Fleet(fleet.clone()), 0, &what, now);
            return Err(Refusal::AnswerWrong.into());
        };
        let InGroup { fleet, group, known, existing, is_listed } = found;
        if group.state != GroupState::Enabled {
            return Err(Refusal::GroupDisabled.into());
        }
        if existing.is_none() {
            group.rules.terms.admit(name, request.source, now)?;
            if !is_listed {
                return Err(Refusal::SerialNotListed.into());
            }
        }
        // A twin that differs in case alone has another key, and the name is taken.
        if known.as_ref().is_some_and(|known| known.name != *name) {
            return Err(Refusal::NameTaken.into());
        }
        let mut new = new_subject(Kind::Device, Some(fleet.name.clone()), name.clone(), now);
        new.attributes.clone_from(&group.rules.attributes);
        let subject = known.unwrap_or_else(|| new.clone());
        let rule = self.profile_of(&subject, Some(&fleet))?.reenroll;
        let hardware = Some(hardware_id(group.id, name));
        Ok(Proven {
            subject,
            existing,
            holder: Holder::Admitted(Box::new(new), rule),
            proof: Proof::Group(Admission { group: group.id, proof: GroupProof::DerivedKey, hardware }),
            token: None,
            approval: group.rules.terms.approval,
            note: format!("group {}", group.name),
            fleet: Some(fleet),
            group: Some(group),
        })
    }

    /// None where the fleet has no such group, or none of derived keys.
    async fn derived_standpoint(&self, request: &EnrollRequest, group: &Name) -> Result<Option<InGroup>> {
        let (fleet, name) = (request.fleet.clone().ok_or(Refusal::FleetUnknown)?, request.name.clone());
        let (group, key) = (group.folded(), request.csr.key_hash());
        let found = look_up(&*self.store, move |rows| {
            let Some(fleet) = rows.fleet(&fleet)? else { return Ok(None) };
            let group = rows.group_by_name(&fleet.name, &group)?.filter(|group| group.proof == GroupProof::DerivedKey);
            let (Some(group), Some(name)) = (group, name) else { return Ok(None) };
            let known = rows.subject_by_name(Kind::Device, Some(&fleet.name), &name.folded())?;
            let existing = rows.certificate_by_key(&key)?;
            let is_listed = !group.rules.listed_only || is_listed(rows, group.id, &name)?;
            Ok(Some(InGroup { fleet, group, known, existing, is_listed }))
        });
        Ok(found.await?)
    }
}

/// A device of a derived key has no serial number but its name.
fn is_listed(rows: &mut dyn Rows, group: GroupId, name: &Name) -> std::result::Result<bool, crate::store::StoreError> {
    let listed = rows.listed_serial(group, name.as_str())?;
    Ok(listed.is_some_and(|listed| listed.device.is_none_or(|device| device == *name)))
}

/// Whether the answer is the one that the device's key gives; the time that it takes does not tell where two differ.
fn is_right(group_key: &[u8], name: &Name, answer: &Answer, request: &EnrollRequest) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &device_key(group_key, name));
    hmac::verify(&key, &answer_message(LABEL, &answer.nonce, request.csr.key_hash()), &answer.mac).is_ok()
}

/// As which hardware a device of a derived key counts: the group and its name.
fn hardware_id(group: GroupId, name: &Name) -> HardwareId {
    sha256(&[b"derived", &group.to_be_bytes()[..], name.folded().as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/enrollment/derived-key.md has these; `openssl dgst -sha256 -mac HMAC` gave them.
    #[test]
    fn the_manuals_vectors_are_right() {
        let manual = include_str!("../../../docs/enrollment/derived-key.md");
        let group_key: Vec<u8> = (0..32).collect();
        assert!(manual.contains(&hex::encode(&group_key)));
        for name in ["sensor-01", "Sensor-01"] {
            let key = device_key(&group_key, &name.parse().unwrap());
            assert!(manual.contains(&format!("{name} {}", hex::encode(&*key))), "{name} {}", hex::encode(&*key));
        }
        let key = device_key(&group_key, &"sensor-01".parse().unwrap());
        let nonce = "A".repeat(75);
        let message = answer_message(LABEL, &nonce, fleetmark_domain::KeyHash([0x11; 32]));
        let answer = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &message);
        assert!(manual.contains(&hex::encode(answer.as_ref())), "{}", hex::encode(answer.as_ref()));
    }
}
