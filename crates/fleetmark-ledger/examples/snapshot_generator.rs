//! Writes a snapshot with many certificates, and tells what reading one costs.
//!
//! ```text
//! cargo run --release -p fleetmark-ledger --example snapshot_generator -- write FILE 10000000
//! cargo run --release -p fleetmark-ledger --example snapshot_generator -- read FILE
//! ```
//!
//! The ledger is `fleet.example/ledger/default`, its key 32 octets 0x07; epochs of 2^24 certificates, of authority 2.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::error::Error;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::time::Instant;

use fleetmark_domain::serial::EPOCH_CAPACITY;
use fleetmark_domain::{Epoch, Fingerprint, Index, Standing, Timestamp};
use fleetmark_ledger::entry::{Entry, Event, Issued};
use fleetmark_ledger::note::VerifierKey;
use fleetmark_ledger::snapshot;
use fleetmark_ledger::state::State;
use ring::digest::{SHA256, digest};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["write", file, count] => write(file, count.parse()?),
        ["read", file] => read(file),
        _ => Err("usage: snapshot_generator write FILE COUNT | read FILE".into()),
    }
}

fn key() -> VerifierKey {
    VerifierKey { name: "fleet.example/ledger/default".to_owned(), key: [7; 32] }
}

fn write(file: &str, count: u32) -> Result<(), Box<dyn Error>> {
    let mut state = State::new(key());
    append(&mut state, Event::Opened { origin: key().name, key: key().key })?;
    for number in 0..count {
        let (epoch, index) = (Epoch(number / EPOCH_CAPACITY + 1), Index(number % EPOCH_CAPACITY));
        if index.0 == 0 {
            append(&mut state, Event::EpochOpened { authority: 2, epoch })?;
        }
        let fingerprint = Fingerprint(digest(&SHA256, &number.to_be_bytes()).as_ref().try_into()?);
        let (subject, generation, not_after) = (u64::from(number) + 1, 1, Timestamp(1_900_000_000));
        let standing = Standing::Good;
        let issued = Issued { authority: 2, epoch, index, fingerprint, subject, generation, standing, not_after };
        append(&mut state, Event::Issued(issued))?;
    }
    let mut to = BufWriter::new(File::create(file)?);
    let hash = snapshot::write(&state, &mut to)?;
    to.flush()?;
    println!("{} entries, {count} certificates, SHA-256 {}", state.frontier().size(), hex::encode(hash));
    Ok(())
}

fn append(state: &mut State, event: Event) -> Result<(), Box<dyn Error>> {
    state.append(&Entry { at: Timestamp(1_800_000_000), event, details: None }.encode()?)?;
    Ok(())
}

fn read(file: &str) -> Result<(), Box<dyn Error>> {
    let before = resident()?;
    let file = File::open(file)?;
    let length = file.metadata()?.len();
    let start = Instant::now();
    let (state, hash) = snapshot::read(key(), &mut BufReader::new(file), length)?;
    let elapsed = start.elapsed();
    let resident = resident()?.saturating_sub(before);
    let certificates = state.certificates();
    println!("{certificates} certificates in {} ms, SHA-256 {}", elapsed.as_millis(), hex::encode(hash));
    println!("{length} octets read, {resident} octets of memory, {} a certificate", resident / certificates.max(1));
    let start = Instant::now();
    let mut found = 0_u32;
    for number in (0..1_000_000_u32).map(|number| number.wrapping_mul(2_654_435_761)) {
        let index = Index(number % u32::try_from(certificates.clamp(1, EPOCH_CAPACITY.into()))?);
        found += u32::from(state.certificate(Epoch(1), index).is_some());
    }
    println!("{found} looked up, {} ns each", start.elapsed().as_nanos() / 1_000_000);
    Ok(())
}

/// Octets of memory that the process has; Linux alone tells.
fn resident() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kilobytes * 1_024)
}
