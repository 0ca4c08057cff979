//! Answers of policy that were given before: bounded, and void once policies or attributes change.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hash, Hasher};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use fleetmark_domain::{Fingerprint, Standing};
use fleetmark_policy::Act;

use super::{Reason, Wanted};

/// The most answers kept.
const CAPACITY: usize = 65_536;
/// Parts with a lock each, so that threads seldom meet.
const SHARDS: usize = 32;
/// Answers of one half of a part: the young, and the old, which are forgotten when the young are full.
const HALF: usize = CAPACITY / SHARDS / 2;
/// The longest texts, all together, that are worth keeping, in octets.
const MAX_TEXT: usize = 1024;

/// What policy said.
#[derive(Debug)]
pub(super) struct Answer {
    /// `Allowed`, or why not.
    pub(super) reason: Reason,
    /// The policies that decided.
    pub(super) policies: Box<[Arc<str>]>,
    /// Whether a policy looked at the time.
    pub(super) timed: bool,
}

impl Answer {
    /// A refusal before any policy.
    pub(super) fn bare(reason: Reason) -> Self {
        Self { reason, policies: Box::default(), timed: false }
    }
}

/// All that an answer depends on but the sets, the attributes and the time. The fingerprint stands for the identity.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) fingerprint: &'a Fingerprint,
    pub(super) standing: Standing,
    pub(super) wanted: &'a Wanted<'a>,
}

/// A question that was answered.
#[derive(Debug)]
struct Kept {
    fingerprint: Fingerprint,
    standing: Standing,
    act: Act,
    source: Option<IpAddr>,
    topic: Option<Box<str>>,
    protocol: Option<Box<str>>,
    firmware: Option<Box<str>>,
    generation: u64,
    answer: Arc<Answer>,
}

impl Kept {
    fn new(question: &Question<'_>, generation: u64, answer: &Arc<Answer>) -> Self {
        let wanted = question.wanted;
        Self {
            fingerprint: *question.fingerprint,
            standing: question.standing,
            act: wanted.act,
            source: wanted.source,
            topic: wanted.topic.map(Box::from),
            protocol: wanted.protocol.map(Box::from),
            firmware: wanted.firmware.map(Box::from),
            generation,
            answer: Arc::clone(answer),
        }
    }

    fn is(&self, question: &Question<'_>, generation: u64) -> bool {
        let wanted = question.wanted;
        self.generation == generation
            && self.fingerprint == *question.fingerprint
            && self.standing == question.standing
            && self.act == wanted.act
            && self.source == wanted.source
            && self.topic.as_deref() == wanted.topic
            && self.protocol.as_deref() == wanted.protocol
            && self.firmware.as_deref() == wanted.firmware
    }
}

/// The keys are hashes already, made with this process's random state.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        for octet in octets {
            self.0 = (self.0 << 8) | u64::from(*octet);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

type Half = HashMap<u64, Kept, BuildHasherDefault<Hashed>>;

/// One part: who is found among the old becomes young again, and the old that nobody asked for are forgotten.
#[derive(Debug, Default)]
struct Shard {
    young: Half,
    old: Half,
}

impl Shard {
    fn find(&mut self, hash: u64, question: &Question<'_>, generation: u64) -> Option<Arc<Answer>> {
        if let Some(kept) = self.young.get(&hash) {
            return kept.is(question, generation).then(|| Arc::clone(&kept.answer));
        }
        let kept = self.old.remove(&hash).filter(|kept| kept.is(question, generation))?;
        let answer = Arc::clone(&kept.answer);
        self.keep(hash, kept);
        Some(answer)
    }

    fn keep(&mut self, hash: u64, kept: Kept) {
        if self.young.len() >= HALF && !self.young.contains_key(&hash) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, kept);
    }
}

/// Answers given before.
#[derive(Debug)]
pub(super) struct Answers {
    state: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

impl Default for Answers {
    fn default() -> Self {
        Self { state: RandomState::new(), shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl Answers {
    /// The answer to this question, if it was given under this number of the policies.
    pub(super) fn find(&self, question: &Question<'_>, generation: u64) -> Option<Arc<Answer>> {
        let hash = self.hash(question);
        self.shard(hash)?.lock().unwrap_or_else(PoisonError::into_inner).find(hash, question, generation)
    }

    /// Keeps an answer; one to a question with very long texts is not kept.
    pub(super) fn keep(&self, question: &Question<'_>, generation: u64, answer: &Arc<Answer>) {
        let wanted = question.wanted;
        let texts = [wanted.topic, wanted.protocol, wanted.firmware];
        if texts.iter().flatten().map(|text| text.len()).sum::<usize>() > MAX_TEXT {
            return;
        }
        let hash = self.hash(question);
        let Some(shard) = self.shard(hash) else { return };
        shard.lock().unwrap_or_else(PoisonError::into_inner).keep(hash, Kept::new(question, generation, answer));
    }

    fn hash(&self, question: &Question<'_>) -> u64 {
        let mut hasher = self.state.build_hasher();
        let wanted = question.wanted;
        question.fingerprint.hash(&mut hasher);
        question.standing.hash(&mut hasher);
        (wanted.act, wanted.topic, wanted.source, wanted.protocol, wanted.firmware).hash(&mut hasher);
        hasher.finish()
    }

    fn shard(&self, hash: u64) -> Option<&Mutex<Shard>> {
        // The map takes its place from the lowest bits and its tag from the highest; these are between.
        usize::try_from(hash >> 32).ok().and_then(|bits| self.shards.get(bits % SHARDS))
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().expect("lock")).map(|shard| shard.young.len() + shard.old.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetmark_domain::RevocationReason;

    fn wanted(topic: &str) -> Wanted<'_> {
        Wanted { act: Act::Publish, topic: Some(topic), source: None, protocol: Some("mqtt"), firmware: None, shown: true }
    }

    const ONE: Fingerprint = Fingerprint([1; 32]);

    fn question<'a>(fingerprint: &'a Fingerprint, wanted: &'a Wanted<'a>) -> Question<'a> {
        Question { fingerprint, standing: Standing::Good, wanted }
    }

    #[test]
    fn every_part_of_a_question_counts() {
        let answers = Answers::default();
        let first = wanted("a/b");
        let asked = question(&ONE, &first);
        answers.keep(&asked, 7, &Arc::new(Answer::bare(Reason::Allowed)));
        assert!(answers.find(&asked, 7).is_some());
        assert!(answers.find(&asked, 8).is_none(), "another number of the policies");
        let two = Fingerprint([2; 32]);
        assert!(answers.find(&question(&two, &first), 7).is_none());
        for standing in [Standing::Unconfirmed, Standing::Quarantined, Standing::Revoked(RevocationReason::Unspecified)] {
            assert!(answers.find(&Question { standing, ..asked }, 7).is_none(), "{standing}");
        }
        let others = [
            Wanted { act: Act::Subscribe, ..first.clone() },
            Wanted { topic: Some("a/c"), ..first.clone() },
            Wanted { topic: None, ..first.clone() },
            Wanted { source: "127.0.0.1".parse().ok(), ..first.clone() },
            Wanted { protocol: Some("https"), ..first.clone() },
            Wanted { protocol: None, firmware: Some("mqtt"), ..first.clone() },
            Wanted { firmware: Some("1"), ..first.clone() },
        ];
        for other in &others {
            assert!(answers.find(&question(&ONE, other), 7).is_none(), "{other:?}");
        }
        assert!(answers.find(&asked, 7).is_some());
    }

    #[test]
    fn there_are_never_more_than_fit_and_who_is_asked_for_stays() {
        let answers = Answers::default();
        let asked = wanted("often");
        let answer = Arc::new(Answer::bare(Reason::Allowed));
        answers.keep(&question(&ONE, &asked), 0, &answer);
        for number in 0..3 * CAPACITY {
            let topic = number.to_string();
            answers.keep(&question(&ONE, &wanted(&topic)), 0, &answer);
            if number % 512 == 0 {
                assert!(answers.find(&question(&ONE, &asked), 0).is_some(), "after {number}");
            }
        }
        assert!(answers.len() <= CAPACITY, "{}", answers.len());
        let before = answers.len();
        answers.keep(&question(&ONE, &wanted(&"x".repeat(MAX_TEXT))), 0, &answer);
        assert_eq!(answers.len(), before);
    }
}
