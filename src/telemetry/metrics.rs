//! Metrics: recorded anywhere through the `metrics` macros, shown at `/metrics` on the admin door.

use std::sync::{Mutex, PoisonError};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// The recorder's handle, once there is one: a process has one recorder.
static INSTALLED: Mutex<Option<PrometheusHandle>> = Mutex::new(None);

/// Bounds of the histograms in seconds: half a millisecond to ten seconds.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Bounds of the histograms that count acts: a batch has at most 256.
const ACTS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Why metrics cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be set up")]
pub struct MetricsError(#[source] metrics_exporter_prometheus::BuildError);

/// Installs the recorder, or gives the handle of the one that was installed. `PrometheusHandle::render` is the page; call
/// `run_upkeep` every few seconds, or histograms grow.
///
/// # Errors
/// [`MetricsError`] where another recorder was installed first.
pub fn install() -> Result<PrometheusHandle, MetricsError> {
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_acts".to_owned()), &ACTS))
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(MetricsError)?;
    describe();
    *installed = Some(handle.clone());
    Ok(handle)
}

/// What each metric counts; docs/operators.md has the same list.
pub const COUNTERS: [(&str, &str); 14] = [
    ("fleetmark_requests_total", "Requests answered, by door, route and status."),
    ("fleetmark_refused_total", "Refusals, by code."),
    ("fleetmark_handshake_refused_total", "TLS handshakes refused, by door and code."),
    ("fleetmark_enrollments_total", "Certificates issued to subjects, by kind and outcome."),
    ("fleetmark_alarms_total", "Alarms, by name."),
    ("fleetmark_store_commits_total", "Durable commits of the store."),
    ("fleetmark_store_failures_total", "Acts that the store failed to do, by kind of failure."),
    ("fleetmark_ocsp_total", "OCSP answers, by outcome: kept, signed, or not cacheable."),
    ("fleetmark_shards_made_total", "Revocation lists of slices made."),
    ("fleetmark_job_failures_total", "Jobs of the server's own that failed, by job and code; each is tried again."),
    ("fleetmark_snapshots_made_total", "Snapshots of ledgers made."),
    ("fleetmark_feed_events_total", "Events sent to followers of the feed, by event."),
    ("fleetmark_feed_resyncs_total", "Followers of the feed told to fetch, because they were too far behind."),
    ("fleetmark_feed_ended_total", "Feeds that ended, by reason."),
];

/// The same of gauges.
pub const GAUGES: [(&str, &str); 3] = [
    ("fleetmark_authority_seconds_left", "Until an authority's certificate ends, by authority."),
    ("fleetmark_list_seconds_left", "Until the first of the revocation lists ends, by kind: crl or shard."),
    ("fleetmark_feed_followers", "Followers of the feed, now."),
];

/// The same of histograms.
pub const HISTOGRAMS: [(&str, &str); 3] = [
    ("fleetmark_request_seconds", "From a request's head to its answer, by door and route."),
    ("fleetmark_store_batch_acts", "Acts a batch of the store's writer."),
    ("fleetmark_store_batch_seconds", "From a batch's begin to its durable commit."),
];

fn describe() {
    for (name, text) in COUNTERS {
        metrics::describe_counter!(name, text);
    }
    for (name, text) in GAUGES {
        metrics::describe_gauge!(name, text);
    }
    for (name, text) in HISTOGRAMS {
        metrics::describe_histogram!(name, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_installed_once_and_shown_with_their_description() {
        let handle = install().expect("first");
        install().expect("the second time gives the same");
        metrics::counter!("fleetmark_store_commits_total").increment(3);
        metrics::histogram!("fleetmark_store_batch_seconds").record(0.002);
        let page = handle.render();
        assert!(page.contains("# HELP fleetmark_store_commits_total Durable commits"), "{page}");
        assert!(page.contains("fleetmark_store_commits_total 3"), "{page}");
        assert!(page.contains("fleetmark_store_batch_seconds_bucket{le=\"0.0025\"} 1"), "{page}");
    }
}
