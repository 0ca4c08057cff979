//! `fleetmark ledger verify`: every entry from the first, or from where the last run ended, the Merkle root over them, the
//! checkpoint's signature, and that the ledger only grew since it was last seen.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use fleetmark_domain::Timestamp;
use fleetmark_ledger::audit::Auditor;
use fleetmark_ledger::merkle::{Frontier, Head};
use fleetmark_ledger::note::{Checkpoint, VerifierKey};
use fleetmark_ledger::proof::verify_consistency;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::wire;
use crate::cli::failure::Failure;
use crate::cli::session::{Session, print, print_json};
use crate::config::profile::write_durably;
use crate::telemetry::clock::{Clock as _, SystemClock};

/// The longest state file that is read, in octets.
const MAX_STATE: u64 = 64 * 1024;

/// What to do with what was found.
const EVIDENCE: &str = "Keep the state file, the output and the file that it names: they are evidence. Do not trust this server's ledger until it is \
                        explained.";

/// How to verify.
pub(super) struct How<'a> {
    pub state: Option<&'a Path>,
    pub vkey: Option<&'a str>,
    pub whole: bool,
}

/// What an earlier run saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// The ledger.
    ledger: String,
    /// The pinned key.
    vkey: String,
    /// The checkpoint, as it was signed: evidence if the ledger is forked.
    checkpoint: String,
    /// `Frontier::encode`, hexadecimal.
    frontier: String,
}

/// What an earlier run saw, checked.
struct Seen {
    checkpoint: Checkpoint,
    frontier: Frontier,
}

/// Why it ended.
enum Ended {
    /// Nothing is said of the ledger.
    Failed(Failure),
    /// The ledger is not good: what is wrong, and what the server gave beside its signed checkpoint that shows it.
    NotGood(String, Value),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Where the key came from.
#[derive(Clone, Copy)]
enum Trust {
    Given,
    Pinned,
    FirstUse,
}

/// Verifies and prints what was verified.
pub(super) async fn run(session: &Session, ledger: &str, how: &How<'_>) -> Result<(), Failure> {
    let state = how.state.map(|path| load(path, ledger)).transpose()?.flatten();
    let (key, trust) = choose_key(session, ledger, how, state.as_ref()).await?;
    let seen = state.as_ref().map(|state| seen(state, &key)).transpose()?;
    let note = wire::note(&session.client, ledger).await?;
    let checkpoint = key.open(&note).map_err(|error| violated(&error.to_string()))?;
    let mut auditor = match &seen {
        Some(seen) if !how.whole => Auditor::resume(key.clone(), seen.frontier.clone()),
        _ => Auditor::new(key.clone()),
    };
    let from = auditor.frontier().size();
    match judge(session, ledger, &mut auditor, &checkpoint, seen.as_ref()).await {
        Ok(()) => {}
        Err(Ended::Failed(failure)) => return Err(failure),
        Err(Ended::NotGood(what, shown)) => {
            // From here on the server's signature is on it: two checkpoints that cannot both be true prove a fork to anybody.
            let evidence = json!({
                "ledger": ledger, "vkey": key.to_vkey(), "found": what, "checkpoint": note,
                "earlier_checkpoint": state.map(|state| state.checkpoint), "shown": shown,
            });
            return Err(keep(how.state, &what, &evidence, SystemClock.now()));
        }
    }
    if let Some(path) = how.state {
        if state.is_none() {
            eprintln!(
                "{} was not there: the key is pinned now, and nothing was compared with what was seen before.",
                path.display()
            );
        }
        let frontier = hex::encode(auditor.frontier().encode());
        save(path, &State { ledger: ledger.to_owned(), vkey: key.to_vkey(), checkpoint: note, frontier })?;
    }
    told(session, ledger, &checkpoint, from, trust, &key)
}

/// The key that an earlier run pinned.
pub(super) fn pinned(path: &Path, ledger: &str) -> Result<String, Failure> {
    let state = load(path, ledger)?;
    state.map(|state| state.vkey).ok_or_else(|| Failure::NotFound(format!("{}: there is no such file", path.display())))
}

async fn choose_key(
    session: &Session,
    ledger: &str,
    how: &How<'_>,
    state: Option<&State>,
) -> Result<(VerifierKey, Trust), Failure> {
    match (how.vkey, state) {
        (Some(given), Some(state)) if wire::key(given)? != wire::key(&state.vkey)? => {
            Err(violated("the key given is not the one pinned in the state file"))
        }
        (Some(given), _) => Ok((wire::key(given)?, Trust::Given)),
        (None, Some(state)) => Ok((wire::key(&state.vkey)?, Trust::Pinned)),
        (None, None) => Ok((wire::key(&wire::vkey(&session.client, ledger).await?)?, Trust::FirstUse)),
    }
}

/// Whether what the server shows is what it signed, and goes on from what it signed before.
async fn judge(
    session: &Session,
    ledger: &str,
    auditor: &mut Auditor,
    checkpoint: &Checkpoint,
    seen: Option<&Seen>,
) -> Result<(), Ended> {
    if let Some(seen) = seen {
        grew(session, ledger, &seen.checkpoint.head, &checkpoint.head).await?;
    }
    read_entries(session, ledger, auditor, checkpoint.head.size, seen).await?;
    auditor.finish(checkpoint).map_err(|violation| Ended::NotGood(violation.to_string(), Value::Null))
}

/// Keeps the evidence beside the state file; without one, or where that fails, it is printed.
fn keep(state: Option<&Path>, what: &str, evidence: &Value, now: Timestamp) -> Failure {
    let kept = state.map(|state| {
        let mut name = state.as_os_str().to_owned();
        name.push(format!(".evidence-{}", now.0));
        let path = PathBuf::from(name);
        write_new(&path, format!("{evidence:#}\n").as_bytes()).map(|()| path)
    });
    let place = match kept {
        Some(Ok(path)) => format!("the evidence is in {}", path.display()),
        Some(Err(error)) => {
            // Nothing better is left than to show it.
            let _ = print_json(evidence);
            format!("the evidence was printed, since it cannot be written: {error}")
        }
        None => {
            let _ = print_json(evidence);
            "the evidence was printed".to_owned()
        }
    };
    violated(&format!("{what}; {place}"))
}

/// Writes a file that is not there yet, and nobody else may read.
fn write_new(path: &Path, octets: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(octets)?;
    file.sync_all()
}

/// The ledger may only have grown: no step back, no fork.
async fn grew(session: &Session, ledger: &str, old: &Head, new: &Head) -> Result<(), Ended> {
    if new.size < old.size {
        let what = format!("position {}: the ledger went back: {} entries were signed before", new.size, old.size);
        return Err(Ended::NotGood(what, Value::Null));
    }
    let proof = if old.size == 0 || old.size == new.size {
        Vec::new()
    } else {
        wire::proof(&session.client, ledger, "consistency", [("old", old.size), ("new", new.size)]).await?
    };
    verify_consistency(&proof, old, new).map_err(|_| {
        let what = format!("position {}: the ledger was forked: it does not begin with what was signed before", old.size);
        Ended::NotGood(what, json!({"proof": proof.iter().map(|hash| hex::encode(hash.0)).collect::<Vec<_>>()}))
    })
}

async fn read_entries(
    session: &Session,
    ledger: &str,
    auditor: &mut Auditor,
    size: u64,
    seen: Option<&Seen>,
) -> Result<(), Ended> {
    loop {
        let next = auditor.frontier().size();
        if next >= size {
            return Ok(());
        }
        let page = wire::entries(&session.client, ledger, next, size - next).await?;
        if page.is_empty() {
            let what = format!("position {next}: the entry is missing, and the checkpoint covers it");
            return Err(Ended::NotGood(what, Value::Null));
        }
        for fetched in page.iter().take_while(|fetched| fetched.position < size) {
            let shown = || {
                let details = fetched.details.as_ref().map(hex::encode);
                json!({"position": fetched.position, "entry": hex::encode(&fetched.entry), "details": details})
            };
            let judged = auditor.append(&fetched.entry, fetched.details.as_deref());
            judged.map_err(|violation| Ended::NotGood(violation.to_string(), shown()))?;
            // Read again as a whole, the tree must pass through what was signed before.
            if let Some(seen) = seen.filter(|seen| seen.checkpoint.head.size == auditor.frontier().size())
                && auditor.frontier().head() != seen.checkpoint.head
            {
                let what = format!("position {}: an entry before it was changed since it was signed", fetched.position);
                return Err(Ended::NotGood(what, shown()));
            }
        }
    }
}

fn told(
    session: &Session,
    ledger: &str,
    checkpoint: &Checkpoint,
    from: u64,
    trust: Trust,
    key: &VerifierKey,
) -> Result<(), Failure> {
    let head = &checkpoint.head;
    let trusted = match trust {
        Trust::Given => "given",
        Trust::Pinned => "pinned",
        Trust::FirstUse => "first-use",
    };
    if session.json {
        return print_json(&json!({
            "ledger": ledger, "origin": checkpoint.origin, "size": head.size, "root": hex::encode(head.root.0),
            "signed_at": checkpoint.at, "verified_from": from, "all_rules": from == 0, "vkey": key.to_vkey(), "key_trust": trusted,
        }));
    }
    print(&format!(
        "Ledger {ledger} ({}) is good: {}they give the root {} that was signed at {}.\n",
        checkpoint.origin,
        what_was_read(from, head.size),
        hex::encode(head.root.0),
        checkpoint.at,
    ))?;
    if matches!(trust, Trust::FirstUse) {
        eprintln!(
            "The key is the one that the server gives: compare it with another source, or pin it with --state FILE.\n{}",
            key.to_vkey()
        );
    }
    Ok(())
}

/// What was read, and by which rules.
fn what_was_read(from: u64, size: u64) -> String {
    let read = match from {
        0 => return format!("all {size} entries were read, each by the rules;\n"),
        from if from == size => format!("no entry is new since {size} were verified"),
        from => format!("entries {from} to {} were read, the {from} before them earlier", size.saturating_sub(1)),
    };
    format!(
        "{read}.\nRules that need earlier entries (an index issued twice, a standing that goes back, …) were not applied: take --whole for \
         them. Together\n"
    )
}

fn load(path: &Path, ledger: &str) -> Result<Option<State>, Failure> {
    let failed = |reason: &str| {
        Failure::Failed(
            format!("{}: {reason}", path.display()),
            Some("Restore the state file; without it a fork cannot be noticed."),
        )
    };
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error.to_string())),
        Ok(metadata) if metadata.len() > MAX_STATE => return Err(failed("it is longer than such a file can be")),
        Ok(_) => {}
    }
    let text = fs::read_to_string(path).map_err(|error| failed(&error.to_string()))?;
    let state: State = serde_json::from_str(&text).map_err(|_| failed("this is no state file of `ledger verify`"))?;
    if state.ledger == ledger { Ok(Some(state)) } else { Err(failed("this state file is of another ledger")) }
}

fn save(path: &Path, state: &State) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(state).map_err(|error| Failure::of(&error))?;
    Ok(write_durably(path, text.as_bytes(), 0o600)?)
}

/// The state's checkpoint must verify under the key and fit its frontier: the file is not taken on trust.
fn seen(state: &State, key: &VerifierKey) -> Result<Seen, Failure> {
    let damaged =
        || Failure::Failed("the state file is damaged: its frontier does not fit its checkpoint".to_owned(), Some(EVIDENCE));
    let checkpoint = key.open(&state.checkpoint).map_err(|error| violated(&format!("the state file: {error}")))?;
    let frontier = hex::decode(&state.frontier).ok().and_then(|octets| Frontier::decode(&octets)).ok_or_else(damaged)?;
    if frontier.head() == checkpoint.head { Ok(Seen { checkpoint, frontier }) } else { Err(damaged()) }
}

fn violated(what: &str) -> Failure {
    Failure::Failed(format!("the ledger is not good: {what}"), Some(EVIDENCE))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use fleetmark_ledger::merkle::leaf_hash;
    use fleetmark_ledger::note::LedgerKey;
    use ring::rand::SystemRandom;
    use ring::signature::Ed25519KeyPair;

    fn state(leaves: u8) -> (State, VerifierKey) {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("key");
        let key = LedgerKey::from_pkcs8("fleetmark.local/ledger/default", pkcs8.as_ref()).expect("key");
        let mut frontier = Frontier::default();
        (0..leaves).for_each(|leaf| frontier.append(leaf_hash(&[leaf]), |_, _| {}));
        let checkpoint = key.sign(&frontier.head(), Timestamp(1_800_000_000));
        let vkey = key.verifier().to_vkey();
        let frontier = hex::encode(frontier.encode());
        (State { ledger: "default".to_owned(), vkey, checkpoint, frontier }, key.verifier())
    }

    #[test]
    fn a_state_is_kept_and_read_again() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("state.json");
        assert_eq!(load(&path, "default").expect("none"), None);
        let (state, key) = state(5);
        save(&path, &state).expect("save");
        let loaded = load(&path, "default").expect("load").expect("state");
        assert_eq!(loaded, state);
        assert_eq!(seen(&loaded, &key).expect("good").checkpoint.head.size, 5);
        assert!(load(&path, "system").is_err(), "of another ledger");
    }

    #[test]
    fn a_state_that_was_changed_is_refused() {
        let (good, key) = state(5);
        let (other, other_key) = state(6);
        assert!(seen(&State { frontier: other.frontier.clone(), ..good.clone() }, &key).is_err());
        assert!(seen(&State { checkpoint: other.checkpoint, ..good.clone() }, &key).is_err());
        assert!(seen(&good, &other_key).is_err());
    }

    #[test]
    fn what_shows_a_fork_is_kept_beside_the_state_and_replaced_by_nothing() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("state.json");
        let (state, _) = state(5);
        let evidence = json!({"checkpoint": state.checkpoint, "shown": {"proof": []}});
        let failure = keep(Some(&path), "position 5: the ledger was forked", &evidence, Timestamp(7));
        let file = directory.path().join("state.json.evidence-7");
        assert!(matches!(&failure, Failure::Failed(text, _) if text.contains(&file.display().to_string())), "{failure:?}");
        let kept = fs::read_to_string(&file).expect("kept");
        assert_eq!(serde_json::from_str::<Value>(&kept).expect("JSON"), evidence);
        assert_eq!(fs::metadata(&file).expect("file").permissions().mode() & 0o777, 0o600);
        let failure = keep(Some(&path), "another", &json!({}), Timestamp(7));
        assert!(matches!(&failure, Failure::Failed(text, _) if text.contains("was printed")), "{failure:?}");
        assert_eq!(fs::read_to_string(&file).expect("kept"), kept);
    }

    #[test]
    fn a_run_that_goes_on_says_which_rules_it_left_out() {
        assert_eq!(what_was_read(0, 7), "all 7 entries were read, each by the rules;\n");
        for (from, size) in [(3, 7), (7, 7)] {
            let said = what_was_read(from, size);
            assert!(said.contains("were not applied: take --whole") && !said.contains("each by the rules"), "{said}");
        }
        assert!(what_was_read(3, 7).starts_with("entries 3 to 6 were read, the 3 before them earlier."));
    }
}
