//! What can be seen on the machine itself.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::Finding;
use crate::backup::restored;
use crate::cli::failure::chain;
use crate::cli::serve::ServerArguments;
use crate::config::passphrase::{self, Source, Surroundings};
use crate::config::{Config, Pkcs11, StoreLocation, pin};
use crate::server::look_at_token;

/// Free space below which nothing works for long: 64 MiB.
const TOO_LITTLE: u64 = 64 << 20;

/// Free space below which it is time to act: 1 GiB.
const LITTLE: u64 = 1 << 30;

/// Looks, and gives the configuration where there is an installation.
pub(super) fn look(server: &ServerArguments, findings: &mut Vec<Finding>) -> Option<Config> {
    let config = match server.config() {
        Ok(config) => config,
        Err(failure) => {
            findings.push(Finding::bad(
                "configuration",
                super::told(&failure),
                "Correct the key; docs/configuration.md has all of them.",
            ));
            return None;
        }
    };
    if !config.data.is_initialised() {
        let found = format!("there is no installation in {}", config.data.directory().display());
        findings.push(Finding::warn("installation", found, "On the server's machine, name its data directory with --data."));
        return None;
    }
    findings.push(Finding::ok("configuration", format!("trust domain {}, store {}", config.trust_domain, config.store)));
    findings.push(private("data directory", config.data.directory(), 0o700));
    findings.extend(keys(&config.data.keys()));
    findings.extend(root_keys(&config.data.keys()));
    findings.push(passphrase_source(&config));
    findings.extend(config.keys.pkcs11.as_ref().map(token).into_iter().flatten());
    findings.push(disk(config.data.directory()));
    findings.extend(database(&config));
    findings.extend(mistakes(&config));
    findings.extend(pending_restore(&config));
    Some(config)
}

/// Whether nobody but the owner may look.
fn private(check: &str, path: &Path, wanted: u32) -> Finding {
    match fs::metadata(path) {
        Err(error) => Finding::bad(check, format!("{}: {error}", path.display()), "Restore it, or correct its owner."),
        Ok(metadata) if metadata.mode() & 0o077 != 0 => Finding::bad(
            check,
            format!("{}: others than its owner have access (mode {:04o})", path.display(), metadata.mode() & 0o7777),
            format!("chmod {wanted:o} {}", path.display()),
        ),
        Ok(_) => Finding::ok(check, format!("{}, for its owner alone", path.display())),
    }
}

fn keys(directory: &Path) -> Vec<Finding> {
    let files: Vec<_> = match fs::read_dir(directory) {
        Ok(files) => files.filter_map(Result::ok).map(|file| file.path()).collect(),
        Err(error) => {
            return vec![Finding::bad("keys", format!("{}: {error}", directory.display()), "Restore a backup.")];
        }
    };
    let wrong: Vec<_> =
        files.iter().map(|path| private("key", path, 0o600)).filter(|finding| finding.state != super::State::Ok).collect();
    if wrong.is_empty() { vec![Finding::ok("keys", format!("{} files, for their owner alone", files.len()))] } else { wrong }
}

/// A root's key, and one that a corporate authority certified, by the names that they are given here.
fn root_keys(directory: &Path) -> Vec<Finding> {
    let names = fs::read_dir(directory).into_iter().flatten().filter_map(|file| file.ok()?.file_name().into_string().ok());
    let finding = |name: String| {
        if name.starts_with("root-") {
            let advice =
                "Who takes the machine takes the installation. Take the key to a machine of its own (docs/root-ceremony.md).";
            return Some(Finding::warn("root's key", format!("{name} lies on this machine"), advice));
        }
        let found = format!("{name} lies on this machine; the corporate authority can revoke what it certified");
        name.starts_with("intermediate-").then(|| Finding::ok("root's key", found))
    };
    names.filter(|name| name.ends_with(".key.pem")).filter_map(finding).collect()
}

fn passphrase_source(config: &Config) -> Finding {
    const CHECK: &str = "passphrase";
    match passphrase::find(config, &Surroundings::of_process()) {
        Ok(Some(passphrase)) if matches!(passphrase.source, Source::Kept(_)) => Finding::warn(
            CHECK,
            format!("it lies in {}", passphrase.source),
            "Good for a lab. For production keep it elsewhere (docs/operators.md, The passphrase).",
        ),
        Ok(Some(passphrase)) => Finding::ok(CHECK, format!("from {}", passphrase.source)),
        Ok(None) => Finding::warn(
            CHECK,
            "no place that this command sees holds one",
            "Right if the server's service brings it, or a person enters it at the start.",
        ),
        Err(error) => Finding::bad(CHECK, chain(&error), "The server will not start with it."),
    }
}

/// The token as it tells of itself, without a login, and where its PIN comes from.
fn token(token: &Pkcs11) -> Vec<Finding> {
    let seen = match look_at_token(token) {
        Ok(seen) => Finding::ok("token", seen),
        Err(error) => Finding::bad(
            "token",
            chain(&error),
            "Until it is back nothing is issued (docs/hsm.md, \"When the token is gone\").",
        ),
    };
    let pin = match pin::find(token, &Surroundings::of_process()) {
        Ok(Some(pin)) => Finding::ok("token's PIN", format!("from {}; it was not tried", pin.source)),
        Ok(None) => Finding::warn(
            "token's PIN",
            "no place that this command sees holds one",
            "Right if the server's service brings it, the token asks for it itself, or a person enters it at the start.",
        ),
        Err(error) => Finding::bad("token's PIN", chain(&error), "The server will not start with it."),
    };
    vec![seen, pin]
}

fn disk(directory: &Path) -> Finding {
    const CHECK: &str = "disk";
    let space = match rustix::fs::statvfs(directory) {
        Ok(space) => space,
        Err(error) => return Finding::bad(CHECK, error.to_string(), "Look at the file system of the data directory."),
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let found = format!("{} MiB free", free >> 20);
    if space.f_files > 0 && space.f_favail == 0 {
        Finding::bad(CHECK, "no inode is free", "Remove files, or move the data directory.")
    } else if free < TOO_LITTLE {
        Finding::bad(CHECK, found, "Make room: the server refuses to issue when its disk is full.")
    } else if free < LITTLE {
        Finding::warn(CHECK, found, "Make room soon.")
    } else {
        Finding::ok(CHECK, found)
    }
}

fn database(config: &Config) -> Option<Finding> {
    match &config.store {
        StoreLocation::Sqlite(path) => Some(private("database", path, 0o600)),
        StoreLocation::Postgres(_) => None,
    }
}

/// What is allowed and seldom meant.
fn mistakes(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let dangers = [
        (
            "danger_online_root",
            config.danger_online_root,
            "The root's key is on this machine: who takes the machine takes the installation.",
        ),
        (
            "danger_async_replication",
            config.danger_async_replication,
            "A commit may be lost with the primary: a revocation too.",
        ),
        (
            "danger_plaintext_postgres",
            config.danger_plaintext_postgres,
            "Whoever is on the path to the database reads and changes it.",
        ),
    ];
    for (key, _, meaning) in dangers.into_iter().filter(|(_, is_set, _)| *is_set) {
        findings.push(Finding::warn("configuration", format!("{key} is set"), meaning));
    }
    if config.public_url.starts_with("http://localhost") || config.public_url.starts_with("http://127.") {
        findings.push(Finding::warn(
            "public_url",
            format!("certificates name {}, which means another machine to everybody else", config.public_url),
            "Set names or public_url to what gateways reach; it counts for certificates issued from then on.",
        ));
    }
    findings
}

fn pending_restore(config: &Config) -> Option<Finding> {
    const CHECK: &str = "restore";
    match restored::pending(config.data.directory()) {
        Ok(None) => None,
        Ok(Some(restored)) => Some(Finding::warn(
            CHECK,
            format!("a backup of {} was restored and the server has not been started since", restored.backup.made_at),
            "Start it: it opens new epochs and says what was lost.",
        )),
        Err(error) => Some(Finding::bad(
            CHECK,
            chain(&error),
            "The server will not start: restore the backup again into an empty directory.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::cli::doctor::State;

    #[test]
    fn keys_that_others_may_read_are_bad() {
        let directory = tempfile::tempdir().expect("directory");
        let key = directory.path().join("root.key.pem");
        fs::write(&key, "key").expect("write");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("mode");
        assert_eq!(keys(directory.path())[0].state, State::Ok);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("mode");
        let findings = keys(directory.path());
        assert_eq!(findings[0].state, State::Bad);
        assert!(findings[0].advice.as_ref().is_some_and(|advice| advice.starts_with("chmod 600 ")));
        assert_eq!(keys(&directory.path().join("none"))[0].state, State::Bad);
    }

    #[test]
    fn a_roots_key_beside_the_others_is_warned_of() {
        let directory = tempfile::tempdir().expect("directory");
        for (name, expected) in [
            ("ledger-system.key.pem", vec![]),
            ("root-1a2b3c4d.key.pem", vec![State::Warn]),
            ("intermediate-1a2b3c4d.key.pem", vec![State::Ok, State::Warn]),
        ] {
            fs::write(directory.path().join(name), "key").expect("write");
            let mut found: Vec<_> = root_keys(directory.path()).iter().map(|finding| finding.state).collect();
            found.sort();
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn the_disk_is_measured() {
        assert!(disk(Path::new("/")).found.contains("free"));
        assert_eq!(disk(Path::new("/does/not/exist")).state, State::Bad);
    }

    #[test]
    fn a_directory_without_an_installation_is_said_so() {
        let directory = tempfile::tempdir().expect("directory");
        let mut server = ServerArguments::default();
        directory.path().clone_into(&mut server.installation.data);
        let mut findings = Vec::new();
        assert!(look(&server, &mut findings).is_none());
        assert_eq!((findings[0].check.as_str(), findings[0].state), ("installation", State::Warn));
        fs::write(directory.path().join("fleetmark.toml"), "nmaes = 1").expect("write");
        findings.clear();
        assert!(look(&server, &mut findings).is_none());
        assert!(findings[0].found.contains("nmaes") && findings[0].state == State::Bad, "{findings:?}");
    }
}
