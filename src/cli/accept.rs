//! Certificates for who holds a key here: `accept`, `operator renew`, `operator recover`. In all three the key is kept before
//! the request is sent, so that a request whose answer was lost is repeated with the same key, and gets the same certificate.

#![expect(clippy::doc_markdown, reason = "clap shows the comments of arguments as they are")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use fleetmark_device::answer::{Accepted, Expected, accept};
use fleetmark_device::{
    Client, Confirmed, DeviceKey, DeviceTime, Door, Issued, Roots, ServerUrl, SystemClock, Token, bootstrap,
};
use fleetmark_domain::{Fingerprint, Identity, Kind, Name};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::client::{builder, read, refused, unsent};
use super::failure::Failure;
use super::serve::ServerArguments;
use super::session::{Session, print, print_json};
use super::table::record;
use crate::config::profile::{self, NewProfile, Profile, ProfileError, ProfileSettings};

/// The largest answer of the rescue socket, in octets.
const MAX_ANSWER: usize = 256 * 1024;

/// `fleetmark accept`
#[derive(Debug, Args)]
pub struct AcceptArguments {
    /// The device door: https://HOST:8443
    #[arg(long, value_name = "URL")]
    server: ServerUrl,
    /// SHA-256 of the root's certificate
    #[arg(long, value_name = "HEX")]
    ca_fingerprint: Fingerprint,
    /// The invitation; better given by FLEETMARK_TOKEN, since others may see a command line
    #[arg(long, value_name = "TOKEN", env = "FLEETMARK_TOKEN", hide_env_values = true)]
    token: String,
    /// Where to keep key and certificates; of an operator, a profile
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The admin door, for an operator's profile [default: the server's host, port 9443]
    #[arg(long, value_name = "URL")]
    admin: Option<ServerUrl>,
}

impl AcceptArguments {
    /// Takes up the invitation.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        if profile::is_there(&self.dir)? {
            return Err(ProfileError::Exists(self.dir).into());
        }
        let token = Token::new(&self.token)?;
        let time = device_time();
        let roots = bootstrap::fetch_root(&self.server, &self.ca_fingerprint).await?;
        let client = Client::anonymous(&self.server, &Door::Installation, &roots, &time)?;
        let key = pending_key(&self.dir)?;
        let answer = client.enroll(&token.into(), key.hash(), &key.request(None)?, None).await;
        let issued = answered(&self.dir, answer)?;
        let expected = Expected::Newcomer { door: Door::Installation, name: None };
        let accepted = accept(&issued, &key, &expected, &roots)?;
        let (_, identity) = Identity::parse(&issued.identity).map_err(|error| Failure::of(&error))?;
        let settings = (identity.kind() == Kind::Operator).then(|| ProfileSettings {
            server: self.admin.as_ref().map_or_else(|| admin_of(&self.server), ToString::to_string),
            device_door: self.server.to_string(),
        });
        keep(&self.dir, settings, &key, &accepted, false)?;
        let confirmed = confirm(&self.server, &accepted, &key, &time).await?;
        done(&self.dir, &confirmed, json)
    }
}

/// Renews the profile's certificate with a new key.
///
/// # Errors
/// [`Failure`].
pub async fn renew(session: &Session) -> Result<(), Failure> {
    let profile = &session.profile;
    let server: ServerUrl = profile.settings.device_door.parse()?;
    let (certificate, ca) = (text(profile.certificate_pem()?)?, text(profile.ca_pem()?)?);
    let current = DeviceKey::from_pem(&Zeroizing::new(text(profile.key_pem()?.to_vec())?))?;
    let roots = Roots::from_pem(&ca)?;
    let identity = identity_of(&certificate).ok_or_else(|| Failure::Failed("cert.pem names no identity".to_owned(), None))?;
    let time = device_time();
    let client = Client::with_certificate(&server, &Door::Installation, &roots, &time, &certificate, &current)?;
    let key = pending_key(&profile.directory)?;
    let answer = client.renew(&key.request(None)?).await;
    let issued = answered(&profile.directory, answer)?;
    let accepted = accept(&issued, &key, &Expected::Same(identity), &roots)?;
    profile.renewed(&chain_of(&accepted), &accepted.roots.pem())?;
    let confirmed = confirm(&server, &accepted, &key, &time).await?;
    done(&profile.directory, &confirmed, session.json)
}

/// Gives an operator whose key is lost a new certificate, through the socket that only this machine's owner can open.
///
/// # Errors
/// [`Failure`].
pub async fn recover(name: &str, directory: &Path, server: &ServerArguments, json: bool) -> Result<(), Failure> {
    let name: Name = name.parse().map_err(|error| Failure::Usage(format!("{name}: {error}")))?;
    let config = server.config()?;
    let socket = config.data.rescue_socket();
    if !socket.exists() {
        return Err(Failure::Unreachable(format!(
            "{}: there is no such socket; the server must run on this machine",
            socket.display()
        )));
    }
    let key = pending_key(directory)?;
    let http = builder().unix_socket(socket).build().map_err(|error| Failure::of(&error))?;
    let request = http.post("http://rescue/v1/recover").json(&json!({"operator": name, "csr": key.request(None)?}));
    let response = request.send().await.map_err(|error| unsent(&error))?;
    if !response.status().is_success() {
        return Err(refused(response).await);
    }
    let issued: Issued = serde_json::from_slice(&read(response, MAX_ANSWER).await?)
        .map_err(|_| Failure::Failed("the server's answer cannot be read".to_owned(), None))?;
    // The socket is in the data directory, mode 0600: who answers there is the server.
    let roots = Roots::from_pem(&issued.trust_bundle)?;
    let expected = Expected::Newcomer { door: Door::Installation, name: Some(name) };
    let accepted = accept(&issued, &key, &expected, &roots)?;
    let device_door = config.door_url(config.doors.device);
    let settings = ProfileSettings { server: config.door_url(config.doors.admin), device_door };
    let server: ServerUrl = settings.device_door.parse()?;
    keep(directory, Some(settings), &key, &accepted, true)?;
    if issued.standing == "good" {
        return report(directory, &serde_json::to_value(&accepted.record).unwrap_or_default(), json);
    }
    let confirmed = confirm(&server, &accepted, &key, &device_time()).await?;
    done(directory, &confirmed, json)
}

/// The SHA-256 fingerprint of the profile's first root: what `--ca-fingerprint` takes.
///
/// # Errors
/// [`Failure`].
pub fn root_fingerprint(profile: &Profile) -> Result<Fingerprint, Failure> {
    let roots = Roots::from_pem(&text(profile.ca_pem()?)?)?;
    roots.fingerprints().first().copied().ok_or_else(|| Failure::Failed("ca.pem holds no certificate".to_owned(), None))
}

/// The SPIFFE ID of the first certificate of a PEM text.
pub fn identity_of(pem: &str) -> Option<String> {
    let der = CertificateDer::pem_slice_iter(pem.as_bytes()).next()?.ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => names.general_names.iter().find_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        }),
        _ => None,
    })
}

fn device_time() -> DeviceTime {
    DeviceTime::new(Arc::new(SystemClock::default()), None)
}

fn pending_key(directory: &Path) -> Result<DeviceKey, Failure> {
    let pem = profile::pending_key::<Failure>(directory, || Ok(DeviceKey::generate()?.expose_pem()))?;
    Ok(DeviceKey::from_pem(&pem)?)
}

/// A key that the server refuses for itself is thrown away: the next try makes another.
fn answered(directory: &Path, answer: Result<Issued, fleetmark_device::Error>) -> Result<Issued, Failure> {
    if let Err(fleetmark_device::Error::Refused(refused)) = &answer
        && refused.is_about_key()
    {
        profile::forget_pending_key(directory)?;
    }
    Ok(answer?)
}

fn keep(
    directory: &Path,
    settings: Option<ProfileSettings>,
    key: &DeviceKey,
    accepted: &Accepted,
    replace: bool,
) -> Result<(), Failure> {
    let (key_pem, chain, ca) = (key.expose_pem(), chain_of(accepted), accepted.roots.pem());
    let new = NewProfile { settings, key_pem: &key_pem, certificate_pem: &chain, ca_pem: &ca };
    Ok(profile::create(directory, &new, replace)?)
}

fn chain_of(accepted: &Accepted) -> String {
    format!("{}\n{}", accepted.certificate.trim_end(), accepted.chain)
}

/// Shows the server that the certificate arrived. Where that fails, the first use of the certificate does it.
async fn confirm(server: &ServerUrl, accepted: &Accepted, key: &DeviceKey, time: &DeviceTime) -> Result<Confirmed, Failure> {
    let chain = chain_of(accepted);
    let client = Client::with_certificate(server, &Door::Installation, &accepted.roots, time, &chain, key)?;
    Ok(client.confirm().await?)
}

fn done(directory: &Path, confirmed: &Confirmed, json: bool) -> Result<(), Failure> {
    report(directory, &serde_json::to_value(confirmed).unwrap_or_default(), json)
}

fn report(directory: &Path, value: &Value, json: bool) -> Result<(), Failure> {
    if json {
        return print_json(value);
    }
    print(&record(&["identity", "serial", "standing"], value))?;
    print(&format!("Key and certificate are in {}.\n", directory.display()))
}

/// The admin door that a device door most likely has beside it.
fn admin_of(server: &ServerUrl) -> String {
    let url = reqwest::Url::parse(&server.to_string());
    let host = url.ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_else(|| "localhost".to_owned());
    format!("https://{host}:9443")
}

fn text(octets: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(octets).map_err(|_| Failure::Failed("a file of the profile is not text".to_owned(), None))
}
