//! What is in the directory, read without changing it.

use std::fs;
use std::path::{Path, PathBuf};

use fleetmark_domain::{Fingerprint, Name, Timestamp};
use serde::{Deserialize, Serialize};

use super::files::{read, read_json, read_needed};
use super::{CLOCK, CURRENT, GENERATIONS, PENDING, SETTINGS, TRUST, TRUST_STATE};
use crate::answer::Record;
use crate::bundle::Trust;
use crate::door::{Door, ServerUrl};
use crate::error::Error;
use crate::key::DeviceKey;
use crate::trust::Roots;

/// Where this directory's identity comes from. Written once, at the first enrollment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The server.
    pub server: ServerUrl,
    /// The door of the server.
    pub door: Door,
    /// The name to ask for; none when the token is bound to one.
    pub name: Option<Name>,
    /// The root that the server was pinned by.
    pub ca_fingerprint: Fingerprint,
}

/// What a staged key is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// To enroll at this door under this name.
    Enroll {
        /// The door.
        door: Door,
        /// The name asked for.
        name: Option<Name>,
    },
    /// To renew the certificate with this fingerprint.
    Renew(Fingerprint),
}

/// A key and its request, staged before the request is sent, so that a retry is the same request.
#[derive(Debug)]
pub struct Pending {
    /// What it is for.
    pub purpose: Purpose,
    /// The key.
    pub key: DeviceKey,
    /// The certificate request, PEM.
    pub csr: String,
}

/// One certificate with its key and all that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// This directory's own count, from 1.
    pub number: u64,
    /// What is known about the certificate.
    pub record: Record,
}

/// What this device knows about time: `clock.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockNote {
    /// The newest server time seen.
    pub server_time: Timestamp,
    /// Seconds by which the wall clock was behind it then; negative when ahead.
    pub wall_behind_seconds: i64,
}

/// A directory, to be read. Holds no lock.
#[derive(Debug, Clone)]
pub struct View {
    pub(super) dir: PathBuf,
}

impl View {
    /// Looks at `dir`, which need not exist.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The settings, once there are any.
    pub fn settings(&self) -> Result<Option<Settings>, Error> {
        read_json(&self.dir.join(SETTINGS))
    }

    /// What the newest trust bundle said, once one was read.
    pub fn trust(&self) -> Result<Option<Trust>, Error> {
        let path = self.dir.join(TRUST_STATE);
        let trust: Option<Trust> = read_json(&path)?;
        if let Some(trust) = &trust {
            trust.check().map_err(|error| Error::damaged(&path, &error))?;
        }
        Ok(trust)
    }

    /// The roots that the server is verified against, once there are any.
    pub fn roots(&self) -> Result<Option<Roots>, Error> {
        if let Some(trust) = self.trust()? {
            return trust.server_roots().map(Some);
        }
        let path = self.dir.join(TRUST);
        let Some(pem) = read(&path)? else { return Ok(None) };
        Roots::from_pem(&pem).map(Some).map_err(|error| Error::damaged(&path, &error))
    }

    /// What earlier runs knew about time.
    pub fn clock(&self) -> Result<Option<ClockNote>, Error> {
        // A note that a flash memory lost is no reason to stop.
        Ok(read_json(&self.dir.join(CLOCK)).unwrap_or_default())
    }

    /// The staged key, if there is one.
    pub fn pending(&self) -> Result<Option<Pending>, Error> {
        let dir = self.dir.join(PENDING);
        let Some(purpose) = read_json(&dir.join("request.json"))? else { return Ok(None) };
        Ok(Some(Pending { purpose, key: read_key(&dir)?, csr: read_needed(&dir.join("request.csr"))? }))
    }

    /// The generation in use.
    pub fn current(&self) -> Result<Option<Generation>, Error> {
        let link = self.dir.join(CURRENT);
        let target = match fs::read_link(&link) {
            Ok(target) => target,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file(&link, error)),
        };
        let number = target.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        let number = number.ok_or_else(|| Error::damaged(&link, "it does not lead to a generation"))?;
        self.generation(number).map(Some)
    }

    /// The generation with this number, which must be there.
    pub(super) fn generation(&self, number: u64) -> Result<Generation, Error> {
        let path = self.path_of(number).join("identity.json");
        let record = read_json(&path)?.ok_or_else(|| Error::damaged(&path, "the file is missing"))?;
        Ok(Generation { number, record })
    }

    /// The numbers of all generations, in order.
    pub(super) fn numbers(&self) -> Result<Vec<u64>, Error> {
        let dir = self.dir.join(GENERATIONS);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&dir).map_err(|error| Error::file(&dir, error))? {
            let entry = entry.map_err(|error| Error::file(&dir, error))?;
            numbers.extend(entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Where a generation's files are.
    pub fn path_of(&self, number: u64) -> PathBuf {
        self.dir.join(GENERATIONS).join(number.to_string())
    }

    /// The key of a generation.
    pub fn key(&self, generation: &Generation) -> Result<DeviceKey, Error> {
        read_key(&self.path_of(generation.number))
    }

    /// The certificate of a generation and its issuing authorities, PEM, leaf first.
    pub fn fullchain(&self, generation: &Generation) -> Result<String, Error> {
        read_needed(&self.path_of(generation.number).join("fullchain.pem"))
    }
}

fn read_key(dir: &Path) -> Result<DeviceKey, Error> {
    let path = dir.join("key.pem");
    let pem = zeroize::Zeroizing::new(read_needed(&path)?);
    DeviceKey::from_pem(&pem).map_err(|error| Error::damaged(&path, &error))
}
