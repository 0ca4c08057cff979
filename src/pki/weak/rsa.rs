//! RSA keys: lengths, exponents, and factors that anyone finds.

use std::sync::LazyLock;

use der::Decode as _;
use der::asn1::{AnyRef, UintRef};
use fleetmark_domain::Refusal;
use num_bigint::BigUint;

/// The fewest bits of a modulus.
const MIN_BITS: usize = 2048;
/// The most bits of a modulus: a longer one costs more at every handshake than it gives.
const MAX_BITS: usize = 4096;

/// SP 800-89 5.3.3: the modulus has no factor under 752.
const SMALL_FACTORS: u64 = 752;

/// The odd primes under [`SMALL_FACTORS`], in groups whose product has at most 32 bits: one remainder of the modulus a group.
static SMALL_PRIMES: LazyLock<Vec<(u64, Vec<u64>)>> = LazyLock::new(|| {
    let is_prime = |n: &u64| (2..*n).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
    let mut groups: Vec<(u64, Vec<u64>)> = Vec::new();
    for prime in (3..SMALL_FACTORS).filter(is_prime) {
        match groups.last_mut() {
            Some((product, primes)) if u32::try_from(*product * prime).is_ok() => {
                *product *= prime;
                primes.push(prime);
            }
            _ => groups.push((prime, vec![prime])),
        }
    }
    groups
});

/// How many steps of Fermat's method are tried. Keys of CVE-2022-26320 fall at the first; an honest one survives 2^900.
const FERMAT_ROUNDS: usize = 100;

/// `RSAPublicKey ::= SEQUENCE { modulus INTEGER, publicExponent INTEGER }` (RFC 8017 A.1.1), without leading zeros.
pub(super) struct RsaNumbers<'a> {
    pub(super) modulus: &'a [u8],
    exponent: &'a [u8],
}

impl<'a> RsaNumbers<'a> {
    pub(super) fn read(raw: &'a [u8]) -> Option<Self> {
        AnyRef::from_der(raw)
            .ok()?
            .sequence(|reader| {
                let modulus = UintRef::decode(reader)?;
                let exponent = UintRef::decode(reader)?;
                Ok(Self { modulus: modulus.as_bytes(), exponent: exponent.as_bytes() })
            })
            .ok()
    }

    /// 2048 to 4096 bits; an exponent that is odd, at least 65537 (SP 800-56B 6.2), and of at most 33 bits, which is what
    /// ring takes.
    pub(super) fn check_form(&self) -> Result<(), Refusal> {
        let bits = match self.modulus.split_first() {
            Some((first, rest)) => rest.len().saturating_mul(8).saturating_add(bits_of(*first)),
            None => 0,
        };
        if bits < MIN_BITS {
            return Err(Refusal::RsaTooShort);
        }
        if bits > MAX_BITS {
            return Err(Refusal::RsaTooLong);
        }
        let exponent = self.exponent.iter().try_fold(0_u64, |sum, octet| sum.checked_mul(256)?.checked_add(u64::from(*octet)));
        match exponent {
            Some(exponent @ 65_537..=0x1_ffff_ffff) if exponent % 2 == 1 => Ok(()),
            _ => Err(Refusal::RsaExponentNotAllowed),
        }
    }

    /// The remainder of the modulus by a divisor of at most 32 bits.
    pub(super) fn remainder(&self, divisor: u64) -> u64 {
        // Whole words of four octets, after what stands before them.
        let (head, words) = self.modulus.split_at(self.modulus.len() % 4);
        let (words, _) = words.as_chunks::<4>();
        let head = head.iter().fold(0, |sum, octet| (sum << 8) | u64::from(*octet));
        words.iter().fold(head % divisor, |rest, word| ((rest << 32) | u64::from(u32::from_be_bytes(*word))) % divisor)
    }

    /// Whether a prime under 752 divides the modulus.
    pub(super) fn has_small_factor(&self) -> bool {
        let divides = |(product, primes): &(u64, Vec<u64>)| {
            let rest = self.remainder(*product);
            primes.iter().any(|prime| rest.is_multiple_of(*prime))
        };
        self.modulus.last().is_none_or(|last| last % 2 == 0) || SMALL_PRIMES.iter().any(divides)
    }

    /// Whether Fermat's method finds two factors in a hundred steps: modulus = a² - b², a next above its square root.
    pub(super) fn has_close_factors(&self) -> bool {
        let modulus = BigUint::from_bytes_be(self.modulus);
        let mut a = modulus.sqrt();
        if &a * &a < modulus {
            a += 1_u32;
        }
        let mut square = &a * &a - &modulus;
        for _ in 0..FERMAT_ROUNDS {
            if is_square(&square) {
                return true;
            }
            // (a + 1)² = a² + 2a + 1
            square += &a * 2_u32 + 1_u32;
            a += 1_u32;
        }
        false
    }
}

fn bits_of(octet: u8) -> usize {
    8_usize.saturating_sub(usize::try_from(octet.leading_zeros()).unwrap_or(8))
}

/// Which remainders squares have: bit `r` of the mask is set where `x² = r (mod modulus)` has a solution.
const fn squares(modulus: u32) -> (u32, u128) {
    let mut mask = 0;
    let mut x = 0;
    while x < modulus {
        mask |= 1 << (x * x % modulus);
        x += 1;
    }
    (modulus, mask)
}

/// Whether a number is a perfect square; 99 in 100 others are told by their remainders.
fn is_square(number: &BigUint) -> bool {
    const FILTERS: [(u32, u128); 4] = [squares(64), squares(63), squares(65), squares(11)];
    const PRODUCT: u32 = 64 * 63 * 65 * 11;
    let rest = u32::try_from(number % PRODUCT).unwrap_or_default();
    if FILTERS.iter().any(|(modulus, mask)| mask >> (rest % modulus) & 1 == 0) {
        return false;
    }
    let root = number.sqrt();
    &root * &root == *number
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(modulus: &[u8]) -> RsaNumbers<'_> {
        RsaNumbers { modulus, exponent: &[1, 0, 1] }
    }

    #[test]
    fn small_primes_are_those_of_the_clause() {
        let primes: Vec<u64> = SMALL_PRIMES.iter().flat_map(|(_, primes)| primes).copied().collect();
        assert_eq!((primes.len(), primes.first(), primes.last()), (132, Some(&3), Some(&751)));
        assert!(
            SMALL_PRIMES.iter().all(|(product, primes)| *product == primes.iter().product::<u64>() && *product <= 0xffff_ffff)
        );
    }

    #[test]
    fn close_factors_are_found_and_others_are_not() {
        // 2^127 - 1 is prime; the numbers need not be, for the method.
        let p = (BigUint::from(1_u32) << 1023_u32) + 12_345_677_u32;
        for (distance, found) in [(0_u32, true), (2, true), (1 << 20, true)] {
            let modulus = (&p * (&p + distance)).to_bytes_be();
            assert_eq!(key(&modulus).has_close_factors(), found, "{distance}");
        }
        let modulus = (&p * (&p + (BigUint::from(1_u32) << 1000_u32))).to_bytes_be();
        assert!(!key(&modulus).has_close_factors());
    }

    proptest! {
        #[test]
        fn remainders_are_those_of_the_library(modulus in prop::collection::vec(any::<u8>(), 0..70), divisor in 1_u64..=0xffff_ffff) {
            let expected = BigUint::from_bytes_be(&modulus) % divisor;
            prop_assert_eq!(BigUint::from(key(&modulus).remainder(divisor)), expected);
        }

        #[test]
        fn squares_are_told(root in any::<u64>(), offset in 0_u64..4) {
            let root = BigUint::from(root);
            let number = &root * &root + offset;
            let real = number.sqrt();
            prop_assert_eq!(is_square(&number), &real * &real == number);
            prop_assert!(is_square(&(&root * &root)));
        }
    }
}
