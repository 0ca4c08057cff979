//! What the admin door tells an operator.

use std::time::Duration;

use fleetmark_domain::Timestamp;
use fleetmark_ledger::note::VerifierKey;
use serde_json::Value;

use super::doors::ends;
use super::{Finding, told};
use crate::cli::client::{Ask, Client};
use crate::cli::failure::{Failure, harmless};
use crate::cli::session::Session;
use crate::config::profile::Profile;

/// The server signs every 5 s; after this its ledger has no news.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// An authority's end is to be prepared this long before.
const AUTHORITY_ENDS_SOON: Duration = Duration::from_secs(90 * 86_400);

/// Acts in the queue beyond which the store does not keep up.
const QUEUE: u64 = 1_000;

/// Looks at what the server says of itself.
pub(super) async fn look(profile: Profile, json: bool, now: Timestamp, findings: &mut Vec<Finding>) {
    let directory = profile.directory.display().to_string();
    let client = match Client::open(&profile) {
        Ok(client) => client,
        Err(failure) => {
            return findings.push(bad("operator's profile", &failure));
        }
    };
    let session = Session { client, profile, json };
    match json_of(&session.client, &["v1", "whoami"]).await {
        Ok(me) => findings.extend(operator(&directory, &me, now)),
        Err(failure) => return findings.push(bad("operator's access", &failure)),
    }
    match json_of(&session.client, &["v1", "status"]).await {
        Ok(status) => findings.extend(status_findings(&status, now)),
        Err(failure) => findings.push(bad("status", &failure)),
    }
    match session.client.list(Ask::path(&["v1", "root", "requests"]), None).await {
        Ok(list) => findings.extend(root_requests(&list)),
        Err(failure) => findings.push(bad("root's requests", &failure)),
    }
    match session.client.list(Ask::path(&["v1", "ledgers"]), None).await {
        Ok(list) => {
            for ledger in list.get("items").and_then(Value::as_array).into_iter().flatten() {
                findings.push(head(&session.client, ledger, now).await);
            }
        }
        Err(failure) => findings.push(bad("ledgers", &failure)),
    }
}

async fn json_of(client: &Client, path: &[&str]) -> Result<Value, Failure> {
    client.get(Ask::path(path)).await?.json()
}

fn bad(check: &str, failure: &Failure) -> Finding {
    Finding::bad(check, told(failure), failure.advice().unwrap_or("Look at the server's log."))
}

fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field).and_then(Value::as_str)
}

fn timestamp(value: &Value, field: &str) -> Option<Timestamp> {
    serde_json::from_value(value.get(field)?.clone()).ok()
}

fn operator(directory: &str, me: &Value, now: Timestamp) -> Vec<Finding> {
    const RENEW: &str = "fleetmark operator renew";
    let identity = harmless(text(me, "identity").unwrap_or("somebody"));
    let role = harmless(text(me, "role").unwrap_or("no role"));
    let mut findings = vec![Finding::ok("operator's access", format!("{identity}, {role}, by {directory}"))];
    let renewal_is_due = timestamp(me, "renew_after").is_some_and(|due| due <= now);
    if let Some(end) = timestamp(me, "not_after") {
        findings.push(if renewal_is_due && end > now {
            Finding::warn("operator's certificate", format!("is due for renewal, ends at {end}"), RENEW)
        } else {
            ends("operator's certificate", end, now, Duration::ZERO, RENEW)
        });
    }
    findings
}

fn status_findings(status: &Value, now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    let waiting = |lane: &str| status.get("queue").and_then(|queue| queue.get(lane)).and_then(Value::as_u64).unwrap_or(0);
    let queued = waiting("urgent").saturating_add(waiting("ordinary"));
    findings.push(if queued > QUEUE {
        Finding::warn(
            "store",
            format!("{queued} acts wait for it"),
            "The disk or the database is slow: look at fleetmark_store_batch_seconds.",
        )
    } else {
        Finding::ok("store", format!("{queued} acts wait for it"))
    });
    findings.extend(key_homes(status));
    findings.extend(root_list(status, now));
    for authority in status.get("authorities").and_then(Value::as_array).into_iter().flatten() {
        let name = text(authority, "fleet").or_else(|| text(authority, "kind")).unwrap_or("?");
        let check = format!("authority {}", harmless(name));
        if text(authority, "state") != Some("revoked")
            && let Some(end) = timestamp(authority, "not_after")
        {
            findings.push(ends(
                &check,
                end,
                now,
                AUTHORITY_ENDS_SOON,
                "Prepare its successor: nothing that it issues may outlive it.",
            ));
        }
    }
    findings
}

/// Where the authorities' keys live, and whether the token is there.
fn key_homes(status: &Value) -> Vec<Finding> {
    let authorities = status.get("authorities").and_then(Value::as_array).into_iter().flatten();
    let homes: Vec<_> = authorities
        .filter_map(|authority| {
            let name = text(authority, "fleet").or_else(|| text(authority, "kind"))?;
            Some(format!("{}: {}", harmless(name), harmless(text(authority, "key")?)))
        })
        .collect();
    let mut findings = vec![Finding::ok("keys of authorities", homes.join(", "))];
    match status.get("token_reachable").and_then(Value::as_bool) {
        Some(true) => findings.push(Finding::ok("token", "the server reaches it")),
        Some(false) => findings.push(Finding::bad(
            "token",
            "the server has lost it, and refuses what needs its keys",
            "Look at the server's log for why; the server takes it again by itself once it is back.",
        )),
        None => {}
    }
    findings
}

/// What waits for the root's ceremony, and what came back and was not asked for again.
fn root_requests(list: &Value) -> Option<Finding> {
    const CHECK: &str = "root's requests";
    let items = list.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let names = |state: &str| {
        let found = items.iter().filter(|item| text(item, "state") == Some(state));
        let names = found.map(|item| harmless(text(item, "fleet").or_else(|| text(item, "kind")).unwrap_or("?")));
        names.collect::<Vec<_>>().join(", ")
    };
    let (waiting, answered) = (names("waiting"), names("answered"));
    if !waiting.is_empty() {
        let advice =
            "Bring it to the root: fleetmark root request, then root sign there, then root accept (docs/root-ceremony.md).";
        return Some(Finding::warn(CHECK, format!("the root is waited for: {waiting}"), advice));
    }
    let advice = "Ask again for what waited for it, such as fleetmark fleet create.";
    (!answered.is_empty()).then(|| Finding::warn(CHECK, format!("answered, and not used yet: {answered}"), advice))
}

/// The root's list is renewed by its ceremony: warned of in the last quarter of its life.
fn root_list(status: &Value, now: Timestamp) -> Option<Finding> {
    let items = |field: &str| status.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let root = items("authorities").iter().find(|authority| text(authority, "kind") == Some("root"))?.get("id")?;
    let list = items("crls").iter().find(|list| list.get("authority") == Some(root))?;
    let (made, end) = (timestamp(list, "this_update")?, timestamp(list, "next_update")?);
    let quarter = end.since(made) / 4;
    Some(ends("root's revocation list", end, now, quarter, "Make a new one: fleetmark root crl there, then root accept here."))
}

/// Whether a ledger's newest checkpoint is signed by its key, and young.
async fn head(client: &Client, ledger: &Value, now: Timestamp) -> Finding {
    let name = text(ledger, "name").unwrap_or("?");
    let check = format!("ledger {}", harmless(name));
    let key = text(ledger, "vkey").and_then(|vkey| VerifierKey::from_vkey(vkey).ok());
    let note = client.get(Ask::path(&["v1", "ledgers", name, "checkpoint"])).await;
    let note = match note {
        Ok(answer) => String::from_utf8_lossy(&answer.body).into_owned(),
        Err(failure) => return bad(&check, &failure),
    };
    match key.map(|key| key.open(&note)) {
        Some(Ok(checkpoint)) if now.since(checkpoint.at) <= HEARTBEAT => {
            Finding::ok(check, format!("{} entries, signed at {}", checkpoint.head.size, checkpoint.at))
        }
        Some(Ok(checkpoint)) => Finding::bad(
            check,
            format!("was last signed at {}", checkpoint.at),
            "Gateways refuse when they hear nothing: look at the server's log for why it does not sign.",
        ),
        Some(Err(error)) => Finding::bad(check, error.to_string(), "Verify it as a whole: fleetmark ledger verify."),
        None => Finding::bad(check, "its key cannot be read", "Look at the server's log."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::State;
    use serde_json::json;

    #[test]
    fn a_certificate_that_is_due_is_warned_of() {
        let state = |now: i64| {
            let me = json!({"identity": "i", "role": "owner", "renew_after": "1970-01-01T00:01:00Z", "not_after": "1970-01-01T00:02:00Z"});
            operator("dir", &me, Timestamp(now))[1].state
        };
        assert_eq!([state(30), state(90), state(120)], [State::Ok, State::Warn, State::Bad]);
    }

    #[test]
    fn what_waits_for_the_root_is_told() {
        let found =
            |state: &str| root_requests(&json!({"items": [{"kind": "device", "fleet": "pumps", "state": state}]})).unwrap();
        assert!(found("waiting").found.contains("waited for: pumps") && found("waiting").state == State::Warn);
        assert!(found("answered").found.contains("not used yet: pumps"));
        assert_eq!(root_requests(&json!({"items": []})), None);
        let list = json!({"authority": 1, "this_update": "1970-01-01T00:00:00Z", "next_update": "1970-01-01T00:04:00Z"});
        let status = json!({"authorities": [{"id": 1, "kind": "root"}], "crls": [list]});
        let state = |now| root_list(&status, Timestamp(now)).unwrap().state;
        assert_eq!([state(100), state(200), state(300)], [State::Ok, State::Warn, State::Bad]);
    }

    #[test]
    fn ended_authorities_are_bad_unless_revoked() {
        let status = |state: &str| {
            let status = json!({"queue": {"urgent": 0, "ordinary": 5000}, "authorities": [
                {"kind": "device", "fleet": "default", "state": state, "not_after": "1970-01-01T00:02:00Z"}
            ]});
            status_findings(&status, Timestamp(500)).iter().map(|finding| finding.state).collect::<Vec<_>>()
        };
        assert_eq!(status("active"), [State::Warn, State::Ok, State::Bad]);
        assert_eq!(status("revoked"), [State::Warn, State::Ok]);
    }

    #[test]
    fn a_lost_token_is_bad() {
        let status = |token: Value| {
            let authorities =
                json!([{"kind": "root", "fleet": null, "key": "elsewhere"}, {"kind": "device", "fleet": "f", "key": "pkcs11"}]);
            key_homes(&json!({"authorities": authorities, "token_reachable": token}))
        };
        assert_eq!(status(json!(null)), [Finding::ok("keys of authorities", "root: elsewhere, f: pkcs11")]);
        assert_eq!(status(json!(true))[1].state, State::Ok);
        assert_eq!(status(json!(false))[1].state, State::Bad);
    }
}
