use super::*;

fn slices(entries: &[((u32, u32, u32), bool)]) -> BTreeMap<(Epoch, u32), Vec<Change>> {
    let mut slices = BTreeMap::new();
    for ((epoch, first, count), is_good) in entries {
        note(&mut slices, (Epoch(*epoch), Index(*first), *count), *is_good);
    }
    slices
}

#[test]
fn what_reaches_over_a_slice_is_told_in_both() {
    let told = slices(&[((3, SLICE_INDICES - 2, 5), false)]);
    let of = |slice| told[&(Epoch(3), slice)].iter().map(|change| (change.first, change.count)).collect::<Vec<_>>();
    assert_eq!(of(0), [(SLICE_INDICES - 2, 2)]);
    assert_eq!(of(1), [(0, 3)]);
    assert_eq!(told.len(), 2);
}

#[test]
fn news_are_applied_in_their_order() {
    let mut before = Standings::none_good(4);
    for index in [0, 1, 3] {
        before.set_good(index);
    }
    // Issued, held, released; held and left so; revoked; the hole stays one.
    let told = slices(&[
        ((1, 5, 1), true),
        ((1, 5, 1), false),
        ((1, 5, 1), true),
        ((1, 6, 1), true),
        ((1, 6, 1), false),
        ((1, 0, 2), false),
    ]);
    let after = applied(&before, &told[&(Epoch(1), 0)]);
    assert_eq!(after.count(), 7);
    let good: Vec<u32> = (0..8).filter(|index| after.is_good(*index)).collect();
    assert_eq!(good, [3, 5]);
}

#[test]
fn lists_come_of_age_at_moments_of_their_own_and_with_their_key() {
    let made = |slice| MadeList {
        list: PublishedList {
            key: ListKey { kind: ListKind::StatusList, authority: 3, epoch: Epoch(9), slice },
            number: 1,
            this_update: Timestamp(0),
            next_update: Timestamp(0) + LIFETIME,
            position: 0,
            octets: Vec::new(),
        },
        key_id: [1; 8],
        standings: None,
    };
    let age = |slice| {
        let kept = made(slice);
        (0..LIFETIME.as_secs()).find(|at| is_due(&kept, [1; 8], Timestamp(i64::try_from(*at).unwrap()))).unwrap()
    };
    let ages: BTreeSet<u64> = (0..16).map(age).collect();
    assert_eq!(ages.len(), 16, "at once: {ages:?}");
    assert!(ages.iter().all(|age| (REFRESH.as_secs()..LIFETIME.as_secs()).contains(age)));
    assert!(is_due(&made(0), [2; 8], Timestamp(0)), "another key signs now");
}
