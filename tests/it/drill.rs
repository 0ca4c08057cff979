//! docs/runbooks/issuing-key-compromise.md, performed: a fleet behind our gateway, its issuing key in a thief's hands, and the way out;
//! and docs/runbooks/root-key-compromise.md, the same for a root's key. The commands are those of the runbooks, in their order.

use std::path::Path;

use serde_json::Value;

use crate::authorities::{Agent, active, authority_of, operator, read_bundles};
use crate::ceremony::{Ceremony, ROOTS, fleetmark};
use crate::harness::forge::{Stolen, Wanted, serial};
use crate::harness::gateway::Gateway;
use crate::harness::openssl::{openssl, pem};
use crate::harness::server::text;
use crate::harness::{Device, Identity, Key, Server, run, until};

/// A command of the runbook, as the runbook writes it: `FLEET`, `OLD` and `NEW` stand for what they are today.
fn step(server: &Server, line: &str, names: &[(&str, &str)]) -> Value {
    let runbook = include_str!("../../docs/runbooks/issuing-key-compromise.md");
    assert!(runbook.lines().any(|of_runbook| of_runbook == line), "the runbook has no line\n{line}");
    let mut words: Vec<_> = line.split(' ').skip(1).collect();
    for word in &mut words {
        *word = names.iter().find(|(name, _)| name == word).map_or(*word, |(_, is)| is);
    }
    let (done, said) = operator(server, &[&["--json"], &words[..]].concat());
    assert!(done, "{line}: {said}");
    serde_json::from_str(&said).unwrap_or(Value::Null)
}

/// Somebody without our gateway, who goes by chains, lists and OCSP alone, as openssl does: what it held of the authority before the
/// theft, beside what it fetches now.
struct Consumer<'a> {
    server: &'a Server,
    authority: Vec<u8>,
    list: Vec<u8>,
}

impl<'a> Consumer<'a> {
    async fn of(server: &'a Server, authority: &str) -> Self {
        let public = server.public_client();
        let certificate = public.get(&format!("/ca/{authority}.pem")).await.is(200).body;
        Self { server, authority: certificate, list: public.get(&format!("/crl/{authority}.pem")).await.is(200).body }
    }

    /// What it says to a chain with this certificate. Whoever shows it sends the authority's certificate along.
    async fn judges(&self, identity: &Identity) -> (bool, String) {
        let public = self.server.public_client();
        let fetch = async |path: &str| public.get(path).await.is(200).body;
        let file = |name: &str, octets: &[u8]| self.server.write_scratch(name, octets).display().to_string();
        let root = file("drill-root.pem", &fetch("/ca/root.pem").await);
        let authorities = file("drill-ca.pem", &[&self.authority[..], &fetch("/ca/bundle.pem").await].concat());
        let lists = file("drill-crl.pem", &[&self.list[..], &fetch("/crl/bundle.pem").await].concat());
        let leaf = file("drill-leaf.pem", pem("CERTIFICATE", identity.leaf()).as_bytes());
        let files = ["-CAfile", &root, "-untrusted", &authorities, "-CRLfile", &lists, &leaf];
        openssl(&[&["verify", "-purpose", "sslclient", "-crl_check_all"][..], &files].concat(), b"")
    }

    /// What OCSP tells it of a serial of this issuer.
    async fn asks(&self, issuer: &[u8], serial: &str) -> String {
        let root = self.server.public_client().get("/ca/root.pem").await.is(200).body;
        let file = |name: &str, octets: &[u8]| self.server.write_scratch(name, octets).display().to_string();
        let (root, issuer) = (file("drill-root.pem", &root), file("drill-issuer.pem", issuer));
        let (url, serial) = (self.server.public_url("/ocsp"), format!("0x{serial}"));
        let asked = ["ocsp", "-issuer", &issuer, "-serial", &serial, "-url", &url, "-no_nonce"];
        openssl(&[&asked[..], &["-CAfile", &root, "-verify_other", &issuer]].concat(), b"").1
    }
}

#[test]
fn a_fleet_outlives_the_theft_of_its_issuing_key() {
    let server = Server::start(&[]);
    run(async {
        let fleet = server.fleet(serde_json::json!({})).await;
        let mut devices = Vec::new();
        for name in ["pump-1", "pump-2", "pump-3"] {
            devices.push(Device::good(&server, &fleet, name).await);
        }
        let gateway = Gateway::start(&server, "gw-drill", &[&fleet]).await;
        let mut live = gateway.dial(&devices[0].identity).await.unwrap();

        // The theft: the key signs what the thief likes.
        let old = active(&server, "device", Some(&fleet)).await.to_string();
        let stolen = Stolen::take(&server, "device", Some(&fleet)).await;
        let copied = hex::decode(devices[0].serial()).unwrap();
        let epoch = u32::from_be_bytes(copied[1..5].try_into().unwrap());
        let forged: Vec<_> = [
            ("a fresh serial", "pump-9", serial(epoch, 9_000, [7; 8])),
            ("the next serial", "pump-4", serial(epoch, 3, [7; 8])),
            ("an exact copy of a good device's serial and names", "pump-1", copied),
        ]
        .map(|(what, name, serial)| (what, stolen.sign(&Wanted::device(&fleet, name, serial), &Key::new())))
        .into();
        let refused = async |when: &str| {
            for (what, identity) in &forged {
                assert!(!gateway.admits(identity).await, "{what} came in at the gateway, {when}");
                let verdict = gateway.verdict(identity.leaf()).await;
                assert_eq!(verdict["decision"], "deny", "{what}, {when}: {verdict}");
                let said = crate::harness::device::verdict(&server, identity, &fleet).await;
                assert!(said == "not_on_ledger" || said.starts_with("handshake"), "{what} at the device door, {when}: {said}");
            }
        };
        // The page says what the others do: they take all of it until step 5.
        let consumer = Consumer::of(&server, &old).await;
        let taken = async |when: &str| {
            for (what, identity) in &forged {
                let (accepted, said) = consumer.judges(identity).await;
                assert!(accepted, "{what}, {when}: {said}");
            }
        };
        taken("before anything was done").await;
        let (fresh, copied) = (hex::encode(serial(epoch, 9_000, [7; 8])), devices[0].serial());
        assert!(consumer.asks(&consumer.authority, &copied).await.contains(": good"), "a copy is as good as its original");
        assert!(consumer.asks(&consumer.authority, &fresh).await.contains(": unknown"), "never issued");
        // Before anybody does anything: the gateway holds every certificate's fingerprint.
        refused("before anything was done").await;
        assert_eq!(gateway.verdict(forged[2].1.leaf()).await["reason"], "not_on_ledger");
        assert!(gateway.metric("fleetmark_gateway_alarms_total", &[("alarm", "forged_certificate")]).await >= 1.0);

        let names = |new: &str| -> Vec<(String, String)> {
            [("FLEET", &*fleet), ("OLD", &old), ("NEW", new)].map(|(name, is)| (name.to_owned(), is.to_owned())).into()
        };
        let step = |line: &str, new: &str| {
            let names = names(new);
            let names: Vec<_> = names.iter().map(|(name, is)| (name.as_str(), is.as_str())).collect();
            step(&server, line, &names)
        };
        let prepared = step("fleetmark authority prepare device --fleet FLEET --note compromise", "");
        let new = prepared["id"].to_string();
        assert_eq!(text(&step("fleetmark authority activate NEW --note compromise", &new), "state"), "active");
        assert_eq!(text(&step("fleetmark authority show OLD", &new), "state"), "tainted");
        live.echo().await.unwrap();
        refused("with the old authority tainted").await;

        step("fleetmark fleet renewal-wave start FLEET --to-active-authority --rate 1000 --note compromise", &new);
        // Two devices move, as their agents do when they ask; the third is in a drawer.
        let mut moved = Vec::new();
        for device in &devices[..2] {
            let renewed = device.renew(&server).await;
            renewed.confirm(&server).await.is(200);
            assert_eq!(authority_of(&server, &renewed).await.to_string(), new);
            moved.push(renewed);
        }
        let progress = step("fleetmark fleet renewal-wave show FLEET", &new);
        assert_eq!((progress["waiting"].as_u64(), progress["renewed"].as_u64()), (Some(1), Some(2)), "{progress}");
        for device in &moved {
            gateway.says("allowed", &device.identity, 10).await;
            gateway.dial(&device.identity).await.unwrap();
        }
        let left = gateway.dial(&devices[2].identity).await.unwrap();
        refused("while the fleet moves").await;

        taken("while the fleet moves").await;
        let used = step("fleetmark authority use OLD", &new);
        assert_eq!(used["good"], 1, "{used}");
        let revoked = step("fleetmark authority revoke OLD --reason keyCompromise --force --note compromise", &new);
        assert_eq!(revoked["state"], "revoked");
        left.ends().await;
        until("the old authority's end at the gateway", 10, || async {
            (!gateway.admits(&devices[2].identity).await).then_some(())
        })
        .await;
        assert_eq!(gateway.verdict(devices[2].identity.leaf()).await["decision"], "deny");
        assert!(devices[2].verdict(&server).await.starts_with("handshake"), "at the device door");
        refused("with the old authority revoked").await;
        // Who goes by lists and OCSP is done with it too, as soon as it asks.
        for (what, identity) in forged.iter().map(|(what, identity)| (*what, identity)).chain([("a", &devices[2].identity)]) {
            let (accepted, said) = consumer.judges(identity).await;
            assert!(!accepted && said.contains("certificate revoked"), "{what}: {said}");
        }
        for serial in [&copied, &fresh] {
            let said = consumer.asks(&consumer.authority, serial).await;
            assert!(said.contains("unauthorized (6)"), "nobody answers for it: {said}");
        }
        let issuer = server.public_client().get(&format!("/ca/{new}.pem")).await.is(200).body;
        for device in &moved {
            let (accepted, said) = consumer.judges(&device.identity).await;
            assert!(accepted, "{}: {said}", device.name);
            let said = consumer.asks(&issuer, &device.serial()).await;
            assert!(said.contains("Response verify OK") && said.contains(": good"), "{}: {said}", device.name);
        }
        for device in &moved {
            gateway.says("allowed", &device.identity, 5).await;
            gateway.dial(&device.identity).await.unwrap();
            assert_eq!(device.verdict(&server).await, "ok");
        }
        step("fleetmark fleet renewal-wave stop FLEET", &new);

        // The one from the drawer comes back by an operator's word.
        let token = server.token(&fleet, "pump-3").await;
        let (client, key) = (server.device_client(None), Key::new());
        let answer = crate::harness::device::enroll(&client, &fleet, &token, &key, None).await.is(200).json();
        gateway.dial(&key.identity(&answer)).await.unwrap();
        step("fleetmark ledger verify system", &new);
        step("fleetmark ledger verify FLEET", &new);
    });
}

/// Those who perform docs/runbooks/root-key-compromise.md: at the server, and at the new root's machine.
struct Crew<'a> {
    ceremony: &'a Ceremony,
    names: Vec<(&'static str, String)>,
}

impl Crew<'_> {
    fn knows(&mut self, name: &'static str, is: &impl ToString) {
        self.names.push((name, is.to_string()));
    }

    /// Types a line of the runbook; exit code and what was said.
    fn types(&self, line: &str) -> (i32, String) {
        let runbook = include_str!("../../docs/runbooks/root-key-compromise.md");
        assert!(runbook.lines().any(|of_runbook| of_runbook == line), "the runbook has no line\n{line}");
        let is_file = |word: &str| Path::new(word).extension().is_some_and(|extension| extension == "json");
        let word = |word: &str| match self.names.iter().find(|(name, _)| *name == word) {
            Some((_, is)) => is.clone(),
            None if is_file(word) => self.ceremony.scratch(word),
            None => word.to_owned(),
        };
        let words: Vec<_> = line.split(' ').skip(1).map(word).collect();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        if words.contains(&"--dir") {
            // Whoever is at the root's machine says yes to what it shows.
            return fleetmark(&words, ROOTS, &"y\n".repeat(16));
        }
        self.ceremony.operator(&[&["--json"], &words[..]].concat())
    }

    /// The same, of a line that succeeds.
    fn does(&self, line: &str) -> Value {
        let (code, said) = self.types(line);
        assert_eq!(code, 0, "{line}: {said}");
        serde_json::from_str(&said).unwrap_or(Value::Null)
    }

    /// The same, of one that leaves a request for a root.
    fn asks(&self, line: &str) {
        let (code, said) = self.types(line);
        assert!(code == 1 && said.contains("waits_for_root"), "{line}: {said}");
    }
}

#[test]
fn an_installation_outlives_the_theft_of_its_roots_key() {
    let mut ceremony = Ceremony::whole();
    let fleet = "default";
    let old_root = run(crate::authorities::ca(&ceremony.server, "root.crt"));
    let pin = crate::harness::device::sha256(&old_root);
    let server = &ceremony.server;
    let agents = ["pump-1", "pump-2"].map(|name| {
        let agent = Agent::new(server, name);
        agent.enroll(server, fleet, &run(server.token(fleet, name)), &pin);
        agent
    });
    let mut gateway = run(Gateway::start(server, "gw-root-drill", &[fleet]));
    let device = run(Device::good(server, fleet, "pump-3"));
    run(async { gateway.says("allowed", &device.identity, 10).await });

    let dir = server.scratch("clean-safe").join("root");
    let mut crew = Crew { ceremony: &ceremony, names: Vec::new() };
    crew.knows("OLD", &run(active(server, "root", None)));
    crew.knows("FLEET", &fleet);
    crew.knows("DIR", &dir.display());
    crew.knows("NAME", &"Grace");

    assert_eq!(text(&crew.does("fleetmark authority taint OLD --emergency --note compromise"), "state"), "tainted");
    crew.asks("fleetmark authority prepare root --key elsewhere --note compromise");
    let waiting = run(server.owner().get("/v1/root/requests")).is(200).json();
    let new = text(&waiting["items"][0], "id").trim_start_matches("root-").to_owned();
    crew.knows("NEW", &new);
    crew.does("fleetmark root request --root NEW --out new-root-request.json");
    let (code, said) = {
        let file = ceremony.scratch("new-root-request.json");
        let request = serde_json::from_slice::<Value>(&std::fs::read(file).unwrap()).unwrap();
        assert_eq!(request["roots"], Value::Null, "the new root does not vouch for the old one: {request}");
        let line = "fleetmark root create --dir DIR --request new-root-request.json --out new-root-answer.json --by NAME --witness NAME";
        crew.types(line)
    };
    assert_eq!(code, 0, "{said}");
    let new_pem = std::fs::read(dir.join("root.pem")).unwrap();
    let new_root = x509_parser::pem::parse_x509_pem(&new_pem).unwrap().1.contents;
    crew.knows("PIN", &crate::harness::device::sha256(&new_root));
    crew.does("fleetmark root accept new-root-answer.json --root-fingerprint PIN");
    let prepared = crew.does("fleetmark authority prepare root --key elsewhere --note compromise");
    assert_eq!((text(&prepared, "state"), prepared["id"].to_string()), ("prepared".to_owned(), new.clone()));
    assert_eq!(text(&crew.does("fleetmark authority activate NEW --note compromise"), "state"), "active");
    // The bundle is the new root's word alone: nothing leads on from the old one.
    run(async {
        server.public_client().get(&format!("/v1/trust-bundle?from={pin}")).await.refused(404, "not_found");
        let said = read_bundles(server, &new_root, &dir.join("root.pem")).await;
        assert_eq!(said[0]["roots"].as_array().unwrap().len(), 2, "{said:?}");
    });

    crew.asks("fleetmark authority prepare device --fleet FLEET --note compromise");
    crew.does("fleetmark root request --out devices-request.json");
    let sign = "fleetmark root sign --dir DIR devices-request.json --out devices-answer.json --by NAME --witness NAME";
    assert_eq!(crew.types(sign).0, 0);
    crew.does("fleetmark root accept devices-answer.json");
    let devices = crew.does("fleetmark authority prepare device --fleet FLEET --note compromise");
    crew.knows("DEVICES", &devices["id"]);
    crew.does("fleetmark authority activate DEVICES --note compromise");
    crew.does("fleetmark fleet renewal-wave start FLEET --to-active-authority --rate 1000 --note compromise");
    // One device hears of the new root in time, with its new certificate; the other one lies in a drawer.
    assert_eq!(agents[0].does(&["renew", "--force"])["outcome"], "renewed");
    assert!(agents[0].roots().contains(std::str::from_utf8(&new_pem).unwrap().trim()));
    let moved = run(device.renew(server));
    run(async { moved.confirm(server).await.is(200) });
    crew.does("fleetmark fleet renewal-wave show FLEET");
    run(async { gateway.says("allowed", &moved.identity, 20).await });

    for kind in ["operator", "gateway", "service"] {
        crew.asks(&format!("fleetmark authority prepare {kind} --note compromise"));
    }
    crew.does("fleetmark root request --out others-request.json");
    let sign = "fleetmark root sign --dir DIR others-request.json --out others-answer.json --by NAME --witness NAME";
    assert_eq!(crew.types(sign).0, 0);
    crew.does("fleetmark root accept others-answer.json");
    for (kind, name) in [("operator", "OPERATORS"), ("gateway", "GATEWAYS"), ("service", "SERVICES")] {
        if kind == "service" {
            // The doors move last: who renewed knows both roots by then.
            crew.does("fleetmark operator renew");
            gateway.stop();
            gateway.renews_in(-1);
            run(gateway.begin());
            run(until("the gateway's new certificate", 30, || async {
                let used = crew.does("fleetmark authority use GATEWAYS");
                (used["good"] == 1).then_some(())
            }));
        }
        let made = crew.does(&format!("fleetmark authority prepare {kind} --note compromise"));
        crew.knows(name, &made["id"]);
        crew.does(&format!("fleetmark authority activate {name} --note compromise"));
    }
    let names = crew.names;
    ceremony.server.forget_owner();
    let crew = Crew { ceremony: &ceremony, names };
    let server = &ceremony.server;

    let revoked = crew.does("fleetmark authority revoke OLD --reason cACompromise --force --note compromise");
    assert_eq!(text(&revoked, "state"), "revoked");
    crew.does("fleetmark root request --out last-request.json");
    let sign = "fleetmark root sign --dir DIR last-request.json --out last-answer.json --by NAME --witness NAME";
    assert_eq!(crew.types(sign).0, 0);
    crew.does("fleetmark root accept last-answer.json");
    let waiting = run(server.owner().get("/v1/root/requests")).is(200).json();
    assert_eq!(waiting["items"], serde_json::json!([]));

    run(async {
        assert!(device.verdict(server).await.starts_with("handshake"), "what hangs from the old root is refused");
        assert_eq!(moved.verdict(server).await, "ok");
        // The gateway hears of it from doors that only the new root verifies.
        until("the old root's end at the gateway", 20, || async { (!gateway.admits(&device.identity).await).then_some(()) })
            .await;
        gateway.says("allowed", &moved.identity, 10).await;
        let said = read_bundles(server, &new_root, &dir.join("root.pem")).await;
        assert_eq!(said.last().unwrap()["revoked"][0]["fingerprint"], pin.as_str(), "{said:?}");
    });
    assert_eq!(agents[0].does(&["renew", "--force"])["outcome"], "renewed");
    // What was left behind believes nobody who is not under its root, and us not either.
    let (code, said) = agents[1].run(&["renew", "--force"]);
    assert_ne!(code, 0, "{said}");
    let (code, said) = agents[1].run(&["trust", "update"]);
    assert!(code != 0 && said["code"] == "trust_bundle_unavailable", "{said}");
    let again = Agent::new(server, "pump-2-by-hand");
    let new_pin = crate::harness::device::sha256(&new_root);
    assert_eq!(again.enroll(server, fleet, &run(server.token(fleet, "pump-2")), &new_pin)["outcome"], "enrolled");

    crew.does("fleetmark root verify --dir DIR");
    crew.does("fleetmark ledger verify system");
    crew.does("fleetmark ledger verify FLEET");
}
