//! Connections, and the runtime that drives them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel_async::AsyncPgConnection;
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{PostgresLocation, PostgresRows};
use crate::store::StoreError;

/// A small runtime of its own: the server's are single-threaded and busy with requests.
pub struct Driver {
    /// None while it is being dropped.
    runtime: Option<Runtime>,
    tls: Option<MakeRustlsConnect>,
}

impl Driver {
    pub fn new(location: &PostgresLocation) -> Result<Self, StoreError> {
        let tls = location.authorities.as_deref().map(tls).transpose()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("store-postgres")
            .enable_all()
            .build()
            .map_err(|source| StoreError::Unavailable(Box::new(source)))?;
        Ok(Self { runtime: Some(runtime), tls })
    }

    /// Connects. Blocks.
    pub fn connect(&self, location: &PostgresLocation) -> Result<PostgresRows, StoreError> {
        let runtime = self.runtime.as_ref().ok_or(StoreError::Stopping)?;
        let closed = Arc::new(AtomicBool::new(false));
        let client = runtime.block_on(async {
            let unavailable = |source| StoreError::Unavailable(Box::new(source));
            if let Some(tls) = &self.tls {
                let (client, connection) = location.config.connect(tls.clone()).await.map_err(unavailable)?;
                tokio::spawn(drive(connection, Arc::clone(&closed)));
                return Ok::<_, StoreError>(client);
            }
            let (client, connection) = location.config.connect(NoTls).await.map_err(unavailable)?;
            tokio::spawn(drive(connection, Arc::clone(&closed)));
            Ok(client)
        })?;
        let connection = runtime.block_on(AsyncPgConnection::try_from(client));
        let connection = connection.map_err(|source| StoreError::Unavailable(Box::new(source)))?;
        // The wrapper takes the runtime that it finds itself in.
        let _inside = runtime.enter();
        Ok(PostgresRows { connection: AsyncConnectionWrapper::from(connection), closed })
    }
}

impl Drop for Driver {
    /// A runtime that ends by itself would wait, which tokio forbids within another runtime.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn drive<E: std::fmt::Display>(connection: impl Future<Output = Result<(), E>>, closed: Arc<AtomicBool>) {
    if let Err(error) = connection.await {
        tracing::warn!(%error, "a connection to PostgreSQL ended");
    }
    closed.store(true, Ordering::Release);
}

/// TLS that trusts the authorities in the file alone.
fn tls(authorities: &Path) -> Result<MakeRustlsConnect, StoreError> {
    let unusable = |what: String| StoreError::Unavailable(format!("{}: {what}", authorities.display()).into());
    let certificates = CertificateDer::pem_file_iter(authorities).map_err(|error| unusable(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("no certificate in it".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

#[derive(QueryableByName)]
struct Setting {
    #[diesel(sql_type = Text)]
    value: String,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Refuses a server that acknowledges what it may lose.
pub fn check_durability(rows: &mut PostgresRows) -> Result<(), StoreError> {
    let mut setting = |name: &str| {
        let query = diesel::sql_query("SELECT current_setting($1) AS value").bind::<Text, _>(name.to_owned());
        query.get_result::<Setting>(&mut rows.connection).map(|row| row.value).map_err(|error| rows.fault(error))
    };
    let fsync = setting("fsync")?;
    let commit = setting("synchronous_commit")?;
    let standby_names = setting("synchronous_standby_names")?;
    // A base backup in progress is listed too, with a connection for its log, and is no standby.
    let query = diesel::sql_query(
        "SELECT count(*) AS count FROM pg_stat_replication \
         WHERE state IS DISTINCT FROM 'backup' AND application_name IS DISTINCT FROM 'pg_basebackup'",
    );
    let standbys = query.get_result::<Count>(&mut rows.connection).map_err(|error| rows.fault(error))?.count;
    match lossy(&fsync, &commit, &standby_names, standbys) {
        None => Ok(()),
        Some(why) => Err(StoreError::Unavailable(
            format!("PostgreSQL may lose what it acknowledged: {why} (danger_async_replication=true permits it)").into(),
        )),
    }
}

/// Why a server with these settings and this many standbys may lose a commit: with its disk, or by a failover.
fn lossy(fsync: &str, synchronous_commit: &str, standby_names: &str, standbys: i64) -> Option<&'static str> {
    if fsync != "on" {
        Some("fsync is off")
    } else if matches!(synchronous_commit, "off" | "local") {
        Some("synchronous_commit is off or local")
    } else if standbys > 0 && standby_names.trim().is_empty() {
        Some("it has standbys, and synchronous_standby_names is empty")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::lossy;

    #[test]
    fn asynchronous_replication_is_seen() {
        assert_eq!(lossy("on", "on", "", 0), None);
        assert_eq!(lossy("on", "remote_apply", "ANY 1 (a, b)", 2), None);
        assert!(lossy("off", "on", "", 0).is_some());
        assert!(lossy("on", "off", "", 0).is_some());
        assert!(lossy("on", "local", "a", 1).is_some());
        assert!(lossy("on", "on", " ", 1).is_some());
    }
}
