//! The first step: which server, and which root it is trusted by.

use std::path::Path;
use std::sync::Arc;

use fleetmark_domain::{Fingerprint, Identity, Name};

use super::{Agent, device_time};
use crate::bootstrap::fetch_root;
use crate::clock::Clock;
use crate::door::{Door, ServerUrl};
use crate::error::Error;
use crate::store::{Settings, Store};

/// What the person or the factory says about the server.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The server.
    pub server: ServerUrl,
    /// SHA-256 of the root certificate.
    pub ca_fingerprint: Fingerprint,
    /// The door of the server.
    pub door: Door,
    /// The name to ask for; none when the token is bound to one.
    pub name: Option<Name>,
}

impl Agent {
    /// Opens `dir` for `setup`, and fetches the root when it is not there yet.
    ///
    /// # Errors
    /// [`Error::Usage`] when the directory holds an identity of another door, name or installation; [`Error::Untrusted`]
    /// when the server does not show the root; those of [`Store::open`].
    pub async fn set_up(dir: &Path, setup: &Setup, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let store = Store::open(dir)?;
        let stored = store.roots()?;
        let followed = is_pinned_by(&store, setup)?;
        refuse_another_identity(&store, setup)?;
        let roots = match stored {
            // The root of the pin may be gone since: others followed it, by its own word.
            Some(roots) if roots.contain(&setup.ca_fingerprint) || followed => roots,
            _ => {
                let roots = fetch_root(&setup.server, &setup.ca_fingerprint).await?;
                store.save_roots(&roots)?;
                roots
            }
        };
        let Setup { server, ca_fingerprint, door, name } = setup.clone();
        let settings = Settings { server, door, name, ca_fingerprint };
        if store.settings()?.as_ref() != Some(&settings) {
            store.save_settings(&settings)?;
        }
        let time = device_time(&store, clock)?;
        Ok(Self { store, settings, roots, time })
    }
}

/// Whether the directory was set up by this pin, and has followed trust bundles from there.
fn is_pinned_by(store: &Store, setup: &Setup) -> Result<bool, Error> {
    let same = store.settings()?.is_some_and(|settings| settings.ca_fingerprint == setup.ca_fingerprint);
    Ok(same && store.trust()?.is_some())
}

/// A directory that holds an identity keeps it: the server may move, but root, door and name stay.
fn refuse_another_identity(store: &Store, setup: &Setup) -> Result<(), Error> {
    let Some(current) = store.current()? else { return Ok(()) };
    let uri = &current.record.identity;
    let (_, identity) = Identity::parse(uri).map_err(|error| Error::damaged(store.dir(), &error))?;
    let same_name = setup.name.as_ref().is_none_or(|name| name.folded() == identity.name().folded());
    if !same_name || !setup.door.admits(&identity) {
        return Err(Error::Usage(format!("{} holds the identity {uri}: use another directory", store.dir().display())));
    }
    if !is_pinned_by(store, setup)? && store.roots()?.is_some_and(|roots| !roots.contain(&setup.ca_fingerprint)) {
        let dir = store.dir().display();
        return Err(Error::Usage(format!("{dir} holds {uri} under another root than --ca-fingerprint: use another directory")));
    }
    Ok(())
}
