//! The little CBOR that entries and details need: deterministic (RFC 8949 4.2.1), integer keys, definite lengths.

use std::convert::Infallible;

use minicbor::{Decoder, Encoder};

use crate::entry::EntryError;

/// Where fields are written.
pub(crate) type Writer = Encoder<Vec<u8>>;

/// Writing into memory fails never; minicbor's signature says otherwise.
pub(crate) type Written = Result<(), minicbor::encode::Error<Infallible>>;

/// The octets that `build` writes.
pub(crate) fn write(build: impl FnOnce(&mut Writer) -> Written) -> Vec<u8> {
    let mut writer = Encoder::new(Vec::new());
    let written = build(&mut writer);
    debug_assert!(written.is_ok(), "a Vec takes all octets");
    writer.into_writer()
}

/// Reads one value of known shape. That integers are the shortest and lengths definite is checked by the caller, who
/// writes the value again and compares.
pub(crate) struct Reader<'a>(Decoder<'a>);

impl<'a> Reader<'a> {
    pub(crate) fn new(octets: &'a [u8]) -> Self {
        Self(Decoder::new(octets))
    }

    /// The head of a map with as many fields as this tells.
    pub(crate) fn map(&mut self) -> Result<u64, EntryError> {
        self.0.map().map_err(|_| form("a map is missing"))?.ok_or_else(|| form("a map has no definite length"))
    }

    /// The head of a map with exactly `fields` fields.
    pub(crate) fn map_of(&mut self, fields: u64) -> Result<(), EntryError> {
        if self.map()? == fields { Ok(()) } else { Err(form("a map has other fields")) }
    }

    /// The head of an array.
    pub(crate) fn array(&mut self) -> Result<u64, EntryError> {
        self.0.array().map_err(|_| form("an array is missing"))?.ok_or_else(|| form("an array has no definite length"))
    }

    /// A map's key, which must be this one.
    pub(crate) fn key(&mut self, key: u8) -> Result<(), EntryError> {
        match self.0.u8() {
            Ok(found) if found == key => Ok(()),
            _ => Err(EntryError::Form(format!("key {key} is missing"))),
        }
    }

    /// The next key, when it is `key`; nothing is read otherwise.
    pub(crate) fn key_if(&mut self, key: u8) -> bool {
        let before = self.0.position();
        let found = self.0.u8().is_ok_and(|found| found == key);
        if !found {
            self.0.set_position(before);
        }
        found
    }

    pub(crate) fn u8(&mut self) -> Result<u8, EntryError> {
        self.0.u8().map_err(|_| form("a number of 8 bits is missing"))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, EntryError> {
        self.0.u32().map_err(|_| form("a number of 32 bits is missing"))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, EntryError> {
        self.0.u64().map_err(|_| form("a number of 64 bits is missing"))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, EntryError> {
        self.0.i64().map_err(|_| form("a time is missing"))
    }

    /// A byte string of exactly `N` octets.
    pub(crate) fn octets<const N: usize>(&mut self) -> Result<[u8; N], EntryError> {
        let octets = self.0.bytes().map_err(|_| form("a byte string is missing"))?;
        octets.try_into().map_err(|_| form("a byte string is of another length"))
    }

    pub(crate) fn text(&mut self) -> Result<String, EntryError> {
        self.0.str().map(str::to_owned).map_err(|_| form("a text is missing"))
    }
}

/// [`EntryError::Form`] with these words.
pub(crate) fn form(why: &str) -> EntryError {
    EntryError::Form(why.to_owned())
}
