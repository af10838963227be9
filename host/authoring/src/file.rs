//! Files that somebody named: read whole, unless they are larger than such a file can be.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// The bytes of a file, `most` at the most.
pub(crate) fn bytes(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        return Err(io::Error::other(format!("it has more than {most} bytes")));
    }
    Ok(bytes)
}

/// The text of a file, `most` bytes at the most.
pub(crate) fn text(path: &Path, most: usize) -> io::Result<String> {
    String::from_utf8(bytes(path, most)?).map_err(|_| io::Error::other("it is not UTF-8 text"))
}
