//! What can nobody guess?

use std::fs::File;
use std::io::{self, Read};

/// Bytes of the system's own generator, fit for secrets.
///
/// # Errors
///
/// If this process can't reach it.
pub(crate) fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
