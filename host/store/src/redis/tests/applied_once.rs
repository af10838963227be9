//! What is sent again after a lost answer is applied once.

use countersign_core::lifecycle::{Digest, Effect};
use countersign_core::record::{SlackPost, Slot};

use super::proxy::Proxy;
use super::{options, raw, server};
use crate::fixtures::*;
use crate::redis::RedisStore;
use crate::{
    Audit as _, AuditCursor, Committed, Created, Documents as _, Guards as _, KeepPost, Messages as _,
    NewSalt, Outbox as _, Policies as _, Requests as _, Salts as _, Statistics as _,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_answer_is_lost_is_applied_once() {
    let proxy = Proxy::start(&server::SHARED.directory);
    let store = RedisStore::open(options(&proxy.url())).await.unwrap();
    let first = request(1);
    let voted = next(&first, at(1), |_| {});
    macro_rules! lost {
        ($call:expr) => {{
            proxy.lose_one();
            let outcome = $call.await.unwrap();
            assert!(proxy.has_lost(), stringify!($call));
            outcome
        }};
    }
    assert_eq!(lost!(store.create(new(&first))), Created::New);
    assert_eq!(lost!(store.commit(change(&voted))), Committed::Done);
    lost!(store.append(vec![audit(&first, "later")], vec![]));
    assert!(lost!(store.append_once(vec![audit(&first, "once")], vec![], nonce(1, 10))));
    assert!(lost!(store.claim_nonce(0, key(9), at(0), at(10))));
    let post = SlackPost { revision: 1, refresh_at: Some(at(5)), ..SlackPost::new("C1") };
    let keep = KeepPost { request: first.id, slot: Slot::Main, post, audit: vec![], counts: vec![] };
    assert_eq!(lost!(store.keep_slack_post(keep)), Committed::Done);
    assert!(lost!(store.claim_refresh(first.id, Slot::Main, at(5), at(50))));
    let put = change_of(1, None, Digest::of(b"set"));
    assert_eq!(lost!(store.change_policy(changing(&put))), Committed::Done);
    let claimed = lost!(store.claim_outbox(first.id, Effect::ShowRequest, claim(at(1), at(9)))).unwrap();
    lost!(store.retry_outbox(&claimed, at(1), at(1), true));
    let claimed = lost!(store.claim_outbox(first.id, Effect::ShowRequest, claim(at(1), at(9)))).unwrap();
    assert_eq!(claimed.attempts, 1);
    let salt = wrapped_salt(1);
    let replacement = NewSalt { request: first.id, from: salt, to: wrapped_salt(2) };
    assert_eq!(lost!(store.replace_salts(vec![replacement])), 1);
    lost!(store.keep("key:a", vec![7]));
    assert_eq!(lost!(store.recall("key:a")), Some(vec![7]));

    let counters = store.counters().await.unwrap();
    assert!(counters.values().all(|value| *value == 1), "{counters:?}");
    let entries = store.audit(&AuditCursor::default(), 100).await.unwrap().entries;
    let mut events: Vec<_> = entries.iter().map(|entry| entry.event.as_str()).collect();
    events.sort_unstable();
    assert_eq!(events, ["changed", "created", "later", "once", "policy_reloaded"]);
}

#[tokio::test]
async fn scripts_that_the_server_has_forgotten_are_sent_again() {
    let store = RedisStore::open(options(&server::SHARED.url())).await.unwrap();
    let mut flush = redis::cmd("SCRIPT");
    flush.arg("FLUSH");
    for number in 1..20 {
        raw(&server::SHARED, &flush).await;
        assert_eq!(store.create(new(&request(number))).await.unwrap(), Created::New);
        raw(&server::SHARED, &flush).await;
        assert_eq!(store.open_requests().await.unwrap()[0].count, number);
    }
}
