//! A question to the verdict endpoint, and a certificate in it.
#![no_main]

use fleetmark_gateway::endpoint::verdict::Question;
use fleetmark_gateway::judge::Presented;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    if let Ok(question) = serde_json::from_slice::<Question>(octets) {
        let text = serde_json::to_vec(&question).expect("it was read");
        assert!(serde_json::from_slice::<Question>(&text).is_ok());
    }
    // Never more than a refusal.
    let _ = Presented::parse(octets);
});
