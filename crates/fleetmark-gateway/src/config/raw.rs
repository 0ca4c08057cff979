//! `gateway.toml` as it is written, before it is checked.

use serde::Deserialize;

use super::LogFormat;

/// All keys.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub dir: String,
    #[serde(default)]
    pub servers: Vec<String>,
    pub fleets: Option<Vec<String>>,
    #[serde(default)]
    pub log: RawLog,
    #[serde(default)]
    pub verdict: RawVerdict,
    #[serde(default)]
    pub metrics: RawMetrics,
    #[serde(default)]
    pub proxy: Vec<RawProxy>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLog {
    #[serde(default)]
    pub format: LogFormat,
    pub level: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawVerdict {
    pub listen: String,
    pub max_requests: i64,
    pub danger_any_address: bool,
}

impl Default for RawVerdict {
    fn default() -> Self {
        let listen = "unix:/run/fleetmark-gateway/verdict.sock".to_owned();
        Self { listen, max_requests: 1024, danger_any_address: false }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawMetrics {
    pub listen: String,
    pub danger_any_address: bool,
}

impl Default for RawMetrics {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9181".to_owned(), danger_any_address: false }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProxy {
    pub listen: String,
    pub upstream: String,
    pub protocol: Option<String>,
    #[serde(default = "none")]
    pub proxy_protocol: String,
    pub max_connections: Option<i64>,
    pub max_handshakes: Option<i64>,
    pub handshakes_per_second: Option<i64>,
    pub handshake_burst: Option<i64>,
    pub address_handshakes_per_second: Option<i64>,
    pub handshake_timeout: Option<i64>,
    pub connect_timeout: Option<i64>,
    pub idle_timeout: Option<i64>,
}

fn none() -> String {
    "none".to_owned()
}
