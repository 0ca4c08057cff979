//! The keys, and what they sign and check.

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use fleetmark_domain::Timestamp;
use ring::digest::{Context, SHA256};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use super::text::{SignedNote, checkpoint, cosigned, parse_checkpoint, signature_line};
use super::{Checkpoint, MAX_NOTE, NoteError, is_key_name};
use crate::merkle::{Head, finish};

/// Signature types of C2SP signed-note.
const PLAIN: u8 = 0x01;
const TIMESTAMPED: u8 = 0x04;

/// A ledger's signing key (Ed25519). Its `Debug` shows the name alone.
pub struct LedgerKey {
    pair: Ed25519KeyPair,
    verifier: VerifierKey,
}

/// What a verifier pins: the key's name (the origin) and public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    /// The name on the signature lines; for our ledgers, the origin.
    pub name: String,
    /// Ed25519 public key.
    pub key: [u8; 32],
}

impl LedgerKey {
    /// A key from PKCS#8, with the public key (as ring makes it) or without (as openssl does); `name` is the origin.
    ///
    /// # Errors
    /// [`NoteError::Key`] for other octets, [`NoteError::Form`] for a name with spaces or pluses.
    pub fn from_pkcs8(name: &str, pkcs8: &[u8]) -> Result<Self, NoteError> {
        if !is_key_name(name) {
            return Err(NoteError::Form("the origin is no key name"));
        }
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map_err(|_| NoteError::Key)?;
        let key = pair.public_key().as_ref().try_into().map_err(|_| NoteError::Key)?;
        Ok(Self { pair, verifier: VerifierKey { name: name.to_owned(), key } })
    }

    /// The key to pin.
    pub fn verifier(&self) -> VerifierKey {
        self.verifier.clone()
    }

    /// The checkpoint as a signed note: the plain Ed25519 signature (type 0x01), then the timestamped
    /// cosignature (type 0x04), both by this key. A time before 1970 is written as 1970.
    pub fn sign(&self, head: &Head, at: Timestamp) -> String {
        let name = &self.verifier.name;
        let text = checkpoint(name, head);
        let time = u64::try_from(at.0).unwrap_or(0);
        let plain = self.pair.sign(text.as_bytes());
        let timestamped = self.pair.sign(cosigned(time, &text).as_bytes());
        let first = signature_line(name, self.verifier.key_id(PLAIN), &[plain.as_ref()]);
        let second = signature_line(name, self.verifier.key_id(TIMESTAMPED), &[&time.to_be_bytes(), timestamped.as_ref()]);
        format!("{text}\n{first}{second}")
    }
}

impl VerifierKey {
    /// The vkey line: `name+hash+base64(0x01 || key)`.
    pub fn to_vkey(&self) -> String {
        let mut octets = vec![PLAIN];
        octets.extend(self.key);
        format!("{}+{}+{}", self.name, hex::encode(self.key_id(PLAIN)), BASE64_STANDARD.encode(octets))
    }

    /// Reads a vkey line of an Ed25519 key.
    ///
    /// # Errors
    /// [`NoteError::Form`] where it is none, or its key id is not that of its name and key.
    pub fn from_vkey(line: &str) -> Result<Self, NoteError> {
        const FORM: NoteError = NoteError::Form("this is no verifier key (NAME+HASH+KEY)");
        if line.len() > MAX_NOTE {
            return Err(FORM);
        }
        let (name, rest) = line.split_once('+').ok_or(FORM)?;
        let (key_id, base64) = rest.split_once('+').ok_or(FORM)?;
        let octets = BASE64_STANDARD.decode(base64).map_err(|_| FORM)?;
        let Some((&PLAIN, key)) = octets.split_first() else {
            return Err(FORM);
        };
        let verifier = Self { name: name.to_owned(), key: key.try_into().map_err(|_| FORM)? };
        let fits = is_key_name(name) && key_id == hex::encode(verifier.key_id(PLAIN));
        if fits { Ok(verifier) } else { Err(FORM) }
    }

    /// Reads a signed checkpoint of at most 16 KiB and checks both signatures and the origin. Lines of other keys are
    /// ignored; a line of this key that does not verify refuses the note. Of several timestamps the newest counts.
    ///
    /// # Errors
    /// [`NoteError::Form`] for other texts, [`NoteError::Origin`] for another ledger's checkpoint,
    /// [`NoteError::Unsigned`] unless this key signed both ways.
    pub fn open(&self, note: &str) -> Result<Checkpoint, NoteError> {
        let note = SignedNote::parse(note)?;
        let (origin, head) = parse_checkpoint(note.text)?;
        if origin != self.name {
            return Err(NoteError::Origin);
        }
        let (plain_id, timestamped_id) = (self.key_id(PLAIN), self.key_id(TIMESTAMPED));
        let mut signed = false;
        let mut newest = None;
        for signature in note.signatures.iter().filter(|signature| signature.name == self.name) {
            if signature.key_id == plain_id {
                self.check(note.text, &signature.octets)?;
                signed = true;
            } else if signature.key_id == timestamped_id {
                newest = newest.max(Some(self.check_timestamped(note.text, &signature.octets)?));
            }
        }
        match newest {
            Some(at) if signed => Ok(Checkpoint { origin: origin.to_owned(), head, at }),
            _ => Err(NoteError::Unsigned),
        }
    }

    fn check(&self, text: &str, signature: &[u8]) -> Result<(), NoteError> {
        UnparsedPublicKey::new(&ED25519, &self.key).verify(text.as_bytes(), signature).map_err(|_| NoteError::Unsigned)
    }

    /// `u64 timestamp || 64 octets`; gives the timestamp, which is at most 2^63 - 1.
    fn check_timestamped(&self, text: &str, signature: &[u8]) -> Result<Timestamp, NoteError> {
        let (time, signature) = signature.split_first_chunk::<8>().ok_or(NoteError::Unsigned)?;
        let time = u64::from_be_bytes(*time);
        let at = i64::try_from(time).map_err(|_| NoteError::Unsigned)?;
        self.check(&cosigned(time, text), signature)?;
        Ok(Timestamp(at))
    }

    /// `SHA-256(name || 0x0A || type || key)[:4]`
    fn key_id(&self, kind: u8) -> [u8; 4] {
        let mut context = Context::new(&SHA256);
        context.update(self.name.as_bytes());
        context.update(&[b'\n', kind]);
        context.update(&self.key);
        let [a, b, c, d, ..] = finish(context);
        [a, b, c, d]
    }
}

impl fmt::Debug for LedgerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LedgerKey").field("name", &self.verifier.name).finish_non_exhaustive()
    }
}
