//! Keys in a PKCS#11 token (OASIS PKCS #11 2.40 and later): made there, not extractable, used through a bounded pool of sessions.
//!
//! - `error`: what can be wrong, each by its name.
//! - `module`: the module, the token in it, the login.
//! - `mark`: remembers a PIN that was refused.
//! - `pool`: sessions, bounded; the token's loss and return.
//! - `hands`: threads that call the module, and how long they are waited for.
//! - `objects`: keys as the token's objects: found, made, read.
//! - `encoding`: curves, points and signatures, from PKCS#11's forms to X.509's.

mod encoding;
mod error;
mod hands;
mod mark;
mod module;
mod objects;
mod pool;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use self::hands::Hands;
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
/// A call of the module that takes longer is given up.
const CALL: Duration = Duration::from_secs(10);
/// The same where a key is made.
const SLOW: Duration = Duration::from_secs(60);
/// A token that took no more sessions is asked for more again after so long.
const REST: Duration = Duration::from_secs(60);
/// What a key signs when it is opened, so that one that cannot be used is known at the start. It is no certificate, list or answer.
const TRIAL: &[u8] = b"fleetmark: this key signs";

/// The token, logged in to.
pub struct Token {
    pool: Arc<Pool<Module>>,
    module: Arc<Module>,
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
        let token = Self::load_module(settings)?;
        token.pool.run(|_| Ok(()))?;
        Ok(token)
    }

    /// The same, but one that is not there, or does not answer, is waited for: until it comes it counts as lost.
    ///
    /// # Errors
    /// [`PkiError::Token`] where waiting would not help.
    pub fn open_or_await(settings: TokenSettings) -> Result<Self, PkiError> {
        let token = Self::load_module(settings)?;
        match token.pool.run(|_| Ok(())) {
            Err(error) if error.is_absence() => {
                token.module.await_token();
                token.pool.await_device(&error);
            }
            other => other?,
        }
        Ok(token)
    }

    fn load_module(settings: TokenSettings) -> Result<Self, PkiError> {
        let sessions = settings.sessions.max(1);
        let limits = Limits { sessions, patience: PATIENCE, retry: RETRY, call: CALL, slow: SLOW, rest: REST };
        let hands = Hands::default();
        let module = Arc::new(hands.within(SLOW, || Module::load(settings))??);
        let pool = Arc::new(Pool::new(module.clone(), hands, limits));
        Ok(Self { pool, module, sessions, known: Mutex::default() })
    }

    /// Loads the module and finds the token, without a login: for a look that spends no try.
    ///
    /// # Errors
    /// [`PkiError::Token`]; also where the PIN is locked, unset, or has one try left.
    pub fn look(settings: TokenSettings) -> Result<TokenFacts, PkiError> {
        let info = Hands::default().within(CALL, || Module::load(settings)?.look())??;
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

    /// Lets go of the token, before the process ends: then the module ends too, and a thread that closes a session in it afterwards, as
    /// whoever lets go of this last would, takes the process down. It blocks.
    pub fn rest(&self) {
        self.pool.rest();
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
        Ok(self.pool.run(move |working| working.generator(algorithm).map(drop))?)
    }

    /// Makes a key in the token: sensitive, not extractable.
    ///
    /// # Errors
    /// [`PkiError::Token`].
    pub fn create(&self, label: &str, algorithm: KeyAlgorithm) -> Result<Arc<dyn Signer>, PkiError> {
        let name = label.to_owned();
        let public = self.pool.run_once(move |working| working.generate(&name, algorithm))?;
        self.take_on(label, &public)
    }

    /// Opens a key, and has it sign once.
    ///
    /// # Errors
    /// [`PkiError::Token`].
    pub fn load(&self, label: &str) -> Result<Arc<dyn Signer>, PkiError> {
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(label) {
            return Ok(known.clone());
        }
        let name = label.to_owned();
        let public = self.pool.run(move |working| working.read(&name))?;
        self.take_on(label, &public)
    }

    /// The signer of a key that cannot be looked at now, by the public key that its certificate is for. It is looked at before it signs
    /// for the first time; until then every signature is refused.
    ///
    /// # Errors
    /// [`PkiError::Encoding`] for a public key that is none of ours.
    pub fn expect(&self, label: &str, public_key: &[u8]) -> Result<Arc<dyn Signer>, PkiError> {
        let algorithm = crate::pki::request::algorithm_of(public_key);
        let algorithm =
            algorithm.ok_or_else(|| PkiError::Encoding(format!("the key {label} is certified with another algorithm")))?;
        let signer = TokenSigner {
            pool: self.pool.clone(),
            label: label.into(),
            algorithm,
            public_key: public_key.to_vec(),
            is_proven: AtomicBool::new(false),
        };
        Ok(Arc::new(signer))
    }

    /// Whether the token has a private key of this label.
    ///
    /// # Errors
    /// [`PkiError::Token`] where it cannot be asked.
    pub fn contains(&self, label: &str) -> Result<bool, PkiError> {
        let name = label.to_owned();
        Ok(self.pool.run(move |working| Ok(!working.find(&name)?.is_empty()))?)
    }

    fn take_on(&self, label: &str, public: &Public) -> Result<Arc<dyn Signer>, PkiError> {
        let unusable = |why: &str| TokenError::KeyUnusable { label: label.to_owned(), why: why.to_owned() };
        let info = x509::public_key_info(public.algorithm, &public.key);
        let info = info.ok_or_else(|| unusable("its public key cannot be read"))?;
        let signer = TokenSigner {
            pool: self.pool.clone(),
            label: label.into(),
            algorithm: public.algorithm,
            public_key: info,
            is_proven: AtomicBool::new(false),
        };
        signer.try_it(public)?;
        let signer = Arc::new(signer);
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(label.to_owned(), signer.clone());
        Ok(signer)
    }
}

/// A key in the token.
struct TokenSigner {
    pool: Arc<Pool<Module>>,
    label: Arc<str>,
    algorithm: KeyAlgorithm,
    public_key: Vec<u8>,
    /// Whether the token was seen to have this very key, and to sign with it.
    is_proven: AtomicBool,
}

impl TokenSigner {
    /// Whether the token's key of this label is the one that is expected, and signs.
    fn prove(&self) -> Result<(), PkiError> {
        let label = self.label.clone();
        let public = self.pool.run(move |working| working.read(&label))?;
        if x509::public_key_info(public.algorithm, &public.key).as_deref() != Some(&*self.public_key) {
            return Err(self.unusable("it is not the one that its certificate is for").into());
        }
        self.try_it(&public)
    }

    fn try_it(&self, public: &Public) -> Result<(), PkiError> {
        let signature = self.sign_in_token(TRIAL)?;
        if !encoding::verifies(public.algorithm, &public.key, TRIAL, &signature) {
            return Err(self.unusable("its signature does not verify under its own public key").into());
        }
        self.is_proven.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn unusable(&self, why: &str) -> TokenError {
        TokenError::KeyUnusable { label: self.label.to_string(), why: why.to_owned() }
    }

    fn sign_in_token(&self, message: &[u8]) -> Result<Vec<u8>, PkiError> {
        let (label, algorithm) = (self.label.clone(), self.algorithm);
        let to_sign = encoding::to_sign(algorithm, message);
        let raw = self.pool.run(move |working: &mut Working| working.sign(&label, algorithm, &to_sign))?;
        encoding::signature(algorithm, raw).ok_or(PkiError::Signing)
    }
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
        let proven = if self.is_proven.load(Ordering::Relaxed) { Ok(()) } else { self.prove() };
        let signed = proven.and_then(|()| self.sign_in_token(message));
        metrics::histogram!("fleetmark_pkcs11_seconds").record(started.elapsed().as_secs_f64());
        signed.inspect_err(|error| {
            let kind = if let PkiError::Token(error) = error { error.kind() } else { "refused" };
            metrics::counter!("fleetmark_pkcs11_failures_total", "kind" => kind).increment(1);
        })
    }

    fn waits(&self) -> bool {
        true
    }
}
