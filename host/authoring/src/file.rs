//! Reads files that a user names, up to a size limit.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// The bytes of a file; an error if there are more than `limit`.
pub(crate) fn bytes(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let one_more = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    File::open(path)?.take(one_more).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::other(format!("it has more than {limit} bytes")));
    }
    Ok(bytes)
}

/// The UTF-8 text of a file; an error if it has more than `limit` bytes.
pub(crate) fn text(path: &Path, limit: usize) -> io::Result<String> {
    String::from_utf8(bytes(path, limit)?).map_err(|_| io::Error::other("it is not UTF-8 text"))
}
