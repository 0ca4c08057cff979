//! An HTTP/1.1 client that costs little, so that the machine's cores are the server's.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Outcome;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// One connection that stays open.
pub struct Client {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

/// The body of an answer with status 200 or 201.
pub struct Answer(pub Vec<u8>);

impl Answer {
    /// A text field of a JSON object.
    pub fn field(&self, name: &str) -> Outcome<String> {
        let value: serde_json::Value = serde_json::from_slice(&self.0)?;
        Ok(value.get(name).and_then(serde_json::Value::as_str).ok_or_else(|| format!("no field {name}"))?.to_owned())
    }
}

impl Client {
    /// Connects without TLS.
    pub async fn plain(port: u16) -> Outcome<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: Box::new(stream), buffer: Vec::new() })
    }

    /// Connects with TLS.
    pub async fn tls(port: u16, config: &Arc<ClientConfig>) -> Outcome<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let stream = TlsConnector::from(config.clone()).connect(ServerName::try_from("localhost")?, stream).await?;
        Ok(Self { stream: Box::new(stream), buffer: Vec::new() })
    }

    /// `GET path`.
    pub async fn get(&mut self, path: &str) -> Outcome<Answer> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await
    }

    /// `POST path` with JSON; `headers` are whole lines.
    pub async fn post(&mut self, path: &str, headers: &str, body: &str) -> Outcome<Answer> {
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        );
        self.send(request.as_bytes()).await
    }

    /// `PATCH path`, whatever the version of what is there.
    pub async fn patch(&mut self, path: &str, body: &str) -> Outcome<()> {
        let length = body.len();
        let head = format!(
            "PATCH {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nIf-Match: *\r\nContent-Length: {length}\r\n\r\n"
        );
        self.send(&[head.as_bytes(), body.as_bytes()].concat()).await.map(drop)
    }

    /// `POST path` with a body of any type.
    pub async fn post_octets(&mut self, path: &str, kind: &str, body: &[u8]) -> Outcome<Answer> {
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
        self.send(&[head.as_bytes(), body].concat()).await
    }

    async fn send(&mut self, request: &[u8]) -> Outcome<Answer> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        self.buffer.clear();
        loop {
            if let Some((status, body)) = whole(&self.buffer)? {
                let answer = Answer(body.to_vec());
                return if matches!(status, 200 | 201) {
                    Ok(answer)
                } else {
                    Err(format!("status {status}: {}", String::from_utf8_lossy(&answer.0)).into())
                };
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the server closed the connection".into());
            }
        }
    }
}

/// Status and body, once all of the answer is there.
fn whole(octets: &[u8]) -> Outcome<Option<(u16, &[u8])>> {
    let Some(end) = octets.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let (head, body) = octets.split_at(end + 4);
    let head = std::str::from_utf8(head)?.to_ascii_lowercase();
    let status = head.split(' ').nth(1).ok_or("no status")?.parse()?;
    let length: usize = match head.split("content-length: ").nth(1) {
        Some(rest) => rest.split("\r\n").next().ok_or("no length")?.parse()?,
        None => 0,
    };
    Ok((body.len() >= length).then_some((status, body)))
}
