//! `GET /v1/ledgers/{ledger}/attributes`: what operators wrote down about devices, for a start from a snapshot.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use actix_web::web::{Data, Path, Query};
use fleetmark_domain::Refusal;
use serde::{Deserialize, Serialize};

use super::ledger_name;
use crate::http::State;
use crate::http::caller::Identified;
use crate::http::device::answer::private_json;
use crate::http::problem::Problem;
use crate::registrar::Error;
use crate::registrar::feed::may_follow;
use crate::store::model::SubjectId;

/// The most devices that one page looks at.
const MOST: u32 = 1_000;

/// Which page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// Devices above this id.
    #[serde(default)]
    after: SubjectId,
    /// How many devices are looked at, 1 to 1,000.
    #[serde(default = "most")]
    limit: u32,
}

const fn most() -> u32 {
    MOST
}

#[derive(Debug, Serialize)]
struct Attributes {
    /// Ascending by id.
    subjects: Vec<Of>,
    /// `after` of the next page.
    next: Option<SubjectId>,
}

#[derive(Debug, Serialize)]
struct Of {
    subject: SubjectId,
    attributes: BTreeMap<String, String>,
}

/// A page of the devices that have attributes.
pub async fn attributes(
    caller: Identified,
    state: Data<State>,
    ledger: Path<String>,
    page: Query<Page>,
) -> Result<HttpResponse, Problem> {
    let ledger = ledger_name(&ledger)?;
    may_follow(&caller.0, &ledger)?;
    if !(1..=MOST).contains(&page.limit) {
        return Err(Error::with_detail(Refusal::InvalidValue, "A page has 1 to 1,000 devices.").into());
    }
    let (subjects, next) = state.registrar.attributes(&caller.0, &ledger, page.after, page.limit).await?;
    let subjects = subjects.into_iter().map(|(subject, attributes)| Of { subject, attributes }).collect();
    Ok(private_json(&Attributes { subjects, next }))
}
