//! The module and the token in it, through cryptoki: the pool's [`Device`].
//!
//! The module is initialised once in a process, for use by several threads (`CKF_OS_LOCKING_OK`). It is finalised and initialised
//! again only when a token that was there, or is waited for, is not found, and nobody uses a session: some modules list their tokens at
//! their start alone.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::MechanismType;
use cryptoki::object::ObjectHandle;
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use secrecy::SecretString;

use super::error::TokenError;
use super::mark::Mark;
use super::pool::Device;

/// Which token, and what opens it.
pub struct TokenSettings {
    /// The module's file.
    pub module: PathBuf,
    /// The token's label.
    pub label: Option<String>,
    /// The token's serial number.
    pub serial: Option<String>,
    /// The user's PIN; None for tokens that want none, or ask for it by themselves.
    pub pin: Option<SecretString>,
    /// So many sessions at most.
    pub sessions: usize,
    /// Remembers a PIN that the token refused, through restarts.
    pub mark: Option<Mark>,
}

impl fmt::Debug for TokenSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSettings").field("module", &self.module).field("token", &self.wanted()).finish_non_exhaustive()
    }
}

impl TokenSettings {
    /// The token, as an error names it.
    fn wanted(&self) -> String {
        match (&self.label, &self.serial) {
            (Some(label), Some(serial)) => format!("with the label {label:?} and the serial number {serial:?}"),
            (Some(label), None) => format!("with the label {label:?}"),
            (None, Some(serial)) => format!("with the serial number {serial:?}"),
            (None, None) => "at all".to_owned(),
        }
    }

    fn is_meant(&self, info: &TokenInfo) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted.trim() == found.trim());
        info.token_initialized() && is(&self.label, info.label()) && is(&self.serial, info.serial_number())
    }
}

/// A token as it was found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub slot: Slot,
    /// Its label, for errors.
    pub name: Arc<str>,
    pub mechanisms: Arc<[MechanismType]>,
}

/// The module, loaded; initialised at the first use.
pub(super) struct Module {
    library: Pkcs11,
    settings: TokenSettings,
    /// The token, and the session that stays open so that the login holds.
    anchor: Mutex<Option<(Found, Session)>>,
    is_initialized: AtomicBool,
    /// Whether the token is known to come and go: it was there once, or is waited for.
    comes_and_goes: AtomicBool,
}

/// A session, with the handles of the keys that it looked up.
pub(super) struct Working {
    pub library: Pkcs11,
    pub session: Session,
    pub token: Found,
    pub keys: HashMap<String, ObjectHandle>,
}

impl Module {
    /// Loads the module.
    pub(super) fn load(settings: TokenSettings) -> Result<Self, TokenError> {
        let path = settings.module.clone();
        let library = Pkcs11::new(&path).map_err(|error| TokenError::Module { path: path.clone(), why: error.to_string() })?;
        // Never unloaded: whoever lets go of it last may do so while the process ends, when the module ends by itself.
        std::mem::forget(library.clone());
        let (anchor, is_initialized, comes_and_goes) = Default::default();
        Ok(Self { library, settings, anchor, is_initialized, comes_and_goes })
    }

    /// From now on the token is looked for as one that was there.
    pub(super) fn await_token(&self) {
        self.comes_and_goes.store(true, Ordering::Relaxed);
    }

    fn initialize(&self) -> Result<(), TokenError> {
        if self.is_initialized.load(Ordering::Relaxed) {
            return Ok(());
        }
        let path = || self.settings.module.clone();
        match self.library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {
                self.is_initialized.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(Error::Pkcs11(RvError::CantLock | RvError::NeedToCreateThreads, _)) => Err(TokenError::OneThread(path())),
            Err(Error::Pkcs11(answer, _)) => Err(TokenError::NotBegun { path: path(), why: format!("{answer:?}") }),
            Err(error) => Err(TokenError::NotBegun { path: path(), why: error.to_string() }),
        }
    }

    /// Ends the module and begins anew, so that it looks for its tokens again.
    fn restart(&self) -> Result<(), TokenError> {
        // What it says to its end changes nothing: it is begun anew in any case.
        let _ = self.library.clone().finalize();
        self.is_initialized.store(false, Ordering::Relaxed);
        self.initialize()
    }

    /// The token that is meant.
    pub(super) fn find(&self) -> Result<(Slot, TokenInfo), TokenError> {
        self.initialize()?;
        let mut seen = Vec::new();
        let mut meant = Vec::new();
        for slot in self.library.get_slots_with_token()? {
            // A slot whose token cannot be asked is not the one.
            let Ok(info) = self.library.get_token_info(slot) else { continue };
            if info.token_initialized() {
                seen.push(format!("{:?}", info.label().trim()));
            }
            if self.settings.is_meant(&info) {
                meant.push((slot, info));
            }
        }
        if meant.len() > 1 {
            let serials: Vec<_> = meant.iter().map(|(_, info)| info.serial_number().trim().to_owned()).collect();
            return Err(TokenError::Ambiguous { wanted: self.settings.wanted(), serials: serials.join(", ") });
        }
        let seen = if seen.is_empty() { "none".to_owned() } else { seen.join(", ") };
        meant.pop().ok_or_else(|| TokenError::NoToken { wanted: self.settings.wanted(), seen })
    }

    /// What the token says of its PIN, without a try.
    pub(super) fn look(&self) -> Result<TokenInfo, TokenError> {
        let (_, info) = self.find()?;
        let name = info.label().trim().to_owned();
        if info.user_pin_locked() {
            return Err(TokenError::PinLocked(name));
        }
        if info.login_required() && (!info.user_pin_initialized() || info.user_pin_to_be_changed()) {
            return Err(TokenError::PinUnset(name));
        }
        if info.login_required() && info.user_pin_final_try() {
            return Err(TokenError::PinLastTry(name));
        }
        Ok(info)
    }

    fn log_in(&self) -> Result<(), TokenError> {
        let info = self.look()?;
        let (slot, _) = self.find()?;
        let token = Found { slot, name: info.label().trim().into(), mechanisms: self.library.get_mechanism_list(slot)?.into() };
        let session = self.library.open_ro_session(slot)?;
        if info.login_required() {
            self.show_pin(&session, &info)?;
        }
        let former = self.anchor.lock().unwrap_or_else(PoisonError::into_inner).replace((token, session));
        drop(former);
        self.comes_and_goes.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Logs in, unless this PIN was refused before.
    fn show_pin(&self, session: &Session, info: &TokenInfo) -> Result<(), TokenError> {
        let name = || info.label().trim().to_owned();
        let pin = self.settings.pin.as_ref();
        if pin.is_none() && !info.protected_authentication_path() {
            return Err(TokenError::PinMissing(name()));
        }
        let mark = self.settings.mark.as_ref().zip(pin);
        if let Some((mark, pin)) = mark
            && mark.names(info.serial_number(), pin)
        {
            return Err(TokenError::PinRefusedBefore { token: name(), mark: mark.path().to_owned() });
        }
        match session.login(UserType::User, pin) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                if let Some((mark, _)) = mark {
                    mark.clear();
                }
                Ok(())
            }
            Err(Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _)) => {
                if let Some((mark, pin)) = mark {
                    mark.set(info.serial_number(), pin);
                }
                Err(TokenError::PinWrong(name()))
            }
            Err(Error::Pkcs11(RvError::PinLocked, _)) => Err(TokenError::PinLocked(name())),
            Err(Error::Pkcs11(RvError::UserPinNotInitialized | RvError::PinExpired, _)) => Err(TokenError::PinUnset(name())),
            Err(error) => Err(error.into()),
        }
    }
}

impl Device for Module {
    type Session = Working;

    fn connect(&self, alone: bool) -> Result<(), TokenError> {
        self.leave();
        let comes_and_goes = self.comes_and_goes.load(Ordering::Relaxed);
        match self.log_in() {
            Err(TokenError::NoToken { .. } | TokenError::Lost(_)) if alone && comes_and_goes => {
                self.restart()?;
                self.log_in()
            }
            other => other,
        }
    }

    fn open(&self) -> Result<Working, TokenError> {
        let anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        let token = anchor.as_ref().map(|(token, _)| token.clone());
        // A call that does not come back must not keep the lock.
        drop(anchor);
        let token = token.ok_or_else(|| TokenError::Lost("it is not connected".to_owned()))?;
        let session = self.library.open_ro_session(token.slot)?;
        Ok(Working { library: self.library.clone(), session, token, keys: HashMap::new() })
    }

    fn leave(&self) {
        let anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Outside of the lock: closing is a call.
        drop(anchor);
    }
}
