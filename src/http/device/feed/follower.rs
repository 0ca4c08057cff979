//! One stream: a task that turns news into events, and ends when it must. It never keeps the server waiting: what it cannot
//! send in time ends it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetmark_domain::refusal::Class;
use fleetmark_domain::{LedgerName, Refusal};
use fleetmark_ledger::entry::{Entry, Event};
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::http::State;
use crate::registrar::caller::{Caller, Peer};
use crate::registrar::feed::{Missed, News};

/// Events that wait for the connection to take them.
pub const BUFFER: usize = 64;
/// A follower that takes no event for so long is dropped.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is asked whether the follower may still follow.
const STANDING: Duration = Duration::from_secs(5);

/// Why a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The follower went away.
    Left,
    /// It took no event for [`PATIENCE`].
    TooSlow,
    /// What it may follow is not what it was.
    Changed,
    /// It may follow no more.
    Refused(Refusal),
    /// The server stops.
    Stopping,
}

impl End {
    const fn reason(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::TooSlow => "too_slow",
            Self::Changed => "grants_changed",
            Self::Refused(refusal) => refusal.code(),
            Self::Stopping => "stopping",
        }
    }
}

type Told = Result<(), End>;

/// A follower whose stream is open.
pub struct Follower {
    state: Arc<State>,
    peer: Peer,
    caller: Caller,
    ledgers: BTreeSet<LedgerName>,
    /// Whether it asked for all that it may follow.
    follows_all: bool,
    /// For each ledger: every urgent entry below this position was sent.
    sent: BTreeMap<LedgerName, u64>,
    events: Sender<Bytes>,
}

impl Follower {
    /// A follower of these ledgers, which was at `since` before, and takes its events from the other end of `events`.
    pub const fn new(
        state: Arc<State>,
        peer: Peer,
        caller: Caller,
        ledgers: BTreeSet<LedgerName>,
        follows_all: bool,
        since: BTreeMap<LedgerName, u64>,
        events: Sender<Bytes>,
    ) -> Self {
        Self { state, peer, caller, ledgers, follows_all, sent: since, events }
    }

    /// Sends what there is, then what happens, until something ends it.
    pub async fn run(mut self) {
        let (events, mut stopping) = (self.events.clone(), self.state.followers.stopping());
        let identity = self.caller.identity.uri(self.state.registrar.trust_domain());
        tracing::info!(identity, ledgers = self.ledgers.len(), "a follower came");
        let end = tokio::select! {
            end = self.follow() => end,
            () = events.closed() => End::Left,
            _ = stopping.wait_for(|stopping| *stopping) => End::Stopping,
        };
        metrics::counter!("fleetmark_feed_ended_total", "reason" => end.reason()).increment(1);
        if matches!(end, End::TooSlow | End::Refused(_)) {
            tracing::warn!(identity, reason = end.reason(), "a follower was dropped");
        } else {
            tracing::info!(identity, reason = end.reason(), "a follower's stream ended");
        }
    }

    async fn follow(&mut self) -> End {
        let ended: Result<std::convert::Infallible, End> = async {
            let mut news = self.begin().await?;
            let mut ticks = interval_at(Instant::now() + STANDING, STANDING);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = ticks.tick() => self.ask_standing().await?,
                    told = news.recv() => match told {
                        Ok(News::Urgent { ledger, position, entry }) => self.urgent(&ledger, position, &entry).await?,
                        Ok(News::Checkpoint { ledger, size, note }) => self.checkpoint(&ledger, size, &note).await?,
                        Err(RecvError::Lagged(_)) => news = self.begin_again().await?,
                        Err(RecvError::Closed) => return Err(End::Stopping),
                    },
                }
            }
        }
        .await;
        match ended {
            Err(end) => end,
        }
    }

    /// What it missed since it was here before, then each ledger's newest checkpoint.
    async fn begin(&mut self) -> Result<Receiver<News>, End> {
        let (heads, news) = self.state.registrar.publisher().follow(&self.ledgers);
        let since = std::mem::take(&mut self.sent);
        // Ids name positions that were sent: of a ledger that it was not at, it misses nothing.
        let from = |ledger: &LedgerName, size: u64| since.get(ledger).copied().unwrap_or(size);
        self.sent = heads.iter().map(|(ledger, newest)| (ledger.clone(), from(ledger, newest.head.size))).collect();
        for (ledger, newest) in &heads {
            self.catch_up(ledger, from(ledger, newest.head.size), newest.head.size).await?;
        }
        for (ledger, newest) in heads {
            self.checkpoint(&ledger, newest.head.size, &newest.note).await?;
        }
        Ok(news)
    }

    async fn catch_up(&mut self, ledger: &LedgerName, from: u64, size: u64) -> Told {
        if from == size {
            return Ok(());
        }
        match self.state.registrar.missed(ledger, from, size).await {
            Ok(Missed::Entries(entries)) => {
                for stored in entries {
                    self.urgent(ledger, stored.position, &stored.entry).await?;
                }
                Ok(())
            }
            Ok(Missed::TooMuch) => self.resync(ledger, size).await,
            Err(error) => {
                tracing::error!(code = error.refusal.code(), cause = error.chain(), "a follower cannot be told what it missed");
                Err(End::Refused(error.refusal))
            }
        }
    }

    /// It was too slow and missed news: it must fetch for itself.
    async fn begin_again(&mut self) -> Result<Receiver<News>, End> {
        let (heads, news) = self.state.registrar.publisher().follow(&self.ledgers);
        for (ledger, newest) in heads {
            self.resync(&ledger, newest.head.size).await?;
            self.checkpoint(&ledger, newest.head.size, &newest.note).await?;
        }
        Ok(news)
    }

    async fn urgent(&mut self, ledger: &LedgerName, position: u64, entry: &[u8]) -> Told {
        if self.is_own_end(ledger, entry) {
            self.ask_standing().await?;
        }
        match self.sent.get_mut(ledger) {
            Some(sent) if *sent <= position => *sent = position + 1,
            _ => return Ok(()),
        }
        let data = json!({"ledger": ledger.as_str(), "position": position, "entry": STANDARD.encode(entry)});
        self.send("entry", true, &data).await
    }

    async fn checkpoint(&mut self, ledger: &LedgerName, size: u64, note: &str) -> Told {
        match self.sent.get_mut(ledger) {
            Some(sent) => *sent = (*sent).max(size),
            None => return Ok(()),
        }
        self.send("checkpoint", true, &json!({"ledger": ledger.as_str(), "checkpoint": note})).await
    }

    /// Without an id: what it names was not sent.
    async fn resync(&mut self, ledger: &LedgerName, size: u64) -> Told {
        metrics::counter!("fleetmark_feed_resyncs_total").increment(1);
        self.sent.insert(ledger.clone(), size);
        self.send("resync", false, &json!({"ledger": ledger.as_str()})).await
    }

    async fn send(&self, event: &'static str, with_id: bool, data: &Value) -> Told {
        let mut text = String::new();
        if with_id {
            text.push_str("id: ");
            for (count, (ledger, position)) in self.sent.iter().enumerate() {
                // Writing to a string does not fail.
                let _ = write!(text, "{}{ledger}@{position}", if count == 0 { "" } else { "," });
            }
            text.push('\n');
        }
        let _ = write!(text, "event: {event}\ndata: {data}\n\n");
        match timeout(PATIENCE, self.events.send(text.into())).await {
            Ok(Ok(())) => {
                metrics::counter!("fleetmark_feed_events_total", "event" => event).increment(1);
                Ok(())
            }
            Ok(Err(_)) => Err(End::Left),
            Err(_) => Err(End::TooSlow),
        }
    }

    /// Whether the entry changes the standing of the follower's own certificate.
    fn is_own_end(&self, ledger: &LedgerName, entry: &[u8]) -> bool {
        if *ledger != self.caller.certificate.ledger {
            return false;
        }
        let Ok(Entry { event: Event::StandingChanged { certificates, .. }, .. }) = Entry::decode(entry) else { return false };
        let serial = self.caller.certificate.serial;
        let (epoch, index) = (serial.epoch(), serial.index().0);
        let mut ranges = certificates.ranges().iter().filter(|range| range.epoch == epoch);
        ranges.any(|range| index.checked_sub(range.first.0).is_some_and(|offset| offset < range.count))
    }

    /// Whether it is still in good standing, and may follow what it follows.
    async fn ask_standing(&mut self) -> Told {
        let registrar = &self.state.registrar;
        let followed = async {
            let caller = registrar.identify(&self.peer, self.state.clock.now()).await?;
            registrar.followed(&caller).await
        };
        let permitted: BTreeSet<_> = match followed.await {
            Ok(followed) => followed.into_iter().map(|followed| followed.ledger).collect(),
            // Nothing is known against it while the store cannot be asked.
            Err(error) if error.refusal.class() == Class::Unavailable => return Ok(()),
            Err(error) => return Err(End::Refused(error.refusal)),
        };
        let stands = if self.follows_all { self.ledgers == permitted } else { self.ledgers.is_subset(&permitted) };
        if stands { Ok(()) } else { Err(End::Changed) }
    }
}
