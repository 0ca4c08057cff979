//! The root's directory: `root.pem`, `root.crl.pem`, `root.json`, `keys/root.key.pem` (encrypted), `records/`. A record's text is what
//! makes an act count: where it is missing, the act did not happen, and may be done again.

mod rollover;
mod take_over;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleetmark_domain::{Epoch, Fingerprint, Index, KeyHash, Serial, Timestamp, TrustDomain};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::answer::RootAnswer;
use super::files::{
    CERTIFICATE, LIST, NEXT, RECORDS, STATE, certificate, lock, newest, read, record_file, settle, texts_before, verify, write,
};
use super::judge::{Certifiable, Judged, certifiable};
use super::record::{CertificateLine, ListLine, Record, name};
use super::request::{RootRequest, ToRevoke};
use super::{CeremonyError, from_pem, json, root_names, sha256};
use crate::pki::crl::{CrlHeader, RevokedCertificate, build, entries};
use crate::pki::issue::{Issuer, Pointers, Template, facts, issue};
use crate::pki::keys::{KeyAlgorithm, Keys};
use crate::pki::profile::Profiles;
use crate::pki::{PkiError, bundle, detached};

/// How long the root's list holds unless the ceremony says otherwise.
pub const LIST_LIFETIME: Duration = Duration::from_secs(180 * 86_400);
/// The clocks of two machines may differ by so much.
const CLOCKS: Duration = Duration::from_secs(3_600);
/// What stands in `format` of `root.json`.
const FORMAT: &str = "fleetmark root 1";
/// The label of the root's key.
const KEY: &str = "root";

/// Who is at the ceremony, as the record names them.
#[derive(Debug, Clone)]
pub struct People {
    /// Who does it.
    pub by: String,
    /// Who is there.
    pub witnesses: Vec<String>,
    /// The machine's name.
    pub machine: String,
    /// The program and its version.
    pub software: String,
}

/// What the root knows beside its key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    format: String,
    trust_domain: TrustDomain,
    root: Fingerprint,
    /// The newest list's number.
    list: u64,
    /// Whether the root signed before it had this directory.
    taken_over: bool,
    issued: Vec<Issued>,
    revoked: Vec<ToRevoke>,
    /// The newest trust bundle that it signed: number, and SHA-256 over the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bundle: Option<(u64, String)>,
}

/// An authority that the root certified.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Issued {
    serial: String,
    title: String,
    certificate: String,
}

/// What an act did.
#[derive(Debug, Clone)]
pub struct Done {
    /// The record, to be printed.
    pub record: String,
    /// The file that it lies in.
    pub record_file: PathBuf,
    /// What goes back to the server.
    pub answer: RootAnswer,
}

/// A root's directory, open and locked.
pub struct RootDirectory {
    path: PathBuf,
    state: State,
    root: Issuer,
    random: SystemRandom,
    _lock: File,
}

impl std::fmt::Debug for RootDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RootDirectory").field("path", &self.path).field("root", &self.state.root).finish_non_exhaustive()
    }
}

impl RootDirectory {
    /// Makes a root: its key, certificate and first list, and the first record.
    ///
    /// # Errors
    /// [`CeremonyError::Exists`], [`CeremonyError::Name`], [`CeremonyError::File`], [`CeremonyError::Pki`].
    pub fn create(
        path: &Path,
        passphrase: SecretString,
        profiles: &Profiles,
        (domain, algorithm): (TrustDomain, Option<&str>),
        people: &People,
        now: Timestamp,
    ) -> Result<(Self, Done), CeremonyError> {
        let people = people.checked()?;
        let (_, common_name) = root_names(&domain, None);
        let making = Making { domain, common_name: &common_name, epoch: Epoch(1), algorithm };
        let mut directory = Self::make(path, passphrase, profiles, &making, now)?;
        let done = directory.finish(Act::plain("root made", LIST_LIFETIME), Vec::new(), &people, now)?;
        Ok((directory, done))
    }

    /// Key and certificate, which count once their record is written.
    fn make(
        path: &Path,
        passphrase: SecretString,
        profiles: &Profiles,
        making: &Making<'_>,
        now: Timestamp,
    ) -> Result<Self, CeremonyError> {
        let lock = lock(path)?;
        settle(path)?;
        let missing = || PkiError::Profile { name: "root".to_owned(), why: "it is not there".to_owned() };
        let profile = profiles.find("root").ok_or_else(missing)?;
        let algorithm = match making.algorithm {
            Some("p384") => KeyAlgorithm::P384,
            Some(_) => KeyAlgorithm::P256,
            None => profile.keys.first().copied().unwrap_or(KeyAlgorithm::P256),
        };
        if path.join(CERTIFICATE).exists() {
            return Err(CeremonyError::Exists(path.to_owned()));
        }
        let keys = Keys::open(&path.join("keys"), passphrase)?;
        // One that is there is of a ceremony that died before its certificate was kept.
        let signer = if keys.contains(KEY) { keys.load(KEY)? } else { keys.create(KEY, algorithm)? };
        let random = SystemRandom::new();
        let (organization, _) = root_names(&making.domain, None);
        let template = Template {
            profile,
            serial: Serial::new(making.epoch, Index(0), octets(&random)?),
            common_name: making.common_name,
            organization: &organization,
            uri: None,
            dns_names: &[],
            addresses: &[],
            not_before: now - profile.backdate,
            not_after: now + profile.lifetime,
            spki: signer.public_key(),
            pointers: &Pointers::default(),
        };
        let made = issue(&Issuer { certificate: Vec::new().into(), signer: signer.clone() }, &template)?;
        let root = Issuer { certificate: made.der.into(), signer };
        let state = State {
            format: FORMAT.to_owned(),
            trust_domain: making.domain.clone(),
            root: made.fingerprint,
            list: 0,
            taken_over: false,
            issued: Vec::new(),
            revoked: Vec::new(),
            bundle: None,
        };
        Ok(Self { path: path.to_owned(), state, root, random, _lock: lock })
    }

    /// Opens a root's directory. Its records are verified first: what was changed behind them is not built upon.
    ///
    /// # Errors
    /// [`CeremonyError::Missing`], [`CeremonyError::Busy`], [`CeremonyError::Record`], [`CeremonyError::Pki`] for the passphrase.
    pub fn open(path: &Path, passphrase: SecretString) -> Result<Self, CeremonyError> {
        if !path.join(CERTIFICATE).exists() && !path.join(RECORDS).exists() {
            return Err(CeremonyError::Missing(path.to_owned()));
        }
        let lock = lock(path)?;
        settle(path)?;
        if !path.join(CERTIFICATE).exists() {
            return Err(CeremonyError::Missing(path.to_owned()));
        }
        verify(path)?;
        let damaged = |error: serde_json::Error| CeremonyError::Unreadable { what: "root.json", why: error.to_string() };
        let state: State = serde_json::from_slice(&read(&path.join(STATE))?).map_err(damaged)?;
        let certificate = certificate(path)?;
        let signer = Keys::open(&path.join("keys"), passphrase)?.load(KEY)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).map_err(|_| unreadable("root.pem"))?;
        if facts(&certificate)?.fingerprint != state.root || parsed.public_key().raw != signer.public_key() {
            return Err(CeremonyError::Foreign("root.pem, root.json and the key are of different roots".to_owned()));
        }
        let root = Issuer { certificate: certificate.into(), signer };
        Ok(Self { path: path.to_owned(), state, root, random: SystemRandom::new(), _lock: lock })
    }

    /// SHA-256 over the root's certificate.
    pub const fn fingerprint(&self) -> Fingerprint {
        self.state.root
    }

    /// Judges a request: gives what may be signed, in the request's order, or the first thing that may not.
    ///
    /// # Errors
    /// [`CeremonyError::Foreign`], [`CeremonyError::Refused`].
    pub fn judge<'a>(&self, request: &'a RootRequest, profiles: &'a Profiles) -> Result<Judged<'a>, CeremonyError> {
        if request.trust_domain != self.state.trust_domain {
            let why = format!("the request is of {}, this root is of {}", request.trust_domain, self.state.trust_domain);
            return Err(CeremonyError::Foreign(why));
        }
        if request.root.is_some_and(|root| root != self.state.root) || request.new_root.is_some() {
            return Err(CeremonyError::Foreign("the request is for another root of this trust domain".to_owned()));
        }
        if request.list > self.state.list {
            let (there, here) = (request.list, self.state.list);
            let why = format!("the server has list {there} of this root, this directory knows {here}: it is an old copy");
            return Err(CeremonyError::Foreign(why));
        }
        for line in &request.revoke {
            self.revocable(line)?;
        }
        let items = request.authorities.iter().map(|asked| {
            let item = certifiable(asked, profiles)?;
            self.issued_before(&Wanted::of(&item))?;
            Ok(item)
        });
        let authorities = items.collect::<Result<_, CeremonyError>>()?;
        Ok(Judged { authorities, roots: self.judge_roots(request, profiles)?, bundle: self.judge_bundle(request)? })
    }

    /// Certifies what was judged, signs the trust bundle, puts on the list what is to be revoked, makes a new list, and writes the
    /// record.
    ///
    /// # Errors
    /// [`CeremonyError`]; nothing of it counts before its record is written.
    pub fn sign(
        &mut self,
        request: &RootRequest,
        items: &Judged<'_>,
        people: &People,
        now: Timestamp,
    ) -> Result<Done, CeremonyError> {
        let people = people.checked()?;
        let mut certified = Vec::new();
        for item in &items.authorities {
            certified.push(self.certify(item, &request.pointers(), now)?);
        }
        certified.extend(self.certify_roots(request, items, now)?);
        let bundle = request.bundle.as_ref().map(|bundle| bundle.number).zip(items.bundle.clone());
        let request_hash = Some(request.digest());
        let list_holds = LIST_LIFETIME;
        let act = Act { name: "request answered", request: request_hash, certified: &certified, list_holds, bundle };
        self.finish(act, request.revoke.clone(), &people, now)
    }

    fn certify(&mut self, item: &Certifiable<'_>, pointers: &Pointers, now: Timestamp) -> Result<Certified, CeremonyError> {
        let wanted = Wanted::of(item);
        let der = match self.issued_before(&wanted)? {
            Some(before) => before,
            None => item.certify(&self.root, &self.state.trust_domain, pointers, octets(&self.random)?, now)?.der,
        };
        self.issued(&wanted.title, &der)?;
        Ok((item.asked.id.clone(), wanted.title, der))
    }

    /// Writes down what was certified, once.
    fn issued(&mut self, title: &str, der: &[u8]) -> Result<(), CeremonyError> {
        let serial = facts(der)?.serial.map(|serial| serial.to_string()).unwrap_or_default();
        if self.state.issued.iter().all(|known| known.serial != serial) {
            let (title, certificate) = (title.to_owned(), bundle::pem(&[der]));
            self.state.issued.push(Issued { serial, title, certificate });
        }
        Ok(())
    }

    /// Makes a new list, with these on it besides those that are.
    ///
    /// # Errors
    /// [`CeremonyError`].
    pub fn list(
        &mut self,
        revoke: Vec<ToRevoke>,
        lifetime: Duration,
        people: &People,
        now: Timestamp,
    ) -> Result<Done, CeremonyError> {
        let people = people.checked()?;
        for line in &revoke {
            self.revocable(line)?;
        }
        self.finish(Act::plain("list made", lifetime), revoke, &people, now)
    }

    /// The certificate that the same request for the same place was given before.
    fn issued_before(&self, wanted: &Wanted) -> Result<Option<Vec<u8>>, CeremonyError> {
        let refused = |why: &str| CeremonyError::Refused { item: wanted.id.clone(), why: why.to_owned() };
        let place = |serial: Option<Serial>| serial.is_some_and(|serial| (serial.epoch(), serial.index()) == wanted.place);
        if place(facts(&self.root.certificate)?.serial) {
            return Err(refused("the place of its serial is the root's own"));
        }
        for issued in &self.state.issued {
            let der = from_pem("a certificate in root.json", "CERTIFICATE", &issued.certificate)?;
            let known = facts(&der)?;
            match (place(known.serial), known.key_hash == wanted.key) {
                (true, true) if issued.title == wanted.title => return Ok(Some(der)),
                (true, _) => return Err(refused("the place of its serial was given to another authority")),
                (_, true) => return Err(refused("its key was certified before, for another place")),
                _ => {}
            }
        }
        Ok(None)
    }

    fn revocable(&self, line: &ToRevoke) -> Result<(), CeremonyError> {
        let serial = line.serial()?.to_string();
        if self.state.taken_over || self.state.issued.iter().any(|issued| issued.serial == serial) {
            return Ok(());
        }
        Err(CeremonyError::Refused { item: serial, why: "this root certified no such thing".to_owned() })
    }

    /// Makes the new list and the record of `act`, keeps both, and gives what goes back to the server.
    fn finish(&mut self, act: Act<'_>, revoke: Vec<ToRevoke>, people: &People, now: Timestamp) -> Result<Done, CeremonyError> {
        let new: Vec<ToRevoke> =
            revoke.into_iter().filter(|line| self.state.revoked.iter().all(|known| known.serial != line.serial)).collect();
        let revoked = new.iter().map(|line| Ok((line.serial()?, line.reason))).collect::<Result<_, CeremonyError>>()?;
        self.state.revoked.extend(new);
        let (list, line) = self.new_list(act.list_holds, now)?;
        let voice = self.sign_bundle(act.bundle.as_ref())?;
        let texts = [
            (CERTIFICATE, bundle::pem(&[&self.root.certificate]).into_bytes()),
            (LIST, bundle::crl_pem(&list).into_bytes()),
            (STATE, json(&self.state)),
        ];
        let (number, previous) = newest(&self.path)?;
        let before = texts_before(&self.path, number)?;
        let bundle = act.bundle.as_ref().map(|(number, content)| (*number, sha256(content)));
        let record = Record {
            number: number.saturating_add(1),
            previous,
            made: now,
            by: people.by.clone(),
            witnesses: people.witnesses.clone(),
            machine: people.machine.clone(),
            software: people.software.clone(),
            act: act.name.to_owned(),
            trust_domain: self.state.trust_domain.clone(),
            root: self.state.root,
            request: act.request,
            certificates: act.certified.iter().map(line_of).collect::<Result<_, CeremonyError>>()?,
            revoked,
            list: line,
            bundle,
            files: texts.iter().map(|(name, octets)| (sha256(octets), (*name).to_owned())).collect(),
        };
        let text = record.text();
        let signature = detached::sign(&self.root, text.as_bytes(), now)?;
        let file = self.keep(&texts, &record, &text, &signature)?;
        let authorities: Vec<_> = act.certified.iter().map(|(id, _, der)| (id.clone(), der.clone())).collect();
        let answer = RootAnswer::new(&self.root.certificate, &authorities, &list, text.clone(), &signature);
        let answer = RootAnswer { bundle: voice, before, ..answer };
        Ok(Done { record: text, record_file: file, answer })
    }

    /// The next list, in DER, and its line in the record.
    fn new_list(&mut self, holds: Duration, now: Timestamp) -> Result<(Vec<u8>, ListLine), CeremonyError> {
        self.state.list = self.state.list.saturating_add(1);
        // Backdated: a server whose clock is behind this machine's takes the list all the same.
        let header = CrlHeader { number: self.state.list, this_update: now - CLOCKS, next_update: now + holds, point: None };
        let lines = self.state.revoked.iter().map(|line| {
            let since = line.since.min(header.this_update);
            Ok(RevokedCertificate { serial: line.serial()?, since, reason: Some(line.reason) })
        });
        let lines = lines.collect::<Result<Vec<_>, CeremonyError>>()?;
        let list = build(&self.root, &header, &[&entries(&lines)])?;
        let (number, hash, next_update) = (header.number, sha256(&list), header.next_update);
        Ok((list, ListLine { number, hash, entries: lines.len(), next_update }))
    }

    /// Writes files, signature and record, the record last; gives the record's file.
    fn keep(&self, texts: &[(&str, Vec<u8>)], record: &Record, text: &str, signature: &[u8]) -> Result<PathBuf, CeremonyError> {
        for (name, octets) in texts {
            write(&self.path.join(format!("{name}{NEXT}")), octets)?;
        }
        let file = record_file(&self.path, record.number);
        write(&file.with_extension("cms"), bundle::cms_pem(signature).as_bytes())?;
        write(&file, text.as_bytes())?;
        settle(&self.path)?;
        Ok(file)
    }
}

/// A root to make.
struct Making<'a> {
    domain: TrustDomain,
    common_name: &'a str,
    /// Its numbering space.
    epoch: Epoch,
    algorithm: Option<&'a str>,
}

/// What a request asks to be certified.
struct Wanted {
    id: String,
    title: String,
    place: (Epoch, Index),
    key: KeyHash,
}

impl Wanted {
    fn of(item: &Certifiable<'_>) -> Self {
        let place = (Epoch(item.asked.epoch), Index(item.asked.index));
        Self { id: item.asked.id.clone(), title: item.asked.title(), place, key: item.csr.key_hash() }
    }
}

/// Id, title and certificate.
type Certified = (String, String, Vec<u8>);

/// What an act consists of, besides what it revokes.
struct Act<'a> {
    /// What the record calls it.
    name: &'static str,
    /// SHA-256 of the request's file.
    request: Option<String>,
    /// What was signed.
    certified: &'a [Certified],
    /// How long the new list holds.
    list_holds: Duration,
    /// The trust bundle to sign: number and content.
    bundle: Option<(u64, Vec<u8>)>,
}

impl Act<'_> {
    /// One that certifies nothing.
    const fn plain(name: &'static str, list_holds: Duration) -> Self {
        Self { name, request: None, certified: &[], list_holds, bundle: None }
    }
}

impl People {
    fn checked(&self) -> Result<Self, CeremonyError> {
        Ok(Self {
            by: name(&self.by)?,
            witnesses: self.witnesses.iter().map(|witness| name(witness)).collect::<Result<_, _>>()?,
            machine: name(&self.machine)?,
            software: name(&self.software)?,
        })
    }
}

fn line_of((id, title, der): &Certified) -> Result<CertificateLine, CeremonyError> {
    let known = facts(der)?;
    let serial = known.serial.ok_or_else(|| unreadable("a serial"))?;
    let (fingerprint, not_after) = (known.fingerprint, known.not_after);
    Ok(CertificateLine { serial, fingerprint, not_after, id: id.clone(), title: title.clone() })
}

fn octets<const N: usize>(random: &SystemRandom) -> Result<[u8; N], CeremonyError> {
    let mut out = [0; N];
    random.fill(&mut out).map_err(|_| PkiError::Signing)?;
    Ok(out)
}

fn unreadable(what: &'static str) -> CeremonyError {
    CeremonyError::Unreadable { what, why: "it is damaged".to_owned() }
}
