//! The agent: one directory, one identity, and the acts that carry it from token to renewal.
//!
//! Each act may be cut off anywhere and called again; it goes on from what is in the directory.

mod confirm;
mod enroll;
mod renew;
mod run;
mod setup;
mod standing;
mod status;
mod trust;

use std::path::Path;
use std::sync::Arc;

pub use confirm::Confirmation;
pub use enroll::Enrollment;
pub use renew::Renewal;
pub use setup::Setup;
pub use standing::OwnStanding;
pub use status::{Status, status};
pub use trust::TrustUpdate;

use crate::answer::{Accepted, Expected, accept};
use crate::client::Client;
use crate::clock::{Clock, DeviceTime};
use crate::error::Error;
use crate::store::{ClockNote, Generation, Pending, Settings, Store};
use crate::trust::Roots;
use crate::wire::Issued;

/// An agent at work on its directory, which no other process can take meanwhile.
#[derive(Debug)]
pub struct Agent {
    store: Store,
    settings: Settings,
    roots: Roots,
    time: DeviceTime,
}

impl Agent {
    /// Opens a directory that was set up before.
    ///
    /// # Errors
    /// [`Error::Usage`] when it was not; those of [`Store::open`].
    pub fn open(dir: &Path, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let missing =
            || Error::Usage(format!("{} was not set up yet: --server and --ca-fingerprint are needed", dir.display()));
        if !dir.is_dir() {
            return Err(missing());
        }
        let store = Store::open(dir)?;
        let settings = store.settings()?.ok_or_else(missing)?;
        let roots = store.roots()?.ok_or_else(missing)?;
        let time = device_time(&store, clock)?;
        Ok(Self { store, settings, roots, time })
    }

    /// The directory.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// The device's best idea of the time.
    pub const fn time(&self) -> &DeviceTime {
        &self.time
    }

    /// The generation in use.
    pub fn current(&self) -> Result<Option<Generation>, Error> {
        self.store.current()
    }

    /// A client that has no certificate.
    pub fn anonymous(&self) -> Result<Client, Error> {
        Client::anonymous(&self.settings.server, &self.settings.door, &self.roots, &self.time)
    }

    /// A client with the certificate of `generation`.
    pub fn client(&self, generation: &Generation) -> Result<Client, Error> {
        let (fullchain, key) = (self.store.fullchain(generation)?, self.store.key(generation)?);
        Client::with_certificate(&self.settings.server, &self.settings.door, &self.roots, &self.time, &fullchain, &key)
    }

    /// Asks the server for the time, and notes it.
    pub async fn ask_time(&self) -> Result<(), Error> {
        self.anonymous()?.ask_time().await?;
        self.note_time()
    }

    /// The same; where the server is not trusted any more, after the trust bundles were followed.
    pub(crate) async fn ask_time_patiently(&mut self) -> Result<(), Error> {
        match self.ask_time().await {
            Err(error) if self.may_mend(&error).await => self.ask_time().await,
            outcome => outcome,
        }
    }

    /// Judges an answer to `pending`, keeps it and puts it to use.
    fn take(&mut self, issued: &Issued, pending: &Pending, expected: &Expected) -> Result<Generation, Error> {
        let accepted = match self.store.trust()? {
            None => accept(issued, &pending.key, expected, &self.roots)?,
            // Once a bundle was read, bundles alone introduce roots: whoever has the key of one that was tainted could answer here.
            Some(trust) => {
                let issued = Issued { trust_bundle: String::new(), ..issued.clone() };
                let accepted = accept(&issued, &pending.key, expected, &self.roots)?;
                Accepted { roots: trust.all_roots()?, ..accepted }
            }
        };
        let generation = self.store.keep(&accepted, &pending.key)?;
        self.store.adopt(&generation)?;
        self.roots = self.store.roots()?.unwrap_or(accepted.roots);
        self.note_time()?;
        Ok(generation)
    }

    /// Writes down what a verified server said about the time, for the next start without a clock.
    fn note_time(&self) -> Result<(), Error> {
        if !self.time.is_learnt() {
            return Ok(());
        }
        let note = ClockNote { server_time: self.time.now(), wall_behind_seconds: self.time.wall_behind() };
        self.store.save_clock(note)
    }
}

fn device_time(store: &Store, clock: Arc<dyn Clock>) -> Result<DeviceTime, Error> {
    Ok(DeviceTime::new(clock, store.clock()?.map(|note| note.server_time)))
}

#[cfg(test)]
mod tests;
