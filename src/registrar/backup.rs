//! A consistent copy of the store, with what it says of itself.

use std::path::Path;

use fleetmark_domain::{Action, Timestamp};

use super::caller::Caller;
use super::{Registrar, Result};
use crate::backup::{LedgerHead, Manifest};
use crate::pki::keys::{Home, Keys};
use crate::store::read;

impl Registrar {
    /// Copies the store into `file`, and says how far it was when the copy began.
    pub async fn copy_store(&self, caller: &Caller, file: &Path, now: Timestamp) -> Result<Manifest> {
        caller.may(Action::Backup, None)?;
        let (highest_epoch, ledgers) = read(&*self.store, |rows| Ok((rows.highest_epoch()?, rows.ledgers()?))).await?;
        self.store.copy_to(file).await?;
        let ledgers = ledgers.iter().map(|ledger| {
            let head = ledger.head();
            LedgerHead { name: ledger.name.to_string(), size: head.size, root: hex::encode(head.root.0) }
        });
        Ok(Manifest {
            made_at: now,
            software: env!("CARGO_PKG_VERSION").to_owned(),
            trust_domain: self.trust_domain.clone(),
            highest_epoch,
            ledgers: ledgers.collect(),
            token_keys: self.token_keys(),
        })
    }
    /// The labels of authorities' keys that are in the token.
    fn token_keys(&self) -> Vec<String> {
        let all = self.authorities.all();
        let labels = all.iter().map(|authority| &authority.record.key_label);
        labels.filter(|label| Keys::home(label) == Home::Token).cloned().collect()
    }
}
