//! What the tests of this room share: openssl as a stranger, and a root, a device authority and a device in memory.

use std::io::Write;
use std::process::{Command, Stdio};

/// Runs openssl with `input` on its standard input; its standard output, or its standard error when it fails.
pub(crate) fn openssl(arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, String> {
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A child that does not read its input closes it early; that is no fault.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    if output.status.success() {
        Ok(output.stdout)
    } else {
        let both = [output.stdout, output.stderr].concat();
        Err(String::from_utf8_lossy(&both).into_owned())
    }
}
