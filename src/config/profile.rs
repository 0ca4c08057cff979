//! An operator's profile: a directory (mode 0700) with `operator.toml`, `key.pem` (mode 0600), `cert.pem` and `ca.pem`.
//!
//! Who asks for a certificate makes `key.pem.new` before, so that an answer that was lost is asked for again with the same key. All else is
//! written, `cert.pem.new` last, and then both are renamed, the key first. From `cert.pem.new` on, what was interrupted is finished by
//! whoever comes next; before it, the key is still there to ask with. So there is a profile where there is `cert.pem`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The key of a request that was not answered yet.
pub(crate) const PENDING_KEY: &str = "key.pem.new";

/// The certificate that was asked for with it, until both are renamed.
const NEW_CERTIFICATE: &str = "cert.pem.new";

/// The largest file of a profile, in octets.
const MAX_FILE: u64 = 256 * 1024;

/// A profile on the disk.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Its directory.
    pub directory: PathBuf,
    /// `operator.toml`.
    pub settings: ProfileSettings,
}

/// `operator.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileSettings {
    /// The admin door: `https://HOST:PORT`.
    pub server: String,
    /// The device door, where certificates are renewed: `https://HOST:PORT`.
    pub device_door: String,
}

/// What a new profile is made of.
pub struct NewProfile<'a> {
    /// `operator.toml`; None for a gateway or service, which has none.
    pub settings: Option<ProfileSettings>,
    /// The private key, PKCS#8 PEM.
    pub key_pem: &'a str,
    /// The certificate and its issuing authority, PEM.
    pub certificate_pem: &'a str,
    /// The root to pin, PEM.
    pub ca_pem: &'a str,
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// None of the places holds one.
    #[error("no operator's profile was found in: {0}. Name its directory with --operator or FLEETMARK_OPERATOR")]
    Missing(String),
    /// A file cannot be read or written.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others may read the key.
    #[error("{}: others than its owner may read the private key (mode {mode:04o}); run: chmod 600 {}", path.display(), path.display())]
    Permissions {
        /// The key.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file is not of its form.
    #[error("{}: {reason}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is a profile already.
    #[error("{}: there is a profile here already; name another directory", .0.display())]
    Exists(PathBuf),
}

impl Profile {
    /// The profile in `named`, or in the first of the usual places that holds one: `./fleetmark-data/operator`, then
    /// `~/.config/fleetmark`.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub fn find(named: Option<&Path>) -> Result<Self, ProfileError> {
        if let Some(directory) = named {
            return Self::open(directory);
        }
        let places = usual_places();
        if let Some(place) = places.iter().find(|place| place.join("operator.toml").exists()) {
            return Self::open(place);
        }
        let places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
        Err(ProfileError::Missing(places.join(", ")))
    }

    /// The profile in this directory.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub fn open(directory: &Path) -> Result<Self, ProfileError> {
        let path = directory.join("operator.toml");
        if !path.exists() || !is_there(directory)? {
            return Err(ProfileError::Missing(directory.display().to_string()));
        }
        let text = read_limited(&path)?;
        let text = std::str::from_utf8(&text).map_err(|_| form(&path, "it is not text"))?;
        let settings: ProfileSettings = toml::from_str(text).map_err(|error| form(&path, error.message()))?;
        for url in [&settings.server, &settings.device_door] {
            if !url.starts_with("https://") {
                return Err(form(&path, "a server is https://HOST:PORT"));
            }
        }
        Ok(Self { directory: directory.to_owned(), settings })
    }

    /// The private key, PKCS#8 PEM.
    ///
    /// # Errors
    /// [`ProfileError::Permissions`] where others may read it; [`ProfileError::File`].
    pub fn key_pem(&self) -> Result<Zeroizing<Vec<u8>>, ProfileError> {
        read_secret(&self.directory.join("key.pem"))
    }

    /// The certificate, then its issuing authority, PEM.
    ///
    /// # Errors
    /// [`ProfileError::File`].
    pub fn certificate_pem(&self) -> Result<Vec<u8>, ProfileError> {
        read_limited(&self.directory.join("cert.pem"))
    }

    /// The pinned root, PEM.
    ///
    /// # Errors
    /// [`ProfileError::File`].
    pub fn ca_pem(&self) -> Result<Vec<u8>, ProfileError> {
        read_limited(&self.directory.join("ca.pem"))
    }

    /// Puts the renewed certificate, and the key that it was asked for with, in the old ones' place; `ca_pem` holds the
    /// old roots, and may hold more.
    ///
    /// # Errors
    /// [`ProfileError::File`].
    pub fn renewed(&self, certificate_pem: &str, ca_pem: &str) -> Result<(), ProfileError> {
        write_durably(&self.directory.join("ca.pem"), ca_pem.as_bytes(), 0o644)?;
        write_durably(&self.directory.join(NEW_CERTIFICATE), certificate_pem.as_bytes(), 0o644)?;
        finish(&self.directory)
    }
}

/// Whether key and certificate are there; finishes what was interrupted.
///
/// # Errors
/// [`ProfileError::File`].
pub fn is_there(directory: &Path) -> Result<bool, ProfileError> {
    finish(directory)?;
    Ok(directory.join("cert.pem").exists())
}

/// `cert.pem.new` is there only once all else is: from then on key and certificate may only go forward.
fn finish(directory: &Path) -> Result<(), ProfileError> {
    if !directory.join(NEW_CERTIFICATE).exists() {
        return Ok(());
    }
    for name in ["key.pem", "cert.pem"] {
        let new = directory.join(format!("{name}.new"));
        if new.exists() {
            std::fs::rename(&new, directory.join(name)).map_err(at(&new))?;
        }
    }
    sync_directory(directory)
}

/// Makes a profile's files; the directory is made with mode 0700.
///
/// # Errors
/// [`ProfileError::Exists`] where there is a certificate, unless `replace`; [`ProfileError::File`].
pub fn create(directory: &Path, new: &NewProfile<'_>, replace: bool) -> Result<(), ProfileError> {
    if is_there(directory)? && !replace {
        return Err(ProfileError::Exists(directory.to_owned()));
    }
    make_directory(directory)?;
    write_durably(&directory.join(PENDING_KEY), new.key_pem.as_bytes(), 0o600)?;
    write_durably(&directory.join("ca.pem"), new.ca_pem.as_bytes(), 0o644)?;
    if let Some(settings) = &new.settings {
        let path = directory.join("operator.toml");
        let settings = toml::to_string(settings).map_err(|error| form(&path, &error.to_string()))?;
        write_durably(&path, settings.as_bytes(), 0o644)?;
    }
    write_durably(&directory.join(NEW_CERTIFICATE), new.certificate_pem.as_bytes(), 0o644)?;
    finish(directory)
}

/// The key to ask for a certificate with: the one of a request that was not answered, else `make`'s, kept in `directory`
/// before it is used.
///
/// # Errors
/// [`ProfileError`], and what `make` gives.
pub fn pending_key<E: From<ProfileError>>(
    directory: &Path,
    make: impl FnOnce() -> Result<Zeroizing<String>, E>,
) -> Result<Zeroizing<String>, E> {
    // The key of a request that was answered is pending no more.
    finish(directory)?;
    let path = directory.join(PENDING_KEY);
    if path.exists() {
        let octets = read_secret(&path)?;
        let text = std::str::from_utf8(&octets).map_err(|_| form(&path, "it is not text"))?;
        return Ok(Zeroizing::new(text.to_owned()));
    }
    make_directory(directory)?;
    let key = make()?;
    write_durably(&path, key.as_bytes(), 0o600)?;
    Ok(key)
}

/// Throws the key of an unanswered request away: the server refused the key itself.
///
/// # Errors
/// [`ProfileError::File`].
pub fn forget_pending_key(directory: &Path) -> Result<(), ProfileError> {
    let path = directory.join(PENDING_KEY);
    std::fs::remove_file(&path).map_err(at(&path))
}

fn usual_places() -> Vec<PathBuf> {
    let mut places = vec![PathBuf::from(super::DEFAULT_DATA_DIRECTORY).join("operator")];
    places.extend(std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config/fleetmark")));
    places
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ProfileError {
    let path = path.to_owned();
    |source| ProfileError::File { path, source }
}

fn form(path: &Path, reason: &str) -> ProfileError {
    ProfileError::Form { path: path.to_owned(), reason: reason.to_owned() }
}

fn read_limited(path: &Path) -> Result<Vec<u8>, ProfileError> {
    let mut octets = Vec::new();
    let file = File::open(path).map_err(at(path))?;
    file.take(MAX_FILE + 1).read_to_end(&mut octets).map_err(at(path))?;
    if u64::try_from(octets.len()).is_ok_and(|length| length <= MAX_FILE) {
        Ok(octets)
    } else {
        Err(form(path, "it is longer than such a file can be"))
    }
}

fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, ProfileError> {
    let mode = std::fs::metadata(path).map_err(at(path))?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(ProfileError::Permissions { path: path.to_owned(), mode });
    }
    read_limited(path).map(Zeroizing::new)
}

fn make_directory(path: &Path) -> Result<(), ProfileError> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at(path))
}

fn sync_directory(path: &Path) -> Result<(), ProfileError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(at(path))
}

/// Temporary file, fsync, rename, fsync of the directory.
pub(crate) fn write_durably(path: &Path, octets: &[u8], mode: u32) -> Result<(), ProfileError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let temporary = directory.join(format!(".{name}.{}", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| file.write_all(octets).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = written {
        // The error to report is the first one.
        let _ = std::fs::remove_file(&temporary);
        return Err(at(path)(error));
    }
    sync_directory(if directory.as_os_str().is_empty() { Path::new(".") } else { directory })
}
