//! Another authority's revocation list: no octets make the reader fall, and what it reads it reads again, as DER and as PEM. An input
//! that begins with 0 is what stands in the list after its issuer, and is signed.
#![no_main]

#[path = "../shared/authority.rs"]
mod authority;

use std::sync::LazyLock;

use authority::{Authority, ECDSA, tlv};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleetmark::pki::foreign::crl::{Unusable, read};
use fleetmark_domain::Timestamp;
use libfuzzer_sys::fuzz_target;
use rustls_pki_types::CertificateDer;

static CA: LazyLock<Authority> = LazyLock::new(Authority::new);
const URL: &str = "http://a.example/l.crl";
const NOW: Timestamp = Timestamp(1_800_000_000);

fuzz_target!(|input: &[u8]| {
    let authorities = [CertificateDer::from(CA.certificate.as_slice())];
    match input {
        [0, rest @ ..] => {
            let list = CA.signed(&tlv(0x30, &[&[2, 1, 1], &ECDSA, &CA.name, rest]), &[]);
            let Ok(found) = read(&list, &authorities, URL, NOW) else { return };
            assert_eq!(found.der, list);
            assert!(found.follows(&found.number, found.this_update).is_ok());
            let pem = format!("-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n", STANDARD.encode(&list));
            assert_eq!(read(pem.as_bytes(), &authorities, URL, NOW).as_ref(), Ok(&found));
            assert_eq!(read(&[&list[..], &[0]].concat(), &authorities, URL, NOW), Err(Unusable::NoList));
            assert!(read(&list, &[], URL, NOW).is_err());
        }
        octets => assert!(read(octets, &authorities, URL, NOW).is_err(), "nobody signed it"),
    }
});
