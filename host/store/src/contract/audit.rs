//! Promises of the port `Audit`.

use serde_json::json;

use super::Backend;
use super::harness::opened;
use crate::fixtures::*;

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
    store.append(written[3..].to_vec(), vec![]).await.unwrap();

    let all = store.audit(0, 100).await.unwrap();
    assert_eq!(all.iter().map(|(_, entry)| entry.clone()).collect::<Vec<_>>(), written);
    assert!(all.is_sorted_by(|(one, _), (other, _)| one < other), "each has its own number");
    let mut paged = Vec::new();
    let mut after = 0;
    loop {
        let page = store.audit(after, 2).await.unwrap();
        let Some((last, _)) = page.last() else { break };
        assert!(page.len() <= 2);
        after = *last;
        paged.extend(page);
    }
    assert_eq!(paged, all);
    assert_eq!(store.audit(0, 0).await.unwrap(), []);
}
