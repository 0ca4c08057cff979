//! The ledger feed, as gateways use it (docs/feed.md).

use std::time::{Duration, Instant};

use fleetmark_domain::{LedgerName, Standing, Timestamp};
use fleetmark_ledger::entry::{Entry, Event as Act};
use fleetmark_ledger::note::VerifierKey;
use serde_json::{Value, json};

use crate::certificates::member;
use crate::harness::feed::Feed;
use crate::harness::server::text;
use crate::harness::{Client, Device, Identity, Server, run, shared, until};
use crate::matrix::{accept, operator};

/// A gateway of these fleets.
async fn gateway(server: &Server, name: &str, fleets: Value) -> (Identity, Value) {
    let admitted = server.owner().post("/v1/gateways", &json!({"name": name, "fleets": fleets})).await.is(201).json();
    accept(server, &text(&admitted, "token")).await
}

/// The entries of a bundle.
fn unbundle(mut octets: &[u8]) -> Vec<Vec<u8>> {
    let mut items = Vec::new();
    while let Some((length, rest)) = octets.split_first_chunk::<2>() {
        let (item, rest) = rest.split_at(u16::from_be_bytes(*length).into());
        items.push(item.to_vec());
        octets = rest;
    }
    assert!(octets.is_empty());
    items
}

/// The tile of 256 with this position, as far as a tree of `size` has it, as a path ends.
fn place(index: u64, size: u64) -> String {
    let left = size - index * 256;
    let partial = if left < 256 { format!(".p/{left}") } else { String::new() };
    format!("{index:03}{partial}")
}

async fn entries(client: &Client, ledger: &str, size: u64) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for index in 0..size.div_ceil(256) {
        let path = format!("/v1/ledgers/{ledger}/tile/entries/{}", place(index, size));
        all.extend(unbundle(&client.get(&path).await.is(200).body));
    }
    all
}

/// The newest checkpoint, verified with the key that `/v1/ledgers` tells.
async fn head(client: &Client, ledger: &str) -> fleetmark_ledger::note::Checkpoint {
    let ledgers = client.get("/v1/ledgers").await.is(200).json();
    let ledgers = ledgers["ledgers"].as_array().unwrap();
    let found = ledgers.iter().find(|found| found["ledger"] == ledger).unwrap();
    let key = VerifierKey::from_vkey(found["key"].as_str().unwrap()).unwrap();
    key.open(&client.get(&format!("/v1/ledgers/{ledger}/checkpoint")).await.is(200).text()).unwrap()
}

#[test]
fn a_revocation_arrives_before_the_checkpoint_that_covers_it_and_is_in_the_bundle() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let (identity, _) = gateway(&server, "feed-revocation", json!([fleet])).await;
        let client = server.device_client(Some(&identity));
        let device = Device::good(&server, &fleet, "a").await;
        let mut feed = Feed::open(&server, &identity, &format!("?ledger={fleet}"), None).await;
        for header in ["content-type: text/event-stream\r\n", "cache-control: no-store\r\n", "x-accel-buffering: no\r\n"] {
            assert!(feed.head.contains(header), "{}", feed.head);
        }
        assert!(!feed.head.contains("content-encoding"), "{}", feed.head);
        let first = feed.next().await.unwrap();
        assert_eq!((first.name.as_str(), first.ledger()), ("checkpoint", fleet.as_str()));
        assert_eq!(first.id, Some(format!("{fleet}@{}", first.size())));

        device.act(&server, "revoke", json!({"reason": "keyCompromise"})).await;
        let told = loop {
            let event = feed.next().await.unwrap();
            if event.name == "entry" {
                break event;
            }
            assert_eq!(event.size(), first.size(), "a checkpoint came before what it covers");
        };
        assert_eq!(told.id, Some(format!("{fleet}@{}", told.position() + 1)));
        let entry = Entry::decode(&told.entry()).unwrap();
        let Act::StandingChanged { standing: Standing::Revoked(_), certificates } = entry.event else { panic!("{entry:?}") };
        let serial: fleetmark_domain::Serial = device.serial().parse().unwrap();
        assert_eq!(certificates.certificates().collect::<Vec<_>>(), [(serial.epoch(), serial.index())]);
        let covering = feed.next().await.unwrap();
        assert_eq!((covering.name.as_str(), covering.ledger()), ("checkpoint", fleet.as_str()));
        assert!(covering.size() > told.position());

        let bundled = entries(&client, &fleet, covering.size()).await;
        assert_eq!(bundled[usize::try_from(told.position()).unwrap()], told.entry());
        // Its details are told beside it, and who did it is in them.
        let path = format!("/v1/ledgers/{fleet}/tile/details/{}", place(0, covering.size()));
        let details = client.get(&path).await.is(200);
        assert_eq!(details.header("cache-control"), "no-store");
        let details = unbundle(&details.body);
        let of_it = fleetmark_ledger::details::Details::decode(&details[usize::try_from(told.position()).unwrap()]).unwrap();
        assert_eq!(of_it.actor, "spiffe://fleet.test/operator/admin");
        assert_eq!(Some(of_it.commitment()), entry.details);
        assert!(server.metric("fleetmark_feed_events_total", &[("event", "entry")]).await >= 1.0);
    });
}

#[test]
fn a_follower_resumes_where_it_was() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let (identity, _) = gateway(&server, "feed-resume", json!([fleet])).await;
        let query = format!("?ledger=system&ledger={fleet}");
        let mut feed = Feed::open(&server, &identity, &query, None).await;
        feed.find("checkpoint", &fleet).await;
        let since = feed.last_id.clone();
        drop(feed);
        let mut serials = Vec::new();
        for name in ["a", "b"] {
            let device = Device::good(&server, &fleet, name).await;
            device.act(&server, "hold", json!({})).await;
            serials.push(device.serial());
        }
        let mut feed = Feed::open(&server, &identity, &query, Some(&since)).await;
        let mut seen = Vec::new();
        let covering = loop {
            let event = feed.next().await.unwrap();
            match event.name.as_str() {
                "entry" if event.ledger() == fleet => seen.push(event),
                "checkpoint" if event.ledger() == fleet => break event,
                // Other tests write to the system's ledger.
                _ => assert_eq!(event.ledger(), "system"),
            }
        };
        let held: Vec<_> = seen.iter().map(|event| Entry::decode(&event.entry()).unwrap().event).collect();
        assert!(matches!(held[..], [Act::StandingChanged { standing: Standing::Held, .. }, Act::StandingChanged { .. }]));
        assert!(seen[0].position() < seen[1].position() && seen[1].position() < covering.size());

        // Nothing is told twice to who was told already.
        let since = feed.last_id.clone();
        let mut feed = Feed::open(&server, &identity, &format!("?ledger={fleet}"), Some(&since)).await;
        assert_eq!(feed.next().await.unwrap().name, "checkpoint");
        // Who knows more than there is must look for itself; the next checkpoint's id says where it is.
        let ahead = format!("{fleet}@{}", covering.size() + 1_000);
        let mut feed = Feed::open(&server, &identity, &format!("?ledger={fleet}"), Some(&ahead)).await;
        let resync = feed.next().await.unwrap();
        assert_eq!((resync.name.as_str(), resync.ledger(), resync.id.clone()), ("resync", fleet.as_str(), None));
        let newest = feed.next().await.unwrap();
        assert_eq!(newest.id, Some(format!("{fleet}@{}", newest.size())));
        let client = server.device_client(Some(&identity));
        for id in ["1", "@1", "system@", "system@-1", "system@+1", "system@1;a@2", "../@1"] {
            let answer = client.send("GET", "/v1/feed", &[("last-event-id", id)], None).await;
            answer.refused(400, "malformed_request");
        }
        client.get("/v1/feed?fleet=a").await.refused(400, "malformed_request");
    });
}

#[test]
fn what_was_not_granted_is_not_there_and_only_gateways_and_services_may_ask() {
    let server = shared();
    run(async {
        let (fleet, other) = (server.fleet(json!({"max_age_seconds": 60})).await, server.fleet(json!({})).await);
        let (identity, _) = gateway(&server, "feed-grants", json!([fleet])).await;
        let client = server.device_client(Some(&identity));
        let told = client.get("/v1/ledgers").await.is(200);
        assert_eq!(told.header("cache-control"), "no-store");
        let told = told.json();
        assert_eq!(told["trust_domain"], "fleet.test");
        let ledgers: Vec<_> =
            told["ledgers"].as_array().unwrap().iter().map(|l| (l["ledger"].clone(), l["max_age"].clone())).collect();
        assert_eq!(ledgers, [("system".into(), 60.into()), (fleet.as_str().into(), 60.into())]);

        let some = "ab".repeat(32);
        let paths = |ledger: &str| {
            ["checkpoint", "tile/0/000.p/1", "tile/entries/000.p/1", "tile/details/000.p/1", "attributes"]
                .map(|what| format!("/v1/ledgers/{ledger}/{what}"))
        };
        let everything =
            paths(&fleet).into_iter().chain(["/v1/ledgers".into(), "/v1/feed".into(), format!("/v1/authorities/{some}")]);
        let device = Device::good(&server, &fleet, "curious").await;
        let (viewer, _) = operator(&server, "feed-curious", fleetmark_domain::Role::Owner, Value::Null).await;
        for path in everything {
            for identity in [&device.identity, &viewer] {
                server.device_client(Some(identity)).get(&path).await.refused(403, "wrong_kind");
            }
            server.device_client(None).get(&path).await.refused(401, "certificate_required");
        }
        for ledger in [other.as_str(), "no-such-fleet", "..", "%00"] {
            for path in paths(ledger).into_iter().chain([format!("/v1/feed?ledger={ledger}")]) {
                if !path.contains("/../") {
                    client.get(&path).await.refused(404, "not_found");
                }
            }
        }
        let service = member(&server, "services", "feed-service").await;
        server.device_client(Some(&service)).get(&paths(&other)[0]).await.is(200);

        // The system's details are withheld; the fleet's authority is named, another fleet's is not.
        let size = head(&client, "system").await.head.size;
        let path = format!("/v1/ledgers/system/tile/details/{}", place(0, size.min(255)));
        let details = unbundle(&client.get(&path).await.is(200).body);
        assert!(details.iter().all(Vec::is_empty) && details.len() > 5);
        let all = server.owner().get("/v1/authorities").await.is(200).json();
        let mut seen = 0;
        for authority in all["items"].as_array().or(all.as_array()).unwrap() {
            let fingerprint = text(authority, "fingerprint");
            let answer = client.get(&format!("/v1/authorities/{fingerprint}")).await;
            if authority["fleet"].is_null() || authority["fleet"] == fleet.as_str() {
                assert_eq!(crate::harness::device::sha256(&answer.is(200).body), fingerprint);
                seen += 1;
            } else {
                answer.refused(404, "not_found");
            }
        }
        assert_eq!(seen, 5, "{all}");
    });
}

/// The stranger's tree over the same entries.
struct Stranger(Vec<tlog_tiles::Hash>);

impl tlog_tiles::HashReader for Stranger {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
        Ok(indexes.iter().map(|index| self.0[usize::try_from(*index).unwrap()]).collect())
    }
}

#[test]
fn tiles_bundles_and_checkpoint_agree_with_a_stranger() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let (identity, _) = gateway(&server, "feed-tiles", json!([fleet])).await;
        let client = server.device_client(Some(&identity));
        let device = Device::good(&server, &fleet, "a").await;
        while head(&client, &fleet).await.head.size < 300 {
            device.act(&server, "hold", json!({})).await;
            device.act(&server, "release", json!({})).await;
        }
        let checkpoint = head(&client, &fleet).await;
        let size = checkpoint.head.size;
        let all = entries(&client, &fleet, size).await;
        let mut stranger = Stranger(Vec::new());
        for (position, entry) in all.iter().enumerate() {
            let new = tlog_tiles::stored_hashes(u64::try_from(position).unwrap(), entry, &stranger).unwrap();
            stranger.0.extend(new);
        }
        let root = tlog_tiles::tree_hash(size, &stranger).unwrap();
        assert_eq!(root.0, checkpoint.head.root.0);
        let stored = |level: u8, index: u64| stranger.0[usize::try_from(tlog_tiles::stored_hash_index(level, index)).unwrap()];
        for (level, tile, first, count) in [
            (0, place(0, size), 0, 256),
            (0, place(1, size), 256, size - 256),
            (0, "000.p/7".to_owned(), 0, 7),
            (1, "000.p/1".to_owned(), 0, 1),
        ] {
            let answer = client.get(&format!("/v1/ledgers/{fleet}/tile/{level}/{tile}")).await.is(200);
            let expected: Vec<u8> = (first..first + count).flat_map(|index| stored(level * 8, index).0).collect();
            assert_eq!(answer.body, expected, "{level}/{tile}");
            let keeps = answer.header("cache-control");
            assert_eq!(keeps == "private, max-age=31536000, immutable", count == 256, "{keeps}");
        }
        let beyond = size - 256 + 1;
        for path in [
            "0/001".to_owned(),
            format!("0/001.p/{beyond}"),
            "1/000".into(),
            "1/000.p/2".into(),
            "2/000.p/1".into(),
            "8/000.p/1".into(),
            "255/000.p/1".into(),
            "256/000.p/1".into(),
            "00/000".into(),
            "-1/000".into(),
            "0/x018/x446/x744/x073/x709/x551/615".into(),
            "0/0".into(),
            "0/000.p/0".into(),
            "0/000.p/256".into(),
            "entries/001".into(),
            format!("entries/001.p/{beyond}"),
            "details/001".into(),
            "other/000".into(),
            "entries/".into(),
            "0/".into(),
        ] {
            client.get(&format!("/v1/ledgers/{fleet}/tile/{path}")).await.refused(404, "not_found");
        }
    });
}

#[test]
fn sightings_confirm() {
    let server = shared();
    run(async {
        let (fleet, other) = (server.fleet(json!({})).await, server.fleet(json!({})).await);
        let (identity, _) = gateway(&server, "feed-sightings", json!([fleet])).await;
        let client = server.device_client(Some(&identity));
        let path = format!("/v1/ledgers/{fleet}/sightings");
        let seen = |device: &Device| json!({"serial": device.serial(), "fingerprint": device.fingerprint()});
        let new = Device::unconfirmed(&server, &fleet, "new").await;
        let good = Device::good(&server, &fleet, "good").await;
        let revoked = Device::good(&server, &fleet, "revoked").await;
        revoked.act(&server, "revoke", json!({})).await;
        let elsewhere = Device::unconfirmed(&server, &other, "elsewhere").await;
        let forged = json!({"serial": new.serial(), "fingerprint": good.fingerprint()});
        let report = json!({"sightings": [seen(&new), seen(&good), seen(&revoked), seen(&elsewhere), forged]});
        let told = client.post(&path, &report).await.is(200).json();
        assert_eq!((told["confirmed"].as_u64(), told["known"].as_u64()), (Some(1), Some(1)), "{told}");
        let refused: Vec<_> =
            told["refused"].as_array().unwrap().iter().map(|one| (text(one, "serial"), text(one, "code"))).collect();
        let expected = [(&revoked, "revoked"), (&elsewhere, "not_on_ledger"), (&new, "not_on_ledger")];
        assert_eq!(refused, expected.map(|(device, code)| (device.serial(), code.to_owned())));
        assert_eq!(new.standing(&server).await, "good");
        assert_eq!(elsewhere.standing(&server).await, "unconfirmed");
        let again = client.post(&path, &json!({"sightings": [seen(&new)]})).await.is(200).json();
        assert_eq!((again["confirmed"].as_u64(), again["known"].as_u64()), (Some(0), Some(1)), "{again}");

        let many = |count: usize| json!({"sightings": vec![seen(&new); count]});
        assert_eq!(client.post(&path, &many(1_000)).await.is(200).json()["known"], 1_000);
        client.post(&path, &many(1_001)).await.refused(422, "invalid_value");
        client.post(&path, &many(0)).await.refused(422, "invalid_value");
        client.post(&path, &many(4_000)).await.refused(413, "body_too_large");
        client.post(&path, &json!({"sightings": [{"serial": "zz", "fingerprint": "00"}]})).await.refused(422, "invalid_value");
        client.post(&format!("/v1/ledgers/{other}/sightings"), &report).await.refused(404, "not_found");
        server.device_client(Some(&good.identity)).post(&path, &report).await.refused(403, "wrong_kind");
    });
}

#[test]
fn attributes_are_told_page_by_page() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let (identity, _) = gateway(&server, "feed-attributes", json!([fleet])).await;
        let client = server.device_client(Some(&identity));
        for (name, attributes) in [("a", json!({"group": "x"})), ("b", json!({})), ("c", json!({"group": "y", "site": "z"}))] {
            let body = json!({"name": name, "attributes": attributes});
            server.owner().post(&format!("/v1/fleets/{fleet}/devices"), &body).await.is(201);
        }
        let path = format!("/v1/ledgers/{fleet}/attributes");
        let (mut after, mut seen, mut pages) = (0, Vec::new(), 0);
        loop {
            let page = client.get(&format!("{path}?after={after}&limit=2")).await.is(200).json();
            seen.extend(page["subjects"].as_array().unwrap().iter().map(|one| one["attributes"].clone()));
            pages += 1;
            match page["next"].as_u64() {
                Some(next) => after = next,
                None => break,
            }
        }
        assert_eq!((seen, pages), (vec![json!({"group": "x"}), json!({"group": "y", "site": "z"})], 2));
        assert_eq!(client.get("/v1/ledgers/system/attributes").await.is(200).json(), json!({"subjects": [], "next": null}));
        for query in ["?limit=0", "?limit=1001"] {
            client.get(&format!("{path}{query}")).await.refused(422, "invalid_value");
        }
        client.get(&format!("{path}?before=1")).await.refused(400, "malformed_request");
    });
}

#[test]
fn a_revoked_gateway_loses_its_feed_and_one_has_four_streams_at_most() {
    let server = shared();
    run(async {
        let (identity, answer) = gateway(&server, "feed-ends", json!([])).await;
        let mut feeds = Vec::new();
        for _ in 0..4 {
            feeds.push(Feed::open(&server, &identity, "?ledger=system", None).await);
        }
        let client = server.device_client(Some(&identity));
        client.get("/v1/feed").await.refused(429, "rate_limited");
        drop(feeds.pop());
        feeds.push(
            until("a stream's place is given back", 20, || async {
                Feed::try_open(&server, &identity, "?ledger=system", None).await.ok()
            })
            .await,
        );
        let path = format!("/v1/certificates/{}/revoke", text(&answer, "serial"));
        server.owner().post(&path, &json!({})).await.is(200);
        for feed in &mut feeds {
            feed.ends().await;
        }
        assert!(server.metric("fleetmark_feed_ended_total", &[("reason", "revoked")]).await >= 4.0);
        client.get("/v1/feed").await.refused(403, "revoked");
    });
}

#[test]
fn a_change_of_grants_ends_the_stream() {
    let server = shared();
    run(async {
        let (fleet, other) = (server.fleet(json!({})).await, server.fleet(json!({})).await);
        let (identity, _) = gateway(&server, "feed-regrant", json!([fleet])).await;
        let mut all = Feed::open(&server, &identity, "", None).await;
        let mut one = Feed::open(&server, &identity, &format!("?ledger={fleet}"), None).await;
        let path = "/v1/gateways/feed-regrant";
        let member = server.owner().get(path).await.is(200);
        let etag = member.header("etag").to_owned();
        server.owner().patch(path, &[("if-match", &etag)], &json!({"fleets": [fleet, other]})).await.is(200);
        all.ends().await;
        let mut all = Feed::open(&server, &identity, "", None).await;
        all.find("checkpoint", &other).await;
        // Who follows what it may still follow goes on.
        one.find("checkpoint", &fleet).await;
        let device = Device::good(&server, &fleet, "a").await;
        device.act(&server, "hold", json!({})).await;
        one.find("entry", &fleet).await;
    });
}

#[test]
fn a_follower_that_does_not_read_is_dropped_and_a_stop_ends_the_others() {
    let mut server = Server::start(&[]);
    run(async {
        let fleet = server.fleet(json!({})).await;
        let (identity, _) = gateway(&server, "reader", json!([fleet])).await;
        let (sleeper, _) = gateway(&server, "sleeper", json!([fleet])).await;
        let mut reader = Feed::open(&server, &identity, &format!("?ledger={fleet}"), None).await;
        let asleep = Feed::open(&server, &sleeper, &format!("?ledger={fleet}"), None).await;
        assert!((server.metric("fleetmark_feed_followers", &[]).await - 2.0).abs() < 0.1);
        let device = Device::good(&server, &fleet, "a").await;
        let started = Instant::now();
        let mut held = 0;
        while server.metric("fleetmark_feed_followers", &[]).await > 1.5 {
            assert!(started.elapsed() < Duration::from_secs(120), "the sleeper is still there after {held} acts");
            for _ in 0..10 {
                device.act(&server, "hold", json!({})).await;
                device.act(&server, "release", json!({})).await;
                // Urgent entries are all told, in order, however many.
                reader.find("entry", &fleet).await;
                held += 1;
            }
        }
        drop(asleep);
        let ended = server.metric("fleetmark_feed_ended_total", &[]).await;
        assert!((ended - 1.0).abs() < 0.1, "{ended}");

        let started = Instant::now();
        let stopped = tokio::task::spawn_blocking(move || {
            let code = server.stop();
            (server, code)
        });
        reader.ends().await;
        let (stopped, code) = stopped.await.unwrap();
        assert_eq!(code, Some(0), "{}", stopped.log());
        println!("dropped after {held} acts; stopped in {:?}", started.elapsed());
    });
}

#[test]
fn a_checkpoint_comes_with_every_heartbeat() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let (identity, _) = gateway(&server, "feed-heartbeat", json!([fleet])).await;
        let client = server.device_client(Some(&identity));
        let ledgers = client.get("/v1/ledgers").await.is(200).json();
        let key = VerifierKey::from_vkey(ledgers["ledgers"][1]["key"].as_str().unwrap()).unwrap();
        assert_eq!(
            key.name,
            fleetmark_ledger::note::origin(&"fleet.test".parse().unwrap(), &LedgerName::Fleet(fleet.parse().unwrap()))
        );
        let mut feed = Feed::open(&server, &identity, &format!("?ledger={fleet}"), None).await;
        let mut times: Vec<Timestamp> = Vec::new();
        for _ in 0..3 {
            let event = feed.find("checkpoint", &fleet).await;
            let checkpoint = key.open(event.data["checkpoint"].as_str().unwrap()).unwrap();
            assert_eq!(checkpoint.head.size, event.size());
            times.push(checkpoint.at);
        }
        assert!(times.is_sorted() && times[2] > times[0], "{times:?}");
        // New entries that are not urgent are told too, by a checkpoint alone.
        let size = head(&client, &fleet).await.head.size;
        let _ = Device::unconfirmed(&server, &fleet, "quiet").await;
        loop {
            let event = feed.next().await.unwrap();
            assert_eq!(event.name, "checkpoint");
            if event.size() > size {
                break;
            }
        }
    });
}
