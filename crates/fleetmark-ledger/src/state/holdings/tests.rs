use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn holding(index: u32) -> Holding {
    let mut fingerprint = [0; 12];
    fingerprint[..4].copy_from_slice(&index.to_be_bytes());
    Holding { fingerprint: ShortFingerprint(fingerprint), standing: Standing::Good, subject: u64::from(index) + 1 }
}

fn with(indices: impl IntoIterator<Item = u32>) -> Holdings {
    let mut holdings = Holdings::default();
    indices.into_iter().for_each(|index| holdings.insert(Epoch(1), Index(index), holding(index)));
    holdings
}

fn all(holdings: &Holdings) -> Vec<(u32, Holding)> {
    holdings.of(Epoch(1)).map(|(index, holding)| (index.0, holding)).collect()
}

/// How many chunks are dense, and how many lists there are.
fn forms(holdings: &Holdings) -> (usize, usize) {
    holdings.0.get(&Epoch(1)).map_or((0, 0), |column| (column.dense.iter().flatten().count(), column.sparse.len()))
}

#[test]
fn indices_in_any_order_come_to_the_same() {
    let forwards = with(0..10_000);
    let backwards = with((0..10_000).rev());
    let expected: Vec<_> = (0..10_000).map(|index| (index, holding(index))).collect();
    assert_eq!(all(&forwards), expected);
    assert_eq!(all(&backwards), expected);
    assert_eq!(forms(&forwards), (3, 0), "two chunks filled, the third has enough");
    assert_eq!(forwards.holding(Epoch(1), Index(9_999)), Some(holding(9_999)));
    assert_eq!(forwards.holding(Epoch(1), Index(10_000)), None);
    assert_eq!(forwards.holding(Epoch(2), Index(0)), None);
}

#[test]
fn a_far_index_costs_a_place_in_a_list() {
    let few = with((0..4_096).map(|chunk| chunk * CHUNK + 7));
    assert_eq!(forms(&few), (0, 4_096));
    let column = few.0.get(&Epoch(1)).unwrap();
    assert!(column.dense.is_empty());
    assert!(column.sparse.values().all(|places| places.capacity() <= 4));
    assert_eq!(size_of::<Place>(), 24);
    assert_eq!(size_of::<Chunk>(), 21 * 4_096);
}

#[test]
fn the_last_index_of_an_epoch_is_within() {
    let last = EPOCH_CAPACITY - 1;
    let mut holdings = with([last]);
    holdings.change(Range { epoch: Epoch(1), first: Index(0), count: EPOCH_CAPACITY }, Standing::Held);
    assert_eq!(all(&holdings), [(last, Holding { standing: Standing::Held, ..holding(last) })]);
}

proptest! {
    #[test]
    fn ranges_are_what_a_map_says(
        start in 0..6_000_u32,
        filled in 0..3_000_u32,
        others in proptest::collection::vec(0..20_000_u32, 0..200),
        ranges in proptest::collection::vec((0..20_000_u32, 1..9_000_u32), 1..6),
    ) {
        let indices = || (start..start + filled).chain(others.iter().copied());
        let mut holdings = with(indices());
        let mut map: BTreeMap<u32, Holding> = indices().map(|index| (index, holding(index))).collect();
        prop_assert_eq!(all(&holdings), map.clone().into_iter().collect::<Vec<_>>());
        let standings = [Standing::Held, Standing::Superseded, Standing::Quarantined];
        for ((first, count), standing) in ranges.into_iter().zip(standings.into_iter().cycle()) {
            let range = Range { epoch: Epoch(1), first: Index(first), count };
            let known: Vec<_> = map.range(first..first + count).map(|(_, holding)| holding.standing).collect();
            prop_assert_eq!(holdings.known(range).collect::<Vec<_>>(), known);
            holdings.change(range, standing);
            map.range_mut(first..first + count).for_each(|(_, holding)| holding.standing = standing);
            prop_assert_eq!(all(&holdings), map.clone().into_iter().collect::<Vec<_>>());
        }
    }
}
