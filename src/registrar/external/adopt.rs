//! Certificates of other authorities are imported, shown, and change their standing.

use fleetmark_domain::{Action, Fingerprint, FleetName, Identity, Kind, Name, Refusal, Serial, Standing, Timestamp};
use fleetmark_external::certificate::MAX_SERIAL;
use fleetmark_external::{Foreign, Unnamed, name};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::follow::Word;
use crate::pki::foreign::Externals;
use crate::pki::weak;
use crate::registrar::caller::Caller;
use crate::registrar::standing::{Change, Changed, Target};
use crate::registrar::subjects::{identity_of, new_subject};
use crate::registrar::tokens::sha256;
use crate::registrar::{Error, Page, PageRequest, Registrar, Result};
use crate::store::acts::external::{Adopt, Arrival, Fate, Permit};
use crate::store::model::{Certificate, External, ExternalCertificate, ExternalSwitch};
use crate::store::rows::Rows;
use crate::store::{StoreError, commit, read};

/// The most octets of one import.
pub const MAX_IMPORT: usize = 4 * 1024 * 1024;
/// The most certificates of one import.
pub const MAX_CERTIFICATES: usize = 1_000;
/// So many are adopted in one transaction.
const AT_ONCE: usize = 200;

/// What became of one certificate of an import.
#[derive(Debug, Clone)]
pub struct Import {
    /// SHA-256 over it.
    pub fingerprint: Fingerprint,
    /// The device that it names, once that is known.
    pub device: Option<Name>,
    /// Whether it was adopted, or before; or why not.
    pub outcome: std::result::Result<Fate, Refusal>,
}

/// An adopted certificate.
#[derive(Debug, Clone)]
pub struct AdoptedView {
    /// What is known of it.
    pub known: ExternalCertificate,
    /// Its record.
    pub certificate: Certificate,
    /// Its holder.
    pub holder: Identity,
    /// Its external authority's name.
    pub authority: Name,
}

impl Registrar {
    /// Adopts certificates in PEM, each judged by itself. Certificates that are no device's, such as their CAs', are refused like any
    /// other that does not fit.
    ///
    /// # Errors
    /// `MalformedRequest` for what is no PEM of certificates, or of more than 1,000; `NotFound`; `TransitionNotAllowed` for an external
    /// authority that has ended.
    pub async fn import_external(
        &self,
        caller: &Caller,
        (fleet, authority): (&FleetName, &Name),
        pem: &[u8],
        now: Timestamp,
    ) -> Result<Vec<Import>> {
        let external = self.external_authority(caller, fleet, authority).await?.external;
        caller.may(Action::RegisterDevice, Some(fleet))?;
        if external.switch == ExternalSwitch::Ended {
            return Err(Error::with_detail(Refusal::TransitionNotAllowed, "The external authority has ended."));
        }
        let malformed = || Error::with_detail(Refusal::MalformedRequest, "It is 1 to 1,000 certificates in PEM.");
        let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).take(MAX_CERTIFICATES + 1).collect();
        let found = found.ok().filter(|found| (1..=MAX_CERTIFICATES).contains(&found.len())).ok_or_else(malformed)?;
        let mut trusted = Externals::default();
        trusted.add(&external.material).map_err(|cause| Error::caused(Refusal::StorageDamaged, cause))?;
        let mut imported = Vec::with_capacity(found.len());
        for batch in found.chunks(AT_ONCE) {
            // What the authority says of them, before anybody believes them.
            let words = self.words_of(&external, batch, now).await?;
            imported.extend(self.import_batch(caller, &external, &trusted, (batch, words), now).await?);
        }
        let adopted = imported.iter().filter(|one| one.outcome == Ok(Fate::Adopted)).count();
        let (actor, refused) = (caller.actor(self), imported.iter().filter(|one| one.outcome.is_err()).count());
        tracing::info!(actor, %fleet, authority = %external.name, adopted, refused, "certificates of another authority imported");
        Ok(imported)
    }

    async fn import_batch(
        &self,
        caller: &Caller,
        external: &External,
        trusted: &Externals,
        (batch, words): (&[CertificateDer<'static>], Vec<Word>),
        now: Timestamp,
    ) -> Result<Vec<Import>> {
        let mut imports = Vec::with_capacity(batch.len());
        let mut arrivals = Vec::with_capacity(batch.len());
        for (der, word) in batch.iter().zip(words) {
            let Ok(foreign) = Foreign::parse(der) else {
                let fingerprint = Fingerprint(sha256(der));
                imports.push(Import { fingerprint, device: None, outcome: Err(Refusal::CertificateForeign) });
                continue;
            };
            let fingerprint = foreign.fingerprint;
            let (device, judged) = match named(external, &foreign) {
                Ok(device) => (Some(device), Ok(())),
                Err(refusal) => (None, Err(refusal)),
            };
            let judged = judged.and_then(|()| self.judge_foreign(external, trusted, der, &foreign, now));
            let judged = judged.and_then(|()| word.standing.allowed());
            let outcome = judged.map(|()| Fate::Known);
            if let (Ok(_), Some(device)) = (&outcome, &device) {
                let note = format!("certificate {fingerprint} of external authority {}", external.name);
                let by = (Permit::Import, caller.actor(self), note);
                arrivals.push(self.arrival(external, (foreign, der), device.clone(), word.next_update, by, now)?);
            }
            imports.push(Import { fingerprint, device, outcome });
        }
        if arrivals.is_empty() {
            return Ok(imports);
        }
        let act = Adopt { fleet: external.fleet.clone(), authority: external.id, arrivals, at: now };
        let mut outcomes = commit(&*self.store, act).await?.into_iter();
        for import in imports.iter_mut().filter(|import| import.outcome.is_ok()) {
            import.outcome = outcomes.next().unwrap_or(Err(Refusal::InternalError));
        }
        Ok(imports)
    }

    /// A certificate that was judged, for the act that adopts it.
    pub(super) fn arrival(
        &self,
        external: &External,
        (foreign, der): (Foreign, &[u8]),
        device: Name,
        next_update: Option<Timestamp>,
        (permit, actor, note): (Permit, String, String),
        now: Timestamp,
    ) -> Result<Arrival> {
        let device = new_subject(Kind::Device, Some(external.fleet.clone()), device, now);
        let whom = identity_of(&device)?.uri(&self.trust_domain);
        let details = self.details(actor, Some(whom), None, Some(note))?;
        Ok(Arrival { foreign, der: der.to_vec(), device, permit, next_update, details })
    }

    /// Chain, time, purpose, key and serial number.
    pub(super) fn judge_foreign(
        &self,
        external: &External,
        trusted: &Externals,
        der: &[u8],
        foreign: &Foreign,
        now: Timestamp,
    ) -> std::result::Result<(), Refusal> {
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(now.0).unwrap_or(0)));
        trusted.verify(der, &[], at)?;
        if external.rules.usages.iter().any(|usage| !foreign.usages.contains(usage)) {
            return Err(Refusal::ExternalUsage);
        }
        if foreign.serial.is_empty() || foreign.serial.len() > MAX_SERIAL || Serial::from_octets(&foreign.serial).is_ok() {
            // One of our form would be looked for in a ledger's numbering.
            return Err(Refusal::ExternalSerial);
        }
        weak::check_all(&foreign.spki, &self.weak_lists)
    }

    /// The adopted certificates of a fleet, or of one of its external authorities.
    pub async fn external_certificates(
        &self,
        caller: &Caller,
        fleet: &FleetName,
        authority: Option<&Name>,
        page: &PageRequest,
    ) -> Result<Page<AdoptedView>> {
        caller.may(Action::Read, Some(fleet))?;
        let (after, limit, fleet, wanted) = (page.after()?, page.limit, fleet.clone(), authority.map(Name::folded));
        let found = read(&*self.store, move |rows| {
            if rows.fleet(&fleet)?.is_none() {
                return Err(Refusal::FleetUnknown.into());
            }
            let all = rows.externals(Some(&fleet))?;
            let of = |external: &&External| wanted.as_ref().is_none_or(|name| external.name.folded() == *name);
            let ids: Vec<_> = all.iter().filter(of).map(|external| external.id).collect();
            if wanted.is_some() && ids.is_empty() {
                return Err(Refusal::NotFound.into());
            }
            let known = rows.external_certificates(&ids, after, limit)?;
            known.into_iter().map(|known| adopted(rows, known)).collect::<std::result::Result<Vec<_>, _>>()
        });
        Ok(Page::of(found.await?, limit, |last| last.known.place.to_string()))
    }

    /// One adopted certificate.
    pub async fn external_certificate(
        &self,
        caller: &Caller,
        fleet: &FleetName,
        fingerprint: Fingerprint,
    ) -> Result<AdoptedView> {
        caller.may(Action::Read, Some(fleet))?;
        let found = read(&*self.store, move |rows| {
            let known = rows.external_certificate(&fingerprint)?.ok_or(Refusal::NotFound)?;
            adopted(rows, known)
        });
        let found = found.await?;
        if found.holder.fleet() == Some(fleet) { Ok(found) } else { Err(Refusal::NotFound.into()) }
    }

    /// We say what an adopted certificate is worth; the worse of that and of what its authority says counts.
    pub async fn change_external_standing(
        &self,
        caller: &Caller,
        (fleet, fingerprint): (&FleetName, Fingerprint),
        change: Change,
        note: &str,
        now: Timestamp,
    ) -> Result<Changed> {
        let serial = self.external_certificate(caller, fleet, fingerprint).await?.certificate.serial;
        self.change_standing(caller, Target::Certificate(serial), change, note, now).await
    }
}

/// The device that a certificate names by its authority's rule.
pub(super) fn named(external: &External, foreign: &Foreign) -> std::result::Result<Name, Refusal> {
    name(&external.rules.naming, &foreign.said).map_err(|unnamed| match unnamed {
        Unnamed::Missing => Refusal::ExternalNameMissing,
        Unnamed::NoName => Refusal::InvalidName,
    })
}

fn adopted(rows: &mut dyn Rows, known: ExternalCertificate) -> std::result::Result<AdoptedView, StoreError> {
    let unreadable = || StoreError::Unreadable { what: "external certificate" };
    let certificate = rows.certificate(known.place)?.ok_or_else(unreadable)?;
    let holder = rows.subject(certificate.subject.ok_or_else(unreadable)?)?.ok_or_else(unreadable)?;
    let authority = rows.external(known.authority)?.ok_or_else(unreadable)?.name;
    let holder = identity_of(&holder).map_err(|_| unreadable())?;
    Ok(AdoptedView { known, certificate, holder, authority })
}

/// Whether a certificate of which this is said may be adopted.
pub(super) trait Allowed {
    fn allowed(self) -> std::result::Result<(), Refusal>;
}

impl Allowed for std::result::Result<Standing, Refusal> {
    fn allowed(self) -> std::result::Result<(), Refusal> {
        match self? {
            Standing::Held => Err(Refusal::Held),
            Standing::Revoked(_) => Err(Refusal::Revoked),
            _ => Ok(()),
        }
    }
}
