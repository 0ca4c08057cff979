//! Which profile a fleet's devices have.

use fleetmark_domain::{FleetName, Refusal};

use super::{Registrar, Result};
use crate::pki::profile::Profile;
use crate::store::look_up;

impl Registrar {
    /// The profile of a fleet's devices.
    ///
    /// # Errors
    /// `FleetUnknown`; `AuthorityUnavailable` where the profile is not there any more.
    pub async fn fleet_profile(&self, fleet: &FleetName) -> Result<&Profile> {
        let name = fleet.clone();
        let fleet = look_up(&*self.store, move |rows| rows.fleet(&name)).await?.ok_or(Refusal::FleetUnknown)?;
        self.authorities.profiles().find(&fleet.profile).ok_or_else(|| {
            super::Error::with_detail(Refusal::AuthorityUnavailable, format!("the profile {} is not there", fleet.profile))
        })
    }
}
