//! `/v1/operators`, `/v1/gateways`, `/v1/services`: the same resource thrice, for three kinds of identity.

use fleetmark_domain::{FleetName, Kind, Name, RevocationReason, TrustDomain};
use serde::Deserialize;
use utoipa::IntoParams;

use super::certificates::MAX_REMARK;
use super::devices::SubjectQuery;
use super::extract::{By, IdempotencyKey, IfMatch, Json, name, page, text};
use super::tokens::{lifetime, shown_once};
use super::{Answer, created, ok, page_of, schema, versioned, wire};
use crate::http::State;
use crate::http::problem::Problem;
use crate::registrar::Idempotency;
use crate::registrar::subjects::{NewMember, SubjectChange, SubjectView, Who};
use crate::registrar::tokens::MintedToken;

/// A member in a path.
#[derive(Debug, Deserialize, IntoParams)]
pub struct MemberPath {
    /// The name, in any case.
    #[param(value_type = schema::Name)]
    pub name: Name,
}

macro_rules! members {
    (
        $(#[$doc:meta])*
        $module:ident: $kind:expr, $tag:tt $one_of:tt, $new:ty, $change:ty;
        $all:tt => $list:ident $admit:ident;
        $one:tt => $look:ident $modify:ident;
        $again:tt => $invite:ident;
        $out:tt => $put_out:ident;
    ) => {
        $(#[$doc])*
        pub mod $module {
            use actix_web::{get, patch, post, web};
            use utoipa_actix_web::service_config::ServiceConfig;

            use super::super::openapi::{Act, Change, List, Look};
            use super::super::extract::{Path, Query};
            use super::*;

            /// The routes.
            pub fn documented(config: &mut ServiceConfig<'_>) {
                config
                    .service($list)
                    .service($admit)
                    .service($look)
                    .service($modify)
                    .service($invite)
                    .service($put_out);
            }

            /// List them
            #[utoipa::path(
                tag = $tag,
                summary = concat!("List ", $tag),
                params(SubjectQuery),
                responses((status = 200, description = "One page", body = wire::Page<wire::Member>), List)
            )]
            #[get($all)]
            pub async fn $list(state: web::Data<State>, by: By, query: Query<SubjectQuery>) -> Answer {
                list(&state, &by, $kind, query.0).await
            }

            /// Admit one, with an invitation
            ///
            /// The invitation's text is in this answer alone.
            #[utoipa::path(
                tag = $tag,
                summary = concat!("Admit one ", $one_of, ", with an invitation"),
                params(IdempotencyKey),
                responses(
                    (
                        status = 201,
                        description = "Created",
                        body = wire::Admitted,
                        headers(("Location" = String), ("ETag" = String))
                    ),
                    Act
                )
            )]
            #[post($all)]
            pub async fn $admit(state: web::Data<State>, by: By, key: IdempotencyKey, body: Json<$new>) -> Answer {
                admit(&state, &by, $kind, key, body, concat!($all, "/")).await
            }

            /// One of them
            #[utoipa::path(
                tag = $tag,
                summary = concat!("One ", $one_of),
                params(MemberPath),
                responses(
                    (status = 200, description = "As it is now", body = wire::Member, headers(("ETag" = String))),
                    Look
                )
            )]
            #[get($one)]
            pub async fn $look(state: web::Data<State>, by: By, path: Path<MemberPath>) -> Answer {
                look(&state, &by, &who($kind, path.0)).await
            }

            /// Change a record
            #[utoipa::path(
                tag = $tag,
                summary = concat!("Change the record of one ", $one_of),
                params(MemberPath, IfMatch),
                responses(
                    (status = 200, description = "As it is now", body = wire::Member, headers(("ETag" = String))),
                    Change
                )
            )]
            #[patch($one)]
            pub async fn $modify(
                state: web::Data<State>,
                by: By,
                path: Path<MemberPath>,
                read: IfMatch,
                body: Json<$change>,
            ) -> Answer {
                modify(&state, &by, &who($kind, path.0), read, body.value.try_into()?).await
            }

            /// Mint a fresh invitation, for one who lost key or certificate
            #[utoipa::path(
                tag = $tag,
                summary = concat!("Mint a fresh invitation for one ", $one_of, " that lost key or certificate"),
                params(MemberPath, IdempotencyKey),
                responses(
                    (status = 201, description = "Created", body = wire::MintedToken, headers(("Location" = String))),
                    Act
                )
            )]
            #[post($again)]
            pub async fn $invite(
                state: web::Data<State>,
                by: By,
                path: Path<MemberPath>,
                key: IdempotencyKey,
                body: Json<wire::NewInvitation>,
            ) -> Answer {
                let who = who($kind, path.0);
                let location = format!(concat!($all, "/{}"), who.name);
                invite(&state, &by, &who, key.over(&body), &body.value, location).await
            }

            /// Put one out for good, and revoke its certificates
            #[utoipa::path(
                tag = $tag,
                summary = concat!("Put one ", $one_of, " out for good, and revoke its certificates"),
                params(MemberPath),
                responses(
                    (status = 200, description = "As it is now", body = wire::Member, headers(("ETag" = String))),
                    Act
                )
            )]
            #[post($out)]
            pub async fn $put_out(
                state: web::Data<State>,
                by: By,
                path: Path<MemberPath>,
                body: Json<wire::Revocation>,
            ) -> Answer {
                put_out(&state, &by, &who($kind, path.0), body.value).await
            }
        }
    };
}

members! {
    /// `/v1/operators`
    operators: Kind::Operator, "operators" "operator", wire::NewOperator, wire::OperatorChange;
    "/v1/operators" => list_operators admit_operator;
    "/v1/operators/{name}" => show_operator change_operator;
    "/v1/operators/{name}/invite" => invite_operator;
    "/v1/operators/{name}/revoke" => revoke_operator;
}

members! {
    /// `/v1/gateways`
    gateways: Kind::Gateway, "gateways" "gateway", wire::NewEndpoint, wire::EndpointChange;
    "/v1/gateways" => list_gateways admit_gateway;
    "/v1/gateways/{name}" => show_gateway change_gateway;
    "/v1/gateways/{name}/invite" => invite_gateway;
    "/v1/gateways/{name}/revoke" => revoke_gateway;
}

members! {
    /// `/v1/services`
    services: Kind::Service, "services" "service", wire::NewEndpoint, wire::EndpointChange;
    "/v1/services" => list_services admit_service;
    "/v1/services/{name}" => show_service change_service;
    "/v1/services/{name}/invite" => invite_service;
    "/v1/services/{name}/revoke" => revoke_service;
}

fn who(kind: Kind, path: MemberPath) -> Who {
    Who { kind, fleet: None, name: path.name }
}

async fn list(state: &State, by: &By, kind: Kind, query: SubjectQuery) -> Answer {
    let search = query.search()?;
    let request = page(query.cursor, query.limit)?;
    let members = state.registrar.subjects(&by.0, kind, None, search, &request).await?;
    Ok(ok(&page_of(members, |member| shown(state.registrar.trust_domain(), member))))
}

async fn admit<N>(state: &State, by: &By, kind: Kind, key: IdempotencyKey, body: Json<N>, all: &str) -> Answer
where
    N: Admit,
{
    let idempotency = key.over(&body);
    let new = body.value.into_member(kind)?;
    let (member, MintedToken { text, token, .. }) = state.registrar.admit(&by.0, new, idempotency, state.clock.now()).await?;
    let admitted = wire::Admitted {
        member: shown(state.registrar.trust_domain(), member),
        token: secrecy::ExposeSecret::expose_secret(&text).to_owned().into(),
        token_expires_at: token.expires_at,
    };
    let location = format!("{all}{}", admitted.member.name);
    Ok(created(&admitted, location, Some(admitted.member.version)))
}

async fn look(state: &State, by: &By, who: &Who) -> Answer {
    let member = shown(state.registrar.trust_domain(), state.registrar.subject(&by.0, who).await?);
    Ok(versioned(&member, member.version))
}

async fn modify(state: &State, by: &By, who: &Who, read: IfMatch, change: SubjectChange) -> Answer {
    let member = state.registrar.change_subject(&by.0, who, change, read.0, state.clock.now()).await?;
    let member = shown(state.registrar.trust_domain(), member);
    Ok(versioned(&member, member.version))
}

async fn invite(
    state: &State,
    by: &By,
    who: &Who,
    key: Option<Idempotency>,
    new: &wire::NewInvitation,
    location: String,
) -> Answer {
    let now = state.clock.now();
    let minted = state.registrar.invite_again(&by.0, who, lifetime(new.expires_in_seconds)?, key, now).await?;
    Ok(created(&shown_once(minted, now), location, None))
}

async fn put_out(state: &State, by: &By, who: &Who, body: wire::Revocation) -> Answer {
    let reason = body.reason.unwrap_or(RevocationReason::Unspecified);
    let note = text("note", body.note, MAX_REMARK)?;
    let member = state.registrar.put_out(&by.0, who, reason, &note, state.clock.now()).await?;
    let member = shown(state.registrar.trust_domain(), member);
    Ok(versioned(&member, member.version))
}

fn shown(domain: &TrustDomain, view: SubjectView) -> wire::Member {
    let SubjectView { identity, subject, certificate } = view;
    wire::Member {
        identity: identity.uri(domain),
        kind: subject.kind,
        name: subject.name,
        state: subject.state.into(),
        role: subject.role,
        fleets: subject.grants,
        dns_names: subject.dns_names,
        addresses: subject.addresses,
        generation: certificate.as_ref().map_or(0, |certificate| certificate.generation),
        standing: certificate.as_ref().map(|certificate| certificate.standing.to_string()),
        not_after: certificate.as_ref().map(|certificate| certificate.not_after),
        certificate: certificate.map(|certificate| certificate.serial.to_string()),
        created_at: subject.created_at,
        version: subject.version,
    }
}

/// A body that admits a member.
trait Admit {
    fn into_member(self, kind: Kind) -> Result<NewMember, Problem>;
}

impl Admit for wire::NewOperator {
    fn into_member(self, kind: Kind) -> Result<NewMember, Problem> {
        Ok(NewMember {
            kind,
            name: name("name", &self.name)?,
            role: Some(self.role),
            grants: grants(self.fleets)?,
            dns_names: Vec::new(),
            addresses: Vec::new(),
            lifetime: lifetime(self.expires_in_seconds)?,
        })
    }
}

impl Admit for wire::NewEndpoint {
    fn into_member(self, kind: Kind) -> Result<NewMember, Problem> {
        Ok(NewMember {
            kind,
            name: name("name", &self.name)?,
            role: None,
            grants: grants(self.fleets)?,
            dns_names: self.dns_names,
            addresses: self.addresses,
            lifetime: lifetime(self.expires_in_seconds)?,
        })
    }
}

impl TryFrom<wire::OperatorChange> for SubjectChange {
    type Error = Problem;

    fn try_from(change: wire::OperatorChange) -> Result<Self, Problem> {
        Ok(Self { role: change.role, grants: change.fleets.map(grants).transpose()?, ..Self::default() })
    }
}

impl TryFrom<wire::EndpointChange> for SubjectChange {
    type Error = Problem;

    fn try_from(change: wire::EndpointChange) -> Result<Self, Problem> {
        Ok(Self {
            grants: change.fleets.map(grants).transpose()?,
            dns_names: change.dns_names,
            addresses: change.addresses,
            ..Self::default()
        })
    }
}

/// Each fleet once, in order.
fn grants(fleets: Option<Vec<String>>) -> Result<Option<Vec<FleetName>>, Problem> {
    let Some(fleets) = fleets else { return Ok(None) };
    let mut fleets: Vec<FleetName> = fleets.iter().map(|fleet| name("fleets", fleet)).collect::<Result<_, _>>()?;
    fleets.sort();
    fleets.dedup();
    Ok(Some(fleets))
}

#[cfg(test)]
mod tests {
    use fleetmark_domain::Refusal;

    use super::*;

    #[test]
    fn grants_are_fleets_each_once() {
        let owned = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(grants(None).ok(), Some(None));
        assert_eq!(grants(owned(&[])).ok(), Some(Some(Vec::new())), "no fleets is not all fleets");
        let sorted = grants(owned(&["b", "a", "b"])).ok().flatten().expect("fleets");
        assert_eq!(sorted.iter().map(FleetName::as_str).collect::<Vec<_>>(), ["a", "b"]);
        for hostile in ["system", "A", "../x", "+", "#", ""] {
            assert_eq!(grants(owned(&[hostile])).expect_err(hostile).0.refusal, Refusal::InvalidName);
        }
    }
}
