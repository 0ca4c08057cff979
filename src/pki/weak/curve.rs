//! Points of P-256, P-384 and edwards25519. ring tells a bad point only by a signature that does not verify.

use std::sync::LazyLock;

use fleetmark_domain::Refusal;
use num_bigint::BigUint;

/// A curve `y² = x³ - 3x + b` over a prime field, with as many points as a prime has: none but infinity is of small order.
pub(super) struct Curve {
    field: BigUint,
    b: BigUint,
    /// Octets of a coordinate.
    size: usize,
}

/// A number from its words of 32 bits, the highest first.
fn number(words: &[u32]) -> BigUint {
    BigUint::new(words.iter().rev().copied().collect())
}

/// SP 800-186 3.2.1.3.
pub(super) static P256: LazyLock<Curve> = LazyLock::new(|| Curve {
    field: number(&[0xffff_ffff, 1, 0, 0, 0, 0xffff_ffff, 0xffff_ffff, 0xffff_ffff]),
    b: number(&[0x5ac6_35d8, 0xaa3a_93e7, 0xb3eb_bd55, 0x7698_86bc, 0x651d_06b0, 0xcc53_b0f6, 0x3bce_3c3e, 0x27d2_604b]),
    size: 32,
});

/// SP 800-186 3.2.1.4.
pub(super) static P384: LazyLock<Curve> = LazyLock::new(|| Curve {
    field: number(&[
        0xffff_ffff,
        0xffff_ffff,
        0xffff_ffff,
        0xffff_ffff,
        0xffff_ffff,
        0xffff_ffff,
        0xffff_ffff,
        0xffff_fffe,
        0xffff_ffff,
        0,
        0,
        0xffff_ffff,
    ]),
    b: number(&[
        0xb331_2fa7,
        0xe23e_e7e4,
        0x988e_056b,
        0xe3f8_2d19,
        0x181d_9c6e,
        0xfe81_4112,
        0x0314_088f,
        0x5013_875a,
        0xc656_398d,
        0x8a2e_d19d,
        0x2a85_c8ed,
        0xd3ec_2aef,
    ]),
    size: 48,
});

/// An uncompressed point (RFC 5480 2.2) of the right length.
pub(super) fn check_form(curve: &Curve, raw: &[u8]) -> Result<(), Refusal> {
    match raw.first() {
        Some(4) if raw.len() == curve.size.saturating_mul(2).saturating_add(1) => Ok(()),
        // Compressed points: RFC 5480 2.2 leaves them optional, and TLS libraries do not take them.
        Some(2 | 3) => Err(Refusal::KeyTypeNotAllowed),
        // The point at infinity, the one of small order (SEC 1 2.3.3).
        Some(0) if raw.len() == 1 => Err(Refusal::KeySmallOrder),
        _ => Err(Refusal::PointNotOnCurve),
    }
}

/// Whether a point of the right form satisfies the curve's equation (SP 800-56A 5.6.2.3.3).
pub(super) fn check_point(curve: &Curve, raw: &[u8]) -> Result<(), Refusal> {
    let coordinates = raw.get(1..).unwrap_or_default();
    let (x, y) = coordinates.split_at_checked(curve.size).ok_or(Refusal::PointNotOnCurve)?;
    let (x, y, field) = (BigUint::from_bytes_be(x), BigUint::from_bytes_be(y), &curve.field);
    if x >= *field || y >= *field {
        return Err(Refusal::PointNotOnCurve);
    }
    let right = (&x * &x % field * &x + (field - &x) * 3_u32 + &curve.b) % field;
    if &y * &y % field == right { Ok(()) } else { Err(Refusal::PointNotOnCurve) }
}

/// RFC 8032 5.1: the field is of `2^255 - 19` elements, d = -121665/121666.
static FIELD_25519: LazyLock<BigUint> = LazyLock::new(|| (BigUint::from(1_u32) << 255_u32) - 19_u32);
static D_25519: LazyLock<BigUint> = LazyLock::new(|| {
    number(&[0x5203_6cee, 0x2b6f_fe73, 0x8cc7_4079, 0x7779_e898, 0x0070_0a4d, 0x4141_d8ab, 0x75eb_4dca, 0x1359_78a3])
});

/// Points of small order, by y: under them a signature needs no private key (RFC 8032 leaves the check to the protocol).
const SMALL_ORDER: [&str; 7] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

/// A point of edwards25519 in its one encoding, and not of small order.
pub(super) fn check_ed25519(raw: &[u8]) -> Result<(), Refusal> {
    let mut key: [u8; 32] = raw.try_into().map_err(|_| Refusal::KeyWeak)?;
    if let Some(last) = key.last_mut() {
        // The topmost bit is the sign of x, and no part of y.
        *last &= 0x7f;
    }
    if SMALL_ORDER.contains(&hex::encode(key).as_str()) {
        return Err(Refusal::KeySmallOrder);
    }
    let (y, field) = (BigUint::from_bytes_le(&key), &*FIELD_25519);
    if y >= *field {
        return Err(Refusal::PointNotOnCurve);
    }
    // RFC 8032 5.1.3: x² = (y² - 1) / (d·y² + 1). It has a root where the product of both is a square (Euler's criterion).
    let square = &y * &y % field;
    let product = (&square + (field - 1_u32)) * (&*D_25519 * &square + 1_u32) % field;
    let power = product.modpow(&((field - 1_u32) >> 1_u32), field);
    if power <= BigUint::from(1_u32) { Ok(()) } else { Err(Refusal::PointNotOnCurve) }
}
