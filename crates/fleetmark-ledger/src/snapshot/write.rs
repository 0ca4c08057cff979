//! From a state to octets.

use std::io::{self, Write};

use fleetmark_domain::{Epoch, Index};
use ring::digest::{Context, SHA256};

use super::{BLOCK, MAGIC, MAGIC_2};
use crate::cbor;
use crate::entry::state_code;
use crate::merkle::finish;
use crate::state::{Holding, State};

/// Writes the state; the same state gives the same octets. Returns SHA-256 over them.
///
/// # Errors
/// Those of `to`.
pub fn write(state: &State, to: &mut impl Write) -> io::Result<[u8; 32]> {
    let mut sink = Sink { to, digest: Context::new(&SHA256) };
    sink.put(&header(state))?;
    for (epoch, _) in state.epochs() {
        let runs = runs(state, epoch);
        sink.put(&number(runs.len()))?;
        for run in runs.chunks(BLOCK) {
            sink.put(
                &run.iter().flat_map(|(first, count)| [first.to_be_bytes(), count.to_be_bytes()].concat()).collect::<Vec<_>>(),
            )?;
        }
        let mut certificates = state.model.places.of(epoch).map(|(_, holding)| holding);
        loop {
            let block: Vec<_> = certificates.by_ref().take(BLOCK).collect();
            if block.is_empty() {
                break;
            }
            sink.put(&octets(&block))?;
        }
    }
    Ok(finish(sink.digest))
}

/// All but the certificates.
fn header(state: &State) -> Vec<u8> {
    let has_externals = !state.model.externals.is_empty();
    let mut octets = if has_externals { MAGIC_2 } else { MAGIC }.to_vec();
    let origin = state.key.name.as_bytes();
    // A key name has at most 512 octets.
    octets.extend(u16::try_from(origin.len()).unwrap_or(u16::MAX).to_be_bytes());
    octets.extend(origin);
    octets.extend(state.key.key);
    octets.extend(state.frontier.encode());
    octets.extend(number(state.model.authorities.len()));
    for (id, authority) in &state.model.authorities {
        octets.extend(id.to_be_bytes());
        octets.extend([authority.kind.code(), state_code(authority.state)]);
        octets.extend(authority.fingerprint.octets());
    }
    if has_externals {
        octets.extend(number(state.model.externals.len()));
        for external in state.model.externals.values() {
            let written = cbor::write(|w| external.write(w));
            // At most some 700 octets: 8 issuers, texts of 296 octets.
            octets.extend(u16::try_from(written.len()).unwrap_or(u16::MAX).to_be_bytes());
            octets.extend(written);
        }
    }
    let policy = state.model.policy.map(|policy| (policy.version, policy.hash));
    for optional in [policy, state.model.snapshot] {
        octets.push(optional.is_some().into());
        if let Some((number, hash)) = optional {
            octets.extend(number.to_be_bytes());
            octets.extend(hash);
        }
    }
    octets.extend(number(state.model.epochs.len()));
    for (epoch, authority) in &state.model.epochs {
        octets.extend(epoch.0.to_be_bytes());
        octets.extend(authority.to_be_bytes());
    }
    octets
}

/// Which indices of an epoch hold certificates: first and count, ascending, never adjacent.
fn runs(state: &State, epoch: Epoch) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for (Index(index), _) in state.model.places.of(epoch) {
        match runs.last_mut() {
            Some((first, count)) if *first + *count == index => *count += 1,
            _ => runs.push((index, 1)),
        }
    }
    runs
}

/// A block: fingerprints, then standings, then holders.
fn octets(block: &[Holding]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(block.len() * 21);
    octets.extend(block.iter().flat_map(|holding| holding.fingerprint.0));
    octets.extend(block.iter().map(|holding| holding.standing.code()));
    octets.extend(block.iter().flat_map(|holding| holding.subject.to_be_bytes()));
    octets
}

/// A count. There are never more than 2^32 of anything: ids and epochs have 32 bits, an epoch 2^24 certificates.
fn number(count: usize) -> [u8; 4] {
    u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes()
}

/// Where the octets go, with the digest over them.
struct Sink<'a, W> {
    to: &'a mut W,
    digest: Context,
}

impl<W: Write> Sink<'_, W> {
    fn put(&mut self, octets: &[u8]) -> io::Result<()> {
        self.digest.update(octets);
        self.to.write_all(octets)
    }
}
