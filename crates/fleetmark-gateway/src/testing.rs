//! Knowledge that a test writes by hand. What it holds goes the way that verified entries go.
//!
//! ```ignore
//! let double = Double::new(&["default"]);
//! double.authority(2, AuthorityKind::Of(Kind::Device), AuthorityState::Active, &issuing_der);
//! double.certificate("default", Epoch(1), Index(0), 2, &device_der, Standing::Good, 7);
//! double.policy("system", set.clone());
//! double.policy("default", set);
//! let judge = Judge::new(double.knowledge());
//! double.worsen("default", Epoch(1), Index(0), Standing::Held);
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleetmark_device::fingerprint;
use fleetmark_domain::{Epoch, Index, LedgerName, Standing, Timestamp};
use fleetmark_ledger::entry::{
    Adopted, AuthorityKind, AuthorityState, Entry, Event, ExternalAuthority, ExternalState, IndexSet, Issued,
};
use fleetmark_ledger::note::VerifierKey;
use fleetmark_policy::{Policies, Set};
use rustls_pki_types::CertificateDer;

use crate::clock::{Moment, Received};
use crate::knowledge::table::{Ledger, State, Table};
use crate::knowledge::{Change, Knowledge};

/// The greatest age that a new double allows.
pub const MAX_AGE: Duration = Duration::from_secs(900);

/// Knowledge, and the hand that writes it. All ledgers are fresh at first.
#[derive(Debug)]
pub struct Double {
    knowledge: Knowledge,
}

#[expect(clippy::expect_used, reason = "a test fails by panicking")]
impl Double {
    /// Follows `system` and these fleets.
    ///
    /// # Panics
    /// As all that this double does, for names that are none and for what breaks a ledger's rules.
    pub fn new(fleets: &[&str]) -> Self {
        let double = Self { knowledge: Knowledge::default() };
        let names = ["system"].into_iter().chain(fleets.iter().copied());
        let ledgers = names.map(|name| {
            let name: LedgerName = name.parse().expect("a ledger's name");
            let key = VerifierKey { name: format!("fleet.test/ledger/{name}"), key: [7; 32] };
            Arc::new(Ledger::new(name, Table::new(State::new(key), MAX_AGE)))
        });
        double.knowledge.inner.follow(ledgers.collect());
        for ledger in double.knowledge.inner.ledgers().iter() {
            let (origin, key) = ledger.read(|table| (table.state.key().name.clone(), table.state.key().key));
            double.append(ledger, &Event::Opened { origin, key });
            double.age(ledger.name.as_str(), Duration::ZERO);
        }
        double
    }

    /// What it holds, as everybody else sees it.
    pub fn knowledge(&self) -> Knowledge {
        self.knowledge.clone()
    }

    /// `system` has this authority.
    pub fn authority(&self, id: u32, kind: AuthorityKind, state: AuthorityState, certificate: &CertificateDer<'_>) {
        let fingerprint = fingerprint(certificate);
        self.append(&self.ledger("system"), &Event::AuthorityChanged { authority: id, kind, state, fingerprint });
        self.knowledge.inner.keep_certificate(fingerprint, certificate.clone().into_owned());
        if matches!(state, AuthorityState::Tainted | AuthorityState::Revoked) {
            self.knowledge.inner.tell(Change::Everything);
        }
    }

    /// The ledger holds this certificate; its epoch is opened for the authority if it is not open yet.
    #[expect(clippy::too_many_arguments, reason = "a certificate's whole record")]
    pub fn certificate(
        &self,
        ledger: &str,
        epoch: Epoch,
        index: Index,
        authority: u32,
        certificate: &CertificateDer<'_>,
        standing: Standing,
        subject: u64,
    ) {
        let ledger = self.ledger(ledger);
        if ledger.read(|table| table.state.authority_of(epoch)).is_none() {
            self.append(&ledger, &Event::EpochOpened { authority, epoch });
        }
        let first = if standing == Standing::Unconfirmed { Standing::Unconfirmed } else { Standing::Good };
        let fingerprint = fingerprint(certificate);
        let not_after = Timestamp(i64::from(u32::MAX));
        let issued = Issued { authority, epoch, index, fingerprint, subject, generation: 1, standing: first, not_after };
        self.append(&ledger, &Event::Issued(issued));
        if standing != first {
            let certificates = IndexSet::from_certificates([(epoch, index)]);
            self.append(&ledger, &Event::StandingChanged { standing, certificates });
        }
    }

    /// A fleet's ledger has this external authority, which names its devices by their common names; everybody is told.
    ///
    /// # Panics
    /// On a certificate that cannot be read.
    pub fn external(&self, ledger: &str, authority: u32, state: ExternalState, certificate: &CertificateDer<'_>) {
        let issuers = vec![fleetmark_external::issuer_hash(certificate).expect("a certificate")];
        let (rules, naming) = ([1; 32], fleetmark_domain::Naming::default());
        let external = ExternalAuthority { authority, state, rules, issuers, naming };
        self.append(&self.ledger(ledger), &Event::ExternalAuthorityChanged(external));
        self.knowledge.inner.tell(Change::Everything);
    }

    /// A fleet's ledger adopted this certificate.
    pub fn adopt(&self, ledger: &str, authority: u32, (epoch, index): (Epoch, Index), certificate: &CertificateDer<'_>) {
        let ledger = self.ledger(ledger);
        if ledger.read(|table| table.state.authority_of(epoch)).is_none() {
            self.append(&ledger, &Event::EpochOpened { authority, epoch });
        }
        let (fingerprint, not_after, key) = (fingerprint(certificate), Timestamp(i64::from(u32::MAX)), [2; 32]);
        let adopted = Adopted { authority, epoch, index, fingerprint, subject: 9, generation: 1, not_after, key };
        self.append(&ledger, &Event::ExternalAdopted(adopted));
    }

    /// A certificate is worth less from now on; everybody is told.
    pub fn worsen(&self, ledger: &str, epoch: Epoch, index: Index, standing: Standing) {
        let certificates = IndexSet::from_certificates([(epoch, index)]);
        let ledger = self.ledger(ledger);
        self.append(&ledger, &Event::StandingChanged { standing, certificates: certificates.clone() });
        let change = Change::Worsened { ledger: ledger.name.clone(), certificates: Arc::new(certificates) };
        self.knowledge.inner.tell(change);
    }

    /// A certificate is good again; nobody is told.
    pub fn release(&self, ledger: &str, epoch: Epoch, index: Index) {
        let certificates = IndexSet::from_certificates([(epoch, index)]);
        self.append(&self.ledger(ledger), &Event::StandingChanged { standing: Standing::Good, certificates });
    }

    /// Activates a ledger's own set; everybody is told.
    pub fn policy(&self, ledger: &str, set: Arc<Set>) {
        self.ledger(ledger).write(|table| table.set = Some(set));
        self.knowledge.inner.combine_policies();
        self.knowledge.inner.tell(Change::Everything);
    }

    /// Activates the installation's and a fleet's set.
    pub fn policies(&self, fleet: &str, policies: &Policies) {
        self.policy("system", policies.installation.clone());
        if let Some(set) = &policies.fleet {
            self.policy(fleet, set.clone());
        }
    }

    /// A ledger's set is not here any more.
    pub fn no_policy(&self, ledger: &str) {
        self.ledger(ledger).write(|table| table.set = None);
        self.knowledge.inner.combine_policies();
    }

    /// A device's attributes; everybody is told.
    pub fn attributes(&self, ledger: &str, subject: u64, attributes: &[(&str, &str)]) {
        let attributes: BTreeMap<_, _> =
            attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.ledger(ledger).write(|table| table.attributes.insert(subject, Arc::new(attributes)));
        self.knowledge.inner.answers_are_void();
        self.knowledge.inner.tell(Change::Everything);
    }

    /// The newest checkpoint is this old now, and grows older.
    pub fn age(&self, ledger: &str, age: Duration) {
        let clock = self.knowledge.inner.clock.as_ref();
        let received = Received::new(clock.wall(), age, Moment::of(clock));
        self.ledger(ledger).write(|table| table.received = Some(received));
    }

    /// The greatest age that is allowed.
    pub fn max_age(&self, ledger: &str, max_age: Duration) {
        self.ledger(ledger).write(|table| table.max_age = max_age);
    }

    /// Older than allowed.
    pub fn make_stale(&self, ledger: &str) {
        let max_age = self.ledger(ledger).read(|table| table.max_age);
        self.age(ledger, max_age + Duration::from_secs(1));
    }

    /// A contradiction was seen, or put right; everybody is told.
    pub fn broken(&self, ledger: &str, broken: bool) {
        self.ledger(ledger).write(|table| table.broken = broken);
        self.knowledge.inner.tell(Change::Everything);
    }

    /// Whether somebody waits in `Knowledge::refresh` for a fetch that has not begun.
    pub fn is_fetch_wanted(&self) -> bool {
        self.knowledge.inner.fetching.is_wanted()
    }

    /// Ends the fetch that `Knowledge::refresh` waits for.
    pub fn answer_fetch(&self) {
        let fetching = &self.knowledge.inner.fetching;
        let number = fetching.begin();
        fetching.finish(number);
    }

    /// How many sightings wait to be reported.
    pub fn sightings(&self, ledger: &str) -> usize {
        let ledger = self.ledger(ledger);
        let sightings = self.knowledge.inner.sightings.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        sightings.batch(&ledger.name, usize::MAX).len()
    }

    fn ledger(&self, name: &str) -> Arc<Ledger> {
        self.knowledge.inner.ledger(&name.parse().expect("a ledger's name")).expect("a followed ledger")
    }

    #[expect(clippy::unused_self, reason = "the ledger is this double's")]
    fn append(&self, ledger: &Ledger, event: &Event) {
        let entry = Entry { at: Timestamp(1_800_000_000), event: event.clone(), details: None }.encode().expect("an entry");
        ledger.write(|table| table.state.append(&entry).expect("an entry that keeps the ledger's rules"));
    }
}
