//! Profiles: what a certificate looks like, as text files under `certs/profiles`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::PkiError;
use super::keys::KeyAlgorithm;

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
}

/// What an authority may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaRules {
    /// basicConstraints pathLenConstraint.
    pub path_length: u8,
    /// Name constraints that exclude all IP addresses.
    pub exclude_addresses: bool,
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
}

/// All profiles by name: those built in, overlaid by the files of a directory.
#[derive(Debug, Clone)]
pub struct Profiles(BTreeMap<String, Profile>);

impl Profiles {
    /// The built-in profiles: root, authority-device, authority-gateway, authority-service, authority-operator, device, gateway,
    /// service, operator, ocsp; then the `*.toml` of `directory`, which replace or add.
    pub fn load(_directory: Option<&Path>) -> Result<Self, PkiError> {
        todo!()
    }

    /// The profile of this name.
    pub fn find(&self, name: &str) -> Option<&Profile> {
        self.0.get(name)
    }
}
