//! Identities: SPIFFE IDs of the four kinds of caller.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{FleetName, Name, NameError};

/// The four kinds of identity. An authority is bound to one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A device of one fleet.
    Device,
    /// A gateway, which asks for standing before it accepts telemetry.
    Gateway,
    /// A service of the installation, the server's own doors among them.
    Service,
    /// A person or a script that operates the installation.
    Operator,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Device, Self::Gateway, Self::Service, Self::Operator];

    /// The word that stands in the SPIFFE ID's path.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Gateway => "gateway",
            Self::Service => "service",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(IdentityError::Kind)
    }
}

/// Why a text is not an [`Identity`] or a [`TrustDomain`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The text does not begin with `spiffe://`.
    #[error("an identity begins with spiffe://")]
    Scheme,
    /// SPIFFE-ID 2.1: a trust domain has lower-case letters, digits, dots, dashes and underscores, at most 255.
    #[error("a trust domain has lower-case letters, digits, '.', '-' and '_', at most 255 of them")]
    TrustDomain,
    /// The first path segment is none of the four kinds.
    #[error("an identity is of kind device, gateway, service or operator")]
    Kind,
    /// The path has too few or too many segments for its kind.
    #[error("an identity is /device/FLEET/NAME, /gateway/NAME, /service/NAME or /operator/NAME")]
    Path,
    /// A segment is no name.
    #[error("a segment of the identity is not a name")]
    Name(#[from] NameError),
}

/// A SPIFFE trust domain: the root that an installation's identities hang from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(String);

impl TrustDomain {
    /// The trust domain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let fits = |o: u8| o.is_ascii_lowercase() || o.is_ascii_digit() || matches!(o, b'.' | b'-' | b'_');
        if text.is_empty() || text.len() > 255 || !text.bytes().all(fits) {
            return Err(IdentityError::TrustDomain);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = IdentityError;

    fn try_from(text: String) -> Result<Self, IdentityError> {
        text.parse()
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> Self {
        domain.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who somebody is, within a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identity {
    /// `/device/FLEET/NAME`
    Device {
        /// The fleet that the device belongs to.
        fleet: FleetName,
        /// The device's name, unique in its fleet without regard to case.
        name: Name,
    },
    /// `/gateway/NAME`
    Gateway(Name),
    /// `/service/NAME`
    Service(Name),
    /// `/operator/NAME`
    Operator(Name),
}

impl Identity {
    /// The identity of `kind` called `name`; only a device has a fleet, and it must have one.
    pub fn new(kind: Kind, fleet: Option<FleetName>, name: Name) -> Result<Self, IdentityError> {
        match (kind, fleet) {
            (Kind::Device, Some(fleet)) => Ok(Self::Device { fleet, name }),
            (Kind::Gateway, None) => Ok(Self::Gateway(name)),
            (Kind::Service, None) => Ok(Self::Service(name)),
            (Kind::Operator, None) => Ok(Self::Operator(name)),
            _ => Err(IdentityError::Path),
        }
    }

    /// The kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Device { .. } => Kind::Device,
            Self::Gateway(_) => Kind::Gateway,
            Self::Service(_) => Kind::Service,
            Self::Operator(_) => Kind::Operator,
        }
    }

    /// The last segment.
    pub const fn name(&self) -> &Name {
        match self {
            Self::Device { name, .. } | Self::Gateway(name) | Self::Service(name) | Self::Operator(name) => name,
        }
    }

    /// The fleet, of a device.
    pub const fn fleet(&self) -> Option<&FleetName> {
        match self {
            Self::Device { fleet, .. } => Some(fleet),
            _ => None,
        }
    }

    /// The SPIFFE ID, as it stands in the certificate's one URI SAN.
    pub fn uri(&self, domain: &TrustDomain) -> String {
        match self {
            Self::Device { fleet, name } => format!("spiffe://{domain}/device/{fleet}/{name}"),
            other => format!("spiffe://{domain}/{}/{}", other.kind(), other.name()),
        }
    }

    /// Reads a SPIFFE ID.
    ///
    /// # Errors
    /// An [`IdentityError`] for anything but the exact form that [`Self::uri`] writes: no percent-encoding,
    /// no empty segment, no query.
    pub fn parse(uri: &str) -> Result<(TrustDomain, Self), IdentityError> {
        let rest = uri.strip_prefix("spiffe://").ok_or(IdentityError::Scheme)?;
        let (domain, path) = rest.split_once('/').ok_or(IdentityError::Path)?;
        let domain = domain.parse()?;
        let mut segments = path.split('/');
        let kind: Kind = segments.next().ok_or(IdentityError::Path)?.parse()?;
        let fleet = match kind {
            Kind::Device => Some(segments.next().ok_or(IdentityError::Path)?.parse()?),
            _ => None,
        };
        let name = segments.next().ok_or(IdentityError::Path)?.parse()?;
        if segments.next().is_some() {
            return Err(IdentityError::Path);
        }
        Ok((domain, Self::new(kind, fleet, name)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for uri in [
            "spiffe://fleet.example/device/default/sensor-01",
            "spiffe://fleet.example/gateway/edge.1",
            "spiffe://fleet.example/service/fleetmark",
            "spiffe://fleet.example/operator/alice",
        ] {
            let (domain, identity) = Identity::parse(uri).expect(uri);
            assert_eq!(identity.uri(&domain), uri);
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for uri in [
            "https://fleet.example/device/default/a",
            "spiffe://Fleet.example/operator/a",
            "spiffe://fleet.example",
            "spiffe://fleet.example/operator",
            "spiffe://fleet.example/operator/",
            "spiffe://fleet.example/operator/a/b",
            "spiffe://fleet.example/device/a",
            "spiffe://fleet.example/device/system/a",
            "spiffe://fleet.example/device/default/a%2fb",
            "spiffe://fleet.example/operator/a?x",
            "spiffe://fleet.example:1/operator/a",
            "spiffe:///operator/a",
        ] {
            assert!(Identity::parse(uri).is_err(), "{uri} was taken for an identity");
        }
    }
}
