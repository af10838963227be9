//! What a sweep does with requests that have ended.

use countersign_gateway::retention::LATER_MS;

use super::*;

struct Setup {
    server: TestServer,
    folder: TempDir,
}

impl Setup {
    async fn new() -> Setup {
        let folder = tempfile::tempdir().expect("a folder");
        let archive = folder.path().join("requests.ndjson").display().to_string();
        let settings = [("REQUEST_RETENTION_SEC", "1"), ("REQUEST_ARCHIVE_FILE", archive.as_str())];
        Setup { server: TestServer::with(&settings).await, folder }
    }

    /// A request that was denied; its id.
    async fn denied(&self, headers: &[(&'static str, &str)]) -> String {
        let mut call = post("/api/guard/request", ask("deploy").to_string());
        for (name, value) in headers {
            call.headers_mut().insert(*name, value.parse().expect("a header"));
        }
        let made = self.server.send(call).await;
        let id = made.json()["requestId"].as_str().expect("an id").to_owned();
        let mut deny = press("U1", "deny", &id);
        // Without it no dialog asks for a reason.
        deny["trigger_id"] = Value::Null;
        let answer = self.server.send(self.server.signed(&deny)).await.json();
        assert_eq!(answer["status"], "denied", "{answer}");
        id
    }

    /// Sweeps; returns how many requests were removed, and whether anything was written.
    async fn sweep(&self) -> (u64, bool) {
        let removed = self.server.app.retention.as_ref().expect("it is set").sweep(&self.server.app).await;
        (removed.requests, !removed.writing.is_zero())
    }

    fn archived(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join("requests.ndjson")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

/// One audit entry that cannot be read keeps its request, and no other one.
#[tokio::test]
async fn a_request_that_cannot_be_archived_is_put_off_and_holds_up_no_other() {
    let setup = Setup::new().await;
    let (first, second) = (setup.denied(&[]).await, setup.denied(&[]).await);
    setup.server.clock.advance(2_000);
    setup.server.faults.corrupt_next("audit_log");
    assert_eq!(setup.sweep().await, (1, true));
    let archived = setup.archived();
    let [line] = &archived[..] else { panic!("one line: {archived:?}") };
    let kept = if line["request"]["id"] == first.as_str() { second } else { first };
    assert_eq!(setup.server.get(&format!("/api/guard/status?requestId={kept}")).await.status, 200);

    setup.server.clock.advance(LATER_MS);
    assert_eq!(setup.sweep().await, (1, true));
    assert_eq!(setup.archived()[1]["request"]["id"], kept.as_str());
}

/// A sweep rests after what it writes, also if it removes nothing.
#[tokio::test]
async fn what_is_put_off_counts_as_written() {
    let setup = Setup::new().await;
    setup.denied(&[("idempotency-key", "one-that-counts-for-a-day")]).await;
    setup.server.clock.advance(2_000);
    assert_eq!(setup.sweep().await, (0, true));
    assert_eq!(setup.sweep().await, (0, false), "it is looked at when it can go");
}
