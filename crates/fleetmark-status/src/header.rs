//! What a list is about, and where its parts are: header, body, signature.

use crate::reason::Refusal;

/// The first four octets: the format and its version.
pub const MAGIC: [u8; 4] = *b"FMS1";
/// The header's length, in octets.
pub const HEADER_LENGTH: usize = 84;
/// The signature's length, in octets: r and s, each 32, most significant first.
pub const SIGNATURE_LENGTH: usize = 64;
/// A slice has at most 2 to this many indices.
pub const SLICE_SHIFT: u32 = 20;
/// A slice's indices, at most.
pub const SLICE_INDICES: u32 = 1 << SLICE_SHIFT;
/// A list's length, at most, in octets: a bitmap of a full slice.
pub const LONGEST: usize = HEADER_LENGTH + (1 << (SLICE_SHIFT - 3)) + SIGNATURE_LENGTH;

/// Which slice of its epoch an index is in.
#[expect(clippy::as_conversions, reason = "12 bits are left")]
pub const fn slice_of(index: u32) -> u16 {
    (index >> SLICE_SHIFT) as u16
}

/// Which certificates a list is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// The first 16 octets of SHA-256 over `<trust domain>/<fleet>` in lower case.
    pub fleet: [u8; 16],
    /// The authority's subject key identifier, which its certificates carry as authority key identifier.
    pub authority: [u8; 20],
    /// The epoch in the certificates' serials.
    pub epoch: u32,
    /// The slice of the epoch: [`slice_of`] an index, at most 4,095.
    pub slice: u16,
}

/// A list's header. All numbers are written most significant octet first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The first 8 octets of SHA-256 over the signing key's point (SEC 1, uncompressed, 65 octets).
    pub key_id: [u8; 8],
    /// Which certificates the list is about.
    pub scope: Scope,
    /// Grows with each list of this scope, through restarts and restores.
    pub sequence: u64,
    /// When the list was made, in seconds since 1970.
    pub this_update: u64,
    /// Until when the list may be used, in seconds since 1970; later than `this_update`.
    pub next_update: u64,
    /// How many indices the list covers: one more than the highest that was issued in the slice; 1 to 2^20.
    pub count: u32,
    /// A block has 2 to this many indices, 1 to 20; 0 where the body is a bitmap.
    pub shift: u8,
    /// Bits of an offset in the directory, at most 21; 0 in a bitmap.
    pub width: u8,
}

impl Header {
    /// Reads the header of a list.
    ///
    /// # Errors
    /// [`Refusal::UnknownVersion`] or [`Refusal::Malformed`].
    pub fn parse(octets: &[u8]) -> Result<Self, Refusal> {
        Self::fields(octets).ok_or(Refusal::Malformed)?
    }

    fn fields(octets: &[u8]) -> Option<Result<Self, Refusal>> {
        let (fixed, rest) = octets.split_first_chunk::<HEADER_LENGTH>()?;
        let body = rest.len().checked_sub(SIGNATURE_LENGTH)?;
        let fixed = &mut fixed.as_slice();
        if take(fixed)? != MAGIC {
            return Some(Err(Refusal::UnknownVersion));
        }
        let header = Self {
            key_id: take(fixed)?,
            scope: Scope {
                fleet: take(fixed)?,
                authority: take(fixed)?,
                epoch: u32::from_be_bytes(take(fixed)?),
                slice: u16::from_be_bytes(take(fixed)?),
            },
            shift: u8::from_be_bytes(take(fixed)?),
            width: u8::from_be_bytes(take(fixed)?),
            sequence: u64::from_be_bytes(take(fixed)?),
            this_update: u64::from_be_bytes(take(fixed)?),
            next_update: u64::from_be_bytes(take(fixed)?),
            count: u32::from_be_bytes(take(fixed)?),
        };
        let sound = header.next_update > header.this_update
            && u32::from(header.scope.slice) <= u32::MAX >> SLICE_SHIFT
            && header.count.wrapping_sub(1) < SLICE_INDICES
            && u32::from(header.shift) <= SLICE_SHIFT
            && u32::from(header.width) <= SLICE_SHIFT + 1
            && (header.shift != 0 || header.width == 0)
            // A list is never longer than its bitmap.
            && body <= usize::try_from(header.count.div_ceil(8)).ok()?;
        Some(if sound { Ok(header) } else { Err(Refusal::Malformed) })
    }

    /// The header's octets.
    #[cfg(any(feature = "std", test))]
    pub fn octets(&self) -> std::vec::Vec<u8> {
        let mut octets = std::vec::Vec::with_capacity(HEADER_LENGTH);
        octets.extend_from_slice(&MAGIC);
        octets.extend_from_slice(&self.key_id);
        octets.extend_from_slice(&self.scope.fleet);
        octets.extend_from_slice(&self.scope.authority);
        octets.extend_from_slice(&self.scope.epoch.to_be_bytes());
        octets.extend_from_slice(&self.scope.slice.to_be_bytes());
        octets.extend_from_slice(&[self.shift, self.width]);
        octets.extend_from_slice(&self.sequence.to_be_bytes());
        octets.extend_from_slice(&self.this_update.to_be_bytes());
        octets.extend_from_slice(&self.next_update.to_be_bytes());
        octets.extend_from_slice(&self.count.to_be_bytes());
        octets
    }
}

/// The lengths are known when this is compiled, so that nothing is left of the checks.
#[inline(always)]
#[expect(clippy::inline_always, reason = "size: a third of the call")]
fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_84_octets_and_reads_back() {
        let scope = Scope { fleet: [1; 16], authority: [2; 20], epoch: 3, slice: 4 };
        let header =
            Header { key_id: [5; 8], scope, sequence: 6, this_update: 7, next_update: 8, count: 1 << 20, shift: 20, width: 21 };
        let mut octets = header.octets();
        assert_eq!(octets.len(), HEADER_LENGTH);
        assert_eq!(Header::parse(&octets), Err(Refusal::Malformed), "no room for a signature");
        octets.extend_from_slice(&[0; SIGNATURE_LENGTH]);
        assert_eq!(Header::parse(&octets), Ok(header));
        assert_eq!(slice_of(0x00ff_ffff), 15);
    }
}
