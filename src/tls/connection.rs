//! From a finished handshake to who is at the other end.

use std::any::Any;
use std::sync::Arc;

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;
use arc_swap::ArcSwap;

use super::Trust;
use crate::pki::issue::facts;
use crate::registrar::caller::Peer;

/// The `on_connect` of a door: parses the client's certificate once, and puts a [`Peer`] beside the connection. A client
/// whose authority was taken out of the trust since its handshake has none.
pub fn remember_peer(trust: Arc<ArcSwap<Trust>>) -> impl Fn(&dyn Any, &mut Extensions) + Send + Sync + 'static {
    move |connection, extensions| {
        if let Some(peer) = peer(connection, &trust.load()) {
            extensions.insert(peer);
        }
    }
}

fn peer(connection: &dyn Any, trust: &Trust) -> Option<Peer> {
    let stream = connection.downcast_ref::<TlsStream<TcpStream>>()?;
    let (_, session) = stream.get_ref();
    let facts = facts(session.peer_certificates()?.first()?).ok()?;
    Some(Peer { authority: trust.authority(&facts)?, facts: Arc::new(facts) })
}
