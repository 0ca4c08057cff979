//! What a certificate request asks for beside its key. None of it goes into a certificate: it is read to be compared and
//! refused.

use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Decode, Reader, SliceReader, Tag, TagNumber, Tagged};
use fleetmark_domain::Refusal;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use super::PkiError;

/// challengePassword (RFC 2985 5.4.1).
const CHALLENGE_PASSWORD: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.7");
/// extensionRequest (RFC 2985 5.4.2).
const EXTENSION_REQUEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.14");
/// subjectAltName (RFC 5280 4.2.1.6).
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
/// id-aa-decryptKeyID (RFC 4108 2.2.5) and id-aa-asymmDecryptKeyID (RFC 7030 4.4.1.2): how a key made by the server is to be
/// encrypted.
const DECRYPT_KEY: [ObjectIdentifier; 2] =
    [ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.37"), ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.54")];
/// The longest challengePassword, in octets (RFC 2985 A, pkcs-9-ub-challengePassword).
const MAX_CHALLENGE: usize = 255;

/// What a request asks for beside its key.
#[derive(Clone, PartialEq, Eq)]
pub struct Requested {
    subject: Vec<SubjectPart>,
    alternative_names: Vec<Vec<u8>>,
    challenge_password: Option<String>,
    encrypted_key: bool,
}

/// An attribute of a distinguished name: its type, and its value as text, or in DER where it is none.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SubjectPart {
    of: String,
    value: Result<String, Vec<u8>>,
}

/// Without the challengePassword, which some clients take for a secret.
impl std::fmt::Debug for Requested {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Requested")
            .field("subject", &self.subject)
            .field("alternative_names", &self.alternative_names.iter().map(hex::encode).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Requested {
    /// Reads a PKCS#10 request in DER whose form and signature were checked before.
    ///
    /// # Errors
    /// `CsrMalformed`: an attribute is not of its form, or one that has a single value has several.
    pub fn of(csr: &[u8]) -> Result<Self, Refusal> {
        read(csr).ok_or(Refusal::CsrMalformed)
    }

    /// The challengePassword, of at most 255 octets.
    pub fn challenge_password(&self) -> Option<&str> {
        self.challenge_password.as_deref()
    }

    /// Whether a key made by the server is to be encrypted for the client, beyond TLS (RFC 7030 4.4.1).
    pub const fn wants_encrypted_key(&self) -> bool {
        self.encrypted_key
    }

    /// Whether everything of the subject and the subjectAltName that the request names stands in this certificate too.
    /// What it leaves out is no change: nothing is taken from it.
    ///
    /// # Errors
    /// [`PkiError::Certificate`]: the certificate cannot be read.
    pub fn is_within(&self, certificate: &[u8]) -> Result<bool, PkiError> {
        let unreadable = || PkiError::Certificate("it is not a certificate in DER".to_owned());
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| unreadable())?;
        let subject = subject(parsed.subject());
        let extension = parsed.extensions().iter().find(|extension| extension.oid.as_bytes() == SUBJECT_ALT_NAME.as_bytes());
        let names = match extension {
            Some(extension) => general_names(extension.value).ok_or_else(unreadable)?,
            None => Vec::new(),
        };
        Ok(self.subject.iter().all(|part| subject.contains(part))
            && self.alternative_names.iter().all(|name| names.contains(name)))
    }
}

fn read(csr: &[u8]) -> Option<Requested> {
    // CertificationRequest { CertificationRequestInfo { version, subject, subjectPKInfo, [0] attributes }, … } (RFC 2986 4).
    let mut found =
        Requested { subject: Vec::new(), alternative_names: Vec::new(), challenge_password: None, encrypted_key: false };
    let info = first(csr)?;
    let mut parts = children(info)?.into_iter();
    let name = parts.nth(1)?;
    found.subject = subject(&X509Name::from_der(name).ok()?.1);
    // mbedTLS and others leave an empty list of attributes out.
    let Some(attributes) = parts.nth(1) else { return Some(found) };
    let attributes = AnyRef::from_der(attributes).ok()?;
    if attributes.tag() != (Tag::ContextSpecific { constructed: true, number: TagNumber::N0 }) {
        return None;
    }
    for attribute in elements(attributes.value())? {
        found.take(attribute)?;
    }
    Some(found)
}

impl Requested {
    /// `Attribute ::= SEQUENCE { type OBJECT IDENTIFIER, values SET SIZE(1..MAX) OF … }` (RFC 2986 4.1).
    fn take(&mut self, attribute: &[u8]) -> Option<()> {
        let [of, values] = <[&[u8]; 2]>::try_from(children(attribute)?).ok()?;
        let of = ObjectIdentifier::from_der(of).ok()?;
        let values = children(values)?;
        if of == CHALLENGE_PASSWORD {
            let [value] = <[&[u8]; 1]>::try_from(values).ok()?;
            let repeated = self.challenge_password.replace(text(value)?).is_some();
            return (!repeated).then_some(());
        }
        if of == EXTENSION_REQUEST {
            for extension in values.into_iter().map(children).collect::<Option<Vec<_>>>()?.into_iter().flatten() {
                self.take_extension(extension)?;
            }
        }
        self.encrypted_key |= DECRYPT_KEY.contains(&of);
        Some(())
    }

    /// `Extension ::= SEQUENCE { extnID, critical BOOLEAN DEFAULT FALSE, extnValue OCTET STRING }` (RFC 5280 4.1).
    fn take_extension(&mut self, extension: &[u8]) -> Option<()> {
        let parts = children(extension)?;
        let (of, value) = (parts.first()?, parts.last()?);
        if ObjectIdentifier::from_der(of).ok()? == SUBJECT_ALT_NAME {
            let value = AnyRef::from_der(value).ok()?;
            self.alternative_names.extend(general_names(value.value())?);
        }
        Some(())
    }
}

fn subject(name: &X509Name<'_>) -> Vec<SubjectPart> {
    let parts = name.iter_attributes().map(|attribute| SubjectPart {
        of: attribute.attr_type().to_id_string(),
        value: attribute.as_str().map(str::to_owned).map_err(|_| attribute.as_slice().to_vec()),
    });
    parts.collect()
}

/// Each `GeneralName` in DER.
fn general_names(names: &[u8]) -> Option<Vec<Vec<u8>>> {
    Some(children(names)?.into_iter().map(<[u8]>::to_vec).collect())
}

/// A `DirectoryString` of ASCII, or the `IA5String` that some clients write.
fn text(value: &[u8]) -> Option<String> {
    let value = AnyRef::from_der(value).ok()?;
    let is_text = matches!(value.tag(), Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::TeletexString);
    let text = std::str::from_utf8(value.value()).ok().filter(|text| text.len() <= MAX_CHALLENGE)?;
    // A BMPString or UniversalString holds no base64 that we would compare: it is a password, and no binding.
    Some(if is_text { text.to_owned() } else { String::new() })
}

/// The first element within a constructed one.
fn first(der: &[u8]) -> Option<&[u8]> {
    children(der)?.first().copied()
}

/// The elements within one constructed element that fills `der`.
fn children(der: &[u8]) -> Option<Vec<&[u8]>> {
    elements(AnyRef::from_der(der).ok()?.value())
}

/// The elements that follow each other.
fn elements(octets: &[u8]) -> Option<Vec<&[u8]>> {
    let mut reader = SliceReader::new(octets).ok()?;
    let mut found = Vec::new();
    while !reader.is_finished() {
        found.push(reader.tlv_bytes().ok()?);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::keys::KeyAlgorithm;
    use crate::pki::testing::{Installation, Wanted, key, openssl};

    /// A request by openssl with this section `[ req ]` and what follows it.
    fn request(subject: &str, configuration: &str) -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("cnf");
        // With -subj openssl leaves the attributes out; an empty subject is to be had by it alone.
        let parts = subject.split('/').filter(|part| !part.is_empty()).enumerate();
        let name: String = parts.map(|(at, part)| format!("{at}.{part}\n")).collect();
        let text = format!("[req]\ndistinguished_name=dn\nprompt=no\n{configuration}\n[dn]\n{name}");
        std::fs::write(&file, text).unwrap();
        let curve = "ec_paramgen_curve:P-256";
        let config = file.to_str().unwrap();
        let arguments =
            ["req", "-new", "-config", config, "-newkey", "ec", "-pkeyopt", curve, "-nodes", "-keyout", "/dev/null"];
        let form = if name.is_empty() { &["-outform", "DER", "-subj", "/"][..] } else { &["-outform", "DER"] };
        openssl(&[&arguments[..], form].concat(), b"").unwrap()
    }

    fn with_names(subject: &str, names: &str) -> Requested {
        let extension = format!("req_extensions=more\n[more]\nkeyUsage=digitalSignature\nsubjectAltName={names}");
        Requested::of(&request(subject, &extension)).unwrap()
    }

    #[test]
    fn what_openssl_wrote_is_read() {
        let plain = Requested::of(&request("/", "")).unwrap();
        assert_eq!(plain.challenge_password(), None);
        assert!(!plain.wants_encrypted_key() && plain.subject.is_empty() && plain.alternative_names.is_empty());
        let bound = "attributes=more\n[more]\nchallengePassword=QUJDREVGR0hJSktM";
        assert_eq!(Requested::of(&request("/CN=a", bound)).unwrap().challenge_password(), Some("QUJDREVGR0hJSktM"));
        let umlaut = "utf8=yes\nstring_mask=utf8only\nattributes=more\n[more]\nchallengePassword=gr\u{fc}n";
        assert_eq!(Requested::of(&request("/CN=a", umlaut)).unwrap().challenge_password(), Some("gr\u{fc}n"));
        let encrypted = "attributes=more\n[more]\n1.2.840.113549.1.9.16.2.37=ASN1:OCTETSTRING:key";
        assert!(Requested::of(&request("/CN=a", encrypted)).unwrap().wants_encrypted_key());
        let names =
            with_names("/CN=a/O=b", "DNS:a.example,IP:192.0.2.1,email:a@b.example,URI:urn:a,RID:1.2.3,otherName:1.2.3;UTF8:x");
        assert_eq!((names.subject.len(), names.alternative_names.len()), (2, 6));
    }

    #[test]
    fn a_challenge_password_is_not_told_by_debug() {
        let bound = "attributes=more\n[more]\nchallengePassword=secret123";
        let requested = Requested::of(&request("/CN=a", bound)).unwrap();
        assert_eq!(requested.challenge_password(), Some("secret123"));
        assert!(!format!("{requested:?}").contains("secret123"));
    }

    #[test]
    fn a_request_within_a_certificate_names_nobody_else() {
        let installation = Installation::new(KeyAlgorithm::P256);
        let authority = installation.authority("authority-gateway", KeyAlgorithm::P256);
        let holder = key(KeyAlgorithm::P256);
        let wanted = Wanted {
            profile: "gateway",
            common_name: "edge-1",
            uri: Some("spiffe://fleet.example/gateway/edge-1"),
            dns_names: &["edge-1.example".to_owned()],
            addresses: &["192.0.2.7".parse().unwrap()],
            spki: holder.public_key(),
            ..Wanted::default()
        };
        let certificate = installation.issue(&authority, &wanted).unwrap().der;
        let uri = "URI:spiffe://fleet.example/gateway/edge-1";
        for (subject, names) in [
            ("/", uri.to_owned()),
            ("/O=default/CN=edge-1", uri.to_owned()),
            ("/CN=edge-1", format!("{uri},DNS:edge-1.example,IP:192.0.2.7")),
            ("/CN=edge-1/O=default", "DNS:edge-1.example".to_owned()),
        ] {
            assert!(with_names(subject, &names).is_within(&certificate).unwrap(), "{subject} {names}");
        }
        assert!(Requested::of(&request("/", "")).unwrap().is_within(&certificate).unwrap());
        for (subject, names) in [
            ("/CN=edge-2", uri),
            ("/CN=edge-1/OU=more", uri),
            ("/O=default/CN=edge-1/CN=edge-2", uri),
            ("/OU=edge-1", uri),
            ("/CN=edge-1", "URI:spiffe://fleet.example/gateway/edge-2"),
            ("/CN=edge-1", "URI:spiffe://fleet.example/gateway/edge-1,DNS:other.example"),
            ("/CN=edge-1", "IP:192.0.2.8"),
            ("/CN=edge-1", "email:edge@fleet.example"),
            ("/CN=edge-1", "otherName:1.2.3;UTF8:x"),
            ("/CN=edge-1", "RID:1.2.3"),
            // The same text under another type is another name.
            ("/CN=edge-1", "DNS:192.0.2.7"),
        ] {
            assert!(!with_names(subject, names).is_within(&certificate).unwrap(), "{subject} {names}");
        }
        assert!(with_names("/", uri).is_within(b"no certificate").is_err());
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let der = request("/CN=a", "attributes=more\n[more]\nchallengePassword=QUJDREVGR0hJSktM");
        for length in 0..der.len() {
            assert_eq!(Requested::of(&der[..length]), Err(Refusal::CsrMalformed));
        }
        // No octet of it makes it panic.
        for at in 0..der.len() {
            for change in [1_u8, 0x80, 0xff] {
                let mut changed = der.clone();
                changed[at] ^= change;
                let _ = Requested::of(&changed);
            }
        }
        let twice = "attributes=more\n[more]\nchallengePassword=abcd\n1.2.840.113549.1.9.7=efgh";
        assert_eq!(Requested::of(&request("/CN=a", twice)), Err(Refusal::CsrMalformed));
    }
}
