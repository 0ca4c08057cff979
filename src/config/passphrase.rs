//! Where the passphrase of the key files comes from: a named file, systemd's credential, the environment, the file that
//! `up` made, or the person at the terminal; in this order.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use ring::rand::SecureRandom;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::Config;

/// The shortest passphrase, in characters.
pub const MIN_CHARACTERS: usize = 12;

/// The longest passphrase file that is read, in octets.
const MAX_OCTETS: u64 = 1024;

/// The credential's name under `$CREDENTIALS_DIRECTORY` (systemd.exec, `LoadCredential=`).
pub const CREDENTIAL: &str = "fleetmark-passphrase";

/// Random octets in a passphrase that we make: 192 bits.
const MADE_OCTETS: usize = 24;

/// A passphrase and where it came from.
#[derive(Debug, Clone)]
pub struct Passphrase {
    /// The passphrase. Its `Debug` is redacted.
    pub secret: SecretString,
    /// Where it came from.
    pub source: Source,
}

/// Where a passphrase came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The file that `--passphrase-file` or `passphrase_file` names.
    File(PathBuf),
    /// systemd's credential.
    Credential(PathBuf),
    /// `FLEETMARK_PASSPHRASE`.
    Environment,
    /// The file in the data directory that `up` made at an earlier start.
    Kept(PathBuf),
    /// The file in the data directory that was made now.
    Made(PathBuf),
    /// The person at the terminal.
    Prompt,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Credential(path) => write!(f, "the systemd credential {}", path.display()),
            Self::Environment => f.write_str("the variable FLEETMARK_PASSPHRASE"),
            Self::Kept(path) | Self::Made(path) => write!(f, "the file {} beside the keys", path.display()),
            Self::Prompt => f.write_str("the terminal"),
        }
    }
}

/// Why there is no passphrase.
#[derive(Debug, thiserror::Error)]
pub enum PassphraseError {
    /// None of the places holds one.
    #[error(
        "no passphrase was given: name a file with --passphrase-file (mode 0600), pass the systemd credential `{CREDENTIAL}`, \
         set FLEETMARK_PASSPHRASE, or start from a terminal"
    )]
    Missing,
    /// Others may read the file.
    #[error("{}: others than its owner may read the passphrase (mode {mode:04o}); run: chmod 600 {}", path.display(), path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file cannot be read.
    #[error("{}: the passphrase cannot be read", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// The file cannot be made.
    #[error("{}: the passphrase cannot be written", .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// Too short, too long, or not text.
    #[error("{0}: a passphrase is one line of at least {MIN_CHARACTERS} characters and at most {MAX_OCTETS} octets")]
    Form(Source),
    /// The two entries at the terminal differ.
    #[error("the two passphrases differ")]
    Differ,
    /// The terminal failed.
    #[error("the passphrase cannot be read from the terminal")]
    Terminal(#[source] io::Error),
    /// The system gives no randomness.
    #[error("the system gives no randomness for a passphrase")]
    Random,
}

/// What surrounds the process: given, so that tests bring their own.
#[derive(Clone, Default)]
pub struct Surroundings {
    /// `$CREDENTIALS_DIRECTORY`
    pub credentials_directory: Option<PathBuf>,
    /// `$FLEETMARK_PASSPHRASE`
    pub variable: Option<SecretString>,
    /// `$FLEETMARK_PKCS11_PIN`
    pub pin: Option<SecretString>,
    /// Whether a person can be asked.
    pub terminal: bool,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_process() -> Self {
        Self {
            credentials_directory: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            variable: std::env::var("FLEETMARK_PASSPHRASE").ok().map(SecretString::from),
            pin: std::env::var("FLEETMARK_PKCS11_PIN").ok().map(SecretString::from),
            terminal: io::IsTerminal::is_terminal(&io::stdin()),
        }
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("terminal", &self.terminal).finish_non_exhaustive()
    }
}

/// The passphrase for `serve`, `init` and later starts of `up`. With `is_new`, a person at the terminal enters it twice.
///
/// # Errors
/// [`PassphraseError`]; a place that holds a bad passphrase is an error, not passed over for the next.
pub fn read(config: &Config, surroundings: &Surroundings, is_new: bool) -> Result<Passphrase, PassphraseError> {
    match find(config, surroundings)? {
        Some(passphrase) => Ok(passphrase),
        None if surroundings.terminal => prompt(is_new),
        None => Err(PassphraseError::Missing),
    }
}

/// The passphrase for the first start of `up`: where none is given, one is made and kept in the data directory, which has
/// to exist.
///
/// # Errors
/// As [`read`], and where the file cannot be written.
pub fn read_or_make(
    config: &Config,
    surroundings: &Surroundings,
    random: &dyn SecureRandom,
) -> Result<Passphrase, PassphraseError> {
    match find(config, surroundings)? {
        Some(passphrase) => Ok(passphrase),
        None => make(&config.data.passphrase_file(), random),
    }
}

/// What the places hold that need no person; None where none holds any.
///
/// # Errors
/// As [`read`].
pub fn find(config: &Config, surroundings: &Surroundings) -> Result<Option<Passphrase>, PassphraseError> {
    if let Some(path) = &config.passphrase_file {
        return from_file(path, Source::File(path.clone())).map(Some);
    }
    if let Some(directory) = &surroundings.credentials_directory {
        let path = directory.join(CREDENTIAL);
        if path.exists() {
            return from_file(&path, Source::Credential(path.clone())).map(Some);
        }
    }
    if let Some(secret) = &surroundings.variable {
        return checked(secret.clone(), Source::Environment).map(Some);
    }
    let kept = config.data.passphrase_file();
    if kept.exists() { from_file(&kept, Source::Kept(kept.clone())).map(Some) } else { Ok(None) }
}

/// The passphrase of a root's directory, which has no configuration: a named file, the environment, or the person at the terminal, who
/// enters a new one twice.
///
/// # Errors
/// As [`read`].
pub fn of_root(file: Option<&Path>, surroundings: &Surroundings, is_new: bool) -> Result<Passphrase, PassphraseError> {
    match (file, &surroundings.variable) {
        (Some(path), _) => from_file(path, Source::File(path.to_owned())),
        (None, Some(secret)) => checked(secret.clone(), Source::Environment),
        (None, None) if surroundings.terminal => prompt(is_new),
        (None, None) => Err(PassphraseError::Missing),
    }
}

fn from_file(path: &Path, source: Source) -> Result<Passphrase, PassphraseError> {
    match line_of(path) {
        Ok(line) => checked(line, source),
        Err(LineError::Permissions(mode)) => Err(PassphraseError::Permissions { path: path.to_owned(), mode }),
        Err(LineError::File(error)) => Err(PassphraseError::File(path.to_owned(), error)),
        Err(LineError::NoText) => Err(PassphraseError::Form(source)),
    }
}

/// Why a file holds no line of secret text.
pub(super) enum LineError {
    /// Others than its owner may read it; its mode.
    Permissions(u32),
    /// It cannot be read.
    File(io::Error),
    /// It is not UTF-8.
    NoText,
}

/// The text of a file that nobody but its owner may read, without the end of its line; at most [`MAX_OCTETS`] and one.
pub(super) fn line_of(path: &Path) -> Result<SecretString, LineError> {
    let file = std::fs::File::open(path).map_err(LineError::File)?;
    let mode = file.metadata().map_err(LineError::File)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(LineError::Permissions(mode));
    }
    let mut octets = Zeroizing::new(Vec::new());
    file.take(MAX_OCTETS + 1).read_to_end(&mut octets).map_err(LineError::File)?;
    let text = std::str::from_utf8(&octets).map_err(|_| LineError::NoText)?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    Ok(SecretString::from(line.strip_suffix('\r').unwrap_or(line)))
}

fn checked(secret: SecretString, source: Source) -> Result<Passphrase, PassphraseError> {
    let text = secret.expose_secret();
    let fits = text.chars().count() >= MIN_CHARACTERS
        && u64::try_from(text.len()).is_ok_and(|octets| octets <= MAX_OCTETS)
        && !text.contains(['\n', '\r', '\0']);
    if fits { Ok(Passphrase { secret, source }) } else { Err(PassphraseError::Form(source)) }
}

fn prompt(is_new: bool) -> Result<Passphrase, PassphraseError> {
    let ask = |text: &str| rpassword::prompt_password(text).map(SecretString::from).map_err(PassphraseError::Terminal);
    let first = ask("Passphrase of the keys: ")?;
    if is_new && ask("The same passphrase again: ")?.expose_secret() != first.expose_secret() {
        return Err(PassphraseError::Differ);
    }
    checked(first, Source::Prompt)
}

/// Makes a passphrase and keeps it at `path`, mode 0600, durably.
fn make(path: &Path, random: &dyn SecureRandom) -> Result<Passphrase, PassphraseError> {
    let mut octets = Zeroizing::new([0; MADE_OCTETS]);
    random.fill(octets.as_mut_slice()).map_err(|_| PassphraseError::Random)?;
    let text = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(octets.as_slice()));
    write_new(path, text.as_bytes()).map_err(|error| PassphraseError::Write(path.to_owned(), error))?;
    Ok(Passphrase { secret: SecretString::from(text.as_str()), source: Source::Made(path.to_owned()) })
}

fn write_new(path: &Path, line: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(line)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    match path.parent() {
        Some(directory) => std::fs::File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}
