//! What other authorities say of certificates that were adopted, and what we say: the worse counts.

use std::borrow::Cow;

use fleetmark_domain::{Fingerprint, FleetName, LedgerName, Standing, Timestamp};
use fleetmark_external::is_external;
use fleetmark_ledger::details::Details;

use crate::store::acts::standing::write_standing;
use crate::store::model::{AuthorityId, Certificate, ExternalCertificate, ForeignList};
use crate::store::rows::{CertificateId, Rows, certificate_id};
use crate::store::transaction::Transaction;
use crate::store::{Act, Lane, StoreError};

/// What an external authority says of certificates that were adopted: merged with what we say; the worse counts.
#[derive(Debug)]
pub struct MergeForeign {
    /// Its fleet.
    pub fleet: FleetName,
    /// Which external authority.
    pub authority: AuthorityId,
    /// The certificates, each with what is said of it (good, held or revoked), and until when that holds, where it is said of it alone.
    pub said: Vec<(Fingerprint, Standing, Option<Timestamp>)>,
    /// The server itself.
    pub details: Details,
    /// Now.
    pub at: Timestamp,
}

impl Act for MergeForeign {
    /// How many certificates are worth something else by it.
    type Outcome = usize;

    fn lane(&self) -> Lane {
        Lane::Urgent
    }

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::Fleet(self.fleet.clone())]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<usize, StoreError> {
        let mut changed: Vec<(Standing, Vec<Certificate>)> = Vec::new();
        for (fingerprint, said, next_update) in &self.said {
            let known = transaction.rows.external_certificate(fingerprint)?;
            let Some(known) = known.filter(|known| known.authority == self.authority) else { continue };
            // RFC 5280 3.3: only a hold is lifted.
            let foreign = if matches!(known.foreign, Standing::Revoked(_)) { known.foreign } else { *said };
            if foreign == known.foreign && *next_update == known.next_update {
                continue;
            }
            let next = merged(known.own, foreign);
            let place = known.place;
            let known = ExternalCertificate { foreign, next_update: *next_update, ..known };
            transaction.rows.update_external_certificate(&known)?;
            let Some(current) = transaction.rows.certificate(place)? else { continue };
            if current.standing == next || !current.standing.may_become(next) {
                continue;
            }
            match changed.iter_mut().find(|(standing, _)| *standing == next) {
                Some((_, certificates)) => certificates.push(current),
                None => changed.push((next, vec![current])),
            }
        }
        let mut count = 0;
        for (standing, certificates) in changed {
            count += certificates.len();
            write_standing(transaction, &certificates, standing, self.at, Some(&self.details))?;
        }
        Ok(count)
    }
}

/// Keeps the newest list at a URL.
#[derive(Debug)]
pub struct PutForeignList {
    /// The fleet of its authority.
    pub fleet: FleetName,
    /// The list.
    pub list: ForeignList,
}

impl Act for PutForeignList {
    type Outcome = ();

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::Fleet(self.fleet.clone())]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        transaction.rows.put_foreign_list(&self.list)
    }
}

/// The worse of what we say and what the other authority says; of two revocations ours.
pub const fn merged(own: Standing, foreign: Standing) -> Standing {
    own.or_worse(foreign)
}

/// We say that these certificates are worth this. Of adopted ones that is noted; gives those whose standing changes by it, which is
/// not so where the other authority says worse.
pub(in crate::store::acts) fn by_us<'a>(
    transaction: &mut Transaction<'_>,
    certificates: &'a [Certificate],
    standing: Standing,
) -> Result<Cow<'a, [Certificate]>, StoreError> {
    if !certificates.iter().any(|certificate| is_external(certificate.authority)) {
        return Ok(Cow::Borrowed(certificates));
    }
    let mut changed = Vec::with_capacity(certificates.len());
    for certificate in certificates {
        if !is_external(certificate.authority) {
            changed.push(certificate.clone());
            continue;
        }
        let place = certificate_id(certificate.serial.epoch(), certificate.serial.index());
        changed.extend(say(transaction, place, standing)?);
    }
    Ok(Cow::Owned(changed))
}

/// We say that this adopted certificate is worth this, which is noted; gives it where its standing changes by it.
pub(in crate::store::acts) fn say(
    transaction: &mut Transaction<'_>,
    place: CertificateId,
    standing: Standing,
) -> Result<Option<Certificate>, StoreError> {
    let known = transaction.rows.external_at(place)?.ok_or(StoreError::Unreadable { what: "external certificate" })?;
    let current = transaction.rows.certificate(place)?.ok_or(StoreError::Unreadable { what: "certificate" })?;
    let next = merged(standing, known.foreign);
    transaction.rows.update_external_certificate(&ExternalCertificate { own: standing, ..known })?;
    Ok(Some(current).filter(|current| next == standing && current.standing != next))
}

/// A certificate with the standing that we gave it, whatever its own authority says.
pub(in crate::store::acts) fn as_we_say(rows: &mut dyn Rows, certificate: Certificate) -> Result<Certificate, StoreError> {
    if !is_external(certificate.authority) {
        return Ok(certificate);
    }
    let known = rows.external_at(certificate_id(certificate.serial.epoch(), certificate.serial.index()))?;
    let known = known.ok_or(StoreError::Unreadable { what: "external certificate" })?;
    // A revocation by the other authority is as final as one by us.
    let standing = if matches!(certificate.standing, Standing::Revoked(_)) { certificate.standing } else { known.own };
    Ok(Certificate { standing, ..certificate })
}

/// Certificates as the store has them now, where they are adopted ones.
pub(in crate::store::acts) fn as_they_are(
    rows: &mut dyn Rows,
    certificates: Vec<Certificate>,
) -> Result<Vec<Certificate>, StoreError> {
    let mut now = Vec::with_capacity(certificates.len());
    for certificate in certificates {
        let place = certificate_id(certificate.serial.epoch(), certificate.serial.index());
        let current = if is_external(certificate.authority) { rows.certificate(place)? } else { None };
        now.push(current.unwrap_or(certificate));
    }
    Ok(now)
}
