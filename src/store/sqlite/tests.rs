use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use fleetmark_domain::Refusal;

use super::*;
use crate::store::rows::Rows;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn the_contract_holds() {
    let directory = directory();
    let sqlite = Sqlite::open(&directory.path().join("data/fleetmark.db")).unwrap();
    crate::store::contract::holds(&sqlite);
}

#[test]
fn files_are_private_and_settings_are_durable() {
    let directory = directory();
    let path = directory.path().join("fleetmark.db");
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let sqlite = Sqlite::open(&path).unwrap();
    let mut writer = sqlite.connect_writer().unwrap();
    writer.set_value("a", &[1]).unwrap();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
    // 2: FULL.
    for (pragma, value) in [("journal_mode", "wal"), ("synchronous", "2"), ("foreign_keys", "1")] {
        let query = format!("SELECT CAST({pragma} AS TEXT) AS value FROM pragma_{pragma}()");
        let found: Text = diesel::sql_query(query).get_result(&mut writer.connection).unwrap();
        assert_eq!(found.value, value, "{pragma}");
    }
}

#[derive(QueryableByName)]
struct Text {
    #[diesel(sql_type = diesel::sql_types::Text)]
    value: String,
}

#[test]
fn what_was_written_is_there_after_opening_again() {
    let directory = directory();
    let path = directory.path().join("fleetmark.db");
    Sqlite::open(&path).unwrap().connect_writer().unwrap().set_value("a", &[1]).unwrap();
    let again = Sqlite::open(&path).unwrap();
    assert_eq!(again.connect_reader().unwrap().value("a").unwrap(), Some(vec![1]));
}

#[test]
fn a_file_that_is_no_database_is_refused_by_name() {
    let directory = directory();
    let path = directory.path().join("fleetmark.db");
    std::fs::write(&path, "this is a diary, not a database\n".repeat(400)).unwrap();
    let error = Sqlite::open(&path).err().unwrap();
    assert!(matches!(error, StoreError::Damaged(_)), "{error:?}");
    assert_eq!(error.refusal(), Refusal::StorageDamaged);
}

#[test]
fn a_damaged_page_is_noticed_at_opening() {
    let directory = directory();
    let path = directory.path().join("fleetmark.db");
    {
        let sqlite = Sqlite::open(&path).unwrap();
        let mut writer = sqlite.connect_writer().unwrap();
        for number in 0..200 {
            writer.set_value(&format!("value-{number}"), &[7; 500]).unwrap();
        }
        writer.run("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    }
    let mut octets = std::fs::read(&path).unwrap();
    // Every page but the first, which holds the schema's root.
    octets[4_096..].fill(0x5a);
    std::fs::write(&path, octets).unwrap();
    let error = Sqlite::open(&path).err().unwrap();
    assert!(matches!(error, StoreError::Damaged(_)), "{error:?}");
}

#[test]
fn a_newer_schema_is_refused_by_name() {
    let directory = directory();
    let path = directory.path().join("fleetmark.db");
    let sqlite = Sqlite::open(&path).unwrap();
    let insert = "INSERT INTO __diesel_schema_migrations (version) VALUES ('99990101000000')";
    sqlite.connect_writer().unwrap().run(insert).unwrap();
    drop(sqlite);
    match Sqlite::open(&path) {
        Err(StoreError::NewerSchema { found, known }) => {
            let migrations = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite")).unwrap();
            let newest = migrations.map(|entry| entry.unwrap().file_name().into_string().unwrap()).max().unwrap();
            assert_eq!((found.as_str(), Some(known.as_str())), ("99990101000000", newest.split('_').next()));
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("opened"),
    }
}

#[test]
fn a_second_opening_is_locked_out() {
    let directory = directory();
    let path = directory.path().join("fleetmark.db");
    let first = Sqlite::open(&path).unwrap();
    let error = Sqlite::open(&path).err().unwrap();
    assert!(matches!(error, StoreError::Locked(_)), "{error:?}");
    drop(first);
    Sqlite::open(&path).unwrap();
}

/// The second process is the sqlite3 shell, in an exclusive transaction.
#[test]
fn a_database_that_another_process_holds_is_locked() {
    let directory = directory();
    let path = directory.path().join("fleetmark.db");
    drop(Sqlite::open(&path).unwrap());
    let mut shell = Command::new("sqlite3").arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sqlite3");
    let mut stdin = shell.stdin.take().unwrap();
    stdin
        .write_all(
            b"PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE;\nINSERT INTO installation VALUES ('x', 'y');\n.print held\n",
        )
        .unwrap();
    let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "held"));
    let error = Sqlite::open(&path).err().unwrap();
    drop(stdin);
    shell.wait().unwrap();
    assert!(matches!(error, StoreError::Locked(_)), "{error:?}");
    Sqlite::open(&path).unwrap();
}

#[test]
fn an_unwritable_place_is_told_with_its_path() {
    let directory = directory();
    let blocked = directory.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    let error = Sqlite::open(&blocked.join("fleetmark.db")).err().unwrap();
    match error {
        StoreError::Unavailable(source) => assert!(source.to_string().contains(blocked.to_str().unwrap()), "{source}"),
        other => panic!("{other:?}"),
    }
    let is_directory = Sqlite::open(directory.path()).err().unwrap();
    assert!(matches!(is_directory, StoreError::Unavailable(_)), "{is_directory:?}");
}

#[test]
fn a_copy_is_whole_private_and_replaces_nothing() {
    let directory = directory();
    let sqlite = Sqlite::open(&directory.path().join("fleetmark.db")).unwrap();
    let mut writer = sqlite.connect_writer().unwrap();
    writer.set_value("a", &[1]).unwrap();
    let copy = directory.path().join("copy.db");
    sqlite.copy_to(&copy).unwrap();
    assert!(sqlite.copy_to(&copy).is_err());
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    let opened = Sqlite::open(&copy).unwrap();
    assert_eq!(opened.connect_reader().unwrap().value("a").unwrap(), Some(vec![1]));
}

#[test]
fn messages_get_their_names() {
    let path = Path::new("/tmp/x");
    let error = |text: &str| fault::boxed(text.into(), path);
    assert!(matches!(error("database or disk is full"), StoreError::Full(_)));
    assert!(matches!(error("database is locked"), StoreError::Locked(_)));
    assert!(matches!(error("database disk image is malformed"), StoreError::Damaged(_)));
    assert!(matches!(error("file is not a database"), StoreError::Damaged(_)));
    assert!(matches!(error("disk I/O error"), StoreError::Unavailable(_)));
}

/// Each index that was paid for at every enrollment is used by the reading that it is for.
#[test]
fn indices_serve_their_readings() {
    let directory = directory();
    let sqlite = Sqlite::open(&directory.path().join("fleetmark.db")).unwrap();
    let mut writer = sqlite.connect_writer().unwrap();
    for (query, index) in [
        ("key_hash = ?", "certificates_key"),
        ("subject = ? AND generation = ?", "certificates_subject"),
        ("ledger = ? AND id > ? ORDER BY id LIMIT ?", "certificates_ledger"),
        ("not_after < ?", "certificates_not_after"),
        ("authority = ? AND standing >= 2 AND not_after > ? AND id >= ? AND id <= ? ORDER BY id", "certificates_not_good"),
        (
            "standing = 0 AND confirm_before IS NOT NULL AND confirm_before <= ? ORDER BY confirm_before, id LIMIT ?",
            "certificates_unconfirmed",
        ),
    ] {
        let explain = format!("EXPLAIN QUERY PLAN SELECT * FROM certificates WHERE {query}");
        let plan: Vec<Plan> = diesel::sql_query(explain).load(&mut writer.connection).unwrap();
        let plan: Vec<_> = plan.into_iter().map(|step| step.detail).collect();
        assert!(plan.iter().any(|step| step.contains(index)), "{query}: {plan:?}");
        assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{query}: {plan:?}");
    }
}

#[derive(QueryableByName)]
struct Plan {
    #[diesel(sql_type = diesel::sql_types::Text)]
    detail: String,
}

#[tokio::test]
async fn a_device_enrolls_and_limits_hold() {
    let directory = directory();
    let place = crate::store::location::StoreLocation::Sqlite(directory.path().join("fleetmark.db"));
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

/// diesel tells of each statement that it prepares to keep; one that it prepares for one run alone it does not tell of.
#[test]
fn the_statements_of_an_enrollment_stay_prepared() {
    use std::sync::{Arc, Mutex};

    use diesel::Connection as _;
    use diesel::connection::InstrumentationEvent;
    use fleetmark_domain::{Kind, LedgerName, Standing, Timestamp};

    use crate::store::contract::{certificate, ledger, subject, token};
    use crate::store::model::Subject;
    use crate::store::rows::StandingUpdate;

    let directory = directory();
    let sqlite = Sqlite::open(&directory.path().join("fleetmark.db")).unwrap();
    let mut writer = sqlite.connect_writer().unwrap();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&kept);
    writer.connection.set_instrumentation(move |event: InstrumentationEvent<'_>| {
        if let InstrumentationEvent::CacheQuery { sql, .. } = event {
            keep.lock().unwrap().push(sql.to_owned());
        }
    });
    writer.insert_token(&token(9)).unwrap();
    writer.insert_ledger(&ledger(LedgerName::System)).unwrap();
    let id = writer.insert_subject(&subject(Kind::Device, Some("alpha"), "sensor")).unwrap();
    let held = Subject { id, ..subject(Kind::Device, Some("alpha"), "sensor") };
    for index in 1..3 {
        let certificate = certificate(1, index, None);
        writer.insert_certificate(&certificate).unwrap();
        let update = StandingUpdate { serial: certificate.serial, standing: Standing::Good, at: Timestamp(9) };
        writer.update_standing(&update).unwrap();
        writer.advance_subject(&held).unwrap();
        writer.set_token_state(&token(9)).unwrap();
        writer.set_frontier(&ledger(LedgerName::System)).unwrap();
    }
    let kept = kept.lock().unwrap();
    for statement in
        ["INSERT INTO `certificates`", "UPDATE `certificates`", "UPDATE `subjects`", "UPDATE `tokens`", "UPDATE `ledgers`"]
    {
        assert_eq!(kept.iter().filter(|sql| sql.starts_with(statement)).count(), 1, "{statement}: {kept:?}");
    }
}
