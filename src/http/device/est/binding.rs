//! The request bound to its TLS connection (RFC 7030 3.5): `challengePassword` holds a channel binding in base64. The binding
//! that is taken is `tls-exporter` over TLS 1.3 (RFC 9266); docs/est.md says what is taken for what.

use actix_web::HttpRequest;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use fleetmark_domain::Refusal;

use crate::pki::asked::ChallengePassword;
use crate::pki::csr::VerifiedCsr;
use crate::pki::profile::{BindingRule, Profile};
use crate::tls::connection::ChannelBinding;

/// The sizes of channel bindings in octets: `tls-unique` of TLS 1.2 (RFC 5929 3, RFC 5246 7.4.9), `tls-exporter`.
const SIZES: [usize; 2] = [12, 32];

/// With or without its padding.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// Checks the binding of a certificate request by the profile's rule.
///
/// # Errors
/// Those of [`check`].
pub(super) fn require(request: &HttpRequest, profile: &Profile, csr: &VerifiedCsr) -> Result<(), Refusal> {
    let challenge = csr.asked().challenge_password.as_ref().map(ChallengePassword::expose);
    check(profile.est.channel_binding, challenge, request.conn_data::<ChannelBinding>())
}

/// Whether a request may go on by its challengePassword. `own` is the connection's binding; None over TLS 1.2, where no binding
/// can be verified.
///
/// # Errors
/// `ChannelBindingMismatch`: one was sent that does not hold here, or cannot be verified. `ChannelBindingRequired`: none was sent.
fn check(rule: BindingRule, challenge: Option<&str>, own: Option<&ChannelBinding>) -> Result<(), Refusal> {
    if rule == BindingRule::Ignored {
        return Ok(());
    }
    let sent = challenge.and_then(|text| BASE64.decode(text.trim()).ok()).filter(|octets| SIZES.contains(&octets.len()));
    match (sent, own) {
        (Some(sent), Some(own)) if sent == own.0 => Ok(()),
        (Some(_), _) => Err(Refusal::ChannelBindingMismatch),
        (None, _) if rule == BindingRule::Required => Err(Refusal::ChannelBindingRequired),
        (None, _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// challengePassword, over TLS 1.3, what becomes of it if-sent, and where it is required.
    type Case<'a> = (Option<&'a str>, bool, Result<(), Refusal>, Result<(), Refusal>);

    #[test]
    fn each_rule_takes_each_value_for_what_it_is() {
        let own = ChannelBinding([7; 32]);
        let (right, wrong, unique) = (BASE64.encode([7; 32]), BASE64.encode([8; 32]), BASE64.encode([7; 12]));
        let mismatch = Err(Refusal::ChannelBindingMismatch);
        let required = Err(Refusal::ChannelBindingRequired);
        let cases: [Case<'_>; 14] = [
            (Some(&right), true, Ok(()), Ok(())),
            (Some(&right), false, mismatch, mismatch),
            (Some(&wrong), true, mismatch, mismatch),
            (Some(&wrong), false, mismatch, mismatch),
            (Some(&unique), true, mismatch, mismatch),
            (Some(&unique), false, mismatch, mismatch),
            (None, true, Ok(()), required),
            (None, false, Ok(()), required),
            (Some(""), true, Ok(()), required),
            (Some("a password"), true, Ok(()), required),
            (Some("cGFzc3dvcmQ="), false, Ok(()), required),
            (Some(right.trim_end_matches('=')), true, Ok(()), Ok(())),
            (Some(wrong.trim_end_matches('=')), true, mismatch, mismatch),
            (Some(&"ff".repeat(32)), true, Ok(()), required),
        ];
        for (challenge, over_13, if_sent, where_required) in cases {
            let own = over_13.then_some(&own);
            assert_eq!(check(BindingRule::IfSent, challenge, own), if_sent, "{challenge:?} {over_13}");
            assert_eq!(check(BindingRule::Required, challenge, own), where_required, "{challenge:?} {over_13}");
            assert_eq!(check(BindingRule::Ignored, challenge, own), Ok(()), "{challenge:?} {over_13}");
        }
    }
}
