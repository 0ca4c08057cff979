//! Devices registered in bulk, from a list.
//!
//! The list is read whole, line by line, before anything is done: what breaks off, or is too long, leaves nothing behind. Then its
//! lines are recorded, [`BATCH`] an act, so that devices enroll meanwhile.

pub mod endorsement;
pub mod lines;

use std::time::Duration;

use fleetmark_domain::{Action, FleetName, Kind, Name, Refusal, Terms, Timestamp};
use secrecy::SecretString;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::caller::Caller;
use super::subjects::new_subject;
use super::tokens::checked_lifetime;
use super::{Error, Registrar, Result};
use crate::store::acts::imports::{Arrival, Fate, ImportDevices, Imported};
use crate::store::model::{Token, TokenState};
use crate::store::{commit, read};
use lines::{Fault, Format, Line, Lines};

/// How many lines one act records.
const BATCH: usize = 500;
/// The largest list, in octets.
pub const MAX_OCTETS: usize = 32 << 20;
/// How many faults are told; the others are counted.
pub const MAX_FAULTS: usize = 1_000;
/// How many lists are read at once: each may take several times its size in memory.
const AT_ONCE: usize = 2;

static READING: Semaphore = Semaphore::const_new(AT_ONCE);

/// How to take a list.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// The devices' fleet.
    pub fleet: FleetName,
    /// How it is written.
    pub format: Format,
    /// Whether nothing is to be done.
    pub dry_run: bool,
    /// Whether one bad line keeps all out.
    pub all_or_nothing: bool,
    /// Whether a device that is there with another record gets this one.
    pub update: bool,
    /// For how long minted tokens hold; 1 s to 30 d.
    pub token_lifetime: Duration,
}

/// A list that is being read.
pub struct Import<'a> {
    registrar: &'a Registrar,
    caller: &'a Caller,
    options: ImportOptions,
    lines: Lines,
    taken: Vec<Line>,
    report: Report,
    _permit: SemaphorePermit<'static>,
}

/// What became of a list.
#[derive(Debug, Default)]
pub struct Report {
    /// Lines read; empty ones and the head among them.
    pub lines: u64,
    /// Devices registered.
    pub registered: u64,
    /// Devices whose record was changed.
    pub updated: u64,
    /// Devices that were there as the list has them.
    pub unchanged: u64,
    /// Lines refused.
    pub failed: u64,
    /// Why, by line; the first [`MAX_FAULTS`].
    pub faults: Vec<Fault>,
    /// Tokens, each with its device.
    pub tokens: Vec<(Name, SecretString)>,
    /// Whether it counts; not with `dry_run`, nor where a bad line kept all out.
    pub applied: bool,
}

impl Report {
    fn refuse(&mut self, fault: Fault) {
        self.failed += 1;
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(fault);
        }
    }
}

impl Registrar {
    /// Begins with a list.
    ///
    /// # Errors
    /// `NotPermitted`; `Overloaded` where others are being read.
    pub fn begin_import<'a>(&'a self, caller: &'a Caller, options: ImportOptions) -> Result<Import<'a>> {
        caller.may(Action::RegisterDevice, Some(&options.fleet))?;
        checked_lifetime(options.token_lifetime)?;
        let permit = READING.try_acquire().map_err(|_| Refusal::Overloaded)?;
        let (lines, taken, report) = (Lines::new(options.format), Vec::new(), Report::default());
        Ok(Import { registrar: self, caller, options, lines, taken, report, _permit: permit })
    }
}

impl Import<'_> {
    /// Reads a part of the list.
    ///
    /// # Errors
    /// `MalformedRequest`, `BodyTooLarge`: the whole list is refused, and nothing was done.
    pub fn push(&mut self, octets: &[u8]) -> Result<()> {
        let (taken, report) = (&mut self.taken, &mut self.report);
        self.lines.push(octets, |line| sort(line, taken, report)).map_err(told)
    }

    /// Records what was read.
    ///
    /// # Errors
    /// See [`Self::push`]; `FleetUnknown`, and those of the store. Batches that were recorded before such an error stay.
    pub async fn finish(mut self, now: Timestamp) -> Result<Report> {
        let (taken, report) = (&mut self.taken, &mut self.report);
        self.lines.finish(|line| sort(line, taken, report)).map_err(told)?;
        self.report.lines = self.lines.read();
        if self.taken.iter().any(|line| line.token) {
            self.caller.may(Action::MintToken, Some(&self.options.fleet))?;
        }
        let is_kept_out = self.options.all_or_nothing && self.report.failed > 0;
        let is_dry = self.options.dry_run || is_kept_out;
        // What is only foreseen is foreseen as a whole: no transaction tells the next how much of the operator's limit it used.
        let at_once = if self.options.all_or_nothing || is_dry { usize::MAX } else { BATCH };
        let mut lines = std::mem::take(&mut self.taken).into_iter().peekable();
        while lines.peek().is_some() {
            self.record(lines.by_ref().take(at_once).collect(), is_dry, now).await?;
        }
        self.report.applied = !(is_dry || self.options.all_or_nothing && self.report.failed > 0);
        // What no act tells comes first; people look for a line by its number.
        self.report.faults.sort_by_key(|fault| fault.line);
        self.count();
        Ok(self.report)
    }

    async fn record(&mut self, lines: Vec<Line>, is_dry: bool, now: Timestamp) -> Result<()> {
        let mut texts = Vec::with_capacity(lines.len());
        let mut arrivals = Vec::with_capacity(lines.len());
        for line in &lines {
            let (arrival, text) = self.arrival(line, now)?;
            arrivals.push(arrival);
            texts.push(text);
        }
        let act = ImportDevices {
            fleet: self.options.fleet.clone(),
            arrivals,
            update: self.options.update,
            whole: self.options.all_or_nothing,
            by: self.caller.subject.id,
            at: now,
        };
        let store = &*self.registrar.store;
        let outcomes = if is_dry { read(store, move |rows| act.foresee(rows)).await? } else { commit(store, act).await? };
        for ((line, text), outcome) in lines.into_iter().zip(texts).zip(outcomes) {
            self.tell(line, text, outcome, is_dry);
        }
        Ok(())
    }

    fn tell(&mut self, line: Line, text: Option<SecretString>, outcome: Imported, is_dry: bool) {
        match outcome {
            Ok((fate, is_minted)) => {
                *match fate {
                    Fate::Registered => &mut self.report.registered,
                    Fate::Updated => &mut self.report.updated,
                    Fate::Unchanged => &mut self.report.unchanged,
                } += 1;
                if let Some(text) = text.filter(|_| is_minted && !is_dry) {
                    self.report.tokens.push((line.name, text));
                }
            }
            Err(refusal) => {
                let (column, text) = reason(refusal);
                self.report.refuse(Fault { line: line.number, column: column.to_owned(), refusal, text: text.to_owned() });
            }
        }
    }

    /// The record of a line, and the text of its token.
    fn arrival(&self, line: &Line, now: Timestamp) -> Result<(Arrival, Option<SecretString>)> {
        let fleet = &self.options.fleet;
        let mut subject = new_subject(Kind::Device, Some(fleet.clone()), line.name.clone(), now);
        subject.attributes.clone_from(&line.attributes);
        let draft = if line.token { Some(self.registrar.draft(self.caller, None)?) } else { None };
        let token = draft.as_ref().map(|draft| Token {
            id: draft.id,
            secret_hash: draft.secret_hash,
            kind: Kind::Device,
            fleet: Some(fleet.clone()),
            subject: None,
            state: TokenState::Fresh,
            expires_at: now + self.options.token_lifetime,
            created_at: now,
            created_by: self.caller.subject.id,
            note: "import".to_owned(),
            terms: Terms::default(),
            spent: 0,
            origin: None,
        });
        let actor = self.caller.actor(self.registrar);
        let details = self.registrar.details(actor, Some(line.name.to_string()), None, None)?;
        Ok((Arrival { subject, hardware: line.hardware, token, details }, draft.map(|draft| draft.text)))
    }

    fn count(&self) {
        let report = &self.report;
        if report.applied {
            let counts = [("registered", report.registered), ("updated", report.updated), ("unchanged", report.unchanged)];
            for (outcome, count) in counts {
                metrics::counter!("fleetmark_imported_total", "outcome" => outcome).increment(count);
            }
        }
        metrics::counter!("fleetmark_imported_total", "outcome" => "refused").increment(report.failed);
        let (fleet, applied) = (&self.options.fleet, report.applied);
        let Report { lines, registered, updated, unchanged, failed, .. } = report;
        tracing::info!(%fleet, lines, registered, updated, unchanged, failed, applied, "a list of devices was read");
    }
}

fn sort(line: std::result::Result<Line, Fault>, taken: &mut Vec<Line>, report: &mut Report) {
    match line {
        Ok(line) => taken.push(line),
        Err(fault) => report.refuse(fault),
    }
}

/// A fault of the whole list.
fn told(fault: Fault) -> Error {
    let Fault { line, column, refusal, text } = fault;
    let column = if column.is_empty() { column } else { format!("{column}: ") };
    Error::with_detail(refusal, format!("line {line}: {column}{text}"))
}

/// To which column a refusal of the store's belongs, and what it means here.
const fn reason(refusal: Refusal) -> (&'static str, &'static str) {
    match refusal {
        Refusal::NameTaken => ("name", "the device is there with another record; `update` changes it"),
        Refusal::HardwareOfAnother => ("endorsement_key", "another device is registered with this endorsement key"),
        other => ("name", other.text()),
    }
}
