//! What the entries mean, as far as one can be wrong about them.

use std::collections::{BTreeMap, HashMap};

use fleetmark_domain::{Epoch, Index, Standing};

use super::Rule;
use crate::entry::{Adopted, AuthorityState, Event, ExternalAuthority, ExternalState, IndexSet, Issued, Range};
use crate::note::VerifierKey;
use crate::state::{ActivePolicy, Authority, ShortFingerprint};

/// What is kept of each certificate.
pub(crate) trait Places {
    /// What the certificate is worth; None where it was not issued in sight.
    fn standing(&self, epoch: Epoch, index: Index) -> Option<Standing>;

    /// Keeps a certificate at a place that holds none.
    fn issue(&mut self, issued: &Issued);

    /// What those of the range's certificates are worth that were issued in sight. A hostile range costs no more than what
    /// was issued.
    fn known(&self, range: Range) -> impl Iterator<Item = Standing>;

    /// Sets the standing of those of the range's certificates that were issued in sight.
    fn change(&mut self, range: Range, standing: Standing);
}

/// Epochs, authorities, standings, policy and snapshot after the entries so far.
#[derive(Debug, Clone)]
pub(crate) struct Model<P> {
    /// Whether the ledger was read from position 0: what was not seen then does not exist.
    whole: bool,
    /// The authority of each epoch.
    pub(crate) epochs: BTreeMap<Epoch, u32>,
    pub(crate) authorities: BTreeMap<u32, Authority>,
    /// The policy set that was activated last.
    pub(crate) policy: Option<ActivePolicy>,
    /// Size and hash of the snapshot that was made last.
    pub(crate) snapshot: Option<(u64, [u8; 32])>,
    /// Other authorities whose certificates may be adopted.
    pub(crate) externals: BTreeMap<u32, ExternalAuthority>,
    /// The places of what was adopted.
    pub(crate) adopted: HashMap<ShortFingerprint, (Epoch, Index)>,
    pub(crate) places: P,
}

impl<P: Places + Default> Model<P> {
    pub(crate) fn new(whole: bool) -> Self {
        let (epochs, authorities, externals) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (adopted, places) = (HashMap::new(), P::default());
        Self { whole, epochs, authorities, policy: None, snapshot: None, externals, adopted, places }
    }
}

impl<P: Places> Model<P> {
    /// Takes the event at `position`. A refusal changes nothing.
    pub(crate) fn apply(&mut self, event: &Event, position: u64, pinned: &VerifierKey) -> Result<(), Rule> {
        match event {
            Event::Opened { origin, key } => return opened(origin, key, position, pinned),
            _ if position == 0 => return Err(Rule::NotOpened),
            Event::EpochOpened { authority, epoch } => return self.epoch_opened(*authority, *epoch),
            Event::AuthorityChanged { authority, kind, state, fingerprint } => {
                let next = Authority { kind: *kind, state: *state, fingerprint: *fingerprint };
                return self.authority_changed(*authority, next);
            }
            Event::Issued(issued) => return self.issued(issued),
            Event::ExternalAuthorityChanged(next) => return self.external_changed(next),
            Event::ExternalAdopted(adopted) => return self.adopt(adopted),
            Event::Confirmed { epoch, index } => return self.confirmed(*epoch, *index),
            Event::StandingChanged { standing, certificates } => return self.standing_changed(*standing, certificates),
            Event::SnapshotMade { size, .. } if *size > position => return Err(Rule::SnapshotAhead),
            Event::SnapshotMade { size, hash } => self.snapshot = Some((*size, *hash)),
            Event::PolicyActivated { version, hash } => {
                self.policy = Some(ActivePolicy { version: *version, hash: *hash });
            }
            Event::Registered { .. } | Event::Changed { .. } | Event::FleetChanged { .. } | Event::Alarmed { .. } => {}
        }
        Ok(())
    }

    fn epoch_opened(&mut self, authority: u32, epoch: Epoch) -> Result<(), Rule> {
        if matches!(self.state(authority), Some(AuthorityState::Tainted | AuthorityState::Revoked)) {
            return Err(Rule::AuthorityEnded);
        }
        if self.epochs.contains_key(&epoch) {
            return Err(Rule::EpochReused);
        }
        self.epochs.insert(epoch, authority);
        Ok(())
    }

    fn authority_changed(&mut self, id: u32, next: Authority) -> Result<(), Rule> {
        use AuthorityState::{Active, Prepared, Revoked, Tainted};
        if let Some(before) = self.authorities.get(&id) {
            if before.kind != next.kind {
                return Err(Rule::AuthorityKindChanged);
            }
            // A repeated state is no step back: the authority's certificate was renewed.
            match (before.state, next.state) {
                (Prepared, _) | (Active, Active | Tainted | Revoked) | (Tainted, Tainted | Revoked) => {}
                _ => return Err(Rule::AuthorityStateBack),
            }
        }
        self.authorities.insert(id, next);
        Ok(())
    }

    /// Its rule of names is for ever, and its end too.
    fn external_changed(&mut self, next: &ExternalAuthority) -> Result<(), Rule> {
        match self.externals.get(&next.authority) {
            Some(before) if before.state == ExternalState::Ended || before.naming != next.naming => Err(Rule::ExternalChanged),
            // What was opened or issued under this id before would be taken for adopted.
            None if self.epochs.values().any(|authority| *authority == next.authority) => Err(Rule::ExternalChanged),
            _ => {
                self.externals.insert(next.authority, next.clone());
                Ok(())
            }
        }
    }

    fn adopt(&mut self, adopted: &Adopted) -> Result<(), Rule> {
        match self.externals.get(&adopted.authority) {
            Some(external) if external.state == ExternalState::Ended => return Err(Rule::ExternalUnknown),
            None if self.whole => return Err(Rule::ExternalUnknown),
            _ => {}
        }
        let short = ShortFingerprint::from(&adopted.fingerprint);
        if self.adopted.contains_key(&short) {
            return Err(Rule::AdoptedAgain);
        }
        self.place(&adopted.place())?;
        self.adopted.insert(short, (adopted.epoch, adopted.index));
        Ok(())
    }

    fn issued(&mut self, issued: &Issued) -> Result<(), Rule> {
        if self.externals.contains_key(&issued.authority) {
            return Err(Rule::ExternalUnknown);
        }
        match self.state(issued.authority) {
            Some(AuthorityState::Revoked) => return Err(Rule::AuthorityEnded),
            // Subject 0: a tainted authority still certifies its OCSP responder.
            Some(AuthorityState::Tainted) if issued.subject != 0 => return Err(Rule::AuthorityEnded),
            _ => {}
        }
        self.place(issued)
    }

    /// Puts a certificate into its place, which its authority's epoch must have and which must be empty.
    fn place(&mut self, issued: &Issued) -> Result<(), Rule> {
        match self.epochs.get(&issued.epoch) {
            Some(authority) if *authority != issued.authority => return Err(Rule::OtherAuthority),
            None if self.whole => return Err(Rule::EpochUnknown),
            _ => {}
        }
        if self.places.standing(issued.epoch, issued.index).is_some() {
            return Err(Rule::IndexReused);
        }
        self.epochs.insert(issued.epoch, issued.authority);
        self.places.issue(issued);
        Ok(())
    }

    fn confirmed(&mut self, epoch: Epoch, index: Index) -> Result<(), Rule> {
        match self.places.standing(epoch, index) {
            Some(Standing::Unconfirmed) => self.places.change(Range { epoch, first: index, count: 1 }, Standing::Good),
            Some(_) => return Err(Rule::NotUnconfirmed),
            None if self.whole => return Err(Rule::CertificateUnknown),
            None => {}
        }
        Ok(())
    }

    fn standing_changed(&mut self, next: Standing, certificates: &IndexSet) -> Result<(), Rule> {
        for range in certificates.ranges() {
            let mut known = 0_u32;
            let mut allowed = true;
            for before in self.places.known(*range) {
                known += 1;
                allowed &= before.may_become(next);
            }
            if self.whole && known != range.count {
                return Err(Rule::CertificateUnknown);
            }
            if !allowed {
                return Err(Rule::StandingForbidden);
            }
        }
        certificates.ranges().iter().for_each(|range| self.places.change(*range, next));
        Ok(())
    }

    fn state(&self, authority: u32) -> Option<AuthorityState> {
        self.authorities.get(&authority).map(|authority| authority.state)
    }
}

/// The first entry, and no other, opens the ledger with the pinned key.
fn opened(origin: &str, key: &[u8; 32], position: u64, pinned: &VerifierKey) -> Result<(), Rule> {
    if position != 0 {
        Err(Rule::OpenedAgain)
    } else if origin != pinned.name {
        Err(Rule::OtherOrigin)
    } else if *key != pinned.key {
        Err(Rule::OtherKey)
    } else {
        Ok(())
    }
}
