//! Queries that must stay fast however much is stored are answered by an index.

use rusqlite::{Connection, OpenFlags, StatementStatus, params};
use tempfile::TempDir;

use super::{path, store};
use crate::sqlite::{audit, dispatches, file, messages, outbox, requests, retention, statistics};

fn connect(directory: &TempDir) -> Connection {
    drop(store(directory));
    file::connect(&path(directory), OpenFlags::default()).unwrap()
}

#[test]
fn what_grows_is_read_by_its_index() {
    let directory = tempfile::tempdir().unwrap();
    let db = connect(&directory);
    for (sql, index) in [
        (outbox::NEXT_CHANNEL, "outbox_ready (urgency=? AND channel>?)"),
        (outbox::READY, "outbox_ready (urgency=? AND channel=? AND ready_at>? AND ready_at<?)"),
        (dispatches::NEXT_TARGET, "dispatch_ready (target>?)"),
        (dispatches::READY, "dispatch_ready (target=? AND <expr>=? AND ready_at>? AND ready_at<?)"),
        (dispatches::DEAD, "dispatch_ready (target=? AND <expr>=?)"),
        (dispatches::DEPTH, "dispatch_since (target=?)"),
        (dispatches::DROP, "dispatch_ready (target=?)"),
        (dispatches::RELEASE_CLAIMS, "dispatch_claimed (claim>?)"),
        (statistics::OUTBOX_DEPTH, "COVERING INDEX outbox_since"),
        (requests::WITH_SUPERSEDE_KEY, "request_supersede (supersede=?)"),
        (requests::WITH_SUPERSEDE_KEY, "request_subject (subject=?)"),
        (retention::ENDED, "request_ended (ended_at<?)"),
        (messages::NEXT_CHANNEL, "slack_post_refresh (channel>?)"),
        (audit::OF_REQUEST, "audit_request (request=? AND rowid>?)"),
        (audit::OF_PERIOD, "audit_at (at>? AND at<?)"),
        (messages::STALE, "slack_post_refresh (channel=? AND refresh_at>? AND refresh_at<?)"),
    ] {
        let mut explain = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let parameters = vec![rusqlite::types::Null; explain.parameter_count()];
        let plan = explain.query_map(rusqlite::params_from_iter(parameters), |row| row.get::<_, String>(3));
        let plan: Vec<String> = plan.unwrap().map(Result::unwrap).collect();
        assert!(
            plan.iter().any(|step| step.starts_with("SEARCH") && step.ends_with(index)),
            "{sql}: {plan:?}"
        );
        assert!(plan.iter().all(|step| !step.contains("B-TREE")), "{sql}: {plan:?}");
        let scans = |step: &String| step.starts_with("SCAN dispatch ") || step == "SCAN dispatch";
        assert!(!plan.iter().any(scans), "{sql}: {plan:?}");
    }
}

#[test]
fn a_statement_is_planned_once_whatever_is_bound() {
    let directory = tempfile::tempdir().unwrap();
    let db = connect(&directory);
    let mut ready = db.prepare(outbox::READY).unwrap();
    for limit in [1, 2, 100] {
        let rows = ready.query_map(params![1, "C1", 0, limit, limit], |_| Ok(())).unwrap();
        assert_eq!(rows.count(), 0);
    }
    assert_eq!(ready.get_status(StatementStatus::RePrepare), 0);
}
