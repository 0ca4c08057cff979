//! The rules that to-be-signed octets must pass. The linter reads what was encoded, with a strict DER reader of other
//! authors than the encoder's; it shares no code with the encoder.

use std::net::IpAddr;

use der::asn1::{Any, Utf8StringRef};
use der::oid::{AssociatedOid, ObjectIdentifier};
use der::{Decode, Encode, Tag, Tagged};
use fleetmark_domain::Timestamp;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{
    AuthorityInfoAccessSyntax, AuthorityKeyIdentifier, BasicConstraints, CrlDistributionPoints, ExtendedKeyUsage, KeyUsage,
    KeyUsages, NameConstraints, SubjectAltName, SubjectKeyIdentifier,
};
use x509_cert::time::Time;
use x509_cert::{Certificate, TbsCertificate, Version};

use super::encoding;
use super::issue::{Issuer, Template};
use super::keys::KeyAlgorithm;
use super::profile;

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule's stable name, such as `serial_not_the_templates`.
    pub rule: &'static str,
    /// The clause that it comes from.
    pub clause: &'static str,
}

/// Lints a `TBSCertificate` against RFC 5280, this project's DESIGN §4, the template with its profile, and the issuer whose
/// key is about to sign it.
///
/// # Errors
/// Every rule that is broken.
pub fn lint(tbs: &[u8], template: &Template<'_>, issuer: &Issuer) -> Result<(), Vec<Finding>> {
    let found = |rule, clause| vec![Finding { rule, clause }];
    let parsed = TbsCertificate::from_der(tbs).map_err(|error| match error.kind() {
        der::ErrorKind::TrailingData { .. } => found("octets_behind", "RFC 5280 4.1"),
        _ => found("unreadable", "RFC 5280 4.1"),
    })?;
    let authority = match &*issuer.certificate {
        [] => None,
        _ => Some(issuer.certificate.linted().ok_or_else(|| found("issuer_unreadable", "RFC 5280 4.1"))?),
    };
    let mut subject = Subject { octets: tbs, tbs: &parsed, template, issuer, authority, names: Vec::new() };
    subject.names = value::<SubjectAltName>(&subject).map(|names| names.0).unwrap_or_default();
    let findings: Vec<Finding> =
        RULES.iter().filter(|(_, _, holds)| !holds(&subject)).map(|(rule, clause, _)| Finding { rule, clause }).collect();
    if findings.is_empty() { Ok(()) } else { Err(findings) }
}

/// An issuing authority's certificate, as the rules look at it: read once, for all that it issues.
pub struct Authority {
    tbs: TbsCertificate,
    /// Its `SubjectPublicKeyInfo` in DER.
    spki: Vec<u8>,
    constraints: Option<BasicConstraints>,
    usage: Option<KeyUsage>,
    key_id: Option<SubjectKeyIdentifier>,
}

impl Authority {
    /// Reads a certificate in DER; None for what is none.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let tbs = Certificate::from_der(der).ok()?.tbs_certificate;
        let spki = tbs.subject_public_key_info.to_der().ok()?;
        let (constraints, usage, key_id) = (own_value(&tbs), own_value(&tbs), own_value(&tbs));
        Some(Self { tbs, spki, constraints, usage, key_id })
    }
}

/// What a rule looks at.
struct Subject<'a> {
    octets: &'a [u8],
    tbs: &'a TbsCertificate,
    template: &'a Template<'a>,
    issuer: &'a Issuer,
    /// The issuer's certificate; None where a root signs itself.
    authority: Option<&'a Authority>,
    /// `subjectAltName`; empty where it cannot be read, or is not there.
    names: Vec<GeneralName>,
}

type Rule = (&'static str, &'static str, fn(&Subject<'_>) -> bool);

/// Each rule: its name, its clause, and whether it holds.
const RULES: &[Rule] = &[
    ("not_der", "X.690 10, RFC 5280 4.1", |s| s.tbs.to_der().is_ok_and(|again| again == s.octets)),
    ("version_not_3", "RFC 5280 4.1.2.1", |s| s.tbs.version == Version::V3),
    ("serial_not_the_templates", "RFC 5280 4.1.2.2, DESIGN 4", |s| {
        s.tbs.serial_number.as_bytes() == s.template.serial.octets() && s.template.serial.octets().first() == Some(&1)
    }),
    ("signature_algorithm_not_the_keys", "RFC 5280 4.1.2.3", |s| {
        s.tbs.signature.to_der().is_ok_and(|der| der == encoding::signature_algorithm(s.issuer.signer.algorithm()))
    }),
    ("issuer_empty", "RFC 5280 4.1.2.4", |s| !s.tbs.issuer.0.is_empty()),
    ("issuer_not_the_authoritys_subject", "RFC 5280 6.1.3", |s| {
        s.tbs.issuer == *s.authority.map_or(&s.tbs.subject, |authority| &authority.tbs.subject)
    }),
    ("key_not_the_authoritys", "RFC 5280 6.1.3", |s| match s.authority {
        Some(authority) => authority.spki == s.issuer.signer.public_key(),
        None => s.template.spki == s.issuer.signer.public_key(),
    }),
    ("authority_may_not_issue", "RFC 5280 4.2.1.9, 4.2.1.3", authority_may_issue),
    ("validity_reversed", "RFC 5280 4.1.2.5", |s| seconds(s.tbs.validity.not_before) < seconds(s.tbs.validity.not_after)),
    ("validity_not_the_templates", "DESIGN 4", |s| {
        seconds(s.tbs.validity.not_before) == s.template.not_before.0
            && seconds(s.tbs.validity.not_after) == s.template.not_after.0
    }),
    ("time_form", "RFC 5280 4.1.2.5", |s| {
        [s.tbs.validity.not_before, s.tbs.validity.not_after].into_iter().all(time_form_fits)
    }),
    ("lifetime_too_long", "DESIGN 4", |s| {
        let life = Timestamp(seconds(s.tbs.validity.not_after)).since(Timestamp(seconds(s.tbs.validity.not_before)));
        life <= s.template.profile.lifetime.saturating_add(s.template.profile.backdate)
    }),
    ("outlives_the_authority", "RFC 5280 6.1.3", |s| {
        s.authority.is_none_or(|authority| seconds(s.tbs.validity.not_after) <= seconds(authority.tbs.validity.not_after))
    }),
    ("subject_empty", "RFC 5280 4.1.2.6", |s| !s.tbs.subject.0.is_empty()),
    ("subject_not_the_templates", "RFC 5280 4.1.2.6, DESIGN 4", subject_fits),
    ("name_too_long", "RFC 5280 A.1", |s| {
        [s.template.common_name, s.template.organization].iter().all(|name| (1..=64).contains(&name.chars().count()))
    }),
    ("key_not_the_templates", "RFC 5280 4.1.2.7", |s| {
        s.tbs.subject_public_key_info.to_der().is_ok_and(|der| der == s.template.spki)
    }),
    ("key_not_the_profiles", "DESIGN 4", |s| key_algorithm(s).is_some_and(|key| s.template.profile.keys.contains(&key))),
    ("unique_id", "RFC 5280 4.1.2.8", |s| s.tbs.issuer_unique_id.is_none() && s.tbs.subject_unique_id.is_none()),
    ("extension_doubled", "RFC 5280 4.2", |s| {
        extensions(s)
            .iter()
            .enumerate()
            .all(|(at, one)| extensions(s).iter().take(at).all(|other| other.extn_id != one.extn_id))
    }),
    ("extension_not_allowed", "DESIGN 4", |s| {
        extensions(s).iter().all(|extension| ALLOWED.iter().any(|(oid, _)| *oid == extension.extn_id))
    }),
    ("extension_criticality", "RFC 5280 4.2.1", |s| {
        extensions(s).iter().all(|one| ALLOWED.iter().all(|(oid, critical)| *oid != one.extn_id || *critical == one.critical))
    }),
    ("uri_not_one", "DESIGN 4, SPIFFE X.509-SVID 2", |s| uris(s).count() == usize::from(s.template.profile.identity)),
    ("uri_not_the_templates", "DESIGN 4", |s| uris(s).eq(s.template.uri)),
    ("registered_names_not_the_templates", "DESIGN 4", registered_names_fit),
    ("registered_names_not_allowed", "DESIGN 4", |s| {
        s.template.profile.registered_names || (s.template.dns_names.is_empty() && s.template.addresses.is_empty())
    }),
    ("basic_constraints_not_the_profiles", "RFC 5280 4.2.1.9", |s| {
        let rules = s.template.profile.ca;
        let expected = BasicConstraints { ca: rules.is_some(), path_len_constraint: rules.map(|rules| rules.path_length) };
        value::<BasicConstraints>(s) == Some(expected)
    }),
    ("key_usage_not_the_profiles", "RFC 5280 4.2.1.3", key_usage_fits),
    ("extended_key_usage_not_the_profiles", "RFC 5280 4.2.1.12", extended_key_usage_fits),
    ("name_constraints_not_the_profiles", "RFC 5280 4.2.1.10", name_constraints_fit),
    ("subject_key_id", "RFC 5280 4.2.1.2, RFC 7093 2", |s| {
        let hash = encoding::sha256(s.template.spki);
        value::<SubjectKeyIdentifier>(s).is_some_and(|id| hash.get(..20) == Some(id.0.as_bytes()))
    }),
    ("authority_key_id_not_the_authoritys", "RFC 5280 4.2.1.1", authority_key_id_fits),
    ("distribution_point_not_the_pointer", "RFC 5280 4.2.1.13, DESIGN 4", distribution_point_fits),
    ("information_access_not_the_pointers", "RFC 5280 4.2.2.1", information_access_fits),
    ("ocsp_nocheck_not_the_profiles", "RFC 6960 4.2.2.2.1", |s| {
        let found = find(s, OCSP_NOCHECK).map(|extension| extension.extn_value.as_bytes());
        found == s.template.profile.ocsp_nocheck.then_some(&[0x05, 0x00][..])
    }),
];

const OCSP_NOCHECK: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.5");
static CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");
static SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
static OCSP_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.9");
const AD_OCSP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");
const AD_CA_ISSUERS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.2");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");

/// The extensions that we write, and whether each is critical. The rules below say which profile has which.
const ALLOWED: [(ObjectIdentifier, bool); 10] = [
    (AuthorityKeyIdentifier::OID, false),
    (SubjectKeyIdentifier::OID, false),
    (KeyUsage::OID, true),
    (SubjectAltName::OID, false),
    (BasicConstraints::OID, true),
    (NameConstraints::OID, true),
    (ExtendedKeyUsage::OID, false),
    (CrlDistributionPoints::OID, false),
    (AuthorityInfoAccessSyntax::OID, false),
    (OCSP_NOCHECK, false),
];

fn extensions<'a>(s: &Subject<'a>) -> &'a [Extension] {
    s.tbs.extensions.as_deref().unwrap_or_default()
}

fn find<'a>(s: &Subject<'a>, oid: ObjectIdentifier) -> Option<&'a Extension> {
    extensions(s).iter().find(|extension| extension.extn_id == oid)
}

/// An extension's value; None where there is none, or one that is not DER (such as a default that is written out).
fn value<'a, T: Decode<'a> + Encode + AssociatedOid>(s: &Subject<'a>) -> Option<T> {
    let octets = find(s, T::OID)?.extn_value.as_bytes();
    T::from_der(octets).ok().filter(|value| value.to_der().is_ok_and(|again| again == octets))
}

fn own_value<'a, T: Decode<'a> + AssociatedOid>(authority: &'a TbsCertificate) -> Option<T> {
    let extension = authority.extensions.as_deref()?.iter().find(|extension| extension.extn_id == T::OID)?;
    T::from_der(extension.extn_value.as_bytes()).ok()
}

fn seconds(time: Time) -> i64 {
    i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
}

fn time_form_fits(time: Time) -> bool {
    match time {
        Time::UtcTime(_) => true,
        Time::GeneralTime(time) => time.to_date_time().year() >= 2050,
    }
}

fn key_algorithm(s: &Subject<'_>) -> Option<KeyAlgorithm> {
    let info = spki::SubjectPublicKeyInfoRef::try_from(s.template.spki).ok()?;
    encoding::key_algorithm(&info.algorithm)
}

fn authority_may_issue(s: &Subject<'_>) -> bool {
    let Some(authority) = s.authority else { return s.template.profile.ca.is_some() };
    let constraints = authority.constraints.as_ref();
    let depth = constraints.and_then(|constraints| constraints.path_len_constraint);
    // RFC 5280 4.2.1.9: a self-issued certificate, such as a root's new key by its old one, does not count in a path.
    let self_issued = s.tbs.subject == authority.tbs.subject;
    let below = |rules: profile::CaRules| {
        depth.is_none_or(|depth| rules.path_length < depth || (self_issued && rules.path_length == depth))
    };
    constraints.is_some_and(|constraints| constraints.ca)
        && authority.usage.as_ref().is_some_and(KeyUsage::key_cert_sign)
        && s.template.profile.ca.is_none_or(below)
}

/// O and CN, each an RDN of its own, as `UTF8String` (RFC 5280 4.1.2.4).
fn subject_fits(s: &Subject<'_>) -> bool {
    let expected = [(ORGANIZATION, s.template.organization), (COMMON_NAME, s.template.common_name)];
    let names = &s.tbs.subject.0;
    names.len() == expected.len()
        && names.iter().zip(expected).all(|(name, (oid, text))| {
            let mut attributes = name.0.iter();
            let fits = attributes.next().is_some_and(|attribute| {
                attribute.oid == oid
                    && attribute.value.decode_as::<Utf8StringRef<'_>>().is_ok_and(|value| value.as_str() == text)
            });
            fits && attributes.next().is_none()
        })
}

fn uris<'a>(s: &'a Subject<'_>) -> impl Iterator<Item = &'a str> {
    s.names.iter().filter_map(|name| match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str()),
        _ => None,
    })
}

/// All names but the URI: DNS names and addresses as registered, in their order, and no other form of name.
fn registered_names_fit(s: &Subject<'_>) -> bool {
    let found = s.names.iter().filter(|name| !matches!(name, GeneralName::UniformResourceIdentifier(_)));
    let mut expected = Vec::new();
    for name in s.template.dns_names {
        let Ok(name) = der::asn1::Ia5String::new(name) else { return false };
        expected.push(GeneralName::DnsName(name));
    }
    for address in s.template.addresses {
        let octets = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let Ok(octets) = der::asn1::OctetString::new(octets) else { return false };
        expected.push(GeneralName::IpAddress(octets));
    }
    // RFC 5280 4.2.1.6: the extension holds at least one name.
    find(s, SubjectAltName::OID).is_some() != s.names.is_empty() && found.eq(expected.iter())
}

fn key_usage_fits(s: &Subject<'_>) -> bool {
    let expected = match (s.template.profile.ca, key_algorithm(s)) {
        (Some(_), _) => KeyUsages::KeyCertSign | KeyUsages::CRLSign,
        (None, Some(KeyAlgorithm::Rsa)) => KeyUsages::DigitalSignature | KeyUsages::KeyEncipherment,
        (None, _) => KeyUsages::DigitalSignature.into(),
    };
    value::<KeyUsage>(s).is_some_and(|usage| usage.0 == expected)
}

fn extended_key_usage_fits(s: &Subject<'_>) -> bool {
    let octets = |usage: &profile::ExtendedKeyUsage| -> &'static [u8] {
        match usage {
            profile::ExtendedKeyUsage::ClientAuth => CLIENT_AUTH.as_bytes(),
            profile::ExtendedKeyUsage::ServerAuth => SERVER_AUTH.as_bytes(),
            profile::ExtendedKeyUsage::OcspSigning => OCSP_SIGNING.as_bytes(),
            profile::ExtendedKeyUsage::Claim => profile::CLAIM_EKU,
            profile::ExtendedKeyUsage::StatusSigning => &fleetmark_status::STATUS_SIGNING_EKU,
        }
    };
    let expected: Vec<&[u8]> = s.template.profile.extended_key_usage.iter().map(octets).collect();
    let Some(extension) = find(s, ExtendedKeyUsage::OID) else { return expected.is_empty() };
    // Read as what stands there, not as OBJECT IDENTIFIERs: the reader's have arcs of 32 bits at most.
    let content = extension.extn_value.as_bytes();
    let found = Vec::<Any>::from_der(content).ok().filter(|found| found.to_der().is_ok_and(|again| again == content));
    let Some(found) = found else { return false };
    !expected.is_empty()
        && found.iter().all(|usage| usage.tag() == Tag::ObjectIdentifier)
        && found.iter().map(Any::value).eq(expected)
}

fn name_constraints_fit(s: &Subject<'_>) -> bool {
    if !s.template.profile.ca.is_some_and(|rules| rules.exclude_addresses) {
        return find(s, NameConstraints::OID).is_none();
    }
    let Some(constraints) = value::<NameConstraints>(s) else { return false };
    let excluded = constraints.excluded_subtrees.unwrap_or_default();
    // RFC 5280 4.2.1.10: address and mask, 8 octets or 32; all of them 0 is every address.
    let every = |length: usize| {
        excluded.iter().any(|tree| match &tree.base {
            GeneralName::IpAddress(octets) => octets.as_bytes() == vec![0; length],
            _ => false,
        })
    };
    constraints.permitted_subtrees.is_none() && excluded.len() == 2 && every(8) && every(32)
}

fn authority_key_id_fits(s: &Subject<'_>) -> bool {
    let expected = match s.authority {
        Some(authority) => authority.key_id.clone(),
        None => value::<SubjectKeyIdentifier>(s),
    };
    value::<AuthorityKeyIdentifier>(s).is_some_and(|found| {
        found.key_identifier == expected.map(|id| id.0)
            && found.key_identifier.is_some()
            && found.authority_cert_issuer.is_none()
            && found.authority_cert_serial_number.is_none()
    })
}

fn distribution_point_fits(s: &Subject<'_>) -> bool {
    let expected = s.template.pointers.crl.as_deref().filter(|_| !s.template.profile.ocsp_nocheck);
    let (Some(uri), Some(_)) = (expected, find(s, CrlDistributionPoints::OID)) else {
        return expected.is_none() && find(s, CrlDistributionPoints::OID).is_none();
    };
    let Some(points) = value::<CrlDistributionPoints>(s) else { return false };
    let [point] = points.0.as_slice() else { return false };
    let Some(DistributionPointName::FullName(names)) = &point.distribution_point else { return false };
    let one = matches!(names.as_slice(), [GeneralName::UniformResourceIdentifier(found)] if found.as_str() == uri);
    one && point.reasons.is_none() && point.crl_issuer.is_none()
}

fn information_access_fits(s: &Subject<'_>) -> bool {
    let pointers = s.template.pointers;
    let ocsp = pointers.ocsp.as_deref().filter(|_| !s.template.profile.ocsp_nocheck);
    let expected = [(AD_OCSP, ocsp), (AD_CA_ISSUERS, pointers.ca_issuers.as_deref())];
    let expected: Vec<(ObjectIdentifier, &str)> = expected.into_iter().filter_map(|(oid, uri)| Some((oid, uri?))).collect();
    if find(s, AuthorityInfoAccessSyntax::OID).is_none() {
        return expected.is_empty();
    }
    let Some(found) = value::<AuthorityInfoAccessSyntax>(s) else { return false };
    !expected.is_empty()
        && found.0.len() == expected.len()
        && found.0.iter().zip(expected).all(|(found, (method, uri))| {
            let same = matches!(&found.access_location, GeneralName::UniformResourceIdentifier(text) if text.as_str() == uri);
            found.access_method == method && same
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::issue::{Pointers, encode, parameters};
    use crate::pki::profile::Profile;
    use crate::pki::testing::{Installation, Wanted, key};
    use der::Reader;
    use der::asn1::AnyRef;
    use rcgen::string::Ia5String;
    use rcgen::{
        CertificateParams, CidrSubnet, CustomExtension, DistinguishedName, DnType, DnValue, GeneralSubtree, IsCa, SanType,
    };
    use std::collections::BTreeSet;
    use std::time::Duration;

    const DAY: Duration = Duration::from_secs(86_400);
    const URI: &str = "spiffe://fleet.example/service/door";

    /// A certificate of a service, as it should be; each case spoils one thing.
    struct Case<'a> {
        installation: &'a Installation,
        template: Template<'a>,
        parameters: CertificateParams,
        encoded_by: Issuer,
        judged_by: Issuer,
        spki: Vec<u8>,
        patch: fn(Vec<u8>) -> Vec<u8>,
    }

    impl Case<'_> {
        /// Changes the template and encodes what it says: only rules on the template itself may object.
        fn template(&mut self, change: impl FnOnce(&mut Template<'_>)) {
            change(&mut self.template);
            self.parameters = parameters(&self.template).unwrap();
        }

        fn profile(&mut self, change: impl FnOnce(&mut Profile)) {
            let mut profile = self.template.profile.clone();
            change(&mut profile);
            self.template.profile = Box::leak(Box::new(profile));
        }

        fn extension(&mut self, oid: &[u64], critical: bool, content: &[u8]) {
            let mut extension = CustomExtension::from_oid_content(oid, content.to_vec());
            extension.set_criticality(critical);
            self.parameters.custom_extensions.push(extension);
        }

        fn findings(&self) -> Vec<&'static str> {
            let tbs = (self.patch)(encode(&self.encoded_by, &self.parameters, &self.spki).unwrap());
            match lint(&tbs, &self.template, &self.judged_by) {
                Ok(()) => Vec::new(),
                Err(findings) => findings.iter().map(|finding| finding.rule).collect(),
            }
        }
    }

    /// The members of a SEQUENCE (or of what has another tag), each with its tag and length.
    fn members(octets: &[u8]) -> Vec<Vec<u8>> {
        let mut reader = der::SliceReader::new(AnyRef::from_der(octets).unwrap().value()).unwrap();
        let mut members = Vec::new();
        while !reader.is_finished() {
            members.push(reader.tlv_bytes().unwrap().to_vec());
        }
        members
    }

    fn with_fields(tbs: &[u8], change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<u8> {
        let mut fields = members(tbs);
        change(&mut fields);
        encoding::tlv(encoding::SEQUENCE, &[&fields.concat()])
    }

    fn with_extensions(tbs: &[u8], change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<u8> {
        with_fields(tbs, |fields| {
            let last = fields.last_mut().unwrap();
            let mut extensions = members(&members(last)[0]);
            change(&mut extensions);
            *last = encoding::tlv(0xa3, &[&encoding::tlv(encoding::SEQUENCE, &[&extensions.concat()])]);
        })
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(Ia5String::try_from(text.to_owned()).unwrap())
    }

    type Spoil = fn(&mut Case<'_>);

    const CASES: &[(&str, Spoil)] = &[
        ("octets_behind", |c| c.patch = |tbs| [tbs, vec![0]].concat()),
        ("unreadable", |c| c.patch = |tbs| tbs[..tbs.len() - 1].to_vec()),
        ("issuer_unreadable", |c| c.judged_by.certificate = vec![0x30].into()),
        ("not_der", |c| {
            // An extension that is not critical says so, which DER leaves out (X.690 11.5).
            c.patch = |tbs| {
                with_extensions(&tbs, |extensions| {
                    let mut parts = members(&extensions[0]);
                    parts.insert(1, vec![1, 1, 0]);
                    extensions[0] = encoding::tlv(encoding::SEQUENCE, &[&parts.concat()]);
                })
            }
        }),
        ("version_not_3", |c| c.patch = |tbs| with_fields(&tbs, |fields| drop(fields.remove(0)))),
        ("serial_not_the_templates", |c| c.parameters.serial_number = Some(vec![1; 16].into())),
        ("serial_not_the_templates", |c| c.parameters.serial_number = Some(vec![0].into())),
        ("signature_algorithm_not_the_keys", |c| {
            c.patch = |tbs| with_fields(&tbs, |fields| fields[2] = encoding::signature_algorithm(KeyAlgorithm::P384).to_vec());
        }),
        ("issuer_empty", |c| c.patch = |tbs| with_fields(&tbs, |fields| fields[3] = vec![0x30, 0])),
        ("issuer_not_the_authoritys_subject", |c| {
            let other = c.installation.authority("authority-gateway", KeyAlgorithm::P256);
            c.encoded_by.certificate = other.certificate;
        }),
        ("key_not_the_authoritys", |c| c.judged_by.signer = key(KeyAlgorithm::P256)),
        ("authority_may_not_issue", |c| {
            let holder = c.installation.device(&c.judged_by, 1, "a").der;
            c.judged_by.certificate = holder.into();
        }),
        ("authority_may_not_issue", |c| {
            c.template.profile = c.installation.profiles.find("authority-service").unwrap();
        }),
        ("validity_reversed", |c| c.template(|t| (t.not_before, t.not_after) = (t.not_after, t.not_before))),
        ("validity_not_the_templates", |c| c.parameters.not_after -= DAY),
        ("validity_not_the_templates", |c| c.parameters.not_before += DAY),
        ("time_form", |c| {
            // UTCTime 17 0d YYMMDDHHMMSSZ becomes GeneralizedTime 18 0f 20YYMMDDHHMMSSZ.
            c.patch = |tbs| {
                with_fields(&tbs, |fields| {
                    let times: Vec<u8> =
                        members(&fields[4]).iter().flat_map(|time| encoding::tlv(0x18, &[b"20", &time[2..]])).collect();
                    fields[4] = encoding::tlv(encoding::SEQUENCE, &[&times]);
                })
            }
        }),
        ("lifetime_too_long", |c| c.template(|t| t.not_after = t.not_after + DAY)),
        ("outlives_the_authority", |c| {
            c.profile(|p| p.lifetime = 12 * 365 * DAY);
            c.template(|t| t.not_after = t.not_before + 12 * 365 * DAY);
        }),
        ("subject_empty", |c| c.parameters.distinguished_name = DistinguishedName::new()),
        ("subject_not_the_templates", |c| c.parameters.distinguished_name.push(DnType::CountryName, "XX")),
        ("subject_not_the_templates", |c| c.parameters.distinguished_name.push(DnType::CommonName, "other")),
        ("subject_not_the_templates", |c| {
            let printable = DnValue::PrintableString("door".try_into().unwrap());
            c.parameters.distinguished_name.push(DnType::CommonName, printable);
        }),
        ("name_too_long", |c| c.template(|t| t.common_name = Box::leak("a".repeat(65).into_boxed_str()))),
        ("name_too_long", |c| c.template(|t| t.organization = "")),
        ("key_not_the_templates", |c| c.spki = key(KeyAlgorithm::P256).public_key().to_vec()),
        ("key_not_the_profiles", |c| c.profile(|p| p.keys = vec![KeyAlgorithm::Ed25519])),
        ("unique_id", |c| c.patch = |tbs| with_fields(&tbs, |fields| fields.insert(7, vec![0x81, 2, 0, 1]))),
        ("extension_doubled", |c| c.patch = |tbs| with_extensions(&tbs, |extensions| extensions.push(extensions[0].clone()))),
        ("extension_not_allowed", |c| c.extension(&[1, 2, 3, 4], false, &[5, 0])),
        ("extension_criticality", |c| {
            c.parameters.extended_key_usages.clear();
            c.extension(&[2, 5, 29, 37], true, &[0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2]);
        }),
        ("uri_not_one", |c| c.parameters.subject_alt_names.push(uri("spiffe://fleet.example/operator/owner"))),
        ("uri_not_one", |c| c.parameters.subject_alt_names.retain(|name| !matches!(name, SanType::URI(_)))),
        ("uri_not_one", |c| c.template(|t| t.uri = None)),
        ("uri_not_the_templates", |c| c.parameters.subject_alt_names[0] = uri("spiffe://fleet.example/operator/owner")),
        ("registered_names_not_the_templates", |c| {
            c.parameters.subject_alt_names.push(SanType::DnsName(Ia5String::try_from("other.example").unwrap()));
        }),
        ("registered_names_not_the_templates", |c| {
            c.parameters.subject_alt_names.push(SanType::Rfc822Name(Ia5String::try_from("a@b").unwrap()));
        }),
        ("registered_names_not_the_templates", |c| c.parameters.subject_alt_names.truncate(2)),
        ("registered_names_not_the_templates", |c| {
            c.template.uri = None;
            c.parameters.subject_alt_names.clear();
            c.extension(&[2, 5, 29, 17], false, &[0x30, 0]);
        }),
        ("registered_names_not_allowed", |c| c.profile(|p| p.registered_names = false)),
        ("basic_constraints_not_the_profiles", |c| c.parameters.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0))),
        ("basic_constraints_not_the_profiles", |c| c.parameters.is_ca = IsCa::NoCa),
        ("basic_constraints_not_the_profiles", |c| {
            // cA FALSE written out.
            c.parameters.is_ca = IsCa::NoCa;
            c.extension(&[2, 5, 29, 19], true, &[0x30, 3, 1, 1, 0]);
        }),
        ("key_usage_not_the_profiles", |c| c.parameters.key_usages.push(rcgen::KeyUsagePurpose::KeyCertSign)),
        ("key_usage_not_the_profiles", |c| c.parameters.key_usages.clear()),
        ("extended_key_usage_not_the_profiles", |c| {
            c.parameters.extended_key_usages.push(rcgen::ExtendedKeyUsagePurpose::OcspSigning);
        }),
        ("extended_key_usage_not_the_profiles", |c| c.parameters.extended_key_usages.clear()),
        ("name_constraints_not_the_profiles", |c| {
            let all = GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4]));
            let excluded_subtrees = vec![all];
            c.parameters.name_constraints = Some(rcgen::NameConstraints { permitted_subtrees: Vec::new(), excluded_subtrees });
        }),
        ("subject_key_id", |c| c.parameters.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(vec![7; 20])),
        ("authority_key_id_not_the_authoritys", |c| c.parameters.use_authority_key_identifier_extension = false),
        ("distribution_point_not_the_pointer", |c| c.parameters.crl_distribution_points.clear()),
        ("distribution_point_not_the_pointer", |c| {
            c.parameters.crl_distribution_points.push(rcgen::CrlDistributionPoint { uris: vec!["http://b".to_owned()] });
        }),
        ("distribution_point_not_the_pointer", |c| c.parameters.crl_distribution_points[0].uris.push("http://b".to_owned())),
        ("information_access_not_the_pointers", |c| c.parameters.custom_extensions.clear()),
        ("ocsp_nocheck_not_the_profiles", |c| c.extension(&[1, 3, 6, 1, 5, 5, 7, 48, 1, 5], false, &[5, 0])),
        ("ocsp_nocheck_not_the_profiles", |c| c.profile(|p| p.ocsp_nocheck = true)),
    ];

    #[test]
    fn every_rule_fires_on_what_it_is_there_for() {
        let installation = Installation::new(KeyAlgorithm::P256);
        let authority = installation.authority("authority-service", KeyAlgorithm::P256);
        let holder = key(KeyAlgorithm::P256);
        let pointers = Pointers {
            ocsp: Some("http://ca.example/ocsp".to_owned()),
            ca_issuers: Some("http://ca.example/ca.der".to_owned()),
            crl: Some("http://ca.example/1.crl".to_owned()),
        };
        let (dns_names, addresses) = (["ca.example".to_owned()], ["127.0.0.1".parse().unwrap()]);
        let case = || {
            let template = installation.template(&Wanted {
                profile: "service",
                common_name: "door",
                uri: Some(URI),
                dns_names: &dns_names,
                addresses: &addresses,
                spki: holder.public_key(),
                pointers: &pointers,
                ..Wanted::default()
            });
            Case {
                installation: &installation,
                parameters: parameters(&template).unwrap(),
                template,
                encoded_by: authority.clone(),
                judged_by: authority.clone(),
                spki: holder.public_key().to_vec(),
                patch: |tbs| tbs,
            }
        };
        assert_eq!(case().findings(), Vec::<&str>::new());
        for (at, (rule, spoil)) in CASES.iter().enumerate() {
            let mut case = case();
            spoil(&mut case);
            let findings = case.findings();
            assert!(findings.contains(rule), "case {at}: {rule} is not in {findings:?}");
        }
        let fired: BTreeSet<_> = CASES.iter().map(|(rule, _)| *rule).collect();
        let rules: BTreeSet<_> =
            RULES.iter().map(|(rule, _, _)| *rule).chain(["octets_behind", "unreadable", "issuer_unreadable"]).collect();
        assert_eq!(fired, rules);
        assert_eq!(RULES.len() + 3, rules.len(), "each rule has a name of its own");
    }

    #[test]
    fn every_changed_octet_is_noticed() {
        let installation = Installation::new(KeyAlgorithm::P256);
        let authority = installation.authority("authority-device", KeyAlgorithm::P256);
        let holder = key(KeyAlgorithm::P256);
        let uri = "spiffe://fleet.example/device/default/sensor-01";
        let template = installation.template(&Wanted { uri: Some(uri), spki: holder.public_key(), ..Wanted::default() });
        let good = encode(&authority, &parameters(&template).unwrap(), template.spki).unwrap();
        lint(&good, &template, &authority).unwrap();
        for at in 0..good.len() {
            for mask in [0x01, 0x20, 0x80] {
                let mut bad = good.clone();
                bad[at] ^= mask;
                assert!(lint(&bad, &template, &authority).is_err(), "octet {at} of {} may be another", good.len());
            }
        }
    }

    #[test]
    fn all_profiles_pass() {
        let installation = Installation::new(KeyAlgorithm::P384);
        for kind in ["device", "gateway", "service", "operator"] {
            let authority = installation.authority(&format!("authority-{kind}"), KeyAlgorithm::Ed25519);
            let holder = key(KeyAlgorithm::Ed25519);
            let uri = format!("spiffe://fleet.example/{kind}/x");
            let wanted = Wanted { profile: kind, uri: Some(&uri), spki: holder.public_key(), ..Wanted::default() };
            installation.issue(&authority, &wanted).unwrap();
            let wanted = Wanted { profile: "ocsp", spki: holder.public_key(), ..Wanted::default() };
            installation.issue(&authority, &wanted).unwrap();
        }
    }
}
