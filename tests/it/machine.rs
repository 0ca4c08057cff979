//! Faults of the machine: each has a clear error of its own and a non-zero exit code, and once it is mended nothing is lost.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use serde_json::json;

use crate::harness::device::enroll;
use crate::harness::{Device, Key, Server, run};

/// What `fleetmark up` says when it ends by itself, which it must within the time given.
struct Ended {
    code: Option<i32>,
    said: String,
}

impl Ended {
    #[track_caller]
    fn is_failure_about(&self, words: &[&str]) {
        assert_eq!(self.code, Some(1), "{}", self.said);
        assert!(self.said.lines().any(|line| line.starts_with("error: ")), "{}", self.said);
        assert!(!self.said.contains("panicked"), "{}", self.said);
        for word in words {
            assert!(self.said.contains(word), "`{word}` is not in: {}", self.said);
        }
    }
}

/// Doors where nobody listens.
fn doors() -> Vec<String> {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners = [free(), free(), free()];
    let named = ["--device-door", "--admin-door", "--public-door"].iter().zip(&listeners);
    named.flat_map(|(name, door)| [(*name).to_owned(), door.local_addr().unwrap().to_string()]).collect()
}

fn up(data: &Path, doors: &[String], more: &[&str]) -> Ended {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut server = Command::new(env!("CARGO_BIN_EXE_fleetmark"))
        .args(["up", "--name", "localhost", "--trust-domain", "fleet.test", "--data"])
        .arg(data)
        .args(doors)
        .args(more)
        .stdin(Stdio::null())
        .stdout(file.reopen().unwrap())
        .stderr(file.reopen().unwrap())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let code = loop {
        if let Some(status) = server.try_wait().unwrap() {
            break status.code();
        }
        if started.elapsed() > Duration::from_secs(30) {
            server.kill().unwrap();
            server.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    Ended { code, said: fs::read_to_string(file.path()).unwrap() }
}

/// An installation with a device, stopped.
fn stopped() -> (Server, String, Device) {
    let mut server = Server::start(&[]);
    let (fleet, device) = run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::good(&server, &fleet, "kept").await;
        (fleet, device)
    });
    assert_eq!(server.stop(), Some(0));
    (server, fleet, device)
}

/// Started again, the server knows what it knew.
fn is_whole(mut server: Server, fleet: &str, device: &Device) {
    server.kill_and_start();
    run(async {
        assert_eq!(device.standing(&server).await, "good");
        assert_eq!(device.verdict(&server).await, "ok");
        Device::good(&server, fleet, "later").await;
    });
}

#[test]
fn a_port_in_use_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut doors = doors();
    for door in [1, 3, 5] {
        let free = std::mem::replace(&mut doors[door], taken.local_addr().unwrap().to_string());
        let ended = up(&directory.path().join("data"), &doors, &[]);
        ended.is_failure_about(&[&taken.local_addr().unwrap().to_string(), "in use"]);
        doors[door] = free;
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let directory = tempfile::tempdir().unwrap();
    // Permissions stop everybody but root, a file in the place of a directory stops all.
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let data = file.join("data");
    up(&data, &doors(), &[]).is_failure_about(&[&data.display().to_string()]);
    let closed = directory.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o500)).unwrap();
    if fs::write(closed.join("probe"), "").is_err() {
        let data = closed.join("data");
        up(&data, &doors(), &[]).is_failure_about(&[&data.display().to_string()]);
    }
}

#[test]
fn a_wrong_passphrase_is_named() {
    let (server, fleet, device) = stopped();
    let wrong = server.write_scratch("wrong", b"another passphrase\n");
    fs::set_permissions(&wrong, Permissions::from_mode(0o600)).unwrap();
    let option = ["--passphrase-file", wrong.to_str().unwrap()];
    up(&server.data(), &doors(), &option).is_failure_about(&["passphrase"]);
    fs::set_permissions(&wrong, Permissions::from_mode(0o644)).unwrap();
    up(&server.data(), &doors(), &option).is_failure_about(&["passphrase", "0644", "chmod 600"]);
    fs::write(&wrong, "short").unwrap();
    fs::set_permissions(&wrong, Permissions::from_mode(0o600)).unwrap();
    up(&server.data(), &doors(), &option).is_failure_about(&["passphrase", "12"]);
    is_whole(server, &fleet, &device);
}

#[test]
fn a_newer_schema_is_refused() {
    let (server, fleet, device) = stopped();
    let path = database(&server);
    let execute = |sql: &str| SqliteConnection::establish(path.to_str().unwrap()).unwrap().batch_execute(sql).unwrap();
    execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('99990101000000')");
    up(&server.data(), &doors(), &[]).is_failure_about(&["99990101000000", "newer"]);
    execute("DELETE FROM __diesel_schema_migrations WHERE version = '99990101000000'");
    is_whole(server, &fleet, &device);
}

#[test]
fn a_damaged_database_is_refused() {
    let (server, fleet, device) = stopped();
    let path = database(&server);
    // What lies in the log would stand for the pages that are damaged.
    let mut database = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    database.batch_execute("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(database);
    let sound = fs::read(&path).unwrap();
    let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    // The header, then the pages behind it.
    for (from, length) in [(0, 64), (4096, 64 * 1024)] {
        file.seek(SeekFrom::Start(from)).unwrap();
        let mut junk = vec![0xa5; length];
        junk.truncate(sound.len() - usize::try_from(from).unwrap());
        file.write_all(&junk).unwrap();
        file.sync_all().unwrap();
        let ended = up(&server.data(), &doors(), &[]);
        ended.is_failure_about(&["damaged"]);
        fs::write(&path, &sound).unwrap();
    }
    let mut again = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut again).unwrap();
    assert_eq!(again, sound);
    is_whole(server, &fleet, &device);
}

#[test]
fn a_database_in_use_is_refused() {
    let server = Server::start(&[]);
    up(&server.data(), &doors(), &[]).is_failure_about(&["another process"]);
    // The one that was there first goes on, and can still be rescued.
    run(async {
        let fleet = server.fleet(json!({})).await;
        Device::good(&server, &fleet, "a").await;
    });
    assert!(server.data().join("rescue.sock").exists());
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let (mut server, fleet, device) = stopped();
    let data = server.data();
    let Some(disk) = Disk::under(&data) else {
        eprintln!("only root can mount a small disk: its refusals are tested there alone");
        return is_whole(server, &fleet, &device);
    };
    server.kill_and_start();
    run(async {
        let kept = Device::unconfirmed(&server, &fleet, "acknowledged").await;
        // The last of these tokens meets a full disk: what lies in the database's log already may take a few enrollments.
        let mut waiting = Vec::new();
        for number in 0..200 {
            waiting.push((server.token(&fleet, &format!("d{number}")).await, Key::new()));
        }
        disk.fill();
        let client = server.device_client(None);
        let mut refused = None;
        for (token, key) in waiting {
            let answer = enroll(&client, &fleet, &token, &key, None).await;
            if answer.status != 200 {
                answer.refused(503, "storage_full");
                refused = Some((token, key));
                break;
            }
        }
        let (full, key) = refused.expect("a full disk refuses");
        // What needs no disk goes on.
        assert_eq!(device.verdict(&server).await, "ok");
        assert_eq!(kept.standing(&server).await, "unconfirmed");
        disk.free();
        enroll(&client, &fleet, &full, &key, None).await.is(200);
        assert_eq!(kept.standing(&server).await, "unconfirmed");
    });
    server.kill_and_start();
    run(async {
        assert_eq!(device.verdict(&server).await, "ok");
        Device::good(&server, &fleet, "later").await;
    });
    let _ = server.stop();
    drop(disk);
}

fn database(server: &Server) -> PathBuf {
    server.data().join("fleetmark.db")
}

/// A small disk of memory in the place of a directory, with what was in it.
struct Disk {
    place: PathBuf,
    ballast: PathBuf,
}

impl Disk {
    fn under(directory: &Path) -> Option<Self> {
        let former = directory.with_extension("former");
        fs::rename(directory, &former).unwrap();
        fs::create_dir(directory).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs"])
            .arg(directory)
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !mounted {
            fs::remove_dir(directory).unwrap();
            fs::rename(&former, directory).unwrap();
            return None;
        }
        let disk = Self { place: directory.to_owned(), ballast: directory.join("ballast") };
        let copied = Command::new("cp").arg("-a").arg(former.join(".")).arg(directory).status().unwrap();
        assert!(copied.success());
        Some(disk)
    }

    /// Until nothing more goes in.
    fn fill(&self) {
        let mut ballast = fs::File::create(&self.ballast).unwrap();
        for size in [64 * 1024, 4096, 1] {
            while ballast.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(&self.ballast).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.place).status();
    }
}
