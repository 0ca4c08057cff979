//! The power fails, on the device or on the server, at each step of each flow: the real agent's process, the real server's process, and a
//! line between them that breaks at a given octet. Then all goes on: one live identity, no burnt proof, no orphan.
//!
//! `POWER_POINTS` says at how many octets of each connection and direction (3 unless set).

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::harness::cut::{Direction, Line, Point};
use crate::harness::device::sha256;
use crate::harness::server::text;
use crate::harness::{Server, run};

/// A run of the agent takes no longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The agent, which `cargo build --workspace` puts beside the server.
fn program() -> PathBuf {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_fleetmark")).with_file_name("fleetmark-device");
    assert!(program.exists(), "{} is not built: cargo build --workspace", program.display());
    program
}

/// How a device comes to its certificate, or to the next one.
struct Flow {
    device: String,
    directory: PathBuf,
    /// What stands after the program's name but server and directory.
    arguments: Vec<String>,
    secret: Option<String>,
}

impl Flow {
    /// The agent, over the line at `port`.
    fn start(&self, server: &Server, port: u16) -> Child {
        let mut command = Command::new(program());
        command.args(&self.arguments).arg("--dir").arg(&self.directory);
        if self.arguments.first().is_some_and(|word| word == "enroll") {
            let url = format!("https://localhost:{port}");
            command.args(["--server", &url, "--ca-fingerprint", &sha256(&server.root())]);
        }
        if let Some(secret) = &self.secret {
            command.env("FLEETMARK_TOKEN", secret);
        }
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs it to its end, which must be a good one.
    async fn finish(&self, server: &Server, port: u16) {
        let mut agent = self.start(server, port);
        let status = ended(&mut agent).await;
        let output = agent.wait_with_output().unwrap();
        assert!(status, "{:?}: {}", self.arguments, String::from_utf8_lossy(&output.stderr));
    }
}

/// Waits until a process has ended; whether it was a good end.
async fn ended(process: &mut Child) -> bool {
    let began = Instant::now();
    loop {
        if let Some(status) = process.try_wait().unwrap() {
            return status.success();
        }
        assert!(began.elapsed() < PATIENCE, "it does not end");
        sleep(Duration::from_millis(10)).await;
    }
}

/// SIGKILL.
fn kill(mut process: Child) {
    let _ = process.kill();
    let _ = process.wait();
}

/// The standings of all certificates that a device ever had, the oldest first.
async fn standings(server: &Server, fleet: &str, device: &str) -> Vec<String> {
    let path = format!("/v1/certificates?fleet={fleet}&kind=device&subject={device}&limit=100");
    let page = server.owner().get(&path).await.is(200).json();
    let mut found: Vec<&Value> = page["items"].as_array().unwrap().iter().collect();
    found.sort_by_key(|item| item["generation"].as_u64());
    found.into_iter().map(|item| text(item, "standing")).collect()
}

/// One live certificate, and nothing that waits for a confirmation that will not come.
async fn check(server: &Server, fleet: &str, flow: &Flow, at: &str) {
    let all = standings(server, fleet, &flow.device).await;
    assert_eq!(all.iter().filter(|standing| *standing == "good").count(), 1, "{at}: {all:?}");
    assert!(!all.iter().any(|standing| standing == "unconfirmed"), "{at}: {all:?}");
    let identity = std::fs::read_to_string(flow.directory.join("current/identity.json")).unwrap();
    let identity: Value = serde_json::from_str(&identity).unwrap();
    let serial = text(&identity, "serial");
    let record = server.owner().get(&format!("/v1/certificates/{serial}")).await.is(200).json();
    assert_eq!((text(&record, "standing"), identity["confirmed"].as_bool()), ("good".to_owned(), Some(true)), "{at}");
    assert!(!flow.directory.join("pending").exists(), "{at}: a key is left over");
}

fn points() -> u64 {
    std::env::var("POWER_POINTS").map_or(3, |points| points.parse().expect("POWER_POINTS is a number"))
}

/// Where to break a line that carried this much in one undisturbed run: before anything, before the last octet of each direction, and
/// at `points` places between.
fn breaks(traffic: &[(u64, u64)]) -> Vec<Point> {
    let mut found = Vec::new();
    for (connection, (to_server, to_device)) in traffic.iter().enumerate() {
        for (direction, octets) in [(Direction::ToServer, *to_server), (Direction::ToDevice, *to_device)] {
            let parts = points() + 1;
            let last = octets.saturating_sub(1);
            found.extend((1..parts).map(|part| octets * part / parts).chain([last]).map(|octets| Point {
                connection,
                direction,
                octets: octets.max(1),
            }));
        }
    }
    found
}

/// Who loses its power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Device,
    Server,
}

/// Breaks each flow of `make` at each point, for `victim`, and lets it go on.
async fn sweep(server: &mut Server, fleet: &str, victim: Victim, make: impl AsyncFn(&Server, usize) -> Flow) {
    let undisturbed = make(server, 0).await;
    let line = Line::to(server.device_port, None).await;
    undisturbed.finish(server, line.port).await;
    check(server, fleet, &undisturbed, "undisturbed").await;
    let traffic = line.traffic();
    assert!(!traffic.is_empty());
    for (number, point) in breaks(&traffic).into_iter().enumerate() {
        // A restart of the server takes its time: every third point is enough.
        if victim == Victim::Server && number % 3 != 0 {
            continue;
        }
        let flow = make(server, number + 1).await;
        let line = Line::to(server.device_port, Some(point)).await;
        let mut agent = flow.start(server, line.port);
        tokio::select! {
            () = line.broken() => {}
            // One exchange is never of quite the same length as the next.
            good = ended(&mut agent) => assert!(good, "{point:?}"),
        }
        match victim {
            Victim::Device => kill(agent),
            Victim::Server => {
                server.kill_and_start();
                kill(agent);
            }
        }
        drop(line);
        let whole = Line::to(server.device_port, None).await;
        flow.finish(server, whole.port).await;
        check(server, fleet, &flow, &format!("{victim:?} at {point:?}")).await;
    }
}

fn scratch(server: &Server, name: &str) -> PathBuf {
    let directory = server.scratch(name);
    assert!(!Path::new(&directory).exists() || std::fs::remove_dir_all(&directory).is_ok());
    directory
}

async fn by_token(server: &Server, fleet: &str, number: usize) -> Flow {
    let device = format!("token-{number}");
    let secret = Some(server.token(fleet, &device).await);
    let arguments = ["enroll", "--fleet", fleet].map(str::to_owned).to_vec();
    Flow { directory: scratch(server, &device), device, arguments, secret }
}

/// A device that is enrolled, and is to renew.
async fn to_renew(server: &Server, fleet: &str, number: usize) -> Flow {
    let device = format!("renew-{number}");
    let secret = Some(server.token(fleet, &device).await);
    let directory = scratch(server, &device);
    let arguments = ["enroll", "--fleet", fleet].map(str::to_owned).to_vec();
    let enrolled = Flow { device: device.clone(), directory: directory.clone(), arguments, secret };
    enrolled.finish(server, server.device_port).await;
    Flow { device, directory, arguments: ["renew", "--force"].map(str::to_owned).to_vec(), secret: None }
}

#[test]
fn a_device_may_lose_its_power_anywhere_while_it_enrolls() {
    let mut server = Server::start(&[]);
    run(async {
        let fleet = server.fleet(json!({})).await;
        let name = fleet.clone();
        sweep(&mut server, &fleet, Victim::Device, async |server, number| by_token(server, &name, number).await).await;
    });
}

#[test]
fn the_server_may_lose_its_power_anywhere_while_a_device_enrolls() {
    let mut server = Server::start(&[]);
    run(async {
        let fleet = server.fleet(json!({})).await;
        let name = fleet.clone();
        sweep(&mut server, &fleet, Victim::Server, async |server, number| by_token(server, &name, number).await).await;
    });
}
