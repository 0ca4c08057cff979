//! What the server does by itself: heartbeat of the ledgers, the lapse of what was never confirmed, makers' authorities, revocation
//! lists, the return of a lost PKCS#11 token, and the renewal of its own certificates. Each job goes on whatever befalls it; a
//! failure, a panic too, is logged, counted, and tried again.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use fleetmark_domain::Refusal;
use futures_util::FutureExt;
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::http::public::health::Pulse;
use crate::registrar::own::OwnCertificate;
use crate::registrar::{Error, Registrar};
use crate::store::BoxError;
use crate::telemetry::clock::SharedClock;
use crate::tls::{Trust, certified_key};

/// DESIGN §7: a follower can tell a quiet ledger from a dead server.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Followers are told of new checkpoints so often at most; of urgent entries at once.
const ANNOUNCE: Duration = Duration::from_millis(200);
/// How often it is looked whether a snapshot is due.
const SNAPSHOTS: Duration = Duration::from_secs(5);
/// How often it is looked for certificates that were not confirmed in time.
const LAPSE: Duration = Duration::from_secs(1);
/// A list is looked at so often, changes or not.
const LISTS: Duration = Duration::from_secs(30);
/// Status lists follow the ledgers so often at most. Firmware is to find a revocation in them within a minute.
const STATUS_LISTS: Duration = Duration::from_secs(10);
/// Changes that come within so long are taken together.
const GATHER: Duration = Duration::from_millis(100);
/// The makers' authorities are read so often: another process of this installation may have changed a group.
const MAKERS: Duration = Duration::from_secs(30);
/// How often the server's own certificates are looked at.
const RENEWAL: Duration = Duration::from_secs(600);
/// How often the store is asked whether it takes writes.
const PROBE: Duration = Duration::from_secs(10);

/// What the jobs work on.
#[derive(Clone)]
pub struct Jobs {
    /// The use cases.
    pub registrar: Arc<Registrar>,
    /// Now.
    pub clock: SharedClock,
    /// Is told of every write that succeeded.
    pub pulse: Arc<Pulse>,
    /// Whose clients the doors let in.
    pub trust: Arc<ArcSwap<Trust>>,
    /// The certificate that the doors show.
    pub door: Arc<ArcSwap<CertifiedKey>>,
    /// The names that it is for.
    pub dns_names: Vec<String>,
    /// The addresses that it is for.
    pub addresses: Vec<IpAddr>,
}

impl Jobs {
    /// Starts all jobs; they end when the set is dropped.
    pub fn start(&self) -> JoinSet<()> {
        let mut jobs = JoinSet::new();
        self.add(&mut jobs, "heartbeat", Self::heartbeat);
        self.add(&mut jobs, "announce", Self::announce);
        self.add(&mut jobs, "probe", Self::probe);
        self.add(&mut jobs, "lapse", Self::lapse);
        self.add(&mut jobs, "grace", Self::grace);
        self.add(&mut jobs, "makers", Self::makers);
        self.add(&mut jobs, "authorities", Self::authorities);
        self.add(&mut jobs, "alarms", Self::alarms);
        self.add(&mut jobs, "orders", Self::orders);
        self.add(&mut jobs, "externals", Self::externals);
        self.add(&mut jobs, "lists", Self::lists);
        self.add(&mut jobs, "status_lists", Self::status_lists);
        self.add(&mut jobs, "snapshots", Self::snapshots);
        self.add(&mut jobs, "renewal", Self::renewal);
        if self.registrar.token_reachable().is_some() {
            self.add(&mut jobs, "token", Self::token);
        }
        jobs
    }

    fn add<F>(&self, jobs: &mut JoinSet<()>, name: &'static str, job: fn(Self) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let this = self.clone();
        jobs.spawn(revived(name, move || job(this.clone())));
    }

    async fn heartbeat(self) {
        let mut ticks = every(HEARTBEAT);
        loop {
            ticks.tick().await;
            self.registrar.publisher().heartbeat(self.clock.now());
        }
    }

    async fn announce(self) {
        let publisher = self.registrar.publisher();
        let mut commits = publisher.commits();
        // The publisher is this job's own: its channel does not close before the job ends.
        while commits.changed().await.is_ok() {
            publisher.announce();
            sleep(ANNOUNCE).await;
        }
    }

    async fn probe(self) {
        let mut ticks = every(PROBE);
        loop {
            ticks.tick().await;
            let now = self.clock.now();
            match self.registrar.housekeeping(now).await {
                Ok(()) => self.pulse.written(now),
                Err(error) => failed("probe", &error),
            }
        }
    }

    async fn lapse(self) {
        let mut ticks = every(LAPSE);
        loop {
            ticks.tick().await;
            match self.registrar.revoke_lapsed(self.clock.now()).await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "revoked what was never confirmed"),
                Err(error) => failed("lapse", &error),
            }
        }
    }

    /// The handshake lets in who may renew late, and nobody else whose certificate has ended.
    async fn grace(self) {
        let mut ticks = every(LAPSE);
        loop {
            ticks.tick().await;
            match self.registrar.late_grace(self.clock.now()).await {
                Ok(grace) if grace == self.trust.load().grace() => {}
                Ok(grace) => drop(self.trust.rcu(|now| now.with_grace(grace))),
                Err(error) => failed("grace", &error),
            }
        }
    }

    /// Another process of this installation may have changed an authority, or have died while it ended one.
    async fn authorities(self) {
        let mut ticks = every(LAPSE);
        loop {
            ticks.tick().await;
            if let Err(error) = self.registrar.refresh_authorities().await {
                failed("authorities", &error);
            }
            if let Err(error) = self.registrar.end_by_lists(self.clock.now()).await {
                failed("authorities", &error);
            }
        }
    }

    async fn makers(self) {
        let mut ticks = every(MAKERS);
        loop {
            ticks.tick().await;
            if let Err(error) = self.registrar.refresh_makers().await {
                failed("makers", &error);
            }
            if let Err(error) = self.registrar.refresh_externals().await {
                failed("externals", &error);
            }
        }
    }

    /// What other authorities say of their certificates, each at its time, whatever becomes of the others.
    async fn externals(self) {
        let mut ticks = every(LAPSE);
        let mut asking = JoinSet::new();
        loop {
            ticks.tick().await;
            while let Some(done) = asking.try_join_next() {
                done.unwrap_or_else(|_| panicked("externals"));
            }
            for id in self.registrar.externals_to_ask(self.clock.now()) {
                let this = self.clone();
                asking.spawn(async move {
                    if let Err(error) = this.registrar.follow_external(id, this.clock.now()).await {
                        failed("externals", &error);
                    }
                });
            }
        }
    }

    async fn alarms(self) {
        let mut ticks = every(LAPSE);
        loop {
            ticks.tick().await;
            if let Err(error) = self.registrar.record_alarms().await {
                failed("alarms", &error);
            }
        }
    }

    /// Does what operators ordered for many certificates, and goes on with what a server before this one began.
    async fn orders(self) {
        loop {
            match self.registrar.work_on_orders(self.clock.now()).await {
                Ok(true) => {}
                // Whether told or timed out, what is due is looked for.
                Ok(false) => drop(timeout(LAPSE, self.registrar.order_given()).await),
                Err(error) => {
                    failed("orders", &error);
                    sleep(LAPSE).await;
                }
            }
        }
    }

    async fn lists(self) {
        loop {
            // Whether told or timed out, the lists are looked at.
            let _ = timeout(LISTS, self.registrar.published().changed()).await;
            if let Err(error) = self.registrar.refresh_crls(self.clock.now()).await {
                failed("lists", &error);
                sleep(LAPSE).await;
            }
            sleep(GATHER).await;
        }
    }

    async fn status_lists(self) {
        let mut commits = self.registrar.publisher().commits();
        loop {
            // Whether something was written or nothing: lists also come of age.
            let _ = timeout(LISTS, commits.changed()).await;
            sleep(STATUS_LISTS).await;
            commits.mark_unchanged();
            if let Err(error) = self.registrar.refresh_status_lists(self.clock.now()).await {
                failed("status_lists", &error);
            }
        }
    }

    /// Looks for a token that was lost.
    async fn token(self) {
        let mut ticks = every(LAPSE);
        let mut connections = 1;
        loop {
            ticks.tick().await;
            connections = self.registrar.revive_token(connections).await;
        }
    }

    async fn snapshots(self) {
        let mut ticks = every(SNAPSHOTS);
        loop {
            ticks.tick().await;
            if let Err(error) = self.registrar.make_snapshots(self.clock.now()).await {
                failed("snapshots", &error);
                sleep(LISTS).await;
            }
        }
    }

    async fn renewal(self) {
        loop {
            let now = self.clock.now();
            if let Err(error) = self.registrar.renew_responders(now).await {
                failed("responders", &error);
            }
            match self.registrar.door_certificate(&self.dns_names, &self.addresses, now).await {
                Ok(own) => match load(&self.registrar, &own) {
                    Ok(key) => self.door.store(Arc::new(key)),
                    Err(error) => tracing::error!(job = "doors", %error, "the doors' new certificate cannot be used"),
                },
                Err(error) => failed("doors", &error),
            }
            self.measure_ends();
            self.registrar.watch_root_lists(now);
            // Whether told or timed out, they are looked at: of an authority that issues no more the doors show nothing new.
            let _ = timeout(RENEWAL, self.registrar.authorities().changed()).await;
            sleep(GATHER).await;
        }
    }

    /// How long the installation's authorities still hold, for alarms long before their end.
    fn measure_ends(&self) {
        let now = self.clock.now();
        for authority in self.registrar.authorities().all().iter() {
            let left = u32::try_from(authority.not_after.since(now).as_secs()).unwrap_or(u32::MAX);
            let id = authority.record.id.to_string();
            metrics::gauge!("fleetmark_authority_seconds_left", "authority" => id).set(f64::from(left));
        }
    }
}

/// A certificate of the server's own, as TLS uses it.
pub fn load(registrar: &Registrar, own: &OwnCertificate) -> Result<CertifiedKey, BoxError> {
    let pkcs8 = registrar.authorities().keys().load_pkcs8(&own.key_label)?;
    let chain = std::iter::once(&own.certificate.der).chain(&own.chain);
    let chain = chain.map(|der| CertificateDer::from(der.clone())).collect();
    Ok(certified_key(chain, &pkcs8)?)
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Does a job, and after a panic does it anew.
async fn revived<F: Future<Output = ()>>(name: &'static str, job: impl Fn() -> F) {
    while AssertUnwindSafe(job()).catch_unwind().await.is_err() {
        panicked(name);
        sleep(LAPSE).await;
    }
}

/// The panic's own words went to the log by the hook.
fn panicked(job: &'static str) {
    metrics::counter!("fleetmark_job_failures_total", "job" => job, "code" => Refusal::InternalError.code()).increment(1);
    tracing::error!(job, "a job panicked and begins anew");
}

fn failed(job: &'static str, error: &Error) {
    metrics::counter!("fleetmark_job_failures_total", "job" => job, "code" => error.refusal.code()).increment(1);
    tracing::error!(job, code = error.refusal.code(), cause = error.chain(), "a job failed and is tried again");
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_job_that_panics_begins_anew() {
        let begun = AtomicU32::new(0);
        let job = async || assert_ne!(begun.fetch_add(1, Ordering::Relaxed), 0, "the first time it panics");
        revived("test", job).await;
        assert_eq!(begun.into_inner(), 2);
    }
}
