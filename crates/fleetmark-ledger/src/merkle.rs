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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// The test tree of google/certificate-transparency (`merkletree/merkle_tree_test.cc`), which RFC 6962's
    /// implementations share: leaf, then the root of the tree that ends with it.
    const LEAVES: [(&str, &str); 8] = [
        ("", "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
        ("00", "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
        ("10", "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
        ("2021", "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
        ("3031", "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"),
        ("40414243", "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"),
        ("5051525354555657", "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"),
        ("606162636465666768696a6b6c6d6e6f", "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
    ];

    #[test]
    fn roots_are_those_of_the_known_tree() {
        let mut frontier = Frontier::default();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex::encode(frontier.head().root.0), empty);
        for (leaf, root) in LEAVES {
            frontier.append(leaf_hash(&hex::decode(leaf).unwrap()), |_, _| panic!("no node of level 8 in 8 leaves"));
            assert_eq!(hex::encode(frontier.head().root.0), root);
            assert_eq!(Frontier::decode(&frontier.encode()), Some(frontier.clone()));
        }
        assert_eq!(frontier.size(), 8);
    }

    #[test]
    fn completed_nodes_are_those_of_levels_8_and_16() {
        let mut frontier = Frontier::default();
        let mut told = BTreeMap::new();
        let mut last_tile = Frontier::default();
        for leaf in 0..65_536_u32 + 256 {
            let hash = leaf_hash(&leaf.to_be_bytes());
            frontier.append(hash, |node, hash| assert!(told.insert(node, hash).is_none(), "{node:?} was told twice"));
            if leaf >= 65_536 {
                last_tile.append(hash, |_, _| {});
            }
        }
        let expected: Vec<_> = (0..257).map(|index| Node { level: 8, index }).chain([Node { level: 16, index: 0 }]).collect();
        assert_eq!(told.keys().copied().collect::<Vec<_>>(), expected);
        assert_eq!(told.get(&Node { level: 8, index: 256 }), Some(&last_tile.head().root));
        let both = node_hash(&told[&Node { level: 16, index: 0 }], &last_tile.head().root);
        assert_eq!(frontier.head().root, both);
    }

    #[test]
    fn a_frontier_whose_roots_do_not_fit_its_size_is_refused() {
        let mut frontier = Frontier::default();
        (0..5_u8).for_each(|leaf| frontier.append(leaf_hash(&[leaf]), |_, _| {}));
        let good = frontier.encode();
        assert!(Frontier::decode(&good).is_some());
        assert!(Frontier::decode(&good[..good.len() - 1]).is_none());
        assert!(Frontier::decode(&good[..good.len() - 32]).is_none());
        assert!(Frontier::decode(&[good.clone(), vec![0]].concat()).is_none());
        assert!(Frontier::decode(&[]).is_none());
        assert!(Frontier::decode(&[&(1_u64 << 63).to_be_bytes()[..], &[0; 32]].concat()).is_none(), "above i64");
    }

    proptest! {
        #[test]
        fn hostile_frontiers_do_no_harm(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(mut frontier) = Frontier::decode(&octets) {
                prop_assert_eq!(frontier.encode(), octets);
                frontier.append(leaf_hash(b"leaf"), |_, _| {});
                let _ = frontier.head();
            }
        }
    }
}
