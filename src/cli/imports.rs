//! `fleetmark device import`: a file of devices, sent in parts.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::arguments::duration;
use super::client::Ask;
use super::devices::Fleet;
use super::failure::{Failure, harmless};
use super::files::open;
use super::session::{Session, print, print_json};
use crate::http::admin::wire::{ImportError, ImportReport, ImportedToken};

/// How many lines one request has at most.
const PART_LINES: u64 = 2_000;
/// How many octets of lines one request has, but for its last line: they must be there within ten seconds.
const PART_OCTETS: usize = 2 << 20;
/// The largest list that is sent whole, in octets; the server's limit.
const WHOLE: usize = 32 << 20;
/// How much of a line is sent: enough that the server sees that it is too long.
const MAX_LINE: u64 = 16 * 1024 + 8;
/// How many errors are shown.
const MAX_ERRORS: usize = 1_000;

/// `fleetmark device import`
#[derive(Debug, Args)]
pub struct ImportArguments {
    /// The list: CSV with a head that names the columns, or JSON objects, one a line
    file: PathBuf,
    /// How it is written; the file's name tells, unless given
    #[arg(long)]
    format: Option<ListFormat>,
    #[command(flatten)]
    fleet: Fleet,
    /// Say what would become of it, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// One bad line keeps all out; the file has at most 32 MiB and 100,000 devices
    #[arg(long)]
    all_or_nothing: bool,
    /// A device that is there with another record gets this one
    #[arg(long)]
    update: bool,
    /// A new file for the tokens that the list asks for, which its owner alone may read; one that this command made is added to
    #[arg(long, value_name = "OUT")]
    tokens: Option<PathBuf>,
    /// For how long these tokens hold, at most 30d
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "24h")]
    tokens_expire_in: Duration,
}

/// How a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// Comma-separated values with a head
    Csv,
    /// JSON objects, one a line
    Jsonl,
}

/// A file that is read in parts.
struct Parts {
    file: BufReader<File>,
    format: ListFormat,
    /// The head of CSV with the empty lines before it, sent with every part; and how many lines it has.
    head: (Vec<u8>, u64),
    /// The line that comes next, from 1.
    next: u64,
    is_ended: bool,
}

/// A part of a file.
struct Part {
    octets: Vec<u8>,
    /// How many octets of the file it is.
    read: u64,
    /// In the file, the line that follows the head.
    first: u64,
    head: u64,
}

impl Part {
    /// The line of the file that is line `told` of this part.
    const fn line(&self, told: u64) -> u64 {
        if told <= self.head { told } else { told - self.head + self.first - 1 }
    }
}

impl Parts {
    fn open(path: &Path, format: ListFormat) -> Result<Self, Failure> {
        let file = open(path)?;
        let mut parts = Self { file: BufReader::new(file), format, head: (Vec::new(), 0), next: 1, is_ended: false };
        if format == ListFormat::Csv {
            let mut is_empty = true;
            while is_empty && !parts.is_ended {
                let line = parts.line().map_err(|error| at(path, &error))?;
                let mark = if parts.head.1 == 0 { line.strip_prefix("\u{feff}".as_bytes()) } else { None };
                let text = mark.unwrap_or(&line);
                is_empty = text.trim_ascii().is_empty();
                parts.head.0.extend_from_slice(&line);
                parts.head.1 += 1;
            }
        }
        Ok(parts)
    }

    /// The next line with its end; of one that is too long its beginning.
    fn line(&mut self) -> std::io::Result<Vec<u8>> {
        let mut line = Vec::new();
        self.file.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            let is_cut = !self.file.fill_buf()?.is_empty();
            self.is_ended = !is_cut;
            if is_cut {
                self.file.skip_until(b'\n')?;
                line.push(b'\n');
            }
        }
        self.next += 1;
        self.is_ended = self.is_ended || self.file.fill_buf()?.is_empty();
        Ok(line)
    }

    /// The next part; None at the end. The first one is there in any case.
    fn next(&mut self, whole: bool) -> std::io::Result<Option<Part>> {
        let (first, (head, head_lines)) = (self.next, self.head.clone());
        let repeated = if first > head_lines + 1 { head.len() } else { 0 };
        if self.is_ended && first > head_lines + 1 {
            return Ok(None);
        }
        let mut part = Part { octets: head, read: 0, first, head: head_lines };
        while !self.is_ended && (whole || (self.next - first < PART_LINES && part.octets.len() < PART_OCTETS)) {
            let line = self.line()?;
            part.octets.extend_from_slice(&line);
            if part.octets.len() > WHOLE {
                break;
            }
        }
        // An empty file, or one that has a head alone, is sent once.
        self.next = self.next.max(head_lines + 2);
        part.read = u64::try_from(part.octets.len() - repeated).unwrap_or(0);
        Ok(Some(part))
    }
}

impl ImportArguments {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`]; also where a line was refused.
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        let format = self.format()?;
        let mut parts = Parts::open(&self.file, format)?;
        let mut tokens = self.tokens.as_deref().map(TokenFile::create).transpose()?;
        let bar = progress(&self.file, session.json);
        let mut report = empty();
        while let Some(part) = parts.next(self.all_or_nothing).map_err(|error| at(&self.file, &error))? {
            if part.octets.len() > WHOLE {
                return Err(Failure::Usage("with --all-or-nothing a file has at most 32 MiB".to_owned()));
            }
            let told = match self.send(session, parts.format, &part).await {
                Ok(told) => told,
                Err(failure) => {
                    bar.abandon();
                    stopped(&report, part.first);
                    return Err(failure);
                }
            };
            bar.inc(part.read);
            Self::take(&mut report, told, &part, &bar, session.json, tokens.as_mut())?;
        }
        bar.finish_and_clear();
        if let Some(tokens) = tokens {
            tokens.close()?;
        }
        self.print(session, &report)
    }

    fn format(&self) -> Result<ListFormat, Failure> {
        let extension = self.file.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        match (self.format, extension.as_deref()) {
            (Some(format), _) => Ok(format),
            (None, Some("csv")) => Ok(ListFormat::Csv),
            (None, Some("jsonl" | "ndjson")) => Ok(ListFormat::Jsonl),
            (None, _) => Err(Failure::Usage("the file's name does not tell how it is written: take --format".to_owned())),
        }
    }

    async fn send(&self, session: &Session, format: ListFormat, part: &Part) -> Result<ImportReport, Failure> {
        let set = |is_set: bool| is_set.then(|| "true".to_owned());
        let path = Ask::path(&["v1", "fleets", &self.fleet.name, "devices", "import"]);
        let query = vec![
            ("dry_run", set(self.dry_run)),
            ("all_or_nothing", set(self.all_or_nothing)),
            ("update", set(self.update)),
            ("tokens_expire_in_seconds", Some(self.tokens_expire_in.as_secs().to_string())),
        ];
        let media_type = match format {
            ListFormat::Csv => "text/csv",
            ListFormat::Jsonl => "application/jsonl",
        };
        let answer = session.client.upload(Ask { query, ..path }, media_type, part.octets.clone()).await?;
        serde_json::from_slice(&answer.body).map_err(|_| Failure::Failed("the server's answer is no report".to_owned(), None))
    }

    /// Adds what the server says of a part to what it said of others.
    fn take(
        report: &mut ImportReport,
        told: ImportReport,
        part: &Part,
        bar: &ProgressBar,
        json: bool,
        file: Option<&mut TokenFile>,
    ) -> Result<(), Failure> {
        report.applied |= told.applied;
        report.lines += told.lines - if part.first > part.head + 1 { part.head.min(told.lines) } else { 0 };
        report.registered += told.registered;
        report.updated += told.updated;
        report.unchanged += told.unchanged;
        report.failed += told.failed;
        for error in told.errors {
            if report.errors.len() == MAX_ERRORS {
                break;
            }
            let error = ImportError { line: part.line(error.line), ..error };
            if !json {
                bar.suspend(|| eprintln!("{}", shown(&error)));
            }
            report.errors.push(error);
        }
        report.errors_left_out = report.failed.saturating_sub(u64::try_from(report.errors.len()).unwrap_or(u64::MAX));
        match file {
            Some(file) => file.write(&told.tokens),
            None if json => {
                report.tokens.extend(told.tokens);
                Ok(())
            }
            None => bar.suspend(|| told.tokens.iter().try_for_each(|minted| print(&line_of(minted, ' ')))),
        }
    }

    fn print(&self, session: &Session, report: &ImportReport) -> Result<(), Failure> {
        let ImportReport { registered, updated, unchanged, failed, errors_left_out, .. } = report;
        if session.json {
            print_json(&json!(report))?;
        } else {
            if *errors_left_out > 0 {
                eprintln!("… and {errors_left_out} more.");
            }
            let done = if report.applied { "" } else { "Nothing was done. It would be: " };
            print(&format!("{done}{registered} registered, {updated} changed, {unchanged} unchanged, {failed} refused.\n"))?;
        }
        if report.failed > 0 {
            let kept_out = if self.all_or_nothing { "; nothing was done" } else { "" };
            return Err(Failure::Failed(format!("{failed} of {} lines were refused{kept_out}", report.lines), None));
        }
        Ok(())
    }
}

/// The first line of a file of tokens.
const TOKEN_HEAD: &[u8] = b"device,token\n";

/// The file that holds the tokens.
struct TokenFile {
    path: PathBuf,
    file: File,
}

impl TokenFile {
    /// A new file, or one that an import made before this one; any other that is there is left alone.
    fn create(path: &Path) -> Result<Self, Failure> {
        let file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Self::reopen(path)?.ok_or(error),
            Ok(mut file) => file.write_all(TOKEN_HEAD).map(|()| file),
            failed => failed,
        };
        Ok(Self { path: path.to_owned(), file: file.map_err(|error| at(path, &error))? })
    }

    /// To add to a file that is ours: its owner alone may read it, and it begins as those that we make.
    fn reopen(path: &Path) -> Result<Option<File>, Failure> {
        let reopened = || {
            let mut file = OpenOptions::new().read(true).append(true).open(path)?;
            let about = file.metadata()?;
            let (mut head, mut last) = ([0; TOKEN_HEAD.len()], [0]);
            if !about.is_file() || about.mode() & 0o077 != 0 || file.read(&mut head)? != head.len() || head != TOKEN_HEAD {
                return Ok(None);
            }
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            // Whatever stopped the import before may have cut its last line off.
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
            Ok(Some(file))
        };
        reopened().map_err(|error: std::io::Error| at(path, &error))
    }

    /// What was minted is on the disk before the next part is sent.
    fn write(&mut self, tokens: &[ImportedToken]) -> Result<(), Failure> {
        let text = zeroize::Zeroizing::new(tokens.iter().map(|minted| line_of(minted, ',')).collect::<String>());
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|error| at(&self.path, &error))
    }

    fn close(self) -> Result<(), Failure> {
        self.file.sync_all().map_err(|error| at(&self.path, &error))
    }
}

fn line_of(minted: &ImportedToken, separator: char) -> String {
    format!("{}{separator}{}\n", minted.device, minted.token.expose())
}

fn shown(error: &ImportError) -> String {
    let column = if error.column.is_empty() { String::new() } else { format!("{}: ", harmless(&error.column)) };
    format!("line {}: {column}{} ({})", error.line, harmless(&error.text), harmless(&error.code))
}

fn stopped(report: &ImportReport, line: u64) {
    if report.lines > 0 {
        eprintln!("It stopped before line {line}. What is done stays; the same command goes on from there.");
    }
}

fn at(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("{}: {error}", path.display()), None)
}

/// A bar on a terminal; nothing elsewhere.
fn progress(path: &Path, json: bool) -> ProgressBar {
    let length = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(length) };
    match ProgressStyle::with_template("{bar:40} {percent:>3} %  {bytes}/{total_bytes}  {eta}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

const fn empty() -> ImportReport {
    ImportReport {
        applied: false,
        lines: 0,
        registered: 0,
        updated: 0,
        unchanged: 0,
        failed: 0,
        errors: Vec::new(),
        errors_left_out: 0,
        tokens: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts of a file: their text, and the lines of the file that are the part's lines 1, 2, …
    fn parts(text: &[u8], format: ListFormat, whole: bool) -> Vec<(Vec<u8>, u64, Vec<u64>)> {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("list");
        std::fs::write(&path, text).expect("written");
        let mut parts = Parts::open(&path, format).expect("open");
        let mut found = Vec::new();
        while let Some(part) = parts.next(whole).expect("read") {
            let lines = (1..=4).map(|line| part.line(line)).collect();
            found.push((part.octets.clone(), part.read, lines));
        }
        found
    }

    #[test]
    fn every_part_of_csv_has_the_head_and_knows_its_lines() {
        let lines = (0..=PART_LINES).map(|number| format!("d{number}\n")).collect::<Vec<_>>().concat();
        let text = format!("\u{feff}\n\nname\n{lines}");
        let found = parts(text.as_bytes(), ListFormat::Csv, false);
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|(part, ..)| part.starts_with("\u{feff}\n\nname\n".as_bytes())));
        assert_eq!(found[1].0, format!("\u{feff}\n\nname\nd{PART_LINES}\n").as_bytes());
        assert_eq!(found[0].2, [1, 2, 3, 4]);
        assert_eq!(found[1].2, [1, 2, 3, PART_LINES + 4]);
        assert_eq!(found.iter().map(|part| part.1).sum::<u64>(), u64::try_from(text.len()).unwrap());
        let found = parts(text.as_bytes(), ListFormat::Csv, true);
        assert_eq!((found.len(), &found[0].0[..]), (1, text.as_bytes()));
    }

    #[test]
    fn parts_of_json_lines_have_none() {
        let text = "{\"name\":\"a\"}\n".repeat(usize::try_from(2 * PART_LINES).expect("few"));
        let found = parts(text.as_bytes(), ListFormat::Jsonl, false);
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].2, [PART_LINES + 1, PART_LINES + 2, PART_LINES + 3, PART_LINES + 4]);
        assert_eq!(found.iter().flat_map(|(part, ..)| part.clone()).collect::<Vec<_>>(), text.as_bytes());
    }

    #[test]
    fn a_file_without_lines_is_sent_once() {
        for text in ["", "name\n", "name"] {
            for format in [ListFormat::Csv, ListFormat::Jsonl] {
                let found = parts(text.as_bytes(), format, false);
                assert_eq!((found.len(), &found[0].0[..]), (1, text.as_bytes()), "{text:?} {format:?}");
            }
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_cut() {
        let text = format!("name\n{}\nb", "x".repeat(1 << 20));
        let found = parts(text.as_bytes(), ListFormat::Csv, false);
        assert_eq!(found.len(), 1);
        assert_eq!(u64::try_from(found[0].0.len()).unwrap(), 5 + MAX_LINE + 1 + 1);
        assert!(found[0].0.ends_with(b"x\nb"));
    }

    #[test]
    fn tokens_are_written_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("tokens.csv");
        let mut file = TokenFile::create(&path).expect("created");
        let token = "fmt_0011223344556677_x".to_owned().into();
        file.write(&[ImportedToken { device: "a".parse().expect("a name"), token }]).expect("written");
        file.close().expect("closed");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "device,token\na,fmt_0011223344556677_x\n");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);

        // What stopped in the middle of a line goes on behind it.
        std::fs::write(&path, "device,token\na,fmt_0011223344556677_x\nb,fm").expect("written");
        let token = "fmt_8899aabbccddeeff_y".to_owned().into();
        let mut file = TokenFile::create(&path).expect("opened again");
        file.write(&[ImportedToken { device: "b".parse().expect("a name"), token }]).expect("written");
        let text = std::fs::read_to_string(&path).expect("read");
        assert_eq!(text, "device,token\na,fmt_0011223344556677_x\nb,fm\nb,fmt_8899aabbccddeeff_y\n");

        let refused = |path: &Path| TokenFile::create(path).err().is_some_and(|error| format!("{error:?}").contains("exists"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("changed");
        assert!(refused(&path), "others may read it");
        for other in ["", "device", "name,token\na,b\n"] {
            let path = directory.path().join("other");
            std::fs::write(&path, other).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("changed");
            assert!(refused(&path), "{other:?}");
            assert_eq!(std::fs::read_to_string(&path).expect("read"), other);
        }
    }
}
