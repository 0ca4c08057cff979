//! The PROXY protocol's header, version 2 (<https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>, section 2.2).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const VERSION_PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
const TYPE_CRC32C: u8 = 0x03;
const TYPE_SSL: u8 = 0x20;
const SUBTYPE_SSL_VERSION: u8 = 0x21;
const SUBTYPE_SSL_CN: u8 = 0x22;
/// 2.2.8: 0xE0 to 0xEF are for the applications' own use. The SPIFFE ID, which may be longer than the 128 octets of
/// `PP2_TYPE_UNIQUE_ID`.
pub(super) const TYPE_SPIFFE_ID: u8 = 0xe0;
/// `PP2_CLIENT_SSL`, `PP2_CLIENT_CERT_CONN`, `PP2_CLIENT_CERT_SESS`: over TLS, with a certificate shown in this connection.
const CLIENT: u8 = 0x01 | 0x02 | 0x04;

/// What the header tells of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Client<'a> {
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it came to.
    pub destination: SocketAddr,
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'a str,
    /// The common name of its certificate.
    pub common_name: Option<&'a str>,
    /// The URI of its certificate.
    pub spiffe_id: Option<&'a str>,
}

/// The header's octets, with a CRC-32C over them.
pub(super) fn encode(client: &Client<'_>) -> Vec<u8> {
    let (family, mut body) = addresses(client.source, client.destination);
    let mut ssl = vec![CLIENT];
    // 2.2.6: zero when the client presented a certificate and it was successfully verified.
    ssl.extend_from_slice(&0_u32.to_be_bytes());
    push(&mut ssl, SUBTYPE_SSL_VERSION, client.version.as_bytes());
    if let Some(name) = client.common_name {
        push(&mut ssl, SUBTYPE_SSL_CN, name.as_bytes());
    }
    push(&mut body, TYPE_SSL, &ssl);
    if let Some(id) = client.spiffe_id {
        push(&mut body, TYPE_SPIFFE_ID, id.as_bytes());
    }
    // 2.2.4: computed over the whole header with the checksum itself set to zero.
    push(&mut body, TYPE_CRC32C, &[0; 4]);
    let mut header = SIGNATURE.to_vec();
    header.extend_from_slice(&[VERSION_PROXY, family]);
    header.extend_from_slice(&length(&body));
    header.extend_from_slice(&body);
    let checksum = crc32c(&header).to_be_bytes();
    header.truncate(header.len().saturating_sub(checksum.len()));
    header.extend_from_slice(&checksum);
    header
}

/// Family and addresses. Two of different families are both written as IPv6.
fn addresses(source: SocketAddr, destination: SocketAddr) -> (u8, Vec<u8>) {
    let mut octets = Vec::with_capacity(512);
    let family = match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            octets.extend_from_slice(&source.octets());
            octets.extend_from_slice(&destination.octets());
            TCP_OVER_IPV4
        }
        (source, destination) => {
            octets.extend_from_slice(&mapped(source).octets());
            octets.extend_from_slice(&mapped(destination).octets());
            TCP_OVER_IPV6
        }
    };
    octets.extend_from_slice(&source.port().to_be_bytes());
    octets.extend_from_slice(&destination.port().to_be_bytes());
    (family, octets)
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// Appends type, length and value; leaves out a value of more than 1,024 octets, which no certificate of ours has.
fn push(to: &mut Vec<u8>, kind: u8, value: &[u8]) {
    if value.len() <= 1_024 {
        to.push(kind);
        to.extend_from_slice(&length(value));
        to.extend_from_slice(value);
    }
}

fn length(octets: &[u8]) -> [u8; 2] {
    u16::try_from(octets.len()).unwrap_or(u16::MAX).to_be_bytes()
}

/// CRC-32C (RFC 3720 appendix B.4), bit by bit: a header is short and written once a connection.
fn crc32c(octets: &[u8]) -> u32 {
    let crc = octets.iter().fold(u32::MAX, |crc, octet| {
        (0..8).fold(crc ^ u32::from(*octet), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    });
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720 B.4 and the check value of the catalogue of CRCs.
    #[test]
    fn the_checksum_is_as_published() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    /// Octet by octet, written out by hand after the specification.
    #[test]
    fn a_header_is_as_the_specification_says() {
        let header = encode(&Client {
            source: "192.0.2.7:49152".parse().unwrap(),
            destination: "[::ffff:198.51.100.9]:8883".parse().unwrap(),
            version: "TLSv1.3",
            common_name: Some("s1"),
            spiffe_id: Some("spiffe://f.test/device/d/s1"),
        });
        let mut expected = hex::decode("0d0a0d0a000d0a515549540a").unwrap();
        expected.extend([0x21, 0x11, 0, 12 + 3 + 20 + 3 + 27 + 7]);
        expected.extend([192, 0, 2, 7, 198, 51, 100, 9, 0xc0, 0x00, 0x22, 0xb3]);
        expected.extend([0x20, 0, 20, 7, 0, 0, 0, 0, 0x21, 0, 7]);
        expected.extend(b"TLSv1.3");
        expected.extend([0x22, 0, 2, b's', b'1', 0xe0, 0, 27]);
        expected.extend(b"spiffe://f.test/device/d/s1");
        expected.extend([0x03, 0, 4]);
        assert_eq!(header[..header.len() - 4], expected);
        let mut zeroed = expected;
        zeroed.extend([0; 4]);
        assert_eq!(header[header.len() - 4..], crc32c(&zeroed).to_be_bytes());
    }

    #[test]
    fn six_is_written_as_six_and_a_mixture_as_six() {
        let client = |source: &str, destination: &str| {
            encode(&Client {
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
                version: "TLSv1.2",
                common_name: None,
                spiffe_id: None,
            })
        };
        let six = client("[2001:db8::1]:1", "[2001:db8::2]:2");
        assert_eq!(six[13], 0x21);
        assert_eq!(hex::encode(&six[16..52]), "20010db800000000000000000000000120010db800000000000000000000000200010002");
        let mixed = client("192.0.2.1:1", "[2001:db8::2]:2");
        assert_eq!(hex::encode(&mixed[16..32]), "00000000000000000000ffffc0000201");
    }
}
