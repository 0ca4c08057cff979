//! Inclusion and consistency proofs (RFC 6962 2.1.1, 2.1.2; RFC 9162 2.1.3, 2.1.4 for the checks).

mod check;
mod tiles;

use crate::merkle::{Hash, Head, Node, empty_root};
use tiles::Tiles;

pub use check::{verify_consistency, verify_inclusion};

/// Where stored hashes come from: leaves' hashes (level 0) and the nodes of level 8, 16, 24 …
pub trait NodeSource {
    /// The source's own error.
    type Error;

    /// The hashes of `count` nodes of `node.level` (a multiple of 8) from `node.index` on; all of them complete.
    /// At most 256 are asked for at once, `node.index` being a multiple of 256.
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

/// Leaves from `start` up to, without, `end`: within a tree, a subtree of RFC 6962 2.1.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: u64,
    end: u64,
}

impl Span {
    const fn len(self) -> u64 {
        self.end - self.start
    }

    /// RFC 6962 2.1: the left part holds the largest power of two that is smaller than the length (of 2 or more).
    const fn halves(self) -> (Self, Self) {
        let middle = self.start + (1 << (self.len() - 1).ilog2());
        (Self { start: self.start, end: middle }, Self { start: middle, end: self.end })
    }
}

/// The inclusion proof of leaf `index` in the tree of `size` leaves.
pub fn inclusion<S: NodeSource>(source: &mut S, index: u64, size: u64) -> Result<Vec<Hash>, MakeError<S::Error>> {
    if index >= size {
        return Err(MakeError::OutOfRange);
    }
    // RFC 6962 2.1.1, from the root down.
    let mut tiles = Tiles::new(source, size);
    let mut proof = Vec::new();
    let mut span = Span { start: 0, end: size };
    while span.len() > 1 {
        let (left, right) = span.halves();
        let beside;
        (span, beside) = if index < left.end { (left, right) } else { (right, left) };
        proof.push(tiles.root(beside)?);
    }
    proof.reverse();
    Ok(proof)
}

/// The consistency proof between the trees of `old` and `new` leaves. It is empty where `old` is 0 or `new`.
pub fn consistency<S: NodeSource>(source: &mut S, old: u64, new: u64) -> Result<Vec<Hash>, MakeError<S::Error>> {
    if old > new {
        return Err(MakeError::OutOfRange);
    }
    let mut proof = Vec::new();
    if old == 0 {
        return Ok(proof);
    }
    // RFC 6962 2.1.2, from the root down to the subtree that ends where the old tree ends.
    let mut tiles = Tiles::new(source, new);
    let mut span = Span { start: 0, end: new };
    while span.end != old {
        let (left, right) = span.halves();
        let beside;
        (span, beside) = if old <= left.end { (left, right) } else { (right, left) };
        proof.push(tiles.root(beside)?);
    }
    if span.start > 0 {
        proof.push(tiles.root(span)?);
    }
    proof.reverse();
    Ok(proof)
}

/// The head of the tree of the first `size` leaves.
pub fn head<S: NodeSource>(source: &mut S, size: u64) -> Result<Head, MakeError<S::Error>> {
    let root = if size == 0 { empty_root() } else { Tiles::new(source, size).root(Span { start: 0, end: size })? };
    Ok(Head { size, root })
}

/// The hash of the complete subtree `node` in the tree of `size` leaves, of any level.
pub fn subtree<S: NodeSource>(source: &mut S, node: Node, size: u64) -> Result<Hash, MakeError<S::Error>> {
    let leaves = 1_u64.checked_shl(node.level.into()).ok_or(MakeError::OutOfRange)?;
    let end = node.index.checked_add(1).and_then(|next| next.checked_mul(leaves));
    if end.is_none_or(|end| end > size) {
        return Err(MakeError::OutOfRange);
    }
    Tiles::new(source, size).node(node)
}

#[cfg(test)]
mod tests;
