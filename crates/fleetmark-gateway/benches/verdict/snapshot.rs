//! A snapshot with many certificates: how long reading it takes, and what memory it needs.
//!
//! Epochs of 2^24 certificates, of authority 2.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use fleetmark_domain::serial::EPOCH_CAPACITY;
use fleetmark_domain::{Epoch, Fingerprint, Index, Standing, Timestamp};
use fleetmark_ledger::entry::{Entry, Event, Issued};
use fleetmark_ledger::note::VerifierKey;
use fleetmark_ledger::snapshot;
use fleetmark_ledger::state::State;
use ring::digest::{SHA256, digest};

use crate::Outcome;
use crate::report::Report;

const LOOKUPS: u32 = 1_000_000;

/// Writes a snapshot of so many certificates and has it read.
pub fn run(certificates: u32, report: &Report) -> Outcome<()> {
    let file = tempfile::NamedTempFile::new()?;
    write(file.path(), certificates)?;
    let read = Command::new(std::env::current_exe()?).arg("--read-snapshot").arg(file.path()).output()?;
    if !read.status.success() {
        return Err(format!("the snapshot is not read: {}", String::from_utf8_lossy(&read.stderr)).into());
    }
    let text = String::from_utf8(read.stdout)?;
    let values: Vec<f64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [seconds, octets, lookup] = values.as_slice() else { return Err("what was read is not told".into()) };
    report.figure(&format!("snapshot load time, {certificates} certificates"), *seconds, "s", None);
    report.figure("octets a certificate (RSS)", *octets, "", None);
    report.figure("look-up of a certificate", *lookup, "ns", None);
    Ok(())
}

fn key() -> VerifierKey {
    VerifierKey { name: "fleet.example/ledger/default".to_owned(), key: [7; 32] }
}

fn write(file: &Path, count: u32) -> Outcome<()> {
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
    snapshot::write(&state, &mut to)?;
    Ok(to.flush()?)
}

fn append(state: &mut State, event: Event) -> Outcome<()> {
    state.append(&Entry { at: Timestamp(1_800_000_000), event, details: None }.encode()?)?;
    Ok(())
}

/// Prints seconds, octets of memory a certificate, and nanoseconds a look-up.
pub fn read(file: &str) -> Outcome<()> {
    let before = resident()?;
    let file = File::open(file)?;
    let length = file.metadata()?.len();
    let start = Instant::now();
    let (state, _) = snapshot::read(key(), &mut BufReader::new(file), length)?;
    let seconds = start.elapsed().as_secs_f64();
    let octets = resident()? - before;
    let certificates = u32::try_from(state.certificates())?;
    let start = Instant::now();
    let mut found = 0_u32;
    for number in (0..LOOKUPS).map(|number| number.wrapping_mul(2_654_435_761)) {
        found += u32::from(state.certificate(Epoch(1), Index(number % certificates.clamp(1, EPOCH_CAPACITY))).is_some());
    }
    if found != LOOKUPS {
        return Err("a certificate is missing".into());
    }
    let lookup = start.elapsed().as_secs_f64() * 1e9 / f64::from(LOOKUPS);
    println!("{seconds} {} {lookup}", octets / f64::from(certificates));
    Ok(())
}

/// Octets of memory that the process has; Linux alone tells.
fn resident() -> Outcome<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kilobytes * 1_024.0)
}
