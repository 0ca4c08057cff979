//! The power fails, on the device or on the server, at each step of each flow: the real agent's process, the real server's process, and a
//! line between them that breaks at a given octet. Then all goes on: one live identity, no burnt proof, no orphan.
//!
//! `POWER_POINTS` says at how many places within what each connection carries in each direction (1 unless set, and then the server dies
//! at one point of each flow alone; `scripts/power` takes 40).

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::harness::cut::{Direction, Line, Point};
use crate::harness::device::sha256;
use crate::harness::forge::Maker;
use crate::harness::openssl::pem;
use crate::harness::server::text;
use crate::harness::{Device, Key, Server, run, shared};
use crate::kill::{certificates, verify};

/// A run of the agent takes no longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// The agent's exit code when it is done.
const DONE: i32 = 0;
/// The agent's exit code when it is to try again: not reached, or not approved yet.
const AGAIN: i32 = 4;
/// How often a device tries again: on a machine that is busy a handshake may take too long for the server.
const TRIES: usize = 8;
/// The name of each scene's group.
const GROUP: &str = "batch";
/// The group's key of the derived keys.
const GROUP_KEY: [u8; 32] = [0x5a; 32];

/// How a device comes to its certificate, or to the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Token,
    SharedToken,
    Maker,
    Claim,
    Derived,
    /// Asks, and is told to wait.
    Asking,
    /// Was approved, and comes again.
    Approved,
    Renewal,
    Move,
}

/// A way in, and fleets that are nobody else's.
struct Scene {
    way: Way,
    fleet: String,
    /// Where devices that move come from.
    former: String,
    maker: Maker,
    /// A token of several uses: its text and id.
    shared: (String, String),
    /// Claim certificate and key in PEM.
    claim: (String, String),
}

/// One device, ready to run.
struct Flow {
    device: String,
    directory: PathBuf,
    /// What stands after the program's name but server and directory.
    arguments: Vec<String>,
    /// The enrollment token.
    secret: Option<String>,
}

/// The agent's process. It ends with this value.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Agent {
    /// Waits until it has ended by itself, done or to try again: any other end is a failure.
    async fn ended(&mut self, at: &str) -> i32 {
        let began = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                let mut said = String::new();
                std::io::Read::read_to_string(self.0.stderr.as_mut().unwrap(), &mut said).unwrap();
                let code = status.code().unwrap_or(-1);
                assert!([DONE, AGAIN].contains(&code), "{at}: the agent ended with {code}: {said}");
                if code == AGAIN && !said.contains("approval_pending") {
                    eprintln!("{at}: after {:?} the agent is to try again: {said}", began.elapsed());
                }
                return code;
            }
            assert!(began.elapsed() < PATIENCE, "{at}: the agent does not end");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The agent, which `cargo build --workspace` puts beside the server.
fn program() -> PathBuf {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_fleetmark")).with_file_name("fleetmark-device");
    assert!(program.exists(), "{} is not built: cargo build --workspace", program.display());
    program
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

impl Flow {
    fn new(server: &Server, fleet: &str, device: &str, arguments: &[&str]) -> Self {
        let directory = server.scratch(&format!("{fleet}-{device}"));
        let arguments = [words(&["enroll", "--fleet", fleet]), words(arguments)].concat();
        Self { device: device.to_owned(), directory, arguments, secret: None }
    }

    /// The agent, over the line at `port`.
    fn start(&self, server: &Server, port: u16) -> Agent {
        let url = format!("https://localhost:{port}");
        let mut command = Command::new(program());
        command.args(&self.arguments).arg("--dir").arg(&self.directory).env("FLEETMARK_LOG", "info");
        if self.arguments.first().is_some_and(|word| word == "enroll") {
            command.args(["--server", &url, "--ca-fingerprint", &sha256(&server.root())]);
        } else {
            let path = self.directory.join("settings.json");
            let mut settings: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            settings["server"] = url.into();
            std::fs::write(path, settings.to_string()).unwrap();
        }
        if let Some(secret) = &self.secret {
            command.env("FLEETMARK_TOKEN", secret);
        }
        Agent(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
    }
}

impl Scene {
    async fn new(server: &Server, way: Way) -> Self {
        let (fleet, former) = (server.fleet(json!({})).await, server.fleet(json!({})).await);
        let maker = Maker::new("Power");
        let groups = format!("/v1/fleets/{fleet}/groups");
        let rules = json!({"mapping": "requested"});
        let group = match way {
            Way::Maker => Some(json!({"name": GROUP, "proof": "maker", "ca": maker.root_pem(), "rules": rules})),
            Way::Claim => Some(json!({"name": GROUP, "proof": "claim", "rules": {}})),
            Way::Asking | Way::Approved => Some(json!({"name": GROUP, "proof": "approval", "rules": {}})),
            Way::Derived => {
                use base64::Engine as _;
                let key = base64::engine::general_purpose::STANDARD.encode(GROUP_KEY);
                Some(json!({"name": GROUP, "proof": "derived-key", "key": key, "rules": {}}))
            }
            Way::Token | Way::SharedToken | Way::Renewal | Way::Move => None,
        };
        if let Some(group) = group {
            server.owner().post(&groups, &group).await.is(201);
        }
        let mut shared = (String::new(), String::new());
        if way == Way::SharedToken {
            let minted = server.mint(&fleet, json!({"uses": 1_000})).await;
            shared = (text(&minted, "token"), text(&minted, "id"));
        }
        let mut claim = (String::new(), String::new());
        if way == Way::Claim {
            let key = Key::new();
            let answer = server.owner().post(&format!("{groups}/{GROUP}/claims"), &json!({"csr": key.csr()})).await.is(201);
            claim = (text(&answer.json(), "certificate"), key.0.serialize_pem());
        }
        Self { way, fleet, former, maker, shared, claim }
    }

    /// A new device that is to go this way.
    async fn flow(&self, server: &Server, number: usize) -> Flow {
        let (fleet, device) = (self.fleet.as_str(), format!("d-{number}"));
        let enroll = |arguments: &[&str]| Flow::new(server, fleet, &device, arguments);
        let write = |name: &str, octets: &str| {
            let path = server.write_scratch(&format!("{fleet}-{device}.{name}"), octets.as_bytes());
            path.display().to_string()
        };
        match self.way {
            Way::Token => Flow { secret: Some(server.token(fleet, &device).await), ..enroll(&[]) },
            Way::SharedToken => Flow { secret: Some(self.shared.0.clone()), ..enroll(&["--name", &device]) },
            Way::Maker => {
                let key = Key::new();
                let chain = self.maker.idevid(&key, |_| {}).chain;
                let chain: String = chain.iter().map(|one| pem("CERTIFICATE", one)).collect();
                let (cert, key) = (write("crt", &chain), write("key", &key.0.serialize_pem()));
                enroll(&["--name", &device, "--cert", &cert, "--key", &key])
            }
            Way::Claim => {
                let (cert, key) = (write("crt", &self.claim.0), write("key", &self.claim.1));
                enroll(&["--name", &device, "--cert", &cert, "--key", &key])
            }
            Way::Derived => {
                let out = server.scratch(&format!("{fleet}-keys"));
                std::fs::create_dir_all(&out).unwrap();
                std::fs::write(out.join("group"), GROUP_KEY).unwrap();
                let mut factory = Command::new(env!("CARGO_BIN_EXE_fleetmark"));
                factory.current_dir(&out).args(["group", "derive", GROUP, &device, "--key-file", "group", "--out", "."]);
                let made = factory.output().unwrap();
                assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
                let key = out.join(format!("{device}.key")).display().to_string();
                enroll(&["--name", &device, "--derived-key", &key, "--group", GROUP])
            }
            Way::Asking => enroll(&["--name", &device, "--approval"]),
            Way::Approved => {
                let flow = enroll(&["--name", &device, "--approval"]);
                for _ in 0..TRIES {
                    assert_eq!(flow.start(server, server.device_port).ended("asks").await, AGAIN);
                    if self.approve(server, &device).await {
                        return flow;
                    }
                }
                panic!("{device} could not ask");
            }
            Way::Renewal => {
                let enrolled = Flow { secret: Some(server.token(fleet, &device).await), ..enroll(&[]) };
                for _ in 0..TRIES {
                    if enrolled.start(server, server.device_port).ended("enrolls").await == DONE {
                        break;
                    }
                }
                Flow { arguments: words(&["renew", "--force"]), secret: None, ..enrolled }
            }
            Way::Move => {
                Device::good(server, &self.former, &device).await;
                let path = format!("/v1/fleets/{}/devices/{device}/move", self.former);
                let released = server.owner().post(&path, &json!({"to": fleet})).await.is(201).json();
                Flow { secret: Some(text(&released, "token")), ..enroll(&[]) }
            }
        }
    }

    /// Approves the one request that this device made, however often it asked; whether one waited.
    async fn approve(&self, server: &Server, device: &str) -> bool {
        let path = format!("/v1/fleets/{}/requests", self.fleet);
        let list = server.owner().get(&format!("{path}?state=waiting&limit=500")).await.is(200).json();
        let mine = list["items"].as_array().unwrap().iter().filter(|request| request["device"] == device);
        let ids: Vec<_> = mine.map(|request| text(request, "id")).collect();
        assert!(ids.len() <= 1, "{device} asked: {list}");
        if let Some(id) = ids.first() {
            server.owner().post(&format!("{path}/{id}/approve"), &json!({})).await.is(200);
        }
        !ids.is_empty()
    }

    /// The power is back: the device goes on until it has what it wanted, as often as it is told to try again.
    async fn finish(&self, server: &Server, flow: &Flow, at: &str) {
        let at = &format!("{at}, and goes on");
        for _ in 0..TRIES {
            if flow.start(server, server.device_port).ended(at).await == DONE {
                return self.check(server, flow, at).await;
            }
            if self.way == Way::Asking {
                self.approve(server, &flow.device).await;
            }
        }
        panic!("{at}: {TRIES} tries were not enough");
    }

    /// One live certificate, in use on the device; nothing that waits for a confirmation that will not come; no key left over.
    async fn check(&self, server: &Server, flow: &Flow, at: &str) {
        let mut all = standings(server, &self.fleet, &flow.device).await;
        assert_eq!(all.pop().as_deref(), Some("good"), "{at}: after {all:?}");
        match self.way {
            // Those before it.
            Way::Renewal => assert!(!all.is_empty() && all.iter().all(|one| one == "superseded"), "{at}: {all:?}"),
            _ => assert!(all.is_empty(), "{at}: {all:?} beside the good one"),
        }
        if self.way == Way::Move {
            assert_eq!(standings(server, &self.former, &flow.device).await, ["revoked"], "{at}");
        }
        let identity = std::fs::read_to_string(flow.directory.join("current/identity.json")).unwrap();
        let identity: Value = serde_json::from_str(&identity).unwrap();
        let record = server.owner().get(&format!("/v1/certificates/{}", text(&identity, "serial"))).await.is(200).json();
        assert_eq!((text(&record, "standing"), identity["confirmed"].as_bool()), ("good".to_owned(), Some(true)), "{at}");
        assert!(!flow.directory.join("pending").exists(), "{at}: a key is left over");
    }

    /// Each of `made` devices was counted once by its proof and has one live certificate, and the ledgers are whole.
    async fn settled(&self, server: &Server, made: usize) {
        let counted = match self.way {
            Way::Maker | Way::Claim | Way::Derived | Way::Asking | Way::Approved => {
                let path = format!("/v1/fleets/{}/groups/{GROUP}", self.fleet);
                server.owner().get(&path).await.is(200).json()["admitted"].as_u64().unwrap()
            }
            Way::Token | Way::SharedToken | Way::Renewal | Way::Move => {
                let path = format!("/v1/fleets/{}/tokens?limit=500", self.fleet);
                let tokens = server.owner().get(&path).await.is(200).json();
                let tokens = tokens["items"].as_array().unwrap();
                assert!(self.way == Way::SharedToken || tokens.iter().all(|token| token["spent"] == 1), "{tokens:?}");
                tokens.iter().map(|token| token["spent"].as_u64().unwrap()).sum()
            }
        };
        assert_eq!(counted, made as u64, "each device is counted once");
        let live =
            |all: &[Value]| all.iter().filter(|one| one["standing"] != "revoked" && one["standing"] != "superseded").count();
        assert_eq!(live(&certificates(server, &self.fleet).await), made);
        assert_eq!(live(&certificates(server, &self.former).await), 0);
        for ledger in [self.fleet.as_str(), self.former.as_str(), "system"] {
            verify(server, ledger, &server.scratch(&format!("{}-{ledger}.state", self.fleet)));
        }
    }

    /// What each connection of an undisturbed run carries.
    async fn measure(&self, server: &Server) -> Vec<(u64, u64)> {
        let flow = self.flow(server, 0).await;
        let line = Line::to(server.device_port, None).await;
        flow.start(server, line.port).ended("undisturbed").await;
        let traffic = line.traffic();
        assert!(!traffic.is_empty());
        self.finish(server, &flow, "undisturbed").await;
        traffic
    }
}

/// The standings of all certificates that a device ever had, the oldest first.
async fn standings(server: &Server, fleet: &str, device: &str) -> Vec<String> {
    let path = format!("/v1/certificates?fleet={fleet}&kind=device&subject={device}&limit=100");
    let page = server.owner().get(&path).await.is(200).json();
    let mut found: Vec<&Value> = page["items"].as_array().unwrap().iter().collect();
    found.sort_by_key(|item| item["generation"].as_u64());
    found.into_iter().map(|item| text(item, "standing")).collect()
}

/// In the long form, at how many places.
fn points() -> Option<u64> {
    std::env::var("POWER_POINTS").ok().map(|points| points.parse().expect("POWER_POINTS is a number"))
}

/// Where to break a line that carried this much in one undisturbed run: in each direction of each connection at places between, before
/// the last octet, and when all was said.
fn breaks(traffic: &[(u64, u64)]) -> Vec<Point> {
    let mut found = Vec::new();
    for (connection, (to_server, to_device)) in traffic.iter().enumerate() {
        for (direction, octets) in [(Direction::ToServer, *to_server), (Direction::ToDevice, *to_device)] {
            let parts = points().unwrap_or(1) + 1;
            let between = (1..parts).map(|part| octets * part / parts);
            let places = between.chain([octets.saturating_sub(1), octets]);
            found.extend(places.map(|octets| Point { connection, direction, octets: octets.max(1) }));
        }
    }
    found
}

/// A device's power fails: SIGKILL at each point.
fn device_dies(way: Way) {
    let server = shared();
    run(async {
        let scene = Scene::new(&server, way).await;
        let points = breaks(&scene.measure(&server).await);
        for (number, point) in points.iter().enumerate() {
            let flow = scene.flow(&server, number + 1).await;
            let line = Line::to(server.device_port, Some(*point)).await;
            let mut agent = flow.start(&server, line.port);
            let at = format!("{way:?}, the device dies at {point:?}");
            tokio::select! {
                () = line.broken() => {}
                // One exchange is never of quite the same length as the next.
                _ = agent.ended(&at) => {}
            }
            drop((agent, line));
            scene.finish(&server, &flow, &at).await;
        }
        scene.settled(&server, points.len() + 1).await;
    });
}

/// The server's power fails: SIGKILL at each point, in the short form at one of them that `number` tells, and the device's connections
/// end.
async fn server_dies(server: &mut Server, way: Way, number: usize) {
    let scene = Scene::new(server, way).await;
    let all = breaks(&scene.measure(server).await);
    let points: Vec<_> = match points() {
        Some(_) => all,
        None => all.get((number + 6) % all.len()).copied().into_iter().collect(),
    };
    for (number, point) in points.iter().enumerate() {
        let flow = scene.flow(server, number + 1).await;
        let line = Line::to(server.device_port, Some(*point)).await;
        let mut agent = flow.start(server, line.port);
        let at = format!("{way:?}, the server dies at {point:?}");
        tokio::select! {
            () = line.broken() => {}
            _ = agent.ended(&at) => {}
        }
        server.kill_and_start();
        drop(line);
        agent.ended(&at).await;
        scene.finish(server, &flow, &at).await;
    }
    scene.settled(server, points.len() + 1).await;
}

#[test]
fn a_device_may_lose_its_power_anywhere_while_it_enrolls_by_a_token() {
    device_dies(Way::Token);
}

#[test]
fn a_device_may_lose_its_power_anywhere_while_it_enrolls_by_a_token_of_several() {
    device_dies(Way::SharedToken);
}

#[test]
fn a_device_may_lose_its_power_anywhere_while_it_enrolls_by_its_makers_certificate() {
    device_dies(Way::Maker);
}

#[test]
fn a_device_may_lose_its_power_anywhere_while_it_enrolls_by_a_claim() {
    device_dies(Way::Claim);
}

#[test]
fn a_device_may_lose_its_power_anywhere_while_it_enrolls_by_a_derived_key() {
    device_dies(Way::Derived);
}

#[test]
fn a_device_may_lose_its_power_anywhere_while_it_asks_for_approval() {
    device_dies(Way::Asking);
}

#[test]
fn a_device_may_lose_its_power_anywhere_when_it_was_approved() {
    device_dies(Way::Approved);
}

#[test]
fn a_device_may_lose_its_power_anywhere_while_it_renews() {
    device_dies(Way::Renewal);
}

#[test]
fn a_device_may_lose_its_power_anywhere_while_it_moves() {
    device_dies(Way::Move);
}

#[test]
fn the_server_may_lose_its_power_anywhere() {
    let mut server = Server::start(&[]);
    let ways = [
        Way::Token,
        Way::SharedToken,
        Way::Maker,
        Way::Claim,
        Way::Derived,
        Way::Asking,
        Way::Approved,
        Way::Renewal,
        Way::Move,
    ];
    run(async {
        for (number, way) in ways.into_iter().enumerate() {
            server_dies(&mut server, way, number).await;
        }
    });
}
