//! A text that was parsed, checked against the schema and sliced.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;
use std::sync::Arc;

use cedar_policy::{Policy, PolicyId, PolicySet, ValidationMode};
use ring::digest;

use crate::finding::Finding;
use crate::limits;
use crate::schema::VOCABULARY;
use crate::slice::Slices;

/// The longest set, in octets of UTF-8.
pub const MAX_TEXT: usize = 256 * 1024;
/// The most policies of a set.
pub const MAX_POLICIES: usize = 1_000;
/// The longest id of a policy, in octets.
const MAX_ID: usize = 128;

/// A policy set that was parsed, checked against the schema and sliced by action.
#[derive(Debug)]
pub struct Set {
    text: String,
    hash: [u8; 32],
    ids: Vec<String>,
    /// The names that a decision tells, by Cedar's id.
    labels: HashMap<PolicyId, Labels>,
    slices: Slices,
    #[cfg(test)]
    whole: PolicySet,
}

/// A policy's name in each of the two places where its set may count.
#[derive(Debug, Clone)]
pub(crate) struct Labels {
    pub(crate) installation: Arc<str>,
    pub(crate) fleet: Arc<str>,
}

impl Set {
    /// Parses and checks a set.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn compile(text: &str) -> Result<Self, Vec<Finding>> {
        if text.len() > MAX_TEXT {
            let message = format!("the set has {} octets; at most {MAX_TEXT} are allowed", text.len());
            return Err(vec![Finding::whole(message)]);
        }
        limits::check(text).map_err(|finding| vec![finding])?;
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("policy".to_owned()).stack_size(limits::STACK);
            let started = thread.spawn_scoped(scope, || Self::compile_here(text));
            let started = started.map_err(|error| vec![Finding::whole(format!("no thread to compile on: {error}"))])?;
            started.join().unwrap_or_else(|_| Err(vec![Finding::whole("the Cedar compiler failed on this text")]))
        })
    }

    fn compile_here(text: &str) -> Result<Self, Vec<Finding>> {
        let parsed = PolicySet::from_str(text).map_err(|errors| parse_findings(text, &errors))?;
        refuse_templates_and_excess(&parsed)?;
        let policies = in_order(&parsed);
        let named = name(text, &policies)?;
        let whole = PolicySet::from_policies(named.iter().cloned()).map_err(|error| vec![Finding::whole(error.to_string())])?;
        validate(text, &whole)?;
        let slices = Slices::new(&named).map_err(|message| vec![Finding::whole(message)])?;
        Ok(Self {
            text: text.to_owned(),
            hash: sha256(text),
            ids: named.iter().map(|policy| policy.id().to_string()).collect(),
            labels: named.iter().map(labels).collect(),
            slices,
            #[cfg(test)]
            whole,
        })
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// SHA-256 over its text: what the ledger's entry holds.
    pub const fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// The ids of its policies: the annotation `@id("…")`, or `policy0`, `policy1` … in the order of the text.
    pub fn ids(&self) -> Vec<String> {
        self.ids.clone()
    }

    pub(crate) const fn slices(&self) -> &Slices {
        &self.slices
    }

    pub(crate) fn labels(&self, id: &PolicyId) -> Option<&Labels> {
        self.labels.get(id)
    }

    #[cfg(test)]
    pub(crate) const fn whole(&self) -> &PolicySet {
        &self.whole
    }
}

fn sha256(text: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    for (to, from) in hash.iter_mut().zip(digest::digest(&digest::SHA256, text.as_bytes()).as_ref()) {
        *to = *from;
    }
    hash
}

fn parse_findings(text: &str, errors: &cedar_policy::ParseErrors) -> Vec<Finding> {
    errors.iter().flat_map(|error| Finding::from_cedar(text, &error.into())).collect()
}

fn refuse_templates_and_excess(parsed: &PolicySet) -> Result<(), Vec<Finding>> {
    let count = parsed.num_of_policies().saturating_add(parsed.num_of_templates());
    if count > MAX_POLICIES {
        let message = format!("the set has {count} policies; at most {MAX_POLICIES} are allowed");
        return Err(vec![Finding::whole(message)]);
    }
    let mut templates = parsed.templates().map(|template| {
        Finding::whole("templates (?principal, ?resource) are not supported; write the entity itself")
            .of(template.id().as_ref())
    });
    templates.next().map_or(Ok(()), |first| Err(std::iter::once(first).chain(templates).collect()))
}

/// Cedar calls the policies of a text `policy0`, `policy1`, … and keeps them in no order.
fn in_order(parsed: &PolicySet) -> Vec<Policy> {
    let mut policies: Vec<_> = parsed.policies().cloned().collect();
    policies.sort_by_key(|policy| {
        let number = policy.id().to_string();
        number.strip_prefix("policy").and_then(|number| number.parse::<usize>().ok())
    });
    policies
}

/// Gives each policy the id that its annotation says.
fn name(text: &str, policies: &[Policy]) -> Result<Vec<Policy>, Vec<Finding>> {
    let mut taken = HashSet::new();
    let mut named = Vec::with_capacity(policies.len());
    let mut findings = Vec::new();
    for policy in policies {
        let id = policy.annotation("id").map_or_else(|| policy.id().to_string(), str::to_owned);
        let wrong = if id.is_empty() || id.len() > MAX_ID || id.chars().any(char::is_control) {
            Some(format!("an id has 1 to {MAX_ID} octets and no control characters"))
        } else if !taken.insert(id.clone()) {
            Some("another policy has this id".to_owned())
        } else {
            None
        };
        match wrong {
            Some(message) => findings.push(place_of_id(text, &id, message).of(&id)),
            None => named.push(policy.new_id(PolicyId::new(&id))),
        }
    }
    if findings.is_empty() { Ok(named) } else { Err(findings) }
}

/// Points at the last annotation with this id.
fn place_of_id(text: &str, id: &str, message: String) -> Finding {
    match text.rfind(&format!("\"{id}\"")).filter(|_| !id.is_empty()) {
        Some(offset) => Finding::at(text, offset, message),
        None => Finding::whole(message),
    }
}

fn validate(text: &str, whole: &PolicySet) -> Result<(), Vec<Finding>> {
    let result = VOCABULARY.validator.validate(whole, ValidationMode::Strict);
    let mut findings: Vec<_> = result
        .validation_errors()
        .flat_map(|error| {
            let id = error.policy_id().to_string();
            Finding::from_cedar(text, &error.into()).into_iter().map(move |finding| finding.of(&id))
        })
        .collect();
    findings.sort_by_key(|finding| (finding.line, finding.column));
    if findings.is_empty() { Ok(()) } else { Err(findings) }
}

fn labels(policy: &Policy) -> (PolicyId, Labels) {
    let id = policy.id();
    (id.clone(), Labels { installation: format!("installation/{id}").into(), fleet: format!("fleet/{id}").into() })
}
