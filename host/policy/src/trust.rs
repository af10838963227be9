//! Signatures of modules and of policy sets: detached Ed25519 signatures over their digests, by keys that the
//! configuration names.
//!
//! A signature is made over a short text which says what is signed, so that one of a module is never one of a set:
//! `countersign module sha256:<digest>`, or `countersign policy-set sha256:<hash>`. Keys are PEM, as OpenSSL has them.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, UnparsedPublicKey};
use rustls_pki_types::pem::{PemObject as _, SectionKind};

use countersign_core::lifecycle::Digest;
use countersign_core::record::Signature;

/// What stands in front of the 32 bytes of a public key (`SubjectPublicKeyInfo`, RFC 8410).
const SPKI: [u8; 12] = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// Whose signatures count. Without keys for modules, modules need none; without keys for sets, sets need none.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    modules: Keys,
    sets: Keys,
}

/// Public keys; none means that no signature is asked for.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<PublicKey>);

/// Whose signature it is; written as what stands between the lines of its PEM.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

/// A signature that counts, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The signature.
    pub signature: Signature,
    /// Whose it is.
    pub key: PublicKey,
}

/// What is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    /// A module's bytes.
    Module,
    /// All that a policy set says, its modules included.
    PolicySet,
}

/// None of the signatures at hand is by a key that is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsigned {
    signed: Signed,
    at_hand: usize,
}

/// Why a file holds no keys that can be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error("the keys in `{path}` cannot be read: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is none in it, or one of them is none.
    #[error("`{path}` {what}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl Trust {
    /// Modules must be signed by one of the keys in the first file, sets by one of those in the second, if they are
    /// named. A file holds public keys in PEM, one after the other.
    ///
    /// # Errors
    /// Where a file cannot be read, holds no key, or holds one that is no Ed25519 key.
    pub fn read(modules: Option<&Path>, sets: Option<&Path>) -> Result<Trust, KeyError> {
        let keys = |path: Option<&Path>| path.map_or(Ok(Keys::default()), Keys::read);
        Ok(Trust { modules: keys(modules)?, sets: keys(sets)? })
    }

    /// Whether `signed` things must be signed.
    #[must_use]
    pub fn asks_for(&self, signed: Signed) -> bool {
        !self.keys(signed).0.is_empty()
    }

    /// Those of `signatures` that are valid for this digest and by a trusted key, each with its key; none if none is required.
    ///
    /// # Errors
    /// Where one is asked for, and there is none.
    pub fn verify(
        &self,
        signed: Signed,
        digest: &Digest,
        signatures: &[Signature],
    ) -> Result<Vec<Verified>, Unsigned> {
        let Keys(keys) = self.keys(signed);
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let text = text(signed, digest);
        let by = |key: &PublicKey, signature: &Signature| {
            UnparsedPublicKey::new(&ED25519, key.0).verify(text.as_bytes(), signature.as_bytes()).is_ok()
        };
        let valid: Vec<Verified> = signatures
            .iter()
            .filter_map(|signature| {
                let key = keys.iter().find(|key| by(key, signature))?;
                Some(Verified { signature: *signature, key: *key })
            })
            .collect();
        if valid.is_empty() {
            return Err(Unsigned { signed, at_hand: signatures.len() });
        }
        Ok(valid)
    }

    fn keys(&self, signed: Signed) -> &Keys {
        match signed {
            Signed::Module => &self.modules,
            Signed::PolicySet => &self.sets,
        }
    }
}

impl Keys {
    fn read(path: &Path) -> Result<Keys, KeyError> {
        let wrong = |what| KeyError::Wrong { path: path.to_owned(), what };
        let pem = fs::read(path).map_err(|error| KeyError::Unreadable { path: path.to_owned(), error })?;
        let mut keys = Vec::new();
        for found in <(SectionKind, Vec<u8>)>::pem_slice_iter(&pem) {
            let (kind, der) = found.map_err(|_| wrong("is no PEM file as it should be"))?;
            // A private key has no business here, and whoever put it there should know.
            if kind != SectionKind::PublicKey {
                return Err(wrong("holds something else than public keys"));
            }
            let key = der.strip_prefix(&SPKI).and_then(|key| key.try_into().ok()).map(PublicKey);
            let key = key.ok_or_else(|| wrong("holds a public key that is no Ed25519 key"))?;
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        // A file that is named but says nothing must not mean that anything goes.
        if keys.is_empty() {
            Err(wrong("holds no public key (`-----BEGIN PUBLIC KEY-----`)"))
        } else {
            Ok(Keys(keys))
        }
    }
}

impl PublicKey {
    /// As it was made.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> PublicKey {
        PublicKey(bytes)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode([SPKI.as_slice(), &self.0].concat()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What is signed: this text, in ASCII.
pub(crate) fn text(signed: Signed, digest: &Digest) -> String {
    let what = match signed {
        Signed::Module => "module",
        Signed::PolicySet => "policy-set",
    };
    format!("countersign {what} sha256:{digest}")
}

impl fmt::Display for Unsigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = match self.signed {
            Signed::Module => "COUNTERSIGN_MODULE_KEYS",
            Signed::PolicySet => "COUNTERSIGN_SET_KEYS",
        };
        match self.at_hand {
            0 => write!(f, "it is not signed, as `{keys}` demands"),
            1 => write!(
                f,
                "it is not signed by a key of `{keys}`: the signature at hand is over something else, or by another key"
            ),
            many => write!(
                f,
                "it is not signed by a key of `{keys}`: each of the {many} signatures at hand is over something else, or by another key"
            ),
        }
    }
}

impl std::error::Error for Unsigned {}
