//! The files of the root's ceremony: no octets make the readers fall; what is read is written again as it was, so that digests are of one
//! text; and no answer counts that its root did not sign. The first octet says which file it is.
#![no_main]

#[path = "../shared/authority.rs"]
mod authority;

use std::sync::LazyLock;

use authority::Authority;
use fleetmark::ceremony::answer::RootAnswer;
use fleetmark::ceremony::record::Record;
use fleetmark::ceremony::request::RootRequest;
use fleetmark::pki::{detached, request};
use libfuzzer_sys::fuzz_target;

static CA: LazyLock<Authority> = LazyLock::new(Authority::new);

fuzz_target!(|input: &[u8]| {
    let Some((kind, octets)) = input.split_first() else { return };
    match kind {
        b'r' => {
            let Ok(asked) = RootRequest::read(octets) else { return };
            let file = asked.file();
            let again = RootRequest::read(&file).expect("what was written");
            assert_eq!((&again, again.digest()), (&asked, asked.digest()));
            for item in &asked.authorities {
                let _ = (item.csr(), item.title());
            }
            let _ = asked.revoke.iter().map(|line| line.serial()).collect::<Vec<_>>();
        }
        b'a' => {
            let Ok(answer) = RootAnswer::read(octets) else { return };
            assert_eq!(RootAnswer::read(&answer.file()).expect("what was written"), answer);
            assert!(answer.verified().is_err(), "no root signed it");
            // With a root whose certificate can be read.
            let answer = RootAnswer { root: fleetmark::pki::bundle::pem(&[&CA.certificate]), ..answer };
            assert!(answer.verified().is_err(), "no root signed it");
        }
        b't' => {
            let Ok(text) = std::str::from_utf8(octets) else { return };
            if let Ok(record) = Record::parse(text) {
                assert_eq!(record.text(), text);
            }
        }
        b's' => assert!(detached::verify(&CA.certificate, b"number: 1\n", octets).is_err(), "nobody signed it"),
        _ => {
            let _ = request::lists(octets).map(|lists| {
                lists
                    .iter()
                    .for_each(|list| assert!(request::verified_list(list, &CA.certificate).is_err(), "nobody signed it"));
            });
        }
    }
});
