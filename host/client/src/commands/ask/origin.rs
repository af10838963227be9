//! Where a request comes from, as far as the CI system says so. The gateway proves none of it: people read it.
//!
//! Nothing of it differs between the jobs, or the attempts, of one run: with the same idempotency key they ask for the same.

use countersign_core::lifecycle::{Link, Origin};
use serde_json::Value;

use crate::environment::Environment;

/// What a CI system says of the job.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) repo: Option<String>,
    branch: Option<String>,
    pr: Option<String>,
    run: Option<String>,
    /// Why it runs.
    pub(super) why: Option<String>,
    url: Option<String>,
}

impl Job {
    pub(super) fn of(environment: &Environment) -> Job {
        let get = |name: &str| environment.get(name).map(str::to_owned);
        if let Some(repo) = get("GITHUB_REPOSITORY") {
            let run = get("GITHUB_RUN_ID");
            let is_branch = environment.get("GITHUB_REF_TYPE") == Some("branch");
            let pr = environment.get("GITHUB_REF").and_then(|name| name.strip_prefix("refs/pull/"));
            let pr = pr.and_then(|rest| rest.split('/').next()).map(str::to_owned);
            let why = match (environment.get("GITHUB_WORKFLOW"), environment.get("GITHUB_EVENT_NAME")) {
                (Some(workflow), Some(event)) => Some(format!("{workflow}, started by {event}")),
                _ => None,
            };
            let url = match (environment.get("GITHUB_SERVER_URL"), &run) {
                (Some(server), Some(run)) => Some(format!("{server}/{repo}/actions/runs/{run}")),
                _ => None,
            };
            let branch = get("GITHUB_REF_NAME").filter(|_| is_branch && pr.is_none());
            return Job { repo: Some(repo), branch, pr, run, why, url };
        }
        Job {
            repo: get("CI_PROJECT_PATH"),
            branch: get("CI_COMMIT_BRANCH"),
            pr: get("CI_MERGE_REQUEST_IID"),
            run: get("CI_PIPELINE_ID"),
            why: get("CI_COMMIT_TITLE"),
            url: get("CI_PIPELINE_URL"),
        }
    }

    pub(super) fn origin(&self, repo: String) -> Origin {
        let text = |value: &Option<String>| value.clone().map(Value::from);
        Origin { repo, branch: self.branch.clone(), pr: text(&self.pr), run_id: text(&self.run) }
    }

    pub(super) fn links(&self) -> Vec<Link> {
        let url = self.url.iter().filter(|url| url.starts_with("https://") || url.starts_with("http://"));
        url.map(|url| Link { label: "Run".to_owned(), url: url.clone() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_ci_system_says_is_found() {
        let github = Environment::from([
            ("GITHUB_REPOSITORY", "acme/web"),
            ("GITHUB_REF", "refs/heads/main"),
            ("GITHUB_REF_NAME", "main"),
            ("GITHUB_REF_TYPE", "branch"),
            ("GITHUB_RUN_ID", "4711"),
            ("GITHUB_SERVER_URL", "https://github.example"),
            ("GITHUB_WORKFLOW", "Deploy"),
            ("GITHUB_EVENT_NAME", "push"),
        ]);
        let job = Job::of(&github);
        let origin = job.origin("acme/web".into());
        assert_eq!((origin.branch.as_deref(), origin.run_id), (Some("main"), Some("4711".into())));
        assert_eq!(job.links()[0].url, "https://github.example/acme/web/actions/runs/4711");
        assert_eq!(job.why.as_deref(), Some("Deploy, started by push"));
        let pull = Environment::from([
            ("GITHUB_REPOSITORY", "acme/web"),
            ("GITHUB_REF", "refs/pull/12/merge"),
            ("GITHUB_REF_NAME", "12/merge"),
            ("GITHUB_REF_TYPE", "branch"),
        ]);
        let origin = Job::of(&pull).origin("acme/web".into());
        assert_eq!((origin.branch, origin.pr), (None, Some("12".into())));
        let gitlab = Environment::from([
            ("CI_PROJECT_PATH", "acme/infra"),
            ("CI_COMMIT_BRANCH", "main"),
            ("CI_PIPELINE_ID", "9"),
            ("CI_COMMIT_TITLE", "Raise the limit"),
            ("CI_PIPELINE_URL", "javascript:alert(1)"),
        ]);
        let job = Job::of(&gitlab);
        assert_eq!((job.repo.as_deref(), job.why.as_deref()), (Some("acme/infra"), Some("Raise the limit")));
        assert!(job.links().is_empty());
        // Two jobs of one pipeline say the same.
        let job = |id: &'static str, url: &'static str| {
            let pipeline = [
                ("CI_PROJECT_PATH", "acme/infra"),
                ("CI_PIPELINE_ID", "9"),
                ("CI_PIPELINE_URL", "https://gitlab.example/acme/infra/-/pipelines/9"),
            ];
            Job::of(&Environment::from([
                pipeline[0],
                pipeline[1],
                pipeline[2],
                ("CI_JOB_ID", id),
                ("CI_JOB_URL", url),
            ]))
        };
        let first = job("41", "https://gitlab.example/acme/infra/-/jobs/41");
        assert_eq!(first, job("42", "https://gitlab.example/acme/infra/-/jobs/42"));
        assert_eq!(first.links()[0].url, "https://gitlab.example/acme/infra/-/pipelines/9");
        assert_eq!(Job::of(&Environment::default()), Job::default());
    }
}
