//! What belongs to a ledger and is not in it: policies' texts, authorities' certificates, details; and what goes to disk.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use fleetmark_domain::{Fingerprint, LedgerName};
use fleetmark_ledger::details::Details;
use fleetmark_ledger::state::ActivePolicy;
use fleetmark_policy::{MAX_TEXT, Set};

use super::Shared;
use super::alarm::Alarm;
use super::bundle::{self, TILE};
use super::client::Trouble;
use super::wire::{AttributesPage, Seen};
use super::worker::Worker;
use crate::clock::Mark;
use crate::disk::{self, Attributes, DiskError, MAX_ATTRIBUTES, Record, Wanted, attributes_record, sha256};
use crate::knowledge::{Change, Sighting};

/// The largest authority's certificate, in octets.
const MAX_CERTIFICATE: usize = 16 * 1024;
/// A whole bundle of the longest details, in octets.
const MAX_BUNDLE: usize = 256 * (16 * 1024 + 2);
/// A policy that is activated is waited for so long while the old one still counts; then none does.
const POLICY_PATIENCE: Duration = Duration::from_secs(5);
/// Before the second try within that; twice as long before each further one.
const POLICY_PAUSE: Duration = Duration::from_millis(200);
/// The clocks' mark is saved this often while nothing else is.
const SAVE_EVERY: Duration = Duration::from_secs(30);
/// Devices of one page of attributes.
const PAGE: u64 = 1_000;
/// The most pages of attributes: those of 20 million devices. A page may be empty, and not be the last.
const MAX_PAGES: usize = if cfg!(test) { 20 } else { 20_000 };

impl Worker {
    /// All that belongs to the ledger. What fails is tried again after the next checkpoint.
    pub(super) async fn get_beside(&self, shared: &Shared) {
        self.prepare_policy(shared).await;
        let outcomes = [self.get_authorities(shared).await, self.get_externals(shared).await, self.get_details(shared).await];
        for trouble in outcomes.into_iter().filter_map(Result::err) {
            tracing::warn!(ledger = self.name.as_str(), %trouble, "not all that belongs to the ledger is here; tried again");
        }
    }

    /// Sees to it that the active policy set is the one that counts, or none.
    pub(super) async fn prepare_policy(&self, shared: &Shared) {
        let (active, compiled) = self.ledger.read(|table| (table.state.policy(), table.compiled));
        let Some(active) = active.filter(|active| compiled != Some(*active)) else {
            return;
        };
        let here = self.ahead().take(active);
        let text = match here {
            Some(text) => Some(text),
            // None is waited for where no other set counts meanwhile.
            None => self.policy_in_time(shared, active, compiled.is_some()).await,
        };
        if let Some(text) = &text
            && let Err(error) = keep(&self.dir, "policy", text.as_bytes())
        {
            tracing::warn!(ledger = self.name.as_str(), %error, "the policy's text is not on disk");
        }
        self.install(shared, active, text.as_deref());
    }

    /// The text that was kept counts again, where it is the active one.
    pub(super) fn restore_policy(&self, shared: &Shared) {
        let Some(active) = self.ledger.read(|table| table.state.policy()) else {
            return;
        };
        let kept = disk::read(&self.dir.join("policy"), u64::try_from(MAX_TEXT).unwrap_or(u64::MAX)).ok().flatten();
        let text = kept.and_then(|octets| String::from_utf8(octets).ok());
        if let Some(text) = text.filter(|text| sha256(text.as_bytes()).0 == active.hash) {
            self.install(shared, active, Some(&text));
        }
    }

    /// The text, within [`POLICY_PATIENCE`]; with `again`, asked for again where the server could not be reached.
    async fn policy_in_time(&self, shared: &Shared, active: ActivePolicy, again: bool) -> Option<String> {
        let tries = async {
            let mut pause = POLICY_PAUSE;
            loop {
                match self.policy(shared, active).await {
                    Err(trouble @ (Trouble::Unreachable(_) | Trouble::Refused { .. })) if again => {
                        tracing::debug!(ledger = self.name.as_str(), version = active.version, %trouble, "asked for again");
                    }
                    outcome => return outcome,
                }
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        };
        let fetched = tokio::time::timeout(POLICY_PATIENCE, tries).await;
        let late = || Trouble::Unreachable("the text did not come in time".to_owned());
        fetched.map_err(|_| late()).flatten().inspect_err(|trouble| {
            tracing::warn!(ledger = self.name.as_str(), version = active.version, %trouble, "no policy counts here until its text comes");
        }).ok()
    }

    pub(super) fn policy_path(&self, active: ActivePolicy) -> String {
        format!("/v1/ledgers/{}/policies/{}", self.name, active.version)
    }

    async fn policy(&self, shared: &Shared, active: ActivePolicy) -> Result<String, Trouble> {
        let octets = shared.client.get(&self.policy_path(active), &[], MAX_TEXT).await?;
        if sha256(&octets).0 != active.hash {
            let what = "the policy set's text is not the one that was activated";
            return Err(self.alarm(shared, Alarm::PolicyDiffers, what, &[("text", &octets)]));
        }
        String::from_utf8(octets).map_err(|_| Trouble::Answer("the policy set's text is not UTF-8".to_owned()))
    }

    /// No text: no set counts, and the text is asked for again.
    fn install(&self, shared: &Shared, active: ActivePolicy, text: Option<&str>) {
        let set = text.map(Set::compile).and_then(|compiled| match compiled {
            Ok(set) => Some(Arc::new(set)),
            Err(findings) => {
                let first = findings.first().map(|finding| finding.message.clone()).unwrap_or_default();
                let what = format!("policy set {} does not compile, so that none counts: {first}", active.version);
                self.alarm(shared, Alarm::PolicyUnusable, &what, &[("text", text.unwrap_or_default().as_bytes())]);
                None
            }
        });
        self.ledger.write(|table| {
            table.set = set;
            table.compiled = text.map(|_| active);
        });
        shared.knowledge.inner.combine_policies();
        shared.knowledge.inner.tell(Change::Everything);
    }

    async fn get_authorities(&self, shared: &Shared) -> Result<(), Trouble> {
        if self.name != LedgerName::System {
            return Ok(());
        }
        let withheld = || shared.withheld.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, authority) in self.ledger.read(|table| table.state.authorities()) {
            if shared.knowledge.inner.has_certificate(&authority.fingerprint) || withheld().contains(&authority.fingerprint) {
                continue;
            }
            let path = format!("/v1/authorities/{}", authority.fingerprint);
            let der = match shared.client.get(&path, &[], MAX_CERTIFICATE).await {
                Err(trouble) if trouble.is_absent() => {
                    withheld().insert(authority.fingerprint);
                    continue;
                }
                other => other?,
            };
            if sha256(&der) != authority.fingerprint {
                let what = "an authority's certificate is not the one in the ledger";
                return Err(self.alarm(shared, Alarm::AuthorityDiffers, what, &[("certificate", &der)]));
            }
            if let Err(error) = keep_authority(&shared.dir, &authority.fingerprint, &der) {
                tracing::warn!(%error, "an authority's certificate is not on disk");
            }
            shared.knowledge.inner.keep_certificate(authority.fingerprint, der.into());
            shared.knowledge.inner.tell(Change::Everything);
        }
        shared.knowledge.inner.has_authorities();
        Ok(())
    }

    /// The certificates that were kept, where the ledger names them.
    pub(super) fn restore_authorities(&self, shared: &Shared) {
        if self.name != LedgerName::System {
            return;
        }
        for (_, authority) in self.ledger.read(|table| table.state.authorities()) {
            let path = authority_path(&shared.dir, &authority.fingerprint);
            let kept = disk::read(&path, u64::try_from(MAX_CERTIFICATE).unwrap_or(u64::MAX)).ok().flatten();
            if let Some(der) = kept.filter(|der| sha256(der) == authority.fingerprint) {
                shared.knowledge.inner.keep_certificate(authority.fingerprint, der.into());
                shared.knowledge.inner.has_authorities();
            }
        }
    }

    /// The details of registrations and changes: attributes. Those of one tile that cannot be used keep no others waiting.
    async fn get_details(&self, shared: &Shared) -> Result<(), Trouble> {
        self.drop_replaced();
        let (mut outcome, mut next) = (Ok(()), 0);
        while let Some((number, wanted)) = self.next_details(next) {
            next = (number + 1) * TILE;
            match self.details_of(shared, number, &wanted).await {
                Ok(()) => {}
                Err(trouble) if trouble.is_of_all() => return Err(trouble),
                Err(trouble) => outcome = outcome.and(Err(trouble)),
            }
        }
        outcome
    }

    /// Attributes are replaced whole: of one device's details the newest alone are wanted.
    fn drop_replaced(&self) {
        let mut details = self.details();
        let newest: HashMap<_, _> = details.values().map(|one| (one.subject, one.position)).collect();
        details.retain(|position, one| newest.get(&one.subject) == Some(position));
    }

    /// The first tile from this position on with entries whose details are wanted, and those entries.
    fn next_details(&self, from: u64) -> Option<(u64, Vec<Wanted>)> {
        let details = self.details();
        let number = details.range(from..).next()?.0 / TILE;
        let tile = details.range(number * TILE..(number + 1) * TILE);
        Some((number, tile.map(|(_, one)| *one).collect()))
    }

    async fn details_of(&self, shared: &Shared, number: u64, wanted: &[Wanted]) -> Result<(), Trouble> {
        let (path, width) = bundle::path("details", number, self.size());
        let octets = shared.client.get(&format!("/v1/ledgers/{}/{path}", self.name), &[], MAX_BUNDLE).await?;
        let all = bundle::parse(&octets, usize::try_from(width).unwrap_or(0))
            .map_err(|error| self.alarm(shared, Alarm::BundleRefused, &format!("{path}: {error}"), &[("bundle", &octets)]))?;
        let mut changed = Vec::new();
        for one in wanted {
            let offset = usize::try_from(one.position % TILE).unwrap_or(usize::MAX);
            let octets = all.get(offset).copied().unwrap_or_default();
            if octets.is_empty() {
                // None, erased, or withheld.
                changed.push((one.subject, BTreeMap::new()));
                continue;
            }
            let details = Details::decode(octets).ok().filter(|details| one.commitment == Some(details.commitment()));
            let Some(details) = details else {
                let what = format!("the details of position {} are not those that the entry commits to", one.position);
                return Err(self.alarm(shared, Alarm::DetailsDiffer, &what, &[("details", octets)]));
            };
            changed.push((one.subject, details.attributes));
        }
        for one in wanted {
            self.details().remove(&one.position);
        }
        self.keep_attributes(shared, changed).await;
        Ok(())
    }

    async fn keep_attributes(&self, shared: &Shared, changed: Vec<(u64, BTreeMap<String, String>)>) {
        let mut records = Vec::new();
        self.ledger.write(|table| {
            for (subject, attributes) in changed {
                let before = table.attributes.get(&subject).map(|before| (**before).clone()).unwrap_or_default();
                if before == attributes {
                    continue;
                }
                records.extend(attributes_record(subject, &attributes));
                if attributes.is_empty() {
                    table.attributes.remove(&subject);
                } else {
                    table.attributes.insert(subject, Arc::new(attributes));
                }
            }
        });
        if records.is_empty() {
            return;
        }
        shared.knowledge.inner.answers_are_void();
        shared.knowledge.inner.tell(Change::Everything);
        let note = self.heads().verified().map(|signed| signed.note.clone());
        if let Some(note) = note {
            self.write_log(shared, &records, &note, Duration::ZERO).await;
        }
    }

    /// All devices' attributes, page by page: for a start from a snapshot.
    pub(super) async fn all_attributes(&self, shared: &Shared) -> Result<Attributes, Trouble> {
        let (mut all, mut octets) = (Attributes::new(), 0);
        let (path, mut after) = (format!("/v1/ledgers/{}/attributes", self.name), 0);
        if self.name == LedgerName::System {
            return Ok(all);
        }
        for _ in 0..MAX_PAGES {
            let query = [("after", after.to_string()), ("limit", PAGE.to_string())];
            let (page, length): (AttributesPage, usize) = shared.client.json_of(&path, &query).await?;
            octets += u64::try_from(length).unwrap_or(u64::MAX);
            all.extend(page.subjects.into_iter().map(|of| (of.subject, Arc::new(of.attributes))));
            match page.next {
                Some(next) if next > after && octets <= MAX_ATTRIBUTES => after = next,
                Some(_) => break,
                None => return Ok(all),
            }
        }
        Err(Trouble::Answer("the pages of attributes do not end".to_owned()))
    }

    /// Saves what has to be, and the clocks' mark from time to time.
    pub(super) async fn save(&self, shared: &Shared) {
        let note = self.heads().verified().map(|signed| signed.note.clone());
        if let Some(note) = note {
            self.write_log(shared, &[], &note, SAVE_EVERY).await;
        }
    }

    /// Appends records, or writes everything where that is due. With no records, only when the mark is older than `every`.
    pub(super) async fn write_log(&self, shared: &Shared, records: &[Record], note: &str, every: Duration) {
        let Some(received) = self.ledger.read(|table| table.received) else {
            return;
        };
        let mut disk = self.disk.clone().lock_owned().await;
        let mark = Mark::take(&received, shared.clock.as_ref(), disk.mark());
        let fresh = disk.mark().is_some_and(|saved| mark.is_within(saved, every));
        if records.is_empty() && fresh && !disk.wants_whole() {
            return;
        }
        let whole = disk.wants_whole().then(|| {
            let (state, attributes) = self.ledger.read(|table| (table.state.clone(), table.attributes.clone()));
            (state, attributes, self.details().clone())
        });
        if whole.is_some() && !disk.may_retry(shared.clock.now()) {
            return;
        }
        let wanted = self.details().keys().next().copied();
        let (records, note) = (records.to_vec(), note.to_owned());
        let written = tokio::task::spawn_blocking(move || match whole {
            Some((state, attributes, wanted)) => disk.write(&state, &attributes, &wanted, &note, mark),
            None => disk.append(&records, wanted, &note, mark),
        });
        let outcome = written.await.unwrap_or(Err(DiskError::Form("the log")));
        if let Err(error) = outcome {
            Alarm::DiskFailed.raise(Some(&self.name), &format!("{error}; knowledge is kept in memory alone"));
        }
    }

    /// Reports at most 1,000 sightings.
    pub(super) async fn report(&self, shared: &Shared) -> Result<(), Trouble> {
        let waiting = || shared.knowledge.inner.sightings.lock().unwrap_or_else(PoisonError::into_inner);
        let batch: Vec<Sighting> = waiting().batch(&self.name, 1_000);
        if batch.is_empty() {
            return Ok(());
        }
        let sightings = batch.iter().map(|one| Seen::new(one.serial, one.fingerprint)).collect();
        shared.client.post(&format!("/v1/ledgers/{}/sightings", self.name), &super::wire::Report { sightings }).await?;
        waiting().done(&batch);
        Ok(())
    }
}

fn authority_path(dir: &Path, fingerprint: &Fingerprint) -> PathBuf {
    dir.join("authorities").join(format!("{fingerprint}.der"))
}

fn keep_authority(dir: &Path, fingerprint: &Fingerprint, der: &[u8]) -> Result<(), DiskError> {
    keep(&dir.join("authorities"), &format!("{fingerprint}.der"), der)
}

pub(super) fn keep(dir: &Path, name: &str, octets: &[u8]) -> Result<(), DiskError> {
    std::fs::create_dir_all(dir)?;
    disk::replace(&dir.join(name), octets)
}
