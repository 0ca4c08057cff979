//! Serial numbers: `0x01 | epoch u32 | index u32 | 8 random octets`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One numbering space of certificates, of one authority and one window of time. Never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Epoch(pub u32);

/// A certificate's place in its epoch; dense from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Index(pub u32);

/// An epoch ends at this many certificates.
pub const EPOCH_CAPACITY: u32 = 1 << 24;

/// A serial number's length, in octets.
pub const SERIAL_LENGTH: usize = 17;

/// Why octets or a text are no serial of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SerialError {
    /// Not 17 octets, or not beginning with `0x01`.
    #[error("a serial of ours has 17 octets and begins with 01")]
    Form,
}

/// A certificate's serial number.
///
/// RFC 5280 4.1.2.2: positive, at most 20 octets. The leading `0x01` keeps it positive and of one length; the
/// random octets carry more than the 64 bits that the CA/Browser Forum asks for in a serial.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial([u8; SERIAL_LENGTH]);

impl Serial {
    /// The serial of a certificate; `random` comes from a CSPRNG.
    pub fn new(epoch: Epoch, index: Index, random: [u8; 8]) -> Self {
        let mut octets = [0; SERIAL_LENGTH];
        let (version, rest) = octets.split_at_mut(1);
        let (epoch_part, rest) = rest.split_at_mut(4);
        let (index_part, random_part) = rest.split_at_mut(4);
        version.copy_from_slice(&[1]);
        epoch_part.copy_from_slice(&epoch.0.to_be_bytes());
        index_part.copy_from_slice(&index.0.to_be_bytes());
        random_part.copy_from_slice(&random);
        Self(octets)
    }

    /// Reads the content octets of a DER INTEGER.
    ///
    /// # Errors
    /// [`SerialError::Form`] for a serial that we never write.
    pub fn from_octets(octets: &[u8]) -> Result<Self, SerialError> {
        let octets: [u8; SERIAL_LENGTH] = octets.try_into().map_err(|_| SerialError::Form)?;
        if octets.first() == Some(&1) { Ok(Self(octets)) } else { Err(SerialError::Form) }
    }

    /// The content octets of the DER INTEGER.
    pub const fn octets(&self) -> &[u8; SERIAL_LENGTH] {
        &self.0
    }

    /// The numbering space.
    pub const fn epoch(&self) -> Epoch {
        let [_, a, b, c, d, ..] = self.0;
        Epoch(u32::from_be_bytes([a, b, c, d]))
    }

    /// The place in it.
    pub const fn index(&self) -> Index {
        let [_, _, _, _, _, a, b, c, d, ..] = self.0;
        Index(u32::from_be_bytes([a, b, c, d]))
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

impl FromStr for Serial {
    type Err = SerialError;

    /// Reads hexadecimal as openssl prints it: either case, colons allowed.
    fn from_str(text: &str) -> Result<Self, SerialError> {
        if text.len() > 3 * SERIAL_LENGTH {
            return Err(SerialError::Form);
        }
        let digits: String = text.chars().filter(|c| *c != ':').collect();
        Self::from_octets(&hex::decode(digits).map_err(|_| SerialError::Form)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back() {
        let serial = Serial::new(Epoch(7), Index(0x00ff_1234), [9; 8]);
        assert_eq!(serial.epoch(), Epoch(7));
        assert_eq!(serial.index(), Index(0x00ff_1234));
        assert_eq!(serial.to_string(), "010000000700ff12340909090909090909");
        assert_eq!(serial.to_string().parse(), Ok(serial));
        assert_eq!("01:00:00:00:07:00:FF:12:34:09:09:09:09:09:09:09:09".parse(), Ok(serial));
    }

    #[test]
    fn foreign_serials_are_refused() {
        assert!(Serial::from_octets(&[0; 17]).is_err());
        assert!(Serial::from_octets(&[1; 16]).is_err());
        assert!("zz".parse::<Serial>().is_err());
    }
}
