//! The operators' command line. It talks to the admin door, never to the database; `up`, `init` and `serve` start the
//! server, `doctor`, `operator recover` and `backup restore` work on its machine.
//!
//! - [`failure`]: what is printed when something fails, and the exit codes.
//! - [`files`]: what is read and made.
//! - [`client`]: the admin door over mTLS.
//! - [`session`]: a client, and how its answers are printed.
//! - [`table`]: tables for people; programs take `--json`.
//! - One module a command.

mod accept;
mod arguments;
mod authorities;
mod backups;
mod certificates;
mod client;
mod derive;
mod devices;
mod doctor;
mod external;
pub mod failure;
mod files;
mod fleets;
mod groups;
mod hardware;
mod hooks;
mod imports;
mod keys;
mod ledger;
mod lifecycle;
mod members;
mod operators;
mod policies;
mod requests;
mod revocations;
mod root;
mod serve;
mod session;
mod status;
mod table;
mod tokens;
mod waves;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use tokio::runtime::Builder;

use failure::{Failure, exit};
use session::{Session, print};

/// Fleetmark: an identity for every device of a fleet, and a say in whether it counts.
#[derive(Debug, Parser)]
#[command(
    name = "fleetmark",
    version,
    max_term_width = 120,
    after_help = "\
Exit codes: 0 done, 1 refused or failed, 2 usage, 3 no such thing, 4 server not reached, 5 not trusted."
)]
struct Arguments {
    /// The operator's profile [default: ./fleetmark-data/operator, then ~/.config/fleetmark]
    #[arg(id = "operator_profile", long = "operator", global = true, value_name = "DIR", env = "FLEETMARK_OPERATOR")]
    profile: Option<PathBuf>,
    /// Print JSON, as the API gives it
    #[arg(id = "print_json", long = "json", global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an installation if there is none, and serve it: for a lab, with the root's key on this machine
    Up(serve::ServerArguments),
    /// Make an installation
    Init(Box<serve::InitArguments>),
    /// Serve an installation
    Serve(serve::ServerArguments),
    /// Fleets
    #[command(subcommand)]
    Fleet(fleets::FleetCommand),
    /// Devices of a fleet
    #[command(subcommand)]
    Device(devices::DeviceCommand),
    /// Certificates
    #[command(subcommand)]
    Cert(certificates::CertificateCommand),
    /// Many certificates revoked, held or released at once
    #[command(subcommand)]
    Revocation(revocations::RevocationCommand),
    /// Enrollment tokens of a fleet
    #[command(subcommand)]
    Token(tokens::TokenCommand),
    /// Public keys that nobody gets a certificate for
    #[command(subcommand)]
    Key(keys::KeyCommand),
    /// Requests that a person decides
    #[command(subcommand)]
    Request(requests::RequestCommand),
    /// Enrollment groups of a fleet: ways in that many devices share
    #[command(subcommand)]
    Group(groups::GroupCommand),
    /// Other authorities whose certificates a fleet takes
    #[command(subcommand)]
    External(external::ExternalCommand),
    /// Authorities
    #[command(subcommand)]
    Authority(authorities::AuthorityCommand),
    /// The root: its ceremony on a machine of its own, and what the server wants of it
    #[command(subcommand)]
    Root(root::RootCommand),
    /// Gateways
    #[command(subcommand)]
    Gateway(members::EndpointCommand),
    /// Services
    #[command(subcommand)]
    Service(members::EndpointCommand),
    /// Operators
    #[command(subcommand)]
    Operator(operators::OperatorCommand),
    /// Take up an invitation: make a key here and have it certified
    Accept(accept::AcceptArguments),
    /// Ledgers, and whether they are what they claim to be
    #[command(subcommand)]
    Ledger(ledger::LedgerCommand),
    /// Status lists, read as firmware does
    #[command(subcommand)]
    Status(status::StatusCommand),
    /// Policies: who may do what, as Cedar policy sets
    #[command(subcommand)]
    Policy(policies::PolicyCommand),
    /// Backups
    #[command(subcommand)]
    Backup(backups::BackupCommand),
    /// Say what is wrong with an installation and what to do
    Doctor(doctor::DoctorArguments),
    /// Who the server takes you for
    Whoami,
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Runs a command line and gives its exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { exit::USAGE } else { exit::OK };
            // Where standard error is closed there is nobody to tell.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let json = arguments.json;
    match dispatch(arguments) {
        Ok(()) => ExitCode::from(exit::OK),
        Err(failure) => {
            if json {
                eprintln!("{}", failure.json());
            } else {
                eprintln!("{failure}");
            }
            ExitCode::from(failure.code())
        }
    }
}

/// Servers run a runtime of their own; all else runs on one thread here.
fn dispatch(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Command::Up(server) => serve::up(&server),
        Command::Init(server) => serve::init(&server),
        Command::Serve(server) => serve::serve(&server),
        Command::Completions { shell } => completions(shell),
        Command::Root(root::RootCommand::Offline(command)) => command.run(arguments.json),
        command => {
            let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| Failure::of(&error))?;
            runtime.block_on(ask(command, arguments.profile, arguments.json))
        }
    }
}

async fn ask(command: Command, profile: Option<PathBuf>, json: bool) -> Result<(), Failure> {
    let session = || Session::open(profile.as_deref(), json);
    match command {
        Command::Fleet(command) => command.run(&session()?).await,
        Command::Device(command) => command.run(&session()?).await,
        Command::Cert(command) => command.run(&session()?).await,
        Command::Revocation(command) => command.run(&session()?).await,
        Command::Token(command) => command.run(&session()?).await,
        Command::Key(command) => command.run(&session()?).await,
        Command::Request(command) => command.run(&session()?).await,
        // It asks no server, and takes no profile.
        Command::Group(groups::GroupCommand::Derive(arguments)) => arguments.run(json),
        Command::Group(command) => command.run(&session()?).await,
        Command::External(command) => command.run(&session()?).await,
        Command::Authority(command) => command.run(&session()?).await,
        Command::Root(root::RootCommand::Online(command)) => command.run(&session()?).await,
        Command::Gateway(command) => command.run(&session()?, "gateways").await,
        Command::Service(command) => command.run(&session()?, "services").await,
        Command::Operator(command) => command.run(profile.as_deref(), json).await,
        Command::Accept(arguments) => arguments.run(json).await,
        Command::Ledger(command) => command.run(&session()?).await,
        Command::Status(command) => command.run(profile.as_deref(), json).await,
        Command::Policy(command) => command.run(profile.as_deref(), json).await,
        Command::Backup(command) => command.run(profile.as_deref(), json).await,
        Command::Doctor(arguments) => arguments.run(profile.as_deref(), json).await,
        Command::Whoami => session()?.show(&["v1", "whoami"], &["identity", "role", "fleets"]).await,
        // `dispatch` took these.
        Command::Up(_)
        | Command::Init(_)
        | Command::Serve(_)
        | Command::Completions { .. }
        | Command::Root(root::RootCommand::Offline(_)) => Ok(()),
    }
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "fleetmark", &mut script);
    print(&String::from_utf8_lossy(&script))
}

#[cfg(test)]
mod tests;
