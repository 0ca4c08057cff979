//! A throw-away PostgreSQL cluster for tests: TLS on a loopback port, a Unix socket, a database a test. It ends with the
//! test process, however that ends.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where Debian keeps the server's programs: a directory a version.
fn binaries() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed (scripts/test does it)");
    versions.map(|version| version.expect("entry").path().join("bin")).max().expect("a version of PostgreSQL")
}

/// A running cluster.
pub struct Cluster {
    directory: PathBuf,
    port: u16,
    /// Holds the pipe whose end ends the cluster.
    _keeper: Child,
}

/// The cluster of this process, started by the first test that asks.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::start)
}

/// A command of PostgreSQL's: it does not run as root.
fn command(program: &str) -> Command {
    let is_root = Command::new("id").arg("-u").output().expect("id").stdout == b"0\n";
    let program = if program == "sh" { program.to_owned() } else { binaries().join(program).display().to_string() };
    let mut command = if is_root {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/");
    command
}

fn run(command: &mut Command) {
    let output = command.output().expect("PostgreSQL and runuser are installed (scripts/test does it)");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Cluster {
    fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("fleetmark-pg").tempdir().expect("directory").keep();
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o777)).expect("mode");
        let data = directory.join("data");
        run(command("initdb").arg("-D").arg(&data).args(["-U", "fleetmark", "-A", "trust", "-E", "UTF8", "--no-instructions"]));
        write_certificates(&directory, &data);
        let port = TcpListener::bind("127.0.0.1:0").expect("port").local_addr().expect("address").port();
        let rules = "local all all trust\nhostssl all all 127.0.0.1/32 trust\n";
        std::fs::write(data.join("pg_hba.conf"), rules).expect("rules");
        let options = format!(
            "-k {directory} -p {port} -c listen_addresses=127.0.0.1 -c ssl=on -c ssl_cert_file={data}/server.pem \
             -c ssl_key_file={data}/server.key",
            data = data.display(),
            directory = directory.display(),
        );
        let log = data.join("log");
        run(command("pg_ctl").arg("-D").arg(&data).arg("-l").arg(&log).args(["-w", "-o", &options, "start"]));
        // The cluster ends when the pipe to this process does.
        let mut stop = command("pg_ctl");
        stop.arg("-D").arg(&data).args(["-m", "immediate", "stop"]);
        let keeper = Command::new("sh")
            .args(["-c", "read -r line; directory=$1; shift; \"$@\" >/dev/null; rm -rf \"$directory\"", "keeper"])
            .arg(&directory)
            .arg(stop.get_program())
            .args(stop.get_args())
            .stdin(Stdio::piped())
            .spawn()
            .expect("keeper");
        Self { directory, port, _keeper: keeper }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = command(program);
        command.arg("-h").arg(&self.directory).args(["-p", &self.port.to_string(), "-U", "fleetmark"]);
        command
    }

    /// Runs a statement as the superuser.
    pub fn sql(&self, database: &str, statement: &str) {
        run(self.command("psql").args(["-X", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", statement]));
    }

    /// Makes an empty database, and returns its name.
    pub fn database(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    /// A URL over the Unix socket.
    pub fn socket_url(&self, database: &str) -> String {
        let socket = self.directory.display().to_string().replace('/', "%2F");
        format!("postgres://fleetmark@{socket}:{}/{database}", self.port)
    }

    /// A URL over TLS, to the server's name `host`, trusting `authorities`.
    pub fn tls_url(&self, database: &str, host: &str, authorities: &Path) -> String {
        let (port, authorities) = (self.port, authorities.display());
        format!("postgres://fleetmark@{host}:{port}/{database}?hostaddr=127.0.0.1&sslmode=require&sslrootcert={authorities}")
    }

    /// The authority of the server's certificate, and one that is not.
    pub fn authorities(&self) -> (PathBuf, PathBuf) {
        (self.directory.join("ca.pem"), self.directory.join("other-ca.pem"))
    }
}

/// A server certificate for `localhost`, its authority, and another authority.
fn write_certificates(directory: &Path, data: &Path) {
    let authority = || {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).expect("authority");
        (certificate.pem(), rcgen::Issuer::new(parameters, key))
    };
    let (certificate, issuer) = authority();
    std::fs::write(directory.join("ca.pem"), certificate).expect("ca.pem");
    std::fs::write(directory.join("other-ca.pem"), authority().0).expect("other-ca.pem");
    let key = rcgen::KeyPair::generate().expect("key");
    let parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    let server = parameters.signed_by(&key, &issuer).expect("certificate");
    for (name, text) in [("server.pem", server.pem()), ("server.key", key.serialize_pem())] {
        let path = data.join(name);
        // The file must be the cluster's user's, with mode 0600.
        run(command("sh").args(["-c", "umask 077; : >\"$0\""]).arg(&path));
        std::fs::write(&path, text).expect(name);
    }
}
