//! Each authority's plain list: complete, without critical extensions, so that whoever reads CRLs at all reads it. It is put
//! together of the shards' entries, so that a change among a million costs a copy and a signature.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fleetmark_domain::{Refusal, Timestamp};
use fleetmark_ledger::entry::AuthorityKind;

use super::super::authorities::Authority;
use super::super::signing::unsigned;
use super::super::{Error, Registrar, Result};
use super::changes::Pass;
use super::shards::{self, Shard};
use super::{
    CRL_LIFETIME, Outcome, ROOT_CRL_LIFETIME, choices_of, ended_since, is_due, is_sharded, lines, next_number, restored_at,
    size_of,
};
use crate::pki::crl::{CrlHeader, build, entries};
use crate::store::acts::lists::PutCrl;
use crate::store::model::StoredCrl;
use crate::store::{BoxError, commit, read};

/// A larger list is not kept in the store but for its number: writing it would hold up everybody, and it is made of the shards,
/// which are kept.
const KEPT: usize = 1 << 20;
/// One that took so long to make rests for [`REST`] times that long before the next.
const SLOW: Duration = Duration::from_millis(100);
const REST: u32 = 20;

impl Registrar {
    /// Makes the authority's plain list where it is missing, due, or behind.
    pub(super) async fn refresh_crl(&self, pass: &mut Pass, authority: &Arc<Authority>, now: Timestamp) -> Result<Outcome> {
        let id = authority.record.id;
        if self.crl(id).is_none()
            && let (Some(stored), restored) = read(&*self.store, move |rows| Ok((rows.crl(id)?, restored_at(rows)?))).await?
            && !stored.der.is_empty()
            // An offline root's list is all that there is.
            && (stored.this_update > restored || !authority.has_key)
        {
            self.published.set_crl(stored);
        }
        let newest = self.crl(id);
        let is_wanted = newest.as_ref().is_none_or(|newest| {
            is_due((newest.this_update, newest.next_update), u64::from(id), now)
                || pass.is_any_behind(&authority.ledger(), id, newest.position)
        });
        // An offline root's list is brought by its ceremony; until then the one that is there holds.
        let holds = newest.is_some_and(|newest| now < newest.next_update);
        if !is_wanted || (!authority.has_key && holds) {
            return Ok(Outcome::Kept);
        }
        if pass.rests.get(&id).is_some_and(|until| Instant::now() < *until) {
            return Ok(Outcome::PutOff);
        }
        let begun = Instant::now();
        let outcome = self.make_crl(authority, pass.upto(&authority.ledger()), now).await?;
        let took = begun.elapsed();
        if took > SLOW {
            pass.rests.insert(id, begun + took * REST);
        }
        Ok(outcome)
    }

    async fn make_crl(&self, authority: &Arc<Authority>, scanned: u64, now: Timestamp) -> Result<Outcome> {
        let id = authority.record.id;
        let last = read(&*self.store, move |rows| rows.crl_number(id)).await?;
        let Some(number) = next_number(last, now) else { return Ok(Outcome::PutOff) };
        let (position, parts) = self.parts(authority, scanned, now).await?;
        let next_update = now + lifetime(authority);
        let issuer = authority.issuer.clone();
        // Hashing a list of a million takes a tenth of a second, in which this thread would serve nobody.
        let built = tokio::task::spawn_blocking(move || {
            let parts: Vec<&[u8]> = parts.iter().map(Part::octets).collect();
            build(&issuer, &CrlHeader { number, this_update: now, next_update, point: None }, &parts)
        });
        let unmade = |cause: BoxError| Error::caused(Refusal::AuthorityUnavailable, cause);
        let der = built.await.map_err(|cause| unmade(cause.into()))?.map_err(unsigned)?;
        let crl = StoredCrl { authority: id, number, this_update: now, next_update, position, der };
        let kept = StoredCrl { der: if crl.der.len() > KEPT { Vec::new() } else { crl.der.clone() }, ..crl };
        if commit(&*self.store, PutCrl { crl: kept }).await? {
            tracing::info!(authority = id, number, octets = crl.der.len(), position, "revocation list made");
            self.published.set_crl(crl);
            return Ok(Outcome::Made);
        }
        // Another server made one with this number: take that, or make the next.
        match read(&*self.store, move |rows| rows.crl(id)).await?.filter(|newest| !newest.der.is_empty()) {
            Some(newest) => self.published.set_crl(newest),
            None => return Ok(Outcome::PutOff),
        }
        Ok(Outcome::Kept)
    }

    /// The entries, and the position up to which they tell the ledger.
    async fn parts(&self, authority: &Arc<Authority>, scanned: u64, now: Timestamp) -> Result<(u64, Vec<Part>)> {
        let id = authority.record.id;
        if is_sharded(authority) {
            let shards = self.published.shards.load();
            return Ok((scanned, shards.range(shards::of(id)).map(|(_, shard)| Part::Shard(shard.clone())).collect()));
        }
        let (ledger, fleet) = (authority.ledger(), authority.record.fleet.clone());
        let since = ended_since(lifetime(authority), now);
        let read = read(&*self.store, move |rows| {
            let choices = choices_of(rows, fleet.as_ref())?;
            let position = size_of(rows, &ledger)?;
            Ok((position, lines(&rows.not_good(id, 0, u64::MAX, since)?, choices)))
        });
        let (position, lines) = read.await?;
        Ok((position, vec![Part::Own(entries(&lines))]))
    }
}

/// How long the authority's plain list holds.
fn lifetime(authority: &Authority) -> Duration {
    if authority.record.kind == AuthorityKind::Root { ROOT_CRL_LIFETIME } else { CRL_LIFETIME }
}

/// Entries of a plain list.
enum Part {
    Shard(Arc<Shard>),
    Own(Vec<u8>),
}

impl Part {
    fn octets(&self) -> &[u8] {
        match self {
            Self::Shard(shard) => shard.entries(),
            Self::Own(octets) => octets,
        }
    }
}
