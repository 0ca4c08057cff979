//! One ledger: its checkpoints judged, its news taken, its entries fetched.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use fleetmark_domain::{LedgerName, Standing};
use fleetmark_ledger::entry::{AuthorityState, Entry, Event, ExternalState};
use fleetmark_ledger::note::VerifierKey;
use fleetmark_ledger::state::ActivePolicy;
use tokio::sync::{Notify, oneshot};
use tokio::task::{AbortHandle, JoinSet};

use super::Shared;
use super::ahead::Ahead;
use super::alarm::Alarm;
use super::client::Trouble;
use super::heads::{Heads, Judged, Signed, Target};
use super::pins::Followed;
use super::restore;
use super::wire::EntryEvent;
use crate::clock::{Moment, Received};
use crate::disk::{LedgerDisk, Restored, Wanted};
use crate::knowledge::Change;
use crate::knowledge::pushed::Taken;
use crate::knowledge::table::{Ledger, State, Table};

/// Between two tries after a failure.
const PAUSE: Duration = Duration::from_secs(2);
/// The most callers that wait for one fetch.
const MAX_WAITING: usize = 64;

/// Follows one ledger.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(super) name: LedgerName,
    pub(super) ledger: Arc<Ledger>,
    pub(super) key: VerifierKey,
    pub(super) dir: PathBuf,
    pub(super) heads: Mutex<Heads>,
    pub(super) disk: Arc<tokio::sync::Mutex<LedgerDisk>>,
    /// Registrations and changes whose details are not here yet, by position.
    details: Mutex<BTreeMap<u64, Wanted>>,
    /// The newest head could not be reached, because the entries do not lead to it from what was verified.
    pub(super) leads_elsewhere: AtomicBool,
    /// Held while entries are fetched and applied, and while an operator's word makes all of it begin anew.
    pub(super) turn: tokio::sync::Mutex<()>,
    pub(super) ahead: Mutex<Ahead>,
    waiting: Mutex<Vec<oneshot::Sender<()>>>,
    notify: Notify,
    task: Mutex<Option<AbortHandle>>,
}

impl Worker {
    /// With what is on disk, where that is what was signed.
    pub(crate) fn open(shared: &Shared, followed: &Followed) -> Self {
        let dir = shared.dir.join("ledgers").join(followed.ledger.as_str());
        let broken = LedgerDisk::broken(&dir);
        let named = restore::named(&dir, &followed.key.name);
        let (disk, restored) = LedgerDisk::open(&dir, &followed.key).unwrap_or_else(|error| {
            Alarm::DiskDiffers.raise(Some(&followed.ledger), &format!("{error}; it is set aside, and all is fetched anew"));
            if let Err(error) = shared.evidence.set_aside(shared.clock.wall(), Alarm::DiskDiffers.as_str(), &dir) {
                Alarm::DiskFailed.raise(Some(&followed.ledger), &error.to_string());
            }
            (LedgerDisk::empty(&dir), None)
        });
        let details = restored.as_ref().map(|restored| restored.wanted.clone()).unwrap_or_default();
        let (mut table, heads) = Self::table(shared, followed, restored, named);
        table.broken = broken.is_some();
        Self {
            name: followed.ledger.clone(),
            ledger: Arc::new(Ledger::new(followed.ledger.clone(), table)),
            key: followed.key.clone(),
            dir,
            heads: Mutex::new(heads),
            disk: Arc::new(tokio::sync::Mutex::new(disk)),
            details: Mutex::new(details),
            leads_elsewhere: AtomicBool::new(false),
            turn: tokio::sync::Mutex::default(),
            ahead: Mutex::default(),
            waiting: Mutex::default(),
            notify: Notify::new(),
            task: Mutex::default(),
        }
    }

    /// Runs until the ledger is not followed any more, or `tasks` is dropped.
    pub(crate) fn start(self: &Arc<Self>, shared: &Arc<Shared>, tasks: &mut JoinSet<()>) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.is_none() {
            *task = Some(tasks.spawn(self.clone().run(shared.clone())));
        }
    }

    /// The ledger is not followed any more.
    pub(crate) fn stop(&self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }

    fn table(shared: &Shared, followed: &Followed, restored: Option<Restored>, named: Option<Signed>) -> (Table, Heads) {
        let Some(restored) = restored else {
            return (Table::new(State::new(followed.key.clone()), followed.max_age), Heads::new(None, named));
        };
        let mut table = Table::new(restored.state, followed.max_age);
        table.received = restored.mark.restore(shared.clock.as_ref());
        table.attributes = restored.attributes;
        let checkpoint = restored.checkpoint;
        let signed = Signed { head: checkpoint.head, at: checkpoint.at, note: restored.note.into() };
        (table, Heads::new(Some(signed), named))
    }

    /// Takes a checkpoint that came at `moment`.
    pub(crate) fn checkpoint(&self, shared: &Shared, note: &str, moment: Moment) -> Result<(), Trouble> {
        if self.ledger.read(|table| table.broken) {
            return Ok(());
        }
        let checkpoint = self
            .key
            .open(note)
            .map_err(|error| self.alarm(shared, Alarm::CheckpointRefused, &error.to_string(), &[("note", note.as_bytes())]))?;
        let server_time = shared.server_time().ok_or(Trouble::NotSigned)?;
        let Some(age) = server_time.age(checkpoint.at, moment) else {
            return Err(self.alarm(
                shared,
                Alarm::FarFuture,
                "a checkpoint is signed in the future",
                &[("note", note.as_bytes())],
            ));
        };
        let signed = Signed { head: checkpoint.head, at: checkpoint.at, note: note.into() };
        let target = Target { signed, age, moment };
        let judged = self.heads().judge(target.clone());
        match judged {
            Judged::Old => {}
            Judged::Fresh => self.fresh(target.received()),
            Judged::Further => self.notify.notify_one(),
            Judged::Contradicts(alarm, with) => self.break_off(shared, alarm, note, &with.note),
        }
        Ok(())
    }

    fn fresh(&self, received: Received) {
        self.ledger.write(|table| table.received = Some(received));
        self.notify.notify_one();
    }

    /// Takes an urgent entry ahead of its proof.
    pub(crate) fn pushed(&self, shared: &Shared, news: &EntryEvent) -> Result<(), Trouble> {
        let refused = |why: &str| self.alarm(shared, Alarm::EntryRefused, why, &[("entry", news.entry.as_bytes())]);
        let octets = BASE64_STANDARD.decode(&news.entry).map_err(|_| refused("a pushed entry is not base64"))?;
        let entry = Entry::decode(&octets).map_err(|error| refused(&error.to_string()))?;
        let change = match &entry.event {
            Event::StandingChanged { standing: Standing::Good | Standing::Unconfirmed, .. } => None,
            Event::StandingChanged { certificates, .. } => {
                Some(Change::Worsened { ledger: self.name.clone(), certificates: Arc::new(certificates.clone()) })
            }
            Event::AuthorityChanged { state: AuthorityState::Tainted | AuthorityState::Revoked, .. } => {
                Some(Change::Everything)
            }
            Event::ExternalAuthorityChanged(external) if external.state != ExternalState::Active => Some(Change::Everything),
            Event::PolicyActivated { version, hash } => {
                self.expect_policy(news.position, ActivePolicy { version: *version, hash: *hash });
                None
            }
            _ => None,
        };
        let Some(change) = change else {
            return Ok(());
        };
        let taken = self.ledger.write(|table| {
            // Below the verified size the ledger itself has it.
            let news_to_us = news.position >= table.state.frontier().size();
            news_to_us.then(|| table.pushed.take(news.position, &octets, &entry.event))
        });
        match taken {
            Some(Taken::New) => shared.knowledge.inner.tell(change),
            Some(Taken::Differs) => {
                shared.knowledge.inner.tell(change);
                return Err(self.alarm(
                    shared,
                    Alarm::PushedEntryDiffers,
                    "two entries were pushed for one position",
                    &[("entry", &octets)],
                ));
            }
            Some(Taken::Full) => self.notify.notify_one(),
            Some(Taken::Known) | None => {}
        }
        Ok(())
    }

    /// Fetches until it is told to stop.
    pub(crate) async fn run(self: Arc<Self>, shared: Arc<Shared>) {
        loop {
            self.notify.notified().await;
            loop {
                // Whoever asks from here on waits for the next round.
                let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
                let outcome = self.round(&shared, !waiting.is_empty()).await;
                for one in waiting {
                    // Whoever asked may have gone.
                    let _ = one.send(());
                }
                let Err(trouble) = outcome else {
                    break;
                };
                tracing::warn!(ledger = self.name.as_str(), %trouble, "the ledger could not be fetched; tried again");
                tokio::time::sleep(PAUSE.mul_f64(0.5 + fleetmark_device::backoff::roll())).await;
            }
        }
    }

    /// Has the newest checkpoint asked for and reached; the answer comes when that was tried.
    pub(crate) fn ask(&self) -> Option<oneshot::Receiver<()>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= MAX_WAITING {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        waiting.push(sender);
        self.notify.notify_one();
        Some(receiver)
    }

    async fn round(&self, shared: &Shared, asked: bool) -> Result<(), Trouble> {
        let _turn = self.turn.lock().await;
        if self.ledger.read(|table| table.broken) {
            return Ok(());
        }
        self.get_policy_ahead(shared).await;
        if asked {
            let note = shared.client.get(&format!("/v1/ledgers/{}/checkpoint", self.name), &[], 16 * 1024).await?;
            self.checkpoint(shared, &String::from_utf8_lossy(&note), shared.moment())?;
        }
        let target = self.heads().target();
        if let Some(target) = target {
            self.reach(shared, &target).await?;
            self.leads_elsewhere.store(false, Ordering::Relaxed);
        }
        self.get_beside(shared).await;
        self.save(shared).await;
        Ok(())
    }

    /// A contradiction: nothing is believed any more until an operator says so.
    pub(crate) fn break_off(&self, shared: &Shared, alarm: Alarm, note: &str, with: &str) {
        self.ledger.write(|table| table.broken = true);
        self.alarm(
            shared,
            alarm,
            "the ledger contradicts itself; nothing new is allowed by it",
            &[("note", note.as_bytes()), ("before", with.as_bytes())],
        );
        if let Err(error) = LedgerDisk::set_broken(&self.dir, Some(alarm.as_str())) {
            Alarm::DiskFailed.raise(Some(&self.name), &error.to_string());
        }
        shared.knowledge.inner.tell(Change::Everything);
    }

    /// Raises an alarm and keeps the evidence.
    pub(crate) fn alarm(&self, shared: &Shared, alarm: Alarm, what: &str, files: &[(&str, &[u8])]) -> Trouble {
        alarm.raise(Some(&self.name), what);
        let ledger = [("ledger", self.name.as_str().as_bytes())];
        let files: Vec<_> = ledger.into_iter().chain(files.iter().copied()).collect();
        shared.evidence.keep(shared.clock.wall(), alarm.as_str(), &files);
        Trouble::NotSigned
    }

    pub(crate) fn heads(&self) -> std::sync::MutexGuard<'_, Heads> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn details(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Wanted>> {
        self.details.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the newest checkpoint asked for and reached.
    pub(crate) fn ask_for_newest(&self) {
        // Nobody waits for the answer.
        drop(self.ask());
    }

    pub(super) fn wake(&self) {
        self.notify.notify_one();
    }
}
