//! Random sequences of acts, done by the real registrar over a real store, and by the model in [`rules`]. After each act both must
//! say the same: done, or refused by the same name; every certificate worth the same; every device in the same state. At the end the
//! ledgers must verify and tell the same story. `PROPTEST_CASES` asks for more than 8 sequences.

#![allow(
    clippy::as_conversions,
    clippy::match_bool,
    clippy::match_same_arms,
    clippy::needless_pass_by_value,
    clippy::too_many_lines,
    reason = "a model is read like a table: a rule a line"
)]

mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use fleetmark_domain::lifecycle::Reaction;
use fleetmark_domain::{
    CertificateEvent, FleetName, Kind, LedgerName, Reenrollment, Refusal, RevocationReason, Standing, Timestamp,
};
use fleetmark_ledger::audit::Auditor;
use fleetmark_ledger::entry::Event;
use fleetmark_ledger::note::VerifierKey;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use ring::hmac;
use secrecy::ExposeSecret;
use tempfile::TempDir;
use zeroize::Zeroizing;

use self::rules::{By, Device, Given, Model, Token, TokenState};
use super::caller::{Caller, Peer};
use super::challenge::{Answer, Asked, answer_message};
use super::enroll::{EnrollRequest, Enrollment};
use super::groups::{NewGroup, Way};
use super::install::Parts;
use super::lifecycle::{Grant, MoveRequest};
use super::proofs::Shown;
use super::standing::{Change, Target};
use super::subjects::Who;
use super::tokens::{MintRequest, PresentedToken};
use super::{Error, Registrar};
use crate::ledger::Publisher;
use crate::pki::csr::VerifiedCsr;
use crate::pki::issue::facts;
use crate::pki::keys::Keys;
use crate::pki::profile::Profiles;
use crate::store::location::{StoreLocation, open};
use crate::store::model::GroupRules;
use crate::store::rows::certificate_id;
use crate::store::{Store, StoreError, read};
use crate::telemetry::clock::{SharedClock, SystemClock};

const PROFILE: &str = include_str!("../../../certs/profiles/device.toml");
const DAY: Duration = Duration::from_secs(86_400);
const FLEETS: [&str; 2] = ["default", "other"];
const NAMES: [&str; 3] = ["n0", "n1", "n2"];
const GROUP_KEY: [u8; 32] = [7; 32];
const KEYS: usize = 12;
/// How many devices a claim group admits.
const QUOTA: u64 = 2;

/// Keys are the same in all sequences; every sequence has an installation of its own.
static CSRS: LazyLock<Vec<String>> = LazyLock::new(|| (0..KEYS).map(|_| csr_pem()).collect());

/// What may happen. Numbers choose among what there is, modulo how much there is.
#[derive(Debug, Clone)]
enum Step {
    Mint {
        fleet: usize,
        name: Option<usize>,
        uses: u64,
    },
    Withdraw(usize),
    Enroll {
        token: usize,
        astray: bool,
        name: Option<usize>,
        key: usize,
    },
    Derived {
        device: Device,
        key: usize,
    },
    Claim {
        device: Device,
        key: usize,
    },
    /// A fleet's claim group is enabled or disabled.
    OpenClaim(usize, bool),
    /// The same request to enroll as before, to the letter.
    Repeat(usize),
    Use(usize),
    ConfirmByToken(usize),
    Renew {
        certificate: usize,
        key: usize,
    },
    Change(Device, CertificateEvent),
    ChangeOne(usize, CertificateEvent),
    Retire(Device),
    Readmit(Device),
    PermitEnrollment(Device),
    PermitLateRenewal(Device),
    Move(Device),
    Cancel(Device),
    Pass(Duration),
    Sweep,
    /// The server dies and comes again.
    Die,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let device = || (0..FLEETS.len(), 0..NAMES.len());
    let (any, key) = (|| 0..64_usize, || 0..KEYS);
    let name = || proptest::option::of(0..NAMES.len());
    let event = || {
        prop_oneof![
            1 => Just(CertificateEvent::Held),
            1 => Just(CertificateEvent::Quarantined),
            3 => Just(CertificateEvent::Released),
            1 => Just(CertificateEvent::Revoked(RevocationReason::KeyCompromise)),
        ]
    };
    let time = prop_oneof![Just(30), Just(90), Just(7_200), Just(90_000), Just(61 * 86_400), Just(35 * 86_400)];
    let step = prop_oneof![
        5 => (0..FLEETS.len(), name(), prop_oneof![Just(1), Just(2)])
            .prop_map(|(fleet, name, uses)| Step::Mint { fleet, name, uses: if name.is_some() { 1 } else { uses } }),
        1 => any().prop_map(Step::Withdraw),
        8 => (any(), proptest::bool::weighted(0.05), name(), key())
            .prop_map(|(token, astray, name, key)| Step::Enroll { token, astray, name, key }),
        5 => (device(), key()).prop_map(|(device, key)| Step::Derived { device, key }),
        4 => (device(), key()).prop_map(|(device, key)| Step::Claim { device, key }),
        1 => (0..FLEETS.len(), proptest::bool::weighted(0.7)).prop_map(|(fleet, open)| Step::OpenClaim(fleet, open)),
        3 => any().prop_map(Step::Repeat),
        12 => any().prop_map(Step::Use),
        3 => any().prop_map(Step::ConfirmByToken),
        7 => (any(), key()).prop_map(|(certificate, key)| Step::Renew { certificate, key }),
        4 => (device(), event()).prop_map(|(device, event)| Step::Change(device, event)),
        4 => (any(), event()).prop_map(|(certificate, event)| Step::ChangeOne(certificate, event)),
        1 => device().prop_map(Step::Retire),
        2 => device().prop_map(Step::Readmit),
        2 => device().prop_map(Step::PermitEnrollment),
        1 => device().prop_map(Step::PermitLateRenewal),
        4 => device().prop_map(Step::Move),
        1 => device().prop_map(Step::Cancel),
        3 => time.prop_map(|seconds| Step::Pass(Duration::from_secs(seconds))),
        1 => Just(Step::Sweep),
        1 => Just(Step::Die),
    ];
    proptest::collection::vec(step, 1..=40)
}

fn rules() -> impl Strategy<Value = (Reenrollment, Reaction)> {
    let reenroll = [Reenrollment::Deny, Reenrollment::SameHardware, Reenrollment::Permit, Reenrollment::Always];
    let reaction = [Reaction::Alarm, Reaction::HoldRenewals, Reaction::Quarantine];
    (proptest::sample::select(reenroll.to_vec()), proptest::sample::select(reaction.to_vec()))
}

/// The real thing and the model, side by side.
struct World {
    directory: TempDir,
    registrar: Option<Registrar>,
    owner: Caller,
    now: Timestamp,
    model: Model,
    /// By the model's numbers.
    certificates: Vec<Enrollment>,
    tokens: Vec<String>,
    /// By fleet, in DER.
    claims: Vec<Vec<u8>>,
    /// Requests to enroll that were made.
    asked: Vec<Step>,
}

fn csr_pem() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap()
}

fn csr(pem: &str) -> VerifiedCsr {
    VerifiedCsr::from_body(pem.as_bytes()).unwrap()
}

fn fleet(number: usize) -> FleetName {
    FLEETS[number].parse().unwrap()
}

fn name(number: usize) -> fleetmark_domain::Name {
    NAMES[number].parse().unwrap()
}

fn who(device: Device) -> Who {
    Who { kind: Kind::Device, fleet: Some(fleet(device.0)), name: name(device.1) }
}

fn peer(enrollment: &Enrollment) -> Peer {
    Peer { authority: enrollment.certificate.authority, facts: Arc::new(facts(&enrollment.certificate.der).unwrap()) }
}

fn refusal(error: Error) -> Refusal {
    error.refusal
}

/// The threads of the store before it end a moment after it was dropped.
async fn opened_store(place: StoreLocation, publisher: Arc<Publisher>) -> Arc<dyn Store> {
    for _ in 0..500 {
        match open(place.clone(), publisher.clone()).await {
            Err(StoreError::Locked(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            opened => return opened.unwrap(),
        }
    }
    panic!("the store stays locked");
}

async fn opened(path: &Path, now: Timestamp) -> Registrar {
    let publisher = Arc::new(Publisher::new(Arc::new(SystemClock)));
    let place = format!("sqlite:{}", path.join("store").display()).parse().unwrap();
    let parts = Parts {
        store: opened_store(place, publisher.clone()).await,
        keys: Arc::new(Keys::open(&path.join("keys"), "passphrase".to_owned().into()).unwrap()),
        profiles: Profiles::load(Some(&path.join("profiles"))).unwrap(),
        publisher,
        snapshots: super::snapshots::Snapshots::new(path.join("snapshots"), 1),
        trust_domain: "fleet.example".parse().unwrap(),
        public_url: "http://localhost".to_owned(),
        rates: super::rates::RateSettings::default(),
        weak_lists: crate::pki::weak::lists::WeakLists::default(),
    };
    Registrar::open(parts, now).await.unwrap()
}

impl World {
    async fn new(reenroll: Reenrollment, reaction: Reaction) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock: SharedClock = Arc::new(SystemClock);
        let now = clock.now();
        std::fs::create_dir(directory.path().join("profiles")).unwrap();
        let reenroll_word = match reenroll {
            Reenrollment::Deny => "deny",
            Reenrollment::SameHardware => "same-hardware",
            Reenrollment::Permit => "permit",
            Reenrollment::Always => "always",
        };
        let reaction_word = match reaction {
            Reaction::Alarm => "alarm",
            Reaction::HoldRenewals => "hold-renewals",
            Reaction::Quarantine => "quarantine",
        };
        let lines = format!("late_renewal = \"30d\"\nreenroll = \"{reenroll_word}\"\nsuperseded_use = \"{reaction_word}\"\n");
        std::fs::write(directory.path().join("profiles/device.toml"), format!("{lines}{PROFILE}")).unwrap();
        let registrar = opened(directory.path(), now).await;
        registrar.install(&fleet(0), now).await.unwrap();
        let first = registrar.first_operator(&"alice".parse().unwrap(), &csr(&csr_pem()), now).await.unwrap().unwrap();
        let owner = registrar.identify(&peer(&first), now).await.unwrap();
        let new = super::fleets::NewFleet {
            name: fleet(1),
            profile: None,
            unconfirmed_ttl: None,
            choices: fleetmark_domain::standing::Choices::default(),
            max_age: None,
            blast_radius: None,
        };
        registrar.create_fleet(&owner, new, None, now).await.unwrap();
        let (mut claims, mut promised) = (Vec::new(), Vec::new());
        for at in (0..FLEETS.len()).map(fleet) {
            let way = Way::DerivedKey(Some(Zeroizing::new(GROUP_KEY.to_vec())));
            let new = NewGroup { fleet: at.clone(), name: "g".parse().unwrap(), way, rules: GroupRules::default() };
            registrar.create_group(&owner, new, None, now).await.unwrap();
            let terms = fleetmark_domain::Terms { quota: Some(QUOTA), ..fleetmark_domain::Terms::default() };
            let rules = GroupRules { terms, ..GroupRules::default() };
            let new = NewGroup { fleet: at.clone(), name: "c".parse().unwrap(), way: Way::Claim, rules };
            registrar.create_group(&owner, new, None, now).await.unwrap();
            let place = (&at, &"c".parse().unwrap());
            let claim = registrar.issue_claim(&owner, place, &csr(&csr_pem()), false, now).await.unwrap().certificate;
            promised.push(rules::Claim { ends: claim.not_after, open: true, quota: QUOTA, admitted: 0 });
            claims.push(claim.der);
        }
        let model = Model::new(reenroll, reaction, promised);
        let (certificates, tokens, asked) = (Vec::new(), Vec::new(), Vec::new());
        Self { directory, registrar: Some(registrar), owner, now, model, certificates, tokens, claims, asked }
    }

    fn real(&self) -> &Registrar {
        self.registrar.as_ref().unwrap()
    }

    /// Does one step in both, and compares.
    async fn step(&mut self, step: &Step) {
        let before = self.model.clone();
        let (expected, got) = self.both(step).await;
        assert_eq!(got, expected, "{step:?}; before: {before:#?}");
        self.compare().await;
    }

    async fn both(&mut self, step: &Step) -> (Result<(), Refusal>, Result<(), Refusal>) {
        let (now, owner) = (self.now, self.owner.clone());
        let chosen = |number: usize, of: usize| (of > 0).then(|| number % of.max(1));
        let idle = (Ok(()), Ok(()));
        match step.clone() {
            Step::Mint { fleet: at, name: bound, uses } => {
                let terms = fleetmark_domain::Terms { quota: Some(uses), ..fleetmark_domain::Terms::default() };
                let (lifetime, note) = (DAY * 7, String::new());
                let request = MintRequest { fleet: fleet(at), device: bound.map(name), lifetime, note, terms };
                let minted = self.real().mint_token(&owner, request, None, now).await;
                let token = Token { uses, ..token(at, bound, now, lifetime) };
                let got = minted.map(|minted| self.tokens.push(minted.text.expose_secret().to_owned()));
                (self.model.mint(token), got.map_err(refusal))
            }
            Step::Withdraw(number) => {
                let Some(token) = chosen(number, self.tokens.len()) else { return idle };
                let (at, id) = (fleet(self.model.tokens[token].fleet), self.token(token).id);
                let got = self.real().withdraw_token(&owner, &at, &id).await.map(drop).map_err(refusal);
                (self.model.withdraw(token), got)
            }
            Step::Enroll { token, astray, name: asked, key } => {
                let Some(token) = chosen(token, self.tokens.len()) else { return idle };
                self.asked.push(Step::Enroll { token, astray, name: asked, key });
                let at = (self.model.tokens[token].fleet + usize::from(astray)) % FLEETS.len();
                let shown = Shown::Token(self.token(token));
                let request = request(at, asked, None, shown, key);
                let got = self.real().enroll(request, now).await.map_err(refusal);
                let expected = self.model.enroll_by_token(at, token, asked, key, now);
                self.given(expected, got, key, By::Token(token))
            }
            Step::Derived { device, key } => {
                self.asked.push(step.clone());
                let got = self.derived(device, key).await;
                let expected = self.model.enroll_by_derived_key(device, key, now);
                self.given(expected, got, key, By::DerivedKey)
            }
            Step::Claim { device, key } => {
                self.asked.push(step.clone());
                let shown = Shown::Certificate(vec![self.claims[device.0].clone()]);
                let request = request(device.0, Some(device.1), None, shown, key);
                let got = self.real().enroll(request, now).await.map_err(refusal);
                let expected = self.model.enroll_by_claim(device, key, now);
                self.given(expected, got, key, By::Claim)
            }
            Step::OpenClaim(at, open) => {
                let got = self.real().open_group(&owner, &fleet(at), &"c".parse().unwrap(), open).await;
                self.model.open_claim(at, open);
                (Ok(()), got.map(drop).map_err(refusal))
            }
            Step::Repeat(number) => {
                let Some(number) = chosen(number, self.asked.len()) else { return idle };
                let again = self.asked[number].clone();
                Box::pin(self.both(&again)).await
            }
            Step::Use(number) => {
                let Some(id) = chosen(number, self.certificates.len()) else { return idle };
                let got = self.real().identify(&peer(&self.certificates[id]), now).await.map(drop).map_err(refusal);
                (self.model.present(id, false, now), got)
            }
            Step::ConfirmByToken(number) => {
                let Some(id) = chosen(number, self.certificates.len()) else { return idle };
                let Some(token) = self.model.certificates[id].token else { return idle };
                let (at, record) = (fleet(self.model.tokens[token].fleet), &self.certificates[id].certificate);
                let which = (record.fingerprint, Some(record.serial));
                let got = self.real().confirm_by_token(Some(&at), &self.token(token), which, now).await;
                (self.model.confirm_by_token(id, now), got.map(drop).map_err(refusal))
            }
            Step::Renew { certificate, key } => {
                let Some(id) = chosen(certificate, self.certificates.len()) else { return idle };
                let caller = self.real().identify_late(&peer(&self.certificates[id]), now).await.map_err(refusal);
                let known = self.model.present(id, true, now);
                let Ok(caller) = caller else { return (known, caller.map(drop)) };
                assert_eq!(known, Ok(()), "{step:?}");
                let got = self.real().renew(&caller, &csr(&CSRS[key]), now).await.map_err(refusal);
                let expected = self.model.renew(id, key, now);
                self.given(expected, got, key, By::Current)
            }
            Step::Change(device, event) => {
                let target = Target::Subject(who(device));
                let got = self.real().change_standing(&owner, target, change(event), "", now).await;
                (self.model.change(device, event, now), got.map(drop).map_err(refusal))
            }
            Step::ChangeOne(number, event) => {
                let Some(id) = chosen(number, self.certificates.len()) else { return idle };
                let target = Target::Certificate(self.certificates[id].certificate.serial);
                let got = self.real().change_standing(&owner, target, change(event), "", now).await;
                (self.model.change_one(id, event, now), got.map(drop).map_err(refusal))
            }
            Step::Retire(device) => {
                let reason = RevocationReason::CessationOfOperation;
                let got = self.real().put_out(&owner, &who(device), reason, "", now).await;
                (self.model.retire(device, now), got.map(drop).map_err(refusal))
            }
            Step::Readmit(device) => (self.model.readmit(device), self.grant(device, Grant::Readmit).await),
            Step::PermitEnrollment(device) => {
                let until = now + DAY;
                let got = self.grant(device, Grant::Enrollment(Some(until))).await;
                (self.model.permit_enrollment(device, until), got)
            }
            Step::PermitLateRenewal(device) => {
                let until = now + DAY * 100;
                let got = self.grant(device, Grant::LateRenewal(Some(until))).await;
                (self.model.permit_late_renewal(device, until), got)
            }
            Step::Move(device) => {
                let (to, lifetime) = ((device.0 + 1) % FLEETS.len(), DAY * 7);
                let request = MoveRequest { to: fleet(to), lifetime, note: String::new() };
                let moved = self.real().move_device(&owner, &who(device), request, None, now).await;
                let got = moved.map(|minted| self.tokens.push(minted.text.expose_secret().to_owned()));
                let token = Token { origin: Some(device), ..token(to, Some(device.1), now, lifetime) };
                (self.model.release(device, token), got.map_err(refusal))
            }
            Step::Cancel(device) => {
                let got = self.real().cancel_move(&owner, &who(device), "", now).await;
                (self.model.cancel(device, now), got.map(drop).map_err(refusal))
            }
            Step::Pass(time) => {
                self.now = now + time;
                idle
            }
            Step::Sweep => {
                self.real().revoke_lapsed(now).await.unwrap();
                self.model.sweep(now);
                idle
            }
            Step::Die => {
                drop(self.registrar.take());
                self.registrar = Some(opened(self.directory.path(), now).await);
                idle
            }
        }
    }

    fn token(&self, number: usize) -> PresentedToken {
        PresentedToken::parse(&self.tokens[number]).unwrap()
    }

    async fn grant(&self, device: Device, grant: Grant) -> Result<(), Refusal> {
        self.real().grant(&self.owner, &who(device), grant, "", self.now).await.map(drop).map_err(refusal)
    }

    async fn derived(&self, device: Device, key: usize) -> Result<Enrollment, Refusal> {
        let (at, group) = (fleet(device.0), "g".parse().unwrap());
        let key_hash = csr(&CSRS[key]).key_hash();
        let asked = Asked::DerivedKey { group, device: name(device.1), key: key_hash };
        let nonce = self.real().ask(&at, &asked, self.now).unwrap().nonce;
        let device_key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &GROUP_KEY), NAMES[device.1].as_bytes());
        let message = answer_message("fleetmark derived key v1", &nonce, key_hash);
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, device_key.as_ref()), &message).as_ref().to_vec();
        let shown = Shown::DerivedKey(Answer { nonce, mac });
        self.real().enroll(request(device.0, Some(device.1), Some("g"), shown, key), self.now).await.map_err(refusal)
    }

    /// What was given: the same octets again, or a certificate that never was before.
    fn given(
        &mut self,
        expected: Result<Given, Refusal>,
        got: Result<Enrollment, Refusal>,
        key: usize,
        by: By,
    ) -> (Result<(), Refusal>, Result<(), Refusal>) {
        match (&expected, &got) {
            (Ok(Given::Again(id)), Ok(enrollment)) => {
                assert!(enrollment.replayed);
                assert_eq!(enrollment.certificate.der, self.certificates[*id].certificate.der, "a repeat made another one");
            }
            (Ok(Given::New(device)), Ok(enrollment)) => {
                let record = &enrollment.certificate;
                assert!(!enrollment.replayed);
                assert_eq!(record.key_hash, csr(&CSRS[key]).key_hash());
                assert!(enrollment.identity.uri(&"fleet.example".parse().unwrap()).ends_with(NAMES[device.1]));
                let new = rules::Certificate {
                    device: *device,
                    generation: 0,
                    key,
                    token: if let By::Token(token) = by { Some(token) } else { None },
                    standing: Standing::Unconfirmed,
                    issued_at: self.now,
                    changed_at: self.now,
                    confirm_before: self.now + DAY,
                    not_after: record.not_after,
                    renew_after: record.renew_after,
                };
                self.model.issued(new, by, self.now);
                self.certificates.push(got.clone().unwrap());
            }
            _ => {}
        }
        (expected.map(drop), got.map(drop))
    }

    /// Every certificate and every device, in the store and in the model; and what must hold whatever the model says.
    async fn compare(&self) {
        let serials: Vec<_> = self.certificates.iter().map(|enrollment| enrollment.certificate.serial).collect();
        let devices: Vec<_> = self.model.devices.keys().copied().collect();
        let (records, holders) = read(&*self.real().store, move |rows| {
            let mut records = Vec::new();
            for serial in serials {
                records.push(rows.certificate(certificate_id(serial.epoch(), serial.index()))?.unwrap());
            }
            let mut holders = Vec::new();
            for (at, named) in devices {
                holders.push(rows.subject_by_name(Kind::Device, Some(&fleet(at)), &name(named).folded())?.unwrap());
            }
            Ok((records, holders))
        })
        .await
        .unwrap();
        let model = &self.model;
        for (record, promised) in records.iter().zip(&model.certificates) {
            assert_eq!(record.standing, promised.standing, "{promised:?}");
        }
        for (holder, (device, promised)) in holders.iter().zip(&model.devices) {
            assert_eq!(holder.state, promised.state, "{device:?}: {promised:?}");
            assert_eq!(holder.confirmed_generation as usize, promised.confirmed, "{device:?}");
        }

        let places: BTreeSet<_> = records.iter().map(|record| (record.serial.epoch(), record.serial.index())).collect();
        assert_eq!(places.len(), records.len(), "an index twice");
        let keys: BTreeSet<_> = records.iter().map(|record| record.key_hash.0).collect();
        assert_eq!(keys.len(), records.len(), "a key certified twice");
        for (holder, promised) in holders.iter().zip(model.devices.values()) {
            let own = records.iter().filter(|record| record.subject == Some(holder.id));
            let count = |standing| own.clone().filter(|record| record.standing == standing).count();
            assert!(count(Standing::Good) <= 1, "two identities at once: {promised:?}");
            assert!(count(Standing::Unconfirmed) <= 1, "two that may be confirmed: {promised:?}");
            if holder.state == fleetmark_domain::DeviceState::Out {
                assert!(own.clone().all(|record| matches!(record.standing, Standing::Revoked(_))), "out, and has one");
            }
        }
        for (at, claim) in model.claims.iter().enumerate() {
            let own = model.devices.iter().filter(|(device, holder)| device.0 == at && holder.by_claim).count() as u64;
            assert!(own <= claim.quota && own <= claim.admitted, "more devices than the claim is for: {claim:?}");
        }
        for (number, token) in model.tokens.iter().enumerate() {
            let id = self.token(number).id;
            let own = records.iter().filter(|record| record.token == Some(id));
            let devices: BTreeSet<_> = own.map(|record| record.subject).collect();
            assert!(devices.len() as u64 <= token.uses, "more devices than the token is for: {token:?}");
        }
    }

    /// Both ledgers verify, and say of every certificate what the store says.
    async fn audit(&self) {
        for at in 0..FLEETS.len() {
            let ledger = LedgerName::Fleet(fleet(at));
            let record = self.real().ledger(&self.owner, &ledger).await.unwrap();
            let key = VerifierKey { name: record.origin.clone(), key: record.key };
            let checkpoint = key.open(&self.real().checkpoint(&self.owner, &ledger).unwrap()).unwrap();
            let mut auditor = Auditor::new(key);
            let mut told = BTreeMap::new();
            while auditor.frontier().size() < checkpoint.head.size {
                let from = auditor.frontier().size();
                let page = self.real().entries(&self.owner, &ledger, from, 256).await.unwrap();
                assert!(!page.is_empty());
                for stored in page.iter().take_while(|stored| stored.position < checkpoint.head.size) {
                    let entry = auditor.append(&stored.entry, stored.details.as_deref()).unwrap();
                    match entry.event {
                        Event::Issued(issued) => drop(told.insert((issued.epoch, issued.index), "unconfirmed")),
                        Event::Confirmed { epoch, index } => drop(told.insert((epoch, index), "good")),
                        Event::StandingChanged { standing, certificates } => {
                            told.extend(certificates.certificates().map(|place| (place, standing.as_str())));
                        }
                        _ => {}
                    }
                }
            }
            auditor.finish(&checkpoint).unwrap();
            for (enrollment, promised) in self.certificates.iter().zip(&self.model.certificates) {
                if promised.device.0 == at {
                    let serial = enrollment.certificate.serial;
                    let said = told.get(&(serial.epoch(), serial.index()));
                    assert_eq!(said, Some(&promised.standing.as_str()), "{promised:?}");
                }
            }
        }
    }
}

fn token(fleet: usize, name: Option<usize>, now: Timestamp, lifetime: Duration) -> Token {
    let (minted_at, ends) = (now, now + lifetime);
    Token { fleet, name, uses: 1, spent: 0, state: TokenState::Fresh, minted_at, ends, origin: None }
}

fn request(at: usize, asked: Option<usize>, group: Option<&str>, shown: Shown, key: usize) -> EnrollRequest {
    let group = group.map(|group| group.parse().unwrap());
    EnrollRequest { fleet: Some(fleet(at)), name: asked.map(name), group, shown, csr: csr(&CSRS[key]), source: None }
}

fn change(event: CertificateEvent) -> Change {
    match event {
        CertificateEvent::Held => Change::Hold,
        CertificateEvent::Quarantined => Change::Quarantine,
        CertificateEvent::Revoked(reason) => Change::Revoke(reason),
        _ => Change::Release,
    }
}

fn play(reenroll: Reenrollment, reaction: Reaction, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(reenroll, reaction).await;
        for step in steps {
            world.step(step).await;
        }
        world.audit().await;
    });
}

#[test]
fn random_sequences_do_what_the_model_says() {
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { ProptestConfig::default().cases } else { 8 };
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let played = TestRunner::new(config).run(&(rules(), steps()), |((reenroll, reaction), steps)| {
        play(reenroll, reaction, &steps);
        Ok(())
    });
    played.unwrap_or_else(|failed| panic!("{failed}"));
}

/// A certificate that is quarantined before it was confirmed, and released when the device has another one.
#[test]
fn a_certificate_that_was_passed_over_in_quarantine_does_not_come_back() {
    let device = (0, 0);
    let first = [
        Step::Derived { device, key: 0 },
        Step::Change(device, CertificateEvent::Quarantined),
        Step::Derived { device, key: 1 },
    ];
    let then =
        |step| [&first[..], &[step, Step::Change(device, CertificateEvent::Released), Step::Use(0), Step::Use(1)]].concat();
    play(Reenrollment::SameHardware, Reaction::Alarm, &then(Step::Use(1)));
    play(Reenrollment::SameHardware, Reaction::Alarm, &then(Step::Change(device, CertificateEvent::Quarantined)));
}
