mod ends;

use std::any::Any;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fleetmark_domain::{Index, Kind, LedgerName, Serial, Standing};
use fleetmark_ledger::entry::{Entry, Event};
use secrecy::ExposeSecret;
use tempfile::TempDir;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::shards::SLICE_BITS;
use super::*;
use crate::ledger::Publisher;
use crate::pki::csr::VerifiedCsr;
use crate::pki::issue::facts;
use crate::pki::keys::Keys;
use crate::pki::profile::Profiles;
use crate::registrar::caller::{Caller, Peer};
use crate::registrar::enroll::{EnrollRequest, Enrollment};
use crate::registrar::fleets::FleetChange;
use crate::registrar::install::Parts;
use crate::registrar::proofs::Shown;
use crate::registrar::standing::{Change, Target};
use crate::registrar::subjects::Who;
use crate::registrar::tokens::{MintRequest, PresentedToken};
use crate::store::acts::lease::RaiseEpochs;
use crate::store::acts::standing::{ChangeStanding, Scope};
use crate::store::location::open;
use crate::store::model::Certificate;
use crate::store::{ErasedAct, ErasedRead, Store};
use crate::telemetry::clock::{SharedClock, SystemClock};

const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3_600);

/// An installation with one fleet; the registrar is told what time it is.
pub(in crate::registrar) struct World {
    pub(in crate::registrar) directory: TempDir,
    pub(in crate::registrar) registrar: Registrar,
    pub(in crate::registrar) owner: Caller,
    pub(in crate::registrar) now: Timestamp,
}

pub(in crate::registrar) fn fleet() -> FleetName {
    "default".parse().unwrap()
}

fn csr() -> VerifiedCsr {
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    VerifiedCsr::from_der(request.der()).unwrap()
}

fn peer(enrollment: &Enrollment) -> Peer {
    Peer { authority: enrollment.certificate.authority, facts: Arc::new(facts(&enrollment.certificate.der).unwrap()) }
}

async fn opened(path: &Path, now: Timestamp) -> Registrar {
    let publisher = Arc::new(Publisher::new(Arc::new(SystemClock)));
    let place: crate::store::location::StoreLocation = format!("sqlite:{}", path.join("store").display()).parse().unwrap();
    // The threads of a store that was dropped end a moment later.
    let store = loop {
        match open(place.clone(), publisher.clone()).await {
            Err(StoreError::Locked(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            opened => break opened.unwrap(),
        }
    };
    opened_on(path, store, &publisher, now).await
}

/// A server on this store.
pub(in crate::registrar) async fn opened_on(
    path: &Path,
    store: Arc<dyn Store>,
    publisher: &Arc<Publisher>,
    now: Timestamp,
) -> Registrar {
    let parts = Parts {
        store,
        keys: Arc::new(Keys::open(&path.join("keys"), "passphrase".to_owned().into()).unwrap()),
        profiles: Profiles::load(None).unwrap(),
        publisher: publisher.clone(),
        snapshots: crate::registrar::snapshots::Snapshots::new(path.join("snapshots"), 1),
        trust_domain: "fleet.example".parse().unwrap(),
        public_url: "http://localhost".to_owned(),
        rates: crate::registrar::rates::RateSettings::default(),
        weak_lists: crate::pki::weak::lists::WeakLists::default(),
    };
    Registrar::open(parts, now).await.unwrap()
}

impl World {
    pub(in crate::registrar) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock: SharedClock = Arc::new(SystemClock);
        let now = clock.now();
        let registrar = opened(directory.path(), now).await;
        registrar.install(&fleet(), now).await.unwrap();
        let first = registrar.first_operator(&"alice".parse().unwrap(), &csr(), now).await.unwrap().unwrap();
        let owner = registrar.identify(&peer(&first), now).await.unwrap();
        registrar.renew_responders(now).await.unwrap();
        registrar.refresh_crls(now).await.unwrap();
        Self { directory, registrar, owner, now }
    }

    /// Another machine, on which a backup was restored.
    pub(in crate::registrar) async fn restored(self, backup: TempDir) -> Self {
        let Self { registrar, owner, now, .. } = self;
        registrar.store.stop().await;
        let registrar = opened(backup.path(), now).await;
        let highest = registrar.authorities.all().len();
        registrar.raise_epochs(fleetmark_domain::Epoch(u32::try_from(highest).unwrap()), now).await.unwrap();
        registrar.renew_responders(now).await.unwrap();
        Self { directory: backup, registrar, owner, now }
    }

    /// A copy of the store and the keys.
    pub(in crate::registrar) async fn backup(&self) -> TempDir {
        let backup = tempfile::tempdir().unwrap();
        self.registrar.store.copy_to(&backup.path().join("store")).await.unwrap();
        std::fs::create_dir(backup.path().join("keys")).unwrap();
        for entry in std::fs::read_dir(self.directory.path().join("keys")).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), backup.path().join("keys").join(entry.file_name())).unwrap();
        }
        backup
    }

    /// The server ends and starts again.
    pub(in crate::registrar) async fn again(self) -> Self {
        let Self { directory, registrar, owner, now } = self;
        registrar.store.stop().await;
        drop(registrar);
        let registrar = opened(directory.path(), now).await;
        registrar.renew_responders(now).await.unwrap();
        Self { directory, registrar, owner, now }
    }

    pub(in crate::registrar) async fn device(&self, name: &str) -> Certificate {
        let request = MintRequest {
            fleet: fleet(),
            device: Some(name.parse().unwrap()),
            lifetime: DAY,
            note: String::new(),
            terms: fleetmark_domain::Terms::default(),
        };
        let minted = self.registrar.mint_token(&self.owner, request, None, self.now).await.unwrap();
        let shown = Shown::Token(PresentedToken::parse(minted.text.expose_secret()).unwrap());
        let request = EnrollRequest { fleet: Some(fleet()), name: None, group: None, shown, csr: csr(), source: None };
        let enrollment = self.registrar.enroll(request, self.now).await.unwrap();
        self.registrar.identify(&peer(&enrollment), self.now).await.unwrap();
        enrollment.certificate
    }

    pub(in crate::registrar) async fn change(&self, name: &str, change: Change) {
        let who = Who { kind: Kind::Device, fleet: Some(fleet()), name: name.parse().unwrap() };
        self.registrar.change_standing(&self.owner, Target::Subject(who), change, "", self.now).await.unwrap();
    }

    async fn list_quarantined(&self) {
        let change = FleetChange { list_quarantined: Some(true), ..FleetChange::default() };
        self.registrar.change_fleet(&self.owner, &fleet(), change, None, self.now).await.unwrap();
    }

    pub(in crate::registrar) fn authority(&self) -> Arc<Authority> {
        self.registrar.authorities.issuing(Kind::Device, Some(&fleet())).unwrap()
    }

    async fn shard_of(&self, certificate: &Certificate) -> Arc<Shard> {
        let (epoch, index) = (certificate.serial.epoch(), certificate.serial.index());
        self.registrar.shard(certificate.authority, epoch, index.0 >> SLICE_BITS).await.unwrap().expect("a list")
    }

    fn plain_of(&self, certificate: &Certificate) -> Arc<StoredCrl> {
        self.registrar.crl(certificate.authority).expect("a list")
    }

    /// What OCSP says of these certificates: the octet after each CertID, `80` good, `a1` revoked, `82` unknown.
    pub(in crate::registrar) async fn ask(&self, about: &[(&Authority, &Serial)]) -> (Vec<u8>, Vec<u8>) {
        let (request, ids) = request(about);
        let answer = self.registrar.ocsp(&request, self.now).await;
        let after = |id: &Vec<u8>| {
            let at = answer.der.windows(id.len()).position(|window| window == id);
            at.and_then(|at| answer.der.get(at + id.len())).copied().unwrap_or(0)
        };
        let statuses = ids.iter().map(after).collect();
        (answer.der, statuses)
    }
}

/// A request by SHA-1 without a nonce, and its CertIDs.
fn request(about: &[(&Authority, &Serial)]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let tlv = |tag: u8, octets: &[u8]| {
        let mut out = vec![tag];
        match u8::try_from(octets.len()).unwrap() {
            short @ 0..=127 => out.push(short),
            long => out.extend([0x81, long]),
        }
        out.extend(octets);
        out
    };
    let id = |(authority, serial): &(&Authority, &Serial)| {
        let (name, key) = &authority.hashes.sha1;
        let algorithm = [0x30, 9, 6, 5, 0x2b, 0x0e, 3, 2, 0x1a, 5, 0];
        tlv(0x30, &[&algorithm[..], &tlv(4, name), &tlv(4, key), &tlv(2, serial.octets())].concat())
    };
    let ids: Vec<Vec<u8>> = about.iter().map(id).collect();
    let list: Vec<u8> = ids.iter().flat_map(|id| tlv(0x30, id)).collect();
    (tlv(0x30, &tlv(0x30, &tlv(0x30, &list))), ids)
}

fn serials_on(der: &[u8]) -> Vec<Vec<u8>> {
    let (rest, list) = CertificateRevocationList::from_der(der).unwrap();
    assert!(rest.is_empty());
    list.iter_revoked_certificates().map(|revoked| revoked.raw_serial().to_vec()).collect()
}

/// The one distribution point of a certificate or list, by x509-parser.
fn point_of(der: &[u8]) -> Option<String> {
    use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension};
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(der).unwrap();
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::CRLDistributionPoints(points) => match points.points.as_slice() {
            [one] => match one.distribution_point.as_ref()? {
                DistributionPointName::FullName(names) => match names.as_slice() {
                    [GeneralName::URI(uri)] => Some((*uri).to_owned()),
                    _ => None,
                },
                DistributionPointName::NameRelativeToCRLIssuer(_) => None,
            },
            _ => None,
        },
        _ => None,
    })
}

const REVOKE: Change = Change::Revoke(RevocationReason::KeyCompromise);

#[tokio::test]
async fn a_certificate_names_a_shard_that_is_there_before_it_and_empty_at_first() {
    let world = World::new().await;
    let device = world.device("a").await;
    // Nobody made lists since.
    let shard = world.shard_of(&device).await;
    assert_eq!(serials_on(&shard.list.octets), Vec::<Vec<u8>>::new());
    let (_, list) = CertificateRevocationList::from_der(&shard.list.octets).unwrap();
    assert!(list.tbs_cert_list.revoked_certificates.is_empty() && shard.entries().is_empty());
    let epoch = device.serial.epoch().0;
    let expected = format!("http://localhost/crl/{}/{epoch}-0.crl", device.authority);
    assert_eq!(point_of(&device.der).as_ref(), Some(&expected));
    let point = list.extensions().iter().find(|extension| extension.oid.to_id_string() == "2.5.29.28").unwrap();
    assert!(point.critical && point.value.ends_with(expected.as_bytes()));
    // The authorities' own certificates keep the root's plain list, and the responders' have none.
    let authority = world.authority();
    assert_eq!(point_of(&authority.record.certificate).as_deref(), Some("http://localhost/crl/1.crl"));
    let responder = world.registrar.published.responders.load().get(&authority.record.id).cloned().unwrap();
    assert_eq!(point_of(responder.certificate()), None);
}

/// Two devices in two epochs, and so in two shards.
async fn two_shards() -> (World, Certificate, Certificate) {
    let mut world = World::new().await;
    let first = world.device("a").await;
    let raise = RaiseEpochs { floor: first.serial.epoch(), at: world.now };
    crate::store::commit(&*world.registrar.store, raise).await.unwrap();
    // The indices that the server holds are not used any more.
    world.now = world.now + HOUR;
    let second = world.device("b").await;
    assert_ne!(first.serial.epoch(), second.serial.epoch());
    while world.registrar.refresh_crls(world.now).await.unwrap() > 0 {}
    (world, first, second)
}

#[tokio::test]
async fn one_change_makes_one_shard_and_the_plain_list_anew_and_nothing_else() {
    let (mut world, first, second) = two_shards().await;
    world.registrar.refresh_crls(world.now).await.unwrap();
    let numbers = |world: &World| -> BTreeMap<ListKey, u64> {
        world.registrar.published.shards.load().iter().map(|(key, shard)| (*key, shard.list.number)).collect()
    };
    let before = numbers(&world);
    world.now = world.now + Duration::from_secs(1);
    world.change("b", REVOKE).await;
    assert_eq!(world.registrar.refresh_crls(world.now).await.unwrap(), 2, "the shard and the plain list");
    let after = numbers(&world);
    let changed: Vec<_> = after.iter().filter(|(key, number)| before.get(key) != Some(number)).map(|(key, _)| key).collect();
    assert!(matches!(changed.as_slice(), [one] if one.epoch == second.serial.epoch()), "{changed:?}");
    assert_eq!(serials_on(&world.shard_of(&second).await.list.octets), [second.serial.octets().to_vec()]);
    assert!(serials_on(&world.shard_of(&first).await.list.octets).is_empty());
    assert_eq!(world.registrar.refresh_crls(world.now).await.unwrap(), 0, "nothing changed since");

    world.now = world.now + Duration::from_secs(1);
    world.change("a", Change::Hold).await;
    assert_eq!(world.registrar.refresh_crls(world.now).await.unwrap(), 2);
    let plain = world.registrar.crl(first.authority).unwrap();
    assert_eq!(serials_on(&plain.der), [first.serial.octets().to_vec(), second.serial.octets().to_vec()]);
    world.now = world.now + Duration::from_secs(1);
    world.change("a", Change::Release).await;
    assert_eq!(world.registrar.refresh_crls(world.now).await.unwrap(), 2);
    let plain = world.registrar.crl(first.authority).unwrap();
    assert_eq!(serials_on(&plain.der), [second.serial.octets().to_vec()]);
}

#[tokio::test]
async fn after_a_restart_lists_are_taken_up_again_and_numbers_go_on() {
    let (mut world, first, second) = two_shards().await;
    world.now = world.now + Duration::from_secs(5);
    world.change("a", REVOKE).await;
    // It dies before the lists are made.
    let before = (world.shard_of(&first).await, world.shard_of(&second).await);
    let plain = world.registrar.crl(first.authority).unwrap();
    let world = world.again().await;
    assert_eq!(world.registrar.refresh_crls(world.now).await.unwrap(), 2);
    let after = (world.shard_of(&first).await, world.shard_of(&second).await);
    assert!(after.0.list.number > before.0.list.number);
    assert_eq!(serials_on(&after.0.list.octets), [first.serial.octets().to_vec()]);
    assert_eq!(after.1.list, before.1.list, "the other is as it was kept");
    assert!(world.registrar.crl(first.authority).unwrap().number > plain.number);
    let world = world.again().await;
    assert_eq!(world.registrar.refresh_crls(world.now).await.unwrap(), 0, "a restart makes nothing anew");
}

/// A verifier for whom the signature is somebody else's concern.
struct Anybody([u8; 8]);

impl fleetmark_status::Verify for Anybody {
    fn key_id(&self) -> [u8; 8] {
        self.0
    }

    fn verify(&self, _: &[u8], _: &[u8; 64]) -> bool {
        true
    }
}

#[tokio::test]
async fn after_a_restore_a_tainted_authority_loses_nothing_from_its_lists_and_keeps_its_responder() {
    let world = World::new().await;
    let (a, b, c) = (world.device("a").await, world.device("b").await, world.device("c").await);
    let tainted = world.authority();
    world.change("a", REVOKE).await;
    let successor = crate::registrar::rollover::Successor {
        kind: AuthorityKind::Of(Kind::Device),
        fleet: Some(fleet()),
        algorithm: None,
        elsewhere: None,
        note: String::new(),
    };
    let made = world.registrar.prepare_authority(&world.owner, successor, world.now).await.unwrap();
    let change = crate::registrar::rollover::Change {
        event: fleetmark_domain::AuthorityEvent::Activated,
        forced: true,
        reason: RevocationReason::Unspecified,
        note: String::new(),
    };
    world.registrar.change_authority(&world.owner, made.id, change, world.now).await.unwrap();
    let before = world.registrar.published.responders.load().get(&tainted.record.id).cloned().unwrap();

    // As the first start after a restore does.
    let floor = fleetmark_domain::Epoch(1_000);
    crate::store::commit(&*world.registrar.store, RaiseEpochs { floor, at: world.now }).await.unwrap();
    let mut world = world.again().await;
    world.now = world.now + HOUR;
    world.change("b", REVOKE).await;
    while world.registrar.refresh_crls(world.now).await.unwrap() > 0 {}
    let listed = [a.serial.octets().to_vec(), b.serial.octets().to_vec()];
    assert_eq!(serials_on(&world.shard_of(&a).await.list.octets), listed);
    assert_eq!(serials_on(&world.registrar.crl(tainted.record.id).unwrap().der), listed);

    world.registrar.refresh_status_lists(world.now).await.unwrap();
    let says = |world: &World, serial: &Serial| {
        let (authority, epoch) = (tainted.record.id, serial.epoch());
        let key = ListKey { kind: crate::store::model::ListKind::StatusList, authority, epoch, slice: 0 };
        let made = world.registrar.status_list(&key).unwrap();
        let header = fleetmark_status::header::Header::parse(&made.list.octets).unwrap();
        let terms = fleetmark_status::Terms { now: header.this_update, lowest_sequence: 0, max_age: 0 };
        let list = fleetmark_status::List::open(&made.list.octets, &header.scope, &terms, &Anybody(header.key_id)).unwrap();
        list.query_serial(serial.octets()).name()
    };
    assert_eq!([&a, &b, &c].map(|one| says(&world, &one.serial)), ["not_good", "not_good", "good"]);

    // Its responder is renewed in time, far above what may have been issued since the backup; nothing is new in the old places.
    world.now = before.not_after - HOUR;
    world.registrar.renew_responders(world.now).await.unwrap();
    let after = world.registrar.published.responders.load().get(&tainted.record.id).cloned().unwrap();
    assert!(after.not_after > before.not_after);
    let place = |responder: &Responder| facts(responder.certificate()).unwrap().serial.unwrap();
    let (old, new) = (place(&before), place(&after));
    assert!(old.epoch() == new.epoch() && new.index().0 >= old.index().0 + (1 << 14), "{old} {new}");
    assert_eq!(world.ask(&[(&tainted, &c.serial), (&tainted, &a.serial)]).await.1, [0x80, 0xa1]);
    world.registrar.refresh_status_lists(world.now).await.unwrap();
    assert_eq!([&a, &b, &c].map(|one| says(&world, &one.serial)), ["not_good", "not_good", "good"]);
    assert_eq!(says(&world, &new), "good");
    // What was issued since the backup, and is not known any more, is a hole.
    let lost = Serial::new(old.epoch(), Index(old.index().0 + 1_000), [3; 8]);
    assert_eq!(says(&world, &lost), "not_good");
    assert_eq!(world.ask(&[(&tainted, &lost)]).await.1, [0x82]);
}

#[test]
fn numbers_rise_with_the_clock_and_never_run_far_ahead_of_it() {
    let now = Timestamp(1_000);
    assert_eq!(next_number(None, now), Some(1_000));
    assert_eq!(next_number(Some(7), now), Some(1_000), "from before numbers followed the clock");
    assert_eq!(next_number(Some(1_000), now), Some(1_001));
    assert_eq!(next_number(Some(1_029), now), Some(1_030));
    // A backup's number and the clock after a restore are above this one.
    assert_eq!(next_number(Some(1_030), now), None);
    assert_eq!(next_number(Some(1_030), now + Duration::from_secs(1)), Some(1_031));
    // A clock that was set back keeps nobody off the list.
    assert_eq!(next_number(Some(50_000), now), Some(50_001));
}

#[tokio::test]
async fn a_number_after_a_restore_is_above_every_number_before_it() {
    let mut world = World::new().await;
    let device = world.device("a").await;
    world.now = world.now + Duration::from_secs(10);
    let backup = world.backup().await;
    let mut highest = 0;
    for _ in 0..100 {
        for change in [Change::Hold, Change::Release] {
            world.change("a", change).await;
            world.registrar.refresh_crls(world.now).await.unwrap();
        }
        highest = world.shard_of(&device).await.list.number;
    }
    assert!(highest <= u64::try_from(world.now.0).unwrap() + NUMBER_AHEAD, "{highest}");
    // What was put off is made as soon as the clock allows.
    world.now = world.now + Duration::from_secs(1);
    world.registrar.refresh_crls(world.now).await.unwrap();
    assert!(serials_on(&world.shard_of(&device).await.list.octets).is_empty());
    let mark = world.shard_of(&device).await.list.position;
    assert_eq!(mark, world.registrar.publisher.newest(&LedgerName::Fleet(fleet())).unwrap().head.size);

    let plain = world.plain_of(&device).number;
    highest = highest.max(world.shard_of(&device).await.list.number);
    // The restored store holds the old lists; the restore took more than half a minute.
    world.now = world.now + Duration::from_secs(31);
    let mut world = Box::pin(world.restored(backup)).await;
    world.now = world.now + Duration::from_secs(1);
    world.registrar.refresh_crls(world.now).await.unwrap();
    let (shard, list) = (world.shard_of(&device).await.list.clone(), world.plain_of(&device));
    assert!(shard.number > highest && list.number > plain, "{} after {highest}, {} after {plain}", shard.number, list.number);
    let world = world.again().await;
    world.registrar.refresh_crls(world.now).await.unwrap();
    assert_eq!(
        (world.shard_of(&device).await.list.number, world.plain_of(&device).number),
        (shard.number, list.number),
        "once"
    );
}

#[tokio::test]
async fn old_lists_are_made_anew_in_time_and_those_of_ended_certificates_are_dropped() {
    let (mut world, first, second) = two_shards().await;
    let made = world.shard_of(&second).await.list.this_update;
    while made + DAY * 2 > world.now {
        world.now = world.now + DAY;
        assert_eq!(world.registrar.refresh_crls(world.now).await.unwrap(), 0, "before an eighth ahead of half");
    }
    world.now = made + DAY * 7 / 2;
    while world.registrar.refresh_crls(world.now).await.unwrap() > 0 {}
    let renewed = world.shard_of(&second).await.list.clone();
    assert_eq!((renewed.this_update, renewed.next_update), (world.now, world.now + DAY * 7));

    world.change("a", REVOKE).await;
    world.registrar.refresh_crls(world.now).await.unwrap();
    assert_eq!(serials_on(&world.registrar.crl(first.authority).unwrap().der).len(), 1);
    // The authority's status key was certified in this epoch too, for a year.
    world.now = first.not_after.max(world.now + DAY * 365) + DAY * 9;
    while world.registrar.refresh_crls(world.now).await.unwrap() > 0 {}
    let (epoch, id) = (first.serial.epoch(), first.authority);
    assert!(world.registrar.shard(id, epoch, 0).await.unwrap().is_none(), "dropped");
    assert!(world.registrar.shard(id, second.serial.epoch(), 0).await.unwrap().is_some(), "its epoch is open");
    world.now = world.now + DAY * 4;
    world.registrar.refresh_crls(world.now).await.unwrap();
    assert!(serials_on(&world.registrar.crl(id).unwrap().der).is_empty());
    let world = world.again().await;
    world.registrar.refresh_crls(world.now).await.unwrap();
    assert!(world.registrar.shard(id, epoch, 0).await.unwrap().is_none(), "and not made again by a restart");
}

#[tokio::test]
async fn shards_of_what_was_issued_before_there_were_any_are_made_at_the_start() {
    let world = World::new().await;
    let device = world.device("a").await;
    world.change("a", REVOKE).await;
    let key = world.shard_of(&device).await.list.key;
    crate::store::commit(&*world.registrar.store, crate::store::acts::lists::DropList { key }).await.unwrap();
    let world = world.again().await;
    world.registrar.refresh_crls(world.now).await.unwrap();
    assert_eq!(serials_on(&world.shard_of(&device).await.list.octets), [device.serial.octets().to_vec()]);
    assert_eq!(serials_on(&world.registrar.crl(device.authority).unwrap().der), [device.serial.octets().to_vec()]);
}

#[tokio::test]
async fn a_list_near_its_end_that_cannot_be_made_is_an_alarm_on_the_ledger() {
    let world = World::new().await;
    let root = world.registrar.authorities.root().unwrap();
    // The root's key goes into a safe.
    world.registrar.authorities.keys().remove(&root.record.key_label).unwrap();
    let mut world = world.again().await;
    let end = world.registrar.crl(root.record.id).map(|crl| crl.next_update);
    assert_eq!(end, None, "not taken up yet");
    let alarmed = |world: &World| {
        let store = world.registrar.store.clone();
        async move {
            let entries = read(&*store, |rows| rows.entries(&LedgerName::System, 0, 1_000)).await.unwrap();
            let alarms = entries.iter().filter(|stored| {
                let event = Entry::decode(&stored.entry).unwrap().event;
                matches!(event, Event::Alarmed { alarm, .. } if alarm == "crl_near_end")
            });
            alarms.count()
        }
    };
    for (days, expected) in [(0, 0), (150, 0), (160, 1)] {
        world.now = root.record.created_at + DAY * days;
        world.registrar.refresh_crls(world.now).await.unwrap();
        world.registrar.record_alarms().await.unwrap();
        assert_eq!(alarmed(&world).await, expected, "day {days}");
    }
    // Past its end it cannot be made either; every other list is.
    world.now = root.record.created_at + DAY * 181;
    assert!(world.registrar.refresh_crls(world.now).await.is_err());
    assert!(world.registrar.crl(world.authority().record.id).unwrap().next_update > world.now);
}

#[tokio::test]
async fn an_answer_is_kept_until_one_of_its_own_certificates_changes() {
    let mut world = World::new().await;
    let (a, b) = (world.device("a").await, world.device("b").await);
    let authority = world.authority();
    let (of_a, of_b, of_both) =
        ([(&*authority, &a.serial)], [(&*authority, &b.serial)], [(&*authority, &a.serial), (&*authority, &b.serial)]);
    let (first_a, good) = world.ask(&of_a).await;
    let (first_b, _) = world.ask(&of_b).await;
    let (first_both, both) = world.ask(&of_both).await;
    assert_eq!((good, both), (vec![0x80], vec![0x80, 0x80]));
    assert_eq!(world.ask(&of_a).await.0, first_a, "kept");

    for (change, expected) in [(Change::Hold, 0xa1), (Change::Release, 0x80), (REVOKE, 0xa1)] {
        world.change("a", change).await;
        let (next_a, told) = world.ask(&of_a).await;
        assert_eq!(told, [expected], "{change:?}");
        assert_ne!(next_a, first_a);
        assert_eq!(world.ask(&of_b).await.0, first_b, "another's answer is kept");
        let (next_both, told) = world.ask(&of_both).await;
        assert_eq!(told, [expected, 0x80]);
        assert_ne!(next_both, first_both);
    }
    // It is signed anew in time for whoever gets it.
    world.now = world.now + HOUR / 2;
    assert_ne!(world.ask(&of_b).await.0, first_b);
}

#[tokio::test]
async fn one_request_about_several_authorities_is_answered_by_the_first() {
    let world = World::new().await;
    let device = world.device("a").await;
    let (devices, operators) = (world.authority(), world.registrar.authorities.issuing(Kind::Operator, None).unwrap());
    let (root, owner) = (world.registrar.authorities.root().unwrap(), world.owner.certificate.serial);
    let device = (&*devices, &device.serial);
    let operator = (&*operators, &owner);
    assert_eq!(world.ask(&[device, operator]).await.1, [0x80, 0x82]);
    assert_eq!(world.ask(&[operator, device]).await.1, [0x80, 0x82]);
    // The serial is another authority's.
    assert_eq!(world.ask(&[(&devices, &owner)]).await.1, [0x82]);
    // Nobody answers for the root, nor for whom we do not know.
    let unauthorized: &[u8] = &[0x30, 3, 0x0a, 1, 6];
    let authority_serial = facts(&devices.record.certificate).unwrap().serial.unwrap();
    assert_eq!(&*world.ask(&[(&root, &authority_serial)]).await.0, unauthorized);
}

#[tokio::test]
async fn memory_and_store_tell_the_same_standings_whatever_happens_between() {
    let mut world = World::new().await;
    let authority = world.authority();
    let mut certificates = Vec::new();
    let names: Vec<String> = (0..6).map(|number| format!("n{number}")).collect();
    for (step, name) in names.iter().cycle().take(60).enumerate() {
        match step {
            0..6 => certificates.push(world.device(name).await),
            6..24 => world.change(name, if step % 3 == 0 { Change::Hold } else { Change::Release }).await,
            24..40 => world.change(name, if step % 2 == 0 { Change::Quarantine } else { Change::Release }).await,
            50 => world.list_quarantined().await,
            40..60 if step % 5 == 0 => world.change(name, REVOKE).await,
            _ => {}
        }
        world.now = world.now + Duration::from_secs(7);
        let never = Serial::new(authority_epoch(&certificates), Index(9_999), [7; 8]);
        let foreign = Serial::new(authority_epoch(&certificates), certificates[0].serial.index(), [7; 8]);
        let serials: Vec<_> =
            certificates.iter().map(|one| Some(one.serial)).chain([None, Some(never), Some(foreign)]).collect();
        let known = world.registrar.statuses(&authority, &serials, world.now).await.unwrap();
        let stored = world.registrar.stored_statuses(&authority, &serials, world.now).await.unwrap();
        assert_eq!(known, stored, "after step {step}");
        assert!(world.registrar.published.standings.holds(&authority.ledger()), "it was asked from memory");
    }
    assert!(matches!(certificates[0].standing, Standing::Unconfirmed | Standing::Good));
}

fn authority_epoch(certificates: &[Certificate]) -> fleetmark_domain::Epoch {
    certificates[0].serial.epoch()
}

#[tokio::test]
async fn a_slice_that_many_ask_about_at_once_is_read_once() {
    let mut world = World::new().await;
    let device = world.device("a").await;
    let authority = world.authority();
    let store = Shared::of(&world, true);
    world.registrar.store = store.clone();
    let ask = |serial| world.registrar.statuses(&authority, serial, world.now);
    let known = [Some(device.serial)];
    for statuses in futures_util::future::join_all((0..64).map(|_| ask(&known))).await {
        assert_eq!(statuses.unwrap(), [crate::pki::ocsp::Status::Good]);
    }
    assert_eq!(store.readings.load(Ordering::SeqCst), 1);
    // Of an epoch that nobody began nothing is read.
    let invented = [Some(Serial::new(fleetmark_domain::Epoch(9_999), Index(0), [7; 8]))];
    assert_eq!(ask(&invented).await.unwrap(), [crate::pki::ocsp::Status::Unknown]);
    assert_eq!(store.readings.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_responder_is_renewed_in_time_and_says_that_nobody_need_ask_about_it() {
    let mut world = World::new().await;
    let device = world.device("a").await;
    let authority = world.authority();
    let responder = |world: &World| world.registrar.published.responders.load().get(&authority.record.id).cloned().unwrap();
    let first = responder(&world);
    let text = |der: &[u8]| {
        let text = crate::pki::testing::openssl(&["x509", "-inform", "DER", "-noout", "-text"], der).unwrap();
        String::from_utf8(text).unwrap()
    };
    assert!(text(first.certificate()).contains("OCSP No Check"), "{}", text(first.certificate()));
    // The job looks every ten minutes; the certificate is made anew when half of its life is over.
    let life = first.not_after.since(world.now);
    world.now = world.now + life / 4;
    world.registrar.renew_responders(world.now).await.unwrap();
    assert_eq!(responder(&world).certificate(), first.certificate(), "not yet");
    world.now = world.now + life / 2;
    assert!(world.now < first.not_after);
    world.registrar.renew_responders(world.now).await.unwrap();
    let second = responder(&world);
    assert!(second.not_after > first.not_after && text(second.certificate()).contains("OCSP No Check"));
    let (der, told) = world.ask(&[(&authority, &device.serial)]).await;
    assert_eq!(told, [0x80]);
    assert!(der.windows(second.certificate().len()).any(|window| window == second.certificate()));
    // One that could not be renewed says nothing rather than what nobody believes.
    world.now = second.not_after;
    assert_eq!(&*world.ask(&[(&authority, &device.serial)]).await.0, &[0x30, 3, 0x0a, 1, 3]);
}

/// A store into which others write too.
struct Shared {
    store: Arc<dyn Store>,
    takes_lists: bool,
    /// How many readings there were, look-ups not counted.
    readings: AtomicUsize,
}

impl Shared {
    fn of(world: &World, takes_lists: bool) -> Arc<Self> {
        Arc::new(Self { store: world.registrar.store.clone(), takes_lists, readings: AtomicUsize::new(0) })
    }
}

#[async_trait::async_trait]
impl Store for Shared {
    async fn write(&self, act: Box<dyn ErasedAct>) -> std::result::Result<Box<dyn Any + Send>, StoreError> {
        // Lists are the acts here that write into no ledger.
        if !self.takes_lists && act.ledgers().is_empty() {
            return Err(StoreError::Full("the disk is full".into()));
        }
        self.store.write(act).await
    }

    async fn look(&self, read: ErasedRead) -> std::result::Result<Box<dyn Any + Send>, StoreError> {
        self.readings.fetch_add(1, Ordering::SeqCst);
        self.store.look(read).await
    }

    async fn look_up(&self, read: ErasedRead) -> std::result::Result<Box<dyn Any + Send>, StoreError> {
        self.store.look(read).await
    }

    fn waiting(&self) -> (usize, usize) {
        self.store.waiting()
    }

    async fn copy_to(&self, file: &Path) -> std::result::Result<(), StoreError> {
        self.store.copy_to(file).await
    }

    async fn stop(&self) {
        self.store.stop().await;
    }
}

#[tokio::test]
async fn where_others_write_too_their_changes_and_lists_are_taken() {
    let mut world = World::new().await;
    world.registrar.store = Shared::of(&world, true);
    let (a, b) = (world.device("a").await, world.device("b").await);
    let authority = world.authority();
    let of_a = [(&*authority, &a.serial)];
    let (first, told) = world.ask(&of_a).await;
    assert_eq!(told, [0x80]);
    assert_eq!(world.ask(&of_a).await.0, first, "kept");
    world.change("b", REVOKE).await;
    assert_eq!(world.ask(&of_a).await.0, first, "another's answer is kept");

    // Another server revokes: this one asks the store for the ledger's head with each question.
    let details = world.registrar.details("another server".to_owned(), None, None, None).unwrap();
    let act = ChangeStanding {
        scope: Scope::Certificate(a.serial),
        ledger: LedgerName::Fleet(fleet()),
        change: fleetmark_domain::CertificateEvent::Revoked(RevocationReason::KeyCompromise),
        by: None,
        details,
        departure: None,
        at: world.now,
    };
    crate::store::commit(&*world.registrar.store, act).await.unwrap();
    assert_eq!(world.ask(&of_a).await.1, [0xa1], "at once");
    assert!(world.registrar.published.standings.holds(&authority.ledger()), "from memory");
    let many = futures_util::future::join_all((0..64).map(|_| world.ask(&of_a))).await;
    assert!(many.iter().all(|(_, told)| told == &[0xa1]));
    assert!(world.registrar.refresh_crls(world.now).await.unwrap() > 0);
    assert_eq!(serials_on(&world.shard_of(&b).await.list.octets).len(), 2);

    // Another server makes the list anew: the newest is taken, at once where it is not known here.
    let known = world.shard_of(&a).await;
    let list = crate::store::model::PublishedList { number: known.list.number + 5, ..known.list.clone() };
    crate::store::commit(&*world.registrar.store, crate::store::acts::lists::PutList { list }).await.unwrap();
    world.now = world.now + Duration::from_secs(31);
    world.registrar.refresh_crls(world.now).await.unwrap();
    assert_eq!(world.shard_of(&a).await.list.number, known.list.number + 5);
    world.registrar.published.change_shards(BTreeMap::clear);
    assert_eq!(world.shard_of(&a).await.list.number, known.list.number + 5);
}

#[tokio::test]
async fn a_list_that_another_server_made_first_is_taken_instead() {
    let world = World::new().await;
    let device = world.device("a").await;
    let known = world.shard_of(&device).await;
    let far = crate::store::model::PublishedList { number: known.list.number + 20, ..known.list.clone() };
    let put = |list| crate::store::commit(&*world.registrar.store, crate::store::acts::lists::PutList { list });
    assert!(put(far).await.unwrap());
    assert!(!put(known.list.clone()).await.unwrap(), "numbers never go back");
    world.change("a", REVOKE).await;
    world.registrar.refresh_crls(world.now).await.unwrap();
    let made = world.shard_of(&device).await;
    assert!(made.list.number > known.list.number + 20);
    assert_eq!(serials_on(&made.list.octets).len(), 1);
}
