//! Other authorities' rules, and reports of their certificates that were met here.

use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use fleetmark_device::backoff;
use fleetmark_domain::{Fingerprint, LedgerName};
use fleetmark_external::rules::MAX_DOCUMENT;

use super::Shared;
use super::alarm::Alarm;
use super::client::Trouble;
use super::wire::{JudgedAbroad, ReportAbroad};
use super::worker::Worker;
use crate::disk::sha256;
use crate::knowledge::abroad::Met;

/// How much of the server's words is repeated, in characters.
const MAX_SHOWN: usize = 64;

/// Reports what was met, as soon as there is something.
pub(super) async fn reports(shared: &Arc<Shared>) {
    let abroad = &shared.knowledge.inner.abroad;
    let mut failures = 0;
    loop {
        abroad.news().await;
        loop {
            let batch = abroad.batch(shared.clock.now());
            if batch.is_empty() {
                break;
            }
            match report(shared, &batch).await {
                Ok(()) => failures = 0,
                Err(trouble) => {
                    failures += 1;
                    abroad.untold(&batch);
                    tracing::warn!(%trouble, count = batch.len(), "certificates of another authority could not be reported");
                    tokio::time::sleep(backoff::after(failures.min(5), backoff::roll())).await;
                }
            }
        }
    }
}

async fn report(shared: &Shared, batch: &[Met]) -> Result<(), Trouble> {
    let Some(first) = batch.first() else { return Ok(()) };
    let path = format!("/v1/ledgers/{}/external-sightings", first.ledger);
    let certificates = batch.iter().map(|met| BASE64_STANDARD.encode(&met.der)).collect();
    let judged: JudgedAbroad = shared.client.exchange(&path, &ReportAbroad { certificates }).await?;
    let mut adopted = false;
    for one in judged.certificates.iter().take(batch.len()) {
        let outcome = match &*one.outcome {
            "adopted" => "adopted",
            "known" => "known",
            _ => "refused",
        };
        adopted |= outcome != "refused";
        metrics::counter!("fleetmark_gateway_external_reported_total", "outcome" => outcome).increment(1);
        let shown = |text: &str| text.chars().filter(char::is_ascii_graphic).take(MAX_SHOWN).collect::<String>();
        let (fingerprint, outcome) = (shown(&one.fingerprint), shown(&one.outcome));
        tracing::info!(ledger = first.ledger.as_str(), fingerprint, outcome, "a certificate of another authority was reported");
    }
    if adopted && let Some(worker) = shared.workers().into_iter().find(|worker| worker.name == first.ledger) {
        worker.ask_for_newest();
    }
    Ok(())
}

impl Worker {
    /// The rules of external authorities that the ledger names by their hash.
    pub(super) async fn get_externals(&self, shared: &Shared) -> Result<(), Trouble> {
        if self.name == LedgerName::System {
            return Ok(());
        }
        let abroad = &shared.knowledge.inner.abroad;
        for (authority, hash) in abroad.wanted(&self.ledger) {
            let path = format!("/v1/ledgers/{}/external-rules/{}", self.name, Fingerprint(hash));
            let document = match shared.client.get(&path, &[], MAX_DOCUMENT).await {
                // An older server, or rules that were changed again: the ledger will say so.
                Err(trouble) if trouble.is_absent() => continue,
                other => other?,
            };
            if sha256(&document).0 != hash || !abroad.take(&self.name, authority, hash, &document) {
                let what = "an external authority's rules are not those of the ledger, or cannot be read";
                return Err(self.alarm(shared, Alarm::AuthorityDiffers, what, &[("rules", &document)]));
            }
        }
        Ok(())
    }
}
