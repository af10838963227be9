//! `countersign dev`: acts as a caller and as Slack against a running gateway, to try it out.

mod client;

use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, Subcommand};
use countersign_core::clock::{Clock as _, SystemClock};
use countersign_core::json as strict;
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
    /// Create a request, and print its id and its token.
    Request(Request),
    /// Print every state of a request until it ends.
    Watch(Watch),
}

/// Act on a request as a person in Slack.
#[derive(Debug, Args)]
pub struct Click {
    /// The URL of the gateway.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
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

/// Create a request, and print its id and its token.
#[derive(Debug, Args)]
pub struct Request {
    /// The URL of the gateway.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The environment variable with the API key, if the gateway has an access file.
    #[arg(long, value_name = "NAME", default_value = "COUNTERSIGN_API_KEY")]
    key_env: String,
    /// The parameters, as a JSON object.
    #[arg(long, default_value = "{}")]
    params: String,
    /// The Slack id of the requester.
    #[arg(long, default_value = "U0DANA")]
    requester: String,
    /// The justification.
    #[arg(long, default_value = "trying it out")]
    justification: String,
    /// The action.
    action: String,
}

/// Print every state of a request until it ends.
#[derive(Debug, Args)]
pub struct Watch {
    /// The URL of the gateway.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The wait token.
    token: String,
}

/// Runs a command. The exit code is 1 if the gateway refuses, and 2 if it cannot be reached.
pub async fn run(dev: Dev) -> ExitCode {
    let done = match dev {
        Dev::Click(click) => self::click(&click).await,
        Dev::Request(request) => self::request(&request).await,
        Dev::Watch(watch) => self::watch(&watch).await,
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error:#}");
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
    let answer = Gateway::at(&click.url)?.post("/api/slack/interactions", &headers, form).await?;
    let Answer { status, body } = answer;
    if status == 200 && body["ok"] == true {
        let request = body["requestId"].as_str().unwrap_or(&click.request_id);
        println!("{} {}: {request} is now {}", click.user, click.action, text(&body["status"]));
        return Ok(true);
    }
    let message = ["message", "detail"].iter().find_map(|key| body[*key].as_str()).unwrap_or("no answer");
    let code = match text(&body["error"]) {
        // The message says already that a policy refuses.
        "refused" => String::new(),
        code => format!(" ({code})"),
    };
    println!("{} {}: refused{code}: {message}", click.user, click.action);
    Ok(false)
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

async fn request(request: &Request) -> Result<bool> {
    let params = strict::parse_member("params", request.params.as_bytes())
        .map_err(|refused| anyhow!("`--params` is not what a gateway takes: {refused}"))?;
    let body = json!({
        "action": request.action,
        "params": params,
        "meta": {
            "origin": {"repo": "countersign/dev"},
            "requester": {"id": request.requester, "source": "slack"},
            "justification": request.justification,
        },
    });
    let bearer = cli::variable(&request.key_env).map(|key| format!("Bearer {key}"));
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
    let gateway = Gateway::at(&request.url)?;
    let Answer { status, body } = gateway.post("/api/guard/request", &headers, body.to_string()).await?;
    if status == 200 {
        println!(
            "request {}\ntoken   {}\nstatus  {}",
            text(&body["requestId"]),
            text(&body["token"]),
            text(&body["status"])
        );
        return Ok(true);
    }
    println!("refused ({}): {}", text(&body["error"]), text(&body["detail"]));
    for list in ["errors", "reasons"] {
        for wrong in body[list].as_array().into_iter().flatten() {
            println!("  {} {}", text(&wrong["path"]), text(&wrong["message"]));
        }
    }
    Ok(false)
}

async fn watch(watch: &Watch) -> Result<bool> {
    let gateway = Gateway::at(&watch.url)?;
    let mut last = Value::Null;
    let answer = gateway
        .stream("/api/guard/wait-sse", &watch.token, |event, data| {
            if event == "state" {
                last = serde_json::from_str(data).unwrap_or_default();
                println!("{}  approvers: {}", text(&last["status"]), last["approvers"]);
            }
        })
        .await?;
    if let Some(Answer { body, .. }) = answer {
        println!("refused ({}): {}", text(&body["error"]), text(&body["detail"]));
        return Ok(false);
    }
    Ok(last["status"] == "approved")
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
