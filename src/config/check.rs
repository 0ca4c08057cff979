//! From what is written to what is checked, with the defaults.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

use super::raw::Read;
use super::{
    Config, ConfigError, Doors, EnrollRate, KeyHome, KeySettings, Layout, Limits, Log, LogFormat, Names, Pkcs11, StoreLocation,
    host,
};

/// More worker threads than this are a mistake.
const MAX_WORKERS: u32 = 256;

/// More names than this are a mistake: they all stand in one certificate.
const MAX_NAMES: usize = 64;

/// Checks every key.
pub(super) fn check(data: Layout, read: &Read) -> Result<Config, ConfigError> {
    let raw = &read.raw;
    let doors = doors(read)?;
    let names = names(read)?;
    let public_url = public_url(read, &names, doors.public)?;
    let store = store(read, &data)?;
    let path = |text: &String| data.directory().join(text);
    Ok(Config {
        trust_domain: parsed(read, "trust_domain", raw.trust_domain.as_deref(), "fleetmark.local")?,
        doors,
        names,
        public_url,
        store,
        default_fleet: parsed(read, "default_fleet", raw.default_fleet.as_deref(), "default")?,
        workers: workers(read)?,
        limits: limits(read)?,
        snapshot_every: snapshot_every(read)?,
        log: log(read)?,
        profiles: raw.profiles.as_ref().map(path),
        weak_lists: raw.keys.weak_lists.as_ref().map(path),
        keys: keys(read, &data)?,
        passphrase_file: raw.passphrase_file.as_ref().map(path),
        danger_online_root: raw.danger_online_root,
        danger_async_replication: raw.danger_async_replication,
        danger_plaintext_postgres: raw.danger_plaintext_postgres,
        data,
    })
}

fn value(read: &Read, key: &str, found: impl fmt::Display, expected: impl Into<String>) -> ConfigError {
    ConfigError::Value { origin: read.origin(key), key: key.to_owned(), found: format!("`{found}`"), expected: expected.into() }
}

/// A key with a type of its own, whose error says what is expected.
fn parsed<T>(read: &Read, key: &str, text: Option<&str>, default: &str) -> Result<T, ConfigError>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    let text = text.unwrap_or(default);
    text.parse().map_err(|reason: T::Err| value(read, key, text, reason.to_string()))
}

fn doors(read: &Read) -> Result<Doors, ConfigError> {
    let door = |key: &str, text: &Option<String>, default: &str| -> Result<SocketAddr, ConfigError> {
        let text = text.as_deref().unwrap_or(default);
        text.parse().map_err(|_| value(read, key, text, "ADDRESS:PORT, such as 127.0.0.1:9443 or [::]:8443"))
    };
    let raw = &read.raw.doors;
    let doors = Doors {
        device: door("doors.device", &raw.device, "0.0.0.0:8443")?,
        admin: door("doors.admin", &raw.admin, "127.0.0.1:9443")?,
        public: door("doors.public", &raw.public, "0.0.0.0:8080")?,
    };
    let pairs = [
        ("doors.admin", doors.admin, "doors.device", doors.device),
        ("doors.public", doors.public, "doors.device", doors.device),
        ("doors.public", doors.public, "doors.admin", doors.admin),
    ];
    // Port 0 asks the system for a free port, so two of them do not clash.
    match pairs.into_iter().find(|(_, one, _, other)| one.port() != 0 && one == other) {
        Some((one, address, other, _)) => {
            // The key that somebody wrote is the one to name.
            let key = if raw.is_given(one) { one } else { other };
            Err(value(read, key, address, "an address that no other door has"))
        }
        None => Ok(doors),
    }
}

fn names(read: &Read) -> Result<Names, ConfigError> {
    let given = match &read.raw.names {
        Some(words) => words.0.clone(),
        None => default_names(),
    };
    let Some(first) = given.first() else {
        return Err(value(read, "names", "empty", "at least one DNS name or IP address"));
    };
    if given.len() > MAX_NAMES {
        return Err(value(read, "names", given.len(), format!("at most {MAX_NAMES} names")));
    }
    let mut names = Names { dns: Vec::new(), addresses: Vec::new(), first: first.to_ascii_lowercase() };
    for name in &given {
        if let Ok(address) = name.parse::<IpAddr>() {
            push_new(&mut names.addresses, address);
        } else if is_dns_name(name) {
            push_new(&mut names.dns, name.to_ascii_lowercase());
        } else {
            return Err(value(read, "names", name, "DNS names (letters, digits, '-', '.', no wildcard) or IP addresses"));
        }
    }
    Ok(names)
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

fn default_names() -> Vec<String> {
    let hostname = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    let mut names = vec!["localhost".to_owned()];
    if is_dns_name(&hostname) && hostname != "localhost" {
        names.push(hostname);
    }
    names.extend(["127.0.0.1".to_owned(), "::1".to_owned()]);
    names
}

/// RFC 1123 2.1: labels of 1 to 63 letters, digits and inner hyphens, 253 in all. An all-digit last label would be
/// a broken IPv4 address.
fn is_dns_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|o| o.is_ascii_alphanumeric() || o == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last_is_number = name.rsplit('.').next().is_some_and(|label| label.bytes().all(|o| o.is_ascii_digit()));
    name.len() <= 253 && name.split('.').all(is_label) && !last_is_number
}

fn public_url(read: &Read, names: &Names, door: SocketAddr) -> Result<String, ConfigError> {
    const EXPECTED: &str = "http://HOST[:PORT][/PATH] without user, query and fragment (plain HTTP: a verifier that fetches a \
        revocation list over TLS would need one first)";
    let Some(text) = &read.raw.public_url else {
        return Ok(format!("http://{}:{}", host(&names.first), door.port()));
    };
    let refused = || value(read, "public_url", text, EXPECTED);
    let url = reqwest::Url::parse(text).map_err(|_| refused())?;
    let bare = url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    let printable = text.bytes().all(|o| o.is_ascii_graphic());
    if url.scheme() != "http" || url.host_str().is_none() || !bare || !printable || text.len() > 512 {
        return Err(refused());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn store(read: &Read, data: &Layout) -> Result<StoreLocation, ConfigError> {
    let Some(text) = &read.raw.store else {
        return Ok(StoreLocation::Sqlite(data.database()));
    };
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        return Ok(StoreLocation::Postgres(text.clone().into()));
    }
    match text.strip_prefix("sqlite:") {
        Some(path) if !path.is_empty() && !path.contains(['?', '\0']) && path != ":memory:" => {
            Ok(StoreLocation::Sqlite(data.directory().join(PathBuf::from(path))))
        }
        // The text may hold a password: it is not repeated.
        _ => {
            Err(value(read, "store", "something else", "sqlite:PATH (in the data directory, unless absolute) or postgres://…"))
        }
    }
}

fn workers(read: &Read) -> Result<NonZeroUsize, ConfigError> {
    let Some(workers) = read.raw.workers else {
        return Ok(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
    };
    let checked = usize::try_from(workers).ok().and_then(NonZeroUsize::new).filter(|_| workers <= MAX_WORKERS);
    checked.ok_or_else(|| value(read, "workers", workers, format!("1 to {MAX_WORKERS}")))
}

/// Attempts of one address to enroll, unless the configuration says otherwise: enough for a site behind one address.
const ENROLL_PER_SECOND: u32 = 50;
const ENROLL_BURST: u32 = 200;

/// Certificates a second by one proof, in one fleet, in all, unless the configuration says otherwise.
const PROOF_PER_SECOND: u32 = 100;
const FLEET_PER_SECOND: u32 = 1_000;
const INSTALLATION_PER_SECOND: u32 = 2_000;

/// Renewals of one identity an hour, unless the configuration says otherwise: the shortest lifetime with the earliest renewal takes
/// one a minute.
const RENEW_PER_HOUR: u32 = 60;

fn limits(read: &Read) -> Result<Limits, ConfigError> {
    let raw = &read.raw.limits;
    let connections = raw.connections.unwrap_or(25_000);
    let connections =
        NonZeroU32::new(connections).ok_or_else(|| value(read, "limits.connections", connections, "at least 1"))?;
    let followers = raw.followers.unwrap_or(1_000);
    let followers = NonZeroU32::new(followers).ok_or_else(|| value(read, "limits.followers", followers, "at least 1"))?;
    let given = (NonZeroU32::new(raw.enroll_per_second.unwrap_or(ENROLL_PER_SECOND)), raw.enroll_burst);
    let usual = raw.enroll_per_second.is_none().then_some(ENROLL_BURST);
    let enroll = match (given.0, given.1.or(usual)) {
        (None, Some(burst)) if burst > 0 => {
            return Err(value(read, "limits.enroll_burst", burst, "limits.enroll_per_second beside it"));
        }
        (None, _) => None,
        (Some(per_second), None) => Some(EnrollRate { per_second, burst: per_second }),
        (Some(per_second), Some(burst)) => {
            let burst = NonZeroU32::new(burst).ok_or_else(|| {
                value(read, "limits.enroll_burst", burst, "at least 1 (enroll_per_second = 0 turns the limit off)")
            })?;
            Some(EnrollRate { per_second, burst })
        }
    };
    let proof = NonZeroU32::new(raw.proof_per_second.unwrap_or(PROOF_PER_SECOND));
    let fleet = NonZeroU32::new(raw.fleet_per_second.unwrap_or(FLEET_PER_SECOND));
    let installation = NonZeroU32::new(raw.installation_per_second.unwrap_or(INSTALLATION_PER_SECOND));
    let renewal = NonZeroU32::new(raw.renew_per_hour.unwrap_or(RENEW_PER_HOUR));
    Ok(Limits { connections, followers, enroll, proof, fleet, installation, renewal })
}

/// Entries between two snapshots of a ledger, unless the configuration says otherwise.
const SNAPSHOT_EVERY: u32 = 4_096;

fn snapshot_every(read: &Read) -> Result<NonZeroU32, ConfigError> {
    let every = read.raw.ledger.snapshot_every.unwrap_or(SNAPSHOT_EVERY);
    NonZeroU32::new(every).ok_or_else(|| value(read, "ledger.snapshot_every", every, "at least 1"))
}

/// Sessions of the token, unless the configuration says otherwise.
const SESSIONS: u32 = 8;
/// More sessions than this are a mistake.
const MAX_SESSIONS: u32 = 256;

fn keys(read: &Read, data: &Layout) -> Result<KeySettings, ConfigError> {
    let raw = &read.raw.keys;
    let settings = KeySettings {
        root: raw.root.unwrap_or(KeyHome::Files),
        authorities: raw.authorities.unwrap_or(KeyHome::Files),
        root_algorithm: raw.root_algorithm,
        algorithm: raw.algorithm,
        pkcs11: pkcs11(read, data)?,
    };
    if settings.pkcs11.is_none() {
        for (key, home) in [("keys.root", settings.root), ("keys.authorities", settings.authorities)] {
            if home == KeyHome::Pkcs11 {
                return Err(value(read, key, "pkcs11", "the table keys.pkcs11 beside it"));
            }
        }
    }
    Ok(settings)
}

/// A key that the table `keys.pkcs11` needs; whoever wrote the table is told.
fn lacking(read: &Read, key: &str, expected: &str) -> ConfigError {
    let (key, expected) = (key.to_owned(), expected.to_owned());
    ConfigError::Value { origin: read.origin("keys.pkcs11"), key, found: "nothing".to_owned(), expected }
}

fn pkcs11(read: &Read, data: &Layout) -> Result<Option<Pkcs11>, ConfigError> {
    let Some(raw) = &read.raw.keys.pkcs11 else { return Ok(None) };
    let Some(module) = raw.module.as_ref().filter(|module| !module.is_empty()) else {
        return Err(lacking(
            read,
            "keys.pkcs11.module",
            "the path of the PKCS#11 module, such as /usr/lib/softhsm/libsofthsm2.so",
        ));
    };
    let module = PathBuf::from(module);
    if !module.is_absolute() {
        return Err(value(
            read,
            "keys.pkcs11.module",
            module.display(),
            "an absolute path: the module is code that runs in the server",
        ));
    }
    // PKCS #11 3.1 (CK_TOKEN_INFO): 32 octets of label, 16 of serial number.
    let (label, serial) = (raw.token.as_deref().map(str::trim), raw.serial.as_deref().map(str::trim));
    for (key, text, most) in [("keys.pkcs11.token", label, 32), ("keys.pkcs11.serial", serial, 16)] {
        if let Some(text) = text.filter(|text| text.is_empty() || text.len() > most) {
            return Err(value(read, key, text, format!("1 to {most} octets")));
        }
    }
    if label.is_none() && serial.is_none() {
        return Err(lacking(read, "keys.pkcs11.token", "the token's label, or its serial number as keys.pkcs11.serial"));
    }
    let sessions = raw.sessions.unwrap_or(SESSIONS);
    let checked = usize::try_from(sessions).ok().and_then(NonZeroUsize::new).filter(|_| sessions <= MAX_SESSIONS);
    Ok(Some(Pkcs11 {
        module,
        token: label.map(str::to_owned),
        serial: serial.map(str::to_owned),
        pin_file: raw.pin_file.as_ref().map(|text| data.directory().join(text)),
        sessions: checked.ok_or_else(|| value(read, "keys.pkcs11.sessions", sessions, format!("1 to {MAX_SESSIONS}")))?,
    }))
}

fn log(read: &Read) -> Result<Log, ConfigError> {
    let level = read.raw.log.level.clone().unwrap_or_else(|| "info".to_owned());
    EnvFilter::try_new(&level)
        .map_err(|_| value(read, "log.level", &level, "error, warn, info, debug, trace, or directives"))?;
    Ok(Log { format: read.raw.log.format.unwrap_or(LogFormat::Text), level })
}
