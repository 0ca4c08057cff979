//! The admin door: the operators' REST API.
