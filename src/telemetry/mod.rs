//! Clock, logs and metrics.
//!
//! - [`clock`]: the one place that reads the system's clock.
//! - [`logs`]: set up once, at the start of a server.
//! - [`metrics`]: one recorder a process, and what each metric counts.

pub mod clock;
pub mod logs;
pub mod metrics;
