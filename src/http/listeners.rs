//! The doors' sockets, bound before anything else is done.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Where the doors are. A door without an address is not opened.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    /// Device door.
    pub device: Vec<SocketAddr>,
    /// Admin door.
    pub admin: Vec<SocketAddr>,
    /// Public door.
    pub public: Vec<SocketAddr>,
    /// The rescue socket's path; its directory belongs to the server's user alone.
    pub rescue: Option<PathBuf>,
}

/// A door cannot be opened.
#[derive(Debug)]
pub struct BindError {
    /// Which.
    pub door: &'static str,
    /// Its address or path.
    pub address: String,
    /// Why.
    pub source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} door cannot listen on {}", self.door, self.address)?;
        match self.source.kind() {
            io::ErrorKind::AddrInUse => f.write_str(": another process listens there"),
            io::ErrorKind::AddrNotAvailable => f.write_str(": this machine has no such address"),
            io::ErrorKind::PermissionDenied => f.write_str(": this user may not"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// The doors' sockets, bound before anything else is done, so that a port in use is told first.
#[derive(Debug)]
pub struct Listeners {
    pub(super) device: Vec<TcpListener>,
    pub(super) admin: Vec<TcpListener>,
    pub(super) public: Vec<TcpListener>,
    pub(super) rescue: Option<(PathBuf, UnixListener)>,
}

impl Listeners {
    /// Binds all addresses, or none.
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub fn bind(addresses: &Addresses) -> Result<Self, BindError> {
        let tcp = |door, addresses: &[SocketAddr]| -> Result<Vec<_>, BindError> {
            let bind = |address: &SocketAddr| {
                listen(*address).map_err(|source| BindError { door, address: address.to_string(), source })
            };
            addresses.iter().map(bind).collect()
        };
        let rescue = |path: &PathBuf| match listen_rescue(path) {
            Ok(listener) => Ok((path.clone(), listener)),
            Err(source) => Err(BindError { door: "rescue", address: path.display().to_string(), source }),
        };
        Ok(Self {
            device: tcp("device", &addresses.device)?,
            admin: tcp("admin", &addresses.admin)?,
            public: tcp("public", &addresses.public)?,
            rescue: addresses.rescue.as_ref().map(rescue).transpose()?,
        })
    }

    /// Where the doors are in fact: port 0 has become a real one.
    pub fn addresses(&self) -> Addresses {
        let of = |listeners: &[TcpListener]| listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        Addresses {
            device: of(&self.device),
            admin: of(&self.admin),
            public: of(&self.public),
            rescue: self.rescue.as_ref().map(|(path, _)| path.clone()),
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A server that is started again does not wait for its old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Binds in a directory of its own (0700) and moves the socket to its place once it has its mode: at no time can others
/// open it. One that a dead server left is replaced.
fn listen_rescue(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let room = tempfile::Builder::new().prefix(".r").tempdir_in(parent)?;
    let made = room.path().join("s");
    let listener = UnixListener::bind(&made)?;
    fs::set_permissions(&made, Permissions::from_mode(0o600))?;
    fs::rename(&made, path)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback() -> Addresses {
        Addresses { public: vec!["127.0.0.1:0".parse().unwrap()], ..Addresses::default() }
    }

    #[test]
    fn a_port_in_use_is_told_by_door_and_address() {
        let first = Listeners::bind(&loopback()).unwrap();
        let taken = first.addresses();
        assert_ne!(taken.public[0].port(), 0);
        let error = Listeners::bind(&taken).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        let words = error.to_string();
        assert_eq!(words, format!("the public door cannot listen on {}: another process listens there", taken.public[0]));
    }

    #[test]
    fn the_rescue_socket_is_the_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rescue.sock");
        let addresses = Addresses { rescue: Some(path.clone()), ..Addresses::default() };
        let listeners = Listeners::bind(&addresses).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_eq!(Listeners::bind(&addresses).unwrap_err().source.kind(), io::ErrorKind::AddrInUse);
        drop(listeners);
        // The file is still there; nobody listens behind it.
        Listeners::bind(&addresses).unwrap();
    }
}
