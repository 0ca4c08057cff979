//! What a request shows in its head and its connection: tokens as they come in `Authorization`, else a certificate that is no
//! identity's. Nothing here is ever logged.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header::{AUTHORIZATION, HeaderValue};
use actix_web::{FromRequest, HttpRequest, web};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleetmark_domain::{Name, Refusal};
use zeroize::Zeroizing;

use crate::http::State;
use crate::http::problem::Problem;
use crate::registrar::caller::Presented;
use crate::registrar::proofs::Shown;
use crate::registrar::tokens::PresentedToken;

/// The longest value of `Authorization`, in octets: a name and a token in base64 take 260.
const MAX_VALUE: usize = 512;

/// A token by the scheme Bearer (RFC 6750). As an extractor it is mandatory, and it counts the attempt against its
/// address's limit before the body is read.
#[derive(Debug)]
pub struct Bearer(pub PresentedToken);

impl FromRequest for Bearer {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(admit(request).and_then(|()| Self::of(request)).map_err(Problem::from))
    }
}

impl Bearer {
    /// # Errors
    /// `ProofRequired` where there is none, or one of another scheme; `TokenUnknown`, `MalformedRequest`.
    pub fn of(request: &HttpRequest) -> Result<Self, Refusal> {
        Self::parse(authorization(request)?.ok_or(Refusal::ProofRequired)?)
    }

    /// Reads the value of `Authorization`.
    ///
    /// # Errors
    /// Those of [`Self::of`].
    pub fn parse(value: &[u8]) -> Result<Self, Refusal> {
        let text = credentials(value, "Bearer")?.ok_or(Refusal::ProofRequired)?;
        PresentedToken::parse(text.trim()).map(Self)
    }
}

/// The proof that comes before the body: the token, where there are credentials; else the client certificate of the connection, where
/// it is a maker's or a claim; else none, and the body is to hold it. As an extractor it counts the attempt against its address's
/// limit before the body is read.
#[derive(Debug)]
pub struct InHead(pub Option<Shown>);

impl FromRequest for InHead {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(admit(request).and_then(|()| Self::of(request)).map_err(Problem::from))
    }
}

impl InHead {
    fn of(request: &HttpRequest) -> Result<Self, Refusal> {
        if has_credentials(request) {
            return Bearer::of(request).map(|token| Self(Some(Shown::Token(token.0))));
        }
        Ok(Self(certificate(request)))
    }
}

/// The certificate of the connection, where it is a maker's or a claim.
pub fn certificate(request: &HttpRequest) -> Option<Shown> {
    request.conn_data::<Presented>().map(|chain| Shown::Certificate(chain.0.clone()))
}

/// A device's name and token by the scheme Basic (RFC 7617), as EST clients send them.
#[derive(Debug)]
pub struct Basic {
    /// The user: the device's name; None where it is empty.
    pub name: Option<Name>,
    /// The password.
    pub token: PresentedToken,
}

impl Basic {
    /// # Errors
    /// `ProofRequired` where there is none, or one of another scheme; `InvalidName`, `TokenUnknown`, `MalformedRequest`.
    pub fn of(request: &HttpRequest) -> Result<Self, Refusal> {
        Self::parse(authorization(request)?.ok_or(Refusal::ProofRequired)?)
    }

    /// Reads the value of `Authorization`.
    ///
    /// # Errors
    /// Those of [`Self::of`].
    pub fn parse(value: &[u8]) -> Result<Self, Refusal> {
        let text = credentials(value, "Basic")?.ok_or(Refusal::ProofRequired)?;
        let octets = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| Refusal::MalformedRequest)?);
        let pair = std::str::from_utf8(&octets).map_err(|_| Refusal::MalformedRequest)?;
        let (user, password) = pair.split_once(':').ok_or(Refusal::MalformedRequest)?;
        let name = if user.is_empty() { None } else { Some(user.parse().map_err(|_| Refusal::InvalidName)?) };
        Ok(Self { name, token: PresentedToken::parse(password)? })
    }
}

/// Counts an attempt to enroll against the address that it comes from.
///
/// # Errors
/// `RateLimited`.
pub fn admit(request: &HttpRequest) -> Result<(), Refusal> {
    let limit = request.app_data::<web::Data<State>>().and_then(|state| state.enrollments.as_ref());
    match (limit, request.peer_addr()) {
        (Some(limit), Some(peer)) => limit.admit(peer.ip()),
        _ => Ok(()),
    }
}

/// Whether the caller shows a proof in a header at all.
pub fn has_credentials(request: &HttpRequest) -> bool {
    request.headers().contains_key(AUTHORIZATION)
}

/// The value of `Authorization`; None where there is no such header. Two of them are none that could be trusted.
fn authorization(request: &HttpRequest) -> Result<Option<&[u8]>, Refusal> {
    let mut values = request.headers().get_all(AUTHORIZATION);
    let value = values.next();
    if values.next().is_some() { Err(Refusal::MalformedRequest) } else { Ok(value.map(HeaderValue::as_bytes)) }
}

/// What follows the scheme's name; None for another scheme.
fn credentials<'a>(value: &'a [u8], scheme: &str) -> Result<Option<&'a str>, Refusal> {
    if value.len() > MAX_VALUE || !value.is_ascii() {
        return Err(Refusal::MalformedRequest);
    }
    let value = std::str::from_utf8(value).map_err(|_| Refusal::MalformedRequest)?;
    let (name, rest) = value.split_once(' ').ok_or(Refusal::MalformedRequest)?;
    Ok(name.eq_ignore_ascii_case(scheme).then_some(rest))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    const TOKEN: &str = "fmt_0123456789abcdef_0123456789012345678901234567890123456789012";

    fn basic(pair: &str) -> Result<Basic, Refusal> {
        let value = format!("Basic {}", STANDARD.encode(pair));
        Basic::of(&TestRequest::default().insert_header((AUTHORIZATION, value)).to_http_request())
    }

    fn bearer(value: &[u8]) -> Option<Refusal> {
        let value = actix_web::http::header::HeaderValue::from_bytes(value).unwrap();
        Bearer::of(&TestRequest::default().insert_header((AUTHORIZATION, value)).to_http_request()).err()
    }

    #[test]
    fn a_user_names_the_device() {
        assert_eq!(basic(&format!("sensor.01:{TOKEN}")).unwrap().name, Some("sensor.01".parse().unwrap()));
        assert_eq!(basic(&format!(":{TOKEN}")).unwrap().name, None);
        assert!(!format!("{:?}", basic(&format!(":{TOKEN}"))).contains("01234567890123456789"), "a secret was shown");
    }

    #[test]
    fn other_credentials_are_refused_by_name() {
        assert_eq!(basic("nothing").unwrap_err(), Refusal::MalformedRequest);
        assert_eq!(basic("a/b:x").unwrap_err(), Refusal::InvalidName);
        assert_eq!(basic("a:x:y").unwrap_err(), Refusal::TokenUnknown);
        assert_eq!(basic(&format!("a:{}", "x".repeat(600))).unwrap_err(), Refusal::MalformedRequest);
        for value in ["Bearer", "Bearer\u{e4} x", "\u{fffd}"] {
            assert_eq!(bearer(value.as_bytes()), Some(Refusal::MalformedRequest), "{value}");
        }
        assert_eq!(bearer(b"Bearer \xff"), Some(Refusal::MalformedRequest));
        assert_eq!(bearer(b"Basic eDp5"), Some(Refusal::ProofRequired));
        assert_eq!(bearer(b"Bearer "), Some(Refusal::TokenUnknown));
        assert_eq!(bearer(format!("bearer {TOKEN}").as_bytes()), None);
        assert_eq!(Bearer::of(&TestRequest::default().to_http_request()).unwrap_err(), Refusal::ProofRequired);
    }

    #[test]
    fn two_proofs_are_none() {
        let twice = TestRequest::default()
            .append_header((AUTHORIZATION, format!("Bearer {TOKEN}")))
            .append_header((AUTHORIZATION, format!("Bearer {TOKEN}")));
        assert_eq!(Bearer::of(&twice.to_http_request()).unwrap_err(), Refusal::MalformedRequest);
    }
}
