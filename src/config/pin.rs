//! Where the PIN of the PKCS#11 token comes from: a named file, systemd's credential, the environment, or the person at the
//! terminal; in this order.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

use super::Pkcs11;
use super::passphrase::{LineError, Surroundings, line_of};

/// The credential's name under `$CREDENTIALS_DIRECTORY` (systemd.exec, `LoadCredential=`).
pub const CREDENTIAL: &str = "fleetmark-pkcs11-pin";

/// The longest PIN, in octets.
const MAX_OCTETS: usize = 255;

/// Where a PIN came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinSource {
    /// The file that `keys.pkcs11.pin_file` names.
    File(PathBuf),
    /// systemd's credential.
    Credential(PathBuf),
    /// `FLEETMARK_PKCS11_PIN`.
    Environment,
    /// The person at the terminal.
    Prompt,
}

impl fmt::Display for PinSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Credential(path) => write!(f, "the systemd credential {}", path.display()),
            Self::Environment => f.write_str("the variable FLEETMARK_PKCS11_PIN"),
            Self::Prompt => f.write_str("the terminal"),
        }
    }
}

/// A PIN and where it came from.
#[derive(Debug, Clone)]
pub struct Pin {
    /// The PIN. Its `Debug` is redacted.
    pub secret: SecretString,
    /// Where it came from.
    pub source: PinSource,
}

/// Why a PIN cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// Others may read the file.
    #[error("{}: others than its owner may read the PIN (mode {mode:04o}); run: chmod 600 {}", path.display(), path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file cannot be read.
    #[error("{}: the PIN cannot be read", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// Empty, too long, or not text.
    #[error("{0}: a PIN is one line of 1 to {MAX_OCTETS} octets")]
    Form(PinSource),
    /// The terminal failed.
    #[error("the PIN cannot be read from the terminal")]
    Terminal(#[source] io::Error),
}

/// The token's PIN; None where no place holds one and nobody can be asked, which is right for a token with a key pad.
///
/// # Errors
/// [`PinError`]; a place that holds a bad PIN is an error, not passed over for the next.
pub fn read(token: &Pkcs11, surroundings: &Surroundings) -> Result<Option<Pin>, PinError> {
    match find(token, surroundings)? {
        None if surroundings.terminal => {
            let secret = rpassword::prompt_password("PIN of the token (empty where the token asks for it itself): ");
            let secret = SecretString::from(secret.map_err(PinError::Terminal)?);
            if secret.expose_secret().is_empty() { Ok(None) } else { checked(secret, PinSource::Prompt).map(Some) }
        }
        found => Ok(found),
    }
}

/// What the places hold that need no person.
///
/// # Errors
/// As [`read`].
pub fn find(token: &Pkcs11, surroundings: &Surroundings) -> Result<Option<Pin>, PinError> {
    if let Some(path) = &token.pin_file {
        return from_file(path, PinSource::File(path.clone())).map(Some);
    }
    if let Some(directory) = &surroundings.credentials_directory {
        let path = directory.join(CREDENTIAL);
        if path.exists() {
            return from_file(&path, PinSource::Credential(path.clone())).map(Some);
        }
    }
    surroundings.pin.clone().map(|secret| checked(secret, PinSource::Environment)).transpose()
}

fn from_file(path: &Path, source: PinSource) -> Result<Pin, PinError> {
    match line_of(path) {
        Ok(line) => checked(line, source),
        Err(LineError::Permissions(mode)) => Err(PinError::Permissions { path: path.to_owned(), mode }),
        Err(LineError::File(error)) => Err(PinError::File(path.to_owned(), error)),
        Err(LineError::NoText) => Err(PinError::Form(source)),
    }
}

fn checked(secret: SecretString, source: PinSource) -> Result<Pin, PinError> {
    let text = secret.expose_secret();
    let fits = (1..=MAX_OCTETS).contains(&text.len()) && !text.contains(['\n', '\r', '\0']);
    if fits { Ok(Pin { secret, source }) } else { Err(PinError::Form(source)) }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_places_are_asked_in_their_order_and_a_bad_one_is_not_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str, mode: u32| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let mut token = Pkcs11 {
            module: "/m.so".into(),
            token: Some("t".to_owned()),
            serial: None,
            pin_file: None,
            sessions: NonZeroUsize::MIN,
        };
        let mut around = Surroundings::default();
        let pin = |token: &Pkcs11, around: &Surroundings| {
            find(token, around).map(|found| found.map(|pin| pin.secret.expose_secret().to_owned()))
        };
        assert_eq!(pin(&token, &around).unwrap(), None);
        around.pin = Some("1111".to_owned().into());
        assert_eq!(pin(&token, &around).unwrap().as_deref(), Some("1111"));
        around.credentials_directory = Some(directory.path().to_owned());
        assert_eq!(pin(&token, &around).unwrap().as_deref(), Some("1111"));
        write(CREDENTIAL, "2222\n", 0o400);
        assert_eq!(pin(&token, &around).unwrap().as_deref(), Some("2222"));
        token.pin_file = Some(write("pin", "3333", 0o600));
        assert_eq!(pin(&token, &around).unwrap().as_deref(), Some("3333"));

        token.pin_file = Some(write("open", "3333", 0o640));
        assert!(matches!(pin(&token, &around), Err(PinError::Permissions { .. })));
        token.pin_file = Some(write("empty", "\n", 0o600));
        assert!(matches!(pin(&token, &around), Err(PinError::Form(_))));
        token.pin_file = Some(directory.path().join("none"));
        assert!(matches!(pin(&token, &around), Err(PinError::File(..))));
        let long = Pin { secret: "x".repeat(256).into(), source: PinSource::Environment };
        assert!(matches!(checked(long.secret.clone(), long.source.clone()), Err(PinError::Form(_))));
        assert!(!format!("{long:?}").contains("xxx"));
    }
}
