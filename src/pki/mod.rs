//! Keys, certificates, revocation lists and OCSP answers: what is encoded, checked and signed. Knows neither who asks
//! nor where anything is kept, and reads no clock.
//!
//! - [`keys`]: private keys, in encrypted files that openssl reads or in a PKCS#11 token, and what signs with them
//!   ([`keys::Signer`]).
//! - [`csr`]: certificate requests, parsed and verified by checks of our own.
//! - [`asked`]: what a request asks for beside its key, held against what a profile allows; nothing of it is ever granted.
//! - [`weak`]: keys that are refused by name.
//! - [`profile`]: the text files under `certs/profiles` that say what a certificate looks like.
//! - [`issue`]: template, lint, signature; only linted octets are signed.
//! - [`lint`]: the rules that every certificate must pass before the real key signs it.
//! - [`csrattrs`]: what EST clients are asked to put into their requests.
//! - [`keygen`]: keys made for devices that cannot make their own.
//! - [`renewed`]: whether a request to renew names whom the current certificate names.
//! - [`crl`]: revocation lists.
//! - [`ocsp`]: OCSP requests and answers.
//! - [`idevid`]: makers' certificates: verified, and what they say.
//! - [`foreign`]: other authorities' certificates, revocation lists and OCSP answers.
//! - [`bundle`]: PEM and certs-only PKCS#7.
//! - [`trust_bundle`]: which roots are trusted, signed by roots' keys.
//! - [`anchors`]: the CA certificates of makers.
//! - [`above`]: what a corporate authority certified for us.
//! - [`detached`]: signatures over texts that people keep.
//! - [`request`]: our own authorities' requests, and revocation lists of others.
//! - [`tpm`]: keys in a TPM 2.0, and secrets for one TPM alone.

pub mod above;
pub mod anchors;
pub mod asked;
pub mod bundle;
pub mod crl;
pub mod csr;
pub mod csrattrs;
pub mod detached;
mod encoding;
pub mod foreign;
pub mod idevid;
pub mod issue;
pub mod keygen;
pub mod keys;
pub mod lint;
pub mod ocsp;
pub mod profile;
pub mod renewed;
pub mod request;
#[cfg(test)]
pub(crate) mod testing;
pub mod tpm;
pub mod trust_bundle;
pub mod weak;

/// Why this room could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The key file cannot be read or written.
    #[error("the key file {path} cannot be used")]
    KeyFile {
        /// Which file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is no such key file.
    #[error("there is no key file {0}")]
    KeyMissing(std::path::PathBuf),
    /// There is such a key file already; keys are never overwritten.
    #[error("there is a key file {0} already")]
    KeyExists(std::path::PathBuf),
    /// Others than the owner may read or write the key file.
    #[error("the key file {0} is open to others; only its owner may have access (chmod 600)")]
    KeyPermissions(std::path::PathBuf),
    /// The label is not 1 to 64 of `[a-z0-9-]`.
    #[error("{0:?} is no label of a key: lower-case letters, digits and dashes, at most 64")]
    KeyLabel(String),
    /// The passphrase does not open the key file.
    #[error("the passphrase does not open the key file {0}")]
    WrongPassphrase(std::path::PathBuf),
    /// The key file holds no key that we can use.
    #[error("the key file {0} is damaged")]
    DamagedKey(std::path::PathBuf),
    /// A key in the PKCS#11 token cannot be used.
    #[error(transparent)]
    Token(#[from] keys::pkcs11::TokenError),
    /// The key is not the one that the certificate is for.
    #[error("the key {0} is not the one that its certificate is for")]
    KeyMismatch(String),
    /// The signing key failed.
    #[error("the key could not sign")]
    Signing,
    /// A certificate of our own cannot be read.
    #[error("a certificate of this installation cannot be read: {0}")]
    Certificate(String),
    /// What should be a maker's CA certificates is not.
    #[error("{0}")]
    Anchor(String),
    /// A profile is wrong.
    #[error("the profile {name} is wrong: {why}")]
    Profile {
        /// Which profile.
        name: String,
        /// What is wrong, and where.
        why: String,
    },
    /// A list of known keys cannot be used.
    #[error("the list of known keys {path} cannot be used: {why}")]
    WeakList {
        /// Which file or directory.
        path: std::path::PathBuf,
        /// Why.
        why: String,
    },
    /// The linter refused what was about to be signed.
    #[error("the linter refused the certificate: {0:?}")]
    Lint(Vec<lint::Finding>),
    /// A signature is none by the key that it should be by.
    #[error("the signature is not by this key, or not over this text")]
    BadSignature,
    /// A revocation list cannot be used.
    #[error("the revocation list cannot be used: {0}")]
    List(String),
    /// The encoder failed.
    #[error("encoding failed: {0}")]
    Encoding(String),
}
