//! The verifier's half.

use super::ProofError;
use crate::merkle::{Hash, Head, empty_root, node_hash};

/// Checks that `leaf` is at `index` of the tree with this head (RFC 9162 2.1.3.2).
pub fn verify_inclusion(proof: &[Hash], leaf: Hash, index: u64, head: &Head) -> Result<(), ProofError> {
    if index >= head.size {
        return Err(ProofError);
    }
    // `node` and `last` are fn and sn of the RFC.
    let (mut node, mut last, mut root) = (index, head.size - 1, leaf);
    for hash in proof {
        if last == 0 {
            return Err(ProofError);
        }
        if node & 1 == 1 || node == last {
            root = node_hash(hash, &root);
            if node & 1 == 0 {
                let zeros = node.trailing_zeros().min(63);
                (node, last) = (node >> zeros, last >> zeros);
            }
        } else {
            root = node_hash(&root, hash);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    if last == 0 && root == head.root { Ok(()) } else { Err(ProofError) }
}

/// Checks that the tree `new` begins with the tree `old` (RFC 9162 2.1.4.2). Every tree begins with the empty one.
pub fn verify_consistency(proof: &[Hash], old: &Head, new: &Head) -> Result<(), ProofError> {
    if old.size == 0 || old.size == new.size {
        let same = if old.size == new.size { new.root } else { empty_root() };
        return if proof.is_empty() && old.root == same { Ok(()) } else { Err(ProofError) };
    }
    if old.size > new.size {
        return Err(ProofError);
    }
    // An old tree that is one complete subtree is its own first node.
    let mut path = proof.iter();
    let first = if old.size.is_power_of_two() { old.root } else { *path.next().ok_or(ProofError)? };
    let zeros = (old.size - 1).trailing_ones();
    let (mut node, mut last) = ((old.size - 1) >> zeros, (new.size - 1) >> zeros);
    let (mut old_root, mut new_root) = (first, first);
    for hash in path {
        if last == 0 {
            return Err(ProofError);
        }
        if node & 1 == 1 || node == last {
            old_root = node_hash(hash, &old_root);
            new_root = node_hash(hash, &new_root);
            if node & 1 == 0 {
                let zeros = node.trailing_zeros().min(63);
                (node, last) = (node >> zeros, last >> zeros);
            }
        } else {
            new_root = node_hash(&new_root, hash);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    if last == 0 && old_root == old.root && new_root == new.root { Ok(()) } else { Err(ProofError) }
}
