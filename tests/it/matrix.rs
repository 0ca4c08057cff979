//! Caller × action × resource: every route of the admin door with every kind of caller, and every route of the device door with
//! no, wrong and ended credentials. The tables are printed; what is expected comes from the domain's own table.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleetmark::http::admin::ROUTES;
use fleetmark_domain::{Action, Role};
use rcgen::DnType;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::certificates::member;
use crate::harness::device::sha256;
use crate::harness::forge::{Maker, Stolen, Wanted, authority_id, serial};
use crate::harness::server::text;
use crate::harness::{Client, Connection, Device, Identity, Key, Server, handshake_ends, run, shared};

/// How a caller comes to the admin door.
enum Standing {
    /// Whose handshake ends.
    Outside,
    /// Refused by this name, whatever is asked.
    Refused(&'static str),
    /// An operator in good standing; granted this fleet alone, another alone, or all.
    Operator(Role, Grant),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Grant {
    All,
    This,
    Other,
}

struct Caller {
    name: String,
    standing: Standing,
    client: Client,
    identity: Option<Identity>,
}

/// Admits an operator and takes up the invitation.
pub async fn operator(server: &Server, name: &str, role: Role, fleets: Value) -> (Identity, Value) {
    let body = json!({"name": name, "role": role.as_str(), "fleets": fleets});
    let admitted = server.owner().post("/v1/operators", &body).await.is(201).json();
    accept(server, &text(&admitted, "token")).await
}

/// Takes up an invitation with a new key.
pub async fn accept(server: &Server, token: &str) -> (Identity, Value) {
    let key = Key::new();
    let authorization = format!("Bearer {token}");
    let client = server.device_client(None);
    let answer = client.post_with("/v1/enroll", &[("authorization", &authorization)], &json!({"csr": key.csr()})).await;
    let answer = answer.is(200).json();
    (key.identity(&answer), answer)
}

async fn callers(server: &Server, fleet: &str, other: &str) -> Vec<Caller> {
    let mut callers = Vec::new();
    let mut add = |name: &str, standing, identity: Option<&Identity>| {
        callers.push(Caller {
            name: name.to_owned(),
            standing,
            client: server.admin_client(identity),
            identity: identity.cloned(),
        });
    };
    add("nobody", Standing::Outside, None);
    let device = Device::good(server, fleet, "caller").await;
    add("device", Standing::Outside, Some(&device.identity));
    add("gateway", Standing::Outside, Some(&member(server, "gateways", "matrix-gateway").await));
    add("service", Standing::Outside, Some(&member(server, "services", "matrix-service").await));
    let stolen = Stolen::take(server, "operator", None).await;
    let wanted = Wanted::of("spiffe://fleet.test/operator/admin", "fleet.test", "admin", serial(1, 1, [9; 8]));
    add("forged operator", Standing::Refused("not_on_ledger"), Some(&stolen.sign(&wanted, &Key::new())));
    let now = OffsetDateTime::now_utc();
    let expired = Wanted { from: now - Duration::days(9), to: now - Duration::days(1), ..wanted };
    add("expired operator", Standing::Outside, Some(&stolen.sign(&expired, &Key::new())));
    for (act, code) in [("revoke", "revoked"), ("hold", "held")] {
        let (identity, answer) = operator(server, &format!("matrix-{code}"), Role::Owner, Value::Null).await;
        let path = format!("/v1/certificates/{}/{act}", text(&answer, "serial"));
        server.owner().post(&path, &json!({})).await.is(200);
        add(&format!("{code} operator"), Standing::Refused(code), Some(&identity));
    }
    for (grant, word, fleets) in
        [(Grant::All, "all", Value::Null), (Grant::This, "this", json!([fleet])), (Grant::Other, "other", json!([other]))]
    {
        for role in Role::ALL {
            let name = format!("{role}, {word}");
            let (identity, _) = operator(server, &format!("matrix-{word}-{role}"), role, fleets.clone()).await;
            add(&name, Standing::Operator(role, grant), Some(&identity));
        }
    }
    callers
}

/// What requests are about. Those that are granted get something fresh; the refused ones all ask for the same victims.
struct Subjects {
    fleet: String,
    /// Another fleet, to which devices move.
    other: String,
    victim: Device,
    authority: u64,
    /// One of the fleet's that issues no more.
    tainted: u64,
    token: String,
    fresh: std::cell::Cell<u32>,
    endorsement_key: String,
    /// Another authority, and a certificate of it that was adopted.
    maker: Maker,
    adopted: String,
}

impl Subjects {
    fn next(&self) -> String {
        self.fresh.set(self.fresh.get() + 1);
        format!("matrix-{}", self.fresh.get())
    }

    /// A fleet of which nobody was told.
    async fn fresh_fleet(&self, server: &Server, is_fresh: bool) -> String {
        if !is_fresh {
            return self.fleet.clone();
        }
        let name = self.next();
        server.owner().post("/v1/fleets", &json!({"name": name})).await.is(201);
        name
    }

    async fn device(&self, server: &Server, is_fresh: bool) -> (String, String) {
        if !is_fresh {
            return (self.victim.name.clone(), self.victim.serial());
        }
        // The fleet's hook of another row answers nobody.
        server.owner().delete(&format!("/v1/fleets/{}/hook", self.fleet)).await;
        let device = Device::good(server, &self.fleet, &self.next()).await;
        (device.name.clone(), device.serial())
    }

    /// A request that waits for a person.
    fn waiting(&self, server: &Server) -> String {
        let id = format!("{:016x}", self.fresh.get() + 1);
        let values = format!("'{}', '{}'", self.fleet, self.next());
        let columns = "'', randomblob(32), 0, '', '', 'P-256', '', 0, NULL, NULL, 9999999999";
        crate::approval::sql(server, &format!("INSERT INTO enrollment_requests VALUES (0x{id}, {values}, {columns})"));
        id
    }

    /// An order of the first operator that waits for another one.
    fn order(&self, server: &Server) -> String {
        self.next();
        let by = "(SELECT min(id) FROM subjects WHERE kind = 3)";
        let values = format!("{}, '{}', 1, 3, NULL, '{{\"subjects\":[]}}', '', '', {by}, 0", self.fresh.get(), self.fleet);
        let rest = "NULL, NULL, NULL, 0, 9999999999, 0, 0, 0, 0, 0, 0, NULL, NULL, ''";
        crate::approval::sql(server, &format!("INSERT INTO revocations VALUES ({values}, {rest})"));
        format!("{:016x}", self.fresh.get())
    }

    async fn member(&self, server: &Server, kind: &str, is_fresh: bool) -> String {
        if !is_fresh {
            return "matrix-victim".to_owned();
        }
        let name = self.next();
        let mut body = json!({"name": name});
        if kind == "operators" {
            body["role"] = "viewer".into();
        }
        server.owner().post(&format!("/v1/{kind}"), &body).await.is(201);
        name
    }

    /// A claim group that lists a serial.
    async fn group(&self, server: &Server) -> String {
        let name = self.next();
        let groups = format!("/v1/fleets/{}/groups", self.fleet);
        server.owner().post(&groups, &json!({"name": name, "proof": "claim"})).await.is(201);
        let serials = format!("{groups}/{name}/serials");
        server.owner().send("PUT", &serials, &[("content-type", "text/csv")], Some(b"A-0".to_vec())).await.is(200);
        name
    }

    /// A certificate of the other authority of the fleet that was not adopted, in PEM.
    fn adoptable(&self) -> String {
        let device = self.maker.idevid(&Key::new(), |params| params.distinguished_name.push(DnType::CommonName, self.next()));
        crate::harness::openssl::pem("CERTIFICATE", device.leaf())
    }

    /// The fingerprint of one that was.
    async fn adopted(&self, server: &Server) -> String {
        let path = format!("/v1/fleets/{}/external-certificates?authority=matrix-victim", self.fleet);
        let media = [("content-type", "application/x-pem-file")];
        let imported = server.owner().send("POST", &path, &media, Some(self.adoptable().into_bytes())).await.is(200).json();
        assert_eq!(imported["adopted"], 1, "{imported}");
        text(&imported["certificates"][0], "fingerprint")
    }

    /// The request of a route, and whether it is about something of the fleet.
    async fn request(&self, server: &Server, method: &str, pattern: &str, is_fresh: bool) -> (String, Option<Value>, bool) {
        let fleet = &self.fleet;
        let none = json!({});
        let parts: Vec<_> = pattern.trim_start_matches('/').split('/').collect();
        match (method, parts.as_slice()) {
            (
                "GET",
                ["v1", "fleets" | "certificates" | "authorities" | "ledgers" | "whoami" | "status" | "openapi.json"]
                | ["metrics"],
            ) => (pattern.to_owned(), None, false),
            ("GET", ["v1", "operators" | "gateways" | "services"]) => (pattern.to_owned(), None, false),
            ("POST", ["v1", "fleets"]) => (pattern.to_owned(), Some(json!({"name": self.next()})), false),
            ("GET", ["v1", "fleets", "{fleet}"]) => (format!("/v1/fleets/{fleet}"), None, true),
            ("PATCH", ["v1", "fleets", "{fleet}"]) => {
                (format!("/v1/fleets/{fleet}"), Some(json!({"max_age_seconds": 600})), true)
            }
            ("POST", ["v1", "fleets", "{fleet}", "allowances"]) => {
                let allowance = json!({"operator": "matrix-victim", "devices": 1});
                (format!("/v1/fleets/{fleet}/allowances"), Some(allowance), true)
            }
            (_, ["v1", "fleets", "{fleet}", "requests", "{id}", ..]) => {
                let id = if is_fresh { self.waiting(server) } else { "0".repeat(16) };
                (pattern.replace("{fleet}", fleet).replace("{id}", &id), (method != "GET").then_some(none), true)
            }
            (_, ["v1", "fleets", "{fleet}", "hook", ..]) => {
                let path = pattern.replace("{fleet}", fleet);
                let hook = json!({"url": "https://127.0.0.1:1/"});
                if is_fresh {
                    let json = [("content-type", "application/json")];
                    let body = Some(hook.to_string().into_bytes());
                    server.owner().send("PUT", &format!("/v1/fleets/{fleet}/hook"), &json, body).await.is(200);
                }
                (path, (method == "PUT").then_some(hook), true)
            }
            ("GET", ["v1", "fleets", "{fleet}", list @ ("tokens" | "devices" | "allowances" | "requests")]) => {
                (format!("/v1/fleets/{fleet}/{list}"), None, true)
            }
            (_, ["v1", "fleets", "{fleet}", "groups", rest @ ..]) => {
                let group = if is_fresh { self.group(server).await } else { "matrix-victim".to_owned() };
                let path = [&["/v1/fleets", fleet, "groups"], rest].concat().join("/").replace("{group}", &group);
                let body = match (method, rest) {
                    ("GET" | "DELETE", _) => None,
                    ("POST", []) => Some(json!({"name": self.next(), "proof": "claim"})),
                    ("PATCH", _) => Some(json!({"rules": {"quota": 7}})),
                    // A field of CSV, too.
                    ("PUT", _) => Some(json!("A-1")),
                    (_, [_, "claims"]) => Some(json!({"csr": Key::new().csr()})),
                    _ => Some(none),
                };
                (path.replace("{serial}", "A-0"), body, true)
            }
            ("GET", ["v1", "fleets", "{fleet}", list @ ("external-authorities" | "external-certificates")]) => {
                (format!("/v1/fleets/{fleet}/{list}"), None, true)
            }
            (_, ["v1", "fleets", "{fleet}", "external-authorities", rest @ ..]) => {
                let ca = Maker::new(&self.next()).line_pem();
                let body = json!({"name": self.next(), "ca": ca});
                let path = format!("/v1/fleets/{fleet}/external-authorities");
                if rest.is_empty() {
                    return (path, Some(body), true);
                }
                let name = if is_fresh {
                    text(&server.owner().post(&path, &body).await.is(201).json(), "name")
                } else {
                    "matrix-victim".to_owned()
                };
                let body = match method {
                    "GET" => None,
                    "PUT" => Some(json!({"rules": {"usages": ["1.2.3"]}})),
                    _ => Some(none),
                };
                ([&*path, &rest.join("/").replace("{authority}", &name)].join("/"), body, true)
            }
            ("POST", ["v1", "fleets", "{fleet}", "external-certificates"]) => {
                // What is no certificate is refused after the question who may import.
                (
                    format!("/v1/fleets/{fleet}/external-certificates?authority=matrix-victim"),
                    Some(json!(self.adoptable())),
                    true,
                )
            }
            (_, ["v1", "fleets", "{fleet}", "expected-certificates", rest @ ..]) => {
                let path = format!("/v1/fleets/{fleet}/expected-certificates");
                let fingerprint = sha256(self.next().as_bytes());
                let expect = format!("{path}?authority=matrix-victim");
                match method {
                    "GET" => (path, None, true),
                    "POST" => (expect, Some(json!(fingerprint)), true),
                    _ => {
                        assert_eq!(rest, ["{fingerprint}"]);
                        if is_fresh {
                            let csv = [("content-type", "text/csv")];
                            let body = Some(fingerprint.clone().into_bytes());
                            server.owner().send("POST", &expect, &csv, body).await.is(200);
                        }
                        (format!("{path}/{fingerprint}"), None, true)
                    }
                }
            }
            (_, ["v1", "fleets", "{fleet}", "external-certificates", "{fingerprint}", rest @ ..]) => {
                let fingerprint = if is_fresh { self.adopted(server).await } else { self.adopted.clone() };
                let path = [&["/v1/fleets", fleet, "external-certificates", &fingerprint], rest].concat().join("/");
                (path, (method != "GET").then_some(none), true)
            }
            ("POST", ["v1", "fleets", "{fleet}", "tokens"]) => (format!("/v1/fleets/{fleet}/tokens"), Some(none), true),
            ("DELETE", ["v1", "fleets", "{fleet}", "tokens", "{id}"]) => {
                let token = if is_fresh { text(&server.mint(fleet, json!({})).await, "id") } else { self.token.clone() };
                (format!("/v1/fleets/{fleet}/tokens/{token}"), None, true)
            }
            ("POST", ["v1", "fleets", "{fleet}", "devices"]) => {
                (format!("/v1/fleets/{fleet}/devices"), Some(json!({"name": self.next()})), true)
            }
            ("POST", ["v1", "fleets", "{fleet}", "devices", "import"]) => {
                (format!("/v1/fleets/{fleet}/devices/import"), Some(json!({"name": self.next()})), true)
            }
            ("GET", ["v1", "fleets", "{fleet}", "devices", "{name}"]) => {
                (format!("/v1/fleets/{fleet}/devices/{}", self.victim.name), None, true)
            }
            ("PATCH", ["v1", "fleets", "{fleet}", "devices", "{name}"]) => {
                let (name, _) = self.device(server, is_fresh).await;
                (format!("/v1/fleets/{fleet}/devices/{name}"), Some(json!({"attributes": {"changed": "yes"}})), true)
            }
            ("POST", ["v1", "fleets", "{fleet}", "renewal-wave", act]) => {
                let path = format!("/v1/fleets/{fleet}/renewal-wave");
                if is_fresh {
                    server.owner().post_as("PUT", &path, &wave()).await.is(200);
                }
                (format!("{path}/{act}"), None, true)
            }
            ("POST", ["v1", "authorities"]) => {
                (pattern.to_owned(), Some(json!({"kind": "device", "fleet": self.fresh_fleet(server, is_fresh).await})), false)
            }
            ("POST", ["v1", "authorities", "{id}", act]) => {
                // Granted, another one each time; what is tainted already is tainted again.
                let (id, of_fleet) = match *act {
                    "taint" => (self.tainted, true),
                    _ if !is_fresh => (self.tainted, false),
                    act => {
                        let other = self.fresh_fleet(server, true).await;
                        let id = crate::authorities::prepare(server, "device", Some(&other)).await;
                        assert!(matches!(act, "activate" | "revoke"), "{act}");
                        (id, false)
                    }
                };
                (format!("/v1/authorities/{id}/{act}"), Some(none), of_fleet)
            }
            ("GET", ["v1", "authorities", "{id}", "use"]) => (format!("/v1/authorities/{}/use", self.authority), None, true),
            ("PUT", ["v1", "fleets", "{fleet}", "renewal-wave"]) => {
                (format!("/v1/fleets/{fleet}/renewal-wave"), Some(wave()), true)
            }
            ("GET" | "DELETE", ["v1", "fleets", "{fleet}", "renewal-wave"]) => {
                let path = format!("/v1/fleets/{fleet}/renewal-wave");
                if is_fresh {
                    server.owner().post_as("PUT", &path, &wave()).await.is(200);
                }
                (path, None, true)
            }
            ("POST", ["v1", "fleets", "{fleet}", "devices", "{name}", act @ ("move" | "cancel-move" | "readmit")]) => {
                let (name, _) = self.device(server, is_fresh).await;
                let path = format!("/v1/fleets/{fleet}/devices/{name}");
                let body = if *act == "move" { json!({"to": self.other}) } else { none };
                if is_fresh && *act == "cancel-move" {
                    server.owner().post(&format!("{path}/move"), &json!({"to": self.other})).await.is(201);
                }
                if is_fresh && *act == "readmit" {
                    server.owner().post(&format!("{path}/retire"), &json!({})).await.is(200);
                }
                (format!("{path}/{act}"), Some(body), true)
            }
            ("GET", ["v1", "fleets", "{fleet}", "devices", "{name}", "hardware"]) => {
                (format!("/v1/fleets/{fleet}/devices/{}/hardware", self.victim.name), None, true)
            }
            ("POST", ["v1", "fleets", "{fleet}", "devices", "{name}", "hardware"]) => {
                let (name, _) = self.device(server, is_fresh).await;
                let body = json!({"endorsement_key": endorsement_key()});
                (format!("/v1/fleets/{fleet}/devices/{name}/hardware"), Some(body), true)
            }
            ("DELETE", ["v1", "fleets", "{fleet}", "devices", "{name}", "hardware", "{id}"]) => {
                let (name, _) = self.device(server, is_fresh).await;
                let path = format!("/v1/fleets/{fleet}/devices/{name}/hardware");
                // One and the same where nothing is to be taken: a device has at most 16 pieces.
                let key = if is_fresh { endorsement_key() } else { self.endorsement_key.clone() };
                let added = server.owner().post(&path, &json!({"endorsement_key": key})).await.is(201).json();
                (format!("{path}/{}", text(&added, "id")), None, true)
            }
            ("POST", ["v1", "fleets", "{fleet}", "devices", "{name}", act]) => {
                let (name, _) = self.device(server, is_fresh).await;
                (format!("/v1/fleets/{fleet}/devices/{name}/{act}"), Some(none), true)
            }
            ("GET", ["v1", "certificates", "{serial}", rest @ ..]) => {
                let path = [&["/v1/certificates", &*self.victim.serial()], rest].concat().join("/");
                (path, None, true)
            }
            ("POST", ["v1", "certificates", "{serial}", act]) => {
                let (_, serial) = self.device(server, is_fresh).await;
                (format!("/v1/certificates/{serial}/{act}"), Some(none), true)
            }
            ("GET", ["v1", "revocations"]) => (pattern.to_owned(), None, false),
            ("POST", ["v1", "revocations"] | ["v1", "revocations", "dry-run"]) => {
                let (name, _) = self.device(server, is_fresh).await;
                (pattern.to_owned(), Some(json!({"fleet": fleet, "act": "hold", "select": {"devices": [name]}})), true)
            }
            (_, ["v1", "revocations", "{id}", rest @ ..]) => {
                let path = [&["/v1/revocations", &*self.order(server)], rest].concat().join("/");
                (path, (method == "POST").then_some(none), true)
            }
            ("POST", ["v1", "operators"]) => (pattern.to_owned(), Some(json!({"name": self.next(), "role": "viewer"})), false),
            ("POST", ["v1", "backups"]) => (pattern.to_owned(), None, false),
            ("POST", ["v1", "gateways" | "services"]) => (pattern.to_owned(), Some(json!({"name": self.next()})), false),
            ("GET", ["v1", kind @ ("operators" | "gateways" | "services"), "{name}"]) => {
                (format!("/v1/{kind}/matrix-victim"), None, false)
            }
            ("PATCH", ["v1", kind @ ("operators" | "gateways" | "services"), "{name}"]) => {
                (format!("/v1/{kind}/{}", self.member(server, kind, is_fresh).await), Some(json!({"fleets": []})), false)
            }
            ("POST", ["v1", kind @ ("operators" | "gateways" | "services"), "{name}", act]) => {
                (format!("/v1/{kind}/{}/{act}", self.member(server, kind, is_fresh).await), Some(none), false)
            }
            ("GET", ["v1", "authorities", "{id}"]) => (format!("/v1/authorities/{}", self.authority), None, true),
            ("GET", ["v1", "ledgers", "{ledger}", rest @ ..]) => {
                let query = match rest {
                    ["proofs", "inclusion"] => "?index=0&size=2",
                    ["proofs", "consistency"] => "?old=1&new=2",
                    _ => "",
                };
                (format!("{}{query}", [&["/v1/ledgers", fleet], rest].concat().join("/")), None, true)
            }
            ("GET", ["v1", "blocked-keys"]) => (pattern.to_owned(), None, false),
            ("GET", ["v1", "root", _]) => (pattern.to_owned(), None, false),
            // Whose right suffices is told that this is no answer, and no list.
            ("POST", ["v1", "root", "answers"]) => {
                let parts = ["format", "root", "list", "record", "signature"].map(|part| (part.to_owned(), json!("none")));
                let mut body = serde_json::Map::from_iter(parts);
                body.insert("authorities".to_owned(), json!([]));
                (pattern.to_owned(), Some(body.into()), false)
            }
            ("POST", ["v1", "root", "lists"]) => (pattern.to_owned(), Some(json!({"lists": "none"})), false),
            ("POST", ["v1", "blocked-keys"]) => {
                (pattern.to_owned(), Some(json!({"keys": [sha256(self.next().as_bytes())]})), false)
            }
            ("DELETE", ["v1", "blocked-keys", "{key}"]) => {
                let key = sha256(self.next().as_bytes());
                if is_fresh {
                    server.owner().post("/v1/blocked-keys", &json!({"keys": [key]})).await.is(200);
                }
                (format!("/v1/blocked-keys/{key}"), None, false)
            }
            ("GET", ["v1", "policies", "schema"]) => (pattern.to_owned(), None, false),
            ("POST", ["v1", "policies", "check"]) => (pattern.to_owned(), Some(json!({"text": ""})), false),
            ("GET", ["v1", "policies", "{scope}", ..]) => (of_first_set(pattern, fleet), None, true),
            ("POST", ["v1", "policies", "{scope}", "versions"]) => {
                (of_first_set(pattern, fleet), Some(json!({"text": "", "note": self.next()})), true)
            }
            ("POST", ["v1", "policies", "{scope}", "versions", "{version}", "activate"]) => {
                (of_first_set(pattern, fleet), Some(none), true)
            }
            ("POST", ["v1", "policies", "{scope}", "test"]) => {
                let question = json!({"principal": format!("spiffe://fleet.test/device/{fleet}/a"), "action": "Connect"});
                (of_first_set(pattern, fleet), Some(question), true)
            }
            _ => panic!("the route {method} {pattern} is missing from the table of this test"),
        }
    }
}

/// A fresh P-256 key, in PEM: what an operator registers is no TPM's by its looks.
fn endorsement_key() -> String {
    Key::new().0.public_key_pem()
}

/// The path of a fleet's first policy set.
fn of_first_set(pattern: &str, fleet: &str) -> String {
    pattern.replace("{scope}", fleet).replace("{version}", "1")
}

/// A renewal wave to start.
fn wave() -> Value {
    let until = OffsetDateTime::now_utc() + Duration::days(1);
    json!({"until": until.format(&time::format_description::well_known::Rfc3339).unwrap()})
}

/// What the domain says: allowed, not permitted, or not there.
fn expected(role: Role, grant: Grant, action: Action, pattern: &str, is_of_fleet: bool) -> &'static str {
    // Who moves a device reaches both fleets; what it may not do to the first is told first.
    let moves_out_of_reach = pattern.ends_with("/move") && grant == Grant::This && role.may(action);
    if moves_out_of_reach || is_of_fleet && grant == Grant::Other {
        "404"
    } else if role.may(action) && (grant == Grant::All || !action.is_installation_wide()) {
        "yes"
    } else {
        "403"
    }
}

#[test]
fn every_route_of_the_admin_door_answers_every_caller_as_the_domain_says() {
    let server = shared();
    run(async {
        let (fleet, other) = (server.fleet(json!({})).await, server.fleet(json!({})).await);
        let callers = callers(&server, &fleet, &other).await;
        let victim = Device::good(&server, &fleet, "victim").await;
        for kind in ["operators", "gateways", "services"] {
            let mut body = json!({"name": "matrix-victim"});
            if kind == "operators" {
                body["role"] = "viewer".into();
            }
            server.owner().post(&format!("/v1/{kind}"), &body).await.is(201);
        }
        let group = json!({"name": "matrix-victim", "proof": "claim"});
        server.owner().post(&format!("/v1/fleets/{fleet}/groups"), &group).await.is(201);
        let maker = Maker::new("matrix");
        let external = json!({"name": "matrix-victim", "ca": maker.line_pem(), "rules": {"adopt": {"when": "listed"}}});
        server.owner().post(&format!("/v1/fleets/{fleet}/external-authorities"), &external).await.is(201);
        let tainted = crate::authorities::active(&server, "device", Some(&fleet)).await;
        crate::authorities::replace(&server, "device", Some(&fleet)).await;
        let mut subjects = Subjects {
            maker,
            adopted: String::new(),
            tainted,
            authority: authority_id(&server, "device", Some(&fleet)).await,
            token: text(&server.mint(&fleet, json!({})).await, "id"),
            fresh: std::cell::Cell::new(0),
            endorsement_key: endorsement_key(),
            fleet,
            other,
            victim,
        };
        subjects.adopted = subjects.adopted(&server).await;
        let mut wrong = Vec::new();
        for (number, caller) in callers.iter().enumerate() {
            println!("{:>2}: {}", number + 1, caller.name);
        }
        for (method, pattern, action) in ROUTES {
            let mut row = String::new();
            for caller in &callers {
                let (wanted, is_fresh) = match caller.standing {
                    Standing::Outside => ("tls", false),
                    Standing::Refused(code) => (code, false),
                    Standing::Operator(role, grant) => {
                        let (_, _, is_of_fleet) = subjects.request(&server, method, pattern, false).await;
                        let wanted = expected(role, grant, *action, pattern, is_of_fleet);
                        (wanted, wanted == "yes")
                    }
                };
                let (path, body, _) = subjects.request(&server, method, pattern, is_fresh).await;
                let told = match caller.standing {
                    Standing::Outside => {
                        let config = std::sync::Arc::new(server.trust().config(caller.identity.as_ref()));
                        let told = handshake_ends(server.admin_port, config).await;
                        if told.contains("alert") { "tls".to_owned() } else { told }
                    }
                    _ => ask(&caller.client, method, &path, body.as_ref()).await,
                };
                if told != wanted {
                    wrong.push(format!("{method} {path} by {}: {told} instead of {wanted}", caller.name));
                }
                row += &format!(" {told:>4.4}");
            }
            println!("{:<60}{row}", format!("{method} {pattern} {action:?}"));
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));

        // Whoever was refused changed nothing.
        let owner = server.owner();
        let fleet = &subjects.fleet;
        let device = owner.get(&format!("/v1/fleets/{fleet}/devices/victim")).await.is(200).json();
        assert_eq!((device["standing"].as_str(), &device["attributes"]), (Some("good"), &json!({})));
        let group = owner.get(&format!("/v1/fleets/{fleet}/groups/matrix-victim")).await.is(200).json();
        assert_eq!((group["state"].as_str(), &group["version"], &group["claim"]), (Some("enabled"), &json!(1), &Value::Null));
        let tokens = owner.get(&format!("/v1/fleets/{fleet}/tokens?limit=500")).await.is(200).json();
        let token = tokens["items"].as_array().unwrap().iter().find(|token| token["id"] == subjects.token).unwrap();
        assert_eq!(token["state"], "fresh");
        for kind in ["operators", "gateways", "services"] {
            let member = owner.get(&format!("/v1/{kind}/matrix-victim")).await.is(200).json();
            assert_eq!(
                (member["state"].as_str(), &member["fleets"], &member["version"]),
                (Some("registered"), &Value::Null, &json!(1))
            );
        }
    });
}

/// `yes`, `tls`, `403`, `404`, or the code of another refusal.
async fn ask(client: &Client, method: &str, path: &str, body: Option<&Value>) -> String {
    let media_type = match path {
        _ if path.ends_with("/devices/import") => "application/jsonl",
        _ if path.contains("/external-certificates?") => "application/x-pem-file",
        _ if path.ends_with("/serials") || path.contains("/expected-certificates?") => "text/csv",
        _ => "application/json",
    };
    let headers: &[(&str, &str)] = if body.is_some() { &[("content-type", media_type)] } else { &[] };
    let body = body.map(|body| match body {
        Value::String(text) if media_type == "application/x-pem-file" || path.contains("/expected-certificates?") => {
            text.clone().into_bytes()
        }
        body => body.to_string().into_bytes(),
    });
    match client.try_send(method, path, headers, body).await {
        Err(error) => error,
        Ok(answer) if matches!(answer.status, 200 | 201) => "yes".to_owned(),
        Ok(answer) => match answer.code().as_str() {
            "not_permitted" => "403".to_owned(),
            // Asked after the right: there is no ceremony here.
            "root_answer_unreadable" | "root_list_invalid" => "yes".to_owned(),
            "fleet_unknown" | "not_found" => "404".to_owned(),
            "" => format!("{} without a code", answer.status),
            code => code.to_owned(),
        },
    }
}

#[test]
fn an_unknown_path_of_the_admin_door_tells_strangers_nothing() {
    let server = shared();
    run(async {
        let nobody = server.admin_client(None);
        for path in ["/", "/v1", "/v1/nothing", "/healthz", "/readyz"] {
            assert!(nobody.try_send("GET", path, &[], None).await.is_err(), "{path}");
            server.owner().get(path).await.refused(404, "not_found");
        }
        let answer = server.owner().send("PUT", "/v1/fleets", &[], None).await.refused(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), "GET, POST");
    });
}

#[test]
fn every_route_of_the_device_door_answers_every_credential_by_name() {
    let server = shared();
    run(async {
        let (fleet, other) = (server.fleet(json!({})).await, server.fleet(json!({})).await);
        let good = Device::good(&server, &fleet, "good").await;
        let elsewhere = Device::good(&server, &other, "elsewhere").await;
        let gateway = member(&server, "gateways", "matrix-device-door").await;
        let revoked = Device::good(&server, &fleet, "revoked").await;
        revoked.act(&server, "revoke", json!({})).await;
        let held = Device::good(&server, &fleet, "held").await;
        held.act(&server, "hold", json!({})).await;
        let superseded = Device::good(&server, &fleet, "superseded").await;
        superseded.renew(&server).await.confirm(&server).await.is(200);
        let withdrawn = server.mint(&fleet, json!({"device": "w"})).await;
        server.owner().delete(&format!("/v1/fleets/{fleet}/tokens/{}", text(&withdrawn, "id"))).await.is(200);
        let unknown = format!("fmt_{}_{}", "ab".repeat(8), "A".repeat(27));

        // Certificates, in the order of the columns.
        let callers = [
            ("nobody", None),
            ("good", Some(&good.identity)),
            ("other fleet", Some(&elsewhere.identity)),
            ("gateway", Some(&gateway)),
            ("revoked", Some(&revoked.identity)),
            ("held", Some(&held.identity)),
            ("superseded", Some(&superseded.identity)),
        ];
        let ended = ["revoked", "held", "superseded"];
        let by_fleet =
            |granted: &'static str| [&["certificate_required", granted, "wrong_fleet", "wrong_kind"][..], &ended].concat();
        let by_anybody = |granted: &'static str| [&["certificate_required", granted, granted, granted][..], &ended].concat();
        let by_gateways =
            |granted: &'static str| [&["certificate_required", "wrong_kind", "wrong_kind", granted][..], &ended].concat();
        let same = |code: &'static str| vec![code; 7];
        let est = |label: &str, act: &str| format!("/.well-known/est/{label}/{act}");
        // Method, path, token, what each caller is told. A granted request has a body that is wrong in a known way, so that it
        // changes nothing: who may not come in is told so before the body is looked at.
        let rows: Vec<(&str, String, Option<&str>, Vec<&str>)> = vec![
            ("GET", "/v1/time".into(), None, same("200")),
            ("GET", est(&fleet, "cacerts"), None, same("200")),
            ("GET", "/.well-known/est/cacerts".into(), None, same("200")),
            ("GET", est(&fleet, "csrattrs"), None, same("200")),
            ("GET", est("no-such-fleet", "cacerts"), None, same("fleet_unknown")),
            ("POST", est(&fleet, "serverkeygen"), None, same("server_keygen_off")),
            ("POST", format!("/v1/fleets/{fleet}/enroll"), None, same("proof_required")),
            ("POST", format!("/v1/fleets/{fleet}/enroll"), Some(&unknown), same("csr_malformed")),
            ("POST", "/v1/enroll".into(), None, same("proof_required")),
            ("POST", est(&fleet, "simpleenroll"), None, same("proof_required")),
            ("POST", format!("/v1/fleets/{fleet}/challenge"), None, same("malformed_request")),
            ("POST", "/v1/standing".into(), None, same("malformed_request")),
            ("GET", format!("/v1/fleets/{fleet}/renewal"), None, by_fleet("200")),
            ("POST", format!("/v1/fleets/{fleet}/renew"), None, by_fleet("csr_malformed")),
            ("POST", "/v1/renew".into(), None, by_anybody("csr_malformed")),
            ("POST", est(&fleet, "simplereenroll"), None, by_fleet("csr_malformed")),
            ("POST", format!("/v1/fleets/{fleet}/confirm"), None, by_fleet("200")),
            ("POST", "/v1/confirm".into(), None, by_anybody("200")),
            ("GET", "/v1/ledgers".into(), None, by_gateways("200")),
            ("GET", format!("/v1/ledgers/{fleet}/checkpoint"), None, by_gateways("200")),
            ("GET", format!("/v1/ledgers/{fleet}/tile/0/000.p/1"), None, by_gateways("200")),
            ("GET", format!("/v1/ledgers/{fleet}/tile/entries/000.p/1"), None, by_gateways("200")),
            ("GET", format!("/v1/ledgers/{fleet}/tile/details/000.p/1"), None, by_gateways("200")),
            ("GET", format!("/v1/ledgers/{fleet}/attributes"), None, by_gateways("200")),
            ("POST", format!("/v1/ledgers/{fleet}/sightings"), None, by_gateways("malformed_request")),
            ("POST", format!("/v1/ledgers/{fleet}/external-sightings"), None, by_gateways("malformed_request")),
            ("GET", format!("/v1/ledgers/{fleet}/external-rules/{}", "ab".repeat(32)), None, by_gateways("not_found")),
            ("GET", format!("/v1/authorities/{}", "ab".repeat(32)), None, by_gateways("not_found")),
            ("GET", "/v1/feed?ledger=no-such-fleet".into(), None, by_gateways("not_found")),
        ];
        let mut wrong = Vec::new();
        for (method, path, token, wanted) in &rows {
            let mut told_row = Vec::new();
            for ((caller, identity), wanted) in callers.iter().zip(wanted) {
                let mut connection = Connection::open(server.device_port, &server.trust(), *identity).await.unwrap();
                let authorization = token.map(|token| format!("Bearer {token}"));
                let media_type = if path.contains("/est/") { "application/pkcs10" } else { "application/json" };
                let mut headers = vec![("content-type", media_type)];
                headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
                let body: &[u8] = if path.contains("/est/") { b"?" } else { b"{\"csr\":\"?\"}" };
                let answer = connection.request(method, path, &headers, body).await.unwrap();
                let told = match answer.status {
                    status @ (200 | 204) => status.to_string(),
                    _ if path.contains("/est/") => answer.text().split(':').next().unwrap_or_default().to_owned(),
                    _ => answer.code(),
                };
                if told != *wanted {
                    wrong.push(format!("{method} {path} by {caller}: {told} instead of {wanted}"));
                }
                told_row.push(told);
            }
            println!("{method:<5}{path:<60} {}", told_row.join(" "));
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));

        // Tokens, with a request that is sound.
        let client = server.device_client(None);
        for (token, code) in [(unknown.as_str(), "token_unknown"), (&text(&withdrawn, "token"), "token_withdrawn")] {
            let sound = json!({"csr": Key::new().csr()});
            let bearer = format!("Bearer {token}");
            client
                .post_with(&format!("/v1/fleets/{fleet}/enroll"), &[("authorization", &bearer)], &sound)
                .await
                .refused(401, code);
            let basic = format!("Basic {}", STANDARD.encode(format!("w:{token}")));
            let headers = [("authorization", basic.as_str()), ("content-type", "application/pkcs10")];
            let body = STANDARD.encode(Key::new().csr_der()).into_bytes();
            let answer = client.send("POST", &est(&fleet, "simpleenroll"), &headers, Some(body)).await.is(401);
            assert!(answer.text().starts_with(&format!("{code}: ")), "{}", answer.text());
        }
    });
}
