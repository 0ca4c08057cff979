//! `GET /v1/ledgers`: the ledgers that the caller may follow.

use actix_web::HttpResponse;
use actix_web::web::Data;
use fleetmark_domain::Timestamp;
use serde::Serialize;

use crate::http::State;
use crate::http::caller::Identified;
use crate::http::device::answer::private_json;
use crate::http::problem::Problem;

/// The answer.
#[derive(Debug, Serialize)]
struct Answer {
    /// The server's clock.
    server_time: Timestamp,
    /// The installation's.
    trust_domain: String,
    /// `system` first.
    ledgers: Vec<One>,
}

/// One ledger.
#[derive(Debug, Serialize)]
struct One {
    /// Its name.
    ledger: String,
    /// C2SP signed-note verifier key.
    key: String,
    /// Seconds without a verified signature after which a gateway refuses.
    max_age: u64,
}

/// The ledgers.
pub async fn ledgers(caller: Identified, state: Data<State>) -> Result<HttpResponse, Problem> {
    let followed = state.registrar.followed(&caller.0).await?;
    let ledgers = followed.iter().map(|followed| One {
        ledger: followed.ledger.to_string(),
        key: followed.key.to_vkey(),
        max_age: followed.max_age.as_secs(),
    });
    Ok(private_json(&Answer {
        server_time: state.clock.now(),
        trust_domain: state.registrar.trust_domain().to_string(),
        ledgers: ledgers.collect(),
    }))
}
