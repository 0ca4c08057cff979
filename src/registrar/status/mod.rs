//! What firmware reads: status lists, and statements of standing; and the keys that sign both.
//!
//! - [`signers`]: an authority's status key, and its successor, published long before it signs.
//! - [`lists`]: the status lists, made anew where standings changed.
//! - [`statements`]: one certificate's standing, for its holder, bound to its nonce.

pub mod lists;
pub mod signers;
pub mod statements;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::store::model::{AuthorityId, ListKey};
use lists::{MadeList, Seen};
use signers::StatusSigner;

/// What is given out now.
#[derive(Default)]
pub struct StatusViews {
    signers: ArcSwap<BTreeMap<AuthorityId, Arc<StatusSigner>>>,
    lists: ArcSwap<BTreeMap<ListKey, Arc<MadeList>>>,
    /// Held while lists are made: one round at a time.
    seen: tokio::sync::Mutex<Seen>,
}

/// Puts one more into a map that is swapped in whole.
fn insert<K: Ord + Copy, V>(map: &ArcSwap<BTreeMap<K, Arc<V>>>, key: K, value: V) {
    let value = Arc::new(value);
    map.rcu(|current| {
        let mut next = BTreeMap::clone(current);
        next.insert(key, value.clone());
        next
    });
}
