//! One ledger's directory.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleetmark_domain::Fingerprint;
use fleetmark_ledger::note::{Checkpoint, VerifierKey};
use fleetmark_ledger::snapshot;
use fleetmark_ledger::state::State;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::files::{DiskError, create, read, replace, step, sync_parent};
use super::log::{Log, Record};
use super::wanted::Wanted;
use crate::clock::Mark;

/// The note that the ledger contradicted itself, in its directory.
pub(super) const BROKEN: &str = "broken";
/// The word that the ledger was fetched anew by, in its directory.
pub(crate) const NAMED: &str = "restored";
/// The longest `head`, in octets: a note has at most 16 KiB.
const MAX_HEAD: u64 = 64 * 1024;
/// The longest snapshot that is read back, in octets: some 400 million certificates.
const MAX_SNAPSHOT: u64 = 8 << 30;
/// The longest file of attributes, in octets: 20 million devices with some 200 each.
pub(crate) const MAX_ATTRIBUTES: u64 = 4 << 30;
/// A log shorter than this is not compacted, in octets.
const SHORT_LOG: u64 = 8 * 1024 * 1024;

/// Between two tries to write everything.
const RETRY: Duration = Duration::from_secs(60);

/// Devices' attributes by subject.
pub(crate) type Attributes = HashMap<u64, Arc<BTreeMap<String, String>>>;

/// `head`: the one file that says what counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    generation: u64,
    /// SHA-256 over the snapshot; None: the log begins with the ledger.
    snapshot: Option<Fingerprint>,
    /// SHA-256 over the attributes.
    attributes: Fingerprint,
    /// The signed checkpoint that snapshot and log give.
    note: String,
    mark: Mark,
    /// The first entry whose details are wanted; None: there is none.
    wanted: Option<u64>,
}

/// What was on disk, verified.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) state: State,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) note: String,
    pub(crate) mark: Mark,
    pub(crate) attributes: Attributes,
    /// Entries whose details are wanted, by position.
    pub(crate) wanted: BTreeMap<u64, Wanted>,
}

/// Writes one ledger's directory.
#[derive(Debug)]
pub(crate) struct LedgerDisk {
    dir: PathBuf,
    generation: u64,
    head: Option<Head>,
    /// None: nothing can be appended; the next save writes everything.
    log: Option<Log>,
    /// What the log is compared with, in octets: the snapshot's length, and the log's own when it was written.
    base: u64,
    /// When everything was last tried to be written.
    tried: Option<Instant>,
}

/// One thing to keep: `JSON` of the attributes file and of the log.
#[derive(Debug, Serialize, Deserialize)]
struct Of {
    subject: u64,
    attributes: BTreeMap<String, String>,
}

/// A log record of one device's attributes.
pub(crate) fn attributes_record(subject: u64, attributes: &BTreeMap<String, String>) -> Option<Record> {
    serde_json::to_vec(&Of { subject, attributes: attributes.clone() }).ok().map(Record::Attributes)
}

impl LedgerDisk {
    /// A directory without anything in it that counts.
    pub(crate) fn empty(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), generation: 0, head: None, log: None, base: 0, tried: None }
    }

    /// Reads what is there; None where there is nothing.
    ///
    /// # Errors
    /// [`DiskError::Form`] where it does not give what was signed: the caller sets the directory aside.
    pub(crate) fn open(dir: &Path, key: &VerifierKey) -> Result<(Self, Option<Restored>), DiskError> {
        let Some(octets) = read(&dir.join("head"), MAX_HEAD)? else {
            return Ok((Self::empty(dir), None));
        };
        let head: Head = serde_json::from_slice(&octets).map_err(|_| DiskError::Form("head"))?;
        let checkpoint = key.open(&head.note).map_err(|_| DiskError::Form("the checkpoint in head"))?;
        let mut state = read_snapshot(dir, &head, key)?;
        let mut attributes = read_attributes(dir, &head)?;
        let mut wanted = BTreeMap::new();
        let mut want = |one: Wanted| {
            // Those before are here; of those behind some may be, and are fetched again.
            if head.wanted.is_some_and(|first| first <= one.position) {
                wanted.insert(one.position, one);
            }
        };
        let log = Log::open(&dir.join(format!("log.{}", head.generation)), |record| match record {
            Record::Entry(octets) => {
                let position = state.frontier().size();
                let entry = if position < checkpoint.head.size { state.append(&octets).ok() } else { None };
                entry.as_ref().and_then(|entry| Wanted::of(entry, position)).into_iter().for_each(&mut want);
                entry.is_some()
            }
            Record::Wanted(octets) => Wanted::decode(&octets).map(&mut want).is_some(),
            Record::Attributes(octets) => match serde_json::from_slice::<Of>(&octets) {
                Ok(of) => {
                    attributes.insert(of.subject, Arc::new(of.attributes));
                    true
                }
                Err(_) => false,
            },
        })?;
        if state.frontier().head() != checkpoint.head {
            return Err(DiskError::Form("the log"));
        }
        let base = fs::metadata(dir.join(format!("snapshot.{}", head.generation))).map_or(0, |file| file.len());
        let (note, mark) = (head.note.clone(), head.mark.clone());
        let disk =
            Self { dir: dir.to_owned(), generation: head.generation, head: Some(head), log: Some(log), base, tried: None };
        disk.sweep();
        Ok((disk, Some(Restored { state, checkpoint, note, mark, attributes, wanted })))
    }

    /// The clocks' mark that is on disk.
    pub(crate) fn mark(&self) -> Option<&Mark> {
        self.head.as_ref().map(|head| &head.mark)
    }

    /// Whether the next save has to write everything: nothing can be appended, or the log has grown long.
    pub(crate) fn wants_whole(&self) -> bool {
        self.log.as_ref().is_none_or(|log| log.length() > self.base.max(SHORT_LOG))
    }

    /// Whether everything may be written: not again right after it was, or failed to be.
    pub(crate) fn may_retry(&mut self, now: Instant) -> bool {
        let may = self.tried.is_none_or(|tried| now.saturating_duration_since(tried) >= RETRY);
        if may {
            self.tried = Some(now);
        }
        may
    }

    /// What is in memory is not what the log continues: the next save writes everything, at once.
    pub(crate) fn forget_log(&mut self) {
        (self.log, self.tried) = (None, None);
    }

    /// Appends what came, and replaces the head; `wanted` is the first entry whose details are. After a crash it is as before or as
    /// after.
    pub(crate) fn append(&mut self, records: &[Record], wanted: Option<u64>, note: &str, mark: Mark) -> Result<(), DiskError> {
        let (Some(log), Some(head)) = (&mut self.log, &self.head) else {
            return Err(DiskError::Form("the log"));
        };
        let head = Head { note: note.to_owned(), mark, wanted, ..head.clone() };
        if !records.is_empty()
            && let Err(error) = log.append(records)
        {
            self.log = None;
            return Err(error);
        }
        let replaced = self.replace_head(head);
        if replaced.is_err() {
            // The log may be ahead of the head: the next save does not build on it.
            self.log = None;
        }
        replaced
    }

    /// Writes everything anew. After a crash it is as before or as after.
    pub(crate) fn write(
        &mut self,
        state: &State,
        attributes: &Attributes,
        wanted: &BTreeMap<u64, Wanted>,
        note: &str,
        mark: Mark,
    ) -> Result<(), DiskError> {
        let attributes = encode_attributes(attributes, MAX_ATTRIBUTES)?;
        step()?;
        fs::create_dir_all(&self.dir)?;
        self.generation += 1;
        let name = |kind: &str| self.dir.join(format!("{kind}.{}", self.generation));
        let (snapshot, base) = write_snapshot(&name("snapshot"), state)?;
        replace(&name("attributes"), &attributes)?;
        let attributes = sha256(&attributes);
        let mut log = Log::create(&name("log"))?;
        log.append(&wanted.values().map(|one| Record::Wanted(one.encode())).collect::<Vec<_>>())?;
        let (snapshot, note) = (Some(snapshot), note.to_owned());
        let wanted = wanted.keys().next().copied();
        self.replace_head(Head { generation: self.generation, snapshot, attributes, note, mark, wanted })?;
        self.base = base + log.length();
        self.log = Some(log);
        self.sweep();
        Ok(())
    }

    /// Keeps, or takes away, the note that this ledger contradicted itself.
    pub(crate) fn set_broken(dir: &Path, why: Option<&str>) -> Result<(), DiskError> {
        let path = dir.join(BROKEN);
        if let Some(why) = why {
            fs::create_dir_all(dir)?;
            return replace(&path, why.as_bytes());
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => sync_parent(&path),
        }
    }

    /// Why this ledger is broken; None: it is not.
    pub(crate) fn broken(dir: &Path) -> Option<String> {
        read(&dir.join(BROKEN), 1024).ok()?.map(|octets| String::from_utf8_lossy(&octets).into_owned())
    }

    fn replace_head(&mut self, head: Head) -> Result<(), DiskError> {
        let octets = serde_json::to_vec(&head).map_err(|_| DiskError::Form("head"))?;
        replace(&self.dir.join("head"), &octets)?;
        self.head = Some(head);
        Ok(())
    }

    /// Removes files of other generations. What cannot be removed is tried again next time.
    fn sweep(&self) {
        let current = self.generation.to_string();
        for file in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = file.file_name();
            let old = name
                .to_str()
                .and_then(|name| name.split_once('.'))
                .is_some_and(|(kind, generation)| matches!(kind, "snapshot" | "attributes" | "log") && generation != current);
            if old {
                let _ = fs::remove_file(file.path());
            }
        }
    }
}

fn read_snapshot(dir: &Path, head: &Head, key: &VerifierKey) -> Result<State, DiskError> {
    let Some(expected) = head.snapshot else {
        return Ok(State::new(key.clone()));
    };
    let file = File::open(dir.join(format!("snapshot.{}", head.generation)))?;
    let (state, hash) =
        snapshot::read(key.clone(), &mut BufReader::new(file), MAX_SNAPSHOT).map_err(|_| DiskError::Form("the snapshot"))?;
    if hash == *expected.octets() { Ok(state) } else { Err(DiskError::Form("the snapshot")) }
}

fn write_snapshot(path: &Path, state: &State) -> Result<(Fingerprint, u64), DiskError> {
    let mut file = BufWriter::new(create(path)?);
    step()?;
    let hash = snapshot::write(state, &mut file)?;
    file.flush()?;
    step()?;
    file.get_ref().sync_all()?;
    Ok((Fingerprint(hash), file.get_ref().metadata()?.len()))
}

fn read_attributes(dir: &Path, head: &Head) -> Result<Attributes, DiskError> {
    const FORM: DiskError = DiskError::Form("the attributes");
    let octets = read(&dir.join(format!("attributes.{}", head.generation)), MAX_ATTRIBUTES)?.ok_or(FORM)?;
    if sha256(&octets) != head.attributes {
        return Err(FORM);
    }
    let all: Vec<Of> = serde_json::from_slice(&octets).map_err(|_| FORM)?;
    Ok(all.into_iter().map(|of| (of.subject, Arc::new(of.attributes))).collect())
}

fn encode_attributes(attributes: &Attributes, limit: u64) -> Result<Vec<u8>, DiskError> {
    let all: Vec<Of> = attributes.iter().map(|(subject, of)| Of { subject: *subject, attributes: (**of).clone() }).collect();
    let octets = serde_json::to_vec(&all).map_err(|_| DiskError::Form("the attributes"))?;
    if u64::try_from(octets.len()).is_ok_and(|length| length <= limit) {
        Ok(octets)
    } else {
        Err(DiskError::TooLong("the attributes"))
    }
}

/// SHA-256, as a fingerprint.
pub(crate) fn sha256(octets: &[u8]) -> Fingerprint {
    let mut out = [0; 32];
    out.iter_mut().zip(digest(&SHA256, octets).as_ref()).for_each(|(to, from)| *to = *from);
    Fingerprint(out)
}

#[cfg(test)]
mod tests;
