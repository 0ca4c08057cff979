use std::cell::Cell;
use std::collections::BTreeMap;
use std::convert::Infallible;

use super::*;
use crate::merkle::{Frontier, leaf_hash};

/// What a store keeps: leaves and the nodes of level 8, 16 …
#[derive(Default)]
struct Kept {
    leaves: Vec<Hash>,
    nodes: BTreeMap<Node, Hash>,
    frontier: Frontier,
    heads: Vec<Head>,
    asked: usize,
}

impl Kept {
    fn of(size: u32) -> Self {
        let mut kept = Self::default();
        kept.heads.push(kept.frontier.head());
        for leaf in 0..size {
            let hash = leaf_hash(&leaf.to_be_bytes());
            kept.leaves.push(hash);
            let nodes = &mut kept.nodes;
            kept.frontier.append(hash, |node, hash| {
                nodes.insert(node, hash);
            });
            kept.heads.push(kept.frontier.head());
        }
        kept
    }
}

impl NodeSource for Kept {
    type Error = Infallible;

    fn hashes(&mut self, node: Node, count: u16) -> Result<Vec<Hash>, Infallible> {
        assert!(node.level.is_multiple_of(8) && node.index.is_multiple_of(256) && count <= 256, "{node:?} × {count}");
        self.asked += 1;
        let indices = node.index..node.index + u64::from(count);
        Ok(indices
            .filter_map(|index| match node.level {
                0 => self.leaves.get(usize::try_from(index).unwrap()).copied(),
                level => self.nodes.get(&Node { level, index }).copied(),
            })
            .collect())
    }
}

/// The same leaves in the form that the crate `tlog_tiles` keeps: the stranger.
struct Stranger {
    stored: Vec<tlog_tiles::Hash>,
}

impl tlog_tiles::HashReader for Stranger {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
        Ok(indexes.iter().map(|index| self.stored[usize::try_from(*index).unwrap()]).collect())
    }
}

impl Stranger {
    fn of(size: u32) -> Self {
        let mut stranger = Self { stored: Vec::new() };
        for leaf in 0..size {
            let data = leaf.to_be_bytes();
            let new = tlog_tiles::stored_hashes(u64::from(leaf), &data, &stranger).unwrap();
            stranger.stored.extend(new);
        }
        stranger
    }
}

fn theirs(hashes: &[Hash]) -> Vec<tlog_tiles::Hash> {
    hashes.iter().map(|hash| tlog_tiles::Hash(hash.0)).collect()
}

fn agree_on_inclusion(kept: &mut Kept, stranger: &Stranger, index: u64, size: u64) {
    let proof = inclusion(kept, index, size).unwrap();
    let position = usize::try_from(index).unwrap();
    let head = kept.heads[usize::try_from(size).unwrap()];
    let leaf = kept.leaves[position];
    assert!(tlog_tiles::prove_record(size, index, stranger).unwrap() == theirs(&proof), "{index} in {size}");
    let (root, hash) = (tlog_tiles::Hash(head.root.0), tlog_tiles::Hash(leaf.0));
    tlog_tiles::check_record(&theirs(&proof), size, root, index, hash).unwrap();
    assert_eq!(verify_inclusion(&proof, leaf, index, &head), Ok(()), "{index} in {size}");
}

fn agree_on_consistency(kept: &mut Kept, stranger: &Stranger, old: u64, new: u64) {
    let proof = consistency(kept, old, new).unwrap();
    let heads = [old, new].map(|size| kept.heads[usize::try_from(size).unwrap()]);
    let [old_root, new_root] = heads.map(|head| tlog_tiles::Hash(head.root.0));
    assert!(tlog_tiles::prove_tree(new, old, stranger).unwrap() == theirs(&proof), "{old} to {new}");
    tlog_tiles::check_tree(&theirs(&proof), new, new_root, old, old_root).unwrap();
    assert_eq!(verify_consistency(&proof, &heads[0], &heads[1]), Ok(()), "{old} to {new}");
}

#[test]
fn every_proof_up_to_70_leaves_is_the_strangers() {
    let (mut kept, stranger) = (Kept::of(70), Stranger::of(70));
    for size in 1..=70 {
        let root = tlog_tiles::tree_hash(size, &stranger).unwrap();
        assert_eq!(kept.heads[usize::try_from(size).unwrap()].root.0, root.0);
        (0..size).for_each(|index| agree_on_inclusion(&mut kept, &stranger, index, size));
        (1..=size).for_each(|old| agree_on_consistency(&mut kept, &stranger, old, size));
    }
}

#[test]
fn proofs_of_a_large_tree_need_only_the_stored_levels() {
    const SIZE: u32 = 65_536 + 3 * 256 + 77;
    let (mut kept, stranger) = (Kept::of(SIZE), Stranger::of(SIZE));
    let edges = [1, 2, 255, 256, 257, 511, 512, 1_000, 65_279, 65_280, 65_535, 65_536, 65_537, 65_792, 66_304, 66_380];
    for size in edges.into_iter().chain([SIZE.into()]) {
        for index in edges.into_iter().chain([0]).filter(|index| *index < size) {
            agree_on_inclusion(&mut kept, &stranger, index, size);
        }
        for old in edges.into_iter().filter(|old| *old <= size) {
            agree_on_consistency(&mut kept, &stranger, old, size);
        }
        let expected = kept.heads[usize::try_from(size).unwrap()];
        assert_eq!(head(&mut kept, size).unwrap(), expected);
    }
    kept.asked = 0;
    inclusion(&mut kept, 300, SIZE.into()).unwrap();
    assert!(kept.asked <= 6, "{} reads for one proof", kept.asked);
}

#[test]
fn any_subtree_is_put_together() {
    let mut kept = Kept::of(600);
    for level in 0..=9 {
        for index in 0..(600 >> level) {
            let leaves = &kept.leaves[index << level..(index + 1) << level];
            let mut frontier = Frontier::default();
            for leaf in leaves {
                frontier.append(*leaf, |_, _| {});
            }
            let node = Node { level, index: u64::try_from(index).unwrap() };
            assert_eq!(subtree(&mut kept, node, 600).unwrap(), frontier.head().root, "{node:?}");
        }
        let beyond = Node { level, index: 600 >> level };
        assert!(matches!(subtree(&mut kept, beyond, 600), Err(MakeError::OutOfRange)));
    }
    assert!(matches!(subtree(&mut kept, Node { level: 255, index: 1 }, 600), Err(MakeError::OutOfRange)));
    assert!(matches!(subtree(&mut kept, Node { level: 63, index: u64::MAX }, 600), Err(MakeError::OutOfRange)));
}

#[test]
fn the_known_trees_proofs_are_made() {
    // google/certificate-transparency, the 8 leaves of merkle_tree_test.cc: first leaf in 8, and 6 to 8.
    let leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    let mut kept =
        Kept { leaves: leaves.iter().map(|leaf| leaf_hash(&hex::decode(leaf).unwrap())).collect(), ..Kept::default() };
    let hexes = |proof: Vec<Hash>| proof.into_iter().map(|hash| hex::encode(hash.0)).collect::<Vec<_>>();
    assert_eq!(
        hexes(inclusion(&mut kept, 0, 8).unwrap()),
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ]
    );
    assert_eq!(
        hexes(consistency(&mut kept, 6, 8).unwrap()),
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]
    );
}

#[test]
fn tampered_proofs_are_refused() {
    let mut kept = Kept::of(37);
    for size in 2..=37_u64 {
        let head = kept.heads[usize::try_from(size).unwrap()];
        let other = Head { root: leaf_hash(b"another root"), ..head };
        for index in 0..size {
            let proof = inclusion(&mut kept, index, size).unwrap();
            let leaf = kept.leaves[usize::try_from(index).unwrap()];
            for wrong in tampered(&proof) {
                assert_eq!(verify_inclusion(&wrong, leaf, index, &head), Err(ProofError), "{index} in {size}");
            }
            assert_eq!(verify_inclusion(&proof, leaf, index, &other), Err(ProofError));
            assert_eq!(verify_inclusion(&proof, leaf_hash(b"another leaf"), index, &head), Err(ProofError));
            assert_eq!(verify_inclusion(&proof, leaf, index ^ 1, &head), Err(ProofError));
            assert_eq!(verify_inclusion(&proof, leaf, index + size, &head), Err(ProofError));
        }
        for old in 1..size {
            let proof = consistency(&mut kept, old, size).unwrap();
            let old_head = kept.heads[usize::try_from(old).unwrap()];
            for wrong in tampered(&proof) {
                assert_eq!(verify_consistency(&wrong, &old_head, &head), Err(ProofError), "{old} to {size}");
            }
            assert_eq!(verify_consistency(&proof, &old_head, &other), Err(ProofError));
            assert_eq!(verify_consistency(&proof, &Head { root: other.root, ..old_head }, &head), Err(ProofError));
            assert_eq!(verify_consistency(&proof, &head, &old_head), Err(ProofError), "a step back");
        }
    }
}

/// A bit flipped in each hash, one hash less, one more, two exchanged.
fn tampered(proof: &[Hash]) -> Vec<Vec<Hash>> {
    let mut all = Vec::new();
    for place in 0..proof.len() {
        let mut flipped = proof.to_vec();
        flipped[place].0[31] ^= 1;
        let mut shorter = proof.to_vec();
        shorter.remove(place);
        all.extend([flipped, shorter]);
        if place > 0 {
            let mut exchanged = proof.to_vec();
            exchanged.swap(place - 1, place);
            all.push(exchanged);
        }
    }
    let mut longer = proof.to_vec();
    longer.push(leaf_hash(b"more"));
    all.push(longer);
    all
}

#[test]
fn equal_and_empty_trees_have_empty_proofs() {
    let mut kept = Kept::of(5);
    assert_eq!(consistency(&mut kept, 0, 5).unwrap(), []);
    assert_eq!(consistency(&mut kept, 5, 5).unwrap(), []);
    let (none, five) = (kept.heads[0], kept.heads[5]);
    assert_eq!(verify_consistency(&[], &none, &five), Ok(()));
    assert_eq!(verify_consistency(&[], &five, &five), Ok(()));
    assert_eq!(verify_consistency(&[], &none, &none), Ok(()));
    assert_eq!(verify_consistency(&[five.root], &none, &five), Err(ProofError));
    assert_eq!(verify_consistency(&[], &five, &Head { root: none.root, ..five }), Err(ProofError), "a fork");
    assert_eq!(verify_consistency(&[], &Head { size: 0, ..five }, &five), Err(ProofError), "not the empty root");
    assert_eq!(verify_inclusion(&[], none.root, 0, &none), Err(ProofError));
}

#[test]
fn what_is_out_of_range_or_missing_is_refused() {
    let mut kept = Kept::of(300);
    assert!(matches!(inclusion(&mut kept, 300, 300), Err(MakeError::OutOfRange)));
    assert!(matches!(consistency(&mut kept, 301, 300), Err(MakeError::OutOfRange)));
    assert!(matches!(inclusion(&mut kept, 0, 301), Err(MakeError::Missing)));
    kept.nodes.clear();
    assert!(matches!(inclusion(&mut kept, 299, 300), Err(MakeError::Missing)));
}

#[test]
fn a_failing_source_is_told() {
    struct Failing(Cell<u8>);
    impl NodeSource for Failing {
        type Error = &'static str;
        fn hashes(&mut self, _: Node, _: u16) -> Result<Vec<Hash>, Self::Error> {
            self.0.set(self.0.get() + 1);
            Err("disk")
        }
    }
    let mut source = Failing(Cell::new(0));
    assert!(matches!(inclusion(&mut source, 1, 9), Err(MakeError::Source("disk"))));
    assert_eq!(source.0.get(), 1);
}

#[test]
fn enormous_trees_do_not_overflow() {
    let head = Head { size: u64::MAX, root: empty_root() };
    let proof = vec![empty_root(); 70];
    assert_eq!(verify_inclusion(&proof, empty_root(), u64::MAX - 1, &head), Err(ProofError));
    assert_eq!(verify_inclusion(&proof, empty_root(), 0, &head), Err(ProofError));
    for old in [1, 1 << 63, u64::MAX - 1] {
        assert_eq!(verify_consistency(&proof, &Head { size: old, ..head }, &head), Err(ProofError));
    }
    assert!(matches!(inclusion(&mut Kept::of(1), u64::MAX - 1, u64::MAX), Err(MakeError::Missing)));
}
