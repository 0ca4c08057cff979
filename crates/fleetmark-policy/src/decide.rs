//! Asks Cedar about the slices that a question needs, and combines its answers.

use std::sync::Arc;

use cedar_policy::{Authorizer, Decision as CedarDecision, Entities, Request as CedarRequest};

use crate::needs::Needs;
use crate::question::Question;
use crate::request::Request;
use crate::set::{Labels, Set};
use crate::slice::Bucket;

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may.
    pub allow: bool,
    /// The ids of the policies that decided, `installation/…` or `fleet/…`, in order; none when nothing permitted.
    pub policies: Vec<Arc<str>>,
    /// What went wrong in evaluation; then the answer is no.
    pub errors: Vec<String>,
    /// Whether a policy that was looked at speaks of the time: such an answer is not kept.
    pub timed: bool,
}

/// The sets that count for one fleet, or for the installation alone.
#[derive(Debug, Clone)]
pub struct Policies {
    /// The installation's.
    pub installation: Arc<Set>,
    /// The fleet's.
    pub fleet: Option<Arc<Set>>,
}

/// What both sets said.
#[derive(Default)]
struct Votes {
    permits: Vec<Arc<str>>,
    forbids: Vec<Arc<str>>,
    errors: Vec<String>,
}

impl Policies {
    /// Decides. Never panics; an error in evaluation is a no.
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        decide(&self.installation, self.fleet.as_deref(), request)
    }
}

/// [`Policies::decide`] for sets that nobody shares.
pub(crate) fn decide(installation: &Set, fleet: Option<&Set>, request: &Request<'_>) -> Decision {
    let question = match Question::new(request) {
        Ok(question) => question,
        Err(error) => return Votes { errors: vec![error], ..Votes::default() }.decision(false),
    };
    let whole: Vec<_> = installation.slices().of(&question).collect();
    let own: Vec<_> = fleet.into_iter().flat_map(|set| set.slices().of(&question)).collect();
    let needs = whole.iter().chain(&own).fold(Needs::NONE, |needs, bucket| needs.with(bucket.needs));
    let mut votes = Votes::default();
    if whole.is_empty() && own.is_empty() {
        return votes.decision(false);
    }
    match question.build(needs) {
        Ok((request, entities)) => {
            let asked = Asked { authorizer: Authorizer::new(), request, entities };
            votes.collect(&asked, &whole, installation, |labels| &labels.installation);
            if let Some(set) = fleet {
                votes.collect(&asked, &own, set, |labels| &labels.fleet);
            }
        }
        Err(error) => votes.errors.push(error),
    }
    votes.decision(needs.is_timed())
}

struct Asked {
    authorizer: Authorizer,
    request: CedarRequest,
    entities: Entities,
}

impl Votes {
    fn collect(&mut self, asked: &Asked, buckets: &[&Bucket], set: &Set, label: impl Fn(&Labels) -> &Arc<str>) {
        for bucket in buckets {
            let response = asked.authorizer.is_authorized(&asked.request, &bucket.policies, &asked.entities);
            // The reasons of a no are the policies that forbid; a no without a reason is that nothing permits.
            let votes = match response.decision() {
                CedarDecision::Allow => &mut self.permits,
                CedarDecision::Deny => &mut self.forbids,
            };
            let reasons = response.diagnostics().reason();
            votes.extend(reasons.filter_map(|id| set.labels(id)).map(&label).cloned());
            self.errors.extend(response.diagnostics().errors().map(ToString::to_string));
        }
    }

    fn decision(self, timed: bool) -> Decision {
        let Self { permits, forbids, errors } = self;
        let allow = forbids.is_empty() && errors.is_empty() && !permits.is_empty();
        let mut policies = if forbids.is_empty() { permits } else { forbids };
        policies.sort_unstable();
        Decision { allow, policies, errors, timed }
    }
}

#[cfg(test)]
mod tests;
