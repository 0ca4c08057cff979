//! The program `fleetmark-device`: arguments in, one answer out, an exit code.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use fleetmark_domain::{Fingerprint, FleetName, Name, Refusal};
use serde_json::{Value, json};
use tracing_subscriber::EnvFilter;

use crate::agent::{Agent, Confirmation, Enrollment, OwnStanding, Renewal, Setup, Status, TrustUpdate, status};
use crate::backoff;
use crate::client::Token;
use crate::clock::{Clock, SystemClock};
use crate::door::{Door, ServerUrl};
use crate::error::Error;
use crate::proof::{DerivedKey, Presented, Proof};
use crate::store::Generation;

/// Where a token may stand instead of the command line, which every process of the machine can read.
const TOKEN_VARIABLE: &str = "FLEETMARK_TOKEN";
/// A token file is not larger, in octets.
const MAX_TOKEN_FILE: u64 = 4096;

const EXIT_CODES: &str = "Exit codes: 0 done; 2 usage; 3 refused by the server for good; 4 try again later; \
                          5 the server is not trusted; 6 local files.";

/// Gives this device its identity and keeps it alive.
#[derive(Debug, Parser)]
#[command(name = "fleetmark-device", version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// One JSON object on standard output instead of text.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key, show a proof, take the certificate into use and confirm it.
    Enroll {
        #[command(flatten)]
        directory: Directory,
        #[command(flatten)]
        server: ServerArguments,
        #[command(flatten)]
        proof: ProofArguments,
        /// Wait until an operator has approved this device, instead of ending with exit code 4.
        #[arg(long)]
        wait: bool,
        /// Ask for a new certificate although the directory holds one.
        #[arg(long)]
        replace: bool,
    },
    /// Renew the certificate with a new key, if it is due, and confirm the new one.
    Renew {
        #[command(flatten)]
        directory: Directory,
        /// Renew although it is not due.
        #[arg(long)]
        force: bool,
    },
    /// Enroll if needed, confirm if needed, then renew when it is due, until SIGTERM.
    Run {
        #[command(flatten)]
        directory: Directory,
        #[command(flatten)]
        server: ServerArguments,
        #[command(flatten)]
        proof: ProofArguments,
    },
    /// Ask the server what the certificate in use is worth, and what to do. Works with one that opens no door any more.
    Standing {
        #[command(flatten)]
        directory: Directory,
    },
    /// The roots that this device trusts.
    #[command(subcommand)]
    Trust(TrustCommand),
    /// Say what is in the directory. Asks nobody.
    Status {
        #[command(flatten)]
        directory: Directory,
    },
}

#[derive(Debug, Subcommand)]
enum TrustCommand {
    /// Follow the server's trust bundles from the roots that are here to those of today.
    Update {
        #[command(flatten)]
        directory: Directory,
    },
}

#[derive(Debug, Args)]
struct Directory {
    /// Where key and certificate are kept; `DIR/current` leads to those in use.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
struct ServerArguments {
    /// The server's device door, such as <https://ca.example:8443>. A directory that was set up before knows it.
    #[arg(long, value_name = "URL", requires = "ca_fingerprint")]
    server: Option<String>,
    /// SHA-256 of the root certificate, in hexadecimal, with or without colons.
    #[arg(long, value_name = "HEX", requires = "server")]
    ca_fingerprint: Option<String>,
    /// The fleet to enroll into.
    #[arg(long, default_value = "default", requires = "server", conflicts_with = "installation")]
    fleet: String,
    /// The device's name; may be left out when the token is bound to one.
    #[arg(long, requires = "server")]
    name: Option<String>,
    /// Enroll a gateway, service or operator of the installation, as the token says, instead of a fleet's device.
    #[arg(long, requires = "server")]
    installation: bool,
}

/// What the device shows. One of these.
#[derive(Debug, Args)]
struct ProofArguments {
    #[command(flatten)]
    token: TokenArguments,
    /// A certificate to connect with, PEM: a maker's (IDevID) with its chain, or a claim certificate.
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with_all = ["token", "token_file"])]
    cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// A file that holds this device's derived key, hexadecimal or base64.
    #[arg(long, value_name = "FILE", requires = "group", conflicts_with_all = ["token", "token_file", "cert"])]
    derived_key: Option<PathBuf>,
    /// Show nothing: an operator is to approve this device.
    #[arg(long, conflicts_with_all = ["token", "token_file", "cert", "derived_key"])]
    approval: bool,
    /// The enrollment group of --derived-key or --approval.
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
}

impl ProofArguments {
    fn proof(&self) -> Result<Option<Proof>, Error> {
        let group = || {
            let group = self.group.as_deref().map(str::parse::<Name>).transpose();
            group.map_err(|why| Error::Usage(format!("--group: {why}")))
        };
        if let (Some(certificate), Some(key)) = (&self.cert, &self.key) {
            return Ok(Some(Proof::Certificate(Presented::from_files(certificate, key)?)));
        }
        if let Some(path) = &self.derived_key {
            let group = group()?.ok_or_else(|| Error::Usage("--derived-key needs --group".to_owned()))?;
            return Ok(Some(Proof::DerivedKey(DerivedKey::from_file(group, path)?)));
        }
        if self.approval {
            return Ok(Some(Proof::Approval { group: group()? }));
        }
        Ok(self.token.token()?.map(Proof::Token))
    }
}

#[derive(Args)]
struct TokenArguments {
    /// The enrollment token. Better given by --token-file or in `FLEETMARK_TOKEN`: other processes can read this.
    #[arg(long, conflicts_with = "token_file")]
    token: Option<String>,
    /// A file that holds the enrollment token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl std::fmt::Debug for TokenArguments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenArguments").field("token_file", &self.token_file).finish_non_exhaustive()
    }
}

impl ServerArguments {
    /// The setup, or none when the directory is to say it.
    fn setup(&self) -> Result<Option<Setup>, Error> {
        let (Some(server), Some(pin)) = (&self.server, &self.ca_fingerprint) else { return Ok(None) };
        let refuse = |what: &str, text: &str, why: &dyn std::fmt::Display| Error::Usage(format!("{what} {text:?}: {why}"));
        // `openssl x509 -fingerprint` writes a label and an equals sign before it.
        let pin = pin.rsplit('=').next().unwrap_or_default().trim();
        let ca_fingerprint: Fingerprint = pin.parse().map_err(|why| refuse("--ca-fingerprint", pin, &why))?;
        let door = if self.installation {
            Door::Installation
        } else {
            Door::Fleet(self.fleet.parse::<FleetName>().map_err(|why| refuse("--fleet", &self.fleet, &why))?)
        };
        let name = match &self.name {
            Some(text) => Some(text.parse::<Name>().map_err(|why| refuse("--name", text, &why))?),
            None => None,
        };
        let server: ServerUrl = server.parse()?;
        Ok(Some(Setup { server, ca_fingerprint, door, name }))
    }
}

impl TokenArguments {
    /// The token, from the command line, a file or the environment, in this order.
    fn token(&self) -> Result<Option<Token>, Error> {
        if let Some(text) = &self.token {
            return Token::new(text).map(Some);
        }
        if let Some(path) = &self.token_file {
            return read_token(path).map(Some);
        }
        match std::env::var(TOKEN_VARIABLE) {
            Ok(text) => Token::new(&text).map(Some),
            Err(_) => Ok(None),
        }
    }
}

fn read_token(path: &Path) -> Result<Token, Error> {
    let size = std::fs::metadata(path).map_err(|error| Error::file(path, error))?.len();
    if size > MAX_TOKEN_FILE {
        return Err(Error::damaged(path, "too large for a token"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| Error::file(path, error))?;
    Token::new(&text)
}

/// What a command came to: a sentence, and the same as JSON.
struct Report {
    text: String,
    json: Value,
}

/// Runs the program.
pub fn main() -> ExitCode {
    // clap ends the process itself with 2 for bad arguments, and 0 for --help.
    ExitCode::from(program(&Arguments::parse()))
}

/// Does what `arguments` say, prints what came of it, and returns the exit code.
fn program(arguments: &Arguments) -> u8 {
    let filter = EnvFilter::try_from_env("FLEETMARK_LOG").unwrap_or_else(|_| EnvFilter::new("warn,fleetmark_device=info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .init();
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::file(Path::new("/"), error))
        .and_then(|runtime| runtime.block_on(act(&arguments.command)));
    match outcome {
        Ok(report) => {
            print(&if arguments.json { report.json.to_string() } else { report.text });
            0
        }
        Err(error) => {
            if arguments.json {
                print(&error_json(&error).to_string());
            } else {
                eprintln!("fleetmark-device: {}: {error}\n  {}", error.code(), error.advice());
            }
            error.exit_code()
        }
    }
}

/// A reader that went away is no reason to fail: the work is done.
fn print(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn error_json(error: &Error) -> Value {
    let (status, retry_after) = match error {
        Error::Refused(refused) => (Some(refused.status), refused.retry_after.map(|wait| wait.as_secs())),
        _ => (None, None),
    };
    json!({ "ok": false, "code": error.code(), "message": error.to_string(), "advice": error.advice(),
        "status": status, "retry_after_seconds": retry_after, "exit_code": error.exit_code() })
}

async fn act(command: &Command) -> Result<Report, Error> {
    let clock = Arc::new(SystemClock::default());
    match command {
        Command::Enroll { directory, server, proof, wait, replace } => {
            let missing = || {
                Error::Usage(format!(
                    "a proof is needed: --token, --token-file, {TOKEN_VARIABLE}, --cert and --key, --derived-key or --approval"
                ))
            };
            let proof = proof.proof()?.ok_or_else(missing)?;
            let mut agent = match server.setup()? {
                Some(setup) => Agent::set_up(&directory.dir, &setup, clock).await?,
                None => Agent::open(&directory.dir, clock)?,
            };
            let word = match enroll(&mut agent, &proof, *replace, *wait).await? {
                Enrollment::Already(_) => "already enrolled",
                Enrollment::Enrolled(_) => "enrolled",
            };
            confirm(&mut agent, word).await
        }
        Command::Renew { directory, force } => {
            let mut agent = Agent::open(&directory.dir, clock)?;
            // One that was left unconfirmed is settled first.
            if agent.current()?.is_some() {
                agent.confirm().await?;
            }
            let word = match agent.renew(*force).await? {
                Renewal::NotDue(_) => "not due",
                Renewal::Renewed(_) => "renewed",
            };
            confirm(&mut agent, word).await
        }
        Command::Trust(TrustCommand::Update { directory }) => {
            let mut agent = Agent::open(&directory.dir, clock)?;
            let update = agent.update_trust().await?;
            let roots = agent.store().roots()?.map(|roots| roots.fingerprints()).unwrap_or_default();
            let (word, number) = match update {
                TrustUpdate::Unchanged => ("unchanged", agent.store().trust()?.map_or(0, |trust| trust.number)),
                TrustUpdate::Updated(number) => ("updated", number),
            };
            let mut text = format!("{word}: trust bundle {number}");
            for root in &roots {
                // Writing to a string does not fail.
                let _ = write!(text, "\n  root         {root}");
            }
            let json = json!({ "ok": true, "outcome": word, "number": number, "roots": roots });
            Ok(Report { text, json })
        }
        Command::Run { directory, server, proof } => run(directory, server, proof, clock).await,
        Command::Standing { directory } => {
            let told = Agent::open(&directory.dir, clock)?.standing().await?;
            let json = serde_json::to_value(&told).map_err(|error| Error::Crypto(error.to_string()))?;
            Ok(Report { text: standing_text(&told), json })
        }
        Command::Status { directory } => {
            let status = status(&directory.dir, &*clock)?;
            let json = serde_json::to_value(&status).map_err(|error| Error::Crypto(error.to_string()))?;
            Ok(Report { text: status_text(&status), json })
        }
    }
}

/// Enrolls; where a person must approve it, and the caller wants to wait, as often as the server says.
async fn enroll(agent: &mut Agent, proof: &Proof, replace: bool, wait: bool) -> Result<Enrollment, Error> {
    loop {
        match agent.enroll(proof, replace).await {
            Err(Error::Refused(refused)) if wait && refused.refusal() == Some(Refusal::ApprovalPending) => {
                let asked = refused.retry_after.unwrap_or(backoff::SLOW);
                tracing::info!(seconds = asked.as_secs(), "waiting until an operator approves this device");
                tokio::time::sleep(backoff::asked(asked, backoff::roll())).await;
            }
            outcome => return outcome,
        }
    }
}

async fn confirm(agent: &mut Agent, word: &str) -> Result<Report, Error> {
    let (Confirmation::Already(generation) | Confirmation::Confirmed(generation)) = agent.confirm().await?;
    Ok(report(agent, word, &generation))
}

fn report(agent: &Agent, word: &str, generation: &Generation) -> Report {
    let record = &generation.record;
    let files = agent.store().dir().join("current");
    let text = format!(
        "{word}: {}\n  serial       {}\n  valid until  {}\n  renew after  {}\n  files        {}",
        record.identity,
        record.serial,
        record.not_after,
        record.renew_after,
        files.display()
    );
    let json = json!({ "ok": true, "outcome": word.replace(' ', "_"), "identity": record.identity, "serial": record.serial.to_string(),
        "fingerprint": record.fingerprint, "generation": record.generation, "confirmed": record.confirmed,
        "not_before": record.not_before, "not_after": record.not_after, "renew_after": record.renew_after,
        "files": files, "clock_behind_seconds": agent.time().wall_behind() });
    Report { text, json }
}

async fn run(
    directory: &Directory,
    server: &ServerArguments,
    proof: &ProofArguments,
    clock: Arc<dyn Clock>,
) -> Result<Report, Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|error| Error::file(Path::new("/"), error));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let mut shutdown = std::pin::pin!(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    });
    // A proof that is not needed any more may be gone.
    let proof = proof.proof();
    let stopped = || Report { text: "stopped".to_owned(), json: json!({ "ok": true, "outcome": "stopped" }) };
    let mut agent = match server.setup()? {
        None => Agent::open(&directory.dir, clock)?,
        Some(setup) => tokio::select! {
            () = &mut shutdown => return Ok(stopped()),
            agent = Agent::set_up_patiently(&directory.dir, &setup, clock) => agent?,
        },
    };
    let proof = if agent.current()?.is_some() { proof.unwrap_or_default() } else { proof? };
    agent.run(proof.as_ref(), shutdown).await?;
    Ok(stopped())
}

fn standing_text(told: &OwnStanding) -> String {
    let reason = told.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!(
        "standing     {}{reason}\ndo           {}\nserial       {}\nserver time  {}\nask again    {}",
        told.standing,
        told.action.replace('_', " "),
        told.serial,
        told.server_time,
        told.ask_again_at
    )
}

fn status_text(status: &Status) -> String {
    let mut text = format!("state        {}", status.state);
    let mut line = |label: &str, value: &str| {
        let _ = write!(text, "\n{label:<13}{value}");
    };
    if let Some(server) = &status.server {
        line("server", server);
    }
    for root in &status.roots {
        line("root", &root.to_string());
    }
    if let Some(certificate) = &status.certificate {
        line("identity", &certificate.identity);
        line("serial", &certificate.serial.to_string());
        line("generation", &certificate.generation.to_string());
        line("confirmed", if certificate.confirmed { "yes" } else { "no" });
        line("valid from", &certificate.not_before.to_string());
        line("valid until", &certificate.not_after.to_string());
        line("renew after", &certificate.renew_after.to_string());
        line("files", &certificate.files.display().to_string());
    }
    line("pending", if status.pending { "yes" } else { "no" });
    line("now", &status.now.to_string());
    if let Some(behind) = status.clock_behind_seconds {
        line("clock", &format!("{behind} s behind the server at its newest answer"));
    }
    text
}

#[cfg(test)]
mod tests;
