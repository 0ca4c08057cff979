//! What the tests of this room share: openssl as a stranger, and a root, a device authority and a device in memory.

use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use fleetmark_domain::{Epoch, Index, Serial, Timestamp};
use ring::rand::SystemRandom;
use rustls_pki_types::UnixTime;

use super::issue::{IssuedCertificate, Issuer, Pointers, Template, issue};
use super::keys::{KeyAlgorithm, Signer, generate, signer};
use super::profile::Profiles;
use super::{PkiError, bundle};

/// Runs openssl with `input` on its standard input; its standard output, or its standard error when it fails.
pub(crate) fn openssl(arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, String> {
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A child that does not read its input closes it early; that is no fault.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    if output.status.success() {
        Ok(output.stdout)
    } else {
        let both = [output.stdout, output.stderr].concat();
        Err(String::from_utf8_lossy(&both).into_owned())
    }
}

/// The real time: openssl, which judges, asks for no other everywhere.
pub(crate) fn now() -> Timestamp {
    Timestamp(i64::try_from(UnixTime::now().as_secs()).unwrap())
}

/// A key in memory.
pub(crate) fn key(algorithm: KeyAlgorithm) -> Arc<dyn Signer> {
    signer(&generate(algorithm, &SystemRandom::new()).unwrap()).unwrap()
}

/// A root and the built-in profiles.
pub(crate) struct Installation {
    pub(crate) profiles: Profiles,
    pub(crate) root: Issuer,
    pub(crate) now: Timestamp,
}

/// What varies between the certificates of tests.
pub(crate) struct Wanted<'a> {
    pub(crate) profile: &'a str,
    pub(crate) index: u32,
    pub(crate) common_name: &'a str,
    pub(crate) uri: Option<&'a str>,
    pub(crate) dns_names: &'a [String],
    pub(crate) addresses: &'a [IpAddr],
    pub(crate) spki: &'a [u8],
    pub(crate) pointers: &'a Pointers,
}

impl Default for Wanted<'_> {
    fn default() -> Self {
        const NOWHERE: &Pointers = &Pointers { ocsp: None, ca_issuers: None, crl: None };
        Self {
            profile: "device",
            index: 0,
            common_name: "sensor-01",
            uri: None,
            dns_names: &[],
            addresses: &[],
            spki: &[],
            pointers: NOWHERE,
        }
    }
}

impl Installation {
    pub(crate) fn new(algorithm: KeyAlgorithm) -> Self {
        let signer = key(algorithm);
        let mut made = Self {
            profiles: Profiles::load(None).unwrap(),
            root: Issuer { certificate: Vec::new().into(), signer: Arc::clone(&signer) },
            now: now(),
        };
        let wanted = Wanted { profile: "root", common_name: "Test Root", spki: signer.public_key(), ..Wanted::default() };
        made.root.certificate = made.issue(&made.root, &wanted).unwrap().der.into();
        made
    }

    /// The template for what is wanted, as the registrar would fill it.
    pub(crate) fn template<'a>(&'a self, wanted: &Wanted<'a>) -> Template<'a> {
        let profile = self.profiles.find(wanted.profile).unwrap();
        Template {
            profile,
            serial: Serial::new(Epoch(1), Index(wanted.index), [0xa5; 8]),
            common_name: wanted.common_name,
            organization: "default",
            uri: wanted.uri,
            dns_names: wanted.dns_names,
            addresses: wanted.addresses,
            not_before: self.now - profile.backdate,
            not_after: self.now + profile.lifetime,
            spki: wanted.spki,
            pointers: wanted.pointers,
        }
    }

    pub(crate) fn issue(&self, issuer: &Issuer, wanted: &Wanted<'_>) -> Result<IssuedCertificate, PkiError> {
        issue(issuer, &self.template(wanted))
    }

    /// An authority under the root.
    pub(crate) fn authority(&self, profile: &str, algorithm: KeyAlgorithm) -> Issuer {
        let signer = key(algorithm);
        let wanted = Wanted { profile, common_name: profile, spki: signer.public_key(), ..Wanted::default() };
        Issuer { certificate: self.issue(&self.root, &wanted).unwrap().der.into(), signer: Arc::clone(&signer) }
    }

    /// A device's certificate of index `index`.
    pub(crate) fn device(&self, authority: &Issuer, index: u32, name: &str) -> IssuedCertificate {
        let holder = key(KeyAlgorithm::P256);
        let uri = format!("spiffe://fleet.example/device/default/{name}");
        let wanted = Wanted { index, common_name: name, uri: Some(&uri), spki: holder.public_key(), ..Wanted::default() };
        self.issue(authority, &wanted).unwrap()
    }
}

/// Writes certificates as PEM and returns the path.
pub(crate) fn write_pem<D: AsRef<[u8]>>(directory: &Path, name: &str, certificates: &[D]) -> String {
    write(directory, name, bundle::pem(certificates).as_bytes())
}

/// Writes a file and returns its path.
pub(crate) fn write(directory: &Path, name: &str, octets: &[u8]) -> String {
    let path = directory.join(name);
    std::fs::write(&path, octets).unwrap();
    path.to_str().unwrap().to_owned()
}

/// webpki's verdict on a chain under the root, a day from now at most.
pub(crate) fn webpki_verdict(
    installation: &Installation,
    intermediates: &[&[u8]],
    certificate: &[u8],
    usage: webpki::KeyUsage,
    revocation: Option<webpki::RevocationOptions<'_>>,
) -> Result<(), webpki::Error> {
    let root = rustls_pki_types::CertificateDer::from(&*installation.root.certificate);
    let anchors = [webpki::anchor_from_trusted_cert(&root)?];
    let intermediates: Vec<_> = intermediates.iter().map(|der| rustls_pki_types::CertificateDer::from(*der)).collect();
    let certificate = rustls_pki_types::CertificateDer::from(certificate);
    let end = webpki::EndEntityCert::try_from(&certificate)?;
    let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(installation.now.0).unwrap() + 60));
    end.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, &intermediates, time, usage, revocation, None).map(|_| ())
}

mod hostile {
    use proptest::prelude::*;

    use super::*;
    use crate::pki::csr::VerifiedCsr;
    use crate::pki::{issue, ocsp};

    /// Everything of this room that reads what strangers send.
    fn read(octets: &[u8]) {
        let _ = VerifiedCsr::from_body(octets);
        if let Ok(csr) = VerifiedCsr::from_der(octets) {
            let _ = csr.asked().is_within(octets);
        }
        let _ = ocsp::parse(octets);
        let _ = issue::facts(octets);
    }

    fn samples() -> Vec<Vec<u8>> {
        let extensions = "subjectAltName=URI:spiffe://a/b,DNS:x,IP:1.2.3.4,otherName:1.2.3;UTF8:x";
        let request = ["req", "-new", "-nodes", "-keyout", "/dev/null", "-subj", "/O=a/CN=b", "-addext", extensions];
        let request = |form| openssl(&[&request[..], &["-newkey", "ed25519", "-outform", form]].concat(), b"").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let installation = Installation::new(KeyAlgorithm::P256);
        let issuer = write_pem(directory.path(), "issuer.pem", &[&installation.root.certificate]);
        let question = write(directory.path(), "question.der", b"");
        openssl(&["ocsp", "-reqout", &question, "-issuer", &issuer, "-serial", "1"], b"").unwrap();
        let root = installation.root.certificate.to_vec();
        vec![request("DER"), request("PEM"), std::fs::read(question).unwrap(), root]
    }

    #[test]
    fn changed_input_makes_nothing_panic() {
        let samples = samples();
        let change = (0..samples.len(), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6));
        proptest!(ProptestConfig::with_cases(3000), |((which, changes) in change)| {
            let mut octets = samples[which].clone();
            for (at, octet) in changes {
                let at = at.index(octets.len());
                octets[at] = octet;
            }
            read(&octets);
        });
        proptest!(ProptestConfig::with_cases(1000), |(octets in prop::collection::vec(any::<u8>(), 0..600))| read(&octets));
    }
}
