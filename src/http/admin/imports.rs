//! `/v1/fleets/{fleet}/devices/import`

use actix_web::{HttpRequest, post, web};
use fleetmark_domain::Refusal;
use secrecy::ExposeSecret;
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{By, Path, Query, refuse};
use super::fleets::FleetPath;
use super::openapi::Act;
use super::tokens::lifetime;
use super::{Answer, ok, wire};
use crate::http::State;
use crate::http::limits::{is_of_type, read_parts};
use crate::http::problem::Problem;
use crate::registrar::imports::lines::{Fault, Format};
use crate::registrar::imports::{ImportOptions, MAX_OCTETS, Report};

/// How to take a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ImportQuery {
    /// Say what would become of it, and do nothing.
    #[serde(default)]
    #[param(value_type = Option<bool>)]
    pub dry_run: bool,
    /// One bad line keeps all out.
    #[serde(default)]
    #[param(value_type = Option<bool>)]
    pub all_or_nothing: bool,
    /// A device that is there with another record gets this one; refused otherwise.
    #[serde(default)]
    #[param(value_type = Option<bool>)]
    pub update: bool,
    /// For how long the tokens hold that it asks for; 86,400 (a day) unless given.
    #[param(minimum = 1, maximum = 2_592_000)]
    pub tokens_expire_in_seconds: Option<u64>,
}

/// Register devices in bulk
///
/// At most 32 MiB, 100,000 devices, and 16 KiB a line. CSV has a head: `name`, and `attr.KEY`, `endorsement_key`, `token` where they
/// are wanted; JSON lines have `name`, `attributes`, `endorsement_key`, `token`. The answer is 200 where lines were refused too.
#[utoipa::path(
    tag = "devices",
    params(FleetPath, ImportQuery),
    request_body(content((String = "text/csv"), (String = "application/jsonl"))),
    responses((status = 200, description = "What became of it", body = wire::ImportReport), Act)
)]
#[post("/v1/fleets/{fleet}/devices/import")]
pub async fn import_devices(
    state: web::Data<State>,
    by: By,
    path: Path<FleetPath>,
    query: Query<ImportQuery>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let ImportQuery { dry_run, all_or_nothing, update, tokens_expire_in_seconds } = query.0;
    let options = ImportOptions {
        fleet: path.0.fleet,
        format: format(&request)?,
        dry_run,
        all_or_nothing,
        update,
        token_lifetime: lifetime(tokens_expire_in_seconds)?,
    };
    let mut import = state.registrar.begin_import(&by.0, options)?;
    read_parts(&request, payload, MAX_OCTETS, |part| import.push(part)).await?;
    Ok(ok(&shown(import.finish(state.clock.now()).await?)))
}

fn format(request: &HttpRequest) -> Result<Format, Problem> {
    if is_of_type(request, "text/csv") {
        Ok(Format::Csv)
    } else if is_of_type(request, "application/jsonl") {
        Ok(Format::JsonLines)
    } else {
        Err(refuse(Refusal::MediaTypeNotSupported, "send text/csv or application/jsonl"))
    }
}

fn shown(report: Report) -> wire::ImportReport {
    let Report { lines, registered, updated, unchanged, failed, faults, tokens, applied } = report;
    let error = |fault: Fault| wire::ImportError {
        line: fault.line,
        column: fault.column,
        code: fault.refusal.code().to_owned(),
        text: fault.text,
    };
    let errors: Vec<_> = faults.into_iter().map(error).collect();
    let token = |(device, text): (_, secrecy::SecretString)| wire::ImportedToken {
        device,
        token: text.expose_secret().to_owned().into(),
    };
    wire::ImportReport {
        applied,
        lines,
        registered,
        updated,
        unchanged,
        failed,
        errors_left_out: failed.saturating_sub(u64::try_from(errors.len()).unwrap_or(u64::MAX)),
        errors,
        tokens: tokens.into_iter().map(token).collect(),
    }
}
