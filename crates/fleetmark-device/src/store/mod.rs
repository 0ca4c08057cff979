//! The agent's directory. Each method is one step that is whole or not done; [`Store::open`] finishes what a power cut
//! left between two of them.
//!
//! ```text
//! DIR/settings.json            server, door, name, pinned root
//! DIR/trust.pem                the roots that are trusted
//! DIR/trust.json               what the newest trust bundle said, once there is one: the roots, which of them count, which are revoked
//! DIR/clock.json               the newest server time seen
//! DIR/pending/                 key.pem, request.csr, request.json: a request that has no answer yet
//! DIR/generations/N/           key.pem, cert.pem, chain.pem, fullchain.pem, ca.pem, identity.json
//! DIR/current                  symbolic link to generations/N
//! ```
//! Stage, ask, [`Store::keep`], [`Store::adopt`], confirm, [`Store::confirmed`]. A generation's directory appears whole by one
//! rename: that is the moment of no return, and the rest follows from what is there.

mod files;
mod view;

use std::fs::{File, OpenOptions, TryLockError};
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use fleetmark_domain::Timestamp;

pub use view::{ClockNote, Generation, Pending, Purpose, Settings, View};

use crate::answer::{Accepted, Record};
use crate::bundle::Trust;
use crate::error::Error;
use crate::key::DeviceKey;
use crate::trust::Roots;
use files::{PUBLIC, Part, SECRET, json, make_dir, make_whole_dir, read, read_needed, relink, replace, sweep, take_away};

const SETTINGS: &str = "settings.json";
const TRUST: &str = "trust.pem";
const TRUST_STATE: &str = "trust.json";
const CLOCK: &str = "clock.json";
const PENDING: &str = "pending";
const GENERATIONS: &str = "generations";
const CURRENT: &str = "current";
const LOCK: &str = "lock";

/// The directory, held by this process alone.
#[derive(Debug)]
pub struct Store {
    view: View,
    /// The lock ends with this handle, and so with the process, however it ends.
    _lock: File,
}

impl Deref for Store {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

impl Store {
    /// Takes `dir`, makes it when it is not there, and finishes what was interrupted.
    ///
    /// # Errors
    /// [`Error::Busy`] when another process has it, [`Error::Damaged`] when everybody may write it or its content cannot be
    /// read, [`Error::File`] for what the operating system says.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        make_dir(dir)?;
        let metadata = dir.metadata().map_err(|error| Error::file(dir, error))?;
        if metadata.mode() & 0o002 != 0 {
            return Err(Error::damaged(dir, "everybody may write in it (chmod o-w)"));
        }
        let path = dir.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(SECRET).open(&path);
        let lock = lock.map_err(|error| Error::file(&path, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Busy(dir.to_owned())),
            Err(TryLockError::Error(error)) => return Err(Error::file(&path, error)),
        }
        let store = Self { view: View::new(dir), _lock: lock };
        let generations = store.generations_dir();
        make_dir(&generations)?;
        sweep(dir)?;
        sweep(&generations)?;
        store.recover()?;
        Ok(store)
    }

    fn generations_dir(&self) -> PathBuf {
        self.dir.join(GENERATIONS)
    }

    /// Finishes [`Self::save_trust`], and [`Self::adopt`] for a generation that was kept and not yet adopted.
    fn recover(&self) -> Result<(), Error> {
        let Some(newest) = self.numbers()?.pop() else { return self.spread_trust(None) };
        let newest = self.generation(newest)?;
        let current = self.current()?.map(|current| current.number);
        self.spread_trust(current)?;
        if current.is_none_or(|current| current < newest.number) {
            return self.adopt(&newest);
        }
        if newest.record.confirmed {
            self.prune(newest.number)?;
        }
        self.discard_answered(&newest)
    }

    /// Writes the settings.
    pub fn save_settings(&self, settings: &Settings) -> Result<(), Error> {
        replace(&self.dir, SETTINGS, &json(settings)?, PUBLIC)
    }

    /// Writes the roots.
    pub fn save_roots(&self, roots: &Roots) -> Result<(), Error> {
        replace(&self.dir, TRUST, roots.pem().as_bytes(), PUBLIC)
    }

    /// Takes over what a trust bundle said, which [`crate::bundle`] judged: for this device's own connections, and for its other programs
    /// beside the certificate in use.
    pub fn save_trust(&self, trust: &Trust) -> Result<(), Error> {
        // First what counts: after a power cut the rest is made again from it.
        replace(&self.dir, TRUST_STATE, &json(trust)?, PUBLIC)?;
        self.spread_trust(self.current()?.map(|current| current.number))
    }

    /// Once a bundle was read, the files of roots are what it said, also those beside the certificate with this number.
    fn spread_trust(&self, number: Option<u64>) -> Result<(), Error> {
        let Some(trust) = self.trust()? else { return Ok(()) };
        let roots = trust.all_roots()?.pem();
        let beside = number.map(|number| (self.path_of(number), "ca.pem"));
        for (dir, name) in [(self.dir.clone(), TRUST)].into_iter().chain(beside) {
            if read(&dir.join(name))?.as_deref() != Some(roots.as_str()) {
                replace(&dir, name, roots.as_bytes(), PUBLIC)?;
            }
        }
        Ok(())
    }

    /// Notes what is known about time.
    pub fn save_clock(&self, note: ClockNote) -> Result<(), Error> {
        replace(&self.dir, CLOCK, &json(&note)?, PUBLIC)
    }

    /// The staged key for `purpose`, or a new one. It is durable when this returns, before anything is sent.
    pub fn stage(&self, purpose: Purpose) -> Result<Pending, Error> {
        match self.pending() {
            Ok(Some(pending)) if pending.purpose == purpose => return Ok(pending),
            // A staged key that cannot be read was made durable before it was used: the file is lost, and with it the key.
            Ok(_) | Err(Error::Damaged { .. }) => self.discard_pending()?,
            Err(error) => return Err(error),
        }
        let key = DeviceKey::generate()?;
        let name = match &purpose {
            Purpose::Enroll { name, .. } => name.clone(),
            Purpose::Renew(_) => None,
        };
        let csr = key.request(name.as_ref())?;
        let pem = key.expose_pem();
        let parts = [
            Part { name: "key.pem", content: pem.as_bytes(), mode: SECRET },
            Part { name: "request.csr", content: csr.as_bytes(), mode: PUBLIC },
            Part { name: "request.json", content: &json(&purpose)?, mode: PUBLIC },
        ];
        make_whole_dir(&self.dir, PENDING, &parts)?;
        Ok(Pending { purpose, key, csr })
    }

    /// Throws the staged key away.
    pub fn discard_pending(&self) -> Result<(), Error> {
        take_away(&self.dir, PENDING)
    }

    /// Writes an accepted certificate and its key as a new generation. Not in use yet.
    pub fn keep(&self, accepted: &Accepted, key: &DeviceKey) -> Result<Generation, Error> {
        let number = self.numbers()?.last().map_or(1, |last| last.saturating_add(1));
        let pem = key.expose_pem();
        let (fullchain, roots) = (format!("{}{}", accepted.certificate, accepted.chain), accepted.roots.pem());
        let parts = [
            Part { name: "key.pem", content: pem.as_bytes(), mode: SECRET },
            Part { name: "cert.pem", content: accepted.certificate.as_bytes(), mode: PUBLIC },
            Part { name: "chain.pem", content: accepted.chain.as_bytes(), mode: PUBLIC },
            Part { name: "fullchain.pem", content: fullchain.as_bytes(), mode: PUBLIC },
            Part { name: "ca.pem", content: roots.as_bytes(), mode: PUBLIC },
            Part { name: "identity.json", content: &json(&accepted.record)?, mode: PUBLIC },
        ];
        make_whole_dir(&self.generations_dir(), &number.to_string(), &parts)?;
        Ok(Generation { number, record: accepted.record.clone() })
    }

    /// Puts a kept generation to use: its roots, then the link, then the staged key goes.
    pub fn adopt(&self, generation: &Generation) -> Result<(), Error> {
        let path = self.path_of(generation.number).join("ca.pem");
        let roots = Roots::from_pem(&read_needed(&path)?).map_err(|error| Error::damaged(&path, &error))?;
        // Once a bundle was read, bundles alone say what is trusted.
        if self.trust()?.is_none() {
            self.save_roots(&roots)?;
        }
        self.point_to(generation.number)?;
        self.discard_answered(generation)
    }

    fn point_to(&self, number: u64) -> Result<(), Error> {
        self.spread_trust(Some(number))?;
        relink(&self.dir, CURRENT, &Path::new(GENERATIONS).join(number.to_string()))
    }

    /// Throws the staged key away if `generation` is the answer to it.
    fn discard_answered(&self, generation: &Generation) -> Result<(), Error> {
        match self.pending() {
            Ok(Some(pending)) if pending.key.hash() == self.key(generation)?.hash() => self.discard_pending(),
            _ => Ok(()),
        }
    }

    /// Notes that the server knows that this device has `generation`, then removes all but it and the one before.
    pub fn confirmed(&self, generation: &Generation, renew_after: Timestamp) -> Result<Generation, Error> {
        let mut record = generation.record.clone();
        record.confirmed = true;
        record.confirm_before = None;
        if renew_after > record.not_before && renew_after < record.not_after {
            record.renew_after = renew_after;
        }
        replace(&self.path_of(generation.number), "identity.json", &json(&record)?, PUBLIC)?;
        self.prune(generation.number)?;
        Ok(Generation { number: generation.number, record })
    }

    /// Notes that `generation` is to be renewed earlier than it was said at first, or as late as that again. A moment before the
    /// certificate's own begin counts as that. Whether it changed anything.
    pub fn reschedule(&self, generation: &Generation, renew_after: Timestamp) -> Result<bool, Error> {
        let last = generation.record.renew_at_last.unwrap_or(generation.record.renew_after);
        let renew_after = renew_after.max(generation.record.not_before).min(last);
        if renew_after == generation.record.renew_after {
            return Ok(false);
        }
        let record = Record { renew_after, renew_at_last: Some(last), ..generation.record.clone() };
        replace(&self.path_of(generation.number), "identity.json", &json(&record)?, PUBLIC)?;
        Ok(true)
    }

    /// Removes all generations but `number` and the one before it.
    pub fn prune(&self, number: u64) -> Result<(), Error> {
        let older: Vec<u64> = self.numbers()?.into_iter().filter(|other| *other < number).collect();
        let Some((_, rest)) = older.split_last() else { return Ok(()) };
        rest.iter().try_for_each(|old| take_away(&self.generations_dir(), &old.to_string()))
    }

    /// Gives up a generation that can no longer be confirmed, and goes back to the one before, if there is one.
    ///
    /// After a power cut in the middle the generation is there again, is refused again, and is given up again.
    pub fn abandon(&self, generation: &Generation) -> Result<(), Error> {
        match self.numbers()?.into_iter().rfind(|other| *other < generation.number) {
            Some(before) => self.point_to(before)?,
            None => take_away(&self.dir, CURRENT)?,
        }
        take_away(&self.generations_dir(), &generation.number.to_string())
    }
}

#[cfg(test)]
mod tests;
