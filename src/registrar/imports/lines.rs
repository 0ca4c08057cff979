//! A list of devices as text, line by line: CSV (RFC 4180) or one JSON object a line. A pure function over octets, which may come
//! in parts; it keeps no more of them than one line.
//!
//! A record is one line in CSV too: a value holds no control character, so a quoted line break could not be a part of one, and a
//! quote that is never closed spoils its own line alone.

use std::collections::{BTreeMap, HashMap};

use fleetmark_domain::{Name, Refusal};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use super::endorsement::endorsement_id;
use crate::registrar::subjects::check_attributes;
use crate::store::model::HardwareId;

/// The longest line, in octets, its end not counted.
pub const MAX_LINE: usize = 16 * 1024;
/// The most lines of one list, empty ones and the head of CSV among them.
pub const MAX_LINES: u64 = 100_001;
/// The most columns of CSV.
pub const MAX_COLUMNS: usize = 64;
/// How much of a column's name, or of a parser's words, is repeated, in characters.
const MAX_SHOWN: usize = 100;

/// How a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values with a head: `name`, and `attr.KEY`, `endorsement_key`, `token` where they are wanted.
    Csv,
    /// JSON objects, one a line: `name`, and `attributes`, `endorsement_key`, `token` where they are wanted.
    JsonLines,
}

/// A device of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The line that it stands in, from 1.
    pub number: u64,
    /// Its name.
    pub name: Name,
    /// All its attributes.
    pub attributes: BTreeMap<String, String>,
    /// Its TPM, by the endorsement key.
    pub hardware: Option<HardwareId>,
    /// Whether it is to get a token.
    pub token: bool,
}

/// Why a line is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1.
    pub line: u64,
    /// The column of CSV, or the member of the object; empty: the whole line.
    pub column: String,
    /// By what name it is refused.
    pub refusal: Refusal,
    /// One sentence, without the value.
    pub text: String,
}

/// A column of CSV.
#[derive(Debug)]
enum Column {
    Name,
    Attribute(String),
    EndorsementKey,
    Token,
}

/// Reads a list.
#[derive(Debug)]
pub struct Lines {
    format: Format,
    head: Option<Vec<Column>>,
    number: u64,
    partial: Vec<u8>,
    is_overlong: bool,
    /// In which line each name stood, folded.
    names: HashMap<String, u64>,
    keys: HashMap<HardwareId, u64>,
}

/// What is wrong with a line: column, name, sentence.
type Wrong = (String, Refusal, String);

fn wrong<T>(column: &str, refusal: Refusal, text: impl Into<String>) -> Result<T, Wrong> {
    Err((column.to_owned(), refusal, text.into()))
}

impl Lines {
    /// A list of this format, of which nothing was read.
    pub fn new(format: Format) -> Self {
        let (names, keys) = (HashMap::new(), HashMap::new());
        Self { format, head: None, number: 0, partial: Vec::new(), is_overlong: false, names, keys }
    }

    /// How many lines were read.
    pub const fn read(&self) -> u64 {
        self.number
    }

    /// Reads a part of it; `found` is given each line that ended, empty ones and the head of CSV excepted.
    ///
    /// # Errors
    /// What makes the whole list unreadable: the head of CSV, or more than [`MAX_LINES`]. Nothing may be pushed after it.
    pub fn push(&mut self, octets: &[u8], mut found: impl FnMut(Result<Line, Fault>)) -> Result<(), Fault> {
        for part in octets.split_inclusive(|octet| *octet == b'\n') {
            let (piece, ends) = part.strip_suffix(b"\n").map_or((part, false), |piece| (piece, true));
            // One more for the CR of a line's end.
            self.is_overlong |= self.partial.len() + piece.len() > MAX_LINE + 1;
            if self.is_overlong {
                self.partial.clear();
            } else {
                self.partial.extend_from_slice(piece);
            }
            if ends {
                self.line(&mut found)?;
            }
        }
        Ok(())
    }

    /// Reads a last line that no line break ends.
    ///
    /// # Errors
    /// See [`Self::push`]; and of CSV that it has no head.
    pub fn finish(&mut self, mut found: impl FnMut(Result<Line, Fault>)) -> Result<(), Fault> {
        if self.is_overlong || !self.partial.is_empty() {
            self.line(&mut found)?;
        }
        match (self.format, &self.head) {
            (Format::Csv, None) => Err(self.fault(("name".to_owned(), Refusal::MalformedRequest, NO_HEAD.to_owned()))),
            _ => Ok(()),
        }
    }

    fn line(&mut self, found: &mut impl FnMut(Result<Line, Fault>)) -> Result<(), Fault> {
        self.number += 1;
        if self.number > MAX_LINES {
            let told = format!("a list has at most {MAX_LINES} lines");
            return Err(self.fault((String::new(), Refusal::BodyTooLarge, told)));
        }
        let octets = std::mem::take(&mut self.partial);
        let is_overlong = std::mem::take(&mut self.is_overlong);
        let first = if self.number == 1 { octets.strip_prefix("\u{feff}".as_bytes()) } else { None };
        let line = first.unwrap_or(&octets);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let is_overlong = is_overlong || line.len() > MAX_LINE;
        if !is_overlong && line.iter().all(|octet| matches!(octet, b' ' | b'\t')) {
            return Ok(());
        }
        let text = match std::str::from_utf8(line) {
            _ if is_overlong => wrong("", Refusal::BodyTooLarge, format!("a line has at most {MAX_LINE} octets")),
            Ok(text) => Ok(text),
            Err(_) => wrong("", Refusal::MalformedRequest, "the line is not UTF-8"),
        };
        if self.format == Format::Csv && self.head.is_none() {
            self.head = Some(text.and_then(head).map_err(|wrong| self.fault(wrong))?);
            return Ok(());
        }
        found(text.and_then(|text| self.device(text)).map_err(|wrong| self.fault(wrong)));
        Ok(())
    }

    fn device(&mut self, text: &str) -> Result<Line, Wrong> {
        let device = match &self.head {
            Some(head) => from_csv(head, text)?,
            None => from_json(text)?,
        };
        let name: Name = match device.name.parse() {
            Ok(name) => name,
            Err(error) => return wrong("name", Refusal::InvalidName, error.to_string()),
        };
        if let Err(told) = check_attributes(&device.attributes) {
            return wrong("attributes", Refusal::InvalidValue, told);
        }
        let hardware = match device.endorsement_key.as_deref().map(endorsement_id).transpose() {
            Ok(hardware) => hardware,
            Err(expected) => return wrong("endorsement_key", Refusal::InvalidValue, expected),
        };
        if let Some(earlier) = self.names.get(&name.folded()) {
            return wrong("name", Refusal::NameTaken, format!("the name stands in line {earlier} already"));
        }
        if let Some(earlier) = hardware.and_then(|id| self.keys.get(&id)) {
            let told = format!("the endorsement key stands in line {earlier} already");
            return wrong("endorsement_key", Refusal::HardwareOfAnother, told);
        }
        self.names.insert(name.folded(), self.number);
        self.keys.extend(hardware.map(|id| (id, self.number)));
        Ok(Line { number: self.number, name, attributes: device.attributes, hardware, token: device.token })
    }

    fn fault(&self, (column, refusal, text): Wrong) -> Fault {
        Fault { line: self.number, column, refusal, text }
    }
}

const NO_HEAD: &str = "the first line of CSV names the columns, `name` among them";

/// A device as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    #[serde(default, deserialize_with = "distinct")]
    attributes: BTreeMap<String, String>,
    #[serde(default)]
    endorsement_key: Option<String>,
    #[serde(default)]
    token: bool,
}

fn from_json(text: &str) -> Result<Written, Wrong> {
    serde_json::from_str(text).or_else(|error| {
        let told = error.to_string();
        // The parser counts lines of its own.
        let told = told.split(" at line ").next().unwrap_or_default();
        wrong("", Refusal::MalformedRequest, shown(&format!("{told}, at octet {}", error.column())))
    })
}

/// Text that may be repeated: short, and harmless to a terminal.
fn shown(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(MAX_SHOWN).collect()
}

/// For serde: a map in which no key stands twice.
fn distinct<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Distinct;
    impl<'de> Visitor<'de> for Distinct {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object of texts")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((key, value)) = access.next_entry()? {
                if map.insert(key, value).is_some() {
                    return Err(A::Error::custom("an attribute stands there twice"));
                }
            }
            Ok(map)
        }
    }
    deserializer.deserialize_map(Distinct)
}

fn head(text: &str) -> Result<Vec<Column>, Wrong> {
    let mut columns = Vec::new();
    let mut known = std::collections::BTreeSet::new();
    for field in fields(text)? {
        let column = match field.as_str() {
            "name" => Column::Name,
            "endorsement_key" => Column::EndorsementKey,
            "token" => Column::Token,
            other => match other.strip_prefix("attr.") {
                Some(key) if !key.is_empty() => Column::Attribute(key.to_owned()),
                _ => {
                    let told = "columns are name, endorsement_key, token and attr.KEY";
                    return wrong(&shown(other), Refusal::MalformedRequest, told);
                }
            },
        };
        if !known.insert(field.clone()) {
            return wrong(&shown(&field), Refusal::MalformedRequest, "the column stands there twice");
        }
        columns.push(column);
    }
    if known.contains("name") { Ok(columns) } else { wrong("name", Refusal::MalformedRequest, NO_HEAD) }
}

fn from_csv(head: &[Column], text: &str) -> Result<Written, Wrong> {
    let fields = fields(text)?;
    if fields.len() != head.len() {
        let told = format!("the line has {} fields where the head has {}", fields.len(), head.len());
        return wrong("", Refusal::MalformedRequest, told);
    }
    let mut device = Written::default();
    for (column, field) in head.iter().zip(fields) {
        match column {
            Column::Name => device.name = field,
            Column::Token => match field.as_str() {
                "true" => device.token = true,
                "false" | "" => {}
                _ => return wrong("token", Refusal::InvalidValue, "expected true or false"),
            },
            // An empty field is none.
            _ if field.is_empty() => {}
            Column::EndorsementKey => device.endorsement_key = Some(field),
            Column::Attribute(key) => {
                device.attributes.insert(key.clone(), field);
            }
        }
    }
    Ok(device)
}

/// The fields of one line, at most [`MAX_COLUMNS`] (RFC 4180 2.4 to 2.7).
fn fields(line: &str) -> Result<Vec<String>, Wrong> {
    let mut fields = Vec::new();
    let mut rest = Some(line);
    while let Some(text) = rest {
        if fields.len() == MAX_COLUMNS {
            return wrong("", Refusal::MalformedRequest, format!("there are at most {MAX_COLUMNS} columns"));
        }
        let (field, after) = match text.strip_prefix('"') {
            Some(quoted) => match quoted_field(quoted) {
                Some(parts) => parts,
                None => return wrong("", Refusal::MalformedRequest, "a quote is not closed before a comma or the line's end"),
            },
            None => text.split_once(',').map_or((text.to_owned(), None), |(field, after)| (field.to_owned(), Some(after))),
        };
        if !text.starts_with('"') && field.contains('"') {
            return wrong("", Refusal::MalformedRequest, "a quote stands within a field that is not quoted");
        }
        fields.push(field);
        rest = after;
    }
    Ok(fields)
}

/// The field up to its closing quote, and what follows the comma behind it.
fn quoted_field(text: &str) -> Option<(String, Option<&str>)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"')?;
        field.push_str(part);
        rest = match after.strip_prefix('"') {
            // RFC 4180 2.7: two quotes are one.
            Some(after) => after,
            None if after.is_empty() => return Some((field, None)),
            None => return after.strip_prefix(',').map(|after| (field, Some(after))),
        };
        field.push('"');
    }
}

#[cfg(test)]
mod tests;
