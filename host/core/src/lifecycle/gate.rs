//! The gate of a CI system that a request stands for: whom the decision is reported to.

use serde::{Deserialize, Serialize};

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
}
