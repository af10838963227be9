//! The gate of a CI system that a request stands for: whom the decision is reported to.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::digest::Digest;

/// The gate of a CI system that a request stands for. It comes from what the CI system signed, and never from a caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "system", rename_all = "snake_case")]
pub enum Gate {
    /// A deployment that waits for a custom protection rule of its environment.
    Github(Deployment),
    /// A merge request that waits for an external status check.
    Gitlab(StatusCheck),
}

/// A deployment on GitHub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// The App's installation, whose token the report needs.
    pub installation: u64,
    /// The number of the repository.
    pub repository: u64,
    /// The name of the repository, `owner/name`.
    pub name: String,
    /// The workflow run.
    pub run: u64,
    /// The name of the environment.
    pub environment: String,
    /// The number of the deployment: a run that is started again has another one. 0 if an earlier version made the request.
    #[serde(default)]
    pub deployment: u64,
}

/// An external status check on GitLab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusCheck {
    /// The number of the project.
    pub project: u64,
    /// The number of the merge request in its project.
    pub merge_request: u64,
    /// The number of the check.
    pub check: u64,
    /// The commit that is asked about, in hexadecimal.
    pub sha: String,
    /// The branch that it is to be merged into. Empty if an earlier version made the request.
    #[serde(default)]
    pub target: String,
}

impl Gate {
    /// The CI system, as metrics and logs name it.
    #[must_use]
    pub const fn system(&self) -> &'static str {
        match self {
            Gate::Github(_) => "github",
            Gate::Gitlab(_) => "gitlab",
        }
    }

    /// What was asked about: the same for each delivery of it, and for nothing else.
    #[must_use]
    pub fn identity(&self) -> Digest {
        Digest::of_json(&match self {
            Gate::Github(Deployment { deployment, .. }) => json!([self.subject(), deployment]),
            Gate::Gitlab(StatusCheck { sha, target, .. }) => json!([self.subject(), sha, target]),
        })
    }

    /// All that a report names. The CI system goes on with whatever it has under that name by then: so of the open requests
    /// with the same subject only the newest stands, whoever asked for the others, and by which action.
    #[must_use]
    pub fn subject(&self) -> Digest {
        Digest::of_json(&match self {
            Gate::Github(Deployment { repository, run, environment, .. }) => {
                json!(["gate", "github", repository, run, environment])
            }
            Gate::Gitlab(StatusCheck { project, merge_request, check, .. }) => {
                json!(["gate", "gitlab", project, merge_request, check])
            }
        })
    }
}
