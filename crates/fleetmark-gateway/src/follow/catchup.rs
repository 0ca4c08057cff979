//! From what is verified to a signed head: nothing is visible as verified before its root is.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fleetmark_domain::{LedgerName, Standing};
use fleetmark_ledger::entry::{Entry, Event};
use fleetmark_ledger::merkle::leaf_hash;
use fleetmark_ledger::snapshot;

use super::Shared;
use super::alarm::Alarm;
use super::bundle::{self, TILE};
use super::client::{Trouble, chunk};
use super::heads::Target;
use super::worker::Worker;
use crate::disk::{Attributes, Record, Wanted};
use crate::knowledge::Change;
use crate::knowledge::table::State;

/// Behind by more than this, entries are applied to a copy that is shown when it is whole.
const SHORT: u64 = if cfg!(test) { 300 } else { 8_192 };
/// Behind by more than this, and knowing nothing, a snapshot is asked for.
const COLD: u64 = if cfg!(test) { 600 } else { 65_536 };
/// A whole bundle of the longest entries, in octets.
const MAX_BUNDLE: usize = 256 * (60_000 + 2);
/// The longest snapshot that is fetched, in octets: some 25 million certificates.
const MAX_SNAPSHOT: usize = 1 << 30;
/// Entries that are applied under one lock.
const AT_ONCE: usize = 512;

impl Worker {
    /// Fetches, verifies and applies up to `target`.
    pub(super) async fn reach(&self, shared: &Shared, target: &Target) -> Result<(), Trouble> {
        let size = self.size();
        if target.signed.head.size.saturating_sub(size) > SHORT {
            self.long(shared, target, size).await
        } else {
            self.short(shared, target, size).await
        }
    }

    async fn short(&self, shared: &Shared, target: &Target, size: u64) -> Result<(), Trouble> {
        let mut entries = Vec::new();
        for number in tiles(size, target.signed.head.size) {
            entries.extend(self.entries(shared, number, size, target).await?);
        }
        self.verify(shared, &entries, target)?;
        let applied = self.apply(shared, &entries, size, target)?;
        self.prepare_policy(shared).await;
        self.publish(shared, target, &entries, size, applied);
        self.log(shared, &entries, target).await;
        Ok(())
    }

    /// The root of all entries must be the signed one, and on the way every other head that was signed.
    fn verify(&self, shared: &Shared, entries: &[Vec<u8>], target: &Target) -> Result<(), Trouble> {
        let mut frontier = self.ledger.read(|table| table.state.frontier().clone());
        let mut other = None;
        for entry in entries {
            frontier.append(leaf_hash(entry), |_, _| {});
            other = other.or(self.heads().check(&frontier).err());
        }
        if frontier.head() != target.signed.head {
            return Err(self.root_mismatch(shared, target, &entries.concat()));
        }
        let Some(other) = other else {
            return Ok(());
        };
        self.break_off(shared, Alarm::Fork, &target.signed.note, &other.note);
        Err(Trouble::NotSigned)
    }

    fn root_mismatch(&self, shared: &Shared, target: &Target, entries: &[u8]) -> Trouble {
        self.leads_elsewhere.store(true, Ordering::Relaxed);
        let files = [("note", target.signed.note.as_bytes()), ("entries", entries)];
        self.alarm(shared, Alarm::RootMismatch, "entries do not give the signed root; none of them counts", &files)
    }

    /// Applies verified entries. Returns what everybody has to be told.
    fn apply(&self, shared: &Shared, entries: &[Vec<u8>], size: u64, target: &Target) -> Result<Vec<Change>, Trouble> {
        let mut changes = Vec::new();
        let mut position = size;
        for some in entries.chunks(AT_ONCE) {
            let applied =
                self.ledger.write(|table| some.iter().map(|octets| table.state.append(octets)).collect::<Result<Vec<_>, _>>());
            let applied = applied.map_err(|violation| {
                tracing::error!(ledger = self.name.as_str(), %violation, "a signed entry breaks a rule");
                self.break_off(shared, Alarm::RuleViolated, &target.signed.note, "");
                Trouble::NotSigned
            })?;
            for (entry, octets) in applied.iter().zip(some) {
                self.want_details(Wanted::of(entry, position));
                if self.changes_grants(&entry.event) {
                    shared.ask_soon.notify_one();
                }
                let known = self.ledger.read(|table| table.pushed.has(position, octets));
                changes.extend(self.change(entry).filter(|_| !known));
                position += 1;
            }
        }
        Ok(changes)
    }

    fn change(&self, entry: &Entry) -> Option<Change> {
        match &entry.event {
            Event::StandingChanged { standing: Standing::Good | Standing::Unconfirmed, .. } => None,
            Event::StandingChanged { certificates, .. } => {
                Some(Change::Worsened { ledger: self.name.clone(), certificates: Arc::new(certificates.clone()) })
            }
            Event::AuthorityChanged { .. } | Event::PolicyActivated { .. } | Event::ExternalAuthorityChanged(_) => {
                Some(Change::Everything)
            }
            _ => None,
        }
    }

    /// A fleet's rules, such as its `max_age`, or what somebody in `system` may see, the gateway itself perhaps.
    fn changes_grants(&self, event: &Event) -> bool {
        matches!(event, Event::FleetChanged { .. })
            || (self.name == LedgerName::System && matches!(event, Event::Changed { .. }))
    }

    fn want_details(&self, wanted: impl IntoIterator<Item = Wanted>) {
        // `system`'s details are withheld from gateways.
        if matches!(self.name, LedgerName::Fleet(_)) {
            self.details().extend(wanted.into_iter().map(|one| (one.position, one)));
        }
    }

    /// The head is reached: what was pushed is settled, knowledge is fresh, everybody is told.
    fn publish(&self, shared: &Shared, target: &Target, entries: &[Vec<u8>], from: u64, changes: Vec<Change>) {
        let verified = |position: u64| {
            let offset = usize::try_from(position.checked_sub(from)?).ok()?;
            entries.get(offset).map(Vec::as_slice)
        };
        let received = self.heads().target().filter(|newest| newest.signed.head == target.signed.head);
        let received = received.as_ref().unwrap_or(target).received();
        let different = self.ledger.write(|table| {
            table.received = Some(received);
            table.pushed.settle(target.signed.head.size, verified)
        });
        self.heads().reached(target);
        for one in &different {
            let files = [("pushed", &one.pushed[..]), ("verified", &one.verified[..])];
            let what = format!("what was pushed for position {} is not what the ledger holds", one.position);
            self.alarm(shared, Alarm::PushedEntryDiffers, &what, &files);
        }
        for change in changes {
            shared.knowledge.inner.tell(change);
        }
    }

    /// On a copy of the state, which is shown when its root is the signed one.
    async fn long(&self, shared: &Shared, target: &Target, size: u64) -> Result<(), Trouble> {
        let snapshot = if size == 0 && target.signed.head.size > COLD && !self.heads().crosses() {
            self.snapshot(shared).await?
        } else {
            None
        };
        let attributes = if snapshot.is_some() { Some(self.all_attributes(shared).await?) } else { None };
        let vouched = snapshot.as_ref().map(|(state, hash)| (state.frontier().size(), *hash));
        let mut state = snapshot.map_or_else(|| self.ledger.read(|table| table.state.clone()), |(state, _)| state);
        let mut found = vouched.is_none();
        let mut wanted = Vec::new();
        let from = state.frontier().size();
        for number in tiles(from, target.signed.head.size) {
            for octets in self.entries(shared, number, from, target).await? {
                let position = state.frontier().size();
                let entry = state.append(&octets).map_err(|_| self.root_mismatch(shared, target, &octets))?;
                if self.heads().check(state.frontier()).is_err() {
                    return Err(self.root_mismatch(shared, target, &octets));
                }
                wanted.extend(Wanted::of(&entry, position));
                if let Event::SnapshotMade { size, hash } = entry.event {
                    found |= vouched == Some((size, hash));
                }
            }
        }
        if state.frontier().head() != target.signed.head {
            return Err(self.root_mismatch(shared, target, &[]));
        }
        if !found {
            return Err(self.alarm(shared, Alarm::SnapshotRefused, "the ledger does not vouch for the snapshot", &[]));
        }
        self.want_details(wanted);
        self.show(shared, target, state, attributes).await;
        Ok(())
    }

    async fn show(&self, shared: &Shared, target: &Target, state: State, attributes: Option<Attributes>) {
        self.ledger.write(|table| {
            table.state = state;
            if let Some(attributes) = attributes {
                table.attributes = attributes;
            }
        });
        shared.ask_soon.notify_one();
        self.prepare_policy(shared).await;
        self.publish(shared, target, &[], 0, vec![Change::Everything]);
        self.disk.lock().await.forget_log();
    }

    /// The newest snapshot; None where there is none yet.
    async fn snapshot(&self, shared: &Shared) -> Result<Option<(State, [u8; 32])>, Trouble> {
        let opened = shared.client.open(&format!("/v1/ledgers/{}/snapshot", self.name), &[], None).await;
        let mut response = match opened {
            Err(trouble) if trouble.is_absent() => return Ok(None),
            opened => opened?,
        };
        let mut octets = Vec::new();
        while let Some(some) = chunk(&mut response).await? {
            if octets.len() + some.len() > MAX_SNAPSHOT {
                return Err(Trouble::Answer("the snapshot is longer than 1 GiB".to_owned()));
            }
            octets.extend(some);
        }
        let limit = u64::try_from(octets.len()).unwrap_or(u64::MAX);
        let read = snapshot::read(self.key.clone(), &mut &octets[..], limit);
        let read = read.map_err(|error| self.alarm(shared, Alarm::SnapshotRefused, &error.to_string(), &[]))?;
        Ok(Some(read))
    }

    /// The entries of a tile from `from` on, as far as the target goes.
    async fn entries(&self, shared: &Shared, number: u64, from: u64, target: &Target) -> Result<Vec<Vec<u8>>, Trouble> {
        let (path, width) = bundle::path("entries", number, target.signed.head.size);
        let octets = shared.client.get(&format!("/v1/ledgers/{}/{path}", self.name), &[], MAX_BUNDLE).await?;
        let entries = bundle::parse(&octets, usize::try_from(width).unwrap_or(0))
            .map_err(|error| self.alarm(shared, Alarm::BundleRefused, &format!("{path}: {error}"), &[("bundle", &octets)]))?;
        let skip = usize::try_from(from.saturating_sub(number * TILE)).unwrap_or(usize::MAX);
        Ok(entries.into_iter().skip(skip).map(<[u8]>::to_vec).collect())
    }

    pub(super) fn size(&self) -> u64 {
        self.ledger.read(|table| table.state.frontier().size())
    }

    async fn log(&self, shared: &Shared, entries: &[Vec<u8>], target: &Target) {
        let records: Vec<_> = entries.iter().cloned().map(Record::Entry).collect();
        self.write_log(shared, &records, &target.signed.note, Duration::ZERO).await;
    }
}

/// The tiles that hold entries from `from` up to and without `to`.
fn tiles(from: u64, to: u64) -> std::ops::Range<u64> {
    from / TILE..to.div_ceil(TILE)
}
