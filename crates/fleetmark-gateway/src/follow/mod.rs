//! The ledgers' feed: bad news on arrival, entries and snapshots verified.
//!
//! - [`sse`], [`bundle`]: what comes over the wire, taken apart. [`alarm`]: what an operator is called for.
//! - `client`: one of several servers over mTLS. `wire`: its JSON. [`pins`]: the ledgers' keys.
//! - `session`: asks what may be followed and reads the feed. `heads`: which signed head to reach, and what contradicts it.
//! - `worker`: one a ledger; fetches, verifies and applies (`catchup`), and gets what belongs to it (`beside`); a policy's text
//!   before its proof (`ahead`); other authorities' rules, and reports of what they signed (`abroad`).
//! - [`restore`]: an operator's word that a server was restored from a backup.

mod abroad;
mod ahead;
pub mod alarm;
mod beside;
pub mod bundle;
mod catchup;
mod client;
mod heads;
pub mod pins;
pub mod restore;
mod session;
pub mod sse;
mod wire;
mod worker;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use fleetmark_device::door::ServerUrl;
use fleetmark_device::{DeviceTime, Roots};
use fleetmark_domain::{Fingerprint, FleetName};
use rustls::client::ResolvesClientCert;
use tokio::sync::{Notify, watch};

pub use client::Trouble;

use crate::clock::{Clock, Moment, ServerTime};
use crate::disk::{DiskError, Evidence};
use crate::knowledge::Knowledge;
use client::Client;
use pins::Pins;
use wire::Ledgers;
use worker::Worker;

/// What a follower needs.
#[derive(Debug)]
pub struct Setup {
    /// `ledgers/`, `authorities/`, `evidence/` and `pins.json` are in it.
    pub dir: PathBuf,
    /// Tried in order; the one that answers is kept.
    pub servers: Vec<ServerUrl>,
    /// The fleets to follow; none: all that were granted.
    pub fleets: Vec<FleetName>,
    /// Who may have signed the server's certificate. Sent anew whenever the gateway's identity was renewed: connections are then made
    /// anew, with the certificate and the roots that count from now on.
    pub roots: watch::Receiver<Roots>,
    /// The time at which the server's certificate is judged.
    pub time: DeviceTime,
    /// This gateway's certificate; asked anew for every connection.
    pub identity: Arc<dyn ResolvesClientCert>,
    /// The machine's clocks.
    pub clock: Arc<dyn Clock>,
}

/// Follows the ledgers and writes the knowledge.
#[derive(Debug)]
pub struct Follower {
    shared: Arc<Shared>,
}

/// What session and workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    dir: PathBuf,
    fleets: Vec<FleetName>,
    roots: watch::Receiver<Roots>,
    client: Client,
    clock: Arc<dyn Clock>,
    knowledge: Knowledge,
    evidence: Evidence,
    pins: Mutex<Pins>,
    server_time: Mutex<Option<ServerTime>>,
    workers: Mutex<Vec<Arc<Worker>>>,
    /// Whether all that the server offered last is followed.
    follows_all: AtomicBool,
    /// Authorities of fleets that were not granted: the server does not give their certificates. Asked for again in the next
    /// session.
    withheld: Mutex<HashSet<Fingerprint>>,
    /// What may be followed, or for how long it counts, may have changed.
    ask_soon: Notify,
}

/// Asks the server for its ledgers and pins their keys in `DIR/pins.json`: once, after enrollment. Keys that are pinned stay.
///
/// # Errors
/// [`Trouble`].
pub async fn pin(setup: &Setup) -> Result<Pins, Trouble> {
    let roots = setup.roots.borrow().clone();
    let client = Client::new(setup.servers.clone(), &roots, setup.time.clone(), setup.identity.clone())?;
    let list: Ledgers = client.json("/v1/ledgers", &[]).await?;
    let disk = |error: DiskError| Trouble::Answer(error.to_string());
    let mut pins = Pins::load(&setup.dir).map_err(disk)?;
    pins.admit(&list, &setup.fleets);
    pins.save(&setup.dir).map_err(disk)?;
    Ok(pins)
}

impl Follower {
    /// Reads what is on disk, so that verdicts can be given at once. The pinned ledgers are followed from here on.
    ///
    /// # Errors
    /// Where `pins.json` cannot be read, or TLS cannot be set up.
    pub fn open(setup: Setup) -> Result<Self, Trouble> {
        let pins = Pins::load(&setup.dir).map_err(|error| Trouble::Answer(error.to_string()))?;
        let roots = setup.roots.borrow().clone();
        let client = Client::new(setup.servers, &roots, setup.time, setup.identity)?;
        let shared = Shared {
            evidence: Evidence::new(&setup.dir),
            dir: setup.dir,
            fleets: setup.fleets,
            roots: setup.roots,
            client,
            knowledge: Knowledge::new(setup.clock.clone()),
            clock: setup.clock,
            pins: Mutex::new(pins),
            server_time: Mutex::default(),
            workers: Mutex::default(),
            follows_all: AtomicBool::new(false),
            withheld: Mutex::default(),
            ask_soon: Notify::new(),
        };
        let follower = Self { shared: Arc::new(shared) };
        follower.shared.follow_pinned();
        Ok(follower)
    }

    /// What is known; filled while [`Self::run`] runs.
    pub fn knowledge(&self) -> Knowledge {
        self.shared.knowledge.clone()
    }

    /// Follows until it is dropped.
    pub async fn run(&self) {
        session::run(&self.shared).await;
    }
}

impl Shared {
    fn workers(&self) -> Vec<Arc<Worker>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn server_time(&self) -> Option<ServerTime> {
        *self.server_time.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moment(&self) -> Moment {
        Moment::of(self.clock.as_ref())
    }
}

#[cfg(test)]
mod tests;
