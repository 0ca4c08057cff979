//! What stands above our own root where a corporate authority certifies it: the certificates that came back, read and judged.

use std::time::Duration;

use fleetmark_domain::{Fingerprint, Refusal, Timestamp};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::{OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE, Oid};
use x509_parser::prelude::FromDer as _;

use super::encoding;
use super::issue::MAX_CERTIFICATE;

/// The most certificates above ours.
const MAX_ABOVE: usize = 6;
/// id-ce-nameConstraints (RFC 5280 4.2.1.10), 2.5.29.30, content octets.
const NAME_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x1e];
/// An intermediate that ends sooner is not worth a fleet.
pub const LEAST_LIFE: Duration = Duration::from_secs(365 * 86_400);

/// A corporate authority's certificate for our key, with what stands above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Ours, in DER.
    pub own: Vec<u8>,
    /// Those above it, upwards; the last one is the corporate root.
    pub above: Vec<Vec<u8>>,
}

type Check = Result<(), (Refusal, String)>;

/// Reads certificates in PEM, in whatever order, and judges the one for the key `spki`.
///
/// It must be an authority's that may sign certificates and lists, over at least one more level of authorities; have no name
/// constraints, no critical extension and no extended key usage that would keep our certificates from being verified; last a year
/// or more; and be signed, through the others, by the one whose SHA-256 is `root`, which signs itself.
///
/// # Errors
/// The refusal with one more sentence: `CorporateChainUnreadable`, `CorporateKeyMismatch`, `CorporateNotACa`,
/// `CorporateKeyUsage`, `CorporatePathLength`, `CorporateNameConstraints`, `CorporateExtension`, `CorporateEndsEarly`,
/// `CorporateChainBroken`, `CorporateRootUnknown`.
pub fn judge(pem: &[u8], spki: &[u8], root: &Fingerprint, now: Timestamp) -> Result<Chain, (Refusal, String)> {
    let unreadable = |why: &str| (Refusal::CorporateChainUnreadable, why.to_owned());
    let found: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
        .take(MAX_ABOVE + 2)
        .collect::<Result<_, _>>()
        .map_err(|_| unreadable("The file is not certificates in PEM."))?;
    if found.len() < 2 || found.len() > MAX_ABOVE + 1 || found.iter().any(|one| one.len() > MAX_CERTIFICATE) {
        return Err(unreadable(
            "The file holds the certificate for our request and 1 to 6 above it, the corporate root among them.",
        ));
    }
    let parsed: Vec<X509Certificate<'_>> = found
        .iter()
        .map(|der| match X509Certificate::from_der(der) {
            Ok(([], certificate)) => Ok(certificate),
            _ => Err(unreadable("One of the certificates is not DER.")),
        })
        .collect::<Result<_, _>>()?;
    let own = parsed.iter().zip(&found).find(|(certificate, _)| certificate.public_key().raw == spki);
    let (own, own_der) = own
        .ok_or_else(|| (Refusal::CorporateKeyMismatch, "None of the certificates is for the key of our request.".to_owned()))?;
    judge_own(own, now)?;

    let above = climb(own, &parsed, &found, now)?;
    let top = above.last().map(|der| Fingerprint(encoding::sha256(der)));
    if top != Some(*root) {
        let why =
            format!("The chain ends at the root {}, which is not the one that was named.", top.unwrap_or(Fingerprint([0; 32])));
        return Err((Refusal::CorporateRootUnknown, why));
    }
    Ok(Chain { own: own_der.to_vec(), above })
}

/// The certificates above `own`, upwards, each judged, up to one that signs itself.
fn climb(
    own: &X509Certificate<'_>,
    parsed: &[X509Certificate<'_>],
    found: &[CertificateDer<'static>],
    now: Timestamp,
) -> Result<Vec<Vec<u8>>, (Refusal, String)> {
    let mut above: Vec<Vec<u8>> = Vec::new();
    let (mut at, mut levels) = (own, 0_u32);
    loop {
        let issuer = parsed.iter().zip(found).find(|(issuer, _)| {
            issuer.subject().as_raw() == at.issuer().as_raw() && at.verify_signature(Some(issuer.public_key())).is_ok()
        });
        let Some((issuer, der)) = issuer else {
            let why = format!("No certificate in the file signed that of {}.", at.subject());
            return Err((Refusal::CorporateChainBroken, why));
        };
        judge_above(issuer, levels.saturating_add(1), now)?;
        above.push(der.to_vec());
        if issuer.subject().as_raw() == issuer.issuer().as_raw() {
            return Ok(above);
        }
        if above.len() >= MAX_ABOVE {
            return Err((Refusal::CorporateChainBroken, "The certificates sign each other in a circle.".to_owned()));
        }
        (at, levels) = (issuer, levels.saturating_add(1));
    }
}

/// Our own intermediate.
fn judge_own(own: &X509Certificate<'_>, now: Timestamp) -> Check {
    // Its authorities have path length 0, so that it needs 1 itself.
    judge_authority(own, 1)?;
    if !own.extensions().iter().any(|one| matches!(one.parsed_extension(), ParsedExtension::SubjectKeyIdentifier(_))) {
        let why =
            "The certificate has no subject key identifier (RFC 5280 4.2.1.2), by which everything that it issues names it.";
        return Err((Refusal::CorporateExtension, why.to_owned()));
    }
    let (from, to) = (Timestamp(own.validity().not_before.timestamp()), Timestamp(own.validity().not_after.timestamp()));
    if from > now || to < now + LEAST_LIFE {
        let why = format!("The certificate holds from {from} to {to}; it must hold now, and for a year or more.");
        return Err((Refusal::CorporateEndsEarly, why));
    }
    Ok(())
}

/// One above it, with `below` authorities between it and ours, ours counted, besides our own authorities.
fn judge_above(issuer: &X509Certificate<'_>, below: u32, now: Timestamp) -> Check {
    judge_authority(issuer, below.saturating_add(1))?;
    let end = Timestamp(issuer.validity().not_after.timestamp());
    if end < now + LEAST_LIFE {
        let why = format!("The certificate of {} ends at {end}; it must hold for a year or more.", issuer.subject());
        return Err((Refusal::CorporateEndsEarly, why));
    }
    Ok(())
}

/// What holds for every authority of the chain that has `below` levels of authorities under it.
fn judge_authority(one: &X509Certificate<'_>, below: u32) -> Check {
    let name = one.subject();
    let constraints = one.basic_constraints().ok().flatten().map(|found| found.value);
    let Some(constraints) = constraints.filter(|found| found.ca) else {
        return Err((Refusal::CorporateNotACa, format!("The certificate of {name} is no authority's (RFC 5280 4.2.1.9).")));
    };
    if constraints.path_len_constraint.is_some_and(|length| length < below) {
        let why = format!(
            "The certificate of {name} allows too few levels below it: its path length must be {below} or more, or absent."
        );
        return Err((Refusal::CorporatePathLength, why));
    }
    let usage = one.key_usage().ok().flatten().map(|found| found.value);
    if usage.is_none_or(|usage| !usage.key_cert_sign() || !usage.crl_sign()) {
        let why = format!("The certificate of {name} may not sign certificates and revocation lists (keyCertSign, cRLSign).");
        return Err((Refusal::CorporateKeyUsage, why));
    }
    // By its name alone: one that cannot be read is in the way as well.
    if one.extensions().iter().any(|extension| extension.oid.as_bytes() == NAME_CONSTRAINTS) {
        let why = format!(
            "The certificate of {name} has name constraints. mbedTLS loads no chain with them, OpenSSL holds constraints of DNS names \
             against devices' common names, and webpki refuses those of URIs."
        );
        return Err((Refusal::CorporateNameConstraints, why));
    }
    let known: [Oid<'static>; 3] = [OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_KEY_USAGE, OID_X509_EXT_EXTENDED_KEY_USAGE];
    if let Some(odd) = one.extensions().iter().find(|extension| extension.critical && !known.contains(&extension.oid)) {
        let why = format!("The certificate of {name} has the critical extension {}, which clients do not know.", odd.oid);
        return Err((Refusal::CorporateExtension, why));
    }
    let purposes = one.extended_key_usage().map(|found| found.map(|found| found.value));
    let fits = purposes.is_ok_and(|found| {
        found.is_none_or(|found| found.any || (found.client_auth && found.server_auth && found.ocsp_signing))
    });
    if !fits {
        let why = format!(
            "The certificate of {name} has extended key usages without clientAuth, serverAuth and OCSPSigning: they bind the whole chain. \
             Have it issued without the extension."
        );
        return Err((Refusal::CorporateExtension, why));
    }
    Ok(())
}

/// The authority among `chain` that signed the list in DER, and what the list says.
pub fn list_of<'a>(der: &[u8], chain: &'a [Vec<u8>]) -> Option<(&'a [u8], super::request::ListFacts)> {
    chain.iter().find_map(|issuer| Some((issuer.as_slice(), super::request::verified_list(der, issuer).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::keys::{KeyAlgorithm, Signer};
    use crate::pki::profile::Profiles;
    use crate::pki::request::{pem, request};
    use crate::pki::testing::{key, now, openssl, write};

    /// A corporate authority made with openssl, with an intermediate under it.
    struct Corporate(tempfile::TempDir);

    impl Corporate {
        fn new(more: &[&str]) -> Self {
            let corporate = Self(tempfile::tempdir().unwrap());
            let (key, certificate) = (corporate.at("root.key"), corporate.at("root.pem"));
            let subject = ["-subj", "/DC=example/O=Example Corp/CN=Example Root", "-days", "3650", "-keyout", &key];
            let new = ["req", "-x509", "-nodes", "-newkey", "rsa:2048", "-addext", "keyUsage=critical,keyCertSign,cRLSign"];
            openssl(&[&new[..], &subject, &["-out", &certificate], more].concat(), b"").unwrap();
            corporate
        }

        fn at(&self, name: &str) -> String {
            self.0.path().join(name).to_str().unwrap().to_owned()
        }

        /// A certificate for the request, with these extensions.
        fn certify(&self, signer: &dyn Signer, extensions: &str, days: &str) -> Vec<u8> {
            let profiles = Profiles::load(None).unwrap();
            let der = request(signer, profiles.find("root").unwrap(), "fleet.example", "fleet.example root").unwrap();
            let csr = write(self.0.path(), "csr.pem", pem(&der).as_bytes());
            let extensions = write(self.0.path(), "extensions", extensions.as_bytes());
            let (root, root_key) = (self.at("root.pem"), self.at("root.key"));
            let options = ["x509", "-req", "-in", &csr, "-CA", &root, "-CAkey", &root_key, "-CAcreateserial", "-days", days];
            openssl(&[&options[..], &["-extfile", &extensions]].concat(), b"").unwrap()
        }

        fn root(&self) -> Vec<u8> {
            std::fs::read(self.at("root.pem")).unwrap()
        }

        fn fingerprint(&self) -> Fingerprint {
            Fingerprint(encoding::sha256(&openssl(&["x509", "-outform", "DER"], &self.root()).unwrap()))
        }
    }

    const GOOD: &str =
        "basicConstraints=critical,CA:true,pathlen:1\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n";

    #[test]
    fn each_fault_of_a_corporate_certificate_has_its_name() {
        let corporate = Corporate::new(&[]);
        let signer = key(KeyAlgorithm::P256);
        let judged = |own: Vec<u8>, root: &Fingerprint| {
            judge(&[own, corporate.root()].concat(), signer.public_key(), root, now()).map_err(|(refusal, _)| refusal)
        };
        let root = corporate.fingerprint();
        let chain = judged(corporate.certify(&*signer, GOOD, "3000"), &root).unwrap();
        assert_eq!(chain.above.len(), 1);
        let no_path = GOOD.replace(",pathlen:1", "");
        judged(corporate.certify(&*signer, &no_path, "3000"), &root).unwrap();
        for (extensions, days, refusal) in [
            (GOOD.replace("CA:true,pathlen:1", "CA:false"), "3000", Refusal::CorporateNotACa),
            (GOOD.replace("pathlen:1", "pathlen:0"), "3000", Refusal::CorporatePathLength),
            (GOOD.replace("keyCertSign,cRLSign", "keyCertSign"), "3000", Refusal::CorporateKeyUsage),
            (GOOD.replace("keyCertSign,cRLSign", "cRLSign"), "3000", Refusal::CorporateKeyUsage),
            (
                GOOD.to_owned() + "nameConstraints=critical,permitted;DNS:example.com\n",
                "3000",
                Refusal::CorporateNameConstraints,
            ),
            (GOOD.to_owned() + "nameConstraints=permitted;URI:.example.com\n", "3000", Refusal::CorporateNameConstraints),
            (GOOD.to_owned() + "policyConstraints=critical,requireExplicitPolicy:0\n", "3000", Refusal::CorporateExtension),
            (GOOD.to_owned() + "extendedKeyUsage=clientAuth\n", "3000", Refusal::CorporateExtension),
            (GOOD.replace("subjectKeyIdentifier=hash", "subjectKeyIdentifier=none"), "3000", Refusal::CorporateExtension),
            (GOOD.to_owned(), "90", Refusal::CorporateEndsEarly),
        ] {
            assert_eq!(judged(corporate.certify(&*signer, &extensions, days), &root), Err(refusal), "{extensions}");
        }
        let other = key(KeyAlgorithm::P256);
        assert_eq!(judged(corporate.certify(&*other, GOOD, "3000"), &root), Err(Refusal::CorporateKeyMismatch));
        assert_eq!(
            judged(corporate.certify(&*signer, GOOD, "3000"), &Fingerprint([7; 32])),
            Err(Refusal::CorporateRootUnknown)
        );
        let stranger = Corporate::new(&[]);
        assert_eq!(judged(stranger.certify(&*signer, GOOD, "3000"), &root), Err(Refusal::CorporateChainBroken));
        for text in ["", "no PEM"] {
            assert_eq!(judged(text.into(), &root), Err(Refusal::CorporateChainUnreadable));
        }
        let narrow = Corporate::new(&["-addext", "basicConstraints=critical,CA:true,pathlen:1"]);
        let file = [narrow.certify(&*signer, GOOD, "3000"), narrow.root()].concat();
        let refused = judge(&file, signer.public_key(), &narrow.fingerprint(), now()).unwrap_err();
        assert_eq!(refused.0, Refusal::CorporatePathLength);
    }
}
