//! Keys in a PKCS#11 token (OASIS PKCS #11 2.40 and later): made there, not extractable, used through a bounded pool of sessions.
//!
//! - `error`: what can be wrong, each by its name.
//! - `module`: the module, the token in it, the login.
//! - `mark`: remembers a PIN that was refused.
//! - `pool`: sessions, bounded; the token's loss and return.
//! - `objects`: keys as the token's objects: found, made, read.
//! - `encoding`: curves, points and signatures, from PKCS#11's forms to X.509's.

mod encoding;
mod error;
mod mark;
mod module;
mod objects;
mod pool;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use self::module::{Module, Working};
use self::objects::Public;
use self::pool::{Limits, Pool};
use super::{KeyAlgorithm, Signer};
use crate::pki::{PkiError, encoding as x509};
pub use error::TokenError;
pub use mark::Mark;
pub use module::TokenSettings;

/// Who waits longer for a session is refused.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// A lost token is tried again after so long.
const RETRY: Duration = Duration::from_secs(1);
/// What a key signs when it is opened, so that one that cannot be used is known at the start. It is no certificate, list or answer.
const TRIAL: &[u8] = b"fleetmark: this key signs";

/// The token, logged in to.
pub struct Token {
    pool: Arc<Pool<Module>>,
    sessions: usize,
    /// Keys that were opened: a signer holds no session, and its public key never changes.
    known: Mutex<HashMap<String, Arc<TokenSigner>>>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("sessions", &self.sessions).finish_non_exhaustive()
    }
}

/// What a token says of itself, without a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFacts {
    /// Its label.
    pub label: String,
    /// Its serial number.
    pub serial: String,
    /// Its maker and model.
    pub model: String,
}

impl Token {
    /// Loads the module, finds the token and logs in; one try.
    ///
    /// # Errors
    /// [`PkiError::Token`].
    pub fn open(settings: TokenSettings) -> Result<Self, PkiError> {
        let sessions = settings.sessions.max(1);
        let limits = Limits { sessions, patience: PATIENCE, retry: RETRY };
        let pool = Arc::new(Pool::new(Module::load(settings)?, limits));
        pool.run(|_| Ok(()))?;
        Ok(Self { pool, sessions, known: Mutex::default() })
    }

    /// Loads the module and finds the token, without a login: for a look that spends no try.
    ///
    /// # Errors
    /// [`PkiError::Token`]; also where the PIN is locked, unset, or has one try left.
    pub fn look(settings: TokenSettings) -> Result<TokenFacts, PkiError> {
        let info = Module::load(settings)?.look()?;
        let model = format!("{} {}", info.manufacturer_id().trim(), info.model().trim());
        Ok(TokenFacts { label: info.label().trim().to_owned(), serial: info.serial_number().trim().to_owned(), model })
    }

    /// How many sessions are used at once, at most.
    pub const fn sessions(&self) -> usize {
        self.sessions
    }

    /// Whether the token answers, as far as is known: it is asked when something is signed.
    pub fn is_up(&self) -> bool {
        self.pool.is_up()
    }

    /// Looks for the token where it is lost. It blocks.
    pub fn revive(&self) {
        if !self.is_up() {
            // Whether it is back is told by the number of connections.
            let _ = self.pool.run(|_| Ok(()));
        }
    }

    /// Counts the connections: after a loss it is another.
    pub fn connections(&self) -> u64 {
        self.pool.connection()
    }

    /// Whether the token has keys of this algorithm.
    ///
    /// # Errors
    /// [`PkiError::Token`] where it does not, or cannot be asked.
    pub fn check(&self, algorithm: KeyAlgorithm) -> Result<(), PkiError> {
        Ok(self.pool.run(|working| working.generator(algorithm).map(drop))?)
    }

    /// Makes a key in the token: sensitive, not extractable.
    ///
    /// # Errors
    /// [`PkiError::Token`].
    pub fn create(&self, label: &str, algorithm: KeyAlgorithm) -> Result<Arc<dyn Signer>, PkiError> {
        let public = self.pool.run_once(|working| working.generate(label, algorithm))?;
        self.take_on(label, public)
    }

    /// Opens a key, and has it sign once.
    ///
    /// # Errors
    /// [`PkiError::Token`].
    pub fn load(&self, label: &str) -> Result<Arc<dyn Signer>, PkiError> {
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(label) {
            return Ok(known.clone());
        }
        let public = self.pool.run(|working| working.read(label))?;
        self.take_on(label, public)
    }

    /// Whether the token has a private key of this label.
    ///
    /// # Errors
    /// [`PkiError::Token`] where it cannot be asked.
    pub fn contains(&self, label: &str) -> Result<bool, PkiError> {
        Ok(self.pool.run(|working| Ok(!working.find(label)?.is_empty()))?)
    }

    fn take_on(&self, label: &str, public: Public) -> Result<Arc<dyn Signer>, PkiError> {
        let unusable = |why: &str| TokenError::KeyUnusable { label: label.to_owned(), why: why.to_owned() };
        let Public { algorithm, key } = public;
        let info = x509::public_key_info(algorithm, &key).ok_or_else(|| unusable("its public key cannot be read"))?;
        let signer = Arc::new(TokenSigner { pool: self.pool.clone(), label: label.to_owned(), algorithm, public_key: info });
        let signature = signer.sign(TRIAL)?;
        if !encoding::verifies(algorithm, &key, TRIAL, &signature) {
            return Err(unusable("its signature does not verify under its own public key").into());
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(label.to_owned(), signer.clone());
        Ok(signer)
    }
}

/// A key in the token.
struct TokenSigner {
    pool: Arc<Pool<Module>>,
    label: String,
    algorithm: KeyAlgorithm,
    public_key: Vec<u8>,
}

impl fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSigner")
            .field("label", &self.label)
            .field("algorithm", &self.algorithm)
            .field("public_key", &hex::encode(&self.public_key))
            .finish_non_exhaustive()
    }
}

impl Signer for TokenSigner {
    fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PkiError> {
        let started = Instant::now();
        let to_sign = encoding::to_sign(self.algorithm, message);
        let signed = self.pool.run(|working: &mut Working| working.sign(&self.label, self.algorithm, &to_sign));
        metrics::histogram!("fleetmark_pkcs11_seconds").record(started.elapsed().as_secs_f64());
        let raw = signed.inspect_err(|error| {
            metrics::counter!("fleetmark_pkcs11_failures_total", "kind" => error.kind()).increment(1);
        })?;
        encoding::signature(self.algorithm, raw).ok_or(PkiError::Signing)
    }

    fn waits(&self) -> bool {
        true
    }
}
