//! Request ids: opaque, sorted by time, and carrying the shard that their lineage lives in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::timestamp::Timestamp;

/// 128 bits: 48 of milliseconds, 16 of shard, 64 of randomness.
///
/// A request that is made again gets a new id in the shard of the first one,
/// so that a sharded store can touch a whole lineage in one atomic write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u128);

/// Crockford's base 32: no letter that reads like a digit, and in ASCII order.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const PREFIX: &str = "req_";
const DIGITS: usize = 26;

impl RequestId {
    /// An id made at `at`, in `shard`, told apart by `random`.
    #[must_use]
    pub fn new(at: Timestamp, shard: u16, random: u64) -> RequestId {
        let millis = u128::from(at.as_millis() & 0xffff_ffff_ffff);
        RequestId(millis << 80 | u128::from(shard) << 64 | u128::from(random))
    }

    /// An id that was kept as raw bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> RequestId {
        RequestId(u128::from_be_bytes(bytes))
    }

    /// The 16 bytes, which sort as the ids do.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The id that comes right after this one.
    #[must_use]
    pub const fn next(self) -> RequestId {
        RequestId(self.0.saturating_add(1))
    }

    /// The shard, the same for every request of a lineage.
    #[must_use]
    pub fn shard(self) -> u16 {
        u16::try_from(self.0 >> 64 & 0xffff).unwrap_or_default()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits: [u8; DIGITS] = std::array::from_fn(|at| {
            let value = usize::try_from(self.0 >> (5 * (DIGITS - 1 - at)) & 31).unwrap_or_default();
            ALPHABET.get(value).copied().unwrap_or(b'0')
        });
        f.write_str(PREFIX)?;
        f.write_str(std::str::from_utf8(&digits).unwrap_or_default())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A text that is no request id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a request id: it should be `req_` and 26 letters or digits")]
pub struct BadRequestId;

impl FromStr for RequestId {
    type Err = BadRequestId;

    fn from_str(text: &str) -> Result<RequestId, BadRequestId> {
        let digits = text.strip_prefix(PREFIX).filter(|digits| digits.len() == DIGITS).ok_or(BadRequestId)?;
        let mut bits: u128 = 0;
        for letter in digits.bytes() {
            let value = ALPHABET.iter().position(|&known| known == letter).ok_or(BadRequestId)?;
            // 26 digits hold 130 bits; the two that do not fit must be zero, so that an id has one spelling.
            if bits >> 123 != 0 {
                return Err(BadRequestId);
            }
            bits = bits << 5 | u128::try_from(value).map_err(|_| BadRequestId)?;
        }
        Ok(RequestId(bits))
    }
}

impl utoipa::PartialSchema for RequestId {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        let letters = String::from_utf8_lossy(ALPHABET);
        // The first digit holds the three bits that are left of 128.
        let pattern = format!("^{PREFIX}[0-7][{letters}]{{{}}}$", DIGITS - 1);
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::Type::String)
            .description(Some("The id of a request."))
            .pattern(Some(pattern))
            .examples(["req_01jzq5w8k3t7c9d2e4f6g8h0jk"])
            .into()
    }
}

impl utoipa::ToSchema for RequestId {}

impl Serialize for RequestId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<RequestId, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn survives_being_written_and_read(ms in 0u64..1 << 48, shard: u16, random: u64) {
            let id = RequestId::new(Timestamp::from_millis(ms), shard, random);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            prop_assert_eq!(RequestId::from_bytes(id.to_bytes()), id);
            prop_assert_eq!(id.shard(), shard);
        }

        #[test]
        fn sorts_by_time(early in 0u64..1 << 47, later in 1u64..1 << 40, a: (u16, u64), b: (u16, u64)) {
            let first = RequestId::new(Timestamp::from_millis(early), a.0, a.1);
            let second = RequestId::new(Timestamp::from_millis(early + later), b.0, b.1);
            prop_assert!(first.to_string() < second.to_string());
        }

        #[test]
        fn never_panics_on_any_text(text in ".*") {
            let _ = text.parse::<RequestId>();
        }
    }

    #[test]
    fn refuses_other_spellings() {
        for text in [
            "",
            "req_",
            "7zzzzzzzzzzzzzzzzzzzzzzzzz",
            "req_zzzzzzzzzzzzzzzzzzzzzzzzzz",
            "req_0000000000000000000000000I",
        ] {
            assert_eq!(text.parse::<RequestId>(), Err(BadRequestId), "{text}");
        }
        assert!("req_7zzzzzzzzzzzzzzzzzzzzzzzzz".parse::<RequestId>().is_ok());
    }
}
