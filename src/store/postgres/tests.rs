use super::testing::cluster;
use super::*;
use crate::store::contract;
use crate::store::rows::Rows;

fn location(url: &str) -> PostgresLocation {
    url.parse().unwrap()
}

fn text(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[test]
fn the_contract_holds_over_tls() {
    let (authority, _) = cluster().authorities();
    let url = cluster().tls_url(&cluster().database(), "localhost", &authority);
    contract::holds(&Postgres::open(location(&url)).unwrap());
}

#[test]
fn a_server_that_is_not_the_right_one_is_refused() {
    let database = cluster().database();
    let (authority, other) = cluster().authorities();
    let error = Postgres::open(location(&cluster().tls_url(&database, "localhost", &other))).err().unwrap();
    assert!(text(&error).contains("UnknownIssuer") || text(&error).contains("invalid peer certificate"), "{}", text(&error));
    let error = Postgres::open(location(&cluster().tls_url(&database, "db.example", &authority))).err().unwrap();
    assert!(text(&error).contains("not valid for name"), "{}", text(&error));
    let plain = cluster().tls_url(&database, "localhost", &authority).replace("sslmode=require", "sslmode=disable");
    assert!(matches!(Postgres::open(location(&plain)), Err(StoreError::Unavailable(_))));
}

#[test]
fn a_server_that_may_lose_commits_is_refused() {
    let database = cluster().database();
    let url = cluster().socket_url(&database);
    let before = Postgres::open(location(&url)).unwrap();
    cluster().sql("postgres", &format!("ALTER DATABASE {database} SET synchronous_commit = off"));
    let error = before.connect_writer().err().unwrap();
    assert!(text(&error).contains("synchronous_commit"), "{}", text(&error));
    let error = Postgres::open(location(&url)).err().unwrap();
    assert!(text(&error).contains("synchronous_commit"), "{}", text(&error));
    Postgres::open(location(&format!("{url}?danger_async_replication=true"))).unwrap();
}

#[test]
fn a_newer_schema_is_refused_by_name() {
    let database = cluster().database();
    let url = cluster().socket_url(&database);
    Postgres::open(location(&url)).unwrap();
    Postgres::open(location(&url)).unwrap();
    cluster().sql(&database, "INSERT INTO __diesel_schema_migrations (version) VALUES ('99990101000000')");
    assert!(matches!(Postgres::open(location(&url)), Err(StoreError::NewerSchema { .. })));
}

#[test]
fn servers_that_start_together_migrate_once() {
    let url = cluster().socket_url(&cluster().database());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let location = location(&url);
            std::thread::spawn(move || Postgres::open(location).map(drop))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap().unwrap();
    }
}

/// Two servers append to one ledger; neither loses an entry of the other's.
#[test]
fn a_ledger_has_one_writer_at_a_time() {
    let postgres = std::sync::Arc::new(Postgres::open(location(&cluster().socket_url(&cluster().database()))).unwrap());
    let name = fleetmark_domain::LedgerName::System;
    postgres.connect_writer().unwrap().insert_ledger(&contract::ledger(name.clone())).unwrap();
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (postgres, name) = (std::sync::Arc::clone(&postgres), name.clone());
            std::thread::spawn(move || {
                let mut connection = postgres.connect_writer().unwrap();
                for _ in 0..50 {
                    connection.begin_write().unwrap();
                    let mut record = connection.lock_ledger(&name).unwrap().unwrap();
                    let entry = vec![1];
                    let position = record.frontier.size();
                    record.frontier.append(fleetmark_ledger::merkle::leaf_hash(&entry), |_, _| {});
                    let entry = crate::store::model::StoredEntry { position, entry, details: None };
                    connection.insert_entries(&name, &[entry]).unwrap();
                    connection.set_frontier(&record).unwrap();
                    connection.commit().unwrap();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let record = postgres.connect_reader().unwrap().ledger(&name).unwrap().unwrap();
    assert_eq!(record.frontier.size(), 100);
}

/// The engine goes on after the server ended its connections.
#[tokio::test]
async fn a_lost_connection_is_replaced() {
    use crate::store::ErasedAct;
    let database = cluster().database();
    let place = cluster().socket_url(&database).parse().unwrap();
    let store = crate::store::location::open(place, std::sync::Arc::new(NoSigner)).await.unwrap();
    let act = || -> Box<dyn ErasedAct> { Box::new(SetValue) };
    store.write(act()).await.unwrap();
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'");
    cluster().sql("postgres", &end);
    let mut failures = 0;
    while let Err(error) = store.write(act()).await {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        failures += 1;
        assert!(failures < 3);
    }
    // Each reader fails once at the most: then its connection is a new one.
    let mut failures = 0;
    let value = loop {
        match crate::store::read(&*store, |rows| rows.value("a")).await {
            Ok(value) => break value,
            Err(error) => assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}"),
        }
        failures += 1;
        assert!(failures <= crate::store::engine::READERS);
    };
    assert_eq!(value, Some(vec![1]));
    let copied = store.copy_to(Path::new("/nonexistent")).await;
    assert!(matches!(copied, Err(StoreError::Refused(Refusal::BackedUpElsewhere))));
    store.stop().await;
}

#[tokio::test]
async fn a_second_server_is_refused_until_the_first_is_gone() {
    let database = cluster().database();
    let open = async || {
        let place = cluster().socket_url(&database).parse().unwrap();
        crate::store::location::open(place, std::sync::Arc::new(NoSigner)).await
    };
    let first = open().await.unwrap();
    let error = open().await.err().unwrap();
    assert!(matches!(error, StoreError::Locked(_)) && text(&error).contains("stop that one first"), "{}", text(&error));
    // Where the connection is lost, the lock is taken again.
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'");
    cluster().sql("postgres", &end);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(matches!(open().await, Err(StoreError::Locked(_))));
    first.stop().await;
    drop(first);
    open().await.unwrap().stop().await;
}

struct NoSigner;

impl crate::store::HeadSigner for NoSigner {
    fn committed(
        &self,
        _: &fleetmark_domain::LedgerName,
        _: &fleetmark_ledger::merkle::Head,
        _: &[crate::store::model::StoredEntry],
    ) {
    }
}

struct SetValue;

impl crate::store::Act for SetValue {
    type Outcome = ();

    fn ledgers(&self) -> Vec<fleetmark_domain::LedgerName> {
        Vec::new()
    }

    fn perform(&self, transaction: &mut crate::store::transaction::Transaction<'_>) -> Result<(), StoreError> {
        transaction.rows.set_value("a", &[1])
    }
}

#[tokio::test]
async fn a_device_enrolls_and_limits_hold() {
    let (authority, _) = cluster().authorities();
    let place = cluster().tls_url(&cluster().database(), "localhost", &authority).parse().unwrap();
    let heads = std::sync::Arc::new(crate::store::contract::enrollment::Heads::default());
    let signer: crate::store::SharedHeadSigner = heads.clone();
    let store = crate::store::location::open(place, signer).await.unwrap();
    crate::store::contract::enrollment::works(&*store, &heads).await;
    crate::store::contract::policies::works(&*store).await;
    crate::store::contract::limits::works(&*store).await;
    crate::store::contract::confirm::works(&*store).await;
    crate::store::contract::served::works(&*store).await;
    crate::store::contract::lifecycle::works(&*store).await;
    crate::store::contract::external::works(&*store).await;
    crate::store::contract::roots::works(&*store).await;
    store.stop().await;
}
