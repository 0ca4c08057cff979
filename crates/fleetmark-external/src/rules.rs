//! The rules of an external authority and its CA certificates as one document, whose SHA-256 is on the ledger: gateways fetch it and
//! believe it by that hash.

/// The longest document, in octets: 8 certificates of 16 KiB, and the rules with their URLs.
pub const MAX_DOCUMENT: usize = 256 * 1024;
/// How long the length is that it begins with, in octets.
const LENGTH: usize = 8;

/// The length of the rules' JSON as u64 (big-endian), that JSON, and the CA certificates' DER one after the other.
pub fn join(rules: &[u8], material: &[u8]) -> Vec<u8> {
    let length = u64::try_from(rules.len()).unwrap_or(u64::MAX).to_be_bytes();
    [&length[..], rules, material].concat()
}

/// The rules' JSON, and the CA certificates; None for what [`join`] does not give.
pub fn part(document: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = document.split_first_chunk::<LENGTH>()?;
    rest.split_at_checked(usize::try_from(u64::from_be_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_joined_comes_apart() {
        let document = join(b"{}", b"\x30\x00");
        assert_eq!(document, b"\0\0\0\0\0\0\0\x02{}\x30\x00");
        assert_eq!(part(&document), Some((&b"{}"[..], &b"\x30\x00"[..])));
        assert_eq!(part(&join(b"", b"")), Some((&b""[..], &b""[..])));
        for broken in [&b""[..], &document[..7], &document[..9], &[0xff; 20]] {
            assert_eq!(part(broken), None, "{broken:?}");
        }
    }
}
