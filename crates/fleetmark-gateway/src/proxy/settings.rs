//! What an operator sets for one listener.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

/// One listener and the service behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where devices connect.
    pub listen: SocketAddr,
    /// The service behind, `host:port`; the name is looked up for every connection.
    pub upstream: String,
    /// What policies see as the protocol.
    pub protocol: Option<String>,
    /// How the service is told who it is.
    pub proxy_protocol: ProxyProtocol,
    /// Connections at a time, those in their handshake included.
    pub max_connections: u32,
    /// Handshakes at a time.
    pub max_handshakes: u32,
    /// Handshakes begun per second, by all together.
    pub handshakes_per_second: NonZeroU32,
    /// How many of them at once, after a quiet time.
    pub handshake_burst: NonZeroU32,
    /// Handshakes begun per second by one IPv4 address or one IPv6 /64 network; ten seconds' worth of them at once.
    /// None: no such limit, as where all devices come through one address.
    pub address_handshakes_per_second: Option<NonZeroU32>,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// How long the connection to the service may take.
    pub connect_timeout: Duration,
    /// A connection over which nothing went for so long is closed. None: only one half-closed for a minute is.
    pub idle_timeout: Option<Duration>,
}

impl Settings {
    /// The settings that docs/proxy.md gives as defaults.
    pub fn new(listen: SocketAddr, upstream: impl Into<String>) -> Self {
        const fn per_second(number: u32) -> NonZeroU32 {
            NonZeroU32::MIN.saturating_add(number.saturating_sub(1))
        }
        Self {
            listen,
            upstream: upstream.into(),
            protocol: None,
            proxy_protocol: ProxyProtocol::None,
            max_connections: 10_000,
            max_handshakes: 512,
            handshakes_per_second: per_second(500),
            handshake_burst: per_second(1_000),
            address_handshakes_per_second: Some(per_second(20)),
            handshake_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: None,
        }
    }
}

/// How the service behind is told who it is that speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyProtocol {
    /// Not at all.
    #[default]
    None,
    /// A PROXY protocol header, version 2, before the first octet.
    V2,
}
