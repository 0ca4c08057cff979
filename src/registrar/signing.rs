//! Where authorities' keys are used and made, so that a slow or lost token holds up nobody else.
//!
//! A key in memory signs where it is asked to. One in a token signs on a thread for what blocks; at most as many certificates as
//! the token has sessions, less one, are signed at once, so that a revocation list always finds a session, and whoever waits longer
//! than [`PATIENCE`] is told to come again.

use std::sync::Arc;

use fleetmark_domain::Refusal;
use ring::rand::SecureRandom as _;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::{Error, Registrar, Result};
use crate::pki::PkiError;
use crate::pki::keys::pkcs11::{PATIENCE, Token, TokenError};
use crate::pki::keys::{KeyAlgorithm, Keys, Signer};
use crate::pki::profile::Profile;

/// How many certificates are signed in the token at once.
pub(super) struct Turns(Semaphore);

impl Turns {
    /// As many as these keys' token has sessions, less one for revocation lists.
    pub(super) fn of(keys: &Keys) -> Self {
        let sessions = keys.token().map_or(1, Token::sessions);
        Self(Semaphore::new(sessions.saturating_sub(1).max(1)))
    }
}

/// A failure to sign or to make a key, by its name. The token's loss was logged when it was lost, and is not logged again with every
/// request that it refuses.
pub(super) fn unsigned(error: PkiError) -> Error {
    match error {
        PkiError::Lint(_) => Error::caused(Refusal::LintFailed, error),
        PkiError::Token(ref token) if token.was_told() => Refusal::HsmUnavailable.into(),
        PkiError::Token(TokenError::Busy | TokenError::TooManySessions) => Error::caused(Refusal::Overloaded, error),
        PkiError::Token(_) => Error::caused(Refusal::HsmUnavailable, error),
        _ => Error::caused(Refusal::AuthorityUnavailable, error),
    }
}

/// Does what signs with this key, where waiting for it holds up nobody.
pub(super) async fn off_the_worker<T: Send + 'static>(
    signer: &Arc<dyn Signer>,
    work: impl FnOnce(&dyn Signer) -> std::result::Result<T, PkiError> + Send + 'static,
) -> Result<T> {
    if !signer.waits() {
        return work(&**signer).map_err(unsigned);
    }
    let signer = signer.clone();
    let done = spawn_blocking(move || work(&*signer)).await;
    done.map_err(|error| Error::caused(Refusal::Stopping, error))?.map_err(unsigned)
}

impl Registrar {
    /// Signs with an authority's key, when it is this one's turn.
    pub(super) async fn with_key<T: Send + 'static>(
        &self,
        signer: &Arc<dyn Signer>,
        work: impl FnOnce(&dyn Signer) -> std::result::Result<T, PkiError> + Send + 'static,
    ) -> Result<T> {
        if !signer.waits() {
            return work(&**signer).map_err(unsigned);
        }
        let turn = timeout(PATIENCE, self.turns.0.acquire()).await;
        let _turn = turn.ok().and_then(std::result::Result::ok).ok_or_else(|| unsigned(TokenError::Busy.into()))?;
        off_the_worker(signer, work).await
    }

    /// Looks for a token that was lost; when it was lost and came back since `connections`, has the revocation lists made that
    /// could not be. Gives the number of connections until now.
    pub async fn revive_token(&self, connections: u64) -> u64 {
        let keys = self.authorities.shared_keys();
        let Some(token) = keys.token() else { return connections };
        if !token.is_up() {
            let keys = keys.clone();
            let looked = spawn_blocking(move || keys.token().map(Token::revive)).await;
            if let Err(error) = looked {
                tracing::error!(%error, "nobody looked for the token");
            }
        }
        let now = token.connections();
        if now != connections {
            self.published.standing_changed();
        }
        now
    }

    /// Makes an authority's key, where and of the algorithm that the configuration says, and gives it with its label, which tells
    /// where it is. `what` begins the label: `root`, or `authority-` and the kind; `wanted` is stronger than the configuration.
    ///
    /// # Errors
    /// `KeyTypeNotAllowed` for an algorithm that the profile does not name; `HsmUnavailable`, `AuthorityUnavailable`.
    pub(super) async fn authority_key(
        &self,
        what: &str,
        profile: &Profile,
        wanted: Option<KeyAlgorithm>,
    ) -> Result<(String, Arc<dyn Signer>)> {
        let keys = self.authorities.shared_keys();
        let choice = keys.choice(what == "root");
        let algorithm = wanted.or(choice.algorithm).or_else(|| profile.keys.first().copied()).unwrap_or(KeyAlgorithm::P256);
        if !profile.keys.contains(&algorithm) {
            let detail = format!("The profile {} does not let an authority have a {algorithm} key.", profile.name);
            return Err(Error::with_detail(Refusal::KeyTypeNotAllowed, detail));
        }
        let label = Keys::label(choice.home, &self.label(what)?);
        let created = label.clone();
        let made = spawn_blocking(move || keys.create(&created, algorithm)).await;
        let signer = made.map_err(|error| Error::caused(Refusal::Stopping, error))?.map_err(unsigned)?;
        Ok((label, signer))
    }

    /// A label for a new key, which no other has.
    pub(super) fn label(&self, what: &str) -> Result<String> {
        let mut octets = [0; 4];
        self.random.fill(&mut octets).map_err(|_| Error::with_detail(Refusal::AuthorityUnavailable, "no randomness"))?;
        Ok(format!("{what}-{}", hex::encode(octets)))
    }
}
