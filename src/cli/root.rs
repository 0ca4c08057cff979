//! `fleetmark root`: the ceremony on the root's machine, without server and network; and what the server wants of it.

use std::io::{BufRead as _, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use fleetmark_domain::{Fingerprint, RevocationReason, Serial, Timestamp, TrustDomain};
use serde_json::{Value, json};

use super::arguments::{Listing, duration};
use super::client::Ask;
use super::failure::Failure;
use super::files::{self, write_new};
use super::session::{Session, print, print_json};
use super::table::Column;
use crate::ceremony::directory::{Done, LIST_LIFETIME, People, RootDirectory};
use crate::ceremony::judge::{Certifiable, Crossable, new_root};
use crate::ceremony::request::{AskedBundle, BundleRoot, RootRequest, ToRevoke};
use crate::ceremony::verify;
use crate::ceremony::{CeremonyError, MAX_FILE, fingerprint, grouped, profiles, sha256};
use crate::config::passphrase::{self, Surroundings};
use crate::telemetry::clock::{Clock as _, SystemClock};

const COLUMNS: [Column; 5] = [
    Column("ID", "id"),
    Column("KIND", "kind"),
    Column("FLEET", "fleet"),
    Column("STATE", "state"),
    Column("ASKED", "asked_at"),
];

/// `fleetmark root`
#[derive(Debug, Subcommand)]
pub enum RootCommand {
    #[command(flatten)]
    Offline(OfflineCommand),
    #[command(flatten)]
    Online(OnlineCommand),
}

/// On the root's machine.
#[derive(Debug, Subcommand)]
pub enum OfflineCommand {
    /// Make a root: its key, certificate, first revocation list and first record
    Create {
        #[command(flatten)]
        ceremony: Ceremony,
        /// The root of all identities, such as fleet.example
        #[arg(long, value_name = "DOMAIN", required_unless_present = "request", conflicts_with = "request")]
        trust_domain: Option<TrustDomain>,
        /// p256 or p384
        #[arg(long, value_name = "ALGORITHM", value_parser = ["p256", "p384"])]
        key: Option<String>,
        #[command(flatten)]
        by_request: ByRequest,
    },
    /// Take over a root that a server made, when its key leaves that machine for good
    TakeOver {
        #[command(flatten)]
        ceremony: Ceremony,
        /// The root's key file, as it lay at the server; its passphrase is the server's
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The root's certificate in DER: `/ca/root.crt`
        #[arg(long, value_name = "FILE")]
        certificate: PathBuf,
        /// The root's revocation list in DER: `/crl/root.crl`
        #[arg(long, value_name = "FILE")]
        crl: PathBuf,
        /// Where what goes back to the server is written
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Answer a server's request, item by item
    Sign {
        #[command(flatten)]
        ceremony: Ceremony,
        /// The request
        request: PathBuf,
        /// Where the answer is written
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// SHA-256 of the request, as the server's people read it out
        #[arg(long, value_name = "HEX")]
        digest: Option<String>,
        /// Sign everything that passes the checks, and ask nobody
        #[arg(long)]
        yes: bool,
    },
    /// Make a new revocation list, and put a certificate on it
    Crl {
        #[command(flatten)]
        ceremony: Ceremony,
        /// The serial of a certificate that this root issued; may be repeated
        #[arg(long, value_name = "SERIAL")]
        revoke: Vec<Serial>,
        /// Why: a reason of RFC 5280, such as keyCompromise or cessationOfOperation
        #[arg(long, value_name = "REASON", requires = "revoke", default_value = "unspecified")]
        reason: RevocationReason,
        /// How long the list holds: 30d to 400d
        #[arg(long, value_name = "TIME", value_parser = list_lifetime, default_value = "180d")]
        holds: Duration,
        /// Where the answer for the server is written
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Verify the records of a root's directory, and the files that they name
    Verify {
        /// The root's directory
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

/// A root that replaces another.
#[derive(Debug, Args)]
pub struct ByRequest {
    /// The server's request for a root that is to replace another
    #[arg(long, value_name = "FILE", requires = "out")]
    request: Option<PathBuf>,
    /// Where the answer to that request is written
    #[arg(long, value_name = "FILE", requires = "request")]
    out: Option<PathBuf>,
    /// SHA-256 of the request, as the server's people read it out
    #[arg(long, value_name = "HEX", requires = "request")]
    digest: Option<String>,
    /// Sign everything that passes the checks, and ask nobody
    #[arg(long, requires = "request")]
    yes: bool,
}

/// Where the root is, and who is there.
#[derive(Debug, Args)]
pub struct Ceremony {
    /// The root's directory
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Who does it, for the record
    #[arg(long, value_name = "NAME")]
    by: String,
    /// Who is there, for the record; may be repeated
    #[arg(long = "witness", value_name = "NAME")]
    witnesses: Vec<String>,
    /// A file with the passphrase of the root's key, mode 0600
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Certificate profiles that replace the built-in ones
    #[arg(long, value_name = "DIR")]
    profiles: Option<PathBuf>,
}

/// At the server.
#[derive(Debug, Subcommand)]
pub enum OnlineCommand {
    /// Fetch what the server wants of its root
    Request {
        /// Where the request is written
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Another root than the active one: its number, as `root requests` shows it
        #[arg(long, value_name = "ID")]
        root: Option<u32>,
    },
    /// List what the server wants of its root
    Requests(Listing),
    /// Bring the answer of a ceremony to the server
    Accept {
        /// The answer
        file: PathBuf,
        /// SHA-256 of a new root's certificate, as it was read out at its ceremony
        #[arg(long, value_name = "HEX")]
        root_fingerprint: Option<Fingerprint>,
    },
    /// Bring newer revocation lists of the corporate authorities above the root to the server
    ImportCrl {
        /// Lists in PEM, or one in DER
        file: PathBuf,
    },
}

fn list_lifetime(text: &str) -> Result<Duration, String> {
    let day = Duration::from_secs(86_400);
    duration(text).and_then(|time| {
        if (30 * day..=400 * day).contains(&time) { Ok(time) } else { Err("a list holds for 30d to 400d".to_owned()) }
    })
}

impl Ceremony {
    fn people(&self) -> People {
        People {
            by: self.by.clone(),
            witnesses: self.witnesses.clone(),
            machine: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            software: format!("fleetmark {}", env!("CARGO_PKG_VERSION")),
        }
    }

    fn passphrase(&self, is_new: bool) -> Result<secrecy::SecretString, Failure> {
        Ok(passphrase::of_root(self.passphrase_file.as_deref(), &Surroundings::of_process(), is_new)?.secret)
    }

    fn open(&self) -> Result<RootDirectory, Failure> {
        Ok(RootDirectory::open(&self.dir, self.passphrase(false)?)?)
    }
}

impl OfflineCommand {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn run(self, json: bool) -> Result<(), Failure> {
        let now = SystemClock.now();
        match self {
            Self::Create { ceremony, trust_domain, key, by_request } => {
                create(&ceremony, trust_domain, key.as_deref(), &by_request, json, now)
            }
            Self::TakeOver { ceremony, key, certificate, crl, out } => {
                unused(&out)?;
                let (key, certificate, crl) = (read(&key)?, read(&certificate)?, read(&crl)?);
                let files = (&key[..], &certificate[..], &crl[..]);
                let taken =
                    RootDirectory::take_over(&ceremony.dir, ceremony.passphrase(false)?, files, &ceremony.people(), now);
                let (root, done) = taken?;
                write_new(&out, &done.answer.file(), 0o666)?;
                told(&done, Some(&out), json, &format!("The root's SHA-256 fingerprint: {}\n", root.fingerprint()))
            }
            Self::Sign { ceremony, request, out, digest, yes } => {
                sign(&ceremony, &request, &out, digest.as_deref(), yes, json, now)
            }
            Self::Crl { ceremony, revoke, reason, holds, out } => {
                let line = |serial: &Serial| ToRevoke { serial: serial.to_string(), reason, since: now };
                let revoke = revoke.iter().map(line).collect();
                unused(&out)?;
                let holds = if holds.is_zero() { LIST_LIFETIME } else { holds };
                let done = ceremony.open()?.list(revoke, holds, &ceremony.people(), now)?;
                write_new(&out, &done.answer.file(), 0o666)?;
                told(&done, Some(&out), json, "")
            }
            Self::Verify { dir } => {
                let records = verify(&dir)?;
                let count = records.len();
                if json {
                    return print_json(&json!({"records": count}));
                }
                print(&format!(
                    "{count} records, each signed by the root and naming the one before it; the newest names the files as they are.\n"
                ))
            }
        }
    }
}

/// Makes a root, for a new installation or by a server's request.
fn create(
    ceremony: &Ceremony,
    trust_domain: Option<TrustDomain>,
    key: Option<&str>,
    by_request: &ByRequest,
    json: bool,
    now: Timestamp,
) -> Result<(), Failure> {
    let profiles = profiles(ceremony.profiles.as_deref())?;
    let made = |root: &RootDirectory| format!("The root's SHA-256 fingerprint: {}\n", root.fingerprint());
    let ByRequest { request: Some(file), out: Some(out), digest, yes } = by_request else {
        let domain = trust_domain.ok_or_else(|| Failure::Usage("give --trust-domain or --request".to_owned()))?;
        let (secret, people) = (ceremony.passphrase(true)?, ceremony.people());
        let (root, done) = RootDirectory::create(&ceremony.dir, secret, &profiles, (domain, key), &people, now)?;
        return told(&done, None, json, &made(&root));
    };
    let (request, found) = compared(file, digest.as_deref())?;
    unused(out)?;
    let items = new_root(&request, &profiles)?;
    if !json || !yes {
        eprint!("{}", shown(&request, &found));
    }
    if !yes {
        let name = request.new_root.as_ref().map(|new| new.name.clone()).unwrap_or_default();
        let questions = std::iter::once(format!("make a new root, {name}")).chain(items.roots.iter().map(cross));
        agree_to(&questions.chain(request.bundle.iter().map(bundle)).collect::<Vec<_>>())?;
    }
    let secret = ceremony.passphrase(true)?;
    let created = RootDirectory::create_for(&ceremony.dir, secret, &profiles, (&request, key), &ceremony.people(), now);
    let (root, done) = created?;
    write_new(out, &done.answer.file(), 0o666)?;
    told(&done, Some(out), json, &made(&root))
}

/// A request and its digest, which is the one that was read out.
fn compared(file: &Path, digest: Option<&str>) -> Result<(RootRequest, String), Failure> {
    let octets = read(file)?;
    let found = sha256(&octets);
    let expected = digest.map(|digest| digest.chars().filter(char::is_ascii_hexdigit).collect::<String>().to_ascii_lowercase());
    if let Some(expected) = expected.filter(|expected| *expected != found) {
        return Err(CeremonyError::Digest { expected, found }.into());
    }
    let request = RootRequest::read(&octets)?;
    if request.digest() != found {
        let why = "it is not as a server writes it".to_owned();
        return Err(CeremonyError::Unreadable { what: "the request", why }.into());
    }
    Ok((request, found))
}

/// Shows a request, has a person say yes to each item, signs.
fn sign(
    ceremony: &Ceremony,
    file: &Path,
    out: &Path,
    digest: Option<&str>,
    yes: bool,
    json: bool,
    now: Timestamp,
) -> Result<(), Failure> {
    let (request, found) = compared(file, digest)?;
    unused(out)?;
    let mut directory = ceremony.open()?;
    let profiles = profiles(ceremony.profiles.as_deref())?;
    let items = directory.judge(&request, &profiles)?;
    if !json || !yes {
        eprint!("{}", shown(&request, &found));
    }
    if !yes {
        let questions = items.authorities.iter().map(question).chain(items.roots.iter().map(cross));
        let questions = questions.chain(request.bundle.iter().map(bundle)).chain(request.revoke.iter().map(revocation));
        agree_to(&questions.collect::<Vec<_>>())?;
    }
    let done = directory.sign(&request, &items, &ceremony.people(), now)?;
    write_new(out, &done.answer.file(), 0o666)?;
    told(&done, Some(out), json, "")
}

/// Asks for each of these.
fn agree_to(questions: &[String]) -> Result<(), Failure> {
    for (text, at) in questions.iter().zip(1_usize..) {
        agreed(&format!("\n{at} of {}: {text}\nSign this?", questions.len()))?;
    }
    if questions.is_empty() {
        agreed("Nothing is asked for but a new revocation list. Make it?")?;
    }
    Ok(())
}

fn shown(request: &RootRequest, digest: &str) -> String {
    format!(
        "Request of {}, whose public door is {}.\nIts SHA-256, to be compared with what the server says:\n{}",
        request.trust_domain,
        request.public_url,
        grouped(digest)
    )
}

fn question(item: &Certifiable<'_>) -> String {
    let days = item.asked.lifetime_seconds / 86_400;
    format!(
        "certify the {}\n  key (SHA-256 of its SubjectPublicKeyInfo): {}\n  for {days} days, path length {}, place {}/{} ({})",
        item.asked.title(),
        item.csr.key_hash(),
        item.asked.path_length,
        item.asked.epoch,
        item.asked.index,
        item.asked.id,
    )
}

fn cross(item: &Crossable<'_>) -> String {
    let fingerprint = fingerprint(&item.asked.certificate);
    let days = item.asked.lifetime_seconds / 86_400;
    format!(
        "certify the key of the root {fingerprint}\n  for {days} days at most, place {}/{}",
        item.asked.epoch, item.asked.index
    )
}

fn bundle(asked: &AskedBundle) -> String {
    let root = |root: &BundleRoot| format!("\n  {:?}: {}", root.state, fingerprint(&root.certificate)).to_lowercase();
    let roots: String = asked.roots.iter().map(root).collect();
    let revoked = asked.revoked.iter().map(|one| format!("\n  revoked: {}", one.fingerprint)).collect::<Vec<_>>().concat();
    format!("tell all devices that these roots are trusted (trust bundle {}):{roots}{revoked}", asked.number)
}

fn revocation(line: &ToRevoke) -> String {
    format!("put the certificate {} on the revocation list: {} since {}", line.serial, line.reason, line.since)
}

/// Asks a person; anything but `y` or `yes` ends it, and nothing was signed.
fn agreed(question: &str) -> Result<(), Failure> {
    eprint!("{question} [y/N] ");
    let mut line = String::new();
    let read = std::io::stdin().lock().take(64).read_line(&mut line).map_err(|error| Failure::of(&error))?;
    if read > 0 && matches!(line.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::Failed("not agreed: nothing was signed".to_owned(), None))
}

/// Prints what was done: the record, to be printed and signed by hand.
fn told(done: &Done, out: Option<&Path>, json: bool, more: &str) -> Result<(), Failure> {
    let record_hash = sha256(done.record.as_bytes());
    if json {
        return print_json(&json!({"record": done.record_file, "record_sha256": record_hash, "answer": out}));
    }
    print(&done.record)?;
    let out = out.map(|out| format!("What goes back to the server: {}\n", out.display())).unwrap_or_default();
    print(&format!(
        "\n{more}{out}The record, to be printed and signed: {}\nIts SHA-256:\n{}",
        done.record_file.display(),
        grouped(&record_hash)
    ))
}

impl OnlineCommand {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Request { out, root } => {
                unused(&out)?;
                let mut ask = Ask::path(&["v1", "root", "request"]);
                ask.query.push(("root", root.map(|root| root.to_string())));
                let answer = session.client.get(ask).await?;
                write_new(&out, &answer.body, 0o666)?;
                let digest = sha256(&answer.body);
                if session.json {
                    return print_json(&json!({"file": out, "sha256": digest}));
                }
                print(&format!(
                    "{}, for `fleetmark root sign`. Its SHA-256, to be compared on both machines:\n{}",
                    out.display(),
                    grouped(&digest)
                ))
            }
            Self::Requests(listing) => session.list(Ask::path(&["v1", "root", "requests"]), listing, &COLUMNS).await,
            Self::Accept { file, root_fingerprint } => {
                let body = body_of(&file)?;
                let mut ask = Ask::path(&["v1", "root", "answers"]);
                ask.query.push(("new_root", root_fingerprint.map(|fingerprint| fingerprint.to_string())));
                let answer = session.client.post(ask.body(body)).await?;
                session.print_record(&answer, &["record", "record_sha256", "list", "list_holds_until"])
            }
            Self::ImportCrl { file } => {
                let octets = read(&file)?;
                let lists = String::from_utf8(octets).unwrap_or_else(|error| crate::ceremony::list_pem(error.as_bytes()));
                let body = json!({"lists": lists});
                let answer = session.client.post(Ask::path(&["v1", "root", "lists"]).body(body)).await?;
                session.print_record(&answer, &[])
            }
        }
    }
}

fn body_of(file: &Path) -> Result<Value, Failure> {
    serde_json::from_slice(&read(file)?).map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))
}

/// A file of a ceremony.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    files::read(path, MAX_FILE)
}

/// Asked before anything is signed.
fn unused(path: &Path) -> Result<(), Failure> {
    if path.exists() { Err(Failure::Usage(format!("{}: there is a file here already", path.display()))) } else { Ok(()) }
}
