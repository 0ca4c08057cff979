//! Every reason for which Fleetmark says no, by a stable name.
//!
//! The name is the `code` of a problem document, the label of the metric `fleetmark_refused_total` and the word
//! in the log. Names are added, never changed: devices in the field act on them.

use std::fmt;

/// What kind of answer a refusal is. The doors turn it into an HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Taken down, and not decided yet: the same request is to come again (202).
    Pending,
    /// The request cannot be read (400).
    Malformed,
    /// Who calls is not known, or its proof is not accepted (401).
    Unproven,
    /// Who calls is known and may not do this (403).
    Forbidden,
    /// There is no such thing, or none that the caller may know of (404).
    Unknown,
    /// The resource has no such method (405).
    WrongMethod,
    /// The body is of a media type that the resource does not take (415).
    WrongMediaType,
    /// The state of things is against it (409).
    Conflict,
    /// The thing was changed since the caller read it (412).
    Stale,
    /// The request did not come in time (408).
    TooSlow,
    /// The body is too large (413).
    TooLarge,
    /// The path or the query is too long (414).
    TooLong,
    /// Readable, and not acceptable (422).
    Unacceptable,
    /// The caller asks too often (429).
    TooMany,
    /// The server has a fault (500).
    Faulty,
    /// The server cannot do it now; the same request may succeed later (503).
    Unavailable,
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident => $code:literal, $class:ident, $text:literal;)*) => {
        /// A named reason to refuse.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Refusal {
            $($(#[$doc])* #[doc = concat!("`", $code, "`: ", $text)] $variant,)*
        }

        impl Refusal {
            /// Every refusal.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The stable name.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// What kind of answer it is.
            pub const fn class(self) -> Class {
                match self { $(Self::$variant => Class::$class,)* }
            }

            /// One sentence for the person who must act on it. It tells nothing that the caller did not know.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

refusals! {
    // The request itself.
    MalformedRequest => "malformed_request", Malformed, "The request is not of the form that this resource takes.";
    MethodNotAllowed => "method_not_allowed", WrongMethod, "This resource has no such method.";
    MediaTypeNotSupported => "media_type_not_supported", WrongMediaType, "The body is not of a media type that this resource takes.";
    UriTooLong => "uri_too_long", TooLong, "The path or the query is longer than 2 KiB.";
    RequestTimeout => "request_timeout", TooSlow, "The request did not come in time.";
    BodyTooLarge => "body_too_large", TooLarge, "The body is larger than this resource takes.";
    InvalidName => "invalid_name", Unacceptable, "A name starts with a letter or digit and goes on with at most 62 letters, digits, '.', '_' or '-'.";
    InvalidValue => "invalid_value", Unacceptable, "A value is outside what this field takes.";

    // The certificate request.
    CsrMalformed => "csr_malformed", Malformed, "The certificate request is not a PKCS#10 request in DER, PEM or base64.";
    CsrTooLarge => "csr_too_large", TooLarge, "The certificate request is larger than 16 KiB.";
    CsrTrailingOctets => "csr_trailing_octets", Malformed, "Octets follow the certificate request.";
    CsrBadSignature => "csr_bad_signature", Unacceptable, "The certificate request is not signed by the key that it names.";
    CsrDigestWeak => "csr_digest_weak", Unacceptable, "The certificate request is signed with a broken digest (MD5 or SHA-1).";
    CsrAlgorithmNotSupported => "csr_algorithm_not_supported", Unacceptable, "The certificate request is signed with an algorithm that is not supported. Sign with SHA-256.";
    KeyWeak => "key_weak", Unacceptable, "The key is too short or has a weak parameter.";
    KeyTypeNotAllowed => "key_type_not_allowed", Unacceptable, "The profile does not allow this type of key.";
    KeyOfAnother => "key_of_another_device", Conflict, "This key was certified for another identity. Make a new key.";
    KeyEnded => "key_ended", Conflict, "The certificate for this key has ended. Make a new key.";
    SubjectChanged => "subject_changed", Unacceptable, "The certificate request names another subject than the certificate that it renews.";
    ChannelBindingMismatch => "channel_binding_mismatch", Unacceptable, "The challengePassword is not the channel binding of this connection.";
    ChannelBindingRequired => "channel_binding_required", Unacceptable, "The profile demands the channel binding tls-exporter of this connection as the challengePassword, over TLS 1.3.";
    ServerKeygenOff => "server_keygen_off", Forbidden, "The profile does not let the server make keys. Make the key on the device.";
    ServerKeygenEncryption => "server_keygen_encryption", Unacceptable, "The request asks for a private key that is encrypted beyond TLS, which this server does not do.";
    KeyReused => "key_reused", Conflict, "The certificate for this key is due for renewal. Renew with a new key.";
    RsaTooShort => "rsa_too_short", Unacceptable, "The RSA key is shorter than 2048 bits. Make one of 2048 to 4096 bits, or a P-256 key.";
    RsaTooLong => "rsa_too_long", Unacceptable, "The RSA key is longer than 4096 bits. Make one of 2048 to 4096 bits, or a P-256 key.";
    RsaExponentNotAllowed => "rsa_exponent_not_allowed", Unacceptable, "The RSA key's public exponent is even, under 65537 or over 33 bits. Make a key with the exponent 65537.";
    RsaFactorable => "rsa_factorable", Unacceptable, "The RSA key's modulus is easily factored: it has a small factor, or two close together. Make a new key with another generator.";
    KeyRoca => "key_roca", Unacceptable, "The RSA key was made by a faulty Infineon library (ROCA, CVE-2017-15361) and can be broken. Make the key outside that chip, or a P-256 key.";
    KeyDebianWeak => "key_debian_weak", Unacceptable, "The RSA key is one of those that Debian's faulty OpenSSL made (CVE-2008-0166) and is known. Make a new key on a mended system.";
    PointNotOnCurve => "point_not_on_curve", Unacceptable, "The public key is not a point of its curve. Make a new key.";
    KeySmallOrder => "key_small_order", Unacceptable, "The public key is a point of small order, for which anyone can sign. Make a new key.";
    CsrAttributeNotAllowed => "csr_attribute_not_allowed", Unacceptable, "The certificate request has an attribute that the profile does not allow. Leave it out.";
    CsrExtensionNotAllowed => "csr_extension_not_allowed", Unacceptable, "The certificate request asks for an extension that the profile does not allow. Leave it out.";
    KeyCompromised => "key_compromised", Conflict, "A certificate for this key was revoked because the key became known. Make a new key.";
    KeyBlocked => "key_blocked", Conflict, "This key is on the block list. Make a new key.";

    // Proofs.
    ProofRequired => "proof_required", Unproven, "Show a proof: an enrollment token or a client certificate.";
    TokenUnknown => "token_unknown", Unproven, "The enrollment token is not known.";
    TokenExpired => "token_expired", Unproven, "The enrollment token has expired. Ask an operator for a new one.";
    TokenWithdrawn => "token_withdrawn", Unproven, "The enrollment token was withdrawn. Ask an operator for a new one.";
    TokenUsed => "token_used", Conflict, "The enrollment token was used up. Ask an operator for a new one.";
    TokenBoundToOtherKey => "token_bound_to_other_key", Conflict, "The enrollment token was first used with another key and stays bound to it.";
    TokenWrongFleet => "token_wrong_fleet", Forbidden, "The enrollment token is for another fleet.";
    TokenWrongName => "token_wrong_name", Forbidden, "The enrollment token is for another name.";
    OutsideWindow => "outside_window", Forbidden, "This way in is not open at this time.";
    NetworkNotAllowed => "network_not_allowed", Forbidden, "This way in is not open from this network.";
    NameNotAllowed => "name_not_allowed", Forbidden, "This way in is not for this name.";
    SerialNotListed => "serial_not_listed", Forbidden, "This way in is not for a device of this serial number.";
    QuotaUsed => "quota_used", Conflict, "As many devices as may have come in this way. Ask an operator.";
    GroupUnknown => "group_unknown", Unproven, "There is no such way in.";
    GroupDisabled => "group_disabled", Forbidden, "This way in is closed by an operator.";
    MakerUnknown => "maker_unknown", Unproven, "The client certificate is not from a maker that this fleet takes devices of.";
    ClaimBoundToOtherKey => "claim_bound_to_other_key", Conflict, "This name was claimed with another key and stays bound to it until its certificate ends.";
    SerialMissing => "serial_missing", Unacceptable, "The client certificate has no serial number where this way in looks for it.";
    KeyOfMaker => "key_of_maker_certificate", Conflict, "This key is the one of the maker's certificate. Make a new key.";
    HardwareOfAnother => "hardware_of_another_device", Conflict, "This hardware is enrolled under another name.";
    HardwareMismatch => "hardware_mismatch", Conflict, "This name belongs to other hardware.";
    ReenrollmentDenied => "reenrollment_denied", Conflict, "This device is enrolled already. An operator may permit it to enroll anew.";
    NonceExpired => "nonce_expired", Unproven, "The answer came too late, or to a question that this server did not ask. Ask for a new one.";
    AnswerWrong => "answer_wrong", Unproven, "The answer to the server's question is wrong.";
    EndorsementKeyUnknown => "endorsement_key_unknown", Unproven, "No device is registered with this endorsement key.";
    TpmKeyNotAcceptable => "tpm_key_not_acceptable", Unacceptable, "The key is not one that was made in the TPM and cannot leave it.";
    ApprovalPending => "approval_pending", Pending, "A person must approve this request. Send the same request again later.";
    ApprovalRefused => "approval_refused", Forbidden, "A person refused this request.";
    TooManyRequests => "too_many_waiting", TooMany, "Too many requests wait for approval. Try again later.";
    HookRefused => "hook_refused", Forbidden, "The fleet's owner refused this device.";
    HookUnavailable => "hook_unavailable", Unavailable, "The fleet's owner could not be asked. Try again later.";

    // The caller's certificate.
    CertificateRequired => "certificate_required", Unproven, "Connect with a client certificate.";
    CertificateForeign => "certificate_foreign", Forbidden, "The client certificate is not from an authority of this installation.";
    CertificateExpired => "certificate_expired", Forbidden, "The client certificate has expired. Enroll again.";
    CertificateNotYetValid => "certificate_not_yet_valid", Forbidden, "The client certificate is not valid yet. Check the clock.";
    ClaimEnded => "claim_ended", Forbidden, "The claim certificate has ended.";
    CertificateNotHeld => "certificate_not_held", Forbidden, "The client does not hold the key of the certificate that it shows.";
    NotOnLedger => "not_on_ledger", Forbidden, "The client certificate is not one that this installation issued.";
    WrongAuthority => "wrong_authority", Forbidden, "The client certificate's authority may not issue for this kind or fleet.";
    WrongFleet => "wrong_fleet", Forbidden, "The client certificate is of another fleet.";
    WrongKind => "wrong_kind", Forbidden, "This resource is not for this kind of identity.";
    Revoked => "revoked", Forbidden, "The client certificate is revoked.";
    Held => "held", Forbidden, "The client certificate is suspended. An operator may release it.";
    Superseded => "superseded", Forbidden, "A newer certificate took this one's place. Use the newer one.";
    Quarantined => "quarantined", Forbidden, "The client certificate is quarantined.";
    Lapsed => "confirmation_lapsed", Forbidden, "The certificate was not confirmed in time. Enroll again.";

    // Certificates of another authority.
    ExternalUnknown => "external_unknown", Forbidden, "The client certificate is from another authority and was not adopted here.";
    ExternalDisabled => "external_disabled", Forbidden, "The client certificate is from another authority whose certificates are not taken now.";
    ExternalStatusStale => "external_status_stale", Forbidden, "What the client certificate's authority says of it is past its end.";
    ExternalAuthorityTaken => "external_authority_taken", Conflict, "One of these CA certificates belongs to another external authority already.";
    ExternalNameMissing => "external_name_missing", Unacceptable, "The certificate has no value, or several, where the naming rule looks for the device's name.";
    ExternalNameTaken => "external_name_taken", Conflict, "The device of this name has certificates from elsewhere, or is registered with its hardware.";
    ExternalUsage => "external_usage", Unacceptable, "The certificate lacks an extended key usage that the external authority's rules demand.";
    ExternalSerial => "external_serial", Unacceptable, "The certificate's serial number has more than 20 octets, or another certificate of the same issuer has it.";
    ExternalAdoptionLimit => "external_adoption_limit", TooMany, "As many of this authority's certificates were adopted on sight as may be. An operator may raise the limit, or import this one.";
    ExternalListRefused => "external_list_refused", Unacceptable, "A revocation list of the external authority cannot be used.";

    // Acts.
    NotPermitted => "not_permitted", Forbidden, "Your role does not permit this.";
    PolicyDenied => "policy_denied", Forbidden, "The fleet's policy does not permit this.";
    PolicyInvalid => "policy_invalid", Unacceptable, "The policy set has errors. Check it.";
    PolicyLocksOut => "policy_locks_out", Conflict, "Under this policy set its owners or you could not replace it again.";
    BlastRadiusExceeded => "blast_radius_exceeded", Forbidden, "You have changed as many devices of this fleet as one operator may in an hour.";
    NotFound => "not_found", Unknown, "There is no such thing here.";
    FleetUnknown => "fleet_unknown", Unknown, "There is no such fleet here.";
    FleetClosed => "fleet_closed", Forbidden, "The fleet takes no enrollments now.";
    DeviceUnknown => "device_unknown", Unknown, "There is no such device here.";
    IdentityOut => "identity_out", Forbidden, "This identity was put out. An operator must let it in again.";
    NameTaken => "name_taken", Conflict, "The name is taken; names that differ only in case are the same name.";
    DeviceMoved => "device_moved", Conflict, "The device was moved to another fleet.";
    NotReleased => "not_released", Conflict, "The device is not released for a move.";
    RenewalHeld => "renewal_held", Forbidden, "Renewal is held back for this device. An operator must look at it.";
    TransitionNotAllowed => "transition_not_allowed", Conflict, "The certificate's standing, or the device's state, does not allow this change.";
    LastOwner => "last_owner", Conflict, "This is the last owner. Invite another one first.";
    AuthorityRevoked => "authority_revoked", Forbidden, "The authority of this certificate was revoked. Enroll anew.";
    AuthorityActive => "authority_active", Conflict, "The authority issues. Activate a successor, or taint it, before.";
    AuthorityInUse => "authority_in_use", Conflict, "Certificates of the authority are in use. Move their holders first.";
    NoSuccessor => "no_successor", Conflict, "Nothing would issue in the authority's place. Prepare and activate a successor.";
    SuccessorPrepared => "successor_prepared", Conflict, "There is a prepared successor already. Activate it, or revoke it.";
    EtagMismatch => "etag_mismatch", Stale, "It was changed since you read it. Read it again.";
    IdempotencyKeyReused => "idempotency_key_reused", Unacceptable, "This Idempotency-Key was used for another request.";
    RateLimited => "rate_limited", TooMany, "Too many requests. Try again later.";

    // The server.
    Overloaded => "overloaded", Unavailable, "The server has more to do than it can. Try again later.";
    StorageFull => "storage_full", Unavailable, "The server's disk is full. Nothing was changed.";
    StorageLocked => "storage_locked", Unavailable, "The server's database is locked by another process. Nothing was changed.";
    StorageDamaged => "storage_damaged", Unavailable, "The server's database is damaged. Nothing was changed.";
    StorageUnavailable => "storage_unavailable", Unavailable, "The server's database cannot be reached. Try again later.";
    BackedUpElsewhere => "backed_up_elsewhere", Conflict, "The database is PostgreSQL's, and is backed up with its own tools (docs/backup.md).";
    AuthorityUnavailable => "authority_unavailable", Unavailable, "The issuing authority cannot sign now. Try again later.";
    HsmUnavailable => "hsm_unavailable", Unavailable, "The hardware that holds the issuing authority's key cannot be reached. Try again later.";
    AuthorityReplaced => "authority_replaced", Unavailable, "The authority that was to issue was replaced at this moment. Nothing was issued.";
    LintFailed => "lint_failed", Unavailable, "The server refused to sign a certificate that its linter found wrong. Nothing was issued.";
    InternalError => "internal_error", Faulty, "The server has a fault. It is in its log.";
    Stopping => "stopping", Unavailable, "The server is stopping. Try again later.";

    // The root.
    WaitsForRoot => "waits_for_root", Pending, "The root is on another machine. A request for its ceremony waits; ask again when its answer was accepted.";
    RootAnswerUnreadable => "root_answer_unreadable", Malformed, "This is no answer of a root's ceremony.";
    RootAnswerForeign => "root_answer_foreign", Unacceptable, "The answer is another root's, or another installation's.";
    RootAnswerMismatch => "root_answer_mismatch", Unacceptable, "The answer does not fit what was asked for.";
    RootAnswerReplayed => "root_answer_replayed", Conflict, "This answer was accepted before, or a newer one was.";
    RootRecordInvalid => "root_record_invalid", Unacceptable, "The ceremony's record is not signed by the root, or says something else than the answer.";
    RootListInvalid => "root_list_invalid", Unacceptable, "The revocation list is none by the root that it should be by, or does not hold now.";
    CorporateChainUnreadable => "corporate_chain_unreadable", Malformed, "This is not a corporate authority's certificate with those above it.";
    CorporateKeyMismatch => "corporate_key_mismatch", Unacceptable, "The corporate authority's certificate is for another key than the request's.";
    CorporateNotACa => "corporate_not_a_ca", Unacceptable, "The corporate authority's certificate is no authority's.";
    CorporateKeyUsage => "corporate_key_usage", Unacceptable, "The corporate authority's certificate may not sign certificates and revocation lists.";
    CorporatePathLength => "corporate_path_length", Unacceptable, "The corporate authority's certificate allows too few levels below it.";
    CorporateNameConstraints => "corporate_name_constraints", Unacceptable, "The corporate authority's certificate has name constraints that are in the way.";
    CorporateExtension => "corporate_extension", Unacceptable, "The corporate authority's certificate has an extension that is in the way, or lacks one.";
    CorporateEndsEarly => "corporate_ends_early", Unacceptable, "The corporate authority's certificate does not hold now, or ends within a year.";
    CorporateChainBroken => "corporate_chain_broken", Unacceptable, "The corporate authority's certificates do not lead to its root.";
    CorporateRootUnknown => "corporate_root_unknown", Unacceptable, "The chain leads to another root than the one that was named.";
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_are_distinct_words() {
        let codes: HashSet<_> = Refusal::ALL.iter().map(|refusal| refusal.code()).collect();
        assert_eq!(codes.len(), Refusal::ALL.len());
        assert!(codes.iter().all(|code| code.bytes().all(|o| o.is_ascii_lowercase() || o == b'_')));
    }
}
