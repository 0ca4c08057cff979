//! Where a PostgreSQL database is, and how it may be reached.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};

/// The longest URL, in octets.
const MAX_URL: usize = 4_096;

/// `postgres://USER:PASSWORD@HOST:PORT/DATABASE?PARAMETERS`, with the parameters of tokio-postgres and:
/// - `sslmode`: `require` (the default wherever `sslrootcert` is given) or `disable`;
/// - `sslrootcert`: the file, in PEM, of the authorities that the server's certificate is verified against;
/// - `danger_plaintext=true`: no TLS on the way to another machine;
/// - `danger_async_replication=true`: a commit need not be on a standby, nor on the disk, when it is acknowledged.
///
/// The server's name is always verified. Without TLS go Unix sockets and loopback addresses.
#[derive(Clone, PartialEq)]
pub struct PostgresLocation {
    pub(super) config: tokio_postgres::Config,
    /// None: no TLS.
    pub(super) authorities: Option<PathBuf>,
    pub(super) danger_async_replication: bool,
}

/// Why a URL is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostgresLocationError {
    /// Not a URL that tokio-postgres reads.
    #[error("not a PostgreSQL URL: {0}")]
    Form(String),
    /// TLS without anything to verify the server against.
    #[error("give sslrootcert=FILE, the authorities that the PostgreSQL server's certificate is verified against")]
    Authorities,
    /// No TLS to another machine.
    #[error("the PostgreSQL server is on another machine: use sslmode=require with sslrootcert (or danger_plaintext=true)")]
    Plaintext,
    /// A mode which may fall back to plain text.
    #[error("sslmode is require or disable: {0} is refused")]
    Mode(String),
}

impl FromStr for PostgresLocation {
    type Err = PostgresLocationError;

    fn from_str(url: &str) -> Result<Self, PostgresLocationError> {
        let form = |what: &str| PostgresLocationError::Form(what.to_owned());
        if url.len() > MAX_URL {
            return Err(form("too long"));
        }
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(form("it begins with postgres://"));
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut mode, mut authorities, mut plaintext, mut danger_async_replication) = (None, None, false, false);
        let mut rest = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=').unwrap_or((parameter, "")) {
                ("sslmode", value) => mode = Some(value.to_owned()),
                ("sslrootcert", value) if !value.is_empty() => authorities = Some(PathBuf::from(value)),
                ("danger_plaintext", "true") => plaintext = true,
                ("danger_async_replication", "true") => danger_async_replication = true,
                (name, _) if name.starts_with("danger_") => return Err(form("an unknown danger_ parameter")),
                _ => rest.push(parameter),
            }
        }
        let plain = format!("{base}{}{}", if rest.is_empty() { "" } else { "?" }, rest.join("&"));
        // The error's text may quote a parameter, but never user or password.
        let mut config: tokio_postgres::Config =
            plain.parse().map_err(|error: tokio_postgres::Error| PostgresLocationError::Form(error.to_string()))?;

        let encrypted = match mode.as_deref() {
            Some("require") => true,
            None => authorities.is_some() || !(is_near(&config) || plaintext),
            Some("disable") => false,
            Some(other) => return Err(PostgresLocationError::Mode(other.to_owned())),
        };
        if encrypted && authorities.is_none() {
            return Err(PostgresLocationError::Authorities);
        }
        if !encrypted && !is_near(&config) && !plaintext {
            return Err(PostgresLocationError::Plaintext);
        }
        config.ssl_mode(if encrypted { SslMode::Require } else { SslMode::Disable });
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(5));
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(Duration::from_secs(15));
        }
        config.keepalives_idle(Duration::from_secs(15));
        if config.get_application_name().is_none() {
            config.application_name("fleetmark");
        }
        Ok(Self { config, authorities: authorities.filter(|_| encrypted), danger_async_replication })
    }
}

/// Whether every host is this machine: a Unix socket or a loopback address. A `hostaddr` is what is connected to,
/// whatever the host's name.
fn is_near(config: &tokio_postgres::Config) -> bool {
    let near = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
    };
    let hosts = config.get_hosts();
    let addresses = config.get_hostaddrs();
    let some = !hosts.is_empty() || !addresses.is_empty();
    some && addresses.iter().all(IpAddr::is_loopback) && hosts.iter().all(near)
}

impl fmt::Debug for PostgresLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresLocation")
            .field("hosts", &self.config.get_hosts())
            .field("database", &self.config.get_dbname())
            .field("tls", &self.authorities.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_read_on_the_way_is_refused() {
        use PostgresLocationError as Refused;
        let refused = |url: &str| url.parse::<PostgresLocation>().expect_err(url);
        assert_eq!(refused("postgres://u@db.example/f"), Refused::Authorities);
        assert_eq!(refused("postgres://u@db.example/f?sslmode=require"), Refused::Authorities);
        assert_eq!(refused("postgres://u@db.example/f?sslmode=disable"), Refused::Plaintext);
        assert_eq!(refused("postgres://u@localhost,db.example/f?sslmode=disable"), Refused::Plaintext);
        assert_eq!(refused("postgres://u@localhost/f?hostaddr=10.0.0.1&sslmode=disable"), Refused::Plaintext);
        assert_eq!(refused("postgres://u@127.0.0.1/f?sslmode=prefer"), Refused::Mode("prefer".to_owned()));
        assert!(matches!(refused("postgres://u@127.0.0.1/f?danger_all=true"), Refused::Form(_)));
        assert!(matches!(refused("postgres://u@127.0.0.1/f?nonsense=1"), Refused::Form(_)));
        assert!(matches!(refused("mysql://u@127.0.0.1/f"), Refused::Form(_)));
    }

    #[test]
    fn tls_is_the_default_and_its_absence_is_asked_for_by_name() {
        for (url, tls) in [
            ("postgres://u@db.example/f?sslrootcert=/ca.pem", true),
            ("postgres://u@127.0.0.1/f?sslrootcert=/ca.pem", true),
            ("postgres://u@127.0.0.1/f", false),
            ("postgresql://u@[::1]/f", false),
            ("postgres://u@%2Frun%2Fpostgresql/f", false),
            ("postgres://u@db.example/f?danger_plaintext=true", false),
        ] {
            let location: PostgresLocation = url.parse().expect(url);
            assert_eq!(location.authorities.is_some(), tls, "{url}");
            let mode = if tls { SslMode::Require } else { SslMode::Disable };
            assert_eq!(location.config.get_ssl_mode(), mode, "{url}");
        }
    }

    #[test]
    fn a_password_is_silent() {
        let location: PostgresLocation = "postgres://u:hunter2@127.0.0.1/f".parse().unwrap();
        assert!(!format!("{location:?}").contains("hunter2"));
        let error = "postgres://u:hunter2@127.0.0.1/f?port=x".parse::<PostgresLocation>().unwrap_err();
        assert!(!format!("{error:?} {error}").contains("hunter2"));
    }
}
