//! Answers to the server's questions, and what a TPM writes of its keys: no octets may make the parsers fall, and no nonce but the server's own
//! may pass.
#![no_main]

use fleetmark::pki::tpm::{CertifiableKey, EndorsementKey};
use fleetmark::registrar::challenge::{About, By, Nonce};
use fleetmark_domain::{KeyHash, Timestamp};
use libfuzzer_sys::fuzz_target;
use ring::hmac;

fuzz_target!(|data: &[u8]| {
    let (fleet, device, group) = ("a".parse().unwrap(), "d".parse().unwrap(), "g".parse().unwrap());
    let questions = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
    for by in [By::DerivedKey(&group), By::Tpm([9; 32])] {
        let about = About { fleet: &fleet, device: &device, key: KeyHash([1; 32]), by };
        let own = Nonce::new(&questions, &about, [3; 16], Timestamp(1_000)).text();
        if let Ok(text) = std::str::from_utf8(data)
            && let Ok(nonce) = Nonce::parse(text)
        {
            assert_eq!(nonce.text(), text, "a nonce has two texts");
            assert!(nonce.check(&questions, &about, Timestamp(0)).is_err() || text == own);
        }
    }
    if let Ok(key) = EndorsementKey::from_tpm(data) {
        assert_eq!(EndorsementKey::from_spki(key.spki()), Ok(key));
    }
    let _ = EndorsementKey::from_spki(data);
    if let Ok(key) = CertifiableKey::from_tpm(data) {
        assert!(key.name().len() > 2 && !key.spki().is_empty());
    }
});
