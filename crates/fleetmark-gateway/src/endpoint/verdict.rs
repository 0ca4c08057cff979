//! `POST /v1/verdict`.

use std::net::IpAddr;
use std::time::Duration;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetmark_domain::{Refusal, Serial, Timestamp};
use fleetmark_policy::Act;
use futures_util::StreamExt as _;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::{InProgress, State};
use crate::judge::{Presented, Verdict, Wanted};

/// The largest body, in octets.
pub const MAX_BODY: usize = 32 * 1024;
/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(5);
/// The longest topic, in octets.
const MAX_TOPIC: usize = 4096;
/// The longest protocol and firmware version, in octets.
const MAX_WORD: usize = 128;
/// The longest key identifier, in octets; RFC 5280 4.2.1.2 makes 20 of them.
const MAX_KEY_IDENTIFIER: usize = 64;

/// What may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Connect,
    Publish,
    Subscribe,
    Command,
}

impl From<Action> for Act {
    fn from(action: Action) -> Self {
        match action {
            Action::Connect => Self::Connect,
            Action::Publish => Self::Publish,
            Action::Subscribe => Self::Subscribe,
            Action::Command => Self::Command,
        }
    }
}

/// A request's body.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// PEM, of which the first certificate counts, or DER in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// The authority's key identifier, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The serial, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// `connect`, `publish`, `subscribe` or `command`.
    pub action: String,
    /// The topic, of publish, subscribe and command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The peer's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// What is spoken, `mqtt` say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The device's firmware version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
    /// False: nobody has shown the certificate's key, so that it is not reported as used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sighting: Option<bool>,
}

/// An answer's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// `allow` or `deny`.
    pub decision: String,
    /// The stable name of the reason.
    pub reason: String,
    /// The SPIFFE ID, once it is sure.
    pub identity: Option<String>,
    /// The standing, once it is sure.
    pub standing: Option<String>,
    /// The policies that decided.
    pub policies: Vec<String>,
    /// The ledger that it is by.
    pub ledger: Option<String>,
    /// Entries of it that were verified.
    pub position: u64,
    /// How old that knowledge is, in milliseconds.
    pub age_ms: u64,
    /// Until when it holds if nothing is heard.
    pub valid_until: Timestamp,
}

/// Who it is asked about.
enum Subject {
    Holder(Box<Presented>),
    Unreadable,
    Place { issuer: Vec<u8>, serial: Serial },
}

pub(super) async fn ask(
    state: Data<State>,
    in_progress: Data<InProgress>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let _place = in_progress.enter(state.max_requests).ok_or(Refusal::Overloaded)?;
    let body = read(&request, payload).await?;
    let question: Question =
        serde_json::from_slice(&body).map_err(|error| Problem::because(Refusal::MalformedRequest, &error))?;
    let (mut subject, wanted) = (subject(&question)?, wanted(&question)?);
    let now = (state.clock)();
    let (verdict, identity) = match &mut subject {
        Subject::Unreadable => (state.judge.unreadable(now), None),
        Subject::Place { issuer, serial } => (state.judge.standing(issuer, serial, now).await, None),
        Subject::Holder(presented) => {
            let verdict = state.judge.judge_patiently(presented, &wanted, now).await;
            state.judge.recognize(presented);
            let uri = verdict.identity.as_ref().and_then(|_| presented.uri());
            (verdict, uri)
        }
    };
    if !verdict.allow {
        let reason = verdict.reason.as_str();
        tracing::info!(reason, identity, action = question.action, topic = question.topic, "denied");
    }
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(answer(verdict, identity)))
}

async fn read(request: &HttpRequest, payload: Payload) -> Result<Vec<u8>, Problem> {
    let media = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !media.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Err(Refusal::MediaTypeNotSupported.into());
    }
    tokio::time::timeout(BODY_TIME, collect(payload)).await.map_err(|_| Problem::from(Refusal::RequestTimeout))?
}

async fn collect(mut payload: Payload) -> Result<Vec<u8>, Problem> {
    let mut body = Vec::new();
    while let Some(part) = payload.next().await {
        let part = part.map_err(|error| Problem::because(Refusal::MalformedRequest, &error))?;
        if body.len().saturating_add(part.len()) > MAX_BODY {
            return Err(Refusal::BodyTooLarge.into());
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}

fn subject(question: &Question) -> Result<Subject, Problem> {
    let malformed = |why| Problem::because(Refusal::MalformedRequest, why);
    match (&question.certificate, &question.issuer, &question.serial) {
        (Some(text), None, None) => {
            let presented = der(text).and_then(|der| Presented::parse(&der).ok());
            Ok(presented.map_or(Subject::Unreadable, |presented| Subject::Holder(Box::new(presented))))
        }
        (None, Some(issuer), Some(serial)) => {
            let digits: String = issuer.chars().filter(|c| *c != ':').collect();
            let issuer = hex::decode(digits).ok().filter(|key| (1..=MAX_KEY_IDENTIFIER).contains(&key.len()));
            let issuer = issuer.ok_or_else(|| malformed("issuer is an authority's key identifier in hexadecimal"))?;
            let serial = serial.parse().map_err(|_| malformed("serial has 17 octets in hexadecimal and begins with 01"))?;
            Ok(Subject::Place { issuer, serial })
        }
        _ => Err(malformed("either certificate, or issuer and serial, must be given")),
    }
}

/// The first certificate of a PEM text, or base64 with or without line breaks.
fn der(text: &str) -> Option<Vec<u8>> {
    if text.contains("-----BEGIN") {
        return CertificateDer::from_pem_slice(text.as_bytes()).ok().map(|der| der.to_vec());
    }
    let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD.decode(text).ok()
}

fn wanted(question: &Question) -> Result<Wanted<'_>, Problem> {
    let unfit = |why: &str| Problem::because(Refusal::InvalidValue, why);
    let action: Action = serde_json::from_value(question.action.as_str().into())
        .map_err(|_| unfit("action is connect, publish, subscribe or command"))?;
    match (action, question.topic.as_deref()) {
        (Action::Publish | Action::Subscribe, None) => return Err(unfit("publish and subscribe need a topic")),
        (Action::Connect, Some(_)) => return Err(unfit("connect has no topic")),
        (_, Some(topic)) if topic.is_empty() || topic.len() > MAX_TOPIC || topic.chars().any(char::is_control) => {
            return Err(unfit("a topic has 1 to 4096 octets and no control characters"));
        }
        _ => {}
    }
    let fits = |word: &String| !word.is_empty() && word.len() <= MAX_WORD && !word.chars().any(char::is_control);
    if !question.protocol.iter().chain(&question.firmware).all(fits) {
        return Err(unfit("protocol and firmware have 1 to 128 octets and no control characters"));
    }
    Ok(Wanted {
        act: action.into(),
        topic: question.topic.as_deref(),
        source: question.source.map(|source| source.to_canonical()),
        protocol: question.protocol.as_deref(),
        firmware: question.firmware.as_deref(),
        shown: question.sighting.unwrap_or(true),
    })
}

fn answer(verdict: Verdict, identity: Option<String>) -> Answer {
    Answer {
        decision: if verdict.allow { "allow" } else { "deny" }.to_owned(),
        reason: verdict.reason.as_str().to_owned(),
        identity,
        standing: verdict.standing.map(|standing| standing.as_str().to_owned()),
        policies: verdict.policies.iter().map(|policy| policy.as_ref().to_owned()).collect(),
        ledger: verdict.ledger.map(|ledger| ledger.to_string()),
        position: verdict.position,
        age_ms: u64::try_from(verdict.age.as_millis()).unwrap_or(u64::MAX),
        valid_until: verdict.valid_until,
    }
}
