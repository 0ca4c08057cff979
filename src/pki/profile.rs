//! Profiles: what a certificate looks like, as text files under `certs/profiles`. docs/profiles.md explains them.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use fleetmark_domain::Reenrollment;
use fleetmark_domain::lifecycle::Reaction;
use serde::Deserialize;

use super::PkiError;
use super::asked::{RequestRules, RequestTable};
use super::keys::KeyAlgorithm;

/// The largest profile file, in octets.
const MAX_FILE: usize = 16 * 1024;
/// The most profiles.
const MAX_PROFILES: usize = 256;

const MINUTE: u64 = 60;
const DAY: u64 = 24 * 60 * MINUTE;
const YEAR: u64 = 365 * DAY;

/// The extended key usage of claim certificates, 2.25.190392001021574049915008306275167811568, from the UUID
/// 8f3c2a64-5d0e-4b1f-9c57-2e6a91d4b7f0: content octets, without tag and length. A UUID's arc (X.667 7) does not fit into 64 bits,
/// so whoever encodes it writes these octets. It is ours alone: whoever asks for clientAuth, or for any purpose that it knows,
/// refuses a claim certificate.
pub const CLAIM_EKU: &[u8] =
    &[0x69, 0x82, 0x9e, 0xbc, 0x95, 0x99, 0x8b, 0xd0, 0xf2, 0xac, 0xbf, 0x9c, 0xab, 0xcb, 0xcd, 0xa9, 0x8e, 0xd2, 0xef, 0x70];

const BUILT_IN: [(&str, &str); 13] = [
    ("root", include_str!("../../certs/profiles/root.toml")),
    ("authority-device", include_str!("../../certs/profiles/authority-device.toml")),
    ("authority-gateway", include_str!("../../certs/profiles/authority-gateway.toml")),
    ("authority-service", include_str!("../../certs/profiles/authority-service.toml")),
    ("authority-operator", include_str!("../../certs/profiles/authority-operator.toml")),
    ("device", include_str!("../../certs/profiles/device.toml")),
    ("device-legacy", include_str!("../../certs/profiles/device-legacy.toml")),
    ("gateway", include_str!("../../certs/profiles/gateway.toml")),
    ("service", include_str!("../../certs/profiles/service.toml")),
    ("operator", include_str!("../../certs/profiles/operator.toml")),
    ("ocsp", include_str!("../../certs/profiles/ocsp.toml")),
    ("claim", include_str!("../../certs/profiles/claim.toml")),
    ("status", include_str!("../../certs/profiles/status.toml")),
];

/// An extended key usage that a profile may name (RFC 5280 4.2.1.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExtendedKeyUsage {
    /// id-kp-clientAuth
    ClientAuth,
    /// id-kp-serverAuth
    ServerAuth,
    /// id-kp-OCSPSigning
    OcspSigning,
    /// To claim a place in a fleet, and nothing else: [`CLAIM_EKU`].
    Claim,
    /// To sign status lists and statements of standing, and nothing else: [`fleetmark_status::STATUS_SIGNING_EKU`].
    StatusSigning,
}

impl ExtendedKeyUsage {
    /// The purposes that are ours alone, as the content octets of their OBJECT IDENTIFIERs.
    pub const fn own(self) -> Option<&'static [u8]> {
        match self {
            Self::Claim => Some(CLAIM_EKU),
            Self::StatusSigning => Some(&fleetmark_status::STATUS_SIGNING_EKU),
            Self::ClientAuth | Self::ServerAuth | Self::OcspSigning => None,
        }
    }
}

/// What an authority may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaRules {
    /// basicConstraints pathLenConstraint.
    pub path_length: u8,
    /// Name constraints that exclude all IP addresses.
    #[serde(default)]
    pub exclude_addresses: bool,
}

/// How a profile's holders enroll over EST: the table `[est]` (docs/est.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EstRules {
    /// Whether a device may have its key made by the server (RFC 7030 4.4).
    pub server_key_generation: bool,
    /// What a binding of the request to the TLS connection is worth (RFC 7030 3.5).
    pub channel_binding: BindingRule,
    /// Whether clients are told which keys and digests the profile takes (RFC 7030 4.5).
    pub csr_attributes: bool,
}

/// What becomes of a channel binding, and of a request without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BindingRule {
    /// One that is sent must hold.
    #[default]
    IfSent,
    /// One must be sent, and hold.
    Required,
    /// Nobody looks at it.
    Ignored,
}

impl Default for EstRules {
    fn default() -> Self {
        Self { server_key_generation: false, channel_binding: BindingRule::default(), csr_attributes: true }
    }
}

/// A checked profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The file's name without `.toml`.
    pub name: String,
    /// From notBefore (before backdating) to notAfter.
    pub lifetime: Duration,
    /// How far notBefore lies in the past.
    pub backdate: Duration,
    /// After which share of the lifetime renewal is due, in per cent.
    pub renew_after_percent: u8,
    /// Up to how much earlier or later renewal is due, in per cent of the lifetime; spreads a fleet's renewals.
    pub renew_jitter_percent: u8,
    /// How long a certificate may stay unconfirmed; None: for its whole life.
    pub unconfirmed_ttl: Option<Duration>,
    /// How long after its end the newest certificate may still be renewed; None: not at all.
    pub late_renewal: Option<Duration>,
    /// What the server does by itself where a superseded certificate is used.
    pub superseded_use: Reaction,
    /// Keys that a request may bring, or that an authority makes (then the first counts).
    pub keys: Vec<KeyAlgorithm>,
    /// Extended key usages.
    pub extended_key_usage: Vec<ExtendedKeyUsage>,
    /// None for an end entity.
    pub ca: Option<CaRules>,
    /// id-pkix-ocsp-nocheck (RFC 6960 4.2.2.2.1).
    pub ocsp_nocheck: bool,
    /// Whether the holder is named by a URI SAN (all but authorities and OCSP responders).
    pub identity: bool,
    /// Whether DNS and IP names registered for the holder go into the certificate.
    pub registered_names: bool,
    /// What requests may ask for.
    pub request: RequestRules,
    /// How its holders enroll over EST.
    pub est: EstRules,
    /// Whether a device that was enrolled before may enroll anew.
    pub reenroll: Reenrollment,
}

/// All profiles by name: those built in, overlaid by the files of a directory.
#[derive(Debug, Clone)]
pub struct Profiles(BTreeMap<String, Profile>);

impl Profiles {
    /// The built-in profiles: root, authority-device, authority-gateway, authority-service, authority-operator, device,
    /// device-legacy, gateway, service, operator, ocsp, claim, status; then the `*.toml` of `directory`, which replace or add.
    ///
    /// # Errors
    /// [`PkiError::Profile`] with the name and the reason, for the first file that is wrong.
    pub fn load(directory: Option<&Path>) -> Result<Self, PkiError> {
        let mut profiles = BTreeMap::new();
        for (name, text) in BUILT_IN {
            profiles.insert(name.to_owned(), Profile::parse(name, text)?);
        }
        for (name, text) in directory.map(files).transpose()?.unwrap_or_default() {
            let profile = Profile::parse(&name, &text)?;
            profiles.insert(name, profile);
        }
        Ok(Self(profiles))
    }

    /// The longest lifetime of an end entity's profile.
    pub fn longest_lifetime(&self) -> Duration {
        let end_entities = self.0.values().filter(|profile| profile.ca.is_none());
        end_entities.map(|profile| profile.lifetime).max().unwrap_or_default()
    }

    /// The longest [`Profile::late_renewal`]; zero where no profile has one.
    pub fn longest_late_renewal(&self) -> Duration {
        self.0.values().filter_map(|profile| profile.late_renewal).max().unwrap_or_default()
    }

    /// The profile of this name.
    pub fn find(&self, name: &str) -> Option<&Profile> {
        self.0.get(name)
    }
}

impl Profile {
    /// Reads and checks one profile.
    ///
    /// # Errors
    /// [`PkiError::Profile`] for an unknown or missing line, a value out of its bounds, or lines that contradict each other.
    pub fn parse(name: &str, text: &str) -> Result<Self, PkiError> {
        let wrong = |why: String| PkiError::Profile { name: name.chars().take(64).collect(), why };
        let fits = |o: u8| o.is_ascii_lowercase() || o.is_ascii_digit() || o == b'-';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
            return Err(wrong("a profile's name is 1 to 64 lower-case letters, digits and dashes".to_owned()));
        }
        let file: ProfileFile = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if file.request.is_some() && !file.identity {
            return Err(wrong("request is for identities".to_owned()));
        }
        let request = file.request.unwrap_or_default().rules(&file.extended_key_usage).map_err(wrong)?;
        if file.est.is_some() && !file.identity {
            return Err(wrong("est is for identities".to_owned()));
        }
        if file.reenroll.is_some() && !file.identity {
            return Err(wrong("reenroll is for profiles of devices".to_owned()));
        }
        let profile = Self {
            name: name.to_owned(),
            lifetime: duration("lifetime", &file.lifetime, 10 * MINUTE, 50 * YEAR).map_err(wrong)?,
            backdate: duration("backdate", &file.backdate, 0, 90 * DAY).map_err(wrong)?,
            renew_after_percent: file.renew_after_percent,
            renew_jitter_percent: file.renew_jitter_percent,
            unconfirmed_ttl: file
                .unconfirmed_ttl
                .map(|text| duration("unconfirmed_ttl", &text, MINUTE, 10 * YEAR))
                .transpose()
                .map_err(wrong)?,
            late_renewal: file
                .late_renewal
                .map(|text| duration("late_renewal", &text, MINUTE, 10 * YEAR))
                .transpose()
                .map_err(wrong)?,
            superseded_use: file.superseded_use,
            keys: file.keys,
            extended_key_usage: file.extended_key_usage,
            ca: file.authority,
            ocsp_nocheck: file.ocsp_nocheck,
            identity: file.identity,
            registered_names: file.registered_names,
            request,
            est: file.est.unwrap_or_default(),
            reenroll: file.reenroll.unwrap_or_default(),
        };
        match profile.contradiction() {
            Some(why) => Err(wrong(why.to_owned())),
            None => Ok(profile),
        }
    }

    fn contradiction(&self) -> Option<&'static str> {
        let twice = |at: usize, same: bool| at > 0 && same;
        let usages = &self.extended_key_usage;
        let rules = [
            (!(10..=95).contains(&self.renew_after_percent), "renew_after_percent is 10 to 95"),
            (self.renew_jitter_percent > 20, "renew_jitter_percent is at most 20"),
            (self.renew_after_percent.saturating_add(self.renew_jitter_percent) >= 100, "renewal would be due after the end"),
            (self.renew_after_percent <= self.renew_jitter_percent, "renewal would be due before the start"),
            (self.unconfirmed_ttl.is_some_and(|ttl| ttl >= self.lifetime), "unconfirmed_ttl is shorter than the lifetime"),
            (self.keys.is_empty(), "keys names at least one algorithm"),
            (
                self.keys.iter().enumerate().any(|(at, key)| twice(at, self.keys.iter().take(at).any(|k| k == key))),
                "keys names an algorithm twice",
            ),
            (
                usages.iter().enumerate().any(|(at, one)| twice(at, usages.iter().take(at).any(|u| u == one))),
                "extended_key_usage names a usage twice",
            ),
            (self.ca.is_some() && self.identity, "an authority has no identity"),
            (self.ca.is_some() && self.keys.contains(&KeyAlgorithm::Rsa), "authorities have no RSA keys"),
            (self.ca.is_some_and(|ca| ca.path_length > 4), "path_length is at most 4"),
            (self.ca.is_none() && usages.is_empty(), "an end entity has an extended_key_usage"),
            (
                self.ca.is_none()
                    && usages.iter().all(|usage| usage.own().is_none())
                    && self.identity == usages.contains(&ExtendedKeyUsage::OcspSigning),
                "ocsp-signing is for authorities and OCSP responders",
            ),
            (
                usages.iter().any(|usage| usage.own().is_some()) && (self.ca.is_some() || self.identity || usages.len() != 1),
                "claim and status-signing stand alone, and name no identity",
            ),
            (
                self.ocsp_nocheck && (self.ca.is_some() || *usages != [ExtendedKeyUsage::OcspSigning]),
                "ocsp_nocheck is for OCSP responders alone",
            ),
            (self.registered_names && !self.identity, "registered_names is for identities"),
            (
                self.est.server_key_generation && self.keys.iter().all(|key| *key == KeyAlgorithm::Rsa),
                "server_key_generation makes no RSA keys",
            ),
            (self.late_renewal.is_some() && !self.identity, "late_renewal is for identities"),
            (self.superseded_use != Reaction::Alarm && !self.identity, "superseded_use is for identities"),
        ];
        rules.into_iter().find_map(|(broken, why)| broken.then_some(why))
    }
}

/// A profile as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFile {
    lifetime: String,
    backdate: String,
    renew_after_percent: u8,
    renew_jitter_percent: u8,
    unconfirmed_ttl: Option<String>,
    late_renewal: Option<String>,
    #[serde(default)]
    superseded_use: Reaction,
    keys: Vec<KeyAlgorithm>,
    #[serde(default)]
    extended_key_usage: Vec<ExtendedKeyUsage>,
    #[serde(default)]
    ocsp_nocheck: bool,
    #[serde(default)]
    identity: bool,
    #[serde(default)]
    registered_names: bool,
    reenroll: Option<Reenrollment>,
    authority: Option<CaRules>,
    request: Option<RequestTable>,
    est: Option<EstRules>,
}

/// A whole number and a unit: s, m (minutes), h, d, y (365 days). The bounds are in seconds.
fn duration(field: &str, text: &str, least: u64, most: u64) -> Result<Duration, String> {
    let form = || format!("{field} is a whole number with a unit, s, m, h, d or y, such as \"90d\"");
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => MINUTE,
        Some('h') => 60 * MINUTE,
        Some('d') => DAY,
        Some('y') => YEAR,
        _ => return Err(form()),
    };
    let digits = text.get(..text.len().saturating_sub(1)).unwrap_or_default();
    if digits.is_empty() || digits.len() > 10 || !digits.bytes().all(|o| o.is_ascii_digit()) {
        return Err(form());
    }
    let seconds = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit)).ok_or_else(form)?;
    if (least..=most).contains(&seconds) {
        Ok(Duration::from_secs(seconds))
    } else {
        Err(format!("{field} is at least {least} s and at most {most} s"))
    }
}

/// The `*.toml` of a directory: name and text.
fn files(directory: &Path) -> Result<BTreeMap<String, String>, PkiError> {
    let wrong = |name: &str, why: String| PkiError::Profile { name: name.to_owned(), why };
    let unreadable = |error: std::io::Error| wrong(&directory.display().to_string(), error.to_string());
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut text = String::new();
        std::fs::File::open(&path)
            .and_then(|file| file.take(u64::try_from(MAX_FILE).unwrap_or(u64::MAX) + 1).read_to_string(&mut text))
            .map_err(|error| wrong(&name, error.to_string()))?;
        if text.len() > MAX_FILE || found.len() >= MAX_PROFILES {
            return Err(wrong(&name, format!("at most {MAX_PROFILES} files of {MAX_FILE} octets are read")));
        }
        found.insert(name, text);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: &str = include_str!("../../certs/profiles/device.toml");

    #[test]
    fn the_built_in_profiles_are_as_designed() {
        let profiles = Profiles::load(None).unwrap();
        let device = profiles.find("device").unwrap();
        assert_eq!(device.lifetime, Duration::from_secs(90 * DAY));
        assert_eq!(device.unconfirmed_ttl, Some(Duration::from_secs(DAY)));
        assert!(!device.keys.contains(&KeyAlgorithm::Rsa));
        assert!(profiles.find("device-legacy").unwrap().keys.contains(&KeyAlgorithm::Rsa));
        for kind in ["device", "gateway", "service", "operator"] {
            let authority = profiles.find(&format!("authority-{kind}")).unwrap();
            let ca = authority.ca.unwrap();
            assert_eq!((ca.path_length, ca.exclude_addresses), (0, false));
            let holder = profiles.find(kind).unwrap();
            assert!(holder.identity);
            // RFC 5280 4.2.1.12 as OpenSSL and webpki apply it: usages of the chain are an intersection.
            assert!(holder.extended_key_usage.iter().all(|usage| authority.extended_key_usage.contains(usage)), "{kind}");
        }
        assert!(!profiles.find("authority-device").unwrap().extended_key_usage.contains(&ExtendedKeyUsage::ServerAuth));
        assert!(profiles.find("service").unwrap().backdate >= Duration::from_secs(30 * DAY));
        assert_eq!(profiles.find("service").unwrap().unconfirmed_ttl, None);
        assert!(profiles.find("ocsp").unwrap().ocsp_nocheck);
        assert!(profiles.find("unknown").is_none());
        assert_eq!(profiles.0.len(), BUILT_IN.len());
    }

    #[test]
    fn durations_have_bounds() {
        assert_eq!(duration("x", "90d", 0, YEAR), Ok(Duration::from_secs(7_776_000)));
        assert_eq!(duration("x", "24h", 0, YEAR), duration("x", "1d", 0, YEAR));
        assert_eq!(duration("x", "5m", 0, YEAR), Ok(Duration::from_secs(300)));
        for text in ["", "d", "90", "-1d", "1.5d", "1d ", " 1d", "1w", "99999999999y", "9999999999y", "1\u{e9}", "366d"] {
            assert!(duration("x", text, 0, YEAR).is_err(), "{text}");
        }
        assert!(duration("x", "1s", 2, YEAR).is_err());
    }

    #[test]
    fn wrong_profiles_are_refused_with_a_reason() {
        for (from, to, why) in [
            ("lifetime = \"90d\"", "lifetime = \"51y\"", "lifetime"),
            ("backdate = \"1h\"", "backdate = \"91d\"", "backdate"),
            ("backdate = \"1h\"", "", "backdate"),
            ("identity = true", "identity = true\nfoo = 1", "foo"),
            ("identity = true", "identity = true\n[authority]\npath_length = 0", "no identity"),
            ("identity = true", "", "ocsp-signing"),
            ("identity = true", "registered_names = true", "ocsp-signing"),
            ("identity = true", "identity = true\nocsp_nocheck = true", "ocsp_nocheck"),
            ("\"p256\", ", "\"p256\", \"p256\", ", "twice"),
            ("\"p256\", ", "\"p521\", ", "p521"),
            ("keys = [\"p256\", \"p384\", \"ed25519\"]", "keys = []", "at least one"),
            ("[\"client-auth\"]", "[\"client-auth\", \"client-auth\"]", "twice"),
            ("[\"client-auth\"]", "[]", "extended_key_usage"),
            ("[\"client-auth\"]", "[\"any\"]", "any"),
            ("[\"client-auth\"]", "[\"client-auth\", \"claim\"]", "claim and status-signing stand alone"),
            ("[\"client-auth\"]", "[\"claim\"]", "claim and status-signing stand alone"),
            ("percent = 66", "percent = 5", "renew_after_percent"),
            ("percent = 5", "percent = 21", "renew_jitter_percent"),
            ("ttl = \"24h\"", "ttl = \"91d\"", "unconfirmed_ttl"),
            ("identity = true", "identity = true\n[request]\nextensions = [\"key-usage\"]", "strict = true"),
            ("identity = true", "identity = true\n[request]\nstrict = true\nextensions = [\"name\"]", "subject-alt-name"),
            ("identity = true", "identity = true\n[request]\nstrict = true\nattributes = [\"1.2.\"]", "challenge-password"),
            ("identity = true", "identity = true\n[request]\nallow = true", "allow"),
            ("identity = true", "[request]\nstrict = true", "identities"),
            ("identity = true", "identity = true\n[est]\nchannel_binding = \"sometimes\"", "sometimes"),
            ("identity = true", "identity = true\n[est]\nkeys = true", "keys"),
            ("identity = true", "[est]\nserver_key_generation = true", "est is for identities"),
            (
                "keys = [\"p256\", \"p384\", \"ed25519\"]\nextended_key_usage = [\"client-auth\"]\nidentity = true",
                "keys = [\"rsa\"]\nextended_key_usage = [\"client-auth\"]\nidentity = true\n[est]\nserver_key_generation = true",
                "no RSA keys",
            ),
            ("identity = true", "identity = true\nreenroll = \"sometimes\"", "reenroll"),
            ("identity = true", "reenroll = \"always\"", "reenroll"),
            ("identity = true", "identity = true\nlate_renewal = \"11y\"", "late_renewal"),
            ("identity = true", "identity = true\nsuperseded_use = \"revoke\"", "revoke"),
        ] {
            let text = DEVICE.replacen(from, to, 1);
            assert_ne!(text, DEVICE, "{from}");
            let error = Profile::parse("device", &text).expect_err(to).to_string();
            assert!(error.contains(why), "{to}: {error}");
        }
        assert!(Profile::parse("De vice", DEVICE).is_err());
    }

    #[test]
    fn the_rules_of_est_have_safe_defaults() {
        let device = Profile::parse("device", DEVICE).unwrap();
        assert_eq!(device.est, EstRules::default());
        assert!(!device.est.server_key_generation && device.est.csr_attributes);
        assert_eq!(device.est.channel_binding, BindingRule::IfSent);
        let text =
            format!("{DEVICE}\n[est]\nserver_key_generation = true\nchannel_binding = \"required\"\ncsr_attributes = false");
        let wanted = EstRules { server_key_generation: true, channel_binding: BindingRule::Required, csr_attributes: false };
        assert_eq!(Profile::parse("device", &text).unwrap().est, wanted);
    }

    #[test]
    fn a_directory_replaces_and_adds() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        write("device.toml", &DEVICE.replace("90d", "30d"));
        write("camera.toml", &DEVICE.replace("90d", "1y"));
        write("notes.txt", "not a profile");
        let profiles = Profiles::load(Some(directory.path())).unwrap();
        assert_eq!(profiles.find("device").unwrap().lifetime, Duration::from_secs(30 * DAY));
        assert_eq!(profiles.find("camera").unwrap().lifetime, Duration::from_secs(YEAR));
        assert!(profiles.find("gateway").is_some());

        write("camera.toml", &"#".repeat(MAX_FILE + 1));
        assert!(Profiles::load(Some(directory.path())).is_err());
        assert!(Profiles::load(Some(&directory.path().join("none"))).is_err());
    }
}
