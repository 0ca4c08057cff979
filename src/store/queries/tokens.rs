//! Enrollment tokens and invitations.

use diesel::prelude::*;
use fleetmark_domain::{KeyHash, Timestamp};

use super::codes::{Coded, from_json, json, number, octets, optional, signed, word};
use crate::store::StoreError;
use crate::store::model::{Token, TokenState};
use crate::store::schema::tokens;

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = tokens, treat_none_as_default_value = false)]
pub struct TokenRow {
    id: Vec<u8>,
    secret_hash: Vec<u8>,
    kind: i16,
    fleet: String,
    subject: Option<i64>,
    state: i16,
    key_hash: Option<Vec<u8>>,
    expires_at: i64,
    created_at: i64,
    created_by: i64,
    note: String,
    terms: String,
    spent: i64,
    origin: Option<i64>,
}

impl From<&Token> for TokenRow {
    fn from(token: &Token) -> Self {
        let (state, key_hash) = state_columns(token.state);
        Self {
            id: token.id.to_vec(),
            secret_hash: token.secret_hash.to_vec(),
            kind: token.kind.code(),
            fleet: token.fleet.as_ref().map(ToString::to_string).unwrap_or_default(),
            subject: token.subject.map(signed),
            state,
            key_hash,
            expires_at: token.expires_at.0,
            created_at: token.created_at.0,
            created_by: signed(token.created_by),
            note: token.note.clone(),
            terms: json(&token.terms),
            spent: signed(token.spent),
            origin: token.origin.map(signed),
        }
    }
}

impl TryFrom<TokenRow> for Token {
    type Error = StoreError;

    fn try_from(row: TokenRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: octets(&row.id, "token")?,
            secret_hash: octets(&row.secret_hash, "token")?,
            kind: word(row.kind, "token")?,
            fleet: optional(&row.fleet, "token")?,
            subject: row.subject.map(|id| number(id, "token")).transpose()?,
            state: state(row.state, row.key_hash.as_deref())?,
            expires_at: Timestamp(row.expires_at),
            created_at: Timestamp(row.created_at),
            created_by: number(row.created_by, "token")?,
            note: row.note,
            terms: from_json(&row.terms, "token")?,
            spent: number(row.spent, "token")?,
            origin: row.origin.map(|id| number(id, "token")).transpose()?,
        })
    }
}

/// A token's state as columns.
pub fn state_columns(state: TokenState) -> (i16, Option<Vec<u8>>) {
    match state {
        TokenState::Fresh => (0, None),
        TokenState::Reserved(key) => (1, Some(key.0.to_vec())),
        TokenState::Used(key) => (2, Some(key.0.to_vec())),
        TokenState::Withdrawn => (3, None),
    }
}

fn state(code: i16, key: Option<&[u8]>) -> Result<TokenState, StoreError> {
    let key = key.map(|key| octets(key, "token").map(KeyHash)).transpose()?;
    match (code, key) {
        (0, None) => Ok(TokenState::Fresh),
        (1, Some(key)) => Ok(TokenState::Reserved(key)),
        (2, Some(key)) => Ok(TokenState::Used(key)),
        (3, None) => Ok(TokenState::Withdrawn),
        _ => Err(StoreError::Unreadable { what: "token" }),
    }
}

macro_rules! token_rows {
    () => {
        fn token(&mut self, id: &TokenId) -> Result<Option<Token>, StoreError> {
            let query = tokens::table.find(id.as_slice()).select(TokenRow::as_select());
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(Token::try_from).transpose()
        }

        fn tokens(
            &mut self,
            kind: Kind,
            fleet: Option<&FleetName>,
            after: Option<&TokenId>,
            limit: u32,
        ) -> Result<Vec<Token>, StoreError> {
            let query = tokens::table
                .filter(tokens::kind.eq(kind.code()))
                .filter(tokens::fleet.eq(fleet.map_or("", FleetName::as_str)))
                .filter(tokens::id.gt(after.map_or(&[][..], |id| id.as_slice())))
                .order(tokens::id)
                .limit(limit.into())
                .select(TokenRow::as_select());
            records(query.load(&mut self.connection).map_err(|error| self.fault(error))?)
        }

        fn insert_token(&mut self, token: &Token) -> Result<(), StoreError> {
            let query = diesel::insert_into(tokens::table).values(TokenRow::from(token));
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }

        fn set_token_state(&mut self, token: &Token) -> Result<(), StoreError> {
            let (state, key_hash) = token_row::state_columns(token.state);
            let changes = (tokens::state.eq(state), tokens::key_hash.eq(key_hash), tokens::spent.eq(signed(token.spent)));
            let query = update(tokens::table, tokens::id.eq(token.id.as_slice()), changes);
            met(query.execute(&mut self.connection).map_err(|error| self.fault(error))?, "token")
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_no_state() {
        let key = [7; 32];
        assert_eq!(state(1, Some(&key)).unwrap(), TokenState::Reserved(KeyHash(key)));
        for (code, key) in [(0, Some(&key[..])), (1, None), (1, Some(&key[..31])), (2, None), (3, Some(&key[..])), (4, None)] {
            assert!(state(code, key).is_err(), "{code} {key:?}");
        }
    }
}
