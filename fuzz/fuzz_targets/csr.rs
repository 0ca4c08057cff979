//! Certificate requests. No octets make the reader panic, and a request that is accepted is accepted again in every form that
//! clients send. An input that begins with 0 is not the request but its attributes: the target signs a request around them, since
//! no fuzzer finds a signature.
#![no_main]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleetmark::pki::asked::RequestRules;
use fleetmark::pki::csr::VerifiedCsr;
use libfuzzer_sys::fuzz_target;
use ring::signature::{Ed25519KeyPair, KeyPair};

fuzz_target!(|input: &[u8]| match input {
    [0, attributes @ ..] if attributes.len() < 16_000 => {
        let attributes = tlv(0xa0, &[attributes]);
        accepted(&signed(&attributes));
    }
    body => accepted(body),
});

fn accepted(body: &[u8]) {
    let Ok(csr) = VerifiedCsr::from_body(body) else { return };
    let open = csr.asked().check(&RequestRules::default());
    let strict = csr.asked().check(&RequestRules { strict: true, ..RequestRules::default() });
    assert!(open.is_ok() || strict.is_err(), "strict rules allow what the others refuse");
    if let Some(password) = &csr.asked().challenge_password {
        let shown = format!("{:?}", csr.asked());
        assert!(shown.contains("ChallengePassword(..)"), "{} is shown", password.expose());
    }
    if body.first() != Some(&0x30) {
        return;
    }
    let line = STANDARD.encode(body);
    let pem = format!("-----BEGIN CERTIFICATE REQUEST-----\r\n{line}\r\n-----END CERTIFICATE REQUEST-----\r\n");
    for form in [line, pem] {
        let again = VerifiedCsr::from_body(form.as_bytes()).expect("the same request in another form");
        assert_eq!((again.key_hash(), again.asked()), (csr.key_hash(), csr.asked()));
    }
}

/// A request by a key of our own, with these attributes.
fn signed(attributes: &[u8]) -> Vec<u8> {
    const ED25519: [u8; 7] = [0x30, 5, 6, 3, 0x2b, 0x65, 0x70];
    let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("32 octets are a seed");
    let public = tlv(0x30, &[&ED25519, &tlv(3, &[&[0], key.public_key().as_ref()])]);
    let info = tlv(0x30, &[&[2, 1, 0], &[0x30, 0], &public, attributes]);
    let signature = tlv(3, &[&[0], key.sign(&info).as_ref()]);
    tlv(0x30, &[&info, &ED25519, &signature])
}

/// Tag, length (X.690 10.1), and the parts one after the other.
fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = vec![tag];
    match content.len() {
        short @ 0..=127 => out.push(short as u8),
        medium @ 128..=255 => out.extend([0x81, medium as u8]),
        long => out.extend([0x82, (long >> 8) as u8, long as u8]),
    }
    out.extend(content);
    out
}
