//! Keys as the token's objects: found by label, made, read, used.

use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use ring::digest::{SHA256, digest};

use super::encoding::{self, curves};
use super::error::TokenError;
use super::module::Working;
use crate::pki::keys::KeyAlgorithm;

/// A key's public half.
#[derive(Debug)]
pub(super) struct Public {
    pub algorithm: KeyAlgorithm,
    /// As X.509 has it: a point or 32 octets.
    pub key: Vec<u8>,
}

impl Working {
    /// The private keys of this label.
    pub(super) fn find(&self, label: &str) -> Result<Vec<ObjectHandle>, TokenError> {
        Ok(self.session.find_objects(&[
            Attribute::Token(true),
            Attribute::Class(ObjectClass::PRIVATE_KEY),
            Attribute::Label(label.as_bytes().to_vec()),
        ])?)
    }

    /// The one private key of this label; looked up once in a session.
    fn private(&mut self, label: &str) -> Result<ObjectHandle, TokenError> {
        if let Some(known) = self.keys.get(label) {
            return Ok(*known);
        }
        let (token, name) = (self.token.name.to_string(), label.to_owned());
        match *self.find(label)?.as_slice() {
            [one] => {
                self.keys.insert(name, one);
                Ok(one)
            }
            [] => Err(TokenError::KeyMissing { token, label: name }),
            _ => Err(TokenError::KeyTwice { token, label: name }),
        }
    }

    /// Signs. `to_sign` is what [`encoding::to_sign`] gives; the answer is the token's raw signature.
    pub(super) fn sign(&mut self, label: &str, algorithm: KeyAlgorithm, to_sign: &[u8]) -> Result<Vec<u8>, TokenError> {
        let key = self.private(label)?;
        let mechanism = match algorithm {
            KeyAlgorithm::Ed25519 => Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519)),
            _ => Mechanism::Ecdsa,
        };
        Ok(self.session.sign(&mechanism, key, to_sign)?)
    }

    /// Reads a key's algorithm and public half, and refuses one that cannot be an authority's.
    pub(super) fn read(&mut self, label: &str) -> Result<Public, TokenError> {
        let private = self.private(label)?;
        let unusable = |why: String| TokenError::KeyUnusable { label: label.to_owned(), why };
        let wanted = [AttributeType::KeyType, AttributeType::Sign, AttributeType::Extractable, AttributeType::EcParams];
        let mut parameters = None;
        for attribute in self.session.get_attributes(private, &wanted)? {
            match attribute {
                Attribute::KeyType(KeyType::EC | KeyType::EC_EDWARDS) => {}
                Attribute::KeyType(other) => return Err(unusable(format!("it is of the type {other}, not EC or Ed25519"))),
                Attribute::Sign(false) => return Err(unusable("the token does not let it sign (CKA_SIGN)".to_owned())),
                Attribute::Extractable(true) => {
                    return Err(unusable("it can be taken out of the token (CKA_EXTRACTABLE)".to_owned()));
                }
                Attribute::EcParams(octets) => parameters = Some(octets),
                _ => {}
            }
        }
        let publics = self.session.find_objects(&[
            Attribute::Token(true),
            Attribute::Class(ObjectClass::PUBLIC_KEY),
            Attribute::Label(label.as_bytes().to_vec()),
        ])?;
        // Some tokens keep the point with the private key.
        let public = publics.first().copied().unwrap_or(private);
        let Point { point, parameters: named } = point(&self.session, public)?;
        let parameters = parameters.or(named).unwrap_or_default();
        let algorithm = encoding::algorithm(&parameters)
            .ok_or_else(|| unusable("its curve is neither P-256 nor P-384 nor Ed25519".to_owned()))?;
        let key = point.as_deref().and_then(|point| encoding::public_key(algorithm, point));
        let key = key.ok_or_else(|| unusable("the token has no public key for it (CKA_EC_POINT)".to_owned()))?;
        Ok(Public { algorithm, key: key.to_vec() })
    }

    /// Makes a key pair.
    pub(super) fn generate(&mut self, label: &str, algorithm: KeyAlgorithm) -> Result<Public, TokenError> {
        if !self.find(label)?.is_empty() {
            return Err(TokenError::KeyExists { token: self.token.name.to_string(), label: label.to_owned() });
        }
        let mechanism = self.generator(algorithm)?;
        // Objects of the token are made in a session of their own that may write.
        let session = self.library.open_rw_session(self.token.slot)?;
        let mut refused = String::new();
        for curve in curves(algorithm) {
            match session.generate_key_pair(&mechanism, &public_template(label, curve), &private_template(label)) {
                Ok((public, private)) => return made(&session, label, algorithm, public, private),
                Err(Error::Pkcs11(answer, _)) if is_of_the_curve(answer) => refused = format!("{answer:?}"),
                Err(error) => return Err(error.into()),
            }
        }
        Err(self.lacks(algorithm, refused))
    }

    /// The mechanism that makes keys of this algorithm, where the token has it and the one that signs.
    pub(super) fn generator(&self, algorithm: KeyAlgorithm) -> Result<Mechanism<'static>, TokenError> {
        let (generator, makes, signs) = match algorithm {
            KeyAlgorithm::P256 | KeyAlgorithm::P384 => {
                (Mechanism::EccKeyPairGen, MechanismType::ECC_KEY_PAIR_GEN, MechanismType::ECDSA)
            }
            KeyAlgorithm::Ed25519 => {
                (Mechanism::EccEdwardsKeyPairGen, MechanismType::ECC_EDWARDS_KEY_PAIR_GEN, MechanismType::EDDSA)
            }
            KeyAlgorithm::Rsa => return Err(self.lacks(algorithm, "authorities have no RSA keys".to_owned())),
        };
        match [makes, signs].into_iter().find(|wanted| !self.token.mechanisms.contains(wanted)) {
            Some(missing) => Err(self.lacks(algorithm, format!("it lacks {missing}"))),
            None => Ok(generator),
        }
    }

    fn lacks(&self, algorithm: KeyAlgorithm, why: String) -> TokenError {
        TokenError::Algorithm { token: self.token.name.to_string(), algorithm, why }
    }
}

/// What is refused because of the curve, or of the form in which it is named.
const fn is_of_the_curve(answer: RvError) -> bool {
    matches!(
        answer,
        RvError::CurveNotSupported
            | RvError::DomainParamsInvalid
            | RvError::AttributeValueInvalid
            | RvError::TemplateInconsistent
            | RvError::MechanismInvalid
            | RvError::MechanismParamInvalid
    )
}

/// `CKA_ID`, which ties the two halves together for other tools: from the label, so that it is known without the key.
fn id(label: &str) -> Vec<u8> {
    digest(&SHA256, label.as_bytes()).as_ref().iter().copied().take(16).collect()
}

fn public_template(label: &str, curve: &[u8]) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Verify(true),
        Attribute::EcParams(curve.to_vec()),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Id(id(label)),
    ]
}

fn private_template(label: &str) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        // Some tokens would let a key do all that they can.
        Attribute::Sign(true),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Id(id(label)),
    ]
}

/// Reads what was made; a key that the token made otherwise than it was asked to is destroyed.
fn made(
    session: &Session,
    label: &str,
    algorithm: KeyAlgorithm,
    public: ObjectHandle,
    private: ObjectHandle,
) -> Result<Public, TokenError> {
    let read = || {
        let unusable = |why: &str| TokenError::KeyUnusable { label: label.to_owned(), why: why.to_owned() };
        let guarded = session.get_attributes(private, &[AttributeType::Sensitive, AttributeType::Extractable])?;
        if guarded.contains(&Attribute::Sensitive(false)) || guarded.contains(&Attribute::Extractable(true)) {
            return Err(unusable("the token made it so that it can be taken out"));
        }
        let point = point(session, public)?.point;
        let key = point.as_deref().and_then(|point| encoding::public_key(algorithm, point));
        let key = key.ok_or_else(|| unusable("its public key cannot be read (CKA_EC_POINT)"))?;
        Ok(Public { algorithm, key: key.to_vec() })
    };
    read().inspect_err(|_| {
        for object in [private, public] {
            if let Err(error) = session.destroy_object(object) {
                tracing::warn!(%error, label, "a key of no use stays in the token");
            }
        }
    })
}

/// What a public key's object says, where it says it.
#[derive(Default)]
struct Point {
    /// `CKA_EC_POINT`
    point: Option<Vec<u8>>,
    /// `CKA_EC_PARAMS`
    parameters: Option<Vec<u8>>,
}

fn point(session: &Session, object: ObjectHandle) -> Result<Point, TokenError> {
    let mut found = Point::default();
    for attribute in session.get_attributes(object, &[AttributeType::EcPoint, AttributeType::EcParams])? {
        match attribute {
            Attribute::EcPoint(octets) => found.point = Some(octets),
            Attribute::EcParams(octets) => found.parameters = Some(octets),
            _ => {}
        }
    }
    Ok(found)
}
