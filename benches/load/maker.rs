//! A maker of devices: a root, and below it the line that signs their certificates.

use std::sync::Arc;

use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;

use crate::Outcome;
use crate::server::showing;

/// serialNumber (X.520).
const SERIAL_NUMBER: [u64; 4] = [2, 5, 4, 5];

/// A maker.
pub struct Maker {
    pub root: Certificate,
    root_issuer: Issuer<'static, KeyPair>,
    line: Certificate,
    line_issuer: Issuer<'static, KeyPair>,
}

impl Maker {
    /// One with new keys.
    pub fn new() -> Outcome<Self> {
        let (root, root_issuer) = authority("Acme Root", None)?;
        let (line, line_issuer) = authority("Acme Line 4", Some(&root_issuer))?;
        Ok(Self { root, root_issuer, line, line_issuer })
    }

    /// A certificate by the root; or by the line, with the line's own after it.
    pub fn issue(&self, params: &CertificateParams, by_line: bool) -> Outcome<(Vec<CertificateDer<'static>>, KeyPair)> {
        let key = KeyPair::generate()?;
        let issuer = if by_line { &self.line_issuer } else { &self.root_issuer };
        let mut chain = vec![params.signed_by(&key, issuer)?.der().clone()];
        if by_line {
            chain.push(self.line.der().clone());
        }
        Ok((chain, key))
    }

    /// TLS as the device with this serial number, by the line.
    pub fn device(&self, serial: &str, roots: &Arc<RootCertStore>) -> Outcome<Arc<ClientConfig>> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CustomDnType(SERIAL_NUMBER.to_vec()), serial);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let (chain, key) = self.issue(&params, true)?;
        showing(roots.clone(), chain, &key)
    }
}

fn authority(name: &str, above: Option<&Issuer<'static, KeyPair>>) -> Outcome<(Certificate, Issuer<'static, KeyPair>)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = match above {
        Some(above) => params.signed_by(&key, above)?,
        None => params.self_signed(&key)?,
    };
    Ok((certificate, Issuer::new(params, key)))
}
