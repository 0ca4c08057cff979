//! A gateway: the standing of whole fleets in memory, verdicts without asking the server, and an mTLS proxy that cuts.
//!
//! - [`knowledge`]: what the gateway knows, how old it is, and who is told when it changes.
//! - [`clock`]: the clocks, and the rule by which knowledge grows old.
//! - [`follow`]: the ledgers' feed: bad news on arrival, entries and snapshots verified.
//! - [`disk`]: the same on disk, crash-safe and verified when read.
//! - [`judge`]: gives verdicts, and says why.
//! - [`endpoint`]: verdicts over HTTP, for other gateways on this machine; health and metrics.
//! - [`proxy`]: mTLS in front of a TCP service.
//! - [`identity`]: the gateway's own certificate, and its renewal.
//! - [`config`]: `gateway.toml`, read and checked.
//! - [`daemon`]: puts all of it together.
//! - [`cli`]: the program `fleetmark-gateway`.

pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod disk;
pub mod endpoint;
pub mod follow;
pub mod identity;
pub mod judge;
pub mod knowledge;
pub mod proxy;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
