//! `/api/admin/policy-sets` and `/api/admin/reload-policy`.

pub(super) mod change;
pub(super) mod read;

use countersign_core::lifecycle::Digest;

use super::error::{ApiError, Invalid};

/// Parses a hash, with or without the prefix `sha256:`.
pub(super) fn digest(path: &str, text: &str) -> Result<Digest, ApiError> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    digits.parse().map_err(|_| Invalid::new(path, "must be 64 hexadecimal digits in lower case").into())
}
