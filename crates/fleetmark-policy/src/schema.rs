//! The schema, the default sets, and the names that Fleetmark and Cedar share.

use std::sync::LazyLock;

use cedar_policy::{Entity, EntityId, EntityTypeName, EntityUid, Schema, Validator};
use fleetmark_domain::{Kind, Role, Standing};

use crate::request::{Act, Resource};

/// The Cedar schema that every set is checked against; published at `GET /v1/policies/schema`.
pub const SCHEMA: &str = include_str!("../policies/schema.cedarschema");
/// The set that a new fleet begins with.
pub const DEFAULT_FLEET: &str = include_str!("../policies/fleet.cedar");
/// The set that an installation begins with; operators' rights are in it.
pub const DEFAULT_INSTALLATION: &str = include_str!("../policies/installation.cedar");

/// The attribute that puts a device into a `Group`.
pub(crate) const GROUP: &str = "group";

/// A set of small numbers: acts, kinds of principal or kinds of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Mask(u32);

impl Mask {
    pub(crate) const ALL: Self = Self(u32::MAX);

    pub(crate) const fn of(number: usize) -> Self {
        // Every number here is a position in a list of at most 32.
        Self(if number < 32 { 1 << number } else { 0 })
    }

    pub(crate) const fn has(self, number: usize) -> bool {
        self.0 & Self::of(number).0 != 0
    }

    pub(crate) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromIterator<usize> for Mask {
    fn from_iter<I: IntoIterator<Item = usize>>(numbers: I) -> Self {
        numbers.into_iter().fold(Self::default(), |mask, number| mask.with(Self::of(number)))
    }
}

/// The names of the entity types.
pub(crate) struct Types {
    pub(crate) device: EntityTypeName,
    gateway: EntityTypeName,
    service: EntityTypeName,
    operator: EntityTypeName,
    pub(crate) fleet: EntityTypeName,
    pub(crate) group: EntityTypeName,
    installation: EntityTypeName,
    pub(crate) topic: EntityTypeName,
}

impl Types {
    pub(crate) const fn of_kind(&self, kind: Kind) -> &EntityTypeName {
        match kind {
            Kind::Device => &self.device,
            Kind::Gateway => &self.gateway,
            Kind::Service => &self.service,
            Kind::Operator => &self.operator,
        }
    }

    /// Which kinds of principal have this type.
    pub(crate) fn kinds(&self, name: &EntityTypeName) -> Mask {
        (0..).zip(Kind::ALL).filter(|(_, kind)| self.of_kind(*kind) == name).map(|(number, _)| number).collect()
    }

    /// Which kinds of resource have this type.
    pub(crate) fn resources(&self, name: &EntityTypeName) -> Mask {
        (0..).zip([&self.fleet, &self.installation, &self.topic]).filter(|(_, own)| *own == name).map(|(n, _)| n).collect()
    }
}

/// The place of a kind in [`Kind::ALL`].
pub(crate) const fn kind_number(kind: Kind) -> usize {
    match kind {
        Kind::Device => 0,
        Kind::Gateway => 1,
        Kind::Service => 2,
        Kind::Operator => 3,
    }
}

/// The place of a kind of resource in [`Types::resources`].
pub(crate) const fn resource_number(resource: &Resource<'_>) -> usize {
    match resource {
        Resource::Fleet(_) => 0,
        Resource::Installation => 1,
        Resource::Topic(_) => 2,
    }
}

/// An action as the schema has it.
pub(crate) struct Known {
    pub(crate) act: Act,
    pub(crate) uid: EntityUid,
    /// With the groups that it is in.
    pub(crate) entity: Entity,
    /// The action and its groups.
    pub(crate) names: Vec<EntityUid>,
    /// Who may ask for it.
    pub(crate) kinds: Mask,
    /// What it may be asked for.
    pub(crate) resources: Mask,
}

/// All that is the same for every question.
pub(crate) struct Vocabulary {
    pub(crate) types: Types,
    /// In the order of [`Act::all`].
    pub(crate) acts: Vec<Known>,
    pub(crate) installation: EntityUid,
    pub(crate) validator: Validator,
    standings: Vec<(&'static str, EntityUid)>,
    roles: Vec<(Role, EntityUid)>,
}

impl Vocabulary {
    pub(crate) fn act(&self, act: Act) -> Option<(usize, &Known)> {
        self.acts.iter().enumerate().find(|(_, known)| known.act == act)
    }

    pub(crate) fn standing(&self, standing: Standing) -> Option<&EntityUid> {
        self.standings.iter().find(|(word, _)| *word == standing.as_str()).map(|(_, uid)| uid)
    }

    /// The role and every lesser one.
    pub(crate) fn roles(&self, role: Role) -> impl Iterator<Item = &EntityUid> {
        self.roles.iter().filter(move |(lesser, _)| *lesser <= role).map(|(_, uid)| uid)
    }
}

/// Read once; that it can be is what the test of this module shows.
pub(crate) static VOCABULARY: LazyLock<Vocabulary> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "the schema is a constant of this crate, and a test reads it")]
    read().expect("the schema that is built in is well formed")
});

pub(crate) fn uid(name: &EntityTypeName, id: impl AsRef<str>) -> EntityUid {
    EntityUid::from_type_name_and_id(name.clone(), EntityId::new(id))
}

fn read() -> Result<Vocabulary, String> {
    let (schema, _warnings) = Schema::from_cedarschema_str(SCHEMA).map_err(|error| error.to_string())?;
    let name = |name: &str| name.parse::<EntityTypeName>().map_err(|error| error.to_string());
    let types = Types {
        device: name("Device")?,
        gateway: name("Gateway")?,
        service: name("Service")?,
        operator: name("Operator")?,
        fleet: name("Fleet")?,
        group: name("Group")?,
        installation: name("Installation")?,
        topic: name("Topic")?,
    };
    let standing = name("Standing")?;
    let role = name("Role")?;
    Ok(Vocabulary {
        acts: Act::all().map(|act| known(&schema, &types, act)).collect::<Result<_, _>>()?,
        installation: uid(&types.installation, "installation"),
        standings: WORDS.map(|word| (word, uid(&standing, word))).to_vec(),
        roles: Role::ALL.map(|own| (own, uid(&role, own.as_str()))).to_vec(),
        validator: Validator::new(schema),
        types,
    })
}

/// The words of [`Standing::as_str`].
const WORDS: [&str; 6] = ["unconfirmed", "good", "superseded", "held", "quarantined", "revoked"];

fn known(schema: &Schema, types: &Types, act: Act) -> Result<Known, String> {
    let uid: EntityUid = format!(r#"Action::"{}""#, act.as_str()).parse().map_err(|error| format!("{error}"))?;
    let entities = schema.action_entities().map_err(|error| error.to_string())?;
    let groups = entities.ancestors(&uid).ok_or_else(|| format!("{uid} is not in the schema"))?;
    let groups: Vec<_> = groups.cloned().collect();
    let kinds = schema.principals_for_action(&uid).ok_or_else(|| format!("{uid} has no principals"))?;
    let resources = schema.resources_for_action(&uid).ok_or_else(|| format!("{uid} has no resources"))?;
    Ok(Known {
        act,
        kinds: kinds.fold(Mask::default(), |mask, name| mask.with(types.kinds(name))),
        resources: resources.fold(Mask::default(), |mask, name| mask.with(types.resources(name))),
        entity: Entity::new_no_attrs(uid.clone(), groups.iter().cloned().collect()),
        names: std::iter::once(uid.clone()).chain(groups).collect(),
        uid,
    })
}

#[cfg(test)]
mod tests {
    use fleetmark_domain::RevocationReason;

    use super::*;

    #[test]
    fn the_schema_knows_every_act_standing_and_role() {
        let vocabulary = read().expect("the schema is read");
        for act in Act::all() {
            let (_, known) = vocabulary.act(act).expect("known");
            assert!(known.kinds != Mask::default() && known.resources != Mask::default(), "{act:?}");
            assert_eq!(act.as_str().parse(), Ok(act));
        }
        let standings = [
            Standing::Unconfirmed,
            Standing::Good,
            Standing::Superseded,
            Standing::Held,
            Standing::Quarantined,
            Standing::Revoked(RevocationReason::KeyCompromise),
        ];
        for standing in standings {
            assert!(vocabulary.standing(standing).is_some(), "{standing}");
        }
        for (number, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind_number(kind), number);
            assert!(vocabulary.types.kinds(vocabulary.types.of_kind(kind)).has(number));
        }
        assert_eq!(vocabulary.roles(Role::Operator).count(), 2);
    }
}
