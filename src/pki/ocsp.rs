//! OCSP (RFC 6960, profile of RFC 5019, nonce of RFC 9654).

use fleetmark_domain::{RevocationReason, Serial, Timestamp};

use super::PkiError;
use super::issue::Issuer;

/// The largest OCSP request, in octets.
pub const MAX_REQUEST: usize = 4 * 1024;
/// The most certificates that one request may ask for.
pub const MAX_QUESTIONS: usize = 32;

/// A request, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What it asks for, in its order.
    pub questions: Vec<Question>,
    /// The nonce: 1 to 128 octets (RFC 9654 2.1).
    pub nonce: Option<Vec<u8>>,
}

/// One CertID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The CertID in DER, given back as it came.
    pub cert_id: Vec<u8>,
    /// Digest of the issuer's name.
    pub issuer_name_hash: Vec<u8>,
    /// Digest of the issuer's key.
    pub issuer_key_hash: Vec<u8>,
    /// Which digest: SHA-1 or SHA-256.
    pub digest: CertIdDigest,
    /// The serial; None for one that we never write.
    pub serial: Option<Serial>,
}

/// The digest of a CertID.
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

/// The issuer hashes by which CertIDs name an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerHashes {
    /// SHA-1 of name and key.
    pub sha1: (Vec<u8>, Vec<u8>),
    /// SHA-256 of name and key.
    pub sha256: (Vec<u8>, Vec<u8>),
}

impl IssuerHashes {
    /// Of an authority's certificate in DER.
    pub fn of(_certificate: &[u8]) -> Result<Self, PkiError> {
        todo!()
    }

    /// Whether the question is about this authority.
    pub fn fits(&self, question: &Question) -> bool {
        let (name, key) = match question.digest {
            CertIdDigest::Sha1 => &self.sha1,
            CertIdDigest::Sha256 => &self.sha256,
        };
        *name == question.issuer_name_hash && *key == question.issuer_key_hash
    }
}

/// Reads a request.
pub fn parse(_der: &[u8]) -> Result<Request, Failure> {
    todo!()
}

/// Signs an answer; the responder's certificate goes with it.
pub fn respond(
    _responder: &Issuer,
    _answers: &[(Question, Status)],
    _nonce: Option<&[u8]>,
    _this_update: Timestamp,
    _next_update: Timestamp,
) -> Result<Vec<u8>, PkiError> {
    todo!()
}

/// An unsigned answer.
pub fn failure(_failure: Failure) -> Vec<u8> {
    todo!()
}
