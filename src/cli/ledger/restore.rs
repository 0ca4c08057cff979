//! `fleetmark ledger accept-restore`: an operator's signed word that a server was restored from a backup, so that gateways go on
//! from its shorter ledger. docs/following.md has the form; gateways verify it (`fleetmark-gateway accept-restored`).

use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use fleetmark_domain::Timestamp;
use fleetmark_ledger::note::{Checkpoint, VerifierKey};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;

use super::{verify, wire};
use crate::cli::failure::Failure;
use crate::cli::session::{Session, print, print_json};
use crate::config::profile::{Profile, write_durably};
use crate::telemetry::clock::{Clock as _, SystemClock};

/// The statement's first line.
const FORM: &str = "fleetmark-accept-restore/v1";

/// What to sign, and where to.
pub(super) struct How<'a> {
    pub state: Option<&'a Path>,
    pub vkey: Option<&'a str>,
    pub out: Option<&'a Path>,
}

/// Verifies the newest checkpoint, signs the word about it, and writes it.
pub(super) async fn run(session: &Session, ledger: &str, how: &How<'_>) -> Result<(), Failure> {
    if let Some(out) = how.out.filter(|out| out.exists()) {
        return Err(Failure::Usage(format!("{}: there is a file here already", out.display())));
    }
    let (key, is_given) = choose_key(session, ledger, how).await?;
    let note = wire::note(&session.client, ledger).await?;
    let checkpoint = key.open(&note).map_err(|error| {
        Failure::Failed(
            format!("the checkpoint is not signed by the ledger's key: {error}"),
            Some("Sign nothing for this server until it is explained."),
        )
    })?;
    // Where this machine's clock is behind, the word is still newer than what any gateway saw before the loss.
    let statement = statement(&checkpoint, SystemClock.now().max(checkpoint.at));
    let word = format!("{:#}\n", word(&session.profile, &statement)?);
    if !is_given {
        eprintln!("The key is the one that the server gives; take --state FILE or --vkey VKEY for one known from elsewhere.");
    }
    let Some(out) = how.out else {
        return print(&word);
    };
    write_durably(out, word.as_bytes(), 0o644)?;
    let (size, root) = (checkpoint.head.size, hex::encode(checkpoint.head.root.0));
    if session.json {
        return print_json(&json!({"file": out, "ledger": ledger, "size": size, "root": root, "signed_at": checkpoint.at}));
    }
    print(&format!(
        "{file}: your word that ledger {ledger} goes on from {size} entries with the root {root}.\n\
         On each gateway's machine, as its user: fleetmark-gateway accept-restored {ledger} {file}\n\
         What was revoked after the backup is not revoked in this ledger: revoke it again.\n",
        file = out.display(),
    ))
}

/// The key, and whether it is known from elsewhere than the server.
async fn choose_key(session: &Session, ledger: &str, how: &How<'_>) -> Result<(VerifierKey, bool), Failure> {
    match (how.vkey, how.state) {
        (Some(given), _) => Ok((wire::key(given)?, true)),
        (None, Some(state)) => Ok((wire::key(&verify::pinned(state, ledger)?)?, true)),
        (None, None) => Ok((wire::key(&wire::vkey(&session.client, ledger).await?)?, false)),
    }
}

/// Five lines: the form, the first three lines of the checkpoint, and when this is said.
fn statement(checkpoint: &Checkpoint, at: Timestamp) -> String {
    let root = BASE64_STANDARD.encode(checkpoint.head.root.0);
    format!("{FORM}\n{}\n{}\n{root}\n{}\n", checkpoint.origin, checkpoint.head.size, at.0)
}

/// The statement, signed with the profile's key, beside the profile's certificates.
fn word(profile: &Profile, statement: &str) -> Result<serde_json::Value, Failure> {
    let unusable = || {
        let path = profile.directory.join("key.pem");
        Failure::Failed(
            format!("{}: this is no P-256 key in PKCS#8", path.display()),
            Some("Sign as an operator with such a key."),
        )
    };
    let random = SystemRandom::new();
    let key = PrivatePkcs8KeyDer::from_pem_slice(&profile.key_pem()?).map_err(|_| unusable())?;
    let key =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.secret_pkcs8_der(), &random).map_err(|_| unusable())?;
    let signature = key
        .sign(&random, statement.as_bytes())
        .map_err(|_| Failure::Failed("the system gives no randomness".to_owned(), None))?;
    let certificates = String::from_utf8_lossy(&profile.certificate_pem()?).into_owned();
    Ok(json!({"statement": statement, "signature": BASE64_STANDARD.encode(signature), "certificates": certificates}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::profile::{NewProfile, ProfileSettings, create};
    use fleetmark_ledger::merkle::{Hash, Head};
    use ring::signature::KeyPair as _;

    fn checkpoint() -> Checkpoint {
        let head = Head { size: 133, root: Hash([7; 32]) };
        Checkpoint { origin: "fleet.test/ledger/default".to_owned(), head, at: Timestamp(1_800_000_000) }
    }

    fn profile(directory: &Path, pkcs8: &[u8]) -> Profile {
        let address = "https://localhost:9443".to_owned();
        let settings = Some(ProfileSettings { server: address.clone(), device_door: address });
        let key_pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64_STANDARD.encode(pkcs8));
        let new = NewProfile { settings, key_pem: &key_pem, certificate_pem: "CERTIFICATES", ca_pem: "ROOT" };
        create(directory, &new, true).expect("profile");
        Profile::open(directory).expect("profile")
    }

    #[test]
    fn the_statement_has_the_lines_of_the_checkpoint() {
        let root = BASE64_STANDARD.encode([7; 32]);
        let expected = format!("fleetmark-accept-restore/v1\nfleet.test/ledger/default\n133\n{root}\n1800000100\n");
        assert_eq!(statement(&checkpoint(), Timestamp(1_800_000_100)), expected);
        // C2SP tlog-checkpoint: the note of this head begins with the same three lines.
        let pkcs8 = ring::signature::Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("key");
        let key = fleetmark_ledger::note::LedgerKey::from_pkcs8("fleet.test/ledger/default", pkcs8.as_ref()).expect("key");
        let note = key.sign(&checkpoint().head, checkpoint().at);
        let lines: Vec<_> = note.lines().take(3).collect();
        assert_eq!(expected.lines().skip(1).take(3).collect::<Vec<_>>(), lines);
    }

    #[test]
    fn the_word_is_signed_with_the_profiles_key() {
        let directory = tempfile::tempdir().expect("directory");
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_ASN1_SIGNING);
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("key");
        let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).expect("key");
        let statement = statement(&checkpoint(), Timestamp(1_800_000_100));
        let word = word(&profile(directory.path(), pkcs8.as_ref()), &statement).expect("word");
        assert_eq!((&word["statement"], &word["certificates"]), (&json!(statement), &json!("CERTIFICATES")));
        let signature = BASE64_STANDARD.decode(word["signature"].as_str().expect("text")).expect("base64");
        let public = ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_ASN1, key.public_key());
        public.verify(statement.as_bytes(), &signature).expect("signature");
        assert!(public.verify(b"another statement", &signature).is_err());
    }

    #[test]
    fn a_key_of_another_kind_signs_nothing() {
        let directory = tempfile::tempdir().expect("directory");
        let pkcs8 = ring::signature::Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("key");
        assert!(word(&profile(directory.path(), pkcs8.as_ref()), "statement").is_err());
    }
}
