//! The names of refusals and cuts, and what is counted.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::judge::Reason;

/// Why a connection never reached the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// As many connections as are allowed.
    TooManyConnections,
    /// As many handshakes at a time as are allowed.
    TooManyHandshakes,
    /// Handshakes come faster than is allowed.
    RateLimited,
    /// This address begins handshakes faster than is allowed.
    AddressRateLimited,
    /// The handshake took too long.
    HandshakeTimeout,
    /// The handshake failed otherwise: no TLS, no version or cipher in common, broken off.
    HandshakeFailed,
    /// No certificate was shown.
    CertificateRequired,
    /// The certificate is from no authority that is known, or not signed by the one that it names.
    CertificateForeign,
    /// The certificate is not for TLS clients.
    WrongKind,
    /// The client does not hold the certificate's key.
    CertificateNotHeld,
    /// Judged, and denied.
    Denied(Reason),
    /// The service behind did not answer, or not in time.
    UpstreamUnreachable,
    /// The listener stops.
    Stopping,
}

impl Refused {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooManyConnections => "too_many_connections",
            Self::TooManyHandshakes => "too_many_handshakes",
            Self::RateLimited => "rate_limited",
            Self::AddressRateLimited => "address_rate_limited",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::HandshakeFailed => "handshake_failed",
            Self::CertificateRequired => "certificate_required",
            Self::CertificateForeign => "certificate_foreign",
            Self::WrongKind => "wrong_kind",
            Self::CertificateNotHeld => "certificate_not_held",
            Self::Denied(reason) => reason.as_str(),
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::Stopping => "stopping",
        }
    }

    /// Whether it was refused for a limit's sake: then there may be very many of them.
    const fn is_limit(self) -> bool {
        matches!(self, Self::TooManyConnections | Self::TooManyHandshakes | Self::RateLimited | Self::AddressRateLimited)
    }
}

/// Why a live connection was ended by us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutReason {
    /// Judged again, and denied.
    Denied(Reason),
    /// Nothing went over it for as long as is allowed.
    Idle,
    /// The listener stopped and its grace was over.
    Stopped,
}

impl CutReason {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Denied(reason) => reason.as_str(),
            Self::Idle => "idle_timeout",
            Self::Stopped => "stopped",
        }
    }
}

/// The metrics and the log of one listener.
pub(super) struct Report {
    listener: String,
    pub(super) open: Gauge,
    pub(super) up: Counter,
    pub(super) down: Counter,
    handshakes: Counter,
    accepted: Counter,
    cut_seconds: Histogram,
    quiet: Mutex<Quiet>,
}

/// Refusals for a limit's sake are logged together, once a second.
#[derive(Default)]
struct Quiet {
    until: Option<Instant>,
    unsaid: u64,
}

impl Report {
    pub(super) fn new(listener: SocketAddr) -> Self {
        let listener = listener.to_string();
        Self {
            open: gauge!("fleetmark_proxy_connections", "listener" => listener.clone()),
            up: counter!("fleetmark_proxy_octets_total", "listener" => listener.clone(), "direction" => "up"),
            down: counter!("fleetmark_proxy_octets_total", "listener" => listener.clone(), "direction" => "down"),
            handshakes: counter!("fleetmark_proxy_handshakes_total", "listener" => listener.clone()),
            accepted: counter!("fleetmark_proxy_accepted_total", "listener" => listener.clone()),
            cut_seconds: histogram!("fleetmark_proxy_cut_seconds", "listener" => listener.clone()),
            quiet: Mutex::default(),
            listener,
        }
    }

    /// A handshake was finished, whatever comes of it.
    pub(super) fn shaken(&self) {
        self.handshakes.increment(1);
    }

    /// The system gave no connection.
    pub(super) fn no_connection(&self) {
        counter!("fleetmark_proxy_accept_failures_total", "listener" => self.listener.clone()).increment(1);
    }

    /// A device was let through to the service.
    pub(super) fn accepted(&self) {
        self.accepted.increment(1);
    }

    /// Counts and logs a refusal; `who` is what is known of the client.
    pub(super) fn refused(&self, refused: Refused, peer: SocketAddr, who: &str) {
        let reason = refused.as_str();
        counter!("fleetmark_proxy_refused_total", "listener" => self.listener.clone(), "reason" => reason).increment(1);
        if !refused.is_limit() {
            tracing::info!(listener = self.listener, reason, %peer, who, "connection refused");
        } else if let Some(unsaid) = self.unsaid() {
            tracing::warn!(listener = self.listener, reason, %peer, unsaid, "connections refused for a limit");
        }
    }

    /// Counts and logs a cut. `since`: when the news came that it was cut for.
    pub(super) fn cut(&self, reason: CutReason, since: Option<Instant>, peer: SocketAddr, who: &str) {
        let reason = reason.as_str();
        counter!("fleetmark_proxy_cut_total", "listener" => self.listener.clone(), "reason" => reason).increment(1);
        if let Some(since) = since {
            self.cut_seconds.record(since.elapsed());
        }
        tracing::info!(listener = self.listener, reason, %peer, who, "connection cut");
    }

    /// How many were not logged since the last that was, where it is time to log one again.
    fn unsaid(&self) -> Option<u64> {
        let now = Instant::now();
        let mut quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        if quiet.until.is_some_and(|until| now < until) {
            quiet.unsaid = quiet.unsaid.saturating_add(1);
            return None;
        }
        quiet.until = Some(now + Duration::from_secs(1));
        Some(std::mem::take(&mut quiet.unsaid))
    }
}
