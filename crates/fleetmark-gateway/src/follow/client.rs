//! The server's device door: one of several servers, mTLS, a limit on everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use fleetmark_device::door::ServerUrl;
use fleetmark_device::{DeviceTime, Roots, tls_config};
use reqwest::{Response, StatusCode, Url};
use rustls::client::ResolvesClientCert;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest JSON answer, in octets.
const MAX_JSON: usize = 4 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest silence within an answer.
const SILENCE: Duration = Duration::from_secs(20);

/// Why something was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// No server answered.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// The server refused.
    #[error("the server refused {path} with status {status}")]
    Refused {
        /// What was asked for.
        path: String,
        /// HTTP status.
        status: u16,
    },
    /// The answer cannot be used.
    #[error("the server's answer cannot be used: {0}")]
    Answer(String),
    /// It was not what is signed; the alarm was raised.
    #[error("the answer is not what the ledger signed")]
    NotSigned,
    /// TLS cannot be set up.
    #[error(transparent)]
    Setup(#[from] fleetmark_device::Error),
}

impl Trouble {
    /// The server has no such thing.
    pub(crate) const fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whatever else the server were asked for now, it would not do better. A fault (5xx) may be of what was asked for alone.
    pub(crate) const fn is_of_all(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Refused { status: 429, .. })
    }
}

/// Talks to the one of `servers` that answers.
#[derive(Debug)]
pub(crate) struct Client {
    servers: Vec<ServerUrl>,
    current: AtomicUsize,
    time: DeviceTime,
    identity: Arc<dyn ResolvesClientCert>,
    http: ArcSwap<reqwest::Client>,
}

impl Client {
    pub(crate) fn new(
        servers: Vec<ServerUrl>,
        roots: &Roots,
        time: DeviceTime,
        identity: Arc<dyn ResolvesClientCert>,
    ) -> Result<Self, Trouble> {
        let http = ArcSwap::from_pointee(http(roots, &time, identity.clone())?);
        Ok(Self { servers, current: AtomicUsize::new(0), time, identity, http })
    }

    /// Makes connections anew from now on: those that are open were made with the identity and the roots of before.
    pub(crate) fn renew(&self, roots: &Roots) -> Result<(), Trouble> {
        self.http.store(Arc::new(http(roots, &self.time, self.identity.clone())?));
        Ok(())
    }

    /// The next server is asked from now on.
    pub(crate) fn turn(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    fn url(&self, path: &str) -> Result<Url, Trouble> {
        let number = self.current.load(Ordering::Relaxed).checked_rem(self.servers.len()).unwrap_or(0);
        let server = self.servers.get(number).ok_or_else(|| Trouble::Unreachable("no server is configured".to_owned()))?;
        Ok(server.at(path))
    }

    /// An answer of at most `limit` octets.
    pub(crate) async fn get(&self, path: &str, query: &[(&str, String)], limit: usize) -> Result<Vec<u8>, Trouble> {
        whole(path, self.open(path, query, None).await?, limit).await
    }

    pub(crate) async fn json<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> Result<T, Trouble> {
        self.json_of(path, query).await.map(|(answer, _)| answer)
    }

    /// The same, and how many octets it had.
    pub(crate) async fn json_of<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<(T, usize), Trouble> {
        let body = self.get(path, query, MAX_JSON).await?;
        let answer = serde_json::from_slice(&body).map_err(|error| Trouble::Answer(format!("{path}: {error}")))?;
        Ok((answer, body.len()))
    }

    /// An answer that is read in chunks.
    pub(crate) async fn open(&self, path: &str, query: &[(&str, String)], last_id: Option<&str>) -> Result<Response, Trouble> {
        let mut url = self.url(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query.iter().map(|(name, value)| (*name, value.as_str())));
        }
        let mut request = self.http.load().get(url);
        if let Some(id) = last_id.filter(|id| !id.is_empty()) {
            request = request.header("Last-Event-ID", id);
        }
        let response = request.send().await.map_err(|error| unreachable(&error))?;
        accepted(path, response)
    }

    /// The same, and its answer.
    pub(crate) async fn exchange<T: Serialize, A: DeserializeOwned>(&self, path: &str, body: &T) -> Result<A, Trouble> {
        let request = self.http.load().post(self.url(path)?).json(body);
        let response = request.send().await.map_err(|error| unreachable(&error))?;
        let octets = whole(path, accepted(path, response)?, MAX_JSON).await?;
        serde_json::from_slice(&octets).map_err(|error| Trouble::Answer(format!("{path}: {error}")))
    }

    pub(crate) async fn post<T: Serialize>(&self, path: &str, body: &T) -> Result<(), Trouble> {
        let request = self.http.load().post(self.url(path)?).json(body);
        let response = request.send().await.map_err(|error| unreachable(&error))?;
        accepted(path, response).map(|_| ())
    }
}

/// A pool of connections with this identity, to servers that these roots vouch for.
fn http(roots: &Roots, time: &DeviceTime, identity: Arc<dyn ResolvesClientCert>) -> Result<reqwest::Client, Trouble> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls_config(roots, time, identity)?)
        .https_only(true)
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(SILENCE)
        .user_agent(concat!("fleetmark-gateway/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| Trouble::Answer(error.to_string()))
}

/// All of an answer.
async fn whole(path: &str, mut response: Response, limit: usize) -> Result<Vec<u8>, Trouble> {
    let mut body = Vec::new();
    while let Some(chunk) = chunk(&mut response).await? {
        if body.len() + chunk.len() > limit {
            return Err(Trouble::Answer(format!("{path} is longer than {limit} octets")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The next octets of an answer.
pub(crate) async fn chunk(response: &mut Response) -> Result<Option<Vec<u8>>, Trouble> {
    response.chunk().await.map(|chunk| chunk.map(Vec::from)).map_err(|error| unreachable(&error))
}

fn accepted(path: &str, response: Response) -> Result<Response, Trouble> {
    match response.status() {
        StatusCode::OK => Ok(response),
        status => Err(Trouble::Refused { path: path.to_owned(), status: status.as_u16() }),
    }
}

/// The last cause, which is the one that a person can act on.
fn unreachable(error: &reqwest::Error) -> Trouble {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        text = error.to_string();
        next = error.source();
    }
    Trouble::Unreachable(text)
}
