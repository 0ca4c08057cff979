//! Key identifiers of authorities, read from their certificates once.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, ParsedExtension, X509Certificate};

use crate::knowledge::KnownAuthority;

/// By authority: its certificate, and the subject key identifier in it.
type Read = BTreeMap<u32, (CertificateDer<'static>, Vec<u8>)>;

/// What was read so far; as long as the list of authorities.
#[derive(Debug, Default)]
pub(super) struct AuthorityKeys(ArcSwap<Read>);

impl AuthorityKeys {
    /// Whether `named`, an authority key identifier, is another key's than the authority's. Where its certificate is not here
    /// nothing differs: the ledger's fingerprint has settled by then which certificate it is.
    pub(super) fn differ(&self, authority: &KnownAuthority, named: &[u8]) -> bool {
        authority.certificate.is_some() && !self.is(authority, named)
    }

    /// Whether `named` is the authority's key identifier. False where its certificate is not here.
    pub(super) fn is(&self, authority: &KnownAuthority, named: &[u8]) -> bool {
        let Some(certificate) = &authority.certificate else { return false };
        let read = self.0.load();
        match read.get(&authority.id) {
            Some((of, identifier)) if of == certificate => !named.is_empty() && identifier == named,
            _ => {
                let identifier = subject_key(certificate);
                let same = identifier == named;
                let mut next = Read::clone(&read);
                next.insert(authority.id, (certificate.clone(), identifier));
                self.0.store(Arc::new(next));
                same && !named.is_empty()
            }
        }
    }
}

/// RFC 5280 4.2.1.2. Empty where there is none, which no certificate names.
fn subject_key(certificate: &CertificateDer<'_>) -> Vec<u8> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    parsed
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0.to_vec()),
            _ => None,
        })
        .unwrap_or_default()
}
