//! Schemas of the domain's words, for the `OpenAPI` document. The types themselves stay in `fleetmark_domain`, which
//! knows nothing of it.

use fleetmark_domain::standing::Standing as DomainStanding;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::{KnownFormat, Object, RefOr, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

macro_rules! schemas {
    ($($(#[$doc:meta])* $name:ident => $object:expr;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub struct $name;

            impl PartialSchema for $name {
                fn schema() -> RefOr<Schema> {
                    RefOr::T(Schema::Object($object))
                }
            }

            impl ToSchema for $name {}
        )*
    };
}

schemas! {
    /// [`fleetmark_domain::Name`].
    Name => text("A name; two that differ only in case are the same.", "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$");
    /// [`fleetmark_domain::FleetName`].
    FleetName => text("A fleet's name; never `system`.", "^[a-z0-9][a-z0-9._-]{0,62}$");
    /// [`fleetmark_domain::Serial`].
    Serial => text("A serial number.", "^01[0-9a-f]{32}$");
    /// [`fleetmark_domain::Fingerprint`].
    Fingerprint => text("SHA-256 over a certificate.", "^[0-9a-f]{64}$");
    /// [`fleetmark_domain::Timestamp`].
    Time => Object::builder()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .build();
    /// [`fleetmark_domain::Role`].
    Role => words(fleetmark_domain::Role::ALL.map(fleetmark_domain::Role::as_str));
    /// [`fleetmark_domain::Kind`].
    Kind => words(fleetmark_domain::Kind::ALL.map(fleetmark_domain::Kind::as_str));
    /// [`fleetmark_domain::RevocationReason`].
    Reason => words(fleetmark_domain::RevocationReason::ALL.map(fleetmark_domain::RevocationReason::as_str));
    /// [`crate::store::model::GroupProof`].
    GroupProof => words(["maker", "claim", "derived-key", "approval"]);
    /// [`crate::store::model::SerialFrom`].
    SerialFrom => words(["subject-serial-number", "hardware-module-name", "common-name"]);
    /// [`crate::store::model::NameMapping`].
    NameMapping => words(["exact", "sanitized", "requested"]);
    /// [`fleetmark_domain::NameSource`].
    NameSource => words(["common-name", "serial-number", "dns", "uri", "email", "hardware-module-name"]);
    /// [`fleetmark_domain::NamePart`].
    NamePart => words(["whole", "first", "last"]);
    /// [`fleetmark_domain::NameForm`].
    NameForm => words(["exact", "lowercase", "sanitized"]);
    /// [`fleetmark_domain::Standing`].
    Standing => words(STANDINGS);
}

/// The names of all standings, in the order of their codes.
pub const STANDINGS: [&str; 6] = [
    DomainStanding::Unconfirmed.as_str(),
    DomainStanding::Good.as_str(),
    DomainStanding::Superseded.as_str(),
    DomainStanding::Held.as_str(),
    DomainStanding::Quarantined.as_str(),
    DomainStanding::Revoked(fleetmark_domain::RevocationReason::Unspecified).as_str(),
];

fn text(description: &str, pattern: &str) -> Object {
    Object::builder().schema_type(Type::String).description(Some(description)).pattern(Some(pattern)).build()
}

fn words<const N: usize>(words: [&'static str; N]) -> Object {
    Object::builder().schema_type(Type::String).enum_values(Some(words)).build()
}
