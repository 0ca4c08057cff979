//! A client with a profile, and how answers are printed.

use std::io::{ErrorKind, Write as _};
use std::path::Path;

use serde_json::Value;

use super::arguments::Listing;
use super::client::{Answer, Ask, Client};
use super::failure::Failure;
use super::table::{Column, record, table};
use crate::config::profile::Profile;

/// A client, its profile, and how to print.
pub struct Session {
    /// The admin door.
    pub client: Client,
    /// Who we are.
    pub profile: Profile,
    /// Whether to print JSON.
    pub json: bool,
}

impl Session {
    /// With the profile named, or the first in the usual places.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn open(profile: Option<&Path>, json: bool) -> Result<Self, Failure> {
        let profile = Profile::find(profile)?;
        Ok(Self { client: Client::open(&profile)?, profile, json })
    }

    /// Fetches a list and prints it.
    ///
    /// # Errors
    /// [`Failure`], as with all methods.
    pub async fn list(&self, ask: Ask<'_>, listing: Listing, columns: &[Column]) -> Result<(), Failure> {
        let list = self.client.list(ask, listing.most()).await?;
        if self.json {
            return print_json(&list);
        }
        let items = list.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        print(&table(columns, items))?;
        if list.get("next").is_some_and(|next| !next.is_null()) {
            eprintln!("There is more: take --limit N or --all.");
        }
        Ok(())
    }

    /// Fetches a record and prints it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn show(&self, path: &[&str], first: &[&str]) -> Result<(), Failure> {
        self.print_record(&self.client.get(Ask::path(path)).await?, first)
    }

    /// Prints a record.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn print_record(&self, answer: &Answer, first: &[&str]) -> Result<(), Failure> {
        let value = answer.json()?;
        if self.json { print_json(&value) } else { print(&record(first, &value)) }
    }

    /// Prints what a change of standing did.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn print_standing(&self, answer: &Answer) -> Result<(), Failure> {
        let value = answer.json()?;
        if self.json {
            return print_json(&value);
        }
        let changed = value.get("changed").and_then(Value::as_u64).unwrap_or(0);
        if changed == 0 {
            return print("Nothing changed: it was so already.\n");
        }
        let place = |field: &str| value.get(field).map_or_else(|| "-".to_owned(), |value| value.to_string().replace('"', ""));
        let certificates = value.get("certificates").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        print(&table(&[Column("SERIAL", "serial"), Column("STANDING", "standing")], certificates))?;
        print(&format!("Written in ledger {} at position {}.\n", place("ledger"), place("position")))
    }
}

/// Writes to standard output. A reader that went away (`| head`) is no failure.
///
/// # Errors
/// [`Failure::Failed`].
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::of(&error)),
        _ => Ok(()),
    }
}

/// Writes JSON to standard output.
///
/// # Errors
/// [`Failure::Failed`].
pub fn print_json(value: &Value) -> Result<(), Failure> {
    print(&format!("{value:#}\n"))
}
