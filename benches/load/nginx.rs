//! nginx with `ssl_crl`, as the limit for a gateway: the same handshake, judged by a list.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

use crate::Outcome;
use crate::client::Client;
use crate::rounds::count;
use crate::server::{cpu_of, free_port};

/// Microseconds of nginx's CPU for a full handshake with one request, with so many certificates on its list.
pub async fn handshakes(revoked: usize, number: usize) -> Outcome<f64> {
    let directory = tempfile::tempdir()?;
    let key = KeyPair::generate()?;
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = authority.self_signed(&key)?;
    let issuer = Issuer::new(authority, key);
    let issue = |name: &str| -> Outcome<_> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        // OpenSSL takes one whose subject is its issuer for self-signed.
        params.distinguished_name.push(DnType::CommonName, name);
        Ok((params.signed_by(&key, &issuer)?, key))
    };
    let (certificate, server_key) = issue("localhost")?;
    let (client, client_key) = issue("client")?;
    let file = |name: &str, text: String| fs::write(directory.path().join(name), text);
    file("ca.pem", root.pem())?;
    file("cert.pem", certificate.pem())?;
    file("key.pem", server_key.serialize_pem())?;
    file("crl.pem", list(revoked, &issuer)?)?;
    let port = free_port()?;
    let at = directory.path().display();
    // A resumed session is not judged by the list again: no tickets and no cache, as at our gateway.
    file(
        "nginx.conf",
        format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/error; events {{}}\n\
             http {{ access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;\n\
             uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;\n\
             server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {at}/cert.pem; ssl_certificate_key {at}/key.pem;\n\
             ssl_client_certificate {at}/ca.pem; ssl_crl {at}/crl.pem; ssl_verify_client on; ssl_protocols TLSv1.3;\n\
             ssl_session_tickets off; ssl_session_cache off; location / {{ return 200 ok; }} }} }}\n"
        ),
    )?;
    let mut roots = RootCertStore::empty();
    roots.add(root.der().clone())?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(client_key.serialize_der()));
    let config =
        ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(vec![client.der().clone()], key)?;
    let config = Arc::new(config);
    let nginx = Running(
        Command::new(if fs::exists("/usr/sbin/nginx")? { "/usr/sbin/nginx" } else { "nginx" })
            .args(["-e", &format!("{at}/error"), "-c", &format!("{at}/nginx.conf"), "-p", &at.to_string()])
            .stdin(Stdio::null())
            .spawn()?,
    );
    let mut tries = 0;
    while let Err(error) = ask(port, &config).await {
        tries += 1;
        if tries > 100 {
            return Err(format!("nginx: {error}: {}", fs::read_to_string(directory.path().join("error"))?).into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let begin = cpu_of(nginx.0.id())?;
    for _ in 0..number {
        ask(port, &config).await?;
    }
    Ok((cpu_of(nginx.0.id())? - begin) * 1e6 / count(number))
}

/// nginx without TLS, which gives these octets at `/answer`.
pub struct Giving {
    process: Running,
    _directory: tempfile::TempDir,
    pub port: u16,
}

impl Giving {
    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.0.id()
    }
}

/// Starts it.
pub async fn giving(octets: &[u8]) -> Outcome<Giving> {
    let directory = tempfile::tempdir()?;
    fs::write(directory.path().join("answer"), octets)?;
    let port = free_port()?;
    let at = directory.path().display();
    // It reads the file once, as the server that it is held against keeps its answers.
    let user = if fs::metadata("/proc/self")?.uid() == 0 { "user root;" } else { "" };
    fs::write(
        directory.path().join("nginx.conf"),
        format!(
            "{user} daemon off; master_process off; pid {at}/pid; error_log {at}/error; events {{}}\n\
             http {{ access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;\n\
             uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi; keepalive_requests 100000000; open_file_cache max=16;\n\
             default_type application/ocsp-response;\n\
             server {{ listen 127.0.0.1:{port}; root {at}; }} }}\n"
        ),
    )?;
    let process = Running(
        Command::new(if fs::exists("/usr/sbin/nginx")? { "/usr/sbin/nginx" } else { "nginx" })
            .args(["-e", &format!("{at}/error"), "-c", &format!("{at}/nginx.conf"), "-p", &at.to_string()])
            .stdin(Stdio::null())
            .spawn()?,
    );
    for _ in 0..100 {
        if let Ok(mut client) = Client::plain(port).await
            && client.get("/answer").await.is_ok_and(|answer| answer.0 == octets)
        {
            return Ok(Giving { process, _directory: directory, port });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(format!("nginx: {}", fs::read_to_string(directory.path().join("error"))?).into())
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has nothing worth keeping.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn ask(port: u16, config: &Arc<ClientConfig>) -> Outcome<()> {
    Client::tls(port, config).await?.get("/").await.map(drop)
}

#[expect(clippy::disallowed_methods, reason = "nginx asks the wall clock whether the list is of today")]
fn list(revoked: usize, issuer: &Issuer<'_, KeyPair>) -> Outcome<String> {
    let now = OffsetDateTime::now_utc();
    let entry = |number: usize| RevokedCertParams {
        serial_number: SerialNumber::from_slice(&[&[1; 9][..], &number.to_be_bytes()].concat()),
        revocation_time: now,
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: now - time::Duration::hours(1),
        next_update: now + time::Duration::days(7),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: (0..revoked).map(entry).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    Ok(params.signed_by(issuer)?.pem()?)
}
