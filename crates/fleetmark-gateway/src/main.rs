//! `fleetmark-gateway`: the daemon, and the commands around it.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Made for many small objects that one thread makes and another drops.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    fleetmark_gateway::cli::main()
}
