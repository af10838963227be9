//! Rejected calls, counted by who and kind and audited once a minute: a rejected call must not cost a disk write.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use countersign_core::lifecycle::{AuditEntry, AuditEvent, Count, Digest, Timestamp};
use countersign_store::Nonce;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::state::App;

/// How many pairs of who and kind are told apart within a minute; the rest is one number.
const MOST: usize = 1_000;

/// What was rejected since it was last audited.
#[derive(Debug, Default)]
pub(crate) struct Rejections {
    /// Failed authentications of callers, by address.
    strangers: Tally<IpAddr>,
    /// Failed authentications of admins, by address.
    admin_strangers: Tally<IpAddr>,
    /// What authenticated callers may not do, by the caller's name; `None` for a request that no caller made.
    callers: Tally<Option<String>>,
    /// What authenticated admins may not do, by the admin's name.
    admins: Tally<String>,
    /// What was taken, and is not known to be in the store.
    unstored: tokio::sync::Mutex<Option<Batch>>,
}

/// Entries that are stored once, however often that is tried.
#[derive(Debug)]
struct Batch {
    entries: Vec<AuditEntry>,
    counts: Vec<Count>,
    identity: Digest,
    until: Timestamp,
}

/// For how long a batch that was stored is known to be, in milliseconds.
const KNOWN_MS: u64 = 24 * 60 * 60 * 1000;

/// Audits what was rejected, and which uses of approvals were refused. What the store does not take is kept, and tried
/// before anything else the next time; until then what is rejected is counted on, in the same bounds.
pub(crate) async fn audit(app: &App) {
    let mut unstored = app.rejections.unstored.lock().await;
    // What is left from the last time, and what has come since.
    for _ in 0..2 {
        if unstored.is_none() {
            *unstored = Batch::take(app);
        }
        let Some(batch) = &*unstored else { return };
        let nonce = batch.nonce(app.gateway.clock().now());
        let (entries, counts) = (batch.entries.clone(), batch.counts.clone());
        if let Err(error) = app.gateway.store().append_once(entries, counts, nonce).await {
            tracing::error!(%error, "cannot audit rejected calls; trying again in a minute");
            return;
        }
        *unstored = None;
    }
}

impl Batch {
    /// What is to be audited now, if there is anything.
    fn take(app: &App) -> Option<Batch> {
        let now = app.gateway.clock().now();
        let (refused, counts) = app.gateway.refused_uses();
        let mut entries = app.rejections.take(now);
        entries.extend(refused);
        let identity = Digest::of(&fastrand::u128(..).to_be_bytes());
        (!entries.is_empty()).then_some(Batch { entries, counts, identity, until: now.plus(KNOWN_MS) })
    }

    fn nonce(&self, at: Timestamp) -> Nonce {
        // Nothing excludes it but itself.
        Nonce { shard: 0, digest: self.identity, excluded_by: self.identity, at, until: self.until }
    }
}

impl Rejections {
    /// Somebody at this address failed to authenticate as a caller.
    pub(crate) fn stranger(&self, address: IpAddr, kind: &'static str) {
        self.strangers.add(address, kind);
    }

    /// Somebody at this address failed to authenticate as an admin.
    pub(crate) fn admin_stranger(&self, address: IpAddr, kind: &'static str) {
        self.admin_strangers.add(address, kind);
    }

    /// This admin was refused what it may not do.
    pub(crate) fn admin(&self, name: &str, kind: &'static str) {
        self.admins.add(name.to_owned(), kind);
    }

    /// This caller was refused what it may not do.
    pub(crate) fn caller(&self, name: Option<&str>, kind: &'static str) {
        self.callers.add(name.map(str::to_owned), kind);
    }

    /// What is to be audited, and forgets it.
    pub(crate) fn take(&self, now: Timestamp) -> Vec<AuditEntry> {
        let entries = [
            (AuditEvent::AuthenticationFailures, self.strangers.take("address", "failures")),
            (AuditEvent::AdminAuthenticationFailures, self.admin_strangers.take("address", "failures")),
            (AuditEvent::CallerRejections, self.callers.take("caller", "rejections")),
            (AuditEvent::AdminRejections, self.admins.take("admin", "rejections")),
        ];
        let entries = entries
            .into_iter()
            .filter_map(|(event, detail)| Some(AuditEntry::of_admin(now, event, None, detail?)));
        entries.collect()
    }
}

/// Counts by who and kind.
#[derive(Debug)]
struct Tally<W>(Mutex<Counts<W>>);

#[derive(Debug)]
struct Counts<W> {
    counts: BTreeMap<(W, &'static str), u64>,
    others: u64,
}

impl<W> Default for Tally<W> {
    fn default() -> Tally<W> {
        Tally(Mutex::default())
    }
}

impl<W> Default for Counts<W> {
    fn default() -> Counts<W> {
        Counts { counts: BTreeMap::new(), others: 0 }
    }
}

impl<W: Ord + Serialize> Tally<W> {
    fn add(&self, who: W, kind: &'static str) {
        let mut tally = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (who, kind);
        if tally.counts.len() >= MOST && !tally.counts.contains_key(&key) {
            tally.others += 1;
        } else {
            *tally.counts.entry(key).or_default() += 1;
        }
    }

    /// The counts as the audit log has them, and forgets them; `None` if there are none.
    fn take(&self, who: &str, list: &str) -> Option<Map<String, Value>> {
        let Counts { counts, others } =
            std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if counts.is_empty() {
            return None;
        }
        let counts = counts
            .into_iter()
            .map(|((whose, kind), count)| json!({who: whose, "kind": kind, "count": count}))
            .collect();
        let mut detail = Map::from_iter([(list.to_owned(), Value::Array(counts))]);
        if others > 0 {
            detail.insert("others".to_owned(), json!(others));
        }
        Some(detail)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_minute_of_rejections_is_one_entry_for_each_list() {
        let rejections = Rejections::default();
        assert!(rejections.take(Timestamp::EPOCH).is_empty());
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        for _ in 0..3 {
            rejections.stranger(address, "bad_token");
            rejections.caller(Some("web"), "caller_not_allowed");
        }
        rejections.stranger(address, "bad_api_key");
        rejections.caller(Some("web"), "requester_mismatch");
        rejections.caller(None, "caller_not_allowed");
        rejections.admin_stranger(address, "bad_admin_token");
        rejections.admin("rita", "role_missing");
        let entries = rejections.take(Timestamp::EPOCH);
        let told: Vec<_> = entries.iter().map(|entry| (&*entry.event, json!(entry.detail))).collect();
        assert_eq!(
            told,
            [
                (
                    "authentication_failures",
                    json!({"failures": [
                        {"address": "127.0.0.1", "kind": "bad_api_key", "count": 1},
                        {"address": "127.0.0.1", "kind": "bad_token", "count": 3},
                    ]})
                ),
                (
                    "admin_authentication_failures",
                    json!({"failures": [{"address": "127.0.0.1", "kind": "bad_admin_token", "count": 1}]})
                ),
                (
                    "caller_rejections",
                    json!({"rejections": [
                        {"caller": null, "kind": "caller_not_allowed", "count": 1},
                        {"caller": "web", "kind": "caller_not_allowed", "count": 3},
                        {"caller": "web", "kind": "requester_mismatch", "count": 1},
                    ]})
                ),
                (
                    "admin_rejections",
                    json!({"rejections": [{"admin": "rita", "kind": "role_missing", "count": 1}]})
                ),
            ]
        );
        assert!(rejections.take(Timestamp::EPOCH).is_empty(), "they are told once");
    }

    #[test]
    fn a_flood_of_addresses_is_bounded() {
        let rejections = Rejections::default();
        for number in 0..5_000 {
            rejections.stranger(IpAddr::V4(Ipv4Addr::from(number)), "bad_token");
        }
        let entries = rejections.take(Timestamp::EPOCH);
        let [entry] = entries.as_slice() else { panic!("{entries:?}") };
        assert_eq!(entry.detail["failures"].as_array().unwrap().len(), MOST);
        assert_eq!(entry.detail["others"], 4_000);
    }
}
