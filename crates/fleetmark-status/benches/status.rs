//! Sizes and times of status lists at 1,000,000 certificates, with a rival on the same sets where one is linked: `compare/` includes this
//! file and brings crate clubcard, whose licence keeps it out of the workspace.
//!
//! usage: `cargo bench -p fleetmark-status --bench status -- [--json]`: a table, or a line a figure.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use fleetmark_status::encoder::{Heading, Standings, encode};
use fleetmark_status::header::{HEADER_LENGTH, SIGNATURE_LENGTH};
use fleetmark_status::{Answer, List, Scope, Terms, Verify};

const COUNT: u32 = 1_000_000;
const REVOKED: [u32; 3] = [1_000, 10_000, 100_000];
/// So few that a round fits between two turns of another process.
const QUERIES: u32 = 2_000;
const ROUNDS: u32 = 200;
const RIVAL_ROUNDS: u32 = 3;
const SCOPE: Scope = Scope { fleet: [1; 16], authority: [2; 20], epoch: 3, slice: 0 };

/// Another way to write a set down; built anew by each call.
pub trait Rival {
    /// Its name in the figures.
    fn name(&self) -> &'static str;
    /// The set's answers (true: not good), and its octets, header and signature not counted.
    fn build(&self, not_good: &[bool]) -> (Box<dyn Fn(u32) -> bool>, usize);
}

struct Anybody;

impl Verify for Anybody {
    fn key_id(&self) -> [u8; 8] {
        [0; 8]
    }

    fn verify(&self, _: &[u8], _: &[u8; SIGNATURE_LENGTH]) -> bool {
        true
    }
}

struct Report {
    json: bool,
}

impl Report {
    fn figure(&self, figure: &str, value: f64, unit: &str, limit: Option<f64>) {
        let ratio = limit.map(|limit| value / limit);
        if self.json {
            let text = |number: Option<f64>| number.map_or("null".to_owned(), |number| number.to_string());
            let (limit, ratio) = (text(limit), text(ratio));
            println!("{{\"figure\":\"{figure}\",\"value\":{value},\"unit\":\"{unit}\",\"limit\":{limit},\"ratio\":{ratio}}}");
        } else if let (Some(limit), Some(ratio)) = (limit, ratio) {
            println!("{figure:<68} {value:>10.2} {unit:<6} {limit:>10.2} {unit:<6} ratio {ratio:.3}");
        } else {
            println!("{figure:<68} {value:>10.2} {unit}");
        }
    }
}

/// xorshift64*: the same sets each time.
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, bound: u32) -> Result<u32, Box<dyn Error>> {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        Ok(u32::try_from((high * u64::from(bound)) >> 32)?)
    }
}

/// Sets the figures of this crate alone, or beside a rival's.
pub fn run(rival: Option<&dyn Rival>) -> Result<(), Box<dyn Error>> {
    let report = Report { json: std::env::args().any(|argument| argument == "--json") };
    for revoked in REVOKED {
        measure(&report, revoked, rival)?;
    }
    Ok(())
}

fn measure(report: &Report, revoked: u32, rival: Option<&dyn Rival>) -> Result<(), Box<dyn Error>> {
    let mut sequence = Sequence(u64::from(revoked) * 2 + 1);
    let (standings, not_good) = random(revoked, &mut sequence)?;
    let mut asked = Vec::new();
    for _ in 0..QUERIES {
        asked.push(sequence.below(COUNT)?);
    }
    let head = format!("status list, {COUNT} certificates, {revoked} not good");

    let (octets, build) = fastest(ROUNDS / 10, || list(&standings));
    let octets = octets?;
    let terms = Terms { now: 1, lowest_sequence: 0, max_age: 1 };
    let (opened, open) = fastest(ROUNDS, || List::open(black_box(&octets), &SCOPE, &terms, &Anybody));
    let opened = opened?;
    let (found, query) =
        fastest(ROUNDS, || asked.iter().filter(|index| opened.query(black_box(**index)) == Answer::NotGood).count());

    let body = octets.len() - HEADER_LENGTH - SIGNATURE_LENGTH;
    report.figure(&format!("{head}: body beside the entropy bound"), size(body)?, "octets", Some(bound(revoked)));
    report.figure(&format!("{head}: header and signature"), size(HEADER_LENGTH + SIGNATURE_LENGTH)?, "octets", Some(160.0));
    report.figure(&format!("{head}: all but the signature made"), milliseconds(build), "ms", None);
    report.figure(&format!("{head}: opened, the signature not counted"), milliseconds(open), "ms", None);
    report.figure(&format!("{head}: a query"), nanoseconds(query), "ns", None);

    let Some(rival) = rival else { return Ok(()) };
    let name = rival.name();
    let ((contains, length), rival_build) = fastest(RIVAL_ROUNDS, || rival.build(&not_good));
    let (rival_found, rival_query) = fastest(ROUNDS, || asked.iter().filter(|index| contains(black_box(**index))).count());
    if rival_found != found {
        return Err(format!("{name} finds {rival_found} of the indices asked, the list {found}").into());
    }
    if body >= length {
        return Err(format!("{name} is no larger: {length} octets, the list's body {body}").into());
    }
    report.figure(&format!("{head}: body beside {name}"), size(body)?, "octets", Some(size(length)?));
    report.figure(&format!("{head}: making beside {name}"), milliseconds(build), "ms", Some(milliseconds(rival_build)));
    report.figure(&format!("{head}: a query beside {name}"), nanoseconds(query), "ns", Some(nanoseconds(rival_query)));
    Ok(())
}

/// All good but exactly `revoked`; the same as a slice of flags.
fn random(revoked: u32, sequence: &mut Sequence) -> Result<(Standings, Vec<bool>), Box<dyn Error>> {
    let mut standings = Standings::none_good(COUNT);
    (0..COUNT).for_each(|index| standings.set_good(index));
    let mut left = revoked;
    while left > 0 {
        let index = sequence.below(COUNT)?;
        left -= u32::from(standings.is_good(index));
        standings.set_not_good(index);
    }
    let not_good = (0..COUNT).map(|index| !standings.is_good(index)).collect();
    Ok((standings, not_good))
}

fn list(standings: &Standings) -> Result<Vec<u8>, Box<dyn Error>> {
    let heading = Heading { key_id: [0; 8], scope: SCOPE, sequence: 1, this_update: 1, next_update: 2 };
    encode::<std::fmt::Error>(&heading, standings, |_| Ok([0; SIGNATURE_LENGTH])).map_err(Into::into)
}

/// The outcome, and the shortest of some rounds.
fn fastest<T>(rounds: u32, mut act: impl FnMut() -> T) -> (T, Duration) {
    let mut once = || {
        let begin = Instant::now();
        let outcome = act();
        (outcome, begin.elapsed())
    };
    let (mut outcome, mut shortest) = once();
    for _ in 1..rounds {
        let (next, elapsed) = once();
        outcome = next;
        shortest = shortest.min(elapsed);
    }
    (outcome, shortest)
}

/// n·H(m/n) in octets.
fn bound(revoked: u32) -> f64 {
    let share = f64::from(revoked) / f64::from(COUNT);
    let entropy = -share * share.log2() - (1.0 - share) * (1.0 - share).log2();
    f64::from(COUNT) * entropy / 8.0
}

fn size(length: usize) -> Result<f64, Box<dyn Error>> {
    Ok(f64::from(u32::try_from(length)?))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Of one query.
fn nanoseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9 / f64::from(QUERIES)
}

#[allow(dead_code, reason = "where this file is a module, the program has its own")]
fn main() -> Result<(), Box<dyn Error>> {
    run(None)
}
