//! A statement of standing: what one certificate is worth now and what its holder should do, signed by the key that signs the status
//! lists, and bound to a nonce of the holder's. So it is fresh, and tells the time, also to a device without a clock.

use crate::header::SIGNATURE_LENGTH;
use crate::reader::Verify;
use crate::reason::Refusal;

/// The first four octets: the format and its version. No status list begins like this, so no signature of one is the other's.
pub const MAGIC: [u8; 4] = *b"FMO1";
/// A nonce's length, in octets: from a random generator, never used twice.
pub const NONCE_LENGTH: usize = 32;
/// A serial number's length, in octets.
pub const SERIAL_LENGTH: usize = 17;
/// A request's length, in octets: nonce, serial.
pub const REQUEST_LENGTH: usize = NONCE_LENGTH + SERIAL_LENGTH;
/// A statement's length, in octets, its signature with it.
pub const STATEMENT_LENGTH: usize = SIGNED_LENGTH + SIGNATURE_LENGTH;
/// What is signed.
const SIGNED_LENGTH: usize = 80;

/// What a certificate is worth. The codes never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Worth {
    /// Issued, and not confirmed yet.
    Unconfirmed = 0,
    /// Good.
    Good = 1,
    /// Its holder confirmed a newer one.
    Superseded = 2,
    /// Suspended.
    Held = 3,
    /// Suspected.
    Quarantined = 4,
    /// Ended for ever.
    Revoked = 5,
    /// Its time is over.
    Expired = 6,
}

/// What the holder should do. The codes never change their meaning; one that a reader does not know means [`Action::Stop`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Action {
    /// Nothing.
    GoOn = 0,
    /// Confirm the certificate.
    Confirm = 1,
    /// Renew.
    Renew = 2,
    /// Use the newer certificate; who has none was copied, or lost it, and needs an operator.
    UseNewer = 3,
    /// Wait, and ask again at the time that the statement says.
    Wait = 4,
    /// Update the software, then ask again.
    Update = 5,
    /// Enroll again, with a new key and a proof.
    Enroll = 6,
    /// Stop: the device is out of use.
    Stop = 7,
}

/// A statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    /// The first 8 octets of SHA-256 over the signing key's point (SEC 1, uncompressed, 65 octets).
    pub key_id: [u8; 8],
    /// The request's.
    pub nonce: [u8; NONCE_LENGTH],
    /// The certificate's serial number.
    pub serial: [u8; SERIAL_LENGTH],
    /// What it is worth.
    pub worth: Worth,
    /// What its holder should do.
    pub action: Action,
    /// Why it was revoked: the number of RFC 5280 5.3.1; 0 for no reason.
    pub reason: u8,
    /// The server's time, in seconds since 1970.
    pub at: u64,
    /// When to ask again, in seconds since 1970.
    pub ask_again_at: u64,
}

impl Statement {
    /// Reads a statement, and accepts it where it answers this request under this key.
    ///
    /// # Errors
    /// [`Refusal::Malformed`], [`Refusal::UnknownVersion`], [`Refusal::OtherKey`], [`Refusal::BadSignature`];
    /// [`Refusal::RolledBack`] for the answer to another request.
    pub fn open(octets: &[u8], request: &[u8; REQUEST_LENGTH], key: &impl Verify) -> Result<Self, Refusal> {
        let (signed, signature): (_, &[u8; SIGNATURE_LENGTH]) = octets.split_last_chunk().ok_or(Refusal::Malformed)?;
        let statement = Self::fields(signed)?;
        if statement.key_id != key.key_id() {
            return Err(Refusal::OtherKey);
        }
        let (nonce, serial) = request.split_at(NONCE_LENGTH);
        if statement.nonce != *nonce || statement.serial != *serial {
            return Err(Refusal::RolledBack);
        }
        if key.verify(signed, signature) { Ok(statement) } else { Err(Refusal::BadSignature) }
    }

    fn fields(signed: &[u8]) -> Result<Self, Refusal> {
        let fixed: &[u8; SIGNED_LENGTH] = signed.try_into().map_err(|_| Refusal::Malformed)?;
        let mut rest = fixed.as_slice();
        if take(&mut rest)? != MAGIC {
            return Err(Refusal::UnknownVersion);
        }
        let (key_id, nonce, serial) = (take(&mut rest)?, take(&mut rest)?, take(&mut rest)?);
        let [worth, action, reason] = take(&mut rest)?;
        Ok(Self {
            key_id,
            nonce,
            serial,
            worth: Worth::from_code(worth).ok_or(Refusal::Malformed)?,
            action: Action::from_code(action),
            reason,
            at: u64::from_be_bytes(take(&mut rest)?),
            ask_again_at: u64::from_be_bytes(take(&mut rest)?),
        })
    }

    /// What is signed.
    pub fn signed_octets(&self) -> [u8; SIGNED_LENGTH] {
        let mut octets = [0; SIGNED_LENGTH];
        let parts: [&[u8]; 7] = [
            &MAGIC,
            &self.key_id,
            &self.nonce,
            &self.serial,
            &[self.worth.code(), self.action.code(), self.reason],
            &self.at.to_be_bytes(),
            &self.ask_again_at.to_be_bytes(),
        ];
        for (place, octet) in octets.iter_mut().zip(parts.into_iter().flatten()) {
            *place = *octet;
        }
        octets
    }
}

impl Worth {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Unconfirmed, Self::Good, Self::Superseded, Self::Held, Self::Quarantined, Self::Revoked, Self::Expired];

    /// The stable code.
    #[expect(clippy::as_conversions, reason = "the discriminant is the code")]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The worth with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|worth| worth.code() == code)
    }

    /// The name of the code.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unconfirmed => "unconfirmed",
            Self::Good => "good",
            Self::Superseded => "superseded",
            Self::Held => "held",
            Self::Quarantined => "quarantined",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::GoOn, Self::Confirm, Self::Renew, Self::UseNewer, Self::Wait, Self::Update, Self::Enroll, Self::Stop];

    /// The stable code.
    #[expect(clippy::as_conversions, reason = "the discriminant is the code")]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The action with this code.
    pub fn from_code(code: u8) -> Self {
        Self::ALL.into_iter().find(|action| action.code() == code).unwrap_or(Self::Stop)
    }

    /// The name of the code.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GoOn => "go_on",
            Self::Confirm => "confirm",
            Self::Renew => "renew",
            Self::UseNewer => "use_newer",
            Self::Wait => "wait",
            Self::Update => "update",
            Self::Enroll => "enroll",
            Self::Stop => "stop",
        }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Refusal> {
    let (first, after) = rest.split_first_chunk().ok_or(Refusal::Malformed)?;
    *rest = after;
    Ok(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key whose signature is the sum of the octets: what is tested here is what it is asked about.
    struct Sum;

    impl Verify for Sum {
        fn key_id(&self) -> [u8; 8] {
            [7; 8]
        }

        fn verify(&self, message: &[u8], signature: &[u8; SIGNATURE_LENGTH]) -> bool {
            sign(message) == *signature
        }
    }

    fn sign(message: &[u8]) -> [u8; SIGNATURE_LENGTH] {
        let sum = message.iter().enumerate().fold(0_u64, |sum, (at, octet)| sum + (at as u64 + 1) * u64::from(*octet));
        let mut signature = [0; SIGNATURE_LENGTH];
        signature[..8].copy_from_slice(&sum.to_be_bytes());
        signature
    }

    fn statement() -> Statement {
        Statement {
            key_id: [7; 8],
            nonce: [1; NONCE_LENGTH],
            serial: [2; SERIAL_LENGTH],
            worth: Worth::Revoked,
            action: Action::Enroll,
            reason: 1,
            at: 1_790_000_000,
            ask_again_at: 1_790_003_600,
        }
    }

    fn octets(statement: &Statement) -> std::vec::Vec<u8> {
        let signed = statement.signed_octets();
        [&signed[..], &sign(&signed)].concat()
    }

    fn request() -> [u8; REQUEST_LENGTH] {
        let mut request = [1; REQUEST_LENGTH];
        request[NONCE_LENGTH..].fill(2);
        request
    }

    #[test]
    fn a_statement_reads_back_and_every_changed_octet_is_noticed() {
        let good = octets(&statement());
        assert_eq!(good.len(), STATEMENT_LENGTH);
        assert_eq!(Statement::open(&good, &request(), &Sum), Ok(statement()));
        for at in 0..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 0x40;
            assert!(Statement::open(&changed, &request(), &Sum).is_err(), "octet {at}");
        }
        for length in 0..good.len() {
            assert_eq!(Statement::open(&good[..length], &request(), &Sum), Err(Refusal::Malformed));
        }
        assert_eq!(Statement::open(&[&good[..], &[0]].concat(), &request(), &Sum), Err(Refusal::Malformed));
    }

    #[test]
    fn an_answer_to_another_request_is_no_answer() {
        let good = octets(&statement());
        for at in [0, NONCE_LENGTH - 1, NONCE_LENGTH, REQUEST_LENGTH - 1] {
            let mut other = request();
            other[at] ^= 1;
            assert_eq!(Statement::open(&good, &other, &Sum), Err(Refusal::RolledBack));
        }
        let other_key = Statement { key_id: [8; 8], ..statement() };
        assert_eq!(Statement::open(&octets(&other_key), &request(), &Sum), Err(Refusal::OtherKey));
    }

    #[test]
    fn an_unknown_action_is_to_stop_and_an_unknown_worth_is_refused() {
        let mut signed = statement().signed_octets();
        signed[62] = 200;
        let unknown = [&signed[..], &sign(&signed)].concat();
        assert_eq!(Statement::open(&unknown, &request(), &Sum).map(|statement| statement.action), Ok(Action::Stop));
        signed[61] = 200;
        let unknown = [&signed[..], &sign(&signed)].concat();
        assert_eq!(Statement::open(&unknown, &request(), &Sum), Err(Refusal::Malformed));
    }
}
