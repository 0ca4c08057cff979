//! An entry bundle, and every entry in it: what is read is what would have been written.
#![no_main]

use fleetmark_gateway::follow::bundle;
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::Entry;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (count, octets) = input;
    let Ok(entries) = bundle::parse(octets, usize::from(count)) else { return };
    assert_eq!(entries.len(), usize::from(count));
    for octets in entries {
        if let Ok(entry) = Entry::decode(octets) {
            assert_eq!(entry.encode().expect("it was read"), octets);
        }
        if let Ok(details) = Details::decode(octets) {
            assert_eq!(details.encode(), octets);
        }
    }
});
