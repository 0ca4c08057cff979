//! The server put together: data directory, sockets, store, keys, registrar, doors, jobs.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use fleetmark_domain::{Fingerprint, Name};
use fleetmark_ledger::entry::{AuthorityKind, AuthorityState};
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use crate::backup::restored;
use crate::config::profile::{self, NewProfile, Profile, ProfileSettings, pending_key};
use crate::config::{AuthorityAlgorithm, Config, KeyHome, Pkcs11, StoreLocation};
use crate::http::State;
use crate::http::admin::backups::Backups;
use crate::http::descriptors::connections_within;
use crate::http::device::feed::followers::Followers;
use crate::http::limits::AddressLimit;
use crate::http::listeners::{Addresses, Listeners};
use crate::http::public::health::Pulse;
use crate::http::server::{Options, TlsDoors, start};
use crate::jobs::{Jobs, load};
use crate::ledger::Publisher;
use crate::pki::PkiError;
use crate::pki::bundle::pem;
use crate::pki::csr::VerifiedCsr;
use crate::pki::keys::pkcs11::{Mark, Token, TokenSettings};
use crate::pki::keys::{Choice, Choices, Home, KeyAlgorithm, Keys};
use crate::pki::profile::Profiles;
use crate::pki::weak::lists::WeakLists;
use crate::registrar::authorities::AuthoritySet;
use crate::registrar::install::Parts;
use crate::registrar::rates::RateSettings;
use crate::registrar::snapshots::Snapshots;
use crate::registrar::{Error, Registrar};
use crate::store::{BoxError, HeadSigner, StoreError, location};
use crate::telemetry::clock::SharedClock;
use crate::tls::{Doors, Trust};

/// The first operator's name.
const FIRST_OPERATOR: &str = "admin";

/// Why the server does not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A door's address cannot be had.
    #[error("the doors cannot be opened")]
    Listen(#[source] BoxError),
    /// The store cannot be opened.
    #[error("the store cannot be opened")]
    Store(#[from] StoreError),
    /// The store's URL cannot be used.
    #[error("the store's place cannot be used")]
    Location(#[source] location::LocationError),
    /// Keys, profiles or certificates cannot be used.
    #[error("the keys cannot be used")]
    Keys(#[source] BoxError),
    /// A use case refused.
    #[error("{what}{}", source.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default())]
    Refused {
        /// What was tried.
        what: &'static str,
        /// Why it was refused.
        #[source]
        source: Error,
    },
    /// There is no installation in the data directory.
    #[error("there is no installation in {0}: run `fleetmark init` first, or `fleetmark up` for the lab")]
    NotInitialised(String),
    /// What `init` makes is all there.
    #[error("{0}: there is an installation here already")]
    Whole(String),
    /// An `init` was cut off.
    #[error("the installation in {0} is not finished: run `fleetmark init` again, as it was begun")]
    Unfinished(String),
    /// The root did not answer yet.
    #[error("the installation in {0} waits for its root: bring the answer with `fleetmark init --continue FILE`")]
    Waiting(String),
    /// What a root is asked for cannot be written.
    #[error("the root's request cannot be written")]
    Request(#[source] BoxError),
    /// The root's key lies on this machine.
    #[error(
        "the root's key {0} lies on this machine: move it to a safe place (the server goes on without it; new fleets \
         need it back), or set danger_online_root = true"
    )]
    OnlineRoot(String),
    /// The root's key can be used from this machine.
    #[error(
        "the root's key is in the token that this machine signs with: whoever takes the machine can make authorities while he has it, \
         though he cannot take the key along. Set danger_online_root = true, or keep the root's key in a file that is moved to a safe \
         place (keys.root = \"files\")"
    )]
    RootInToken,
    /// The operator's files cannot be written.
    #[error("the first operator's files cannot be written")]
    Operator(#[source] BoxError),
    /// A restore's marker cannot be read.
    #[error("what the restore left cannot be read")]
    Restored(#[source] BoxError),
    /// The store is not the database that was restored.
    #[error(
        "a backup was restored into {directory}, and its database is not where the configuration has the store, {store}: bring it there; \
         where it is there already, take fleetmark.db out of {directory}"
    )]
    OtherDatabase {
        /// The data directory.
        directory: String,
        /// The store.
        store: String,
    },
    /// A door failed while it served.
    #[error("a door failed")]
    Serve(#[source] std::io::Error),
}

fn refused(what: &'static str) -> impl FnOnce(Error) -> ServerError {
    move |source| ServerError::Refused { what, source }
}

/// What the server is started with.
pub struct Start {
    /// The configuration, checked.
    pub config: Config,
    /// Opens the key files.
    pub passphrase: SecretString,
    /// Opens the PKCS#11 token.
    pub pin: Option<SecretString>,
    /// Now.
    pub clock: SharedClock,
    /// What was counted.
    pub metrics: PrometheusHandle,
}

/// What a person is told of an installation.
#[derive(Debug, Clone)]
pub struct Summary {
    /// SHA-256 over the root's certificate.
    pub root_fingerprint: Fingerprint,
    /// What the last restore lost, where the server was restored.
    pub restored: Option<restored::Restored>,
}

/// Whose the root's key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootPlace {
    /// It is made here.
    Here,
    /// A ceremony's, on another machine.
    Ceremony,
    /// Ours, certified by a corporate authority.
    Corporate,
}

/// How far an installation came.
#[derive(Debug)]
pub enum Begun {
    /// It is there.
    Whole(Summary),
    /// Its root is asked elsewhere, by this file.
    Asked {
        /// The request.
        file: PathBuf,
        /// SHA-256 over it, in hexadecimal.
        digest: String,
    },
}

/// Makes the installation, as far as it is not there; where its root is elsewhere, as far as it can be made without. One that is whole
/// is refused.
pub async fn init(begin: Start, root: RootPlace) -> Result<Begun, ServerError> {
    let registrar = open(&begin, Absence::Fails).await?;
    let outcome = match root {
        RootPlace::Here => {
            if is_whole(&begin, &registrar).await? {
                return Err(ServerError::Whole(begin.config.data.directory().display().to_string()));
            }
            install(&begin, &registrar).await?;
            Begun::Whole(summary(&registrar, None)?)
        }
        _ => ask(&begin, &registrar, root).await?,
    };
    registrar.stop().await;
    Ok(outcome)
}

/// Whether an `init` has nothing left to do: the first operator's profile may have been taken to another machine.
async fn is_whole(begin: &Start, registrar: &Registrar) -> Result<bool, ServerError> {
    let unreadable = || refused("the installation cannot be read");
    let is_pending = begin.config.data.operator().join(profile::PENDING_KEY).exists();
    let is_founded = registrar.is_founded().await.map_err(unreadable())?;
    Ok(is_founded && !is_pending && !registrar.lacks_owner().await.map_err(unreadable())?)
}

/// Asks a root that is elsewhere, and writes what goes there.
async fn ask(begin: &Start, registrar: &Registrar, root: RootPlace) -> Result<Begun, ServerError> {
    let (now, data) = (begin.clock.now(), &begin.config.data);
    let cannot = || refused("the root cannot be asked");
    let (file, octets) = if root == RootPlace::Corporate {
        let csr = registrar.ask_corporate(now).await.map_err(cannot())?;
        (data.corporate_request(), crate::pki::request::pem(&csr).into_bytes())
    } else {
        registrar.ask_for_all(&begin.config.default_fleet, now).await.map_err(cannot())?;
        (data.root_request(), registrar.root_request(now).await.map_err(cannot())?.file())
    };
    std::fs::write(&file, &octets).map_err(|error| ServerError::Request(error.into()))?;
    Ok(Begun::Asked { file, digest: crate::ceremony::sha256(&octets) })
}

/// Goes on with an installation whose root was asked elsewhere. `root` is SHA-256 over the root's certificate: the ceremony's, or the
/// corporate one.
pub async fn go_on(begin: Start, answer: &[u8], root: &Fingerprint, lists: &[u8]) -> Result<Summary, ServerError> {
    let registrar = open(&begin, Absence::Fails).await?;
    let now = begin.clock.now();
    let is_corporate = registrar.waits_for_corporate().await.map_err(refused("the requests cannot be read"))?;
    let has_corporate = !registrar.authorities().above().is_empty();
    let taken = if is_corporate || has_corporate {
        registrar.found_by_corporate(answer, root, lists, now).await
    } else {
        registrar.found_by_answer(answer, root, now).await
    };
    taken.map_err(refused("the root's answer is refused"))?;
    install(&begin, &registrar).await?;
    let summary = summary(&registrar, None)?;
    registrar.stop().await;
    Ok(summary)
}

/// Makes the installation as far as it is not there, then serves until `stop` is done.
pub async fn up(begin: Start, ready: impl FnOnce(&Summary), stop: impl Future<Output = ()>) -> Result<(), ServerError> {
    let listeners = listen(&begin.config)?;
    let absence = if begin.config.data.is_initialised() { Absence::IsBorne } else { Absence::Fails };
    let registrar = open(&begin, absence).await?;
    install(&begin, &registrar).await?;
    run(&begin, listeners, registrar, ready, stop).await
}

/// Serves an installation until `stop` is done.
pub async fn serve(begin: Start, ready: impl FnOnce(&Summary), stop: impl Future<Output = ()>) -> Result<(), ServerError> {
    let directory = begin.config.data.directory().display().to_string();
    if !begin.config.data.is_initialised() {
        return Err(ServerError::NotInitialised(directory));
    }
    let listeners = listen(&begin.config)?;
    let registrar = open(&begin, Absence::IsBorne).await?;
    if registrar.authorities().root().is_err() {
        let waits = registrar.waits_for_root().await.map_err(refused("the requests cannot be read"))?;
        return Err(if waits { ServerError::Waiting(directory) } else { ServerError::NotInitialised(directory) });
    }
    // Before the root's key is asked to be taken away: what is not finished needs it.
    if !registrar.is_founded().await.map_err(refused("the installation cannot be read"))? {
        return Err(ServerError::Unfinished(directory));
    }
    // One that a corporate authority certified can be revoked by it, and is no root.
    let is_root = registrar.authorities().above().is_empty();
    let here = registrar.authorities().roots().into_iter().find(|root| is_root && root.has_key);
    if let Some(root) = here.filter(|_| !begin.config.danger_online_root) {
        let file = registrar.authorities().keys().file(&root.record.key_label);
        return Err(file.map_or(ServerError::RootInToken, |path| ServerError::OnlineRoot(path.display().to_string())));
    }
    run(&begin, listeners, registrar, ready, stop).await
}

/// Binds every door before anything else is done, so that a port in use is told first.
fn listen(config: &Config) -> Result<Listeners, ServerError> {
    let addresses = Addresses {
        device: vec![config.doors.device],
        admin: vec![config.doors.admin],
        public: vec![config.doors.public],
        rescue: Some(config.data.rescue_socket()),
    };
    Listeners::bind(&addresses).map_err(|error| ServerError::Listen(error.into()))
}

/// What a token that is not there, or does not answer, means at a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Absence {
    /// The start fails: there are keys to be made.
    Fails,
    /// It is waited for: all that needs no authority's key is served.
    IsBorne,
}

async fn open(begin: &Start, absence: Absence) -> Result<Arc<Registrar>, ServerError> {
    let config = &begin.config;
    check_restored(config)?;
    let keys = open_keys(begin, absence)?;
    let profiles = Profiles::load(config.profiles.as_deref()).map_err(|error| ServerError::Keys(error.into()))?;
    let weak_lists = WeakLists::load(config.weak_lists.as_deref()).map_err(|error| ServerError::Keys(error.into()))?;
    if !weak_lists.is_empty() {
        tracing::info!(keys = weak_lists.len(), "listed keys are refused");
    }
    let publisher = Arc::new(Publisher::new(begin.clock.clone()));
    let signer: Arc<dyn HeadSigner> = publisher.clone();
    let store = location::open(database(config)?, signer).await?;
    let parts = Parts {
        store,
        keys: Arc::new(keys),
        profiles,
        weak_lists,
        publisher,
        snapshots: Snapshots::new(config.data.snapshots(), config.snapshot_every.get().into()),
        trust_domain: config.trust_domain.clone(),
        public_url: config.public_url.clone(),
        rates: RateSettings {
            proof: config.limits.proof,
            fleet: config.limits.fleet,
            installation: config.limits.installation,
            renewal: config.limits.renewal,
        },
    };
    let registrar = Registrar::open(parts, begin.clock.now()).await.map_err(refused("the installation cannot be opened"))?;
    Ok(Arc::new(registrar))
}

/// The keys' files, and the token where there is one.
fn open_keys(begin: &Start, absence: Absence) -> Result<Keys, ServerError> {
    let Start { config, passphrase, pin, .. } = begin;
    let failed = |error: PkiError| ServerError::Keys(error.into());
    let keys = Keys::open(&config.data.keys(), passphrase.clone()).map_err(failed)?;
    let mark = Mark::new(config.data.refused_pin(), passphrase);
    let settings = config.keys.pkcs11.as_ref().map(|token| token_settings(token, pin.as_ref(), Some(mark)));
    let opened = if absence == Absence::Fails { Token::open } else { Token::open_or_await };
    let token = settings.map(opened).transpose().map_err(failed)?;
    let choice = |home, algorithm: Option<AuthorityAlgorithm>| Choice {
        home: match home {
            KeyHome::Files => Home::Files,
            KeyHome::Pkcs11 => Home::Token,
        },
        algorithm: algorithm.map(|algorithm| match algorithm {
            AuthorityAlgorithm::P256 => KeyAlgorithm::P256,
            AuthorityAlgorithm::P384 => KeyAlgorithm::P384,
            AuthorityAlgorithm::Ed25519 => KeyAlgorithm::Ed25519,
        }),
    };
    let choices = Choices {
        root: choice(config.keys.root, config.keys.root_algorithm),
        authorities: choice(config.keys.authorities, config.keys.algorithm),
    };
    // Before anything is made: an installation that is begun is not begun again by `init`.
    for choice in [choices.root, choices.authorities].into_iter().filter(|choice| choice.home == Home::Token) {
        if let Some(token) = token.as_ref().filter(|token| token.is_up()) {
            token.check(choice.algorithm.unwrap_or(KeyAlgorithm::P256)).map_err(failed)?;
        }
    }
    Ok(keys.with(token, choices))
}

fn token_settings(token: &Pkcs11, pin: Option<&SecretString>, mark: Option<Mark>) -> TokenSettings {
    TokenSettings {
        module: token.module.clone(),
        label: token.token.clone(),
        serial: token.serial.clone(),
        pin: pin.cloned(),
        sessions: token.sessions.get(),
        mark,
    }
}

/// What the configured token says of itself, without a login: for `fleetmark doctor`.
///
/// # Errors
/// [`ServerError::Keys`]; also where the token's PIN is locked, not set, or has one try left.
pub fn look_at_token(token: &Pkcs11) -> Result<String, ServerError> {
    let facts = Token::look(token_settings(token, None, None)).map_err(|error| ServerError::Keys(error.into()))?;
    Ok(format!("{:?}, serial number {}, {}", facts.label, facts.serial, facts.model))
}

/// Which of these keys the configured token does not have: for a restore.
///
/// # Errors
/// [`ServerError::Keys`] where the token cannot be asked.
pub fn missing_in_token(
    config: &Config,
    passphrase: &SecretString,
    pin: Option<&SecretString>,
    labels: &[String],
) -> Result<Vec<String>, ServerError> {
    let failed = |error: PkiError| ServerError::Keys(error.into());
    let Some(token) = &config.keys.pkcs11 else { return Ok(labels.to_vec()) };
    let mark = Mark::new(config.data.refused_pin(), passphrase);
    let token = Token::open(token_settings(token, pin, Some(mark))).map_err(failed)?;
    let mut missing = Vec::new();
    for label in labels {
        if !token.contains(Keys::name(label)).map_err(failed)? {
            missing.push(label.clone());
        }
    }
    Ok(missing)
}

/// The store's place, with what the configuration permits it.
fn database(config: &Config) -> Result<location::StoreLocation, ServerError> {
    let url = match &config.store {
        StoreLocation::Sqlite(path) => return Ok(location::StoreLocation::Sqlite(path.clone())),
        StoreLocation::Postgres(url) => url.expose_secret(),
    };
    let permitted = [
        (config.danger_async_replication, "danger_async_replication=true"),
        (config.danger_plaintext_postgres, "danger_plaintext=true"),
    ];
    let mut url = url.to_owned();
    for (_, parameter) in permitted.into_iter().filter(|(permitted, _)| *permitted) {
        url.push(if url.contains('?') { '&' } else { '?' });
        url.push_str(parameter);
    }
    url.parse().map_err(ServerError::Location)
}

async fn install(begin: &Start, registrar: &Registrar) -> Result<(), ServerError> {
    let now = begin.clock.now();
    registrar.install(&begin.config.default_fleet, now).await.map_err(refused("the installation cannot be made"))?;
    first_operator(begin, registrar).await
}

/// Makes the first operator's profile on this machine: the one key that is born beside the server.
async fn first_operator(begin: &Start, registrar: &Registrar) -> Result<(), ServerError> {
    let directory = begin.config.data.operator();
    let Err(missing) = Profile::open(&directory) else { return Ok(()) };
    // After a restore, or when the profile was moved away.
    let passed_over = || {
        tracing::warn!(
            %missing,
            "the first operator's profile is not here; where it is nowhere else, `fleetmark operator recover NAME` makes one"
        );
        Ok(())
    };
    let is_pending = directory.join(profile::PENDING_KEY).exists();
    let is_wanted = is_pending || registrar.lacks_owner().await.map_err(refused("the operators cannot be read"))?;
    if !is_wanted {
        return passed_over();
    }
    let failed = |error: BoxError| ServerError::Operator(error);
    // Kept before it is certified: a start that died in between goes on with the same key.
    let key_pem = pending_key::<BoxError>(&directory, || Ok(Zeroizing::new(rcgen::KeyPair::generate()?.serialize_pem())));
    let key_pem = key_pem.map_err(failed)?;
    let csr = request(&key_pem).map_err(failed)?;
    let name: Name = FIRST_OPERATOR.parse().map_err(|error: fleetmark_domain::name::NameError| failed(error.into()))?;
    let enrolled = registrar.first_operator(&name, &csr, begin.clock.now()).await;
    let Some(enrollment) = enrolled.map_err(refused("the first operator cannot be admitted"))? else { return passed_over() };
    let certificates: Vec<_> = std::iter::once(&enrollment.certificate.der).chain(&enrollment.chain).collect();
    let new = NewProfile {
        settings: Some(ProfileSettings {
            server: begin.config.door_url(begin.config.doors.admin),
            device_door: begin.config.door_url(begin.config.doors.device),
        }),
        key_pem: &key_pem,
        certificate_pem: &pem(&certificates),
        ca_pem: &pem(&enrollment.trust_bundle),
    };
    profile::create(&directory, &new, true).map_err(|error| failed(error.into()))
}

fn request(key_pem: &str) -> Result<VerifiedCsr, BoxError> {
    let pair = rcgen::KeyPair::from_pem(key_pem)?;
    let request = rcgen::CertificateParams::new(Vec::new())?.serialize_request(&pair)?;
    Ok(VerifiedCsr::from_der(request.der())?)
}

/// What the installation's people must know.
fn summary(registrar: &Registrar, restored: Option<restored::Restored>) -> Result<Summary, ServerError> {
    let root = registrar.authorities().root().map_err(refused("there is no root"))?;
    let facts = crate::pki::issue::facts(&root.record.certificate).map_err(|error| ServerError::Keys(error.into()))?;
    Ok(Summary { root_fingerprint: facts.fingerprint, restored })
}

async fn run(
    begin: &Start,
    listeners: Listeners,
    registrar: Arc<Registrar>,
    ready: impl FnOnce(&Summary),
    stop: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    let Start { config, clock, .. } = begin;
    let restored = settle_restore(begin, &registrar).await?;
    let now = clock.now();
    let own = registrar.door_certificate(&config.names.dns, &config.names.addresses, now).await;
    let own = own.map_err(refused("the doors' certificate cannot be made"))?;
    // Served all the same: what can be made is made, the jobs try again, and without the doors nobody could mend or revoke an
    // authority. `/readyz` tells of a list that is past its end.
    if let Err(error) = registrar.renew_responders(now).await {
        tracing::error!(
            code = error.refusal.code(),
            cause = error.chain(),
            "a responder's certificate or a status key cannot be made"
        );
    }
    if let Err(error) = registrar.refresh_crls(now).await {
        tracing::error!(code = error.refusal.code(), cause = error.chain(), "a revocation list cannot be made");
    }
    registrar.ensure_trust_bundle(now).await.map_err(refused("the trust bundle cannot be made"))?;
    registrar.housekeeping(now).await.map_err(refused("the store takes no writes"))?;
    let pulse = Arc::new(Pulse::default());
    pulse.written(now);

    let certificate = Arc::new(ArcSwap::from_pointee(load(&registrar, &own).map_err(ServerError::Keys)?));
    registrar.refresh_makers().await.map_err(refused("the makers' authorities cannot be read"))?;
    registrar.refresh_externals().await.map_err(refused("the external authorities cannot be read"))?;
    let trust = follow_authorities(&registrar);
    let grace = registrar.late_grace(now).await.map_err(refused("the permits to renew late cannot be read"))?;
    trust.rcu(|now| now.with_grace(grace));
    let doors = Doors { trust: trust.clone(), certificate: certificate.clone() };
    let state = State {
        registrar: registrar.clone(),
        clock: clock.clone(),
        default_fleet: config.default_fleet.clone(),
        enrollments: config
            .limits
            .enroll
            .and_then(|rate| AddressLimit::new(rate.per_second.get(), rate.burst.get()))
            .map(Arc::new),
        pulse: pulse.clone(),
        texts: Arc::default(),
        started_at: now,
        metrics: begin.metrics.clone(),
        backups: Arc::new(Backups { data: config.data.clone(), passphrase: begin.passphrase.clone() }),
        followers: Arc::new(Followers::new(usize::try_from(config.limits.followers.get()).unwrap_or(usize::MAX))),
    };
    let wanted = usize::try_from(config.limits.connections.get()).unwrap_or(usize::MAX);
    let options = Options { workers: config.workers.get(), max_connections: connections_within(wanted) };
    let tls = TlsDoors { device: doors.clone(), admin: doors };
    let running = start(listeners, &tls, state, options).map_err(ServerError::Serve)?;
    let jobs = Jobs {
        registrar: registrar.clone(),
        clock: clock.clone(),
        pulse,
        trust,
        door: certificate,
        dns_names: config.names.dns.clone(),
        addresses: config.names.addresses.clone(),
    };
    let jobs = jobs.start();
    ready(&summary(&registrar, restored)?);
    let served = running.until(stop).await;
    drop(jobs);
    registrar.stop().await;
    served.map_err(ServerError::Serve)
}

/// Trust in the authorities and makers as they are, now and whenever they change.
fn follow_authorities(registrar: &Registrar) -> Arc<ArcSwap<Trust>> {
    let trust = Arc::new(ArcSwap::from_pointee(Trust::default()));
    let followed = trust.clone();
    registrar.authorities().observe(Box::new(move |authorities: &AuthoritySet| {
        let trusted = authorities.iter().map(|authority| &authority.record);
        let trusted = trusted.filter(|record| record.state != AuthorityState::Revoked && record.kind != AuthorityKind::Root);
        let trusted: Vec<_> = trusted.map(|record| (record.id, record.kind, record.certificate.clone())).collect();
        let revoked = authorities.iter().filter(|authority| !authority.record.state.is_trusted());
        let revoked: Vec<_> = revoked.map(|authority| authority.key_id.clone()).collect();
        match Trust::from_authorities(&trusted).map(|trust| trust.with_revoked(revoked)) {
            Ok(next) => drop(followed.rcu(|now| now.with_authorities_of(&next))),
            Err(error) => tracing::error!(%error, "the doors go on with the authorities that they knew"),
        }
    }));
    let followed = trust.clone();
    registrar.makers().observe(Box::new(move |makers| drop(followed.rcu(|now| now.with_makers(makers.clone())))));
    let followed = trust.clone();
    registrar.external_trust().observe(Box::new(move |them| drop(followed.rcu(|now| now.with_externals(them.clone())))));
    trust
}

/// After a restore: the store is what was restored, neither another one nor one to be made.
fn check_restored(config: &Config) -> Result<(), ServerError> {
    if pending_restore(config)?.is_none() {
        return Ok(());
    }
    let restored = config.data.database();
    let is_other = match &config.store {
        StoreLocation::Sqlite(path) => !path.exists() || (!config.has_own_database() && restored.exists()),
        StoreLocation::Postgres(_) => restored.exists(),
    };
    if !is_other {
        return Ok(());
    }
    let directory = config.data.directory().display().to_string();
    Err(ServerError::OtherDatabase { directory, store: config.store.to_string() })
}

fn pending_restore(config: &Config) -> Result<Option<restored::Restored>, ServerError> {
    restored::pending(config.data.directory()).map_err(|error| ServerError::Restored(error.into()))
}

/// After a restore: raises the epochs above all that may have been issued since the backup, and says so.
async fn settle_restore(begin: &Start, registrar: &Registrar) -> Result<Option<restored::Restored>, ServerError> {
    let Some(marker) = pending_restore(&begin.config)? else {
        return Ok(None);
    };
    let raised = registrar.raise_epochs(marker.backup.highest_epoch, begin.clock.now()).await;
    raised.map_err(refused("the epochs cannot be raised after the restore"))?;
    restored::settle(begin.config.data.directory(), &marker).map_err(|error| ServerError::Restored(error.into()))?;
    tracing::warn!(
        backup = %marker.backup.made_at,
        "restored: what was issued, confirmed or revoked after the backup is not known here"
    );
    Ok(Some(marker))
}
