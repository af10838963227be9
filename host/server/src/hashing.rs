//! Writes, and takes the digest of what was written.

use std::io::{self, Write};

use countersign_core::lifecycle::{Digest, Hasher};

/// A writer that takes the digest of what it writes.
pub(crate) struct Hashing<W> {
    out: W,
    hasher: Hasher,
}

impl<W: Write> Hashing<W> {
    pub(crate) fn new(out: W) -> Hashing<W> {
        Hashing { out, hasher: Hasher::default() }
    }

    /// The digest of all that was written so far.
    pub(crate) fn digest(&self) -> Digest {
        self.hasher.digest()
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or(bytes));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
