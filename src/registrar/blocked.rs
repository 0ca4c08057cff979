//! The block list: public keys that nobody gets a certificate for, in any fleet.

use fleetmark_domain::{Action, KeyHash, Refusal, Timestamp};

use super::caller::Caller;
use super::{Error, Page, PageRequest, Registrar, Result};
use crate::store::acts::blocked::BlockKeys;
use crate::store::model::BlockedKey;
use crate::store::{commit, read};

/// The most keys of one request.
pub const MAX_KEYS: usize = 500;
/// The longest reason, in characters.
const MAX_REASON: usize = 256;

impl Registrar {
    /// Puts keys on the block list, and gives them as they are on it: one that was on it stays as it was. Certificates that they have
    /// stay: revoke those.
    ///
    /// # Errors
    /// `NotPermitted`, `InvalidValue`.
    pub async fn block_keys(
        &self,
        caller: &Caller,
        keys: Vec<KeyHash>,
        reason: &str,
        now: Timestamp,
    ) -> Result<Vec<BlockedKey>> {
        caller.may(Action::ManageInstallationPolicy, None)?;
        if keys.is_empty() || keys.len() > MAX_KEYS {
            return Err(Error::with_detail(Refusal::InvalidValue, "Name 1 to 500 keys."));
        }
        if reason.chars().count() > MAX_REASON || reason.chars().any(char::is_control) {
            return Err(Error::with_detail(
                Refusal::InvalidValue,
                "A reason has at most 256 characters, none of them a control.",
            ));
        }
        let blocked =
            |key_hash| BlockedKey { key_hash, reason: reason.to_owned(), blocked_at: now, blocked_by: caller.subject.id };
        let block: Vec<_> = keys.into_iter().map(blocked).collect();
        let (kept, _) = commit(&*self.store, BlockKeys { block, unblock: Vec::new(), at: now }).await?;
        tracing::info!(keys = kept.len(), by = caller.actor(self), reason, "keys were put on the block list");
        Ok(kept)
    }

    /// Takes a key off the block list.
    ///
    /// # Errors
    /// `NotPermitted`; `NotFound` where it is not on it.
    pub async fn unblock_key(&self, caller: &Caller, key: KeyHash, now: Timestamp) -> Result<()> {
        caller.may(Action::ManageInstallationPolicy, None)?;
        let (_, removed) = commit(&*self.store, BlockKeys { block: Vec::new(), unblock: vec![key], at: now }).await?;
        if removed == 0 {
            return Err(Refusal::NotFound.into());
        }
        tracing::info!(%key, by = caller.actor(self), "a key was taken off the block list");
        Ok(())
    }

    /// The block list, ascending.
    pub async fn blocked_keys(&self, caller: &Caller, page: &PageRequest) -> Result<Page<BlockedKey>> {
        caller.may(Action::Read, None)?;
        let after: Option<KeyHash> = match &page.cursor {
            Some(cursor) => Some(cursor.parse().map_err(|_| Refusal::MalformedRequest)?),
            None => None,
        };
        let limit = page.limit;
        let items = read(&*self.store, move |rows| rows.blocked_keys(after.as_ref(), limit)).await?;
        Ok(Page::of(items, limit, |last| last.key_hash.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::registrar::publish::tests::World;

    #[tokio::test]
    async fn a_key_that_is_on_the_list_is_answered_as_it_is_kept() {
        let world = World::new().await;
        let (old, new) = (KeyHash([1; 32]), KeyHash([2; 32]));
        let block = |keys, reason, now| world.registrar.block_keys(&world.owner, keys, reason, now);
        let first = block(vec![old], "leaked", world.now).await.unwrap();
        let later = world.now + Duration::from_secs(60);
        let answer = block(vec![old, new], "sold", later).await.unwrap();
        assert_eq!(answer[0], first[0]);
        assert_eq!((answer[1].key_hash, answer[1].reason.as_str(), answer[1].blocked_at), (new, "sold", later));
    }
}
