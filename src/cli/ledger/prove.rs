//! `fleetmark ledger prove`: that a certificate's issue is on its ledger, by a proof that is checked here.

use fleetmark_domain::{Fingerprint, Serial};
use fleetmark_ledger::entry::{Entry, Event};
use fleetmark_ledger::merkle::leaf_hash;
use fleetmark_ledger::proof::verify_inclusion;
use serde_json::{Value, json};

use super::wire;
use crate::cli::client::Ask;
use crate::cli::failure::Failure;
use crate::cli::session::{Session, print, print_json};

/// Proves and prints what was proven.
pub(super) async fn run(session: &Session, serial: &str, vkey: Option<&str>) -> Result<(), Failure> {
    let wanted: Serial = serial.parse().map_err(|error| Failure::Usage(format!("{serial}: {error}")))?;
    let client = &session.client;
    let certificate = client.get(Ask::path(&["v1", "certificates", &wanted.to_string()])).await?.json()?;
    let text = |field: &str| certificate.get(field).and_then(Value::as_str).map(str::to_owned);
    let ledger = text("ledger").ok_or_else(|| no("the server names no ledger"))?;
    let position = certificate.get("position").and_then(Value::as_u64).ok_or_else(|| no("the server names no position"))?;
    let fingerprint: Fingerprint =
        text("fingerprint").and_then(|text| text.parse().ok()).ok_or_else(|| no("the server names no fingerprint"))?;
    let key = match vkey {
        Some(given) => wire::key(given)?,
        None => wire::key(&wire::vkey(client, &ledger).await?)?,
    };
    let note = wire::note(client, &ledger).await?;
    let checkpoint = key.open(&note).map_err(|error| no(&error.to_string()))?;
    let fetched = wire::entries(client, &ledger, position, 1).await?;
    let fetched = fetched.first().ok_or_else(|| no("the entry is missing"))?;
    is_issue_of(&fetched.entry, wanted, fingerprint)?;
    if position >= checkpoint.head.size {
        return Err(Failure::Failed(
            "the newest checkpoint does not cover the entry yet".to_owned(),
            Some("Try again in a moment."),
        ));
    }
    let proof = wire::proof(client, &ledger, "inclusion", [("index", position), ("size", checkpoint.head.size)]).await?;
    verify_inclusion(&proof, leaf_hash(&fetched.entry), position, &checkpoint.head).map_err(|error| no(&error.to_string()))?;
    if session.json {
        return print_json(&json!({
            "serial": wanted.to_string(), "fingerprint": fingerprint, "ledger": ledger, "position": position,
            "size": checkpoint.head.size, "root": hex::encode(checkpoint.head.root.0), "signed_at": checkpoint.at,
            "proof": proof.iter().map(|hash| hex::encode(hash.0)).collect::<Vec<_>>(),
            "checkpoint": note, "key_trust": if vkey.is_some() { "given" } else { "first-use" },
        }));
    }
    print(&format!(
        "Certificate {wanted} (SHA-256 {fingerprint})\nis entry {position} of ledger {ledger}: {} hashes lead to the root over {} entries \
         that was signed at {}.\n",
        proof.len(),
        checkpoint.head.size,
        checkpoint.at,
    ))?;
    if vkey.is_none() {
        eprintln!("The key is the one that the server gives; take --vkey to use one known from elsewhere.");
    }
    Ok(())
}

/// The entry must be the issue of exactly this certificate, or its adoption from another authority.
fn is_issue_of(entry: &[u8], serial: Serial, fingerprint: Fingerprint) -> Result<(), Failure> {
    let stated = match Entry::decode(entry).map_err(|error| no(&error.to_string()))?.event {
        Event::Issued(issued) => Some((issued.epoch, issued.index, issued.fingerprint)),
        Event::ExternalAdopted(adopted) => Some((adopted.epoch, adopted.index, adopted.fingerprint)),
        _ => None,
    };
    if stated == Some((serial.epoch(), serial.index(), fingerprint)) {
        Ok(())
    } else {
        Err(no("the entry at the certificate's position is not its issue"))
    }
}

fn no(what: &str) -> Failure {
    Failure::Failed(format!("this is no proof: {what}"), None)
}

#[cfg(test)]
mod tests {
    use fleetmark_domain::{Epoch, Index, Timestamp};
    use fleetmark_ledger::entry::Adopted;

    use super::*;

    #[test]
    fn a_certificate_that_was_adopted_is_proven_by_its_adoption() {
        let serial = Serial::new(Epoch(3), Index(4), [7; 8]);
        let fingerprint = Fingerprint([0xbb; 32]);
        let adopted = Adopted {
            authority: 1 << 30,
            epoch: serial.epoch(),
            index: serial.index(),
            fingerprint,
            subject: 7,
            generation: 1,
            not_after: Timestamp(100),
            key: [0xcc; 32],
        };
        let entry = Entry { at: Timestamp(0), event: Event::ExternalAdopted(adopted), details: None }.encode().expect("entry");
        assert_eq!(is_issue_of(&entry, serial, fingerprint), Ok(()));
        assert!(is_issue_of(&entry, serial, Fingerprint([1; 32])).is_err());
        assert!(is_issue_of(&entry, Serial::new(Epoch(3), Index(5), [7; 8]), fingerprint).is_err());
    }
}
