//! Lists and responders of authorities that are tainted, revoked or at their end; clocks that are set back; full disks; other
//! servers.

use std::collections::BTreeSet;

use fleetmark_domain::AuthorityEvent;

use super::*;
use crate::registrar::fleets::NewFleet;
use crate::registrar::rollover::{self, Successor};
use crate::store::acts::lists::PutList;
use crate::store::model::PublishedList;

const MINUTE: Duration = Duration::from_secs(60);
/// The `unauthorized` of RFC 6960.
const UNAUTHORIZED: &[u8] = &[0x30, 3, 0x0a, 1, 6];

impl World {
    pub(in crate::registrar) async fn becomes(&self, id: AuthorityId, event: AuthorityEvent) {
        let change = rollover::Change { event, forced: true, reason: RevocationReason::KeyCompromise, note: String::new() };
        self.registrar.change_authority(&self.owner, id, change, self.now).await.unwrap();
    }

    /// Replaces the fleet's authority, and gives the one of before, which is tainted now.
    pub(in crate::registrar) async fn replaced(&self) -> Arc<Authority> {
        let old = self.authority().record.id;
        let kind = AuthorityKind::Of(Kind::Device);
        let new = Successor { kind, fleet: Some(fleet()), algorithm: None, elsewhere: None, note: String::new() };
        let prepared = self.registrar.prepare_authority(&self.owner, new, self.now).await.unwrap();
        self.becomes(prepared.id, AuthorityEvent::Activated).await;
        let old = self.registrar.authorities.by_id(old).unwrap();
        assert_eq!(old.record.state, AuthorityState::Tainted);
        old
    }

    /// Makes whatever wants to be made; how many lists that were.
    async fn settle(&self) -> usize {
        let mut made = 0;
        loop {
            // On a busy machine a list may have taken so long that it would rest.
            self.registrar.published.pass.lock().await.rests.clear();
            match self.registrar.refresh_crls(self.now).await.unwrap() {
                0 => return made,
                more => made += more,
            }
        }
    }

    /// Others write into the store too.
    fn share(&mut self) {
        self.registrar.store = Shared::of(self, true);
    }

    /// The serial of the certificate of an authority's responder.
    fn responder(&self, authority: AuthorityId) -> Serial {
        let responder = self.registrar.published.responders.load().get(&authority).cloned().expect("a responder");
        facts(responder.certificate()).unwrap().serial.unwrap()
    }
}

#[tokio::test]
async fn of_an_authority_that_is_revoked_no_list_is_left() {
    let mut world = World::new().await;
    let device = world.device("a").await;
    let old = world.replaced().await;
    world.becomes(old.record.id, AuthorityEvent::Revoked).await;
    world.settle().await;
    let gone = async |world: &World| {
        let listed: Vec<_> = world.registrar.crls().iter().map(|list| list.authority).collect();
        let all = world.registrar.authorities.all();
        let trusted = all.iter().filter(|authority| authority.record.state.is_trusted());
        assert_eq!(listed, trusted.map(|authority| authority.record.id).collect::<Vec<_>>());
        assert!(world.registrar.crl(old.record.id).is_none());
        let shard = world.registrar.shard(old.record.id, device.serial.epoch(), 0).await.unwrap();
        assert!(shard.is_none(), "it would go stale");
    };
    gone(&world).await;
    // The root's list tells of it.
    let root = world.registrar.crl(world.registrar.authorities.root().unwrap().record.id).unwrap();
    let serial = x509_parser::parse_x509_certificate(&old.record.certificate).unwrap().1.raw_serial().to_vec();
    assert_eq!(serials_on(&root.der), [serial]);

    // What `/readyz` asks.
    world.now = world.now + DAY * 8;
    world.settle().await;
    assert!(world.registrar.crls().iter().all(|list| world.now < list.next_update));
    // The store still holds them: nobody takes them up from there.
    world.share();
    world.now = world.now + MINUTE;
    world.settle().await;
    gone(&world).await;
    let world = world.again().await;
    world.settle().await;
    gone(&world).await;
}

#[tokio::test]
async fn a_tainted_authority_answers_on_after_a_restore() {
    let world = World::new().await;
    let device = world.device("a").await;
    let old = world.replaced().await;
    let id = old.record.id;
    let before = world.responder(id);
    let epochs = read(&*world.registrar.store, move |rows| rows.epochs_of(id)).await.unwrap();
    let leased = epochs.iter().map(|epoch| epoch.next_index).max().unwrap();
    world.registrar.raise_epochs(device.serial.epoch(), world.now).await.unwrap();
    let mut world = world.again().await;
    // Its certificate is due at 7 days, and ends at 14.
    world.now = world.now + DAY * 10;
    world.registrar.renew_responders(world.now).await.unwrap();
    let after = world.responder(id);
    assert_ne!(after, before);
    assert_eq!(after.epoch(), before.epoch(), "an epoch that it opened would be an offence to auditors");
    // What was leased or issued since the backup is not issued again, and no device's status list is lengthened by the leap.
    assert!(after.index().0 > leased + 1_000, "{} after {leased}", after.index().0);
    assert_ne!(after.index().0 >> 16, device.serial.index().0 >> 16);
    world.settle().await;
    let (_, told) = world.ask(&[(&old, &device.serial)]).await;
    assert_eq!(told, [0x80]);
    // The active one has an epoch of its own, above all of before.
    let fresh = world.device("b").await;
    assert!(fresh.serial.epoch() > device.serial.epoch());
}

#[tokio::test]
async fn of_an_authority_that_has_ended_nothing_is_asked_any_more() {
    let mut world = World::new().await;
    let device = world.device("a").await;
    let ends = world.registrar.authorities.all();
    let ends = ends.iter().filter(|authority| authority.record.kind != AuthorityKind::Root);
    // Certificates are backdated: a moment after the end one could still be made that says so.
    world.now = ends.map(|authority| authority.not_after).max().unwrap() + DAY * 30;
    world.registrar.renew_responders(world.now).await.unwrap();
    let authority = world.authority();
    assert_eq!(&*world.ask(&[(&authority, &device.serial)]).await.0, &[0x30, 3, 0x0a, 1, 3], "tryLater");
}

#[tokio::test]
async fn what_was_made_before_the_clock_was_set_back_is_made_anew() {
    let mut world = World::new().await;
    let device = world.device("a").await;
    let right = world.now + MINUTE;
    world.now = world.now + DAY * 4;
    assert!(world.settle().await > 5, "all were due");
    let numbers = |world: &World| -> Vec<u64> { world.registrar.crls().iter().map(|list| list.number).collect() };
    let before = (numbers(&world), world.shard_of(&device).await.list.number);
    world.now = right;
    world.settle().await;
    let lists = world.registrar.crls();
    assert!(lists.iter().all(|list| list.this_update <= right), "not yet valid to whoever has the right time");
    let shards = world.registrar.published.shards.load_full();
    assert!(shards.len() >= 4 && shards.values().all(|shard| shard.list.this_update <= right));
    // All but the root's, which was not due.
    let risen = numbers(&world).iter().zip(&before.0).filter(|(after, before)| after > before).count();
    assert_eq!(risen, before.0.len() - 1);
    assert!(world.shard_of(&device).await.list.number > before.1);
    assert_eq!(world.settle().await, 0);
}

#[tokio::test]
async fn where_others_write_too_a_clock_that_was_set_back_keeps_nobody_from_looking() {
    let mut world = World::new().await;
    world.share();
    let device = world.device("a").await;
    let right = world.now;
    world.now = world.now + HOUR;
    world.settle().await;
    world.now = right;
    world.settle().await;
    let known = world.shard_of(&device).await;
    let list = PublishedList { number: known.list.number + 5, ..known.list.clone() };
    crate::store::commit(&*world.registrar.store, PutList { list }).await.unwrap();
    world.now = right + MINUTE;
    world.settle().await;
    assert_eq!(world.shard_of(&device).await.list.number, known.list.number + 5);
}

#[tokio::test]
async fn a_fleet_that_was_made_is_said_to_be_made_though_a_list_cannot_be() {
    let mut world = World::new().await;
    world.share();
    let device = world.device("a").await;
    // Another authority's list is damaged in the store.
    let known = world.shard_of(&device).await;
    let list = PublishedList { number: known.list.number + 5, octets: vec![7; 9], ..known.list.clone() };
    crate::store::commit(&*world.registrar.store, PutList { list }).await.unwrap();
    world.now = world.now + MINUTE;
    assert!(world.registrar.refresh_crls(world.now).await.is_err());
    let name: FleetName = "second".parse().unwrap();
    let new = NewFleet {
        name: name.clone(),
        profile: None,
        unconfirmed_ttl: None,
        choices: Choices::default(),
        max_age: None,
        blast_radius: None,
    };
    let made = world.registrar.create_fleet(&world.owner, new, None, world.now).await.unwrap();
    assert_eq!(made.name, name);
}

#[tokio::test]
async fn what_has_ended_is_on_the_next_regular_list() {
    let mut world = World::new().await;
    let device = world.device("a").await;
    world.change("a", REVOKE).await;
    world.now = device.not_after - DAY;
    world.settle().await;
    let listed = async |world: &World| {
        let (shard, plain) = (world.shard_of(&device).await, world.registrar.crl(device.authority).unwrap());
        let expected = [device.serial.octets().to_vec()];
        (serials_on(&shard.list.octets) == expected, serials_on(&plain.der) == expected)
    };
    assert_eq!(listed(&world).await, (true, true));
    // RFC 5280 3.3: on one regular list that was issued after its end, whatever else changes meanwhile.
    world.now = device.not_after + DAY * 3;
    assert!(world.settle().await > 0);
    assert_eq!(listed(&world).await, (true, true));
    // And not for ever: the plain list is put together of the shards as they were.
    for (days, expected) in [(12, (false, true)), (16, (false, false))] {
        world.now = device.not_after + DAY * days;
        world.settle().await;
        assert_eq!(listed(&world).await, expected, "day {days}");
    }

    // The root's lists come once in three months.
    let old = world.replaced().await;
    world.becomes(old.record.id, AuthorityEvent::Revoked).await;
    let root = world.registrar.authorities.root().unwrap().record.id;
    for (at, expected) in [(old.not_after - DAY, 1), (old.not_after + DAY * 95, 1), (old.not_after + DAY * 300, 0)] {
        world.now = at;
        world.settle().await;
        assert_eq!(serials_on(&world.registrar.crl(root).unwrap().der).len(), expected, "{at}");
    }
}

#[tokio::test]
async fn what_is_revoked_in_a_slice_that_another_server_founded_a_moment_ago_is_listed() {
    let mut world = World::new().await;
    world.share();
    world.settle().await;
    let device = world.device("a").await;
    let key = world.shard_of(&device).await.list.key;
    // As it is where another server founded it: this one has not looked into the store since.
    world.registrar.published.change_shards(|shards| drop(shards.remove(&key)));
    world.change("a", REVOKE).await;
    world.settle().await;
    let plain = world.registrar.crl(device.authority).unwrap();
    assert_eq!(serials_on(&plain.der), [device.serial.octets().to_vec()]);
    assert_eq!(serials_on(&world.shard_of(&device).await.list.octets), [device.serial.octets().to_vec()]);
}

#[tokio::test]
async fn when_another_server_revokes_an_authority_nobody_here_answers_for_it() {
    let mut world = World::new().await;
    world.share();
    let device = world.device("a").await;
    let old = world.replaced().await;
    world.settle().await;
    assert_eq!(world.ask(&[(&old, &device.serial)]).await.1, [0x80]);
    // Another server on the same store.
    let mut other =
        opened_on(world.directory.path(), world.registrar.store.clone(), &world.registrar.publisher, world.now).await;
    std::mem::swap(&mut world.registrar, &mut other);
    world.becomes(old.record.id, AuthorityEvent::Revoked).await;
    std::mem::swap(&mut world.registrar, &mut other);
    world.registrar.refresh_authorities().await.unwrap();
    assert_eq!(&*world.ask(&[(&old, &device.serial)]).await.0, UNAUTHORIZED);
    world.settle().await;
    assert!(world.registrar.crl(old.record.id).is_none());
}

#[tokio::test]
async fn plain_lists_that_were_made_together_are_made_anew_one_after_the_other() {
    let mut world = World::new().await;
    let made: BTreeMap<_, _> = world.registrar.crls().iter().map(|list| (list.authority, list.this_update)).collect();
    let start = world.now;
    let (mut hours, mut left) = (Vec::new(), made);
    for hour in 0..=84 {
        world.now = start + HOUR * hour;
        world.settle().await;
        for list in world.registrar.crls() {
            if list.this_update == world.now && hour > 0 && left.remove(&list.authority).is_some() {
                hours.push(hour);
            }
        }
    }
    // All but the root's, by the half of their life and no earlier than an eighth of it before.
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(hours.iter().all(|hour| (63..=84).contains(hour)), "{hours:?}");
    assert!(hours.iter().collect::<BTreeSet<_>>().len() >= 3, "{hours:?}");
}

#[tokio::test]
async fn a_fleets_list_near_its_end_is_an_alarm_on_the_fleets_ledger() {
    let mut world = World::new().await;
    world.device("a").await;
    world.settle().await;
    let (start, whole) = (world.now, world.registrar.store.clone());
    world.registrar.store = Shared::of(&world, false);
    // The last eighth of seven days begins after 6 days and 3 hours.
    for (hours, expected) in [(24 * 4, 0), (24 * 6 + 2, 0), (24 * 6 + 4, 1)] {
        world.now = start + HOUR * hours;
        assert!(world.registrar.refresh_crls(world.now).await.is_err());
        world.registrar.record_alarms().await.unwrap();
        assert_eq!(alarms(&world, &LedgerName::Fleet(fleet())).await, expected, "hour {hours}");
    }
    // The disk has room again.
    world.registrar.store = whole;
    world.now = world.now + HOUR * 2;
    world.settle().await;
    world.registrar.record_alarms().await.unwrap();
    assert_eq!(alarms(&world, &LedgerName::Fleet(fleet())).await, 1);
    let authority = world.authority().record.id;
    assert_eq!(world.registrar.crl(authority).unwrap().next_update, world.now + DAY * 7);
}

/// How many alarms about lists near their end the ledger has.
async fn alarms(world: &World, ledger: &LedgerName) -> usize {
    let ledger = ledger.clone();
    let entries = read(&*world.registrar.store, move |rows| rows.entries(&ledger, 0, 1_000)).await.unwrap();
    let is_meant = |stored: &crate::store::model::StoredEntry| matches!(Entry::decode(&stored.entry).unwrap().event, Event::Alarmed { alarm, .. } if alarm == "crl_near_end");
    entries.iter().filter(|stored| is_meant(stored)).count()
}
