//! Remembers the PIN that a token refused, so that a server that is started again and again does not lock the token.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ring::hmac;
use secrecy::{ExposeSecret as _, SecretString};

/// What the key of the mark is derived for.
const PURPOSE: &[u8] = b"fleetmark: a PIN that the token refused";

/// A file (mode 0600) with a MAC over the token's serial number and the refused PIN, under a key from the passphrase of the key
/// files: whoever reads the file alone learns nothing of the PIN.
#[derive(Clone)]
pub struct Mark {
    path: PathBuf,
    key: hmac::Key,
}

impl Mark {
    /// At this path, under a key from this passphrase.
    pub fn new(path: PathBuf, passphrase: &SecretString) -> Self {
        let master = hmac::Key::new(hmac::HMAC_SHA256, passphrase.expose_secret().as_bytes());
        let key = hmac::sign(&master, PURPOSE);
        Self { path, key: hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()) }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn over(&self, serial: &str, pin: &SecretString) -> String {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(serial.as_bytes());
        context.update(&[0]);
        context.update(pin.expose_secret().as_bytes());
        hex::encode(context.sign())
    }

    /// Whether this token refused this PIN before.
    pub fn names(&self, serial: &str, pin: &SecretString) -> bool {
        fs::read_to_string(&self.path).is_ok_and(|text| text.trim_end() == self.over(serial, pin))
    }

    /// Remembers it. Where that cannot be written, it is logged: the start fails in any case.
    pub fn set(&self, serial: &str, pin: &SecretString) {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&self.path);
        let line = format!("{}\n", self.over(serial, pin));
        if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes()).and_then(|()| file.sync_all())) {
            tracing::error!(%error, path = %self.path.display(), "the refused PIN cannot be remembered: do not start in a loop");
        }
    }

    /// Forgets: the token took a PIN.
    pub fn clear(&self) {
        // Where there is none there is nothing to forget.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SecretString {
        SecretString::from(text.to_owned())
    }

    #[test]
    fn a_refused_pin_is_known_again_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let mark = Mark::new(directory.path().join("pin-refused"), &secret("a passphrase"));
        assert!(!mark.names("12ab", &secret("1234")));
        mark.set("12ab", &secret("1234"));
        assert!(mark.names("12ab", &secret("1234")));
        for (serial, pin) in [("12ab", "1235"), ("12a", "b1234"), ("12ac", "1234")] {
            assert!(!mark.names(serial, &secret(pin)), "{serial} {pin}");
        }
        let other = Mark::new(mark.path().to_owned(), &secret("another"));
        assert!(!other.names("12ab", &secret("1234")));
        let text = fs::read_to_string(mark.path()).unwrap();
        assert!(text.len() == 65 && !text.contains("1234\n"));
        mark.clear();
        assert!(!mark.names("12ab", &secret("1234")));
    }
}
