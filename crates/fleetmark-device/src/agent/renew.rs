//! Renew: the current certificate for the next one, with a new key.

use std::time::Duration;

use super::Agent;
use crate::answer::Expected;
use crate::error::Error;
use crate::store::{Generation, Purpose};

/// Between two questions about the renewal.
const LEAST_POLL: Duration = Duration::from_secs(60);
const MOST_POLL: Duration = Duration::from_secs(86_400);

/// What [`Agent::renew`] came to.
#[derive(Debug, Clone)]
pub enum Renewal {
    /// It is too early; nothing was asked for.
    NotDue(Generation),
    /// A new certificate is in use, not confirmed yet; the one before is kept.
    Renewed(Generation),
}

impl Agent {
    /// Renews when it is due, or at once with `force`. A certificate that is not confirmed yet is not renewed: confirm it.
    pub async fn renew(&mut self, force: bool) -> Result<Renewal, Error> {
        let Some(current) = self.store.current()? else {
            return Err(Error::Usage("there is nothing to renew: enroll first".to_owned()));
        };
        if !force && !self.time.is_fresh() && self.time.wall_behind() > 0 {
            // The wall clock is behind what an earlier answer said: it cannot tell whether renewal is due.
            self.ask_time_patiently().await?;
        }
        if !current.record.confirmed || (!force && self.time.now() < current.record.renew_after) {
            return Ok(Renewal::NotDue(current));
        }
        let mut outcome = self.ask_to_renew(&current).await;
        if let Err(error) = &outcome
            && self.may_mend(error).await
        {
            outcome = self.ask_to_renew(&current).await;
        }
        match outcome {
            Err(Error::Refused(refused)) if refused.is_about_key() => {
                tracing::info!(code = refused.code, "the server refuses this key; trying a new one");
                self.store.discard_pending()?;
                self.ask_to_renew(&current).await
            }
            outcome => outcome,
        }
        .map(Renewal::Renewed)
    }

    /// Asks when to renew, which an operator may have pulled forward, and notes it. Returns when to ask again: from a minute to a
    /// day. A server that does not know the question, and one of the installation's door, is asked once a day.
    pub async fn ask_renewal(&mut self) -> Result<Duration, Error> {
        let Some(current) = self.store.current()? else { return Ok(MOST_POLL) };
        let told = match self.client(&current)?.renewal().await {
            Ok(told) => told,
            Err(Error::Refused(refused)) if matches!(refused.status, 404 | 405) => return Ok(MOST_POLL),
            Err(error) => return Err(error),
        };
        self.note_time()?;
        // Forward by a wave, or back again where the wave stands still.
        if self.store.reschedule(&current, told.renew_after)? {
            tracing::info!(renew_after = %told.renew_after, "the server moved the renewal");
        }
        self.follow_to(told.trust_bundle).await;
        Ok(Duration::from_secs(told.poll_after_seconds).clamp(LEAST_POLL, MOST_POLL))
    }

    /// Follows the trust bundles where the server has a newer one. A failure keeps nothing from going on.
    async fn follow_to(&mut self, newest: u64) {
        let known = self.store.trust().ok().flatten().map_or(0, |trust| trust.number);
        if newest > known
            && let Err(error) = self.update_trust().await
        {
            tracing::warn!(code = error.code(), "no trust bundle was followed: {error}");
        }
    }

    async fn ask_to_renew(&mut self, current: &Generation) -> Result<Generation, Error> {
        let pending = self.store.stage(Purpose::Renew(current.record.fingerprint))?;
        let issued = self.client(current)?.renew(&pending.csr).await?;
        self.take(&issued, &pending, &Expected::Same(current.record.identity.clone()))
    }
}
