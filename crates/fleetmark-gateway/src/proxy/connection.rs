//! One connection, from TCP's accept to its end.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleetmark_policy::Act;
use rustls::ProtocolVersion;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncWriteExt, copy, sink};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep_until, timeout};
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::handshake::{Failed, accept};
use super::header::{Client, encode};
use super::registry::{Live, Registered, Why};
use super::relay::{Event, Relay};
use super::{CutReason, ProxyProtocol, Refused, Shared};
use crate::judge::{Presented, Reason, Wanted};

/// A connection of which one direction has ended is closed when nothing goes in the other for so long.
const HALF_CLOSED: Duration = Duration::from_secs(60);
/// A peer that is silent is asked after so long whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How long a device that was refused may take to read that.
const FAREWELL: Duration = Duration::from_secs(1);
/// The longest that a timer is set for: the wall clock may be set meanwhile.
const LONGEST: Duration = Duration::from_secs(3_600);

type Device = TlsStream<TcpStream>;

/// A connection's places among those that are allowed at a time.
pub(super) struct Places {
    /// Of connections; kept to its end.
    pub(super) connection: OwnedSemaphorePermit,
    /// Of handshakes; given back after it.
    pub(super) handshake: OwnedSemaphorePermit,
}

/// A refusal, and who was refused, as far as is known.
struct Refusal {
    refused: Refused,
    who: String,
}

/// A device that was let in.
struct Admitted {
    device: Device,
    live: Registered,
    who: String,
    header: Option<Vec<u8>>,
}

/// Serves one connection.
pub(super) async fn serve(shared: Arc<Shared>, tcp: TcpStream, peer: SocketAddr, places: Places) {
    let Places { connection: _kept, handshake } = places;
    prepare(&tcp);
    let admitted = tokio::select! {
        biased;
        () = shared.ending.cancelled() => Err(Refusal { refused: Refused::Stopping, who: String::new() }),
        admitted = admit(&shared, tcp, peer, handshake) => admitted,
    };
    match admitted {
        Ok(admitted) => pass_on(&shared, admitted, peer).await,
        Err(Refusal { refused, who }) => shared.report.refused(refused, peer, &who),
    }
}

/// Handshake and verdict.
async fn admit(
    shared: &Shared,
    tcp: TcpStream,
    peer: SocketAddr,
    handshake: OwnedSemaphorePermit,
) -> Result<Admitted, Refusal> {
    let local = tcp.local_addr().unwrap_or(shared.settings.listen);
    let mut device = match timeout(shared.settings.handshake_timeout, accept(&shared.acceptor, tcp)).await {
        Ok(Ok(device)) => device,
        Ok(Err(Failed { refused, fingerprint })) => {
            return Err(Refusal { refused, who: fingerprint.map(|f| f.to_string()).unwrap_or_default() });
        }
        Err(_) => return Err(Refusal { refused: Refused::HandshakeTimeout, who: String::new() }),
    };
    shared.report.shaken();
    drop(handshake);
    let (live, who, header) = match judge(shared, &device, peer, local).await {
        Ok(judged) => judged,
        Err(refusal) => {
            farewell(&mut device).await;
            return Err(refusal);
        }
    };
    Ok(Admitted { device, live, who, header })
}

async fn judge(
    shared: &Shared,
    device: &Device,
    peer: SocketAddr,
    local: SocketAddr,
) -> Result<(Registered, String, Option<Vec<u8>>), Refusal> {
    let denied = |reason, who| Refusal { refused: Refused::Denied(reason), who };
    let (_, session) = device.get_ref();
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let Some(certificate) = certificate else { return Err(denied(Reason::CertificateRequired, String::new())) };
    let mut presented = Presented::parse(certificate).map_err(|reason| denied(reason, String::new()))?;
    let source = peer.ip().to_canonical();
    let protocol = shared.settings.protocol.as_deref();
    let wanted = Wanted { act: Act::Connect, topic: None, source: Some(source), protocol, firmware: None, shown: true };
    let verdict = shared.watcher.judge.judge_patiently(&presented, &wanted, (shared.watcher.clock)()).await;
    shared.watcher.judge.recognize(&mut presented);
    let uri = presented.uri();
    let who = uri.clone().unwrap_or_else(|| presented.fingerprint.to_string());
    if !verdict.allow {
        if let (Reason::ExternalUnknown, Some(foreign)) = (verdict.reason, &presented.foreign) {
            shared.watcher.knowledge.met(certificate, foreign, source, (shared.watcher.clock)());
        }
        return Err(denied(verdict.reason, who));
    }
    let header = (shared.settings.proxy_protocol == ProxyProtocol::V2).then(|| {
        let version = if session.protocol_version() == Some(ProtocolVersion::TLSv1_2) { "TLSv1.2" } else { "TLSv1.3" };
        // Of another authority's certificate the name by the rule: whoever reads this knows our names.
        let named = presented.identity.as_ref().filter(|_| presented.foreign.is_some());
        let common_name = named.map(|identity| identity.name().to_string()).or_else(|| common_name(certificate));
        let (common_name, spiffe_id) = (common_name.as_deref(), uri.as_deref());
        encode(&Client { source: peer, destination: local, version, common_name, spiffe_id })
    });
    let live = shared.watcher.registry.register(Live::new(presented, source, verdict.ledger, &shared.ending));
    // What came between the verdict and the registration told nobody: asked once more, now that news finds it.
    let again = shared.watcher.judge(&live);
    if again.allow { Ok((live, who, header)) } else { Err(denied(again.reason, who)) }
}

/// Connects to the service, and lets octets pass until an end or a cut.
async fn pass_on(shared: &Shared, admitted: Admitted, peer: SocketAddr) {
    let Admitted { mut device, live, who, header } = admitted;
    let service = tokio::select! {
        biased;
        why = live.told_to_end() => return cut(shared, device, why, peer, &who),
        service = connect(shared, header) => service,
    };
    let Ok(service) = service else {
        shared.report.refused(Refused::UpstreamUnreachable, peer, &who);
        return farewell(&mut device).await;
    };
    shared.report.accepted();
    tracing::debug!(%peer, who, "connected");
    let mut relay = Relay::new(device, service, shared.report.up.clone(), shared.report.down.clone());
    let ended = loop {
        let look = next_look(shared, &live, &relay);
        tokio::select! {
            biased;
            why = live.told_to_end() => break Err(why),
            event = poll_fn(|context| relay.poll(context)) => match event {
                Ok(Event::HalfClosed) => {}
                Ok(Event::Ended) => break Ok(()),
                Err(error) => {
                    tracing::debug!(%peer, who, %error, "connection broke off");
                    break Ok(());
                }
            },
            () = sleep_until(look.into()) => {
                if let Some(reason) = overdue(shared, &live, &relay) {
                    break Err(Why { reason, since: None });
                }
            }
        }
    };
    match ended {
        Ok(()) => tracing::debug!(%peer, who, "connection ended"),
        Err(why) => cut(shared, relay.into_device(), why, peer, &who),
    }
}

async fn connect(shared: &Shared, header: Option<Vec<u8>>) -> std::io::Result<TcpStream> {
    timeout(shared.settings.connect_timeout, async {
        let mut service = TcpStream::connect(&shared.settings.upstream).await?;
        prepare(&service);
        if let Some(header) = header {
            service.write_all(&header).await?;
        }
        Ok(service)
    })
    .await?
}

/// Closes at once: what the device has sent and nobody has read is thrown away, what was on its way to it too.
fn cut(shared: &Shared, device: Device, why: Why, peer: SocketAddr, who: &str) {
    let (tcp, _) = device.get_ref();
    // Whatever cannot be set on a socket that is going is of no use any more.
    let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
    drop(device);
    shared.report.cut(why.reason, why.since, peer, who);
}

/// When the connection must be looked at, if nobody says otherwise before: at its certificate's end, or when it has been
/// idle for too long.
fn next_look(shared: &Shared, live: &Live, relay: &Relay<Device, TcpStream>) -> Instant {
    // RFC 5280 4.1.2.5: notAfter itself is within.
    let left = live.presented.not_after.since((shared.watcher.clock)()) + Duration::from_secs(1);
    let end = Instant::now() + left.min(LONGEST);
    idle_end(shared, relay).map_or(end, |idle| end.min(idle))
}

fn idle_end(shared: &Shared, relay: &Relay<Device, TcpStream>) -> Option<Instant> {
    let half_closed = relay.is_half_closed().then_some(HALF_CLOSED);
    let idle = shared.settings.idle_timeout.into_iter().chain(half_closed).min()?;
    Some(relay.active() + idle)
}

fn overdue(shared: &Shared, live: &Live, relay: &Relay<Device, TcpStream>) -> Option<CutReason> {
    if (shared.watcher.clock)() > live.presented.not_after {
        return Some(CutReason::Denied(Reason::CertificateExpired));
    }
    idle_end(shared, relay).filter(|end| Instant::now() >= *end).map(|_| CutReason::Idle)
}

/// Ends TLS in good order with a device that was refused. What it sent already is read and thrown away: TCP would answer it
/// with a reset, which may overtake our words.
async fn farewell(device: &mut Device) {
    let parting = async {
        let _ = device.shutdown().await;
        let _ = copy(device, &mut sink()).await;
    };
    // One that does not listen is left.
    let _ = timeout(FAREWELL, parting).await;
}

/// The options of both sides' sockets; one that cannot be set costs speed or memory, no safety.
fn prepare(tcp: &TcpStream) {
    let _ = tcp.set_nodelay(true);
    let _ = SockRef::from(tcp).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
}

fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}
