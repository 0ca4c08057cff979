//! Certificates that the server never issued, signed by whoever stole an issuing key.

use std::fs;
use std::net::IpAddr;

use fleetmark::pki::keys::Keys;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber, string::Ia5String,
};
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use super::client::Identity;
use super::device::Key;
use super::server::Server;

/// An authority with its stolen key.
pub struct Stolen {
    pub certificate: Vec<u8>,
    key: KeyPair,
}

/// What a forged certificate says.
pub struct Wanted {
    pub serial: Vec<u8>,
    pub common_name: String,
    pub organization: String,
    pub uri: String,
    pub from: OffsetDateTime,
    pub to: OffsetDateTime,
    pub usages: Vec<ExtendedKeyUsagePurpose>,
    pub addresses: Vec<IpAddr>,
}

impl Wanted {
    /// A device's, with a serial of the form that the server writes.
    pub fn device(fleet: &str, name: &str, serial: Vec<u8>) -> Self {
        Self::of(&format!("spiffe://fleet.test/device/{fleet}/{name}"), fleet, name, serial)
    }

    pub fn of(uri: &str, organization: &str, name: &str, serial: Vec<u8>) -> Self {
        let now = OffsetDateTime::now_utc();
        Self {
            serial,
            common_name: name.to_owned(),
            organization: organization.to_owned(),
            uri: uri.to_owned(),
            from: now - Duration::hours(1),
            to: now + Duration::days(30),
            usages: vec![ExtendedKeyUsagePurpose::ClientAuth],
            addresses: Vec::new(),
        }
    }
}

/// A serial of the server's form.
pub fn serial(epoch: u32, index: u32, random: [u8; 8]) -> Vec<u8> {
    [&[1][..], &epoch.to_be_bytes(), &index.to_be_bytes(), &random].concat()
}

/// The authorities as the server lists them.
pub async fn authorities(server: &Server) -> Vec<Value> {
    server.owner().get("/v1/authorities").await.is(200).json()["items"].as_array().unwrap().clone()
}

/// The id of the authority for this kind and fleet.
pub async fn authority_id(server: &Server, kind: &str, fleet: Option<&str>) -> u64 {
    let all = authorities(server).await;
    let found = all.iter().find(|authority| authority["kind"] == kind && authority["fleet"].as_str() == fleet);
    found.unwrap_or_else(|| panic!("no authority for {kind} {fleet:?}"))["id"].as_u64().unwrap()
}

impl Stolen {
    /// Takes the key out of the server's directory.
    pub async fn take(server: &Server, kind: &str, fleet: Option<&str>) -> Self {
        let id = authority_id(server, kind, fleet).await;
        let certificate = server.public_client().get(&format!("/ca/{id}.crt")).await.is(200).body;
        let spki = x509_parser::parse_x509_certificate(&certificate).unwrap().1.tbs_certificate.subject_pki.raw.to_vec();
        let passphrase = fs::read_to_string(server.data().join("passphrase")).unwrap();
        let keys = Keys::open(&server.data().join("keys"), passphrase.trim_end().to_owned().into()).unwrap();
        let prefix = if kind == "root" { "root".to_owned() } else { format!("authority-{kind}") };
        let labels = fs::read_dir(server.data().join("keys")).unwrap();
        let labels =
            labels.filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".key.pem").map(str::to_owned));
        let label = labels
            .filter(|label| label.starts_with(&prefix))
            .find(|label| keys.load(label).unwrap().public_key() == spki)
            .expect("the authority's key file");
        let key = KeyPair::try_from(keys.load_pkcs8(&label).unwrap().as_slice()).unwrap();
        Self { certificate, key }
    }

    /// Signs a certificate for this key.
    pub fn sign(&self, wanted: &Wanted, key: &Key) -> Identity {
        let issuer = Issuer::from_ca_cert_der(&self.certificate.clone().into(), &self.key).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.serial_number = Some(SerialNumber::from_slice(&wanted.serial));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, &wanted.organization);
        params.distinguished_name.push(DnType::CommonName, &wanted.common_name);
        params.not_before = wanted.from;
        params.not_after = wanted.to;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages.clone_from(&wanted.usages);
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(wanted.uri.clone()).unwrap())];
        params.subject_alt_names.extend(wanted.addresses.iter().map(|address| SanType::IpAddress(*address)));
        params.use_authority_key_identifier_extension = true;
        Identity::new(params.signed_by(&key.0, &issuer).unwrap().der().to_vec(), &key.0)
    }
}

/// A certificate by an authority that nobody knows.
pub fn foreign(wanted: &Wanted, key: &Key) -> Identity {
    let pair = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "Somebody Else's CA");
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let certificate = params.self_signed(&pair).unwrap().der().to_vec();
    Stolen { certificate, key: pair }.sign(wanted, key)
}

/// serialNumber (RFC 5280 4.1.2.4; X.520).
const SERIAL_NUMBER: [u64; 4] = [2, 5, 4, 5];
/// subjectAltName.
const SUBJECT_ALT_NAME: [u64; 4] = [2, 5, 29, 17];

/// A maker of devices: a root, and below it the line that makes them.
pub struct Maker {
    root: (Vec<u8>, Issuer<'static, KeyPair>),
    line: (Vec<u8>, Issuer<'static, KeyPair>),
}

impl Maker {
    pub fn new(name: &str) -> Self {
        let authority = |name: &str, above: Option<&Issuer<'static, KeyPair>>| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            let certificate = match above {
                Some(above) => params.signed_by(&key, above).unwrap(),
                None => params.self_signed(&key).unwrap(),
            };
            (certificate.der().to_vec(), Issuer::new(params, key))
        };
        let root = authority(&format!("{name} Root"), None);
        let line = authority(&format!("{name} Line 4"), Some(&root.1));
        Self { root, line }
    }

    pub fn root_pem(&self) -> String {
        super::openssl::pem("CERTIFICATE", &self.root.0)
    }

    pub fn line_pem(&self) -> String {
        super::openssl::pem("CERTIFICATE", &self.line.0)
    }

    /// A device as it leaves the line: IDevID and the line's certificate, until the end of days.
    pub fn device(&self, serial: &str) -> Identity {
        self.idevid(&Key::new(), |params| {
            params.distinguished_name.push(DnType::CustomDnType(SERIAL_NUMBER.to_vec()), serial);
        })
    }

    /// One that says what `change` writes, for this key.
    pub fn idevid(&self, key: &Key, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.not_before = time::macros::datetime!(2020-01-01 0:00 UTC);
        params.not_after = time::macros::datetime!(9999-12-31 23:59:59 UTC);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let mut identity = Identity::new(params.signed_by(&key.0, &self.line.1).unwrap().der().to_vec(), &key.0);
        identity.chain.push(self.line.0.clone().into());
        identity
    }
}

/// A subjectAltName with one hardwareModuleName (RFC 4108 5): type 1.3.6.1.4.1.99999.1 and these octets.
pub fn hardware_module_name(serial: &[u8], critical: bool) -> rcgen::CustomExtension {
    let tlv = |tag: u8, parts: &[&[u8]]| {
        let content = parts.concat();
        [&[tag, u8::try_from(content.len()).unwrap()][..], &content].concat()
    };
    let kind = tlv(6, &[&[0x2b, 6, 1, 4, 1, 0x86, 0x8d, 0x1f, 1]]);
    let name = tlv(0x30, &[&kind, &tlv(4, &[serial])]);
    let other = tlv(0xa0, &[&tlv(6, &[&[0x2b, 6, 1, 5, 5, 7, 8, 4]]), &tlv(0xa0, &[&name])]);
    let mut extension = rcgen::CustomExtension::from_oid_content(&SUBJECT_ALT_NAME, tlv(0x30, &[&other]));
    extension.set_criticality(critical);
    extension
}
