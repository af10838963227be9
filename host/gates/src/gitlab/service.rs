//! The report of a status check.

use countersign_core::lifecycle::StatusCheck;
use countersign_core::secret::Secret;
use hyper::HeaderMap;
use hyper::header::HeaderName;
use serde_json::json;

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
        let (project, merge_request) = (check.project.to_string(), check.merge_request.to_string());
        let path = ["projects", &project, "merge_requests", &merge_request, "status_check_responses"];
        let url = self.api.with(&path).ok_or(CallError::Impossible)?;
        let body =
            json!({ "sha": check.sha, "external_status_check_id": check.check, "status": status.as_str() });
        let token = std::str::from_utf8(self.token.expose()).map_err(|_| CallError::Impossible)?;
        let headers = HeaderMap::from_iter([(TOKEN, secret_header(token)?)]);
        self.caller.post(&url, headers, &body).await.map(drop)
    }
}
