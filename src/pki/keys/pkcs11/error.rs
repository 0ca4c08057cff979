//! What can be wrong with a token, each by its name, and what to do.

use std::path::PathBuf;

use cryptoki::error::{Error, RvError};

use crate::pki::keys::KeyAlgorithm;

/// Why the token did not do what it was asked. None of it tells a PIN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// A key is in a token, and none is configured.
    #[error("the key {0} is in a PKCS#11 token, and none is configured: set keys.pkcs11.module and keys.pkcs11.token")]
    NotConfigured(String),
    /// A key in the token was asked for as octets.
    #[error("the key {0} is in the token and never leaves it")]
    NotExportable(String),
    /// The module's file cannot be loaded.
    #[error("the PKCS#11 module {path} cannot be loaded ({why}): install it, or correct keys.pkcs11.module")]
    Module {
        /// The file.
        path: PathBuf,
        /// What the loader says.
        why: String,
    },
    /// The module does not begin: its own configuration is wrong, or what it connects to is not there.
    #[error(
        "the PKCS#11 module {path} does not begin (C_Initialize: {why}): is its own configuration right, and what it connects to there?"
    )]
    NotBegun {
        /// The file.
        path: PathBuf,
        /// What it says.
        why: String,
    },
    /// The module cannot be used by several threads at once.
    #[error("the PKCS#11 module {0} cannot be used by several threads: ask its maker for one that takes CKF_OS_LOCKING_OK")]
    OneThread(PathBuf),
    /// No token is the one that is configured.
    #[error(
        "there is no token {wanted} (the module shows {seen}): plug it in, or correct keys.pkcs11.token and keys.pkcs11.serial"
    )]
    NoToken {
        /// What is configured.
        wanted: String,
        /// The tokens that the module shows.
        seen: String,
    },
    /// Several tokens are.
    #[error("several tokens are {wanted}: name the one that is meant by keys.pkcs11.serial, one of {serials}")]
    Ambiguous {
        /// What is configured.
        wanted: String,
        /// Their serial numbers.
        serials: String,
    },
    /// No PIN was given.
    #[error(
        "the token {0} wants a PIN and none was given: name a file with keys.pkcs11.pin_file (mode 0600), pass the systemd \
         credential `fleetmark-pkcs11-pin`, or set FLEETMARK_PKCS11_PIN"
    )]
    PinMissing(String),
    /// The PIN is wrong.
    #[error("the token {0} refuses the PIN; it is not tried again, since the token would lock itself: correct the PIN")]
    PinWrong(String),
    /// The same PIN was refused before.
    #[error(
        "the token {token} refused this PIN before, so it was not tried again: correct the PIN, or remove {mark} if it is the \
         token's PIN that was changed"
    )]
    PinRefusedBefore {
        /// The token.
        token: String,
        /// The file that remembers it.
        mark: PathBuf,
    },
    /// One try is left.
    #[error(
        "the token {0} has one try left before its PIN is locked, and it was not spent: log in once with the token's own tool"
    )]
    PinLastTry(String),
    /// The PIN is locked.
    #[error("the PIN of the token {0} is locked: unlock it with the security officer's PIN and the token's own tool")]
    PinLocked(String),
    /// The token has no PIN yet, or it must be changed.
    #[error("the PIN of the token {0} is not set or has expired: set it with the token's own tool")]
    PinUnset(String),
    /// There is no such key.
    #[error("the token {token} has no private key with the label {label}: is it the right token, and was its backup restored?")]
    KeyMissing {
        /// The token.
        token: String,
        /// The key.
        label: String,
    },
    /// There are several.
    #[error(
        "the token {token} has several private keys with the label {label}: remove all but the one that the certificate is for"
    )]
    KeyTwice {
        /// The token.
        token: String,
        /// The key.
        label: String,
    },
    /// There is such a key already.
    #[error("the token {token} has a key with the label {label} already; keys are never overwritten")]
    KeyExists {
        /// The token.
        token: String,
        /// The key.
        label: String,
    },
    /// The key cannot be used for signatures of ours.
    #[error("the key {label} is of no use: {why}")]
    KeyUnusable {
        /// The key.
        label: String,
        /// Why.
        why: String,
    },
    /// The token cannot do this algorithm.
    #[error("the token {token} has no {algorithm} keys ({why}): choose another keys.algorithm, or another token")]
    Algorithm {
        /// The token.
        token: String,
        /// The algorithm.
        algorithm: KeyAlgorithm,
        /// What it lacks.
        why: String,
    },
    /// The token, its module or the session is gone; it comes back by itself.
    #[error("the token cannot be reached ({0}); it is tried again by itself")]
    Lost(String),
    /// A call of the module does not come back.
    #[error(
        "a call of the token's module did not come back within {seconds} s and was given up; {stuck} such calls are under way, and with 64 \
         the module is called no more before one comes back"
    )]
    Hung {
        /// So long it was waited for.
        seconds: u64,
        /// So many calls are given up and did not come back yet.
        stuck: usize,
    },
    /// All sessions are in use, and none came free in time.
    #[error("all sessions of the token are in use")]
    Busy,
    /// The token takes no more sessions.
    #[error("the token takes no more sessions")]
    TooManySessions,
    /// The token refused for another reason.
    #[error("the token refused ({0})")]
    Refused(String),
}

impl TokenError {
    /// Whether the log has it already: the token's loss is told once, not with every signature that it costs.
    pub const fn was_told(&self) -> bool {
        self.is_loss() || self.bars()
    }

    /// Whether connections are of no use any more, and a new one may be.
    pub(super) const fn is_loss(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Hung { .. })
    }

    /// Whether the token is not there now and may be later, without anybody's doing here.
    pub const fn is_absence(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Hung { .. } | Self::NoToken { .. } | Self::NotBegun { .. })
    }

    /// Whether another try would harm, or be in vain until a person did something.
    pub(super) const fn bars(&self) -> bool {
        matches!(
            self,
            Self::PinMissing(_)
                | Self::PinWrong(_)
                | Self::PinRefusedBefore { .. }
                | Self::PinLastTry(_)
                | Self::PinLocked(_)
                | Self::PinUnset(_)
        )
    }

    /// The label of the metric.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Lost(_) | Self::NoToken { .. } | Self::NotBegun { .. } => "lost",
            Self::Hung { .. } => "hung",
            Self::Busy | Self::TooManySessions => "busy",
            Self::KeyMissing { .. } | Self::KeyTwice { .. } | Self::KeyUnusable { .. } => "key",
            error if error.bars() => "pin",
            _ => "refused",
        }
    }
}

impl From<Error> for TokenError {
    fn from(error: Error) -> Self {
        let Error::Pkcs11(answer, function) = error else { return Self::Refused(error.to_string()) };
        let said = format!("C_{function:?}: {answer:?}");
        match answer {
            RvError::DeviceError
            | RvError::DeviceMemory
            | RvError::DeviceRemoved
            | RvError::TokenNotPresent
            | RvError::TokenNotRecognized
            | RvError::SlotIdInvalid
            | RvError::SessionClosed
            | RvError::SessionHandleInvalid
            | RvError::ObjectHandleInvalid
            | RvError::KeyHandleInvalid
            | RvError::UserNotLoggedIn
            | RvError::CryptokiNotInitialized
            | RvError::FunctionFailed
            | RvError::FunctionCanceled
            | RvError::GeneralError
            | RvError::HostMemory => Self::Lost(said),
            RvError::SessionCount => Self::TooManySessions,
            _ => Self::Refused(said),
        }
    }
}
