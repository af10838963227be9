//! The CI systems in which anybody can have an account, and so a token: which issuers are theirs, and what rules for their
//! tokens must say.

use std::collections::{BTreeMap, BTreeSet};

use countersign_policy::yaml::error::did_you_mean;
use hyper::Uri;

/// The host of GitHub's issuer. An enterprise can have one of its own, with its name as the path.
const GITHUB_HOST: &str = "token.actions.githubusercontent.com";

/// How the path of the issuer of a GitHub Enterprise Server ends.
const GITHUB_SERVER_PATH: &str = "/_services/token";

/// The host of the issuer of gitlab.com. Instances of GitLab elsewhere cannot be told from other issuers.
const GITLAB_HOST: &str = "gitlab.com";

/// The claims that tokens of GitHub Actions have, besides the properties of a repository that its owner adds.
const GITHUB_CLAIMS: [&str; 36] = [
    "actor",
    "actor_id",
    "aud",
    "base_ref",
    "check_run_id",
    "enterprise",
    "enterprise_id",
    "environment",
    "environment_node_id",
    "event_name",
    "exp",
    "head_ref",
    "iat",
    "iss",
    "issuer_scope",
    "job_workflow_ref",
    "job_workflow_sha",
    "jti",
    "nbf",
    "ref",
    "ref_protected",
    "ref_type",
    "repository",
    "repository_id",
    "repository_owner",
    "repository_owner_id",
    "repository_visibility",
    "run_attempt",
    "run_id",
    "run_number",
    "runner_environment",
    "sha",
    "sub",
    "workflow",
    "workflow_ref",
    "workflow_sha",
];

/// How the claims begin that the owner of a repository adds.
const GITHUB_PROPERTY: &str = "repo_property_";

/// A CI system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Provider {
    /// GitHub Actions, also of an enterprise and of GitHub Enterprise Server.
    Github,
    /// gitlab.com.
    Gitlab,
}

impl Provider {
    /// The system of an issuer, however that is spelt, and the issuer as the tokens of the system spell it.
    pub(crate) fn of(issuer: &str) -> Option<(Provider, String)> {
        let url = if issuer.contains("://") { issuer.to_owned() } else { format!("https://{issuer}") };
        let url: Uri = url.parse().ok()?;
        let host = url.host()?.trim_end_matches('.').to_ascii_lowercase();
        let path = url.path().trim_end_matches('/');
        // The second is GitHub Enterprise Cloud with data residency.
        if host == GITHUB_HOST || (host.starts_with("token.actions.") && host.ends_with(".ghe.com")) {
            return Some((Provider::Github, format!("https://{host}{path}")));
        }
        if path.ends_with(GITHUB_SERVER_PATH) {
            return Some((Provider::Github, issuer.trim_end_matches('/').to_owned()));
        }
        (host == GITLAB_HOST).then(|| (Provider::Gitlab, format!("https://{host}")))
    }

    /// Its name, for people.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Provider::Github => "GitHub",
            Provider::Gitlab => "GitLab",
        }
    }

    /// What is unsafe about a rule for its tokens.
    pub(crate) fn unsafe_rule(self, claims: &BTreeMap<String, BTreeSet<String>>) -> Vec<&'static str> {
        let mut wrong = Vec::new();
        match self {
            Provider::Github => {
                if claims.contains_key("sub") {
                    wrong.push(
                        "`sub` of GitHub has changed its form before: match `repository_id`, `ref` and others",
                    );
                }
                if !claims.contains_key("repository_id") && !claims.contains_key("repository_owner_id") {
                    wrong.push(
                        "tokens of GitHub are anybody's: match `repository_id` or `repository_owner_id`",
                    );
                }
                if claims.get("event_name").is_some_and(|events| events.contains("pull_request_target")) {
                    wrong.push("`pull_request_target` runs what strangers wrote, and is refused always");
                }
            }
            Provider::Gitlab => {
                if !claims.contains_key("project_id") && !claims.contains_key("namespace_id") {
                    wrong.push("tokens of GitLab are anybody's: match `project_id` or `namespace_id`");
                }
            }
        }
        wrong
    }

    /// What speaks against one of its tokens having this claim.
    pub(crate) fn unknown_claim(self, claim: &str) -> Option<String> {
        let is_known =
            self != Provider::Github || claim.starts_with(GITHUB_PROPERTY) || GITHUB_CLAIMS.contains(&claim);
        (!is_known).then(|| {
            let hint = did_you_mean(claim, GITHUB_CLAIMS);
            format!("tokens of GitHub are not known to have the claim `{claim}`{hint}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_is_known_by_its_issuer_however_that_is_spelt() {
        let github = |issuer: &str| Some((Provider::Github, issuer.to_owned()));
        let gitlab = Some((Provider::Gitlab, "https://gitlab.com".to_owned()));
        let plain = "https://token.actions.githubusercontent.com";
        for (issuer, expected) in [
            (plain, github(plain)),
            ("https://token.actions.githubusercontent.com/", github(plain)),
            ("https://Token.Actions.GitHubUserContent.com.:443//", github(plain)),
            ("http://token.actions.githubusercontent.com", github(plain)),
            ("token.actions.githubusercontent.com", github(plain)),
            (
                "https://token.actions.githubusercontent.com/acme-inc",
                github("https://token.actions.githubusercontent.com/acme-inc"),
            ),
            ("token.actions.acme.ghe.com/", github("https://token.actions.acme.ghe.com")),
            (
                "https://github.acme.example/_services/token",
                github("https://github.acme.example/_services/token"),
            ),
            (
                "https://github.acme.example/_services/token/",
                github("https://github.acme.example/_services/token"),
            ),
            ("https://gitlab.com", gitlab.clone()),
            ("https://GitLab.com/acme/", gitlab),
            ("https://gitlab.acme.example", None),
            ("https://gitlab.com.acme.example", None),
            ("https://token.actions.githubusercontent.com.acme.example", None),
            ("https://id.acme.example/", None),
            ("acme", None),
            ("", None),
        ] {
            assert_eq!(Provider::of(issuer), expected, "{issuer}");
        }
    }
}
