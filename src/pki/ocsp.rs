//! OCSP (RFC 6960, profile of RFC 5019, nonce of RFC 9654).

use der::asn1::{AnyRef, IntRef, OctetStringRef};
use der::oid::ObjectIdentifier;
use der::{Decode, ErrorKind, Reader, Sequence};
use fleetmark_domain::{RevocationReason, Serial, Timestamp};
use ring::digest;
use spki::AlgorithmIdentifierRef;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::PkiError;
use super::encoding::{self, CONTEXT_0, ENUMERATED, OCTET_STRING, SEQUENCE, head, tlv};
use super::issue::Issuer;

/// The largest OCSP request, in octets.
pub const MAX_REQUEST: usize = 4 * 1024;
/// The most certificates that one request may ask for.
pub const MAX_QUESTIONS: usize = 32;

/// The longest nonce, in octets (RFC 9654 2.1).
const MAX_NONCE: usize = 128;

const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const NONCE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.2");
/// id-pkix-ocsp-nonce and id-pkix-ocsp-basic, as whole OBJECT IDENTIFIERs in DER.
const NONCE_DER: [u8; 11] = [0x06, 0x09, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x02];
const BASIC_DER: [u8; 11] = [0x06, 0x09, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];

/// Room for what is said of one certificate, in octets.
const SINGLE: usize = 192;

/// `[1]`, `[2]`, EXPLICIT or constructed.
const CONTEXT_1: u8 = 0xa1;
const CONTEXT_2: u8 = 0xa2;

/// A request, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// What it asks for, in its order.
    pub questions: Vec<Question<'a>>,
    /// The nonce: 1 to 128 octets (RFC 9654 2.1).
    pub nonce: Option<&'a [u8]>,
}

/// One `CertID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question<'a> {
    /// What is in the `CertID`, given back as it came.
    pub cert_id: &'a [u8],
    /// Digest of the issuer's name.
    pub issuer_name_hash: &'a [u8],
    /// Digest of the issuer's key.
    pub issuer_key_hash: &'a [u8],
    /// Which digest; None for one that we do not know: it names nobody whom we know.
    pub digest: Option<CertIdDigest>,
    /// The serial; None for one that we never write.
    pub serial: Option<Serial>,
}

/// The digest of a `CertID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertIdDigest {
    /// SHA-1, RFC 5019 2.1.1.
    Sha1,
    /// SHA-256, RFC 9654 and RFC 5019bis.
    Sha256,
}

/// One certificate's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Issued and not listed.
    Good,
    /// Revoked since; None is certificateHold.
    Revoked(Timestamp, Option<RevocationReason>),
    /// Never issued by this authority.
    Unknown,
}

/// Answers without a signature (RFC 6960 4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The request cannot be read.
    MalformedRequest,
    /// The responder failed.
    InternalError,
    /// Ask again later.
    TryLater,
    /// Not for certificates of ours.
    Unauthorized,
}

/// Why a request is not answered with statuses.
pub type Refused = Failure;

/// The issuer hashes by which `CertID`s name an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerHashes {
    /// SHA-1 of name and key.
    pub sha1: (Vec<u8>, Vec<u8>),
    /// SHA-256 of name and key.
    pub sha256: (Vec<u8>, Vec<u8>),
}

impl IssuerHashes {
    /// Of an authority's certificate in DER.
    ///
    /// # Errors
    /// [`PkiError::Certificate`].
    pub fn of(certificate: &[u8]) -> Result<Self, PkiError> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| unreadable())?;
        let (name, key) = (parsed.subject().as_raw(), parsed.public_key().subject_public_key.data.as_ref());
        Ok(Self { sha1: (sha1(name), sha1(key)), sha256: (encoding::sha256(name).to_vec(), encoding::sha256(key).to_vec()) })
    }

    /// Whether the question is about this authority.
    pub fn fits(&self, question: &Question<'_>) -> bool {
        let (name, key) = match question.digest {
            Some(CertIdDigest::Sha1) => &self.sha1,
            Some(CertIdDigest::Sha256) => &self.sha256,
            None => return false,
        };
        name == question.issuer_name_hash && key == question.issuer_key_hash
    }
}

/// `OCSPRequest` (RFC 6960 4.1.1), which refers to the octets that came. What is in it is read in its turn: readers within readers
/// ask each other for every octet.
#[derive(Sequence)]
struct OcspRequest<'a> {
    tbs_request: AnyRef<'a>,
    #[asn1(context_specific = "0", optional = "true", tag_mode = "EXPLICIT")]
    optional_signature: Option<AnyRef<'a>>,
}

#[derive(Sequence)]
struct TbsRequest<'a> {
    /// v1 is the default, which DER leaves out; some write it, and there is no other.
    #[asn1(context_specific = "0", optional = "true", tag_mode = "EXPLICIT")]
    version: Option<u8>,
    #[asn1(context_specific = "1", optional = "true", tag_mode = "EXPLICIT")]
    requestor_name: Option<AnyRef<'a>>,
    request_list: AnyRef<'a>,
    #[asn1(context_specific = "2", optional = "true", tag_mode = "EXPLICIT")]
    request_extensions: Option<Vec<Extension<'a>>>,
}

#[derive(Sequence)]
struct SingleRequest<'a> {
    req_cert: AnyRef<'a>,
    #[asn1(context_specific = "0", optional = "true", tag_mode = "EXPLICIT")]
    single_request_extensions: Option<Vec<Extension<'a>>>,
}

#[derive(Sequence)]
struct CertId<'a> {
    hash_algorithm: AlgorithmIdentifierRef<'a>,
    issuer_name_hash: OctetStringRef<'a>,
    issuer_key_hash: OctetStringRef<'a>,
    serial_number: IntRef<'a>,
}

#[derive(Sequence)]
struct Extension<'a> {
    extn_id: ObjectIdentifier,
    #[asn1(default = "Default::default")]
    critical: bool,
    extn_value: OctetStringRef<'a>,
}

/// Reads a request. A signature on it is neither required nor looked at (RFC 6960 4.1.2 leaves it optional).
///
/// # Errors
/// `MalformedRequest` for one that is no request in DER, is larger than [`MAX_REQUEST`], asks for nothing or for more than
/// [`MAX_QUESTIONS`], has a nonce of a wrong length (RFC 9654 2.1) or a critical extension that we do not know.
pub fn parse(der: &[u8]) -> Result<Request<'_>, Failure> {
    if der.len() > MAX_REQUEST {
        return Err(Failure::MalformedRequest);
    }
    read(der).map_err(|_| Failure::MalformedRequest)
}

fn read(der: &[u8]) -> der::Result<Request<'_>> {
    let request: TbsRequest<'_> = OcspRequest::from_der(der)?.tbs_request.decode_as()?;
    ensure(request.version.is_none_or(|version| version == 0))?;
    let mut questions = Vec::with_capacity(1);
    request.request_list.sequence(|list| {
        while !list.is_finished() {
            let one = SingleRequest::decode(list)?;
            ensure(questions.len() < MAX_QUESTIONS)?;
            are_known(one.single_request_extensions.as_deref())?;
            questions.push(question(one.req_cert)?);
        }
        ensure(!questions.is_empty())
    })?;
    are_known(request.request_extensions.as_deref())?;
    Ok(Request { questions, nonce: nonce(request.request_extensions.as_deref().unwrap_or_default())? })
}

fn ensure(holds: bool) -> der::Result<()> {
    if holds { Ok(()) } else { Err(ErrorKind::Failed.into()) }
}

/// What is critical must be understood (RFC 5280 4.2, RFC 6960 4.4).
fn are_known(extensions: Option<&[Extension<'_>]>) -> der::Result<()> {
    ensure(extensions.unwrap_or_default().iter().all(|extension| !extension.critical || extension.extn_id == NONCE))
}

/// Who signs an authority's answers, with what is the same in each of them.
#[derive(Debug)]
pub struct Responder {
    issuer: Issuer,
    /// `[2] byKey`.
    id: Vec<u8>,
    /// `[0] certs`: the responder's own.
    certificates: Vec<u8>,
    /// The end of its certificate: no answer holds longer.
    pub not_after: Timestamp,
}

/// A signed answer, up to the responder's certificate with which it ends: two thirds of it, and the same in each.
/// [`Responder::whole`] makes it whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed(Box<[u8]>);

impl Signed {
    /// The last octets of the signature: no other answer has these.
    pub fn tag(&self) -> [u8; 16] {
        self.0.last_chunk().copied().unwrap_or_default()
    }
}

impl Responder {
    /// The responder with this certificate and key.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] for one that cannot be read.
    pub fn new(issuer: Issuer) -> Result<Self, PkiError> {
        let (_, certificate) = X509Certificate::from_der(&issuer.certificate).map_err(|_| unreadable())?;
        // RFC 6960 4.2.1: byKey is the SHA-1 of the key's BIT STRING without tag, length and unused bits.
        let key_hash = sha1(certificate.public_key().subject_public_key.data.as_ref());
        let not_after = Timestamp(certificate.validity().not_after.timestamp());
        Ok(Self {
            id: tlv(CONTEXT_2, &[&tlv(OCTET_STRING, &[&key_hash])]),
            certificates: tlv(CONTEXT_0, &[&tlv(SEQUENCE, &[&issuer.certificate])]),
            not_after,
            issuer,
        })
    }

    /// Its certificate in DER.
    pub fn certificate(&self) -> &[u8] {
        &self.issuer.certificate
    }

    /// Signs an answer.
    ///
    /// # Errors
    /// [`PkiError::Signing`].
    pub fn respond<'a>(
        &self,
        answers: impl Iterator<Item = (&'a Question<'a>, Status)>,
        nonce: Option<&[u8]>,
        this_update: Timestamp,
        next_update: Timestamp,
    ) -> Result<Signed, PkiError> {
        let (this, next) = (generalized_time(this_update), generalized_time(next_update));
        let mut responses = Vec::with_capacity(SINGLE);
        answers.for_each(|(question, status)| put_single(&mut responses, question, status, &this, &next));
        let extensions = nonce.map(nonce_extension).unwrap_or_default();
        let data = tlv(SEQUENCE, &[&self.id, &this, &head(SEQUENCE, responses.len()), &responses, &extensions]);

        let signature = self.issuer.signer.sign(&data)?;
        let algorithm = encoding::signature_algorithm(self.issuer.signer.algorithm());
        let signature_head = head(encoding::BIT_STRING, signature.len().saturating_add(1));
        Ok(self.enclosed(&[&data, algorithm, &signature_head, &[0], &signature]))
    }

    /// `OCSPResponse { successful, [0] { id-pkix-ocsp-basic, OCTET STRING { BasicOCSPResponse } } }` around the parts of the last
    /// and the certificates, without these.
    fn enclosed(&self, basic: &[&[u8]]) -> Signed {
        let length = |parts: &[&[u8]]| parts.iter().map(|part| part.len()).sum::<usize>();
        let basic_length = length(basic).saturating_add(self.certificates.len());
        let sequence = head(SEQUENCE, basic_length);
        let string = head(OCTET_STRING, sequence.len().saturating_add(basic_length));
        let octets_length = length(&[&BASIC_DER, &string, &sequence]).saturating_add(basic_length);
        let octets = head(SEQUENCE, octets_length);
        let explicit = head(CONTEXT_0, octets.len().saturating_add(octets_length));
        let before: [&[u8]; 6] = [&[ENUMERATED, 1, 0], &explicit, &octets, &BASIC_DER, &string, &sequence];
        let response = head(SEQUENCE, length(&before).saturating_add(basic_length));
        Signed([&[&response[..]], &before[..], basic].concat().concat().into())
    }

    /// The `OCSPResponse` in DER, of an answer that this responder signed.
    pub fn whole(&self, signed: &Signed) -> Vec<u8> {
        [&signed.0, &self.certificates[..]].concat()
    }
}

/// An unsigned answer.
pub fn failure(failure: Failure) -> Vec<u8> {
    let status = match failure {
        Failure::MalformedRequest => 1,
        Failure::InternalError => 2,
        Failure::TryLater => 3,
        Failure::Unauthorized => 6,
    };
    vec![SEQUENCE, 3, ENUMERATED, 1, status]
}

fn nonce<'a>(extensions: &[Extension<'a>]) -> der::Result<Option<&'a [u8]>> {
    let mut nonces = extensions.iter().filter(|extension| extension.extn_id == NONCE);
    let Some(extension) = nonces.next() else { return Ok(None) };
    let octets = OctetStringRef::from_der(extension.extn_value.as_bytes())?.as_bytes();
    ensure(nonces.next().is_none() && (1..=MAX_NONCE).contains(&octets.len()))?;
    Ok(Some(octets))
}

fn question(id: AnyRef<'_>) -> der::Result<Question<'_>> {
    let cert_id = id.value();
    let id: CertId<'_> = id.decode_as()?;
    let digest = match id.hash_algorithm.oid {
        SHA1 => Some(CertIdDigest::Sha1),
        SHA256 => Some(CertIdDigest::Sha256),
        _ => None,
    };
    Ok(Question {
        cert_id,
        issuer_name_hash: id.issuer_name_hash.as_bytes(),
        issuer_key_hash: id.issuer_key_hash.as_bytes(),
        digest,
        serial: Serial::from_octets(id.serial_number.as_bytes()).ok(),
    })
}

/// Appends a `SingleResponse`.
fn put_single(out: &mut Vec<u8>, question: &Question<'_>, status: Status, this_update: &[u8], next_update: &[u8]) {
    // RFC 6960 4.2.1: good [0] and unknown [2] are IMPLICIT NULL, revoked [1] is IMPLICIT RevokedInfo.
    let revoked;
    let status = match status {
        Status::Good => &[0x80, 0][..],
        Status::Unknown => &[0x82, 0],
        Status::Revoked(since, reason) => {
            // RFC 5280 5.3.1: `unspecified` is left out; certificateHold is 6.
            let code = reason.map_or(6, RevocationReason::code);
            let reason = if code == 0 { Vec::new() } else { tlv(CONTEXT_0, &[&[ENUMERATED, 1, code]]) };
            revoked = tlv(CONTEXT_1, &[&generalized_time(since), &reason]);
            &revoked
        }
    };
    let (id, next) = (head(SEQUENCE, question.cert_id.len()), head(CONTEXT_0, next_update.len()));
    let parts = [&id, question.cert_id, status, this_update, &next, next_update];
    out.extend_from_slice(&head(SEQUENCE, parts.iter().map(|part| part.len()).sum()));
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn nonce_extension(nonce: &[u8]) -> Vec<u8> {
    let value = tlv(OCTET_STRING, &[&tlv(OCTET_STRING, &[nonce])]);
    tlv(CONTEXT_1, &[&tlv(SEQUENCE, &[&tlv(SEQUENCE, &[&NONCE_DER, &value])])])
}

/// A `GeneralizedTime` (RFC 5280 4.1.2.5.2).
fn generalized_time(time: Timestamp) -> [u8; 17] {
    let at = time.datetime();
    let year = u16::try_from(at.year()).unwrap_or(0);
    let [century, year] = [year / 100, year % 100].map(|part| u8::try_from(part).unwrap_or(0));
    let mut out = *b"\x18\x0fYYYYMMDDHHMMSSZ";
    let parts = [century, year, at.month().into(), at.day(), at.hour(), at.minute(), at.second()];
    let pairs = out.get_mut(2..).into_iter().flat_map(|digits| digits.chunks_exact_mut(2));
    for (pair, part) in pairs.zip(parts) {
        pair.copy_from_slice(&[b'0' + part / 10 % 10, b'0' + part % 10]);
    }
    out
}

/// SHA-1 names keys and issuers here (RFC 6960 4.1.1, RFC 5019 2.1.1); nothing rests on its strength.
fn sha1(octets: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, octets).as_ref().to_vec()
}

fn unreadable() -> PkiError {
    PkiError::Certificate("it is not a certificate in DER".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::keys::KeyAlgorithm;
    use crate::pki::testing::{Installation, Wanted, key, openssl, write, write_pem};
    use der::Encode;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;
    use x509_ocsp::OcspRequest;

    struct Scene {
        installation: Installation,
        authority: Issuer,
        responder: Responder,
        directory: tempfile::TempDir,
        root: String,
        issuer: String,
    }

    impl Scene {
        fn new(algorithm: KeyAlgorithm) -> Self {
            let installation = Installation::new(KeyAlgorithm::P256);
            let authority = installation.authority("authority-device", algorithm);
            let signer = key(algorithm);
            let wanted =
                Wanted { profile: "ocsp", index: 9, common_name: "responder", spki: signer.public_key(), ..Wanted::default() };
            let certificate = installation.issue(&authority, &wanted).unwrap().der.into();
            let responder = Responder::new(Issuer { certificate, signer: Arc::clone(&signer) }).unwrap();
            let directory = tempfile::tempdir().unwrap();
            let root = write_pem(directory.path(), "root.pem", &[&installation.root.certificate]);
            let issuer = write_pem(directory.path(), "issuer.pem", &[&authority.certificate]);
            Self { installation, authority, responder, directory, root, issuer }
        }

        fn path(&self) -> &Path {
            self.directory.path()
        }

        /// A request by openssl for certificates of these indices.
        fn request(&self, indices: &[u32], options: &[&str]) -> Vec<u8> {
            let out = self.path().join("request.der");
            let mut arguments = vec!["ocsp", "-reqout", out.to_str().unwrap(), "-issuer", &self.issuer];
            arguments.extend_from_slice(options);
            let serials: Vec<String> = indices.iter().map(|index| format!("0x0100000001{index:08x}a5a5a5a5a5a5a5a5")).collect();
            for serial in &serials {
                arguments.extend(["-serial", serial.as_str()]);
            }
            openssl(&arguments, b"").unwrap();
            std::fs::read(out).unwrap()
        }

        fn answer(&self, request: &Request<'_>, statuses: &[Status]) -> Vec<u8> {
            let answers = request.questions.iter().zip(statuses.iter().copied());
            let now = self.installation.now;
            let nonce = request.nonce;
            let signed = self.responder.respond(answers, nonce, now, now + Duration::from_secs(3600)).unwrap();
            self.responder.whole(&signed)
        }

        /// What openssl makes of an answer to a request.
        fn judge(&self, request: &[u8], response: &[u8]) -> Result<String, String> {
            let (request, response) = (write(self.path(), "q.der", request), write(self.path(), "a.der", response));
            let arguments = [
                "ocsp",
                "-reqin",
                &request,
                "-respin",
                &response,
                "-issuer",
                &self.issuer,
                "-CAfile",
                &self.root,
                "-resp_text",
            ];
            // openssl prints its verdict on standard error.
            let output = std::process::Command::new("openssl").args(arguments).output().unwrap();
            let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            if output.status.success() && text.contains("Response verify OK") { Ok(text) } else { Err(text) }
        }
    }

    #[test]
    fn openssl_takes_good_revoked_held_and_unknown_from_the_delegated_responder() {
        for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519] {
            let scene = Scene::new(algorithm);
            let since = scene.installation.now - Duration::from_secs(60);
            for options in [&[][..], &["-sha256"], &["-no_nonce"]] {
                let der = scene.request(&[1, 2, 3, 4, 5], options);
                let request = parse(&der).unwrap();
                assert_eq!(request.nonce.is_some(), !options.contains(&"-no_nonce"));
                let hashes = IssuerHashes::of(&scene.authority.certificate).unwrap();
                assert!(request.questions.iter().all(|question| hashes.fits(question)));
                assert!(!IssuerHashes::of(&scene.installation.root.certificate).unwrap().fits(&request.questions[0]));
                let indices: Vec<u32> = request.questions.iter().map(|question| question.serial.unwrap().index().0).collect();
                assert_eq!(indices, [1, 2, 3, 4, 5]);
                let response = scene.answer(
                    &request,
                    &[
                        Status::Good,
                        Status::Revoked(since, Some(RevocationReason::KeyCompromise)),
                        Status::Revoked(since, None),
                        Status::Revoked(since, Some(RevocationReason::Unspecified)),
                        Status::Unknown,
                    ],
                );
                let text = scene.judge(&der, &response).unwrap();
                for (part, times) in [
                    ("Cert Status: good", 1),
                    ("Cert Status: revoked", 3),
                    ("Cert Status: unknown", 1),
                    ("Revocation Reason: keyCompromise (0x1)", 1),
                    ("Revocation Reason: certificateHold (0x6)", 1),
                    ("Revocation Reason: ", 2),
                    ("OCSP No Check", 1),
                    ("Next Update", 5),
                    ("WARNING", 0),
                ] {
                    assert_eq!(text.matches(part).count(), times, "{part} in {text}");
                }
            }
        }
    }

    #[test]
    fn another_nonce_another_responder_and_a_changed_octet_are_refused_by_openssl() {
        let scene = Scene::new(KeyAlgorithm::P256);
        let der = scene.request(&[1], &[]);
        let request = parse(&der).unwrap();
        let good = scene.answer(&request, &[Status::Good]);
        scene.judge(&der, &good).unwrap();

        let other = Request { nonce: Some(&[7; 16]), ..request.clone() };
        let text = scene.judge(&der, &scene.answer(&other, &[Status::Good])).unwrap_err();
        assert!(text.contains("Nonce Verify error"), "{text}");

        let mut changed = good.clone();
        let at = good.windows(3).position(|w| w == [0x80, 0x00, 0x18]).unwrap();
        changed[at] = 0x82;
        let text = scene.judge(&der, &changed).unwrap_err();
        assert!(text.contains("Response Verify Failure"), "{text}");

        // A device's key, however it came to it, is no responder.
        let holder = key(KeyAlgorithm::P256);
        let uri = "spiffe://fleet.example/device/default/a";
        let wanted = Wanted { uri: Some(uri), spki: holder.public_key(), ..Wanted::default() };
        let certificate = scene.installation.issue(&scene.authority, &wanted).unwrap().der.into();
        let responder = Responder::new(Issuer { certificate, signer: Arc::clone(&holder) }).unwrap();
        let forged = Scene { responder, ..Scene::new(KeyAlgorithm::P256) };
        let response = forged.answer(&request, &[Status::Good]);
        let text = scene.judge(&der, &response).unwrap_err();
        assert!(text.contains("Response Verify Failure"), "{text}");
    }

    #[test]
    fn nonces_have_bounds() {
        let scene = Scene::new(KeyAlgorithm::P256);
        let plain = scene.request(&[1], &["-no_nonce"]);
        let with = |nonces: &[usize]| {
            let mut request = OcspRequest::from_der(&plain).unwrap();
            let extension = |length: &usize| x509_cert::ext::Extension {
                extn_id: NONCE,
                critical: false,
                extn_value: der::asn1::OctetString::new(tlv(OCTET_STRING, &[&vec![3; *length]])).unwrap(),
            };
            request.tbs_request.request_extensions = Some(nonces.iter().map(extension).collect());
            request.to_der().unwrap()
        };
        for length in [1, 16, 32, 128] {
            let der = with(&[length]);
            let request = parse(&der).unwrap();
            assert_eq!(request.nonce, Some(&*vec![3; length]));
            scene.judge(&der, &scene.answer(&request, &[Status::Good])).unwrap();
        }
        for lengths in [&[0][..], &[129], &[16, 16]] {
            assert_eq!(parse(&with(lengths)), Err(Failure::MalformedRequest), "{lengths:?}");
        }
    }

    #[test]
    fn bad_requests_are_refused_by_name() {
        let scene = Scene::new(KeyAlgorithm::P256);
        let good = scene.request(&[1], &[]);
        assert_eq!(parse(&[]), Err(Failure::MalformedRequest));
        assert_eq!(parse(&[good.clone(), vec![0]].concat()), Err(Failure::MalformedRequest));
        for length in 0..good.len() {
            assert_eq!(parse(good.get(..length).unwrap()), Err(Failure::MalformedRequest));
        }
        assert_eq!(parse(&vec![0x30; MAX_REQUEST + 1]), Err(Failure::MalformedRequest));
        let many: Vec<u32> = (0..33).collect();
        assert_eq!(parse(&scene.request(&many, &[])), Err(Failure::MalformedRequest));
        assert_eq!(parse(&scene.request(&many[..32], &[])).unwrap().questions.len(), 32);
        let asked = scene.request(&[1], &["-sha384"]);
        let other_digest = parse(&asked).unwrap();
        assert_eq!(other_digest.questions[0].digest, None);
        assert!(!IssuerHashes::of(&scene.authority.certificate).unwrap().fits(&other_digest.questions[0]));

        let mut nothing = OcspRequest::from_der(&good).unwrap();
        nothing.tbs_request.request_list.clear();
        assert_eq!(parse(&nothing.to_der().unwrap()), Err(Failure::MalformedRequest));
        let mut critical = OcspRequest::from_der(&good).unwrap();
        for extension in critical.tbs_request.request_extensions.iter_mut().flatten() {
            extension.critical = true;
            extension.extn_id = ObjectIdentifier::new_unwrap("1.2.3.4");
        }
        assert_eq!(parse(&critical.to_der().unwrap()), Err(Failure::MalformedRequest));
    }

    #[test]
    fn another_reader_reads_the_same_of_every_request_with_a_changed_octet() {
        let scene = Scene::new(KeyAlgorithm::P256);
        for options in [&[][..], &["-sha256"], &["-no_nonce"]] {
            let der = scene.request(&[1, 2], options);
            let mut read = 0;
            for (at, bit) in (0..der.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
                let mut changed = der.clone();
                changed[at] ^= 1 << bit;
                let Ok(ours) = parse(&changed) else { continue };
                let theirs = OcspRequest::from_der(&changed).unwrap_or_else(|error| panic!("octet {at}, bit {bit}: {error}"));
                let theirs: Vec<_> = theirs.tbs_request.request_list.iter().map(|one| one.req_cert.to_der().unwrap()).collect();
                let ours: Vec<_> = ours.questions.iter().map(|one| tlv(SEQUENCE, &[one.cert_id])).collect();
                assert_eq!(ours, theirs, "octet {at}, bit {bit}");
                read += 1;
            }
            assert!(read > 500, "{read}");
        }
    }

    #[test]
    fn a_foreign_serial_is_a_question_without_ours_and_comes_back_as_it_came() {
        let scene = Scene::new(KeyAlgorithm::P256);
        let out = scene.path().join("foreign.der");
        // The topmost bit set: DER has a leading zero octet.
        let arguments = ["ocsp", "-reqout", out.to_str().unwrap(), "-issuer", &scene.issuer, "-serial", "0xff00112233"];
        openssl(&arguments, b"").unwrap();
        let der = std::fs::read(out).unwrap();
        let request = parse(&der).unwrap();
        assert_eq!(request.questions[0].serial, None);
        assert!(der.windows(request.questions[0].cert_id.len()).any(|window| window == request.questions[0].cert_id));
        scene.judge(&der, &scene.answer(&request, &[Status::Unknown])).unwrap();
    }

    #[test]
    fn signed_requests_and_what_need_not_be_understood_are_tolerated() {
        let scene = Scene::new(KeyAlgorithm::P256);
        let octets = scene.request(&[1], &["-no_nonce"]);
        let plain = parse(&octets).unwrap();
        let holder = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["asker".to_owned()]).unwrap().self_signed(&holder).unwrap();
        let certificate = write(scene.path(), "asker.pem", certificate.pem().as_bytes());
        let key = write(scene.path(), "asker.key", holder.serialize_pem().as_bytes());
        let signed = scene.request(&[1], &["-no_nonce", "-signer", &certificate, "-signkey", &key]);
        assert!(OcspRequest::from_der(&signed).unwrap().optional_signature.is_some());
        assert_eq!(parse(&signed).unwrap(), plain);

        let with = |critical: bool, on_request: bool| {
            let mut request = OcspRequest::from_der(&scene.request(&[1], &["-no_nonce"])).unwrap();
            let extension = x509_cert::ext::Extension {
                // id-pkix-ocsp-service-locator and the like: nothing that we answer by.
                extn_id: ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.7"),
                critical,
                extn_value: der::asn1::OctetString::new([5, 0]).unwrap(),
            };
            let place = if on_request {
                &mut request.tbs_request.request_extensions
            } else {
                &mut request.tbs_request.request_list[0].single_request_extensions
            };
            *place = Some(vec![extension]);
            request.to_der().unwrap()
        };
        for on_request in [true, false] {
            assert_eq!(parse(&with(false, on_request)).unwrap(), plain);
            assert_eq!(parse(&with(true, on_request)), Err(Failure::MalformedRequest));
        }
    }

    #[test]
    fn x509_ocsp_reads_the_answer_field_by_field() {
        let scene = Scene::new(KeyAlgorithm::P256);
        let asked = scene.request(&[1, 2], &[]);
        let request = parse(&asked).unwrap();
        let since = scene.installation.now - Duration::from_secs(60);
        let statuses = [Status::Good, Status::Revoked(since, Some(RevocationReason::KeyCompromise))];
        let der = scene.answer(&request, &statuses);
        let response = x509_ocsp::OcspResponse::from_der(&der).unwrap();
        let bytes = response.response_bytes.unwrap();
        let basic = x509_ocsp::BasicOcspResponse::from_der(bytes.response.as_bytes()).unwrap();
        assert_eq!(basic.to_der().unwrap(), bytes.response.as_bytes(), "DER");
        let data = basic.tbs_response_data;
        assert!(matches!(data.responder_id, x509_ocsp::ResponderId::ByKey(_)));
        let hour = Duration::from_secs(3600);
        for (one, question) in data.responses.iter().zip(&request.questions) {
            assert_eq!(one.cert_id.to_der().unwrap(), tlv(SEQUENCE, &[question.cert_id]));
            assert_eq!(one.this_update.0.to_unix_duration(), data.produced_at.0.to_unix_duration());
            let next = one.next_update.unwrap().0.to_unix_duration();
            assert_eq!(next, one.this_update.0.to_unix_duration() + hour);
        }
        assert!(matches!(data.responses[0].cert_status, x509_ocsp::CertStatus::Good(_)));
        let x509_ocsp::CertStatus::Revoked(info) = data.responses[1].cert_status else { panic!("not revoked") };
        assert_eq!(i64::try_from(info.revocation_time.0.to_unix_duration().as_secs()).unwrap(), since.0);
        assert_eq!(info.revocation_reason, Some(x509_cert::ext::pkix::CrlReason::KeyCompromise));
    }

    #[test]
    fn openssl_reads_the_failures() {
        let scene = Scene::new(KeyAlgorithm::P256);
        let der = scene.request(&[1], &[]);
        for (failed, text) in [
            (Failure::MalformedRequest, "malformedrequest (1)"),
            (Failure::InternalError, "internalerror (2)"),
            (Failure::TryLater, "trylater (3)"),
            (Failure::Unauthorized, "unauthorized (6)"),
        ] {
            let shown = scene.judge(&der, &failure(failed)).unwrap_err();
            assert!(shown.contains(text), "{shown}");
        }
    }
}
