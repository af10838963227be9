//! Promises of the port `Audit`.

use countersign_core::lifecycle::{AuditEntry, RequestId};
use serde_json::json;

use super::Backend;
use super::harness::opened;
use crate::fixtures::*;
use crate::{AuditCursor, AuditPage};

pub(crate) async fn audit_entries_stay_in_order<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let request = request(1);
    let mut written = Vec::new();
    for number in 0..7_u64 {
        let mut entry = audit(&request, &format!("event {number}"));
        // The order is that of the writes, not of the times.
        entry.at = at(100 - number);
        if number == 3 {
            (entry.request, entry.status, entry.actor) = (None, None, Some("U1".into()));
        }
        entry.detail.insert("approvers".into(), json!(["U1", { "deep": [1.5, null] }]));
        written.push(entry);
    }
    store.append(written[..3].to_vec(), vec![]).await.unwrap();
    store.append(vec![], vec![]).await.unwrap();
    store.append(written[3..4].to_vec(), vec![]).await.unwrap();
    store.append(written[4..].to_vec(), vec![]).await.unwrap();

    let page = async |after: &AuditCursor, limit| store.audit(after, limit).await.unwrap();
    let start = AuditCursor::default();
    let all = page(&start, 100).await;
    assert_eq!(about(&all.entries, Some(request.id)), about(&written, Some(request.id)));
    assert_eq!(about(&all.entries, None), about(&written, None));
    assert_eq!(all.entries.len(), written.len());
    assert_eq!(page(&all.next, 100).await, AuditPage { entries: vec![], next: all.next.clone() });
    let mut paged = Vec::new();
    let mut after = start.clone();
    loop {
        let AuditPage { entries, next } = page(&after, 2).await;
        assert!(entries.len() <= 2);
        if entries.is_empty() {
            break;
        }
        paged.extend(entries);
        after = next;
    }
    assert_eq!(paged.len(), written.len());
    assert_eq!(about(&paged, Some(request.id)), about(&written, Some(request.id)));
    assert_eq!(page(&start, 0).await.entries, []);

    // Whoever has read everything hears of what is written afterwards, whatever it is about.
    for number in 1..40 {
        let later = audit(&self::request(number), "later");
        store.append(vec![later.clone()], vec![]).await.unwrap();
        let AuditPage { entries, next } = page(&after, 9).await;
        assert_eq!(entries, [later]);
        after = next;
    }
    for broken in ["no place", "-", "1;2"] {
        assert!(store.audit(&AuditCursor(broken.to_owned()), 9).await.is_err(), "{broken}");
    }
}

/// The entries about this request, or about none.
fn about(entries: &[AuditEntry], request: Option<RequestId>) -> Vec<AuditEntry> {
    entries.iter().filter(|entry| entry.request == request).cloned().collect()
}
