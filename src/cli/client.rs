//! The operator's client of the admin door: mTLS with the profile's key, the profile's root and no other.

use std::error::Error as _;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, Response, Url};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;

use super::failure::{Failure, ProblemDocument, chain};
use crate::config::profile::Profile;

/// The largest answer that is read into memory, in octets: 500 items, or 256 entries of 60,000 octets in base64.
const MAX_ANSWER: usize = 32 << 20;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the server may be silent.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// The most items that the server gives a page.
const MAX_PAGE: usize = 500;

/// A client of one admin door.
pub struct Client {
    http: reqwest::Client,
    /// For what the server prepares before it answers, however long that takes: keepalive alone (reqwest's) ends it.
    patient: reqwest::Client,
    base: Url,
}

/// What to ask for.
#[derive(Debug, Default)]
pub struct Ask<'a> {
    /// Segments after `/`, unescaped.
    pub path: Vec<&'a str>,
    /// Query parameters; those without a value are left out.
    pub query: Vec<(&'static str, Option<String>)>,
    /// A JSON body.
    pub body: Option<Value>,
    /// The `If-Match` header.
    pub if_match: Option<String>,
    /// Whether a repeat must not make a second thing: an `Idempotency-Key` goes along.
    pub creates: bool,
}

impl<'a> Ask<'a> {
    /// A request for this path.
    pub fn path(segments: &[&'a str]) -> Self {
        Self { path: segments.to_vec(), ..Self::default() }
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// With an `Idempotency-Key`.
    #[must_use]
    pub const fn creates(mut self) -> Self {
        self.creates = true;
        self
    }
}

/// An answer that says yes.
pub struct Answer {
    /// The `ETag` header.
    pub etag: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null where there is none.
    ///
    /// # Errors
    /// [`Failure::Failed`].
    pub fn json(&self) -> Result<Value, Failure> {
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&self.body).map_err(|_| Failure::Failed("the server's answer is no JSON".to_owned(), None))
    }
}

impl Client {
    /// A client with this profile's key, certificate, root and server.
    ///
    /// # Errors
    /// [`Failure`] where a file of the profile cannot be used.
    pub fn open(profile: &Profile) -> Result<Self, Failure> {
        let at = |name: &str| profile.directory.join(name).display().to_string();
        let roots = certificates(&profile.ca_pem()?).ok_or_else(|| unusable(&at("ca.pem"), "certificate in PEM"))?;
        let chain = certificates(&profile.certificate_pem()?).ok_or_else(|| unusable(&at("cert.pem"), "certificate in PEM"))?;
        let key =
            PrivateKeyDer::from_pem_slice(&profile.key_pem()?).map_err(|_| unusable(&at("key.pem"), "private key in PEM"))?;
        let mut store = rustls::RootCertStore::empty();
        for root in roots {
            store.add(root).map_err(|_| unusable(&at("ca.pem"), "root certificate"))?;
        }
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::of(&error))?
            .with_root_certificates(store)
            .with_client_auth_cert(chain, key)
            .map_err(|_| unusable(&at("key.pem"), "private key of the certificate in cert.pem"))?;
        let built = |builder: reqwest::ClientBuilder| builder.build().map_err(|error| Failure::of(&error));
        let http = built(builder().tls_backend_preconfigured(tls.clone()))?;
        let patient = built(patient_builder().tls_backend_preconfigured(tls))?;
        let base = Url::parse(&profile.settings.server).map_err(|_| unusable(&at("operator.toml"), "URL of a server"))?;
        Ok(Self { http, patient, base })
    }

    /// `GET`.
    ///
    /// # Errors
    /// [`Failure`], as with all methods.
    pub async fn get(&self, ask: Ask<'_>) -> Result<Answer, Failure> {
        self.send(Method::GET, ask).await
    }

    /// `POST`.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn post(&self, ask: Ask<'_>) -> Result<Answer, Failure> {
        self.send(Method::POST, ask).await
    }

    /// `POST` of octets of a media type.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn upload(&self, ask: Ask<'_>, media_type: &'static str, octets: Vec<u8>) -> Result<Answer, Failure> {
        let request = self.request(Method::POST, &ask)?.header(reqwest::header::CONTENT_TYPE, media_type).body(octets);
        answered(request.send().await.map_err(|error| unsent(&error))?).await
    }

    /// `PUT`.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn put(&self, ask: Ask<'_>) -> Result<Answer, Failure> {
        self.send(Method::PUT, ask).await
    }

    /// `DELETE`.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn delete(&self, ask: Ask<'_>) -> Result<Answer, Failure> {
        self.send(Method::DELETE, ask).await
    }

    /// Reads the resource, then sends `change` as `PATCH` with its `ETag`: what somebody else changed meanwhile is not
    /// overwritten.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn change(&self, path: &[&str], change: Value) -> Result<Answer, Failure> {
        let found = self.get(Ask::path(path)).await?;
        self.send(Method::PATCH, Ask { body: Some(change), if_match: found.etag, ..Ask::path(path) }).await
    }

    /// The items of a list, and the cursor of what was not fetched. Without `limit`, all of them.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn list(&self, ask: Ask<'_>, limit: Option<usize>) -> Result<Value, Failure> {
        let mut items: Vec<Value> = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let left = limit.map_or(MAX_PAGE, |limit| limit.saturating_sub(items.len()).min(MAX_PAGE));
            let mut query = ask.query.clone();
            query.extend([("limit", Some(left.to_string())), ("cursor", cursor.clone())]);
            let mut page = self.get(Ask { path: ask.path.clone(), query, ..Ask::default() }).await?.json()?;
            let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) else {
                return Err(Failure::Failed("the server's answer is no list".to_owned(), None));
            };
            let is_empty = more.is_empty();
            items.extend(more);
            let next = page.get("next").and_then(Value::as_str).map(str::to_owned);
            let enough = limit.is_some_and(|limit| items.len() >= limit);
            // A server that gives the same cursor, or nothing, again and again must not keep us for ever.
            if next.is_none() || enough || is_empty || next == cursor {
                return Ok(serde_json::json!({"items": items, "next": next}));
            }
            cursor = next;
        }
    }

    /// `POST`s and writes the answer's octets to `out` as they come; gives their number. It waits for as long as the server is there.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn download(&self, ask: Ask<'_>, out: &mut impl Write) -> Result<u64, Failure> {
        let request = prepared(&self.patient, &self.base, Method::POST, &ask)?;
        let mut response = request.send().await.map_err(|error| unsent(&error))?;
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        let mut count = 0;
        while let Some(octets) = response.chunk().await.map_err(|error| unsent(&error))? {
            out.write_all(&octets).map_err(|error| Failure::of(&error))?;
            count += u64::try_from(octets.len()).unwrap_or(0);
        }
        Ok(count)
    }

    /// Sends octets of another media type than JSON by `PUT`.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn put_octets(&self, ask: Ask<'_>, media_type: &str, octets: Vec<u8>) -> Result<Answer, Failure> {
        let request = self.request(Method::PUT, &ask)?.header(reqwest::header::CONTENT_TYPE, media_type).body(octets);
        let response = request.send().await.map_err(|error| unsent(&error))?;
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        Ok(Answer { etag: None, body: read(response, MAX_ANSWER).await? })
    }

    async fn send(&self, method: Method, ask: Ask<'_>) -> Result<Answer, Failure> {
        answered(self.request(method, &ask)?.send().await.map_err(|error| unsent(&error))?).await
    }

    fn request(&self, method: Method, ask: &Ask<'_>) -> Result<reqwest::RequestBuilder, Failure> {
        prepared(&self.http, &self.base, method, ask)
    }
}

fn prepared(http: &reqwest::Client, base: &Url, method: Method, ask: &Ask<'_>) -> Result<reqwest::RequestBuilder, Failure> {
    let mut request = http.request(method, url(base, ask)?);
    if let Some(body) = &ask.body {
        request = request.json(body);
    }
    if let Some(etag) = &ask.if_match {
        request = request.header(reqwest::header::IF_MATCH, etag);
    }
    if ask.creates {
        let mut key = [0; 16];
        SystemRandom::new().fill(&mut key).map_err(|_| Failure::Failed("the system gives no randomness".to_owned(), None))?;
        request = request.header("Idempotency-Key", hex::encode(key));
    }
    Ok(request)
}

/// What an answer says, where it says yes.
async fn answered(response: Response) -> Result<Answer, Failure> {
    // 202 with a problem document: taken down, and not done yet.
    let kind = response.headers().get(reqwest::header::CONTENT_TYPE);
    let is_problem = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/problem+json"));
    if is_problem || !response.status().is_success() {
        return Err(refused(response).await);
    }
    let etag = response.headers().get(reqwest::header::ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
    Ok(Answer { etag, body: read(response, MAX_ANSWER).await? })
}

/// What every client of ours has in common: no proxy, no redirect, time limits.
pub fn builder() -> reqwest::ClientBuilder {
    patient_builder().read_timeout(READ_TIMEOUT)
}

/// The same for a server that may be silent for long.
fn patient_builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("fleetmark/", env!("CARGO_PKG_VERSION")))
}

/// The answer's body, up to `most` octets.
///
/// # Errors
/// [`Failure`].
pub async fn read(mut response: Response, most: usize) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(octets) = response.chunk().await.map_err(|error| unsent(&error))? {
        if body.len() + octets.len() > most {
            return Err(Failure::Failed(format!("the server's answer is longer than {most} octets"), None));
        }
        body.extend_from_slice(&octets);
    }
    Ok(body)
}

/// What an answer that says no says.
pub async fn refused(response: Response) -> Failure {
    let status = response.status().as_u16();
    let body = read(response, 64 * 1024).await.unwrap_or_default();
    Failure::Refused(ProblemDocument::read(status, &body))
}

/// Why there is no answer.
pub fn unsent(error: &reqwest::Error) -> Failure {
    let tls = tls_error(error);
    let text = tls.map_or_else(|| chain(error), ToString::to_string);
    if tls.is_some() { Failure::NotTrusted(text) } else { Failure::Unreachable(text) }
}

/// The TLS error among the causes. `io::Error::source` passes over what it wraps, so that is looked into.
fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = error.source();
    while let Some(cause) = next {
        let wrapped = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let wrapped = wrapped.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(found) = wrapped.or_else(|| cause.downcast_ref::<rustls::Error>()) {
            return Some(found);
        }
        next = cause.source();
    }
    None
}

fn url(base: &Url, ask: &Ask<'_>) -> Result<Url, Failure> {
    let mut url = base.clone();
    // WHATWG URL: these segments would vanish and lead to another resource.
    if ask.path.iter().any(|segment| matches!(*segment, "" | "." | "..")) {
        return Err(Failure::Usage("a name is not empty, '.' or '..'".to_owned()));
    }
    url.path_segments_mut().map_err(|()| Failure::Usage(format!("{base} is no server's URL")))?.clear().extend(&ask.path);
    let given = ask.query.iter().filter_map(|(name, value)| value.as_ref().map(|value| (*name, value)));
    let query: Vec<_> = given.collect();
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    Ok(url)
}

fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
    (!all.is_empty()).then_some(all)
}

fn unusable(path: &str, what: &str) -> Failure {
    Failure::Failed(
        format!("{path}: this is no {what}"),
        Some("Restore the profile, or let the operator in again: fleetmark operator recover NAME."),
    )
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn at(path: &[&str], query: Vec<(&'static str, Option<String>)>) -> Result<String, Failure> {
        let base = Url::parse("https://127.0.0.1:9443").expect("url");
        url(&base, &Ask { query, ..Ask::path(path) }).map(|url| url.to_string())
    }

    #[test]
    fn names_cannot_lead_to_another_resource() {
        assert_eq!(
            at(&["v1", "fleets", "a/b?c#d%2e"], vec![]).expect("url"),
            "https://127.0.0.1:9443/v1/fleets/a%2Fb%3Fc%23d%252e"
        );
        for hostile in ["", ".", ".."] {
            assert_eq!(at(&["v1", "fleets", hostile], vec![]).expect_err(hostile).code(), 2);
        }
        let query = vec![("search", Some("a&b=c".to_owned())), ("state", None)];
        assert_eq!(at(&["v1"], query).expect("url"), "https://127.0.0.1:9443/v1?search=a%26b%3Dc");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_unreachable() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("port");
        let address = listener.local_addr().expect("address");
        drop(listener);
        let failure = client(address, READ_TIMEOUT).get(Ask::path(&["v1"])).await.err().expect("nobody listens");
        assert_eq!(failure.code(), 4, "{failure}");
    }

    /// A client without TLS, which bears a silence of `silence`.
    fn client(address: SocketAddr, silence: Duration) -> Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = builder().read_timeout(silence).build().expect("client");
        let patient = patient_builder().build().expect("client");
        Client { http, patient, base: Url::parse(&format!("http://{address}")).expect("url") }
    }

    #[tokio::test]
    async fn a_download_is_waited_for_longer_than_another_answer() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("port");
        let address = listener.local_addr().expect("address");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("connection");
                let _ = std::io::Read::read(&mut stream, &mut [0; 1024]).expect("request");
                std::thread::sleep(Duration::from_millis(600));
                // The one that was not waited for is closed by now.
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nmade");
            }
        });
        let client = client(address, Duration::from_millis(100));
        assert_eq!(client.post(Ask::path(&["v1"])).await.err().expect("it is silent").code(), 4);
        let mut made = Vec::new();
        assert_eq!(client.download(Ask::path(&["v1"]), &mut made).await.expect("downloaded"), 4);
        assert_eq!(made, b"made");
    }
}
