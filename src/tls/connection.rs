//! From a finished handshake to who is at the other end.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;
use arc_swap::ArcSwap;
use fleetmark_domain::Kind;
use rustls::ProtocolVersion;
use socket2::SockRef;

use super::Trust;
use crate::pki::issue::facts;
use crate::registrar::caller::Peer;

/// What the kernel keeps of what a follower did not read, in octets.
const SEND_BUFFER: usize = 32 * 1024;
/// Sent octets may stay unacknowledged, or a full window closed, for so long; then the connection ends (RFC 5482).
const UNANSWERED: Duration = Duration::from_secs(5);

/// The label of the exporter (RFC 9266 2).
const EXPORTER: &[u8] = b"EXPORTER-Channel-Binding";

/// What both ends of a TLS 1.3 connection know and nobody between them can have: `tls-exporter` (RFC 9266), 32 octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelBinding(pub [u8; 32]);

/// The chain that a client sent, in DER, its own certificate first, where it is none of our identities': the handshake proved
/// that it holds the key. Only enrollment looks at it.
#[derive(Debug, Clone)]
pub struct Presented(pub Vec<Vec<u8>>);

/// The `on_connect` of a door: parses the client's certificate once, and puts a [`Peer`] beside the connection, or what it
/// [`Presented`] where it is none of our identities; over TLS 1.3 the [`ChannelBinding`] too. A client whose authority was taken
/// out of the trust since its handshake has no peer.
pub fn remember_peer(trust: Arc<ArcSwap<Trust>>) -> impl Fn(&dyn Any, &mut Extensions) + Send + Sync + 'static {
    move |connection, extensions| {
        if let Some(binding) = channel_binding(connection) {
            extensions.insert(binding);
        }
        if let Some(peer) = peer(connection, &trust.load()) {
            extensions.insert(peer);
        } else if let Some(presented) = presented(connection) {
            extensions.insert(presented);
        }
    }
}

fn peer(connection: &dyn Any, trust: &Trust) -> Option<Peer> {
    let stream = connection.downcast_ref::<TlsStream<TcpStream>>()?;
    let (tcp, session) = stream.get_ref();
    let facts = facts(session.peer_certificates()?.first()?).ok()?;
    if matches!(trust.kind(&facts), Some(Kind::Gateway | Kind::Service)) {
        expect_a_follower(tcp);
    }
    Some(Peer { authority: trust.authority(&facts)?, facts: Arc::new(facts) })
}

fn presented(connection: &dyn Any) -> Option<Presented> {
    let (_, session) = connection.downcast_ref::<TlsStream<TcpStream>>()?.get_ref();
    let chain = session.peer_certificates()?.iter().map(|certificate| certificate.to_vec());
    Some(Presented(chain.collect()))
}

/// Derived for every connection, since nobody can ask for it later: two HMACs, beside a handshake of some hundred times that.
///
/// Not over TLS 1.2: without the extended master secret (RFC 7627) the same value can be had on two connections, and rustls does
/// not tell whether it was negotiated (RFC 9266 4.2).
fn channel_binding(connection: &dyn Any) -> Option<ChannelBinding> {
    let (_, session) = connection.downcast_ref::<TlsStream<TcpStream>>()?.get_ref();
    if session.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return None;
    }
    // RFC 9266 2: the context is the empty string.
    session.export_keying_material([0; 32], EXPORTER, Some(b"")).ok().map(ChannelBinding)
}

/// Gateways and services hold streams open for ever. One that stops reading may not fill megabytes of the kernel's memory, and
/// one that is gone is noticed within seconds; the others ask and leave.
fn expect_a_follower(tcp: &TcpStream) {
    let socket = SockRef::from(tcp);
    let set = socket.set_send_buffer_size(SEND_BUFFER).and_then(|()| socket.set_tcp_user_timeout(Some(UNANSWERED)));
    if let Err(error) = set {
        tracing::warn!(%error, "a follower's socket keeps the system's limits");
    }
}
