//! Odd keys, in requests made by hand and by openssl.

use num_bigint::BigUint;
use proptest::prelude::*;

use super::lists::WeakLists;
use super::rsa::RsaNumbers;
use super::*;
use crate::pki::csr::VerifiedCsr;
use crate::pki::encoding::{BIT_STRING, SEQUENCE, sha256, tlv};
use crate::pki::testing::openssl;

/// Of 2048 bits, from the tests of badkeys 0.0.21 (tests/data/rsa-roca.key).
const ROCA_2048: &str = "\
    9132ad211fcc0dfb4dae48326ac864c227e4b394b09bd1c4930e197028a3c907694d2b489e4f69754aeae338c6ead939c57f406985cbbb8edf9a\
    2055cc2946bc05d365ba67e896c6d4811152cfa2d290514f90b352eeef27feb72fbd8dcd5bc915a4f4494139cc1ca10a3244fa97e53275f57b55\
    29b4e767379007798e112a4ba056c7b75cedb132cdf21f7bd3c9976d9da38815153477a13b3ebb2046d100a851dc00698f530d19396f00fbef2c\
    4bf1659ebc4c7fd9556b5ffc93f03ca2d3dfacd222a5f028ab430a27ea31136c0c2f50c3c481931a635a37780f00d2727ae71aee9b40f8d1aae6\
    8535c77a56317812beb5525d4a28364f31224acac52cf72d";
/// Of 2049 bits, from the tests of roca-detect 1.2.12 by the paper's authors (tests/data/csr05.pem).
const ROCA_2049: &str = "\
    01a9c5a687db8fb2a30f82dff8dda154c291ef27b04b25e185b8ab20c4c6a5f604859fe59ede54a0af7c0e7288800ad7193bb731a5bf1e1170d7\
    a1c66930d41ea3eb21dedf7b8af5d42a91c34f72045b96efd57cb182301ddcc26967e5508e9ab889986d57e837dfe70f99fc37c498f43c17c3b9\
    b064cf704443d7a033e03a821697aabf30fb29ee7d33b3767965a89058e3b39754bd3a1c007d28a23b0cfa79f9d711ac6e4c4b4f77b0634b1ecd\
    68591af03c7d53b62a5f2d91163d4ef4f8f26831ae461ed85ec5f788c5123ffc12c87420fdcfea1d1b4a52c3521824fb3998348739b62a986d8e\
    76b2289bc2eb8bc06d138147851b83a07183d210559f906321";
/// Of 1023 bits, from the same tests: a power of 65537 modulo each small prime, and not modulo their product.
const FAKE_ROCA: &str = "\
    0192d12483b34dafb04e50438afa90a56495e287d46982279078af1f47c0cfa23aff0221e9559896c7c2a8ca40d5477fb1850d468a13d6aaf545\
    99e8c6e1e8a8cb562425c9d26411f1d2831f72f3c400ce4e55d42819eec7e91365d85cd7c5cf740df0e9c39b3ab4bcaad07c9c72144735cf363d\
    a9f1aed5a961a7271f3209b37d9d";
/// Made on a system with CVE-2008-0166, from the tests of badkeys 0.0.21 (tests/data/rsa-debianweak.key).
const DEBIAN: &str = "\
    c096530c4c4a343fc388ff8b6e14c88b617485966dd0f757f3decb2f03dfdfe6f518e0948f5387059bd5aa124f26d38f139dd6ebc23436056168\
    9758e9b14e03f714508167374cbf64e24e26c3cd95ed5a5d04e3c404be157bb8090e9ada9cdc53ef7e806c1e77b5f10242150a24e9adf991088d\
    af20a75beb54bc91fe43dd8755447fd3abdefb9f1c987a8b0419824504e213f8dd26a9c6b7ed2f2103d8422720f7a7400ce34743e4ce40440c69\
    013efea2a39790fcdfccbb424da1d824adfe58071ed76d41af836e4093ea60f5719e250fa214f8631153a81eefc17d82e3f819da57691ed96025\
    50074fdea73ac9e5cfe10f6b91adc31b402c3e370b03a559";
/// A prime of 1024 bits; the next but some is 120 above it.
const PRIME: &str = "\
    f4fd242eb03aeb6b39ee8e1330a1f47a36743a8ac7619419d0014aa4ee35bcdd56de043bb8f046443ac3a717d1acdee4144002740e142bb7d376\
    2a5324ec043d74fd242eb03aeb6b39ee8e1330a1f47a36743a8ac7619419d0014aa4ee35bcdd56de043bb8f046443ac3a717d1acdee414400274\
    0e142bb7d3762a5324ec0b21";
const DISTANCE: u32 = 120;

const RSA: &[u8] = &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
const SHA1_WITH_RSA: &[u8] = &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05, 0x05, 0x00];
const SHA256_WITH_RSA: &[u8] = &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00];

fn octets(digits: &str) -> Vec<u8> {
    hex::decode(digits).unwrap()
}

fn integer(number: &[u8]) -> Vec<u8> {
    tlv(2, &[&[0][..number.first().map_or(1, |first| usize::from(*first >= 0x80))], number])
}

fn rsa_key(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    tlv(SEQUENCE, &[&integer(modulus), &integer(exponent)])
}

/// A request by this RSA key; `sign` makes the signature over its octets.
fn request(key: &[u8], algorithm: &[u8], sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let spki = tlv(SEQUENCE, &[RSA, &tlv(BIT_STRING, &[&[0], key])]);
    let info = tlv(SEQUENCE, &[&[2, 1, 0], &[0x30, 0], &spki, &[0xa0, 0]]);
    tlv(SEQUENCE, &[&info, algorithm, &tlv(BIT_STRING, &[&[0], &sign(&info)])])
}

fn unsigned(modulus: &[u8], exponent: &[u8], algorithm: &[u8]) -> Option<Refusal> {
    refusal(&request(&rsa_key(modulus, exponent), algorithm, |_| vec![0x55; 256]))
}

fn refusal(der: &[u8]) -> Option<Refusal> {
    VerifiedCsr::from_der(der).err()
}

/// RFC 8017 8.2.1, with SHA-256.
fn sign(info: &[u8], modulus: &BigUint, private: &BigUint) -> Vec<u8> {
    const DIGEST_INFO: [u8; 19] = [0x30, 0x31, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20];
    let padding = vec![0xff; 256 - 3 - 19 - 32];
    let padded = [&[0, 1], padding.as_slice(), &[0], &DIGEST_INFO, &sha256(info)].concat();
    let signature = BigUint::from_bytes_be(&padded).modpow(private, modulus).to_bytes_be();
    [vec![0; 256 - signature.len()], signature].concat()
}

#[test]
fn keys_of_the_faulty_chip_are_told_by_their_modulus() {
    for modulus in [ROCA_2048, ROCA_2049] {
        assert_eq!(unsigned(&octets(modulus), &[1, 0, 1], SHA256_WITH_RSA), Some(Refusal::KeyRoca));
    }
    let is_marked = |modulus: &[u8]| roca::is_marked(&RsaNumbers::read(&rsa_key(modulus, &[1, 0, 1])).unwrap());
    // Each residue alone is one that the chip makes.
    assert!(!is_marked(&octets(FAKE_ROCA)));
    // A neighbour is none of the chip's.
    for bit in 1..64_u32 {
        let other = BigUint::from_bytes_be(&octets(ROCA_2048)) ^ (BigUint::from(1_u32) << bit);
        assert!(!is_marked(&other.to_bytes_be()), "{bit}");
    }
}

#[test]
fn ordinary_rsa_keys_of_openssl_pass() {
    let key = |bits: &str| {
        openssl(&["req", "-new", "-nodes", "-newkey", bits, "-keyout", "/dev/null", "-subj", "/", "-outform", "DER"], b"")
    };
    for bits in ["rsa:2048", "rsa:2048", "rsa:2048", "rsa:2049", "rsa:3072", "rsa:4096"] {
        assert_eq!(refusal(&key(bits).unwrap()), None, "{bits}");
    }
    assert_eq!(refusal(&key("rsa:2047").unwrap()), Some(Refusal::RsaTooShort));
    assert_eq!(refusal(&key("rsa:4104").unwrap()), Some(Refusal::RsaTooLong));
}

#[test]
fn exponents_are_bounded() {
    let modulus = octets(DEBIAN);
    for (exponent, expected) in [
        (&[1][..], Refusal::RsaExponentNotAllowed),
        (&[3], Refusal::RsaExponentNotAllowed),
        (&[0xff, 0xff], Refusal::RsaExponentNotAllowed),
        (&[1, 0, 0], Refusal::RsaExponentNotAllowed),
        (&[1, 0, 1], Refusal::CsrBadSignature),
        (&[1, 0, 2], Refusal::RsaExponentNotAllowed),
        (&[1, 0xff, 0xff, 0xff, 0xff], Refusal::CsrBadSignature),
        (&[2, 0, 0, 0, 1], Refusal::RsaExponentNotAllowed),
        (&[1, 0, 0, 0, 0, 0, 0, 0, 1], Refusal::RsaExponentNotAllowed),
    ] {
        assert_eq!(unsigned(&modulus, exponent, SHA256_WITH_RSA), Some(expected), "{exponent:?}");
    }
}

#[test]
fn small_factors_are_found() {
    let large = BigUint::from_bytes_be(&octets(ROCA_2048));
    for factor in (2_u32..752).filter(|n| (2..*n).all(|d| n % d != 0)) {
        let modulus = (&large * factor).to_bytes_be();
        assert_eq!(unsigned(&modulus, &[1, 0, 1], SHA256_WITH_RSA), Some(Refusal::RsaFactorable), "{factor}");
    }
}

/// What is cheap to see is told before what is dear, whatever else is wrong: each request has all the faults that stand below its
/// own.
#[test]
fn the_cheapest_fault_is_the_one_that_is_told() {
    let (roca, short) = (octets(ROCA_2048), octets(&ROCA_2048[..254]));
    let key = rsa_key(&short, &[3]);
    let bad = |_: &[u8]| vec![0; 256];
    let trailing = [request(&key, SHA1_WITH_RSA, bad), vec![0]].concat();
    let large = [trailing.clone(), vec![0; 16 * 1024]].concat();
    for (der, expected) in [
        (large, Refusal::CsrTooLarge),
        (trailing, Refusal::CsrTrailingOctets),
        (request(&key, SHA1_WITH_RSA, bad), Refusal::RsaTooShort),
        (request(&rsa_key(&roca, &[3]), SHA1_WITH_RSA, bad), Refusal::RsaExponentNotAllowed),
        (request(&rsa_key(&roca, &[1, 0, 1]), SHA1_WITH_RSA, bad), Refusal::CsrDigestWeak),
        (request(&rsa_key(&roca, &[1, 0, 1]), SHA256_WITH_RSA, bad), Refusal::KeyRoca),
    ] {
        assert_eq!(refusal(&der), Some(expected));
    }

    // Two close factors are looked for only behind a good signature.
    let p = BigUint::from_bytes_be(&octets(PRIME));
    let q = &p + DISTANCE;
    let (modulus, order) = (&p * &q, (&p - 1_u32) * (&q - 1_u32));
    let private = BigUint::from(65_537_u32).modinv(&order).unwrap();
    let key = rsa_key(&modulus.to_bytes_be(), &[1, 0, 1]);
    assert_eq!(refusal(&request(&key, SHA256_WITH_RSA, bad)), Some(Refusal::CsrBadSignature));
    let good = request(&key, SHA256_WITH_RSA, |info| sign(info, &modulus, &private));
    assert_eq!(refusal(&good), Some(Refusal::RsaFactorable));
    let judged = openssl(&["req", "-inform", "DER", "-verify", "-noout"], &good);
    assert!(judged.is_ok(), "{judged:?}");
}

#[test]
fn keys_on_a_list_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("blacklist.RSA-2048");
    let key = openssl(&["genpkey", "-algorithm", "RSA", "-outform", "PEM"], b"").unwrap();
    let modulus = openssl(&["rsa", "-noout", "-modulus"], &key).unwrap();
    let hash = openssl(&["dgst", "-sha1", "-r"], &modulus).unwrap();
    let tail = std::str::from_utf8(&hash[20..40]).unwrap();
    // The last line is the fingerprint of DEBIAN, as openssl-vulnkey computes it.
    std::fs::write(&path, format!("# a comment\n\n{tail}\n00005890bc78bcbee3ca\nb7ead9492dfd921fc4f9\n")).unwrap();
    std::fs::write(directory.path().join("blacklist.DSA-2048"), "not read").unwrap();
    let lists = WeakLists::load(Some(directory.path())).unwrap();
    assert_eq!(lists.len(), 3);

    let csr = |arguments: &[&str], key: &[u8]| {
        let all = [&["req", "-new", "-subj", "/", "-outform", "DER"], arguments].concat();
        VerifiedCsr::from_der(&openssl(&all, key).unwrap()).unwrap()
    };
    assert_eq!(lists.check_request(&csr(&["-key", "/dev/stdin"], &key)), Err(Refusal::KeyDebianWeak));
    assert_eq!(lists.check_request(&csr(&["-nodes", "-newkey", "rsa:2048", "-keyout", "/dev/null"], b"")), Ok(()));
    assert_eq!(lists.check_request(&csr(&["-nodes", "-newkey", "ed25519", "-keyout", "/dev/null"], b"")), Ok(()));
    assert!(WeakLists::load(None).unwrap().check_request(&csr(&["-key", "/dev/stdin"], &key)).is_ok());
    assert!(lists.holds(&octets(DEBIAN)) && !lists.holds(&octets(ROCA_2048)));

    for text in ["00005890bc78bcbee3c\n", "00005890bc78bcbee3ca0\n", "zz005890bc78bcbee3ca\n"] {
        std::fs::write(&path, text).unwrap();
        let error = WeakLists::load(Some(directory.path())).unwrap_err().to_string();
        assert!(error.contains("blacklist.RSA-2048") && error.contains("line 1"), "{error}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(WeakLists::load(Some(directory.path())).is_err(), "a directory without a list is a mistake");
    assert!(WeakLists::load(Some(&path)).is_err());
}

/// The raw public key of a new key of openssl.
fn point(arguments: &[&str], size: usize) -> Vec<u8> {
    let key = openssl(&[&["genpkey", "-outform", "DER"], arguments].concat(), b"").unwrap();
    let spki = openssl(&["pkey", "-inform", "DER", "-pubout", "-outform", "DER"], &key).unwrap();
    spki[spki.len() - size..].to_vec()
}

#[test]
fn points_are_those_that_openssl_takes() {
    let p256 = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let p384 = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
    for (arguments, algorithm, size) in [(p256, KeyAlgorithm::P256, 65), (p384, KeyAlgorithm::P384, 97)] {
        let good = point(&arguments, size);
        assert_eq!(check_value(algorithm, &good), Ok(()));
        // The other y of this x.
        for at in [1, 2, size / 2, size / 2 + 1, size - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let spki = crate::pki::encoding::public_key_info(algorithm, &bad).unwrap();
            let judged = openssl(&["pkey", "-pubin", "-inform", "DER", "-noout"], &spki);
            assert_eq!(check_value(algorithm, &bad).is_ok(), judged.is_ok(), "{at}");
            assert_eq!(check_value(algorithm, &bad), Err(Refusal::PointNotOnCurve));
        }
        for (raw, expected) in [
            (vec![0], Refusal::KeySmallOrder),
            ([vec![2], good[1..=size / 2].to_vec()].concat(), Refusal::KeyTypeNotAllowed),
            (good[..size - 1].to_vec(), Refusal::PointNotOnCurve),
            ([vec![6], good[1..].to_vec()].concat(), Refusal::PointNotOnCurve),
            (vec![], Refusal::PointNotOnCurve),
        ] {
            assert_eq!(check_form(algorithm, &raw), Err(expected), "{raw:?}");
        }
        // Coordinates are less than the field's prime (SP 800-56A 5.6.2.3.3).
        let all_ones = [vec![4], vec![0xff; size - 1]].concat();
        assert_eq!(check_value(algorithm, &all_ones), Err(Refusal::PointNotOnCurve));
    }
}

#[test]
fn points_of_edwards25519_are_in_their_one_form() {
    for _ in 0..8 {
        assert_eq!(check_value(KeyAlgorithm::Ed25519, &point(&["-algorithm", "ed25519"], 32)), Ok(()));
    }
    let with_y = |y: u8, sign: u8| [vec![y], vec![0; 30], vec![sign]].concat();
    // Computed apart: which y up to 22 have no x.
    for y in 2..=22 {
        let expected = [2, 7, 8, 11, 12, 13, 17, 20, 22].contains(&y).then_some(Refusal::PointNotOnCurve);
        assert_eq!(check_value(KeyAlgorithm::Ed25519, &with_y(y, 0)).err(), expected, "{y}");
        assert_eq!(check_value(KeyAlgorithm::Ed25519, &with_y(y, 0x80)).err(), expected, "{y}");
    }
    // 3 + p is another form of 3.
    let again = [vec![0xf0], vec![0xff; 30], vec![0x7f]].concat();
    assert_eq!(check_value(KeyAlgorithm::Ed25519, &again), Err(Refusal::PointNotOnCurve));
    assert_eq!(check_value(KeyAlgorithm::Ed25519, &with_y(1, 0x80)), Err(Refusal::KeySmallOrder));
    assert_eq!(check_form(KeyAlgorithm::Ed25519, &[0; 31]), Err(Refusal::KeyWeak));
}

proptest! {
    /// Random odd numbers of 2048 bits are not the chip's.
    #[test]
    fn random_moduli_are_not_marked(mut modulus in prop::collection::vec(any::<u8>(), 256)) {
        modulus[0] |= 0x80;
        modulus[255] |= 1;
        let key = rsa_key(&modulus, &[1, 0, 1]);
        prop_assert!(!roca::is_marked(&RsaNumbers::read(&key).unwrap()));
    }

    /// A modulus made as the chip made it is marked, whatever the exponents and the rest.
    #[test]
    fn moduli_made_as_by_the_chip_are_marked(a in any::<u64>(), b in any::<u64>(), k in any::<u64>(), l in any::<u64>()) {
        let product = (3_u32..=167).filter(|n| (2..*n).all(|d| n % d != 0)).fold(BigUint::from(2_u32), |product, n| product * n);
        let number = |k: u64, a: u64| BigUint::from(k) * &product + BigUint::from(65_537_u32).modpow(&a.into(), &product);
        let modulus = (number(k, a) * number(l, b)).to_bytes_be();
        let key = rsa_key(&modulus, &[1, 0, 1]);
        prop_assert!(roca::is_marked(&RsaNumbers::read(&key).unwrap()));
    }
}

#[test]
fn a_key_without_a_request_is_judged_as_others_are() {
    let spki = |modulus: &[u8], exponent: &[u8]| tlv(SEQUENCE, &[RSA, &tlv(BIT_STRING, &[&[0], &rsa_key(modulus, exponent)])]);
    let none = WeakLists::load(None).unwrap();
    let prime = BigUint::from_bytes_be(&octets(PRIME));
    let close = (&prime * (&prime + DISTANCE)).to_bytes_be();
    for (spki, expected) in [
        (spki(&octets(DEBIAN), &[1, 0, 1]), Ok(())),
        (spki(&octets(DEBIAN), &[3]), Err(Refusal::RsaExponentNotAllowed)),
        (spki(&octets(ROCA_2048), &[1, 0, 1]), Err(Refusal::KeyRoca)),
        (spki(&octets(FAKE_ROCA), &[1, 0, 1]), Err(Refusal::RsaTooShort)),
        (spki(&close, &[1, 0, 1]), Err(Refusal::RsaFactorable)),
        (b"no key".to_vec(), Err(Refusal::KeyTypeNotAllowed)),
    ] {
        assert_eq!(check_all(&spki, &none), expected, "{}", hex::encode(spki));
    }
}
