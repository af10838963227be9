//! Detached signatures, as they are kept beside modules and policy sets. Who is trusted is decided elsewhere.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The longest file of signatures, in bytes.
pub const SIGNATURES_BYTES: usize = 16 << 10;

/// The most signatures in one file, or over one digest as long as nobody looks at them: by as many keys as anybody has.
pub const MOST_SIGNATURES: usize = 16;

/// A detached signature; written as Base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature([u8; 64]);

impl Signature {
    /// As it was kept.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 64]) -> Signature {
        Signature(bytes)
    }

    /// The 64 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }

    /// The signatures in a text: one a line, between empty lines and comments that begin with `#`.
    ///
    /// # Errors
    /// What is wrong, and in which line, from 1.
    pub fn read_all(text: &str) -> Result<Vec<Signature>, (u64, String)> {
        let mut signatures = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let signature: Signature =
                line.parse().map_err(|error: NoSignature| (number, error.to_string()))?;
            if signatures.len() == MOST_SIGNATURES {
                return Err((number, format!("there are more than {MOST_SIGNATURES} signatures")));
            }
            signatures.push(signature);
        }
        Ok(signatures)
    }
}

/// A text that is no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no signature: one is 64 bytes in Base64, which are 88 characters")]
pub struct NoSignature;

impl FromStr for Signature {
    type Err = NoSignature;

    fn from_str(text: &str) -> Result<Signature, NoSignature> {
        let bytes = STANDARD.decode(text).map_err(|_| NoSignature)?;
        bytes.try_into().map(Signature).map_err(|_| NoSignature)
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
