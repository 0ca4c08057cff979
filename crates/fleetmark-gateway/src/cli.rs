//! The program `fleetmark-gateway`: arguments in, one answer out, an exit code.

mod ask;
mod failure;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use fleetmark_device::{Agent, Door, Enrollment, Error, ServerUrl, Setup, SystemClock, Token};
use fleetmark_domain::{Fingerprint, LedgerName, Name};
use serde_json::{Value, json};
use tracing_subscriber::filter::EnvFilter;

use self::failure::Failure;
use crate::config::{self, Config, LogFormat};
use crate::disk::DiskError;
use crate::{daemon, follow, identity};

/// Where a token may stand instead of the command line, which every process of the machine can read.
const TOKEN_VARIABLE: &str = "FLEETMARK_TOKEN";
/// Neither a token's file nor an operator's word is larger, in octets.
const MAX_TOKEN_FILE: u64 = 4096;
const MAX_WORD_FILE: u64 = 64 * 1024;

const EXIT_CODES: &str = "Exit codes: 0 done, or allowed; 2 usage or configuration; 3 refused for good, or denied; 4 try again \
                          later; 5 the server is not trusted; 6 local files.";

/// Answers who may, without asking the server, and stands with mTLS in front of services.
#[derive(Debug, Parser)]
#[command(name = "fleetmark-gateway", version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// One JSON object on standard output instead of text.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Get this gateway its identity, and pin the keys of the ledgers that it may follow.
    Enroll(Enroll),
    /// Follow the ledgers, answer, and stand in front of services, until SIGTERM.
    Run {
        #[command(flatten)]
        config: File,
    },
    /// Ask the running gateway what it would say to a certificate.
    Check {
        #[command(flatten)]
        config: File,
        #[command(flatten)]
        question: ask::Asked,
    },
    /// Ask the running gateway how far it has followed, and whom it serves.
    Status {
        #[command(flatten)]
        config: File,
    },
    /// Hand the running gateway an operator's signed word that the server was restored from a backup.
    AcceptRestored {
        #[command(flatten)]
        config: File,
        /// The ledger whose shorter history is to be believed.
        ledger: String,
        /// The file with the word; docs/gateway.md has its form.
        word: PathBuf,
    },
}

#[derive(Debug, Args)]
struct File {
    /// The configuration.
    #[arg(long, value_name = "FILE", env = "FLEETMARK_GATEWAY_CONFIG", default_value = "/etc/fleetmark-gateway/gateway.toml")]
    config: PathBuf,
}

impl File {
    fn read(&self) -> Result<Config, Failure> {
        Ok(Config::read(&self.config)?)
    }
}

#[derive(Args)]
struct Enroll {
    /// The server's device door, such as <https://ca.example:8443>.
    #[arg(long, value_name = "URL")]
    server: String,
    /// SHA-256 of the root certificate, in hexadecimal, with or without colons.
    #[arg(long, value_name = "HEX")]
    ca_fingerprint: String,
    /// The enrollment token. Better given by --token-file or in `FLEETMARK_TOKEN`: other processes can read this.
    #[arg(long, conflicts_with = "token_file")]
    token: Option<String>,
    /// A file that holds the enrollment token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The gateway's directory: `dir` of gateway.toml.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The gateway's name; may be left out when the token is bound to one.
    #[arg(long)]
    name: Option<String>,
    /// Ask for a new certificate although the directory holds one.
    #[arg(long)]
    replace: bool,
}

impl std::fmt::Debug for Enroll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enroll").field("server", &self.server).field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// What a command came to: a sentence, the same as JSON, and the exit code.
struct Report {
    text: String,
    json: Value,
    exit: u8,
}

impl Report {
    fn done(text: impl Into<String>, json: Value) -> Self {
        Self { text: text.into(), json, exit: 0 }
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    // Refused where this process has one already, which then counts.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // clap ends the process itself with 2 for bad arguments, and 0 for --help.
    ExitCode::from(program(&Arguments::parse()))
}

fn program(arguments: &Arguments) -> u8 {
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::from(Error::file(Path::new("/"), error)))
        .and_then(|runtime| runtime.block_on(act(&arguments.command)));
    match outcome {
        Ok(report) => {
            print(&if arguments.json { report.json.to_string() } else { report.text });
            report.exit
        }
        Err(failure) => {
            if arguments.json {
                print(&failure.json().to_string());
            } else {
                eprintln!("fleetmark-gateway: {failure}");
            }
            failure.exit
        }
    }
}

/// A reader that went away is no reason to fail: the work is done.
fn print(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Logs go to standard error. `FLEETMARK_LOG` goes before the configuration.
fn start_logs(level: &str, format: LogFormat) {
    let filter = EnvFilter::try_from_env("FLEETMARK_LOG").or_else(|_| EnvFilter::try_new(level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| EnvFilter::new("info")))
        .with_writer(std::io::stderr);
    // Refused where something in this process logs already, which then goes on.
    let _ = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
    };
}

async fn act(command: &Command) -> Result<Report, Failure> {
    match command {
        Command::Enroll(arguments) => {
            start_logs("warn,fleetmark_gateway=info,fleetmark_device=info", LogFormat::Text);
            enroll(arguments).await
        }
        Command::Run { config } => {
            let config = config.read()?;
            start_logs(&config.log_level, config.log_format);
            run(&config).await
        }
        Command::Check { config, question } => ask::check(&config.read()?, question).await,
        Command::Status { config } => ask::status(&config.read()?).await,
        Command::AcceptRestored { config, ledger, word } => accept_restored(&config.read()?, ledger, word),
    }
}

async fn run(config: &Config) -> Result<Report, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|error| Error::file(Path::new("/"), error));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let stop = async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    };
    daemon::run(config, stop).await?;
    Ok(Report::done("stopped", json!({ "ok": true, "outcome": "stopped" })))
}

async fn enroll(arguments: &Enroll) -> Result<Report, Failure> {
    let (setup, token) = (setup(arguments)?, token(arguments)?);
    let dir = config::identity_dir(&arguments.dir);
    std::fs::create_dir_all(&arguments.dir).map_err(|error| Error::file(&arguments.dir, error))?;
    let mut agent = Agent::set_up(&dir, &setup, Arc::new(SystemClock::default())).await?;
    let word = match agent.enroll(&token.into(), arguments.replace).await? {
        Enrollment::Already(_) => "already enrolled",
        Enrollment::Enrolled(_) => "enrolled",
    };
    agent.confirm().await?;
    drop(agent);
    let (own, origin, _keeper) = identity::open(&dir, &[])?;
    let pins = follow::pin(&daemon::follow_setup(&arguments.dir, None, &own, &origin)).await?;
    let status = own.status();
    let ledgers: Vec<_> = pins.ledgers.keys().cloned().collect();
    let text = format!(
        "{word}: {}\n  valid until  {}\n  ledgers      {}\n  directory    {}",
        status.identity,
        status.not_after,
        ledgers.join(", "),
        arguments.dir.display()
    );
    let json = json!({ "ok": true, "outcome": word.replace(' ', "_"), "identity": status.identity, "not_after": status.not_after,
        "renew_after": status.renew_after, "ledgers": pins.ledgers, "dir": arguments.dir });
    Ok(Report::done(text, json))
}

fn setup(arguments: &Enroll) -> Result<Setup, Error> {
    let refuse = |what: &str, text: &str, why: &dyn std::fmt::Display| Error::Usage(format!("{what} {text:?}: {why}"));
    // `openssl x509 -fingerprint` writes a label and an equals sign before it.
    let pin = arguments.ca_fingerprint.rsplit('=').next().unwrap_or_default().trim();
    let ca_fingerprint: Fingerprint = pin.parse().map_err(|why| refuse("--ca-fingerprint", pin, &why))?;
    let name = match &arguments.name {
        Some(text) => Some(text.parse::<Name>().map_err(|why| refuse("--name", text, &why))?),
        None => None,
    };
    let server: ServerUrl = arguments.server.parse()?;
    Ok(Setup { server, ca_fingerprint, door: Door::Installation, name })
}

/// The token, from the command line, a file or the environment, in this order.
fn token(arguments: &Enroll) -> Result<Token, Error> {
    if let Some(text) = &arguments.token {
        return Token::new(text);
    }
    if let Some(path) = &arguments.token_file {
        return Token::new(&String::from_utf8_lossy(&read_file(path, MAX_TOKEN_FILE)?));
    }
    let text = std::env::var(TOKEN_VARIABLE);
    Token::new(&text.map_err(|_| Error::Usage(format!("a token is needed: --token, --token-file or {TOKEN_VARIABLE}")))?)
}

fn read_file(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|error| Error::file(path, error))?;
    let mut octets = Vec::new();
    file.take(most + 1).read_to_end(&mut octets).map_err(|error| Error::file(path, error))?;
    let too_large = u64::try_from(octets.len()).is_ok_and(|length| length > most);
    if too_large { Err(Error::damaged(path, "it is too large")) } else { Ok(octets) }
}

fn accept_restored(config: &Config, ledger: &str, word: &Path) -> Result<Report, Failure> {
    let ledger: LedgerName = ledger.parse().map_err(|error| Error::Usage(format!("{ledger:?}: {error}")))?;
    let octets = read_file(word, MAX_WORD_FILE)?;
    follow::restore::accept_restored(&config.dir, &ledger, &octets).map_err(|error| match error {
        DiskError::Form(_) => Failure::new(
            "no_word",
            format!("{}: this is no operator's word about a restored server", word.display()),
            "An operator makes one: fleetmark ledger accept-restore LEDGER --out FILE.",
            2,
        ),
        error => Error::damaged(&config.dir, &error).into(),
    })?;
    let text = format!("laid before the gateway, which verifies it: see its log, or fleetmark-gateway status ({ledger})");
    Ok(Report::done(text, json!({ "ok": true, "outcome": "handed_over", "ledger": ledger.as_str() })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_token_is_silent() {
        let arguments = "fleetmark-gateway enroll --server https://ca:1 --ca-fingerprint 00 --token topsecret --dir d";
        let parsed = Arguments::parse_from(arguments.split(' '));
        assert!(!format!("{parsed:?}").contains("topsecret"));
    }
}
