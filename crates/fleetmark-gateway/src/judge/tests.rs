//! Every reason, from certificates that another library made.

use std::sync::Arc;
use std::time::Duration;

use fleetmark_domain::{Epoch, Index, Kind, RevocationReason, Serial, Standing, Timestamp};
use fleetmark_ledger::entry::{AuthorityKind, AuthorityState};
use fleetmark_policy::{Act, DEFAULT_FLEET, DEFAULT_INSTALLATION, Set};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType, SerialNumber};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use super::{Judge, Presented, Reason, Verdict, Wanted};
use crate::testing::{Double, MAX_AGE};

const NOW: Timestamp = Timestamp(1_800_000_000);
const LIFE: i64 = 86_400;
const URI: &str = "spiffe://fleet.test/device/default/sensor-01";
const REVOKED: Standing = Standing::Revoked(RevocationReason::KeyCompromise);

/// An issuing authority, whose key is known to whoever tests.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn template(serial: &Serial, uris: &[&str]) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from_slice(serial.octets()));
        params.not_before = OffsetDateTime::from_unix_timestamp(NOW.0 - LIFE).unwrap();
        params.not_after = OffsetDateTime::from_unix_timestamp(NOW.0 + LIFE).unwrap();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        params.use_authority_key_identifier_extension = true;
        params
    }

    /// A certificate for a new key.
    fn sign(&self, params: &CertificateParams) -> CertificateDer<'static> {
        params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().der().clone()
    }

    fn issue(&self, serial: &Serial, uri: &str) -> CertificateDer<'static> {
        self.sign(&Self::template(serial, &[uri]))
    }
}

fn serial(epoch: u32, index: u32) -> Serial {
    Serial::new(Epoch(epoch), Index(index), [7; 8])
}

fn set(text: &str) -> Arc<Set> {
    Arc::new(Set::compile(text).expect("a set"))
}

/// Two fleets with an authority each, gateways' authority, and the default sets. Epoch 1 is `default`'s, 2 `pumps`'s, 3 the gateways'.
struct World {
    double: Double,
    devices: Authority,
    pumps: Authority,
    gateways: Authority,
    judge: Judge,
}

impl World {
    fn new() -> Self {
        let double = Double::new(&["default", "pumps"]);
        let (devices, pumps, gateways) = (Authority::new(), Authority::new(), Authority::new());
        let device = AuthorityKind::Of(Kind::Device);
        double.authority(1, device, AuthorityState::Active, &devices.certificate);
        double.authority(2, device, AuthorityState::Active, &pumps.certificate);
        double.authority(3, AuthorityKind::Of(Kind::Gateway), AuthorityState::Active, &gateways.certificate);
        double.policy("system", set(DEFAULT_INSTALLATION));
        double.policy("default", set(DEFAULT_FLEET));
        double.policy("pumps", set(DEFAULT_FLEET));
        let judge = Judge::new(double.knowledge());
        Self { double, devices, pumps, gateways, judge }
    }

    /// A device of `default`, at index 0, that the ledger holds as `standing`.
    fn with_device(standing: Standing) -> (Self, CertificateDer<'static>) {
        let world = Self::new();
        let certificate = world.devices.issue(&serial(1, 0), URI);
        world.double.certificate("default", Epoch(1), Index(0), 1, &certificate, standing, 7);
        (world, certificate)
    }

    fn judge(&self, certificate: &CertificateDer<'_>, wanted: &Wanted<'_>) -> Verdict {
        self.judge.judge(&Presented::parse(certificate).expect("readable"), wanted, NOW)
    }

    fn connect(&self, certificate: &CertificateDer<'_>) -> Verdict {
        self.judge(certificate, &CONNECT)
    }

    fn reason(&self, certificate: &CertificateDer<'_>) -> Reason {
        let verdict = self.connect(certificate);
        assert_eq!(verdict.allow, verdict.reason == Reason::Allowed);
        verdict.reason
    }
}

const CONNECT: Wanted<'static> =
    Wanted { act: Act::Connect, topic: None, source: None, protocol: Some("mqtt"), firmware: None, shown: true };

fn publish(topic: &str) -> Wanted<'_> {
    Wanted { act: Act::Publish, topic: Some(topic), ..CONNECT }
}

#[test]
fn a_good_device_is_let_in_with_all_that_is_known() {
    let (world, certificate) = World::with_device(Standing::Good);
    let verdict = world.connect(&certificate);
    assert_eq!((verdict.allow, verdict.reason), (true, Reason::Allowed));
    assert_eq!(verdict.identity.map(|identity| identity.name().to_string()).as_deref(), Some("sensor-01"));
    assert_eq!(verdict.standing, Some(Standing::Good));
    assert_eq!(verdict.ledger.map(|ledger| ledger.to_string()).as_deref(), Some("default"));
    assert!(verdict.position > 0 && verdict.age < MAX_AGE && !verdict.policies.is_empty());
    assert!(verdict.valid_until > NOW && verdict.valid_until <= NOW + MAX_AGE);
    assert_eq!(world.judge(&certificate, &publish("default/sensor-01/temperature")).reason, Reason::Allowed);
    assert_eq!(world.judge(&certificate, &publish("default/sensor-02/temperature")).reason, Reason::PolicyDenied);
    assert_eq!(world.judge(&certificate, &Wanted { act: Act::Publish, ..CONNECT }).reason, Reason::PolicyDenied);
    assert_eq!(world.double.sightings("default"), 0);
}

#[test]
fn each_standing_has_its_reason() {
    let cases = [
        (Standing::Good, Reason::Allowed),
        (Standing::Unconfirmed, Reason::Allowed),
        (Standing::Superseded, Reason::Superseded),
        (Standing::Held, Reason::Held),
        (Standing::Quarantined, Reason::Quarantined),
        (REVOKED, Reason::Revoked),
    ];
    for (standing, reason) in cases {
        let (world, certificate) = World::with_device(standing);
        let verdict = world.connect(&certificate);
        assert_eq!(verdict.reason, reason, "{standing}");
        assert_eq!(verdict.standing.map(Standing::as_str), Some(standing.as_str()));
        assert!(verdict.identity.is_some(), "{standing}");
        assert_eq!(world.double.sightings("default"), usize::from(standing == Standing::Unconfirmed), "{standing}");
    }
}

#[test]
fn a_standing_that_worsens_counts_at_once() {
    let (world, certificate) = World::with_device(Standing::Good);
    assert_eq!(world.reason(&certificate), Reason::Allowed);
    world.double.worsen("default", Epoch(1), Index(0), Standing::Quarantined);
    assert_eq!(world.reason(&certificate), Reason::Quarantined);
    world.double.worsen("default", Epoch(1), Index(0), REVOKED);
    assert_eq!(world.reason(&certificate), Reason::Revoked);
}

#[test]
fn quarantine_is_a_question_to_policy() {
    let (world, certificate) = World::with_device(Standing::Quarantined);
    let text = "permit(principal is Device, action == Action::\"Connect\", resource is Fleet) \
                when { principal.standing == Standing::\"quarantined\" };";
    world.double.policy("default", set(text));
    let verdict = world.connect(&certificate);
    assert_eq!((verdict.reason, verdict.standing), (Reason::Allowed, Some(Standing::Quarantined)));
}

#[test]
fn forgeries_with_the_authoritys_own_key_are_refused() {
    let (world, good) = World::with_device(Standing::Good);
    let fresh = world.devices.issue(&serial(1, 1), URI);
    assert_eq!(world.reason(&fresh), Reason::NotOnLedger, "a serial that nobody issued");
    let elsewhere = world.devices.issue(&serial(9, 0), URI);
    assert_eq!(world.reason(&elsewhere), Reason::NotOnLedger, "an epoch that nobody opened");
    let copy = world.devices.issue(&serial(1, 0), URI);
    let (read, original) = (Presented::parse(&copy).unwrap(), Presented::parse(&good).unwrap());
    assert_eq!((read.serial, read.identity), (original.serial, original.identity));
    assert_eq!(read.authority_key, original.authority_key);
    let verdict = world.connect(&copy);
    assert_eq!(verdict.reason, Reason::NotOnLedger, "the same serial and names under another key");
    assert_eq!((verdict.identity, verdict.standing), (None, None));
    assert_eq!(world.reason(&good), Reason::Allowed);
}

#[test]
fn what_is_not_ours_is_not_on_a_ledger() {
    let (world, _) = World::with_device(Standing::Good);
    let mut foreign = Authority::template(&serial(1, 0), &[URI]);
    foreign.serial_number = Some(SerialNumber::from_slice(&[5; 16]));
    assert_eq!(world.reason(&world.devices.sign(&foreign)), Reason::NotOnLedger, "another form of serial");
    let cases: [&[&str]; 4] =
        [&[], &[URI, "spiffe://fleet.test/device/default/sensor-02"], &[URI, URI], &["https://fleet.test/"]];
    for uris in cases {
        let certificate = world.devices.sign(&Authority::template(&serial(1, 0), uris));
        assert!(Presented::parse(&certificate).unwrap().identity.is_none(), "{uris:?}");
        assert_eq!(world.reason(&certificate), Reason::NotOnLedger, "{uris:?}");
    }
    // Even on the ledger it is nobody's.
    let nobody = world.devices.sign(&Authority::template(&serial(1, 5), &[]));
    world.double.certificate("default", Epoch(1), Index(5), 1, &nobody, Standing::Good, 8);
    assert_eq!(world.reason(&nobody), Reason::NotOnLedger);
}

#[test]
fn an_authority_is_bound_to_its_kind_and_fleet() {
    let world = World::new();
    let put = |ledger: &str, epoch: u32, index: u32, authority: u32, certificate: &CertificateDer<'_>| {
        world.double.certificate(ledger, Epoch(epoch), Index(index), authority, certificate, Standing::Good, 9);
    };
    let of_another_fleet = world.devices.issue(&serial(1, 0), "spiffe://fleet.test/device/pumps/sensor-01");
    put("default", 1, 0, 1, &of_another_fleet);
    let an_operator = world.devices.issue(&serial(1, 1), "spiffe://fleet.test/operator/alice");
    put("default", 1, 1, 1, &an_operator);
    let by_gateways_authority = world.gateways.issue(&serial(4, 0), URI);
    put("default", 4, 0, 3, &by_gateways_authority);
    let of_an_unknown_authority = world.devices.issue(&serial(5, 0), URI);
    put("default", 5, 0, 99, &of_an_unknown_authority);
    let names_another_key = world.pumps.issue(&serial(1, 2), URI);
    put("default", 1, 2, 1, &names_another_key);
    let mut anonymous = Authority::template(&serial(1, 3), &[URI]);
    anonymous.use_authority_key_identifier_extension = false;
    let names_no_key = world.devices.sign(&anonymous);
    put("default", 1, 3, 1, &names_no_key);
    let a_device_in_system = world.gateways.issue(&serial(3, 0), URI);
    put("system", 3, 0, 3, &a_device_in_system);
    let certificates = [
        &of_another_fleet,
        &an_operator,
        &by_gateways_authority,
        &of_an_unknown_authority,
        &names_another_key,
        &names_no_key,
        &a_device_in_system,
    ];
    for (number, certificate) in certificates.into_iter().enumerate() {
        let verdict = world.connect(certificate);
        assert_eq!((verdict.reason, verdict.identity), (Reason::WrongAuthority, None), "case {number}");
    }
}

#[test]
fn a_tainted_authority_is_trusted_for_what_it_issued_and_a_revoked_one_is_not() {
    let (world, certificate) = World::with_device(Standing::Good);
    let device = AuthorityKind::Of(Kind::Device);
    world.double.authority(1, device, AuthorityState::Tainted, &world.devices.certificate);
    assert_eq!(world.reason(&certificate), Reason::Allowed);
    world.double.authority(1, device, AuthorityState::Revoked, &world.devices.certificate);
    assert_eq!(world.reason(&certificate), Reason::WrongAuthority);
}

#[test]
fn dates_are_the_wall_clocks() {
    let (world, certificate) = World::with_device(Standing::Good);
    let presented = Presented::parse(&certificate).unwrap();
    let at = |now: i64| world.judge.judge(&presented, &CONNECT, Timestamp(now));
    let cases = [
        (NOW.0 - LIFE - 1, Reason::CertificateNotYetValid),
        (NOW.0 - LIFE, Reason::Allowed),
        (NOW.0 + LIFE, Reason::Allowed),
        (NOW.0 + LIFE + 1, Reason::CertificateExpired),
    ];
    for (now, reason) in cases {
        assert_eq!(at(now).reason, reason, "{}", now - NOW.0);
    }
    // The certificate's end is nearer than the knowledge's.
    assert_eq!(at(NOW.0 + LIFE - 5).valid_until, NOW + Duration::from_secs(86_400));
}

#[test]
fn stale_refuses_what_is_good_and_revoked_keeps_its_name() {
    for stale in ["default", "system"] {
        for (standing, reason) in
            [(Standing::Good, Reason::LedgerStale), (Standing::Held, Reason::LedgerStale), (REVOKED, Reason::Revoked)]
        {
            let (world, certificate) = World::with_device(standing);
            world.double.make_stale(stale);
            let verdict = world.connect(&certificate);
            assert_eq!(verdict.reason, reason, "{stale} {standing}");
            assert!(verdict.age > MAX_AGE && verdict.valid_until == NOW, "{stale} {standing}");
        }
    }
    let (world, certificate) = World::with_device(Standing::Good);
    world.double.make_stale("pumps");
    assert_eq!(world.reason(&certificate), Reason::Allowed, "another fleet's ledger does not count");
    world.double.age("default", MAX_AGE.saturating_sub(Duration::from_secs(100)));
    let verdict = world.connect(&certificate);
    assert!(verdict.valid_until <= NOW + Duration::from_secs(100) && verdict.valid_until > NOW);
}

#[test]
fn a_broken_ledger_refuses() {
    for broken in ["default", "system"] {
        let (world, certificate) = World::with_device(Standing::Good);
        world.double.broken(broken, true);
        assert_eq!(world.reason(&certificate), Reason::LedgerBroken, "{broken}");
        world.double.broken(broken, false);
        assert_eq!(world.reason(&certificate), Reason::Allowed, "{broken}");
    }
    let (world, _) = World::with_device(Standing::Good);
    let unknown = world.devices.issue(&serial(1, 1), URI);
    world.double.broken("default", true);
    assert_eq!(world.reason(&unknown), Reason::LedgerBroken, "a ledger that is not verified cannot say what is not on it");
}

#[test]
fn policies_that_are_missing_or_changed() {
    let (world, certificate) = World::with_device(Standing::Good);
    assert_eq!(world.reason(&certificate), Reason::Allowed);
    world.double.policy("default", set(""));
    assert_eq!(world.reason(&certificate), Reason::PolicyDenied, "an answer that was kept is void");
    world.double.no_policy("default");
    assert_eq!(world.reason(&certificate), Reason::PolicyMissing);
    world.double.policy("default", set(DEFAULT_FLEET));
    assert_eq!(world.reason(&certificate), Reason::Allowed);
    world.double.policy("system", set("@id(\"closed\") forbid(principal, action, resource);"));
    let verdict = world.connect(&certificate);
    assert_eq!(verdict.reason, Reason::PolicyDenied);
    assert_eq!(verdict.policies.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["installation/closed"]);
}

#[test]
fn a_policy_that_fails_is_a_no() {
    let (world, certificate) = World::with_device(Standing::Good);
    let text = "permit(principal is Device, action == Action::\"Connect\", resource is Fleet) \
                when { context.time * 9223372036854775807 > 0 };";
    world.double.policy("default", set(text));
    assert_eq!(world.reason(&certificate), Reason::PolicyError);
}

#[test]
fn attributes_count_and_are_not_remembered_too_long() {
    let (world, certificate) = World::with_device(Standing::Good);
    let text = "permit(principal is Device, action == Action::\"Connect\", resource is Fleet) \
                when { principal.hasTag(\"site\") && principal.getTag(\"site\") == \"north\" };";
    world.double.policy("default", set(text));
    assert_eq!(world.reason(&certificate), Reason::PolicyDenied);
    world.double.attributes("default", 7, &[("site", "north")]);
    assert_eq!(world.reason(&certificate), Reason::Allowed);
    world.double.attributes("default", 7, &[("site", "south")]);
    assert_eq!(world.reason(&certificate), Reason::PolicyDenied);
}

#[test]
fn the_time_is_asked_anew() {
    let (world, certificate) = World::with_device(Standing::Good);
    let text = format!(
        "permit(principal is Device, action == Action::\"Connect\", resource is Fleet) when {{ context.time <= {} }};",
        NOW.0
    );
    world.double.policy("default", set(&text));
    let verdict = world.connect(&certificate);
    assert_eq!((verdict.reason, verdict.valid_until), (Reason::Allowed, NOW + Duration::from_secs(60)));
    let presented = Presented::parse(&certificate).unwrap();
    assert_eq!(world.judge.judge(&presented, &CONNECT, Timestamp(NOW.0 + 1)).reason, Reason::PolicyDenied);
}

#[test]
fn who_belongs_to_no_fleet_comes_from_system() {
    let world = World::new();
    let certificate = world.gateways.issue(&serial(3, 0), "spiffe://fleet.test/gateway/edge-1");
    world.double.certificate("system", Epoch(3), Index(0), 3, &certificate, Standing::Good, 5);
    assert_eq!(world.reason(&certificate), Reason::PolicyDenied, "the default sets permit gateways nothing");
    let text = "permit(principal is Gateway, action == Action::\"Connect\", resource == Fleet::\"pumps\");\n\
                permit(principal is Gateway, action == Action::\"Publish\", resource is Topic) when { resource.first == \"pumps\" };";
    world.double.policy("pumps", set(text));
    let verdict = world.connect(&certificate);
    assert_eq!((verdict.reason, verdict.ledger.map(|ledger| ledger.to_string())), (Reason::Allowed, Some("system".to_owned())));
    assert_eq!(world.judge(&certificate, &publish("pumps/all")).reason, Reason::Allowed);
    assert_eq!(world.judge(&certificate, &publish("default/all")).reason, Reason::PolicyDenied);
}

#[test]
fn certificates_that_cannot_be_read() {
    let (_, certificate) = World::with_device(Standing::Good);
    let trailing = [certificate.as_ref(), &[0]].concat();
    let cut = &certificate[..certificate.len() - 1];
    let long = vec![0x30; 16 * 1024 + 1];
    let pem: &[u8] = b"-----BEGIN CERTIFICATE-----";
    for der in [pem, &[], &[0x30, 0x00], cut, &trailing, &long] {
        assert_eq!(Presented::parse(der).err(), Some(Reason::CertificateMalformed));
    }
    let mut twice = Authority::template(&serial(1, 0), &[URI]);
    let extension = || rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 17], vec![0x30, 0x00]);
    twice.custom_extensions = vec![extension()];
    let twice = Authority::new().sign(&twice);
    assert_eq!(Presented::parse(&twice).err(), Some(Reason::CertificateMalformed), "two SAN extensions");
}

#[tokio::test]
async fn what_is_not_known_yet_is_fetched_first() {
    let world = Arc::new(World::new());
    let certificate = world.devices.issue(&serial(1, 0), URI);
    let (asker, presented) = (Arc::clone(&world), Presented::parse(&certificate).unwrap());
    let verdict = tokio::spawn(async move { asker.judge.judge_patiently(&presented, &CONNECT, NOW).await });
    while !world.double.is_fetch_wanted() {
        tokio::task::yield_now().await;
    }
    world.double.certificate("default", Epoch(1), Index(0), 1, &certificate, Standing::Unconfirmed, 7);
    world.double.answer_fetch();
    assert_eq!(verdict.await.unwrap().reason, Reason::Allowed);
    // Who is known, or out of time, or none of ours, makes nobody fetch.
    let presented = Presented::parse(&certificate).unwrap();
    assert_eq!(world.judge.judge_patiently(&presented, &CONNECT, NOW).await.reason, Reason::Allowed);
    let late = NOW + Duration::from_secs(10 * 86_400);
    let unknown = Presented::parse(&world.devices.issue(&serial(1, 1), URI)).unwrap();
    assert_eq!(world.judge.judge_patiently(&unknown, &CONNECT, late).await.reason, Reason::CertificateExpired);
    assert!(!world.double.is_fetch_wanted());
}

#[test]
fn issuer_and_serial_tell_a_standing_and_never_allow() {
    let cases = [
        (Standing::Good, Reason::CertificateRequired),
        (Standing::Unconfirmed, Reason::CertificateRequired),
        (Standing::Superseded, Reason::Superseded),
        (Standing::Held, Reason::Held),
        (Standing::Quarantined, Reason::Quarantined),
        (REVOKED, Reason::Revoked),
    ];
    for (standing, reason) in cases {
        let (world, certificate) = World::with_device(standing);
        let issuer = Presented::parse(&certificate).unwrap().authority_key;
        let verdict = world.judge.0.standing(&issuer, &serial(1, 0), NOW);
        assert_eq!((verdict.allow, verdict.reason), (false, reason), "{standing}");
        assert_eq!(verdict.standing.map(Standing::as_str), Some(standing.as_str()));
        assert_eq!(verdict.identity, None);
        assert_eq!(world.judge.0.standing(&[1; 20], &serial(1, 0), NOW).reason, Reason::WrongAuthority);
        assert_eq!(world.judge.0.standing(&issuer, &serial(1, 9), NOW).reason, Reason::NotOnLedger);
    }
}

/// docs/gateway.md has every reason.
#[test]
fn every_reason_is_documented() {
    let page = include_str!("../../../../docs/gateway.md");
    for reason in Reason::ALL {
        assert!(page.contains(&format!("| `{}` |", reason.as_str())), "{} is not in docs/gateway.md", reason.as_str());
    }
    let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Reason::ALL.len());
}
