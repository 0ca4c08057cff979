//! The rules that to-be-signed octets must pass. The linter reads what was encoded, with a strict DER reader of other
//! authors than the encoder's; it shares no code with the encoder.

use std::net::IpAddr;

use der::asn1::Utf8StringRef;
use der::oid::{AssociatedOid, ObjectIdentifier};
use der::{Decode, Encode};
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

/// Lints a TBSCertificate against RFC 5280, this project's DESIGN §4, the template with its profile, and the issuer whose
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
    let authority = match issuer.certificate.as_ref() {
        [] => None,
        der => Some(Certificate::from_der(der).map_err(|_| found("issuer_unreadable", "RFC 5280 4.1"))?.tbs_certificate),
    };
    let subject = Subject { octets: tbs, tbs: &parsed, template, issuer, authority: authority.as_ref() };
    let findings: Vec<Finding> = RULES
        .iter()
        .filter(|(_, _, holds)| !holds(&subject))
        .map(|(rule, clause, _)| Finding { rule, clause })
        .collect();
    if findings.is_empty() { Ok(()) } else { Err(findings) }
}

/// What a rule looks at.
struct Subject<'a> {
    octets: &'a [u8],
    tbs: &'a TbsCertificate,
    template: &'a Template<'a>,
    issuer: &'a Issuer,
    /// The issuer's certificate; None where a root signs itself.
    authority: Option<&'a TbsCertificate>,
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
        s.tbs.issuer == s.authority.map_or(&s.tbs.subject, |authority| &authority.subject).clone()
    }),
    ("key_not_the_authoritys", "RFC 5280 6.1.3", |s| match s.authority {
        Some(authority) => authority.subject_public_key_info.to_der().is_ok_and(|der| der == s.issuer.signer.public_key()),
        None => s.template.spki == s.issuer.signer.public_key(),
    }),
    ("authority_may_not_issue", "RFC 5280 4.2.1.9, 4.2.1.3", authority_may_issue),
    ("validity_reversed", "RFC 5280 4.1.2.5", |s| seconds(s.tbs.validity.not_before) < seconds(s.tbs.validity.not_after)),
    ("validity_not_the_templates", "DESIGN 4", |s| {
        seconds(s.tbs.validity.not_before) == s.template.not_before.0 && seconds(s.tbs.validity.not_after) == s.template.not_after.0
    }),
    ("time_form", "RFC 5280 4.1.2.5", |s| [s.tbs.validity.not_before, s.tbs.validity.not_after].into_iter().all(time_form_fits)),
    ("lifetime_too_long", "DESIGN 4", |s| {
        let life = Timestamp(seconds(s.tbs.validity.not_after)).since(Timestamp(seconds(s.tbs.validity.not_before)));
        life <= s.template.profile.lifetime.saturating_add(s.template.profile.backdate)
    }),
    ("outlives_the_authority", "RFC 5280 6.1.3", |s| {
        s.authority.is_none_or(|authority| seconds(s.tbs.validity.not_after) <= seconds(authority.validity.not_after))
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
        extensions(s).iter().enumerate().all(|(at, one)| extensions(s).iter().take(at).all(|other| other.extn_id != one.extn_id))
    }),
    ("extension_not_allowed", "DESIGN 4", |s| extensions(s).iter().all(|extension| ALLOWED.iter().any(|(oid, _)| *oid == extension.extn_id))),
    ("extension_criticality", "RFC 5280 4.2.1", |s| {
        extensions(s).iter().all(|one| ALLOWED.iter().all(|(oid, critical)| *oid != one.extn_id || *critical == one.critical))
    }),
    ("uri_not_one", "DESIGN 4, SPIFFE X.509-SVID 2", |s| uris(s).len() == usize::from(s.template.profile.identity)),
    ("uri_not_the_templates", "DESIGN 4", |s| uris(s).iter().map(String::as_str).eq(s.template.uri)),
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
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");
const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const OCSP_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.9");
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

fn value<'a, T: Decode<'a> + AssociatedOid>(s: &Subject<'a>) -> Option<T> {
    T::from_der(find(s, T::OID)?.extn_value.as_bytes()).ok()
}

fn value_of<'a, T: Decode<'a> + AssociatedOid>(tbs: &'a TbsCertificate) -> Option<T> {
    let extension = tbs.extensions.as_deref()?.iter().find(|extension| extension.extn_id == T::OID)?;
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
    let constraints = value_of::<BasicConstraints>(authority);
    let depth = constraints.as_ref().and_then(|constraints| constraints.path_len_constraint);
    let below = |rules: profile::CaRules| depth.is_none_or(|depth| rules.path_length < depth);
    constraints.is_some_and(|constraints| constraints.ca)
        && value_of::<KeyUsage>(authority).is_some_and(|usage| usage.key_cert_sign())
        && s.template.profile.ca.is_none_or(below)
}

/// O and CN, each an RDN of its own, as UTF8String (RFC 5280 4.1.2.4).
fn subject_fits(s: &Subject<'_>) -> bool {
    let expected = [(ORGANIZATION, s.template.organization), (COMMON_NAME, s.template.common_name)];
    let names = &s.tbs.subject.0;
    names.len() == expected.len()
        && names.iter().zip(expected).all(|(name, (oid, text))| {
            let mut attributes = name.0.iter();
            let fits = attributes.next().is_some_and(|attribute| {
                attribute.oid == oid && attribute.value.decode_as::<Utf8StringRef<'_>>().is_ok_and(|value| value.as_str() == text)
            });
            fits && attributes.next().is_none()
        })
}

fn alternative_names(s: &Subject<'_>) -> Vec<GeneralName> {
    value::<SubjectAltName>(s).map(|names| names.0).unwrap_or_default()
}

fn uris(s: &Subject<'_>) -> Vec<String> {
    let uri = |name| match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str().to_owned()),
        _ => None,
    };
    alternative_names(s).into_iter().filter_map(uri).collect()
}

/// All names but the URI: DNS names and addresses as registered, in their order, and no other form of name.
fn registered_names_fit(s: &Subject<'_>) -> bool {
    let names = alternative_names(s);
    let found = names.iter().filter(|name| !matches!(name, GeneralName::UniformResourceIdentifier(_)));
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
    found.eq(expected.iter())
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
    let oid = |usage: &profile::ExtendedKeyUsage| match usage {
        profile::ExtendedKeyUsage::ClientAuth => CLIENT_AUTH,
        profile::ExtendedKeyUsage::ServerAuth => SERVER_AUTH,
        profile::ExtendedKeyUsage::OcspSigning => OCSP_SIGNING,
    };
    let expected: Vec<ObjectIdentifier> = s.template.profile.extended_key_usage.iter().map(oid).collect();
    match find(s, ExtendedKeyUsage::OID) {
        None => expected.is_empty(),
        Some(_) => !expected.is_empty() && value::<ExtendedKeyUsage>(s).is_some_and(|usage| usage.0 == expected),
    }
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
        Some(authority) => value_of::<SubjectKeyIdentifier>(authority),
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
    let Some(extension) = find(s, AuthorityInfoAccessSyntax::OID) else { return expected.is_empty() };
    let Ok(found) = AuthorityInfoAccessSyntax::from_der(extension.extn_value.as_bytes()) else { return false };
    !expected.is_empty()
        && found.0.len() == expected.len()
        && found.0.iter().zip(expected).all(|(found, (method, uri))| {
            let same = matches!(&found.access_location, GeneralName::UniformResourceIdentifier(text) if text.as_str() == uri);
            found.access_method == method && same
        })
}
