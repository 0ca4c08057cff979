//! P-256 and SHA-256 in Rust, for firmware that has none.

use p256::EncodedPoint;
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{Signature, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::header::SIGNATURE_LENGTH;
use crate::reader::Verify;
use crate::reason::Refusal;

/// A trusted P-256 key.
#[derive(Debug, Clone)]
pub struct P256Key {
    key: VerifyingKey,
    id: [u8; 8],
}

impl P256Key {
    /// A key from its point (SEC 1, uncompressed: 04, x, y).
    ///
    /// # Errors
    /// [`Refusal::BadKey`]
    pub fn from_point(point: &[u8; 65]) -> Result<Self, Refusal> {
        let [4, coordinates @ ..] = point else { return Err(Refusal::BadKey) };
        let uncompressed = EncodedPoint::from_untagged_bytes(coordinates.into());
        let key = VerifyingKey::from_encoded_point(&uncompressed).map_err(|_| Refusal::BadKey)?;
        Ok(Self { key, id: key_id(point) })
    }
}

impl Verify for P256Key {
    fn key_id(&self) -> [u8; 8] {
        self.id
    }

    fn verify(&self, message: &[u8], signature: &[u8; SIGNATURE_LENGTH]) -> bool {
        Signature::from_slice(signature).is_ok_and(|signature| self.key.verify(message, &signature).is_ok())
    }
}

/// The id of the key with this point (SEC 1, uncompressed).
pub fn key_id(point: &[u8; 65]) -> [u8; 8] {
    Sha256::digest(point).first_chunk().copied().unwrap_or_default()
}
