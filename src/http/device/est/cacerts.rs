//! `cacerts` (RFC 7030 4.1).

use std::collections::BTreeSet;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use fleetmark_domain::{FleetName, Kind, Refusal};
use fleetmark_ledger::entry::{AuthorityKind, AuthorityState};

use super::{EstProblem, certificates, label};
use crate::http::State;
use crate::store::model::AuthorityRecord;

/// What a device of the fleet trusts.
pub(super) async fn answer(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, EstProblem> {
    let fleet = label(&request, &state)?;
    let authorities = state.registrar.authorities().all();
    let crosses = state.registrar.authorities().crosses();
    let records = authorities.iter().map(|authority| &authority.record).chain(crosses.iter().map(|cross| &**cross));
    let records: Vec<_> = records.collect();
    let above = state.registrar.authorities().above();
    let mut chosen = trusted(&records, &fleet)?;
    // RFC 7030 4.1.3: all that is needed to reach the root, where ours is under a corporate one.
    chosen.extend(above.iter().map(Vec::as_slice));
    certificates(&chosen)
}

/// The certificates of all the fleet's authorities that are not revoked (those prepared to issue, and those that issue no
/// more but whose certificates hold, among them), of whatever issued them, and of all roots. Where a root changes its key, the
/// set holds the certificates `OldWithNew` and `NewWithOld` as roots beside `OldWithOld` and `NewWithNew` (RFC 7030 4.1.3,
/// RFC 4210 4.4), and they go out with the others. Each stands there once; the order does not count, since the answer is a SET.
///
/// # Errors
/// `FleetUnknown`: there is no authority of this fleet, in whatever state.
fn trusted<'a>(records: &[&'a AuthorityRecord], fleet: &FleetName) -> Result<Vec<&'a [u8]>, Refusal> {
    let of_fleet =
        |record: &AuthorityRecord| record.kind == AuthorityKind::Of(Kind::Device) && record.fleet.as_ref() == Some(fleet);
    if !records.iter().any(|record| of_fleet(record)) {
        return Err(Refusal::FleetUnknown);
    }
    let holds = |record: &&&'a AuthorityRecord| record.state != AuthorityState::Revoked;
    let wanted = |record: &AuthorityRecord| of_fleet(record) || record.kind == AuthorityKind::Root;
    let mut chosen: Vec<&AuthorityRecord> = records.iter().filter(holds).filter(|record| wanted(record)).copied().collect();
    // A list that grows by what stands above its members; no member is taken twice, so it ends.
    let mut at = 0;
    while let Some(record) = chosen.get(at) {
        let above = records.iter().filter(holds).find(|issuer| Some(issuer.id) == record.issuer);
        if let Some(issuer) = above
            && !chosen.iter().any(|known| known.id == issuer.id)
        {
            chosen.push(issuer);
        }
        at = at.saturating_add(1);
    }
    let distinct: BTreeSet<&[u8]> = chosen.into_iter().map(|record| record.certificate.as_slice()).collect();
    Ok(distinct.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use fleetmark_domain::Timestamp;

    use super::*;

    fn record(
        id: u64,
        kind: AuthorityKind,
        fleet: Option<&str>,
        state: AuthorityState,
        issuer: Option<u64>,
    ) -> AuthorityRecord {
        AuthorityRecord {
            id: id.try_into().unwrap(),
            kind,
            fleet: fleet.map(|name| name.parse().unwrap()),
            state,
            key_label: format!("key-{id}"),
            certificate: vec![u8::try_from(id).unwrap()],
            issuer: issuer.map(|id| id.try_into().unwrap()),
            created_at: Timestamp(0),
        }
    }

    fn ids(records: &[AuthorityRecord], fleet: &str) -> Result<Vec<u8>, Refusal> {
        let records: Vec<_> = records.iter().collect();
        Ok(trusted(&records, &fleet.parse().unwrap())?.concat())
    }

    #[test]
    fn a_fleets_authorities_in_every_state_but_revoked_and_all_roots_are_trusted() {
        use AuthorityKind::{Of, Root};
        use AuthorityState::{Active, Prepared, Revoked, Tainted};
        let device = Of(Kind::Device);
        let records = [
            record(1, Root, None, Active, None),
            record(2, device, Some("a"), Prepared, Some(1)),
            record(3, device, Some("a"), Active, Some(1)),
            record(4, device, Some("a"), Tainted, Some(12)),
            record(5, device, Some("a"), Revoked, Some(1)),
            record(6, device, Some("b"), Active, Some(1)),
            record(7, Of(Kind::Gateway), None, Active, Some(1)),
            // A new root: NewWithNew, NewWithOld, OldWithNew (RFC 7030 4.1.3).
            record(8, Root, None, Prepared, None),
            record(9, Root, None, Prepared, Some(1)),
            record(10, Root, None, Tainted, Some(8)),
            record(11, Root, None, Revoked, None),
            // An authority between: it is no device authority, and no root.
            record(12, Of(Kind::Service), None, Active, Some(1)),
            record(13, device, Some("c"), Revoked, Some(1)),
        ];
        assert_eq!(ids(&records, "a").unwrap(), [1, 2, 3, 4, 8, 9, 10, 12]);
        assert_eq!(ids(&records, "b").unwrap(), [1, 6, 8, 9, 10]);
        assert_eq!(ids(&records, "c").unwrap(), [1, 8, 9, 10], "of a fleet whose authorities are all revoked");
        assert_eq!(ids(&records, "nobody"), Err(Refusal::FleetUnknown));
    }

    #[test]
    fn a_certificate_stands_there_once_and_a_circle_ends() {
        let device = AuthorityKind::Of(Kind::Device);
        let state = AuthorityState::Active;
        let mut records = [
            record(1, AuthorityKind::Root, None, state, Some(2)),
            record(2, device, Some("a"), state, Some(1)),
            record(3, device, Some("a"), state, Some(3)),
        ];
        assert_eq!(ids(&records, "a").unwrap(), [1, 2, 3]);
        records[2].certificate = vec![2];
        assert_eq!(ids(&records, "a").unwrap(), [1, 2]);
    }
}
