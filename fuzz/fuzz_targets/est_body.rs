//! Bodies of EST (RFC 8951 3): the same octets as DER, on one line, wrapped with LF or CRLF, without padding and in PEM get the
//! same answer.
#![no_main]

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use fleetmark::pki::csr::VerifiedCsr;
use libfuzzer_sys::fuzz_target;

fn answer(body: &[u8]) -> Result<Vec<u8>, &'static str> {
    VerifiedCsr::from_body(body).map(|csr| csr.spki().to_vec()).map_err(|refusal| refusal.code())
}

fuzz_target!(|input: (u8, &[u8])| {
    let (width, octets) = input;
    let _ = answer(octets);
    // The longest request: beyond it the forms are refused by different limits.
    if octets.len() > 16 * 1024 {
        return;
    }
    let mut der = vec![0x30];
    der.extend(octets.iter().skip(1));
    let expected = answer(&der);
    let line = STANDARD.encode(&der);
    let wrapped = |end: &str| {
        let lines = line.as_bytes().chunks(usize::from(width).max(16));
        lines.map(|line| format!("{}{end}", String::from_utf8_lossy(line))).collect::<String>()
    };
    let pem = format!("-----BEGIN CERTIFICATE REQUEST-----\n{}-----END CERTIFICATE REQUEST-----\n", wrapped("\n"));
    for form in [line.clone(), wrapped("\n"), wrapped("\r\n"), STANDARD_NO_PAD.encode(&der), pem] {
        assert_eq!(answer(form.as_bytes()), expected);
    }
});
