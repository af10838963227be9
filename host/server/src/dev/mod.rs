//! `countersign dev`: acts as Slack against a running gateway, to try it out.

mod client;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use countersign_console::{note, say};
use countersign_core::clock::{Clock as _, SystemClock};
use countersign_core::secret::Secret;
use countersign_slack::{ANSWER_BLOCK, REASON_BLOCK, VALUE_ACTION, sign};
use serde_json::{Map, Value, json};

use self::client::{Answer, Gateway};
use crate::cli;

/// The commands of `countersign dev`.
#[derive(Debug, Subcommand)]
pub enum Dev {
    /// Act on a request as a person in Slack.
    Click(Click),
}

/// Act on a request as a person in Slack.
#[derive(Debug, Args)]
pub struct Click {
    /// The URL of the gateway, which is on this machine; by default `http://127.0.0.1:8080`.
    #[arg(long, value_name = "COUNTERSIGN_URL")]
    url: Option<String>,
    /// The environment variable with the signing secret.
    #[arg(long, value_name = "NAME", default_value = "SLACK_SIGNING_SECRET")]
    secret_env: String,
    /// The Slack id of the person.
    #[arg(long)]
    user: String,
    /// The id of the person's workspace: a gateway that Slack has told its own takes no others.
    #[arg(long)]
    team: Option<String>,
    /// The reason of a denial.
    #[arg(long)]
    reason: Option<String>,
    /// Approve with this parameter changed, `KEY=VALUE`; may be repeated.
    #[arg(long = "edit", value_name = "KEY=VALUE", value_parser = edit)]
    edits: Vec<(String, String)>,
    /// `approve`, `deny`, `withdraw`, `re_request` or `persona_ack:PERSONA`.
    #[arg(value_parser = action)]
    action: String,
    /// The id of the request.
    request_id: String,
}

/// Runs a command. The exit code is 1 if the gateway refuses, and 2 if it cannot be reached.
pub async fn run(dev: Dev) -> ExitCode {
    let Dev::Click(click) = dev;
    match self::click(&click).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            note!("{error:#}");
            ExitCode::from(2)
        }
    }
}

async fn click(click: &Click) -> Result<bool> {
    let name = &click.secret_env;
    let secret = cli::variable(name).with_context(|| format!("the variable `{name}` is not set"))?;
    let payload = payload(click)?.to_string();
    let form = form_urlencoded::Serializer::new(String::new()).append_pair("payload", &payload).finish();
    let timestamp = (SystemClock.now().as_millis() / 1000).to_string();
    let signature = sign(&Secret::new(secret), &timestamp, form.as_bytes())
        .context("the secret cannot be used to sign")?;
    let headers = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("x-slack-request-timestamp", &timestamp),
        ("x-slack-signature", &signature),
    ];
    let url = url(click.url.clone(), cli::variable("COUNTERSIGN_URL"));
    let answer = Gateway::at(&url)?.post("/api/slack/interactions", &headers, form).await?;
    let Answer { status, body } = answer;
    if status == 200 && body["ok"] == true {
        let request = body["requestId"].as_str().unwrap_or(&click.request_id);
        say!("{} {}: {request} is now {}", click.user, click.action, text(&body["status"]));
        return Ok(true);
    }
    let message = ["message", "detail"].iter().find_map(|key| body[*key].as_str()).unwrap_or("no answer");
    let code = match text(&body["error"]) {
        // The message says already that a policy refuses.
        "refused" => String::new(),
        code => format!(" ({code})"),
    };
    say!("{} {}: refused{code}: {message}", click.user, click.action);
    Ok(false)
}

/// The flag's, else the variable's, as for the commands of a client.
fn url(flag: Option<String>, variable: Option<String>) -> String {
    flag.or(variable.filter(|url| !url.is_empty())).unwrap_or_else(|| "http://127.0.0.1:8080".to_owned())
}

fn payload(click: &Click) -> Result<Value> {
    // Slack gives every click its own trigger, so that none is a replay of another.
    let serial = getrandom::u64().map_err(|error| anyhow::anyhow!("no randomness: {error}"))?.to_string();
    let input = |text: &str| json!({VALUE_ACTION: {"type": "plain_text_input", "value": text}});
    if !click.edits.is_empty() {
        if click.action != "approve" {
            bail!("`--edit` needs the action `approve`");
        }
        let values: Map<String, Value> =
            click.edits.iter().map(|(key, text)| (format!("{ANSWER_BLOCK}{key}"), input(text))).collect();
        return Ok(json!({
            "type": "view_submission",
            "user": {"id": click.user, "team_id": click.team},
            "trigger_id": serial,
            "view": {
                "callback_id": "override_submit",
                "private_metadata": json!({"request_id": click.request_id}).to_string(),
                "state": {"values": values},
            },
        }));
    }
    let mut values = Map::new();
    if let Some(reason) = &click.reason {
        if click.action != "deny" {
            bail!("`--reason` needs the action `deny`");
        }
        values.insert(REASON_BLOCK.into(), input(reason));
    }
    Ok(json!({
        "type": "block_actions",
        "user": {"id": click.user, "team_id": click.team},
        "trigger_id": serial,
        "actions": [{"type": "button", "action_id": click.action, "value": click.request_id}],
        "state": {"values": values},
    }))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn edit(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("an edit is given as `KEY=VALUE`")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn action(text: &str) -> Result<String, String> {
    let known = ["approve", "deny", "withdraw", "re_request"].contains(&text);
    let persona = text.strip_prefix("persona_ack:").is_some_and(|persona| !persona.is_empty());
    if known || persona {
        return Ok(text.to_owned());
    }
    Err("this is `approve`, `deny`, `withdraw`, `re_request` or `persona_ack:PERSONA`".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_wins_over_the_variable() {
        for (flag, variable, expected) in [
            (None, None, "http://127.0.0.1:8080"),
            (None, Some(""), "http://127.0.0.1:8080"),
            (None, Some("http://127.0.0.1:9"), "http://127.0.0.1:9"),
            (Some("http://[::1]:1"), Some("http://127.0.0.1:9"), "http://[::1]:1"),
        ] {
            assert_eq!(url(flag.map(str::to_owned), variable.map(str::to_owned)), expected);
        }
    }
}
