//! `fleetmark group derive`: the keys that a factory puts into devices. They are made here, from the group's key alone, and never sent.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use fleetmark_domain::Name;
use ring::hmac;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::failure::Failure;
use super::files::{open, write_new};
use super::session::{print, print_json};

/// The lengths of a group's key, in octets.
const KEY: std::ops::RangeInclusive<usize> = 32..=64;
/// The largest key file, in octets.
const MAX_FILE: u64 = 256;

/// `fleetmark group derive`
#[derive(Debug, Args)]
pub struct DeriveArguments {
    /// The group; for the list alone
    pub group: Name,
    /// The devices' names, exactly as they will enroll, in upper and lower case
    #[arg(required = true, value_name = "DEVICE")]
    pub devices: Vec<Name>,
    /// The group's key, 32 to 64 octets, as `group create` takes it; standard input unless given
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Write each key as DEVICE.key into this directory, for its owner alone, and print none
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

impl DeriveArguments {
    /// Does it, without a server.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn run(&self, json: bool) -> Result<(), Failure> {
        let group_key = read_group_key(self.key_file.as_deref())?;
        let keys = self.devices.iter().map(|name| (name, Zeroizing::new(hex::encode(&*device_key(&group_key, name)))));
        if let Some(directory) = &self.out {
            let file = |name: &Name| directory.join(format!("{name}.key"));
            for (name, key) in keys {
                let line = Zeroizing::new(format!("{}\n", *key));
                write_new(&file(name), line.as_bytes(), 0o600)?;
            }
            if json {
                let items = self.devices.iter().map(|name| json!({"device": name.as_str(), "file": file(name)}));
                return print_json(&json!({"group": self.group.as_str(), "items": items.collect::<Vec<_>>()}));
            }
            return print(&format!("{} keys of group {} are in {}.\n", self.devices.len(), self.group, directory.display()));
        }
        if json {
            let items: Vec<Value> = keys.map(|(name, key)| json!({"device": name.as_str(), "key": *key})).collect();
            return print_json(&json!({"group": self.group.as_str(), "items": items}));
        }
        let mut text = Zeroizing::new(String::new());
        for (name, key) in keys {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name} {}", *key);
        }
        print(&text)
    }
}

/// HMAC-SHA256 under the group's key, over the name as it is written (docs/enrollment/derived-key.md).
fn device_key(group_key: &[u8], device: &Name) -> Zeroizing<Vec<u8>> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, group_key);
    Zeroizing::new(hmac::sign(&key, device.as_str().as_bytes()).as_ref().to_vec())
}

fn read_group_key(path: Option<&Path>) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let place = path.map_or_else(|| "standard input".to_owned(), |path| path.display().to_string());
    let failed = |why: &str| Failure::Failed(format!("{place}: {why}"), None);
    let mut key = Zeroizing::new(Vec::with_capacity(256));
    let read = match path {
        Some(path) => open(path)?.take(MAX_FILE).read_to_end(&mut key),
        None => std::io::stdin().take(MAX_FILE).read_to_end(&mut key),
    };
    read.map_err(|error| failed(&error.to_string()))?;
    // The server shows a key in base64: taken for the key itself, it would give keys that no server takes.
    if STANDARD.decode(key.trim_ascii()).is_ok_and(|decoded| KEY.contains(&decoded.len())) {
        return Err(failed("this is base64; decode it first: openssl base64 -d -A"));
    }
    if KEY.contains(&key.len()) { Ok(key) } else { Err(failed("a group's key has 32 to 64 octets")) }
}
