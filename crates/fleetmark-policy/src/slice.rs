//! The policies of a set by what they can apply to, so that Cedar sees only those.
//!
//! A policy's scope says which actions, which kinds of principal and resource, and sometimes which one entity it is for.
//! Policies with the same scope lie in one bucket. What a bucket is found by may be too wide, never too narrow: Cedar
//! evaluates the scope again.

use std::collections::HashMap;

use cedar_policy::{ActionConstraint, EntityTypeName, EntityUid, Policy, PolicySet, PrincipalConstraint, ResourceConstraint};

use crate::needs::Needs;
use crate::question::Question;
use crate::schema::{Mask, VOCABULARY, Vocabulary};

/// What a policy can apply to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Scope {
    acts: Mask,
    kinds: Mask,
    resources: Mask,
    /// One entity that must be the principal, the resource, or what one of them is in.
    anchor: Option<EntityUid>,
}

/// Policies of one scope.
#[derive(Debug)]
pub(crate) struct Bucket {
    scope: Scope,
    pub(crate) policies: PolicySet,
    pub(crate) needs: Needs,
}

/// The buckets of a set.
#[derive(Debug, Default)]
pub(crate) struct Slices {
    buckets: Vec<Bucket>,
    anywhere: Vec<usize>,
    anchored: HashMap<EntityUid, Vec<usize>>,
}

impl Slices {
    /// Sorts `policies` into buckets.
    ///
    /// # Errors
    /// The text of what Cedar says when a policy cannot be read or added.
    pub(crate) fn new<'a>(policies: impl IntoIterator<Item = &'a Policy>) -> Result<Self, String> {
        let mut slices = Self::default();
        let mut places: HashMap<Scope, usize> = HashMap::new();
        for policy in policies {
            let scope = Scope::of(&VOCABULARY, policy);
            let place = *places.entry(scope).or_insert_with_key(|scope| slices.open(scope.clone()));
            if let Some(bucket) = slices.buckets.get_mut(place) {
                bucket.needs = bucket.needs.with(Needs::of(policy)?);
                bucket.policies.add(policy.clone()).map_err(|error| error.to_string())?;
            }
        }
        Ok(slices)
    }

    fn open(&mut self, scope: Scope) -> usize {
        let place = self.buckets.len();
        match &scope.anchor {
            Some(anchor) => self.anchored.entry(anchor.clone()).or_default().push(place),
            None => self.anywhere.push(place),
        }
        self.buckets.push(Bucket { scope, policies: PolicySet::new(), needs: Needs::NONE });
        place
    }

    /// The buckets that can apply to `question`.
    pub(crate) fn of<'a>(&'a self, question: &'a Question<'_>) -> impl Iterator<Item = &'a Bucket> {
        let anchored = question.anchors().filter_map(|uid| self.anchored.get(uid)).flatten();
        self.anywhere.iter().chain(anchored).filter_map(|place| self.buckets.get(*place)).filter(|bucket| {
            let scope = &bucket.scope;
            scope.acts.has(question.act) && scope.kinds.has(question.kind) && scope.resources.has(question.resource_kind)
        })
    }
}

impl Scope {
    fn of(vocabulary: &Vocabulary, policy: &Policy) -> Self {
        let (kinds, principal) = principal(vocabulary, policy.principal_constraint());
        let (resources, resource) = resource(vocabulary, policy.resource_constraint());
        Self { acts: acts(vocabulary, policy.action_constraint()), kinds, resources, anchor: principal.or(resource) }
    }
}

/// The acts that the scope names, one by one or by their groups.
fn acts(vocabulary: &Vocabulary, constraint: ActionConstraint) -> Mask {
    let named = match constraint {
        ActionConstraint::Any => return Mask::ALL,
        ActionConstraint::Eq(uid) => vec![uid],
        ActionConstraint::In(uids) => uids,
    };
    let acts = vocabulary.acts.iter().enumerate();
    acts.filter(|(_, known)| known.names.iter().any(|name| named.contains(name))).map(|(number, _)| number).collect()
}

fn principal(vocabulary: &Vocabulary, constraint: PrincipalConstraint) -> (Mask, Option<EntityUid>) {
    let of_type = |name: &EntityTypeName| vocabulary.types.kinds(name);
    match constraint {
        PrincipalConstraint::Any => (Mask::ALL, None),
        PrincipalConstraint::Is(name) => (of_type(&name), None),
        PrincipalConstraint::Eq(uid) => (of_type(uid.type_name()), Some(uid)),
        PrincipalConstraint::In(uid) => (Mask::ALL, Some(uid)),
        PrincipalConstraint::IsIn(name, uid) => (of_type(&name), Some(uid)),
    }
}

fn resource(vocabulary: &Vocabulary, constraint: ResourceConstraint) -> (Mask, Option<EntityUid>) {
    let of_type = |name: &EntityTypeName| vocabulary.types.resources(name);
    match constraint {
        ResourceConstraint::Any => (Mask::ALL, None),
        ResourceConstraint::Is(name) => (of_type(&name), None),
        ResourceConstraint::Eq(uid) => (of_type(uid.type_name()), Some(uid)),
        ResourceConstraint::In(uid) => (Mask::ALL, Some(uid)),
        ResourceConstraint::IsIn(name, uid) => (of_type(&name), Some(uid)),
    }
}
