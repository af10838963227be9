//! Keys to sign with. A gateway has none: it only ever holds public ones.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::{Zeroize as _, Zeroizing};

use crate::trust::{self, KeyError, PublicKey, Signed};
use countersign_core::lifecycle::Digest;
use countersign_core::record::Signature;

/// What stands in front of the 32 bytes of a private key (PKCS #8, RFC 8410).
const PKCS8: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// A key to sign with.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// Reads a private key: PKCS #8 in PEM.
    ///
    /// # Errors
    /// Where the file cannot be read, or holds no such key.
    pub fn read(path: &Path) -> Result<SigningKey, KeyError> {
        let wrong = |what| KeyError::Wrong { path: path.to_owned(), what };
        let pem = fs::read(path).map_err(|error| KeyError::Unreadable { path: path.to_owned(), error })?;
        let pem = Zeroizing::new(pem);
        let mut key = PrivatePkcs8KeyDer::from_pem_slice(&pem)
            .map_err(|_| wrong("holds no private key (`-----BEGIN PRIVATE KEY-----`)"))?;
        // OpenSSL's do not hold the public key, which ring would compare.
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.secret_pkcs8_der());
        key.zeroize();
        pair.map(SigningKey).map_err(|_| wrong("holds a private key that is no Ed25519 key"))
    }

    /// Signs this digest.
    pub fn sign(&self, signed: Signed, digest: &Digest) -> Signature {
        let mut bytes = [0; 64];
        bytes.copy_from_slice(self.0.sign(trust::text(signed, digest).as_bytes()).as_ref());
        Signature::from_bytes(bytes)
    }

    /// The public key.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        PublicKey::from_bytes(bytes)
    }
}

/// A new key: the private one and the public one, in PEM.
pub fn generate() -> Result<(Zeroizing<String>, String), getrandom::Error> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed)?;
    let mut private = Zeroizing::new([0; PKCS8.len() + 32]);
    let (front, rest) = private.split_at_mut(PKCS8.len());
    front.copy_from_slice(&PKCS8);
    rest.copy_from_slice(&*seed);
    let pem =
        |kind: &str, body: &str| format!("-----BEGIN {kind} KEY-----\n{body}\n-----END {kind} KEY-----\n");
    let body = Zeroizing::new(STANDARD.encode(private.as_slice()));
    let pair = Ed25519KeyPair::from_seed_unchecked(&*seed)
        .map(SigningKey)
        .map_err(|_| getrandom::Error::UNEXPECTED)?;
    Ok((Zeroizing::new(pem("PRIVATE", &body)), pem("PUBLIC", &pair.public().to_string())))
}
