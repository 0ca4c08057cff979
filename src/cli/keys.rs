//! `fleetmark key`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use fleetmark_domain::KeyHash;
use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::arguments::{Listing, object};
use super::client::Ask;
use super::failure::Failure;
use super::files::{open, unreadable};
use super::session::{Session, print};
use super::table::Column;

const COLUMNS: [Column; 3] = [Column("KEY", "key"), Column("BLOCKED", "blocked_at"), Column("REASON", "reason")];
/// The largest file of a public key, in octets.
const MAX_FILE: u64 = 64 * 1024;

/// `fleetmark key`
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Put a public key on the block list: nobody gets a certificate for it
    Block {
        #[command(flatten)]
        key: Key,
        /// For people
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Take a public key off the block list
    Unblock {
        #[command(flatten)]
        key: Key,
    },
    /// List blocked keys
    List {
        #[command(flatten)]
        listing: Listing,
    },
}

/// Which key.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Key {
    /// SHA-256 over its `SubjectPublicKeyInfo`
    #[arg(value_name = "HEX")]
    hash: Option<String>,
    /// A file with the public key in PEM, as `openssl pkey -pubout` and `openssl x509 -pubkey` write it; `-`: standard input
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
}

impl Key {
    fn hash(&self) -> Result<String, Failure> {
        match (&self.hash, &self.public_key) {
            (Some(hash), _) => {
                let parsed = hash.parse::<KeyHash>().map_err(|error| Failure::Usage(error.to_string()))?;
                Ok(parsed.to_string())
            }
            (None, Some(file)) => of_file(file),
            (None, None) => Err(Failure::Usage("name a key".to_owned())),
        }
    }
}

fn of_file(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin().take(MAX_FILE).read_to_string(&mut text).map_err(unreadable(file))?;
    } else {
        open(file)?.take(MAX_FILE).read_to_string(&mut text).map_err(unreadable(file))?;
    }
    key_hash(&text).ok_or_else(|| Failure::Usage(format!("{} holds no public key in PEM", file.display())))
}

/// SHA-256 over what stands in the one `PUBLIC KEY` block (RFC 7468 13).
pub fn key_hash(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("-----BEGIN PUBLIC KEY-----")?;
    let (content, _) = rest.split_once("-----END PUBLIC KEY-----")?;
    let packed: String = content.split_ascii_whitespace().collect();
    let der = STANDARD.decode(packed).ok().filter(|der| !der.is_empty())?;
    Some(hex::encode(digest(&SHA256, &der)))
}

impl KeyCommand {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Block { key, reason } => {
                let hash = key.hash()?;
                let keys = Value::from(vec![hash.clone()]);
                let body = object([("keys", Some(keys)), ("reason", reason.map(Value::from))]);
                let answer = session.client.post(Ask::path(&["v1", "blocked-keys"]).body(body)).await?;
                if session.json {
                    return super::session::print_json(&answer.json()?);
                }
                print(&format!("Key {hash} is blocked. Certificates that it has stay good until you revoke them.\n"))
            }
            Self::Unblock { key } => {
                let hash = key.hash()?;
                let answer = session.client.delete(Ask::path(&["v1", "blocked-keys", &hash])).await?;
                if session.json {
                    return super::session::print_json(&answer.json()?);
                }
                print(&format!("Key {hash} is off the block list.\n"))
            }
            Self::List { listing } => session.list(Ask::path(&["v1", "blocked-keys"]), listing, &COLUMNS).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_is_named_by_its_hash() {
        // openssl pkey -pubout -in KEY | tee >(openssl pkey -pubin -outform DER | sha256sum)
        let text = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
        let der = STANDARD.decode("MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=").unwrap();
        assert_eq!(key_hash(text), Some(hex::encode(digest(&SHA256, &der))));
        assert_eq!(key_hash("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"), None);
        assert_eq!(key_hash(&text.replace("PUBLIC", "PRIVATE")), None);
    }
}
