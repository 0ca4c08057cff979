//! The doors as anybody sees them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleetmark_domain::Timestamp;
use reqwest::Response;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, Pem, X509Certificate};

use super::Finding;
use crate::cli::client::{builder, read};
use crate::cli::failure::{Failure, harmless};
use crate::config::Config;
use crate::config::profile::Profile;

/// How long a door may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The server renews its doors' certificates long before this.
const ENDS_SOON: Duration = Duration::from_secs(7 * 86_400);

/// A revocation list is made anew long before this.
const LIST_ENDS_SOON: Duration = Duration::from_secs(86_400);

/// A clock may be off by this.
const CLOCK: Duration = Duration::from_secs(30);

/// The longest bundle of revocation lists that is read, in octets.
const MAX_LISTS: usize = 256 << 20;

/// Looks at the three doors of a server on this machine.
pub(super) async fn look(config: &Config, profile: Option<&Profile>, now: Timestamp, findings: &mut Vec<Finding>) {
    let roots = profile.and_then(|profile| roots(&profile.ca_pem().ok()?));
    for (name, address) in [("device door", config.doors.device), ("admin door", config.doors.admin)] {
        let (host, roots) = (config.names.first.clone(), roots.clone());
        let looked = tokio::task::spawn_blocking(move || tls_door(name, reachable(address), &host, roots, now)).await;
        findings.extend(looked.unwrap_or_default());
    }
    public_door(reachable(config.doors.public), now, findings).await;
}

/// Where a door that listens everywhere is reached from its own machine.
fn reachable(door: SocketAddr) -> SocketAddr {
    let address = match door.ip() {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    SocketAddr::new(address, door.port())
}

fn roots(pem: &[u8]) -> Option<Arc<RootCertStore>> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        store.add(certificate.ok()?).ok()?;
    }
    Some(Arc::new(store))
}

fn closed(name: &str, address: SocketAddr, error: &dyn std::fmt::Display) -> Finding {
    Finding::bad(
        name,
        format!("{address} does not answer: {error}"),
        "Start the server; if it runs, look whether another program has the port.",
    )
}

fn tls_door(name: &str, address: SocketAddr, host: &str, roots: Option<Arc<RootCertStore>>, now: Timestamp) -> Vec<Finding> {
    let mut socket = match TcpStream::connect_timeout(&address, PATIENCE) {
        Ok(socket) => socket,
        Err(error) => return vec![closed(name, address, &error)],
    };
    let timeouts = socket.set_read_timeout(Some(PATIENCE)).and_then(|()| socket.set_write_timeout(Some(PATIENCE)));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = roots.and_then(|roots| WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build().ok());
    let onlooker = Arc::new(Onlooker { provider: provider.clone(), verifier, seen: Mutex::default() });
    let built = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let (Ok(()), Ok(built), Ok(host)) = (timeouts, built, ServerName::try_from(host.to_owned())) else {
        return vec![Finding::warn(
            name,
            format!("{address} answers; TLS could not be tried"),
            "Look at the first of `names`.",
        )];
    };
    let tls = built.dangerous().with_custom_certificate_verifier(onlooker.clone()).with_no_client_auth();
    let handshake = ClientConnection::new(Arc::new(tls), host).map_err(|error| error.to_string()).and_then(|mut connection| {
        // Nothing is sent after the handshake.
        connection.complete_io(&mut socket).map(|_| ()).map_err(|error| error.to_string())
    });
    let seen = onlooker.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (seen, handshake) {
        (Some(seen), _) => judged(name, address, &seen, now),
        (None, Err(error)) => vec![closed(name, address, &error)],
        (None, Ok(())) => vec![closed(name, address, &"it shows no certificate")],
    }
}

fn judged(name: &str, address: SocketAddr, seen: &Seen, now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &seen.trust {
        Some(Err(reason)) => findings.push(Finding::bad(
            name,
            format!("the certificate at {address} is not accepted: {reason}"),
            "Compare `names` with how it is reached, and the profile's ca.pem with this installation.",
        )),
        _ => findings.push(Finding::ok(name, format!("{address} answers"))),
    }
    let end = X509Certificate::from_der(&seen.certificate).map(|(_, certificate)| certificate.validity().not_after.timestamp());
    match end.map(Timestamp) {
        Ok(end) => findings.push(ends(
            &format!("{name}'s certificate"),
            end,
            now,
            ENDS_SOON,
            "The server renews it by itself: look at its log for why it did not.",
        )),
        Err(_) => findings.push(Finding::bad(name, "its certificate cannot be read", "Look at the server's log.")),
    }
    findings
}

/// How far off an end is.
pub(super) fn ends(check: &str, end: Timestamp, now: Timestamp, soon: Duration, advice: &str) -> Finding {
    if end <= now {
        Finding::bad(check, format!("ended at {end}"), advice)
    } else if end <= now + soon {
        Finding::warn(check, format!("ends soon, at {end}"), advice)
    } else {
        Finding::ok(check, format!("holds until {end}"))
    }
}

async fn public_door(address: SocketAddr, now: Timestamp, findings: &mut Vec<Finding>) {
    let get = |path: &str| {
        let url = format!("http://{address}{path}");
        async move {
            let http = builder().timeout(PATIENCE).build().map_err(|error| Failure::of(&error))?;
            http.get(url).send().await.map_err(|error| Failure::Unreachable(error.to_string()))
        }
    };
    let ready = match get("/readyz").await {
        Ok(ready) => ready,
        Err(failure) => return findings.push(closed("public door", address, &super::told(&failure))),
    };
    findings.push(Finding::ok("public door", format!("{address} answers")));
    findings.extend(clock(&ready, now));
    findings.push(readiness(ready).await);
    match get("/crl/bundle.pem").await {
        Ok(response) if response.status().is_success() => match read(response, MAX_LISTS).await {
            Ok(pem) => findings.extend(lists(&pem, now)),
            Err(failure) => findings.push(Finding::bad("revocation lists", super::told(&failure), "Look at the server's log.")),
        },
        Ok(response) => {
            let found = format!("/crl/bundle.pem answers {}", response.status());
            findings.push(Finding::bad("revocation lists", found, "Look at the server's log."));
        }
        Err(failure) => findings.push(Finding::bad("revocation lists", super::told(&failure), "Look at the server's log.")),
    }
}

fn clock(response: &Response, now: Timestamp) -> Option<Finding> {
    let date = response.headers().get(reqwest::header::DATE)?.to_str().ok()?;
    // RFC 9110 5.6.7: IMF-fixdate is RFC 2822 with the obsolete zone GMT.
    let told = OffsetDateTime::parse(date, &Rfc2822).ok()?.unix_timestamp();
    let off = told.abs_diff(now.0);
    Some(if off <= CLOCK.as_secs() {
        Finding::ok("clock", "this machine and the server agree")
    } else {
        Finding::bad(
            "clock",
            format!("this machine and the server are {off} s apart"),
            "Set both by NTP: certificates and ledger depend on it.",
        )
    })
}

/// What `/readyz` says is wrong.
async fn readiness(response: Response) -> Finding {
    const CHECK: &str = "readiness";
    let status = response.status();
    if status.is_success() {
        return Finding::ok(CHECK, "the server says that it is ready");
    }
    let body = read(response, 64 * 1024).await.unwrap_or_default();
    let value: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let checks = value.get("checks").and_then(|checks| checks.as_array()).map(Vec::as_slice).unwrap_or_default();
    let failed = checks.iter().filter(|check| check.get("ok") == Some(&false.into()));
    let names: Vec<_> = failed.filter_map(|check| check.get("name")?.as_str()).map(harmless).collect();
    let found = if names.is_empty() { status.to_string() } else { names.join(", ") };
    Finding::bad(CHECK, format!("the server says that it is not ready: {found}"), "Its log says why.")
}

fn lists(pem: &[u8], now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    for block in Pem::iter_from_buffer(pem) {
        let Ok(block) = block else {
            findings.push(Finding::bad("revocation lists", "the bundle is no PEM", "Look at the server's log."));
            break;
        };
        let Ok((_, list)) = CertificateRevocationList::from_der(&block.contents) else {
            findings.push(Finding::bad("revocation lists", "one cannot be read", "Look at the server's log."));
            continue;
        };
        let check = format!("revocation list of {}", harmless(&list.issuer().to_string()));
        findings.push(match list.next_update() {
            Some(end) => ends(
                &check,
                Timestamp(end.timestamp()),
                now,
                LIST_ENDS_SOON,
                "Past its end, every gateway that reads it refuses everybody. Look at the server's log for why none is made.",
            ),
            None => {
                Finding::bad(check, "it has no end", "This server makes no such list: look who answers at the public door.")
            }
        });
    }
    if findings.is_empty() {
        findings.push(Finding::bad("revocation lists", "there is none", "Look at the server's log."));
    }
    findings
}

/// What a door showed.
struct Seen {
    certificate: CertificateDer<'static>,
    /// Whether the chain leads to the profile's root; None where there is no profile.
    trust: Option<Result<(), String>>,
}

/// Takes any certificate, to look at it: nothing is sent over its connections.
struct Onlooker {
    provider: Arc<CryptoProvider>,
    verifier: Option<Arc<WebPkiServerVerifier>>,
    seen: Mutex<Option<Seen>>,
}

impl std::fmt::Debug for Onlooker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Onlooker").finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Onlooker {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verify = |verifier: &Arc<WebPkiServerVerifier>| {
            let verified = verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
            verified.map(|_| ()).map_err(|error| error.to_string())
        };
        let seen = Seen { certificate: end_entity.clone().into_owned(), trust: self.verifier.as_ref().map(verify) };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::State;

    #[test]
    fn ends_are_judged_by_how_far_off_they_are() {
        let at = |end: i64| ends("x", Timestamp(end), Timestamp(1_000), Duration::from_secs(100), "renew").state;
        assert_eq!(
            [at(999), at(1_000), at(1_001), at(1_100), at(1_101)],
            [State::Bad, State::Bad, State::Warn, State::Warn, State::Ok]
        );
    }

    #[test]
    fn a_door_that_nobody_listens_at_is_bad() {
        let address = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("port");
        let findings = tls_door("device door", address, "localhost", None, Timestamp(0));
        assert_eq!(findings[0].state, State::Bad);
        assert!(findings[0].found.contains("does not answer"));
        assert_eq!(reachable("0.0.0.0:1".parse().expect("address")).to_string(), "127.0.0.1:1");
        assert_eq!(reachable("[::]:1".parse().expect("address")).to_string(), "[::1]:1");
    }

    #[test]
    fn a_bundle_without_lists_is_bad() {
        assert_eq!(lists(b"", Timestamp(0))[0].state, State::Bad);
        assert_eq!(lists(b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", Timestamp(0))[0].state, State::Bad);
    }
}
