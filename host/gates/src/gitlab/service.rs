//! The report of a status check.

use countersign_core::lifecycle::StatusCheck;
use countersign_core::secret::Secret;
use hyper::HeaderMap;
use hyper::header::HeaderName;
use serde::Deserialize;
use serde_json::json;
use url::Url;

use crate::api_url::ApiUrl;
use crate::call::{CallError, Caller, secret_header};

/// The header that holds an access token.
const TOKEN: HeaderName = HeaderName::from_static("private-token");

/// What a check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nobody has decided yet.
    Pending,
    /// It may be merged.
    Passed,
    /// It may not.
    Failed,
}

impl Status {
    const fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Passed => "passed",
            Status::Failed => "failed",
        }
    }
}

/// A merge request, as far as it matters.
#[derive(Deserialize)]
struct MergeRequest {
    target_branch: String,
    /// Its newest commit; null while GitLab does not know it.
    sha: Option<String>,
}

/// A GitLab, and a token for it.
pub struct Gitlab {
    token: Secret,
    api: ApiUrl,
    caller: Caller,
}

impl Gitlab {
    /// The GitLab with this API.
    ///
    /// # Errors
    /// If the certificate authorities of the system cannot be read.
    pub fn new(token: Secret, api: ApiUrl) -> std::io::Result<Gitlab> {
        Ok(Gitlab { token, api, caller: Caller::new()? })
    }

    /// Sets what a check says of its commit.
    ///
    /// # Errors
    /// If GitLab refuses, with 409 if the commit is not the newest one of its merge request, or cannot be reached.
    pub async fn set(&self, check: &StatusCheck, status: Status) -> Result<(), CallError> {
        let url = self.of(check, &["status_check_responses"])?;
        let body =
            json!({ "sha": check.sha, "external_status_check_id": check.check, "status": status.as_str() });
        self.caller.post(&url, self.headers()?, &body).await.map(drop)
    }

    /// Whether what a check is about is what would be merged now: this commit, into this branch. A status names the commit
    /// alone.
    ///
    /// # Errors
    /// If GitLab refuses, or cannot be reached.
    pub async fn is_current(&self, check: &StatusCheck) -> Result<bool, CallError> {
        let found = self.caller.get(&self.of(check, &[])?, self.headers()?).await?;
        let found: MergeRequest = serde_json::from_slice(&found).map_err(|_| CallError::Unreadable)?;
        let same_target = check.target.is_empty() || found.target_branch == check.target;
        Ok(same_target && found.sha.is_some_and(|sha| sha == check.sha))
    }

    /// The URL of a part of the merge request of a check.
    fn of(&self, check: &StatusCheck, part: &[&str]) -> Result<Url, CallError> {
        let (project, merge_request) = (check.project.to_string(), check.merge_request.to_string());
        let path = [&["projects", &project, "merge_requests", &merge_request][..], part].concat();
        self.api.with(&path).ok_or(CallError::Impossible)
    }

    fn headers(&self) -> Result<HeaderMap, CallError> {
        let token = std::str::from_utf8(self.token.expose()).map_err(|_| CallError::Impossible)?;
        Ok(HeaderMap::from_iter([(TOKEN, secret_header(token)?)]))
    }
}
