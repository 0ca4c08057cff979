//! The floor of enroll and confirm: as many requests of the same door that ask for nothing but the time. What sockets, TLS and
//! HTTP cost beside the cryptography, however little an enrollment itself did.

use std::sync::Arc;

use rustls::ClientConfig;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::client::Client;
use crate::rounds::{CLIENTS, count};
use crate::server::Server;

/// Requests for each enrollment: enroll, and confirm.
const REQUESTS: usize = 2;

/// Over connections that stay open; microseconds of the server's CPU for as many requests as one enrollment has.
pub async fn keep_alive(server: &Server, enrollments: usize) -> Outcome<f64> {
    let config = server.anonymous()?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::tls(server.device, &config).await?);
    }
    let each = enrollments.div_ceil(CLIENTS);
    let before = server.cpu()?;
    let tasks = clients.into_iter().map(|mut client| async move {
        for _ in 0..each * REQUESTS {
            client.get("/v1/time").await?;
        }
        Outcome::Ok(())
    });
    all(tasks).await?;
    Ok((server.cpu()? - before) * 1e6 / count(each * CLIENTS))
}

/// The same, each enrollment's requests over a new connection, with this client certificate.
pub async fn connecting(server: &Server, config: &Arc<ClientConfig>, enrollments: usize) -> Outcome<f64> {
    let each = enrollments.div_ceil(CLIENTS);
    let (door, before) = (server.device, server.cpu()?);
    let tasks = (0..CLIENTS).map(|_| {
        let config = Arc::clone(config);
        async move {
            for _ in 0..each {
                let mut client = Client::tls(door, &config).await?;
                for _ in 0..REQUESTS {
                    client.get("/v1/time").await?;
                }
            }
            Outcome::Ok(())
        }
    });
    all(tasks).await?;
    Ok((server.cpu()? - before) * 1e6 / count(each * CLIENTS))
}

async fn all(tasks: impl Iterator<Item = impl Future<Output = Outcome<()>> + Send + 'static>) -> Outcome<()> {
    let mut tasks: JoinSet<_> = tasks.collect();
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}
