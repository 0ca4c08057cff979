//! The blocks of a body: a directory of bit offsets, and the gaps between listed indices in Golomb-Rice codes.
//!
//! Written for size: a query on a Cortex-M is a few hundred octets of code, decodes one block, and calls nothing that panics.

use crate::header::SIGNATURE_LENGTH;
use crate::reason::Answer;

/// Bits of a block's parameters in the directory: the Rice parameter, and whether the block lists the good ones.
pub const PARAMETER_BITS: u32 = 6;
/// The highest Rice parameter: a gap is less than 2^20.
pub const HIGHEST_RICE: u32 = 20;

/// A body and the signature after it, so that four octets can be read wherever the body has one.
#[derive(Debug, Clone, Copy)]
pub struct Blocks<'a> {
    /// The body and the signature.
    pub(crate) octets: &'a [u8],
    /// Indices covered, 1 to 2^20.
    pub(crate) count: u32,
    /// A block has 2 to this many indices; 0: a bitmap.
    pub(crate) shift: u32,
    /// Bits of an offset.
    pub(crate) width: u32,
}

impl Blocks<'_> {
    /// What the body says of an index below `count`.
    pub(crate) fn find(&self, index: u32) -> Answer {
        if self.shift == 0 {
            return if self.bits(index, 1) == 0 { Answer::Good } else { Answer::NotGood };
        }
        self.find_in(index >> self.shift, index & !(u32::MAX << self.shift))
    }

    /// What a block says of its `target`th index. With a target beyond the block all of it is read, and only `Unreadable` means anything.
    fn find_in(&self, block: u32, target: u32) -> Answer {
        let entry = block * (self.width + PARAMETER_BITS);
        let codes = self.codes();
        let mut at = codes + self.bits(entry, self.width);
        let parameters = self.bits(entry + self.width, PARAMETER_BITS);
        let end = codes + self.bits(entry + self.width + PARAMETER_BITS, self.width);
        let (lists_good, rice) = (parameters >> 5, parameters & 31);
        let length = (self.count - (block << self.shift)).min(1 << self.shift);
        let mut listed = 0;
        // The first index of which nothing was said yet.
        let mut next = 0;
        if rice > HIGHEST_RICE {
            return Answer::Unreadable;
        }
        // Codes that run over the end never meet it again: what they list grows until it is beyond the block.
        while next <= target && at != end {
            loop {
                // A window has 25 bits that are the body's: zeros beyond are of the next one.
                let zeros = leading_zeros(self.window(at) | 0x40);
                at += zeros;
                next += zeros << rice;
                if next >= length {
                    return Answer::Unreadable;
                }
                if zeros < 25 {
                    break;
                }
            }
            next += self.bits(at + 1, rice);
            at += 1 + rice;
            if next >= length {
                return Answer::Unreadable;
            }
            listed = u32::from(next == target);
            next += 1;
        }
        if listed == lists_good { Answer::Good } else { Answer::NotGood }
    }

    /// Reads all of the body: whether every block ends where the next begins, within its indices, and nothing is left over.
    pub(crate) fn are_sound(&self) -> bool {
        let blocks = if self.shift == 0 { 0 } else { self.blocks() };
        let end = blocks * (self.width + PARAMETER_BITS);
        let total = if blocks == 0 { self.count } else { self.codes() + self.bits(end, self.width) };
        // Before the blocks are read: who claims more of them than there are octets does not keep a device busy.
        let length = usize::try_from(total.div_ceil(8)).unwrap_or(usize::MAX);
        if length != self.octets.len().saturating_sub(SIGNATURE_LENGTH) || self.bits(total, total.wrapping_neg() & 7) != 0 {
            return false;
        }
        let begins = self.bits(0, self.width) == 0;
        let ends = self.bits(end + self.width, PARAMETER_BITS) == 0;
        blocks == 0 || (begins && ends && (0..blocks).all(|block| self.find_in(block, u32::MAX) != Answer::Unreadable))
    }

    fn blocks(&self) -> u32 {
        ((self.count - 1) >> self.shift) + 1
    }

    /// Where the codes begin: after an entry a block and one for the end.
    fn codes(&self) -> u32 {
        (self.blocks() + 1) * (self.width + PARAMETER_BITS)
    }

    /// At most 25 bits at a bit position, the most significant of an octet first; zeros beyond the end.
    fn bits(&self, at: u32, count: u32) -> u32 {
        // In two steps: a shift by 32 is none.
        (self.window(at) >> 1) >> (31 - count)
    }

    /// The bits from a position on; 25 of them count.
    #[expect(clippy::as_conversions, reason = "a position in memory; usize has 32 bits or more where this is compiled")]
    fn window(&self, at: u32) -> u32 {
        let rest = self.octets.get((at >> 3) as usize..).and_then(<[u8]>::first_chunk);
        rest.map_or(0, |four| u32::from_be_bytes(*four)) << (at & 7)
    }
}

/// Counted one by one on a Cortex-M0, which has neither compare-and-swap nor an instruction for this: the function of the compiler's
/// library is as large as half a query.
fn leading_zeros(mut window: u32) -> u32 {
    if cfg!(target_has_atomic = "32") {
        return window.leading_zeros();
    }
    let mut zeros = 0;
    while window >> 31 == 0 {
        window <<= 1;
        zeros += 1;
    }
    zeros
}
