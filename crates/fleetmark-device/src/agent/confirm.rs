//! Confirm: show the server that the certificate arrived and that its key works.

use super::Agent;
use crate::error::Error;
use crate::store::Generation;

/// What [`Agent::confirm`] came to.
#[derive(Debug, Clone)]
pub enum Confirmation {
    /// It was confirmed before.
    Already(Generation),
    /// It is confirmed now.
    Confirmed(Generation),
}

impl Agent {
    /// Confirms the certificate in use, by mTLS with it: that proves certificate and key together.
    ///
    /// When the server says that it can never be confirmed (it lapsed, was revoked, or is unknown after a restore), the
    /// generation is given up and the one before is in use again; the error is returned all the same.
    pub async fn confirm(&mut self) -> Result<Confirmation, Error> {
        let Some(current) = self.store.current()? else {
            return Err(Error::Usage("there is nothing to confirm: enroll first".to_owned()));
        };
        if current.record.confirmed {
            return Ok(Confirmation::Already(current));
        }
        match self.client(&current)?.confirm().await {
            Ok(confirmed) => {
                if confirmed.serial != current.record.serial || confirmed.standing != "good" {
                    return Err(Error::BadAnswer(format!(
                        "it confirmed serial {} as {}",
                        confirmed.serial, confirmed.standing
                    )));
                }
                self.note_time()?;
                self.store.confirmed(&current, confirmed.renew_after).map(Confirmation::Confirmed)
            }
            Err(Error::Refused(refused)) if refused.ends_unconfirmed() => {
                tracing::warn!(code = refused.code, "the new certificate cannot be confirmed any more and is given up");
                self.store.abandon(&current)?;
                Err(Error::Refused(refused))
            }
            Err(error) => Err(error),
        }
    }
}
