//! Published lists, and standings as lists and answers want them.

use fleetmark_domain::{Epoch, Timestamp};

use crate::store::model::{Certificate, CertificateStanding, ListKey, ListKind, PublishedList};
use crate::store::rows::{Rows, certificate_id};

fn list(key: ListKey, number: u64, octets: Vec<u8>) -> PublishedList {
    PublishedList { key, number, this_update: Timestamp(1), next_update: Timestamp(2), position: 3, octets }
}

/// Lists are replaced one by one, and their numbers are read without them.
pub fn published(rows: &mut dyn Rows) {
    let key = |kind, authority, epoch, slice| ListKey { kind, authority, epoch: Epoch(epoch), slice };
    let first = key(ListKind::CrlShard, 2, 7, 0);
    let others = [key(ListKind::CrlShard, 2, 7, 1), key(ListKind::CrlShard, 2, 8, 0), key(ListKind::CrlShard, 3, 7, 0)];
    assert_eq!(rows.published_list(&first).unwrap(), None);
    assert_eq!(rows.list_number(&first).unwrap(), None);
    rows.put_list(&list(first, 1, vec![1; 700_000])).unwrap();
    for other in others.iter().rev() {
        rows.put_list(&list(*other, 5, Vec::new())).unwrap();
    }
    rows.put_list(&list(key(ListKind::StatusList, 2, 7, 0), 9, vec![9])).unwrap();
    assert_eq!(rows.published_list(&first).unwrap(), Some(list(first, 1, vec![1; 700_000])));
    rows.put_list(&list(first, u64::from(u32::MAX) + 1, vec![2])).unwrap();
    assert_eq!(rows.published_list(&first).unwrap(), Some(list(first, u64::from(u32::MAX) + 1, vec![2])));
    assert_eq!(rows.list_number(&first).unwrap(), Some(u64::from(u32::MAX) + 1));
    let numbers = rows.list_numbers(ListKind::CrlShard).unwrap();
    assert_eq!(numbers, [(first, u64::from(u32::MAX) + 1), (others[0], 5), (others[1], 5), (others[2], 5)]);
    assert_eq!(rows.list_numbers(ListKind::StatusList).unwrap().len(), 1);
    assert!(rows.delete_list(&others[0]).unwrap());
    assert!(!rows.delete_list(&others[0]).unwrap());
    assert_eq!(rows.list_numbers(ListKind::CrlShard).unwrap().len(), 3);
}

/// Two certificates of authority 1 that are not good, and one between them that is.
pub fn standings(rows: &mut dyn Rows, first: &Certificate, own: &Certificate, later: &Certificate) {
    let id = |c: &Certificate| certificate_id(c.serial.epoch(), c.serial.index());
    let standing = |c: &Certificate| CertificateStanding {
        serial: c.serial,
        authority: c.authority,
        standing: c.standing,
        changed_at: c.changed_at,
        confirm_before: c.confirm_before,
    };
    let all = u64::MAX >> 1;
    let none = Timestamp(0);
    assert_eq!(rows.not_good(1, 0, all, none).unwrap(), [standing(first), standing(later)]);
    assert_eq!(rows.not_good(1, id(first), id(first), none).unwrap(), [standing(first)]);
    assert_eq!(rows.not_good(1, id(first) + 1, id(later), none).unwrap(), [standing(later)]);
    assert_eq!(rows.not_good(1, 0, id(later) - 1, none).unwrap(), [standing(first)]);
    assert_eq!(rows.not_good(1, 0, all, first.not_after).unwrap(), [standing(later)]);
    assert_eq!(rows.not_good(2, 0, all, none).unwrap(), []);
    let epoch = first.serial.epoch();
    let of_epoch = rows.standings(certificate_id(epoch, fleetmark_domain::Index(0)), id(first).max(id(own))).unwrap();
    assert!(of_epoch.contains(&standing(first)) && of_epoch.contains(&standing(own)), "{of_epoch:?}");
    assert!(!of_epoch.iter().any(|one| one.serial.epoch() != epoch));
    assert_eq!(rows.latest_end(id(first), id(first)).unwrap(), Some(first.not_after));
    assert_eq!(rows.latest_end(id(first), id(later)).unwrap(), Some(later.not_after.max(first.not_after).max(own.not_after)));
    assert_eq!(rows.latest_end(id(later) + 1_000, id(later) + 2_000).unwrap(), None);
}
