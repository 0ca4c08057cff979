//! The value of `Authorization`, by the schemes Basic and Bearer: no octets make the readers panic, and neither shows a secret.
#![no_main]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleetmark::http::device::proof::{Basic, Bearer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|value: &[u8]| {
    let _ = Bearer::parse(value);
    let _ = Basic::parse(value);
    // And as a client writes it, since no fuzzer writes base64.
    let written = format!("Basic {}", STANDARD.encode(value));
    let Ok(basic) = Basic::parse(written.as_bytes()) else { return };
    let text = std::str::from_utf8(value).expect("an accepted pair is text");
    let (user, password) = text.split_once(':').expect("an accepted pair has a colon");
    assert_eq!(basic.name.as_ref().map_or("", |name| name.as_str()), user);
    let secret = password.splitn(3, '_').nth(2).expect("an accepted token has three parts");
    if secret.len() > 20 {
        assert!(!format!("{:?}", basic.token).contains(secret), "a secret is shown");
    }
    assert_eq!(Bearer::parse(format!("bearer {password}").as_bytes()).is_ok(), password.is_ascii());
});
