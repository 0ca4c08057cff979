//! Enrollment tokens and invitations: `fmt_<public id>_<secret>`.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fleetmark_domain::{Action, FleetName, Kind, Name, Refusal, Terms, Timestamp};
use ring::digest::{SHA256, digest};
use ring::hmac;
use secrecy::SecretString;

use super::caller::Caller;
use super::subjects::new_subject;
use super::{Error, Idempotency, Page, PageRequest, Registrar, Result};
use crate::store::acts::tokens::{MintToken, WithdrawToken};
use crate::store::model::{Token, TokenId, TokenState};
use crate::store::rows::Rows;
use crate::store::{StoreError, commit, read};

/// The longest life of a token.
const MAX_LIFETIME: Duration = Duration::from_secs(30 * 86_400);
/// The longest note.
const MAX_NOTE: usize = 256;
/// The most devices that one token is for.
pub const MAX_USES: u64 = 1_000_000;

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
    pub fn parse(text: &str) -> std::result::Result<Self, Refusal> {
        let parts = (text.len() <= 128).then(|| text.strip_prefix("fmt_")?.split_once('_')).flatten();
        let (id, secret) = parts.ok_or(Refusal::TokenUnknown)?;
        let mut token = TokenId::default();
        hex::decode_to_slice(id, &mut token).map_err(|_| Refusal::TokenUnknown)?;
        Ok(Self { id: token, secret_hash: sha256(secret.as_bytes()) })
    }
}

impl std::fmt::Debug for PresentedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PresentedToken").field("id", &hex::encode(self.id)).finish_non_exhaustive()
    }
}

impl TokenState {
    /// The key that the token is bound to.
    pub const fn bound_key(&self) -> Option<fleetmark_domain::KeyHash> {
        match self {
            Self::Reserved(key) | Self::Used(key) => Some(*key),
            Self::Fresh | Self::Withdrawn => None,
        }
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
    /// How many devices, 1 to 1,000,000, which names, from where, from when on; and whether a person approves each.
    pub terms: Terms,
}

/// A token's secret parts, before it is recorded.
pub(super) struct Draft {
    pub id: TokenId,
    pub secret_hash: [u8; 32],
    pub text: SecretString,
}

impl Registrar {
    /// Mints an enrollment token. The same Idempotency-Key and request give the same token.
    ///
    /// # Errors
    /// `NotPermitted`; for a device that was enrolled before `BlastRadiusExceeded`, and `NotPermitted` for who may not revoke it;
    /// `InvalidValue`, `FleetUnknown`, `NameTaken`, `IdentityOut`, `IdempotencyKeyReused`.
    pub async fn mint_token(
        &self,
        caller: &Caller,
        request: MintRequest,
        idempotency: Option<Idempotency>,
        now: Timestamp,
    ) -> Result<MintedToken> {
        let MintRequest { fleet, device, lifetime, note, terms } = request;
        caller.may(Action::MintToken, Some(&fleet))?;
        if note.chars().count() > MAX_NOTE {
            return Err(Error::with_detail(Refusal::InvalidValue, "A note has at most 256 characters."));
        }
        let expires_at = now + checked_lifetime(lifetime)?;
        let terms = checked_terms(terms, device.is_some(), expires_at)?;
        let draft = self.draft(caller, idempotency.as_ref())?;
        let token = Token {
            id: draft.id,
            secret_hash: draft.secret_hash,
            kind: Kind::Device,
            fleet: Some(fleet.clone()),
            subject: None,
            state: TokenState::Fresh,
            expires_at,
            created_at: now,
            created_by: caller.subject.id,
            note,
            terms,
            spent: 0,
            origin: None,
        };
        let subject = device.as_ref().map(|name| new_subject(Kind::Device, Some(fleet.clone()), name.clone(), now));
        let may_change = caller.may(Action::ChangeStanding, Some(&fleet)).is_ok();
        let details = self.details(caller.actor(self), device.map(String::from), None, None)?;
        let repeatable = idempotency.map(|key| key.repeatable(caller, hex::encode(draft.id), now));
        match commit(&*self.store, MintToken { token, subject, may_change, repeatable, details, at: now }).await {
            Ok((token, subject)) => Ok(MintedToken { text: draft.text, token, name: subject.map(|subject| subject.name) }),
            Err(error) if error.refusal() == Refusal::NotPermitted => {
                let detail = "The device is enrolled. Who mints a token for it must be permitted to revoke it too.";
                Err(Error::with_detail(Refusal::NotPermitted, detail))
            }
            Err(error) => Err(self.told(error, caller, Some(&fleet), now).await),
        }
    }

    /// Public id and secret of a new token: 160 random bits; with an Idempotency-Key derived from it, so that a repeat
    /// shows the same secret, which is kept nowhere.
    pub(super) fn draft(&self, caller: &Caller, idempotency: Option<&Idempotency>) -> Result<Draft> {
        let (id, secret): (TokenId, [u8; 20]) = match idempotency {
            None => (self.random()?, self.random()?),
            Some(idempotency) => {
                let message =
                    [&caller.subject.id.to_be_bytes()[..], &idempotency.request_hash, idempotency.key.as_bytes()].concat();
                let derived = hmac::sign(&self.token_key, &message);
                let (id, rest) = derived.as_ref().split_at(8);
                let secret = rest.get(..20).and_then(|secret| secret.try_into().ok());
                (id.try_into().map_err(|_| Refusal::Overloaded)?, secret.ok_or(Refusal::Overloaded)?)
            }
        };
        let secret = URL_SAFE_NO_PAD.encode(secret);
        let text = format!("fmt_{}_{secret}", hex::encode(id));
        Ok(Draft { id, secret_hash: sha256(secret.as_bytes()), text: text.into() })
    }

    /// The fleet's tokens.
    pub async fn tokens(&self, caller: &Caller, fleet: &FleetName, page: &PageRequest) -> Result<Page<TokenSummary>> {
        caller.may(Action::Read, Some(fleet))?;
        let after: Option<TokenId> = match &page.cursor {
            Some(cursor) => {
                let mut id = TokenId::default();
                hex::decode_to_slice(cursor, &mut id).map_err(|_| Refusal::MalformedRequest)?;
                Some(id)
            }
            None => None,
        };
        let (fleet, limit) = (fleet.clone(), page.limit);
        let items = read(&*self.store, move |rows| {
            if rows.fleet(&fleet)?.is_none() {
                return Err(Refusal::FleetUnknown.into());
            }
            let tokens = rows.tokens(Kind::Device, Some(&fleet), after.as_ref(), limit)?;
            tokens.into_iter().map(|token| summary(rows, token)).collect::<std::result::Result<Vec<_>, _>>()
        })
        .await?;
        Ok(Page::of(items, limit, |last| hex::encode(last.token.id)))
    }

    /// Withdraws a token; certificates enrolled with it stay.
    pub async fn withdraw_token(&self, caller: &Caller, fleet: &FleetName, id: &TokenId) -> Result<TokenSummary> {
        caller.may(Action::MintToken, Some(fleet))?;
        let act = WithdrawToken { id: *id, kind: Kind::Device, fleet: Some(fleet.clone()) };
        let token = commit(&*self.store, act).await?;
        Ok(read(&*self.store, move |rows| summary(rows, token)).await?)
    }
}

fn summary(rows: &mut dyn Rows, token: Token) -> std::result::Result<TokenSummary, StoreError> {
    let name = match token.subject {
        Some(id) => rows.subject(id)?.map(|subject| subject.name),
        None => None,
    };
    Ok(TokenSummary { token, name })
}

/// The terms of a token that ends at `expires_at`. One for a single device says nothing of how many.
fn checked_terms(terms: Terms, is_bound: bool, expires_at: Timestamp) -> Result<Terms> {
    let no = |detail: &str| Err(Error::with_detail(Refusal::InvalidValue, detail));
    let uses = terms.quota.unwrap_or(1);
    if !(1..=MAX_USES).contains(&uses) {
        return no("A token is for 1 to 1,000,000 devices.");
    }
    if is_bound && (uses > 1 || !terms.names.is_empty()) {
        return no("A token that is bound to a device is for that one alone: it has no other uses and no patterns.");
    }
    let terms = Terms { quota: (uses > 1).then_some(uses), ..terms };
    match (Terms { closes_at: Some(expires_at), ..terms.clone() }).check() {
        Ok(()) => Ok(terms),
        Err(invalid) => Err(Error::with_detail(Refusal::InvalidValue, format!("Of a token's terms: {invalid}."))),
    }
}

/// A lifetime within 1 s and 30 d.
pub(super) fn checked_lifetime(lifetime: Duration) -> Result<Duration> {
    if lifetime.is_zero() || lifetime > MAX_LIFETIME {
        return Err(Error::with_detail(Refusal::InvalidValue, "A token lives between 1 second and 30 days."));
    }
    Ok(lifetime)
}

/// SHA-256.
pub(super) fn sha256(octets: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, octets).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_checked_before_a_token_is_minted() {
        let names = || vec!["cam-*".parse().expect("a pattern")];
        let of = |quota| Terms { quota, ..Terms::default() };
        for (terms, is_bound, kept) in [
            (of(None), true, Some(None)),
            (of(Some(1)), true, Some(None)),
            (of(Some(2)), true, None),
            (of(Some(2)), false, Some(Some(2))),
            (of(Some(MAX_USES)), false, Some(Some(MAX_USES))),
            (of(Some(MAX_USES + 1)), false, None),
            (of(Some(0)), false, None),
            (Terms { names: names(), ..of(None) }, true, None),
            (Terms { names: names(), ..of(None) }, false, Some(None)),
            (Terms { opens_at: Some(Timestamp(100)), ..of(None) }, false, None),
            (Terms { opens_at: Some(Timestamp(99)), ..of(None) }, false, Some(None)),
        ] {
            let told = checked_terms(terms.clone(), is_bound, Timestamp(100));
            assert_eq!(told.as_ref().map(|terms| terms.quota).ok(), kept, "{terms:?}");
            if let Err(error) = told {
                assert_eq!(error.refusal, Refusal::InvalidValue);
            }
        }
    }

    #[test]
    fn other_texts_are_no_tokens() {
        for text in
            ["", "fmt_", "fmt_00", "fmt_0011223344556677", "xyz_0011223344556677_s", "fmt_001122334455667_s", &"a".repeat(200)]
        {
            assert_eq!(PresentedToken::parse(text).map(|token| token.id), Err(Refusal::TokenUnknown), "{text}");
        }
        let token = PresentedToken::parse("fmt_0011223344556677_secret").expect("a token");
        assert_eq!(token.id, [0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77]);
        assert!(!format!("{token:?}").contains("secret:"), "{token:?}");
    }
}
