//! Who calls, as typed extractors. The TLS layer verified the chain at the handshake; standing is asked here, on every
//! request, so that a revocation counts on connections that are open.

use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use fleetmark_domain::{Kind, Refusal};

use super::State;
use super::problem::Problem;
use crate::pki::issue::facts;
use crate::registrar::Error;
use crate::registrar::caller::{Caller, Peer, Presented};

/// An operator in good standing: every handler of the admin door takes one.
#[derive(Debug, Clone)]
pub struct Operator(pub Caller);

/// Anybody with a certificate of ours in good standing.
#[derive(Debug, Clone)]
pub struct Identified(pub Caller);

/// The caller of this request; `on_connect` put the [`Peer`] beside the connection.
async fn identify(request: &HttpRequest) -> Result<Caller, Problem> {
    let peer = peer(request)?;
    let state = request.app_data::<web::Data<State>>().ok_or(Refusal::Overloaded)?;
    let caller = match state.registrar.identify(peer, state.clock.now()).await {
        Ok(caller) => caller,
        Err(refused) => {
            adopt_by_sight(request, state, refused).await?;
            state.registrar.identify(peer, state.clock.now()).await?
        }
    };
    Ok(Caller { source: request.peer_addr().map(|address| address.ip()), ..caller })
}

/// Adopts the certificate of another authority that was refused as unknown, where its authority allows that; then the same is to be
/// asked again.
///
/// # Errors
/// What it was refused by, where that was for anything else; else why it is not adopted.
pub async fn adopt_by_sight(request: &HttpRequest, state: &State, refused: Error) -> Result<(), Error> {
    match request.conn_data::<Presented>() {
        Some(chain) if refused.refusal == Refusal::ExternalUnknown => {
            state.registrar.adopt_shown(&chain.0, state.clock.now()).await
        }
        _ => Err(refused),
    }
}

/// The certificate of ours that this request's connection came with.
///
/// # Errors
/// `CertificateRequired`; `CertificateForeign` for a maker's, `WrongKind` for a claim.
pub fn peer(request: &HttpRequest) -> Result<&Peer, Refusal> {
    request.conn_data::<Peer>().ok_or_else(|| nobody(request))
}

/// Why there is no peer: a maker's certificate and a claim are nobody's here, and good for enrollment alone.
fn nobody(request: &HttpRequest) -> Refusal {
    match request.conn_data::<Presented>().and_then(|chain| chain.0.first()) {
        Some(own) if facts(own).is_ok_and(|facts| facts.is_claim) => Refusal::WrongKind,
        Some(_) => Refusal::CertificateForeign,
        None => Refusal::CertificateRequired,
    }
}

impl FromRequest for Identified {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move { identify(&request).await.map(Self) })
    }
}

impl FromRequest for Operator {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let caller = identify(&request).await?;
            if caller.identity.kind() == Kind::Operator { Ok(Self(caller)) } else { Err(Refusal::WrongKind.into()) }
        })
    }
}
