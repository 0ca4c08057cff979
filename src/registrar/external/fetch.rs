//! One exchange with another authority's server over HTTP: no redirects, no proxies, no cookies, 10 seconds in all, at most so many
//! octets, 32 of an authority at once. What comes is signed; nothing of it is shown to anybody before it was verified.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use reqwest::redirect::Policy;
use reqwest::{Client, Request};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::store::model::AuthorityId;

/// How long an exchange may take, from the name's resolution to the answer's last octet.
const TIME: Duration = Duration::from_secs(10);
/// How many of one authority may be open at once.
const AT_ONCE: usize = 32;
/// The longest header that is kept, in octets.
const MAX_HEADER: usize = 256;

/// What an exchange came to.
#[derive(Debug)]
pub(super) enum Answer {
    /// As before (304).
    Unchanged,
    /// New octets, with what to ask by next time.
    New { octets: Vec<u8>, etag: String, modified: String },
}

/// Why an exchange came to nothing.
#[derive(Debug)]
pub(super) struct Miss {
    pub what: String,
    /// Nobody answered, or did not come to an end.
    pub is_silent: bool,
}

impl Miss {
    fn silent(what: impl Into<String>) -> Self {
        Self { what: what.into(), is_silent: true }
    }
}

/// What was wrong with an answer, or here.
impl From<String> for Miss {
    fn from(what: String) -> Self {
        Self { what, is_silent: false }
    }
}

/// What all exchanges share.
#[derive(Default)]
pub(super) struct Calls {
    /// Each authority by itself: one that does not answer takes no place from another.
    open: Mutex<BTreeMap<AuthorityId, Arc<Semaphore>>>,
    client: OnceLock<Result<Client, String>>,
}

impl Calls {
    /// Fetches what is at `url`, unless it is as it was by `etag` or `modified`.
    pub(super) async fn get(
        &self,
        authority: AuthorityId,
        url: &str,
        etag: &str,
        modified: &str,
        most: usize,
    ) -> Result<Answer, Miss> {
        let mut request = self.client()?.get(url);
        for (name, value) in [(IF_NONE_MATCH, etag), (IF_MODIFIED_SINCE, modified)] {
            if !value.is_empty() {
                request = request.header(name, value);
            }
        }
        self.exchange(authority, request.build().map_err(|error| plain(&error))?, most).await
    }

    /// Posts a question.
    pub(super) async fn post(
        &self,
        authority: AuthorityId,
        url: &str,
        media: &'static str,
        body: Vec<u8>,
        most: usize,
    ) -> Result<Vec<u8>, Miss> {
        let request = self.client()?.post(url).header(CONTENT_TYPE, media).body(body);
        match self.exchange(authority, request.build().map_err(|error| plain(&error))?, most).await? {
            Answer::New { octets, .. } => Ok(octets),
            Answer::Unchanged => Err("it answered with status 304".to_owned().into()),
        }
    }

    async fn exchange(&self, authority: AuthorityId, request: Request, most: usize) -> Result<Answer, Miss> {
        let client = self.client()?;
        // Whoever waits for a place has not begun to ask.
        let open = self.open(authority);
        let _one = open.acquire().await.map_err(|error| error.to_string())?;
        let exchange = async {
            let mut response = client.execute(request).await.map_err(|error| Miss::silent(plain(&error)))?;
            match response.status().as_u16() {
                200 => {}
                304 => return Ok(Answer::Unchanged),
                status => return Err(format!("it answered with status {status}").into()),
            }
            let (etag, modified) = (header(response.headers(), &ETAG), header(response.headers(), &LAST_MODIFIED));
            let mut octets = Vec::new();
            while let Some(part) = response.chunk().await.map_err(|error| plain(&error))? {
                if octets.len().saturating_add(part.len()) > most {
                    return Err(format!("it answered with more than {most} octets").into());
                }
                octets.extend_from_slice(&part);
            }
            Ok(Answer::New { octets, etag, modified })
        };
        timeout(TIME, exchange).await.map_err(|_| Miss::silent("it did not answer within 10 seconds"))?
    }

    fn open(&self, authority: AuthorityId) -> Arc<Semaphore> {
        let mut all = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(authority).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))))
    }

    fn client(&self) -> Result<&Client, String> {
        self.client.get_or_init(new_client).as_ref().map_err(Clone::clone)
    }
}

/// It speaks no TLS: no root is trusted.
fn new_client() -> Result<Client, String> {
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .no_proxy()
        .redirect(Policy::none())
        .referer(false)
        .pool_max_idle_per_host(0)
        .user_agent(concat!("fleetmark/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| plain(&error))
}

fn header(headers: &HeaderMap, name: &HeaderName) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok()).filter(|value| value.len() <= MAX_HEADER);
    value.unwrap_or_default().to_owned()
}

/// What went wrong, by its innermost cause.
fn plain(error: &reqwest::Error) -> String {
    let first: &dyn std::error::Error = error;
    let causes = std::iter::successors(Some(first), |cause| cause.source());
    causes.last().map(ToString::to_string).unwrap_or_default()
}
