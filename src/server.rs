//! The server's life: first start, doors, jobs, end.

use crate::config::Config;
use crate::config::passphrase::Passphrase;

/// What a server's run ends with.
pub type Result = std::result::Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Makes an installation if there is none, and serves it until SIGTERM.
pub fn up(config: Config, passphrase: Passphrase) -> Result {
    serve(config, passphrase)
}

/// Makes an installation.
pub fn init(config: Config, passphrase: Passphrase) -> Result {
    serve(config, passphrase)
}

/// Serves an installation until SIGTERM.
pub fn serve(_config: Config, _passphrase: Passphrase) -> Result {
    Err("this build holds the command line alone".into())
}
