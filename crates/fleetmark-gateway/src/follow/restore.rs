//! An operator's word that a server was restored from a backup, so that its shorter ledger is to be believed.
//!
//! The file `DIR/accept-restore/LEDGER.json`:
//! ```json
//! {"statement": "fleetmark-accept-restore/v1\nORIGIN\nSIZE\nROOT\nTIME\n", "signature": "BASE64", "certificates": "PEM"}
//! ```
//! ORIGIN, SIZE and ROOT are the first three lines of the restored server's checkpoint; TIME is when the statement was made, in
//! seconds since 1970, and later than the newest checkpoint that the gateway saw. The signature is ECDSA P-256 with SHA-256, DER,
//! base64, over the statement's octets, by the key of the first of `certificates`: an operator's, which this gateway's `system`
//! ledger holds in good standing under an operators' authority. Only a ledger that is broken is given up for it, or one whose new
//! entries do not lead on from what was verified (the restored ledger has outgrown what was known): what was known of it is set
//! aside as evidence, and all is fetched anew; the entries must pass through the head in the statement, and no smaller ledger counts.
//! The word is kept beside what is then verified, since it says so after a restart too.

use std::path::Path;
use std::sync::atomic::Ordering;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use fleetmark_domain::{Fingerprint, Identity, Kind, LedgerName, Serial, Standing, Timestamp};
use fleetmark_ledger::entry::{AuthorityKind, AuthorityState};
use fleetmark_ledger::merkle::{Hash, Head};
use fleetmark_ledger::state::ShortFingerprint;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Serialize};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Shared;
use super::alarm::Alarm;
use super::beside::keep;
use super::heads::{Heads, Signed};
use super::worker::Worker;
use crate::disk::{self, DiskError, LedgerDisk, NAMED, sha256};
use crate::knowledge::table::{State, Table};
use crate::knowledge::{Change, Knowledge};

/// The statement's first line.
pub const FORM: &str = "fleetmark-accept-restore/v1";
/// The longest file, in octets.
const MAX_FILE: u64 = 64 * 1024;
/// The most certificates of the chain.
const MAX_CHAIN: usize = 4;

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Word {
    /// Five lines, each with a newline.
    pub statement: String,
    /// Base64 of ECDSA P-256 with SHA-256, in DER.
    pub signature: String,
    /// The operator's certificate, then its authorities', in PEM.
    pub certificates: String,
}

/// Why an operator's word does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not the file or statement described above.
    #[error("it is not of the form that docs/gateway.md gives")]
    Form,
    /// For another ledger.
    #[error("it is for another ledger")]
    OtherLedger,
    /// Made before the newest checkpoint that was seen.
    #[error("it is older than the newest checkpoint that was seen")]
    Old,
    /// The certificate is no operator's of this installation.
    #[error("its certificate is no operator's of this installation in good standing")]
    Signer,
    /// The signature does not verify.
    #[error("its signature does not verify")]
    Signature,
}

/// What an operator said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Statement {
    head: Head,
    at: Timestamp,
}

/// Lays an operator's word where the running gateway finds it; the gateway verifies it.
///
/// # Errors
/// Where it is not of the form, or cannot be written.
pub fn accept_restored(dir: &Path, ledger: &LedgerName, word: &[u8]) -> Result<(), DiskError> {
    serde_json::from_slice::<Word>(word).map_err(|_| DiskError::Form("the operator's word"))?;
    let dir = dir.join("accept-restore");
    std::fs::create_dir_all(&dir)?;
    disk::replace(&dir.join(format!("{ledger}.json")), word)
}

impl Statement {
    /// Reads a statement about the ledger with this origin.
    pub(crate) fn parse(text: &str, origin: &str) -> Result<Self, Refused> {
        let lines: Vec<_> = text.strip_suffix('\n').ok_or(Refused::Form)?.split('\n').collect();
        let [form, of, size, root, time] = lines[..] else {
            return Err(Refused::Form);
        };
        let head = || {
            let root = BASE64_STANDARD.decode(root).ok()?.try_into().ok()?;
            Some((Head { size: size.parse().ok()?, root: Hash(root) }, Timestamp(time.parse().ok()?)))
        };
        let (head, at) = head().filter(|_| form == FORM).ok_or(Refused::Form)?;
        if of == origin { Ok(Self { head, at }) } else { Err(Refused::OtherLedger) }
    }

    /// As what was signed is compared; the word is its evidence.
    fn signed(self, word: &[u8]) -> Signed {
        Signed { head: self.head, at: self.at, note: String::from_utf8_lossy(word).into() }
    }
}

/// The head that a word named which was accepted before; the gateway verified it then.
pub(super) fn named(dir: &Path, origin: &str) -> Option<Signed> {
    let octets = disk::read(&dir.join(NAMED), MAX_FILE).ok().flatten()?;
    let word: Word = serde_json::from_slice(&octets).ok()?;
    Some(Statement::parse(&word.statement, origin).ok()?.signed(&octets))
}

/// Looks for a word about a ledger that cannot be followed any more, and follows it.
pub(super) async fn look(shared: &Shared, worker: &Worker) {
    let path = shared.dir.join("accept-restore").join(format!("{}.json", worker.name));
    let Ok(Some(octets)) = disk::read(&path, MAX_FILE) else {
        return;
    };
    let waits = worker.ledger.read(|table| table.broken) || worker.leads_elsewhere.load(Ordering::Relaxed);
    if !waits || system_is_fetched(shared, worker) {
        return;
    }
    match judge(shared, worker, &octets) {
        Ok(statement) => {
            if let Err(error) = worker.begin_anew(shared, &statement, &octets).await {
                // The word waits, and is looked for again.
                Alarm::DiskFailed.raise(Some(&worker.name), &error.to_string());
                return;
            }
        }
        Err(refused) => {
            worker.alarm(shared, Alarm::RestoreRefused, &refused.to_string(), &[("word", &octets)]);
        }
    }
    // Followed or refused, it has been dealt with.
    let _ = std::fs::remove_file(&path);
}

/// Who signed is looked up in `system`: while that is fetched anew itself, words about other ledgers wait.
fn system_is_fetched(shared: &Shared, worker: &Worker) -> bool {
    let workers = shared.workers();
    let system = workers.iter().find(|other| other.name == LedgerName::System);
    worker.name != LedgerName::System && system.is_some_and(|system| system.heads().verified().is_none())
}

fn judge(shared: &Shared, worker: &Worker, octets: &[u8]) -> Result<Statement, Refused> {
    let word: Word = serde_json::from_slice(octets).map_err(|_| Refused::Form)?;
    let statement = Statement::parse(&word.statement, &worker.key.name)?;
    let newest = worker.heads().verified().map(|newest| newest.at);
    if newest.is_some_and(|newest| statement.at <= newest) {
        return Err(Refused::Old);
    }
    let chain = CertificateDer::pem_slice_iter(word.certificates.as_bytes()).take(MAX_CHAIN + 1).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|_| Refused::Form)?;
    let (signer, others) = chain.split_first().filter(|(_, others)| others.len() < MAX_CHAIN).ok_or(Refused::Form)?;
    let signature = BASE64_STANDARD.decode(&word.signature).map_err(|_| Refused::Form)?;
    check_operator(&shared.knowledge, signer, others).ok_or(Refused::Signer)?;
    let end = webpki::EndEntityCert::try_from(signer).map_err(|_| Refused::Signer)?;
    check_chain(shared, &end, others).ok_or(Refused::Signer)?;
    end.verify_signature(webpki::ring::ECDSA_P256_SHA256, word.statement.as_bytes(), &signature)
        .map_err(|_| Refused::Signature)?;
    Ok(statement)
}

/// The chain ends at a root that this gateway trusts, by the clock that judges servers.
fn check_chain(shared: &Shared, end: &webpki::EndEntityCert<'_>, others: &[CertificateDer<'_>]) -> Option<()> {
    let roots = shared.roots.borrow().clone();
    let anchors: Vec<_> = roots.certificates().iter().filter_map(|root| webpki::anchor_from_trusted_cert(root).ok()).collect();
    let now = UnixTime::since_unix_epoch(shared.clock.wall().since(Timestamp(0)));
    let usage = webpki::KeyUsage::client_auth();
    end.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, others, now, usage, None, None).ok().map(|_| ())
}

/// The certificate is the one that `system` holds at its serial, good, of an operator, by the operators' authority.
fn check_operator(knowledge: &Knowledge, signer: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Option<()> {
    let (_, parsed) = X509Certificate::from_der(signer).ok()?;
    let serial = Serial::from_octets(parsed.raw_serial()).ok()?;
    let known = knowledge.certificate(serial.epoch(), serial.index())?;
    let authority = known.authority?;
    let names = parsed.subject_alternative_name().ok()??;
    let uri = names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    })?;
    let (_, identity) = Identity::parse(uri).ok()?;
    let issuer: Fingerprint = sha256(others.first()?);
    let fits = known.ledger == LedgerName::System
        && known.fingerprint == ShortFingerprint::from(&sha256(signer))
        && known.standing == Standing::Good
        && matches!(identity, Identity::Operator { .. })
        && authority.kind == AuthorityKind::Of(Kind::Operator)
        && authority.state != AuthorityState::Revoked
        && authority.certificate.is_some_and(|certificate| sha256(&certificate) == issuer);
    fits.then_some(())
}

impl Worker {
    /// What was known is set aside; all is fetched anew, through the head that the operator named. In this order: where it ends at
    /// any step, the word still waits beside what was known, or the head that it names counts.
    async fn begin_anew(&self, shared: &Shared, statement: &Statement, word: &[u8]) -> Result<(), DiskError> {
        let _turn = self.turn.lock().await;
        tracing::warn!(ledger = self.name.as_str(), size = statement.head.size, "an operator accepted a restored server");
        shared.evidence.keep(shared.clock.wall(), "restore_accepted", &[("word", word)]);
        let mut disk = self.disk.lock().await;
        keep(&self.dir, NAMED, word)?;
        LedgerDisk::set_broken(&self.dir, None)?;
        shared.evidence.set_aside(shared.clock.wall(), "before_restore", &self.dir)?;
        *disk = LedgerDisk::empty(&self.dir);
        *self.heads() = Heads::new(None, Some(statement.signed(word)));
        self.details().clear();
        self.leads_elsewhere.store(false, Ordering::Relaxed);
        self.ledger.write(|table| *table = Table::new(State::new(self.key.clone()), table.max_age));
        shared.knowledge.inner.combine_policies();
        shared.knowledge.inner.tell(Change::Everything);
        Ok(())
    }
}
