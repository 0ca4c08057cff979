//! A snapshot: what is read is what would have been written, and a hostile one takes no memory out of proportion.
#![no_main]

use fleetmark_ledger::note::VerifierKey;
use fleetmark_ledger::snapshot;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let key = VerifierKey { name: "fleet.test/ledger/default".to_owned(), key: [7; 32] };
    let limit = u64::try_from(octets.len()).expect("a length");
    let Ok((state, hash)) = snapshot::read(key, &mut &*octets, limit) else { return };
    let mut again = Vec::new();
    assert_eq!(snapshot::write(&state, &mut again).expect("memory takes it"), hash);
    assert_eq!(again, octets);
});
