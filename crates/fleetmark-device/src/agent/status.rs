//! Status: what is in the directory, for a person or a monitor. Asks nobody and takes no lock.

use std::path::{Path, PathBuf};

use fleetmark_domain::{Fingerprint, Serial, Timestamp};
use serde::Serialize;

use crate::clock::Clock;
use crate::error::Error;
use crate::store::{Generation, View};

/// What is in an agent's directory.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// `empty`, `enrolling`, `unconfirmed`, `good`, `due` or `expired`.
    pub state: &'static str,
    /// The server's URL.
    pub server: Option<String>,
    /// The fingerprints of the trusted roots.
    pub roots: Vec<Fingerprint>,
    /// Whether a request waits for its answer.
    pub pending: bool,
    /// The certificate in use.
    pub certificate: Option<CertificateStatus>,
    /// The device's best idea of the time: the wall clock, but never before the newest server time seen.
    pub now: Timestamp,
    /// Seconds by which the wall clock was behind the server's at the newest answer; negative when it was ahead.
    pub clock_behind_seconds: Option<i64>,
}

/// The certificate in use.
#[derive(Debug, Clone, Serialize)]
pub struct CertificateStatus {
    /// The SPIFFE ID.
    pub identity: String,
    /// The serial.
    #[serde(serialize_with = "crate::wire::serial_text::serialize")]
    pub serial: Serial,
    /// SHA-256 over the certificate.
    pub fingerprint: Fingerprint,
    /// The server's count of this identity's certificates.
    pub generation: u64,
    /// Whether the server knows that this device has it.
    pub confirmed: bool,
    /// Its first second.
    pub not_before: Timestamp,
    /// Its last second.
    pub not_after: Timestamp,
    /// When it is renewed.
    pub renew_after: Timestamp,
    /// Until when it must be confirmed.
    pub confirm_before: Option<Timestamp>,
    /// Its files: key.pem, cert.pem, chain.pem, fullchain.pem, ca.pem.
    pub files: PathBuf,
}

/// Reads the status of `dir`.
///
/// # Errors
/// [`Error::Usage`] when there is no such directory; [`Error::File`] and [`Error::Damaged`] for what is in it.
pub fn status(dir: &Path, clock: &dyn Clock) -> Result<Status, Error> {
    if !dir.is_dir() {
        return Err(Error::Usage(format!("{} is no directory", dir.display())));
    }
    let view = View::new(dir);
    let (settings, current, note) = (view.settings()?, view.current()?, view.clock()?);
    let now = note.map_or_else(|| clock.wall(), |note| clock.wall().max(note.server_time));
    let pending = view.pending()?.is_some();
    let state = match &current {
        None if pending => "enrolling",
        None => "empty",
        Some(Generation { record, .. }) if now > record.not_after => "expired",
        Some(Generation { record, .. }) if !record.confirmed => "unconfirmed",
        Some(Generation { record, .. }) if now >= record.renew_after => "due",
        Some(_) => "good",
    };
    Ok(Status {
        state,
        server: settings.map(|settings| settings.server.to_string()),
        roots: view.roots()?.map(|roots| roots.fingerprints()).unwrap_or_default(),
        pending,
        certificate: current.map(|generation| certificate(&view, generation)),
        now,
        clock_behind_seconds: note.map(|note| note.wall_behind_seconds),
    })
}

fn certificate(view: &View, generation: Generation) -> CertificateStatus {
    let record = generation.record;
    CertificateStatus {
        identity: record.identity,
        serial: record.serial,
        fingerprint: record.fingerprint,
        generation: record.generation,
        confirmed: record.confirmed,
        not_before: record.not_before,
        not_after: record.not_after,
        renew_after: record.renew_after,
        confirm_before: record.confirm_before,
        files: view.path_of(generation.number),
    }
}
