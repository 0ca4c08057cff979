//! Another authority's OCSP answers: no octets make the reader fall. An input that begins with 0 is what stands in the answer after who
//! answers, one that begins with 1 what is said of the certificate that was asked about; both are signed.
#![no_main]

#[path = "../shared/authority.rs"]
mod authority;

use std::sync::LazyLock;

use authority::{Authority, tlv};
use fleetmark::pki::foreign::ocsp::Question;
use fleetmark_domain::{Standing, Timestamp};
use libfuzzer_sys::fuzz_target;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rustls_pki_types::CertificateDer;

static CA: LazyLock<Authority> = LazyLock::new(Authority::new);
const NOW: Timestamp = Timestamp(1_800_000_000);
const SERIAL: [u8; 3] = [0x7f, 1, 2];
/// id-pkix-ocsp-basic.
const BASIC: [u8; 11] = [6, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
const SHA1: [u8; 11] = [0x30, 9, 6, 5, 0x2b, 0x0e, 3, 2, 0x1a, 5, 0];
const PRODUCED: &[u8] = b"\x18\x0f20270115080000Z";

fuzz_target!(|input: &[u8]| {
    let issuer = CertificateDer::from(CA.certificate.as_slice());
    let question = Question::new(&issuer, &SERIAL, Some([7; 32]), false).expect("our own authority");
    let sha1 = |octets: &[u8]| digest(&SHA1_FOR_LEGACY_USE_ONLY, octets).as_ref().to_vec();
    let by = tlv(0xa2, &[&tlv(4, &[&sha1(CA.point())])]);
    let data = match input {
        [0, rest @ ..] => tlv(0x30, &[&by, rest]),
        [1, rest @ ..] => {
            let id = tlv(0x30, &[&SHA1, &tlv(4, &[&sha1(&CA.name)]), &tlv(4, &[&sha1(CA.point())]), &tlv(2, &[&SERIAL])]);
            tlv(0x30, &[&by, PRODUCED, &tlv(0x30, &[&tlv(0x30, &[&id, rest])])])
        }
        octets => {
            assert!(question.answer(octets, NOW).is_err(), "nobody signed it");
            return;
        }
    };
    let basic = tlv(4, &[&CA.signed(&data, &[])]);
    let answer = tlv(0x30, &[&[0x0a, 1, 0], &tlv(0xa0, &[&tlv(0x30, &[&BASIC, &basic])])]);
    if let Ok(said) = question.answer(&answer, NOW) {
        assert!(said.next_update >= NOW);
        assert!(matches!(said.standing, Standing::Good | Standing::Held | Standing::Revoked(_)));
        assert_eq!(question.answer(&answer, NOW), Ok(said));
        let other = Question::new(&issuer, &[0x7f, 1, 3], None, false).expect("our own authority");
        // It may tell of several; of this one alone nothing is known but what stands there.
        let _ = other.answer(&answer, NOW);
    }
});
