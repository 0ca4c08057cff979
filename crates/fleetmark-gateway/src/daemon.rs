//! The daemon: knowledge, follower, judge, endpoint, proxies and identity, put together, and taken apart within 10 seconds.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Place};
use crate::endpoint::{self, BindError, Listener, ProxyStatus, State};
use crate::follow::{self, Follower, Trouble};
use crate::identity::{self, Keeper, Origin, Own};
use crate::judge::Judge;
use crate::knowledge::Knowledge;
use crate::proxy::{self, WallClock};

/// Live connections have so long to end by themselves when the gateway stops.
const GRACE: Duration = Duration::from_secs(4);
/// The whole stop takes no longer.
const STOP_TIME: Duration = Duration::from_secs(9);
/// How often histograms are put in order.
const UPKEEP: Duration = Duration::from_secs(5);
/// Bounds of the histograms in seconds: a tenth of a millisecond to ten seconds.
const SECONDS: [f64; 14] = [0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Why the gateway does not run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The identity cannot be used.
    #[error(transparent)]
    Identity(#[from] fleetmark_device::Error),
    /// What is pinned cannot be read, or there is nothing.
    #[error(transparent)]
    Follow(#[from] Trouble),
    /// The endpoint cannot listen.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A proxy cannot listen.
    #[error("the proxy cannot listen at {0}")]
    Proxy(std::net::SocketAddr, #[source] io::Error),
    /// Metrics cannot be set up.
    #[error("metrics cannot be set up")]
    Metrics(#[from] BuildError),
    /// A part ended by itself.
    #[error("a part of the gateway ended by itself")]
    Ended(#[source] io::Error),
}

/// What a follower needs, for a gateway with this identity.
pub fn follow_setup(dir: &std::path::Path, config: Option<&Config>, own: &Own, origin: &Origin) -> follow::Setup {
    let servers = config.map(|config| config.servers.clone()).filter(|servers| !servers.is_empty());
    follow::Setup {
        dir: dir.to_owned(),
        servers: servers.unwrap_or_else(|| vec![origin.settings.server.clone()]),
        fleets: config.and_then(|config| config.fleets.clone()).unwrap_or_default(),
        roots: origin.roots.clone(),
        time: origin.time.clone(),
        identity: own.client(),
        clock: Arc::new(SystemClock),
    }
}

/// Runs until `stop` is ready.
///
/// # Errors
/// [`DaemonError`]; what the server refuses is no error: the gateway goes on by what it knows until that is stale.
pub async fn run(config: &Config, stop: impl Future<Output = ()>) -> Result<(), DaemonError> {
    let metrics = install_metrics()?;
    let (own, origin, keeper) = identity::open(&config.identity_dir(), &config.servers)?;
    // Bound before all else, so that a port in use is told first.
    let listener = Listener::bind(&config.verdicts.listen)?;
    let metrics_listener = config.metrics.map(|address| Listener::bind(&Place::Tcp(address))).transpose()?;
    let follower = Follower::open(follow_setup(&config.dir, Some(config), &own, &origin))?;
    let knowledge = follower.knowledge();
    let judge = Judge::new(knowledge.clone());
    let clock: WallClock = Arc::new(|| SystemClock.wall());
    let proxies = Arc::new(start_proxies(config, &own, &judge, &knowledge, &clock).await?);
    let state = State {
        judge,
        knowledge,
        max_requests: config.verdicts.max_requests,
        clock,
        report: report(own.clone(), &proxies),
        metrics: metrics.clone(),
    };
    let identity = own.status().identity;
    let mut running = endpoint::start(listener, metrics_listener, state).map_err(DaemonError::Ended)?;
    tracing::info!(identity, verdicts = %config.verdicts.listen, "running");
    let tasks = Tasks(vec![
        tokio::spawn(async move { follower.run().await }),
        tokio::spawn(Keeper::run(keeper)),
        tokio::spawn(upkeep(metrics)),
    ]);
    let outcome = tokio::select! {
        () = stop => Ok(()),
        error = running.ended() => Err(DaemonError::Ended(error)),
    };
    tracing::info!("stopping");
    // No news is taken any more, but live connections are judged to their end.
    let stopped = async {
        tokio::join!(running.stop(), stop_proxies(proxies));
    };
    if tokio::time::timeout(STOP_TIME, stopped).await.is_err() {
        tracing::warn!("not everything ended in time");
    }
    drop(tasks);
    outcome
}

/// Parts that run until they are dropped.
struct Tasks(Vec<tokio::task::JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Running proxies and where each leads to; taken out when the gateway stops.
type Proxies = Mutex<Vec<(proxy::Running, String)>>;

async fn start_proxies(
    config: &Config,
    own: &Own,
    judge: &Judge,
    knowledge: &Knowledge,
    clock: &WallClock,
) -> Result<Proxies, DaemonError> {
    let mut running = Vec::new();
    for settings in &config.proxies {
        let (listen, upstream) = (settings.listen, settings.upstream.clone());
        let started =
            proxy::start(settings.clone(), own.certified(), judge.clone(), knowledge.clone(), Arc::clone(clock)).await;
        running.push((started.map_err(|error| DaemonError::Proxy(listen, error))?, upstream));
    }
    Ok(Mutex::new(running))
}

async fn stop_proxies(proxies: Arc<Proxies>) {
    let running = std::mem::take(&mut *proxies.lock().unwrap_or_else(PoisonError::into_inner));
    join_all(running.into_iter().map(|(proxy, _)| proxy.stop(GRACE))).await;
}

fn report(own: Own, proxies: &Arc<Proxies>) -> endpoint::Report {
    let proxies = Arc::clone(proxies);
    Arc::new(move || {
        let running = proxies.lock().unwrap_or_else(PoisonError::into_inner);
        let status = |(proxy, upstream): &(proxy::Running, String)| ProxyStatus {
            listen: proxy.local_addr().to_string(),
            upstream: upstream.clone(),
            connections: proxy.connections(),
        };
        (Some(own.status()), running.iter().map(status).collect())
    })
}

fn install_metrics() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .install_recorder()?;
    endpoint::describe();
    Ok(handle)
}

async fn upkeep(metrics: PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        metrics.run_upkeep();
    }
}
