//! News that came ahead of its proof: it only makes things worse, and only until the proof is here.

use std::collections::HashMap;

use fleetmark_domain::{Epoch, Index, Standing};
use fleetmark_ledger::entry::{AuthorityState, Event, ExternalState, IndexSet, Range};

/// The most certificates that are kept one by one; more come with their proof.
const MAX_SINGLE: usize = 65_536;
/// A range of more certificates than this is kept as a range.
const WIDE: u32 = 64;
/// The most wide ranges.
const MAX_WIDE: usize = 1_024;
/// The most entries, and the most octets of them.
const MAX_ENTRIES: usize = 16_384;
const MAX_OCTETS: usize = 16 * 1024 * 1024;

/// Pushed entries above the verified ones, and what they make worse.
#[derive(Debug, Default)]
pub(crate) struct Pushed {
    entries: Vec<Entry>,
    octets: usize,
    single: HashMap<(Epoch, Index), Standing>,
    wide: Vec<(Range, Standing)>,
    authorities: HashMap<u32, AuthorityState>,
    externals: HashMap<u32, ExternalState>,
}

#[derive(Debug)]
struct Entry {
    position: u64,
    octets: Vec<u8>,
    event: Event,
}

/// What became of a pushed entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It counts from now on.
    New,
    /// It was here already.
    Known,
    /// Another entry was pushed for the same position. Both count.
    Differs,
    /// There is no room: it comes with its proof.
    Full,
}

/// A pushed entry that is not what the ledger holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Different {
    pub(crate) position: u64,
    pub(crate) pushed: Vec<u8>,
    pub(crate) verified: Vec<u8>,
}

impl Pushed {
    /// Takes an entry for a position that is not verified yet.
    pub(crate) fn take(&mut self, position: u64, octets: &[u8], event: &Event) -> Taken {
        let mut same = self.entries.iter().filter(|entry| entry.position == position).peekable();
        let differs = same.peek().is_some();
        if same.any(|entry| entry.octets == octets) {
            return Taken::Known;
        }
        if self.entries.len() >= MAX_ENTRIES || self.octets + octets.len() > MAX_OCTETS || !self.has_room(event) {
            return Taken::Full;
        }
        self.count(event);
        self.octets += octets.len();
        self.entries.push(Entry { position, octets: octets.to_vec(), event: event.clone() });
        if differs { Taken::Differs } else { Taken::New }
    }

    /// Whether exactly this entry was pushed for this position.
    pub(crate) fn has(&self, position: u64, octets: &[u8]) -> bool {
        self.entries.iter().any(|entry| entry.position == position && entry.octets == octets)
    }

    /// Entries below `size` are verified now: drops what was pushed for them. `verified` gives the verified octets of a
    /// position, where they are at hand. Returns the pushed entries that differ.
    pub(crate) fn settle<'a>(&mut self, size: u64, verified: impl Fn(u64) -> Option<&'a [u8]>) -> Vec<Different> {
        let entries = std::mem::take(&mut self.entries);
        let before = entries.len();
        let (settled, left): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.position < size);
        self.entries = left;
        if self.entries.len() != before {
            self.rebuild();
        }
        let differs = |entry: Entry| {
            let verified = verified(entry.position).filter(|verified| *verified != entry.octets)?.to_vec();
            Some(Different { position: entry.position, pushed: entry.octets, verified })
        };
        settled.into_iter().filter_map(differs).collect()
    }

    /// The worse of what is verified and what was pushed.
    pub(crate) fn standing(&self, epoch: Epoch, index: Index, verified: Standing) -> Standing {
        if self.entries.is_empty() {
            return verified;
        }
        let single = self.single.get(&(epoch, index)).copied();
        let wide = self.wide.iter().filter(|(range, _)| holds(range, epoch, index)).map(|(_, standing)| *standing);
        single.into_iter().chain(wide).fold(verified, Standing::or_worse)
    }

    /// The same of an authority.
    pub(crate) fn authority(&self, id: u32, verified: AuthorityState) -> AuthorityState {
        self.authorities.get(&id).map_or(verified, |pushed| worse_state(verified, *pushed))
    }

    /// The same of an external authority.
    pub(crate) fn external(&self, id: u32, verified: ExternalState) -> ExternalState {
        self.externals.get(&id).map_or(verified, |pushed| worse_external(verified, *pushed))
    }

    fn rebuild(&mut self) {
        (self.single, self.wide, self.authorities, self.externals) = Default::default();
        self.octets = self.entries.iter().map(|entry| entry.octets.len()).sum();
        let entries = std::mem::take(&mut self.entries);
        for entry in &entries {
            self.count(&entry.event);
        }
        self.entries = entries;
    }

    fn has_room(&self, event: &Event) -> bool {
        let Event::StandingChanged { certificates, .. } = event else {
            return true;
        };
        let (wide, narrow): (Vec<&Range>, Vec<&Range>) = certificates.ranges().iter().partition(|range| range.count > WIDE);
        let single: u64 = narrow.iter().map(|range| u64::from(range.count)).sum();
        self.wide.len() + wide.len() <= MAX_WIDE
            && usize::try_from(single).is_ok_and(|single| self.single.len() + single <= MAX_SINGLE)
    }

    fn count(&mut self, event: &Event) {
        match event {
            Event::StandingChanged { standing, certificates } => self.count_standing(*standing, certificates),
            Event::AuthorityChanged { authority, state, .. } => {
                let entry = self.authorities.entry(*authority).or_insert(*state);
                *entry = worse_state(*entry, *state);
            }
            Event::ExternalAuthorityChanged(external) => {
                let entry = self.externals.entry(external.authority).or_insert(external.state);
                *entry = worse_external(*entry, external.state);
            }
            _ => {}
        }
    }

    fn count_standing(&mut self, standing: Standing, certificates: &IndexSet) {
        for range in certificates.ranges() {
            if range.count > WIDE {
                self.wide.push((*range, standing));
                continue;
            }
            for index in range.first.0..range.first.0.saturating_add(range.count) {
                let entry = self.single.entry((range.epoch, Index(index))).or_insert(standing);
                *entry = entry.or_worse(standing);
            }
        }
    }
}

fn holds(range: &Range, epoch: Epoch, index: Index) -> bool {
    range.epoch == epoch && index.0.checked_sub(range.first.0).is_some_and(|offset| offset < range.count)
}

const fn worse_state(one: AuthorityState, other: AuthorityState) -> AuthorityState {
    if state_rank(other) > state_rank(one) { other } else { one }
}

/// The states' numbers ascend from the best.
const fn worse_external(one: ExternalState, other: ExternalState) -> ExternalState {
    if other.code() > one.code() { other } else { one }
}

const fn state_rank(state: AuthorityState) -> u8 {
    match state {
        AuthorityState::Prepared => 0,
        AuthorityState::Active => 1,
        AuthorityState::Tainted => 2,
        AuthorityState::Revoked => 3,
    }
}

#[cfg(test)]
mod tests {
    use fleetmark_domain::RevocationReason;

    use super::*;

    const REVOKED: Standing = Standing::Revoked(RevocationReason::Unspecified);

    fn change(standing: Standing, indexes: std::ops::Range<u32>) -> Event {
        let certificates = IndexSet::from_certificates(indexes.map(|index| (Epoch(1), Index(index))));
        Event::StandingChanged { standing, certificates }
    }

    #[test]
    fn the_worse_counts_until_the_ledger_has_the_position() {
        let mut pushed = Pushed::default();
        assert_eq!(pushed.take(5, b"a", &change(Standing::Held, 0..2)), Taken::New);
        assert_eq!(pushed.take(5, b"a", &change(Standing::Held, 0..2)), Taken::Known);
        assert_eq!(pushed.take(7, b"b", &change(REVOKED, 1..1000)), Taken::New);
        assert_eq!(pushed.take(9, b"c", &change(Standing::Quarantined, 1..2)), Taken::New);
        let seen = |pushed: &Pushed, index| pushed.standing(Epoch(1), Index(index), Standing::Good);
        assert_eq!([seen(&pushed, 0), seen(&pushed, 1), seen(&pushed, 999)], [Standing::Held, REVOKED, REVOKED]);
        assert_eq!([seen(&pushed, 1000), pushed.standing(Epoch(2), Index(1), Standing::Good)], [Standing::Good; 2]);
        assert_eq!(pushed.standing(Epoch(1), Index(0), Standing::Superseded), Standing::Superseded, "never better");
        assert_eq!(pushed.settle(8, |position| (position == 7).then_some(&b"b"[..])), []);
        assert_eq!(
            [seen(&pushed, 0), seen(&pushed, 1), seen(&pushed, 2)],
            [Standing::Good, Standing::Quarantined, Standing::Good]
        );
    }

    #[test]
    fn another_entry_for_one_position_counts_too_and_is_told() {
        let mut pushed = Pushed::default();
        pushed.take(5, b"a", &change(Standing::Held, 0..1));
        assert_eq!(pushed.take(5, b"b", &change(REVOKED, 3..4)), Taken::Differs);
        assert_eq!(pushed.standing(Epoch(1), Index(3), Standing::Good), REVOKED);
        let different = pushed.settle(6, |_| Some(b"a"));
        assert_eq!(different, [Different { position: 5, pushed: b"b".to_vec(), verified: b"a".to_vec() }]);
        assert_eq!(pushed.standing(Epoch(1), Index(3), Standing::Good), Standing::Good);
    }

    #[test]
    fn the_worse_of_an_external_authoritys_states_counts() {
        let state = |state| {
            let (authority, naming) = (1 << 30, fleetmark_domain::Naming::default());
            let (rules, issuers) = ([0; 32], vec![[0; 32]]);
            let external = fleetmark_ledger::entry::ExternalAuthority { authority, state, rules, issuers, naming };
            Event::ExternalAuthorityChanged(external)
        };
        let mut pushed = Pushed::default();
        let seen = |pushed: &Pushed, verified| pushed.external(1 << 30, verified);
        assert_eq!(seen(&pushed, ExternalState::Active), ExternalState::Active);
        pushed.take(1, b"a", &state(ExternalState::Disabled));
        pushed.take(2, b"b", &state(ExternalState::Stale));
        assert_eq!(seen(&pushed, ExternalState::Active), ExternalState::Disabled);
        assert_eq!(seen(&pushed, ExternalState::Ended), ExternalState::Ended);
        assert_eq!(pushed.external(1, ExternalState::Active), ExternalState::Active, "another one");
        pushed.settle(2, |_| Some(b"a"));
        assert_eq!(seen(&pushed, ExternalState::Active), ExternalState::Stale);
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let mut pushed = Pushed::default();
        let wide = |position: u64| pushed_range(position);
        let taken: Vec<_> =
            (0..=1_024).map(|position| pushed.take(position, &position.to_be_bytes(), &wide(position))).collect();
        assert!(taken[..1_024].iter().all(|taken| *taken == Taken::New));
        assert_eq!(taken[1_024], Taken::Full);
    }

    fn pushed_range(position: u64) -> Event {
        let epoch = u32::try_from(position).unwrap();
        let certificates = IndexSet::from_certificates((0..100).map(|index| (Epoch(epoch), Index(index))));
        Event::StandingChanged { standing: REVOKED, certificates }
    }
}
