//! Entry and details bundles, and the addresses of tiles (C2SP tlog-tiles).

use std::fmt::Write as _;

/// Entries in a whole tile.
pub const TILE: u64 = 256;

/// Why octets are no bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// An entry ends after the octets do.
    #[error("the bundle is cut short")]
    Cut,
    /// There are more or fewer entries than there should be.
    #[error("the bundle has not as many entries as its address says")]
    Count,
}

/// Takes a bundle apart: for each of `count` entries a u16 length, big-endian, and that many octets; nothing after them.
///
/// # Errors
/// [`BundleError`].
pub fn parse(mut octets: &[u8], count: usize) -> Result<Vec<&[u8]>, BundleError> {
    let mut entries = Vec::new();
    while let Some((length, rest)) = octets.split_first_chunk::<2>() {
        let (entry, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(BundleError::Cut)?;
        if entries.len() == count {
            return Err(BundleError::Count);
        }
        entries.push(entry);
        octets = rest;
    }
    match (octets, entries.len() == count) {
        ([], true) => Ok(entries),
        ([], false) => Err(BundleError::Count),
        _ => Err(BundleError::Cut),
    }
}

/// The path of tile `number` of `kind` (`entries`, `details`) in a tree of `size` entries, with its width.
pub fn path(kind: &str, number: u64, size: u64) -> (String, u64) {
    let width = size.saturating_sub(number.saturating_mul(TILE)).min(TILE);
    let mut path = format!("tile/{kind}/");
    // "x001/x234/067": groups of three digits, all but the last with an x.
    let mut groups = vec![format!("{:03}", number % 1000)];
    let mut rest = number / 1000;
    while rest > 0 {
        groups.push(format!("x{:03}", rest % 1000));
        rest /= 1000;
    }
    groups.reverse();
    path.push_str(&groups.join("/"));
    if width < TILE {
        // Writing to a String cannot fail.
        let _ = write!(path, ".p/{width}");
    }
    (path, width)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bundle_is_taken_apart() {
        let octets = b"\0\x01a\0\0\0\x02bc";
        assert_eq!(parse(octets, 3), Ok(vec![&b"a"[..], b"", b"bc"]));
        assert_eq!(parse(octets, 2), Err(BundleError::Count));
        assert_eq!(parse(octets, 4), Err(BundleError::Count));
        for cut in 1..octets.len() {
            assert!(parse(&octets[..cut], 3).is_err(), "{cut}");
        }
        assert_eq!(parse(b"", 0), Ok(Vec::new()));
    }

    #[test]
    fn paths_are_those_of_the_specification() {
        // C2SP tlog-tiles: "tile/<L>/<N>[.p/<W>]", "N is encoded into 3-digit path elements".
        assert_eq!(path("entries", 1_234_067, u64::MAX), ("tile/entries/x001/x234/067".to_owned(), 256));
        assert_eq!(path("entries", 0, 256), ("tile/entries/000".to_owned(), 256));
        assert_eq!(path("details", 273, 70_000), ("tile/details/273.p/112".to_owned(), 112));
    }

    proptest! {
        #[test]
        fn hostile_octets_do_no_harm(octets in proptest::collection::vec(any::<u8>(), 0..400), count in 0_usize..6) {
            if let Ok(entries) = parse(&octets, count) {
                let again: Vec<u8> = entries.iter().flat_map(|entry| {
                    let length = u16::try_from(entry.len()).unwrap().to_be_bytes();
                    [&length[..], entry].concat()
                }).collect();
                prop_assert_eq!(again, octets);
            }
        }
    }
}
