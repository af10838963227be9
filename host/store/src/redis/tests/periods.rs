//! What a query of the audit log by period reads of a long log.

use countersign_core::lifecycle::{AuditEntry, Timestamp};

use super::{options, raw, server};
use crate::fixtures::*;
use crate::redis::RedisStore;
use crate::{Audit as _, AuditCursor, AuditRange};

/// How many blocks of the index there are, and how many entries in each.
const BLOCKS: u64 = 30_000;
const BLOCK: u64 = 256;

/// How long a block lasts, in milliseconds.
const LASTS: u64 = 1000;

/// The most bytes that a page may read, the entries of a block included; the index has several times as many.
const MOST_BYTES: u64 = 200_000;

async fn sent(server: &server::Server) -> u64 {
    let text: String = redis::from_redis_value(raw(server, redis::cmd("INFO").arg("stats")).await).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:"));
    line.and_then(|bytes| bytes.trim().parse().ok()).expect("a number")
}

/// The index is that of a log whose other entries nobody reads: only those of the first, one in the midst, and the last block
/// are there.
#[tokio::test]
async fn a_page_reads_no_more_of_the_index_than_it_needs() {
    let server = server::Server::start(&[]);
    let options = options(&server.url());
    let store = RedisStore::open(options.clone()).await.unwrap();
    let key = |name: &str| format!("{{{}:3}}:{name}", options.namespace);
    let [mut from, mut to] = ["audit:from", "audit:to"].map(|name| {
        let mut add = redis::cmd("ZADD");
        add.arg(key(name));
        add
    });
    for block in 0..BLOCKS {
        from.arg(millis(block * LASTS)).arg(block);
        to.arg(millis(block * LASTS + LASTS - 1)).arg(block);
    }
    raw(&server, &from).await;
    raw(&server, &to).await;
    let request = request_in(3, 1);
    let filled = [0, BLOCKS / 2, BLOCKS - 1];
    for block in filled {
        raw(&server, redis::cmd("SET").arg(key("audit:n")).arg(block * BLOCK)).await;
        let entries = (0..BLOCK)
            .map(|number| AuditEntry { at: at(block * LASTS + number), ..audit(&request, "timed") });
        store.append(entries.collect(), vec![]).await.unwrap();
    }
    for block in filled {
        let period = Some((at(block * LASTS + 100), at(block * LASTS + 110)));
        let range = AuditRange { request: None, period };
        let (mut found, mut after) = (Vec::new(), AuditCursor::default());
        let mut pages = 0;
        loop {
            let before = sent(&server).await;
            let page = store.audit_log(range, &after, 100).await.unwrap();
            let read = sent(&server).await - before;
            assert!(read < MOST_BYTES, "{read} bytes for a page of block {block}");
            found.extend(page.entries.iter().map(|entry| entry.entry().unwrap().at));
            (after, pages) = (page.next, pages + 1);
            if page.is_last {
                break;
            }
        }
        let expected: Vec<Timestamp> = (100..110).map(|number| at(block * LASTS + number)).collect();
        assert_eq!(found, expected);
        // At its beginning and its end there is little to look at.
        assert!(pages == 1 || block == BLOCKS / 2, "{pages} pages for block {block}");
    }
}

fn millis(number: u64) -> u64 {
    at(number).as_millis()
}
