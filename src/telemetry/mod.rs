//! Clock, logs and metrics.

pub mod clock;
