//! A request as Cedar's request and entities, with no more than the policies in question read.

use cedar_policy::{Context, Entities, Entity, EntityUid, Request as CedarRequest, RestrictedExpression};
use fleetmark_domain::{Identity, Timestamp};

use crate::needs::Needs;
use crate::request::{Request, Resource};
use crate::schema::{GROUP, Known, VOCABULARY, Vocabulary, kind_number, resource_number, uid};

/// A request that the schema has a place for.
pub(crate) struct Question<'a> {
    request: &'a Request<'a>,
    known: &'static Known,
    /// Positions in the masks of a slice.
    pub(crate) act: usize,
    pub(crate) kind: usize,
    pub(crate) resource_kind: usize,
    principal: EntityUid,
    /// The principal's fleet and group, or its roles.
    parents: Vec<EntityUid>,
    resource: EntityUid,
}

type Pairs = Vec<(String, RestrictedExpression)>;

impl<'a> Question<'a> {
    /// # Errors
    /// What does not fit the schema.
    pub(crate) fn new(request: &'a Request<'a>) -> Result<Self, String> {
        let vocabulary: &'static Vocabulary = &VOCABULARY;
        let (act, known) = vocabulary.act(request.act).ok_or("the schema does not know this action")?;
        let kind = kind_number(request.principal.identity.kind());
        let resource_kind = resource_number(&request.resource);
        if !known.kinds.has(kind) {
            return Err(format!("{} is no act of a {}", known.act.as_str(), request.principal.identity.kind()));
        }
        if !known.resources.has(resource_kind) {
            return Err(format!("{} is not done to this kind of resource", known.act.as_str()));
        }
        let resource = match &request.resource {
            Resource::Fleet(fleet) => uid(&vocabulary.types.fleet, fleet.as_str()),
            Resource::Installation => vocabulary.installation.clone(),
            Resource::Topic(text) => uid(&vocabulary.types.topic, text),
        };
        let principal = principal(vocabulary, request.principal.identity);
        Ok(Self { request, known, act, kind, resource_kind, principal, parents: parents(vocabulary, request), resource })
    }

    /// Every entity that the principal or the resource is or is in.
    pub(crate) fn anchors(&self) -> impl Iterator<Item = &EntityUid> {
        // A device in the fleet that is asked for: one of the two is enough.
        let resource = Some(&self.resource).filter(|resource| !self.parents.contains(resource));
        self.parents.iter().chain([&self.principal]).chain(resource)
    }

    /// Cedar's request and entities, with what `needs` names.
    ///
    /// # Errors
    /// What Cedar says; no request that the types of this crate allow has been seen to cause it.
    pub(crate) fn build(&self, needs: Needs) -> Result<(CedarRequest, Entities), String> {
        let context = Context::from_pairs(self.circumstances(needs)).map_err(|error| error.to_string())?;
        let (principal, action, resource) = (self.principal.clone(), self.known.uid.clone(), self.resource.clone());
        let request = CedarRequest::new(principal, action, resource, context, None).map_err(|error| error.to_string())?;
        let mut entities = vec![self.principal_entity(needs)?];
        if needs.any_of(Needs::TOPIC) {
            entities.extend(self.topic()?);
        }
        if needs.any_of(Needs::ACTION) {
            entities.push(self.known.entity.clone());
        }
        Ok((request, Entities::from_entities(entities, None).map_err(|error| error.to_string())?))
    }

    fn principal_entity(&self, needs: Needs) -> Result<Entity, String> {
        let Request { principal, .. } = self.request;
        let mut attributes = Pairs::new();
        if needs.any_of(Needs::NAME) {
            attributes.push(("name".to_owned(), text(principal.identity.name().as_str())));
        }
        if let Some(fleet) = principal.identity.fleet().filter(|_| needs.any_of(Needs::FLEET)) {
            attributes.push(("fleet".to_owned(), text(fleet.as_str())));
        }
        if let Some(standing) = VOCABULARY.standing(principal.standing).filter(|_| needs.any_of(Needs::STANDING)) {
            attributes.push(("standing".to_owned(), RestrictedExpression::new_entity_uid(standing.clone())));
        }
        let tags = principal.attributes.iter().filter(|_| needs.any_of(Needs::TAGS));
        let tags = tags.map(|(key, value)| (key.clone(), text(value)));
        Entity::new_with_tags(self.principal.clone(), attributes, self.parents.iter().cloned(), tags)
            .map_err(|error| error.to_string())
    }

    fn topic(&self) -> Result<Option<Entity>, String> {
        let Resource::Topic(topic) = self.request.resource else {
            return Ok(None);
        };
        let mut levels = topic.split('/');
        let (first, second) = (levels.next().unwrap_or_default(), levels.next().unwrap_or_default());
        let attributes = [
            ("text".to_owned(), text(topic)),
            ("first".to_owned(), text(first)),
            ("second".to_owned(), text(second)),
            ("levels".to_owned(), number(topic.split('/').count())),
            ("wildcard".to_owned(), RestrictedExpression::new_bool(topic.split('/').any(is_wildcard))),
        ];
        Entity::new_with_tags(self.resource.clone(), attributes, [], []).map(Some).map_err(|error| error.to_string())
    }

    fn circumstances(&self, needs: Needs) -> Pairs {
        let context = &self.request.context;
        let (minute, weekday) = clock(context.time);
        let always = [
            (Needs::TIME, "time", Some(RestrictedExpression::new_long(context.time.0))),
            (Needs::MINUTE, "minute_of_day", Some(RestrictedExpression::new_long(minute))),
            (Needs::WEEKDAY, "weekday", Some(RestrictedExpression::new_long(weekday))),
        ];
        let source = context.source.filter(|_| needs.any_of(Needs::SOURCE));
        let optional = [
            (Needs::SOURCE, "source", source.map(|ip| RestrictedExpression::new_ip(ip.to_canonical().to_string()))),
            (Needs::PROTOCOL, "protocol", context.protocol.map(text)),
            (Needs::FIRMWARE, "firmware", context.firmware.map(text)),
        ];
        let all = always.into_iter().chain(optional).filter(|(need, ..)| needs.any_of(*need));
        all.filter_map(|(_, name, value)| Some((name.to_owned(), value?))).collect()
    }
}

/// MQTT 4.7.1: a wildcard is a level of its own. A `#` or `+` elsewhere is no filter at all, and is taken for one.
fn is_wildcard(level: &str) -> bool {
    level.contains(['+', '#'])
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

fn number(value: usize) -> RestrictedExpression {
    RestrictedExpression::new_long(i64::try_from(value).unwrap_or(i64::MAX))
}

/// The minute of the day and the day of the week in UTC. 1970-01-01 was a Thursday, day 4.
fn clock(Timestamp(seconds): Timestamp) -> (i64, i64) {
    let minute = seconds.rem_euclid(86_400).div_euclid(60);
    let weekday = seconds.div_euclid(86_400).rem_euclid(7).saturating_add(3).rem_euclid(7).saturating_add(1);
    (minute, weekday)
}

fn principal(vocabulary: &Vocabulary, identity: &Identity) -> EntityUid {
    let name = vocabulary.types.of_kind(identity.kind());
    match identity.fleet() {
        Some(fleet) => uid(name, format!("{fleet}/{}", identity.name())),
        None => uid(name, identity.name().as_str()),
    }
}

fn parents(vocabulary: &Vocabulary, request: &Request<'_>) -> Vec<EntityUid> {
    let principal = &request.principal;
    match principal.identity {
        Identity::Device { fleet, .. } => {
            let group = principal.attributes.get(GROUP).map(|group| uid(&vocabulary.types.group, group));
            std::iter::once(uid(&vocabulary.types.fleet, fleet.as_str())).chain(group).collect()
        }
        Identity::Operator(_) => principal.role.into_iter().flat_map(|role| vocabulary.roles(role)).cloned().collect(),
        Identity::Gateway(_) | Identity::Service(_) => Vec::new(),
    }
}
