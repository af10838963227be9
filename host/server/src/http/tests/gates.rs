//! Gates of CI systems: what a delivery comes to, over a GitLab that notes what it is told.

use std::sync::{Mutex, PoisonError};

use axum::Json;
use countersign_core::lifecycle::{Gate, RequestId, StatusCheck};
use countersign_core::mac::hmac;
use countersign_policy::Known;
use countersign_store::{Create, NewDispatch, Removal, RemovedRequest, fixtures};

use super::*;
use crate::access_control::history::Source;

/// It has as many bytes as a key of [`hmac`].
const SECRET: &str = "the-shared-secret-of-the-check-0";
const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;

const ONE: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c";
const TWO: &str = "1f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c";

const ACCESS: &str = r#"version: 1
callers:
  infra:
    gate:
      system: gitlab
      claims: { project_id: "815", target_branch: main }
      action: deploy
    limits: { per_minute: 2 }
people:
  dana: { slack: U9, gitlab: "1042" }
  rita: { slack: U8, gitlab: "1043" }
"#;

/// A gateway with a gate of GitLab.
struct Setup {
    server: TestServer,
    folder: TempDir,
    told: Arc<Mutex<Vec<String>>>,
}

impl Setup {
    async fn new() -> Setup {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("access.yaml");
        std::fs::write(&file, ACCESS).expect("written");
        let told = Arc::default();
        let api = gitlab(Arc::clone(&told)).await;
        let file = file.display().to_string();
        let server = TestServer::with(&[
            ("COUNTERSIGN_ACCESS", file.as_str()),
            ("COUNTERSIGN_GITLAB_API_URL", &api),
            ("COUNTERSIGN_GITLAB_TOKEN", "glpat-0123456789"),
            ("COUNTERSIGN_GITLAB_WEBHOOK_SECRET", SECRET),
        ])
        .await;
        Setup { server, folder, told }
    }

    async fn deliver(&self, payload: &Value) -> Answer {
        let body = payload.to_string();
        let key = SECRET.as_bytes().try_into().expect("32 bytes");
        let mut call = post("/api/hooks/gitlab", body.clone());
        let signature = hex::encode(hmac(key, body.as_bytes())).parse().expect("a header");
        call.headers_mut().insert("x-gitlab-signature", signature);
        self.server.send(call).await
    }

    /// Delivers, and returns the request that it leads to.
    async fn asked(&self, payload: &Value) -> RequestId {
        let answer = self.deliver(payload).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["requestId"].as_str().expect("an id").parse().expect("an id")
    }

    async fn refused(&self, payload: &Value, status: u16, code: &str) {
        let answer = self.deliver(payload).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["error"]),
            (status, &json!(code)),
            "{}",
            answer.text
        );
    }

    async fn status(&self, id: RequestId) -> String {
        let found = self.server.app.gateway.request(id).await.expect("it is there");
        found.status().to_string()
    }

    /// What GitLab was told since this was last asked, once all that is under way was.
    async fn told(&self) -> Vec<String> {
        let background = &self.server.app.background;
        background.close();
        background.wait().await;
        background.reopen();
        std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A GitLab whose merge requests all have the first commit. Returns the URL of its API.
async fn gitlab(told: Arc<Mutex<Vec<String>>>) -> String {
    let answer = move |call: Request<Body>| {
        let told = Arc::clone(&told);
        async move {
            let merge_request = call.uri().path().split('/').nth(6).unwrap_or_default().to_owned();
            let body = call.into_body().collect().await.expect("the body is whole").to_bytes();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            if let Some(status) = body["status"].as_str() {
                let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                told.push(format!("{merge_request} {status}"));
            }
            Json(json!({ "sha": ONE, "target_branch": "main" }))
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/api/v4")
}

/// What GitLab delivers about a merge request of dana's whose newest commit this is.
fn merge_request(iid: u64, sha: &str) -> Value {
    json!({
        "object_kind": "merge_request",
        "user": { "id": 1042, "username": "dana" },
        "project": { "id": 815, "path_with_namespace": "acme/infra" },
        "object_attributes": {
            "iid": iid, "author_id": 1043, "state": "opened", "source_branch": "more-disks", "target_branch": "main",
            "last_commit": { "id": sha },
        },
        "external_approval_rule": { "id": 3, "name": "countersign" },
    })
}

fn with(mut payload: Value, member: &str, value: Value) -> Value {
    payload["object_attributes"][member] = value;
    payload
}

/// Whoever uses the quota up stops nothing that was asked before.
#[tokio::test]
async fn a_delivery_that_comes_too_soon_leaves_what_is_asked_already() {
    let setup = Setup::new().await;
    let first = setup.asked(&merge_request(7, ONE)).await;
    setup.asked(&merge_request(8, ONE)).await;
    setup.refused(&merge_request(9, ONE), 429, "rate_limited").await;
    assert_eq!(setup.told().await, ["9 failed"]);

    assert_eq!(setup.asked(&merge_request(7, ONE)).await, first, "it asks nobody for anything");
    assert_eq!(setup.status(first).await, "ready_for_approval");
    assert_eq!(setup.told().await, [""; 0]);

    // A newer commit is something else, which nobody is asked about; the older one is waited for no more.
    setup.refused(&merge_request(7, TWO), 429, "rate_limited").await;
    assert_eq!(setup.status(first).await, "cancelled");
    assert_eq!(setup.told().await, ["7 failed"]);

    // It is the newest again, and people are asked anew.
    setup.server.clock.advance(MINUTE);
    let again = setup.asked(&merge_request(7, ONE)).await;
    assert_ne!(again, first);
    assert_eq!(setup.status(again).await, "ready_for_approval");
    assert_eq!(setup.asked(&merge_request(7, ONE)).await, again);
}

#[tokio::test]
async fn a_file_without_the_gate_leaves_what_is_asked_already() {
    let setup = Setup::new().await;
    let first = setup.asked(&merge_request(7, ONE)).await;
    std::fs::write(setup.folder.path().join("access.yaml"), ACCESS.replace("815", "816")).expect("written");
    let access = setup.server.app.access.as_ref().expect("there is a file");
    access.reload(Source::Sighup, Known::Nothing, &setup.server.app.gateway).await;

    setup.refused(&merge_request(7, ONE), 403, "caller_not_allowed").await;
    assert_eq!(setup.status(first).await, "ready_for_approval");
    assert_eq!(setup.told().await, [""; 0]);
    setup.refused(&merge_request(7, TWO), 403, "caller_not_allowed").await;
    assert_eq!(setup.status(first).await, "cancelled");
    assert_eq!(setup.told().await, ["7 failed"]);
}

/// The author could be one of the approvers under another name.
#[tokio::test]
async fn whoever_has_a_part_in_it_must_be_known() {
    let setup = Setup::new().await;
    let stranger = with(merge_request(7, ONE), "author_id", json!(77));
    let answer = setup.deliver(&stranger).await;
    assert_eq!(answer.status, 403, "{}", answer.text);
    assert_eq!(answer.json()["reasons"][0]["code"], "requester_unknown", "{}", answer.text);
    assert_eq!(setup.told().await, ["7 failed"]);
    setup.asked(&merge_request(7, ONE)).await;
}

#[tokio::test]
async fn what_was_decided_stands_as_long_as_its_request_is_kept() {
    let setup = Setup::new().await;
    let first = setup.asked(&merge_request(7, ONE)).await;
    for user in ["U1", "U2"] {
        setup.server.press(user, "approve", &first.to_string()).await;
    }
    setup.server.clock.advance(300 * DAY);
    assert_eq!(setup.asked(&merge_request(7, ONE)).await, first);
    assert_eq!(setup.told().await, ["7 passed"]);
    setup.server.clock.advance(100 * DAY);
    assert_ne!(setup.asked(&merge_request(7, ONE)).await, first);
}

#[tokio::test]
async fn a_request_is_found_although_an_earlier_one_about_the_same_is_gone() {
    let setup = Setup::new().await;
    let closed = with(merge_request(7, ONE), "state", json!("closed"));
    let first = setup.asked(&merge_request(7, ONE)).await;
    assert_eq!(setup.asked(&closed).await, first);
    let second = setup.asked(&merge_request(7, ONE)).await;
    assert_ne!(second, first);

    let (store, gateway) = (setup.server.app.gateway.store(), &setup.server.app.gateway);
    let requests = vec![RemovedRequest::of(&gateway.request(first).await.expect("it is there"))];
    let removal = Removal { lineage: first, newest: first, requests, counts: Vec::new() };
    assert_eq!(store.remove(vec![removal], None).await.expect("the store is there"), [true]);
    assert_eq!(setup.asked(&merge_request(7, ONE)).await, second);
    for user in ["U1", "U2"] {
        setup.server.press(user, "approve", &second.to_string()).await;
    }
    assert_eq!(setup.asked(&merge_request(7, ONE)).await, second);
    assert_eq!(setup.status(second).await, "approved");
}

/// A gateway without the settings of a CI system leaves what waits for it to one that has them.
#[tokio::test]
async fn what_a_gate_is_to_be_told_is_not_dropped() {
    let server = TestServer::new().await;
    let store = server.app.gateway.store();
    let mut request = fixtures::request(1);
    let check =
        StatusCheck { project: 815, merge_request: 7, check: 3, sha: ONE.into(), target: "main".into() };
    Arc::make_mut(&mut request.submission).gate = Some(Gate::Gitlab(check));
    let targets = ["github", "gitlab", "webhook:gone"].map(str::to_owned);
    let dispatches = targets.map(|target| NewDispatch { target, position: 0 }).to_vec();
    store.create(Create { dispatches, ..fixtures::new(&request) }).await.expect("it is stored");

    server.app.dispatching.drop_removed(store.as_ref()).await;

    let left = store.dispatch_depth().await.expect("the store is there");
    let left: Vec<&str> = left.iter().map(|depth| depth.target.as_str()).collect();
    assert_eq!(left, ["github", "gitlab"]);
}
