//! The standing of each certificate, one octet each.

use std::collections::BTreeMap;

use fleetmark_domain::{Epoch, Index, Standing};

use super::model::Places;
use crate::entry::{Issued, Range};

/// The octet of an index that was not issued in sight.
const NONE: u8 = u8::MAX;

/// How many certificates share a block. Small, so that an entry with a far index, of some 80 octets, costs the auditor
/// hardly more memory than it costs the ledger.
const BLOCK: u32 = 256;

/// Standings by epoch and index, in blocks.
#[derive(Debug, Clone, Default)]
pub(super) struct Standings(BTreeMap<(Epoch, u32), Box<[u8; 256]>>);

impl Places for Standings {
    fn standing(&self, epoch: Epoch, index: Index) -> Option<Standing> {
        let code = *self.0.get(&(epoch, index.0 / BLOCK))?.get(within(index))?;
        Standing::from_code(code, None)
    }

    fn issue(&mut self, issued: &Issued) {
        let block = self.0.entry((issued.epoch, issued.index.0 / BLOCK)).or_insert_with(|| Box::new([NONE; 256]));
        if let Some(code) = block.get_mut(within(issued.index)) {
            *code = issued.standing.code();
        }
    }

    fn known(&self, range: Range) -> impl Iterator<Item = Standing> {
        let end = range.first.0.saturating_add(range.count);
        let blocks = self.0.range((range.epoch, range.first.0 / BLOCK)..=(range.epoch, end / BLOCK));
        let indices = blocks.flat_map(|((_, block), codes)| (block * BLOCK..).zip(codes.iter()));
        let inside = indices.filter(move |(index, _)| (range.first.0..end).contains(index));
        inside.filter_map(|(_, code)| Standing::from_code(*code, None))
    }

    fn change(&mut self, range: Range, standing: Standing) {
        let end = range.first.0.saturating_add(range.count);
        let blocks = self.0.range_mut((range.epoch, range.first.0 / BLOCK)..=(range.epoch, end / BLOCK));
        let indices = blocks.flat_map(|((_, block), codes)| (block * BLOCK..).zip(codes.iter_mut()));
        let inside = indices.filter(|(index, code)| (range.first.0..end).contains(index) && **code != NONE);
        inside.for_each(|(_, code)| *code = standing.code());
    }
}

fn within(index: Index) -> usize {
    usize::try_from(index.0 % BLOCK).unwrap_or(0)
}
