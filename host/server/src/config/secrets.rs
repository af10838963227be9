//! Secrets. They come from the environment only: every user of a machine can read the flags of its processes.

use anyhow::Context as _;
use countersign_core::secret::Secret;
use zeroize::Zeroizing;

use super::Environment;
use crate::keys::{Keys, MasterKey};

/// The secrets, each from the variable that its field names.
#[derive(Debug, Default)]
pub struct Secrets {
    /// `COUNTERSIGN_SECRET`: 32 bytes in hexadecimal, from which wait tokens and other keys are derived.
    /// Without it, it lies in a key file beside the embedded store, which is made at the first start.
    pub server: Option<Secret>,
    /// `COUNTERSIGN_SECRET_PREVIOUS`: what `COUNTERSIGN_SECRET` was before it was changed.
    pub previous_server: Option<Secret>,
    /// `ADMIN_TOKEN`: authenticates an admin with every role. Without it, admins are those of the access file.
    pub admin: Option<Secret>,
    /// `SLACK_SIGNING_SECRET`: verifies interactions that Slack sends over HTTP. Without it there is no such route.
    pub slack_signing: Option<Secret>,
    /// `SLACK_BOT_TOKEN`: posts messages, `xoxb-…`. Without it they wait in the outbox.
    pub slack_bot: Option<Secret>,
    /// `SLACK_APP_TOKEN`: opens Socket Mode, `xapp-…`. Without it interactions come over HTTP only.
    pub slack_app: Option<Secret>,
    /// `COUNTERSIGN_GITHUB_WEBHOOK_SECRET`: verifies what the GitHub App delivers.
    pub github_webhook: Option<Secret>,
    /// `COUNTERSIGN_GITLAB_WEBHOOK_SECRET`: verifies what GitLab delivers to the external status check.
    pub gitlab_webhook: Option<Secret>,
    /// `COUNTERSIGN_GITLAB_TOKEN`: an access token of GitLab, by which status checks are set.
    pub gitlab: Option<Secret>,
}

/// The variables that hold secrets.
pub(crate) const NAMES: [&str; 10] = [
    SECRET,
    PREVIOUS_SECRET,
    "ADMIN_TOKEN",
    "SLACK_SIGNING_SECRET",
    "SLACK_BOT_TOKEN",
    "SLACK_APP_TOKEN",
    "OTLP_HEADERS",
    GITHUB_WEBHOOK,
    GITLAB_WEBHOOK,
    GITLAB_TOKEN,
];

const GITHUB_WEBHOOK: &str = "COUNTERSIGN_GITHUB_WEBHOOK_SECRET";
const GITLAB_WEBHOOK: &str = "COUNTERSIGN_GITLAB_WEBHOOK_SECRET";
const GITLAB_TOKEN: &str = "COUNTERSIGN_GITLAB_TOKEN";

const SECRET: &str = "COUNTERSIGN_SECRET";
const PREVIOUS_SECRET: &str = "COUNTERSIGN_SECRET_PREVIOUS";

/// What `serve --help` says about the environment.
pub(crate) const HELP: &str = "\
Environment:
  Each option can also be given as the variable that its value is named after; options win.
  Secrets come from the environment only:
    SLACK_BOT_TOKEN       xoxb-…, posts messages; without it they wait in the outbox
    SLACK_SIGNING_SECRET  verifies the interactions that Slack sends over HTTP
    SLACK_APP_TOKEN       xapp-…, opens Socket Mode, if Slack sends interactions that way;
                          with neither of the two nobody can act in Slack
    ADMIN_TOKEN           authenticates an admin with every role, 16 or more printable characters;
                          without it and without admins in the access file there are no admin routes
    COUNTERSIGN_SECRET    32 bytes in hexadecimal, from which wait tokens and other keys are derived;
                          without it, it lies in PATH.key beside the database PATH of the store
    COUNTERSIGN_SECRET_PREVIOUS
                          what COUNTERSIGN_SECRET was before it was changed; docs/SECURITY.md says for how long
    COUNTERSIGN_GITHUB_WEBHOOK_SECRET
                          verifies what the GitHub App delivers, 16 or more printable characters; docs/GITHUB.md
    COUNTERSIGN_GITLAB_WEBHOOK_SECRET
                          verifies what GitLab delivers to the external status check, likewise; docs/GITLAB.md
    COUNTERSIGN_GITLAB_TOKEN
                          an access token of GitLab with the scope api, by which status checks are set
    OTLP_HEADERS          headers for the collector of traces, `name=value,…`, percent-encoded
  The variables OTEL_* that docs/TRACING.md lists count, too.";

impl Secrets {
    /// The keys that are configured, if any.
    ///
    /// # Errors
    /// If a secret does not have 32 bytes.
    pub(crate) fn keys(&self) -> anyhow::Result<Option<Keys>> {
        let key = |secret: &Secret| {
            let secret = secret.expose().try_into().context("a secret does not have 32 bytes")?;
            anyhow::Ok(MasterKey::new(secret))
        };
        let Some(current) = &self.server else { return Ok(None) };
        let previous = self.previous_server.as_ref().map(key).transpose()?;
        Ok(Some(Keys { current: key(current)?, previous }))
    }

    /// Reads only the secret of the gateway, for commands that need no other.
    pub(crate) fn of_server(environment: &Environment, wrong: &mut Vec<String>) -> Secrets {
        if environment.contains_key(PREVIOUS_SECRET) && !environment.contains_key(SECRET) {
            wrong.push(format!("the variable `{PREVIOUS_SECRET}` is set, but not `{SECRET}`"));
        }
        Secrets {
            server: server_secret(environment, SECRET, wrong),
            previous_server: server_secret(environment, PREVIOUS_SECRET, wrong),
            ..Secrets::default()
        }
    }

    /// Reads the secrets. What is wrong is added to `wrong`, one sentence each, which does not repeat the secret.
    pub(super) fn read(environment: &Environment, wrong: &mut Vec<String>) -> Secrets {
        let given = |name: &str| environment.contains_key(name);
        let server = Secrets::of_server(environment, wrong);
        let secrets = Secrets {
            admin: printable(environment, "ADMIN_TOKEN", 16, "is too weak: a token", wrong),
            slack_signing: printable(
                environment,
                "SLACK_SIGNING_SECRET",
                8,
                "is not a signing secret: it",
                wrong,
            ),
            slack_bot: slack_token(environment, "SLACK_BOT_TOKEN", "xoxb-", wrong),
            slack_app: slack_token(environment, "SLACK_APP_TOKEN", "xapp-", wrong),
            github_webhook: printable(environment, GITHUB_WEBHOOK, 16, "is too weak: a secret", wrong),
            gitlab_webhook: printable(environment, GITLAB_WEBHOOK, 16, "is too weak: a secret", wrong),
            gitlab: printable(environment, GITLAB_TOKEN, 8, "is no access token: it", wrong),
            ..server
        };
        if given("SLACK_BOT_TOKEN") && !given("SLACK_SIGNING_SECRET") && !given("SLACK_APP_TOKEN") {
            wrong.push(
                "the variable `SLACK_BOT_TOKEN` is set, but neither `SLACK_SIGNING_SECRET` nor `SLACK_APP_TOKEN`: \
                 people would see buttons that do nothing"
                    .into(),
            );
        }
        if given("SLACK_APP_TOKEN") && !given("SLACK_BOT_TOKEN") {
            wrong.push(
                "the variable `SLACK_APP_TOKEN` is set, but not `SLACK_BOT_TOKEN`: \
                 there would be no message to act on, and nobody could be answered"
                    .into(),
            );
        }
        secrets
    }
}

fn server_secret(environment: &Environment, name: &str, wrong: &mut Vec<String>) -> Option<Secret> {
    let text = environment.get(name)?;
    let mut bytes = Zeroizing::new([0; 32]);
    if hex::decode_to_slice(text, &mut *bytes).is_ok() {
        return Some(Secret::new(bytes.as_slice()));
    }
    wrong.push(format!("the variable `{name}` is not 32 bytes in hexadecimal"));
    None
}

fn slack_token(
    environment: &Environment,
    name: &str,
    prefix: &str,
    wrong: &mut Vec<String>,
) -> Option<Secret> {
    let text = environment.get(name)?;
    if text.len() > prefix.len() && text.starts_with(prefix) && is_printable(text) {
        return Some(Secret::new(text.as_bytes()));
    }
    wrong.push(format!("the variable `{name}` is not a token: it begins with `{prefix}` and has no spaces"));
    None
}

fn printable(
    environment: &Environment,
    name: &str,
    least: usize,
    why: &str,
    wrong: &mut Vec<String>,
) -> Option<Secret> {
    let text = environment.get(name)?;
    if text.len() >= least && is_printable(text) {
        return Some(Secret::new(text.as_bytes()));
    }
    wrong.push(format!("the variable `{name}` {why} has {least} or more printable characters and no spaces"));
    None
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}
