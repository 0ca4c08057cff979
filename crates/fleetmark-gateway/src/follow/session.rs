//! The session with a server: what may be followed, then the feed until it ends; and the pace of everything.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleetmark_device::{Roots, backoff};
use fleetmark_domain::LedgerName;
use reqwest::Response;
use tokio::task::JoinSet;

use super::alarm::Alarm;
use super::client::{Trouble, chunk};
use super::pins::Followed;
use super::restore;
use super::sse::{Event, Parser};
use super::wire::{CheckpointEvent, EntryEvent, Ledgers, ResyncEvent};
use super::worker::Worker;
use super::{Shared, abroad};
use crate::clock::ServerTime;
use crate::knowledge::Change;

/// The server is asked again what may be followed, and for its time; at the latest, and at the earliest.
const ASK_AGAIN: Duration = Duration::from_secs(60);
const ASK_SOON: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(1) };
/// The longest wait between two tries to reach a server: knowledge grows stale meanwhile.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The wait before the feed is asked for again is below 1, 2 and then 4 seconds, at random: a server that is back is found soon.
const DOUBLINGS: u32 = 3;
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Operators' words are looked for.
const LOOK_EVERY: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(5) };
/// A fetch that callers wait for is given up.
const FETCH: Duration = Duration::from_secs(10);

/// The longest query that a server takes for its feed, in octets.
const LONGEST_QUERY: usize = 60 * 1024;

/// Follows until it is dropped.
pub(super) async fn run(shared: &Arc<Shared>) {
    let tasks = Mutex::new(JoinSet::new());
    shared.start(&tasks);
    tokio::join!(sessions(shared, &tasks), fetches(shared), reports(shared), restores(shared), abroad::reports(shared));
}

async fn sessions(shared: &Arc<Shared>, tasks: &Mutex<JoinSet<()>>) {
    let mut last_id = String::new();
    let mut failures = 0;
    let mut renewed = shared.roots.clone();
    loop {
        let mut parser = Parser::default();
        let outcome = tokio::select! {
            outcome = session(shared, tasks, &last_id, &mut parser, &mut failures) => outcome,
            // Where nobody renews any more, this branch is never taken.
            Ok(()) = renewed.changed() => shared.connect_anew(&renewed.borrow_and_update()),
        };
        if !parser.last_id().is_empty() {
            parser.last_id().clone_into(&mut last_id);
        }
        if let Err(trouble) = outcome {
            failures += 1;
            shared.client.turn();
            tracing::warn!(%trouble, failures, "the feed ended");
            let asked = Duration::from_millis(parser.retry_ms().unwrap_or(0)).min(LONGEST_PAUSE);
            tokio::time::sleep(backoff::after(failures.min(DOUBLINGS), backoff::roll()).max(asked)).await;
        }
    }
}

/// Ends well when other ledgers are followed, or connections are to be made anew.
async fn session(
    shared: &Arc<Shared>,
    tasks: &Mutex<JoinSet<()>>,
    last_id: &str,
    parser: &mut Parser,
    failures: &mut u32,
) -> Result<(), Trouble> {
    shared.ask_ledgers(tasks).await?;
    let query = if shared.follows_all.load(Ordering::Relaxed) {
        Vec::new()
    } else {
        named(shared.workers().iter().map(|worker| worker.name.to_string()))
    };
    let response = shared.client.open("/v1/feed", &query, Some(last_id)).await?;
    // News is not kept waiting by an answer.
    tokio::select! {
        ended = listen(shared, response, parser, failures) => ended,
        ended = ask_again(shared, tasks) => ended,
    }
}

/// The feed's query. Without one it is about all that is offered: what of it is not followed is passed over when it comes.
fn named(ledgers: impl Iterator<Item = String>) -> Vec<(&'static str, String)> {
    let query: Vec<_> = ledgers.map(|ledger| ("ledger", ledger)).collect();
    let octets: usize = query.iter().map(|(key, ledger)| key.len() + ledger.len() + 2).sum();
    if octets > LONGEST_QUERY { Vec::new() } else { query }
}

/// Takes the feed's events until it ends.
async fn listen(shared: &Shared, mut response: Response, parser: &mut Parser, failures: &mut u32) -> Result<(), Trouble> {
    loop {
        let octets = chunk(&mut response).await?.ok_or_else(|| Trouble::Unreachable("the feed was closed".to_owned()))?;
        for event in parser.push(&octets).map_err(|error| Trouble::Answer(error.to_string()))? {
            shared.take(&event)?;
            *failures = 0;
        }
    }
}

/// Asks what may be followed each minute, and soon when a ledger says that rules or grants were changed.
async fn ask_again(shared: &Arc<Shared>, tasks: &Mutex<JoinSet<()>>) -> Result<(), Trouble> {
    loop {
        tokio::time::sleep(ASK_SOON).await;
        // Nothing was changed: it is time all the same.
        let _ = tokio::time::timeout(ASK_AGAIN, shared.ask_soon.notified()).await;
        if shared.ask_ledgers(tasks).await? {
            return Ok(());
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
        let mut workers = shared.workers();
        // Who signed is looked up in `system`: words about it come last, since it is fetched anew after them.
        workers.sort_by_key(|worker| worker.name == LedgerName::System);
        for worker in workers {
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
        if changed && let Some(system) = self.worker(LedgerName::System.as_str()) {
            // Authorities' certificates that were withheld may be given now.
            system.ask_for_newest();
        }
        Ok(changed)
    }

    /// The identity was renewed: the server judges a connection by the certificate that it was made with.
    fn connect_anew(&self, roots: &Roots) -> Result<(), Trouble> {
        tracing::info!(roots = roots.certificates().len(), "connections to the server are made anew");
        self.client.renew(roots)
    }

    fn admit(&self, list: &Ledgers) -> Vec<Followed> {
        self.withheld.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        let before = pins.clone();
        let followed = pins.admit(list, &self.fleets);
        self.follows_all.store(followed.len() == list.offered.len(), Ordering::Relaxed);
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
                    worker.ask_for_newest();
                }
                Ok(())
            }
            // A newer server may say more.
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ledgers_are_named_as_far_as_a_query_holds_them() {
        let names = |count: usize, length: usize| (0..count).map(move |number| format!("{number:0length$}"));
        // As many fleets as a gateway's configuration holds, beside `system`.
        assert_eq!(named(names(1_025, 50)).len(), 1_025);
        assert_eq!(named(names(850, 63)).len(), 850);
        assert!(named(names(1_025, 63)).is_empty());
    }
}
