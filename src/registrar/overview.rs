//! The installation at a glance: authorities with what their certificates say, and what waits.

use fleetmark_domain::{Action, Epoch, Refusal};

use super::caller::Caller;
use super::{Error, Registrar, Result};
use crate::pki::issue::{CertificateFacts, facts};
use crate::pki::keys::pkcs11::Token;
use crate::pki::keys::{Home, Keys};
use crate::store;
use crate::store::model::AuthorityRecord;

/// An authority, for operators.
#[derive(Debug, Clone)]
pub struct AuthorityView {
    /// Its record.
    pub record: AuthorityRecord,
    /// Where its key lives; None: not where this server can use it.
    pub home: Option<Home>,
    /// Its certificate's subject, as text.
    pub subject: String,
    /// What its certificate says.
    pub facts: CertificateFacts,
    /// The epoch that it issues in; None before its first certificate.
    pub epoch: Option<Epoch>,
}

impl Registrar {
    /// The authorities that the caller may know of: those of fleets that it reaches, and those of no fleet.
    pub async fn authority_views(&self, caller: &Caller) -> Result<Vec<AuthorityView>> {
        caller.may(Action::Read, None)?;
        let known = self.authorities.all();
        let reached: Vec<_> = known
            .iter()
            .map(|authority| (authority.record.clone(), authority.has_key.then(|| Keys::home(&authority.record.key_label))))
            .filter(|(record, _)| record.fleet.as_ref().is_none_or(|fleet| caller.reaches(fleet)))
            .collect();
        let ids: Vec<_> = reached.iter().map(|(record, _)| record.id).collect();
        let epochs = store::read(&*self.store, move |rows| {
            ids.into_iter()
                .map(|id| Ok(rows.open_epoch(id)?.map(|epoch| epoch.number)))
                .collect::<std::result::Result<Vec<_>, _>>()
        })
        .await?;
        reached.into_iter().zip(epochs).map(|((record, home), epoch)| view(record, home, epoch)).collect()
    }

    /// Whether the PKCS#11 token answers, as far as is known; None where there is none.
    pub fn token_reachable(&self) -> Option<bool> {
        self.authorities.keys().token().map(Token::is_up)
    }

    /// How many acts wait in the writer's queue: urgent, ordinary.
    pub fn waiting(&self) -> (usize, usize) {
        self.store.waiting()
    }
}

fn view(record: AuthorityRecord, home: Option<Home>, epoch: Option<Epoch>) -> Result<AuthorityView> {
    let facts = facts(&record.certificate).map_err(|error| Error::caused(Refusal::StorageDamaged, error))?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&record.certificate)
        .map_err(|error| Error::caused(Refusal::StorageDamaged, error))?;
    let subject = certificate.subject().to_string();
    Ok(AuthorityView { record, home, subject, facts, epoch })
}
