//! Failures of strangers, counted by address and kind and audited once a minute: a bad token must not buy a disk write.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use countersign_core::lifecycle::{AuditEntry, Timestamp};
use serde_json::{Map, json};

/// How many addresses and kinds are told apart within a minute; the rest is one number.
const MOST: usize = 1_000;

/// What strangers failed at since it was last audited.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    failures: Mutex<Failures>,
}

#[derive(Debug, Default)]
struct Failures {
    counts: BTreeMap<(IpAddr, &'static str), u64>,
    others: u64,
}

impl Strangers {
    /// Somebody at this address failed so.
    pub(crate) fn failed(&self, address: IpAddr, kind: &'static str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.counts.len() >= MOST && !failures.counts.contains_key(&(address, kind)) {
            failures.others += 1;
        } else {
            *failures.counts.entry((address, kind)).or_default() += 1;
        }
    }

    /// What is to be audited, and forgets it; `None` if nobody failed.
    pub(crate) fn take(&self, now: Timestamp) -> Option<AuditEntry> {
        let Failures { counts, others } =
            std::mem::take(&mut *self.failures.lock().unwrap_or_else(PoisonError::into_inner));
        if counts.is_empty() && others == 0 {
            return None;
        }
        let counts: Vec<_> = counts
            .into_iter()
            .map(|((address, kind), count)| json!({"address": address, "kind": kind, "count": count}))
            .collect();
        let mut detail = Map::from_iter([("failures".to_owned(), json!(counts))]);
        if others > 0 {
            detail.insert("others".to_owned(), json!(others));
        }
        Some(AuditEntry::of_admin(now, "authentication_failures", None, detail))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_minute_of_failures_is_one_entry() {
        let strangers = Strangers::default();
        assert!(strangers.take(Timestamp::EPOCH).is_none());
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        for _ in 0..3 {
            strangers.failed(address, "bad_token");
        }
        strangers.failed(address, "bad_api_key");
        let entry = strangers.take(Timestamp::EPOCH).unwrap();
        assert_eq!(
            serde_json::Value::Object(entry.detail),
            json!({"failures": [
                {"address": "127.0.0.1", "kind": "bad_api_key", "count": 1},
                {"address": "127.0.0.1", "kind": "bad_token", "count": 3},
            ]})
        );
        assert!(strangers.take(Timestamp::EPOCH).is_none(), "it is told once");
    }

    #[test]
    fn a_flood_of_addresses_is_bounded() {
        let strangers = Strangers::default();
        for number in 0..5_000 {
            strangers.failed(IpAddr::V4(Ipv4Addr::from(number)), "bad_token");
        }
        let entry = strangers.take(Timestamp::EPOCH).unwrap();
        assert_eq!(entry.detail["failures"].as_array().unwrap().len(), MOST);
        assert_eq!(entry.detail["others"], 4_000);
    }
}
