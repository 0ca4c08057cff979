//! A follower of the ledger feed, held in a test's hand.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::client::Identity;
use super::server::Server;

const PATIENCE: Duration = Duration::from_secs(30);

/// An event of the stream.
#[derive(Debug, Clone)]
pub struct Event {
    pub id: Option<String>,
    pub name: String,
    pub data: Value,
}

impl Event {
    pub fn ledger(&self) -> &str {
        self.data["ledger"].as_str().unwrap()
    }

    /// The size that a checkpoint states.
    pub fn size(&self) -> u64 {
        self.data["checkpoint"].as_str().unwrap().lines().nth(1).unwrap().parse().unwrap()
    }

    pub fn position(&self) -> u64 {
        self.data["position"].as_u64().unwrap()
    }

    pub fn entry(&self) -> Vec<u8> {
        STANDARD.decode(self.data["entry"].as_str().unwrap()).unwrap()
    }
}

/// An open stream.
pub struct Feed {
    stream: TlsStream<tokio::net::TcpStream>,
    pub head: String,
    /// Octets as they came, in chunks.
    raw: Vec<u8>,
    text: String,
    pub last_id: String,
}

impl Feed {
    /// Opens a stream; `since` is a `Last-Event-ID`.
    pub async fn open(server: &Server, identity: &Identity, query: &str, since: Option<&str>) -> Self {
        Self::try_open(server, identity, query, since).await.unwrap_or_else(|head| panic!("{head}"))
    }

    /// As [`Self::open`]; an error is the head of the answer.
    pub async fn try_open(server: &Server, identity: &Identity, query: &str, since: Option<&str>) -> Result<Self, String> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        let tcp = socket.connect(([127, 0, 0, 1], server.device_port).into()).await.unwrap();
        let config = Arc::new(server.trust().config(Some(identity)));
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(config).connect(name, tcp).await.unwrap();
        let since = since.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        let head = format!("GET /v1/feed{query} HTTP/1.1\r\nhost: localhost\r\naccept-encoding: gzip\r\n{since}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut feed = Self { stream, head: String::new(), raw: Vec::new(), text: String::new(), last_id: String::new() };
        let end = loop {
            match feed.raw.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(end) => break end + 4,
                None => assert!(feed.read().await, "the connection ended before an answer"),
            }
        };
        feed.head = String::from_utf8(feed.raw.drain(..end).collect()).unwrap().to_ascii_lowercase();
        if feed.head.starts_with("http/1.1 200 ") { Ok(feed) } else { Err(feed.head) }
    }

    /// The next event; None at the end of the stream.
    pub async fn next(&mut self) -> Option<Event> {
        timeout(PATIENCE, self.receive()).await.expect("no event in time")
    }

    async fn receive(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (parse(event), rest.to_owned());
                self.text = rest;
                self.last_id = event.id.clone().unwrap_or_else(|| self.last_id.clone());
                return Some(event);
            }
            if !self.dechunk() && !self.read().await {
                return None;
            }
        }
    }

    /// The next event of this name and ledger; those before it are passed over.
    pub async fn find(&mut self, name: &str, ledger: &str) -> Event {
        loop {
            let event = self.next().await.expect("the stream ended");
            if event.name == name && event.ledger() == ledger {
                return event;
            }
        }
    }

    /// Reads to the end of the stream.
    pub async fn ends(&mut self) {
        while self.next().await.is_some() {}
    }

    /// Moves a whole chunk to the text.
    fn dechunk(&mut self) -> bool {
        let Some(line) = self.raw.windows(2).position(|window| window == b"\r\n") else { return false };
        let length = usize::from_str_radix(std::str::from_utf8(&self.raw[..line]).unwrap(), 16).unwrap();
        let end = line + 2 + length + 2;
        if length == 0 || self.raw.len() < end {
            return false;
        }
        let chunk: Vec<_> = self.raw.drain(..end).skip(line + 2).take(length).collect();
        self.text.push_str(&String::from_utf8(chunk).unwrap());
        true
    }

    async fn read(&mut self) -> bool {
        let mut part = [0; 4_096];
        match self.stream.read(&mut part).await {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.raw.extend_from_slice(&part[..count]);
                true
            }
        }
    }
}

fn parse(event: &str) -> Event {
    let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned);
    assert!(event.lines().all(|line| ["id: ", "event: ", "data: "].iter().any(|field| line.starts_with(field))), "{event}");
    Event {
        id: field("id"),
        name: field("event").expect(event),
        data: serde_json::from_str(&field("data").expect(event)).expect(event),
    }
}
