//! A certificate of another authority, parsed once.

use fleetmark_domain::{Fingerprint, KeyHash, Timestamp};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::{Oid, oid};
use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension};
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_SERIALNUMBER};
use x509_parser::prelude::FromDer;

use crate::sha256;

/// The longest certificate that is read, in octets.
pub const MAX_CERTIFICATE: usize = 16 * 1024;
/// The longest serial number, in octets (RFC 5280 4.1.2.2).
pub const MAX_SERIAL: usize = 20;
/// The longest value that may hold a name, in octets.
const MAX_VALUE: usize = 256;
/// The most distribution points, and the most responders, that are looked at.
const MAX_POINTERS: usize = 4;
/// The longest URL, in octets.
const MAX_URL: usize = 2_048;

/// id-on-hardwareModuleName (RFC 4108 5).
const HARDWARE_MODULE_NAME: Oid<'static> = oid!(1.3.6.1.5.5.7.8.4);
/// id-ad-ocsp (RFC 5280 4.2.2.1).
const AD_OCSP: Oid<'static> = oid!(1.3.6.1.5.5.7.48.1);

/// The octets are no certificate in DER, or a larger one than is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not a certificate in DER of at most 16 KiB")]
pub struct Unreadable;

/// The values that may hold the device's name. One that is there more than once, is empty or longer than 256 octets counts as not
/// there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// The subject's common name.
    pub common_name: Option<String>,
    /// The subject's serialNumber.
    pub serial_number: Option<String>,
    /// The dNSName.
    pub dns: Option<String>,
    /// The uniformResourceIdentifier.
    pub uri: Option<String>,
    /// The rfc822Name.
    pub email: Option<String>,
    /// hwSerialNum of the hardwareModuleName: text where all of it is printable ASCII, else hexadecimal.
    pub module_serial: Option<String>,
}

/// What a foreign certificate says. Nothing of it is verified here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// SHA-256 over the certificate.
    pub fingerprint: Fingerprint,
    /// SHA-256 over its issuer's Name in DER.
    pub issuer: [u8; 32],
    /// SHA-256 over its subject's Name in DER: what an authority's certificates name as their issuer.
    pub subject: [u8; 32],
    /// The serial number's octets, as DER has them.
    pub serial: Vec<u8>,
    /// Its `SubjectPublicKeyInfo` in DER.
    pub spki: Vec<u8>,
    /// SHA-256 over it.
    pub key_hash: KeyHash,
    /// The names.
    pub said: Said,
    /// Its extended key usages as dotted numbers, in their order.
    pub usages: Vec<String>,
    /// http URLs of its CRL distribution points, at most four.
    pub lists: Vec<String>,
    /// http URLs of its OCSP responders, at most four.
    pub responders: Vec<String>,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
}

impl Foreign {
    /// Parses a certificate; nothing may follow it.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn parse(der: &[u8]) -> Result<Self, Unreadable> {
        if der.len() > MAX_CERTIFICATE {
            return Err(Unreadable);
        }
        let Ok(([], certificate)) = X509Certificate::from_der(der) else { return Err(Unreadable) };
        // RFC 5280 4.2: an extension stands in a certificate once at most.
        certificate.extensions_map().map_err(|_| Unreadable)?;
        let spki = certificate.public_key().raw;
        let mut foreign = Self {
            fingerprint: Fingerprint(sha256(&[der])),
            issuer: sha256(&[certificate.issuer().as_raw()]),
            subject: sha256(&[certificate.subject().as_raw()]),
            serial: certificate.raw_serial().to_vec(),
            spki: spki.to_vec(),
            key_hash: KeyHash(sha256(&[spki])),
            said: Said::of(&certificate),
            usages: Vec::new(),
            lists: Vec::new(),
            responders: Vec::new(),
            not_before: Timestamp(certificate.validity().not_before.timestamp()),
            not_after: Timestamp(certificate.validity().not_after.timestamp()),
        };
        for extension in certificate.extensions() {
            foreign.read(extension.parsed_extension());
        }
        Ok(foreign)
    }

    fn read(&mut self, extension: &ParsedExtension<'_>) {
        match extension {
            ParsedExtension::ExtendedKeyUsage(usage) => {
                let known = [
                    (usage.any, "2.5.29.37.0"),
                    (usage.server_auth, "1.3.6.1.5.5.7.3.1"),
                    (usage.client_auth, "1.3.6.1.5.5.7.3.2"),
                    (usage.code_signing, "1.3.6.1.5.5.7.3.3"),
                    (usage.email_protection, "1.3.6.1.5.5.7.3.4"),
                    (usage.time_stamping, "1.3.6.1.5.5.7.3.8"),
                    (usage.ocsp_signing, "1.3.6.1.5.5.7.3.9"),
                ];
                self.usages.extend(known.into_iter().filter(|(is, _)| *is).map(|(_, oid)| oid.to_owned()));
                self.usages.extend(usage.other.iter().map(Oid::to_id_string));
            }
            ParsedExtension::CRLDistributionPoints(points) => {
                let names = points.points.iter().filter_map(|point| match &point.distribution_point {
                    // One of several issuers' or for some reasons only says too little.
                    Some(DistributionPointName::FullName(names)) if point.crl_issuer.is_none() && point.reasons.is_none() => {
                        Some(names)
                    }
                    _ => None,
                });
                self.lists = urls(names.flatten());
            }
            ParsedExtension::AuthorityInfoAccess(access) => {
                let ocsp = access.accessdescs.iter().filter(|description| description.access_method == AD_OCSP);
                self.responders = urls(ocsp.map(|description| &description.access_location));
            }
            _ => {}
        }
    }
}

/// SHA-256 over the subject's Name of a CA certificate: what the certificates that it issued have as [`Foreign::issuer`].
///
/// # Errors
/// [`Unreadable`].
pub fn issuer_hash(authority: &[u8]) -> Result<[u8; 32], Unreadable> {
    Foreign::parse(authority).map(|foreign| foreign.subject)
}

/// The certificates that stand one after the other.
///
/// # Errors
/// [`Unreadable`] for anything else.
pub fn split(material: &[u8]) -> Result<Vec<&[u8]>, Unreadable> {
    let mut rest = material;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (after, _) = X509Certificate::from_der(rest).map_err(|_| Unreadable)?;
        found.push(rest.get(..rest.len().saturating_sub(after.len())).ok_or(Unreadable)?);
        rest = after;
    }
    Ok(found)
}

impl Said {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        let attribute =
            |oid: &Oid<'_>| only(certificate.subject().iter_by_oid(oid).map(|value| value.as_str().ok().map(str::to_owned)));
        let names: Vec<&GeneralName<'_>> = certificate
            .extensions()
            .iter()
            .filter_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
                _ => None,
            })
            .flatten()
            .collect();
        let of = |pick: &dyn Fn(&GeneralName<'_>) -> Option<Option<String>>| only(names.iter().filter_map(|name| pick(name)));
        Self {
            common_name: attribute(&OID_X509_COMMON_NAME),
            serial_number: attribute(&OID_X509_SERIALNUMBER),
            dns: of(&|name| match name {
                GeneralName::DNSName(name) => Some(Some((*name).to_owned())),
                _ => None,
            }),
            uri: of(&|name| match name {
                GeneralName::URI(uri) => Some(Some((*uri).to_owned())),
                _ => None,
            }),
            email: of(&|name| match name {
                GeneralName::RFC822Name(address) => Some(Some((*address).to_owned())),
                _ => None,
            }),
            module_serial: of(&|name| match name {
                GeneralName::OtherName(oid, value) if *oid == HARDWARE_MODULE_NAME => {
                    Some(module_serial(value).map(text_or_hex))
                }
                _ => None,
            }),
        }
    }
}

/// The one value; None for none, for several, and for one that cannot be read, is empty or too long.
fn only(mut values: impl Iterator<Item = Option<String>>) -> Option<String> {
    let value = values.next()??;
    (values.next().is_none() && (1..=MAX_VALUE).contains(&value.len())).then_some(value)
}

fn urls<'a, 'b: 'a>(names: impl Iterator<Item = &'a GeneralName<'b>>) -> Vec<String> {
    let urls = names.filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let urls = urls.filter(|uri| uri.starts_with("http://") && uri.len() <= MAX_URL && uri.is_ascii());
    urls.take(MAX_POINTERS).map(str::to_owned).collect()
}

/// hwSerialNum of `[0] EXPLICIT SEQUENCE { hwType OBJECT IDENTIFIER, hwSerialNum OCTET STRING }`, with nothing beside it.
fn module_serial(value: &[u8]) -> Option<&[u8]> {
    let whole = |(content, rest): (_, &[u8])| rest.is_empty().then_some(content);
    let sequence = tlv(0xa0, value).and_then(whole)?;
    let fields = tlv(0x30, sequence).and_then(whole)?;
    let (_, rest) = tlv(0x06, fields)?;
    tlv(0x04, rest).and_then(whole)
}

/// The content of an element with this tag and a short definite length, and what follows it.
fn tlv(tag: u8, octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = octets.split_first_chunk::<2>()?;
    let [found, length] = *head;
    // A name of 128 octets or more is no hardware's.
    (found == tag && length < 0x80).then(|| rest.split_at_checked(length.into())).flatten()
}

fn text_or_hex(octets: &[u8]) -> String {
    match std::str::from_utf8(octets) {
        Ok(text) if text.bytes().all(|octet| (b' '..=b'~').contains(&octet)) => text.to_owned(),
        _ => hex::encode(octets),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType, SerialNumber};

    use super::*;

    fn made(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn each_value_is_found_where_it_stands() {
        let der = made(|params| {
            params.distinguished_name.push(DnType::CommonName, "pump 7");
            params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 5]), "SN-7");
            params.serial_number = Some(SerialNumber::from_slice(&[0x7f; 20]));
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.subject_alt_names = vec![
                SanType::DnsName("pump7.example".try_into().unwrap()),
                SanType::URI("urn:dev:mac:0024".try_into().unwrap()),
                SanType::Rfc822Name("pump7@plant.example".try_into().unwrap()),
                SanType::OtherName((vec![1, 3, 6, 1, 5, 5, 7, 8, 4], rcgen::OtherNameValue::Utf8String("x".to_owned()))),
            ];
        });
        let foreign = Foreign::parse(&der).unwrap();
        let some = |text: &str| Some(text.to_owned());
        let Said { common_name, serial_number, dns, uri, email, module_serial } = foreign.said;
        assert_eq!([common_name, serial_number], [some("pump 7"), some("SN-7")]);
        assert_eq!([dns, uri, email], [some("pump7.example"), some("urn:dev:mac:0024"), some("pump7@plant.example")]);
        assert_eq!(module_serial, None, "that otherName is no sequence");
        assert_eq!(foreign.serial, [0x7f; 20]);
        assert_eq!(foreign.usages, ["1.3.6.1.5.5.7.3.2"]);
        assert_eq!(foreign.issuer, foreign.subject);
    }

    #[test]
    fn two_values_are_none() {
        let der = made(|params| {
            let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
            params.subject_alt_names = vec![dns("a.example"), dns("b.example")];
        });
        assert_eq!(Foreign::parse(&der).unwrap().said, Said::default());
    }

    #[test]
    fn a_module_name_is_read_strictly() {
        let good = hex::decode("a012301006092b06010401868d1f010403534e31").unwrap();
        assert_eq!(module_serial(&good), Some(&b"SN1"[..]));
        for end in 0..good.len() {
            assert_eq!(module_serial(&good[..end]), None, "cut at {end}");
        }
        for (at, octet) in [(0, 0xa1), (1, 0x13), (2, 0x31), (3, 0x0f), (4, 0x05), (15, 0x0c), (16, 0x02)] {
            let mut octets = good.clone();
            octets[at] = octet;
            assert_eq!(module_serial(&octets), None, "{octet:x} at {at}");
        }
        assert_eq!(module_serial(&[good, vec![0]].concat()), None);
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let der = made(|_| {});
        for octets in [&b""[..], b"x", &[0x30, 0], &der[1..], &[&der[..], &[0]].concat(), &vec![0x30; MAX_CERTIFICATE + 1]] {
            assert_eq!(Foreign::parse(octets), Err(Unreadable));
        }
    }
}
