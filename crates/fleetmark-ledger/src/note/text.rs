//! The text form of notes and checkpoints, without any trust in it.

use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::{MAX_NOTE, MAX_SIGNATURES, NoteError, is_key_name};
use crate::merkle::{Hash, Head};

/// A note taken apart (C2SP signed-note, "Format").
pub(super) struct SignedNote<'a> {
    /// What is signed, with its last newline.
    pub(super) text: &'a str,
    /// The signature lines.
    pub(super) signatures: Vec<Signature<'a>>,
}

/// One signature line.
pub(super) struct Signature<'a> {
    pub(super) name: &'a str,
    pub(super) key_id: [u8; 4],
    pub(super) octets: Vec<u8>,
}

impl<'a> SignedNote<'a> {
    pub(super) fn parse(note: &'a str) -> Result<Self, NoteError> {
        if note.len() > MAX_NOTE {
            return Err(NoteError::Form("it is longer than 16 KiB"));
        }
        if note.bytes().any(|octet| octet < b' ' && octet != b'\n') {
            return Err(NoteError::Form("it has control characters"));
        }
        // The last empty line parts text and signatures.
        let end = note.rfind("\n\n").ok_or(NoteError::Form("it has no signatures"))?;
        let (text, rest) = note.split_at_checked(end + 1).ok_or(NoteError::Form("it has no signatures"))?;
        let lines = rest.strip_prefix('\n').and_then(|rest| rest.strip_suffix('\n'));
        let lines = lines.ok_or(NoteError::Form("its last line does not end"))?;
        if lines.split('\n').count() > MAX_SIGNATURES {
            return Err(NoteError::Form("it has too many signatures"));
        }
        let signatures = lines.split('\n').map(Signature::parse).collect::<Option<_>>();
        Ok(Self { text, signatures: signatures.ok_or(NoteError::Form("a signature line is malformed"))? })
    }
}

impl<'a> Signature<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (name, base64) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
        let octets = BASE64_STANDARD.decode(base64).ok()?;
        let (key_id, octets) = octets.split_first_chunk::<4>()?;
        let fits = is_key_name(name) && !octets.is_empty();
        fits.then(|| Self { name, key_id: *key_id, octets: octets.to_vec() })
    }
}

/// A signature line, with its newline.
pub(super) fn signature_line(name: &str, key_id: [u8; 4], parts: &[&[u8]]) -> String {
    let mut octets = key_id.to_vec();
    octets.extend(parts.iter().copied().flatten());
    format!("\u{2014} {name} {}\n", BASE64_STANDARD.encode(octets))
}

/// The three lines of a checkpoint (C2SP tlog-checkpoint).
pub(super) fn checkpoint(origin: &str, head: &Head) -> String {
    format!("{origin}\n{}\n{}\n", head.size, BASE64_STANDARD.encode(head.root.0))
}

/// Reads a checkpoint's origin and head. Extension lines are allowed and not understood.
pub(super) fn parse_checkpoint(text: &str) -> Result<(&str, Head), NoteError> {
    const FORM: NoteError = NoteError::Form("its text is no checkpoint");
    let mut lines = text.strip_suffix('\n').ok_or(FORM)?.split('\n');
    let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
        return Err(FORM);
    };
    let number: u64 = size.parse().map_err(|_| FORM)?;
    let root = BASE64_STANDARD.decode(root).ok().and_then(|root| root.try_into().ok()).ok_or(FORM)?;
    // No sign, no leading zeros.
    if origin.is_empty() || number.to_string() != size || lines.any(str::is_empty) {
        return Err(FORM);
    }
    Ok((origin, Head { size: number, root: Hash(root) }))
}

/// What a timestamped cosignature signs (C2SP tlog-cosignature, "Ed25519 signed message").
pub(super) fn cosigned(time: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}
