//! Enrollment tokens and invitations: `fmt_<public id>_<secret>`.

use std::time::Duration;

use fleetmark_domain::{FleetName, Name, Refusal, Timestamp};
use secrecy::SecretString;

use super::caller::Caller;
use super::{Idempotency, Page, PageRequest, Registrar, Result};
use crate::store::model::{Token, TokenId};

/// A token as a client presented it. Its `Debug` shows the public id alone.
pub struct PresentedToken {
    pub(crate) id: TokenId,
    pub(crate) secret_hash: [u8; 32],
}

impl PresentedToken {
    /// Reads a token's text, at most 128 characters.
    ///
    /// # Errors
    /// `TokenUnknown` for any other text: a malformed token is one that we never minted.
    pub fn parse(_text: &str) -> std::result::Result<Self, Refusal> {
        todo!()
    }
}

impl std::fmt::Debug for PresentedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let _ = self.secret_hash;
        f.debug_struct("PresentedToken").field("id", &hex::encode(self.id)).finish_non_exhaustive()
    }
}

/// A token just minted: its text is shown once.
pub struct MintedToken {
    /// The text for the device.
    pub text: SecretString,
    /// The record.
    pub token: Token,
    /// The name that it is bound to.
    pub name: Option<Name>,
}

/// A token's record, for a list.
#[derive(Debug, Clone)]
pub struct TokenSummary {
    /// The record.
    pub token: Token,
    /// The name that it is bound to.
    pub name: Option<Name>,
}

/// What to mint.
#[derive(Debug, Clone)]
pub struct MintRequest {
    /// For this fleet.
    pub fleet: FleetName,
    /// For this device, which is registered if it is not known; None: for whoever comes first.
    pub device: Option<Name>,
    /// For so long; 1 s to 30 d.
    pub lifetime: Duration,
    /// What the operator writes; at most 256 characters.
    pub note: String,
}

impl Registrar {
    /// Mints an enrollment token. The same Idempotency-Key and request give the same token.
    pub async fn mint_token(
        &self,
        _caller: &Caller,
        _request: MintRequest,
        _idempotency: Option<Idempotency>,
        _now: Timestamp,
    ) -> Result<MintedToken> {
        todo!()
    }

    /// The fleet's tokens.
    pub async fn tokens(&self, _caller: &Caller, _fleet: &FleetName, _page: &PageRequest) -> Result<Page<TokenSummary>> {
        todo!()
    }

    /// Withdraws a token; certificates enrolled with it stay.
    pub async fn withdraw_token(
        &self,
        _caller: &Caller,
        _fleet: &FleetName,
        _id: &TokenId,
        _now: Timestamp,
    ) -> Result<TokenSummary> {
        todo!()
    }
}
