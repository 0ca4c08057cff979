//! Keys of CVE-2017-15361, by their fingerprint.
//!
//! M. Nemec, M. Sys, P. Svenda, D. Klinec, V. Matyas: The Return of Coppersmith's Attack: Practical Factorization of Widely Used
//! RSA Moduli (ACM CCS 2017), section 3.2. The library made primes of the form `k·M + (65537^a mod M)` with M the product of the
//! first primes, so a modulus of its making is a power of 65537 modulo M. M of the shortest keys, the primes up to 167, divides
//! that of all others. Of honest moduli one in 2^154 is such a power.

use super::rsa::RsaNumbers;

/// The odd primes up to 167.
const PRIMES: [u64; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113, 127,
    131, 137, 139, 149, 151, 157, 163, 167,
];

const GENERATOR: u64 = 65_537;

/// Whether the modulus is a power of 65537 modulo the product of [`PRIMES`]: it is one modulo each prime, and the exponents
/// agree (they are known modulo the generator's orders).
pub(super) fn is_marked(key: &RsaNumbers<'_>) -> bool {
    let mut known: Vec<Logarithm> = Vec::new();
    for prime in PRIMES {
        let Some(found) = logarithm(key.remainder(prime), prime) else { return false };
        if !known.iter().all(|other| other.agrees(&found)) {
            return false;
        }
        known.push(found);
    }
    true
}

/// An exponent, known modulo an order.
struct Logarithm {
    exponent: u64,
    order: u64,
}

impl Logarithm {
    /// Whether some exponent is congruent to both: modulo what the orders have in common they are the same.
    fn agrees(&self, other: &Self) -> bool {
        let common = greatest_common_divisor(self.order, other.order);
        self.exponent % common == other.exponent % common
    }
}

/// The exponent of 65537 that gives `residue` modulo `prime`; None where there is none.
fn logarithm(residue: u64, prime: u64) -> Option<Logarithm> {
    let (mut power, mut found) = (1, None);
    for exponent in 0..prime {
        if exponent > 0 && power == 1 {
            return found.map(|found| Logarithm { exponent: found, order: exponent });
        }
        if power == residue {
            found = Some(exponent);
        }
        power = power * (GENERATOR % prime) % prime;
    }
    None
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}
