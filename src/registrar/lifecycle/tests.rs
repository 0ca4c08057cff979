use std::net::IpAddr;
use std::sync::Arc;

use fleetmark_domain::{Role, Standing};
use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;
use crate::ledger::Publisher;
use crate::pki::csr::VerifiedCsr;
use crate::pki::issue::facts;
use crate::pki::keys::Keys;
use crate::pki::profile::Profiles;
use crate::registrar::caller::Peer;
use crate::registrar::enroll::{EnrollRequest, Enrollment};
use crate::registrar::fleets::FleetChange;
use crate::registrar::install::Parts;
use crate::registrar::proofs::Shown;
use crate::registrar::standing::{Change, Target};
use crate::registrar::subjects::NewDevice;
use crate::registrar::tokens::{MintRequest, PresentedToken};
use crate::registrar::waves::{NewWave, Pace, Whose};
use crate::store::location::open;
use crate::telemetry::clock::{SharedClock, SystemClock};

const DEVICE: &str = include_str!("../../../certs/profiles/device.toml");
const DAY: Duration = Duration::from_secs(86_400);
const MINUTE: Duration = Duration::from_secs(60);

/// An installation with one fleet, whose devices' profile has one more line; the registrar is told what time it is.
struct World {
    _directory: TempDir,
    registrar: Registrar,
    owner: Caller,
    now: Timestamp,
}

/// A device as it comes to the door.
struct Held {
    enrollment: Enrollment,
    peer: Peer,
}

impl World {
    async fn with(line: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let clock: SharedClock = Arc::new(SystemClock);
        let now = clock.now();
        std::fs::create_dir(path.join("profiles")).unwrap();
        std::fs::write(path.join("profiles/device.toml"), format!("{line}\n{DEVICE}")).unwrap();
        let publisher = Arc::new(Publisher::new(clock));
        let place = format!("sqlite:{}", path.join("store").display()).parse().unwrap();
        let parts = Parts {
            store: open(place, publisher.clone()).await.unwrap(),
            keys: Arc::new(Keys::open(&path.join("keys"), "passphrase".to_owned().into()).unwrap()),
            profiles: Profiles::load(Some(&path.join("profiles"))).unwrap(),
            publisher,
            snapshots: crate::registrar::snapshots::Snapshots::new(path.join("snapshots"), 1),
            trust_domain: "fleet.example".parse().unwrap(),
            public_url: "http://localhost".to_owned(),
            rates: crate::registrar::rates::RateSettings::default(),
            weak_lists: crate::pki::weak::lists::WeakLists::default(),
        };
        let registrar = Registrar::open(parts, now).await.unwrap();
        registrar.install(&fleet(), now).await.unwrap();
        let first = registrar.first_operator(&"alice".parse().unwrap(), &csr(), now).await.unwrap().unwrap();
        let owner = registrar.identify(&peer(&first), now).await.unwrap();
        Self { _directory: directory, registrar, owner, now }
    }

    async fn mint(&self, by: &Caller, name: &str) -> Result<MintedToken> {
        let request = MintRequest {
            fleet: fleet(),
            device: Some(name.parse().unwrap()),
            lifetime: DAY,
            note: String::new(),
            terms: fleetmark_domain::Terms::default(),
        };
        self.registrar.mint_token(by, request, None, self.now).await
    }

    /// Enrolls with a new token.
    async fn enroll(&self, name: &str, source: Option<IpAddr>) -> std::result::Result<Enrollment, Refusal> {
        let minted = self.mint(&self.owner, name).await.unwrap();
        let shown = Shown::Token(PresentedToken::parse(minted.text.expose_secret()).unwrap());
        let request = EnrollRequest { fleet: Some(fleet()), name: None, group: None, shown, csr: csr(), source };
        self.registrar.enroll(request, self.now).await.map_err(|error| error.refusal)
    }

    /// From now on the fleet's policy is the built-in one with `more`.
    async fn policy(&self, more: &str) {
        let scope = LedgerName::Fleet(fleet());
        let text = format!("{}\n{more}", fleetmark_policy::DEFAULT_FLEET);
        let put = self.registrar.put_policy_set(&self.owner, &scope, text, String::new(), None, self.now).await.unwrap();
        self.registrar.activate_policy_set(&self.owner, &scope, put.version, None, None, self.now).await.unwrap();
    }

    /// Enrolls and confirms.
    async fn device(&self, name: &str) -> Held {
        let enrollment = self.enroll(name, None).await.unwrap();
        let held = Held { peer: peer(&enrollment), enrollment };
        self.registrar.identify(&held.peer, self.now).await.unwrap();
        held
    }

    /// Renews and confirms.
    async fn renewed(&self, old: &Held) -> Held {
        let caller = self.registrar.identify(&old.peer, self.now).await.unwrap();
        let enrollment = self.registrar.renew(&caller, &csr(), self.now).await.unwrap();
        let held = Held { peer: peer(&enrollment), enrollment };
        self.registrar.identify(&held.peer, self.now).await.unwrap();
        held
    }

    async fn told(&self, held: &Held, now: Timestamp) -> Option<Refusal> {
        self.registrar.identify(&held.peer, now).await.err().map(|error| error.refusal)
    }

    async fn told_late(&self, held: &Held, now: Timestamp) -> Option<Refusal> {
        self.registrar.identify_late(&held.peer, now).await.err().map(|error| error.refusal)
    }

    async fn grant(&self, name: &str, grant: Grant, now: Timestamp) {
        self.registrar.grant(&self.owner, &who(name), grant, "", now).await.unwrap();
    }
}

fn fleet() -> FleetName {
    "default".parse().unwrap()
}

fn who(name: &str) -> Who {
    Who { kind: Kind::Device, fleet: Some(fleet()), name: name.parse().unwrap() }
}

fn csr() -> VerifiedCsr {
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    VerifiedCsr::from_body(request.pem().unwrap().as_bytes()).unwrap()
}

fn peer(enrollment: &Enrollment) -> Peer {
    Peer { authority: enrollment.certificate.authority, facts: Arc::new(facts(&enrollment.certificate.der).unwrap()) }
}

#[tokio::test]
async fn an_ended_certificate_is_renewed_within_the_grace_and_good_for_nothing_else() {
    let world = World::with("late_renewal = \"30d\"").await;
    assert_eq!(world.registrar.late_grace(world.now).await.unwrap(), DAY * 30);
    let first = world.device("sleeper").await;
    let newest = world.renewed(&first).await;
    let end = newest.enrollment.certificate.not_after;
    assert_eq!(world.told_late(&newest, end).await, None, "it has not ended");
    let late = end + DAY * 30;
    assert_eq!(world.told(&newest, late).await, Some(Refusal::CertificateExpired));
    assert_eq!(world.told_late(&first, late).await, Some(Refusal::CertificateExpired), "an earlier generation");
    assert_eq!(world.told_late(&newest, late + MINUTE).await, Some(Refusal::CertificateExpired));
    let caller = world.registrar.identify_late(&newest.peer, late).await.unwrap();
    let enrollment = world.registrar.renew(&caller, &csr(), late).await.unwrap();
    let renewed = Held { peer: peer(&enrollment), enrollment };
    assert_eq!(world.told(&renewed, late).await, None);
    assert_eq!(world.told_late(&newest, late).await, Some(Refusal::CertificateExpired), "it is superseded");

    // What else is wrong with it stays wrong.
    let held = world.device("held").await;
    let (target, registrar) = (Target::Subject(who("held")), &world.registrar);
    registrar.change_standing(&world.owner, target, Change::Hold, "", world.now).await.unwrap();
    assert_eq!(world.told_late(&held, held.enrollment.certificate.not_after + DAY).await, Some(Refusal::Held));
}

#[tokio::test]
async fn a_permit_opens_the_door_to_one_device_alone() {
    let world = World::with("").await;
    let (one, other) = (world.device("one").await, world.device("other").await);
    let late = one.enrollment.certificate.not_after + DAY * 200;
    assert_eq!(world.registrar.late_grace(late).await.unwrap(), Duration::ZERO);
    assert_eq!(world.told_late(&one, late).await, Some(Refusal::CertificateExpired));
    world.grant("one", Grant::LateRenewal(Some(late + DAY)), late).await;
    assert_eq!(world.registrar.late_grace(late).await.unwrap(), LONGEST_LATENESS);
    assert_eq!(world.told(&one, late).await, Some(Refusal::CertificateExpired));
    assert_eq!(world.told_late(&other, late).await, Some(Refusal::CertificateExpired));
    assert_eq!(world.told_late(&one, late + DAY).await, Some(Refusal::CertificateExpired), "the permit has ended");
    assert_eq!(world.told_late(&one, late).await, None);
    world.grant("one", Grant::LateRenewal(None), late).await;
    assert_eq!(world.told_late(&one, late).await, Some(Refusal::CertificateExpired), "it was withdrawn");
    assert_eq!(world.registrar.late_grace(late + DAY).await.unwrap(), Duration::ZERO);
}

#[tokio::test]
async fn a_clone_with_the_old_key_has_the_device_quarantined() {
    let world = World::with("superseded_use = \"quarantine\"").await;
    let old = world.device("cloned").await;
    let new = world.renewed(&old).await;
    let soon = world.now + Duration::from_secs(59);
    assert_eq!(world.told(&old, soon).await, Some(Refusal::Superseded));
    assert_eq!(world.told(&new, soon).await, None, "a connection that was open is no clone");
    let later = world.now + MINUTE;
    assert_eq!(world.told(&old, later).await, Some(Refusal::Superseded));
    assert_eq!(world.told(&new, later).await, Some(Refusal::Quarantined));
    assert_eq!(world.told(&old, later).await, Some(Refusal::Superseded), "once more changes nothing");

    let registrar = &world.registrar;
    let changed = registrar.change_standing(&world.owner, Target::Subject(who("cloned")), Change::Release, "", later);
    assert_eq!(changed.await.unwrap().certificates.len(), 1);
    assert_eq!(world.told(&new, later).await, None);
}

#[tokio::test]
async fn a_held_back_renewal_waits_for_an_operator() {
    let world = World::with("superseded_use = \"hold-renewals\"").await;
    let old = world.device("cloned").await;
    let new = world.renewed(&old).await;
    let later = world.now + MINUTE;
    assert_eq!(world.told(&old, later).await, Some(Refusal::Superseded));
    let caller = world.registrar.identify(&new.peer, later).await.unwrap();
    let refused = world.registrar.renew(&caller, &csr(), later).await.unwrap_err();
    assert_eq!(refused.refusal, Refusal::RenewalHeld);
    let advice = world.registrar.renewal(&caller, later).await.unwrap();
    assert_eq!(advice.cause, Some(crate::registrar::waves::Cause::Held));
    world.grant("cloned", Grant::LateRenewal(None), later).await;
    let caller = world.registrar.identify(&new.peer, later).await.unwrap();
    world.registrar.renew(&caller, &csr(), later).await.unwrap();
}

#[tokio::test]
async fn without_a_word_in_the_profile_it_is_an_alarm_alone() {
    let world = World::with("").await;
    let old = world.device("cloned").await;
    let new = world.renewed(&old).await;
    assert_eq!(world.told(&old, world.now + MINUTE).await, Some(Refusal::Superseded));
    assert_eq!(world.told(&new, world.now + MINUTE).await, None);
}

/// 20 of 400 devices come back with the firmware, and the keys, of before: 10 are quarantined, and the fleet goes on.
#[tokio::test]
async fn a_rollback_of_a_twentieth_of_a_fleet_does_not_quarantine_it() {
    let world = World::with("superseded_use = \"quarantine\"").await;
    for number in 0..380 {
        let new = NewDevice {
            fleet: fleet(),
            name: format!("other-{number}").parse().unwrap(),
            attributes: std::collections::BTreeMap::new(),
        };
        world.registrar.register_device(&world.owner, new, None, world.now).await.unwrap();
    }
    let mut devices = Vec::new();
    for number in 0..20 {
        let old = world.device(&format!("rolled-back-{number}")).await;
        let new = world.renewed(&old).await;
        devices.push((old, new));
    }
    let quarantined = async |now| {
        let mut count = 0;
        for (_, new) in &devices {
            let caller = world.told(new, now).await;
            assert!(matches!(caller, None | Some(Refusal::Quarantined)), "{caller:?}");
            count += usize::from(caller.is_some());
        }
        count
    };
    for minute in 1..=3 {
        for (old, _) in &devices {
            assert_eq!(world.told(old, world.now + MINUTE * minute).await, Some(Refusal::Superseded));
        }
        assert_eq!(quarantined(world.now + MINUTE * minute).await, 10);
    }
    // The count is the last hour's; what is wrong for hours is told for hours.
    let next_hour = world.now + MINUTE * 70;
    for (old, _) in &devices {
        assert_eq!(world.told(old, next_hour).await, Some(Refusal::Superseded));
    }
    assert_eq!(quarantined(next_hour).await, 20);
    let newest = devices[0].1.enrollment.certificate.serial;
    let id = crate::store::rows::certificate_id(newest.epoch(), newest.index());
    let kept = read(&*world.registrar.store, move |rows| rows.certificate(id)).await.unwrap().unwrap();
    assert_eq!(kept.standing, Standing::Quarantined);
}

#[tokio::test]
async fn a_token_for_an_enrolled_device_takes_the_right_to_revoke_it_and_counts() {
    let world = World::with("").await;
    let as_role = |role| Caller { subject: Subject { role: Some(role), ..world.owner.subject.clone() }, ..world.owner.clone() };
    let (lesser, officer) = (as_role(Role::Operator), as_role(Role::SecurityOfficer));
    let minted = async |by: &Caller, name: &str| world.mint(by, name).await.map(drop).map_err(|error| error.refusal);
    for number in 0..11 {
        world.device(&format!("d{number}")).await;
    }
    assert_eq!(minted(&lesser, "new").await, Ok(()));
    assert_eq!(minted(&lesser, "new").await, Ok(()), "it has had no certificate");
    assert_eq!(minted(&lesser, "d0").await, Err(Refusal::NotPermitted));
    for number in 0..10 {
        assert_eq!(minted(&officer, &format!("d{number}")).await, Ok(()));
    }
    assert_eq!(minted(&officer, "d10").await, Err(Refusal::BlastRadiusExceeded));
    assert_eq!(minted(&officer, "d9").await, Ok(()), "it counted already");

    // Who was let in again is to enroll anew: that was an officer's word.
    let reason = RevocationReason::CessationOfOperation;
    world.registrar.put_out(&world.owner, &who("d0"), reason, "", world.now).await.unwrap();
    assert_eq!(minted(&lesser, "d0").await, Err(Refusal::IdentityOut));
    world.grant("d0", Grant::Readmit, world.now).await;
    assert_eq!(minted(&lesser, "d0").await, Ok(()));
}

#[tokio::test]
async fn a_closed_fleet_renews_and_takes_no_enrollments() {
    let world = World::with("").await;
    let device = world.device("inside").await;
    let closed = FleetChange { open: Some(false), ..FleetChange::default() };
    world.registrar.change_fleet(&world.owner, &fleet(), closed, None, world.now).await.unwrap();
    world.renewed(&device).await;
    assert_eq!(world.enroll("outside", None).await.err(), Some(Refusal::FleetClosed));
}

#[tokio::test]
async fn policies_know_from_where_a_device_enrolls_and_renews() {
    let world = World::with("").await;
    let known = world.device("known").await;
    world
        .policy("forbid (principal, action in Action::\"Certify\", resource) when { context has source && context.source.isLoopback() };")
        .await;
    let [near, far] = ["127.0.0.1", "192.0.2.7"].map(|source| Some(source.parse::<IpAddr>().unwrap()));
    assert_eq!(world.enroll("a", near).await.err(), Some(Refusal::PolicyDenied));
    assert_eq!(world.enroll("a", far).await.err(), None);
    let caller = world.registrar.identify(&known.peer, world.now).await.unwrap();
    let from = |source| Caller { source, ..caller.clone() };
    let refused = world.registrar.renew(&from(near), &csr(), world.now).await.map_err(|error| error.refusal);
    assert_eq!(refused.err(), Some(Refusal::PolicyDenied));
    world.registrar.renew(&from(far), &csr(), world.now).await.unwrap();
}

#[tokio::test]
async fn a_quarantined_device_enrolls_anew_where_its_policy_lets_it() {
    let world = World::with("").await;
    world.device("suspect").await;
    let (target, registrar) = (Target::Subject(who("suspect")), &world.registrar);
    registrar.change_standing(&world.owner, target, Change::Quarantine, "", world.now).await.unwrap();
    let forbid = "forbid (principal is Device, action == Action::\"Enroll\", resource) when { principal.standing == Standing::\"quarantined\" };";
    world.policy(forbid).await;
    assert_eq!(world.enroll("suspect", None).await.err(), Some(Refusal::PolicyDenied));
    assert_eq!(world.enroll("other", None).await.err(), None);
    world.policy("").await;
    let anew = world.enroll("suspect", None).await.unwrap();
    registrar.identify(&peer(&anew), world.now).await.unwrap();
    world.policy(forbid).await;
    assert_eq!(world.enroll("suspect", None).await.err(), None, "it left quarantine");
}

#[tokio::test]
async fn a_wave_that_ends_while_it_is_paused_or_goes_on_stays_ended() {
    let world = World::with("").await;
    let (registrar, owner, now, fleet) = (&world.registrar, &world.owner, world.now, fleet());
    for _ in 0..8 {
        let pace = Pace::Until(now + DAY);
        let new = NewWave { whose: Whose::IssuedBefore(now), from: None, pace, note: String::new() };
        registrar.start_wave(owner, &fleet, new, now).await.unwrap();
        let (ended, ..) = tokio::join!(
            registrar.end_wave(owner, &fleet, now),
            registrar.pause_wave(owner, &fleet, "", now),
            registrar.resume_wave(owner, &fleet, "", now),
        );
        ended.unwrap();
        assert_eq!(registrar.wave(owner, &fleet).await.map_err(|error| error.refusal), Err(Refusal::NotFound));
    }
    let again = registrar.pause_wave(owner, &fleet, "", now).await;
    assert_eq!(again.map_err(|error| error.refusal), Err(Refusal::NotFound));
}
