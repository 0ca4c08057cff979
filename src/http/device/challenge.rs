//! `POST /v1/fleets/{fleet}/challenge`: questions to devices that prove themselves by an answer, and the answers as they come in the body
//! of enroll.

use actix_web::web::{self, Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleetmark_domain::{KeyHash, Name, Refusal, Timestamp};
use serde::{Deserialize, Serialize};

use super::answer::private_json;
use super::proof::admit;
use super::rest::fleet_name;
use crate::http::State;
use crate::http::limits::read_json;
use crate::http::problem::{Problem, not_allowed};
use crate::pki::tpm::MAX_PUBLIC;
use crate::registrar::challenge::{Answer, Asked, MAX_NONCE};
use crate::registrar::proofs::Shown;

/// The octets of an answer: HMAC-SHA256.
const MAC: usize = 32;

/// What a device wants to be asked.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ChallengeRequest {
    /// About its derived key.
    DerivedKey {
        /// The enrollment group.
        group: String,
        /// The device's name.
        device: String,
        /// SHA-256 over the `SubjectPublicKeyInfo` of the key that it will ask a certificate for, hexadecimal.
        key: String,
    },
    /// About its TPM.
    Tpm {
        /// The device's name.
        device: String,
        /// `TPM2B_PUBLIC` of the endorsement key, in base64.
        endorsement_key: String,
        /// `TPM2B_PUBLIC` of the key that it will ask a certificate for, in base64.
        key: String,
    },
}

/// The question.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ChallengeAnswer {
    /// To be sent back with the answer.
    nonce: String,
    /// Until when it may be answered.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    /// Of a TPM: the secret, encrypted, in base64: the file that `tpm2_activatecredential` reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
}

/// The proof in the body of enroll.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum BodyProof {
    /// By a key that is derived from its group's.
    DerivedKey {
        /// The question's.
        nonce: String,
        /// HMAC-SHA256 under the device's key, in base64.
        answer: String,
    },
    /// By its TPM.
    Tpm {
        /// The question's.
        nonce: String,
        /// HMAC-SHA256 under the secret that the TPM read, in base64.
        answer: String,
    },
}

impl BodyProof {
    /// What it shows.
    ///
    /// # Errors
    /// `InvalidValue`, `NonceExpired`.
    pub fn shown(self) -> Result<Shown, Problem> {
        Ok(match self {
            Self::DerivedKey { nonce, answer } => Shown::DerivedKey(read_answer(nonce, &answer)?),
            Self::Tpm { nonce, answer } => Shown::Tpm(read_answer(nonce, &answer)?),
        })
    }
}

/// The resource.
pub fn configure(config: &mut ServiceConfig) {
    let resource = web::resource("/v1/fleets/{fleet}/challenge").route(web::post().to(ask));
    config.service(resource.default_service(not_allowed("POST")));
}

/// Asks. Counts against the address's limit before the body is read.
async fn ask(
    http: HttpRequest,
    state: Data<State>,
    fleet: Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    admit(&http)?;
    let fleet = fleet_name(&fleet)?;
    let asked = read_asked(read_json(&http, payload).await?)?;
    let question = state.registrar.ask(&fleet, &asked, state.clock.now())?;
    let credential = question.credential.map(|octets| STANDARD.encode(octets));
    Ok(private_json(&ChallengeAnswer { nonce: question.nonce, expires_at: question.expires_at, credential }))
}

fn read_asked(body: ChallengeRequest) -> Result<Asked, Problem> {
    let name = |text: &str| text.parse::<Name>().map_err(|_| Problem::from(Refusal::InvalidName));
    match body {
        ChallengeRequest::DerivedKey { group, device, key } => {
            let key: KeyHash = key.parse().map_err(|_| wrong("key: 64 hexadecimal digits are expected"))?;
            Ok(Asked::DerivedKey { group: name(&group)?, device: name(&device)?, key })
        }
        ChallengeRequest::Tpm { device, endorsement_key, key } => Ok(Asked::Tpm {
            device: name(&device)?,
            endorsement_key: octets("endorsement_key", &endorsement_key, MAX_PUBLIC)?,
            key: octets("key", &key, MAX_PUBLIC)?,
        }),
    }
}

fn read_answer(nonce: String, answer: &str) -> Result<Answer, Problem> {
    if nonce.len() > MAX_NONCE {
        return Err(Refusal::NonceExpired.into());
    }
    Ok(Answer { nonce, mac: octets("proof.answer", answer, MAC)? })
}

/// Base64 of at most so many octets.
fn octets(field: &str, text: &str, most: usize) -> Result<Vec<u8>, Problem> {
    let fits = text.len() <= most.div_ceil(3).saturating_mul(4);
    let decoded = fits.then(|| STANDARD.decode(text).ok()).flatten().filter(|octets| octets.len() <= most);
    decoded.ok_or_else(|| wrong(&format!("{field}: base64 of at most {most} octets is expected")))
}

fn wrong(why: &str) -> Problem {
    Problem(crate::registrar::Error::with_detail(Refusal::InvalidValue, why))
}
