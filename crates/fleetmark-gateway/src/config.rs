//! `gateway.toml`: read once, unknown keys refused, every value checked; from then on it is this type.
//!
//! docs/gateway.md has every key.

mod raw;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleetmark_device::ServerUrl;
use fleetmark_domain::FleetName;
use serde::Deserialize;

use self::raw::{Raw, RawProxy, RawVerdict};
use crate::proxy::{ProxyProtocol, Settings};

/// The longest file that is read, in octets.
const MAX_FILE: u64 = 256 * 1024;
/// Server addresses, fleets and proxies: no more of each.
const MAX_LIST: usize = 1024;
/// Connections, handshakes and rates: no more.
const MOST: u32 = 1_000_000;
/// A week, in seconds.
const LONGEST_IDLE: u64 = 604_800;
/// `sun_path` of unix(7) has 108 octets, the last of them zero; temporary names in the same directory are longer than the
/// socket's own by this much at most.
const MAX_SOCKET_PATH: usize = 107 - 12;

/// Why a configuration is refused: the file, the key, what was found, what was expected.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{}: it cannot be read", .0.display())]
    File(PathBuf, #[source] std::io::Error),
    /// It is too large.
    #[error("{}: it is larger than 256 KiB", .0.display())]
    TooLarge(PathBuf),
    /// It is no TOML, or holds an unknown key, or a value of another sort.
    #[error("{}: {}", .0.display(), .1)]
    Syntax(PathBuf, String),
    /// A value that is not taken.
    #[error("{}: `{key}` is {found}; expected {expected}", file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// The key with its tables.
        key: String,
        /// What was found.
        found: String,
        /// What was expected.
        expected: &'static str,
    },
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Where something listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP address.
    Tcp(SocketAddr),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

/// The verdict endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdicts {
    /// Where it listens.
    pub listen: Place,
    /// Requests that are answered at a time; more are answered 503.
    pub max_requests: usize,
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the gateway keeps its identity and what it knows.
    pub dir: PathBuf,
    /// The servers' device doors; the first that answers is kept. Empty: the one that the gateway was enrolled at.
    pub servers: Vec<ServerUrl>,
    /// The fleets to follow; None: all that were granted.
    pub fleets: Option<Vec<FleetName>>,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Level or directives such as `info,fleetmark_gateway=debug`.
    pub log_level: String,
    /// The verdict endpoint.
    pub verdicts: Verdicts,
    /// Where metrics are shown, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// The proxies.
    pub proxies: Vec<Settings>,
}

/// A refusal that does not know its file yet.
type Refused = (String, String, &'static str);

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        use std::io::Read as _;
        let unreadable = |error| ConfigError::File(file.to_owned(), error);
        let mut text = String::new();
        let opened = std::fs::File::open(file).map_err(unreadable)?;
        let read = opened.take(MAX_FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
        if u64::try_from(read).unwrap_or(u64::MAX) > MAX_FILE {
            return Err(ConfigError::TooLarge(file.to_owned()));
        }
        let base = std::path::absolute(file).map_err(unreadable)?;
        Self::parse(&text, file, base.parent().unwrap_or(Path::new("/")))
    }

    /// The same of a text; relative paths are against `base`.
    fn parse(text: &str, file: &Path, base: &Path) -> Result<Self, ConfigError> {
        let raw: Raw = toml::from_str(text)
            .map_err(|error| ConfigError::Syntax(file.to_owned(), error.to_string().trim_end().to_owned()))?;
        check(raw, base).map_err(|(key, found, expected)| ConfigError::Value { file: file.to_owned(), key, found, expected })
    }

    /// Where the identity is kept.
    pub fn identity_dir(&self) -> PathBuf {
        identity_dir(&self.dir)
    }
}

/// Where the identity is kept in a gateway's directory.
pub fn identity_dir(dir: &Path) -> PathBuf {
    dir.join("identity")
}

fn check(raw: Raw, base: &Path) -> Result<Config, Refused> {
    if raw.dir.is_empty() {
        return Err(refuse("dir", "empty", "the gateway's directory, such as \"/var/lib/fleetmark-gateway\""));
    }
    let level = raw.log.level.unwrap_or_else(|| "info".to_owned());
    if level.parse::<tracing_subscriber::filter::Targets>().is_err() {
        return Err(refuse(
            "log.level",
            &level,
            "a level such as \"info\", or directives such as \"info,fleetmark_gateway=debug\"",
        ));
    }
    let fleets = raw.fleets.map(|fleets| checked_fleets(&fleets)).transpose()?;
    if raw.proxy.len() > MAX_LIST {
        return Err(refuse("proxy", &format!("a list of {}", raw.proxy.len()), "at most 1024 proxies"));
    }
    let proxies = raw.proxy.iter().enumerate().map(|(at, proxy)| checked_proxy(at, proxy)).collect::<Result<Vec<_>, _>>()?;
    let twice = proxies
        .iter()
        .enumerate()
        .find(|(at, proxy)| proxy.listen.port() != 0 && proxies.iter().take(*at).any(|earlier| earlier.listen == proxy.listen));
    if let Some((at, proxy)) = twice {
        return Err(refuse(&format!("proxy[{at}].listen"), &proxy.listen, "an address that no other proxy listens on"));
    }
    Ok(Config {
        dir: base.join(raw.dir),
        servers: checked_servers(&raw.servers)?,
        fleets,
        log_format: raw.log.format,
        log_level: level,
        verdicts: checked_verdicts(&raw.verdict, base)?,
        metrics: checked_metrics(&raw.metrics.listen, raw.metrics.danger_any_address)?,
        proxies,
    })
}

fn refuse(key: &str, found: &(impl ToString + ?Sized), expected: &'static str) -> Refused {
    (key.to_owned(), format!("{:?}", found.to_string()), expected)
}

fn checked_servers(servers: &[String]) -> Result<Vec<ServerUrl>, Refused> {
    if servers.len() > MAX_LIST {
        return Err(refuse("servers", &servers.len(), "at most 1024 addresses"));
    }
    let check =
        |text: &String| text.parse().map_err(|_| refuse("servers", text, "origins such as \"https://ca.example:8443\""));
    servers.iter().map(check).collect()
}

fn checked_fleets(fleets: &[String]) -> Result<Vec<FleetName>, Refused> {
    if fleets.is_empty() || fleets.len() > MAX_LIST {
        return Err(refuse("fleets", &fleets.len(), "1 to 1024 fleets; leave the key out to follow all that were granted"));
    }
    let check = |text: &String| text.parse().map_err(|_| refuse("fleets", text, "names of fleets"));
    let mut checked: Vec<FleetName> = fleets.iter().map(check).collect::<Result<_, _>>()?;
    checked.sort();
    checked.dedup();
    Ok(checked)
}

fn checked_verdicts(raw: &RawVerdict, base: &Path) -> Result<Verdicts, Refused> {
    const PLACES: &str = "\"unix:/path/to/socket\", or a loopback address such as \"127.0.0.1:9180\"; whoever reaches it can ask \
                          for verdicts, so any other address needs danger_any_address = true";
    let refused = || refuse("verdict.listen", &raw.listen, PLACES);
    let listen = if let Some(path) = raw.listen.strip_prefix("unix:") {
        let path = base.join(path);
        if path.file_name().is_none() || path.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(refuse("verdict.listen", &raw.listen, "a socket's path of at most 95 octets"));
        }
        Place::Unix(path)
    } else {
        let address: SocketAddr = raw.listen.parse().map_err(|_| refused())?;
        if !is_loopback(address.ip()) && !raw.danger_any_address {
            return Err(refused());
        }
        Place::Tcp(address)
    };
    let max_requests = usize::try_from(raw.max_requests).ok().filter(|number| (1..=65_536).contains(number));
    let max_requests = max_requests.ok_or_else(|| refuse("verdict.max_requests", &raw.max_requests, "1 to 65536"))?;
    Ok(Verdicts { listen, max_requests })
}

fn checked_metrics(listen: &str, anywhere: bool) -> Result<Option<SocketAddr>, Refused> {
    const PLACES: &str =
        "a loopback address such as \"127.0.0.1:9181\", or \"none\"; any other address needs danger_any_address = true";
    if listen == "none" {
        return Ok(None);
    }
    let address: SocketAddr = listen.parse().map_err(|_| refuse("metrics.listen", listen, PLACES))?;
    if is_loopback(address.ip()) || anywhere { Ok(Some(address)) } else { Err(refuse("metrics.listen", listen, PLACES)) }
}

/// RFC 4291 2.5.5.2 addresses count as the IPv4 addresses in them.
fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn checked_proxy(at: usize, raw: &RawProxy) -> Result<Settings, Refused> {
    let table = Table(at);
    let listen = raw.listen.parse();
    let listen = listen.map_err(|_| table.refuse("listen", &raw.listen, "an address such as \"0.0.0.0:8883\""))?;
    if !is_host_and_port(&raw.upstream) {
        return Err(table.refuse("upstream", &raw.upstream, "host and port, such as \"127.0.0.1:1883\""));
    }
    let mut settings = Settings::new(listen, raw.upstream.clone());
    if let Some(protocol) = &raw.protocol {
        let fits = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || matches!(octet, b'-' | b'.' | b'_');
        if protocol.is_empty() || protocol.len() > 32 || !protocol.bytes().all(fits) {
            return Err(table.refuse("protocol", protocol, "a lower-case word such as \"mqtt\", at most 32 octets"));
        }
        settings.protocol = Some(protocol.clone());
    }
    settings.proxy_protocol = match raw.proxy_protocol.as_str() {
        "none" => ProxyProtocol::None,
        "v2" => ProxyProtocol::V2,
        other => return Err(table.refuse("proxy_protocol", other, "\"none\" or \"v2\"")),
    };
    check_rates(table, raw, &mut settings)?;
    check_times(table, raw, &mut settings)?;
    Ok(settings)
}

/// One `[[proxy]]` table, by its number from 0.
#[derive(Clone, Copy)]
struct Table(usize);

impl Table {
    fn refuse(self, key: &str, found: &(impl ToString + ?Sized), expected: &'static str) -> Refused {
        refuse(&format!("proxy[{}].{key}", self.0), found, expected)
    }

    fn number(self, key: &str, given: Option<i64>, default: NonZeroU32) -> Result<NonZeroU32, Refused> {
        let Some(given) = given else { return Ok(default) };
        let fits = u32::try_from(given).ok().filter(|number| *number <= MOST).and_then(NonZeroU32::new);
        fits.ok_or_else(|| self.refuse(key, &given, "a number from 1 to 1000000"))
    }

    fn seconds(self, key: &str, given: Option<i64>, default: Duration) -> Result<Duration, Refused> {
        let Some(given) = given else { return Ok(default) };
        let fits = u64::try_from(given).ok().filter(|number| (1..=60).contains(number));
        fits.map(Duration::from_secs).ok_or_else(|| self.refuse(key, &given, "1 to 60 seconds"))
    }
}

fn check_rates(table: Table, raw: &RawProxy, settings: &mut Settings) -> Result<(), Refused> {
    let default = |number: u32| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
    let (connections, handshakes) = (default(settings.max_connections), default(settings.max_handshakes));
    settings.max_connections = table.number("max_connections", raw.max_connections, connections)?.get();
    settings.max_handshakes = table.number("max_handshakes", raw.max_handshakes, handshakes)?.get();
    let rate = table.number("handshakes_per_second", raw.handshakes_per_second, settings.handshakes_per_second)?;
    settings.handshakes_per_second = rate;
    // Two seconds' worth, unless it is said otherwise.
    settings.handshake_burst = table.number("handshake_burst", raw.handshake_burst, rate.saturating_mul(default(2)))?;
    settings.address_handshakes_per_second = match raw.address_handshakes_per_second {
        None => settings.address_handshakes_per_second,
        Some(0) => None,
        given => Some(table.number("address_handshakes_per_second", given, rate)?),
    };
    Ok(())
}

fn check_times(table: Table, raw: &RawProxy, settings: &mut Settings) -> Result<(), Refused> {
    settings.handshake_timeout = table.seconds("handshake_timeout", raw.handshake_timeout, settings.handshake_timeout)?;
    settings.connect_timeout = table.seconds("connect_timeout", raw.connect_timeout, settings.connect_timeout)?;
    settings.idle_timeout = match raw.idle_timeout.map(|given| (given, u64::try_from(given))) {
        None => settings.idle_timeout,
        Some((_, Ok(0))) => None,
        Some((_, Ok(given))) if given <= LONGEST_IDLE => Some(Duration::from_secs(given)),
        Some((given, _)) => return Err(table.refuse("idle_timeout", &given, "0 for none, or up to 604800 seconds")),
    };
    Ok(())
}

fn is_host_and_port(text: &str) -> bool {
    if text.parse::<SocketAddr>().is_ok_and(|address| address.port() != 0) {
        return true;
    }
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    // RFC 1123 2.1.
    let fits = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_');
    !host.is_empty() && host.len() <= 253 && host.bytes().all(fits) && port.parse::<u16>().is_ok_and(|port| port != 0)
}
