use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use figment::providers::Env;
use ring::rand::SystemRandom;
use secrecy::ExposeSecret as _;

use super::passphrase::{PassphraseError, Source, Surroundings, find, read, read_or_make};
use super::profile::{NewProfile, Profile, ProfileError, ProfileSettings};
use super::*;

/// A prefix that no variable of the machine has.
fn no_environment() -> Env {
    Env::prefixed("FLEETMARK_TEST_WITHOUT_ANY_")
}

fn load(directory: &Path, text: &str, overrides: &Overrides) -> Result<Config, ConfigError> {
    let layout = Layout::new(directory.to_owned());
    std::fs::write(layout.config_file(), text).unwrap();
    check::check(layout.clone(), &raw::read_with(&layout.config_file(), no_environment(), overrides)?)
}

fn refused(text: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let error = load(directory.path(), text, &Overrides::default()).expect_err(text).to_string();
    let file = directory.path().join("fleetmark.toml").display().to_string();
    assert!(error.starts_with(&file), "{error} does not begin with the file");
    error[file.len() + 2..].to_owned()
}

#[test]
fn without_a_file_all_is_default() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::new(directory.path().to_owned());
    let read = raw::read_with(&layout.config_file(), no_environment(), &Overrides::default()).unwrap();
    let config = check::check(layout, &read).unwrap();
    assert_eq!(config.trust_domain.as_str(), "fleetmark.local");
    assert_eq!(config.doors.admin.to_string(), "127.0.0.1:9443");
    assert_eq!(config.names.first, "localhost");
    assert_eq!(config.names.addresses.len(), 2);
    assert_eq!(config.public_url, "http://localhost:8080");
    assert!(matches!(&config.store, StoreLocation::Sqlite(path) if path == &directory.path().join("fleetmark.db")));
    assert!(!config.danger_online_root && config.limits.enroll.is_some());
    assert_eq!(config.snapshot_every.get(), 4_096);
    assert_eq!(config.weak_lists, None);
}

#[test]
fn a_token_needs_a_module_and_a_name_and_keys_need_a_token() {
    let directory = tempfile::tempdir().unwrap();
    let text = "[keys]\nauthorities = \"pkcs11\"\nroot_algorithm = \"p384\"\n\
        [keys.pkcs11]\nmodule = \"/m.so\"\ntoken = \" label \"\npin_file = \"pin\"\n";
    let keys = load(directory.path(), text, &Overrides::default()).unwrap().keys;
    assert_eq!((keys.root, keys.authorities), (KeyHome::Files, KeyHome::Pkcs11));
    assert_eq!((keys.root_algorithm, keys.algorithm), (Some(AuthorityAlgorithm::P384), None));
    let token = keys.pkcs11.unwrap();
    assert_eq!((token.token.as_deref(), token.serial, token.sessions.get()), (Some("label"), None, 8));
    assert_eq!(token.pin_file, Some(directory.path().join("pin")));
    for (text, expected) in [
        ("[keys]\nroot = \"pkcs11\"\n", "keys.root"),
        ("[keys]\nroot = \"token\"\n", "files"),
        ("[keys]\nalgorithm = \"rsa\"\n", "ed25519"),
        ("[keys.pkcs11]\ntoken = \"t\"\n", "keys.pkcs11.module"),
        ("[keys.pkcs11]\nmodule = \"/m.so\"\n", "keys.pkcs11.token"),
        ("[keys.pkcs11]\nmodule = \"m.so\"\ntoken = \"t\"\n", "absolute"),
        ("[keys.pkcs11]\nmodule = \"/m.so\"\ntoken = \" \"\n", "1 to 32"),
        ("[keys.pkcs11]\nmodule = \"/m.so\"\nserial = \"12345678901234567\"\n", "1 to 16"),
        ("[keys.pkcs11]\nmodule = \"/m.so\"\ntoken = \"t\"\nsessions = 257\n", "1 to 256"),
        ("[keys.pkcs11]\nmodule = \"/m.so\"\ntoken = \"t\"\npin = \"1234\"\n", "pin_file"),
    ] {
        let told = refused(text);
        assert!(told.contains(expected), "{text}: {told}");
    }
}

#[test]
fn paths_begin_at_the_data_directory() {
    let directory = tempfile::tempdir().unwrap();
    let text = "profiles = \"profiles\"\n[keys]\nweak_lists = \"lists\"\n";
    let config = load(directory.path(), text, &Overrides::default()).unwrap();
    assert_eq!(config.profiles, Some(directory.path().join("profiles")));
    assert_eq!(config.weak_lists, Some(directory.path().join("lists")));
    assert!(refused("[keys]\nweak_list = \"lists\"\n").contains("weak_lists"));
}

#[test]
fn the_command_line_is_stronger_than_the_environment_and_that_than_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::new(directory.path().to_owned());
    let text =
        "names = [\"file.example\"]\ntrust_domain = \"file\"\n[doors]\ndevice = \"127.0.0.1:1\"\nadmin = \"127.0.0.1:2\"\n";
    std::fs::write(layout.config_file(), text).unwrap();
    // A provider in the environment's shape: variables cannot be set without unsafe code.
    let environment = figment::providers::Serialized::defaults(serde_json::json!({
        "names": "env.example, 192.0.2.7", "doors": {"device": "127.0.0.1:3"}
    }));
    let mut overrides = Overrides::default();
    overrides.doors.device = Some("127.0.0.1:4".to_owned());
    let config =
        check::check(layout.clone(), &raw::read_with(&layout.config_file(), environment, &overrides).unwrap()).unwrap();
    assert_eq!(config.trust_domain.as_str(), "file");
    assert_eq!((config.names.dns, config.names.addresses.len()), (vec!["env.example".to_owned()], 1));
    assert_eq!(config.doors.device.port(), 4, "the command line");
    assert_eq!(config.doors.admin.port(), 2, "the file");
}

#[test]
fn errors_name_file_key_and_what_was_expected() {
    let unknown = refused("nmaes = [\"a\"]");
    assert!(unknown.contains("`nmaes` is no key") && unknown.contains("names"), "{unknown}");
    let nested = refused("[doors]\ndevise = \"127.0.0.1:1\"");
    assert!(nested.contains("`doors.devise`") && nested.contains("device"), "{nested}");
    let kind = refused("workers = \"many\"");
    assert!(kind.contains("`workers`") && kind.contains("many") && kind.contains("expected"), "{kind}");
    for (text, key, expected) in [
        ("[doors]\ndevice = \"8443\"", "`doors.device`", "ADDRESS:PORT"),
        ("[doors]\ndevice = \"127.0.0.1:9443\"", "`doors.device`", "no other door"),
        ("names = [\"*.example\"]", "`names`", "no wildcard"),
        ("names = [\"1.2.3\"]", "`names`", "DNS names"),
        ("names = []", "`names`", "at least one"),
        ("trust_domain = \"Upper\"", "`trust_domain`", "lower-case"),
        ("default_fleet = \"system\"", "`default_fleet`", "reserved"),
        ("public_url = \"https://a.example\"", "`public_url`", "http://HOST"),
        ("public_url = \"http://a.example/?x\"", "`public_url`", "without user, query"),
        ("store = \"mysql://u:secret@h/db\"", "`store`", "postgres://"),
        ("workers = 0", "`workers`", "1 to 256"),
        ("[limits]\nconnections = 0", "`limits.connections`", "at least 1"),
        ("[limits]\nfollowers = 0", "`limits.followers`", "at least 1"),
        ("[limits]\nenroll_per_second = 0\nenroll_burst = 5", "`limits.enroll_burst`", "enroll_per_second"),
        ("[log]\nformat = \"xml\"", "`log.format`", "text or json"),
        ("[log]\nlevel = \"fleetmark=loud\"", "`log.level`", "error, warn"),
    ] {
        let error = refused(text);
        assert!(error.contains(key) && error.contains(expected) && !error.contains("secret"), "{text}: {error}");
    }
    assert!(refused("names = [").contains("no TOML"));
}

#[test]
fn no_option_is_taken_that_does_nothing() {
    assert!(refused("danger_public_ledger = true").contains("no key"));
}

#[test]
fn a_store_url_is_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let text = "store = \"postgres://fleetmark:hunter2hunter2@db/fleetmark\"";
    let config = load(directory.path(), text, &Overrides::default()).unwrap();
    assert!(!format!("{config:?} {}", config.store).contains("hunter2"));
}

fn plain_config(directory: &Path) -> Config {
    load(directory, "", &Overrides::default()).unwrap()
}

fn write_with_mode(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn passphrases_come_in_their_order() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = plain_config(directory.path());
    let mut surroundings = Surroundings::default();
    assert!(matches!(read(&config, &surroundings, false), Err(PassphraseError::Missing)));

    write_with_mode(&config.data.passphrase_file(), "kept in the data directory\n", 0o600);
    let found = find(&config, &surroundings).unwrap().unwrap();
    assert_eq!(found.secret.expose_secret(), "kept in the data directory");
    assert_eq!(found.source, Source::Kept(config.data.passphrase_file()));

    surroundings.variable = Some("in the environment".into());
    assert_eq!(find(&config, &surroundings).unwrap().unwrap().source, Source::Environment);

    let credentials = tempfile::tempdir().unwrap();
    let credential = credentials.path().join(passphrase::CREDENTIAL);
    write_with_mode(&credential, "from the service manager", 0o400);
    surroundings.credentials_directory = Some(credentials.path().to_owned());
    assert_eq!(find(&config, &surroundings).unwrap().unwrap().source, Source::Credential(credential));

    let named = directory.path().join("named");
    write_with_mode(&named, "from the named file\r\n", 0o600);
    config.passphrase_file = Some(named.clone());
    let found = find(&config, &surroundings).unwrap().unwrap();
    assert_eq!((found.secret.expose_secret(), found.source), ("from the named file", Source::File(named)));
}

#[test]
fn bad_passphrases_are_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = plain_config(directory.path());
    let path = directory.path().join("named");
    config.passphrase_file = Some(path.clone());
    let surroundings = Surroundings { variable: Some("would be good enough".into()), ..Surroundings::default() };
    assert!(matches!(find(&config, &surroundings), Err(PassphraseError::File(..))), "not passed over for the next");
    for mode in [0o640, 0o604, 0o660] {
        write_with_mode(&path, "long enough to be taken", mode);
        let error = find(&config, &surroundings).unwrap_err();
        assert!(matches!(error, PassphraseError::Permissions { mode: found, .. } if found == mode), "{error}");
        assert!(error.to_string().contains("chmod 600"));
    }
    for text in ["elevenchars", "", "two lines are\nnot one passphrase", &"x".repeat(2000)] {
        write_with_mode(&path, text, 0o600);
        let error = find(&config, &surroundings).unwrap_err();
        assert!(matches!(error, PassphraseError::Form(_)), "{text:?}");
        assert!(text.is_empty() || !error.to_string().contains(text));
    }
}

#[test]
fn a_made_passphrase_is_kept_and_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let config = plain_config(directory.path());
    let made = read_or_make(&config, &Surroundings::default(), &SystemRandom::new()).unwrap();
    let path = config.data.passphrase_file();
    assert_eq!(made.source, Source::Made(path.clone()));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let again = read(&config, &Surroundings::default(), false).unwrap();
    assert_eq!(again.secret.expose_secret(), made.secret.expose_secret());
    assert_eq!(again.source, Source::Kept(path));
    assert!(!format!("{made:?}").contains(made.secret.expose_secret()));
}

#[test]
fn a_renewal_that_was_interrupted_is_finished() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("operator");
    let make = |text: &str| {
        profile::pending_key::<ProfileError>(&place, || Ok(zeroize::Zeroizing::new(text.to_owned()))).unwrap().to_string()
    };
    assert_eq!(make("key 1"), "key 1");
    assert_eq!(make("key x"), "key 1", "a lost answer is asked for again with the same key");
    let settings = ProfileSettings { server: "https://a:9443".to_owned(), device_door: "https://a:8443".to_owned() };
    let new = NewProfile { settings: Some(settings), key_pem: "key 1", certificate_pem: "cert 1", ca_pem: "ca" };
    profile::create(&place, &new, false).unwrap();
    assert!(matches!(profile::create(&place, &new, false), Err(ProfileError::Exists(_))));
    assert_eq!(make("key 2"), "key 2", "the first key is no longer pending");
    assert_eq!(*Profile::open(&place).unwrap().key_pem().unwrap(), b"key 1", "not answered: the old key holds");
    // The machine dies after the certificate was written and before anything was renamed.
    std::fs::write(place.join("cert.pem.new"), "cert 2").unwrap();
    let opened = Profile::open(&place).unwrap();
    assert_eq!(*opened.key_pem().unwrap(), b"key 2");
    assert_eq!(opened.certificate_pem().unwrap(), b"cert 2");
    std::fs::set_permissions(place.join("key.pem"), Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(opened.key_pem(), Err(ProfileError::Permissions { .. })));
}

#[test]
fn the_own_database_is_known_by_any_path() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::os::unix::fs::symlink(&data, directory.path().join("link")).unwrap();
    let stored = |path: &str| load(&data, &format!("store = \"sqlite:{path}\""), &Overrides::default()).unwrap();
    let linked = directory.path().join("link/fleetmark.db");
    assert!(stored("fleetmark.db").has_own_database() && !stored(linked.to_str().unwrap()).has_own_database());
    std::fs::write(data.join("fleetmark.db"), "").unwrap();
    assert!(stored(linked.to_str().unwrap()).has_own_database());
    assert!(!stored(data.join("fleetmark.toml").to_str().unwrap()).has_own_database());
}

#[test]
fn a_profile_that_was_half_made_keeps_its_key_and_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let settings = ProfileSettings { server: "https://a:9443".to_owned(), device_door: "https://a:8443".to_owned() };
    let new = NewProfile { settings: Some(settings), key_pem: "key 1", certificate_pem: "cert 1", ca_pem: "ca" };
    for file in ["ca.pem", "operator.toml", "cert.pem.new"] {
        let place = directory.path().join(file);
        let pending = |key: &str| {
            profile::pending_key::<ProfileError>(&place, || Ok(zeroize::Zeroizing::new(key.to_owned()))).unwrap().to_string()
        };
        assert_eq!(pending("key 1"), "key 1");
        // What is in the way of one file is like a disk that is full when it is written.
        let in_the_way = place.join(format!(".{file}.{}", std::process::id()));
        std::fs::create_dir(&in_the_way).unwrap();
        assert!(matches!(profile::create(&place, &new, false), Err(ProfileError::File { .. })), "{file}");
        std::fs::remove_dir(&in_the_way).unwrap();
        assert!(!profile::is_there(&place).unwrap() && Profile::open(&place).is_err(), "{file}");
        assert_eq!(pending("key 2"), "key 1", "{file}: the certificate is asked for again with the same key");
        profile::create(&place, &new, false).unwrap();
        assert_eq!(*Profile::open(&place).unwrap().key_pem().unwrap(), b"key 1");
        assert_eq!(pending("key 2"), "key 2", "{file}");
    }
}

#[test]
fn what_was_given_at_the_first_start_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::new(directory.path().join("data"));
    layout.create().unwrap();
    let mut overrides = Overrides { names: vec!["ca.example".to_owned()], ..Overrides::default() };
    overrides.doors.admin = Some("127.0.0.1:19443".to_owned());
    assert!(layout.keep(&overrides).unwrap().is_empty());
    // An attempt that failed, and another one with other options.
    overrides = Overrides { trust_domain: Some("fleet.example".to_owned()), ..Overrides::default() };
    overrides.doors.device = Some("127.0.0.1:18443".to_owned());
    assert!(layout.keep(&overrides).unwrap().is_empty());
    let read = raw::read_with(&layout.config_file(), no_environment(), &Overrides::default()).unwrap();
    let config = check::check(layout.clone(), &read).unwrap();
    assert_eq!((config.names.dns, config.doors.admin.port()), (vec!["ca.example".to_owned()], 19_443));
    assert_eq!((config.trust_domain.as_str(), config.doors.device.port()), ("fleet.example", 18_443));
    assert_eq!(layout.config_file().metadata().unwrap().permissions().mode() & 0o777, 0o600);

    // A file that a person wrote, or changed, is left alone, and what it has not is told.
    let ours = std::fs::read_to_string(layout.config_file()).unwrap();
    overrides.doors.admin = Some("127.0.0.1:29443".to_owned());
    for text in [format!("{ours}# mine\n"), "trust_domain = \"fleet.example\"\n".to_owned()] {
        std::fs::write(layout.config_file(), &text).unwrap();
        let told = layout.keep(&overrides).unwrap();
        assert!(told.contains(&"doors.admin".to_owned()) && !told.contains(&"trust_domain".to_owned()), "{told:?}");
        assert_eq!(std::fs::read_to_string(layout.config_file()).unwrap(), text);
    }
    assert_eq!(layout.directory().metadata().unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn variables_of_our_other_programs_keep_no_server_from_starting() {
    if std::env::var_os("FLEETMARK_GATEWAY_CONFIG").is_some() {
        let read = raw::read(Path::new("no-file"), &Overrides::default()).map_err(|error| error.to_string()).unwrap();
        assert_eq!(read.raw.log.level.as_deref(), Some("debug"), "the key in the table is read all the same");
        return;
    }
    // In a process of its own: variables cannot be set without unsafe code.
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "config::tests::variables_of_our_other_programs_keep_no_server_from_starting"]);
    child.envs([("FLEETMARK_LOG", "info"), ("FLEETMARK_GATEWAY_CONFIG", "gateway.toml"), ("FLEETMARK_LOG__LEVEL", "debug")]);
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
