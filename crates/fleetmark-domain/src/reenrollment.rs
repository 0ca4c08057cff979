//! Whether a device that was enrolled before may enroll anew.

use serde::Deserialize;

/// Whether a device that was enrolled before may enroll anew, as after a factory reset: a rule of the profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reenrollment {
    /// It may not.
    Deny,
    /// The hardware that enrolled it may.
    #[default]
    SameHardware,
    /// It may once an operator permitted it.
    Permit,
    /// It may always. A claim certificate proves no device, so for a claim this is [`Self::Permit`].
    Always,
}
