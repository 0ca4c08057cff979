//! Details: what an entry commits to and does not hold.

use std::collections::BTreeMap;

use fleetmark_domain::RevocationReason;
use ring::digest::{Context, SHA256};

use crate::cbor::{Reader, form, write};
use crate::entry::EntryError;
use crate::merkle::finish;

/// The longest details, in octets.
pub const MAX_DETAILS: usize = 16 * 1024;

/// The longest actor and subject, in octets of UTF-8.
pub const MAX_NAME: usize = 1_024;

/// The longest note, in octets of UTF-8.
pub const MAX_NOTE: usize = 8 * 1024;

/// The most attributes.
pub const MAX_ATTRIBUTES: usize = 32;

/// The longest attribute's key and value, in octets of UTF-8.
pub const MAX_ATTRIBUTE: usize = 1_024;

/// The most octets that all attributes take: those of keys and values, and six for each attribute.
pub const MAX_ATTRIBUTES_OCTETS: usize = 12 * 1024;

/// What everything but attributes and note takes at most, in octets.
const OTHERS: usize = 2_100;

/// `SHA-256(salt || CBOR)`: tells nothing of the details to who lacks the salt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Commitment(pub [u8; 32]);

/// Names, reasons and who did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// 16 octets of a CSPRNG.
    pub salt: [u8; 16],
    /// Who did it: a SPIFFE ID, or `fleetmark` for the server by itself.
    pub actor: String,
    /// Whom it concerns: a SPIFFE ID, a fleet's or an authority's name.
    pub subject: Option<String>,
    /// RFC 5280 reason, of a revocation.
    pub reason: Option<RevocationReason>,
    /// What the actor wrote, or what the server says of it.
    pub note: Option<String>,
    /// Of `registered` and `changed`, all attributes that the subject has from here on. [`attributes_fit`] says whether
    /// they can be written.
    pub attributes: BTreeMap<String, String>,
}

impl Details {
    /// Deterministic CBOR, the salt within, as docs/ledger.md gives it in CDDL. Actor and subject are cut after
    /// [`MAX_NAME`] octets and the note after [`MAX_NOTE`] (or less, beside many attributes), at a character's end, so that
    /// what was written can be read. Attributes that do not fit are left out; who registers refuses them before.
    pub fn encode(&self) -> Vec<u8> {
        let (attributes, octets) = written_attributes(&self.attributes);
        let optional = [self.subject.is_some(), self.reason.is_some(), self.note.is_some(), !attributes.is_empty()];
        let fields = optional.into_iter().map(u64::from).sum::<u64>() + 2;
        write(|w| {
            w.map(fields)?.u8(1)?.bytes(&self.salt)?.u8(2)?.str(cut(&self.actor, MAX_NAME))?;
            if let Some(subject) = &self.subject {
                w.u8(3)?.str(cut(subject, MAX_NAME))?;
            }
            if let Some(reason) = self.reason {
                w.u8(4)?.u8(reason.code())?;
            }
            if let Some(note) = &self.note {
                w.u8(5)?.str(cut(note, MAX_NOTE.min(MAX_DETAILS - OTHERS - octets)))?;
            }
            if !attributes.is_empty() {
                w.u8(6)?.map(u64::try_from(attributes.len()).unwrap_or(u64::MAX))?;
                for (key, value) in &attributes {
                    w.str(key)?.str(value)?;
                }
            }
            Ok(())
        })
    }

    /// Reads details; at most [`MAX_DETAILS`] octets, and only what [`Self::encode`] writes.
    ///
    /// # Errors
    /// [`EntryError::TooLong`] beyond [`MAX_DETAILS`], [`EntryError::Form`] for everything else.
    pub fn decode(octets: &[u8]) -> Result<Self, EntryError> {
        if octets.len() > MAX_DETAILS {
            return Err(EntryError::TooLong);
        }
        let mut reader = Reader::new(octets);
        reader.map()?;
        reader.key(1)?;
        let salt = reader.octets()?;
        reader.key(2)?;
        let actor = reader.text()?;
        let subject = if reader.key_if(3) { Some(reader.text()?) } else { None };
        let reason = if reader.key_if(4) { Some(reason_from_code(reader.u8()?)?) } else { None };
        let note = if reader.key_if(5) { Some(reader.text()?) } else { None };
        let attributes = if reader.key_if(6) { read_attributes(&mut reader)? } else { BTreeMap::new() };
        let details = Self { salt, actor, subject, reason, note, attributes };
        if details.encode() == octets { Ok(details) } else { Err(form("the encoding is not the deterministic one")) }
    }

    /// The commitment that the entry holds: SHA-256 over the salt and [`Self::encode`].
    pub fn commitment(&self) -> Commitment {
        let mut context = Context::new(&SHA256);
        context.update(&self.salt);
        context.update(&self.encode());
        Commitment(finish(context))
    }
}

/// Whether details can hold these attributes: at most [`MAX_ATTRIBUTES`], of at most [`MAX_ATTRIBUTE`] octets a key or value,
/// and [`MAX_ATTRIBUTES_OCTETS`] in all.
pub fn attributes_fit(attributes: &BTreeMap<String, String>) -> bool {
    written_attributes(attributes).0.len() == attributes.len()
}

/// The attributes that fit, in the order of RFC 8949 4.2.1, and the octets that they take at most.
fn written_attributes(attributes: &BTreeMap<String, String>) -> (Vec<(&str, &str)>, usize) {
    let mut written: Vec<_> = attributes.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    // An encoded text begins with its length: a shorter key comes before a longer one.
    written.sort_unstable_by_key(|(key, _)| (key.len(), *key));
    written.truncate(MAX_ATTRIBUTES);
    let mut total = 0;
    written.retain(|(key, value)| {
        let sum = total + key.len() + value.len() + 6;
        let fits = key.len() <= MAX_ATTRIBUTE && value.len() <= MAX_ATTRIBUTE && sum <= MAX_ATTRIBUTES_OCTETS;
        if fits {
            total = sum;
        }
        fits
    });
    (written, total)
}

/// A map of texts. Order, repeats and lengths are checked by who writes the details again.
fn read_attributes(reader: &mut Reader<'_>) -> Result<BTreeMap<String, String>, EntryError> {
    (0..reader.map()?).map(|_| Ok((reader.text()?, reader.text()?))).collect()
}

fn reason_from_code(code: u8) -> Result<RevocationReason, EntryError> {
    RevocationReason::from_code(code).ok_or_else(|| form("there is no such reason"))
}

/// The longest beginning of `text` with at most `most` octets.
fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn details() -> Details {
        Details {
            salt: [7; 16],
            actor: "fleetmark".to_owned(),
            subject: Some("default".to_owned()),
            reason: Some(RevocationReason::PrivilegeWithdrawn),
            note: Some("é".to_owned()),
            attributes: [("zz", "1"), ("abc", ""), ("b", "é")].map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        }
    }

    /// Written by hand from the CDDL in docs/ledger.md and RFC 8949.
    const BY_HAND: &str = "a6\
        01 50 07070707070707070707070707070707\
        02 69 666c6565746d61726b\
        03 67 64656661756c74\
        04 09\
        05 62 c3a9\
        06 a3 61 62 62 c3a9 62 7a7a 61 31 63 616263 60";

    fn by_hand() -> Vec<u8> {
        hex::decode(BY_HAND.replace(' ', "")).unwrap()
    }

    #[test]
    fn details_are_those_written_by_hand() {
        assert_eq!(details().encode(), by_hand());
        assert_eq!(Details::decode(&by_hand()), Ok(details()));
        let few = Details { subject: None, reason: None, note: None, attributes: BTreeMap::new(), ..details() };
        assert_eq!(Details::decode(&few.encode()), Ok(few));
    }

    #[test]
    fn the_commitment_is_over_salt_and_cbor_and_hangs_on_the_salt() {
        let expected = ring::digest::digest(&SHA256, &[vec![7; 16], by_hand()].concat());
        assert_eq!(details().commitment().0, expected.as_ref());
        assert_ne!(details().commitment(), Details { salt: [8; 16], ..details() }.commitment());
    }

    #[test]
    fn other_encodings_are_refused() {
        let others = [
            ("0409", "041809"),
            ("0409", "0407"),
            ("a6", "a7"),
            ("0150", "015010"),
            ("62c3a9", "62c3c3"),
            ("06a361", "06b80361"),                                   // a length longer than it has to be
            ("06a3", "06a4"),                                         // one more, missing
            ("06a36162", "06a36262"),                                 // a key longer than there is
            ("06a3616262c3a9627a7a6131", "06a3627a7a6131616262c3a9"), // out of order
            ("06a3616262c3a9627a7a6131", "06a3616262c3a96162613100"), // a key twice
        ];
        for (from, to) in others {
            assert!(hex::encode(by_hand()).contains(from), "{from}");
            let octets = hex::encode(by_hand()).replacen(from, to, 1);
            assert!(Details::decode(&hex::decode(octets).unwrap()).is_err(), "{from} as {to}");
        }
        assert!(Details::decode(&[by_hand(), vec![0]].concat()).is_err());
        assert_eq!(Details::decode(&vec![0; MAX_DETAILS + 1]), Err(EntryError::TooLong));
    }

    #[test]
    fn long_texts_are_cut_at_a_characters_end() {
        let long = Details {
            actor: "a".repeat(MAX_NAME + 1),
            subject: Some("b".repeat(100_000)),
            note: Some(format!("x{}", "é".repeat(MAX_NOTE))),
            ..details()
        };
        let read = Details::decode(&long.encode()).unwrap();
        assert_eq!(read.actor.len(), MAX_NAME);
        assert_eq!(read.note.map(|note| note.len()), Some(MAX_NOTE - 1));
        let beyond = write(|w| w.map(2)?.u8(1)?.bytes(&[7; 16])?.u8(2)?.str(&long.actor)?.ok());
        assert!(matches!(Details::decode(&beyond), Err(EntryError::Form(_))));
    }

    #[test]
    fn no_attributes_are_no_field() {
        let none = Details { attributes: BTreeMap::new(), ..details() };
        let empty = hex::encode(none.encode()).replacen("a5", "a6", 1) + "06a0";
        assert!(Details::decode(&hex::decode(empty).unwrap()).is_err());
    }

    #[test]
    fn everything_at_its_longest_is_read() {
        let attributes = |count: usize, octets: usize| -> BTreeMap<String, String> {
            (0..count).map(|number| (format!("{number:0>8}"), "x".repeat(octets))).collect()
        };
        assert!(attributes_fit(&attributes(MAX_ATTRIBUTES, 370)));
        assert!(!attributes_fit(&attributes(MAX_ATTRIBUTES, 371)), "all together");
        assert!(!attributes_fit(&attributes(MAX_ATTRIBUTES + 1, 1)));
        assert!(attributes_fit(&attributes(1, MAX_ATTRIBUTE)));
        assert!(!attributes_fit(&attributes(1, MAX_ATTRIBUTE + 1)));
        assert!(!attributes_fit(&BTreeMap::from([("k".repeat(MAX_ATTRIBUTE + 1), String::new())])));
        for (count, octets) in [(MAX_ATTRIBUTES, 370), (40, 1_000), (11, MAX_ATTRIBUTE), (1, 5_000)] {
            let long = Details {
                actor: "a".repeat(MAX_NAME),
                subject: Some("b".repeat(MAX_NAME)),
                note: Some("n".repeat(MAX_NOTE)),
                attributes: attributes(count, octets),
                ..details()
            };
            let octets = long.encode();
            assert!(octets.len() <= MAX_DETAILS, "{count} of {octets:?}");
            let read = Details::decode(&octets).unwrap();
            assert_eq!(attributes_fit(&long.attributes), read.attributes == long.attributes, "{count}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            salt in any::<[u8; 16]>(),
            (actor, subject, note) in any::<(String, Option<String>, Option<String>)>(),
            attributes in proptest::collection::btree_map(any::<String>(), any::<String>(), 0..8),
            reason in prop::option::of(prop::sample::select(RevocationReason::ALL.to_vec())),
        ) {
            let details = Details { salt, actor, subject, reason, note, attributes };
            prop_assert_eq!(Details::decode(&details.encode()), Ok(details));
        }

        #[test]
        fn hostile_octets_do_no_harm(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(details) = Details::decode(&octets) {
                prop_assert_eq!(details.encode(), octets);
            }
        }
    }
}
