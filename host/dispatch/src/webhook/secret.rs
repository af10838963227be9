//! The secrets that webhooks are signed with: `whsec_…` for HMAC-SHA256 (`v1`), `whsk_…` for Ed25519 (`v1a`).

use std::io::Read as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use zeroize::Zeroizing;

/// The largest file of secrets, in bytes.
const FILE_BYTES: u64 = 4096;

/// How many secrets a file may have: the new one and the old one, while receivers change.
const MOST: usize = 4;

/// The sizes that a symmetric secret may have, in bytes, as Standard Webhooks has it.
const SYMMETRIC_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The secrets of a webhook. What is sent is signed with each, so that a receiver may know any of them.
pub struct Secrets(Vec<Key>);

enum Key {
    Hmac(hmac::Key),
    Ed25519(Box<Ed25519KeyPair>),
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(…)")
    }
}

/// Why there are no secrets. Quotes none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// The file cannot be read.
    #[error("the secret file cannot be read: {0}")]
    Unreadable(String),
    /// It is too long.
    #[error("the secret file has more than 4096 bytes")]
    TooLong,
    /// It has none.
    #[error("the secret file is empty")]
    Empty,
    /// It has too many.
    #[error("the secret file has more than 4 secrets")]
    TooMany,
    /// A line is none.
    #[error(
        "line {0} of the secret file is neither `whsec_` and 24 to 64 bytes in base64, nor `whsk_` and an Ed25519 key in base64"
    )]
    Malformed(usize),
}

impl Secrets {
    /// The secrets in a file, one a line, the newest first. Blocks.
    ///
    /// # Errors
    /// If it cannot be read, or a line is no secret.
    pub fn read(path: &Path) -> Result<Secrets, BadSecret> {
        let unreadable = |error: std::io::Error| BadSecret::Unreadable(error.kind().to_string());
        // Opening a pipe would wait for whoever writes to it, and a device may do anything.
        if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(BadSecret::Unreadable("it is no file".to_owned()));
        }
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let mut text = Zeroizing::new(String::new());
        file.take(FILE_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
        if u64::try_from(text.len()).unwrap_or(u64::MAX) > FILE_BYTES {
            return Err(BadSecret::TooLong);
        }
        Secrets::parse(&text)
    }

    fn parse(text: &str) -> Result<Secrets, BadSecret> {
        let lines = (1..).zip(text.lines()).map(|(number, line)| (number, line.trim()));
        let lines = lines.filter(|(_, line)| !line.is_empty());
        let keys = lines.map(|(number, line)| Key::parse(line).ok_or(BadSecret::Malformed(number)));
        let keys = keys.collect::<Result<Vec<Key>, BadSecret>>()?;
        match keys.len() {
            0 => Err(BadSecret::Empty),
            1..=MOST => Ok(Secrets(keys)),
            _ => Err(BadSecret::TooMany),
        }
    }

    /// The header `webhook-signature` of a message that is sent at this time, in seconds since the epoch.
    #[must_use]
    pub fn sign(&self, id: &str, seconds: u64, body: &[u8]) -> String {
        let signed = [format!("{id}.{seconds}.").as_bytes(), body].concat();
        let signatures = self.0.iter().map(|key| match key {
            Key::Hmac(key) => format!("v1,{}", STANDARD.encode(hmac::sign(key, &signed))),
            Key::Ed25519(key) => format!("v1a,{}", STANDARD.encode(key.sign(&signed))),
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

impl Key {
    fn parse(line: &str) -> Option<Key> {
        if let Some(symmetric) = line.strip_prefix("whsec_") {
            let bytes = Zeroizing::new(STANDARD.decode(symmetric).ok()?);
            return SYMMETRIC_BYTES
                .contains(&bytes.len())
                .then(|| Key::Hmac(hmac::Key::new(hmac::HMAC_SHA256, &bytes)));
        }
        let bytes = Zeroizing::new(STANDARD.decode(line.strip_prefix("whsk_")?).ok()?);
        let (seed, public) = bytes.split_at_checked(32)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        // Some write the public key behind the secret one.
        let matches = public.is_empty() || public == pair.public_key().as_ref();
        matches.then(|| Key::Ed25519(Box::new(pair)))
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    fn secret(bytes: usize) -> String {
        format!("whsec_{}", STANDARD.encode(vec![7; bytes]))
    }

    #[test]
    fn each_secret_signs() {
        let seed = [3; 32];
        let text = format!("{}\n\n whsk_{} \n", secret(32), STANDARD.encode(seed));
        let signed = Secrets::parse(&text).unwrap().sign("msg_1", 1_700_000_000, b"{}");
        let [first, second]: [&str; 2] = signed.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
        let mac = STANDARD.decode(first.strip_prefix("v1,").unwrap()).unwrap();
        hmac::verify(&key, b"msg_1.1700000000.{}", &mac).unwrap();
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
        let signature = STANDARD.decode(second.strip_prefix("v1a,").unwrap()).unwrap();
        let public = UnparsedPublicKey::new(&ED25519, pair.public_key().as_ref());
        public.verify(b"msg_1.1700000000.{}", &signature).unwrap();
    }

    #[test]
    fn only_a_file_is_read() {
        for path in ["/dev/zero", "/"] {
            let error = Secrets::read(Path::new(path)).map(drop).unwrap_err();
            assert_eq!(error, BadSecret::Unreadable("it is no file".to_owned()), "{path}");
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_and_not_quoted() {
        for (text, expected) in [
            (String::new(), BadSecret::Empty),
            ("\n \n".into(), BadSecret::Empty),
            ("hunter2".into(), BadSecret::Malformed(1)),
            (secret(23), BadSecret::Malformed(1)),
            (secret(65), BadSecret::Malformed(1)),
            (format!("{}\nwhsec_hunter2!", secret(24)), BadSecret::Malformed(2)),
            (format!("whsk_{}", STANDARD.encode([1; 31])), BadSecret::Malformed(1)),
            (format!("whsk_{}", STANDARD.encode([1; 64])), BadSecret::Malformed(1)),
            (vec![secret(24); 5].join("\n"), BadSecret::TooMany),
        ] {
            let error = Secrets::parse(&text).map(drop).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
            assert_eq!(error, expected, "{text}");
        }
        assert_eq!(format!("{:?}", Secrets::parse(&secret(24)).unwrap()), "Secrets(…)");
    }
}
