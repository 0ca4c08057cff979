//! `GET /v1/ledgers/{ledger}/snapshot`: the newest snapshot, streamed from its file.

use std::fs::File;
use std::io::{self, Read as _};

use actix_web::HttpResponse;
use actix_web::body::SizedStream;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{self, Bytes, Data, Path};
use fleetmark_domain::Refusal;
use futures_util::stream;

use super::ledger_name;
use crate::http::State;
use crate::http::caller::Identified;
use crate::http::problem::Problem;
use crate::registrar::Error;

/// Octets in memory for one answer.
const CHUNK: usize = 64 * 1024;

/// The snapshot's octets. What is open stays readable when a newer snapshot takes its place.
pub async fn snapshot(caller: Identified, state: Data<State>, ledger: Path<String>) -> Result<HttpResponse, Problem> {
    let snapshot = state.registrar.followed_snapshot(&caller.0, &ledger_name(&ledger)?)?;
    let stopping = |cause| Error::caused(Refusal::Stopping, cause);
    let file = web::block(move || File::open(snapshot.path)).await.map_err(stopping)?;
    let file = file.map_err(|cause| Error::caused(Refusal::StorageUnavailable, cause))?;
    let chunks = stream::try_unfold((file, snapshot.length), |(file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let (chunk, file) = web::block(move || chunk(file, left)).await.map_err(io::Error::other)??;
        let left = left.saturating_sub(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        Ok::<_, io::Error>(Some((chunk, (file, left))))
    });
    Ok(HttpResponse::Ok()
        .content_type("application/octet-stream")
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(SizedStream::new(snapshot.length, chunks)))
}

/// The next octets of a file that has `left` more.
fn chunk(mut file: File, left: u64) -> io::Result<(Bytes, File)> {
    let mut octets = vec![0; usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK))];
    file.read_exact(&mut octets)?;
    Ok((octets.into(), file))
}
