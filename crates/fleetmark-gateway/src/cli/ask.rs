//! Questions to the running gateway, over its verdict endpoint.

use std::fmt::Write as _;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, ValueEnum};
use fleetmark_device::Error;
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};

use super::failure::Failure;
use super::{Report, read_file};
use crate::config::{Config, Place};
use crate::endpoint::{Answer, Question, Status};

/// How long an answer may take: longer than the gateway waits for news of a certificate that it does not know.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest certificate file, in octets.
const MAX_CERTIFICATE: u64 = 24 * 1024;
/// The largest answer, in octets.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

#[derive(Debug, Args)]
pub(super) struct Asked {
    /// The certificate, PEM or DER; `-` reads standard input.
    certificate: PathBuf,
    /// What it is to do.
    #[arg(long, value_enum, default_value = "connect")]
    action: Action,
    /// The topic, of publish, subscribe and command.
    #[arg(long)]
    topic: Option<String>,
    /// The peer's address.
    #[arg(long)]
    source: Option<IpAddr>,
    /// What is spoken, such as `mqtt`.
    #[arg(long)]
    protocol: Option<String>,
    /// The device's firmware version.
    #[arg(long)]
    firmware: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Action {
    Connect,
    Publish,
    Subscribe,
    Command,
}

/// Exit code 0 when it is allowed, 3 when it is denied.
pub(super) async fn check(config: &Config, check: &Asked) -> Result<Report, Failure> {
    let octets = if check.certificate.as_os_str() == "-" {
        let mut octets = Vec::new();
        let read = std::io::stdin().take(MAX_CERTIFICATE).read_to_end(&mut octets);
        read.map_err(|error| Error::file(&check.certificate, error))?;
        octets
    } else {
        read_file(&check.certificate, MAX_CERTIFICATE)?
    };
    let certificate = if octets.starts_with(&[0x30]) {
        STANDARD.encode(&octets)
    } else {
        String::from_utf8(octets).map_err(|_| Error::damaged(&check.certificate, "neither PEM nor DER"))?
    };
    let question = Question {
        certificate: Some(certificate),
        action: format!("{:?}", check.action).to_lowercase(),
        topic: check.topic.clone(),
        source: check.source,
        protocol: check.protocol.clone(),
        firmware: check.firmware.clone(),
        // Whoever has only the certificate has not shown its key.
        sighting: Some(false),
        ..Question::default()
    };
    let body = ask(config, Method::POST, "/v1/verdict", Some(&question)).await?;
    let answer: Answer = parse(&body)?;
    let exit = if answer.decision == "allow" { 0 } else { 3 };
    Ok(Report { text: text_of(&answer), json: serde_json::to_value(&answer).unwrap_or(Value::Null), exit })
}

fn text_of(answer: &Answer) -> String {
    let mut text = format!("{}: {}", answer.decision, answer.reason);
    let mut line = |label: &str, value: &str| {
        let _ = write!(text, "\n  {label:<13}{value}");
    };
    line("identity", answer.identity.as_deref().unwrap_or("not sure"));
    line("standing", answer.standing.as_deref().unwrap_or("not sure"));
    if !answer.policies.is_empty() {
        line("policies", &answer.policies.join(", "));
    }
    if let Some(ledger) = &answer.ledger {
        line("ledger", &format!("{ledger}, {} entries, {} ms old", answer.position, answer.age_ms));
    }
    line("valid until", &answer.valid_until.to_string());
    text
}

pub(super) async fn status(config: &Config) -> Result<Report, Failure> {
    let body = ask(config, Method::GET, "/v1/status", None).await?;
    let status: Status = parse(&body)?;
    let mut text = format!("fleetmark-gateway {} at {}", status.version, status.time);
    if let Some(own) = &status.identity {
        let _ = write!(text, "\n{}, until {}, renewed after {}", own.identity, own.not_after, own.renew_after);
    }
    for ledger in &status.ledgers {
        let word = match (ledger.broken, ledger.stale) {
            (true, _) => "broken",
            (_, true) => "stale",
            _ => "fresh",
        };
        let age = ledger.age_ms.map_or_else(|| "never verified".to_owned(), |age| format!("{age} ms old"));
        let _ = write!(text, "\nledger {:<16} {word:<7} {} entries, {age}", ledger.ledger, ledger.position);
    }
    for proxy in &status.proxies {
        let _ = write!(text, "\nproxy  {} to {}: {} connections", proxy.listen, proxy.upstream, proxy.connections);
    }
    Ok(Report::done(text, serde_json::to_value(&status).unwrap_or_else(|_| json!({}))))
}

fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    let bad = |error: serde_json::Error| Failure::new("bad_answer", error.to_string(), "Is it a gateway of this version?", 5);
    serde_json::from_slice(body).map_err(bad)
}

async fn ask(config: &Config, method: Method, path: &str, question: Option<&Question>) -> Result<Vec<u8>, Failure> {
    const ADVICE: &str = "Is the gateway running, with this configuration? Its log tells why it is not.";
    let place = &config.verdicts.listen;
    let away = |error: &reqwest::Error| Failure::new("gateway_unreachable", format!("{place}: {error}"), ADVICE, 4);
    let builder = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(TIMEOUT);
    let (builder, origin) = match place {
        Place::Unix(path) => (builder.unix_socket(path.as_path()), "http://gateway".to_owned()),
        Place::Tcp(address) => (builder, format!("http://{address}")),
    };
    let client = builder.build().map_err(|error| away(&error))?;
    let mut request = client.request(method, format!("{origin}{path}"));
    if let Some(question) = question {
        request = request.json(question);
    }
    let response = request.send().await.map_err(|error| away(&error))?;
    let status = response.status();
    let body = collect(response).await.map_err(|error| away(&error))?;
    if status.is_success() {
        return Ok(body);
    }
    let problem: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let word = |field: &str| problem.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (code, message) = (word("code"), format!("{} {}", word("title"), word("detail")));
    let exit = if status.is_server_error() { 4 } else { 2 };
    Err(Failure::new(&code, message.trim().to_owned(), "docs/gateway.md says what the endpoint takes.", exit))
}

async fn collect(mut response: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await? {
        if body.len().saturating_add(part.len()) > MAX_ANSWER {
            break;
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}
