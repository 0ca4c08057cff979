//! One exchange with a hook over HTTPS: no redirects, no proxies, 5 seconds in all, 16 KiB of answer, 64 at once, 16 of them of one fleet.

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleetmark_domain::FleetName;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::Fault;

/// How long a question may take, from the name's resolution to the answer's last octet.
const TIME: Duration = Duration::from_secs(5);
/// The largest answer, in octets.
const MAX_ANSWER: usize = 16 * 1024;
/// How many questions may be open at once.
const AT_ONCE: usize = 64;
/// How many of them may be one fleet's: a hook that is dead holds each for five seconds, and others' go on.
const OF_ONE_FLEET: usize = 16;
/// The longest URL, in octets.
const MAX_URL: usize = 2_048;
/// The most roots of one hook.
const MAX_ROOTS: usize = 16;
/// How many clients are kept; there is one for each set of roots.
const MAX_CLIENTS: usize = 64;
/// The header with the signature, of questions and answers.
const SIGNATURE: HeaderName = HeaderName::from_static("fleetmark-signature");

/// An answer with the status 200, not judged yet.
#[derive(Debug)]
pub(in crate::registrar) struct Reply {
    /// The value of its one `Fleetmark-Signature`.
    pub signature: Option<String>,
    /// At most [`MAX_ANSWER`] octets.
    pub body: Vec<u8>,
}

/// What calls to all hooks share.
pub(in crate::registrar) struct Calls {
    open: Semaphore,
    /// How many of them are a fleet's; none is not kept.
    by_fleet: Mutex<HashMap<FleetName, usize>>,
    /// By the hook's own roots; None: the machine's.
    clients: Mutex<HashMap<Option<String>, Client>>,
}

impl Default for Calls {
    fn default() -> Self {
        Self { open: Semaphore::new(AT_ONCE), by_fleet: Mutex::default(), clients: Mutex::default() }
    }
}

impl Calls {
    /// Posts a signed question.
    pub(super) async fn post(
        &self,
        fleet: &FleetName,
        (url, roots): (&str, Option<&str>),
        signature: &str,
        body: Vec<u8>,
    ) -> Result<Reply, Fault> {
        let _open = self.open_one(fleet)?;
        check_url(url).map_err(|what| Fault::Unusable(what.to_owned()))?;
        let client = self.client(roots)?;
        let request = client.post(url).header(SIGNATURE, signature).header(CONTENT_TYPE, "application/json").body(body);
        let exchange = async {
            let mut response = request.send().await.map_err(|error| fault(&error))?;
            if response.status().as_u16() != 200 {
                return Err(Fault::Status(response.status().as_u16()));
            }
            let signature = single_signature(response.headers());
            let mut body = Vec::new();
            while let Some(part) = response.chunk().await.map_err(|error| fault(&error))? {
                if body.len().saturating_add(part.len()) > MAX_ANSWER {
                    return Err(Fault::TooLarge);
                }
                body.extend_from_slice(&part);
            }
            Ok(Reply { signature, body })
        };
        timeout(TIME, exchange).await.map_err(|_| Fault::Timeout)?
    }

    fn open_one(&self, fleet: &FleetName) -> Result<Open<'_>, Fault> {
        let one = self.open.try_acquire().map_err(|_| Fault::Busy)?;
        let mut by_fleet = self.by_fleet.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_fleet.entry(fleet.clone()).or_default();
        if *count >= OF_ONE_FLEET {
            return Err(Fault::Busy);
        }
        *count += 1;
        Ok(Open { calls: self, fleet: fleet.clone(), _one: one })
    }

    fn client(&self, roots: Option<&str>) -> Result<Client, Fault> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let roots = roots.map(str::to_owned);
        if let Some(client) = clients.get(&roots) {
            return Ok(client.clone());
        }
        let client = new_client(roots.as_deref()).map_err(Fault::Unusable)?;
        // Roots of hooks that are gone; those that are not make theirs anew.
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(roots, client.clone());
        Ok(client)
    }
}

/// An open question; it counts until it is dropped.
struct Open<'a> {
    calls: &'a Calls,
    fleet: FleetName,
    _one: SemaphorePermit<'a>,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut by_fleet = self.calls.by_fleet.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_fleet.get_mut(&self.fleet) {
            *count -= 1;
        }
        by_fleet.retain(|_, count| *count > 0);
    }
}

fn new_client(roots: Option<&str>) -> Result<Client, String> {
    let store = match roots {
        Some(pem) => check_roots(pem)?,
        None => machine_roots()?,
    };
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(store)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .https_only(true)
        .http1_only()
        .no_proxy()
        .redirect(Policy::none())
        .referer(false)
        // A connection that the hook closes between two questions would fail the second one.
        .pool_max_idle_per_host(0)
        .user_agent(concat!("fleetmark/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| error.to_string())
}

fn machine_roots() -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() { Err("the machine has no root certificates".to_owned()) } else { Ok(store) }
}

/// The roots of a hook: 1 to 16 CA certificates in PEM, and nothing but certificates.
pub(super) fn check_roots(pem: &str) -> Result<RootCertStore, String> {
    // The parser passes over what is none, and roots are kept in the clear and shown: a private key must not be among them.
    if pem.matches("-----BEGIN").count() != pem.matches("-----BEGIN CERTIFICATE-----").count() {
        return Err("nothing but certificates in PEM".to_owned());
    }
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let root = root.map_err(|_| "this is no PEM")?;
        store.add(root).map_err(|error| error.to_string())?;
    }
    if (1..=MAX_ROOTS).contains(&store.len()) { Ok(store) } else { Err("1 to 16 certificates in PEM".to_owned()) }
}

/// Whether this is a URL that a hook may have. Loopback and private addresses are allowed: who sets it may set policies.
pub(super) fn check_url(text: &str) -> Result<(), &'static str> {
    if text.len() > MAX_URL {
        return Err("at most 2,048 characters");
    }
    let url = Url::parse(text).map_err(|_| "this is no URL")?;
    if url.scheme() != "https" || !url.has_host() {
        return Err("it begins with https:// and a host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it holds no user and no password");
    }
    if url.fragment().is_some() {
        return Err("it has no fragment");
    }
    Ok(())
}

/// Two signatures are none.
fn single_signature(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(SIGNATURE).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok().map(str::to_owned) }
}

/// Sorts what reqwest says by its causes.
fn fault(error: &reqwest::Error) -> Fault {
    let mut words = Vec::new();
    let mut next: Option<&(dyn std::error::Error + 'static)> = error.source();
    while let Some(cause) = next {
        if let Some(tls) = tls_error(cause) {
            return Fault::Tls(tls.to_string());
        }
        words.push(cause.to_string());
        next = cause.source();
    }
    Fault::Unreachable(words.join(": "))
}

/// `io::Error::source` passes over what it wraps, and one may wrap another, so that is looked into.
fn tls_error<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
        return Some(tls);
    }
    tls_error(cause.downcast_ref::<std::io::Error>()?.get_ref()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_https_urls_are_hooks() {
        for url in ["https://hook.example", "https://127.0.0.1:8444/fleetmark?fleet=a", "https://[::1]/"] {
            assert_eq!(check_url(url), Ok(()), "{url}");
        }
        let long = format!("https://hook.example/{}", "a".repeat(MAX_URL));
        for url in [
            "",
            "hook.example",
            "http://hook.example",
            "file:///etc/passwd",
            "https://",
            "https://user@hook.example",
            "https://user:password@hook.example",
            "https://:password@hook.example",
            "https://hook.example/#part",
            "unix:///run/x",
            &long,
        ] {
            assert!(check_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn roots_are_certificates_and_nothing_else() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        assert_eq!(check_roots(&pem).map(|store| store.len()), Ok(1));
        assert_eq!(check_roots(&pem.repeat(2)).map(|store| store.len()), Ok(2));
        for wrong in [String::new(), "x".to_owned(), key.serialize_pem(), pem.repeat(17), pem.replace("MII", "AAA")] {
            assert!(check_roots(&wrong).is_err(), "{wrong}");
        }
        let secret = key.serialize_pem();
        for secret in [&secret, &secret.replace("PRIVATE", "EC PRIVATE"), &secret.replace("PRIVATE", "ENCRYPTED PRIVATE")] {
            assert!(check_roots(&format!("{pem}{secret}")).is_err(), "behind a certificate: {secret}");
            assert!(check_roots(&format!("{secret}{pem}")).is_err(), "before a certificate: {secret}");
        }
    }

    #[tokio::test]
    async fn the_sixty_fifth_question_is_not_asked() {
        let calls = Calls::default();
        let _open = calls.open.acquire_many(64).await.unwrap();
        let asked = calls.post(&"a".parse().unwrap(), ("https://127.0.0.1:1/", None), "v1=", Vec::new()).await;
        assert!(matches!(asked, Err(Fault::Busy)), "{asked:?}");
    }

    #[test]
    fn one_fleet_leaves_room_for_the_others() {
        let (calls, one, other) = (Calls::default(), "a".parse().unwrap(), "b".parse().unwrap());
        let open: Vec<_> = (0..16).map(|_| calls.open_one(&one).unwrap()).collect();
        assert!(matches!(calls.open_one(&one), Err(Fault::Busy)));
        assert!(calls.open_one(&other).is_ok());
        drop(open);
        assert!(calls.open_one(&one).is_ok());
        assert_eq!((calls.open.available_permits(), calls.by_fleet.lock().unwrap().len()), (64, 0));
    }
}
