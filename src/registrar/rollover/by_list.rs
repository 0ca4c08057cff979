//! An authority that its root's ceremony put on the root's list ends here too: whoever looks at that list refuses it already.

use fleetmark_domain::{AuthorityEvent, AuthorityState, RevocationReason, Timestamp};

use crate::registrar::caller::{Caller, alarm};
use crate::registrar::install::ITSELF;
use crate::registrar::{Registrar, Result};
use crate::store::acts::authorities::changes;
use crate::store::model::AuthorityId;
use crate::store::read;

impl Registrar {
    /// Revokes what a root's list names, as an operator would; one that issues still is tainted first, whether there is a successor or
    /// not. The authority of the caller's own certificate is left to them, since nobody could act any more: they renew under a
    /// successor, and revoke it. Gives those that were revoked.
    pub(in crate::registrar) async fn end_by_list(
        &self,
        caller: Option<&Caller>,
        named: &[(AuthorityId, RevocationReason)],
        list: u64,
        now: Timestamp,
    ) -> Vec<AuthorityId> {
        let mut ended = Vec::new();
        for (id, reason) in named {
            if caller.is_some_and(|caller| caller.certificate.authority == *id) {
                let what =
                    format!("authority {id} is on the root's list, and your own certificate is of it: renew, then revoke it");
                alarm("root_revoked_authority", &what);
                continue;
            }
            alarm("root_revoked_authority", &format!("authority {id} is on the root's list: it is revoked here too"));
            let by = caller.map_or_else(|| ITSELF.to_owned(), |caller| caller.actor(self));
            match self.end_one(*id, *reason, (by, list), now).await {
                Ok(()) => ended.push(*id),
                Err(error) => {
                    tracing::error!(
                        authority = id,
                        cause = error.chain(),
                        "an authority on the root's list is not revoked yet"
                    );
                }
            }
        }
        ended
    }

    async fn end_one(
        &self,
        id: AuthorityId,
        reason: RevocationReason,
        (by, list): (String, u64),
        now: Timestamp,
    ) -> Result<()> {
        let note = Some(format!("named by the root's list {list}"));
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
            let why = (event == AuthorityEvent::Revoked).then_some(reason);
            let details = self.details(by.clone(), Some(format!("authority {id}")), why, note.clone())?;
            self.commit_change((id, event, true), reason, (&all, &planned, details), now).await?;
        }
        Ok(())
    }
}
