//! An authority that its root's ceremony put on the root's list ends here too: whoever looks at that list refuses it already.

use fleetmark_domain::{AuthorityEvent, AuthorityState, Refusal, RevocationReason, Timestamp};
use serde::{Deserialize, Serialize};

use crate::registrar::caller::alarm;
use crate::registrar::{Error, Registrar, Result};
use crate::store::acts::authorities::changes;
use crate::store::model::AuthorityId;
use crate::store::read;

/// What a root's newest list names and is to end here. It is kept with the list: whatever fails or dies afterwards, it is ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::registrar) struct Named {
    /// The list's number.
    pub list: u64,
    /// Who brought it, for the ledger's details.
    pub by: String,
    /// The authorities, each with the reason that the record gives.
    pub authorities: Vec<(AuthorityId, RevocationReason)>,
}

impl Named {
    /// The installation's value that holds what the list of the root with this id names.
    pub fn key(root: AuthorityId) -> String {
        format!("root-list-named-{root}")
    }

    /// As the store keeps it.
    pub fn value(&self) -> Vec<u8> {
        // Only maps whose keys are no text make this fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl Registrar {
    /// Ends what the roots' lists name and was not ended when they were taken in. Cheap where no list came since the last time.
    pub async fn end_by_lists(&self, now: Timestamp) -> Result<()> {
        let keys: Vec<_> = self.authorities.roots().iter().map(|root| Named::key(root.record.id)).collect();
        let kept = read(&*self.store, move |rows| keys.iter().map(|key| rows.value(key)).collect()).await;
        let kept: Vec<Option<Vec<u8>>> = kept?;
        let seen = || self.lists_seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *seen() == kept {
            return Ok(());
        }
        // Who takes a list in ends what it names.
        let _one_at_a_time = self.founding.lock().await;
        let damaged = |cause: serde_json::Error| Error::caused(Refusal::StorageDamaged, cause);
        let mut failure = None;
        for value in kept.iter().flatten() {
            let named = serde_json::from_slice(value).map_err(damaged)?;
            failure = failure.or(self.end_by_list(&named, now).await.1);
        }
        if let Some(error) = failure {
            return Err(error);
        }
        *seen() = kept;
        Ok(())
    }

    /// Revokes what a root's list names, as an operator would; one that issues still is tainted first, whether there is a successor or
    /// not. Gives those that are revoked, and what the first of the others failed of.
    pub(in crate::registrar) async fn end_by_list(&self, named: &Named, now: Timestamp) -> (Vec<AuthorityId>, Option<Error>) {
        let (mut ended, mut failure) = (Vec::new(), None);
        for (id, reason) in &named.authorities {
            match self.end_one(*id, *reason, named, now).await {
                Ok(()) => ended.push(*id),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        (ended, failure)
    }

    async fn end_one(&self, id: AuthorityId, reason: RevocationReason, named: &Named, now: Timestamp) -> Result<()> {
        let note = Some(format!("named by the root's list {}", named.list));
        for (event, only_of) in [(AuthorityEvent::Tainted, Some(AuthorityState::Active)), (AuthorityEvent::Revoked, None)] {
            let all = read(&*self.store, |rows| rows.authorities()).await?;
            let state = all.iter().find(|record| record.id == id).map(|record| record.state);
            if only_of.is_some() && only_of != state {
                continue;
            }
            let planned = changes(&all, id, event, true)?;
            if planned.is_empty() {
                continue;
            }
            if event == AuthorityEvent::Revoked {
                alarm("root_revoked_authority", &format!("authority {id} is on the root's list: it is revoked here too"));
            }
            let why = (event == AuthorityEvent::Revoked).then_some(reason);
            let details = self.details(named.by.clone(), Some(format!("authority {id}")), why, note.clone())?;
            self.commit_change((id, event, true), reason, (&all, &planned, details), now).await?;
        }
        Ok(())
    }
}
