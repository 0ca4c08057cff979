//! The model: what the system promises, as a few tables in memory. One act after the other, no clock but `now`, no disk, no keys.
//! Every act either changes the tables, or gives the name of its refusal and changes nothing (but for the server's reaction to a
//! superseded certificate).

use std::collections::BTreeMap;
use std::time::Duration;

use fleetmark_domain::lifecycle::Reaction;
use fleetmark_domain::{
    CertificateEvent, DeviceEvent, DeviceState, Reenrollment, Refusal, RevocationReason, Standing, Timestamp,
};

pub type Key = usize;
pub type Fleet = usize;
pub type Name = usize;
/// A device is a name in a fleet.
pub type Device = (Fleet, Name);
type Answer<T> = Result<T, Refusal>;

/// For so long the use of a superseded certificate is an alarm alone.
const SETTLING: Duration = Duration::from_secs(60);
pub const GRACE: Duration = Duration::from_secs(30 * 86_400);

#[derive(Debug, Clone)]
pub struct Holder {
    pub state: DeviceState,
    /// Whether it came in last by its fleet's claim group.
    pub by_claim: bool,
    /// Its certificates in order: the generation is the place, from 1.
    pub certificates: Vec<usize>,
    /// The generation confirmed last.
    pub confirmed: usize,
    /// Where it may go, with which token.
    pub moving: Option<(Fleet, usize)>,
    /// Whence it is coming, until it confirms.
    pub moved_from: Option<Device>,
    pub may_enroll_until: Option<Timestamp>,
    pub may_be_late_until: Option<Timestamp>,
    pub renewals_held: bool,
}

#[derive(Debug, Clone)]
pub struct Certificate {
    pub device: Device,
    pub generation: usize,
    pub key: Key,
    pub token: Option<usize>,
    pub standing: Standing,
    pub issued_at: Timestamp,
    pub changed_at: Timestamp,
    pub confirm_before: Timestamp,
    /// As the server chose them.
    pub not_after: Timestamp,
    pub renew_after: Timestamp,
}

impl Certificate {
    fn has_lapsed(&self, now: Timestamp) -> bool {
        self.standing == Standing::Unconfirmed && self.confirm_before <= now
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenState {
    Fresh,
    Reserved(Key),
    Used(Key),
    Withdrawn,
}

#[derive(Debug, Clone)]
pub struct Token {
    pub fleet: Fleet,
    /// Bound to this name.
    pub name: Option<Name>,
    pub uses: u64,
    pub spent: u64,
    pub state: TokenState,
    pub minted_at: Timestamp,
    pub ends: Timestamp,
    /// A transfer token: who leaves with it.
    pub origin: Option<Device>,
}

/// A fleet's claim group, with its one claim certificate.
#[derive(Debug, Clone)]
pub struct Claim {
    pub ends: Timestamp,
    pub open: bool,
    pub quota: u64,
    pub admitted: u64,
}

/// By what right a certificate is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Token(usize),
    DerivedKey,
    Claim,
    Current,
}

/// What enrolling gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// A certificate that was given before.
    Again(usize),
    /// A new one, for this device.
    New(Device),
}

#[derive(Debug, Clone)]
pub struct Model {
    pub devices: BTreeMap<Device, Holder>,
    pub certificates: Vec<Certificate>,
    /// A key has one certificate, for ever.
    pub keys: BTreeMap<Key, usize>,
    pub tokens: Vec<Token>,
    /// By fleet.
    pub claims: Vec<Claim>,
    /// Whose hardware is the one with this derived key.
    pub hardware: BTreeMap<Device, Device>,
    pub reenroll: Reenrollment,
    pub reaction: Reaction,
}

impl Model {
    pub fn new(reenroll: Reenrollment, reaction: Reaction, claims: Vec<Claim>) -> Self {
        Self {
            devices: BTreeMap::new(),
            certificates: Vec::new(),
            keys: BTreeMap::new(),
            tokens: Vec::new(),
            claims,
            hardware: BTreeMap::new(),
            reenroll,
            reaction,
        }
    }

    fn register(&mut self, device: Device) -> &mut Holder {
        self.devices.entry(device).or_insert(Holder {
            state: DeviceState::Registered,
            by_claim: false,
            certificates: Vec::new(),
            confirmed: 0,
            moving: None,
            moved_from: None,
            may_enroll_until: None,
            may_be_late_until: None,
            renewals_held: false,
        })
    }

    fn known(&self, device: Device) -> Answer<&Holder> {
        self.devices.get(&device).ok_or(Refusal::DeviceUnknown)
    }

    fn holder(&mut self, device: Device) -> &mut Holder {
        self.devices.get_mut(&device).unwrap()
    }

    /// Its certificates that are not revoked.
    fn live(&self, device: Device) -> Vec<usize> {
        let own = self.devices.get(&device).map(|holder| holder.certificates.clone()).unwrap_or_default();
        own.into_iter().filter(|id| !matches!(self.certificates[*id].standing, Standing::Revoked(_))).collect()
    }

    fn set(&mut self, id: usize, standing: Standing, now: Timestamp) {
        self.certificates[id].standing = standing;
        self.certificates[id].changed_at = now;
    }

    // Tokens.

    pub fn mint(&mut self, token: Token) -> Answer<()> {
        if let Some(name) = token.name {
            if self.devices.get(&(token.fleet, name)).is_some_and(|holder| holder.state == DeviceState::Out) {
                return Err(Refusal::IdentityOut);
            }
            self.register((token.fleet, name));
        }
        self.tokens.push(token);
        Ok(())
    }

    pub fn withdraw(&mut self, token: usize) -> Answer<()> {
        match self.tokens[token].state {
            TokenState::Used(_) => return Err(Refusal::TokenUsed),
            _ => self.tokens[token].state = TokenState::Withdrawn,
        }
        Ok(())
    }

    /// A token for one device is bound to its first key, and used up by that key's confirmation.
    fn admits(token: &Token, key: Key, now: Timestamp) -> Answer<()> {
        match token.state {
            TokenState::Withdrawn => Err(Refusal::TokenWithdrawn),
            TokenState::Fresh if token.ends <= now => Err(Refusal::TokenExpired),
            TokenState::Fresh => Ok(()),
            TokenState::Reserved(own) | TokenState::Used(own) if own == key => Ok(()),
            TokenState::Reserved(_) => Err(Refusal::TokenBoundToOtherKey),
            TokenState::Used(_) => Err(Refusal::TokenUsed),
        }
    }

    /// A token for several devices: each name once, but for one whose certificate lapsed. Gives whether it is counted already.
    fn room(&self, token: usize, device: Device, now: Timestamp) -> Answer<bool> {
        let record = &self.tokens[token];
        let newest = self.devices.get(&device).and_then(|holder| Some((holder, *holder.certificates.last()?)));
        let Some((holder, newest)) = newest else {
            return if record.spent < record.uses { Ok(false) } else { Err(Refusal::TokenUsed) };
        };
        let newest = &self.certificates[newest];
        if holder.confirmed > 0 || newest.token != Some(token) {
            return Err(Refusal::NameTaken);
        }
        match newest.standing {
            Standing::Held => Err(Refusal::Held),
            Standing::Quarantined => Err(Refusal::Quarantined),
            Standing::Unconfirmed if now < newest.confirm_before => Err(Refusal::TokenBoundToOtherKey),
            Standing::Unconfirmed => Ok(true),
            Standing::Revoked(_) if newest.confirm_before <= newest.changed_at => Ok(true),
            _ => Err(Refusal::NameTaken),
        }
    }

    // Enrolling.

    /// The certificate of this key again, while it holds, to its own device.
    fn again(&self, id: usize, device: Device, by_current: bool, now: Timestamp) -> Answer<Given> {
        let certificate = &self.certificates[id];
        if certificate.device != device {
            return Err(Refusal::KeyOfAnother);
        }
        match certificate.standing {
            Standing::Held => Err(Refusal::Held),
            Standing::Quarantined => Err(Refusal::Quarantined),
            Standing::Revoked(RevocationReason::KeyCompromise) => Err(Refusal::KeyCompromised),
            Standing::Superseded | Standing::Revoked(_) => Err(Refusal::KeyEnded),
            Standing::Unconfirmed if certificate.has_lapsed(now) => Err(Refusal::Lapsed),
            Standing::Good if certificate.not_after <= now => Err(Refusal::KeyEnded),
            Standing::Good if by_current && certificate.renew_after <= now => Err(Refusal::KeyReused),
            _ => Ok(Given::Again(id)),
        }
    }

    pub fn enroll_by_token(&self, fleet: Fleet, token: usize, name: Option<Name>, key: Key, now: Timestamp) -> Answer<Given> {
        let record = &self.tokens[token];
        if record.fleet != fleet {
            return Err(Refusal::TokenWrongFleet);
        }
        if record.name.is_some() && name.is_some() && name != record.name {
            return Err(Refusal::TokenWrongName);
        }
        let device = (fleet, record.name.or(name).ok_or(Refusal::InvalidName)?);
        let known = self.devices.get(&device);
        if record.name.is_some() && known.is_some_and(|holder| holder.state == DeviceState::Out) {
            return Err(Refusal::IdentityOut);
        }
        let existing = self.keys.get(&key).copied();
        let is_own = existing.is_some_and(|id| self.certificates[id].token == Some(token));
        let is_several = record.uses > 1;
        if !(is_several && is_own && record.state == TokenState::Fresh) {
            Self::admits(record, key, now)?;
        }
        // A token that nobody used yet knows no key: it asks for room first.
        if is_several && (existing.is_none() || record.spent == 0) {
            self.room(token, device, now)?;
        }
        if let Some(existing) = existing {
            return self.again(existing, device, false, now);
        }
        if let Some(origin) = record.origin {
            self.departs(origin, fleet)?;
        }
        if record.name.is_none() {
            if !is_several && known.is_some_and(|holder| !holder.certificates.is_empty()) {
                return Err(Refusal::NameTaken);
            }
            if self.hardware.values().any(|owner| *owner == device) {
                return Err(Refusal::HardwareMismatch);
            }
        }
        self.may_have_one(device)
    }

    /// Who is out or held gets no certificate.
    fn may_have_one(&self, device: Device) -> Answer<Given> {
        if self.devices.get(&device).is_some_and(|holder| holder.state == DeviceState::Out) {
            return Err(Refusal::IdentityOut);
        }
        if self.live(device).iter().any(|id| self.certificates[*id].standing == Standing::Held) {
            return Err(Refusal::Held);
        }
        Ok(Given::New(device))
    }

    /// By a key derived from the group's and the device's name: the name is the hardware, and hardware is one device.
    pub fn enroll_by_derived_key(&self, device: Device, key: Key, now: Timestamp) -> Answer<Given> {
        if let Some(existing) = self.keys.get(&key) {
            return self.again(*existing, device, false, now);
        }
        let known = self.devices.get(&device);
        let is_permitted = known.and_then(|holder| holder.may_enroll_until).is_some_and(|until| now < until);
        let owner = self.hardware.get(&device).copied();
        let is_own = owner == Some(device) && known.is_some();
        if let Some(owner) = owner.filter(|owner| !is_own && known.is_none_or(|known| known.moved_from != Some(*owner))) {
            match self.devices[&owner].state {
                DeviceState::Out if is_permitted => {}
                DeviceState::Out => return Err(Refusal::IdentityOut),
                _ => return Err(Refusal::HardwareOfAnother),
            }
        }
        let Some(known) = known else { return Ok(Given::New(device)) };
        let is_bound = self.hardware.values().any(|owner| *owner == device);
        let waits = |id: &usize| {
            let certificate = &self.certificates[*id];
            let is_waiting = matches!(certificate.standing, Standing::Unconfirmed | Standing::Held | Standing::Quarantined);
            is_waiting && !certificate.has_lapsed(now)
        };
        match (known.confirmed > 0, self.reenroll) {
            _ if is_permitted => {}
            (false, _) if is_own => {}
            (false, _) if is_bound => return Err(Refusal::HardwareMismatch),
            (false, _) if self.live(device).iter().any(waits) => return Err(Refusal::NameTaken),
            (false, _) | (true, Reenrollment::Always) => {}
            (true, Reenrollment::SameHardware) if is_own => {}
            (true, Reenrollment::SameHardware) if is_bound => return Err(Refusal::HardwareMismatch),
            (true, _) => return Err(Refusal::ReenrollmentDenied),
        }
        self.may_have_one(device)
    }

    /// By a claim certificate, which says nothing of the hardware: the first key under a name keeps it, and each name counts once.
    pub fn enroll_by_claim(&self, device: Device, key: Key, now: Timestamp) -> Answer<Given> {
        let claim = &self.claims[device.0];
        if claim.ends < now {
            return Err(Refusal::ClaimEnded);
        }
        if !claim.open {
            return Err(Refusal::GroupDisabled);
        }
        if let Some(existing) = self.keys.get(&key) {
            return self.again(*existing, device, false, now);
        }
        let known = self.devices.get(&device);
        if let Some(known) = known {
            let is_permitted = known.may_enroll_until.is_some_and(|until| now < until);
            let waits = |id: &usize| {
                let certificate = &self.certificates[*id];
                let is_waiting = matches!(certificate.standing, Standing::Unconfirmed | Standing::Held | Standing::Quarantined);
                is_waiting && !certificate.has_lapsed(now)
            };
            match known.confirmed > 0 {
                _ if is_permitted => {}
                _ if self.hardware.values().any(|owner| *owner == device) => return Err(Refusal::HardwareMismatch),
                true => return Err(Refusal::ReenrollmentDenied),
                false if self.live(device).iter().any(waits) => return Err(Refusal::ClaimBoundToOtherKey),
                false => {}
            }
            if known.state == DeviceState::Out {
                return Err(Refusal::IdentityOut);
            }
        }
        if !known.is_some_and(|known| known.by_claim) && claim.admitted >= claim.quota {
            return Err(Refusal::QuotaUsed);
        }
        self.may_have_one(device)
    }

    pub fn open_claim(&mut self, fleet: Fleet, open: bool) {
        self.claims[fleet].open = open;
    }

    /// A new certificate is there: an unconfirmed one before it ends, the token is spent, the hardware is bound.
    pub fn issued(&mut self, new: Certificate, by: By, now: Timestamp) {
        let Certificate { device, key, token, .. } = new;
        if by == By::Claim {
            let is_counted = self.devices.get(&device).is_some_and(|known| known.by_claim);
            self.claims[device.0].admitted += u64::from(!is_counted);
        }
        if let Some(id) = token {
            let is_counted = self.tokens[id].uses > 1 && self.room(id, device, now).unwrap();
            let record = &mut self.tokens[id];
            record.spent += u64::from(!is_counted);
            if record.uses == 1 {
                record.state = TokenState::Reserved(key);
            }
        }
        for id in self.live(device) {
            if self.certificates[id].standing == Standing::Unconfirmed {
                self.set(id, Standing::Revoked(RevocationReason::Superseded), now);
            }
        }
        if by == By::DerivedKey {
            self.hardware.retain(|_, owner| *owner != device);
            self.hardware.insert(device, device);
        }
        let origin = token.and_then(|token| self.tokens[token].origin);
        let id = self.certificates.len();
        let holder = self.register(device);
        match by {
            By::Claim => holder.by_claim = true,
            By::DerivedKey => holder.by_claim = false,
            By::Token(_) | By::Current => {}
        }
        holder.moved_from = origin.or(holder.moved_from);
        holder.certificates.push(id);
        let generation = holder.certificates.len();
        self.keys.insert(key, id);
        self.certificates.push(Certificate { generation, ..new });
    }

    // Using a certificate.

    /// The first use confirms; only confirmation supersedes.
    pub fn present(&mut self, id: usize, is_renewal: bool, now: Timestamp) -> Answer<()> {
        let certificate = self.certificates[id].clone();
        let holder = self.devices[&certificate.device].clone();
        if certificate.not_after < now {
            let is_permitted = holder.may_be_late_until.is_some_and(|until| now < until);
            let is_in_time = is_permitted || now <= certificate.not_after + GRACE;
            if !(is_renewal && certificate.generation == holder.confirmed && is_in_time) {
                return Err(Refusal::CertificateExpired);
            }
        }
        if holder.state == DeviceState::Out {
            return Err(if holder.moving.is_some() { Refusal::DeviceMoved } else { Refusal::IdentityOut });
        }
        if certificate.has_lapsed(now) {
            return Err(Refusal::Lapsed);
        }
        if certificate.standing == Standing::Superseded && now.since(certificate.changed_at) >= SETTLING {
            self.react(certificate.device, now);
        }
        match certificate.standing.next(CertificateEvent::Confirmed)? == certificate.standing {
            true => Ok(()),
            false => self.confirm(id, now),
        }
    }

    /// A clone is at work: the device that confirmed the newer certificate comes under suspicion with it.
    fn react(&mut self, device: Device, now: Timestamp) {
        let current = self.devices[&device].certificates[self.devices[&device].confirmed - 1];
        match self.reaction {
            Reaction::Alarm => {}
            Reaction::HoldRenewals => self.holder(device).renewals_held = true,
            Reaction::Quarantine if self.certificates[current].standing == Standing::Good => {
                self.set(current, Standing::Quarantined, now);
            }
            Reaction::Quarantine => {}
        }
    }

    pub fn confirm_by_token(&mut self, id: usize, now: Timestamp) -> Answer<()> {
        let certificate = self.certificates[id].clone();
        let token = &self.tokens[certificate.token.unwrap()];
        match (token.uses, token.state) {
            (1, TokenState::Fresh | TokenState::Withdrawn) => return Err(Refusal::NotOnLedger),
            (_, TokenState::Withdrawn) => return Err(Refusal::TokenWithdrawn),
            _ => {}
        }
        if certificate.has_lapsed(now) {
            return Err(Refusal::Lapsed);
        }
        match certificate.standing.next(CertificateEvent::Confirmed)? == certificate.standing {
            true => Ok(()),
            false => self.confirm(id, now),
        }
    }

    fn confirm(&mut self, id: usize, now: Timestamp) -> Answer<()> {
        let device = self.certificates[id].device;
        self.devices[&device].state.next(DeviceEvent::Confirmed)?;
        if let Some(origin) = self.devices[&device].moved_from {
            self.departs(origin, device.0)?;
        }
        self.set(id, Standing::Good, now);
        self.settle(id, now);
        Ok(())
    }

    /// The newest good certificate supersedes those before it; of a device that moved here, its life elsewhere ends.
    fn settle(&mut self, id: usize, now: Timestamp) {
        let Certificate { device, generation, token, key, .. } = self.certificates[id].clone();
        for earlier in self.live(device) {
            let is_ended =
                matches!(self.certificates[earlier].standing, Standing::Good | Standing::Held | Standing::Quarantined);
            if self.certificates[earlier].generation < generation && is_ended {
                self.set(earlier, Standing::Superseded, now);
            }
        }
        let is_used_up = |token: &Token| token.uses == 1 && token.state != TokenState::Withdrawn;
        if let Some(token) = token.filter(|token| is_used_up(&self.tokens[*token])) {
            self.tokens[token].state = TokenState::Used(key);
        }
        let holder = self.holder(device);
        holder.state = holder.state.next(DeviceEvent::Confirmed).unwrap();
        holder.confirmed = generation;
        holder.may_enroll_until = None;
        if let Some(origin) = holder.moved_from.take() {
            for id in self.live(origin) {
                self.set(id, Standing::Revoked(RevocationReason::AffiliationChanged), now);
            }
            self.holder(origin).state = DeviceState::Out;
            self.hardware.values_mut().filter(|owner| **owner == origin).for_each(|owner| *owner = device);
        }
    }

    /// The caller presented this certificate a moment ago.
    pub fn renew(&self, id: usize, key: Key, now: Timestamp) -> Answer<Given> {
        let device = self.certificates[id].device;
        if self.devices[&device].renewals_held {
            return Err(Refusal::RenewalHeld);
        }
        match self.keys.get(&key) {
            Some(existing) => self.again(*existing, device, true, now),
            None => self.may_have_one(device),
        }
    }

    // What operators and time do.

    pub fn change(&mut self, device: Device, event: CertificateEvent, now: Timestamp) -> Answer<()> {
        self.known(device)?;
        let changes = |id: &usize| {
            let standing = self.certificates[*id].standing;
            standing.next(event).is_ok_and(|next| next != standing)
        };
        let affected: Vec<_> = self.live(device).into_iter().filter(changes).collect();
        self.change_these(&affected, event, now)
    }

    pub fn change_one(&mut self, id: usize, event: CertificateEvent, now: Timestamp) -> Answer<()> {
        let standing = self.certificates[id].standing;
        let is_changed = standing.next(event)? != standing;
        self.change_these(if is_changed { std::slice::from_ref(&id) } else { &[] }, event, now)
    }

    /// Releasing what was never confirmed confirms it.
    fn change_these(&mut self, affected: &[usize], event: CertificateEvent, now: Timestamp) -> Answer<()> {
        let newest = affected.last().copied().filter(|id| {
            let certificate = &self.certificates[*id];
            event == CertificateEvent::Released && certificate.generation > self.devices[&certificate.device].confirmed
        });
        if let Some(id) = newest {
            let device = self.certificates[id].device;
            if let Some(origin) = self.devices[&device].moved_from {
                self.departs(origin, device.0)?;
            }
        }
        for id in affected {
            self.set(*id, self.certificates[*id].standing.next(event).unwrap(), now);
        }
        if let Some(id) = newest {
            self.settle(id, now);
        }
        Ok(())
    }

    pub fn retire(&mut self, device: Device, now: Timestamp) -> Answer<()> {
        if self.known(device)?.state == DeviceState::Out {
            return Ok(());
        }
        self.abandon(device, now);
        for id in self.live(device) {
            self.set(id, Standing::Revoked(RevocationReason::CessationOfOperation), now);
        }
        let holder = self.holder(device);
        (holder.state, holder.moving) = (DeviceState::Out, None);
        Ok(())
    }

    pub fn readmit(&mut self, device: Device) -> Answer<()> {
        let holder = self.known(device)?;
        if holder.state == DeviceState::Out && holder.moving.is_some() {
            return Err(Refusal::DeviceMoved);
        }
        self.holder(device).state = self.known(device)?.state.next(DeviceEvent::Readmitted)?;
        Ok(())
    }

    pub fn permit_enrollment(&mut self, device: Device, until: Timestamp) -> Answer<()> {
        if self.known(device)?.state == DeviceState::Out {
            return Err(Refusal::IdentityOut);
        }
        self.holder(device).may_enroll_until = Some(until);
        Ok(())
    }

    pub fn permit_late_renewal(&mut self, device: Device, until: Timestamp) -> Answer<()> {
        if self.known(device)?.state == DeviceState::Out {
            return Err(Refusal::IdentityOut);
        }
        let holder = self.holder(device);
        (holder.may_be_late_until, holder.renewals_held) = (Some(until), false);
        Ok(())
    }

    /// Whether a device is on its way to this fleet.
    fn departs(&self, origin: Device, to: Fleet) -> Answer<()> {
        let holder = &self.devices[&origin];
        match (holder.state, holder.moving) {
            (DeviceState::Released, Some((fleet, _))) if fleet == to => Ok(()),
            (DeviceState::Out, Some(_)) => Err(Refusal::DeviceMoved),
            (DeviceState::Out, None) => Err(Refusal::IdentityOut),
            _ => Err(Refusal::NotReleased),
        }
    }

    /// Into the other fleet, under the same name. It works on where it is until it confirms there.
    pub fn release(&mut self, device: Device, token: Token) -> Answer<()> {
        let holder = self.known(device)?.clone();
        let state = holder.state.next(DeviceEvent::Released)?;
        let heir = (token.fleet, device.1);
        if let Some(known) = self.devices.get_mut(&heir) {
            match known.state {
                DeviceState::Out if known.moving.is_some() => {
                    (known.state, known.moving) = (DeviceState::Registered, None);
                }
                DeviceState::Out => return Err(Refusal::IdentityOut),
                DeviceState::Registered if known.moved_from.is_none_or(|from| from == device) => {}
                _ => return Err(Refusal::NameTaken),
            }
        }
        if let Some((_, earlier)) = holder.moving {
            self.tokens[earlier].state = TokenState::Withdrawn;
        }
        self.register(heir);
        let id = self.tokens.len();
        let holder = self.holder(device);
        (holder.state, holder.moving) = (state, Some((token.fleet, id)));
        self.tokens.push(token);
        Ok(())
    }

    pub fn cancel(&mut self, device: Device, now: Timestamp) -> Answer<()> {
        let holder = self.known(device)?.clone();
        holder.moving.ok_or(Refusal::NotReleased)?;
        if holder.state == DeviceState::Out {
            return Err(Refusal::DeviceMoved);
        }
        let state = holder.state.next(DeviceEvent::ReleaseCancelled)?;
        self.abandon(device, now);
        let holder = self.holder(device);
        (holder.state, holder.moving) = (state, None);
        Ok(())
    }

    /// What it began in the other fleet since it was released ends; what the name has there by another right stays.
    fn abandon(&mut self, device: Device, now: Timestamp) {
        let Some((to, token)) = self.devices[&device].moving else { return };
        let released_at = self.tokens[token].minted_at;
        self.tokens[token].state = TokenState::Withdrawn;
        let heir = (to, device.1);
        if self.devices[&heir].moved_from != Some(device) {
            return;
        }
        for id in self.live(heir) {
            let certificate = &self.certificates[id];
            let is_moved = certificate.token.is_some_and(|token| self.tokens[token].origin == Some(device));
            if is_moved || certificate.issued_at > released_at {
                self.set(id, Standing::Revoked(RevocationReason::CessationOfOperation), now);
            }
        }
        self.holder(heir).moved_from = None;
    }

    /// What was not confirmed in time ends.
    pub fn sweep(&mut self, now: Timestamp) {
        for id in 0..self.certificates.len() {
            if self.certificates[id].has_lapsed(now) {
                self.set(id, Standing::Revoked(RevocationReason::CessationOfOperation), now);
            }
        }
    }
}
