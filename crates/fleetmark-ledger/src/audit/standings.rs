//! The standing of each certificate, one octet each.

use std::collections::BTreeMap;

use fleetmark_domain::{Epoch, Index, Standing};

/// The octet of an index that was not issued in sight.
const NONE: u8 = u8::MAX;

/// How many certificates share a block. Small, so that an entry with a far index, of some 80 octets, costs the auditor
/// hardly more memory than it costs the ledger.
const BLOCK: u32 = 256;

/// Standings by epoch and index, in blocks.
#[derive(Debug, Clone, Default)]
pub(super) struct Standings(BTreeMap<(Epoch, u32), Box<[u8; 256]>>);

impl Standings {
    /// What the certificate is worth; None where it was not issued in sight.
    pub(super) fn of(&self, epoch: Epoch, index: Index) -> Option<Standing> {
        let code = *self.0.get(&(epoch, index.0 / BLOCK))?.get(within(index))?;
        Standing::from_code(code, None)
    }

    pub(super) fn set(&mut self, epoch: Epoch, index: Index, standing: Standing) {
        let block = self.0.entry((epoch, index.0 / BLOCK)).or_insert_with(|| Box::new([NONE; 256]));
        if let Some(code) = block.get_mut(within(index)) {
            *code = standing.code();
        }
    }

    /// Those of the range's certificates that were issued in sight, ascending. A hostile range costs no more than what
    /// was issued.
    pub(super) fn known(&self, range: crate::entry::Range) -> Vec<Index> {
        let end = range.first.0.saturating_add(range.count);
        let blocks = self.0.range((range.epoch, range.first.0 / BLOCK)..=(range.epoch, end / BLOCK));
        let indices = blocks.flat_map(|((_, block), codes)| {
            (block * BLOCK..).zip(codes.iter()).filter(|(_, code)| **code != NONE).map(|(index, _)| Index(index))
        });
        indices.filter(|index| (range.first.0..end).contains(&index.0)).collect()
    }
}

fn within(index: Index) -> usize {
    usize::try_from(index.0 % BLOCK).unwrap_or(0)
}
