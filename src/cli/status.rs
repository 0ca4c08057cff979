//! `fleetmark status`: reads status lists as firmware does (docs/status-list.md). It asks the public door, or no server at all.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use fleetmark_domain::{Identity, Serial, Timestamp};
use fleetmark_status::header::{HEADER_LENGTH, Header, LONGEST, SIGNATURE_LENGTH, SLICE_SHIFT};
use fleetmark_status::{Answer, List, Refusal, STATUS_SIGNING_EKU, Scope, Terms, Verify};
use ring::digest::{SHA256, digest};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

use super::arguments::duration;
use super::client;
use super::failure::{Failure, ProblemDocument};
use super::files;
use super::session::{print, print_json};
use super::table::record;
use crate::config::profile::Profile;
use crate::telemetry::clock::{Clock as _, SystemClock};

/// The most certificates that a file of signers or anchors may hold.
const MAX_CERTIFICATES: usize = 64;
/// The largest file of certificates that is read, in octets.
const MAX_PEM: usize = 512 * 1024;

/// `fleetmark status`
#[derive(Debug, Subcommand)]
pub enum StatusCommand {
    /// Show what a status list is about, after it was verified as firmware does
    Show(ListArguments),
    /// Say what a status list tells of a certificate, as firmware would: anything but `good` is a failure
    Check {
        #[command(flatten)]
        list: ListArguments,
        /// The certificate in PEM; of several in the file, the first
        #[arg(long, value_name = "FILE")]
        cert: PathBuf,
    },
}

/// Which list, and what firmware would be given beside it.
#[derive(Debug, Args)]
pub struct ListArguments {
    /// The list: a file, or an address that begins with http://
    #[arg(value_name = "FILE|URL")]
    source: String,
    /// The certificates of the keys that sign, and of their authority, as a file or an address [default: signers.pem beside the list]
    #[arg(long, value_name = "FILE|URL")]
    signers: Option<String>,
    /// The roots or authorities to trust, in PEM [default: ca.pem of the operator's profile]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Whose certificates the list must be about: TRUST-DOMAIN/FLEET [default: what the certificate says, else any]
    #[arg(long = "of", value_name = "TRUST-DOMAIN/FLEET")]
    of: Option<String>,
    /// How old a list may be
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "24h")]
    max_age: Duration,
    /// The highest sequence that was seen before
    #[arg(long, value_name = "N", default_value_t = 0)]
    lowest_sequence: u64,
}

/// A list as it came, with the certificates that vouch for it.
struct Read {
    octets: Vec<u8>,
    header: Header,
    /// The issuing authority's certificate in DER.
    authority: CertificateDer<'static>,
    /// The key that the list names, where the authority certified one.
    key: Option<StatusKey>,
}

impl StatusCommand {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`]; where the list is refused, or its answer is not `good`, by the code's name in docs/status-list.md.
    pub async fn run(self, profile: Option<&Path>, json: bool) -> Result<(), Failure> {
        let now = SystemClock.now();
        match self {
            Self::Show(arguments) => {
                let read = arguments.read(profile, now).await?;
                let scope = Scope { fleet: arguments.fleet(None).unwrap_or(read.header.scope.fleet), ..read.header.scope };
                let opened = read.open(&scope, &arguments.terms(now)?);
                show(&shown(&read, opened, now), json)?;
                opened.map(drop).map_err(refused)
            }
            Self::Check { list, cert } => {
                let certificate = first_certificate(&cert)?;
                let facts = Facts::of(&certificate);
                let facts =
                    facts.ok_or_else(|| Failure::Usage(format!("{}: the certificate cannot be read", cert.display())))?;
                let read = list.read(profile, now).await?;
                let answer = list.ask(&read, &facts, now)?;
                show(&told(&read, &facts, answer), json)?;
                let answer = answer.map_err(refused)?;
                // A list goes by serial: another certificate with this one is told from it by its signature alone.
                if !is_issued_by(&certificate, &read.authority) {
                    return Err(problem("not_signed_by_authority", "The list's authority did not sign this certificate", None));
                }
                if facts.not_after < now || now < facts.not_before {
                    let holds = format!("It holds from {} to {}.", facts.not_before, facts.not_after);
                    return Err(problem("certificate_out_of_time", "The certificate does not hold now", Some(holds)));
                }
                if answer == Answer::Good {
                    return Ok(());
                }
                Err(named(answer.name(), answer.code(), "The list does not call the certificate good"))
            }
        }
    }
}

impl ListArguments {
    /// Reads the list, and finds the authority and the key that it names. Whether it may be used is not asked here.
    async fn read(&self, profile: Option<&Path>, now: Timestamp) -> Result<Read, Failure> {
        let octets = fetch(&self.source, LONGEST).await?;
        let header = Header::parse(&octets).map_err(refused)?;
        let signers = self.signers.clone().unwrap_or_else(|| beside(&self.source));
        let signers = certificates(&fetch(&signers, MAX_PEM).await?, &signers)?;
        let anchors = if let Some(path) = &self.ca {
            certificates(&files::read(path, MAX_PEM)?, &path.display().to_string())?
        } else {
            let profile = Profile::find(profile)?;
            certificates(&profile.ca_pem()?, &profile.directory.join("ca.pem").display().to_string())?
        };
        let authority = authority(&header.scope.authority, &signers, &anchors, now).map_err(Failure::NotTrusted)?;
        let key = signers.iter().find_map(|signer| status_key(signer, &authority, header.key_id, now));
        Ok(Read { octets, header, authority, key })
    }

    /// SHA-256 over whose certificates the list must be about, 16 octets of it.
    fn fleet(&self, certificate: Option<&Facts>) -> Option<[u8; 16]> {
        let said = certificate.and_then(|facts| facts.uris.iter().find_map(|uri| Identity::parse(uri).ok()));
        let said = said.map(|(domain, identity)| {
            let fleet = identity.fleet().map(|fleet| fleet.as_str().to_owned()).unwrap_or_default();
            format!("{domain}/{fleet}")
        });
        let name = self.of.clone().or(said)?.to_ascii_lowercase();
        digest(&SHA256, name.as_bytes()).as_ref().first_chunk().copied()
    }

    fn terms(&self, now: Timestamp) -> Result<Terms, Failure> {
        let max_age = u32::try_from(self.max_age.as_secs());
        let max_age = max_age.map_err(|_| Failure::Usage("--max-age: a list is not that old".to_owned()))?;
        Ok(Terms { now: u64::try_from(now.0).unwrap_or(0), lowest_sequence: self.lowest_sequence, max_age })
    }

    /// What firmware that was given this list and this certificate would say.
    fn ask(&self, read: &Read, facts: &Facts, now: Timestamp) -> Result<Result<Answer, Refusal>, Failure> {
        let usage = |text: &str| Failure::Usage(text.to_owned());
        let fleet = self.fleet(Some(facts));
        let fleet =
            fleet.ok_or_else(|| usage("the certificate names no fleet: say whose it is with --of TRUST-DOMAIN/FLEET"))?;
        let authority = facts.authority_key_id.as_deref().and_then(|id| id.try_into().ok());
        let authority = authority.ok_or_else(|| usage("the certificate does not name its authority's key"))?;
        let serial = facts.serial.ok_or_else(|| usage("the certificate's serial number is none of Fleetmark's"))?;
        let slice = fleetmark_status::slice_of(serial.index().0);
        let scope = Scope { fleet, authority, epoch: serial.epoch().0, slice };
        Ok(read.open(&scope, &self.terms(now)?).map(|list| list.query_serial(serial.octets())))
    }
}

impl Read {
    fn open(&self, scope: &Scope, terms: &Terms) -> Result<List<'_>, Refusal> {
        let key = self.key.as_ref().ok_or(Refusal::OtherKey)?;
        List::open(&self.octets, scope, terms, key)
    }
}

/// What a certificate says.
struct Facts {
    /// None for one that no authority of Fleetmark writes.
    serial: Option<Serial>,
    authority_key_id: Option<Vec<u8>>,
    subject_key_id: Option<Vec<u8>>,
    uris: Vec<String>,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Facts {
    fn of(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let mut facts = Self {
            serial: Serial::from_octets(certificate.raw_serial()).ok(),
            authority_key_id: None,
            subject_key_id: None,
            uris: Vec::new(),
            not_before: Timestamp(certificate.validity().not_before.timestamp()),
            not_after: Timestamp(certificate.validity().not_after.timestamp()),
        };
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    facts.authority_key_id = id.key_identifier.as_ref().map(|key| key.0.to_vec());
                }
                ParsedExtension::SubjectKeyIdentifier(id) => facts.subject_key_id = Some(id.0.to_vec()),
                ParsedExtension::SubjectAlternativeName(names) => {
                    facts.uris.extend(names.general_names.iter().filter_map(|name| match name {
                        GeneralName::URI(uri) => Some((*uri).to_owned()),
                        _ => None,
                    }));
                }
                _ => {}
            }
        }
        Some(facts)
    }
}

/// The point of a key that the authority delegated status lists to (SEC 1, uncompressed).
struct StatusKey(Vec<u8>);

impl Verify for StatusKey {
    fn key_id(&self) -> [u8; 8] {
        digest(&SHA256, &self.0).as_ref().first_chunk().copied().unwrap_or_default()
    }

    fn verify(&self, message: &[u8], signature: &[u8; SIGNATURE_LENGTH]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.0).verify(message, signature).is_ok()
    }
}

/// The certificate of the authority with this key identifier: an anchor itself, or one that an anchor signed.
fn authority(
    key_id: &[u8; 20],
    signers: &[CertificateDer<'static>],
    anchors: &[CertificateDer<'static>],
    now: Timestamp,
) -> Result<CertificateDer<'static>, String> {
    let is_named = |der: &&CertificateDer<'static>| {
        Facts::of(der).is_some_and(|facts| facts.subject_key_id.as_deref() == Some(key_id) && now <= facts.not_after)
    };
    if let Some(anchor) = anchors.iter().find(is_named) {
        return Ok(anchor.clone());
    }
    let found = signers.iter().find(is_named).ok_or_else(|| {
        format!("no certificate of the list's authority, whose key identifier is {}, is among the signers", hex::encode(key_id))
    })?;
    let is_vouched_for = anchors.iter().any(|anchor| is_issued_by(found, anchor));
    if !is_vouched_for {
        return Err("none of the trusted certificates signed that of the list's authority".to_owned());
    }
    Ok(found.clone())
}

/// Whether an authority's key signed a certificate, by name (RFC 5280 6.1.3) and signature.
fn is_issued_by(certificate: &[u8], authority: &[u8]) -> bool {
    let (Ok((_, certificate)), Ok((_, authority))) =
        (X509Certificate::from_der(certificate), X509Certificate::from_der(authority))
    else {
        return false;
    };
    authority.is_ca()
        && certificate.issuer().as_raw() == authority.subject().as_raw()
        && certificate.verify_signature(Some(authority.public_key())).is_ok()
}

/// The point of this signer's key, where it is the one with this id, and the authority certified it for status lists.
fn status_key(
    signer: &CertificateDer<'static>,
    authority: &CertificateDer<'static>,
    key_id: [u8; 8],
    now: Timestamp,
) -> Option<StatusKey> {
    let (_, parsed) = X509Certificate::from_der(signer).ok()?;
    let key = StatusKey(parsed.public_key().subject_public_key.data.to_vec());
    if key.key_id() != key_id {
        return None;
    }
    let anchor = webpki::anchor_from_trusted_cert(authority).ok()?;
    let leaf = webpki::EndEntityCert::try_from(signer).ok()?;
    let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.0).ok()?));
    let usage = webpki::KeyUsage::required(&STATUS_SIGNING_EKU);
    leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &[anchor], &[], at, usage, None, None).ok()?;
    Some(key)
}

/// What is in a list, for `show`.
fn shown(read: &Read, opened: Result<List<'_>, Refusal>, now: Timestamp) -> Value {
    let (header, scope) = (&read.header, &read.header.scope);
    let time = |seconds: u64| Timestamp(i64::try_from(seconds).unwrap_or(i64::MAX));
    let first = u32::from(scope.slice) << SLICE_SHIFT;
    let not_good = |list: List<'_>| (0..header.count).filter(|at| list.query(first + at) != Answer::Good).count();
    let not_good = opened.ok().map(not_good);
    let count = f64::from(header.count);
    let density = not_good.and_then(|count| u32::try_from(count).ok()).map(|not_good| f64::from(not_good) / count);
    let body = read.octets.len().saturating_sub(HEADER_LENGTH + SIGNATURE_LENGTH);
    json!({
        "list": opened.map_or_else(Refusal::name, |_| "opened"),
        "authority": hex::encode(scope.authority),
        "fleet": hex::encode(scope.fleet),
        "epoch": scope.epoch,
        "slice": scope.slice,
        "sequence": header.sequence,
        "this_update": time(header.this_update),
        "next_update": time(header.next_update),
        "age_seconds": u64::try_from(now.0).unwrap_or(0).saturating_sub(header.this_update),
        "signer": hex::encode(header.key_id),
        "certificates": header.count,
        "not_good": not_good,
        "density": density.map(|density| (density * 1e6).round() / 1e6),
        "octets": read.octets.len(),
        "body_octets": body,
        "body": if header.shift == 0 { "bitmap" } else { "blocks" },
    })
}

/// What `check` prints.
fn told(read: &Read, facts: &Facts, answer: Result<Answer, Refusal>) -> Value {
    let time = |seconds: u64| Timestamp(i64::try_from(seconds).unwrap_or(i64::MAX));
    let (name, code) = answer.map_or_else(|why| (why.name(), why.code()), |answer| (answer.name(), answer.code()));
    json!({
        "answer": name,
        "code": code,
        "serial": facts.serial.map(|serial| serial.to_string()),
        "sequence": read.header.sequence,
        "this_update": time(read.header.this_update),
        "next_update": time(read.header.next_update),
    })
}

fn show(value: &Value, json: bool) -> Result<(), Failure> {
    let first = ["list", "answer", "code", "serial", "authority", "fleet", "epoch", "slice", "sequence"];
    if json { print_json(value) } else { print(&record(&first, value)) }
}

fn refused(refusal: Refusal) -> Failure {
    named(refusal.name(), refusal.code(), "The list is refused, and nobody is let in by it")
}

/// A failure by its name in docs/status-list.md.
fn named(name: &str, code: u8, title: &str) -> Failure {
    problem(name, title, Some(format!("Code {code} in docs/status-list.md.")))
}

fn problem(name: &str, title: &str, detail: Option<String>) -> Failure {
    Failure::Refused(ProblemDocument { title: title.to_owned(), status: 0, code: name.to_owned(), detail })
}

/// `signers.pem` where the list is.
fn beside(source: &str) -> String {
    source.rsplit_once('/').map_or_else(|| "signers.pem".to_owned(), |(directory, _)| format!("{directory}/signers.pem"))
}

async fn fetch(source: &str, most: usize) -> Result<Vec<u8>, Failure> {
    if !source.contains("://") {
        return files::read(Path::new(source), most);
    }
    if !source.starts_with("http://") {
        let text = format!(
            "{source}: the public door is plain HTTP, since all that it gives is signed; fetch the file by other means"
        );
        return Err(Failure::Usage(text));
    }
    let http = client::builder().build().map_err(|error| Failure::of(&error))?;
    let response = http.get(source).send().await.map_err(|error| client::unsent(&error))?;
    if !response.status().is_success() {
        return Err(client::refused(response).await);
    }
    client::read(response, most).await
}

fn certificates(pem: &[u8], name: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).take(MAX_CERTIFICATES).collect();
    let found = found.ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| Failure::Usage(format!("{name}: these are no certificates in PEM")))
}

fn first_certificate(path: &Path) -> Result<CertificateDer<'static>, Failure> {
    let found = certificates(&files::read(path, MAX_PEM)?, &path.display().to_string())?;
    found.into_iter().next().ok_or_else(|| Failure::Usage(format!("{}: there is no certificate", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signers_are_looked_for_beside_the_list() {
        assert_eq!(beside("http://a.example:8080/status/5/3-0.fms"), "http://a.example:8080/status/5/signers.pem");
        assert_eq!(beside("/tmp/x/list"), "/tmp/x/signers.pem");
        assert_eq!(beside("list"), "signers.pem");
    }

    #[test]
    fn refusals_keep_their_names_and_end_with_1() {
        for refusal in Refusal::ALL {
            let failure = refused(refusal);
            assert_eq!((failure.code(), failure.json()["code"].as_str()), (1, Some(refusal.name())));
        }
        for answer in Answer::ALL {
            assert_eq!(named(answer.name(), answer.code(), "").code(), 1);
        }
    }
}
