//! A root on a machine of its own. What it needs to know comes to it as a file, what it signs leaves it as a file, and every act is
//! written into a record that the root's key signs and people print and sign by hand. Nothing here speaks to a network, and nothing
//! here knows a server.
//!
//! - [`request`]: what a server asks a root for.
//! - [`answer`]: what a root gives back.
//! - [`record`]: what was done, as a text; each names the one before it by its hash.
//! - [`directory`]: the root's directory: key, certificate, list, records.
//! - `files`: the files of that directory, and whether they are as the records say.
//! - [`judge`]: what a request asks for, held against the profiles; what an answer says, held against what was asked.

pub mod answer;
pub mod directory;
mod files;
pub mod judge;
pub mod record;
pub mod request;

use std::path::PathBuf;

pub use files::verify;
use fleetmark_domain::{FleetName, Kind, TrustDomain};
use ring::digest::{SHA256, digest};

use crate::pki::PkiError;
use crate::pki::profile::Profiles;

/// The largest request or answer, in octets.
pub const MAX_FILE: usize = 512 * 1024;

/// Why a ceremony cannot go on. Nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum CeremonyError {
    /// A file cannot be read or written.
    #[error("{}: the file cannot be used", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is none of those that a ceremony takes.
    #[error("{what} cannot be read: {why}")]
    Unreadable {
        /// Which sort of file.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The directory holds a root already.
    #[error("{}: there is a root here already", .0.display())]
    Exists(PathBuf),
    /// The directory holds no root.
    #[error("{}: there is no root here", .0.display())]
    Missing(PathBuf),
    /// Another process works in the directory.
    #[error("{}: another process works with this root", .0.display())]
    Busy(PathBuf),
    /// The request is not the one whose digest was read out.
    #[error(
        "request_changed: the request's SHA-256 is {found}, not {expected}: it is another file than the one that was compared"
    )]
    Digest {
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The request is for another root or installation.
    #[error("request_foreign: {0}")]
    Foreign(String),
    /// Something that the request asks for is not what the profiles allow.
    #[error("request_refused: {item}: {why}")]
    Refused {
        /// What.
        item: String,
        /// Why not.
        why: String,
    },
    /// A record, or what it speaks of, was changed afterwards.
    #[error("record_invalid: {0}")]
    Record(String),
    /// A name for the record cannot be used.
    #[error("{0:?} cannot stand in a record: 1 to 128 printable characters on one line")]
    Name(String),
    /// Keys, certificates, profiles.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// Subject O and CN of an authority: its fleet or the trust domain, and what it issues for; of a successor its number too. Who looks
/// for a revocation list by its issuer's name alone, as mbedTLS does, finds one so. RFC 5280 A.1 bounds each to 64 characters.
pub fn authority_names(domain: &TrustDomain, kind: Kind, fleet: Option<&FleetName>, number: Option<u32>) -> (String, String) {
    let bounded = |text: &str| text.get(..64).unwrap_or(text).to_owned();
    let tail = format!("{kind} authority{}", number.map(|number| format!(" {number}")).unwrap_or_default());
    let whose = fleet.map_or_else(String::new, |fleet| format!("{fleet} "));
    let whose = whose.get(..64_usize.saturating_sub(tail.len())).unwrap_or(&whose);
    (bounded(fleet.map_or(domain.as_str(), FleetName::as_str)), format!("{whose}{tail}"))
}

/// The number in the name of an authority, by which its certificate request tells it.
pub fn number_in(common_name: &str) -> Option<u32> {
    let (_, number) = common_name.rsplit_once(" authority ")?;
    number.parse().ok().filter(|number| *number > 1)
}

/// Subject O and CN of the root; one that has another name than the root before it has its number there.
pub fn root_names(domain: &TrustDomain, number: Option<u32>) -> (String, String) {
    let bounded = |text: &str, most: usize| text.get(..most).unwrap_or(text).to_owned();
    let number = number.map(|number| format!(" {number}")).unwrap_or_default();
    let common_name = bounded(&format!("{domain} root"), 64_usize.saturating_sub(number.len()));
    (bounded(domain.as_str(), 64), common_name + &number)
}

/// Whether a common name is one that a root of this installation may have.
pub fn is_root_name(domain: &TrustDomain, common_name: &str) -> bool {
    let number = common_name.rsplit_once(' ').and_then(|(_, number)| number.parse().ok());
    [None, number.filter(|number| *number > 1)].into_iter().any(|number| root_names(domain, number).1 == common_name)
}

/// SHA-256 in hexadecimal, as `sha256sum` prints it.
pub fn sha256(octets: &[u8]) -> String {
    hex::encode(digest(&SHA256, octets))
}

/// A digest as people read it to each other: groups of four digits, eight groups a line.
pub fn grouped(digest: &str) -> String {
    let groups: Vec<&str> = digest.as_bytes().chunks(4).filter_map(|group| std::str::from_utf8(group).ok()).collect();
    let lines: Vec<String> = groups.chunks(8).map(|line| format!("    {}", line.join(" "))).collect();
    lines.join("\n") + "\n"
}

/// The profiles of this machine: those built in, overlaid by the files of a directory.
///
/// # Errors
/// [`CeremonyError::Pki`].
pub fn profiles(directory: Option<&std::path::Path>) -> Result<Profiles, CeremonyError> {
    Ok(Profiles::load(directory)?)
}

/// A revocation list in PEM.
pub fn list_pem(der: &[u8]) -> String {
    crate::pki::bundle::crl_pem(der)
}

/// SHA-256 over a certificate in PEM, for people; `unreadable` for what is none.
pub fn fingerprint(pem: &str) -> String {
    from_pem("a certificate", "CERTIFICATE", pem).map_or_else(|_| "unreadable".to_owned(), |der| sha256(&der))
}

/// One text of each JSON file: two spaces, and a line end behind.
fn json(value: &impl serde::Serialize) -> Vec<u8> {
    // Only maps whose keys are no text and writers that fail make this fail; we have neither.
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    text
}

fn from_json<T: serde::de::DeserializeOwned>(what: &'static str, octets: &[u8]) -> Result<T, CeremonyError> {
    if octets.len() > MAX_FILE {
        return Err(CeremonyError::Unreadable { what, why: "it is larger than 512 KiB".to_owned() });
    }
    serde_json::from_slice(octets).map_err(|error| CeremonyError::Unreadable { what, why: error.to_string() })
}

/// The octets of the one PEM block with this label.
fn from_pem(what: &'static str, label: &str, text: &str) -> Result<Vec<u8>, CeremonyError> {
    use base64::Engine as _;
    let wrong = || CeremonyError::Unreadable { what, why: format!("it is not one block of PEM, {label}") };
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----")).ok_or_else(wrong)?;
    let (content, rest) = rest.split_once(&format!("-----END {label}-----")).ok_or_else(wrong)?;
    let packed: String = content.split_ascii_whitespace().collect();
    let der = base64::engine::general_purpose::STANDARD.decode(packed).map_err(|_| wrong())?;
    if rest.trim().is_empty() { Ok(der) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests;
