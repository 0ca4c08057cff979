//! Whether a request to renew names whom the current certificate names (RFC 7030 4.2.2).

use der::asn1::AnyRef;
use der::{Decode, Reader, SliceReader};
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use super::PkiError;
use super::asked::Asked;

/// An attribute of a distinguished name: its type, and its value as text, or in DER where it is none. One text may come in several
/// string types.
type SubjectPart = (String, Result<String, Vec<u8>>);

impl Asked {
    /// Whether everything of the subject and the subjectAltName that the request names stands in this certificate too.
    /// What it leaves out is no change: nothing is taken from it. Names that cannot be read stand in no certificate.
    ///
    /// # Errors
    /// [`PkiError::Certificate`]: the certificate cannot be read.
    pub fn is_within(&self, certificate: &[u8]) -> Result<bool, PkiError> {
        let unreadable = || PkiError::Certificate("it is not a certificate in DER".to_owned());
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| unreadable())?;
        let subject = subject(parsed.subject());
        let extension = parsed.extensions().iter().find(|extension| extension.oid == OID_X509_EXT_SUBJECT_ALT_NAME);
        let names = match extension {
            Some(extension) => general_names(extension.value).ok_or_else(unreadable)?,
            None => Vec::new(),
        };
        let Ok((_, asked)) = X509Name::from_der(&self.subject) else { return Ok(false) };
        let is_known =
            |value: &Vec<u8>| general_names(value).is_some_and(|asked| asked.iter().all(|name| names.contains(name)));
        Ok(self::subject(&asked).iter().all(|part| subject.contains(part)) && self.alternative_names.iter().all(is_known))
    }
}

fn subject(name: &X509Name<'_>) -> Vec<SubjectPart> {
    let part = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        let value = attribute.as_str().map(str::to_owned).map_err(|_| attribute.as_slice().to_vec());
        (attribute.attr_type().to_id_string(), value)
    };
    name.iter_attributes().map(part).collect()
}

/// Each `GeneralName` in DER.
fn general_names(names: &[u8]) -> Option<Vec<&[u8]>> {
    let mut reader = SliceReader::new(AnyRef::from_der(names).ok()?.value()).ok()?;
    let mut found = Vec::new();
    while !reader.is_finished() {
        found.push(reader.tlv_bytes().ok()?);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::csr::VerifiedCsr;
    use crate::pki::keys::KeyAlgorithm;
    use crate::pki::testing::{Installation, Wanted, key, openssl};

    /// A request by openssl with this section `[ req ]` and what follows it.
    fn asked(subject: &str, configuration: &str) -> Asked {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("cnf");
        // With -subj openssl leaves the attributes out; an empty subject is to be had by it alone.
        let parts = subject.split('/').filter(|part| !part.is_empty()).enumerate();
        let name = parts.map(|(at, part)| format!("{at}.{part}\n")).collect::<Vec<_>>().concat();
        let text = format!("[req]\ndistinguished_name=dn\nprompt=no\n{configuration}\n[dn]\n{name}");
        std::fs::write(&file, text).unwrap();
        let curve = "ec_paramgen_curve:P-256";
        let config = file.to_str().unwrap();
        let arguments =
            ["req", "-new", "-config", config, "-newkey", "ec", "-pkeyopt", curve, "-nodes", "-keyout", "/dev/null"];
        let form = if name.is_empty() { &["-outform", "DER", "-subj", "/"][..] } else { &["-outform", "DER"] };
        let der = openssl(&[&arguments[..], form].concat(), b"").unwrap();
        VerifiedCsr::from_der(&der).unwrap().asked().clone()
    }

    fn with_names(subject: &str, names: &str) -> Asked {
        let extension = format!("req_extensions=more\n[more]\nkeyUsage=digitalSignature\nsubjectAltName={names}");
        asked(subject, &extension)
    }

    #[test]
    fn every_kind_of_name_counts() {
        let plain = asked("/", "");
        assert!(plain.alternative_names.is_empty() && plain.subject == [0x30, 0]);
        let names =
            with_names("/CN=a/O=b", "DNS:a.example,IP:192.0.2.1,email:a@b.example,URI:urn:a,RID:1.2.3,otherName:1.2.3;UTF8:x");
        let (_, name) = X509Name::from_der(&names.subject).unwrap();
        assert_eq!((subject(&name).len(), general_names(&names.alternative_names[0]).unwrap().len()), (2, 6));
        assert_eq!(general_names(&[0x30, 3, 0x82, 4, b'a']), None, "a name that is cut off");
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
        assert!(asked("/", "").is_within(&certificate).unwrap());
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
}
