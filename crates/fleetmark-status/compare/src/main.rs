//! The figures of `benches/status.rs` beside those of crate clubcard.
//!
//! Everything is done in clubcard's favour: its size is that of the two matrices and the exceptions alone, without index, metadata and any
//! encoding of them, and an index is hashed by a few multiplications where its users need SHA-256.

#[path = "../../benches/status.rs"]
mod status;

use std::error::Error;

use clubcard::builder::{ApproximateRibbon, ClubcardBuilder, ExactRibbon};
use clubcard::{ApproximateSizeOf, AsQuery, Clubcard, Equation, Filterable, Queryable};
use status::Rival;

/// Limbs of an equation: as in clubcard's own example.
const LIMBS: usize = 4;

struct Card;

struct Universe;

impl ApproximateSizeOf for Universe {}

struct Item {
    index: [u8; 4],
    not_good: bool,
}

impl Item {
    fn new(index: u32, not_good: bool) -> Self {
        Self { index: index.to_le_bytes(), not_good }
    }
}

impl AsQuery<LIMBS> for Item {
    fn as_query(&self, m: usize) -> Equation<LIMBS> {
        // splitmix64
        let mut state = u64::from(u32::from_le_bytes(self.index));
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state.wrapping_mul(0xd6e8_feb8_6659_fd93);
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        };
        let place = next() as usize % m.max(1);
        let mut limbs = [0; LIMBS];
        limbs.iter_mut().for_each(|limb| *limb = next());
        limbs[0] |= 1;
        Equation::inhomogeneous(place, limbs, u8::from(!self.not_good))
    }

    fn block(&self) -> &[u8] {
        &[]
    }

    fn discriminant(&self) -> &[u8] {
        &self.index
    }
}

impl Filterable<LIMBS> for Item {
    fn included(&self) -> bool {
        self.not_good
    }
}

impl Queryable<LIMBS> for Item {
    type UniverseMetadata = Universe;
    type PartitionMetadata = ();

    fn in_universe(&self, _: &Universe) -> bool {
        true
    }
}

impl Rival for Card {
    fn name(&self) -> &'static str {
        "clubcard"
    }

    fn build(&self, not_good: &[bool]) -> (Box<dyn Fn(u32) -> bool>, usize) {
        let items = || not_good.iter().zip(0..).map(|(not_good, index)| Item::new(index, *not_good));
        let mut builder = ClubcardBuilder::new();
        let mut approximate = builder.new_approx_builder(&[]);
        items().filter(|item| item.not_good).for_each(|item| approximate.insert(item));
        approximate.set_universe_size(not_good.len());
        builder.collect_approx_ribbons(vec![ApproximateRibbon::from(approximate)]);
        let mut exact = builder.new_exact_builder(&[]);
        items().for_each(|item| exact.insert(item));
        builder.collect_exact_ribbons(vec![ExactRibbon::from(exact)]);
        let card: Clubcard<LIMBS, Universe, ()> = builder.build::<Item>(Universe, ());
        let limbs = card.exact_filter.len() + card.approx_filter.iter().map(Vec::len).sum::<usize>();
        let exceptions: usize = card.index.values().flat_map(|entry| &entry.exceptions).map(Vec::len).sum();
        (Box::new(move |index| card.unchecked_contains(&Item::new(index, false))), 8 * limbs + exceptions)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    status::run(Some(&Card))
}
