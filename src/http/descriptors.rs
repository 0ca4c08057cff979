//! How many connections the doors can have: each takes a file descriptor, and a process may open so many files and no more.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is no door's: the store, keys, lists, what the server itself asks of others.
const RESERVED: u64 = 256;
/// Device, admin and public door.
const DOORS: u64 = 3;

/// Raises this process's limit of open files as far as it may, and gives the connections that each door can have, at most
/// `wanted`. No door can take what another needs, so that nobody's idle connections keep an operator from revoking.
pub fn connections_within(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    let files = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    let connections = files.map_or(wanted, |files| wanted.min(share(files)));
    if connections < wanted {
        tracing::warn!(
            connections,
            wanted,
            "a door takes fewer connections than `limits.connections`: this process may open too few files; raise LimitNOFILE"
        );
    }
    connections
}

fn share(files: u64) -> usize {
    usize::try_from((files.saturating_sub(RESERVED) / DOORS).max(1)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_doors_together_leave_files_for_the_store() {
        for files in [1_024, 65_536, 524_288] {
            let taken = u64::try_from(share(files)).unwrap() * DOORS;
            assert!((files - RESERVED - DOORS..=files - RESERVED).contains(&taken), "{files}");
        }
        assert_eq!([share(0), share(300)], [1, 14]);
        assert_eq!(connections_within(1), 1);
    }
}
