//! Makers' certificates (IEEE 802.1AR IDevID): whether one chains to a maker's authority, and what it says of its device.

use der::asn1::{AnyRef, ContextSpecific, OctetStringRef};
use der::{Decode, Reader, SliceReader, Tag, TagNumber, Tagged};
use fleetmark_domain::{KeyHash, Refusal};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, Error, KeyUsage, VerifiedPath, anchor_from_trusted_cert};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::{Oid, oid};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_SERIALNUMBER};
use x509_parser::prelude::FromDer;

use super::issue::MAX_CERTIFICATE;
use super::{PkiError, encoding};

/// The most certificates that a device may send beside its own.
pub const MAX_INTERMEDIATES: usize = 4;
/// The longest serial number, in characters.
pub const MAX_SERIAL: usize = 128;

/// id-on-hardwareModuleName (RFC 4108 5).
const HARDWARE_MODULE_NAME: Oid<'static> = oid!(1.3.6.1.5.5.7.8.4);

/// Authorities of makers: trust anchors, roots or intermediates alike.
#[derive(Debug, Clone, Default)]
pub struct Makers {
    anchors: Vec<TrustAnchor<'static>>,
    /// First and last second of each of them.
    dates: Vec<(UnixTime, UnixTime)>,
}

impl Makers {
    /// Adds a maker's CA certificates: DER, one after the other, each at most 16 KiB.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] for what is no certificate, or none that may issue others. Nothing is added then.
    pub fn add(&mut self, material: &[u8]) -> Result<(), PkiError> {
        let unreadable = |why: String| PkiError::Certificate(format!("of a maker: {why}"));
        let mut found = Self::default();
        let mut rest = material;
        while !rest.is_empty() {
            let (after, certificate) =
                X509Certificate::from_der(rest).map_err(|_| unreadable("it is not a certificate in DER".to_owned()))?;
            let der = rest.get(..rest.len().saturating_sub(after.len())).unwrap_or_default();
            if der.len() > MAX_CERTIFICATE {
                return Err(unreadable("it is larger than 16 KiB".to_owned()));
            }
            if !issues(&certificate) {
                return Err(unreadable("it may not issue certificates".to_owned()));
            }
            let anchor = CertificateDer::from(der);
            let anchor = anchor_from_trusted_cert(&anchor).map_err(|error| unreadable(error.to_string()))?.to_owned();
            let validity = certificate.validity();
            let time = |at: i64| UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(at).unwrap_or(0)));
            found.anchors.push(anchor);
            found.dates.push((time(validity.not_before.timestamp()), time(validity.not_after.timestamp())));
            rest = after;
        }
        self.anchors.append(&mut found.anchors);
        self.dates.append(&mut found.dates);
        Ok(())
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    /// Verifies a device's certificate up to one of these authorities (RFC 5280 6.1), with what the device sent beside it:
    /// signatures, dates (an authority's own too), basicConstraints, name constraints, keyUsage, clientAuth where there is an
    /// extendedKeyUsage, no critical extension that is not known here.
    ///
    /// # Errors
    /// `CertificateForeign`, `CertificateExpired`, `CertificateNotYetValid`; `WrongKind` for one that is not for clients.
    pub fn verify(&self, device: &[u8], beside: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Refusal> {
        let is_too_large = |der: &[u8]| der.len() > MAX_CERTIFICATE;
        if is_too_large(device) || beside.len() > MAX_INTERMEDIATES || beside.iter().any(|der| is_too_large(der)) {
            return Err(Refusal::CertificateForeign);
        }
        let (_, parsed) = X509Certificate::from_der(device).map_err(|_| Refusal::CertificateForeign)?;
        let device = CertificateDer::from(device);
        let device = EndEntityCert::try_from(&device).map_err(|_| Refusal::CertificateForeign)?;
        let may = |path: &VerifiedPath<'_>| self.judge(path, now);
        device
            .verify_for_usage(ALL_VERIFICATION_ALGS, &self.anchors, beside, now, KeyUsage::client_auth(), None, Some(&may))
            .map_err(|error| refusal(&error))?;
        // RFC 5280 4.2.1.3: a key that signs a handshake. webpki does not look at it.
        match parsed.key_usage() {
            Ok(Some(usage)) if !usage.value.digital_signature() => Err(Refusal::WrongKind),
            Ok(_) => Ok(()),
            Err(_) => Err(Refusal::CertificateForeign),
        }
    }

    /// What webpki leaves out: the anchor's dates, and keyCertSign of those between (RFC 5280 6.1.4 n).
    fn judge(&self, path: &VerifiedPath<'_>, now: UnixTime) -> Result<(), Error> {
        let anchor = path.anchor();
        let same = |known: &TrustAnchor<'_>| {
            known.subject == anchor.subject && known.subject_public_key_info == anchor.subject_public_key_info
        };
        // One authority may be there twice, with other dates.
        let dates = self.anchors.iter().zip(&self.dates).filter(|(known, _)| same(known)).map(|(_, dates)| *dates);
        let in_time = dates.map(|(not_before, not_after)| match now {
            now if now > not_after => Err(Error::CertExpired { time: now, not_after }),
            now if now < not_before => Err(Error::CertNotValidYet { time: now, not_before }),
            _ => Ok(()),
        });
        in_time.reduce(Result::or).unwrap_or(Err(Error::UnknownIssuer))?;
        for between in path.intermediate_certificates() {
            let der = between.der();
            let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| Error::BadDer)?;
            if !issues(&parsed) {
                return Err(Error::UnknownIssuer);
            }
        }
        Ok(())
    }
}

/// Whether an authority's certificate says so (RFC 5280 4.2.1.3, 4.2.1.9).
fn issues(certificate: &X509Certificate<'_>) -> bool {
    let signs = match certificate.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(_) => false,
    };
    signs && certificate.basic_constraints().is_ok_and(|rules| rules.is_some_and(|rules| rules.value.ca))
}

/// What a failed verification is called. Anything that is not about time or purpose is a certificate that no authority signed.
pub const fn refusal(error: &Error) -> Refusal {
    match error {
        Error::CertExpired { .. } => Refusal::CertificateExpired,
        Error::CertNotValidYet { .. } => Refusal::CertificateNotYetValid,
        Error::RequiredEkuNotFoundContext(_) | Error::CaUsedAsEndEntity => Refusal::WrongKind,
        _ => Refusal::CertificateForeign,
    }
}

/// What a maker's certificate says of its device. Where a value is there more than once, it counts as not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IDevId {
    /// Its `SubjectPublicKeyInfo` in DER.
    pub spki: Vec<u8>,
    /// SHA-256 over it.
    pub key_hash: KeyHash,
    /// SHA-256 over `maker` and its `SubjectPublicKeyInfo`: which piece of hardware it is.
    pub hardware: [u8; 32],
    /// The subject's serialNumber.
    pub serial_number: Option<String>,
    /// hwSerialNum of the hardwareModuleName (RFC 4108 5): text where all of it is printable ASCII, else hexadecimal.
    pub module_serial: Option<String>,
    /// The subject's common name.
    pub common_name: Option<String>,
}

impl IDevId {
    /// Reads a certificate that [`Makers::verify`] accepted.
    ///
    /// # Errors
    /// `CertificateForeign` for what is no certificate in DER.
    pub fn parse(der: &[u8]) -> Result<Self, Refusal> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| Refusal::CertificateForeign)?;
        if !rest.is_empty() || der.len() > MAX_CERTIFICATE {
            return Err(Refusal::CertificateForeign);
        }
        let spki = certificate.public_key().raw;
        let attribute = |oid: &Oid<'_>| {
            let values = certificate.subject().iter_by_oid(oid).map(|value| value.as_str().ok().map(str::to_owned));
            only(values)
        };
        Ok(Self {
            spki: spki.to_vec(),
            key_hash: KeyHash(encoding::sha256(spki)),
            hardware: encoding::sha256(&[b"maker".as_slice(), spki].concat()),
            serial_number: attribute(&OID_X509_SERIALNUMBER),
            module_serial: only(module_names(&certificate).map(|name| module_serial(name).map(text_or_hex))),
            common_name: attribute(&OID_X509_COMMON_NAME),
        })
    }
}

/// The one value; None for none, for several, and for one that cannot be read or has no or more than 128 characters.
fn only(mut values: impl Iterator<Item = Option<String>>) -> Option<String> {
    let value = values.next()??;
    let length = value.chars().count();
    (values.next().is_none() && (1..=MAX_SERIAL).contains(&length)).then_some(value)
}

/// The values of the hardwareModuleNames, each under its explicit tag.
fn module_names<'a>(certificate: &'a X509Certificate<'_>) -> impl Iterator<Item = &'a [u8]> {
    let names = certificate.extensions().iter().filter_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(names),
        _ => None,
    });
    names.flat_map(|names| &names.general_names).filter_map(|name| match name {
        GeneralName::OtherName(oid, value) if *oid == HARDWARE_MODULE_NAME => Some(*value),
        _ => None,
    })
}

/// hwSerialNum of `[0] EXPLICIT SEQUENCE { hwType OBJECT IDENTIFIER, hwSerialNum OCTET STRING }`.
fn module_serial(value: &[u8]) -> Option<&[u8]> {
    let name: ContextSpecific<AnyRef<'_>> = ContextSpecific::from_der(value).ok()?;
    if name.tag_number != TagNumber::N0 {
        return None;
    }
    let mut reader = SliceReader::new(name.value.value()).ok()?;
    let kind: AnyRef<'_> = reader.decode().ok()?;
    let serial: OctetStringRef<'_> = reader.decode().ok()?;
    let is_sequence = name.value.tag() == Tag::Sequence && kind.tag() == Tag::ObjectIdentifier;
    (is_sequence && reader.is_finished()).then(|| serial.as_bytes())
}

fn text_or_hex(octets: &[u8]) -> String {
    match std::str::from_utf8(octets) {
        Ok(text) if text.bytes().all(|octet| (b' '..=b'~').contains(&octet)) => text.to_owned(),
        _ => hex::encode(octets),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_name_is_read_strictly() {
        // 1.3.6.1.4.1.99999.1 and "SN1", under the explicit tag of otherName.
        let good = hex::decode("a012301006092b060104018 68d1f010403534e31".replace(' ', "")).unwrap();
        assert_eq!(module_serial(&good), Some(&b"SN1"[..]));
        let changed = |at: usize, octet: u8| {
            let mut octets = good.clone();
            octets[at] = octet;
            octets
        };
        for (what, octets) in [
            ("another tag", changed(0, 0xa1)),
            ("no sequence", changed(2, 0x31)),
            ("no type", changed(4, 0x05)),
            ("no octet string", changed(15, 0x0c)),
            ("cut off", good[..good.len() - 1].to_vec()),
            ("with an end", [good.clone(), vec![0]].concat()),
            ("nothing", Vec::new()),
        ] {
            assert_eq!(module_serial(&octets), None, "{what}");
        }
    }

    #[test]
    fn one_value_counts() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(only([some("a")].into_iter()), some("a"));
        assert_eq!(
            only([some("\u{e4}").map(|text| text.repeat(MAX_SERIAL))].into_iter()).map(|text| text.chars().count()),
            Some(128)
        );
        for values in [
            vec![],
            vec![None],
            vec![some("")],
            vec![some("a"), some("a")],
            vec![some("a"), None],
            vec![some(&"a".repeat(129))],
        ] {
            assert_eq!(only(values.clone().into_iter()), None, "{values:?}");
        }
    }

    #[test]
    fn what_cannot_be_printed_is_shown_in_hexadecimal() {
        for (octets, text) in
            [(&b"SN 1~"[..], "SN 1~"), (b"a\x7f", "617f"), (b"\n", "0a"), ("\u{e4}".as_bytes(), "c3a4"), (b"\xff", "ff")]
        {
            assert_eq!(text_or_hex(octets), text);
        }
    }

    #[test]
    fn what_is_no_certificate_is_no_authority_and_no_device() {
        for octets in [&b"x"[..], &[0x30, 0], &[0x30, 0x80]] {
            let mut makers = Makers::default();
            assert!(makers.add(octets).is_err());
            assert!(makers.is_empty());
            assert_eq!(makers.verify(octets, &[], UnixTime::now()), Err(Refusal::CertificateForeign));
            assert_eq!(IDevId::parse(octets), Err(Refusal::CertificateForeign));
        }
    }
}
