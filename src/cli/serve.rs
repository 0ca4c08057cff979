//! `up`, `init`, `serve`: configuration, logs and passphrase; all else is the server's.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use ring::rand::SystemRandom;
use tokio::signal::unix::{SignalKind, signal};

use super::failure::{Failure, chain};
use crate::config::passphrase::{self, Passphrase, Source, Surroundings};
use crate::config::{Config, DEFAULT_DATA_DIRECTORY, Layout, LogFormat, Overrides};
use crate::server::{ServerError, Start, Summary};
use crate::telemetry::clock::SystemClock;
use crate::{server, telemetry};

/// What a server is started with; the same keys as in `fleetmark.toml`, and stronger.
#[derive(Debug, Default, Args)]
pub struct ServerArguments {
    /// The data directory
    #[arg(long, value_name = "DIR", env = "FLEETMARK_DATA", default_value = DEFAULT_DATA_DIRECTORY)]
    pub data: PathBuf,
    /// The root of all identities, such as fleet.example
    #[arg(long, value_name = "DOMAIN")]
    trust_domain: Option<String>,
    /// A DNS name or IP address that the server is reached by; may be repeated, the first counts in URLs
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Where devices enroll: ADDRESS:PORT
    #[arg(long, value_name = "ADDRESS")]
    device_door: Option<String>,
    /// Where operators work: ADDRESS:PORT
    #[arg(long, value_name = "ADDRESS")]
    admin_door: Option<String>,
    /// Where revocation lists and OCSP are: ADDRESS:PORT
    #[arg(long, value_name = "ADDRESS")]
    public_door: Option<String>,
    /// What certificates name for revocation lists and OCSP: http://HOST[:PORT]
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// sqlite:PATH or postgres://…
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// A file with the passphrase of the keys, mode 0600
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// text or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// error, warn, info, debug, trace, or directives
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Let `serve` run with the root's key on this machine
    #[arg(long)]
    danger_online_root: bool,
}

impl ServerArguments {
    /// The configuration with what was said here.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn config(&self) -> Result<Config, Failure> {
        Ok(Config::load(&self.data, &self.overrides()?)?)
    }

    /// What was said here, as the configuration takes it.
    ///
    /// # Errors
    /// [`Failure`] where a path cannot be made absolute.
    pub fn overrides(&self) -> Result<Overrides, Failure> {
        let absolute = |path: &PathBuf| std::path::absolute(path).map_err(|error| Failure::of(&error));
        let passphrase_file = self.passphrase_file.as_ref().map(absolute).transpose()?;
        let mut overrides = Overrides {
            trust_domain: self.trust_domain.clone(),
            names: self.names.clone(),
            public_url: self.public_url.clone(),
            store: self.store.clone(),
            passphrase_file: passphrase_file.map(|path| path.to_string_lossy().into_owned()),
            danger_online_root: self.danger_online_root.then_some(true),
            ..Overrides::default()
        };
        overrides.doors.device.clone_from(&self.device_door);
        overrides.doors.admin.clone_from(&self.admin_door);
        overrides.doors.public.clone_from(&self.public_door);
        overrides.log.format.clone_from(&self.log_format);
        overrides.log.level.clone_from(&self.log_level);
        Ok(overrides)
    }

    /// Makes the data directory and, where there is none, the configuration file; then loads it and starts logs.
    fn prepare(&self, is_first: bool) -> Result<Config, Failure> {
        let overrides = self.overrides()?;
        // Checked before anything is written: a mistake on the command line leaves no trace.
        let config = Config::load(&self.data, &overrides)?;
        if is_first {
            config.data.create()?;
            config.data.keep(&overrides)?;
        }
        telemetry::logs::start(config.log.format == LogFormat::Json, &config.log.level).map_err(|error| Failure::of(&error))?;
        Ok(config)
    }

    fn is_initialised(&self) -> Result<bool, Failure> {
        let data = std::path::absolute(&self.data).map_err(|error| Failure::of(&error))?;
        Ok(Layout::new(data).is_initialised())
    }
}

/// `fleetmark up`
///
/// # Errors
/// [`Failure`].
pub fn up(arguments: &ServerArguments) -> Result<(), Failure> {
    let is_first = !arguments.is_initialised()?;
    let config = arguments.prepare(is_first)?;
    let surroundings = Surroundings::of_process();
    let passphrase = if is_first {
        passphrase::read_or_make(&config, &surroundings, &SystemRandom::new())?
    } else {
        passphrase::read(&config, &surroundings, false)?
    };
    explain(&passphrase);
    run(config, passphrase, |begin| async {
        let shown = begin.config.clone();
        server::up(begin, |summary| welcome(&shown, summary), stop_signal()).await
    })
}

/// `fleetmark init`
///
/// # Errors
/// [`Failure`].
pub fn init(arguments: &ServerArguments) -> Result<(), Failure> {
    if arguments.is_initialised()? {
        let text = format!("{}: there is an installation here already", arguments.data.display());
        return Err(Failure::Failed(text, Some("Start it with `fleetmark serve`, or name another directory with --data.")));
    }
    let config = arguments.prepare(true)?;
    let passphrase = passphrase::read(&config, &Surroundings::of_process(), true)?;
    run(config, passphrase, |begin| async {
        let shown = begin.config.clone();
        let summary = server::init(begin).await?;
        println!("An installation was made in {}.", shown.data.directory().display());
        println!("Root fingerprint (SHA-256): {}", summary.root_fingerprint);
        println!("First operator:             {}", shown.data.operator().display());
        println!("Next: move keys/root-*.key.pem to a safe place, then `fleetmark serve --data {}`.", shown.data.directory().display());
        Ok(())
    })
}

/// `fleetmark serve`
///
/// # Errors
/// [`Failure`].
pub fn serve(arguments: &ServerArguments) -> Result<(), Failure> {
    if !arguments.is_initialised()? {
        let text = format!("{}: there is no installation here", arguments.data.display());
        return Err(Failure::Failed(text, Some("Make one with `fleetmark init`, or name its directory with --data.")));
    }
    let config = arguments.prepare(false)?;
    let passphrase = passphrase::read(&config, &Surroundings::of_process(), false)?;
    run(config, passphrase, |begin| async {
        let shown = begin.config.clone();
        server::serve(begin, |summary| serving(&shown, summary), stop_signal()).await
    })
}

/// Says what a passphrase beside the keys means, once: when it is made.
fn explain(passphrase: &Passphrase) {
    if let Source::Made(path) = &passphrase.source {
        eprintln!(
            "A passphrase for the keys was made and lies beside them, in {}.\n\
             Whoever copies this directory has the keys: good enough for a lab, and for nothing else. For production, run `init` \
             with\n--passphrase-file, a systemd credential or FLEETMARK_PASSPHRASE, and keep it elsewhere.\n\
             Keep a copy of this file in any case: no backup can be restored without it.",
            path.display()
        );
    }
}

/// Runs the server's part in a runtime of its own.
fn run<F: Future<Output = Result<(), ServerError>>>(
    config: Config,
    passphrase: Passphrase,
    part: impl FnOnce(Start) -> F,
) -> Result<(), Failure> {
    let metrics = telemetry::metrics::install().map_err(|error| Failure::of(&error))?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| Failure::of(&error))?;
    let begin = Start { config, passphrase: passphrase.secret, clock: Arc::new(SystemClock), metrics };
    runtime.block_on(part(begin)).map_err(|error| {
        let hint = Some("`fleetmark doctor` looks for what is wrong.");
        Failure::Failed(chain(&error), hint)
    })
}

/// SIGTERM, or SIGINT from the terminal.
async fn stop_signal() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            // Without the signal's stream its default stays: the process ends.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = terminated => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    eprintln!("Stopping: requests in progress may end.");
}

/// Where the doors are.
fn serving(config: &Config, summary: &Summary) {
    println!("Fleetmark {} serves {}", env!("CARGO_PKG_VERSION"), config.trust_domain);
    println!("  root fingerprint  {}", summary.root_fingerprint);
    println!("  device door       {}  (on {})", config.door_url(config.doors.device), config.doors.device);
    println!("  admin door        {}  (on {})", config.door_url(config.doors.admin), config.doors.admin);
    println!("  public door       {}  (on {})", config.public_url, config.doors.public);
    if let Some(restored) = &summary.restored {
        println!("Restored from a backup of {}. Lost, if it happened after that: enrollments, confirmations, revocations,", restored.backup.made_at);
        println!("tokens and records. Certificates issued after it are refused (not_on_ledger): those devices enroll again.");
        for ledger in &restored.backup.ledgers {
            println!("  ledger {:<16} was at {} entries", ledger.name, ledger.size);
        }
        println!("Revoke again what was revoked since, and withdraw tokens that were used since.");
    }
}

/// What to do first.
fn welcome(config: &Config, summary: &Summary) {
    serving(config, summary);
    let operator = config.data.operator();
    let fleetmark = format!("{} --operator {}", program("fleetmark"), operator.display());
    let fleet = &config.default_fleet;
    println!();
    println!("This is a lab: the root's key lies on this machine, which is no offline root. For production: `init`, then `serve`.");
    println!();
    println!("Enroll a first device, in another terminal:");
    println!("  {fleetmark} token create --fleet {fleet} --device sensor-1");
    println!("  {} enroll --server {} \\", program("fleetmark-device"), config.door_url(config.doors.device));
    println!("    --ca-fingerprint {} \\", summary.root_fingerprint);
    println!("    --dir ./sensor-1 --token TOKEN");
    println!("Look at it, and revoke it:");
    println!("  {fleetmark} device show --fleet {fleet} sensor-1");
    println!("  {fleetmark} device revoke --fleet {fleet} sensor-1 --reason keyCompromise");
}

/// How a program of this build is called from where this one was: its path beside this one, or through cargo.
fn program(name: &str) -> String {
    let beside = std::env::current_exe().ok().and_then(|this| Some(this.parent()?.join(name)));
    match beside.filter(|path| path.exists()) {
        Some(path) => path.display().to_string(),
        None => format!("cargo run --release -p {name} --"),
    }
}
