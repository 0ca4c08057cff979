//! The naming rule, applied.

use fleetmark_domain::{Name, NameForm, NamePart, NameSource, Naming};

use crate::certificate::Said;
use crate::sha256;

/// The longest name, in characters.
const MAX_NAME: usize = 63;
/// So many hexadecimal digits of a value's hash tell sanitized names apart.
const DIGITS: usize = 8;

/// Why a certificate's device has no name by the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unnamed {
    /// The value is not there, is there more than once, or does not begin or end as the rule says.
    #[error("the certificate has no such value, or several")]
    Missing,
    /// The value is there and gives no name.
    #[error("the value gives no name")]
    NoName,
}

/// The name of the device of whose certificate this is said.
///
/// # Errors
/// [`Unnamed`].
pub fn name(rule: &Naming, said: &Said) -> Result<Name, Unnamed> {
    let value = match rule.from {
        NameSource::CommonName => &said.common_name,
        NameSource::SerialNumber => &said.serial_number,
        NameSource::Dns => &said.dns,
        NameSource::Uri => &said.uri,
        NameSource::Email => &said.email,
        NameSource::HardwareModuleName => &said.module_serial,
    };
    let value = value.as_deref().ok_or(Unnamed::Missing)?;
    let value = value.strip_prefix(&*rule.strip_prefix).and_then(|value| value.strip_suffix(&*rule.strip_suffix));
    let value = part(rule, value.ok_or(Unnamed::Missing)?);
    let text = match rule.form {
        _ if value.is_empty() => return Err(Unnamed::Missing),
        NameForm::Exact => format!("{}{value}", rule.prefix),
        NameForm::Lowercase => format!("{}{}", rule.prefix, value.to_ascii_lowercase()),
        NameForm::Sanitized => sanitized(&rule.prefix, value),
    };
    text.parse().map_err(|_| Unnamed::NoName)
}

fn part<'a>(rule: &Naming, value: &'a str) -> &'a str {
    let separates = |c: char| match rule.from {
        NameSource::Email => c == '@',
        NameSource::Uri => c == '/' || c == ':',
        NameSource::Dns | NameSource::CommonName | NameSource::SerialNumber | NameSource::HardwareModuleName => c == '.',
    };
    match rule.part {
        NamePart::Whole => value,
        NamePart::First => value.split(separates).next().unwrap_or_default(),
        NamePart::Last => value.rsplit(separates).next().unwrap_or_default(),
    }
}

/// `prefix`, the value with each run of other characters as one `-`, and the beginning of its hash. What would be too long is cut
/// before the hash.
fn sanitized(prefix: &str, value: &str) -> String {
    let mut clean = String::new();
    for c in value.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
            clean.push(c);
        } else if !clean.ends_with('-') {
            clean.push('-');
        }
    }
    let room = MAX_NAME.saturating_sub(prefix.len()).saturating_sub(DIGITS + 1);
    let clean: String = clean.trim_matches(['.', '_', '-']).chars().take(room).collect();
    let clean = clean.trim_end_matches(['.', '_', '-']);
    let hash = hex::encode(sha256(&[value.as_bytes()]));
    let hash = hash.get(..DIGITS).unwrap_or_default();
    if clean.is_empty() { format!("{prefix}{hash}") } else { format!("{prefix}{clean}-{hash}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said() -> Said {
        let some = |text: &str| Some(text.to_owned());
        Said {
            common_name: some("Pump 7"),
            serial_number: some("SN-7"),
            dns: some("pump7.plant.example"),
            uri: some("urn:dev:ops:pump-7"),
            email: some("Pump7@plant.example"),
            module_serial: None,
        }
    }

    #[test]
    fn each_rule_names_the_device() {
        use NameForm::{Exact, Lowercase, Sanitized};
        use NamePart::{First, Last, Whole};
        use NameSource::{CommonName, Dns, Email, HardwareModuleName, SerialNumber, Uri};
        for (from, strip, part, form, prefix, expected) in [
            (SerialNumber, ("", ""), Whole, Exact, "", Ok("SN-7")),
            (SerialNumber, ("SN-", ""), Whole, Exact, "p", Ok("p7")),
            (SerialNumber, ("XX-", ""), Whole, Exact, "p", Err(Unnamed::Missing)),
            (SerialNumber, ("SN-7", ""), Whole, Exact, "p", Err(Unnamed::Missing)),
            (CommonName, ("", ""), Whole, Exact, "", Err(Unnamed::NoName)),
            // printf 'Pump 7' | sha256sum
            (CommonName, ("", ""), Whole, Sanitized, "s-", Ok("s-Pump-7-538ca4f8")),
            (Dns, ("", ""), First, Exact, "", Ok("pump7")),
            (Dns, ("", ".plant.example"), Whole, Exact, "", Ok("pump7")),
            (Dns, ("", ""), Last, Exact, "", Ok("example")),
            (Uri, ("", ""), Last, Exact, "", Ok("pump-7")),
            (Uri, ("urn:dev:ops:", ""), Whole, Exact, "", Ok("pump-7")),
            (Email, ("", ""), First, Lowercase, "", Ok("pump7")),
            (HardwareModuleName, ("", ""), Whole, Sanitized, "", Err(Unnamed::Missing)),
        ] {
            let (strip_prefix, strip_suffix) = (strip.0.to_owned(), strip.1.to_owned());
            let rule = Naming { from, strip_prefix, strip_suffix, part, form, prefix: prefix.to_owned() };
            assert_eq!(name(&rule, &said()).map(|name| name.to_string()), expected.map(str::to_owned), "{rule:?}");
        }
    }

    proptest! {
        #[test]
        fn a_sanitized_name_is_always_one(value in "\\PC{1,200}") {
            let rule = Naming { form: NameForm::Sanitized, prefix: "d".to_owned(), ..Naming::default() };
            let said = Said { common_name: Some(value), ..Said::default() };
            prop_assert!(name(&rule, &said).is_ok());
        }
    }
}
