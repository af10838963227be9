//! The server-side scripts: what is done in one step, over keys of one partition.
//! (Two of them also count the open requests of a caller, in another partition, where one server has all partitions.)
//!
//! What scripts have in common is put before them when they are loaded, so that each rule stands in one place.

use std::sync::LazyLock;

/// A script, and the digest by which Redis knows it once it has seen it.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) source: String,
    pub(super) digest: String,
}

impl Script {
    fn new(first_line: &str, parts: &[&str]) -> Script {
        let source = [&[first_line], parts].concat().join("\n");
        let digest = redis::Script::new(&source).get_hash().to_owned();
        Script { source, digest }
    }
}

// The first line has Redis refuse the script as a whole if it may not write now, rather than in the middle.
const WRITES: &str = "#!lua";
/// Of what also counts the open requests of a caller, in another partition, where one server has both. It may be a Cluster of
/// one server that is used by its own address.
const SPANS: &str = "#!lua flags=allow-cross-slot-keys";
/// Of what makes room, so that it may also write if there is none.
const FREES: &str = "#!lua flags=allow-oom";
const READS: &str = "#!lua flags=no-writes";

macro_rules! scripts {
    ($($name:ident: $line:ident [$($part:literal)*];)*) => {$(
        pub(super) static $name: LazyLock<Script> = LazyLock::new(|| {
            Script::new($line, &[$(include_str!(concat!("scripts/", $part, ".lua"))),*])
        });
    )*
        /// The texts that scripts are made of.
        #[cfg(test)]
        pub(super) const SOURCES: &[&str] = &[$($(include_str!(concat!("scripts/", $part, ".lua"))),*),*];
    };
}

// Those with `once` begin with an operation id.
scripts! {
    CREATE: SPANS ["keys" "once" "guards" "quota" "request" "records" "gauges" "outbox" "dispatch" "create"];
    COMMIT: SPANS ["keys" "once" "guards" "quota" "records" "gauges" "outbox" "dispatch" "commit"];
    CONFIRM: WRITES ["keys" "confirm"];
    IDEMPOTENT: READS ["keys" "request" "idempotent"];
    LINEAGE: READS ["keys" "request" "lineage"];
    NEWEST: READS ["keys" "request" "newest"];
    RECENT: READS ["keys" "recent"];
    DUE: READS ["keys" "due"];
    SALTS: READS ["keys" "salts"];
    REPLACE_SALTS: WRITES ["keys" "once" "replace_salts"];
    READY: READS ["keys" "time" "outbox" "ready"];
    POSTPONE: WRITES ["keys" "time" "outbox" "postpone"];
    CLAIM: WRITES ["keys" "once" "time" "outbox" "claim"];
    RENEW: WRITES ["keys" "time" "outbox" "renew"];
    FINISH: FREES ["keys" "once" "outbox" "finish"];
    RETRY: WRITES ["keys" "once" "time" "outbox" "retry"];
    DISPATCH_LIST: READS ["keys" "time" "dispatch" "dispatch_list"];
    DISPATCH_CLAIM: WRITES ["keys" "once" "time" "dispatch" "dispatch_claim"];
    DISPATCH_RENEW: WRITES ["keys" "time" "dispatch" "dispatch_renew"];
    DISPATCH_SETTLE: FREES ["keys" "once" "time" "dispatch" "dispatch_settle"];
    DISPATCH_DEAD: READS ["keys" "dispatch" "dispatch_dead"];
    DISPATCH_REVIVE: WRITES ["keys" "once" "records" "dispatch" "dispatch_revive"];
    DISPATCH_DROP: FREES ["keys" "once" "dispatch" "dispatch_drop"];
    DISPATCH_DEPTH: READS ["keys" "dispatch_depth"];
    KEEP_POST: WRITES ["keys" "once" "records" "messages" "keep_post"];
    CLAIM_REFRESH: WRITES ["keys" "once" "outbox" "messages" "claim_refresh"];
    STALE: READS ["keys" "outbox" "messages" "stale"];
    APPEND: WRITES ["keys" "once" "guards" "records" "append"];
    APPEND_TO: WRITES ["keys" "once" "records" "append_to"];
    REMOVE_AUDIT: FREES ["keys" "once" "records" "remove_audit"];
    KEEP_CHECKPOINT: WRITES ["keys" "once" "keep_checkpoint"];
    CLAIM_NONCE: WRITES ["keys" "once" "guards" "claim_nonce"];
    REMOVABLE: READS ["keys" "request" "removable"];
    PUT_OFF: WRITES ["keys" "put_off"];
    CLAIM_ARCHIVAL: WRITES ["keys" "once" "claim_archival"];
    REMOVE: FREES ["keys" "once" "records" "outbox" "dispatch" "messages" "remove"];
    MAINTAIN: FREES ["keys" "guards" "maintain"];
    OPEN: READS ["keys" "gauges" "open"];
    DEPTH: READS ["keys" "depth"];
    PIN: WRITES ["keys" "once" "pin"];
    KEEP_SIGNATURES: WRITES ["keys" "once" "keep_signatures"];
    KEEP_SET: WRITES ["keys" "once" "keep_set"];
    SETS: READS ["keys" "sets"];
    REMOVE_SET: FREES ["keys" "once" "records" "remove_set"];
    CHANGE_POLICY: WRITES ["keys" "once" "records" "change_policy"];
    IN_FORCE: READS ["keys" "in_force"];
    CHANGES: READS ["keys" "changes"];
    KEEP_DOCUMENT: WRITES ["keys" "once" "keep_document"];
    REPLACE_DOCUMENT: WRITES ["keys" "once" "replace_document"];
    RESERVE: WRITES ["keys" "quota" "reserve"];
    RELEASE: FREES ["keys" "quota" "release"];
    RESERVED: READS ["keys" "reserved"];
    STATES: READS ["keys" "states"];
    SUPERSEDE_ADD: WRITES ["keys" "once" "supersede_add"];
    SUPERSEDE_LISTED: READS ["keys" "supersede_listed"];
    SUPERSEDE_DROP: FREES ["keys" "supersede_drop"];
    LEASE: WRITES ["keys" "lease"];
    GIVE_BACK: FREES ["keys" "give_back"];
    LIVE: WRITES ["keys" "live"];
    LIVING: READS ["keys" "living"];
    AUDIT_FILES: WRITES ["keys" "audit_files"];
    TAKE: WRITES ["keys" "take"];
    LIST_SETS: READS ["keys" "list_sets"];
    COPY_REQUESTS: WRITES ["keys" "once" "gauges" "copy_requests"];
    COPY_OUTBOX: WRITES ["keys" "once" "outbox" "copy_outbox"];
    COPY_DISPATCHES: WRITES ["keys" "once" "dispatch" "copy_dispatches"];
    COPY_POSTS: WRITES ["keys" "once" "messages" "copy_posts"];
    COPY_VALUES: WRITES ["keys" "once" "copy_values"];
    COPY_SIGNATURES: WRITES ["keys" "once" "copy_signatures"];
    COPY_CHANGES: WRITES ["keys" "once" "copy_changes"];
}
