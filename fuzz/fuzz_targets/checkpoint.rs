//! A signed note: nothing is opened that the pinned key did not sign, and nobody here has that key.
#![no_main]

use fleetmark_ledger::note::VerifierKey;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let key = VerifierKey { name: "fleet.test/ledger/default".to_owned(), key: [7; 32] };
    assert!(key.open(text).is_err());
    if let Ok(key) = VerifierKey::from_vkey(text) {
        assert_eq!(VerifierKey::from_vkey(&key.to_vkey()), Ok(key));
    }
});
