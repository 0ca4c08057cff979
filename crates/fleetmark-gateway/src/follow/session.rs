//! The session with a server: what may be followed, then the feed until it ends; and the pace of everything.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleetmark_device::backoff;
use tokio::task::JoinSet;

use super::Shared;
use super::alarm::Alarm;
use super::client::{Trouble, chunk};
use super::pins::Followed;
use super::restore;
use super::sse::{Event, Parser};
use super::wire::{CheckpointEvent, EntryEvent, Ledgers, ResyncEvent};
use super::worker::Worker;
use crate::clock::ServerTime;
use crate::knowledge::Change;

/// The server is asked again what may be followed, and for its time.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// The longest wait between two tries to reach a server: knowledge grows stale meanwhile.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Operators' words are looked for.
const LOOK_EVERY: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(5) };
/// A fetch that callers wait for is given up.
const FETCH: Duration = Duration::from_secs(10);

/// Follows until it is dropped.
pub(super) async fn run(shared: &Arc<Shared>) {
    let tasks = Mutex::new(JoinSet::new());
    shared.start(&tasks);
    tokio::join!(sessions(shared, &tasks), fetches(shared), reports(shared), restores(shared));
}

async fn sessions(shared: &Arc<Shared>, tasks: &Mutex<JoinSet<()>>) {
    let mut last_id = String::new();
    let mut failures = 0;
    loop {
        let mut parser = Parser::default();
        let outcome = session(shared, tasks, &last_id, &mut parser, &mut failures).await;
        if !parser.last_id().is_empty() {
            parser.last_id().clone_into(&mut last_id);
        }
        if let Err(trouble) = outcome {
            failures += 1;
            shared.client.turn();
            tracing::warn!(%trouble, failures, "the feed ended");
            let asked = Duration::from_millis(parser.retry_ms().unwrap_or(0)).min(LONGEST_PAUSE);
            tokio::time::sleep(backoff::after(failures, backoff::roll()).min(LONGEST_PAUSE).max(asked)).await;
        }
    }
}

/// Ends well when the list of ledgers changed.
async fn session(
    shared: &Arc<Shared>,
    tasks: &Mutex<JoinSet<()>>,
    last_id: &str,
    parser: &mut Parser,
    failures: &mut u32,
) -> Result<(), Trouble> {
    shared.ask_ledgers(tasks).await?;
    let query: Vec<_> = shared.workers().iter().map(|worker| ("ledger", worker.name.to_string())).collect();
    let mut response = shared.client.open("/v1/feed", &query, Some(last_id)).await?;
    let mut ask_again = tokio::time::interval_at(tokio::time::Instant::now() + ASK_AGAIN, ASK_AGAIN);
    loop {
        tokio::select! {
            octets = chunk(&mut response) => {
                let octets = octets?.ok_or_else(|| Trouble::Unreachable("the feed was closed".to_owned()))?;
                for event in parser.push(&octets).map_err(|error| Trouble::Answer(error.to_string()))? {
                    shared.take(&event)?;
                    *failures = 0;
                }
            }
            _ = ask_again.tick() => {
                if shared.ask_ledgers(tasks).await? {
                    return Ok(());
                }
            }
        }
    }
}

/// Fetches what callers of `Knowledge::refresh` wait for.
async fn fetches(shared: &Arc<Shared>) {
    let fetching = &shared.knowledge.inner.fetching;
    loop {
        fetching.asked().await;
        let number = fetching.begin();
        let answers: Vec<_> = shared.workers().iter().filter_map(|worker| worker.ask()).collect();
        let all = async {
            for answer in answers {
                // A worker that ended has nothing to say.
                let _ = answer.await;
            }
        };
        // Callers have less patience than this.
        let _ = tokio::time::timeout(FETCH, all).await;
        fetching.finish(number);
    }
}

async fn reports(shared: &Arc<Shared>) {
    let mut failures = 0;
    loop {
        tokio::time::sleep(if failures == 0 { REPORT_EVERY } else { backoff::after(failures, 1.0).min(LONGEST_PAUSE) }).await;
        let mut outcome = Ok(());
        for worker in shared.workers() {
            outcome = outcome.and(worker.report(shared).await);
        }
        match outcome {
            Ok(()) => failures = 0,
            Err(trouble) => {
                failures += 1;
                tracing::warn!(%trouble, "sightings could not be reported; tried again");
            }
        }
    }
}

async fn restores(shared: &Arc<Shared>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        for worker in shared.workers() {
            restore::look(shared, &worker).await;
        }
    }
}

impl Shared {
    /// The ledgers that are pinned, with what is on disk.
    pub(super) fn follow_pinned(&self) {
        let known = self.pins.lock().unwrap_or_else(PoisonError::into_inner).known(&self.fleets);
        self.follow(&known);
    }

    fn start(self: &Arc<Self>, tasks: &Mutex<JoinSet<()>>) {
        let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
        self.workers().iter().for_each(|worker| worker.start(self, &mut tasks));
    }

    /// Asks for the server's time and ledgers; returns whether others are followed now.
    async fn ask_ledgers(self: &Arc<Self>, tasks: &Mutex<JoinSet<()>>) -> Result<bool, Trouble> {
        let asked = self.moment();
        let list: Ledgers = self.client.json("/v1/ledgers", &[]).await?;
        *self.server_time.lock().unwrap_or_else(PoisonError::into_inner) = Some(ServerTime::new(list.server_time, asked));
        let followed = self.admit(&list);
        let changed = self.follow(&followed);
        self.start(tasks);
        Ok(changed)
    }

    fn admit(&self, list: &Ledgers) -> Vec<Followed> {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        let before = pins.clone();
        let followed = pins.admit(list, &self.fleets);
        if *pins != before
            && let Err(error) = pins.save(&self.dir)
        {
            Alarm::DiskFailed.raise(None, &error.to_string());
        }
        followed
    }

    /// Follows exactly these; returns whether others were followed before.
    fn follow(&self, followed: &[Followed]) -> bool {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let before = workers.len();
        workers.retain(|worker| {
            let stays = followed.iter().any(|one| one.ledger == worker.name);
            if !stays {
                worker.stop();
            }
            stays
        });
        let mut changed = workers.len() != before;
        for one in followed {
            if let Some(worker) = workers.iter().find(|worker| worker.name == one.ledger) {
                worker.ledger.write(|table| table.max_age = one.max_age);
                continue;
            }
            changed = true;
            let worker = Worker::open(self, one);
            worker.restore_policy(self);
            worker.restore_authorities(self);
            workers.push(Arc::new(worker));
        }
        if changed {
            self.knowledge.inner.follow(workers.iter().map(|worker| worker.ledger.clone()).collect());
            self.knowledge.inner.combine_policies();
            self.knowledge.inner.tell(Change::Everything);
        }
        changed
    }

    fn worker(&self, ledger: &str) -> Option<Arc<Worker>> {
        self.workers().into_iter().find(|worker| worker.name.as_str() == ledger)
    }

    /// Takes one event of the feed. What cannot be believed ends the session.
    fn take(&self, event: &Event) -> Result<(), Trouble> {
        fn read<'a, T: serde::Deserialize<'a>>(event: &'a Event) -> Result<T, Trouble> {
            serde_json::from_str(&event.data).map_err(|error| Trouble::Answer(format!("event {}: {error}", event.kind)))
        }
        match event.kind.as_str() {
            "checkpoint" => {
                let news: CheckpointEvent = read(event)?;
                let moment = self.moment();
                self.worker(&news.ledger).map_or(Ok(()), |worker| worker.checkpoint(self, &news.checkpoint, moment))
            }
            "entry" => {
                let news: EntryEvent = read(event)?;
                self.worker(&news.ledger).map_or(Ok(()), |worker| worker.pushed(self, &news))
            }
            "resync" => {
                let news: ResyncEvent = read(event)?;
                if let Some(worker) = self.worker(&news.ledger) {
                    worker.poke();
                }
                Ok(())
            }
            // A newer server may say more.
            _ => Ok(()),
        }
    }
}
