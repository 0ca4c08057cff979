//! `GET /v1/fleets/{fleet}/renewal`: when a device is to renew, in the manner of ACME Renewal Information (RFC 9773).

use actix_web::web::{self, Data, Path, ServiceConfig};
use actix_web::{FromRequest, HttpRequest, HttpResponse};
use fleetmark_domain::{Refusal, Timestamp};
use serde::Serialize;

use super::answer::private_json;
use super::rest::{fleet_name, require_fleet};
use crate::http::State;
use crate::http::caller::{Identified, adopt_by_sight, peer};
use crate::http::problem::{Problem, not_allowed};
use crate::registrar::waves::{Advice, Cause};

/// When to renew.
#[derive(Debug, Serialize)]
struct RenewalAnswer {
    /// From when on; in the past: now.
    renew_after: Timestamp,
    /// When the certificate ends.
    not_after: Timestamp,
    /// `wave`: an operator pulled it forward; `held`: renewal would be refused. Not there: the certificate's own time.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// After how many seconds to ask again.
    poll_after_seconds: u64,
    /// The newest trust bundle's number: one who knows a lesser one fetches it.
    trust_bundle: u64,
    /// The server's clock.
    server_time: Timestamp,
}

/// The resource.
pub fn configure(config: &mut ServiceConfig) {
    let resource = web::resource("/v1/fleets/{fleet}/renewal");
    config.service(resource.route(web::get().to(renewal)).default_service(not_allowed("GET")));
}

async fn renewal(caller: Identified, state: Data<State>, fleet: Path<String>) -> Result<HttpResponse, Problem> {
    require_fleet(&caller, &fleet_name(&fleet)?)?;
    let now = state.clock.now();
    let Advice { renew_after, not_after, cause, poll_after } = state.registrar.renewal(&caller.0, now).await?;
    let reason = cause.map(|cause| match cause {
        Cause::Wave => "wave",
        Cause::Held => "held",
    });
    let poll_after_seconds = poll_after.as_secs();
    let trust_bundle = state.registrar.trust_bundle_number();
    let answer = RenewalAnswer { renew_after, not_after, reason, poll_after_seconds, trust_bundle, server_time: now };
    Ok(private_json(&answer))
}

/// Who comes to renew: as [`Identified`], and its newest certificate may have ended where profile or permit give it time.
#[derive(Debug)]
pub struct Renewing(pub Identified);

impl FromRequest for Renewing {
    type Error = Problem;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, _: &mut actix_web::dev::Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let peer = peer(&request)?;
            let state = request.app_data::<Data<State>>().ok_or(Refusal::Overloaded)?;
            let mut caller = match state.registrar.identify_late(peer, state.clock.now()).await {
                Ok(caller) => caller,
                Err(refused) => {
                    adopt_by_sight(&request, state, refused).await?;
                    state.registrar.identify_late(peer, state.clock.now()).await?
                }
            };
            caller.source = super::rest::source(&request);
            Ok(Self(Identified(caller)))
        })
    }
}
