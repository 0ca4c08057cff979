//! What a server asks a root for: one file of JSON. The same state of the server gives the same octets, so that its digest can be
//! read out on both sides.

use fleetmark_domain::{
    AuthorityState, Fingerprint, FleetName, KeyHash, Kind, RevocationReason, Serial, Timestamp, TrustDomain,
};
use serde::{Deserialize, Serialize};

use super::{CeremonyError, from_json, from_pem, json, sha256};
use crate::pki::csr::VerifiedCsr;
use crate::pki::trust_bundle::{Content, content};

/// What stands in `format`.
const FORMAT: &str = "fleetmark root request 1";
const WHAT: &str = "the request";
/// The most authorities in one request.
pub const MAX_ITEMS: usize = 64;
/// The most roots in one request, and in one trust bundle.
pub const MAX_ROOTS: usize = 16;

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
    /// A root that is to be made by this request, and to answer it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_root: Option<NewRoot>,
    /// Other roots of the installation whose keys are to be certified (RFC 4210 4.4).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<AskedRoot>,
    /// A trust bundle to sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<AskedBundle>,
}

/// A root to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRoot {
    /// Its subject's common name.
    pub name: String,
    /// Its numbering space; its own certificate has the index 0 in it.
    pub epoch: u32,
}

/// A root whose key another root is to certify.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedRoot {
    /// The request's name at the server.
    pub id: String,
    /// The root's own certificate, in PEM.
    pub certificate: String,
    /// The place that the serial is to have: numbering space,
    pub epoch: u32,
    /// and index in it.
    pub index: u32,
    /// How long it is to last at most, in seconds; it ends with either root.
    pub lifetime_seconds: u64,
}

/// Which roots are trusted from here on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedBundle {
    /// Above every number before.
    pub number: u64,
    /// When the server made it.
    pub made_at: Timestamp,
    /// The roots that are trusted; a root that is made by this request comes last, as prepared.
    pub roots: Vec<BundleRoot>,
    /// Those that are trusted no more.
    pub revoked: Vec<BundleRevoked>,
}

/// A root that is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleRoot {
    /// `prepared`, `active` or `tainted`.
    pub state: BundleState,
    /// In PEM.
    pub certificate: String,
}

/// The state of a root that is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BundleState {
    /// Signs nothing yet but this.
    Prepared,
    /// Signs.
    Active,
    /// Its word counts no more; what it signed does.
    Tainted,
}

/// A root that is trusted no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleRevoked {
    /// SHA-256 over its certificate.
    pub fingerprint: Fingerprint,
    /// SHA-256 over its key.
    pub key: KeyHash,
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
    /// From 2, of a successor: it stands in the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
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
        let (authorities, revoke, roots) = Default::default();
        let (new_root, bundle) = (None, None);
        Self { format, trust_domain, root, root_id, public_url, list: 0, authorities, revoke, new_root, roots, bundle }
    }

    /// Reads a request, at most 512 KiB.
    ///
    /// # Errors
    /// [`CeremonyError::Unreadable`].
    pub fn read(octets: &[u8]) -> Result<Self, CeremonyError> {
        let request: Self = from_json(WHAT, octets)?;
        let wrong = |why: &str| Err(CeremonyError::Unreadable { what: WHAT, why: why.to_owned() });
        let ids = request.authorities.iter().map(|asked| &asked.id).chain(request.roots.iter().map(|asked| &asked.id));
        let mut ids: Vec<_> = ids.collect();
        let asked = ids.len();
        ids.sort_unstable();
        ids.dedup();
        let url = &request.public_url;
        if request.format != FORMAT {
            return wrong("its format is not `fleetmark root request 1`");
        }
        if ids.len() != asked || !ids.iter().all(|id| is_id(id)) {
            return wrong("two of its authorities have one id, or one's is not 1 to 64 lower-case letters, digits and dashes");
        }
        if request.authorities.len() > MAX_ITEMS || request.revoke.len() > 1_000 {
            return wrong("it asks for more than 64 authorities or 1,000 revocations");
        }
        let bundled = request.bundle.as_ref().map_or(0, |bundle| bundle.roots.len().max(bundle.revoked.len()));
        if request.roots.len() > MAX_ROOTS || bundled > MAX_ROOTS {
            return wrong("it asks for more than 16 roots, or for a trust bundle of more");
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

impl AskedRoot {
    /// The root's own certificate, in DER.
    ///
    /// # Errors
    /// [`CeremonyError::Unreadable`].
    pub fn der(&self) -> Result<Vec<u8>, CeremonyError> {
        from_pem("a root's certificate", "CERTIFICATE", &self.certificate)
    }
}

impl AskedBundle {
    /// The octets to sign for; `own` is the certificate, in DER, of a root that is made by this request.
    ///
    /// # Errors
    /// [`CeremonyError::Unreadable`] for a certificate that is not PEM, [`CeremonyError::Pki`].
    pub fn content(&self, domain: &TrustDomain, own: Option<&[u8]>) -> Result<Vec<u8>, CeremonyError> {
        let read = |root: &BundleRoot| from_pem("a root's certificate", "CERTIFICATE", &root.certificate);
        let known = self.roots.iter().map(|root| Ok((root.state.into(), read(root)?)));
        let known = known.collect::<Result<Vec<(AuthorityState, Vec<u8>)>, CeremonyError>>()?;
        let roots = known.iter().map(|(state, der)| (*state, der.as_slice()));
        let said = Content {
            number: self.number,
            made_at: self.made_at,
            trust_domain: domain.as_str(),
            roots: roots.chain(own.map(|der| (AuthorityState::Prepared, der))).collect(),
            revoked: self.revoked.iter().map(|one| (one.fingerprint, one.key)).collect(),
        };
        Ok(content(&said)?)
    }
}

impl From<BundleState> for AuthorityState {
    fn from(state: BundleState) -> Self {
        match state {
            BundleState::Prepared => Self::Prepared,
            BundleState::Active => Self::Active,
            BundleState::Tainted => Self::Tainted,
        }
    }
}

impl BundleState {
    /// None for a root that is revoked, which has no place among the trusted.
    pub const fn of(state: AuthorityState) -> Option<Self> {
        match state {
            AuthorityState::Prepared => Some(Self::Prepared),
            AuthorityState::Active => Some(Self::Active),
            AuthorityState::Tainted => Some(Self::Tainted),
            AuthorityState::Revoked => None,
        }
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
        let number = self.number.map(|number| format!(", number {number}")).unwrap_or_default();
        match &self.fleet {
            Some(fleet) => format!("authority for {}s of the fleet {fleet}{number}", self.kind),
            None => format!("authority for {}s{number}", self.kind),
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
