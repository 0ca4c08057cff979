//! Standing × view: what the server's verdict, its lists and its OCSP answers say of certificates in each standing, compared
//! with the domain's table, and read by strangers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fleetmark_domain::standing::Choices;
use fleetmark_domain::{RevocationReason, Sight, Standing, View};
use fleetmark_status::reason::Answer;
use serde_json::json;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::harness::forge::authority_id;
use crate::harness::openssl::{openssl, pem};
use crate::harness::{Device, Server, run, shared, until};
use crate::status_lists::Firmware;

/// What a list says: its number, and for each serial the reason's code.
pub struct List {
    pub number: u64,
    pub der: Vec<u8>,
    pub entries: BTreeMap<String, u8>,
}

/// Reads a list with x509-parser.
pub fn read_list(der: &[u8]) -> List {
    let (rest, list) = CertificateRevocationList::from_der(der).expect("a list");
    assert!(rest.is_empty());
    let number = list.crl_number().expect("a number").iter_u64_digits().next().unwrap_or(0);
    let entries = list.iter_revoked_certificates().map(|revoked| {
        // RFC 5280 5.3.1: a reason is left out where it is `unspecified`.
        (hex::encode(revoked.raw_serial()), revoked.reason_code().map_or(0, |(_, reason)| reason.0))
    });
    List { number, der: der.to_vec(), entries: entries.collect() }
}

/// The list of a fleet's authority.
pub async fn list(server: &Server, fleet: &str) -> List {
    let id = authority_id(server, "device", Some(fleet)).await;
    read_list(&server.public_client().get(&format!("/crl/{id}.crl")).await.is(200).body)
}

/// Waits until the fleet's list names this certificate, with this reason's code where one is given.
pub async fn listed_within(server: &Server, fleet: &str, serial: &str, code: Option<u8>) -> List {
    until("the list", 10, || async {
        let list = list(server, fleet).await;
        let found = list.entries.get(serial).copied();
        found.is_some_and(|found| code.is_none_or(|code| code == found)).then_some(list)
    })
    .await
}

/// What is at this path, once it has a date: what was made a moment ago has none, since another may be made in the same second.
pub async fn dated(server: &Server, path: &str) -> crate::harness::client::Answer {
    until("the date", 10, || async {
        let answer = server.public_client().get(path).await.is(200);
        (!answer.header("last-modified").is_empty()).then_some(answer)
    })
    .await
}

/// Files for openssl.
pub struct Strangers {
    root: PathBuf,
    issuer: PathBuf,
    url: String,
}

impl Strangers {
    pub async fn of(server: &Server, fleet: &str) -> Self {
        let id = authority_id(server, "device", Some(fleet)).await;
        let issuer = server.public_client().get(&format!("/ca/{id}.pem")).await.is(200).body;
        let root = server.public_client().get("/ca/root.pem").await.is(200).body;
        Self {
            root: server.write_scratch("root.pem", &root),
            issuer: server.write_scratch(&format!("issuer-{fleet}.pem"), &issuer),
            url: server.public_url("/ocsp"),
        }
    }

    /// What OCSP says, by openssl: `good`, `revoked` with its reason's code, or `unknown`.
    pub fn ocsp(&self, serial: &str, nonce: bool) -> String {
        let (root, issuer, serial) = (text(&self.root), text(&self.issuer), format!("0x{serial}"));
        let nonce = if nonce { "-nonce" } else { "-no_nonce" };
        let arguments = [
            "ocsp",
            "-issuer",
            issuer,
            "-serial",
            &serial,
            "-url",
            &self.url,
            "-CAfile",
            root,
            "-verify_other",
            issuer,
            nonce,
            "-resp_text",
        ];
        let (done, told) = openssl(&arguments, b"");
        assert!(done, "{told}");
        assert!(told.contains("Response verify OK"), "{told}");
        // openssl warns where an answer is without the nonce that was asked for.
        assert!(!told.contains("WARNING"), "{told}");
        let after = |label: &str| told.lines().find_map(|line| line.trim().strip_prefix(label));
        let status = after("Cert Status: ").expect("a status");
        match after("Revocation Reason: ").and_then(|reason| reason.rsplit_once("(0x")) {
            Some((_, code)) => format!("{status} {}", u8::from_str_radix(code.trim_end_matches(')'), 16).unwrap()),
            None => status.to_owned(),
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

const HOLD: u8 = 6;

/// One certificate in each standing.
async fn one_of_each(server: &Server, fleet: &str) -> Vec<(Device, Standing)> {
    let mut all = Vec::new();
    all.push((Device::unconfirmed(server, fleet, "unconfirmed").await, Standing::Unconfirmed));
    all.push((Device::good(server, fleet, "good").await, Standing::Good));
    let old = Device::good(server, fleet, "renewed").await;
    let new = old.renew(server).await;
    new.confirm(server).await.is(200);
    all.push((old, Standing::Superseded));
    all.push((new, Standing::Good));
    let held = Device::good(server, fleet, "held").await;
    held.act(server, "hold", json!({})).await;
    all.push((held, Standing::Held));
    let quarantined = Device::good(server, fleet, "quarantined").await;
    quarantined.act(server, "quarantine", json!({})).await;
    all.push((quarantined, Standing::Quarantined));
    for reason in RevocationReason::ALL {
        let device = Device::good(server, fleet, &format!("r{}", reason.code())).await;
        device.act(server, "revoke", json!({"reason": reason.as_str()})).await;
        all.push((device, Standing::Revoked(reason)));
    }
    all
}

#[test]
fn every_view_of_every_standing_agrees_with_the_table() {
    let server = shared();
    run(async {
        for chosen in [false, true] {
            let choices = Choices { list_superseded: chosen, list_quarantined: chosen };
            let choice = json!({"list_superseded": chosen, "list_quarantined": chosen, "blast_radius": 100});
            let fleet = server.fleet(choice).await;
            let all = one_of_each(&server, &fleet).await;
            let last = &all.last().unwrap().0;
            let list = listed_within(&server, &fleet, &last.serial(), None).await;
            let firmware = Firmware::of(&server, &fleet).await;
            let (_, status_list) = firmware.until(&server, last, Answer::NotGood).await;
            let strangers = Strangers::of(&server, &fleet).await;

            let (read, printed) = openssl(&["crl", "-inform", "DER", "-noout", "-text"], &list.der);
            assert!(read, "{printed}");
            let (verified, said) = openssl(&["crl", "-inform", "DER", "-noout", "-CAfile", text(&strangers.issuer)], &list.der);
            assert!(verified && said.contains("verify OK"), "{said}");

            let mut expected_entries = BTreeMap::new();
            for (device, standing) in &all {
                let serial = device.serial();
                assert_eq!(device.standing(&server).await, standing.as_str(), "{}", device.name);

                let by_ocsp = match standing.seen_by(View::Ocsp, false, choices) {
                    Sight::Good | Sight::Restricted | Sight::Refused => "good".to_owned(),
                    Sight::Held => format!("revoked {HOLD}"),
                    // RFC 6960 2.2: no reason where there is none to tell.
                    Sight::Revoked(RevocationReason::Unspecified) => "revoked".to_owned(),
                    Sight::Revoked(reason) => format!("revoked {}", reason.code()),
                };
                for nonce in [false, true] {
                    let told = strangers.ocsp(&serial, nonce);
                    let told = if told == "revoked 0" { "revoked".to_owned() } else { told };
                    assert_eq!(told, by_ocsp, "{} by OCSP, nonce {nonce}", device.name);
                }

                match standing.seen_by(View::Crl, false, choices) {
                    Sight::Good | Sight::Restricted | Sight::Refused => {
                        assert!(!printed.contains(&serial.to_uppercase()), "openssl reads {} on the list", device.name);
                    }
                    Sight::Held => {
                        expected_entries.insert(serial.clone(), HOLD);
                    }
                    Sight::Revoked(reason) => {
                        expected_entries.insert(serial.clone(), reason.code());
                        assert!(printed.contains(&serial.to_uppercase()), "openssl misses {} on the list", device.name);
                    }
                }

                let by_firmware = match standing.seen_by(View::StatusList, false, choices) {
                    Sight::Good | Sight::Restricted | Sight::Refused => Answer::Good,
                    Sight::Held | Sight::Revoked(_) => Answer::NotGood,
                };
                assert_eq!(firmware.read(&status_list, device).1, by_firmware, "{} on the status list", device.name);

                // Last, since a first use confirms an unconfirmed certificate.
                let by_server = match standing.seen_by(View::Verdict, false, choices) {
                    Sight::Good => "ok",
                    Sight::Restricted => "quarantined",
                    Sight::Held => "held",
                    Sight::Refused => "superseded",
                    Sight::Revoked(_) => "revoked",
                };
                assert_eq!(device.verdict(&server).await, by_server, "{} at the door", device.name);
            }
            assert_eq!(list.entries, expected_entries, "the list, by x509-parser");
        }
    });
}

#[test]
fn a_fleets_choice_to_list_superseded_certificates_holds_for_those_that_are_there() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let old = Device::good(&server, &fleet, "a").await;
        old.renew(&server).await.confirm(&server).await.is(200);
        let revoked = Device::good(&server, &fleet, "b").await;
        revoked.act(&server, "revoke", json!({})).await;
        let before = listed_within(&server, &fleet, &revoked.serial(), None).await;
        assert!(!before.entries.contains_key(&old.serial()), "listed without the choice");
        let strangers = Strangers::of(&server, &fleet).await;
        assert_eq!(strangers.ocsp(&old.serial(), false), "good");
        let path = format!("/v1/fleets/{fleet}");
        server.owner().patch(&path, &[], &json!({"list_superseded": true})).await.is(200);
        until("the choice on the list", 45, || async {
            list(&server, &fleet).await.entries.get(&old.serial()).is_some_and(|code| *code == 4).then_some(())
        })
        .await;
        assert_eq!(strangers.ocsp(&old.serial(), false), "revoked 4");
        server.owner().patch(&path, &[], &json!({"list_superseded": false})).await.is(200);
        until("the choice taken back", 45, || async {
            (!list(&server, &fleet).await.entries.contains_key(&old.serial())).then_some(())
        })
        .await;
    });
}

#[test]
fn ocsp_says_unknown_of_what_was_never_issued_and_good_only_of_what_was() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::good(&server, &fleet, "a").await;
        let strangers = Strangers::of(&server, &fleet).await;
        assert_eq!(strangers.ocsp(&device.serial(), true), "good");
        let real = device.serial();
        let other_random = format!("{}{}", &real[..18], "00".repeat(8));
        let next_index = format!("{}{:08x}{}", &real[..10], 60_000, &real[18..]);
        for never in [other_random, next_index, "01".repeat(17), "7f".into(), "42".repeat(20)] {
            for nonce in [false, true] {
                assert_eq!(strangers.ocsp(&never, nonce), "unknown", "{never}");
            }
        }
        // Of another fleet's certificate this authority knows nothing.
        let other = server.fleet(json!({})).await;
        let elsewhere = Device::good(&server, &other, "a").await;
        assert_eq!(strangers.ocsp(&elsewhere.serial(), true), "unknown");
    });
}

#[test]
fn an_ocsp_answer_follows_a_change_at_once() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::good(&server, &fleet, "a").await;
        let strangers = Strangers::of(&server, &fleet).await;
        for (act, expected) in [("hold", "revoked 6"), ("release", "good"), ("revoke", "revoked")] {
            // Asked before, so that an answer that was kept would be found out.
            strangers.ocsp(&device.serial(), false);
            device.act(&server, act, json!({})).await;
            let told = strangers.ocsp(&device.serial(), false);
            assert!(told == expected || (expected == "revoked" && told == "revoked 0"), "{act}: {told}");
        }
    });
}

#[test]
fn the_lists_number_rises_and_what_a_client_has_is_answered_with_304() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let id = authority_id(&server, "device", Some(&fleet)).await;
        let public = server.public_client();
        let mut number = list(&server, &fleet).await.number;
        for name in ["a", "b", "c"] {
            let device = Device::good(&server, &fleet, name).await;
            device.act(&server, "revoke", json!({})).await;
            let next = listed_within(&server, &fleet, &device.serial(), None).await.number;
            assert!(next > number, "{next} after {number}");
            number = next;
        }
        for file in [format!("{id}.crl"), format!("{id}.pem")] {
            let path = format!("/crl/{file}");
            let answer = dated(&server, &path).await;
            let (tag, modified) = (answer.header("etag").to_owned(), answer.header("last-modified").to_owned());
            assert!(!tag.is_empty() && !modified.is_empty() && answer.header("cache-control").contains("max-age="));
            let same = public.send("GET", &path, &[("if-none-match", &tag)], None).await.is(304);
            assert!(same.body.is_empty() && same.header("etag") == tag);
            public.send("GET", &path, &[("if-none-match", "\"another\"")], None).await.is(200);
            public.send("GET", &path, &[("if-modified-since", &modified)], None).await.is(304);
            // Another date, earlier or later, is another list's: a clock may have been set back.
            for other in ["Sun, 09 Sep 2001 01:46:40 GMT", "Fri, 31 Dec 2100 23:59:59 GMT"] {
                public.send("GET", &path, &[("if-modified-since", other)], None).await.is(200);
            }
            assert!(public.send("HEAD", &path, &[], None).await.is(200).body.is_empty());
        }
        // What is put together of several things changes when one leaves it, and keys change under one authority: no date tells that.
        let of_authority = [format!("/ca/{id}.crt"), format!("/status/{id}/signers.pem"), format!("/status/{id}/index.json")];
        let together = ["/ca/bundle.pem", "/ca/root.pem", "/crl/bundle.pem", "/crl/root.crl"].map(str::to_owned);
        for path in of_authority.into_iter().chain(together) {
            let late = [("if-modified-since", "Fri, 31 Dec 2100 23:59:59 GMT")];
            // What another test of this server does meanwhile changes some of them.
            until("the same again", 10, || async {
                let answer = public.send("GET", &path, &late, None).await.is(200);
                assert_eq!(answer.header("last-modified"), "", "{path}");
                let tag = answer.header("etag").to_owned();
                let again = public.send("GET", &path, &[("if-none-match", &tag)], None).await;
                (again.status == 304).then_some(())
            })
            .await;
        }
        let tag = public.get(&format!("/crl/{id}.crl")).await.header("etag").to_owned();
        let device = Device::good(&server, &fleet, "d").await;
        device.act(&server, "revoke", json!({})).await;
        listed_within(&server, &fleet, &device.serial(), None).await;
        public.send("GET", &format!("/crl/{id}.crl"), &[("if-none-match", &tag)], None).await.is(200);
        for missing in ["/crl/99999.crl", "/crl/x.crl", "/crl/01.crl", "/crl/bundle.crl", "/ca/99999.crt", "/crl/../keys"] {
            public.get(missing).await.refused(404, "not_found");
        }
    });
}

#[test]
fn openssl_with_the_bundles_accepts_the_good_and_refuses_the_revoked() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let good = Device::good(&server, &fleet, "good").await;
        let held = Device::good(&server, &fleet, "held").await;
        let revoked = Device::good(&server, &fleet, "revoked").await;
        held.act(&server, "hold", json!({})).await;
        revoked.act(&server, "revoke", json!({"reason": "keyCompromise"})).await;
        listed_within(&server, &fleet, &revoked.serial(), Some(1)).await;
        let public = server.public_client();
        let fetch = |path: &'static str, file: &'static str| {
            let (public, server) = (public.clone(), &server);
            async move { server.write_scratch(file, &public.get(path).await.is(200).body) }
        };
        let root = fetch("/ca/root.pem", "verify-root.pem").await;
        let authorities = fetch("/ca/bundle.pem", "verify-authorities.pem").await;
        let lists = fetch("/crl/bundle.pem", "verify-lists.pem").await;
        let judge = |device: &Device| {
            let certificate = pem("CERTIFICATE", device.identity.leaf());
            let file = server.write_scratch(&format!("verify-{}.pem", device.name), certificate.as_bytes());
            openssl(
                &[
                    "verify",
                    "-x509_strict",
                    "-purpose",
                    "sslclient",
                    "-crl_check_all",
                    "-CAfile",
                    text(&root),
                    "-untrusted",
                    text(&authorities),
                    "-CRLfile",
                    text(&lists),
                    text(&file),
                ],
                b"",
            )
        };
        let (accepted, said) = judge(&good);
        assert!(accepted, "{said}");
        for device in [&held, &revoked] {
            let (accepted, said) = judge(device);
            assert!(!accepted && said.contains("certificate revoked"), "{}: {said}", device.name);
        }
    });
}
