//! Where keys live, as labels say it.

use super::*;

#[test]
fn a_label_says_where_its_key_is() {
    let directory = tempfile::tempdir().unwrap();
    let keys = Keys::open(directory.path(), "passphrase".to_owned().into()).unwrap();
    let in_token = Keys::label(Home::Token, "root-0a");
    assert_eq!((Keys::home(&in_token), Keys::home("root-0a")), (Home::Token, Home::Files));
    let missing = |outcome: Result<Arc<dyn Signer>, PkiError>| {
        assert!(matches!(outcome, Err(PkiError::Token(TokenError::NotConfigured(label))) if label == in_token));
    };
    missing(keys.load(&in_token));
    missing(keys.create(&in_token, KeyAlgorithm::P256));
    assert!(matches!(keys.load_pkcs8(&in_token), Err(PkiError::Token(TokenError::NotExportable(_)))));
    assert!(!keys.contains(&in_token) && keys.file(&in_token).is_none());
    keys.remove(&in_token).unwrap();

    keys.create("root-0a", KeyAlgorithm::P384).unwrap();
    assert!(keys.contains("root-0a") && !keys.contains(&in_token));
    assert!(keys.file("root-0a").is_some_and(|path| path.exists()));
    assert_eq!(keys.load("root-0a").unwrap().algorithm(), KeyAlgorithm::P384);
    keys.remove("root-0a").unwrap();
    assert!(!keys.contains("root-0a"));
    for name in ["", "A", "a/b", "pkcs11:", "pkcs11:A"] {
        assert!(keys.create(name, KeyAlgorithm::P256).is_err(), "{name}");
    }
}
