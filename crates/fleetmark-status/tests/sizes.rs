//! How small lists are: beside the entropy of what they say, and beside a bitmap.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use fleetmark_status::encoder::{Heading, Standings, encode};
use fleetmark_status::header::{HEADER_LENGTH, SIGNATURE_LENGTH};
use fleetmark_status::{Answer, List, Scope, Terms, Verify};

const COUNT: u32 = 1_000_000;
const SCOPE: Scope = Scope { fleet: [1; 16], authority: [2; 20], epoch: 3, slice: 0 };

struct Anybody;

impl Verify for Anybody {
    fn key_id(&self) -> [u8; 8] {
        [0; 8]
    }

    fn verify(&self, _: &[u8], _: &[u8; 64]) -> bool {
        true
    }
}

/// xorshift64*: enough of a random sequence for sets, the same each time.
struct Sequence(u64);

impl Sequence {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }
}

/// All good but exactly `revoked`, each set of that size as likely as any other.
fn random(revoked: u32, seed: u64) -> Standings {
    let mut sequence = Sequence(seed * 2 + 1);
    let mut standings = Standings::none_good(COUNT);
    (0..COUNT).for_each(|index| standings.set_good(index));
    let mut left = revoked;
    while left > 0 {
        let index = u32::try_from((sequence.next() * u64::from(COUNT)) >> 32).expect("below COUNT");
        if standings.is_good(index) {
            standings.set_not_good(index);
            left -= 1;
        }
    }
    standings
}

fn list(standings: &Standings) -> Vec<u8> {
    let heading = Heading { key_id: [0; 8], scope: SCOPE, sequence: 1, this_update: 1, next_update: 2 };
    encode::<()>(&heading, standings, |_| Ok([0; 64])).expect("a list")
}

/// Octets below which no code for sets of this size can stay: log2 of how many there are, by the entropy n·H(m/n).
fn bound(revoked: u32) -> f64 {
    let share = f64::from(revoked) / f64::from(COUNT);
    let entropy = -share * share.log2() - (1.0 - share) * (1.0 - share).log2();
    f64::from(COUNT) * entropy / 8.0
}

#[test]
fn a_list_stays_within_a_twentieth_of_the_entropy() {
    for (revoked, seeds) in [(1_000, 1..6), (10_000, 1..4), (100_000, 1..3)] {
        for seed in seeds {
            let octets = list(&random(revoked, seed));
            let around = HEADER_LENGTH + SIGNATURE_LENGTH;
            let body = f64::from(u32::try_from(octets.len() - around).expect("short"));
            let ratio = body / bound(revoked);
            println!("{revoked} of {COUNT}, seed {seed}: body {body} octets, {ratio:.4} of the bound, {around} around it");
            assert!(ratio <= 1.05, "{revoked} of {COUNT}: {ratio}");
            assert!(ratio >= 1.0, "{revoked} of {COUNT}: {ratio}; nothing is below the bound, so something is lost");
            assert!(around <= 160, "{around} octets around the body");
        }
    }
}

#[test]
fn what_was_encoded_is_what_is_said() {
    let standings = random(10_000, 9);
    let octets = list(&standings);
    let terms = Terms { now: 1, lowest_sequence: 0, max_age: 1 };
    let list = List::open(&octets, &SCOPE, &terms, &Anybody).expect("a list that opens");
    // A prime step: all blocks, and every listed one below.
    for index in (0..COUNT).step_by(13).chain((0..COUNT).filter(|index| !standings.is_good(*index)).step_by(11)) {
        let expected = if standings.is_good(index) { Answer::Good } else { Answer::NotGood };
        assert_eq!(list.query(index), expected, "{index}");
    }
}

#[test]
fn a_list_is_never_longer_than_a_bitmap() {
    for revoked in [0, 250_000, 400_000, 500_000, 600_000, 999_000, 1_000_000] {
        let octets = list(&random(revoked, 3)).len();
        assert!(octets <= HEADER_LENGTH + 125_000 + SIGNATURE_LENGTH, "{revoked}: {octets} octets");
    }
}

#[test]
fn the_same_standings_make_the_same_octets() {
    assert!(list(&random(10_000, 4)) == list(&random(10_000, 4)));
    assert!(list(&random(10_000, 4)) != list(&random(10_000, 5)));
}
