//! Makes a list: the same standings and heading give the same octets. The signature is the caller's.

use core::fmt;
use std::vec;
use std::vec::Vec;

use crate::blocks::{HIGHEST_RICE, PARAMETER_BITS};
use crate::header::{Header, SIGNATURE_LENGTH, SLICE_INDICES, SLICE_SHIFT, Scope};

/// The smallest blocks that are tried: 2 to this many indices.
const SMALLEST_SHIFT: u32 = 6;
/// What a finer directory may cost, as a part of the smallest body: 1/32.
const DIRECTORY_SHARE: u32 = 5;

/// Which indices of a slice are good. Until something is said of an index it is a hole, which is not good.
#[derive(Clone, PartialEq, Eq)]
pub struct Standings {
    count: u32,
    good: Vec<u64>,
}

impl Standings {
    /// The first `count` indices of a slice, none of them good. `count` is one more than the highest index issued, counted from the
    /// slice's first; a list covers 1 to 2^20, and more are cut off.
    pub fn none_good(count: u32) -> Self {
        let count = count.min(SLICE_INDICES);
        Self { count, good: vec![0; position(count.div_ceil(64))] }
    }

    /// Makes an index good, counted from the slice's first. One beyond the count stays beyond the list.
    pub fn set_good(&mut self, index: u32) {
        self.set(index, true);
    }

    /// Makes an index not good again.
    pub fn set_not_good(&mut self, index: u32) {
        self.set(index, false);
    }

    /// Whether an index is good.
    pub fn is_good(&self, index: u32) -> bool {
        index < self.count && self.good.get(position(index / 64)).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// Indices covered.
    pub fn count(&self) -> u32 {
        self.count
    }

    fn set(&mut self, index: u32, good: bool) {
        if let Some(word) = self.good.get_mut(position(index / 64)).filter(|_| index < self.count) {
            let bit = 1 << (index % 64);
            *word = if good { *word | bit } else { *word & !bit };
        }
    }

    /// The indices that are not good, in order.
    fn not_good(&self) -> Vec<u32> {
        let mut found = Vec::new();
        for (word, first) in self.good.iter().zip((0..self.count).step_by(64)) {
            let mut left = !word;
            while left != 0 {
                let index = first + left.trailing_zeros();
                left &= left - 1;
                if index < self.count {
                    found.push(index);
                }
            }
        }
        found
    }
}

impl fmt::Debug for Standings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standings").field("count", &self.count).finish_non_exhaustive()
    }
}

/// What stands at the head of a list, but for what follows from the standings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heading {
    /// The first 8 octets of SHA-256 over the signing key's point (SEC 1, uncompressed, 65 octets).
    pub key_id: [u8; 8],
    /// Which certificates the list is about.
    pub scope: Scope,
    /// Higher than that of every list before with this scope.
    pub sequence: u64,
    /// Now, in seconds since 1970.
    pub this_update: u64,
    /// Until when the list may be used, in seconds since 1970.
    pub next_update: u64,
}

/// Why there is no list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodeError<E> {
    /// No index to tell of.
    Empty,
    /// The next update is not later than this one.
    Times,
    /// The key did not sign.
    Signing(E),
}

impl<E> fmt::Display for EncodeError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "a status list has one index at least",
            Self::Times => "a status list's next update is later than its making",
            Self::Signing(_) => "the status list was not signed",
        })
    }
}

impl<E: core::error::Error + 'static> core::error::Error for EncodeError<E> {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Signing(source) => Some(source),
            Self::Empty | Self::Times => None,
        }
    }
}

/// A list. `sign` gets the header and the body, and gives ECDSA on P-256 with SHA-256 over them as r and s ([`raw_signature`]
/// makes them from DER).
///
/// # Errors
/// [`EncodeError`]
pub fn encode<E>(
    heading: &Heading,
    standings: &Standings,
    sign: impl FnOnce(&[u8]) -> Result<[u8; SIGNATURE_LENGTH], E>,
) -> Result<Vec<u8>, EncodeError<E>> {
    if standings.count == 0 {
        return Err(EncodeError::Empty);
    }
    if heading.next_update <= heading.this_update {
        return Err(EncodeError::Times);
    }
    let body = body(standings);
    let header = Header {
        key_id: heading.key_id,
        scope: heading.scope,
        sequence: heading.sequence,
        this_update: heading.this_update,
        next_update: heading.next_update,
        count: standings.count,
        shift: body.shift,
        width: body.width,
    };
    let mut octets = header.octets();
    octets.extend_from_slice(&body.octets);
    let signature = sign(&octets).map_err(EncodeError::Signing)?;
    octets.extend_from_slice(&signature);
    Ok(octets)
}

/// r and s, 32 octets each, of an ECDSA signature in DER (RFC 3279 2.2.3); None for anything else.
pub fn raw_signature(der: &[u8]) -> Option<[u8; SIGNATURE_LENGTH]> {
    let (&[0x30, length], rest) = der.split_first_chunk()? else { return None };
    let (r, rest) = integer(rest)?;
    let (s, rest) = integer(rest)?;
    let whole = usize::from(length) == der.len() - 2 && rest.is_empty();
    let mut raw = [0; SIGNATURE_LENGTH];
    let (high, low) = raw.split_at_mut(SIGNATURE_LENGTH / 2);
    high.copy_from_slice(&r);
    low.copy_from_slice(&s);
    whole.then_some(raw)
}

/// What a `SubjectPublicKeyInfo` of P-256 begins with (RFC 5480 2): the point follows, uncompressed.
const SPKI_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
    0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The point (SEC 1, uncompressed) of a `SubjectPublicKeyInfo` in DER; None for a key of any other kind.
pub fn point_of_spki(spki: &[u8]) -> Option<[u8; 65]> {
    let point: [u8; 65] = spki.strip_prefix(&SPKI_HEAD)?.try_into().ok()?;
    (point.first() == Some(&4)).then_some(point)
}

/// A positive INTEGER of at most 32 octets, filled up with zeros on the left, and what follows it.
fn integer(der: &[u8]) -> Option<([u8; 32], &[u8])> {
    let (&[0x02, length], rest) = der.split_first_chunk()? else { return None };
    let (octets, rest) = rest.split_at_checked(usize::from(length))?;
    let octets = octets.strip_prefix(&[0]).unwrap_or(octets);
    let mut filled = [0; 32];
    filled.get_mut(32usize.checked_sub(octets.len())?..)?.copy_from_slice(octets);
    Some((filled, rest))
}

/// A body with what the header says of it.
pub(crate) struct Body {
    pub(crate) octets: Vec<u8>,
    pub(crate) shift: u8,
    pub(crate) width: u8,
}

/// The smallest blocks, that is the fastest query, among the bodies at most 1/32 larger than the smallest; a bitmap where that is no longer.
fn body(standings: &Standings) -> Body {
    let not_good = standings.not_good();
    let sizes: Vec<(u32, u32)> =
        (SMALLEST_SHIFT..=SLICE_SHIFT).map(|shift| (shift, Plan::new(standings.count, &not_good, shift).size())).collect();
    let smallest = sizes.iter().map(|(_, size)| *size).min().unwrap_or(u32::MAX);
    let bound = smallest.saturating_add(smallest >> DIRECTORY_SHARE);
    let chosen = sizes.iter().find(|(_, size)| *size <= bound);
    match chosen {
        Some((shift, size)) if size.div_ceil(8) < standings.count.div_ceil(8) => {
            Plan::new(standings.count, &not_good, *shift).write(standings.count, &not_good)
        }
        _ => bitmap(standings.count, &not_good),
    }
}

fn bitmap(count: u32, not_good: &[u32]) -> Body {
    let mut octets = vec![0_u8; position(count.div_ceil(8))];
    for index in not_good {
        if let Some(octet) = octets.get_mut(position(index / 8)) {
            *octet |= 0x80 >> (index % 8);
        }
    }
    Body { octets, shift: 0, width: 0 }
}

/// How a slice is cut into blocks of one size.
struct Plan {
    shift: u32,
    blocks: Vec<Block>,
}

/// How a block is written.
struct Block {
    lists_good: bool,
    rice: u32,
    bits: u32,
}

impl Plan {
    fn new(count: u32, not_good: &[u32], shift: u32) -> Self {
        let blocks = Cut { start: 0, count, not_good, shift }
            .map(|piece| {
                let lists_good = piece.lists_good();
                let (bits, rice) = best_rice(&piece.gaps());
                Block { lists_good, rice, bits }
            })
            .collect();
        Self { shift, blocks }
    }

    /// Bits of all codes.
    fn codes(&self) -> u32 {
        self.blocks.iter().map(|block| block.bits).sum()
    }

    /// Bits of an offset: as many as the last one has.
    fn width(&self) -> u32 {
        u32::BITS - self.codes().leading_zeros()
    }

    /// Bits of the body.
    fn size(&self) -> u32 {
        let entries = u32::try_from(self.blocks.len()).unwrap_or(u32::MAX - 1) + 1;
        entries * (self.width() + PARAMETER_BITS) + self.codes()
    }

    fn write(&self, count: u32, not_good: &[u32]) -> Body {
        let width = self.width();
        let mut bits = Bits::default();
        let mut offset = 0;
        for block in &self.blocks {
            bits.push(offset, width);
            bits.push(u32::from(block.lists_good) << 5 | block.rice, PARAMETER_BITS);
            offset += block.bits;
        }
        bits.push(offset, width);
        bits.push(0, PARAMETER_BITS);
        for (block, piece) in self.blocks.iter().zip(Cut { start: 0, count, not_good, shift: self.shift }) {
            for gap in piece.gaps() {
                bits.push_code(gap, block.rice);
            }
        }
        let narrow = |number: u32| u8::try_from(number).unwrap_or(u8::MAX);
        Body { octets: bits.octets, shift: narrow(self.shift), width: narrow(width) }
    }
}

/// The blocks of a slice, one after the other.
struct Cut<'a> {
    start: u32,
    count: u32,
    not_good: &'a [u32],
    shift: u32,
}

/// One of them: its first index, how many it has, and those of them that are not good.
struct Piece<'a> {
    start: u32,
    length: u32,
    not_good: &'a [u32],
}

impl<'a> Iterator for Cut<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let length = (self.count - self.start).min(1 << self.shift);
        if length == 0 {
            return None;
        }
        let end = self.start + length;
        let (not_good, rest) = self.not_good.split_at_checked(self.not_good.partition_point(|index| *index < end))?;
        let piece = Piece { start: self.start, length, not_good };
        self.start = end;
        self.not_good = rest;
        Some(piece)
    }
}

impl Piece<'_> {
    /// A block lists whichever are fewer.
    fn lists_good(&self) -> bool {
        2 * self.not_good.len() > position(self.length)
    }

    /// How many indices are passed over before each that is listed.
    fn gaps(&self) -> Vec<u32> {
        let mut next = self.start;
        let mut gap = |index: u32| {
            let gap = index - next;
            next = index + 1;
            gap
        };
        if !self.lists_good() {
            return self.not_good.iter().map(|index| gap(*index)).collect();
        }
        let mut not_good = self.not_good.iter().peekable();
        (self.start..self.start + self.length).filter(|index| not_good.next_if_eq(&index).is_none()).map(gap).collect()
    }
}

/// The bits of a block's codes and the parameter that makes them fewest; of equal ones the lowest.
fn best_rice(gaps: &[u32]) -> (u32, u32) {
    let entries = u32::try_from(gaps.len()).unwrap_or(u32::MAX);
    let sum: u32 = gaps.iter().sum();
    let mut best = (u32::MAX, 0);
    for rice in 0..=HIGHEST_RICE {
        let fixed = entries * (1 + rice);
        // Rounding each gap down loses less than one: no need to count where even that is no better.
        if fixed + (sum >> rice).saturating_sub(entries) < best.0 {
            let bits = fixed + gaps.iter().map(|gap| gap >> rice).sum::<u32>();
            best = best.min((bits, rice));
        }
    }
    best
}

/// Bits, the most significant of an octet first.
#[derive(Default)]
struct Bits {
    octets: Vec<u8>,
    used: u32,
}

impl Bits {
    fn push(&mut self, number: u32, count: u32) {
        for at in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.octets.push(0);
            }
            if let Some(last) = self.octets.last_mut().filter(|_| number >> at & 1 == 1) {
                *last |= 0x80 >> (self.used % 8);
            }
            self.used += 1;
        }
    }

    /// A gap: its high part in zeros that a one ends, then its `rice` low bits.
    fn push_code(&mut self, gap: u32, rice: u32) {
        for _ in 0..gap >> rice {
            self.push(0, 1);
        }
        self.push(1, 1);
        self.push(gap & !(u32::MAX << rice), rice);
    }
}

fn position(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reader::{List, Terms, Verify};
    use crate::reason::{Answer, Refusal};

    struct Anybody;

    impl Verify for Anybody {
        fn key_id(&self) -> [u8; 8] {
            [7; 8]
        }

        fn verify(&self, _: &[u8], signature: &[u8; 64]) -> bool {
            *signature == [9; 64]
        }
    }

    const SCOPE: Scope = Scope { fleet: [1; 16], authority: [2; 20], epoch: 3, slice: 4 };
    const FIRST: u32 = 4 << 20;
    const TERMS: Terms = Terms { now: 1_000, lowest_sequence: 5, max_age: 100 };
    const HEADING: Heading = Heading { key_id: [7; 8], scope: SCOPE, sequence: 5, this_update: 950, next_update: 2_000 };

    fn list(standings: &Standings) -> Vec<u8> {
        encode::<()>(&HEADING, standings, |_| Ok([9; 64])).unwrap()
    }

    fn standings(count: u32, good: impl Fn(u32) -> bool) -> Standings {
        let mut standings = Standings::none_good(count);
        (0..count).filter(|index| good(*index)).for_each(|index| standings.set_good(index));
        standings
    }

    fn agree(standings: &Standings, step: usize) {
        let octets = list(standings);
        assert!(octets.len() <= 148 + standings.count().div_ceil(8) as usize, "never longer than a bitmap");
        let list = List::open(&octets, &SCOPE, &TERMS, &Anybody).expect("a list that opens");
        for index in (0..standings.count()).step_by(step) {
            let expected = if standings.is_good(index) { Answer::Good } else { Answer::NotGood };
            assert_eq!(list.query(FIRST + index), expected, "{index} of {}", standings.count());
        }
        for beyond in [0, FIRST - 1, FIRST + standings.count(), FIRST + SLICE_INDICES, u32::MAX] {
            assert_eq!(list.query(beyond), Answer::Beyond, "{beyond} beyond {}", standings.count());
        }
    }

    /// One index in so many, at random as it looks.
    fn one_in(share: u32, index: u32) -> bool {
        mixed(index).is_multiple_of(share)
    }

    /// A number that looks random.
    fn mixed(number: u32) -> u32 {
        let mut mixed = number.wrapping_add(0x9e37_79b9);
        for factor in [0x85eb_ca6b, 0xc2b2_ae35] {
            mixed = (mixed ^ (mixed >> 15)).wrapping_mul(factor);
        }
        mixed ^ (mixed >> 16)
    }

    #[test]
    fn lists_say_what_was_said_at_every_density() {
        for count in [1, 2, 63, 64, 65, 1_000, 4_097] {
            for share in [0, 1, 5, 30, 100, 300, 382, 500, 700, 900, 999, 1_000] {
                agree(&standings(count, |index| mixed(index) % 1_000 >= share), 1);
            }
        }
        // A batch in one go, ranges never issued, both in others.
        agree(&standings(20_000, |index| !(5_000..11_000).contains(&index)), 1);
        agree(&standings(20_000, |index| index / 2_000 % 3 != 0 && !one_in(50, index)), 1);
        agree(&standings(SLICE_INDICES, |index| !one_in(100, index)), 997);
        agree(&standings(SLICE_INDICES, |_| true), 997);
        agree(&standings(SLICE_INDICES, |_| false), 997);
    }

    #[test]
    fn ranges_cost_next_to_nothing() {
        let scattered = list(&standings(100_000, |index| !one_in(100, index))).len();
        let range = list(&standings(100_000, |index| !one_in(100, index) && !(40_000..60_000).contains(&index))).len();
        assert!(range < scattered + 20_000 / 8 / 10, "{range} octets with a range of 20,000, {scattered} without");
    }

    #[test]
    fn what_cannot_be_told_is_refused() {
        let sign = |_: &[u8]| Ok([9; 64]);
        assert_eq!(encode::<()>(&HEADING, &Standings::none_good(0), sign), Err(EncodeError::Empty));
        let backwards = Heading { next_update: 950, ..HEADING };
        assert_eq!(encode::<()>(&backwards, &Standings::none_good(1), sign), Err(EncodeError::Times));
        assert_eq!(encode(&HEADING, &Standings::none_good(1), |_| Err("no")), Err(EncodeError::Signing("no")));
        assert_eq!(Standings::none_good(u32::MAX).count(), SLICE_INDICES);
        let mut few = Standings::none_good(3);
        few.set_good(3);
        few.set_good(2);
        few.set_good(1);
        few.set_not_good(1);
        assert_eq!((0..5).map(|index| few.is_good(index)).collect::<Vec<_>>(), [false, false, true, false, false]);
    }

    #[test]
    fn der_signatures_become_raw_ones() {
        let der = [&[0x30, 7][..], &[2, 2, 0, 0xff], &[2, 1, 10]].concat();
        let mut raw = [0; 64];
        (raw[31], raw[63]) = (0xff, 10);
        assert_eq!(raw_signature(&der), Some(raw));
        for end in 0..der.len() {
            assert_eq!(raw_signature(&der[..end]), None);
        }
        assert_eq!(raw_signature(&[&der[..], &[0]].concat()), None);
        assert_eq!(raw_signature(&[&[0x30, 38, 2, 33][..], &[1; 33], &[2, 1, 1]].concat()), None, "33 octets");
    }

    fn refusal(octets: &[u8], scope: &Scope, terms: &Terms) -> Option<Refusal> {
        List::open(octets, scope, terms, &Anybody).err()
    }

    #[test]
    fn each_term_has_its_refusal() {
        let octets = list(&standings(1_000, |index| !one_in(10, index)));
        assert_eq!(refusal(&octets, &SCOPE, &TERMS), None);
        for (scope, expected) in [
            (Scope { fleet: [0; 16], ..SCOPE }, Refusal::OtherFleet),
            (Scope { authority: [0; 20], ..SCOPE }, Refusal::OtherAuthority),
            (Scope { epoch: 2, ..SCOPE }, Refusal::OtherEpoch),
            (Scope { slice: 5, ..SCOPE }, Refusal::OtherSlice),
        ] {
            assert_eq!(refusal(&octets, &scope, &TERMS), Some(expected));
        }
        for (terms, expected) in [
            (Terms { lowest_sequence: 6, ..TERMS }, Some(Refusal::RolledBack)),
            (Terms { now: 649, ..TERMS }, Some(Refusal::NotYet)),
            (Terms { now: 650, ..TERMS }, None),
            (Terms { now: 1_050, ..TERMS }, None),
            (Terms { now: 1_051, ..TERMS }, Some(Refusal::TooOld)),
            (Terms { now: 2_000, max_age: u32::MAX, ..TERMS }, None),
            (Terms { now: 2_001, max_age: u32::MAX, ..TERMS }, Some(Refusal::Stale)),
            (Terms { now: u64::MAX, max_age: u32::MAX, ..TERMS }, Some(Refusal::Stale)),
        ] {
            assert_eq!(refusal(&octets, &SCOPE, &terms), expected, "{terms:?}");
        }
        let other = encode::<()>(&Heading { key_id: [8; 8], ..HEADING }, &Standings::none_good(1), |_| Ok([9; 64])).unwrap();
        assert_eq!(refusal(&other, &SCOPE, &TERMS), Some(Refusal::OtherKey));
        let unsigned = encode::<()>(&HEADING, &Standings::none_good(1), |_| Ok([8; 64])).unwrap();
        assert_eq!(refusal(&unsigned, &SCOPE, &TERMS), Some(Refusal::BadSignature));
    }

    #[test]
    fn serials_are_taken_apart() {
        let octets = list(&standings(10, |index| index != 5));
        let list = List::open(&octets, &SCOPE, &TERMS, &Anybody).unwrap();
        let serial =
            |first: u8, epoch: u32, index: u32| [&[first][..], &epoch.to_be_bytes(), &index.to_be_bytes(), &[0xaa; 8]].concat();
        assert_eq!(list.query_serial(&serial(1, 3, FIRST + 4)), Answer::Good);
        assert_eq!(list.query_serial(&serial(1, 3, FIRST + 5)), Answer::NotGood);
        assert_eq!(list.query_serial(&serial(1, 3, FIRST + 10)), Answer::Beyond);
        assert_eq!(list.query_serial(&serial(1, 2, FIRST + 4)), Answer::OtherEpoch);
        assert_eq!(list.query_serial(&serial(2, 3, FIRST + 4)), Answer::ForeignSerial);
        assert_eq!(list.query_serial(&serial(1, 3, FIRST + 4)[..16]), Answer::ForeignSerial);
        assert_eq!(list.query_serial(&[]), Answer::ForeignSerial);
    }

    /// Whatever opens, answers; what is cut, lengthened or changed at random never makes the reader fall.
    fn survives(octets: &[u8]) {
        if let Ok(list) = List::open(octets, &SCOPE, &TERMS, &Anybody) {
            let count = list.header().count;
            for index in (0..count).step_by(7).chain([count - 1]) {
                assert!(matches!(list.query(FIRST + index), Answer::Good | Answer::NotGood));
            }
        }
    }

    #[test]
    fn cut_and_lengthened_lists_are_refused() {
        for share in [0, 20, 400, 999] {
            let octets = list(&standings(3_000, |index| mixed(index) % 1_000 >= share));
            let body = &octets[..octets.len() - 64];
            for end in 0..octets.len() {
                assert!(refusal(&octets[..end], &SCOPE, &TERMS).is_some(), "cut at {end}");
            }
            for end in 84..body.len() {
                let cut = [&body[..end], &[9; 64]].concat();
                assert!(refusal(&cut, &SCOPE, &TERMS).is_some(), "the body cut at {end}, and signed");
            }
            for more in [[0; 1], [0xff; 1]] {
                let longer = [body, &more, &[9; 64]].concat();
                assert!(refusal(&longer, &SCOPE, &TERMS).is_some(), "an octet more in the body, and signed");
                assert!(refusal(&[&octets[..], &more].concat(), &SCOPE, &TERMS).is_some(), "an octet more after the signature");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn changed_lists_never_make_the_reader_fall(
            share in 0_u32..1_000,
            count in 1_u32..5_000,
            changes in prop::collection::vec((54_usize..700, any::<u8>()), 1..6),
        ) {
            let mut octets = list(&standings(count, |index| mixed(index) % 1_000 >= share));
            let signed = octets.len() - 64;
            for (at, octet) in changes {
                octets[54 + (at - 54) % (signed - 54)] ^= octet;
            }
            survives(&octets);
        }

        #[test]
        fn octets_at_random_never_make_the_reader_fall(
            shift in 0_u8..=21, width in 0_u8..=22, count in 1_u32..100_000, body in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let Heading { key_id, scope, sequence, this_update, next_update } = HEADING;
            let header = Header { key_id, scope, sequence, this_update, next_update, count, shift, width };
            survives(&[&header.octets()[..], &body, &[9; 64]].concat());
        }

        #[test]
        fn ranges_and_single_ones_in_any_mixture(
            count in 1_u32..20_000, ranges in prop::collection::vec((0_u32..20_000, 0_u32..3_000), 0..8), share in 0_u32..1_000,
        ) {
            let inside = |index: u32| ranges.iter().filter(|(start, length)| (*start..start + length).contains(&index)).count() % 2 == 1;
            agree(&standings(count, |index| inside(index) != (mixed(index) % 1_000 >= share)), 1);
        }
    }
}
