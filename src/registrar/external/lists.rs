//! The lists of other authorities: fetched where they are new, read once, and kept in memory as they were read.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleetmark_domain::{Refusal, Standing, Timestamp};
use fleetmark_external::{Foreign, sha256};
use futures_util::future::join_all;
use rustls_pki_types::CertificateDer;

use super::fetch::Answer;
use super::follow::{Failure, Heard, Word, certificates_of};
use crate::pki::foreign::crl;
use crate::registrar::{Registrar, Result};
use crate::store::acts::external::{PutForeignList, merged};
use crate::store::model::{External, ForeignList, OnStale};
use crate::store::{commit, read};

/// A list as it was fetched last.
#[derive(Clone)]
struct Kept {
    /// Without its octets.
    record: ForeignList,
    /// SHA-256 over what was fetched.
    hash: [u8; 32],
    /// What it says; None where it cannot be read any more, since the authority's certificates changed.
    said: Option<Arc<crl::List>>,
}

/// The lists of an authority.
pub(super) struct Lists {
    /// Of these CA certificates.
    material: [u8; 32],
    /// By URL.
    kept: BTreeMap<String, Kept>,
    /// The URLs that there are.
    urls: Vec<String>,
}

impl Lists {
    /// The worst that the issuer's lists say; None where there is none.
    fn says(&self, issuer: &[u8; 32], serial: &[u8]) -> Option<Standing> {
        let of = self.kept.values().filter_map(|kept| kept.said.as_ref()).filter(|list| list.issuer == *issuer);
        of.map(|list| list.revoked.get(serial).copied().unwrap_or(Standing::Good)).reduce(merged)
    }

    /// The first end of one; None unless all of them are here.
    fn holds_until(&self) -> Option<Timestamp> {
        let ends = self.kept.values().map(|kept| kept.record.next_update);
        ends.min().filter(|_| self.kept.len() == self.urls.len())
    }

    /// When the list of this URL and number was fetched, or found unchanged, last.
    pub(super) fn fetched_at(&self, list: &ForeignList) -> Option<Timestamp> {
        let kept = self.kept.get(&list.url).filter(|kept| kept.record.number == list.number);
        kept.map(|kept| kept.record.fetched_at)
    }
}

/// Reads and verifies a list, which may have 32 MiB, apart from where others are waiting; and hashes it.
async fn read_list(
    octets: Vec<u8>,
    authorities: &Arc<[CertificateDer<'static>]>,
    url: &str,
    now: Timestamp,
) -> std::result::Result<(crl::List, [u8; 32]), String> {
    let (authorities, url) = (Arc::clone(authorities), url.to_owned());
    let reading = tokio::task::spawn_blocking(move || {
        crl::read(&octets, &authorities, &url, now).map(|list| (list, sha256(&[&octets]))).map_err(|error| error.to_string())
    });
    reading.await.map_err(|error| error.to_string())?
}

impl Registrar {
    /// Fetches an authority's lists, and merges what they say.
    pub(super) async fn hear_lists(&self, external: &External, urls: &[String], now: Timestamp) -> Result<Heard> {
        let before = self.lists_of(external, urls, now).await?;
        let authorities: Arc<[_]> = certificates_of(external)?.into();
        let fetched = urls.iter().map(|url| self.fetch_list(external, &authorities, url, before.kept.get(url), now));
        let (mut kept, mut failures) = (before.kept.clone(), Vec::new());
        for (url, fetched) in urls.iter().zip(join_all(fetched).await) {
            match fetched {
                Ok((list, der)) => {
                    // What is as it was is not written again: the writer has better to do.
                    if let Some(der) = der {
                        let list = ForeignList { der, ..list.record.clone() };
                        commit(&*self.store, PutForeignList { fleet: external.fleet.clone(), list }).await?;
                    }
                    kept.insert(url.clone(), list);
                }
                Err(what) => failures.push(Failure { url: url.clone(), what, at: now }),
            }
        }
        let lists = Arc::new(Lists { material: before.material, kept, urls: urls.to_vec() });
        self.externals.follow.keep(external.id, Arc::clone(&lists));
        let holds_until = lists.holds_until();
        let unheard = self.merge_lists(external, &lists, now).await?;
        let stale = unheard || holds_until.is_none_or(|end| end < now);
        Ok(Heard { stale, holds_until, failures })
    }

    /// What an authority's lists say, as they were fetched last: from memory, or from the store where they or its CA certificates are
    /// others than those in memory.
    async fn lists_of(&self, external: &External, urls: &[String], now: Timestamp) -> Result<Arc<Lists>> {
        let (id, material) = (external.id, sha256(&[&external.material]));
        let known = self.externals.follow.lists(id);
        if let Some(known) = known.filter(|known| known.material == material && known.urls == urls) {
            return Ok(known);
        }
        let authorities: Arc<[_]> = certificates_of(external)?.into();
        let mut kept = BTreeMap::new();
        for mut record in read(&*self.store, move |rows| rows.foreign_lists(id)).await? {
            if !urls.contains(&record.url) {
                continue;
            }
            let octets = std::mem::take(&mut record.der);
            let said = read_list(octets, &authorities, &record.url, now).await.ok();
            let hash = said.as_ref().map_or([0; 32], |(_, hash)| *hash);
            let said = said.map(|(list, _)| Arc::new(crl::List { der: Vec::new(), ..list }));
            kept.insert(record.url.clone(), Kept { record, hash, said });
        }
        let lists = Arc::new(Lists { material, kept, urls: urls.to_vec() });
        self.externals.follow.keep(id, Arc::clone(&lists));
        Ok(lists)
    }

    /// The list at a URL, as it is now, with its octets in DER where they are new; or what is wrong with it.
    async fn fetch_list(
        &self,
        external: &External,
        authorities: &Arc<[CertificateDer<'static>]>,
        url: &str,
        before: Option<&Kept>,
        now: Timestamp,
    ) -> std::result::Result<(Kept, Option<Vec<u8>>), String> {
        // One that cannot be read any more is fetched again, changed or not.
        let readable = before.filter(|kept| kept.said.is_some());
        let (etag, modified) = readable.map_or(("", ""), |kept| (&*kept.record.etag, &*kept.record.modified));
        let answer = self.externals.calls.get(external.id, url, etag, modified, crl::MAX_LIST).await;
        let outcome = match (&answer, readable) {
            (Ok(Answer::Unchanged), Some(_)) => "unchanged",
            (Ok(Answer::New { .. }), _) => "fetched",
            _ => "failed",
        };
        metrics::counter!("fleetmark_external_asked_total", "outcome" => outcome).increment(1);
        let again = |kept: &Kept, etag: Option<(String, String)>| {
            let (etag, modified) = etag.unwrap_or_else(|| (kept.record.etag.clone(), kept.record.modified.clone()));
            Kept { record: ForeignList { etag, modified, fetched_at: now, ..kept.record.clone() }, ..kept.clone() }
        };
        let (octets, etag, modified) = match (answer.map_err(|miss| miss.what)?, readable) {
            (Answer::Unchanged, Some(kept)) => return Ok((again(kept, None), None)),
            (Answer::Unchanged, None) => return Err("it says that what it never gave is unchanged".to_owned()),
            (Answer::New { octets, etag, modified }, _) => (octets, etag, modified),
        };
        let (list, hash) = read_list(octets, authorities, url, now).await?;
        if let Some(kept) = before {
            list.follows(&kept.record.number, kept.record.this_update).map_err(|error| error.to_string())?;
        }
        if let Some(kept) = readable.filter(|kept| kept.hash == hash) {
            return Ok((again(kept, Some((etag, modified))), None));
        }
        let crl::List { issuer, this_update, next_update, .. } = list;
        let (authority, number) = (external.id, list.number.clone());
        let (url, fetched_at) = (url.to_owned(), now);
        let record = ForeignList {
            authority,
            url,
            issuer,
            number,
            this_update,
            next_update,
            etag,
            modified,
            fetched_at,
            der: Vec::new(),
        };
        let der = list.der;
        let said = crl::List { der: Vec::new(), ..list };
        Ok((Kept { record, hash, said: Some(Arc::new(said)) }, Some(der)))
    }

    /// Merges what lists say; whether there is a certificate of whose issuer there is none.
    async fn merge_lists(&self, external: &External, lists: &Lists, now: Timestamp) -> Result<bool> {
        let (mut after, mut unheard) = (0, false);
        loop {
            let known = self.adopted_after(external, after).await?;
            let Some(last) = known.last() else { return Ok(unheard) };
            after = last.place;
            let mut said = Vec::new();
            for known in known.iter().filter(|known| known.not_after >= now) {
                let word = lists.says(&known.issuer, &known.serial);
                unheard |= word.is_none();
                // Left from when a responder was asked.
                let lapsed = known.is_lapsed();
                let goes_on = lapsed && external.rules.on_stale == OnStale::GoOn;
                let word = word.or(goes_on.then_some(Standing::Good));
                if let Some(standing) = word.filter(|word| lapsed || *word != known.foreign) {
                    said.push((known.fingerprint, standing, None));
                }
            }
            self.merge(external, said, now).await?;
        }
    }

    /// What lists say of certificates that are about to be adopted.
    pub(super) async fn listed_words(
        &self,
        external: &External,
        urls: &[String],
        batch: &[CertificateDer<'_>],
        unknown: std::result::Result<Standing, Refusal>,
        now: Timestamp,
    ) -> Result<Vec<Word>> {
        let lists = self.lists_of(external, urls, now).await?;
        let fresh = lists.holds_until().is_some_and(|end| end >= now);
        let words = batch.iter().map(|der| {
            let foreign = Foreign::parse(der).ok();
            let standing = match foreign.and_then(|one| lists.says(&one.issuer, &one.serial)) {
                Some(Standing::Good) | None if !fresh => unknown,
                Some(said) => Ok(said),
                None => unknown,
            };
            Word { standing, next_update: None }
        });
        Ok(words.collect())
    }
}
