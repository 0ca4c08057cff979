//! A root that a server made moves here.

use std::path::Path;

use fleetmark_domain::{Serial, Timestamp};
use ring::rand::SystemRandom;
use secrecy::SecretString;

use super::{Act, Done, FORMAT, LIST_LIFETIME, People, RootDirectory, State, unreadable};
use crate::ceremony::CeremonyError;
use crate::ceremony::files::{CERTIFICATE, lock, read, settle, write};
use crate::ceremony::request::ToRevoke;
use crate::pki::PkiError;
use crate::pki::issue::{Issuer, facts};
use crate::pki::keys::Keys;
use crate::pki::request::verified_list;

impl RootDirectory {
    /// Takes over a root that a server made: its key file, which the server's passphrase opens, and its certificate and list.
    ///
    /// # Errors
    /// As [`Self::create`]; [`CeremonyError::Foreign`] for a certificate that is none of this key, or a list of another root. Then nothing
    /// was kept, the key included. [`PkiError::KeyExists`] where another key is there.
    pub fn take_over(
        path: &Path,
        passphrase: SecretString,
        (key, certificate, list): (&[u8], &[u8], &[u8]),
        people: &People,
        now: Timestamp,
    ) -> Result<(Self, Done), CeremonyError> {
        let people = people.checked()?;
        let lock = lock(path)?;
        settle(path)?;
        if path.join(CERTIFICATE).exists() {
            return Err(CeremonyError::Exists(path.to_owned()));
        }
        let file = path.join("keys/root.key.pem");
        // The same one is of a ceremony that died before its certificate was kept.
        if file.exists() && read(&file)? != key {
            return Err(PkiError::KeyExists(file).into());
        }
        let signer = Keys::of_file(&file, key, &passphrase)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| unreadable("the root's certificate"))?;
        let domain = parsed.subject().iter_organization().next().and_then(|name| name.as_str().ok()?.parse().ok());
        let domain = domain.ok_or_else(|| CeremonyError::Foreign("the certificate names no trust domain".to_owned()))?;
        if parsed.public_key().raw != signer.public_key() {
            return Err(CeremonyError::Foreign("the certificate is for another key".to_owned()));
        }
        let listed = verified_list(list, certificate)
            .map_err(|_| CeremonyError::Foreign("the revocation list is another root's".to_owned()))?;
        let revoked = listed.revoked.iter().filter_map(|line| {
            let serial = Serial::from_octets(&line.serial).ok()?.to_string();
            Some(ToRevoke { serial, reason: line.reason, since: line.since })
        });
        let state = State {
            format: FORMAT.to_owned(),
            trust_domain: domain,
            root: facts(certificate)?.fingerprint,
            list: listed.number,
            taken_over: true,
            issued: Vec::new(),
            revoked: revoked.collect(),
            bundle: None,
        };
        // Makes the directory, which nobody else may look into.
        Keys::open(&path.join("keys"), passphrase)?;
        write(&file, key)?;
        let root = Issuer { certificate: certificate.to_vec().into(), signer };
        let mut directory = Self { path: path.to_owned(), state, root, random: SystemRandom::new(), _lock: lock };
        let done = directory.finish(Act::plain("root taken over", LIST_LIFETIME), Vec::new(), &people, now)?;
        Ok((directory, done))
    }
}
