//! `fleetmark`: the server and the operators' command line.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Made for many small objects that one thread makes and another drops.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // An Err means that a provider is installed already, which this process did not do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    fleetmark::cli::run(std::env::args_os())
}
