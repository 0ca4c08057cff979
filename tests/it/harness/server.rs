//! The server's process.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::client::{Client, Identity, Trust};

/// Ends the server when the pipe on standard input is closed: at the test process's end as well, since a value in a static is
/// never dropped.
const KEEPER: &str = r#"log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & server=$!; echo $server >"$log.pid"; read -r how; [ "$how" = kill ] && kill -KILL $server || kill -TERM $server; wait $server; code=$?; [ "$how" = "" ] && rm -rf "$(dirname "$log")"; exit $code"#;

/// A running server in a directory of its own.
pub struct Server {
    directory: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    pub device_port: u16,
    pub admin_port: u16,
    pub public_port: u16,
    keeper: Option<(Child, ChildStdin)>,
    fleets: AtomicU32,
    owner: OnceLock<Client>,
}

/// The server that most tests share. What it holds prints the server's log when its test fails.
pub fn shared() -> Shared {
    static SERVER: OnceLock<Server> = OnceLock::new();
    Shared(SERVER.get_or_init(|| Server::start(&[])))
}

/// The shared server, for one test.
pub struct Shared(&'static Server);

impl Deref for Shared {
    type Target = Server;

    fn deref(&self) -> &Server {
        self.0
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.0.print_log_of_failure();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.print_log_of_failure();
        self.stop();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    /// Starts `fleetmark up` in a new directory and waits until it is ready.
    pub fn start(more: &[&str]) -> Self {
        Self::start_with(more, &[])
    }

    /// The same, with these variables in its environment.
    pub fn start_with(more: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut server = Self::laid_out("up", more, environment);
        server.begin();
        server
    }

    /// A server that was not started, with nothing in its directory; [`Self::start_again`] starts it by `command`.
    pub fn laid_out(command: &str, more: &[&str], environment: &[(&str, &str)]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::Builder::new().prefix("fleetmark-it-").tempdir().unwrap().keep();
        let (device_port, admin_port, public_port) = (free_port(), free_port(), free_port());
        let mut arguments: Vec<String> = [command, "--data"].map(str::to_owned).to_vec();
        arguments.push(directory.join("data").display().to_string());
        for (door, port) in [("device", device_port), ("admin", admin_port), ("public", public_port)] {
            arguments.extend([format!("--{door}-door"), format!("127.0.0.1:{port}")]);
        }
        arguments.extend(["--name", "localhost", "--trust-domain", "fleet.test"].map(str::to_owned));
        arguments.extend(more.iter().map(|word| (*word).to_owned()));
        Self {
            directory,
            arguments,
            environment: environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            device_port,
            admin_port,
            public_port,
            keeper: None,
            fleets: AtomicU32::new(0),
            owner: OnceLock::new(),
        }
    }

    /// What its program is started with, without the command.
    pub fn options(&self) -> &[String] {
        self.arguments.get(1..).unwrap_or_default()
    }

    /// The command that it is started by.
    pub fn command(&mut self) -> &mut String {
        &mut self.arguments[0]
    }

    fn begin(&mut self) {
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(self.log_file())
            .arg(env!("CARGO_BIN_EXE_fleetmark"))
            .args(&self.arguments)
            // All tests come from one address.
            .env("FLEETMARK_LIMITS__ENROLL_PER_SECOND", "0")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pipe = keeper.stdin.take().unwrap();
        self.keeper = Some((keeper, pipe));
        let started = Instant::now();
        while !self.is_ready() {
            let out_of_time = started.elapsed() > Duration::from_secs(60);
            assert!(!out_of_time, "the server is not ready after 60 s:\n{}", self.log());
            sleep(Duration::from_millis(50));
        }
    }

    fn is_ready(&self) -> bool {
        let url = format!("http://127.0.0.1:{}/readyz", self.public_port);
        let asked = Command::new("curl").args(["-sf", "-m", "2", "-o", "/dev/null", &url]).status();
        asked.expect("curl is installed").success()
    }

    /// SIGTERM, and the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.end("stop")
    }

    fn end(&mut self, how: &str) -> Option<i32> {
        let (mut keeper, mut pipe) = self.keeper.take()?;
        let _ = writeln!(pipe, "{how}");
        drop(pipe);
        keeper.wait().ok()?.code()
    }

    /// Stops and starts again in the same directory, with the same doors.
    pub fn restart(&mut self) {
        assert_eq!(self.stop(), Some(0), "the server did not end as it should:\n{}", self.log());
        // A pooled connection of before is of no use.
        self.owner = OnceLock::new();
        self.begin();
    }

    /// Starts a stopped server again, in the same directory.
    pub fn start_again(&mut self) {
        self.owner = OnceLock::new();
        self.begin();
    }

    /// Starts a stopped server again by `serve`, as production does.
    pub fn serve(&mut self) {
        "serve".clone_into(&mut self.arguments[0]);
        self.start_again();
    }

    /// SIGKILL, and starts again.
    pub fn kill_and_start(&mut self) {
        self.end("kill");
        self.owner = OnceLock::new();
        self.begin();
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// What the server wrote so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn print_log_of_failure(&self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("---- the end of the server's log ----\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The root's certificate.
    pub fn root(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.data().join("operator/ca.pem")).unwrap()
    }

    pub fn public_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.public_port)
    }

    /// Trust in the roots that the first operator knows.
    pub fn trust(&self) -> Trust {
        let roots = CertificateDer::pem_file_iter(self.data().join("operator/ca.pem")).unwrap();
        Trust::of(roots.map(Result::unwrap))
    }

    /// The first operator's certificate is another one from now on.
    pub fn forget_owner(&mut self) {
        self.owner = OnceLock::new();
    }

    /// A client of the device door.
    pub fn device_client(&self, identity: Option<&Identity>) -> Client {
        Client::new(&format!("https://localhost:{}", self.device_port), &self.trust(), identity)
    }

    /// A client of the admin door.
    pub fn admin_client(&self, identity: Option<&Identity>) -> Client {
        Client::new(&format!("https://localhost:{}", self.admin_port), &self.trust(), identity)
    }

    /// A client of the public door.
    pub fn public_client(&self) -> Client {
        Client::new(&format!("http://127.0.0.1:{}", self.public_port), &self.trust(), None)
    }

    /// The first operator's certificate and key.
    pub fn owner_identity(&self) -> Identity {
        let operator = self.data().join("operator");
        let read = |name: &str| fs::read(operator.join(name)).unwrap();
        Identity::from_pem(&read("cert.pem"), &read("key.pem"))
    }

    /// The first operator at the admin door.
    pub fn owner(&self) -> &Client {
        self.owner.get_or_init(|| self.admin_client(Some(&self.owner_identity())))
    }

    /// Makes a fleet that no other test knows of.
    pub async fn fleet(&self, options: Value) -> String {
        let number = self.fleets.fetch_add(1, Ordering::Relaxed);
        let name = format!("fleet-{number}");
        // Tests change more devices in an hour than an operator would.
        let mut body = json!({"name": name, "blast_radius": 1_000});
        body.as_object_mut().unwrap().extend(options.as_object().cloned().unwrap_or_default());
        self.owner().post("/v1/fleets", &body).await.is(201);
        name
    }

    /// Mints a token and gives the whole answer.
    pub async fn mint(&self, fleet: &str, body: Value) -> Value {
        self.owner().post(&format!("/v1/fleets/{fleet}/tokens"), &body).await.is(201).json()
    }

    /// A token for a device of this name.
    pub async fn token(&self, fleet: &str, device: &str) -> String {
        text(&self.mint(fleet, json!({"device": device})).await, "token")
    }

    /// A token for whoever comes first.
    pub async fn open_token(&self, fleet: &str) -> String {
        text(&self.mint(fleet, json!({})).await, "token")
    }

    /// The value of a counter at /metrics, summed over all series of this name that have these labels.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let page = self.owner().get("/metrics").await.is(200).text();
        sum_of_metric(&page, name, labels)
    }

    /// How often a refusal of this name was given.
    pub async fn refused(&self, code: &str) -> f64 {
        self.metric("fleetmark_refused_total", &[("code", code)]).await
    }

    /// How often a handshake was refused by this name.
    pub async fn handshakes_refused(&self, door: &str, code: &str) -> f64 {
        self.metric("fleetmark_handshake_refused_total", &[("door", door), ("code", code)]).await
    }

    /// A path for a test's own files.
    pub fn scratch(&self, name: &str) -> PathBuf {
        let scratch = self.directory.join("scratch");
        fs::create_dir_all(&scratch).unwrap();
        scratch.join(name)
    }

    /// Writes a test's own file.
    pub fn write_scratch(&self, name: &str, octets: &[u8]) -> PathBuf {
        let path = self.scratch(name);
        File::create(&path).unwrap().write_all(octets).unwrap();
        path
    }
}

/// The sum, on a page of metrics, over all series of this name that have these labels.
pub fn sum_of_metric(page: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let has = |line: &str| {
        let is_named = line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        is_named && labels.iter().all(|(label, value)| line.contains(&format!("{label}=\"{value}\"")))
    };
    page.lines().filter(|line| has(line)).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// A text field.
pub fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("no text {field} in {value}")).to_owned()
}
