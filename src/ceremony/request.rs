//! What a server asks a root for: one file of JSON. The same state of the server gives the same octets, so that its digest can be
//! read out on both sides.

use fleetmark_domain::{Fingerprint, FleetName, Kind, RevocationReason, Serial, Timestamp, TrustDomain};
use serde::{Deserialize, Serialize};

use super::{CeremonyError, from_json, json, sha256};
use crate::pki::csr::VerifiedCsr;

/// What stands in `format`.
const FORMAT: &str = "fleetmark root request 1";
const WHAT: &str = "the request";
/// The most authorities in one request.
pub const MAX_ITEMS: usize = 64;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootRequest {
    /// `fleetmark root request 1`.
    pub format: String,
    /// The installation.
    pub trust_domain: TrustDomain,
    /// SHA-256 of the root's certificate; null before the server knows its root.
    pub root: Option<Fingerprint>,
    /// The root's id at the server, which stands in the addresses below.
    pub root_id: u32,
    /// The public door: `http://HOST[:PORT][/PATH]`. Certificates name `{public_url}/crl/{root_id}.crl` and `/ca/{root_id}.crt`.
    pub public_url: String,
    /// The number of the root's list that the server has; 0 for none.
    pub list: u64,
    /// The authorities to certify.
    pub authorities: Vec<Asked>,
    /// Certificates of the root to put on its list.
    pub revoke: Vec<ToRevoke>,
}

/// An authority to certify.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The request's name at the server.
    pub id: String,
    /// What it issues for.
    pub kind: Kind,
    /// The one fleet, of a device authority.
    pub fleet: Option<FleetName>,
    /// The place that its serial is to have: numbering space,
    pub epoch: u32,
    /// and index in it.
    pub index: u32,
    /// How long it is to last, in seconds.
    pub lifetime_seconds: u64,
    /// basicConstraints pathLenConstraint.
    pub path_length: u8,
    /// Name constraints that exclude all IP addresses.
    pub exclude_addresses: bool,
    /// PKCS#10, in PEM.
    pub csr: String,
}

/// A certificate to put on the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToRevoke {
    /// Which: its serial in hexadecimal.
    pub serial: String,
    /// Why.
    pub reason: RevocationReason,
    /// Since when.
    pub since: Timestamp,
}

impl RootRequest {
    /// A request of this installation, without anything asked for yet.
    pub fn new(trust_domain: TrustDomain, root: Option<Fingerprint>, root_id: u32, public_url: String) -> Self {
        let format = FORMAT.to_owned();
        Self { format, trust_domain, root, root_id, public_url, list: 0, authorities: Vec::new(), revoke: Vec::new() }
    }

    /// Reads a request, at most 512 KiB.
    ///
    /// # Errors
    /// [`CeremonyError::Unreadable`].
    pub fn read(octets: &[u8]) -> Result<Self, CeremonyError> {
        let request: Self = from_json(WHAT, octets)?;
        let wrong = |why: &str| Err(CeremonyError::Unreadable { what: WHAT, why: why.to_owned() });
        let mut ids: Vec<_> = request.authorities.iter().map(|asked| &asked.id).collect();
        ids.sort_unstable();
        ids.dedup();
        let url = &request.public_url;
        if request.format != FORMAT {
            return wrong("its format is not `fleetmark root request 1`");
        }
        if ids.len() != request.authorities.len() || !ids.iter().all(|id| is_id(id)) {
            return wrong("two of its authorities have one id, or one's is not 1 to 64 lower-case letters, digits and dashes");
        }
        if request.authorities.len() > MAX_ITEMS || request.revoke.len() > 1_000 {
            return wrong("it asks for more than 64 authorities or 1,000 revocations");
        }
        if !url.starts_with("http://") || url.len() > 512 || !url.bytes().all(|o| o.is_ascii_graphic()) {
            return wrong("its public_url is not http://HOST");
        }
        Ok(request)
    }

    /// The file.
    pub fn file(&self) -> Vec<u8> {
        json(self)
    }

    /// SHA-256 over the file, in hexadecimal.
    pub fn digest(&self) -> String {
        sha256(&self.file())
    }

    /// Where relying parties find the root's list and certificate.
    pub fn pointers(&self) -> crate::pki::issue::Pointers {
        pointers(&self.public_url, self.root_id)
    }
}

fn is_id(text: &str) -> bool {
    let fits = |o: u8| o.is_ascii_lowercase() || o.is_ascii_digit() || o == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(fits)
}

/// What certificates of the root with this id say of where its list and certificate are. A root answers no OCSP requests.
pub fn pointers(public_url: &str, root_id: u32) -> crate::pki::issue::Pointers {
    crate::pki::issue::Pointers {
        ocsp: None,
        ca_issuers: Some(format!("{public_url}/ca/{root_id}.crt")),
        crl: Some(format!("{public_url}/crl/{root_id}.crl")),
    }
}

impl Asked {
    /// The certificate request, verified.
    ///
    /// # Errors
    /// [`CeremonyError::Refused`] with the refusal's name.
    pub fn csr(&self) -> Result<VerifiedCsr, CeremonyError> {
        let refused = |why: fleetmark_domain::Refusal| CeremonyError::Refused { item: self.id.clone(), why: why.to_string() };
        VerifiedCsr::from_body(self.csr.as_bytes()).map_err(refused)
    }

    /// What it is, for people.
    pub fn title(&self) -> String {
        match &self.fleet {
            Some(fleet) => format!("authority for {}s of the fleet {fleet}", self.kind),
            None => format!("authority for {}s", self.kind),
        }
    }
}

impl ToRevoke {
    /// The serial.
    ///
    /// # Errors
    /// [`CeremonyError::Refused`] for what is no serial of ours.
    pub fn serial(&self) -> Result<Serial, CeremonyError> {
        let why =
            |_| CeremonyError::Refused { item: self.serial.chars().take(64).collect(), why: "it is no serial".to_owned() };
        self.serial.parse().map_err(why)
    }
}
