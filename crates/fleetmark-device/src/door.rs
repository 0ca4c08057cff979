//! Which door of the server an identity goes through, and the address of the server.

use std::fmt;
use std::str::FromStr;

use fleetmark_domain::{FleetName, Identity, Kind};
use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The resources for one sort of identity: a fleet's devices, or the installation's gateways, services and operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Door {
    /// `/v1/fleets/{fleet}/…`
    Fleet(FleetName),
    /// `/v1/…`
    Installation,
}

impl Door {
    /// The path of `act` (`enroll`, `renew` or `confirm`).
    pub(crate) fn path(&self, act: &str) -> String {
        match self {
            Self::Fleet(fleet) => format!("/v1/fleets/{fleet}/{act}"),
            Self::Installation => format!("/v1/{act}"),
        }
    }

    /// Whether an identity comes through this door.
    pub fn admits(&self, identity: &Identity) -> bool {
        match self {
            Self::Fleet(fleet) => identity.fleet() == Some(fleet),
            Self::Installation => identity.kind() != Kind::Device,
        }
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fleet(fleet) => write!(f, "fleet {fleet}"),
            Self::Installation => f.write_str("installation"),
        }
    }
}

/// The server's origin: `https://host[:port]` and nothing more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServerUrl(Url);

impl ServerUrl {
    /// The URL of `path`, which begins with a slash.
    pub fn at(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        url.set_path(path);
        url
    }
}

impl FromStr for ServerUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |why: &str| Error::Usage(format!("{text:?} is no server URL: {why}; it looks like https://host:8443"));
        let url = Url::parse(text).map_err(|error| refuse(&error.to_string()))?;
        if url.scheme() != "https" {
            return Err(refuse("it must begin with https://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::Usage("a server URL holds no user and no password".to_owned()));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(refuse("it holds no path, query or fragment"));
        }
        Ok(Self(url))
    }
}

impl TryFrom<String> for ServerUrl {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<ServerUrl> for String {
    fn from(url: ServerUrl) -> Self {
        url.to_string()
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_https_origin_is_taken() {
        for text in ["https://ca.example:8443", "https://127.0.0.1:8443/", "https://[::1]:8443"] {
            let url: ServerUrl = text.parse().expect(text);
            assert_eq!(url.to_string(), text.trim_end_matches('/'));
        }
        for text in
            ["http://ca.example", "https://u:p@ca.example", "https://ca.example/x", "https://ca.example?x", "ca.example", ""]
        {
            assert!(text.parse::<ServerUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn paths_are_those_of_the_wire_contract() {
        let url: ServerUrl = "https://ca.example:8443".parse().expect("url");
        let fleet = Door::Fleet("default".parse().expect("fleet"));
        assert_eq!(url.at(&fleet.path("enroll")).as_str(), "https://ca.example:8443/v1/fleets/default/enroll");
        assert_eq!(url.at(&Door::Installation.path("renew")).as_str(), "https://ca.example:8443/v1/renew");
    }
}
