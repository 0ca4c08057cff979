//! One HTTP exchange with a limit on everything, and its outcome sorted.

use std::error::Error as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ResolvesClientCert, Resumption, WantsClientCert};
use rustls::crypto::{CryptoProvider, ring};
use rustls::{AlertDescription, ClientConfig, ConfigBuilder, Error as TlsError};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock::{Dates, DeviceTime};
use crate::error::{Error, Refused};
use crate::trust::Roots;
use crate::verifier::{Seen, ServerVerifier};
use crate::wire::Problem;

/// The largest answer that is read, in octets.
pub const MAX_BODY: usize = 256 * 1024;
/// The longest wait that a server may ask for.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const WHOLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The certificate chain and key that a connection is made with.
pub(crate) struct ClientIdentity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// The ring provider, given to every configuration so that no process-wide default is needed.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Connections to one server, with one verifier and at most one identity.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    client: reqwest::Client,
    seen: Arc<Mutex<Seen>>,
}

/// An answer with a status of 2xx.
pub(crate) struct Answer {
    pub(crate) body: Vec<u8>,
    pub(crate) content_type: String,
    /// The server certificate's validity, for those who judge the server's time. None before the server is verified.
    pub(crate) dates: Option<Dates>,
}

impl Answer {
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| Error::BadAnswer(format!("not the JSON that belongs here: {error}")))
    }
}

fn crypto(error: &TlsError) -> Error {
    Error::Crypto(error.to_string())
}

fn tls_builder(verifier: Arc<dyn ServerCertVerifier>) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Error> {
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_protocol_versions(rustls::ALL_VERSIONS).map_err(|error| crypto(&error))?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier))
}

/// Every connection is verified anew, on both sides; HTTP/1.1 alone.
fn hardened(mut tls: ClientConfig) -> ClientConfig {
    tls.resumption = Resumption::disabled();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    tls
}

/// TLS for a client of the device door other than [`crate::Client`]: the server is verified against `roots` alone, at a time
/// that a machine without a clock can stand behind; `identity` gives the certificate anew for each connection.
///
/// # Errors
/// [`Error::Untrusted`] for a root that cannot be used, [`Error::Crypto`].
pub fn tls_config(roots: &Roots, time: &DeviceTime, identity: Arc<dyn ResolvesClientCert>) -> Result<ClientConfig, Error> {
    let verifier = ServerVerifier::new(roots, provider(), time.clone(), Arc::default())?;
    Ok(hardened(tls_builder(Arc::new(verifier))?.with_client_cert_resolver(identity)))
}

impl Connection {
    pub(crate) fn new(
        verifier: Arc<dyn ServerCertVerifier>,
        seen: Arc<Mutex<Seen>>,
        identity: Option<ClientIdentity>,
    ) -> Result<Self, Error> {
        let builder = tls_builder(verifier)?;
        let tls = match identity {
            Some(identity) => builder.with_client_auth_cert(identity.chain, identity.key).map_err(|error| crypto(&error))?,
            None => builder.with_no_client_auth(),
        };
        let tls = hardened(tls);
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .http1_only()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(WHOLE_TIMEOUT)
            .user_agent(concat!("fleetmark-device/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::Crypto(error.to_string()))?;
        Ok(Self { client, seen })
    }

    pub(crate) async fn get(&self, url: Url) -> Result<Answer, Error> {
        self.exchange(self.client.get(url)).await
    }

    pub(crate) async fn post<T: Serialize>(&self, url: Url, token: Option<&str>, body: Option<&T>) -> Result<Answer, Error> {
        let mut request = self.client.post(url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request = match body {
            Some(body) => {
                let text = serde_json::to_vec(body).map_err(|error| Error::Crypto(error.to_string()))?;
                request.header(CONTENT_TYPE, "application/json").body(text)
            }
            None => request.body(Vec::new()),
        };
        self.exchange(request).await
    }

    async fn exchange(&self, request: RequestBuilder) -> Result<Answer, Error> {
        let response = request.send().await.map_err(|error| self.sort(&error))?;
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let content_type = content_type.to_owned();
        let body = self.body(response).await;
        if status.is_success() && status != StatusCode::ACCEPTED {
            let dates = self.seen.lock().unwrap_or_else(PoisonError::into_inner).dates;
            return Ok(Answer { body: body?, content_type, dates });
        }
        // 202 (RFC 9110 15.3.3): taken down, and not decided yet.
        if status.is_client_error() || status.is_server_error() || status == StatusCode::ACCEPTED {
            // A refusal counts even when the text beside it does not arrive.
            let problem: Problem = body.ok().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default();
            let (code, detail) = (problem.code.as_deref(), problem.detail.as_deref());
            return Err(Error::Refused(Refused::new(status.as_u16(), code, detail, retry_after)));
        }
        Err(Error::BadAnswer(format!("status {status}, where a redirect or the like has no place")))
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.sort(&error))? {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(Error::BadAnswer("it is larger than 256 KiB".to_owned()));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// Sorts a transport failure: not trusted, our certificate not taken, or not reached.
    fn sort(&self, error: &reqwest::Error) -> Error {
        if let Some(objection) = self.seen.lock().unwrap_or_else(PoisonError::into_inner).objection.take() {
            return Error::Untrusted(objection);
        }
        match tls_error(error) {
            Some(TlsError::AlertReceived(alert)) if is_about_client_certificate(*alert) => {
                Error::CertificateNotTaken { alert: format!("{alert:?}") }
            }
            Some(tls @ (TlsError::InvalidCertificate(_) | TlsError::PeerMisbehaved(_))) => Error::Untrusted(tls.to_string()),
            _ => Error::Unreachable(innermost(error)),
        }
    }
}

/// RFC 8446 6.2: the alerts with which a server answers a client certificate.
const fn is_about_client_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            // What rustls sends when an authority of the same name has another key.
            | AlertDescription::DecryptError
            | AlertDescription::CertificateRequired
    )
}

/// The TLS error in a chain of sources; `io::Error` keeps it where `source` does not look.
fn tls_error(error: &reqwest::Error) -> Option<&TlsError> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<TlsError>() {
            return Some(tls);
        }
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(tls) = inner.and_then(|inner| inner.downcast_ref::<TlsError>()) {
            return Some(tls);
        }
        next = inner.map_or_else(|| error.source(), |inner| Some(inner));
    }
    None
}

/// The last cause of a failure, which is the one that a person can act on.
fn innermost(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = error.to_string();
        next = error.source();
    }
    if error.is_timeout() { format!("no answer in time ({text})") } else { text }
}

/// RFC 9110 10.2.3, in seconds; a date is passed over, since the device's clock may be wrong.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_and_bounded() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().expect("header"));
            retry_after(&headers)
        };
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read("999999999"), Some(MAX_RETRY_AFTER));
        assert_eq!(read("Wed, 21 Oct 2026 07:28:00 GMT"), None);
        assert_eq!(read("-1"), None);
    }
}
