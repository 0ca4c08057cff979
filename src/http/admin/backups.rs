//! `/v1/backups`

use std::fs::File;
use std::io::{BufWriter, Seek as _, SeekFrom};
use std::path::Path;

use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::Bytes;
use actix_web::{HttpResponse, post, web};
use fleetmark_domain::Refusal;
use futures_util::stream;
use ring::rand::SystemRandom;
use secrecy::SecretString;

use super::Answer;
use super::extract::By;
use super::openapi::Delete;
use crate::backup::{self, Content, Item, Manifest};
use crate::config::Layout;
use crate::http::State;
use crate::http::problem::Problem;
use crate::registrar::Error;
use crate::store::BoxError;

/// Octets sent at once.
const CHUNK: usize = 64 * 1024;

/// What backups are made of.
pub struct Backups {
    /// The data directory.
    pub data: Layout,
    /// Opens the key files, and the backup.
    pub passphrase: SecretString,
}

impl std::fmt::Debug for Backups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backups").field("data", &self.data).finish_non_exhaustive()
    }
}

/// Make a backup
///
/// One encrypted file: the database as it is now, the encrypted keys, the configuration. It opens with the passphrase of the
/// server's keys.
#[utoipa::path(
    tag = "server",
    responses((status = 200, description = "The backup", content_type = "application/octet-stream"), Delete)
)]
#[post("/v1/backups")]
pub async fn make_backup(state: web::Data<State>, by: By) -> Answer {
    let room = tempfile::Builder::new().prefix(".backup").tempdir_in(state.backups.data.directory()).map_err(unmade)?;
    let copy = room.path().join("fleetmark.db");
    let manifest = state.registrar.copy_store(&by.0, &copy, state.clock.now()).await?;
    let backups = state.backups.clone();
    // The room, and what is in it, goes when the file is written; the file itself has no name any more.
    let made = web::block(move || {
        let file = write(&backups, &manifest, &copy);
        drop(room);
        file
    });
    let file = made.await.map_err(unmade)?.map_err(unmade)?;
    let length = file.metadata().map_err(unmade)?.len();
    let octets = stream::unfold(file, |file| async move {
        match web::block(move || read_chunk(file)).await {
            Ok(Ok((_, chunk))) if chunk.is_empty() => None,
            Ok(Ok((file, chunk))) => Some((Ok(chunk), file)),
            Ok(Err(error)) => Some((Err(error), File::open("/dev/null").ok()?)),
            Err(error) => Some((Err(std::io::Error::other(error)), File::open("/dev/null").ok()?)),
        }
    });
    let body = actix_web::body::SizedStream::new(length, Box::pin(octets));
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, "application/octet-stream")).body(body))
}

fn unmade(cause: impl Into<BoxError>) -> Problem {
    Problem(Error::caused(Refusal::StorageUnavailable, cause))
}

fn read_chunk(mut file: File) -> std::io::Result<(File, Bytes)> {
    use std::io::Read as _;
    let mut chunk = vec![0; CHUNK];
    let read = file.read(&mut chunk)?;
    chunk.truncate(read);
    Ok((file, chunk.into()))
}

/// Writes the backup into a file without a name.
fn write(backups: &Backups, manifest: &Manifest, database: &Path) -> Result<File, BoxError> {
    let Backups { data, passphrase } = backups;
    let mut items = vec![item("fleetmark.db", database)?];
    if data.config_file().exists() {
        items.push(item("fleetmark.toml", &data.config_file())?);
    }
    for key in std::fs::read_dir(data.keys())? {
        let key = key?;
        let name = key.file_name().into_string().map_err(|_| "a key file's name is no text")?;
        items.push(item(&format!("keys/{name}"), &key.path())?);
    }
    let out = BufWriter::new(tempfile::tempfile_in(data.directory())?);
    let written = backup::write(manifest, &items, passphrase, &SystemRandom::new(), out)?;
    let mut file = written.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

fn item(name: &str, path: &Path) -> Result<Item, BoxError> {
    Ok(Item { name: name.parse()?, content: Content::File(path.to_owned()) })
}
