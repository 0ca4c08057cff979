//! `GET /v1/feed`: checkpoints and urgent entries as they happen, as server-sent events (WHATWG HTML 9.2).

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{Bytes, Data, Query};
use actix_web::{HttpRequest, HttpResponse};
use fleetmark_domain::{LedgerName, Refusal};
use futures_util::stream;
use tokio::sync::mpsc;

use super::follower::{BUFFER, Follower};
use super::ledger_name;
use crate::http::State;
use crate::http::caller::Identified;
use crate::http::problem::Problem;
use crate::registrar::Error;
use crate::registrar::caller::Peer;

/// Opens a stream.
pub async fn follow(
    caller: Identified,
    request: HttpRequest,
    state: Data<State>,
    query: Query<Vec<(String, String)>>,
) -> Result<HttpResponse, Problem> {
    let permitted = state.registrar.followed(&caller.0).await?;
    let permitted: BTreeSet<_> = permitted.into_iter().map(|followed| followed.ledger).collect();
    let named = named(&query)?;
    let follows_all = named.is_empty();
    let ledgers = if follows_all { permitted.clone() } else { named };
    if !ledgers.is_subset(&permitted) {
        return Err(Refusal::NotFound.into());
    }
    let since = since(&request)?;
    let peer = request.conn_data::<Peer>().ok_or(Refusal::CertificateRequired)?.clone();
    let place = state.followers.admit(caller.0.subject.id)?;
    let (events, mut received) = mpsc::channel::<Bytes>(BUFFER);
    let follower = Follower::new(state.into_inner(), peer, caller.0, ledgers, follows_all, since, events);
    actix_web::rt::spawn(follower.run());
    let events = stream::poll_fn(move |context| {
        // Held as long as the answer is open, read or not.
        let _ = &place;
        received.poll_recv(context).map(|event| event.map(Ok::<_, Infallible>))
    });
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((CACHE_CONTROL, "no-store"))
        // nginx: do not gather what must travel at once.
        .insert_header(("X-Accel-Buffering", "no"))
        // HTTP/1.1: the connection ends with the stream, so that a stopping server need not wait for it.
        .force_close()
        .streaming(events))
}

/// The ledgers that the query names; none: all.
fn named(query: &[(String, String)]) -> Result<BTreeSet<LedgerName>, Error> {
    let names = query.iter().map(|(key, value)| {
        if key == "ledger" {
            Ok(ledger_name(value)?)
        } else {
            Err(Error::with_detail(Refusal::MalformedRequest, "The query may hold `ledger` alone."))
        }
    });
    names.collect()
}

/// Where the follower was before, as the last event's id told it.
fn since(request: &HttpRequest) -> Result<BTreeMap<LedgerName, u64>, Error> {
    let Some(id) = request.headers().get("Last-Event-ID") else { return Ok(BTreeMap::new()) };
    let malformed = || Error::with_detail(Refusal::MalformedRequest, "Last-Event-ID is none of ours.");
    let id = id.to_str().map_err(|_| malformed())?;
    let parts = id.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| position(part).ok_or_else(malformed)).collect()
}

/// `default@133`.
fn position(part: &str) -> Option<(LedgerName, u64)> {
    let (ledger, position) = part.split_once('@')?;
    let digits = position.bytes().all(|octet| octet.is_ascii_digit());
    Some((ledger.parse().ok()?, position.parse().ok().filter(|_| digits)?))
}
