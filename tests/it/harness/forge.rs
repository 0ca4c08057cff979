//! Certificates that the server never issued, signed by whoever stole an issuing key.

use std::fs;
use std::net::IpAddr;

use fleetmark::pki::keys::KeyFiles;
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
        let keys = KeyFiles::open(&server.data().join("keys"), passphrase.trim_end().to_owned().into()).unwrap();
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
