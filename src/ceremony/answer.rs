//! What a root gives back: one file of JSON with certificates, the root's list, and the record of the ceremony with its signature. The
//! record names every certificate and the list by its hash, so that its signature covers the answer.

use base64::Engine as _;
use fleetmark_domain::Fingerprint;
use serde::{Deserialize, Serialize};

use super::record::Record;
use super::{CeremonyError, from_json, from_pem, json, sha256};
use crate::pki::issue::facts;
use crate::pki::request::{ListFacts, verified_list};
use crate::pki::{bundle, detached};

/// What stands in `format`.
const FORMAT: &str = "fleetmark root answer 1";
const WHAT: &str = "the answer";

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootAnswer {
    /// `fleetmark root answer 1`.
    pub format: String,
    /// The root's certificate, in PEM.
    pub root: String,
    /// The authorities that were certified.
    pub authorities: Vec<Certified>,
    /// The root's newest revocation list, in PEM.
    pub list: String,
    /// The record of the ceremony.
    pub record: String,
    /// The root's signature over the record: detached CMS, in PEM.
    pub signature: String,
    /// The root's signature for the trust bundle of the request, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// The texts of the records before this one, the oldest first: who took in one of them sees that this one goes on from it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<String>,
}

/// An authority that was certified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certified {
    /// The request's name at the server.
    pub id: String,
    /// The certificate, in PEM.
    pub certificate: String,
}

/// An answer whose record is signed by the root that it brings, and says the same as the rest of it. Whether that root is the right
/// one is for the reader to say.
#[derive(Debug, Clone)]
pub struct Verified {
    /// The root's certificate, in DER.
    pub root: Vec<u8>,
    /// SHA-256 over it.
    pub fingerprint: Fingerprint,
    /// Ids and certificates, in DER.
    pub authorities: Vec<(String, Vec<u8>)>,
    /// The root's list, in DER.
    pub list: Vec<u8>,
    /// What the list says.
    pub list_facts: ListFacts,
    /// The record.
    pub record: Record,
    /// SHA-256 over the record's text, in hexadecimal.
    pub record_hash: String,
    /// Each record that the answer holds, this one last: its number, and SHA-256, in hexadecimal, over the text of the one before it.
    pub chain: Vec<(u64, Option<String>)>,
    /// The signature for a trust bundle, and SHA-256, in hexadecimal, over what it is for. Who knows that verifies it.
    pub bundle: Option<(String, Vec<u8>)>,
}

impl RootAnswer {
    /// An answer of these parts, in DER.
    pub fn new(root: &[u8], authorities: &[(String, Vec<u8>)], list: &[u8], record: String, signature: &[u8]) -> Self {
        let certified = |(id, der): &(String, Vec<u8>)| Certified { id: id.clone(), certificate: bundle::pem(&[der]) };
        Self {
            format: FORMAT.to_owned(),
            root: bundle::pem(&[root]),
            authorities: authorities.iter().map(certified).collect(),
            list: bundle::crl_pem(list),
            record,
            signature: bundle::cms_pem(signature),
            bundle: None,
            before: Vec::new(),
        }
    }

    /// Reads an answer, at most 512 KiB.
    ///
    /// # Errors
    /// [`CeremonyError::Unreadable`].
    pub fn read(octets: &[u8]) -> Result<Self, CeremonyError> {
        let answer: Self = from_json(WHAT, octets)?;
        if answer.format != FORMAT {
            return Err(CeremonyError::Unreadable {
                what: WHAT,
                why: "its format is not `fleetmark root answer 1`".to_owned(),
            });
        }
        Ok(answer)
    }

    /// The file.
    pub fn file(&self) -> Vec<u8> {
        json(self)
    }

    /// Verifies the record's signature by the root's key, and that it names exactly the certificates and the list of the answer.
    ///
    /// # Errors
    /// [`CeremonyError::Unreadable`], [`CeremonyError::Record`], [`CeremonyError::Pki`].
    pub fn verified(&self) -> Result<Verified, CeremonyError> {
        let root = from_pem("the root's certificate", "CERTIFICATE", &self.root)?;
        let signature = from_pem("the record's signature", "CMS", &self.signature)?;
        let fingerprint = facts(&root)?.fingerprint;
        detached::verify(&root, self.record.as_bytes(), &signature)
            .map_err(|_| CeremonyError::Record("the record is not signed by the root's key".to_owned()))?;
        let record = Record::parse(&self.record)?;
        let list = from_pem("the root's list", "X509 CRL", &self.list)?;
        let read = |one: &Certified| Ok((one.id.clone(), from_pem("a certificate", "CERTIFICATE", &one.certificate)?));
        let authorities = self.authorities.iter().map(read).collect::<Result<Vec<_>, CeremonyError>>()?;
        let differs = |what: &str| CeremonyError::Record(format!("the record names {what} than the answer holds"));
        if record.root != fingerprint {
            return Err(differs("another root"));
        }
        if record.list.hash != sha256(&list) {
            return Err(differs("another revocation list"));
        }
        let held = authorities.iter().map(|(id, der)| Ok((id.clone(), facts(der)?.fingerprint)));
        let held = held.collect::<Result<Vec<_>, CeremonyError>>()?;
        if held != record.certificates.iter().map(|one| (one.id.clone(), one.fingerprint)).collect::<Vec<_>>() {
            return Err(differs("other certificates"));
        }
        let bundle = match (&self.bundle, record.bundle.clone()) {
            (None, None) => None,
            (Some(signature), Some((_, hash))) => {
                let wrong = |_| CeremonyError::Unreadable { what: WHAT, why: "its `bundle` is no base64".to_owned() };
                Some((hash, base64::engine::general_purpose::STANDARD.decode(signature).map_err(wrong)?))
            }
            _ => return Err(differs("another trust bundle")),
        };
        let list_facts = verified_list(&list, &root)?;
        let (record_hash, chain) = (sha256(self.record.as_bytes()), self.chain(&record)?);
        Ok(Verified { root, fingerprint, authorities, list, list_facts, record, record_hash, chain, bundle })
    }

    /// The records that the answer holds. Each names the hash of the one before, so the signature of the last one covers all.
    fn chain(&self, record: &Record) -> Result<Vec<(u64, Option<String>)>, CeremonyError> {
        let mut chain = Vec::new();
        let mut last: Option<(u64, String)> = None;
        let before = self.before.iter().map(|text| Ok((Record::parse(text)?, sha256(text.as_bytes()))));
        let all = before.chain(std::iter::once(Ok((record.clone(), String::new()))));
        for one in all.collect::<Result<Vec<_>, CeremonyError>>()? {
            let (Record { number, previous, .. }, hash) = one;
            let follows =
                |(before, hash): &(u64, String)| number == before.saturating_add(1) && previous.as_ref() == Some(hash);
            if last.as_ref().is_some_and(|last| !follows(last)) {
                return Err(CeremonyError::Record(format!("record {number} does not go on from the one before it")));
            }
            last = Some((number, hash));
            chain.push((number, previous));
        }
        Ok(chain)
    }
}
