//! Lists of serials as they are sent: CSV (RFC 4180) or lines of JSON.

use actix_web::HttpRequest;
use actix_web::http::header::CONTENT_TYPE;
use fleetmark_domain::{Name, Refusal};

use crate::http::admin::extract::refuse;
use crate::http::admin::wire;
use crate::http::problem::Problem;
use crate::registrar::groups::MAX_SERIAL;
use crate::store::model::ListedSerial;

/// The largest body, in octets.
pub const MAX_BODY: usize = 16 * 1024 * 1024;
/// The most lines.
const MAX_LINES: usize = 100_000;

/// How a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `serial,device`; a first line of these words is a heading.
    Csv,
    /// One object a line.
    JsonLines,
}

impl Form {
    /// By the request's media type.
    pub fn of(request: &HttpRequest) -> Result<Self, Problem> {
        let media_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "text/csv" => Ok(Self::Csv),
            "application/x-ndjson" | "application/jsonl" => Ok(Self::JsonLines),
            _ => Err(refuse(Refusal::MediaTypeNotSupported, "send text/csv or application/x-ndjson")),
        }
    }

    /// Reads a list. Empty lines are passed over.
    ///
    /// # Errors
    /// `MalformedRequest` or `InvalidValue`, with the number of the first line that is wrong, from 1.
    pub fn parse(self, body: &[u8]) -> Result<Vec<ListedSerial>, Problem> {
        let text = std::str::from_utf8(body).map_err(|_| refuse(Refusal::MalformedRequest, "the list is not UTF-8"))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut listed = Vec::new();
        for (at, line) in text.lines().enumerate() {
            if line.trim().is_empty() || (at == 0 && self == Self::Csv && is_heading(line)) {
                continue;
            }
            if listed.len() == MAX_LINES {
                return Err(refuse(Refusal::BodyTooLarge, format!("at most {MAX_LINES} serials at once")));
            }
            let one = match self {
                Self::Csv => csv(line),
                Self::JsonLines => json(line),
            };
            listed.push(one.map_err(|why| refuse(Refusal::InvalidValue, format!("line {}: {why}", at + 1)))?);
        }
        Ok(listed)
    }
}

fn is_heading(line: &str) -> bool {
    matches!(line.trim().to_ascii_lowercase().as_str(), "serial" | "serial,device")
}

fn json(line: &str) -> Result<ListedSerial, String> {
    let wire::ListedSerial { serial, device } =
        serde_json::from_str(line).map_err(|error| error.to_string().chars().take(100).collect::<String>())?;
    checked(serial, device)
}

fn csv(line: &str) -> Result<ListedSerial, String> {
    let fields = fields(line)?;
    let (serial, device) = match fields.as_slice() {
        [serial] => (serial, ""),
        [serial, device] => (serial, device.as_str()),
        _ => return Err("a serial, a comma and a device's name are expected".to_owned()),
    };
    let device = if device.is_empty() { None } else { Some(device.parse::<Name>().map_err(|error| error.to_string())?) };
    checked(serial.clone(), device)
}

fn checked(serial: String, device: Option<Name>) -> Result<ListedSerial, String> {
    let fits = (1..=MAX_SERIAL).contains(&serial.chars().count()) && !serial.chars().any(char::is_control);
    if fits {
        Ok(ListedSerial { serial, device })
    } else {
        Err(format!("a serial has 1 to {MAX_SERIAL} characters, none of them a control character"))
    }
}

/// The fields of one line. What is not in quotation marks is trimmed.
fn fields(line: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = if let Some(quoted) = rest.trim_start().strip_prefix('"') {
            quoted_field(quoted)?
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            let (field, after) = rest.split_at(end);
            (field.trim().to_owned(), after)
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(fields),
        }
    }
}

/// A field behind its quotation mark, and what follows it. Two marks are one.
fn quoted_field(text: &str) -> Result<(String, &str), String> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"').ok_or("a quotation mark is not closed")?;
        field.push_str(part);
        let Some(more) = after.strip_prefix('"') else {
            let after = after.trim_start();
            let ends = after.is_empty() || after.starts_with(',');
            return if ends { Ok((field, after)) } else { Err("a comma is expected behind a quotation mark".to_owned()) };
        };
        field.push('"');
        rest = more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(serial: &str, device: Option<&str>) -> ListedSerial {
        ListedSerial { serial: serial.to_owned(), device: device.map(|name| name.parse().unwrap()) }
    }

    #[test]
    fn lists_are_read_in_both_forms() {
        let csv = "\u{feff}Serial,Device\r\nA-1,cam-1\r\n\r\n A-2 \n\"A,\"\"3\" , cam-3\nA-4,\n";
        let expected = [listed("A-1", Some("cam-1")), listed("A-2", None), listed("A,\"3", Some("cam-3")), listed("A-4", None)];
        assert_eq!(Form::Csv.parse(csv.as_bytes()).unwrap(), expected);
        let json = "{\"serial\":\"A-1\",\"device\":\"cam-1\"}\n{\"serial\":\"A-2\"}\n{\"serial\":\"A,\\\"3\",\"device\":\"cam-3\"}\n{\"serial\":\"A-4\",\"device\":null}";
        assert_eq!(Form::JsonLines.parse(json.as_bytes()).unwrap(), expected);
        assert_eq!(Form::Csv.parse(b"").unwrap(), []);
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (form, text, line) in [
            (Form::Csv, "a\nb,c,d", "line 2"),
            (Form::Csv, "a\n\nb,/", "line 3"),
            (Form::Csv, "\"a", "line 1"),
            (Form::Csv, "\"a\"b", "line 1"),
            (Form::Csv, ",cam-1", "line 1"),
            (Form::JsonLines, "{\"serial\":\"a\"}\nb", "line 2"),
            (Form::JsonLines, "{\"serial\":\"\"}", "line 1"),
            (Form::JsonLines, "{\"serial\":\"a\",\"more\":1}", "line 1"),
        ] {
            let problem = form.parse(text.as_bytes()).expect_err(text);
            assert!(
                problem.0.detail.as_deref().is_some_and(|detail| detail.starts_with(line)),
                "{text}: {:?}",
                problem.0.detail
            );
        }
        let long = "x".repeat(MAX_SERIAL + 1);
        assert_eq!(Form::Csv.parse(long.as_bytes()).expect_err("long").0.refusal, Refusal::InvalidValue);
        assert_eq!(Form::Csv.parse(b"\xff").expect_err("no text").0.refusal, Refusal::MalformedRequest);
        let many = "x\n".repeat(MAX_LINES + 1);
        assert_eq!(Form::Csv.parse(many.as_bytes()).expect_err("many").0.refusal, Refusal::BodyTooLarge);
    }
}
