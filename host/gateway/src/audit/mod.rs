//! Signs the audit log: keys and signatures of checkpoints, and who makes them. docs/AUDIT.md is the definition.

mod signer;
#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_core::audit::checkpoint::{BadCheckpoint, Checkpoint};
use countersign_core::audit::note::{BadNote, Note, NoteKey, NoteSignature};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

pub use signer::{AuditSigner, Part, Refusal, SignError, Signed};

/// The keys that checkpoints are signed with: all of them sign, so that whoever knows one of them can check.
pub struct AuditKeys(Vec<Ed25519KeyPair>);

/// A seed that makes no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no key of an audit log")]
pub struct BadAuditKey;

/// Why a text is no checkpoint that counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// It is no note.
    #[error(transparent)]
    Note(#[from] BadNote),
    /// It is signed with other keys.
    #[error("it is signed with none of the keys at hand")]
    UnknownKey,
    /// It was changed, or signed by somebody else.
    #[error("its signature is wrong: it was changed, or somebody else has signed it")]
    Signature,
    /// It is signed, and is no checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] BadCheckpoint),
}

impl AuditKeys {
    /// The keys of these seeds, which must be random; the current one first.
    ///
    /// # Errors
    /// If ring does not take one, which does not happen.
    pub fn new<'a>(seeds: impl IntoIterator<Item = &'a [u8; 32]>) -> Result<AuditKeys, BadAuditKey> {
        let pairs = seeds.into_iter().map(|seed| Ed25519KeyPair::from_seed_unchecked(seed));
        pairs.collect::<Result<_, _>>().map(AuditKeys).map_err(|_| BadAuditKey)
    }

    /// Their public halves, for the log with this origin.
    #[must_use]
    pub fn public(&self, origin: &str) -> Vec<NoteKey> {
        let public = self.0.iter().filter_map(|pair| pair.public_key().as_ref().try_into().ok());
        public.map(|public| NoteKey { name: origin.to_owned(), public }).collect()
    }

    /// Whether the current key is among those that have signed a checkpoint: once it is, an earlier one can be removed.
    #[must_use]
    pub fn current_has_signed(&self, note: &str) -> bool {
        let origin = note.lines().next().unwrap_or_default();
        let current: Vec<NoteKey> = self.public(origin).into_iter().take(1).collect();
        verify(note, &current).is_ok()
    }

    /// Whether one of the keys is among those that have signed a checkpoint.
    #[must_use]
    pub fn any_has_signed(&self, note: &str) -> bool {
        let origin = note.lines().next().unwrap_or_default();
        verify(note, &self.public(origin)).is_ok()
    }

    /// The signature of the current key over a text that is no note.
    fn signature(&self, text: &str) -> String {
        self.0.first().map(|pair| STANDARD.encode(pair.sign(text.as_bytes()))).unwrap_or_default()
    }

    /// Whether one of the keys has made a signature over a text that is no note.
    fn has_signed(&self, text: &str, signature: &str) -> bool {
        let Ok(signature) = STANDARD.decode(signature) else { return false };
        self.0.iter().any(|pair| {
            UnparsedPublicKey::new(&ED25519, pair.public_key()).verify(text.as_bytes(), &signature).is_ok()
        })
    }

    fn sign(&self, checkpoint: &Checkpoint) -> Note {
        let text = checkpoint.text();
        let signatures =
            self.0.iter().zip(self.public(&checkpoint.origin)).map(|(pair, key)| NoteSignature {
                hash: key.hash(),
                name: key.name,
                signature: pair.sign(text.as_bytes()).as_ref().to_vec(),
            });
        Note { signatures: signatures.collect(), text }
    }
}

impl std::fmt::Debug for AuditKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AuditKeys({})", self.0.len())
    }
}

/// Reads a signed checkpoint. One of `keys` must have signed it; signatures of others are not looked at.
///
/// # Errors
/// If it is none, or none that counts.
pub fn verify(note: &str, keys: &[NoteKey]) -> Result<Checkpoint, CheckpointError> {
    let note: Note = note.parse()?;
    // A key signs for the log that it is named after, and for no other one.
    let origin = note.text.lines().next().unwrap_or_default();
    let mut is_signed = false;
    for signature in note.signatures.iter().filter(|signature| signature.name == origin) {
        let named = |key: &&NoteKey| key.name == origin && key.hash() == signature.hash;
        let Some(key) = keys.iter().find(named) else { continue };
        UnparsedPublicKey::new(&ED25519, &key.public)
            .verify(note.text.as_bytes(), &signature.signature)
            .map_err(|_| CheckpointError::Signature)?;
        is_signed = true;
    }
    if !is_signed {
        return Err(CheckpointError::UnknownKey);
    }
    Ok(Checkpoint::parse(&note.text)?)
}
