//! `fleetmark-gateway`: the daemon, and the commands around it.

use std::process::ExitCode;

fn main() -> ExitCode {
    fleetmark_gateway::cli::main()
}
