//! Server-sent events (WHATWG HTML 9.2.5 and 9.2.6), read from hostile octets, bounded.

/// The longest line, in octets.
pub const MAX_LINE: usize = 128 * 1024;
/// The most data of one event, in octets.
pub const MAX_EVENT: usize = 256 * 1024;
/// The longest last event id that is kept, in octets: it is sent back in a header.
const MAX_ID: usize = 8 * 1024;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its type; `message` where none was given.
    pub kind: String,
    /// Its data; lines are joined by LF.
    pub data: String,
}

/// Why a stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// A line longer than [`MAX_LINE`].
    #[error("a line of the feed is longer than 128 KiB")]
    LongLine,
    /// An event longer than [`MAX_EVENT`].
    #[error("an event of the feed is longer than 256 KiB")]
    LongEvent,
    /// Not UTF-8.
    #[error("a line of the feed is not UTF-8")]
    NotText,
}

/// Reads a stream in chunks that may be split anywhere.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    /// The last octet was a CR: an LF that follows belongs to it.
    after_cr: bool,
    /// The first line is over: a BOM has no meaning any more.
    begun: bool,
    kind: String,
    data: String,
    has_data: bool,
    id: String,
    last_id: String,
    retry_ms: Option<u64>,
}

impl Parser {
    /// Reads on. Returns the events that are complete now.
    ///
    /// # Errors
    /// [`SseError`]; the stream is to be closed then.
    pub fn push(&mut self, octets: &[u8]) -> Result<Vec<Event>, SseError> {
        let mut events = Vec::new();
        for octet in octets {
            let follows_cr = std::mem::replace(&mut self.after_cr, *octet == b'\r');
            match octet {
                b'\n' if follows_cr => {}
                b'\r' | b'\n' => events.extend(self.end_of_line()?),
                _ if self.line.len() >= MAX_LINE => return Err(SseError::LongLine),
                _ => self.line.push(*octet),
            }
        }
        Ok(events)
    }

    /// The id of the newest event that was complete; empty where none had one.
    pub fn last_id(&self) -> &str {
        &self.last_id
    }

    /// How long the server wants to be left alone after the stream ends, in milliseconds.
    pub const fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    fn end_of_line(&mut self) -> Result<Option<Event>, SseError> {
        let line = std::mem::take(&mut self.line);
        let line = if std::mem::replace(&mut self.begun, true) {
            &line[..]
        } else {
            line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line)
        };
        if line.is_empty() {
            return Ok(self.dispatch());
        }
        let line = str::from_utf8(line).map_err(|_| SseError::NotText)?;
        // A comment begins with a colon: its field has no name.
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        self.field(field, value.strip_prefix(' ').unwrap_or(value))?;
        Ok(None)
    }

    fn field(&mut self, field: &str, value: &str) -> Result<(), SseError> {
        match field {
            "event" => value.clone_into(&mut self.kind),
            "data" if self.data.len() + value.len() >= MAX_EVENT => return Err(SseError::LongEvent),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            "id" if !value.contains('\0') && value.len() <= MAX_ID => value.clone_into(&mut self.id),
            "retry" if !value.is_empty() && value.bytes().all(|octet| octet.is_ascii_digit()) => {
                self.retry_ms = value.parse().ok();
            }
            _ => {}
        }
        Ok(())
    }

    fn dispatch(&mut self) -> Option<Event> {
        self.id.clone_into(&mut self.last_id);
        let (kind, data) = (std::mem::take(&mut self.kind), std::mem::take(&mut self.data));
        // "If the data buffer is an empty string, set the event type buffer to the empty string and return."
        let dispatched = std::mem::take(&mut self.has_data) && !data.is_empty();
        dispatched.then(|| Event { kind: if kind.is_empty() { "message".to_owned() } else { kind }, data })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(kind: &str, data: &str) -> Event {
        Event { kind: kind.to_owned(), data: data.to_owned() }
    }

    const STREAM: &[u8] = b"\xef\xbb\xbf: hello\nid: a@1\nevent: entry\ndata: {\"x\":1}\n\nretry: 250\r\ndata:one\r\ndata: two\rdata\r\r\nid\ndata: z\n\nevent: lost\n\ndata: cut";

    fn expected() -> Vec<Event> {
        vec![event("entry", "{\"x\":1}"), event("message", "one\ntwo\n"), event("message", "z")]
    }

    #[test]
    fn the_examples_rules_are_kept_however_the_stream_is_split() {
        for size in 1..STREAM.len() {
            let mut parser = Parser::default();
            let events: Vec<_> = STREAM.chunks(size).flat_map(|chunk| parser.push(chunk).unwrap()).collect();
            assert_eq!(events, expected(), "chunks of {size}");
            assert_eq!((parser.last_id(), parser.retry_ms()), ("", Some(250)));
        }
    }

    #[test]
    fn an_id_counts_when_its_event_is_complete() {
        let mut parser = Parser::default();
        parser.push(b"id: a@1\ndata: x\n\nid: a@2\ndata: y\n").unwrap();
        assert_eq!(parser.last_id(), "a@1");
        parser.push(b"\nid: bad\0\ndata: z\n\n").unwrap();
        assert_eq!(parser.last_id(), "a@2");
    }

    #[test]
    fn lines_and_events_are_bounded() {
        assert_eq!(Parser::default().push(&vec![b'a'; MAX_LINE + 1]), Err(SseError::LongLine));
        let line = [b"data: ".to_vec(), vec![b'a'; MAX_LINE - 6], b"\n".to_vec()].concat();
        let mut parser = Parser::default();
        assert_eq!(parser.push(&line), Ok(Vec::new()));
        assert_eq!(parser.push(&line), Ok(Vec::new()));
        assert_eq!(parser.push(&line), Err(SseError::LongEvent));
        assert_eq!(Parser::default().push(b"data: \xff\n"), Err(SseError::NotText));
    }

    proptest! {
        #[test]
        fn splitting_changes_nothing(octets in proptest::collection::vec(prop::sample::select(b"\r\n: diat".to_vec()), 0..200), at in 0_usize..200) {
            let (head, tail) = octets.split_at(at.min(octets.len()));
            let (mut whole, mut split) = (Parser::default(), Parser::default());
            let events = whole.push(&octets).unwrap();
            let mut parts = split.push(head).unwrap();
            parts.extend(split.push(tail).unwrap());
            prop_assert_eq!(events, parts);
            prop_assert_eq!(whole.last_id(), split.last_id());
        }

        #[test]
        fn hostile_octets_do_no_harm(octets in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Parser::default().push(&octets);
        }
    }
}
