//! Inclusion and consistency proofs (RFC 6962 2.1.1, 2.1.2; RFC 9162 2.1.3, 2.1.4 for the checks).

use crate::merkle::{Hash, Head, Node};

/// Where stored hashes come from: leaves' hashes (level 0) and the nodes of level 8, 16, 24 …
pub trait NodeSource {
    /// The source's own error.
    type Error;

    /// The hashes of `count` nodes of `node.level` (a multiple of 8) from `node.index` on; all of them complete.
    fn hashes(&mut self, node: Node, count: u16) -> Result<Vec<Hash>, Self::Error>;
}

/// Why a proof cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError<E> {
    /// The index is not in a tree of that size, or the old size is above the new.
    #[error("there is no such proof: the entry or the older tree is not within the tree")]
    OutOfRange,
    /// The source failed.
    #[error("the ledger's hashes cannot be read")]
    Source(#[source] E),
    /// The source gave fewer hashes than it was asked for.
    #[error("the ledger's hashes are incomplete")]
    Missing,
}

/// The proof that a proof is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the proof does not lead to the checkpoint's root")]
pub struct ProofError;

/// The inclusion proof of leaf `index` in the tree of `size` leaves.
pub fn inclusion<S: NodeSource>(_source: &mut S, _index: u64, _size: u64) -> Result<Vec<Hash>, MakeError<S::Error>> {
    todo!()
}

/// The consistency proof between the trees of `old` and `new` leaves.
pub fn consistency<S: NodeSource>(_source: &mut S, _old: u64, _new: u64) -> Result<Vec<Hash>, MakeError<S::Error>> {
    todo!()
}

/// Checks that `leaf` is at `index` of the tree with this head (RFC 9162 2.1.3.2).
pub fn verify_inclusion(_proof: &[Hash], _leaf: Hash, _index: u64, _head: &Head) -> Result<(), ProofError> {
    todo!()
}

/// Checks that the tree `new` begins with the tree `old` (RFC 9162 2.1.4.2).
pub fn verify_consistency(_proof: &[Hash], _old: &Head, _new: &Head) -> Result<(), ProofError> {
    todo!()
}
