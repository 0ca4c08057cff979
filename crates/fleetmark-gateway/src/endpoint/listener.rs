//! Sockets, bound before anything else is done.

use std::fs::{self, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Place;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// A place that cannot be listened at.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {place}")]
pub struct BindError {
    /// Where.
    pub place: Place,
    /// Why.
    pub source: io::Error,
}

/// A socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// A TCP socket.
    Tcp(TcpListener),
    /// A Unix socket and its path.
    Unix(PathBuf, UnixListener),
}

impl Listener {
    /// Listens. A Unix socket is open to its user and to the group of its directory (0660).
    ///
    /// # Errors
    /// [`BindError`]; `AddrInUse` where another process listens.
    pub fn bind(place: &Place) -> Result<Self, BindError> {
        let bound = match place {
            Place::Tcp(address) => tcp(*address).map(Self::Tcp),
            Place::Unix(path) => unix(path).map(|listener| Self::Unix(path.clone(), listener)),
        };
        bound.map_err(|source| BindError { place: place.clone(), source })
    }

    /// The TCP address: the port that the system chose, where it was 0.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    /// The Unix socket's path.
    pub const fn path(&self) -> Option<&PathBuf> {
        match self {
            Self::Unix(path, _) => Some(path),
            Self::Tcp(_) => None,
        }
    }
}

fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A gateway that is started again does not wait for its old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Binds in a directory of its own (0700) and moves the socket to its place once it has its group and mode: at no time can
/// others open it. One that a dead process left is replaced.
fn unix(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let room = Room::new(parent)?;
    let made = room.0.join("s");
    let listener = UnixListener::bind(&made)?;
    fs::set_permissions(&made, Permissions::from_mode(0o600))?;
    std::os::unix::fs::chown(&made, None, Some(fs::metadata(parent)?.gid()))?;
    fs::set_permissions(&made, Permissions::from_mode(0o660))?;
    fs::rename(&made, path)?;
    Ok(listener)
}

/// A directory that only this user may enter, gone when it is dropped.
struct Room(PathBuf);

impl Room {
    fn new(parent: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let path = parent.join(format!(".{}", std::process::id()));
        // One of a process that had this number before and died between two steps.
        let _ = fs::remove_file(path.join("s"));
        let _ = fs::remove_dir(&path);
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // What stays is taken away at the next start with this process number.
        let _ = fs::remove_dir(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_its_groups_alone_and_a_dead_ones_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::Unix(directory.path().join("verdict.sock"));
        let listener = Listener::bind(&place).unwrap();
        let path = listener.path().unwrap();
        let meta = fs::metadata(path).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o660);
        assert_eq!(meta.gid(), fs::metadata(directory.path()).unwrap().gid());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left");
        assert_eq!(Listener::bind(&place).unwrap_err().source.kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        Listener::bind(&place).unwrap();
    }

    #[test]
    fn an_address_in_use_is_told() {
        let first = Listener::bind(&Place::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
        let taken = Place::Tcp(first.address().unwrap());
        let error = Listener::bind(&taken).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(error.to_string(), format!("cannot listen at {taken}"));
    }
}
