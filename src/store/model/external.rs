//! Other authorities, and what is known of their certificates that a fleet adopted.

use fleetmark_domain::{Epoch, Fingerprint, FleetName, KeyHash, Name, Naming, Standing, Timestamp};
use fleetmark_ledger::entry::ExternalState;
use serde::{Deserialize, Serialize};

use super::{AuthorityId, SubjectId};

/// What operators say of an external authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExternalSwitch {
    /// Its certificates count.
    Enabled,
    /// They do not for now.
    Disabled,
    /// They never will again.
    Ended,
}

/// What happens when what an external authority says of its certificates is past its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnStale {
    /// Its certificates are refused until there is news.
    #[default]
    Refuse,
    /// They are taken by what was said last; an alarm is raised all the same.
    GoOn,
}

/// Where an external authority says what its certificates are worth.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum StatusSource {
    /// Nowhere: only what we say counts.
    #[default]
    None,
    /// In revocation lists at these URLs; together they hold all that is revoked.
    Crl {
        /// 1 to 8 of them.
        urls: Vec<String>,
    },
    /// In answers of this OCSP responder, one for each certificate.
    Ocsp {
        /// Where it is.
        url: String,
        /// Whether an answer must bring the question's nonce (RFC 9654).
        #[serde(default)]
        nonce: bool,
    },
}

/// How certificates of an external authority come to be adopted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdoptWhen {
    /// When an operator imports them, and in no other way.
    #[default]
    Import,
    /// Also when one is seen whose fingerprint an operator gave before.
    Listed,
    /// Also when one is seen that verifies, as many as the limits say.
    OnSight,
}

/// How certificates come to be adopted, and how many without an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Adopting {
    /// How.
    pub when: AdoptWhen,
    /// The most that are adopted on sight within an hour.
    pub hourly: u32,
    /// The most that are adopted on sight in all.
    pub most: u32,
}

impl Default for Adopting {
    fn default() -> Self {
        Self { when: AdoptWhen::Import, hourly: 100, most: 1_000 }
    }
}

impl Adopting {
    /// Rules from before there was a choice stay as they were, and their hash with them.
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How many certificates were adopted on sight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighted {
    /// In all.
    pub all: u32,
    /// When the hour began that is counted.
    pub hour: Timestamp,
    /// Within it.
    pub within: u32,
}

/// The length of the hour.
const HOUR: std::time::Duration = std::time::Duration::from_secs(3_600);

impl Default for Sighted {
    fn default() -> Self {
        Self { all: 0, hour: Timestamp(0), within: 0 }
    }
}

impl Sighted {
    /// With one more; None where `limits` allow no other one now.
    #[must_use]
    pub fn one_more(self, limits: &Adopting, now: Timestamp) -> Option<Self> {
        let is_over = self.hour == Timestamp(0) || now < self.hour || now.since(self.hour) >= HOUR;
        let (hour, within) = if is_over { (now, 0) } else { (self.hour, self.within) };
        let fits = self.all < limits.most && within < limits.hourly;
        fits.then(|| Self { all: self.all.saturating_add(1), hour, within: within.saturating_add(1) })
    }
}

/// A certificate that is adopted when it is first seen: an operator gave its fingerprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// SHA-256 over it.
    pub fingerprint: Fingerprint,
    /// Its external authority.
    pub authority: AuthorityId,
    /// The name that the naming rule must give; None: any.
    pub device: Option<Name>,
    /// Since when it is expected.
    pub at: Timestamp,
}

/// What an external authority is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExternalRules {
    /// How the devices of its certificates are called; never changes.
    pub naming: Naming,
    /// Extended key usages, as dotted numbers, that a certificate must have.
    pub usages: Vec<String>,
    /// Where the certificates' status comes from.
    pub status: StatusSource,
    /// What happens when that is past its end.
    pub on_stale: OnStale,
    /// After how long it is asked for at the latest, in seconds.
    pub interval: u32,
    /// How its certificates come to be adopted.
    #[serde(skip_serializing_if = "Adopting::is_default")]
    pub adopt: Adopting,
}

/// An external authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// Its id; 2^30 or more. The store sets it.
    pub id: AuthorityId,
    /// The one fleet that takes its certificates.
    pub fleet: FleetName,
    /// Its name, unique within the fleet without regard to case.
    pub name: Name,
    /// What operators say of it.
    pub switch: ExternalSwitch,
    /// What it says of its certificates is past its end, and that counts.
    pub stale: bool,
    /// Its rules.
    pub rules: ExternalRules,
    /// Its CA certificates in DER, one after the other.
    pub material: Vec<u8>,
    /// The numbering space that is open.
    pub epoch: Option<Epoch>,
    /// The lowest index in it that was not used.
    pub next_index: u32,
    /// How many of its certificates were adopted on sight.
    pub sighted: Sighted,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: SubjectId,
    /// Rises with every change by an operator; the entity tag (RFC 9110 8.8.3).
    pub version: u64,
}

impl External {
    /// What the ledger says of it.
    pub const fn state(&self) -> ExternalState {
        match (self.switch, self.stale) {
            (ExternalSwitch::Ended, _) => ExternalState::Ended,
            (ExternalSwitch::Disabled, _) => ExternalState::Disabled,
            (ExternalSwitch::Enabled, true) => ExternalState::Stale,
            (ExternalSwitch::Enabled, false) => ExternalState::Active,
        }
    }
}

/// What is known of an adopted certificate beside its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalCertificate {
    /// SHA-256 over it.
    pub fingerprint: Fingerprint,
    /// The place of its record: [`crate::store::rows::certificate_id`].
    pub place: u64,
    /// Its external authority.
    pub authority: AuthorityId,
    /// SHA-256 over its issuer's Name.
    pub issuer: [u8; 32],
    /// Its serial number's octets.
    pub serial: Vec<u8>,
    /// SHA-256 over its public key.
    pub key_hash: KeyHash,
    /// What we say that it is worth.
    pub own: Standing,
    /// What its authority says: good, held or revoked.
    pub foreign: Standing,
    /// End of its validity.
    pub not_after: Timestamp,
    /// Until when the last answer about it alone (OCSP) holds; or [`Self::LAPSED`].
    pub next_update: Option<Timestamp>,
}

impl ExternalCertificate {
    /// Stands for the end of an answer where its authority did not say that it is held: we hold it for want of an answer.
    pub const LAPSED: Timestamp = Timestamp(0);

    /// Whether it is held only since nothing that its authority said still holds.
    pub fn is_lapsed(&self) -> bool {
        self.foreign == Standing::Held && self.next_update == Some(Self::LAPSED)
    }
}

/// The newest revocation list at a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignList {
    /// The external authority.
    pub authority: AuthorityId,
    /// Where it was fetched.
    pub url: String,
    /// SHA-256 over its issuer's Name.
    pub issuer: [u8; 32],
    /// The octets of its CRLNumber; empty where it has none.
    pub number: Vec<u8>,
    /// When it was made.
    pub this_update: Timestamp,
    /// Until when it holds.
    pub next_update: Timestamp,
    /// The entity tag that it came with; empty: none.
    pub etag: String,
    /// The Last-Modified that it came with; empty: none.
    pub modified: String,
    /// When it was fetched, or found unchanged.
    pub fetched_at: Timestamp,
    /// The list.
    pub der: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_adopted_on_sight_and_no_more() {
        let limits = Adopting { when: AdoptWhen::OnSight, hourly: 2, most: 5 };
        let mut sighted = Sighted::default();
        let mut adopted = Vec::new();
        for second in (1_000..20_000).step_by(100) {
            if let Some(next) = sighted.one_more(&limits, Timestamp(second)) {
                sighted = next;
                adopted.push(second);
            }
        }
        assert_eq!(adopted, [1_000, 1_100, 4_600, 4_700, 8_200]);
        // An operator allows more; a clock that was set back begins a new hour.
        let more = Adopting { most: 9, ..limits };
        assert!(sighted.one_more(&more, Timestamp(8_300)).is_some());
        assert_eq!(sighted.one_more(&more, Timestamp(8_000)).map(|next| next.hour), Some(Timestamp(8_000)));
        assert_eq!(sighted.one_more(&Adopting { hourly: 0, ..more }, Timestamp(99_999)), None);
    }

    #[test]
    fn rules_from_before_the_choice_have_the_same_text() {
        let before = r#"{"naming":{},"usages":[],"status":{"kind":"none"},"on_stale":"refuse","interval":3600}"#;
        let rules: ExternalRules = serde_json::from_str(before).unwrap();
        assert_eq!(rules.adopt.when, AdoptWhen::Import);
        assert!(!serde_json::to_string(&rules).unwrap().contains("adopt"));
        let adopt = Adopting { when: AdoptWhen::OnSight, ..Adopting::default() };
        let text = serde_json::to_string(&ExternalRules { adopt, ..rules }).unwrap();
        assert!(text.ends_with(r#""adopt":{"when":"on-sight","hourly":100,"most":1000}}"#), "{text}");
    }
}
