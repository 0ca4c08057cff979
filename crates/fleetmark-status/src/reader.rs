//! Opens a list and answers for an index. No allocation, no panic, a few dozen octets of stack beside the verifier's.

use crate::blocks::Blocks;
use crate::header::{HEADER_LENGTH, Header, SIGNATURE_LENGTH, SLICE_SHIFT, Scope};
use crate::reason::{Answer, Refusal};

/// So much may a list's maker be ahead of the reader's clock, in seconds.
pub const CLOCK_SKEW: u64 = 300;

/// A trusted public key.
pub trait Verify {
    /// The first 8 octets of SHA-256 over the key's point (SEC 1, uncompressed).
    fn key_id(&self) -> [u8; 8];
    /// Whether `signature` (r and s) is the key's over `message`: ECDSA on P-256 with SHA-256.
    fn verify(&self, message: &[u8], signature: &[u8; SIGNATURE_LENGTH]) -> bool;
}

/// What a list must fulfil today.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// The time, in seconds since 1970; from a source that an attacker cannot set.
    pub now: u64,
    /// The highest sequence that was accepted for this scope, from memory that outlives power; 0 at first.
    pub lowest_sequence: u64,
    /// How old a list may be, in seconds, whatever its next update says.
    pub max_age: u32,
}

/// A list whose signature, scope, age and blocks were found right.
#[derive(Debug, Clone, Copy)]
pub struct List<'a> {
    header: Header,
    range: Range<'a>,
}

/// What a query needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range<'a> {
    pub(crate) blocks: Blocks<'a>,
    pub(crate) epoch: u32,
    pub(crate) slice: u16,
}

impl<'a> List<'a> {
    /// Opens a list. Cheap checks come first, the signature and the blocks last; a list that opens answers for every index.
    ///
    /// After a success, whoever has memory for it keeps the header's sequence as the next lowest.
    ///
    /// # Errors
    /// Each [`Refusal`] but [`Refusal::BadKey`].
    pub fn open(octets: &'a [u8], scope: &Scope, terms: &Terms, key: &impl Verify) -> Result<Self, Refusal> {
        let header = Header::parse(octets)?;
        accept(&header, scope, terms, key.key_id())?;
        let (signed, signature) = octets.split_last_chunk().ok_or(Refusal::Malformed)?;
        if !key.verify(signed, signature) {
            return Err(Refusal::BadSignature);
        }
        let after = octets.get(HEADER_LENGTH..).ok_or(Refusal::Malformed)?;
        let (shift, width) = (u32::from(header.shift), u32::from(header.width));
        let blocks = Blocks { octets: after, count: header.count, shift, width };
        if !blocks.are_sound() {
            return Err(Refusal::BadBlocks);
        }
        Ok(Self { header, range: Range { blocks, epoch: scope.epoch, slice: scope.slice } })
    }

    /// What the list is about.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The answer for an index of the list's epoch.
    pub fn query(&self, index: u32) -> Answer {
        self.range.query(index)
    }

    /// The answer for a certificate's serial: the content octets of its DER INTEGER, `01 | epoch | index | 8 random octets`.
    pub fn query_serial(&self, serial: &[u8]) -> Answer {
        let Ok(serial) = serial.try_into() else { return Answer::ForeignSerial };
        self.range.query_serial(serial)
    }
}

impl Range<'_> {
    pub(crate) fn query(&self, index: u32) -> Answer {
        let within = index.wrapping_sub(u32::from(self.slice) << SLICE_SHIFT);
        if within >= self.blocks.count {
            return Answer::Beyond;
        }
        self.blocks.find(within)
    }

    pub(crate) fn query_serial(&self, serial: &[u8; 17]) -> Answer {
        let [first, e0, e1, e2, e3, i0, i1, i2, i3, ..] = *serial;
        if first != 1 {
            return Answer::ForeignSerial;
        }
        if u32::from_be_bytes([e0, e1, e2, e3]) != self.epoch {
            return Answer::OtherEpoch;
        }
        self.query(u32::from_be_bytes([i0, i1, i2, i3]))
    }
}

fn accept(header: &Header, scope: &Scope, terms: &Terms, key_id: [u8; 8]) -> Result<(), Refusal> {
    let age = terms.now.saturating_sub(header.this_update);
    Err(if header.key_id != key_id {
        Refusal::OtherKey
    } else if header.scope.fleet != scope.fleet {
        Refusal::OtherFleet
    } else if header.scope.authority != scope.authority {
        Refusal::OtherAuthority
    } else if header.scope.epoch != scope.epoch {
        Refusal::OtherEpoch
    } else if header.scope.slice != scope.slice {
        Refusal::OtherSlice
    } else if header.sequence < terms.lowest_sequence {
        Refusal::RolledBack
    } else if header.this_update > terms.now.saturating_add(CLOCK_SKEW) {
        Refusal::NotYet
    } else if header.next_update < terms.now {
        Refusal::Stale
    } else if age > u64::from(terms.max_age) {
        Refusal::TooOld
    } else {
        return Ok(());
    })
}
