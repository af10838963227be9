//! GitLab, as far as an external status check sees it. From its documentation: "External status checks", "External status
//! checks API", "Merge requests API", and "Merge request events" of webhooks.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Answer, Received, Server, signature, unknown};
use crate::ambient::Stopwatch;
use crate::home::Home;
use crate::wire::Call;

/// The secret of its status checks.
pub const SECRET: &str = "a-shared-secret-of-the-check";
/// The token for its API.
pub const TOKEN: &str = "glpat-double-0123456789";
const PROJECT: u64 = 815;
const MERGE_REQUEST: u64 = 7;
const CHECK: u64 = 3;

/// How long a check may be pending.
const PENDING: Duration = Duration::from_secs(120);

/// What was said of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusCall {
    /// The commit.
    pub sha: String,
    /// `pending`, `passed` or `failed`.
    pub status: String,
}

/// A running double of GitLab, with one merge request in `acme/infra`. Dropping it ends it.
pub struct Gitlab(Server<State>);

struct State {
    /// The newest commit of the merge request.
    head: String,
    /// The branch that it is to be merged into.
    target: String,
    /// Since when the check is pending, if it is.
    pending: Option<Stopwatch>,
    calls: Vec<StatusCall>,
}

impl Gitlab {
    /// Starts it, with this commit as the newest one of the merge request.
    pub async fn start(head: &str) -> Gitlab {
        let state =
            State { head: head.to_owned(), target: "main".to_owned(), pending: None, calls: Vec::new() };
        Gitlab(Server::start(state, answer).await)
    }

    /// Configures a gateway for it.
    #[must_use]
    pub fn configure(&self, home: Home) -> Home {
        home.with("COUNTERSIGN_GITLAB_API_URL", &format!("http://{}/api/v4", self.0.address))
            .with("COUNTERSIGN_GITLAB_TOKEN", TOKEN)
            .with("COUNTERSIGN_GITLAB_WEBHOOK_SECRET", SECRET)
    }

    /// A commit is pushed: it is the newest one from now on.
    pub fn push(&self, head: &str) {
        let mut state = self.0.state();
        head.clone_into(&mut state.head);
        state.pending = Some(Stopwatch::start());
    }

    /// The merge request is to be merged into this branch from now on.
    pub fn retarget(&self, branch: &str) {
        branch.clone_into(&mut self.0.state().target);
    }

    /// What it delivers about this commit if the merge request is `opened`, `closed` or `merged`.
    #[must_use]
    pub fn merge_request(sha: &str, state: &str) -> Value {
        json!({
            "object_kind": "merge_request",
            "event_type": "merge_request",
            "user": { "id": 1042, "name": "Dana", "username": "dana" },
            "project": {
                "id": PROJECT, "name": "Infra", "path_with_namespace": "acme/infra",
                "web_url": "https://gitlab.example/acme/infra",
            },
            "object_attributes": {
                "id": 99, "iid": MERGE_REQUEST, "author_id": 1043, "state": state, "action": "update",
                "source_branch": "more-disks", "target_branch": "main", "title": "More disks",
                "url": "https://gitlab.example/acme/infra/-/merge_requests/7",
                "last_commit": { "id": sha, "message": "More disks" },
            },
            "labels": [],
            "changes": {},
            "external_approval_rule": {
                "id": CHECK, "name": "countersign", "external_url": "https://gate.example/api/hooks/gitlab",
            },
        })
    }

    /// The delivery of this payload, signed as GitLab signs it.
    #[must_use]
    pub fn delivery(payload: &Value) -> Call {
        let body = payload.to_string();
        Gitlab::unsigned(payload).header("X-GitLab-Signature", &signature(SECRET, body.as_bytes()))
    }

    /// The same without a signature.
    #[must_use]
    pub fn unsigned(payload: &Value) -> Call {
        Call::post("/api/hooks/gitlab", payload)
    }

    /// Waits until it was said that a commit has this status.
    pub async fn told(&self, sha: &str, status: &str) {
        let wanted = StatusCall { sha: sha.to_owned(), status: status.to_owned() };
        self.0.found("a status", |state: &State| state.calls.contains(&wanted).then_some(())).await;
    }

    /// What was accepted.
    #[must_use]
    pub fn calls(&self) -> Vec<StatusCall> {
        self.0.state().calls.clone()
    }

    /// What it has refused, and why.
    #[must_use]
    pub fn refused(&self) -> Vec<String> {
        self.0.refused()
    }

    /// Waits until something was refused.
    pub async fn has_refused(&self) {
        let refused = &self.0.shared.refused;
        self.0.found("a refusal", |_| (!super::locked(refused).is_empty()).then_some(())).await;
    }
}

fn answer(state: &mut State, call: &Received) -> Answer {
    let refused = |status, why: &str| Err((status, why.to_owned()));
    if call.header("private-token") != Some(TOKEN) {
        return refused(401, "401 Unauthorized");
    }
    let merge_request = format!("/api/v4/projects/{PROJECT}/merge_requests/{MERGE_REQUEST}");
    if (call.method.as_str(), &call.path) == ("GET", &merge_request) {
        return Ok((
            200,
            json!({
                "id": 99, "iid": MERGE_REQUEST, "project_id": PROJECT, "state": "opened", "title": "More disks",
                "source_branch": "more-disks", "target_branch": state.target, "sha": state.head,
            }),
        ));
    }
    let path = format!("{merge_request}/status_check_responses");
    if (call.method.as_str(), &call.path) != ("POST", &path) {
        return refused(404, "404 Not Found");
    }
    let body = &call.body;
    if !unknown(body, &["sha", "external_status_check_id", "status"]).is_empty() {
        return refused(400, "unknown members");
    }
    if body["external_status_check_id"] != CHECK {
        return refused(404, "404 External Status Check Not Found");
    }
    let Some(sha) = body["sha"].as_str() else { return refused(400, "sha is missing") };
    let Some(status @ ("pending" | "passed" | "failed")) = body["status"].as_str() else {
        return refused(400, "status does not have a valid value");
    };
    if sha != state.head {
        return refused(409, "The SHA does not match the HEAD of the source branch");
    }
    if state.pending.as_ref().is_some_and(|since| since.elapsed() > PENDING) {
        // The check has failed by then, which only a retry by a person mends.
        return refused(422, "the check was pending for too long");
    }
    state.pending = (status == "pending").then(Stopwatch::start);
    state.calls.push(StatusCall { sha: sha.to_owned(), status: status.to_owned() });
    Ok((201, json!({ "id": state.calls.len(), "merge_request": { "iid": MERGE_REQUEST } })))
}
