//! Statements of standing under a signature that holds: no octets make the reader fall, and what it reads is what was signed.
#![no_main]

use fleetmark_status::Verify;
use fleetmark_status::header::SIGNATURE_LENGTH;
use fleetmark_status::statement::{REQUEST_LENGTH, Statement};
use libfuzzer_sys::fuzz_target;

struct Anybody([u8; 8]);

impl Verify for Anybody {
    fn key_id(&self) -> [u8; 8] {
        self.0
    }

    fn verify(&self, _: &[u8], _: &[u8; SIGNATURE_LENGTH]) -> bool {
        true
    }
}

fuzz_target!(|data: &[u8]| {
    let key = Anybody(data.get(4..12).and_then(|id| id.try_into().ok()).unwrap_or([0; 8]));
    let request: [u8; REQUEST_LENGTH] = data.get(12..61).and_then(|asked| asked.try_into().ok()).unwrap_or([0; REQUEST_LENGTH]);
    let Ok(statement) = Statement::open(data, &request, &key) else { return };
    let mut signed = statement.signed_octets();
    // An action that this reader does not know is to stop.
    signed[62] = data[62];
    assert_eq!(signed, data[..80]);
    assert!(statement.action.code() == data[62] || statement.action.name() == "stop");
    let mut other = request;
    other[0] ^= 1;
    assert!(Statement::open(data, &other, &key).is_err(), "an answer to another question");
    assert!(Statement::open(data, &request, &Anybody([!key.0[0]; 8])).is_err() || key.0 == [!key.0[0]; 8]);
});
