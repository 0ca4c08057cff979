//! The Merkle tree of RFC 6962 section 2 (SHA-256), grown at its right edge.

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
pub fn leaf_hash(_entry: &[u8]) -> Hash {
    todo!()
}

/// `SHA-256(0x01 || left || right)`, RFC 6962 2.1.
pub fn node_hash(_left: &Hash, _right: &Hash) -> Hash {
    todo!()
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
    /// proof is put together from at most 255 hashes a level.
    pub fn append(&mut self, _leaf: Hash, _completed: impl FnMut(Node, Hash)) {
        todo!()
    }

    /// How many leaves.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Size and root.
    pub fn head(&self) -> Head {
        todo!()
    }

    /// `size u64 big-endian || roots`.
    pub fn encode(&self) -> Vec<u8> {
        let mut octets = self.size.to_be_bytes().to_vec();
        octets.extend(self.roots.iter().flat_map(|hash| hash.0));
        octets
    }

    /// Reads what [`Self::encode`] wrote; None where the number of roots does not fit the size.
    pub fn decode(_octets: &[u8]) -> Option<Self> {
        todo!()
    }
}
