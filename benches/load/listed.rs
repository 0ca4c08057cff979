//! An installation in this process, with as many revoked certificates as one wants: lists and answers without sockets.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleetmark::ledger::Publisher;
use fleetmark::pki::csr::VerifiedCsr;
use fleetmark::pki::issue::facts;
use fleetmark::pki::keys::Keys;
use fleetmark::pki::profile::Profiles;
use fleetmark::pki::weak::lists::WeakLists;
use fleetmark::registrar::Registrar;
use fleetmark::registrar::caller::{Caller, Peer};
use fleetmark::registrar::enroll::{EnrollRequest, Enrollment};
use fleetmark::registrar::fleets::FleetChange;
use fleetmark::registrar::install::Parts;
use fleetmark::registrar::proofs::Shown;
use fleetmark::registrar::rates::RateSettings;
use fleetmark::registrar::snapshots::Snapshots;
use fleetmark::registrar::standing::{Change, Target};
use fleetmark::registrar::subjects::Who;
use fleetmark::registrar::tokens::{MintRequest, PresentedToken};
use fleetmark::store::location::{StoreLocation, open};
use fleetmark::store::model::{AuthorityId, Certificate, EpochRecord};
use fleetmark::store::transaction::Transaction;
use fleetmark::store::{Act, Store, StoreError, commit};
use fleetmark::telemetry::clock::{SharedClock, SystemClock};
use fleetmark_domain::{
    Epoch, Fingerprint, FleetName, Index, KeyHash, Kind, LedgerName, RevocationReason, Serial, Standing, Terms, Timestamp,
};
use ring::digest::{SHA256, digest};
use secrecy::ExposeSecret;
use tempfile::TempDir;

use crate::Outcome;

/// The epoch of the invented certificates: far above those that the installation opens.
const FILLED: Epoch = Epoch(1_000_000);
/// Certificates that one act invents.
const AT_ONCE: u32 = 20_000;
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// The installation.
pub struct Listed {
    _directory: TempDir,
    pub registrar: Arc<Registrar>,
    owner: Caller,
    clock: SharedClock,
}

fn fleet() -> Outcome<FleetName> {
    Ok("default".parse()?)
}

fn csr() -> Outcome<VerifiedCsr> {
    let key = rcgen::KeyPair::generate()?;
    let request = rcgen::CertificateParams::default().serialize_request(&key)?;
    VerifiedCsr::from_der(request.der()).map_err(|_| "a request of our own is refused".into())
}

fn peer(enrollment: &Enrollment) -> Outcome<Peer> {
    Ok(Peer { authority: enrollment.certificate.authority, facts: Arc::new(facts(&enrollment.certificate.der)?) })
}

async fn opened(path: &Path, clock: &SharedClock) -> Outcome<(Arc<dyn Store>, Registrar)> {
    let publisher = Arc::new(Publisher::new(clock.clone()));
    let place: StoreLocation = format!("sqlite:{}", path.join("store").display()).parse()?;
    let store = open(place, publisher.clone()).await?;
    let parts = Parts {
        store: store.clone(),
        keys: Arc::new(Keys::open(&path.join("keys"), "passphrase".to_owned().into())?),
        profiles: Profiles::load(None)?,
        publisher,
        snapshots: Snapshots::new(path.join("snapshots"), u64::MAX),
        trust_domain: "fleet.example".parse()?,
        public_url: "http://localhost".to_owned(),
        rates: RateSettings::default(),
        weak_lists: WeakLists::default(),
    };
    Ok((store, Registrar::open(parts, clock.now()).await?))
}

/// The threads of a store that was stopped end a moment later.
async fn reopened(path: &Path, clock: &SharedClock) -> Outcome<Registrar> {
    let mut tries = 0;
    loop {
        match opened(path, clock).await {
            Ok((_, registrar)) => return Ok(registrar),
            Err(error) if tries == 100 => return Err(error),
            Err(_) => tries += 1,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Listed {
    /// With so many revoked certificates in one fleet.
    pub async fn with(revoked: u32) -> Outcome<Self> {
        let directory = tempfile::tempdir_in(std::env::current_dir()?.join("target"))?;
        let clock: SharedClock = Arc::new(SystemClock);
        let now = clock.now();
        let (store, registrar) = opened(directory.path(), &clock).await?;
        registrar.install(&fleet()?, now).await?;
        let first = registrar.first_operator(&"alice".parse()?, &csr()?, now).await?.ok_or("no first operator")?;
        let owner = registrar.identify(&peer(&first)?, now).await?;
        let change = FleetChange { blast_radius: Some(Some(1_000_000)), ..FleetChange::default() };
        registrar.change_fleet(&owner, &fleet()?, change, None, now).await?;
        let authority = registrar.authorities().issuing(Kind::Device, Some(&fleet()?))?.record.id;
        for first in (0..revoked).step_by(usize::try_from(AT_ONCE)?) {
            let count = AT_ONCE.min(revoked - first);
            commit(&*store, Fill { authority, first, count, all: revoked, at: now }).await?;
        }
        // A server that was running would have made these shards with their first certificates; a start finds what is missing.
        store.stop().await;
        drop((store, registrar));
        let registrar = reopened(directory.path(), &clock).await?;
        registrar.renew_responders(now).await?;
        Ok(Self { _directory: directory, registrar: Arc::new(registrar), owner, clock })
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Makes the lists that are due; how long it took, in seconds.
    pub async fn lists(&self) -> Outcome<f64> {
        let begin = Instant::now();
        self.registrar.refresh_crls(self.now()).await?;
        Ok(begin.elapsed().as_secs_f64())
    }

    /// The device authority's plain list, in octets.
    pub fn list_size(&self) -> Outcome<usize> {
        let authority = self.registrar.authorities().issuing(Kind::Device, Some(&fleet()?))?;
        Ok(self.registrar.crl(authority.record.id).ok_or("no list")?.der.len())
    }

    /// Enrolls and confirms.
    pub async fn device(&self, name: &str) -> Outcome<Certificate> {
        let request = MintRequest {
            fleet: fleet()?,
            device: Some(name.parse()?),
            lifetime: Duration::from_secs(3_600),
            note: String::new(),
            terms: Terms::default(),
        };
        let minted = self.registrar.mint_token(&self.owner, request, None, self.now()).await?;
        let shown = Shown::Token(PresentedToken::parse(minted.text.expose_secret())?);
        let request = EnrollRequest { fleet: Some(fleet()?), name: None, group: None, shown, csr: csr()?, source: None };
        let enrollment = self.registrar.enroll(request, self.now()).await?;
        self.registrar.identify(&peer(&enrollment)?, self.now()).await?;
        Ok(enrollment.certificate)
    }

    /// Revokes a device; how long the operator waits, in milliseconds.
    pub async fn revoke(&self, name: &str) -> Outcome<f64> {
        let who = Who { kind: Kind::Device, fleet: Some(fleet()?), name: name.parse()? };
        let change = Change::Revoke(RevocationReason::KeyCompromise);
        let begin = Instant::now();
        self.registrar.change_standing(&self.owner, Target::Subject(who), change, "", self.now()).await?;
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    }
}

/// Invents revoked certificates.
struct Fill {
    authority: AuthorityId,
    first: u32,
    count: u32,
    all: u32,
    at: Timestamp,
}

impl Act for Fill {
    type Outcome = ();

    fn ledgers(&self) -> Vec<LedgerName> {
        Vec::new()
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        if self.first == 0 {
            let epoch = EpochRecord {
                number: FILLED,
                authority: self.authority,
                opened_at: self.at,
                closed_at: Some(self.at),
                next_index: self.all,
            };
            transaction.rows.insert_epoch(&epoch)?;
        }
        for index in self.first..self.first + self.count {
            transaction.rows.insert_certificate(&self.certificate(index))?;
        }
        Ok(())
    }
}

impl Fill {
    fn certificate(&self, index: u32) -> Certificate {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &index.to_be_bytes()).as_ref());
        let random = hash.first_chunk().copied().unwrap_or_default();
        Certificate {
            serial: Serial::new(FILLED, Index(index), random),
            authority: self.authority,
            subject: None,
            generation: 0,
            key_hash: KeyHash(hash),
            fingerprint: Fingerprint(hash),
            standing: Standing::Revoked(RevocationReason::KeyCompromise),
            not_before: self.at,
            not_after: self.at + YEAR,
            renew_after: self.at + YEAR,
            confirm_before: None,
            issued_at: self.at,
            changed_at: self.at,
            ledger: LedgerName::Fleet(fleet().unwrap_or_else(|_| unreachable!("a constant"))),
            position: 0,
            token: None,
            der: vec![0; 16],
        }
    }
}
