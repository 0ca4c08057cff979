//! From octets to a state.

use std::io::Read;

use fleetmark_domain::serial::EPOCH_CAPACITY;
use fleetmark_domain::{Epoch, Fingerprint, Index, Standing};
use ring::digest::{Context, SHA256};

use super::{BLOCK, MAGIC, MAGIC_2, SnapshotError};
use crate::cbor::{self, Reader};
use crate::entry::{AuthorityKind, EntryError, ExternalAuthority, state_from_code};
use crate::merkle::{Frontier, finish};
use crate::note::VerifierKey;
use crate::state::{ActivePolicy, Authority, Holding, ShortFingerprint, State};

/// Reads a state of the ledger with the pinned key, to the end of `from`. Returns it with SHA-256 over what was read.
///
/// Every length is checked before memory is taken for it: `from` is given with `limit`, the most octets that it may have,
/// and memory is taken as the octets come. That the state is the ledger's, the caller learns from the hash and the tree.
///
/// # Errors
/// [`SnapshotError`].
pub fn read(key: VerifierKey, from: &mut impl Read, limit: u64) -> Result<(State, [u8; 32]), SnapshotError> {
    let mut source = Source { from, left: limit, digest: Context::new(&SHA256), buffer: Vec::new() };
    let mut state = State::new(key);
    let epochs = read_header(&mut source, &mut state)?;
    for epoch in epochs {
        read_certificates(&mut source, &mut state, epoch)?;
    }
    source.end()?;
    Ok((state, finish(source.digest)))
}

/// All but the certificates; returns the epochs.
fn read_header<R: Read>(source: &mut Source<'_, R>, state: &mut State) -> Result<Vec<Epoch>, SnapshotError> {
    let magic: [u8; 21] = source.array()?;
    if magic != *MAGIC && magic != *MAGIC_2 {
        return Err(SnapshotError::Form("it does not begin as a snapshot does"));
    }
    let length = u16::from_be_bytes(source.array()?);
    let is_ours = source.octets(length.into())? == state.key.name.as_bytes();
    if source.array()? != state.key.key || !is_ours {
        return Err(SnapshotError::Origin);
    }
    let size: [u8; 8] = source.array()?;
    let mut frontier = size.to_vec();
    frontier.extend(source.octets(32 * usize::try_from(u64::from_be_bytes(size).count_ones()).unwrap_or(64))?);
    state.frontier = Frontier::decode(&frontier).ok_or(SnapshotError::Form("the frontier is too large"))?;
    for _ in 0..source.count(state)? {
        let (id, authority) = read_authority(source)?;
        if state.model.authorities.last_key_value().is_some_and(|(last, _)| *last >= id) {
            return Err(SnapshotError::Form("the authorities are not ascending"));
        }
        state.model.authorities.insert(id, authority);
    }
    if magic == *MAGIC_2 {
        read_externals(source, state)?;
    }
    state.model.policy = source.optional()?.map(|(version, hash)| ActivePolicy { version, hash });
    state.model.snapshot = source.optional()?;
    if state.model.snapshot.is_some_and(|(size, _)| size >= state.frontier.size()) {
        return Err(SnapshotError::Form("an earlier snapshot is of more entries"));
    }
    let mut epochs = Vec::new();
    for _ in 0..source.count(state)? {
        let (epoch, authority) = (Epoch(source.u32()?), source.u32()?);
        if epochs.last().is_some_and(|last| *last >= epoch) {
            return Err(SnapshotError::Form("the epochs are not ascending"));
        }
        state.model.epochs.insert(epoch, authority);
        epochs.push(epoch);
    }
    Ok(epochs)
}

fn read_externals<R: Read>(source: &mut Source<'_, R>, state: &mut State) -> Result<(), SnapshotError> {
    let wrong = |_: EntryError| SnapshotError::Form("an external authority is not of its form");
    let count = source.count(state)?;
    if count == 0 {
        return Err(SnapshotError::Form("without external authorities it is of the first form"));
    }
    for _ in 0..count {
        let length = u16::from_be_bytes(source.array()?);
        let octets = source.octets(length.into())?;
        let mut reader = Reader::new(octets);
        let external = reader.map_of(5).and_then(|()| reader.key(1)).and_then(|()| ExternalAuthority::read(&mut reader));
        let external = external.and_then(|external| external.check().map(|()| external)).map_err(wrong)?;
        if cbor::write(|w| external.write(w)) != octets {
            return Err(SnapshotError::Form("an external authority is not of its form"));
        }
        if state.model.externals.last_key_value().is_some_and(|(last, _)| *last >= external.authority) {
            return Err(SnapshotError::Form("the external authorities are not ascending"));
        }
        state.model.externals.insert(external.authority, external);
    }
    Ok(())
}

fn read_authority<R: Read>(source: &mut Source<'_, R>) -> Result<(u32, Authority), SnapshotError> {
    let unknown = |_| SnapshotError::Form("an authority's kind or state is unknown");
    let id = source.u32()?;
    let [kind, state] = source.array()?;
    let kind = AuthorityKind::from_code(kind).map_err(unknown)?;
    let state = state_from_code(state).map_err(unknown)?;
    Ok((id, Authority { kind, state, fingerprint: Fingerprint(source.array()?) }))
}

/// The certificates of one epoch.
fn read_certificates<R: Read>(source: &mut Source<'_, R>, state: &mut State, epoch: Epoch) -> Result<(), SnapshotError> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    let mut end = None;
    for _ in 0..source.count(state)? {
        let (first, count) = (source.u32()?, source.u32()?);
        let next = first.checked_add(count).filter(|next| *next <= EPOCH_CAPACITY && count > 0);
        // Two runs side by side would be one.
        let next = next.filter(|_| end.is_none_or(|end| end < first));
        end = Some(next.ok_or(SnapshotError::Form("the indices are not ascending runs below an epoch's capacity"))?);
        runs.push((first, count));
    }
    let count: u64 = runs.iter().map(|(_, count)| u64::from(*count)).sum();
    state.certificates += count;
    if state.certificates > state.frontier.size() {
        return Err(SnapshotError::Form("there are more certificates than entries"));
    }
    let is_adopted = state.model.epochs.get(&epoch).is_some_and(|authority| state.model.externals.contains_key(authority));
    let mut indices = runs.into_iter().flat_map(|(first, count)| first..first + count).map(Index);
    let mut left = usize::try_from(count).map_err(|_| SnapshotError::Form("there are too many certificates"))?;
    while left > 0 {
        let block = left.min(BLOCK);
        left -= block;
        let octets = source.octets(block * 21)?;
        let (fingerprints, rest) = octets.split_at(block * 12);
        let (standings, subjects) = rest.split_at(block);
        let places = fingerprints.as_chunks().0.iter().zip(standings).zip(subjects.as_chunks().0);
        for (((fingerprint, standing), subject), index) in places.zip(indices.by_ref()) {
            let standing = Standing::from_code(*standing, None).ok_or(SnapshotError::Form("there is no such standing"))?;
            let fingerprint = ShortFingerprint(*fingerprint);
            let holding = Holding { fingerprint, standing, subject: u64::from_be_bytes(*subject) };
            if is_adopted && state.model.adopted.insert(fingerprint, (epoch, index)).is_some() {
                return Err(SnapshotError::Form("a certificate is adopted twice"));
            }
            state.model.places.insert(epoch, index, holding);
        }
    }
    Ok(())
}

/// Where the octets come from, with the digest over them, and how many may still come.
struct Source<'a, R> {
    from: &'a mut R,
    left: u64,
    digest: Context,
    buffer: Vec<u8>,
}

impl<R: Read> Source<'_, R> {
    /// The next octets; a caller asks for at most a block's.
    fn octets(&mut self, count: usize) -> Result<&[u8], SnapshotError> {
        let left = u64::try_from(count).ok().and_then(|count| self.left.checked_sub(count));
        self.left = left.ok_or(SnapshotError::Form("it is longer than its limit"))?;
        self.buffer.resize(count, 0);
        self.from.read_exact(&mut self.buffer)?;
        self.digest.update(&self.buffer);
        Ok(&self.buffer)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        self.octets(N)?.try_into().map_err(|_| SnapshotError::Form("it is too short"))
    }

    fn u32(&mut self) -> Result<u32, SnapshotError> {
        self.array().map(u32::from_be_bytes)
    }

    /// How many of something follow: each took an entry of the ledger.
    fn count(&mut self, state: &State) -> Result<u32, SnapshotError> {
        let count = self.u32()?;
        if u64::from(count) > state.frontier.size() {
            return Err(SnapshotError::Form("there is more of something than entries"));
        }
        Ok(count)
    }

    fn optional(&mut self) -> Result<Option<(u64, [u8; 32])>, SnapshotError> {
        match self.array()? {
            [0] => Ok(None),
            [1] => Ok(Some((u64::from_be_bytes(self.array()?), self.array()?))),
            _ => Err(SnapshotError::Form("what is there or not is neither")),
        }
    }

    /// Nothing may follow.
    fn end(&mut self) -> Result<(), SnapshotError> {
        let mut beyond = [0];
        loop {
            match self.from.read(&mut beyond) {
                Ok(0) => return Ok(()),
                Ok(_) => return Err(SnapshotError::Form("something follows its end")),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
