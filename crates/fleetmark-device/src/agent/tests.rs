//! The agent against a server that plays tricks.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetmark_domain::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::client::Token;
use crate::clock::SystemClock;
use crate::clock::tests::FakeClock;
use crate::door::Door;
use crate::proof::{DerivedKey, Presented, Proof};
use crate::testing::{Authority, DAY, Server, Trick, around, now};

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::default())
}

fn good() -> Token {
    Token::new("good").expect("token")
}

async fn agent(dir: &TempDir, server: &Server) -> Agent {
    Agent::set_up(dir.path(), &server.setup(), clock()).await.expect("set up")
}

async fn enrolled(dir: &TempDir, server: &Server) -> Agent {
    let mut agent = agent(dir, server).await;
    agent.enroll(&good().into(), false).await.expect("enrolled");
    agent.confirm().await.expect("confirmed");
    agent
}

#[tokio::test]
async fn from_token_to_renewal() {
    let (dir, server) = (TempDir::new().expect("dir"), Server::start());
    let mut agent = enrolled(&dir, &server).await;
    let first = agent.current().expect("read").expect("identity");
    assert_eq!(first.record.identity, "spiffe://fleet.example/device/default/sensor-01");
    assert!(first.record.confirmed);
    assert!(matches!(agent.enroll(&good().into(), false).await, Ok(Enrollment::Already(_))));
    assert!(matches!(agent.renew(false).await, Ok(Renewal::NotDue(_))));
    assert!(matches!(agent.renew(true).await, Ok(Renewal::Renewed(_))));
    let second = agent.current().expect("read").expect("identity");
    assert!(!second.record.confirmed && second.number == 2);
    assert_ne!(agent.store.key(&first).expect("key").hash(), agent.store.key(&second).expect("key").hash());
    assert!(matches!(agent.confirm().await, Ok(Confirmation::Confirmed(_))));
    let expected = [
        "GET /.well-known/est/cacerts",
        "POST /v1/fleets/default/enroll",
        "POST /v1/fleets/default/confirm +cert",
        "POST /v1/fleets/default/renew +cert",
        "POST /v1/fleets/default/confirm +cert",
    ];
    assert_eq!(server.log(), expected);
    assert!(agent.store.path_of(1).exists(), "the one before is kept");
    agent.renew(true).await.expect("renewed");
    agent.confirm().await.expect("confirmed");
    assert!(!agent.store.path_of(1).exists() && agent.store.path_of(2).exists());
}

#[tokio::test]
async fn openssl_agrees_with_what_is_stored() {
    let (dir, server) = (TempDir::new().expect("dir"), Server::start());
    let _agent = enrolled(&dir, &server).await;
    let current = dir.path().join("current");
    let openssl = |args: &str| {
        let out = Command::new("openssl").current_dir(&current).args(args.split(' ')).output().expect("openssl");
        assert!(out.status.success(), "{args}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).expect("text")
    };
    assert!(openssl("verify -x509_strict -purpose sslclient -CAfile ca.pem -untrusted chain.pem cert.pem").contains("OK"));
    assert_eq!(openssl("x509 -in cert.pem -noout -pubkey"), openssl("pkey -in key.pem -pubout"));
    assert_eq!(openssl("x509 -in fullchain.pem -noout -fingerprint"), openssl("x509 -in cert.pem -noout -fingerprint"));
    let mode = fs::metadata(current.join("key.pem")).expect("key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn an_installations_identity_goes_through_its_door() {
    let (dir, server) = (TempDir::new().expect("dir"), Server::start());
    let setup = Setup { door: Door::Installation, name: None, ..server.setup() };
    let mut agent = Agent::set_up(dir.path(), &setup, clock()).await.expect("set up");
    agent.enroll(&Token::new("operator").expect("token").into(), false).await.expect("enrolled");
    agent.confirm().await.expect("confirmed");
    assert_eq!(agent.current().expect("read").expect("identity").record.identity, "spiffe://t/operator/alice");
    assert_eq!(server.log()[1..], ["POST /v1/enroll", "POST /v1/confirm +cert"]);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_key() {
    let (dir, server) = (TempDir::new().expect("dir"), Server::start());
    let mut one = agent(&dir, &server).await;
    server.play([Trick::LoseAnswer]);
    let error = one.enroll(&good().into(), false).await.expect_err("lost");
    assert_eq!(error.exit_code(), 4, "{error}");
    let key = one.store.pending().expect("read").expect("pending").key.hash();
    drop(one);
    let two = enrolled(&dir, &server).await;
    let current = two.current().expect("read").expect("identity");
    assert_eq!(two.store.key(&current).expect("key").hash(), key);
    assert_eq!(server.issued(), 1);
    assert!(two.store.pending().expect("read").is_none());
}

#[tokio::test]
async fn a_lost_renewal_is_asked_for_again_with_the_same_key() {
    let (dir, server) = (TempDir::new().expect("dir"), Server::start());
    let mut agent = enrolled(&dir, &server).await;
    server.play([Trick::LoseAnswer]);
    assert!(agent.renew(true).await.is_err());
    assert_eq!(agent.current().expect("read").expect("identity").number, 1);
    agent.renew(true).await.expect("renewed");
    assert_eq!(server.issued(), 2);
}

#[tokio::test]
async fn refusals_are_told_by_name_and_keep_the_key() {
    let cases = [(401, "token_expired", None, 3), (409, "token_used", None, 3), (503, "overloaded", Some(7), 4)];
    for (status, code, retry_after, exit) in cases {
        let (dir, server) = (TempDir::new().expect("dir"), Server::start());
        let mut agent = agent(&dir, &server).await;
        server.play([Trick::Refuse(status, code, retry_after)]);
        let error = agent.enroll(&good().into(), false).await.expect_err(code);
        assert_eq!((error.code(), error.exit_code()), (code, exit));
        let Error::Refused(refused) = error else { panic!("{error}") };
        assert_eq!(refused.retry_after, retry_after.map(Duration::from_secs));
        assert!(agent.store.pending().expect("read").is_some());
    }
}

#[tokio::test]
async fn a_refused_key_makes_place_for_a_new_one() {
    let (dir, server) = (TempDir::new().expect("dir"), Server::start());
    let mut agent = agent(&dir, &server).await;
    server.play([Trick::LoseAnswer]);
    assert!(agent.enroll(&good().into(), false).await.is_err());
    let key = agent.store.pending().expect("read").expect("pending").key.hash();
    server.play([Trick::Refuse(409, "key_of_another_device", None)]);
    agent.enroll(&good().into(), false).await.expect("enrolled");
    let current = agent.current().expect("read").expect("identity");
    assert_ne!(agent.store.key(&current).expect("key").hash(), key);
    // Once, and not for ever.
    server.play([Trick::Refuse(409, "key_ended", None), Trick::Refuse(409, "key_ended", None)]);
    assert_eq!(agent.enroll(&good().into(), true).await.expect_err("twice").code(), "key_ended");
}

#[tokio::test]
async fn another_root_is_not_trusted() {
    let (dir, server) = (TempDir::new().expect("dir"), Server::start());
    let setup = Setup { ca_fingerprint: Authority::new("other").pin(), ..server.setup() };
    let error = Agent::set_up(dir.path(), &setup, clock()).await.expect_err("not trusted");
    assert_eq!((error.code(), error.exit_code()), ("server_not_trusted", 5));
    assert!(!dir.path().join("trust.pem").exists() && !dir.path().join("pending").exists());
}

#[tokio::test]
async fn a_server_in_the_middle_gets_no_token() {
    let (dir, real) = (TempDir::new().expect("dir"), Server::start());
    let mut agent = agent(&dir, &real).await;
    let false_server = Server::start();
    agent.settings.server = false_server.url.parse().expect("url");
    let error = agent.enroll(&good().into(), false).await.expect_err("not trusted");
    assert_eq!(error.code(), "server_not_trusted", "{error}");
    // Right root, wrong host.
    agent.settings.server = real.url.replace("127.0.0.1", "localhost").parse().expect("url");
    let error = agent.enroll(&good().into(), false).await.expect_err("wrong name");
    assert_eq!(error.code(), "server_not_trusted", "{error}");
    assert!(error.to_string().contains("localhost"), "{error}");
    // Nothing but whether there is a way from the root that it knows to another one, and no way was there.
    let only = |log: &[String]| log.iter().all(|line| line.starts_with("GET /v1/trust-bundle"));
    assert!(only(&false_server.log()) && only(&real.log()[1..]), "{:?} {:?}", false_server.log(), real.log());
}

#[tokio::test]
async fn unusable_answers_replace_nothing() {
    let tricks = [
        Trick::AnotherKey,
        Trick::AnotherAuthority,
        Trick::AnotherIdentity("spiffe://fleet.example/device/default/sensor-02"),
        Trick::AnotherIdentity("spiffe://fleet.example/device/other/sensor-01"),
        Trick::AnotherIdentity("spiffe://fleet.example/operator/sensor-01"),
        Trick::AnotherIdentity("https://fleet.example/"),
        Trick::Time(now() + DAY * 4000),
        Trick::Time(Timestamp(0)),
        Trick::Raw(200, b"{}".to_vec()),
        Trick::Raw(302, Vec::new()),
        Trick::Raw(200, vec![b' '; crate::http::MAX_BODY + 1]),
    ];
    for trick in tricks {
        let (dir, server) = (TempDir::new().expect("dir"), Server::start());
        let mut agent = agent(&dir, &server).await;
        server.play([trick.clone()]);
        let error = agent.enroll(&good().into(), false).await.expect_err("not usable");
        assert_eq!((error.code(), error.exit_code()), ("bad_answer", 5), "{trick:?}: {error}");
        assert!(agent.current().expect("read").is_none(), "{trick:?}");
    }
    let (dir, server) = (TempDir::new().expect("dir"), Server::start());
    let mut agent = enrolled(&dir, &server).await;
    server.play([Trick::AnotherIdentity("spiffe://fleet.example/device/default/sensor-02")]);
    assert_eq!(agent.renew(true).await.expect_err("not ours").code(), "bad_answer");
    assert_eq!(agent.current().expect("read").expect("identity").number, 1);
}

#[tokio::test]
async fn a_clock_at_1970_is_no_hindrance() {
    let (dir, server) = (TempDir::new().expect("dir"), Server::start());
    let clock = FakeClock::at(12);
    let mut agent = Agent::set_up(dir.path(), &server.setup(), clock.clone()).await.expect("set up");
    agent.enroll(&good().into(), false).await.expect("enrolled");
    agent.confirm().await.expect("confirmed");
    assert!(agent.time().wall_behind() > 1_700_000_000);
    drop(agent);
    // After a power cut the clock is at 1970 again, and time is not before what the server said.
    let agent = Agent::open(dir.path(), FakeClock::at(1)).expect("open");
    assert!(agent.time().now() + DAY > now());
    assert_eq!(status(dir.path(), &*FakeClock::at(1)).expect("status").state, "good");
}

#[tokio::test]
async fn a_clock_after_the_servers_certificate_is_believed() {
    let (dir, server) = (TempDir::new().expect("dir"), Server::start());
    let clock = FakeClock::at((now() + DAY * 100).0);
    let mut agent = Agent::set_up(dir.path(), &server.setup(), clock.clone()).await.expect("set up");
    let error = agent.enroll(&good().into(), false).await.expect_err("expired");
    assert_eq!(error.code(), "server_not_trusted");
    assert!(error.to_string().contains("ended at"), "{error}");
    clock.wall.store(now().0, Ordering::SeqCst);
    agent.enroll(&good().into(), false).await.expect("enrolled");
}

#[tokio::test]
async fn a_server_older_than_its_authority_is_verified_when_both_are_valid() {
    let authority = Authority::valid("new", around(now() - Duration::from_secs(3600), DAY * 3650));
    let server = Server::start_with(authority, around(now() - DAY * 30, DAY * 90));
    let dir = TempDir::new().expect("dir");
    let mut agent = Agent::set_up(dir.path(), &server.setup(), FakeClock::at(0)).await.expect("set up");
    agent.enroll(&good().into(), false).await.expect("enrolled");
}

#[tokio::test]
async fn a_renewal_that_cannot_be_confirmed_goes_back() {
    let (dir, server) = (TempDir::new().expect("dir"), Server::start());
    let mut agent = enrolled(&dir, &server).await;
    agent.renew(true).await.expect("renewed");
    server.play([Trick::Refuse(503, "storage_full", None)]);
    assert_eq!(agent.confirm().await.expect_err("later").exit_code(), 4);
    assert_eq!(agent.current().expect("read").expect("identity").number, 2, "it is tried again");
    server.play([Trick::Refuse(403, "confirmation_lapsed", None)]);
    assert_eq!(agent.confirm().await.expect_err("lapsed").exit_code(), 3);
    let current = agent.current().expect("read").expect("identity");
    assert!(current.number == 1 && current.record.confirmed);
    agent.renew(true).await.expect("renewed");
    agent.confirm().await.expect("confirmed");
}

#[tokio::test]
async fn a_first_certificate_that_lapsed_makes_place() {
    let (dir, server) = (TempDir::new().expect("dir"), Server::start());
    let mut agent = agent(&dir, &server).await;
    agent.enroll(&good().into(), false).await.expect("enrolled");
    server.play([Trick::Refuse(403, "confirmation_lapsed", None)]);
    assert!(agent.confirm().await.is_err());
    assert!(agent.current().expect("read").is_none());
    assert!(matches!(agent.enroll(&good().into(), false).await, Ok(Enrollment::Enrolled(_))));
    assert_eq!(server.issued(), 2);
}

#[tokio::test]
async fn run_goes_all_the_way_and_stops_when_told() {
    let (dir, server) = (TempDir::new().expect("dir"), Server::start());
    let mut agent = agent(&dir, &server).await;
    server.play([Trick::Refuse(503, "overloaded", None), Trick::LoseAnswer, Trick::Nothing]);
    let view = crate::store::View::new(dir.path());
    let done = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if view.current().is_ok_and(|current| current.is_some_and(|current| current.record.confirmed)) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), agent.run(Some(&good().into()), done)).await.expect("in time").expect("run");
    assert_eq!(server.issued(), 1);
}

#[tokio::test]
async fn run_ends_with_what_nobody_can_mend() {
    let (dir, server) = (TempDir::new().expect("dir"), Server::start());
    let mut one = agent(&dir, &server).await;
    assert_eq!(one.run(None, std::future::pending()).await.expect_err("no token").exit_code(), 2);
    server.play([Trick::Refuse(422, "key_type_not_allowed", None)]);
    assert_eq!(one.run(Some(&good().into()), std::future::pending()).await.expect_err("final").exit_code(), 3);
}

#[tokio::test]
async fn a_directory_keeps_its_identity() {
    let (dir, server) = (TempDir::new().expect("dir"), Server::start());
    drop(enrolled(&dir, &server).await);
    let other = |change: fn(&mut Setup)| {
        let mut setup = server.setup();
        change(&mut setup);
        setup
    };
    let setups = [
        other(|setup| setup.door = Door::Installation),
        other(|setup| setup.name = "sensor-02".parse().ok()),
        other(|setup| setup.ca_fingerprint.0[0] ^= 1),
    ];
    for setup in setups {
        assert_eq!(Agent::set_up(dir.path(), &setup, clock()).await.expect_err("another").exit_code(), 2);
    }
    let held = agent(&dir, &server).await;
    assert_eq!(Agent::open(dir.path(), clock()).expect_err("held").code(), "directory_busy");
    drop(held);
    assert!(Agent::open(dir.path(), clock()).is_ok());
}

#[tokio::test]
async fn a_token_confirms_without_a_second_connection() {
    let (dir, server) = (TempDir::new().expect("dir"), Server::start());
    let mut agent = agent(&dir, &server).await;
    agent.enroll(&good().into(), false).await.expect("enrolled");
    let record = agent.current().expect("read").expect("identity").record;
    let client = agent.anonymous().expect("client");
    let confirmed = client.confirm_with_token(&good(), record.fingerprint, record.serial).await.expect("confirmed");
    assert_eq!(confirmed.serial, record.serial);
    client.ask_time().await.expect("time");
    assert_eq!(client.renew("").await.expect_err("no certificate").code(), "certificate_required");
}

#[tokio::test]
async fn a_client_certificate_that_the_handshake_refuses_is_told_apart() {
    let (dir, server) = (TempDir::new().expect("dir"), Server::start());
    let agent = enrolled(&dir, &server).await;
    let current = agent.current().expect("read").expect("identity");
    let (fullchain, key) = (agent.store.fullchain(&current).expect("chain"), agent.store.key(&current).expect("key"));
    for name in ["ca", "other", "ca", "other"] {
        let other = Server::start_with(Authority::new(name), around(now() - DAY, DAY * 90));
        let setup = other.setup();
        let roots = Roots::new(vec![other.authority.root.clone()]).expect("roots");
        let client = Client::with_certificate(&setup.server, &setup.door, &roots, agent.time(), &fullchain, &key);
        let error = client.expect("client").renew("").await.expect_err("foreign");
        assert_eq!((error.code(), error.exit_code()), ("certificate_not_taken", 3), "{error}");
    }
}

#[tokio::test]
async fn a_device_without_a_clock_asks_for_the_time_before_it_sleeps() {
    let (dir, server) = (TempDir::new().expect("dir"), Server::start());
    drop(enrolled(&dir, &server).await);
    let note = dir.path().join("clock.json");
    fs::write(&note, r#"{"server_time":"2020-01-01T00:00:00Z","wall_behind_seconds":0}"#).expect("write");
    let mut agent = Agent::open(dir.path(), FakeClock::at(1)).expect("open");
    let asked = async {
        while server.log().last().map(String::as_str) != Some("GET /v1/time") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    let shutdown = async { drop(tokio::time::timeout(Duration::from_secs(20), asked).await) };
    agent.run(None, shutdown).await.expect("run");
    assert_eq!(server.log().last().map(String::as_str), Some("GET /v1/time"));
    assert!(agent.time().now() + DAY > now());
    let later = Agent::open(dir.path(), FakeClock::at(1));
    assert_eq!(later.expect_err("held").code(), "directory_busy");
    drop(agent);
    // A single renewal, from a timer say, asks as well.
    let mut agent = Agent::open(dir.path(), FakeClock::at(1)).expect("open");
    assert!(matches!(agent.renew(false).await, Ok(Renewal::NotDue(_))));
    assert_eq!(server.log().iter().filter(|line| *line == "GET /v1/time").count(), 2);
    let noted = crate::store::View::new(dir.path()).clock().expect("read").expect("note");
    assert!(noted.server_time + DAY > now());
}

#[tokio::test]
async fn a_person_may_take_their_time() {
    let (dir, server) = (TempDir::new().expect("dir"), Server::start());
    let mut agent = agent(&dir, &server).await;
    server.play([Trick::Refuse(202, "approval_pending", Some(30))]);
    let error = agent.enroll(&good().into(), false).await.expect_err("pending");
    assert_eq!((error.code(), error.exit_code()), ("approval_pending", 4));
    assert!(error.advice().contains("approve"), "{}", error.advice());
    let key = agent.store.pending().expect("read").expect("pending").key.hash();
    agent.enroll(&good().into(), false).await.expect("approved");
    let current = agent.current().expect("read").expect("identity");
    assert_eq!(agent.store.key(&current).expect("key").hash(), key, "the approved key is the one that counts");
}

#[tokio::test]
async fn a_makers_certificate_and_a_derived_key_enroll() {
    let server = Server::start();
    let dir = TempDir::new().expect("dir");
    let identity = enrolled(&dir, &server).await;
    let current = identity.current().expect("read").expect("identity");
    let file = |name: &str| identity.store.dir().join("current").join(name);
    let presented = Presented::from_files(&file("fullchain.pem"), &file("key.pem")).expect("files");
    let proofs = [
        Proof::Certificate(presented),
        Proof::DerivedKey(DerivedKey::new("line-4".parse().expect("name"), &STANDARD.encode([7; 32])).expect("key")),
    ];
    for (proof, request) in proofs.into_iter().zip(["POST /v1/fleets/default/enroll +cert", "POST /v1/fleets/default/enroll"]) {
        let dir = TempDir::new().expect("dir");
        let mut agent = agent(&dir, &server).await;
        agent.enroll(&proof, false).await.expect("enrolled");
        let fresh = agent.current().expect("read").expect("identity");
        assert_eq!(server.log().last().map(String::as_str), Some(request));
        assert_ne!(fresh.record.fingerprint, current.record.fingerprint, "a key of its own");
    }
    let wrong = Proof::DerivedKey(DerivedKey::new("line-4".parse().expect("name"), &STANDARD.encode([8; 32])).expect("key"));
    let dir = TempDir::new().expect("dir");
    let error = agent(&dir, &server).await.enroll(&wrong, false).await.expect_err("another key");
    assert_eq!(error.code(), "token_unknown");
}

#[tokio::test]
async fn a_renewal_can_be_pulled_forward_and_put_off_no_further_than_it_was() {
    let (dir, server) = (TempDir::new().expect("dir"), Server::start());
    let mut agent = enrolled(&dir, &server).await;
    let before = agent.current().expect("read").expect("identity").record;
    let poll = agent.ask_renewal().await.expect("told");
    assert_eq!(poll, Duration::from_secs(60), "a server that wants to be asked every second is not");
    let after = agent.current().expect("read").expect("identity").record;
    assert!(after.renew_after < before.renew_after && after.renew_after >= after.not_before);
    server.play([Trick::Raw(
        200,
        serde_json::json!({"renew_after": now() + DAY * 300, "poll_after_seconds": u64::MAX, "server_time": now()})
            .to_string()
            .into_bytes(),
    )]);
    assert_eq!(agent.ask_renewal().await.expect("told"), DAY);
    assert_eq!(agent.current().expect("read").expect("identity").record.renew_after, before.renew_after);
    agent.ask_renewal().await.expect("told again");
    server.play([Trick::Refuse(404, "not_found", None)]);
    assert_eq!(agent.ask_renewal().await.expect("an old server"), DAY);
    assert!(agent.renew(false).await.is_ok_and(|renewal| matches!(renewal, Renewal::Renewed(_))), "it is due now");
}
