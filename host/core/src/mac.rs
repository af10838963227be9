//! HMAC-SHA-256, for commitments, tokens and the derivation of keys.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The HMAC-SHA-256 of `data`.
#[must_use]
pub fn hmac(key: &[u8; 32], data: &[u8]) -> [u8; 32] {
    // HMAC pads a key that is shorter than its block with zeros; padding it here leaves nothing that could fail.
    let block: [u8; 64] = std::array::from_fn(|n| key.get(n).copied().unwrap_or(0));
    let mut mac = Hmac::<Sha256>::new(&block.into());
    mac.update(data);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 1 has a key of 20 bytes; zeros to 32 leave the HMAC as it is.
    #[test]
    fn the_hmac_is_the_standard_one() {
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(hex::encode(hmac(&key, b"Hi There")), expected);
    }
}
