//! The fleet's hook: its owner's own server is asked before a certificate is issued, and may refuse the device or set its
//! attributes. docs/enrollment/webhook.md is the contract.
//!
//! Whatever goes wrong refuses (`hook_unavailable`), and burns nothing: the same request may succeed later.
//!
//! - [`call`]: the exchange over HTTPS; the one place here that knows HTTP.

mod call;

use std::collections::BTreeMap;
use std::net::IpAddr;

use fleetmark_domain::{Action, FleetName, KeyHash, Name, Refusal, Timestamp};
use ring::hmac;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub(super) use call::Calls;

use super::caller::Caller;
use super::enroll::EnrollRequest;
use super::proofs::Proven;
use super::requests::key_type;
use super::subjects::check_attributes;
use super::{Error, Registrar, Result};
use crate::store::acts::fleets::ChangeFleet;
use crate::store::model::{Fleet, Hook};
use crate::store::{commit, read};
use call::{Reply, check_roots, check_url};

/// The longest reason that is passed on to a device, in characters.
const MAX_REASON: usize = 256;
/// The secret's length in octets.
const SECRET: usize = 32;

/// A hook to set.
#[derive(Debug, Clone)]
pub struct NewHook {
    /// Where: `https://…`, at most 2,048 characters, without user, password or fragment.
    pub url: String,
    /// Roots that its server's certificate is verified against, PEM; None: the machine's.
    pub roots: Option<String>,
    /// Whether the secret stays; else there is a new one.
    pub keep_secret: bool,
}

/// A fleet's hook, without its secret.
#[derive(Debug, Clone)]
pub struct HookView {
    /// Where.
    pub url: String,
    /// Roots in PEM; None: the machine's.
    pub roots: Option<String>,
    /// The fleet's version, the entity tag (RFC 9110 8.8.3).
    pub version: u64,
}

/// A hook just set.
#[derive(Debug)]
pub struct HookSet {
    /// As it is now.
    pub hook: HookView,
    /// Its new secret, in hexadecimal: shown once. None where it kept the old one.
    pub secret: Option<SecretString>,
}

/// What came of a trial.
#[derive(Debug)]
pub struct Trial {
    /// The outcome, as the metric counts it.
    pub outcome: &'static str,
    /// What the hook gave as its reason, or what was in the way.
    pub detail: Option<String>,
}

/// Why there is no answer that counts.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// 64 questions are open, or 16 of this fleet.
    #[error("64 questions to hooks are open, or 16 of this fleet")]
    Busy,
    /// No answer within 5 seconds.
    #[error("no answer within 5 seconds")]
    Timeout,
    /// The connection.
    #[error("{0}")]
    Unreachable(String),
    /// The handshake.
    #[error("TLS: {0}")]
    Tls(String),
    /// Another status than 200; redirects among them.
    #[error("status {0} instead of 200")]
    Status(u16),
    /// More than 16 KiB.
    #[error("the answer is larger than 16 KiB")]
    TooLarge,
    /// Not signed by the hook's secret over this very question's id.
    #[error("the answer's signature is wrong or missing")]
    Signature,
    /// Not an answer.
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
    /// The settings, or the server itself.
    #[error("the hook cannot be used: {0}")]
    Unusable(String),
}

impl Fault {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Timeout => "timeout",
            Self::Unreachable(_) => "unreachable",
            Self::Tls(_) => "tls",
            Self::Status(_) => "status",
            Self::TooLarge => "too_large",
            Self::Signature => "signature",
            Self::Unreadable(_) => "unreadable",
            Self::Unusable(_) => "unusable",
        }
    }
}

/// What the hook is asked.
#[derive(Serialize)]
struct Question<'a> {
    /// 16 random octets in hexadecimal; the answer says the same.
    id: String,
    /// RFC 3339.
    time: String,
    fleet: &'a FleetName,
    #[serde(flatten)]
    about: About<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum About<'a> {
    Ping { ping: bool },
    Device(Box<AboutDevice<'a>>),
}

#[derive(Serialize)]
struct AboutDevice<'a> {
    device: &'a Name,
    proof: &'a str,
    key: Key,
    attributes: &'a BTreeMap<String, String>,
    source: Option<IpAddr>,
    csr: Names<'a>,
}

#[derive(Serialize)]
struct Key {
    #[serde(rename = "type")]
    kind: &'static str,
    sha256: KeyHash,
}

/// What the certificate request calls the device; nothing of it is copied into a certificate.
#[derive(Serialize)]
struct Names<'a> {
    common_name: Option<&'a str>,
    uris: &'a [String],
}

/// What the hook answers. Fields that are not known are refused: who sends them believes that they do something.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    id: String,
    decision: Decision,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    attributes: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Decision {
    Allow,
    Refuse,
    Amend,
}

impl Decision {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Refuse => "refuse",
            Self::Amend => "amend",
        }
    }
}

impl Answer {
    /// The reason, fit for a line of text.
    fn reason(&self) -> Option<String> {
        let text: String = self.reason.iter().flat_map(|text| text.chars()).filter(|c| !c.is_control()).collect();
        let text: String = text.chars().take(MAX_REASON).collect();
        (!text.is_empty()).then_some(text)
    }
}

/// The signature of a question: HMAC-SHA256 over `id.time.body`.
fn sign_question(key: &hmac::Key, id: &str, time: &str, body: &[u8]) -> String {
    let message = [id.as_bytes(), b".", time.as_bytes(), b".", body].concat();
    format!("v1={}", hex::encode(hmac::sign(key, &message)))
}

/// Reads an answer that is signed over `id.body`: one that was recorded answers no other question.
fn judge(key: &hmac::Key, id: &str, reply: &Reply) -> std::result::Result<Answer, Fault> {
    let signature = reply.signature.as_deref().and_then(|text| text.strip_prefix("v1="));
    let signature =
        signature.filter(|text| text.len() == 64).and_then(|text| hex::decode(text).ok()).ok_or(Fault::Signature)?;
    let message = [id.as_bytes(), b".", &reply.body].concat();
    // In constant time.
    hmac::verify(key, &message, &signature).map_err(|_| Fault::Signature)?;
    let answer: Answer = serde_json::from_slice(&reply.body).map_err(|error| Fault::Unreadable(error.to_string()))?;
    if answer.id != id {
        return Err(Fault::Unreadable("its id is another question's".to_owned()));
    }
    if (answer.decision == Decision::Amend) != answer.attributes.is_some() {
        return Err(Fault::Unreadable("`amend` has attributes, and no other decision has".to_owned()));
    }
    if let Some(attributes) = &answer.attributes {
        check_attributes(attributes).map_err(|told| Fault::Unreadable(told.to_owned()))?;
    }
    Ok(answer)
}

fn count(outcome: &'static str) {
    metrics::counter!("fleetmark_hook_answers_total", "outcome" => outcome).increment(1);
}

fn place(fleet: &FleetName) -> String {
    format!("hook {fleet}")
}

impl Registrar {
    /// Asks the fleet's hook, where it has one; the attributes that the device is to have, where it said so.
    ///
    /// # Errors
    /// `HookRefused`, `HookUnavailable`.
    pub(super) async fn ask_hook(
        &self,
        proven: &Proven,
        request: &EnrollRequest,
        now: Timestamp,
    ) -> Result<Option<BTreeMap<String, String>>> {
        let Some(fleet) = &proven.fleet else { return Ok(None) };
        let Some(hook) = &fleet.hook else { return Ok(None) };
        let about = About::Device(Box::new(AboutDevice {
            device: &proven.subject.name,
            proof: &proven.note,
            key: Key { kind: key_type(request.csr.algorithm()), sha256: request.csr.key_hash() },
            attributes: &proven.subject.attributes,
            source: request.source,
            csr: Names { common_name: request.csr.common_name(), uris: request.csr.uris() },
        }));
        match self.ask_owner(fleet, hook, about, now).await {
            Ok(answer) => {
                count(answer.decision.as_str());
                match answer.decision {
                    Decision::Allow | Decision::Amend => Ok(answer.attributes),
                    Decision::Refuse => Err(Error { refusal: Refusal::HookRefused, detail: answer.reason(), cause: None }),
                }
            }
            Err(fault) => {
                count(fault.as_str());
                Err(Error::caused(Refusal::HookUnavailable, fault))
            }
        }
    }

    async fn ask_owner(
        &self,
        fleet: &Fleet,
        hook: &Hook,
        about: About<'_>,
        now: Timestamp,
    ) -> std::result::Result<Answer, Fault> {
        let unusable = |what: &str| Fault::Unusable(what.to_owned());
        let sealed = hex::decode(&hook.secret).map_err(|_| unusable("its secret is damaged"))?;
        let secret =
            self.secrets.unseal(&place(&fleet.name), &sealed).map_err(|_| unusable("its secret cannot be decrypted"))?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let id = hex::encode(self.random::<16>().map_err(|_| unusable("no randomness"))?);
        let time = now.to_string();
        let question = Question { id: id.clone(), time: time.clone(), fleet: &fleet.name, about };
        let body = serde_json::to_vec(&question).map_err(|error| Fault::Unusable(error.to_string()))?;
        let signature = sign_question(&key, &id, &time, &body);
        let reply = self.hooks.post(&fleet.name, (&hook.url, hook.roots.as_deref()), &signature, body).await?;
        judge(&key, &id, &reply)
    }

    /// A fleet's hook.
    pub async fn hook(&self, caller: &Caller, fleet: &FleetName) -> Result<HookView> {
        caller.may(Action::Read, Some(fleet))?;
        view(self.fleet_with_hook(fleet, None).await?)
    }

    /// Sets a fleet's hook; `version` is the fleet's that the caller read, where it said so.
    pub async fn put_hook(
        &self,
        caller: &Caller,
        fleet: &FleetName,
        new: NewHook,
        version: Option<u64>,
        now: Timestamp,
    ) -> Result<HookSet> {
        let mut record = self.fleet_for_hook(caller, fleet, version).await?;
        let NewHook { url, roots, keep_secret } = new;
        let invalid = |detail: String| Error::with_detail(Refusal::InvalidValue, detail);
        check_url(&url).map_err(|detail| invalid(format!("url: {detail}")))?;
        if let Some(roots) = &roots {
            check_roots(roots).map_err(|detail| invalid(format!("roots: {detail}")))?;
        }
        let kept = record.hook.take().filter(|_| keep_secret).map(|hook| hook.secret);
        let (sealed, secret) = if let Some(sealed) = kept {
            (sealed, None)
        } else {
            let secret = Zeroizing::new(self.random::<SECRET>()?);
            let sealed = self.secrets.seal(&self.random, &place(fleet), &*secret)?;
            (hex::encode(sealed), Some(SecretString::from(hex::encode(*secret))))
        };
        let note = format!("hook {url}");
        record.hook = Some(Hook { url, roots, secret: sealed });
        Ok(HookSet { hook: view(self.change_hook(caller, record, note, now).await?)?, secret })
    }

    /// Removes a fleet's hook, and gives it as it was.
    pub async fn remove_hook(
        &self,
        caller: &Caller,
        fleet: &FleetName,
        version: Option<u64>,
        now: Timestamp,
    ) -> Result<HookView> {
        let record = self.fleet_for_hook(caller, fleet, version).await?;
        let removed = view(record.clone())?;
        let without = Fleet { hook: None, ..record };
        let version = self.change_hook(caller, without, "no hook".to_owned(), now).await?.version;
        Ok(HookView { version, ..removed })
    }

    /// Asks a fleet's hook without being about any device, and says what came back. Counted as an answer is.
    pub async fn test_hook(&self, caller: &Caller, fleet: &FleetName, now: Timestamp) -> Result<Trial> {
        let record = self.fleet_for_hook(caller, fleet, None).await?;
        let hook = record.hook.as_ref().ok_or(Refusal::NotFound)?;
        let trial = match self.ask_owner(&record, hook, About::Ping { ping: true }, now).await {
            Ok(answer) => Trial { outcome: answer.decision.as_str(), detail: answer.reason() },
            Err(fault) => Trial { outcome: fault.as_str(), detail: Some(fault.to_string()) },
        };
        count(trial.outcome);
        Ok(trial)
    }

    async fn fleet_for_hook(&self, caller: &Caller, fleet: &FleetName, version: Option<u64>) -> Result<Fleet> {
        caller.may(Action::ManagePolicy, Some(fleet))?;
        self.fleet_with_hook(fleet, version).await
    }

    async fn fleet_with_hook(&self, fleet: &FleetName, version: Option<u64>) -> Result<Fleet> {
        let name = fleet.clone();
        let record = read(&*self.store, move |rows| rows.fleet(&name)).await?.ok_or(Refusal::FleetUnknown)?;
        match version {
            Some(version) if version != record.version => Err(Refusal::EtagMismatch.into()),
            _ => Ok(record),
        }
    }

    async fn change_hook(&self, caller: &Caller, fleet: Fleet, note: String, now: Timestamp) -> Result<Fleet> {
        let details = self.details(caller.actor(self), Some(fleet.name.to_string()), None, Some(note))?;
        Ok(commit(&*self.store, ChangeFleet { fleet, details, at: now }).await?)
    }
}

fn view(fleet: Fleet) -> Result<HookView> {
    let Hook { url, roots, .. } = fleet.hook.ok_or(Refusal::NotFound)?;
    Ok(HookView { url, roots, version: fleet.version })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"id":"00ff","decision":"allow"}"#;

    fn key() -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, b"secret")
    }

    fn signed(id: &str, body: &str) -> Reply {
        let message = format!("{id}.{body}");
        let signature = format!("v1={}", hex::encode(hmac::sign(&key(), message.as_bytes())));
        Reply { signature: Some(signature), body: body.as_bytes().to_vec() }
    }

    fn outcome(reply: &Reply) -> &'static str {
        judge(&key(), "00ff", reply).map_or_else(|fault| fault.as_str(), |answer| answer.decision.as_str())
    }

    #[test]
    fn an_answer_counts_for_its_question_alone() {
        assert_eq!(outcome(&signed("00ff", BODY)), "allow");
        assert_eq!(outcome(&signed("00fe", BODY)), "signature");
        assert_eq!(outcome(&signed("00ff", &BODY.replace("00ff", "00fe"))), "unreadable");
        assert_eq!(outcome(&Reply { signature: None, ..signed("00ff", BODY) }), "signature");
        let good = signed("00ff", BODY).signature.unwrap();
        for wrong in ["", "v1=", &good[3..], &good[..60], &good.replace("v1=", "v2="), &format!("{good}00"), "v1=zz"] {
            let reply = Reply { signature: Some(wrong.to_owned()), ..signed("00ff", BODY) };
            assert_eq!(outcome(&reply), "signature", "{wrong}");
        }
        let mut changed = signed("00ff", BODY);
        *changed.body.last_mut().unwrap() = b' ';
        assert_eq!(outcome(&changed), "signature");
    }

    /// What we sent must not be taken for what we wait for.
    #[test]
    fn a_question_is_no_answer() {
        let (id, time) = ("00ff", "2026-11-22T03:00:00Z");
        let signature = sign_question(&key(), id, time, BODY.as_bytes());
        assert_eq!(outcome(&Reply { signature: Some(signature.clone()), body: BODY.as_bytes().to_vec() }), "signature");
        let body = format!("{time}.{BODY}").into_bytes();
        assert_eq!(outcome(&Reply { signature: Some(signature), body }), "unreadable");
    }

    #[test]
    fn what_is_no_answer_is_unreadable() {
        for body in [
            "",
            "yes",
            r#"{"id":"00ff"}"#,
            r#"{"id":"00ff","decision":"maybe"}"#,
            r#"{"id":"00ff","decision":"amend"}"#,
            r#"{"id":"00ff","decision":"allow","attributes":{}}"#,
            r#"{"id":"00ff","decision":"allow","profile":"x"}"#,
            r#"{"id":"00ff","decision":"amend","attributes":{"":"x"}}"#,
            r#"{"id":"00ff","decision":"amend","attributes":{"a":1}}"#,
        ] {
            assert_eq!(outcome(&signed("00ff", body)), "unreadable", "{body}");
        }
        let many: Vec<_> = (0..33).map(|number| format!("\"k{number}\":\"v\"")).collect();
        let body = format!(r#"{{"id":"00ff","decision":"amend","attributes":{{{}}}}}"#, many.join(","));
        assert_eq!(outcome(&signed("00ff", &body)), "unreadable");
        let amend = r#"{"id":"00ff","decision":"amend","attributes":{"site":"north"}}"#;
        assert_eq!(outcome(&signed("00ff", amend)), "amend");
    }

    #[test]
    fn a_reason_is_one_line_of_text() {
        let reason = |text: &str| {
            let answer =
                Answer { id: String::new(), decision: Decision::Refuse, reason: Some(text.to_owned()), attributes: None };
            answer.reason()
        };
        assert_eq!(reason("not\r\nyours"), Some("notyours".to_owned()));
        assert_eq!(reason("\u{7}"), None);
        assert_eq!(reason(&"ä".repeat(999)).map(|text| text.chars().count()), Some(MAX_REASON));
    }
}
