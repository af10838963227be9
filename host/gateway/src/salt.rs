//! Salts of payload hashes: how they are encrypted for the store.
//!
//! The store has every commitment, so with a salt beside them whoever copies the store could find hidden values by
//! trying them. The keys are derived from the secret of the gateway, which is not in the store.

use countersign_core::lifecycle::{PayloadHashVersion, RequestId, Salt, WrappedSalt};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

/// Random bytes that a salt is encrypted with, never twice under one key.
pub type SaltNonce = [u8; NONCE_LEN];

/// The keys that salts are encrypted with.
pub struct SaltKeys {
    current: SaltKey,
    previous: Option<SaltKey>,
}

/// One of these keys, with the id that is stored with what it encrypts.
pub struct SaltKey {
    id: String,
    key: LessSafeKey,
}

/// Why a salt cannot be decrypted, or encrypted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SaltError {
    /// It is encrypted under a key that this gateway does not have.
    #[error("it is encrypted under the key `{0}`, which this gateway does not have")]
    KeyGone(String),
    /// It is not what was encrypted for this request.
    #[error("it is not what was encrypted for this request under the key `{0}`")]
    Altered(String),
    /// The request should have one, and the store has none.
    #[error("the store has none")]
    Missing,
    /// The cipher did not take it.
    #[error("the cipher failed")]
    Cipher,
}

impl SaltKey {
    /// A key of 32 random bytes, and its id.
    #[must_use]
    pub fn new(id: String, key: &[u8; 32]) -> SaltKey {
        #[expect(clippy::expect_used, reason = "the cipher's keys have 32 bytes")]
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("a key of 32 bytes");
        SaltKey { id, key: LessSafeKey::new(key) }
    }
}

impl SaltKeys {
    /// Salts are encrypted with `current`; those that are encrypted with `previous` can still be decrypted.
    #[must_use]
    pub fn new(current: SaltKey, previous: Option<SaltKey>) -> SaltKeys {
        SaltKeys { current, previous }
    }

    /// Encrypts the salt of a request.
    ///
    /// # Errors
    /// If the cipher does not take it, which does not happen with 32 bytes.
    pub fn wrap(&self, id: RequestId, salt: &Salt, nonce: SaltNonce) -> Result<WrappedSalt, SaltError> {
        let mut encrypted = *salt.expose();
        let SaltKey { id: key_id, key } = &self.current;
        let tag = key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), bound_to(id), &mut encrypted)
            .map_err(|_| SaltError::Cipher)?;
        let sealed = [&nonce, encrypted.as_slice(), tag.as_ref()].concat();
        Ok(WrappedSalt { key: key_id.clone(), sealed })
    }

    /// Decrypts the salt of a request.
    ///
    /// # Errors
    /// If its key is gone, or it was encrypted for another request or changed since.
    pub fn unwrap(&self, id: RequestId, wrapped: &WrappedSalt) -> Result<Salt, SaltError> {
        let mut keys = std::iter::once(&self.current).chain(&self.previous);
        let key = keys.find(|key| key.id == wrapped.key);
        let SaltKey { key, .. } = key.ok_or_else(|| SaltError::KeyGone(wrapped.key.clone()))?;
        let altered = || SaltError::Altered(wrapped.key.clone());
        let (nonce, encrypted) = wrapped.sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(altered)?;
        let mut encrypted = encrypted.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let salt = key.open_in_place(nonce, bound_to(id), &mut encrypted).map_err(|_| altered())?;
        Ok(Salt::new((&*salt).try_into().map_err(|_| altered())?))
    }

    /// The same salt, encrypted with the current key; `None` if it is already.
    ///
    /// # Errors
    /// As for [`SaltKeys::unwrap`].
    pub fn rewrap(
        &self,
        id: RequestId,
        wrapped: &WrappedSalt,
        nonce: SaltNonce,
    ) -> Result<Option<WrappedSalt>, SaltError> {
        if wrapped.key == self.current.id {
            return Ok(None);
        }
        self.wrap(id, &self.unwrap(id, wrapped)?, nonce).map(Some)
    }
}

/// What a salt is bound to: in the place of another one it is not decrypted.
fn bound_to(id: RequestId) -> Aad<Vec<u8>> {
    let version = u8::from(PayloadHashVersion::Two);
    Aad::from([b"countersign payload salt".as_slice(), &[version], &id.to_bytes()].concat())
}

impl std::fmt::Debug for SaltKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SaltKeys({})", self.current.id)
    }
}

#[cfg(test)]
impl SaltKeys {
    /// Always the same.
    pub(crate) fn fixed() -> SaltKeys {
        SaltKeys::new(SaltKey::new("fixed".to_owned(), &[8; 32]), None)
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::lifecycle::Timestamp;

    use super::*;

    fn key(number: u8) -> SaltKey {
        SaltKey::new(format!("key {number}"), &[number; 32])
    }

    fn id(number: u64) -> RequestId {
        RequestId::new(Timestamp::from_millis(1_700_000_000_000), 7, number)
    }

    #[test]
    fn a_salt_is_decrypted_with_the_key_that_it_names() {
        let salt = Salt::new([9; 32]);
        let old = SaltKeys::new(key(1), None).wrap(id(1), &salt, [3; 12]).unwrap();
        assert_eq!((old.key.as_str(), old.sealed.len()), ("key 1", 12 + 32 + 16));
        assert!(!old.sealed.windows(32).any(|window| window == salt.expose()));
        let keys = SaltKeys::new(key(2), Some(key(1)));
        assert_eq!(keys.unwrap(id(1), &old).unwrap().expose(), salt.expose());
        let new = keys.rewrap(id(1), &old, [4; 12]).unwrap().expect("it was under the previous key");
        assert_eq!(new.key, "key 2");
        assert_eq!(keys.rewrap(id(1), &new, [5; 12]), Ok(None));
        let alone = SaltKeys::new(key(2), None);
        assert_eq!(alone.unwrap(id(1), &new).unwrap().expose(), salt.expose());
        assert_eq!(alone.unwrap(id(1), &old).err(), Some(SaltError::KeyGone("key 1".to_owned())));
    }

    #[test]
    fn a_salt_is_its_requests_alone_and_cannot_be_changed() {
        let keys = SaltKeys::new(key(1), None);
        let wrapped = keys.wrap(id(1), &Salt::new([9; 32]), [3; 12]).unwrap();
        let altered = Some(SaltError::Altered("key 1".to_owned()));
        assert_eq!(keys.unwrap(id(2), &wrapped).err(), altered);
        for position in 0..wrapped.sealed.len() {
            let mut other = wrapped.clone();
            other.sealed[position] ^= 1;
            assert_eq!(keys.unwrap(id(1), &other).err(), altered, "byte {position}");
            other.sealed.truncate(position);
            assert_eq!(keys.unwrap(id(1), &other).err(), altered, "{position} bytes");
        }
        // The id of another key does not make it another key's.
        let renamed = WrappedSalt { key: "key 2".to_owned(), ..wrapped };
        let keys = SaltKeys::new(key(2), None);
        assert_eq!(keys.unwrap(id(1), &renamed).err(), Some(SaltError::Altered("key 2".to_owned())));
    }
}
