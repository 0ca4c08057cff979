//! `TPM2B_PUBLIC` (Part 2, 12.2.5), of the two kinds of key that we take: RSA and ECC. Nothing may follow, nothing may be missing.

use ring::digest::{Algorithm, SHA256, SHA384, SHA512, digest};
use rsa::pkcs8::{DecodePublicKey, EncodePublicKey};
use rsa::traits::PublicKeyParts;
use rsa::{BigUint, RsaPublicKey};

use super::{MAX_PUBLIC, TpmError};

// TPM_ALG_ID (Part 2, 6.3).
const RSA: u16 = 0x0001;
const AES: u16 = 0x0006;
const ALG_SHA256: u16 = 0x000b;
const ALG_SHA384: u16 = 0x000c;
const ALG_SHA512: u16 = 0x000d;
const NULL: u16 = 0x0010;
const RSASSA: u16 = 0x0014;
const RSAES: u16 = 0x0015;
const RSAPSS: u16 = 0x0016;
const OAEP: u16 = 0x0017;
const ECDSA: u16 = 0x0018;
const ECC: u16 = 0x0023;
const CFB: u16 = 0x0043;

// TPM_ECC_CURVE (Part 2, 6.4).
const NIST_P256: u16 = 0x0003;
const NIST_P384: u16 = 0x0004;

// TPMA_OBJECT (Part 2, 8.3).
const FIXED_TPM: u32 = 1 << 1;
const FIXED_PARENT: u32 = 1 << 4;
const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
const ENCRYPTED_DUPLICATION: u32 = 1 << 11;
const RESTRICTED: u32 = 1 << 16;
const DECRYPT: u32 = 1 << 17;
const SIGN: u32 = 1 << 18;
/// Those and stClear (2), userWithAuth (6), adminWithPolicy (7), noDA (10), x509sign (19); the others are reserved and zero.
const KNOWN: u32 = 0x000f_0cf6;
const X509_SIGN: u32 = 1 << 19;

/// The longest digest, in octets: SHA-512.
const MAX_DIGEST: usize = 64;

/// The heads of a `SubjectPublicKeyInfo` (RFC 5480 2) in DER, up to and with the `04` of an uncompressed point.
const P256_HEAD: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
    0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
const P384_HEAD: [u8; 24] = [
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22,
    0x03, 0x62, 0x00, 0x04,
];

/// A TPM's endorsement key: the public key, and no word of where it lives. That it lives in a TPM is what the operator says who
/// registers it; that the TPM is the one that asks is what [`super::make_credential`] is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndorsementKey {
    pub(super) key: Material,
    spki: Vec<u8>,
}

impl EndorsementKey {
    /// Reads a `TPM2B_PUBLIC`: RSA with 2048 bits or ECC with P-256, name algorithm SHA-256, a storage key with AES-128 in CFB, as of the
    /// templates L-1, L-2, H-1 and H-2 of the EK profile (B.3, B.4).
    ///
    /// # Errors
    /// [`TpmError::Malformed`], [`TpmError::NotEndorsementKey`].
    pub fn from_tpm(octets: &[u8]) -> Result<Self, TpmError> {
        let no = |why| Err(TpmError::NotEndorsementKey(why));
        let area = Public::parse(octets)?;
        let must = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | RESTRICTED | DECRYPT;
        if area.attributes & (must | SIGN | ENCRYPTED_DUPLICATION | X509_SIGN) != must {
            return no("its attributes are not those of a restricted decryption key that never leaves its TPM");
        }
        if area.name_algorithm != ALG_SHA256 {
            return no("its name algorithm is not SHA-256");
        }
        if area.symmetric != Some((AES, 128, CFB)) {
            return no("its symmetric algorithm is not AES-128 in CFB mode");
        }
        if area.scheme.is_some() {
            return no("it has a scheme");
        }
        Self::new(area.material)
    }

    /// Reads a `SubjectPublicKeyInfo` in DER, of the same kinds of key.
    ///
    /// # Errors
    /// [`TpmError::Malformed`], [`TpmError::NotEndorsementKey`].
    pub fn from_spki(der: &[u8]) -> Result<Self, TpmError> {
        let malformed = || TpmError::Malformed("no SubjectPublicKeyInfo in DER");
        let key = if let Some(point) = der.strip_prefix(&P256_HEAD) {
            let (x, y) = point.split_at_checked(32).ok_or_else(malformed)?;
            Material::Ecc { curve: NIST_P256, x: x.to_vec(), y: y.to_vec() }
        } else {
            let key = RsaPublicKey::from_public_key_der(der).map_err(|_| malformed())?;
            let exponent = if *key.e() == BigUint::from(65_537_u32) { 65_537 } else { 0 };
            Material::Rsa { modulus: key.n().to_bytes_be(), exponent }
        };
        let own = Self::new(key)?;
        // Any other encoding of the same key would be another key's hash.
        if own.spki == der { Ok(own) } else { Err(malformed()) }
    }

    fn new(key: Material) -> Result<Self, TpmError> {
        match &key {
            Material::Rsa { modulus, exponent: 65_537 } if modulus.len() == 256 => {}
            Material::Rsa { .. } => {
                return Err(TpmError::NotEndorsementKey("its RSA key has not 2048 bits, or not the exponent 65537"));
            }
            Material::Ecc { curve: NIST_P256, x, y } if x.len() == 32 && y.len() == 32 => {}
            Material::Ecc { .. } => return Err(TpmError::NotEndorsementKey("its curve is not P-256")),
        }
        let spki = key.spki()?;
        if let Material::Ecc { .. } = key
            && p256::PublicKey::from_sec1_bytes(spki.get(P256_HEAD.len() - 1..).unwrap_or_default()).is_err()
        {
            return Err(TpmError::Malformed("its point is not on the curve"));
        }
        Ok(Self { key, spki })
    }

    /// Its `SubjectPublicKeyInfo` in DER.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }
}

/// A key that was made in a TPM, and cannot leave it: so says its public area, and so it is where a TPM knows the key by [`Self::name`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertifiableKey {
    name: Vec<u8>,
    spki: Vec<u8>,
}

impl CertifiableKey {
    /// Reads a `TPM2B_PUBLIC`.
    ///
    /// A restricted key signs what its TPM made alone, and so no certificate request; a key that decrypts too could be used to
    /// read what was encrypted to it.
    ///
    /// # Errors
    /// [`TpmError::Malformed`], [`TpmError::NotCertifiable`].
    pub fn from_tpm(octets: &[u8]) -> Result<Self, TpmError> {
        let no = |why| Err(TpmError::NotCertifiable(why));
        let area = Public::parse(octets)?;
        let is = |attribute| area.attributes & attribute != 0;
        if !is(FIXED_TPM) {
            return no("it is not fixed to its TPM (fixedTPM)");
        }
        if !is(FIXED_PARENT) || is(ENCRYPTED_DUPLICATION) {
            return no("it can be moved to another parent (fixedParent, encryptedDuplication)");
        }
        if !is(SENSITIVE_DATA_ORIGIN) {
            return no("it was not made in the TPM (sensitiveDataOrigin)");
        }
        if !is(SIGN) || is(X509_SIGN) {
            return no("it does not sign, or certificates alone (sign, x509sign)");
        }
        if is(DECRYPT) || is(RESTRICTED) {
            return no("it decrypts, or is restricted (decrypt, restricted)");
        }
        let algorithm: &'static Algorithm = match area.name_algorithm {
            ALG_SHA256 => &SHA256,
            ALG_SHA384 => &SHA384,
            ALG_SHA512 => &SHA512,
            _ => return no("its name algorithm is not SHA-256, SHA-384 or SHA-512"),
        };
        // Part 1, 16: nameAlg, then the digest of the public area by it.
        let name = [&area.name_algorithm.to_be_bytes(), digest(algorithm, area.octets).as_ref()].concat();
        Ok(Self { name, spki: area.material.spki()? })
    }

    /// The name by which a TPM knows it: `TPM_ALG_ID`, then a digest over its public area.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Its `SubjectPublicKeyInfo` in DER.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Material {
    /// Big-endian.
    Rsa { modulus: Vec<u8>, exponent: u32 },
    /// Coordinates as long as the field's elements, big-endian.
    Ecc { curve: u16, x: Vec<u8>, y: Vec<u8> },
}

impl Material {
    fn spki(&self) -> Result<Vec<u8>, TpmError> {
        match self {
            Self::Ecc { curve: NIST_P256, x, y } => Ok([&P256_HEAD[..], x, y].concat()),
            Self::Ecc { x, y, .. } => Ok([&P384_HEAD[..], x, y].concat()),
            Self::Rsa { modulus, exponent } => {
                let key = RsaPublicKey::new(BigUint::from_bytes_be(modulus), BigUint::from(*exponent))
                    .map_err(|_| TpmError::Malformed("its RSA key is none"))?;
                let der = key.to_public_key_der().map_err(|_| TpmError::Malformed("its RSA key is none"))?;
                Ok(der.into_vec())
            }
        }
    }
}

/// `TPMT_PUBLIC` (Part 2, 12.2.4).
struct Public<'a> {
    /// As it came; the name is computed over this.
    octets: &'a [u8],
    name_algorithm: u16,
    attributes: u32,
    /// Algorithm, bits, mode.
    symmetric: Option<(u16, u16, u16)>,
    scheme: Option<u16>,
    material: Material,
}

impl<'a> Public<'a> {
    fn parse(octets: &'a [u8]) -> Result<Self, TpmError> {
        if octets.len() > MAX_PUBLIC {
            return Err(TpmError::Malformed("it is too long"));
        }
        let mut outer = Reader(octets);
        let octets = outer.sized(MAX_PUBLIC)?;
        outer.end()?;
        let mut reader = Reader(octets);
        let (kind, name_algorithm, attributes) = (reader.u16()?, reader.u16()?, reader.u32()?);
        if attributes & !KNOWN != 0 {
            return Err(TpmError::Malformed("reserved attributes are set"));
        }
        reader.sized(MAX_DIGEST)?;
        let symmetric = match reader.u16()? {
            NULL => None,
            algorithm => Some((algorithm, reader.u16()?, reader.u16()?)),
        };
        let scheme = match (kind, reader.u16()?) {
            (_, NULL) => None,
            (RSA, RSAES) => Some(RSAES),
            (RSA, scheme @ (RSASSA | RSAPSS | OAEP)) | (ECC, scheme @ ECDSA) => {
                reader.u16()?;
                Some(scheme)
            }
            _ => return Err(TpmError::Malformed("its scheme is not known here")),
        };
        let material = match kind {
            RSA => reader.rsa()?,
            ECC => reader.ecc()?,
            _ => return Err(TpmError::Malformed("it is neither an RSA nor an ECC key")),
        };
        reader.end()?;
        Ok(Self { octets, name_algorithm, attributes, symmetric, scheme, material })
    }
}

/// What is left to read. All numbers are big-endian (Part 1, 4.2).
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], TpmError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(TpmError::Malformed("it breaks off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, TpmError> {
        let octets = self.take(2)?.try_into().map_err(|_| TpmError::Malformed("it breaks off"))?;
        Ok(u16::from_be_bytes(octets))
    }

    fn u32(&mut self) -> Result<u32, TpmError> {
        let octets = self.take(4)?.try_into().map_err(|_| TpmError::Malformed("it breaks off"))?;
        Ok(u32::from_be_bytes(octets))
    }

    /// A `TPM2B_` structure's octets, at most `most`.
    fn sized(&mut self, most: usize) -> Result<&'a [u8], TpmError> {
        let length = usize::from(self.u16()?);
        if length > most {
            return Err(TpmError::Malformed("a part of it is too long"));
        }
        self.take(length)
    }

    fn end(&self) -> Result<(), TpmError> {
        if self.0.is_empty() { Ok(()) } else { Err(TpmError::Malformed("octets follow it")) }
    }

    /// `TPMS_RSA_PARMS` (Part 2, 12.2.3.5) after its scheme, and `TPM2B_PUBLIC_KEY_RSA`.
    fn rsa(&mut self) -> Result<Material, TpmError> {
        let (bits, exponent) = (self.u16()?, self.u32()?);
        if !matches!(bits, 2048 | 3072 | 4096) {
            return Err(TpmError::Malformed("its RSA key has not 2048, 3072 or 4096 bits"));
        }
        let modulus = self.sized(512)?;
        // The first bit is one, or the key is shorter than it says.
        if modulus.len() != usize::from(bits / 8) || modulus.first().is_none_or(|first| first & 0x80 == 0) {
            return Err(TpmError::Malformed("its RSA key is not as long as it says"));
        }
        // Zero is the default exponent.
        Ok(Material::Rsa { modulus: modulus.to_vec(), exponent: if exponent == 0 { 65_537 } else { exponent } })
    }

    /// `TPMS_ECC_PARMS` (Part 2, 12.2.3.6) after its scheme, and `TPMS_ECC_POINT`.
    fn ecc(&mut self) -> Result<Material, TpmError> {
        let curve = self.u16()?;
        let size = match curve {
            NIST_P256 => 32,
            NIST_P384 => 48,
            _ => return Err(TpmError::Malformed("its curve is neither P-256 nor P-384")),
        };
        if self.u16()? != NULL {
            return Err(TpmError::Malformed("it has a key derivation function"));
        }
        let (x, y) = (self.coordinate(size)?, self.coordinate(size)?);
        Ok(Material::Ecc { curve, x, y })
    }

    /// Some TPMs leave zeros at the front out; in a `SubjectPublicKeyInfo` they stand.
    fn coordinate(&mut self, size: usize) -> Result<Vec<u8>, TpmError> {
        let octets = self.sized(size)?;
        let mut padded = vec![0; size - octets.len()];
        padded.extend_from_slice(octets);
        Ok(padded)
    }
}
