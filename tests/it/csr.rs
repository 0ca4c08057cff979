//! Certificate requests and bodies that are wrong, through the real door, each by name and counted.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::harness::openssl::{openssl, pem};
use crate::harness::{Key, Server, run, shared};

/// The PEM block among openssl's words.
fn request_in(output: &str) -> String {
    const END: &str = "-----END CERTIFICATE REQUEST-----";
    let from = output.find("-----BEGIN").unwrap();
    let to = output.find(END).unwrap() + END.len();
    output[from..to].to_owned()
}

const EC: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

/// A request by openssl, in PEM.
fn request(arguments: &[&str]) -> String {
    let all = [&["req", "-new", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=a"], arguments].concat();
    let (made, output) = openssl(&all, b"");
    assert!(made, "{output}");
    request_in(&output)
}

#[test]
fn each_fault_of_a_request_has_its_name_and_is_counted() {
    let server = shared();
    let rsa_1024 = request(&["-newkey", "rsa:1024"]);
    let rsa_exponent = request(&["-newkey", "rsa:2048", "-pkeyopt", "rsa_keygen_pubexp:3"]);
    let rsa_2048 = request(&["-newkey", "rsa:2048"]);
    let sha1 = request(&[&EC[..], &["-sha1"]].concat());
    let authority = request(&[&EC[..], &["-addext", "basicConstraints=CA:true"]].concat());
    let for_servers = request(&[&EC[..], &["-addext", "extendedKeyUsage=serverAuth"]].concat());
    let good = Key::new().csr_der();
    let trailing = [good.clone(), vec![0]].concat();
    let mut unproven = good.clone();
    let last = unproven.len() - 1;
    unproven[last] ^= 1;
    // An octet of x.
    let mut off_the_curve = good.clone();
    let point = good.windows(4).position(|octets| octets == [0x03, 0x42, 0x00, 0x04]).unwrap();
    off_the_curve[point + 10] ^= 1;
    let huge = vec![0x30; 17 * 1024];
    let cases = [
        (json!({"csr": ""}), 400, "csr_malformed"),
        (json!({"csr": "hello"}), 400, "csr_malformed"),
        (json!({"csr": pem("CERTIFICATE REQUEST", &good[..40])}), 400, "csr_malformed"),
        (json!({"csr": pem("CERTIFICATE REQUEST", &huge)}), 413, "csr_too_large"),
        (json!({"csr": STANDARD.encode(&huge)}), 413, "csr_too_large"),
        (json!({"csr": "A".repeat(40 * 1024)}), 413, "csr_too_large"),
        (json!({"csr": pem("CERTIFICATE REQUEST", &trailing)}), 400, "csr_trailing_octets"),
        (json!({"csr": STANDARD.encode(&trailing)}), 400, "csr_trailing_octets"),
        (json!({"csr": pem("CERTIFICATE REQUEST", &unproven)}), 422, "csr_bad_signature"),
        (json!({"csr": rsa_1024}), 422, "rsa_too_short"),
        (json!({"csr": rsa_exponent}), 422, "rsa_exponent_not_allowed"),
        (json!({"csr": STANDARD.encode(&off_the_curve)}), 422, "point_not_on_curve"),
        (json!({"csr": authority}), 422, "csr_extension_not_allowed"),
        (json!({"csr": for_servers}), 422, "csr_extension_not_allowed"),
        (json!({"csr": rsa_2048}), 422, "key_type_not_allowed"),
        (json!({"csr": sha1}), 422, "csr_digest_weak"),
        (json!({}), 400, "malformed_request"),
        (json!({"csr": 1}), 400, "malformed_request"),
        (json!({"csr": Key::new().csr(), "admin": true}), 400, "malformed_request"),
        (json!([]), 400, "malformed_request"),
    ];
    run(async {
        let fleet = server.fleet(json!({})).await;
        let token = server.token(&fleet, "a").await;
        let authorization = format!("Bearer {token}");
        let client = server.device_client(None);
        let path = format!("/v1/fleets/{fleet}/enroll");
        for (body, status, code) in cases {
            let counted = server.refused(code).await;
            client.post_with(&path, &[("authorization", &authorization)], &body).await.refused(status, code);
            assert!(server.refused(code).await > counted, "{code} is not counted");
        }
        // Nothing of this touched the token.
        let body = json!({"csr": Key::new().csr()});
        client.post_with(&path, &[("authorization", &authorization)], &body).await.is(200);
    });
}

#[test]
fn bodies_of_a_wrong_type_or_size_and_wrong_methods_are_refused_by_name() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let token = server.token(&fleet, "a").await;
        let bearer = format!("Bearer {token}");
        let client = server.device_client(None);
        let path = format!("/v1/fleets/{fleet}/enroll");
        let body = json!({"csr": Key::new().csr()}).to_string().into_bytes();

        let authorized = [("authorization", bearer.as_str())];
        client.send("POST", &path, &authorized, Some(body.clone())).await.refused(415, "media_type_not_supported");
        for media_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx"] {
            let headers = [authorized[0], ("content-type", media_type)];
            client.send("POST", &path, &headers, Some(body.clone())).await.refused(415, "media_type_not_supported");
        }
        let json_type = [authorized[0], ("content-type", "application/json")];
        let huge = format!("{{\"csr\": \"{}\"}}", "A".repeat(70 * 1024)).into_bytes();
        client.send("POST", &path, &json_type, Some(huge)).await.refused(413, "body_too_large");
        client.send("POST", &path, &json_type, Some(b"{".to_vec())).await.refused(400, "malformed_request");
        client.send("POST", &path, &json_type, Some(vec![0xff; 10])).await.refused(400, "malformed_request");
        let deep = format!("{{\"csr\": {}{}}}", "[".repeat(20_000), "]".repeat(20_000)).into_bytes();
        client.send("POST", &path, &json_type, Some(deep)).await.refused(400, "malformed_request");
        let long = format!("/v1/fleets/{}/enroll", "a".repeat(3_000));
        client.send("POST", &long, &json_type, Some(body.clone())).await.refused(414, "uri_too_long");

        let fleet_path = |act: &str| format!("/v1/fleets/{fleet}/{act}");
        let posts = [
            fleet_path("enroll"),
            fleet_path("renew"),
            fleet_path("confirm"),
            "/v1/enroll".into(),
            "/v1/renew".into(),
            "/v1/confirm".into(),
        ];
        for path in &posts {
            for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
                let answer = client.send(method, path, &[], None).await.refused(405, "method_not_allowed");
                assert_eq!(answer.header("allow"), "POST", "{method} {path}");
            }
        }
        client.send("POST", "/v1/time", &[], None).await.refused(405, "method_not_allowed");
        client.get("/v1/nothing").await.refused(404, "not_found");
        client.get("/metrics").await.refused(404, "not_found");
        client.send("POST", &path, &json_type, Some(body)).await.is(200);
    });
}

#[test]
fn est_refuses_the_same_faults_by_the_same_names() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let token = server.token(&fleet, "est-1").await;
        let basic = format!("Basic {}", STANDARD.encode(format!("est-1:{token}")));
        let client = server.device_client(None);
        let path = format!("/.well-known/est/{fleet}/simpleenroll");
        let good = Key::new();
        let der = good.csr_der();
        let headers = [("authorization", basic.as_str()), ("content-type", "application/pkcs10")];
        let trailing = STANDARD.encode([der.clone(), vec![0]].concat());
        for (body, status, code) in [
            (b"???".to_vec(), 400, "csr_malformed"),
            (STANDARD.encode(&der[..50]).into_bytes(), 400, "csr_malformed"),
            (trailing.into_bytes(), 400, "csr_trailing_octets"),
            (vec![b'A'; 40 * 1024], 413, "body_too_large"),
        ] {
            let answer = client.send("POST", &path, &headers, Some(body)).await.is(status);
            assert!(answer.text().starts_with(&format!("{code}: ")), "{}", answer.text());
            assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
            assert_eq!(answer.text().lines().count(), 1);
        }
        let encoded = STANDARD.encode(&der).into_bytes();
        let answer = client.send("POST", &path, &[headers[1]], Some(encoded.clone())).await.is(401);
        assert_eq!(answer.header("www-authenticate"), "Basic realm=\"fleetmark\"");
        let answer = client.send("POST", &path, &[headers[0]], Some(encoded.clone())).await.is(415);
        assert!(answer.text().starts_with("media_type_not_supported: "), "{}", answer.text());
        let again = client.send("POST", &path, &headers, Some(encoded.clone())).await.is(200);
        assert_eq!(again.header("content-type"), "application/pkcs7-mime; smime-type=certs-only");
        let replay = client.send("POST", &path, &headers, Some(encoded)).await.is(200);
        assert_eq!(again.body, replay.body, "the same key gets the same answer");
        // A stranger reads it.
        let der = STANDARD.decode(&again.body).unwrap();
        let (read, printed) = openssl(&["pkcs7", "-inform", "DER", "-print_certs", "-noout"], &der);
        assert!(read && printed.contains("est-1"), "{printed}");
    });
}

/// Profiles and lists of one's own: what a strict profile leaves out is refused, and a listed key.
#[test]
fn strict_profiles_and_listed_keys_refuse_by_name() {
    let mut server = Server::start(&[]);
    assert_eq!(server.stop(), Some(0), "{}", server.log());
    // A key that is on the list, and one that is not.
    let (made, listed) = openssl(&["genpkey", "-algorithm", "RSA"], b"");
    assert!(made, "{listed}");
    let key = server.write_scratch("listed.pem", &listed.as_bytes()[listed.find("-----BEGIN").unwrap()..]);
    let (_, modulus) = openssl(&["rsa", "-noout", "-modulus", "-in", key.to_str().unwrap()], b"");
    let (_, hash) = openssl(&["dgst", "-sha1", "-r"], modulus.as_bytes());
    let list = format!("# as openssl-vulnkey(1) says\n{}\n", &hash[20..40]);
    let data = server.data();
    let legacy = concat!(env!("CARGO_MANIFEST_DIR"), "/certs/profiles/device-legacy.toml");
    let strict = std::fs::read_to_string(legacy).unwrap()
        + "\n[request]\nstrict = true\nattributes = [\"challenge-password\"]\nextensions = [\"subject-alt-name\"]\n";
    for (path, text) in [("lists/blacklist.RSA-2048", list.as_str()), ("profiles/strict.toml", &strict)] {
        std::fs::create_dir_all(data.join(path).parent().unwrap()).unwrap();
        std::fs::write(data.join(path), text).unwrap();
    }
    std::fs::write(data.join("fleetmark.toml"), "profiles = \"profiles\"\n[keys]\nweak_lists = \"lists\"\n").unwrap();
    server.start_again();

    let of_listed = ["-key", key.to_str().unwrap()];
    let (made, on_list) = openssl(&[&["req", "-new", "-subj", "/CN=a"], &of_listed[..]].concat(), b"");
    assert!(made, "{on_list}");
    let names = "subjectAltName=URI:spiffe://fleet.test/device/x/a";
    let cases = [
        (request_in(&on_list), Some("key_debian_weak")),
        (request(&[&EC[..], &["-addext", "keyUsage=digitalSignature"]].concat()), Some("csr_extension_not_allowed")),
        (request(&[&EC[..], &["-addext", "basicConstraints=CA:true"]].concat()), Some("csr_extension_not_allowed")),
        (request(&[&EC[..], &["-addext", names]].concat()), None),
        (request(&["-newkey", "rsa:2048"]), None),
    ];
    run(async {
        let fleet = server.fleet(json!({"profile": "strict"})).await;
        let client = server.device_client(None);
        for (number, (csr, refused)) in cases.into_iter().enumerate() {
            let authorization = format!("Bearer {}", server.open_token(&fleet).await);
            let name = format!("device-{number}");
            let path = format!("/v1/fleets/{fleet}/enroll");
            let answer =
                client.post_with(&path, &[("authorization", &authorization)], &json!({"csr": csr, "device": name})).await;
            match refused {
                Some(code) => drop(answer.refused(422, code)),
                None => drop(answer.is(200)),
            }
        }
    });
}
