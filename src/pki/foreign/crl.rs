//! Another authority's revocation lists (RFC 5280 5), verified and read. What cannot be understood whole is refused by name: a list
//! that is not complete for all of its issuer's certificates would let through what it does not speak of.

use std::collections::HashMap;

use fleetmark_domain::{RevocationReason, Standing, Timestamp};
use fleetmark_external::issuer_hash;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::{Oid, oid};
use x509_parser::extensions::{DistributionPointName, GeneralName, IssuingDistributionPoint, ParsedExtension, X509Extension};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::{CertificateRevocationList, RevokedCertificate};

use super::{is_signed, parsed};

/// The largest list that is read, in octets: some 800,000 certificates.
pub const MAX_LIST: usize = 32 * 1024 * 1024;
/// A list may have been made so many seconds ahead of our clock.
const SKEW: i64 = 300;

const CRL_NUMBER: Oid<'static> = oid!(2.5.29.20);
const AUTHORITY_KEY: Oid<'static> = oid!(2.5.29.35);
const ISSUER_ALT_NAME: Oid<'static> = oid!(2.5.29.18);
const FRESHEST: Oid<'static> = oid!(2.5.29.46);
const AUTHORITY_INFORMATION: Oid<'static> = oid!(1.3.6.1.5.5.7.1.1);
const DELTA: Oid<'static> = oid!(2.5.29.27);
const DISTRIBUTION_POINT: Oid<'static> = oid!(2.5.29.28);
const REASON: Oid<'static> = oid!(2.5.29.21);
const INVALIDITY: Oid<'static> = oid!(2.5.29.24);
const CERTIFICATE_ISSUER: Oid<'static> = oid!(2.5.29.29);

/// certificateHold and removeFromCRL (RFC 5280 5.3.1).
const HOLD: u8 = 6;
const REMOVE: u8 = 8;

/// Why a list cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// More octets than are read.
    #[error("it has more than 32 MiB")]
    TooLarge,
    /// No list, or octets after it.
    #[error("it is no revocation list in DER or PEM")]
    NoList,
    /// Of another issuer.
    #[error("it is of an issuer that is none of the authority's CA certificates")]
    Issuer,
    /// Not signed by its issuer's key, with a broken digest, or by a key that may not sign lists.
    #[error("its signature is not its issuer's")]
    Signature,
    /// It does not say until when it holds.
    #[error("it has no nextUpdate")]
    NoEnd,
    /// Made after now.
    #[error("it was made in the future")]
    Future,
    /// RFC 5280 5.2.4.
    #[error("it is a delta list, which is not read")]
    Delta,
    /// RFC 5280 5.2.5, 5.3.3.
    #[error("it is an indirect list, which is not read")]
    Indirect,
    /// RFC 5280 5.2.5: CA or attribute certificates, or some reasons only.
    #[error("it is not about all end entities and reasons")]
    Partial,
    /// RFC 5280 5.2.5: a part of the issuer's certificates, that of another URL.
    #[error("it is the list of another distribution point")]
    Scope,
    /// RFC 5280 5.2: a list with a critical extension that is not understood must not be used.
    #[error("it has the critical extension {0}, which is not understood")]
    Critical(String),
    /// Older than one that was seen.
    #[error("its number or date goes back behind one that was seen")]
    GoesBack,
}

/// A list that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// SHA-256 over its issuer's Name.
    pub issuer: [u8; 32],
    /// The octets of its CRLNumber, without leading zeros; empty where it has none.
    pub number: Vec<u8>,
    /// When it was made.
    pub this_update: Timestamp,
    /// Until when it holds.
    pub next_update: Timestamp,
    /// By serial number: held or revoked.
    pub revoked: HashMap<Vec<u8>, Standing>,
    /// The list in DER.
    pub der: Vec<u8>,
}

impl List {
    /// Whether this one may follow one with this number and date.
    ///
    /// # Errors
    /// [`Unusable::GoesBack`].
    pub fn follows(&self, number: &[u8], this_update: Timestamp) -> Result<(), Unusable> {
        let is_back = (self.number.len(), self.number.as_slice()) < (number.len(), number) || self.this_update < this_update;
        if is_back { Err(Unusable::GoesBack) } else { Ok(()) }
    }
}

/// Reads a list, DER or PEM, that one of these CA certificates' keys signed and that was fetched from `url`. Whether it is past its
/// end is the caller's to ask.
///
/// # Errors
/// [`Unusable`].
pub fn read(octets: &[u8], authorities: &[CertificateDer<'_>], url: &str, now: Timestamp) -> Result<List, Unusable> {
    if octets.len() > MAX_LIST {
        return Err(Unusable::TooLarge);
    }
    let from_pem;
    let der = if octets.starts_with(b"-----BEGIN") {
        from_pem = CertificateRevocationListDer::from_pem_slice(octets).map_err(|_| Unusable::NoList)?;
        from_pem.as_ref()
    } else {
        octets
    };
    let Ok(([], list)) = CertificateRevocationList::from_der(der) else { return Err(Unusable::NoList) };
    let issuer = check_signature(&list, authorities)?;
    let (this_update, next_update) = (Timestamp(list.last_update().timestamp()), list.next_update());
    let next_update = Timestamp(next_update.ok_or(Unusable::NoEnd)?.timestamp());
    if this_update.0 > now.0.saturating_add(SKEW) {
        return Err(Unusable::Future);
    }
    list.tbs_cert_list.extensions_map().map_err(|_| Unusable::NoList)?;
    list.extensions().iter().try_for_each(|extension| check_extension(extension, url))?;
    let number = list.crl_number().map(num_bigint::BigUint::to_bytes_be).unwrap_or_default();
    let mut revoked = HashMap::new();
    for entry in list.iter_revoked_certificates() {
        if let Some(standing) = standing(entry)? {
            revoked.insert(entry.raw_serial().to_vec(), standing);
        }
    }
    Ok(List { issuer, number, this_update, next_update, revoked, der: der.to_vec() })
}

/// The hash of the issuer whose key signed it. Several CA certificates may have one name.
fn check_signature(list: &CertificateRevocationList<'_>, authorities: &[CertificateDer<'_>]) -> Result<[u8; 32], Unusable> {
    let named = |authority: &X509Certificate<'_>| authority.subject().as_raw() == list.issuer().as_raw();
    // RFC 5280 5.1.1.2: the algorithm stands in the list twice.
    let is_one = list.tbs_cert_list.signature == list.signature_algorithm;
    let signed = |authority: &X509Certificate<'_>| {
        // RFC 5280 4.2.1.3.
        let may = authority.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.crl_sign()));
        may && is_one
            && is_signed(authority, &list.signature_algorithm, &list.signature_value.data, list.tbs_cert_list.as_ref())
    };
    if !parsed(authorities).any(|authority| named(&authority)) {
        return Err(Unusable::Issuer);
    }
    let found = authorities.iter().zip(parsed(authorities)).find(|(_, authority)| named(authority) && signed(authority));
    let (der, _) = found.ok_or(Unusable::Signature)?;
    issuer_hash(der).map_err(|_| Unusable::Issuer)
}

fn check_extension(extension: &X509Extension<'_>, url: &str) -> Result<(), Unusable> {
    if extension.oid == DELTA {
        return Err(Unusable::Delta);
    }
    if extension.oid == DISTRIBUTION_POINT {
        return match extension.parsed_extension() {
            ParsedExtension::IssuingDistributionPoint(point) => check_scope(point, url),
            _ => Err(Unusable::NoList),
        };
    }
    let known = [CRL_NUMBER, AUTHORITY_KEY, ISSUER_ALT_NAME, FRESHEST, AUTHORITY_INFORMATION];
    if extension.critical && !known.contains(&extension.oid) {
        return Err(Unusable::Critical(extension.oid.to_id_string()));
    }
    Ok(())
}

fn check_scope(point: &IssuingDistributionPoint<'_>, url: &str) -> Result<(), Unusable> {
    if point.indirect_crl {
        return Err(Unusable::Indirect);
    }
    if point.only_contains_ca_certs || point.only_contains_attribute_certs || point.only_some_reasons.is_some() {
        return Err(Unusable::Partial);
    }
    match &point.distribution_point {
        None => Ok(()),
        Some(DistributionPointName::FullName(names))
            if names.iter().any(|name| matches!(name, GeneralName::URI(uri) if *uri == url)) =>
        {
            Ok(())
        }
        Some(_) => Err(Unusable::Scope),
    }
}

/// What an entry says; None for one that says nothing bad.
fn standing(entry: &RevokedCertificate<'_>) -> Result<Option<Standing>, Unusable> {
    for extension in entry.extensions() {
        if extension.oid == CERTIFICATE_ISSUER {
            return Err(Unusable::Indirect);
        }
        if extension.critical && extension.oid != REASON && extension.oid != INVALIDITY {
            return Err(Unusable::Critical(extension.oid.to_id_string()));
        }
    }
    let code = entry.reason_code().map(|(_, reason)| reason.0);
    Ok(match code {
        Some(HOLD) => Some(Standing::Held),
        // RFC 5280 5.3.1: in delta lists only.
        Some(REMOVE) => None,
        code => {
            let reason = code.and_then(RevocationReason::from_code).unwrap_or(RevocationReason::Unspecified);
            Some(Standing::Revoked(reason))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::testing::openssl;

    const NOW: Timestamp = Timestamp(1_800_000_000);

    /// A CA by openssl, with a list of three certificates: held, revoked with a reason, revoked without.
    struct Stage {
        directory: tempfile::TempDir,
    }

    impl Stage {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let stage = Self { directory };
            let ca = "[ca]\ndefault_ca=d\n[d]\ndatabase=index\ncrlnumber=number\ndefault_md=sha256\ndefault_crl_days=7\n\
                      certificate=ca.pem\nprivate_key=ca.key\ncrl_extensions=x\n[x]\nauthorityKeyIdentifier=keyid\n\
                      [delta]\n2.5.29.27=critical,DER:020101\n[strange]\n1.2.3.4=critical,DER:0500\n\
                      [idp]\nissuingDistributionPoint=critical,@point\n[point]\nfullname=URI:http://a.example/l.crl\n\
                      [indirect]\nissuingDistributionPoint=critical,@point2\n[point2]\nindirectCRL=TRUE\n\
                      [partial]\nissuingDistributionPoint=critical,@point3\n[point3]\nonlyAA=TRUE\n\
                      [req]\ndistinguished_name=dn\nx509_extensions=v3\n[dn]\n[v3]\nbasicConstraints=critical,CA:TRUE\n\
                      keyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n";
            let index = "R\t360101000000Z\t260101000000Z,certificateHold\t7F01\tunknown\t/CN=a\n\
                         R\t360101000000Z\t260101000000Z,keyCompromise\t7F02\tunknown\t/CN=b\n\
                         R\t360101000000Z\t260101000000Z\t11112222333344445555666677778888999900AA\tunknown\t/CN=c\n";
            for (name, text) in [("ca.cnf", ca), ("index", index), ("number", "0A\n"), ("index.attr", "unique_subject=no\n")] {
                std::fs::write(stage.path(name), text).unwrap();
            }
            stage.openssl("req -config ca.cnf -x509 -newkey rsa:2048 -nodes -sha256 -days 30 -subj /O=Old/CN=CA -keyout ca.key -out ca.pem");
            stage
        }

        fn path(&self, name: &str) -> String {
            self.directory.path().join(name).display().to_string()
        }

        /// Its words that are our files get their directory.
        fn openssl(&self, words: &str) {
            let files = ["ca.cnf", "ca.key", "ca.pem", "l.pem", "l.der"];
            let words: Vec<String> =
                words.split(' ').map(|word| if files.contains(&word) { self.path(word) } else { word.to_owned() }).collect();
            let config = std::fs::read_to_string(self.path("ca.cnf")).unwrap();
            // The configuration's paths too.
            let mut absolute = config.clone();
            for name in ["index", "number", "ca.pem", "ca.key"] {
                absolute = absolute.replace(&format!("={name}\n"), &format!("={}\n", self.path(name)));
            }
            std::fs::write(self.path("ca.cnf"), absolute).unwrap();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            openssl(&words, b"").unwrap_or_else(|text| panic!("{words:?}: {text}"));
        }

        fn list(&self, more: &str) -> Vec<u8> {
            self.openssl(format!("ca -config ca.cnf -gencrl -out l.pem{more}").as_str());
            std::fs::read(self.path("l.pem")).unwrap()
        }

        fn authority(&self) -> CertificateDer<'static> {
            CertificateDer::from_pem_file(self.path("ca.pem")).unwrap()
        }

        fn read(&self, octets: &[u8]) -> Result<List, Unusable> {
            read(octets, &[self.authority()], "http://b.example/l.crl", Timestamp(i64::from(u32::MAX)))
        }
    }

    #[test]
    fn what_openssl_lists_is_read() {
        let stage = Stage::new();
        let pem = stage.list("");
        let list = stage.read(&pem).unwrap();
        assert_eq!(list.number, [0x0a]);
        assert_eq!(list.issuer, issuer_hash(&stage.authority()).unwrap());
        assert_eq!(list.next_update.0 - list.this_update.0, 7 * 86_400);
        let found = |serial: &str| list.revoked.get(&hex::decode(serial).unwrap()).copied();
        assert_eq!(found("7f01"), Some(Standing::Held));
        assert_eq!(found("7f02"), Some(Standing::Revoked(RevocationReason::KeyCompromise)));
        assert_eq!(found("11112222333344445555666677778888999900aa"), Some(Standing::Revoked(RevocationReason::Unspecified)));
        assert_eq!(list.revoked.len(), 3);
        assert_eq!(stage.read(&list.der).unwrap(), list, "DER and PEM");
        let next = stage.read(&stage.list("")).unwrap();
        assert_eq!((next.number.as_slice(), next.follows(&list.number, list.this_update)), (&[0x0b][..], Ok(())));
        assert_eq!(list.follows(&next.number, list.this_update), Err(Unusable::GoesBack));
        assert_eq!(next.follows(&[], Timestamp(next.this_update.0 + 1)), Err(Unusable::GoesBack));
        assert_eq!(next.follows(&[1, 0], next.this_update), Err(Unusable::GoesBack));
    }

    #[test]
    fn what_is_not_whole_or_not_signed_is_refused_by_name() {
        let stage = Stage::new();
        let section = |name: &str| stage.list(&format!(" -crlexts {name}"));
        let fault = |octets: &[u8]| stage.read(octets).map(|_| ()).expect_err("it was read");
        assert_eq!(fault(&section("delta")), Unusable::Delta);
        assert_eq!(fault(&section("strange")), Unusable::Critical("1.2.3.4".to_owned()));
        assert_eq!(fault(&section("indirect")), Unusable::Indirect);
        assert_eq!(fault(&section("partial")), Unusable::Partial);
        let scoped = section("idp");
        assert_eq!(fault(&scoped), Unusable::Scope);
        let url = "http://a.example/l.crl";
        assert!(read(&scoped, &[stage.authority()], url, Timestamp(i64::from(u32::MAX))).is_ok());
        let good = stage.read(&stage.list("")).unwrap().der;
        assert_eq!(read(&good, &[stage.authority()], url, Timestamp(0)), Err(Unusable::Future));
        let other = Stage::new();
        assert_eq!(read(&good, &[other.authority()], url, NOW), Err(Unusable::Signature), "the same name, another key");
        assert_eq!(read(&good, &[], url, NOW), Err(Unusable::Issuer));
        let mut damaged = good.clone();
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        assert_eq!(fault(&damaged), Unusable::Signature);
        for octets in [&b""[..], b"x", &good[..last], &[&good[..], &[0]].concat(), b"-----BEGIN X509 CRL-----\n"] {
            assert_eq!(fault(octets), Unusable::NoList);
        }
        assert_eq!(fault(&vec![0; MAX_LIST + 1]), Unusable::TooLarge);
    }

    #[test]
    fn a_list_without_an_end_or_with_sha1_is_refused() {
        let stage = Stage::new();
        stage.openssl("ca -config ca.cnf -gencrl -md sha1 -out l.pem");
        let octets = std::fs::read(stage.path("l.pem")).unwrap();
        assert_eq!(stage.read(&octets), Err(Unusable::Signature));
    }
}
