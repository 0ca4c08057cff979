//! `up`, `init`, `serve`: configuration, logs and passphrase; all else is the server's.

#![expect(clippy::doc_markdown, reason = "clap shows the comments of arguments as they are")]

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use fleetmark_domain::Fingerprint;
use ring::rand::SystemRandom;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use super::failure::{Failure, chain};
use super::session::print;
use crate::config::passphrase::{self, Passphrase, Source, Surroundings};
use crate::config::pin;
use crate::config::profile::Profile;
use crate::config::{Config, DEFAULT_DATA_DIRECTORY, KeyHome, Layout, LogFormat, Overrides};
use crate::server::{self, Begun, RootPlace, ServerError, Start, Summary};
use crate::telemetry::{self, clock::SystemClock};

/// Where an installation is, or is to be, and what opens its keys.
#[derive(Debug, Default, Args)]
pub struct Installation {
    /// The data directory
    #[arg(long, value_name = "DIR", env = "FLEETMARK_DATA", default_value = DEFAULT_DATA_DIRECTORY)]
    pub data: PathBuf,
    /// A file with the passphrase of the keys, mode 0600
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl Installation {
    /// Its configuration.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn config(&self) -> Result<Config, Failure> {
        Ok(Config::load(&self.data, &self.overrides()?)?)
    }

    fn overrides(&self) -> Result<Overrides, Failure> {
        let path = self.passphrase_file.as_ref().map(std::path::absolute).transpose().map_err(|error| Failure::of(&error))?;
        Ok(Overrides { passphrase_file: path.map(|path| path.to_string_lossy().into_owned()), ..Overrides::default() })
    }
}

/// What a server is started with; the same keys as in `fleetmark.toml`, and stronger.
#[derive(Debug, Default, Args)]
pub struct ServerArguments {
    #[command(flatten)]
    pub installation: Installation,
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
    /// What certificates name for revocation lists and OCSP: http://HOST or http://HOST:PORT
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// sqlite:PATH or postgres://…
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Algorithm of new authorities' keys: p256, p384 or ed25519; what their profiles name first unless given
    #[arg(long, value_name = "ALGORITHM")]
    algorithm: Option<String>,
    /// The same of the root's key, which --algorithm does not change
    #[arg(long, value_name = "ALGORITHM")]
    root_algorithm: Option<String>,
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
        Ok(Config::load(&self.installation.data, &self.overrides()?)?)
    }

    /// What was said here, as the configuration takes it.
    ///
    /// # Errors
    /// [`Failure`] where a path cannot be made absolute.
    pub fn overrides(&self) -> Result<Overrides, Failure> {
        let mut overrides = Overrides {
            trust_domain: self.trust_domain.clone(),
            names: self.names.clone(),
            public_url: self.public_url.clone(),
            store: self.store.clone(),
            danger_online_root: self.danger_online_root.then_some(true),
            ..self.installation.overrides()?
        };
        overrides.doors.device.clone_from(&self.device_door);
        overrides.doors.admin.clone_from(&self.admin_door);
        overrides.doors.public.clone_from(&self.public_door);
        overrides.keys.algorithm.clone_from(&self.algorithm);
        overrides.keys.root_algorithm.clone_from(&self.root_algorithm);
        overrides.log.format.clone_from(&self.log_format);
        overrides.log.level.clone_from(&self.log_level);
        Ok(overrides)
    }

    /// Makes the data directory and, as long as it is ours, the configuration file; then loads it and starts logs.
    fn prepare(&self, is_first: bool) -> Result<Config, Failure> {
        let overrides = self.overrides()?;
        // Checked before anything is written: a mistake on the command line leaves no trace.
        let config = Config::load(&self.installation.data, &overrides)?;
        if is_first {
            config.data.create()?;
            self.keep(&config.data)?;
        }
        telemetry::logs::start(config.log.format == LogFormat::Json, &config.log.level).map_err(|error| Failure::of(&error))?;
        Ok(config)
    }

    /// Keeps what was said here, and tells what could not be kept.
    fn keep(&self, data: &Layout) -> Result<(), Failure> {
        let left_out = data.keep(&self.overrides()?)?;
        if !left_out.is_empty() {
            eprintln!(
                "{} is not ours to change, so this is not kept, and has to be said at each start, or written there: {}",
                data.config_file().display(),
                left_out.join(", ")
            );
        }
        Ok(())
    }

    fn is_initialised(&self) -> Result<bool, Failure> {
        Ok(self.layout()?.is_initialised())
    }

    /// Whether the first operator's profile is here, whole.
    fn has_operator(&self) -> Result<bool, Failure> {
        Ok(Profile::open(&self.layout()?.operator()).is_ok())
    }

    fn layout(&self) -> Result<Layout, Failure> {
        let data = std::path::absolute(&self.installation.data).map_err(|error| Failure::of(&error))?;
        Ok(Layout::new(data))
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
    let told = Told::of(&config);
    let start = start(config, passphrase)?;
    run(async move {
        let stop = stop()?;
        let ready = |summary: &Summary| told.ready(summary, is_first);
        server::up(start, ready, stop).await.map_err(|error| ended(&error))
    })
}

/// Where the root's key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Place {
    /// Made here, to be taken to a safe place
    #[default]
    Here,
    /// On another machine: `fleetmark root`
    Offline,
    /// Made here, certified by a corporate authority
    Corporate,
}

/// `fleetmark init`
#[derive(Debug, Default, Args)]
pub struct InitArguments {
    #[command(flatten)]
    server: ServerArguments,
    /// Where the root is
    #[arg(long, value_enum, default_value_t = Place::Here)]
    root: Place,
    /// Go on with the answer of the root's ceremony, or with the corporate authority's certificate and those above it, in PEM
    #[arg(long = "continue", value_name = "FILE", requires = "root_fingerprint", conflicts_with = "root")]
    answer: Option<PathBuf>,
    /// SHA-256 of the root's certificate, as its record says; of the corporate root's
    #[arg(long, value_name = "HEX", requires = "answer")]
    root_fingerprint: Option<Fingerprint>,
    /// With a corporate authority: its revocation list, and those of what stands above it; may be repeated
    #[arg(long, value_name = "FILE", requires = "answer")]
    corporate_crl: Vec<PathBuf>,
}

/// `fleetmark init`
///
/// # Errors
/// [`Failure`].
pub fn init(arguments: &InitArguments) -> Result<(), Failure> {
    let server = &arguments.server;
    let is_there = server.is_initialised()?;
    if let (Some(answer), Some(root)) = (&arguments.answer, &arguments.root_fingerprint) {
        if !is_there {
            let text = format!("{}: no installation was begun here", server.installation.data.display());
            return Err(Failure::Failed(text, Some("Begin one with `fleetmark init --root offline` or `--root corporate`.")));
        }
        return go_on(server, answer, *root, &arguments.corporate_crl);
    }
    let place = match arguments.root {
        Place::Here => RootPlace::Here,
        Place::Offline => RootPlace::Ceremony,
        Place::Corporate => RootPlace::Corporate,
    };
    // The last thing that is made, so no passphrase is asked for; without it the store is looked into.
    if is_there && place == RootPlace::Here && server.has_operator()? {
        return Err(there_already(&ServerError::Whole(server.installation.data.display().to_string())));
    }
    let config = server.prepare(!is_there)?;
    let passphrase = passphrase::read(&config, &Surroundings::of_process(), !is_there)?;
    let data = config.data.clone();
    let root = match config.keys.root {
        KeyHome::Files => format!("lies in {}: take it to a safe place before `fleetmark serve`", data.keys().display()),
        KeyHome::Pkcs11 => {
            "is in the PKCS#11 token, where this machine can use it: `fleetmark serve` wants danger_online_root".to_owned()
        }
    };
    let start = start(config, passphrase)?;
    let begun = async {
        server::init(start, place).await.map_err(|error| match error {
            ServerError::Whole(_) => there_already(&error),
            _ => ended(&error),
        })
    };
    let begun = run(begun)?;
    if is_there {
        // It was not finished, and what finished it counts.
        server.keep(&data)?;
    }
    match begun {
        Begun::Whole(summary) => {
            print(&made(&data, &summary))?;
            print(&format!("The root's key {root}.\n"))
        }
        Begun::Asked { file, digest } => print(&asked(place, &file, &digest)),
    }
}

fn there_already(error: &ServerError) -> Failure {
    Failure::Failed(chain(error), Some("Start it with `fleetmark serve`, or name another directory with --data."))
}

fn go_on(server: &ServerArguments, answer: &Path, root: Fingerprint, lists: &[PathBuf]) -> Result<(), Failure> {
    let config = server.prepare(false)?;
    let read = |path: &Path| super::root::read(path);
    let answer = read(answer)?;
    let lists: Vec<u8> = lists.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?.concat();
    let passphrase = passphrase::read(&config, &Surroundings::of_process(), false)?;
    let data = config.data.clone();
    let start = start(config, passphrase)?;
    let summary = run(async { server::go_on(start, &answer, &root, &lists).await.map_err(|error| ended(&error)) })?;
    print(&made(&data, &summary))
}

fn made(data: &Layout, summary: &Summary) -> String {
    format!(
        "The installation is in {}.\nRoot's SHA-256 fingerprint: {}\nFirst operator's profile: {}\n",
        data.directory().display(),
        summary.root_fingerprint,
        data.operator().display(),
    )
}

/// What to do with a request.
fn asked(place: RootPlace, file: &Path, digest: &str) -> String {
    let file = file.display();
    let digest = crate::ceremony::grouped(digest);
    if place == RootPlace::Corporate {
        return format!(
            "Have the corporate authority certify the request in {file},\nas an authority (CA:TRUE) with path length 1 or more. SHA-256 of the file:\n{digest}\
             Then bring its certificate with all above it:\n  fleetmark init --continue CHAIN.pem --root-fingerprint HEX --corporate-crl FILE\n"
        );
    }
    format!(
        "The root is asked by {file}. Its SHA-256, to be compared on both machines:\n{digest}\
         On the root's machine:\n  fleetmark root sign --dir DIR {name} --out answer.json\n\
         Then here:\n  fleetmark init --continue answer.json --root-fingerprint HEX\n",
        name = "root-request.json",
    )
}

/// `fleetmark serve`
///
/// # Errors
/// [`Failure`].
pub fn serve(arguments: &ServerArguments) -> Result<(), Failure> {
    if !arguments.is_initialised()? {
        let text = format!("{}: there is no installation here", arguments.installation.data.display());
        return Err(Failure::Failed(text, Some("Make one with `fleetmark init`, or name its directory with --data.")));
    }
    let config = arguments.prepare(false)?;
    let passphrase = passphrase::read(&config, &Surroundings::of_process(), false)?;
    let told = Told::of(&config);
    let start = start(config, passphrase)?;
    run(async move {
        let stop = stop()?;
        let ready = |summary: &Summary| told.ready(summary, false);
        server::serve(start, ready, stop).await.map_err(|error| ended(&error))
    })
}

/// What people are told once the server is up.
struct Told {
    operator: PathBuf,
    device: (String, SocketAddr),
    admin: (String, SocketAddr),
    public: (String, SocketAddr),
    fleet: String,
}

impl Told {
    fn of(config: &Config) -> Self {
        let door = |address| (config.door_url(address), address);
        Self {
            operator: config.data.operator(),
            device: door(config.doors.device),
            admin: door(config.doors.admin),
            public: (config.public_url.clone(), config.doors.public),
            fleet: config.default_fleet.to_string(),
        }
    }

    fn ready(&self, summary: &Summary, is_first: bool) {
        let text = self.text(summary, is_first);
        // Where standard output is closed there is nobody to tell, and the server serves all the same.
        let _ = print(&text);
    }

    fn text(&self, summary: &Summary, is_first: bool) -> String {
        let mut parts = vec![format!("Root's SHA-256 fingerprint: {}\n", summary.root_fingerprint)];
        for (name, (url, address)) in [("Device", &self.device), ("Admin", &self.admin), ("Public", &self.public)] {
            parts.push(format!("{name} door: {url} (listens at {address})\n"));
        }
        if let Some(restored) = &summary.restored {
            parts.push(format!(
                "Restored from a backup of {}. What was issued, confirmed or revoked after that is not known here: revoke again what was \
                 revoked since, and let devices that are refused enroll again.\n",
                restored.backup.made_at
            ));
        }
        if is_first {
            let fleetmark = format!("{} --operator {}", program("fleetmark"), self.operator.display());
            let (device, fleet) = (program("fleetmark-device"), &self.fleet);
            parts.push(format!(
                "\nThis is for a lab: the root's key lies on this machine, and this is no offline root.\n\
                 Enroll a first device, in another terminal:\n  {fleetmark} token create --fleet {fleet} --device sensor-1\n  \
                 {device} enroll --server {} --fleet {fleet} \\\n    --ca-fingerprint {} \\\n    --dir ./sensor-1 --token TOKEN\n\
                 Look at it, and revoke it:\n  {fleetmark} device show --fleet {fleet} sensor-1\n  \
                 {fleetmark} device revoke --fleet {fleet} sensor-1 --reason keyCompromise\n",
                self.device.0, summary.root_fingerprint,
            ));
        }
        parts.concat()
    }
}

fn start(config: Config, passphrase: Passphrase) -> Result<Start, Failure> {
    let pin = config.keys.pkcs11.as_ref().map(|token| pin::read(token, &Surroundings::of_process())).transpose();
    let pin = pin.map_err(|error| Failure::Failed(chain(&error), Some("docs/hsm.md says where the PIN comes from.")))?;
    let pin = pin.flatten().map(|pin| pin.secret);
    let metrics = telemetry::metrics::install().map_err(|error| Failure::of(&error))?;
    Ok(Start { config, passphrase: passphrase.secret, pin, clock: Arc::new(SystemClock), metrics })
}

fn run<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = Builder::new_multi_thread().enable_all().build().map_err(|error| Failure::of(&error))?;
    runtime.block_on(work)
}

/// Done when the process is asked to end: SIGTERM, or SIGINT from a terminal.
fn stop() -> Result<impl Future<Output = ()>, Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::of(&error));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Says what a passphrase beside the keys means, once: when it is made.
fn explain(passphrase: &Passphrase) {
    if let Source::Made(path) = &passphrase.source {
        eprintln!(
            "A passphrase for the keys was made and lies beside them, in {}.\n\
             Whoever copies this directory has the keys: good enough for a lab, and for nothing else. For production, run `init`\n\
             with --passphrase-file, a systemd credential or FLEETMARK_PASSPHRASE, and keep it elsewhere.\n\
             Keep a copy of this file in any case: no backup can be restored without it.\n",
            path.display()
        );
    }
}

fn ended(error: &ServerError) -> Failure {
    Failure::Failed(chain(error), Some("`fleetmark doctor` looks for what is wrong."))
}
/// How a program of this build is called from where this one was: its path beside this one, or through cargo.
fn program(name: &str) -> String {
    let beside = std::env::current_exe().ok().and_then(|this| Some(this.parent()?.join(name)));
    match beside.filter(|path| path.exists()) {
        Some(path) => path.display().to_string(),
        None => format!("cargo run --release -p {name} --"),
    }
}
