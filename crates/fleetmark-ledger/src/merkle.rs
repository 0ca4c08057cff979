//! The Merkle tree of RFC 6962 section 2 (SHA-256), grown at its right edge.

use ring::digest::{Context, SHA256};

/// The largest tree: positions are kept as signed 64-bit integers by stores.
pub const MAX_SIZE: u64 = i64::MAX.unsigned_abs();

/// A hash in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

/// The size and root of a tree: what a checkpoint states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// How many leaves.
    pub size: u64,
    /// The Merkle tree hash over them.
    pub root: Hash,
}

/// `SHA-256(0x00 || entry)`, RFC 6962 2.1.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[0]);
    context.update(entry);
    Hash(finish(context))
}

/// `SHA-256(0x01 || left || right)`, RFC 6962 2.1.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[1]);
    context.update(&left.0);
    context.update(&right.0);
    Hash(finish(context))
}

/// The root of the tree without leaves: SHA-256 over nothing, RFC 6962 2.1.
pub fn empty_root() -> Hash {
    Hash(finish(Context::new(&SHA256)))
}

/// The digest as an array.
pub(crate) fn finish(context: Context) -> [u8; 32] {
    let mut octets = [0; 32];
    // SHA-256 has 32 octets: both slices are of one length.
    octets.copy_from_slice(context.finish().as_ref());
    octets
}

/// The root over subtrees that stand side by side, the largest (leftmost) first; None of none.
pub(crate) fn join(roots: &[Hash]) -> Option<Hash> {
    roots.iter().rev().copied().reduce(|right, left| node_hash(&left, &right))
}

/// A complete subtree: `2^level` leaves from `index * 2^level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// Height over the leaves.
    pub level: u8,
    /// Place among the nodes of its level.
    pub index: u64,
}

/// The roots of the complete subtrees that a tree of some size falls into, the largest first: all that is
/// needed to append.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    roots: Vec<Hash>,
}

impl Frontier {
    /// Appends a leaf. `completed` is told of every complete subtree of level 8, 16, 24 … that this leaf
    /// finishes (level 0 is the leaf itself and is not told): the nodes that the store keeps, so that any tile or
    /// proof is put together from at most 256 hashes a level.
    pub fn append(&mut self, leaf: Hash, mut completed: impl FnMut(Node, Hash)) {
        let position = self.size;
        let (mut level, mut hash) = (0, leaf);
        // Each one bit at the low end of the size is a subtree that the leaf completes.
        while level < position.trailing_ones()
            && let Some(left) = self.roots.pop()
        {
            hash = node_hash(&left, &hash);
            level += 1;
            if let Ok(level) = u8::try_from(level)
                && level.is_multiple_of(8)
            {
                completed(Node { level, index: position >> level }, hash);
            }
        }
        self.roots.push(hash);
        self.size += 1;
    }

    /// How many leaves.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Size and root.
    pub fn head(&self) -> Head {
        Head { size: self.size, root: join(&self.roots).unwrap_or_else(empty_root) }
    }

    /// `size u64 big-endian || roots`.
    pub fn encode(&self) -> Vec<u8> {
        let mut octets = self.size.to_be_bytes().to_vec();
        octets.extend(self.roots.iter().flat_map(|hash| hash.0));
        octets
    }

    /// Reads what [`Self::encode`] wrote; None where the number of roots does not fit the size, or the size is above
    /// [`MAX_SIZE`].
    pub fn decode(octets: &[u8]) -> Option<Self> {
        let (size, roots) = octets.split_first_chunk::<8>()?;
        let size = u64::from_be_bytes(*size);
        let (roots, rest) = roots.as_chunks::<32>();
        let fits = rest.is_empty() && size <= MAX_SIZE && u32::try_from(roots.len()) == Ok(size.count_ones());
        fits.then(|| Self { size, roots: roots.iter().map(|root| Hash(*root)).collect() })
    }
}
