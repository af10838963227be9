//! Gates of CI systems. Their secrets are among the secrets.

use std::path::PathBuf;

use clap::Args;
use countersign_gates::{ApiUrl, github, gitlab};

use super::{AccessSettings, Secrets};

/// Gates of CI systems.
#[derive(Debug, Args)]
#[command(next_help_heading = "Gates of CI systems")]
pub struct Gates {
    /// The client id or the number of the GitHub App whose deployment protection rule asks for decisions here.
    #[arg(long, value_name = "COUNTERSIGN_GITHUB_APP", value_parser = app)]
    pub github_app: Option<String>,
    /// The private key of that App: a file in PEM, as GitHub makes it.
    #[arg(long, value_name = "COUNTERSIGN_GITHUB_KEY_FILE")]
    pub github_key_file: Option<PathBuf>,
    /// The URL of GitHub's API: `https`, or `http` on this machine. GitHub Enterprise Server has it at `/api/v3`.
    #[arg(long, value_name = "COUNTERSIGN_GITHUB_API_URL", default_value = github::DEFAULT_API_URL)]
    #[arg(value_parser = ApiUrl::new)]
    pub github_api_url: ApiUrl,
    /// The URL of GitLab's API: `https`, or `http` on this machine.
    #[arg(long, value_name = "COUNTERSIGN_GITLAB_API_URL", default_value = gitlab::DEFAULT_API_URL)]
    #[arg(value_parser = ApiUrl::new)]
    pub gitlab_api_url: ApiUrl,
}

impl Gates {
    /// The variables of what [`Gates::check`] looks at.
    pub(super) const CHECKED: [&str; 3] =
        ["COUNTERSIGN_GITHUB_APP", "COUNTERSIGN_GITHUB_KEY_FILE", "COUNTERSIGN_ACCESS"];

    /// What is wrong with these settings, one sentence each.
    pub(super) fn check(&self, access: &AccessSettings, secrets: &Secrets) -> Vec<String> {
        let github = [
            ("COUNTERSIGN_GITHUB_APP", self.github_app.is_some()),
            ("COUNTERSIGN_GITHUB_KEY_FILE", self.github_key_file.is_some()),
            ("COUNTERSIGN_GITHUB_WEBHOOK_SECRET", secrets.github_webhook.is_some()),
        ];
        let gitlab = [
            ("COUNTERSIGN_GITLAB_TOKEN", secrets.gitlab.is_some()),
            ("COUNTERSIGN_GITLAB_WEBHOOK_SECRET", secrets.gitlab_webhook.is_some()),
        ];
        let mut wrong = Vec::new();
        for (system, settings) in [("GitHub", &github[..]), ("GitLab", &gitlab)] {
            let given: Vec<&str> = settings.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
            let Some(first) = given.first() else { continue };
            for (missing, _) in settings.iter().filter(|(_, is)| !*is) {
                wrong
                    .push(format!("the variable `{first}` is set, but not `{missing}`: {system} needs both"));
            }
            if access.file.is_none() {
                wrong.push(format!(
                    "the variable `{first}` is set, but there is no access file to say what {system} may ask for"
                ));
            }
        }
        wrong
    }
}

fn app(text: &str) -> Result<String, String> {
    if !text.is_empty() && text.len() <= 64 && text.bytes().all(|letter| letter.is_ascii_alphanumeric()) {
        return Ok(text.to_owned());
    }
    Err("this is the client id of an App, `Iv…`, or its number".into())
}
