//! What a certificate request asks for beside its key. It is read to be compared and refused; nothing of it is ever copied into a
//! certificate.

use std::fmt;
use std::net::IpAddr;

use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Decode, Reader, SliceReader, Tag, TagNumber, Tagged};
use fleetmark_domain::Refusal;
use serde::Deserialize;
use x509_parser::asn1_rs::Oid;
use x509_parser::certification_request::X509CertificationRequestInfo;
use x509_parser::cri_attributes::ExtensionRequest;
use x509_parser::extensions::{GeneralName, KeyUsage, ParsedExtension, X509Extension};
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;
use zeroize::Zeroizing;

use super::profile::ExtendedKeyUsage;

/// RFC 2985 5.4.2.
const EXTENSION_REQUEST: &str = "1.2.840.113549.1.9.14";
/// The same, as Windows writes it (`szOID_CERT_EXTENSIONS`).
const MICROSOFT_EXTENSIONS: &str = "1.3.6.1.4.1.311.2.1.14";
/// RFC 2985 5.4.1.
const CHALLENGE_PASSWORD: &str = "1.2.840.113549.1.9.7";
/// id-aa-decryptKeyID (RFC 4108 2.2.5) and id-aa-asymmDecryptKeyID (RFC 7030 4.4.1.2): how a key made by the server is to be
/// encrypted.
const DECRYPT_KEY: [&str; 2] = ["1.2.840.113549.1.9.16.2.37", "1.2.840.113549.1.9.16.2.54"];
/// RFC 5280 4.2.1.12.
const EXTENDED_KEY_USAGE: &str = "2.5.29.37";
/// The same.
const ANY_EXTENDED_KEY_USAGE: &str = "2.5.29.37.0";

/// Attributes that profiles name by a word.
const ATTRIBUTES: [(&str, &str); 3] = [
    ("challenge-password", CHALLENGE_PASSWORD),
    ("extension-request", EXTENSION_REQUEST),
    ("unstructured-name", "1.2.840.113549.1.9.2"),
];

/// Extensions that profiles name by a word (RFC 5280 4.2.1).
const EXTENSIONS: [(&str, &str); 5] = [
    ("subject-alt-name", "2.5.29.17"),
    ("key-usage", "2.5.29.15"),
    ("extended-key-usage", EXTENDED_KEY_USAGE),
    ("basic-constraints", "2.5.29.19"),
    ("subject-key-id", "2.5.29.14"),
];

/// What a request asks for, as far as it can be read. Its size is bounded by the request's, 16 KiB.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// The attributes' identifiers, dotted, in the request's order.
    pub attributes: Vec<String>,
    /// The requested extensions' identifiers, dotted, in the request's order.
    pub extensions: Vec<String>,
    /// dNSNames of a requested subjectAltName.
    pub dns_names: Vec<String>,
    /// iPAddresses of it.
    pub addresses: Vec<IpAddr>,
    /// rfc822Names of it.
    pub emails: Vec<String>,
    /// uniformResourceIdentifiers of it.
    pub uris: Vec<String>,
    /// basicConstraints with cA.
    pub certificate_authority: bool,
    /// Requested key usages by RFC 5280's names, such as `digitalSignature`.
    pub key_usage: Vec<&'static str>,
    /// Requested extended key usages, dotted.
    pub extended_key_usage: Vec<String>,
    /// The challengePassword. EST binds a request to its channel by it (RFC 7030 3.5).
    pub challenge_password: Option<ChallengePassword>,
    /// The subject's serialNumber, if it has one of at most 64 characters without control characters.
    pub serial_number: Option<String>,
    /// The subject in DER.
    pub(super) subject: Vec<u8>,
    /// The values of requested subjectAltNames, in DER.
    pub(super) alternative_names: Vec<Vec<u8>>,
}

/// A secret of the request. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct ChallengePassword(Zeroizing<String>);

impl ChallengePassword {
    /// The password itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ChallengePassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChallengePassword(..)")
    }
}

/// What a profile lets requests ask for. Whatever it is, a request for an authority, for keyCertSign or cRLSign, or for an extended
/// key usage that the profile does not have is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestRules {
    /// Whether attributes and extensions that are not listed are refused; otherwise they are read past.
    pub strict: bool,
    /// The attributes allowed, dotted.
    pub attributes: Vec<String>,
    /// The extensions allowed, dotted.
    pub extensions: Vec<String>,
    /// The extended key usages of the profile.
    pub extended_key_usage: Vec<ExtendedKeyUsage>,
}

/// The table `[request]` of a profile as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestTable {
    #[serde(default)]
    strict: bool,
    attributes: Option<Vec<String>>,
    extensions: Option<Vec<String>>,
}

impl RequestTable {
    /// Reads the names, for a profile with these extended key usages. The error says what is wrong.
    pub(super) fn rules(self, extended_key_usage: &[ExtendedKeyUsage]) -> Result<RequestRules, String> {
        if !self.strict && (self.attributes.is_some() || self.extensions.is_some()) {
            return Err("request: lists count only with strict = true".to_owned());
        }
        let mut rules = RequestRules {
            strict: self.strict,
            attributes: identifiers("attributes", &ATTRIBUTES, self.attributes.unwrap_or_default())?,
            extensions: identifiers("extensions", &EXTENSIONS, self.extensions.unwrap_or_default())?,
            extended_key_usage: extended_key_usage.to_vec(),
        };
        // Extensions come in these attributes and no others.
        if !rules.extensions.is_empty() {
            rules.attributes.extend([EXTENSION_REQUEST, MICROSOFT_EXTENSIONS].map(str::to_owned));
        }
        Ok(rules)
    }
}

/// Words and dotted identifiers, all as dotted identifiers.
fn identifiers(list: &str, known: &[(&str, &str)], names: Vec<String>) -> Result<Vec<String>, String> {
    let read = |name: String| match known.iter().find(|(word, _)| *word == name) {
        Some((_, dotted)) => Ok((*dotted).to_owned()),
        None if ObjectIdentifier::new(&name).is_ok() => Ok(name),
        None => {
            let words: Vec<_> = known.iter().map(|(word, _)| *word).collect();
            Err(format!("request: {name:?} in {list} is neither a dotted identifier nor one of {}", words.join(", ")))
        }
    };
    names.into_iter().map(read).collect()
}

impl Asked {
    /// Reads the attributes and the subject of a request. `signed` is the request's `CertificationRequestInfo` in DER.
    ///
    /// # Errors
    /// `CsrMalformed` where the attributes are not DER, or requested extensions are no extensions.
    pub(super) fn read(signed: &[u8], info: &X509CertificationRequestInfo<'_>) -> Result<Self, Refusal> {
        let (serial_number, subject) = (serial_number(&info.subject), info.subject.as_raw().to_vec());
        let mut asked = Self { serial_number, subject, ..Self::default() };
        for (identifier, value) in attributes(signed).map_err(|_| Refusal::CsrMalformed)? {
            let identifier = identifier.to_string();
            match (identifier.as_str(), value) {
                (EXTENSION_REQUEST | MICROSOFT_EXTENSIONS, Some(value)) => {
                    let (_, request) = ExtensionRequest::from_der(value.0).map_err(|_| Refusal::CsrMalformed)?;
                    request.extensions.iter().for_each(|extension| asked.add(extension));
                }
                (CHALLENGE_PASSWORD, Some(value)) => asked.challenge_password = challenge_password(value.1),
                _ => {}
            }
            asked.attributes.push(identifier);
        }
        Ok(asked)
    }

    /// Whether nothing is asked for that the rules refuse. An allowed wish is not granted: it is ignored.
    ///
    /// # Errors
    /// `CsrAttributeNotAllowed`, `CsrExtensionNotAllowed`.
    pub fn check(&self, allowed: &RequestRules) -> Result<(), Refusal> {
        let has_usage = |asked: &String| allowed.extended_key_usage.iter().any(|usage| identifier_of(*usage) == asked);
        if self.certificate_authority
            || self.key_usage.iter().any(|usage| ["keyCertSign", "cRLSign"].contains(usage))
            || !self.extended_key_usage.iter().all(has_usage)
        {
            return Err(Refusal::CsrExtensionNotAllowed);
        }
        if allowed.strict && !self.attributes.iter().all(|asked| allowed.attributes.contains(asked)) {
            return Err(Refusal::CsrAttributeNotAllowed);
        }
        if allowed.strict && !self.extensions.iter().all(|asked| allowed.extensions.contains(asked)) {
            return Err(Refusal::CsrExtensionNotAllowed);
        }
        Ok(())
    }

    /// Whether a key made by the server is to be encrypted for the client, beyond TLS (RFC 7030 4.4.1).
    pub fn wants_encrypted_key(&self) -> bool {
        self.attributes.iter().any(|asked| DECRYPT_KEY.contains(&asked.as_str()))
    }

    fn add(&mut self, extension: &X509Extension<'_>) {
        self.extensions.push(extension.oid.to_id_string());
        if extension.oid == OID_X509_EXT_SUBJECT_ALT_NAME {
            self.alternative_names.push(extension.value.to_vec());
        }
        match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(constraints) => self.certificate_authority |= constraints.ca,
            ParsedExtension::KeyUsage(usage) => self.key_usage.extend(usages(*usage)),
            ParsedExtension::ExtendedKeyUsage(_) => self.extended_key_usage.extend(extended_usages(extension.value)),
            ParsedExtension::SubjectAlternativeName(names) => names.general_names.iter().for_each(|name| self.add_name(name)),
            _ => {}
        }
    }

    fn add_name(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::RFC822Name(email) => self.emails.push((*email).to_owned()),
            GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
            GeneralName::IPAddress(octets) => self.addresses.extend(address(octets)),
            _ => {}
        }
    }
}

/// Read again: the library keeps the identifiers of usages that it knows to itself. What cannot be read may be any.
fn extended_usages(value: &[u8]) -> Vec<String> {
    match Vec::<Oid<'_>>::from_der(value) {
        Ok((_, usages)) => usages.iter().map(Oid::to_id_string).collect(),
        Err(_) => vec![ANY_EXTENDED_KEY_USAGE.to_owned()],
    }
}

const fn identifier_of(usage: ExtendedKeyUsage) -> &'static str {
    match usage {
        ExtendedKeyUsage::ServerAuth => "1.3.6.1.5.5.7.3.1",
        ExtendedKeyUsage::ClientAuth => "1.3.6.1.5.5.7.3.2",
        ExtendedKeyUsage::OcspSigning => "1.3.6.1.5.5.7.3.9",
        ExtendedKeyUsage::Claim => "2.25.190392001021574049915008306275167811568",
        ExtendedKeyUsage::StatusSigning => "2.25.257790598835804158408139993016795951822",
    }
}

/// RFC 5280 4.2.1.6: four octets or sixteen.
pub(super) fn address(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Some(octets.into());
    }
    <[u8; 16]>::try_from(octets).ok().map(Into::into)
}

/// RFC 5280 4.2.1.3.
fn usages(usage: KeyUsage) -> impl Iterator<Item = &'static str> + use<> {
    [
        ("digitalSignature", usage.digital_signature()),
        ("nonRepudiation", usage.non_repudiation()),
        ("keyEncipherment", usage.key_encipherment()),
        ("dataEncipherment", usage.data_encipherment()),
        ("keyAgreement", usage.key_agreement()),
        ("keyCertSign", usage.key_cert_sign()),
        ("cRLSign", usage.crl_sign()),
        ("encipherOnly", usage.encipher_only()),
        ("decipherOnly", usage.decipher_only()),
    ]
    .into_iter()
    .filter_map(|(name, wanted)| wanted.then_some(name))
}

/// An attribute: its type, and the first of its values, if it has one, in DER and read.
type Attribute<'a> = (ObjectIdentifier, Option<(&'a [u8], AnyRef<'a>)>);

/// `attributes [0] IMPLICIT SET OF SEQUENCE { type OBJECT IDENTIFIER, values SET OF ANY }` (RFC 2986 4.1), in any order: not every
/// client sorts a SET OF.
fn attributes(signed: &[u8]) -> der::Result<Vec<Attribute<'_>>> {
    AnyRef::from_der(signed)?.sequence(|reader| {
        for _ in ["version", "subject", "subjectPKInfo"] {
            reader.tlv_bytes()?;
        }
        let attributes = AnyRef::decode(reader)?;
        attributes.tag().assert_eq(Tag::ContextSpecific { constructed: true, number: TagNumber::N0 })?;
        let mut found = Vec::new();
        let mut reader = SliceReader::new(attributes.value())?;
        while !reader.is_finished() {
            found.push(AnyRef::decode(&mut reader)?.sequence(attribute)?);
        }
        Ok(found)
    })
}

fn attribute<'a>(reader: &mut SliceReader<'a>) -> der::Result<Attribute<'a>> {
    let identifier = ObjectIdentifier::decode(reader)?;
    let values = AnyRef::decode(reader)?;
    values.tag().assert_eq(Tag::Set)?;
    let mut first = None;
    let mut reader = SliceReader::new(values.value())?;
    while !reader.is_finished() {
        let octets = reader.tlv_bytes()?;
        first = first.or(Some((octets, AnyRef::from_der(octets)?)));
    }
    Ok((identifier, first))
}

/// RFC 2985 5.4.1: at most 255 characters of a `DirectoryString`; those of more than one octet a character are not read.
fn challenge_password(value: AnyRef<'_>) -> Option<ChallengePassword> {
    if !matches!(value.tag(), Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::TeletexString) {
        return None;
    }
    let text = std::str::from_utf8(value.value()).ok().filter(|text| text.chars().count() <= 255)?;
    Some(ChallengePassword(Zeroizing::new(text.to_owned())))
}

fn serial_number(subject: &X509Name<'_>) -> Option<String> {
    let mut numbers = subject.iter_by_oid(&x509_parser::oid_registry::OID_X509_SERIALNUMBER);
    let number = numbers.next()?.as_str().ok()?;
    let fits = numbers.next().is_none() && number.chars().count() <= 64 && !number.chars().any(char::is_control);
    fits.then(|| number.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::csr::VerifiedCsr;
    use crate::pki::encoding::{SEQUENCE, tlv};
    use crate::pki::profile::Profile;
    use crate::pki::testing::{key, openssl};

    const DEVICE: &str = include_str!("../../certs/profiles/device.toml");

    /// What a request made by openssl with these lines of configuration asks for.
    fn asked(attributes: &str, extensions: &str) -> Asked {
        let text = format!(
            "[req]\nprompt=no\ndistinguished_name=d\nattributes=a\nreq_extensions=e\n[d]\nCN=a\nserialNumber=SN-7\n\
             [hw]\nt=OID:1.2.3.4\ns=FORMAT:HEX,OCT:0102\n[a]\n{attributes}\n[e]\n{extensions}\n"
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let path = file.path().to_str().unwrap();
        let ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "/dev/null"];
        let der = openssl(&[&["req", "-new", "-outform", "DER", "-config", path], &ec[..]].concat(), b"").unwrap();
        VerifiedCsr::from_der(&der).unwrap().asked().clone()
    }

    fn rules(table: &str) -> RequestRules {
        Profile::parse("device", &format!("{DEVICE}\n{table}")).unwrap().request
    }

    #[test]
    fn all_that_is_asked_for_is_read() {
        let asked = asked(
            "challengePassword=open sesame\nunstructuredName=x",
            "subjectAltName=DNS:a.example,DNS:b.example,IP:192.0.2.7,IP:2001:db8::1,email:a@example.org,URI:spiffe://x/y,\
             otherName:1.3.6.1.5.5.7.8.4;SEQ:hw\nbasicConstraints=critical,CA:true\n\
             keyUsage=digitalSignature,keyCertSign\nextendedKeyUsage=clientAuth,1.2.3.4",
        );
        let expected = Asked {
            attributes: [CHALLENGE_PASSWORD, "1.2.840.113549.1.9.2", EXTENSION_REQUEST].map(str::to_owned).to_vec(),
            extensions: ["2.5.29.17", "2.5.29.19", "2.5.29.15", EXTENDED_KEY_USAGE].map(str::to_owned).to_vec(),
            dns_names: vec!["a.example".to_owned(), "b.example".to_owned()],
            addresses: vec!["192.0.2.7".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            emails: vec!["a@example.org".to_owned()],
            uris: vec!["spiffe://x/y".to_owned()],
            certificate_authority: true,
            key_usage: vec!["digitalSignature", "keyCertSign"],
            extended_key_usage: vec!["1.3.6.1.5.5.7.3.2".to_owned(), "1.2.3.4".to_owned()],
            challenge_password: Some(ChallengePassword(Zeroizing::new("open sesame".to_owned()))),
            serial_number: Some("SN-7".to_owned()),
            subject: asked.subject.clone(),
            alternative_names: asked.alternative_names.clone(),
        };
        // A SET OF has no order of its own.
        let sorted = |mut asked: Asked| {
            asked.attributes.sort();
            asked
        };
        assert_eq!(sorted(asked.clone()), sorted(expected));
        assert!(!format!("{asked:?}").contains("sesame"), "a secret was shown");
        assert_eq!(asked.challenge_password.unwrap().expose(), "open sesame");
    }

    #[test]
    fn what_profiles_allow_is_told_apart() {
        use Refusal::{CsrAttributeNotAllowed as Attribute, CsrExtensionNotAllowed as Extension};
        let open = rules("");
        let strict = rules("[request]\nstrict = true");
        let listed = rules(
            "[request]\nstrict = true\nattributes = [\"challenge-password\"]\n\
             extensions = [\"subject-alt-name\", \"basic-constraints\", \"key-usage\", \"extended-key-usage\", \"1.2.3.4.5\"]",
        );
        let device = "spiffe://fleetmark.local/device/default/a";
        for (attributes, extensions, expected) in [
            ("", "", [None, None, None]),
            ("challengePassword=secret", "", [None, Some(Attribute), None]),
            ("unstructuredName=x", "", [None, Some(Attribute), Some(Attribute)]),
            // What openssl's own v3_req asks for, and strongSwan, and wolfSSL and IEEE 802.1AR devices.
            (
                "",
                "basicConstraints=CA:FALSE\nkeyUsage=nonRepudiation,digitalSignature,keyEncipherment",
                [None, Some(Attribute), None],
            ),
            ("", &format!("subjectAltName=URI:{device}"), [None, Some(Attribute), None]),
            ("", "extendedKeyUsage=clientAuth", [None, Some(Attribute), None]),
            ("", "subjectKeyIdentifier=hash", [None, Some(Attribute), Some(Extension)]),
            ("", "subjectAltName=otherName:1.3.6.1.5.5.7.8.4;SEQ:hw", [None, Some(Attribute), None]),
            ("", "1.2.3.4.5=critical,DER:0500", [None, Some(Attribute), None]),
            ("", "1.2.3.4.6=DER:0500", [None, Some(Attribute), Some(Extension)]),
            ("", "basicConstraints=CA:true", [Some(Extension); 3]),
            ("", "keyUsage=digitalSignature,keyCertSign", [Some(Extension); 3]),
            ("", "keyUsage=cRLSign", [Some(Extension); 3]),
            ("", "extendedKeyUsage=serverAuth", [Some(Extension); 3]),
            ("", "extendedKeyUsage=clientAuth,OCSPSigning", [Some(Extension); 3]),
            ("", "extendedKeyUsage=anyExtendedKeyUsage", [Some(Extension); 3]),
            ("", "extendedKeyUsage=1.2.3", [Some(Extension); 3]),
        ] {
            let asked = asked(attributes, extensions);
            let found = [&open, &strict, &listed].map(|rules| asked.check(rules).err());
            assert_eq!(found, expected, "{attributes} {extensions}");
        }
    }

    /// A request by a key of our own, around attributes that openssl does not write.
    fn with_attributes(attributes: &[u8]) -> Result<Asked, Refusal> {
        let key = key(crate::pki::keys::KeyAlgorithm::Ed25519);
        let algorithm = crate::pki::encoding::signature_algorithm(key.algorithm());
        let info = tlv(SEQUENCE, &[&[2, 1, 0], &[0x30, 0], key.public_key(), &tlv(0xa0, &[attributes])]);
        let signature = tlv(3, &[&[0], &key.sign(&info).unwrap()]);
        VerifiedCsr::from_der(&tlv(SEQUENCE, &[&info, algorithm, &signature])).map(|csr| csr.asked().clone())
    }

    fn attribute(identifier: &str, values: &[&[u8]]) -> Vec<u8> {
        let identifier = ObjectIdentifier::new(identifier).unwrap();
        tlv(SEQUENCE, &[&tlv(6, &[identifier.as_bytes()]), &tlv(0x31, values)])
    }

    #[test]
    fn a_key_to_be_encrypted_is_noticed() {
        assert!(!asked("challengePassword=secret", "").wants_encrypted_key());
        for identifier in DECRYPT_KEY {
            assert!(asked(&format!("{identifier}=ASN1:OCTETSTRING:key"), "").wants_encrypted_key(), "{identifier}");
        }
    }

    #[test]
    fn the_attribute_of_windows_is_read_too() {
        let constraints = [0x30, 0x0f, 6, 3, 0x55, 0x1d, 0x13, 1, 1, 0xff, 4, 5, 0x30, 3, 1, 1, 0xff];
        for identifier in [EXTENSION_REQUEST, MICROSOFT_EXTENSIONS] {
            let asked = with_attributes(&attribute(identifier, &[&tlv(SEQUENCE, &[&constraints])])).unwrap();
            assert!(asked.certificate_authority, "{identifier}");
            assert_eq!(asked.check(&rules("")), Err(Refusal::CsrExtensionNotAllowed));
        }
        assert_eq!(with_attributes(&attribute(MICROSOFT_EXTENSIONS, &[&[5, 0]])), Err(Refusal::CsrMalformed));
        // Twice is no way around.
        let twice =
            [attribute(EXTENSION_REQUEST, &[&[0x30, 0]]), attribute(EXTENSION_REQUEST, &[&tlv(SEQUENCE, &[&constraints])])];
        assert!(with_attributes(&twice.concat()).unwrap().certificate_authority);
    }

    #[test]
    fn odd_attributes_are_none_or_malformed() {
        let password = |tag: u8, text: &[u8]| with_attributes(&attribute(CHALLENGE_PASSWORD, &[&tlv(tag, &[text])]));
        assert_eq!(password(0x13, b"abc").unwrap().challenge_password.unwrap().expose(), "abc");
        assert_eq!(password(0x0c, &[b'a'; 256]).unwrap().challenge_password, None);
        assert_eq!(password(0x0c, &[0xff]), Err(Refusal::CsrMalformed));
        assert_eq!(with_attributes(&attribute("1.2.3.4", &[])).unwrap().attributes, ["1.2.3.4"]);
        assert_eq!(with_attributes(&attribute("1.2.3.4", &[&[5, 0], &[5, 0]])).unwrap().attributes, ["1.2.3.4"]);
        // Values that are no DER.
        for values in [&[5][..], &[5, 1], &[0x30, 0x80, 0, 0]] {
            assert_eq!(with_attributes(&attribute("1.2.3.4", &[values])), Err(Refusal::CsrMalformed), "{values:?}");
        }
        assert_eq!(with_attributes(&[0x30, 0]), Err(Refusal::CsrMalformed));
    }
}
