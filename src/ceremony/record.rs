//! The record of an act with the root's key: a text of lines `key: value`, then room for signatures by hand. It is read back as strictly
//! as it is written: a record that is not what [`Record::text`] makes of its values is none.

use fleetmark_domain::{Fingerprint, RevocationReason, Serial, Timestamp, TrustDomain};

use super::CeremonyError;

/// The first line.
const HEAD: &str = "Fleetmark root record 1";
/// The longest record, in octets.
const MAX_RECORD: usize = 128 * 1024;
/// The longest name of a person or machine, in characters.
const MAX_NAME: usize = 128;

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// From 1.
    pub number: u64,
    /// SHA-256 of the record before this one, in hexadecimal; None of the first.
    pub previous: Option<String>,
    /// When, by the machine's clock.
    pub made: Timestamp,
    /// Who did it, as told.
    pub by: String,
    /// Who was there, as told.
    pub witnesses: Vec<String>,
    /// The machine's name.
    pub machine: String,
    /// The program and its version.
    pub software: String,
    /// `root made`, `request answered`, `list made`, `root taken over`.
    pub act: String,
    /// The installation.
    pub trust_domain: TrustDomain,
    /// SHA-256 of the root's certificate.
    pub root: Fingerprint,
    /// SHA-256 of the request's file, in hexadecimal.
    pub request: Option<String>,
    /// What was signed.
    pub certificates: Vec<CertificateLine>,
    /// What was put on the list now.
    pub revoked: Vec<(Serial, RevocationReason)>,
    /// The list.
    pub list: ListLine,
    /// The trust bundle that was signed: its number, and SHA-256 over its content in hexadecimal.
    pub bundle: Option<(u64, String)>,
    /// SHA-256 in hexadecimal and name of each file of the root's directory that can be shown.
    pub files: Vec<(String, String)>,
}

/// A certificate that was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateLine {
    /// Its serial.
    pub serial: Serial,
    /// SHA-256 over it.
    pub fingerprint: Fingerprint,
    /// Its end.
    pub not_after: Timestamp,
    /// The request's name at the server.
    pub id: String,
    /// What it is, for people.
    pub title: String,
}

/// The list that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListLine {
    /// `CRLNumber`.
    pub number: u64,
    /// SHA-256 over its DER, in hexadecimal.
    pub hash: String,
    /// How many it lists.
    pub entries: usize,
    /// Until when it holds.
    pub next_update: Timestamp,
}

/// Checks the name of a person or machine for a record.
///
/// # Errors
/// [`CeremonyError::Name`].
pub fn name(text: &str) -> Result<String, CeremonyError> {
    let is_fit = |letter: char| !letter.is_control() && !matches!(letter, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}');
    let trimmed = text.trim();
    let fits = (1..=MAX_NAME).contains(&trimmed.chars().count()) && trimmed.chars().all(is_fit);
    if fits { Ok(trimmed.to_owned()) } else { Err(CeremonyError::Name(text.chars().take(MAX_NAME).collect())) }
}

impl Record {
    /// The text.
    pub fn text(&self) -> String {
        let mut lines = vec![
            HEAD.to_owned(),
            format!("number: {}", self.number),
            format!("previous: {}", self.previous.as_deref().unwrap_or("none")),
            format!("made: {}", self.made),
            format!("by: {}", self.by),
        ];
        lines.extend(self.witnesses.iter().map(|name| format!("witness: {name}")));
        lines.push(format!("machine: {}", self.machine));
        lines.push(format!("software: {}", self.software));
        lines.push(format!("act: {}", self.act));
        lines.push(format!("trust-domain: {}", self.trust_domain));
        lines.push(format!("root: {}", self.root));
        lines.extend(self.request.iter().map(|digest| format!("request: {digest}")));
        lines.extend(
            self.certificates.iter().map(|one| {
                format!("certificate: {} {} {} {} {}", one.serial, one.fingerprint, one.not_after, one.id, one.title)
            }),
        );
        lines.extend(self.revoked.iter().map(|(serial, reason)| format!("revoked: {serial} {reason}")));
        let ListLine { number, hash, entries, next_update } = &self.list;
        lines.push(format!("list: {number} {hash} {entries} {next_update}"));
        lines.extend(self.bundle.iter().map(|(number, hash)| format!("bundle: {number} {hash}")));
        lines.extend(self.files.iter().map(|(hash, name)| format!("file: {hash} {name}")));
        lines.push(String::new());
        lines.push("Those who sign below were there. They compared the digests above with what they".to_owned());
        lines.push("read elsewhere, and saw the root's key used for nothing else.".to_owned());
        for name in std::iter::once(&self.by).chain(&self.witnesses) {
            lines.push(String::new());
            lines.push(format!("Name: {name}"));
            lines.push("Signature: ______________________________   Date: ______________".to_owned());
        }
        lines.join("\n") + "\n"
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`CeremonyError::Record`].
    pub fn parse(text: &str) -> Result<Self, CeremonyError> {
        let wrong = || CeremonyError::Record("it is not as Fleetmark writes records".to_owned());
        if text.len() > MAX_RECORD {
            return Err(wrong());
        }
        let record = read(text).ok_or_else(wrong)?;
        if record.text() == text { Ok(record) } else { Err(wrong()) }
    }
}

fn read(text: &str) -> Option<Record> {
    let (values, _) = text.split_once("\n\n")?;
    let mut lines = values.lines();
    lines.next().filter(|head| *head == HEAD)?;
    let pairs = lines.map(|line| line.split_once(": ")).collect::<Option<Vec<_>>>()?;
    let all = |key: &str| -> Vec<&str> { pairs.iter().filter(|(k, _)| *k == key).map(|(_, value)| *value).collect() };
    let one = |key: &str| match *all(key).as_slice() {
        [value] => Some(value),
        _ => None,
    };
    let previous = one("previous")?;
    Some(Record {
        number: one("number")?.parse().ok()?,
        previous: (previous != "none").then(|| previous.to_owned()),
        made: timestamp(one("made")?)?,
        by: name(one("by")?).ok()?,
        witnesses: all("witness").into_iter().map(|text| name(text).ok()).collect::<Option<_>>()?,
        machine: one("machine")?.to_owned(),
        software: one("software")?.to_owned(),
        act: one("act")?.to_owned(),
        trust_domain: one("trust-domain")?.parse().ok()?,
        root: one("root")?.parse().ok()?,
        request: one("request").map(str::to_owned),
        certificates: all("certificate").into_iter().map(certificate).collect::<Option<_>>()?,
        revoked: all("revoked").into_iter().map(revoked).collect::<Option<_>>()?,
        list: list(one("list")?)?,
        bundle: match *all("bundle").as_slice() {
            [] => None,
            [value] => Some(value.split_once(' ').and_then(|(number, hash)| Some((number.parse().ok()?, hash.to_owned())))?),
            _ => return None,
        },
        files: all("file").into_iter().map(file).collect::<Option<_>>()?,
    })
}

fn certificate(value: &str) -> Option<CertificateLine> {
    let mut words = value.splitn(5, ' ');
    Some(CertificateLine {
        serial: words.next()?.parse().ok()?,
        fingerprint: words.next()?.parse().ok()?,
        not_after: timestamp(words.next()?)?,
        id: words.next()?.to_owned(),
        title: words.next()?.to_owned(),
    })
}

fn revoked(value: &str) -> Option<(Serial, RevocationReason)> {
    let (serial, reason) = value.split_once(' ')?;
    Some((serial.parse().ok()?, reason.parse().ok()?))
}

fn list(value: &str) -> Option<ListLine> {
    let mut words = value.splitn(4, ' ');
    Some(ListLine {
        number: words.next()?.parse().ok()?,
        hash: words.next()?.to_owned(),
        entries: words.next()?.parse().ok()?,
        next_update: timestamp(words.next()?)?,
    })
}

fn file(value: &str) -> Option<(String, String)> {
    value.split_once(' ').map(|(hash, name)| (hash.to_owned(), name.to_owned()))
}

fn timestamp(text: &str) -> Option<Timestamp> {
    serde_json::from_value(serde_json::Value::from(text)).ok()
}
