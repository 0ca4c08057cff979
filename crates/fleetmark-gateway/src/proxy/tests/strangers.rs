//! openssl, curl and nginx as judges. They must be installed; scripts/test says the same of the server's tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use fleetmark_domain::RevocationReason;

use super::*;
use crate::proxy::ProxyProtocol;

/// The files that a client needs.
struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new(world: &World, device: &Device) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ca.pem"), &world.servers.pem).unwrap();
        fs::write(directory.path().join("cert.pem"), &device.pem).unwrap();
        fs::write(directory.path().join("key.pem"), device.key.serialize_pem()).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

async fn run(mut command: Command) -> Output {
    let run = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output().unwrap());
    within(run).await.unwrap()
}

fn curl(world: &World, files: &Files, version: &str) -> Command {
    let port = world.address().port();
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "50", "--noproxy", "*", &format!("--tlsv{version}"), "--tls-max", version]);
    command.arg("--cacert").arg(files.path("ca.pem")).arg("--cert").arg(files.path("cert.pem"));
    command.arg("--key").arg(files.path("key.pem"));
    command.arg("--resolve").arg(format!("localhost:{port}:127.0.0.1")).arg(format!("https://localhost:{port}/"));
    command
}

/// openssl offers each session again, five times: none is taken up.
#[tokio::test(flavor = "multi_thread")]
async fn openssl_resumes_nothing() {
    let (upstream, _) = echo_service().await;
    let world = World::new(upstream).await;
    let device = world.device(0, "s0");
    let files = Files::new(&world, &device);
    for version in ["-tls1_2", "-tls1_3"] {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-reconnect", "-verify_return_error", version]);
        command.arg("-connect").arg(world.address().to_string());
        command.arg("-CAfile").arg(files.path("ca.pem"));
        command.arg("-cert").arg(files.path("cert.pem")).arg("-key").arg(files.path("key.pem"));
        let output = run(command).await;
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text.matches("\nNew, TLSv1").count(), 6, "{text}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(!text.contains("Reused, "), "{text}");
        assert!(text.contains("Verify return code: 0 (ok)"), "{text}");
        assert!(!text.contains("TLS session ticket:"), "{text}");
    }
}

/// A web server that reads PROXY protocol headers and tells what it read.
struct Nginx {
    process: Child,
    address: String,
    _directory: tempfile::TempDir,
}

impl Nginx {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        fs::write(directory.path().join("nginx.conf"), Self::configuration(directory.path(), &address)).unwrap();
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-p").arg(directory.path()).arg("-c").arg(directory.path().join("nginx.conf"));
        command.arg("-e").arg(directory.path().join("error.log")).args(["-g", "daemon off; master_process off;"]);
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until(|| std::net::TcpStream::connect(&address).is_ok()).await;
        Self { process, address, _directory: directory }
    }

    fn configuration(directory: &Path, address: &str) -> String {
        let place = |name: &str| directory.join(name).display().to_string();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {};", place(name)))
            .join("\n");
        format!(
            "pid {};\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}\nserver {{\nlisten {address} proxy_protocol;\n\
             return 200 \"$proxy_protocol_addr:$proxy_protocol_port $proxy_protocol_server_addr:$proxy_protocol_server_port\";\n\
             }}\n}}\n",
            place("pid")
        )
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_gets_through_and_nginx_reads_the_header() {
    let nginx = Nginx::start().await;
    let world = World::with(&nginx.address, |settings| settings.proxy_protocol = ProxyProtocol::V2).await;
    let device = world.device(0, "s0");
    let files = Files::new(&world, &device);
    for version in ["1.2", "1.3"] {
        let mut command = curl(&world, &files, version);
        command.args(["-w", " %{local_ip}:%{local_port}"]);
        let output = run(command).await;
        let text = String::from_utf8(output.stdout).unwrap();
        let words: Vec<_> = text.split(' ').collect();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(words.len(), 3, "{text} {errors}");
        assert_eq!(words[0], words[2], "the device's address");
        assert_eq!(words[1], world.address().to_string());
    }
    // Whoever comes without a header is refused by nginx: it was the header that let the others in.
    let mut plain = Command::new("curl");
    plain.args(["-s", "--max-time", "50", "--noproxy", "*"]).arg(format!("http://{}/", nginx.address));
    assert!(run(plain).await.stdout.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_reads_that_it_is_revoked() {
    let (upstream, open) = echo_service().await;
    let world = World::new(upstream).await;
    let device = world.authority.device(0, "s0");
    world.enter(&device, Standing::Revoked(RevocationReason::KeyCompromise));
    let files = Files::new(&world, &device);
    for version in ["1.2", "1.3"] {
        let output = run(curl(&world, &files, version)).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains("certificate revoked"), "{errors}");
    }
    world.refused("revoked", 2).await;
    assert_eq!(open.load(Ordering::SeqCst), 0);
}
