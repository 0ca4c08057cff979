//! The rules that to-be-signed octets must pass. The linter reads what was encoded; it shares no code with the encoder.

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule's stable name, such as `serial_not_positive`.
    pub rule: &'static str,
    /// The clause that it comes from.
    pub clause: &'static str,
}

/// Lints a TBSCertificate against RFC 5280, this project's DESIGN §4 and the template's profile.
pub fn lint(_tbs: &[u8], _template: &super::issue::Template<'_>) -> Result<(), Vec<Finding>> {
    todo!()
}
