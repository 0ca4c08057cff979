//! Any subtree's hash, from the stored levels: 0, 8, 16 …

use std::collections::BTreeMap;

use super::{MakeError, NodeSource, Span};
use crate::merkle::{Hash, Node, join, node_hash};

/// A tile has 2^8 hashes of one level (C2SP tlog-tiles).
const HEIGHT: u8 = 8;

/// Reads whole tiles, each once, and puts hashes together from them. One proof touches at most three tiles a level.
pub(super) struct Tiles<'a, S> {
    source: &'a mut S,
    size: u64,
    read: BTreeMap<Node, Vec<Hash>>,
}

impl<'a, S: NodeSource> Tiles<'a, S> {
    /// Over the tree of `size` leaves.
    pub(super) const fn new(source: &'a mut S, size: u64) -> Self {
        Self { source, size, read: BTreeMap::new() }
    }

    /// The root over a span: of a complete subtree, or of the right edge, whose complete subtrees are joined.
    pub(super) fn root(&mut self, span: Span) -> Result<Hash, MakeError<S::Error>> {
        let mut roots = Vec::new();
        let mut start = span.start;
        while start < span.end {
            // RFC 6962 splits so that `start` is a multiple of every power of two up to the rest's length.
            let level = u8::try_from((span.end - start).ilog2()).unwrap_or(u8::MAX);
            roots.push(self.node(Node { level, index: start >> level })?);
            start += 1 << level;
        }
        join(&roots).ok_or(MakeError::OutOfRange)
    }

    /// The hash of a complete subtree of any level: at most 128 hashes of the stored level below are folded.
    pub(super) fn node(&mut self, node: Node) -> Result<Hash, MakeError<S::Error>> {
        let above = node.level % HEIGHT;
        let level = node.level - above;
        let first = node.index << above;
        let tile = self.tile(Node { level, index: first >> HEIGHT })?;
        let within = usize::try_from(first % (1 << HEIGHT)).ok();
        let hashes = within.and_then(|within| tile.get(within..within + (1 << above))).ok_or(MakeError::Missing)?;
        fold(hashes.to_vec()).ok_or(MakeError::Missing)
    }

    /// The hashes of a tile as far as the tree has them: its `index` counts tiles, as in C2SP tlog-tiles.
    fn tile(&mut self, tile: Node) -> Result<&[Hash], MakeError<S::Error>> {
        if !self.read.contains_key(&tile) {
            let first = tile.index << HEIGHT;
            let complete = (self.size >> tile.level).saturating_sub(first).min(1 << HEIGHT);
            let count = u16::try_from(complete).unwrap_or(0);
            let hashes = self.source.hashes(Node { level: tile.level, index: first }, count).map_err(MakeError::Source)?;
            if hashes.len() != usize::from(count) {
                return Err(MakeError::Missing);
            }
            self.read.insert(tile, hashes);
        }
        Ok(self.read.get(&tile).map(Vec::as_slice).unwrap_or_default())
    }
}

/// The root over `2^n` hashes of one level; None of none.
fn fold(mut hashes: Vec<Hash>) -> Option<Hash> {
    while hashes.len() > 1 {
        let (pairs, _) = hashes.as_chunks::<2>();
        hashes = pairs.iter().map(|[left, right]| node_hash(left, right)).collect();
    }
    hashes.pop()
}
