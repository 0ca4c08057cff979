//! `fleetmark-device`: the first-boot agent.

use std::process::ExitCode;

fn main() -> ExitCode {
    fleetmark_device::cli::main()
}
