//! From a finished handshake to who is at the other end.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;
use arc_swap::ArcSwap;
use fleetmark_domain::Kind;
use fleetmark_external::FIRST_ID;
use rustls::ProtocolVersion;
use socket2::SockRef;

use super::Trust;
use crate::pki::idevid::MAX_INTERMEDIATES;
use crate::pki::issue::facts;
use crate::registrar::caller::{Peer, Presented};

/// What the kernel keeps of what a follower did not read, in octets.
const SEND_BUFFER: usize = 32 * 1024;
/// Sent octets may stay unacknowledged, or a full window closed, for so long; then the connection ends (RFC 5482).
const UNANSWERED: Duration = Duration::from_secs(5);

/// The label of the exporter (RFC 9266 2).
const EXPORTER: &[u8] = b"EXPORTER-Channel-Binding";

/// What both ends of a TLS 1.3 connection know and nobody between them can have: `tls-exporter` (RFC 9266), 32 octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelBinding(pub [u8; 32]);

/// The `on_connect` of a door: parses the client's certificate once, and puts a [`Peer`] beside the connection; for a claim
/// certificate or one of no authority of ours [`Presented`], which only enrollment looks at; over TLS 1.3 the [`ChannelBinding`] too.
pub fn remember_peer(trust: Arc<ArcSwap<Trust>>) -> impl Fn(&dyn Any, &mut Extensions) + Send + Sync + 'static {
    move |connection, extensions| {
        if let Some(binding) = channel_binding(connection) {
            extensions.insert(binding);
        }
        match shown(connection, &trust.load()) {
            Some(Shown::Peer(peer)) => drop(extensions.insert(peer)),
            Some(Shown::Presented(chain)) => drop(extensions.insert(chain)),
            Some(Shown::External(peer, chain)) => {
                extensions.insert(peer);
                extensions.insert(chain);
            }
            None => {}
        }
    }
}

/// What a client showed.
enum Shown {
    Peer(Peer),
    Presented(Presented),
    /// Another authority's: an identity's where it was adopted, and a proof.
    External(Peer, Presented),
}

fn shown(connection: &dyn Any, trust: &Trust) -> Option<Shown> {
    let stream = connection.downcast_ref::<TlsStream<TcpStream>>()?;
    let (tcp, session) = stream.get_ref();
    let chain = session.peer_certificates()?;
    let own = chain.first()?;
    let facts = facts(own).ok()?;
    match trust.authority(&facts) {
        Some(authority) if !facts.is_claim => {
            if matches!(trust.kind(&facts), Some(Kind::Gateway | Kind::Service)) {
                expect_a_follower(tcp);
            }
            Some(Shown::Peer(Peer { authority, facts: Arc::new(facts) }))
        }
        _ => {
            let sent: Vec<_> = chain.iter().take(1 + MAX_INTERMEDIATES).map(|der| der.to_vec()).collect();
            if trust.is_external(&sent) {
                let peer = Peer { authority: FIRST_ID, facts: Arc::new(facts) };
                return Some(Shown::External(peer, Presented(sent)));
            }
            Some(Shown::Presented(Presented(sent)))
        }
    }
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
