//! Octets both ways. Nothing is kept for a connection that is idle: octets pass through the stack, and only what the other
//! side does not take at once is kept, at most [`CHUNK`] octets each way.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use metrics::Counter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that is read at once and kept each way, in octets: one TLS record's.
const CHUNK: usize = 16 * 1024;

/// Two streams, and what is under way between them.
#[derive(Debug)]
pub(super) struct Relay<D, S> {
    device: D,
    service: S,
    up: Way,
    down: Way,
    active: Instant,
    told: bool,
}

/// What became of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// One direction has ended; told once.
    HalfClosed,
    /// Both have.
    Ended,
}

/// One direction.
#[derive(Debug)]
struct Way {
    phase: Phase,
    left: Vec<u8>,
    sent: usize,
    unflushed: bool,
    counter: Counter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// The reader's end was reached; the writer is to be told.
    Closing,
    Done,
}

/// Which end of a direction failed.
enum Failure {
    Reading(io::Error),
    Writing(io::Error),
}

impl<D, S> Relay<D, S>
where
    D: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// `up` counts the octets from the device to the service, `down` those back.
    pub(super) fn new(device: D, service: S, up: Counter, down: Counter) -> Self {
        Self { device, service, up: Way::new(up), down: Way::new(down), active: Instant::now(), told: false }
    }

    /// The device's stream; the service's is closed.
    pub(super) fn into_device(self) -> D {
        self.device
    }

    /// When an octet was last read or written.
    pub(super) fn active(&self) -> Instant {
        self.active
    }

    /// Whether one direction has ended.
    pub(super) fn is_half_closed(&self) -> bool {
        self.up.phase != Phase::Open || self.down.phase != Phase::Open
    }

    /// Moves what can be moved. Ready when one direction or both have ended, or with the failure that ended them: a device
    /// that closes TCP without TLS's `close_notify`, too, since what it sent may have been cut short by somebody.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Event>> {
        let up = self.up.poll(&mut self.device, &mut self.service, &mut self.active, context);
        let down = self.down.poll(&mut self.service, &mut self.device, &mut self.active, context);
        match up {
            // A service that takes no more may still have an answer under way.
            Poll::Ready(Err(Failure::Writing(_))) => self.up.phase = Phase::Done,
            Poll::Ready(Err(Failure::Reading(error))) => return Poll::Ready(Err(error)),
            _ => {}
        }
        if let Poll::Ready(Err(Failure::Writing(error) | Failure::Reading(error))) = down {
            return Poll::Ready(Err(error));
        }
        match (self.up.phase, self.down.phase) {
            (Phase::Done, Phase::Done) => Poll::Ready(Ok(Event::Ended)),
            _ if self.is_half_closed() && !self.told => {
                self.told = true;
                Poll::Ready(Ok(Event::HalfClosed))
            }
            _ => Poll::Pending,
        }
    }
}

impl Way {
    fn new(counter: Counter) -> Self {
        Self { phase: Phase::Open, left: Vec::new(), sent: 0, unflushed: false, counter }
    }

    fn poll<R, W>(
        &mut self,
        from: &mut R,
        to: &mut W,
        active: &mut Instant,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        while self.phase == Phase::Open {
            ready!(self.poll_left(to, active, context))?;
            let mut octets = [0; CHUNK];
            let mut read = ReadBuf::new(&mut octets);
            match Pin::new(&mut *from).poll_read(context, &mut read) {
                Poll::Ready(Ok(())) if read.filled().is_empty() => self.phase = Phase::Closing,
                Poll::Ready(Ok(())) => self.poll_write(to, read.filled(), active, context)?,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failure::Reading(error))),
                Poll::Pending => {
                    ready!(self.poll_flush(to, context))?;
                    return Poll::Pending;
                }
            }
        }
        if self.phase == Phase::Closing {
            // What is wrong with the writer's end shows in the other direction too.
            let _ = ready!(Pin::new(to).poll_shutdown(context));
            self.phase = Phase::Done;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what was left.
    fn poll_left<W: AsyncWrite + Unpin>(
        &mut self,
        to: &mut W,
        active: &mut Instant,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        while let Some(octets) = self.left.get(self.sent..).filter(|octets| !octets.is_empty()) {
            self.sent += match ready!(Pin::new(&mut *to).poll_write(context, octets)) {
                Ok(0) => return Poll::Ready(Err(Failure::Writing(io::ErrorKind::WriteZero.into()))),
                Ok(count) => count,
                Err(error) => return Poll::Ready(Err(Failure::Writing(error))),
            };
            *active = Instant::now();
            self.unflushed = true;
        }
        if self.sent > 0 {
            (self.left, self.sent) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what can be written at once, and keeps the rest.
    fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        to: &mut W,
        octets: &[u8],
        active: &mut Instant,
        context: &mut Context<'_>,
    ) -> Result<(), Failure> {
        *active = Instant::now();
        self.counter.increment(u64::try_from(octets.len()).unwrap_or(u64::MAX));
        let taken = match Pin::new(to).poll_write(context, octets) {
            Poll::Ready(Ok(0)) => return Err(Failure::Writing(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(count)) => count,
            Poll::Ready(Err(error)) => return Err(Failure::Writing(error)),
            Poll::Pending => 0,
        };
        self.unflushed = true;
        self.left.extend_from_slice(octets.get(taken..).unwrap_or_default());
        Ok(())
    }

    /// TLS keeps records until they are flushed.
    fn poll_flush<W: AsyncWrite + Unpin>(&mut self, to: &mut W, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if self.unflushed {
            ready!(Pin::new(to).poll_flush(context)).map_err(Failure::Writing)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}
