//! Certificates that are adopted when they are first seen, by fingerprints that another CA's database gives.

use std::collections::HashSet;

use fleetmark_domain::{Action, Fingerprint, FleetName, Name, Refusal, Timestamp};

use crate::registrar::caller::Caller;
use crate::registrar::{Error, Page, PageRequest, Registrar, Result};
use crate::store::acts::external::expect::{Expect, Expectation, Unexpect};
use crate::store::model::{AdoptWhen, Expected, External, ExternalSwitch};
use crate::store::{commit, read};

/// The most octets of one list.
pub const MAX_LIST: usize = 1024 * 1024;
/// The most fingerprints of one list.
pub const MAX_EXPECTED: usize = 5_000;
/// So many are written in one transaction.
const AT_ONCE: usize = 500;

/// A line of a list: a fingerprint, and the device that its certificate must name, where that is said.
pub type Line = (Fingerprint, Option<Name>);

/// What became of one fingerprint of a list.
#[derive(Debug, Clone)]
pub struct Expecting {
    /// SHA-256 over the certificate.
    pub fingerprint: Fingerprint,
    /// The device that it must name.
    pub device: Option<Name>,
    /// Whether it is expected now, or was adopted before; or why not.
    pub outcome: std::result::Result<Expectation, Refusal>,
}

/// A certificate that is expected.
#[derive(Debug, Clone)]
pub struct ExpectedView {
    /// The record.
    pub expected: Expected,
    /// Its external authority's name.
    pub authority: Name,
}

/// Reads a list: lines of `fingerprint` or `fingerprint,device`, with or without that as the head. A fingerprint is 64 hexadecimal
/// digits, with or without colons.
///
/// # Errors
/// What is wrong with the first line that cannot be read, by its number; with none, or more than 5,000.
pub fn expecting(text: &str) -> std::result::Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    let mut seen = HashSet::new();
    for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let line = line.trim();
        let is_head = number == 1 && line.to_ascii_lowercase().starts_with("fingerprint");
        if line.is_empty() || is_head {
            continue;
        }
        if lines.len() >= MAX_EXPECTED {
            return Err(format!("there are more than {MAX_EXPECTED}"));
        }
        let mut fields = line.split(',').map(|field| field.trim().trim_matches('"'));
        let digits = fields.next().unwrap_or_default().replace(':', "").to_ascii_lowercase();
        let fingerprint: Fingerprint =
            digits.parse().map_err(|_| format!("line {number}: a fingerprint is SHA-256 in hexadecimal"))?;
        let device = fields.next().filter(|field| !field.is_empty()).map(str::parse::<Name>).transpose();
        let device = device.map_err(|_| format!("line {number}: the second field is no device's name"))?;
        if fields.next().is_some() {
            return Err(format!("line {number}: it has more than two fields"));
        }
        if !seen.insert(fingerprint) {
            return Err(format!("line {number}: this fingerprint was there before"));
        }
        lines.push((fingerprint, device));
    }
    if lines.is_empty() { Err("there is no fingerprint in it".to_owned()) } else { Ok(lines) }
}

impl Registrar {
    /// Expects certificates of an external authority: each is adopted when it is first seen.
    ///
    /// # Errors
    /// `NotFound`; `TransitionNotAllowed` for an external authority that has ended, or whose certificates are imported alone.
    pub async fn expect_external(
        &self,
        caller: &Caller,
        (fleet, authority): (&FleetName, &Name),
        lines: Vec<Line>,
        now: Timestamp,
    ) -> Result<Vec<Expecting>> {
        let external = self.external_authority(caller, fleet, authority).await?.external;
        caller.may(Action::RegisterDevice, Some(fleet))?;
        if external.switch == ExternalSwitch::Ended {
            return Err(Error::with_detail(Refusal::TransitionNotAllowed, "The external authority has ended."));
        }
        if external.rules.adopt.when == AdoptWhen::Import {
            let detail = "Its certificates are imported alone. Set adopt.when to listed, or on-sight.";
            return Err(Error::with_detail(Refusal::TransitionNotAllowed, detail));
        }
        let mut told = Vec::with_capacity(lines.len());
        for some in lines.chunks(AT_ONCE) {
            let (fleet, authority) = (external.fleet.clone(), external.id);
            let expected = some.iter().map(|(fingerprint, device)| Expected {
                fingerprint: *fingerprint,
                authority,
                device: device.clone(),
                at: now,
            });
            let act = Expect { fleet, authority, expected: expected.collect() };
            let outcomes = commit(&*self.store, act).await?;
            told.extend(some.iter().zip(outcomes).map(|((fingerprint, device), outcome)| Expecting {
                fingerprint: *fingerprint,
                device: device.clone(),
                outcome,
            }));
        }
        let (actor, count) = (caller.actor(self), told.iter().filter(|one| one.outcome == Ok(Expectation::Expected)).count());
        tracing::info!(actor, %fleet, authority = %external.name, count, "certificates of another authority are expected");
        Ok(told)
    }

    /// The certificates that are expected in a fleet, or of one of its external authorities, by fingerprint.
    pub async fn expected_certificates(
        &self,
        caller: &Caller,
        fleet: &FleetName,
        authority: Option<&Name>,
        page: &PageRequest,
    ) -> Result<Page<ExpectedView>> {
        caller.may(Action::Read, Some(fleet))?;
        let after = match &page.cursor {
            Some(cursor) => {
                let malformed = || Error::with_detail(Refusal::MalformedRequest, "The cursor is none of ours.");
                cursor.parse::<Fingerprint>().map_err(|_| malformed())?.0.to_vec()
            }
            None => Vec::new(),
        };
        let (limit, fleet, wanted) = (page.limit, fleet.clone(), authority.map(Name::folded));
        let found = read(&*self.store, move |rows| {
            if rows.fleet(&fleet)?.is_none() {
                return Err(Refusal::FleetUnknown.into());
            }
            let mut all = rows.externals(Some(&fleet))?;
            all.retain(|external| wanted.as_ref().is_none_or(|name| external.name.folded() == *name));
            if wanted.is_some() && all.is_empty() {
                return Err(Refusal::NotFound.into());
            }
            let ids: Vec<_> = all.iter().map(|external| external.id).collect();
            let expected = rows.expected_of(&ids, &after, limit)?;
            let views = expected.into_iter().filter_map(|expected| view(&all, expected));
            Ok(views.collect::<Vec<_>>())
        });
        Ok(Page::of(found.await?, limit, |last| last.expected.fingerprint.to_string()))
    }

    /// Expects a certificate no longer.
    ///
    /// # Errors
    /// `NotFound` for one that is not expected.
    pub async fn unexpect_external(
        &self,
        caller: &Caller,
        fleet: &FleetName,
        fingerprint: Fingerprint,
    ) -> Result<ExpectedView> {
        caller.may(Action::RegisterDevice, Some(fleet))?;
        let (expected, authority) = commit(&*self.store, Unexpect { fleet: fleet.clone(), fingerprint }).await?;
        let actor = caller.actor(self);
        tracing::info!(actor, %fleet, %fingerprint, "a certificate of another authority is expected no longer");
        Ok(ExpectedView { expected, authority })
    }
}

fn view(all: &[External], expected: Expected) -> Option<ExpectedView> {
    let authority = all.iter().find(|external| external.id == expected.authority)?.name.clone();
    Some(ExpectedView { expected, authority })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_databases_give_them() {
        let digits = |digit: &str| digit.repeat(64);
        let colons = ["AB"; 32].join(":");
        let text = format!("\u{feff}Fingerprint,Device\r\n{},pump-1\r\n\n{colons}\n\"{}\",\n", digits("1"), digits("2"));
        let read = expecting(&text).unwrap();
        assert_eq!(
            read,
            [
                (Fingerprint([0x11; 32]), Some("pump-1".parse().unwrap())),
                (Fingerprint([0xab; 32]), None),
                (Fingerprint([0x22; 32]), None),
            ]
        );
        let one = digits("1");
        for (text, why) in [
            (String::new(), "no fingerprint"),
            ("fingerprint,device\n".to_owned(), "no fingerprint"),
            (format!("{one}\n{one},b\n"), "line 2: this fingerprint was there"),
            (format!("{one}1"), "line 1"),
            ("pump-1".to_owned(), "line 1"),
            (format!("{one},-"), "no device's name"),
            (format!("{one},a,b"), "more than two"),
            ((0..=MAX_EXPECTED).map(|number| format!("{number:064x}")).collect::<Vec<_>>().join("\n"), "more than 5000"),
        ] {
            let told = expecting(&text).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }
}
