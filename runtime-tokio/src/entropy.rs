//! The seed of the core's randomness. Nothing else takes randomness from the operating system.

use std::fs::File;
use std::io::{self, Read};

/// Bytes that nobody can guess.
pub fn seed<const BYTES: usize>() -> io::Result<[u8; BYTES]> {
    let mut seed = [0; BYTES];
    File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(seed)
}
