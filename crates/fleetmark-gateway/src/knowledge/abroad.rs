//! Certificates of other authorities that were shown here and are not adopted: verified by what the ledger says of their authority,
//! and kept until the server was told of them. Nothing counts by it: the server adopts, and the ledger brings it back.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use fleetmark_domain::{Fingerprint, LedgerName, Network, Timestamp};
use fleetmark_external::{Foreign, name, rules};
use fleetmark_ledger::entry::{ExternalAuthority, ExternalState};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use serde::Deserialize;
use tokio::sync::Notify;
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::{Knowledge, table::Ledger};
use crate::quiet::Quiet;

/// Certificates that wait to be reported: of one external authority, and of all.
const WAITING_OF_ONE: usize = 64;
const MAX_WAITING: usize = 256;
/// What the server refused is not told again for so long.
const AGAIN: Duration = Duration::from_secs(10);
/// The most certificates whose report is remembered.
const MAX_REMEMBERED: usize = 4_096;
/// One address may have so many reported in a second, and so many at once.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(2).unwrap();
const BURST: NonZeroU32 = NonZeroU32::new(40).unwrap();
/// A table of addresses larger than this forgets those that have their whole burst again.
const MANY_ADDRESSES: usize = 4_096;
/// The most certificates of one report.
const MAX_REPORTED: usize = 16;
/// Log lines a second.
const LINES: u32 = 4;

/// What is known of an external authority beside its entry.
#[derive(Debug)]
struct Rules {
    /// As the entry has it.
    hash: [u8; 32],
    /// Whether the server may adopt what is seen.
    adopts: bool,
    anchors: Vec<TrustAnchor<'static>>,
}

/// What is read of the rules; newer servers may say more.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    adopt: SaidAdopt,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SaidAdopt {
    when: String,
}

/// A certificate that waits to be reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Met {
    pub(crate) ledger: LedgerName,
    authority: u32,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) der: Vec<u8>,
}

/// Other authorities' rules, and their certificates that were met.
#[derive(Debug)]
pub(crate) struct Abroad {
    rules: RwLock<BTreeMap<(LedgerName, u32), Arc<Rules>>>,
    queue: Mutex<Queue>,
    addresses: DefaultKeyedRateLimiter<Network>,
    news: Notify,
    quiet: Quiet,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Met>,
    /// Those that were told, with until when they are not told again.
    told: HashMap<Fingerprint, Instant>,
}

impl Default for Abroad {
    fn default() -> Self {
        let addresses = RateLimiter::keyed(Quota::per_second(PER_SECOND).allow_burst(BURST));
        let (rules, queue, news) = Default::default();
        Self { rules, queue, addresses, news, quiet: Quiet::new(LINES) }
    }
}

impl Rules {
    /// From the document with this hash; None for what is none.
    fn read(hash: [u8; 32], document: &[u8]) -> Option<Self> {
        let (said, material) = rules::part(document)?;
        let said: Said = serde_json::from_slice(said).ok()?;
        let anchors = fleetmark_external::split(material).ok()?.into_iter().map(|der| {
            let der = CertificateDer::from(der);
            anchor_from_trusted_cert(&der).map(|anchor| anchor.to_owned())
        });
        let anchors = anchors.collect::<Result<_, _>>().ok()?;
        Some(Self { hash, adopts: matches!(&*said.adopt.when, "listed" | "on-sight"), anchors })
    }

    /// Whether one of the CA certificates signed it, for TLS clients, and it is in time (RFC 5280 6.1).
    fn verify(&self, certificate: &CertificateDer<'_>, now: Timestamp) -> bool {
        let Ok(leaf) = EndEntityCert::try_from(certificate) else { return false };
        let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.0).unwrap_or(0)));
        let usage = KeyUsage::client_auth();
        leaf.verify_for_usage(ALL_VERIFICATION_ALGS, &self.anchors, &[], now, usage, None, None).is_ok()
    }
}

impl Abroad {
    /// The external authorities of a ledger whose rules are to be fetched, by their hash.
    pub(crate) fn wanted(&self, ledger: &Ledger) -> Vec<(u32, [u8; 32])> {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        let is_wanted = |external: &&ExternalAuthority| {
            let kept = rules.get(&(ledger.name.clone(), external.authority));
            external.state == ExternalState::Active && kept.is_none_or(|kept| kept.hash != external.rules)
        };
        let wanted = |external: &ExternalAuthority| (external.authority, external.rules);
        ledger.read(|table| table.state.externals().filter(is_wanted).map(wanted).collect())
    }

    /// Takes an external authority's rules, whose hash the caller compared; whether they can be read.
    pub(crate) fn take(&self, ledger: &LedgerName, authority: u32, hash: [u8; 32], document: &[u8]) -> bool {
        let Some(read) = Rules::read(hash, document) else { return false };
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        rules.insert((ledger.clone(), authority), Arc::new(read));
        true
    }

    /// Waits until there is something to report.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// The next ones to report, all of one ledger, in the order in which they came. They are not told again soon.
    pub(crate) fn batch(&self, now: Instant) -> Vec<Met> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(ledger) = queue.waiting.first().map(|first| first.ledger.clone()) else { return Vec::new() };
        let mut batch = Vec::new();
        queue.waiting.retain(|met| {
            let goes = met.ledger == ledger && batch.len() < MAX_REPORTED;
            if goes {
                batch.push(met.clone());
            }
            !goes
        });
        for met in &batch {
            queue.told.insert(met.fingerprint, now + AGAIN);
        }
        batch
    }

    /// The server could not be told: whoever shows one of these again is reported again.
    pub(crate) fn untold(&self, batch: &[Met]) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        for met in batch {
            queue.told.remove(&met.fingerprint);
        }
    }

    fn put(&self, met: Met, now: Instant) -> Result<(), &'static str> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let of_one = queue.waiting.iter().filter(|other| other.ledger == met.ledger && other.authority == met.authority);
        if queue.waiting.len() >= MAX_WAITING || of_one.count() >= WAITING_OF_ONE {
            return Err("too_many");
        }
        if queue.told.len() >= MAX_REMEMBERED {
            queue.told.retain(|_, until| *until > now);
        }
        if queue.told.len() >= MAX_REMEMBERED {
            return Err("too_many");
        }
        queue.waiting.push(met);
        drop(queue);
        self.news.notify_one();
        Ok(())
    }

    fn is_told(&self, fingerprint: &Fingerprint, now: Instant) -> bool {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let is_waiting = queue.waiting.iter().any(|met| met.fingerprint == *fingerprint);
        is_waiting || queue.told.get(fingerprint).is_some_and(|until| *until > now)
    }

    fn admits(&self, address: IpAddr) -> bool {
        if self.addresses.len() > MANY_ADDRESSES {
            self.addresses.retain_recent();
        }
        self.addresses.check_key(&Network::of_customer(address)).is_ok()
    }
}

impl Knowledge {
    /// A client showed this certificate and proved that it holds its key, and was refused because the certificate is not adopted. Where
    /// its authority allows that the server adopts what is seen, the server is told; whoever has no certificate that verifies causes
    /// nothing by it. `now` is the wall clock's.
    pub fn met(&self, certificate: &CertificateDer<'_>, foreign: &Foreign, source: IpAddr, now: Timestamp) {
        let abroad = &self.inner.abroad;
        let unreported = |reason: &'static str| {
            metrics::counter!("fleetmark_gateway_external_unreported_total", "reason" => reason).increment(1);
            if let Some(unsaid) = abroad.quiet.unsaid(Instant::now()) {
                let fingerprint = foreign.fingerprint;
                tracing::info!(%fingerprint, reason, unsaid, "a certificate of another authority is not reported");
            }
        };
        let at = self.inner.clock.now();
        match self.meet(certificate, foreign, now) {
            Err(reason) => unreported(reason),
            Ok(_) if abroad.is_told(&foreign.fingerprint, at) => {}
            Ok(_) if !abroad.admits(source) => unreported("address"),
            Ok(met) => {
                if let Err(reason) = abroad.put(met, at) {
                    unreported(reason);
                }
            }
        }
    }

    /// The external authority that signed the certificate and adopts what is seen; or why there is none.
    fn meet(&self, certificate: &CertificateDer<'_>, foreign: &Foreign, now: Timestamp) -> Result<Met, &'static str> {
        let mut why = "not_allowed";
        for ledger in self.inner.ledgers().iter() {
            let named: Vec<_> = ledger.read(|table| {
                let names = |external: &&ExternalAuthority| {
                    let state = table.pushed.external(external.authority, external.state);
                    state == ExternalState::Active && external.issuers.binary_search(&foreign.issuer).is_ok()
                };
                table.state.externals().filter(names).cloned().collect()
            });
            for external in named {
                let rules = self.inner.abroad.rules.read().unwrap_or_else(PoisonError::into_inner);
                let kept = rules.get(&(ledger.name.clone(), external.authority)).cloned();
                drop(rules);
                let Some(kept) = kept.filter(|kept| kept.hash == external.rules && kept.adopts) else { continue };
                if !kept.verify(certificate, now) {
                    why = "chain";
                    continue;
                }
                // What has no name by the rule is adopted nowhere.
                if name(&external.naming, &foreign.said).is_err() {
                    return Err("name");
                }
                let (ledger, authority, fingerprint) = (ledger.name.clone(), external.authority, foreign.fingerprint);
                return Ok(Met { ledger, authority, fingerprint, der: certificate.to_vec() });
            }
        }
        Err(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Double;
    use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};

    const NOW: Timestamp = Timestamp(1_800_000_000);

    struct Ca(Issuer<'static, KeyPair>, CertificateDer<'static>);

    fn ca() -> Ca {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "silo");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Ca(Issuer::new(params, key), certificate)
    }

    fn device(ca: &Ca, name: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.signed_by(&KeyPair::generate().unwrap(), &ca.0).unwrap().der().clone()
    }

    /// A gateway that has an external authority with these rules.
    fn gateway(ca: &Ca, said: &str) -> Double {
        let double = Double::new(&["silo"]);
        let document = rules::join(said.as_bytes(), &ca.1);
        double.external("silo", 1 << 30, ExternalState::Active, &ca.1);
        let knowledge = double.knowledge();
        let abroad = &knowledge.inner.abroad;
        let ledger = knowledge.inner.ledger(&"silo".parse().unwrap()).unwrap();
        let [(id, hash)] = *abroad.wanted(&ledger) else { panic!("not wanted") };
        assert!(abroad.take(&ledger.name, id, hash, &document));
        assert_eq!(abroad.wanted(&ledger), []);
        double
    }

    fn meet(double: &Double, certificate: &CertificateDer<'_>, address: u8) -> usize {
        let foreign = Foreign::parse(certificate).unwrap();
        double.knowledge().met(certificate, &foreign, [127, 0, 0, address].into(), NOW);
        let knowledge = double.knowledge();
        knowledge.inner.abroad.queue.lock().unwrap().waiting.len()
    }

    #[test]
    fn what_verifies_is_reported_once_where_that_is_allowed() {
        let (ca, other) = (ca(), ca());
        for (said, expected) in
            [(r#"{"adopt":{"when":"on-sight"}}"#, 1), (r#"{"adopt":{"when":"listed","new":1}}"#, 1), ("{}", 0)]
        {
            let double = gateway(&ca, said);
            let pump = device(&ca, "pump-1");
            assert_eq!(meet(&double, &pump, 1), expected, "{said}");
            assert_eq!(meet(&double, &pump, 1), expected, "twice");
            assert_eq!(meet(&double, &device(&other, "pump-2"), 1), expected, "signed by another CA of the same name");
            assert_eq!(meet(&double, &device(&ca, "no name"), 1), expected);
        }
    }

    #[test]
    fn what_was_told_is_not_told_again_soon_unless_the_server_was_not_reached() {
        let ca = ca();
        let double = gateway(&ca, r#"{"adopt":{"when":"on-sight"}}"#);
        let pump = device(&ca, "pump-1");
        assert_eq!(meet(&double, &pump, 1), 1);
        let knowledge = double.knowledge();
        let abroad = &knowledge.inner.abroad;
        let batch = abroad.batch(Instant::now());
        assert_eq!(batch.iter().map(|met| &met.der[..]).collect::<Vec<_>>(), [&pump[..]]);
        assert_eq!(meet(&double, &pump, 1), 0);
        abroad.untold(&batch);
        assert_eq!(meet(&double, &pump, 1), 1);
    }

    #[test]
    fn addresses_and_authorities_have_their_share() {
        let ca = ca();
        let double = gateway(&ca, r#"{"adopt":{"when":"on-sight"}}"#);
        let mut waiting = 0;
        for number in 0..60 {
            waiting = meet(&double, &device(&ca, &format!("pump-{number}")), 1);
        }
        assert!((40..=45).contains(&waiting), "{waiting}");
        for number in 60..100 {
            waiting = meet(&double, &device(&ca, &format!("pump-{number}")), 2);
        }
        assert_eq!(waiting, WAITING_OF_ONE);
        assert_eq!(double.knowledge().inner.abroad.batch(Instant::now()).len(), MAX_REPORTED);
    }
}
