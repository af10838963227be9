//! Values that cannot be read are reported with their place, and stand in nobody's way.

use countersign_core::lifecycle::{Digest, Timestamp};

use super::{options, raw, server};
use crate::fixtures::*;
use crate::redis::{RedisOptions, RedisStore};
use crate::{Audit as _, AuditCursor, Created, Outbox as _, Policies as _, Requests as _, Statistics as _};

async fn tamper(options: &RedisOptions, command: &str, key: &str, arguments: &[&str]) {
    let mut tampering = redis::cmd(command);
    tampering.arg(format!("{{{}:{key}", options.namespace)).arg(arguments);
    raw(&server::SHARED, &tampering).await;
}

#[tokio::test]
async fn what_cannot_be_read_is_named() {
    let options = options(&server::SHARED.url());
    let store = RedisStore::open(options.clone()).await.unwrap();
    for number in 1..=3 {
        assert_eq!(store.create(new(&request(number))).await.unwrap(), Created::New);
    }
    let [first, second, third] = [id(1), id(2), id(3)];
    let row = format!("0}}:r:{first}");
    let other = serde_json::to_string(&request(2)).unwrap();
    for (body, detail) in [("[]", "invalid length"), (other.as_str(), "it is the request")] {
        tamper(&options, "HSET", &row, &["body", body]).await;
        let error = store.request(first).await.unwrap_err().to_string();
        let expected = format!("cannot read `body` of `r` where its key is `{first}`: ");
        assert!(error.starts_with(&expected) && error.contains(detail), "{error}");
        assert!(store.lineage(first, 0, 10).await.is_err());
        assert_eq!(store.request(second).await.unwrap(), Some(request(2)));
    }
    let body = serde_json::to_string(&request(1)).unwrap();
    tamper(&options, "HSET", &row, &["body", &body, "v", "7"]).await;
    assert!(store.request(first).await.unwrap_err().to_string().contains("it has version 1, and the key 7"));
    tamper(&options, "HSET", &row, &["v", "1"]).await;
    tamper(&options, "HDEL", &row, &["salt"]).await;
    assert!(store.request(first).await.unwrap_err().to_string().contains("there is only a part of it"));

    tamper(&options, "ZADD", "0}:due", &["1", "no id"]).await;
    let due = store.due(Timestamp::from_millis(u64::MAX), None, 10).await.unwrap();
    assert_eq!((due.requests.len(), due.unreadable.len()), (3, 1));

    tamper(&options, "HSET", &format!("0}}:ob:{first}:show_request"), &["since", "soon"]).await;
    for limit in [10, 2] {
        // The second time it is postponed, and does not take up the limit.
        let ready = store.ready_outbox(at(0), limit).await.unwrap();
        assert_eq!(ready.iter().map(|entry| entry.request).collect::<Vec<_>>(), [second, third]);
    }
    assert_eq!(store.outbox_depth().await.unwrap().entries, 3);

    tamper(&options, "XADD", "0}:audit", &["4-0", "b", "[]", "d", "x"]).await;
    tamper(&options, "SET", "0}:audit:n", &["4"]).await;
    let error = store.audit(&AuditCursor::default(), 10).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot read `body` of `audit` where its key is `0/4`: "), "{error}");
    assert_eq!(store.audit(&AuditCursor::default(), 3).await.unwrap().entries.len(), 3);

    let digest = Digest::of(b"module");
    store.pin(vec![], vec![b"module".to_vec()]).await.unwrap();
    tamper(&options, "SET", &format!("meta}}:module:{digest}"), &["other"]).await;
    let error = store.module(digest).await.unwrap_err().to_string();
    assert!(error.contains("`bytes` of `module`") && error.contains("its digest is"), "{error}");
}
