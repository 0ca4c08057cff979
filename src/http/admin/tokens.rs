//! `/v1/fleets/{fleet}/tokens`

use std::str::FromStr;
use std::time::Duration;

use actix_web::{delete, get, post, web};
use fleetmark_domain::{FleetName, Name, Refusal, Terms, Timestamp};
use secrecy::ExposeSecret;
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{By, IdempotencyKey, Json, Path, Query, name, page, refuse, text, within};
use super::fleets::{FleetPath, PageQuery};
use super::openapi::{Act, Delete, List};
use super::{Answer, created, ok, page_of, schema, wire};
use crate::http::State;
use crate::http::problem::Problem;
use crate::registrar::tokens::{MintRequest, MintedToken};
use crate::store::model::{Token, TokenId, TokenState};

/// A day, in seconds.
const USUAL_LIFETIME: u64 = 86_400;

/// 30 days, in seconds.
const LONGEST_LIFETIME: u64 = 2_592_000;

/// The most characters of a note.
const MAX_NOTE: usize = 256;

/// A token in a path.
#[derive(Debug, Deserialize, IntoParams)]
pub struct TokenPath {
    /// The fleet.
    #[param(value_type = schema::FleetName)]
    pub fleet: FleetName,
    /// The token's public id: 16 hexadecimal digits.
    pub id: String,
}

/// List a fleet's tokens
#[utoipa::path(
    tag = "tokens",
    params(FleetPath, PageQuery),
    responses((status = 200, description = "One page", body = wire::Page<wire::Token>), List)
)]
#[get("/v1/fleets/{fleet}/tokens")]
pub async fn list_tokens(state: web::Data<State>, by: By, path: Path<FleetPath>, query: Query<PageQuery>) -> Answer {
    let request = page(query.0.cursor, query.0.limit)?;
    let tokens = state.registrar.tokens(&by.0, &path.0.fleet, &request).await?;
    let now = state.clock.now();
    Ok(ok(&page_of(tokens, |summary| shown(summary.token, summary.name, now))))
}

/// Mint an enrollment token
///
/// Its text is in this answer alone.
#[utoipa::path(
    tag = "tokens",
    params(FleetPath, IdempotencyKey),
    responses((status = 201, description = "Created", body = wire::MintedToken, headers(("Location" = String))), Act)
)]
#[post("/v1/fleets/{fleet}/tokens")]
pub async fn mint_token(
    state: web::Data<State>,
    by: By,
    path: Path<FleetPath>,
    key: IdempotencyKey,
    body: Json<wire::NewToken>,
) -> Answer {
    let idempotency = key.over(&body);
    let wire::NewToken { device, uses, names, networks, opens_at, approval, expires_in_seconds, note } = body.value;
    let request = MintRequest {
        fleet: path.0.fleet,
        device: device.as_deref().map(|text| name("device", text)).transpose()?,
        lifetime: lifetime(expires_in_seconds)?,
        note: text("note", note, MAX_NOTE)?,
        terms: Terms {
            quota: uses,
            names: list("names", &names)?,
            networks: list("networks", &networks)?,
            opens_at,
            closes_at: None,
            approval,
        },
    };
    let now = state.clock.now();
    let minted = state.registrar.mint_token(&by.0, request.clone(), idempotency, now).await?;
    let minted = shown_once(minted, now);
    let location = format!("/v1/fleets/{}/tokens/{}", request.fleet, minted.record.id);
    Ok(created(&minted, location, None))
}

/// Withdraw a token
///
/// Certificates that were enrolled with it stay.
#[utoipa::path(
    tag = "tokens",
    params(TokenPath),
    responses((status = 200, description = "As it is now", body = wire::Token), Delete)
)]
#[delete("/v1/fleets/{fleet}/tokens/{id}")]
pub async fn withdraw_token(state: web::Data<State>, by: By, path: Path<TokenPath>) -> Answer {
    let id = token_id(&path.0.id).ok_or(Refusal::NotFound)?;
    let now = state.clock.now();
    let summary = state.registrar.withdraw_token(&by.0, &path.0.fleet, &id).await?;
    Ok(ok(&shown(summary.token, summary.name, now)))
}

/// For how long a token holds: 1 s to 30 d, a day unless given.
pub fn lifetime(seconds: Option<u64>) -> Result<Duration, Problem> {
    let seconds = within("expires_in_seconds", seconds, 1, LONGEST_LIFETIME)?.unwrap_or(USUAL_LIFETIME);
    Ok(Duration::from_secs(seconds))
}

/// Patterns or networks, at most 16.
fn list<T: FromStr<Err: std::fmt::Display>>(field: &str, texts: &[String]) -> Result<Vec<T>, Problem> {
    if texts.len() > Terms::MAX_LIST {
        return Err(refuse(Refusal::InvalidValue, format!("{field}: at most {}", Terms::MAX_LIST)));
    }
    let parsed =
        texts.iter().map(|text| text.parse().map_err(|error| refuse(Refusal::InvalidValue, format!("{field}: {error}"))));
    parsed.collect()
}

/// A minted token as the wire shows it, its text with it.
pub fn shown_once(minted: MintedToken, now: Timestamp) -> wire::MintedToken {
    let token = minted.text.expose_secret().to_owned().into();
    wire::MintedToken { record: shown(minted.token, minted.name, now), token }
}

fn shown(token: Token, device: Option<Name>, now: Timestamp) -> wire::Token {
    let (uses, shown) = (token.uses(), |text: &dyn std::fmt::Display| text.to_string());
    let state = match token.state {
        // One for several devices: each of them has its place.
        TokenState::Fresh if token.spent >= uses => wire::TokenState::Used,
        TokenState::Fresh if token.expires_at <= now => wire::TokenState::Expired,
        TokenState::Fresh => wire::TokenState::Fresh,
        TokenState::Reserved(_) => wire::TokenState::Reserved,
        TokenState::Used(_) => wire::TokenState::Used,
        TokenState::Withdrawn => wire::TokenState::Withdrawn,
    };
    wire::Token {
        id: hex::encode(token.id),
        kind: token.kind,
        fleet: token.fleet,
        device,
        state,
        uses,
        spent: token.spent,
        remaining: uses.saturating_sub(token.spent),
        names: token.terms.names.iter().map(|name| shown(name)).collect(),
        networks: token.terms.networks.iter().map(|network| shown(network)).collect(),
        opens_at: token.terms.opens_at,
        approval: token.terms.approval,
        expires_at: token.expires_at,
        created_at: token.created_at,
        note: token.note,
    }
}

/// A public id as we write it: 16 lower-case hexadecimal digits.
fn token_id(text: &str) -> Option<TokenId> {
    let id: TokenId = hex::decode(text).ok()?.try_into().ok()?;
    (hex::encode(id) == text).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written() {
        assert_eq!(token_id("00ff00ff00ff00ff"), Some([0, 255, 0, 255, 0, 255, 0, 255]));
        for text in ["", "00", "00FF00FF00FF00FF", "00ff00ff00ff00ff00", "zzzzzzzzzzzzzzzz", "../../../etc/pass"] {
            assert_eq!(token_id(text), None, "{text} was taken for an id");
        }
    }

    #[test]
    fn lifetimes_have_bounds() {
        assert_eq!(lifetime(None).map(|span| span.as_secs()).ok(), Some(USUAL_LIFETIME));
        assert_eq!(lifetime(Some(LONGEST_LIFETIME)).map(|span| span.as_secs()).ok(), Some(LONGEST_LIFETIME));
        for seconds in [0, LONGEST_LIFETIME + 1, u64::MAX] {
            assert_eq!(lifetime(Some(seconds)).expect_err("no bound").0.refusal, Refusal::InvalidValue);
        }
    }
}
