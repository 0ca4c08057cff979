//! `/v1/root`: what is asked of the root's ceremony, and what comes back.

use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::{FromRequest, HttpRequest, HttpResponse, get, post, web};
use fleetmark_domain::{Fingerprint, Kind, Refusal};
use fleetmark_ledger::entry::AuthorityKind;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use super::extract::{By, Json, Query, page};
use super::fleets::PageQuery;
use super::openapi::{Act, List};
use super::{Answer, ok, wire};
use crate::http::State;
use crate::http::problem::Problem;
use crate::registrar::Error;
use crate::registrar::ceremony::Accepted;
use crate::store::model::{AuthorityId, RootRequest, StoredCrl};

/// The largest answer of a ceremony, and the largest file of lists, in octets.
const MAX_BODY: usize = 512 * 1024;

/// A JSON body of at most 512 KiB.
pub struct RootBody<T>(Json<T>);

impl<T: DeserializeOwned + 'static> FromRequest for RootBody<T> {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let read = Json::read(request, payload, MAX_BODY);
        Box::pin(async move { read.await.map(Self) })
    }
}

/// List what the root is asked for
///
/// There are few; one page holds them all.
#[utoipa::path(
    tag = "root",
    params(PageQuery),
    responses((status = 200, description = "One page", body = wire::Page<wire::RootRequest>), List)
)]
#[get("/v1/root/requests")]
pub async fn list_root_requests(state: web::Data<State>, by: By, query: Query<PageQuery>) -> Answer {
    page(query.0.cursor, query.0.limit)?;
    let requests = state.registrar.root_requests(&by.0).await?;
    let items: Vec<_> = requests.into_iter().map(wire::RootRequest::from).collect();
    Ok(ok(&wire::Page { items, next: None }))
}

/// Which root is asked.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct AskedRootQuery {
    /// Another root than the active one: its id, or that of one that is to be made.
    #[param(value_type = Option<u32>)]
    pub root: Option<AuthorityId>,
}

/// Which root answers.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct NewRootQuery {
    /// SHA-256 of the certificate of a new root, which the answer brings.
    #[param(value_type = Option<String>)]
    pub new_root: Option<Fingerprint>,
}

/// The file for the root's ceremony
///
/// The same octets as long as nothing else is asked for, so that their SHA-256 can be compared.
#[utoipa::path(
    tag = "root",
    params(AskedRootQuery),
    responses((status = 200, description = "The request", body = String, content_type = "application/json"), List)
)]
#[get("/v1/root/request")]
pub async fn show_root_request(state: web::Data<State>, by: By, query: Query<AskedRootQuery>) -> Answer {
    let request = state.registrar.root_request_for(&by.0, query.0.root, state.clock.now()).await?;
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, "application/json")).body(request.file()))
}

/// Take in the answer of the root's ceremony
///
/// What waited for it can be asked for again then.
#[utoipa::path(
    tag = "root",
    params(NewRootQuery),
    request_body = wire::RootAnswer,
    responses((status = 200, description = "What it brought", body = wire::AcceptedAnswer), Act)
)]
#[post("/v1/root/answers")]
pub async fn accept_root_answer(
    state: web::Data<State>,
    by: By,
    query: Query<NewRootQuery>,
    body: RootBody<wire::RootAnswer>,
) -> Answer {
    let octets = serde_json::to_vec(&body.0.value).map_err(|_| Error::from(Refusal::RootAnswerUnreadable))?;
    let accepted = state.registrar.accept_root_answer(&by.0, (&octets, query.0.new_root), state.clock.now()).await?;
    Ok(ok(&wire::AcceptedAnswer::from(accepted)))
}

/// Take in revocation lists of the corporate authorities above the root
#[utoipa::path(
    tag = "root",
    request_body = wire::RootLists,
    responses((status = 200, description = "Those that are there now", body = wire::CorporateLists), Act)
)]
#[post("/v1/root/lists")]
pub async fn accept_root_lists(state: web::Data<State>, by: By, body: RootBody<wire::RootLists>) -> Answer {
    let text = body.0.value.lists;
    let lists = state.registrar.accept_corporate_lists(&by.0, text.as_bytes(), state.clock.now()).await?;
    Ok(ok(&wire::CorporateLists { lists: lists.iter().map(|list| wire::CorporateList::from(&**list)).collect() }))
}

impl From<RootRequest> for wire::RootRequest {
    fn from(request: RootRequest) -> Self {
        let kind = match request.kind {
            AuthorityKind::Root => wire::AuthorityKind::Root,
            AuthorityKind::Of(Kind::Device) => wire::AuthorityKind::Device,
            AuthorityKind::Of(Kind::Gateway) => wire::AuthorityKind::Gateway,
            AuthorityKind::Of(Kind::Service) => wire::AuthorityKind::Service,
            AuthorityKind::Of(Kind::Operator) => wire::AuthorityKind::Operator,
        };
        let state =
            if request.certificate.is_some() { wire::RootRequestState::Answered } else { wire::RootRequestState::Waiting };
        Self { id: request.id, kind, fleet: request.fleet, state, asked_at: request.asked_at }
    }
}

impl From<Accepted> for wire::AcceptedAnswer {
    fn from(accepted: Accepted) -> Self {
        Self {
            record: accepted.record,
            record_sha256: accepted.record_hash,
            answered: accepted.answered.into_iter().map(wire::RootRequest::from).collect(),
            list: accepted.list,
            list_holds_until: accepted.list_holds_until,
            revoked: accepted.revoked,
        }
    }
}

impl From<&StoredCrl> for wire::CorporateList {
    fn from(list: &StoredCrl) -> Self {
        Self { number: list.number, this_update: list.this_update, next_update: list.next_update }
    }
}
