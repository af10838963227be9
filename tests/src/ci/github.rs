//! GitHub, as far as a deployment protection rule sees it. From its documentation: "Creating custom deployment protection
//! rules", "Generating a JSON Web Token for a GitHub App", "Validating webhook deliveries", and of the REST API "Create an
//! installation access token for an app" and "Review custom deployment protection rules for a workflow run".

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use serde_json::{Value, json};

use super::{Answer, Received, Server, signature, unknown};
use crate::ambient::unix_seconds;
use crate::home::Home;
use crate::wire::Call;

/// An RSA key in PKCS#8, which was made for tests.
pub const KEY: &[u8] = include_bytes!("../issuer/example-rsa.pk8");

/// The length of what PKCS#8 puts in front of the same key in PKCS#1.
const PKCS8_PREFIX: usize = 26;

const APP: &str = "Iv23liDouble";
/// The secret of its webhooks.
pub const SECRET: &str = "a-webhook-secret-of-the-app";
const INSTALLATION: u64 = 314;
const REPOSITORY: u64 = 4711;

/// The most reports without a state.
const MOST_REPORTS: usize = 10;

/// The most characters of a comment.
const COMMENT_CHARS: usize = 1024;

/// What was said of a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Review {
    /// The workflow run.
    pub run: u64,
    /// `approved` or `rejected`; `None` for a report on how it stands.
    pub state: Option<String>,
    /// For people.
    pub comment: String,
}

/// A running double of GitHub, with one App that is installed in `acme/web`. Dropping it ends it.
pub struct Github(Server<State>);

#[derive(Default)]
struct State {
    /// Tokens of the installation, with what each may be used for.
    tokens: BTreeMap<String, u64>,
    /// By run: whether it still waits.
    waiting: BTreeMap<u64, bool>,
    reviews: Vec<Review>,
}

impl Github {
    /// Starts it.
    pub async fn start() -> Github {
        Github(Server::start(State::default(), answer).await)
    }

    /// Configures a gateway for it.
    #[must_use]
    pub fn configure(&self, home: Home) -> Home {
        // As GitHub makes keys of Apps.
        let pem = format!(
            "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----\n",
            STANDARD.encode(&KEY[PKCS8_PREFIX..])
        );
        home.write("app.pem", pem.as_bytes());
        home.with("COUNTERSIGN_GITHUB_APP", APP)
            .with_file("COUNTERSIGN_GITHUB_KEY_FILE", "app.pem")
            .with("COUNTERSIGN_GITHUB_API_URL", &self.url())
            .with("COUNTERSIGN_GITHUB_WEBHOOK_SECRET", SECRET)
    }

    /// The URL of its API.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// What it delivers once `run` waits for `environment`.
    #[must_use]
    pub fn waits(&self, run: u64, environment: &str) -> Value {
        self.0.state().waiting.insert(run, true);
        json!({
            "action": "requested",
            "environment": environment,
            "event": "push",
            "sha": "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c",
            "ref": "refs/heads/main",
            "deployment_callback_url":
                format!("{}/repos/acme/web/actions/runs/{run}/deployment_protection_rule", self.url()),
            "deployment": {
                "id": 9000 + run, "sha": "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c", "ref": "refs/heads/main",
                "task": "deploy", "environment": environment,
                "creator": { "id": 41_898_282, "login": "github-actions[bot]", "type": "Bot" },
            },
            "pull_requests": [],
            "repository": {
                "id": REPOSITORY, "name": "web", "full_name": "acme/web", "private": true,
                "html_url": "https://github.com/acme/web", "owner": { "id": 42, "login": "acme" },
            },
            "organization": { "id": 42, "login": "acme" },
            "installation": { "id": INSTALLATION },
            "sender": { "id": 583_231, "login": "dana-d", "type": "User" },
        })
    }

    /// The delivery of this payload, signed as GitHub signs it.
    #[must_use]
    pub fn delivery(payload: &Value) -> Call {
        let body = payload.to_string();
        Github::unsigned(payload)
            .header("X-Hub-Signature-256", &format!("sha256={}", signature(SECRET, body.as_bytes())))
    }

    /// The same without a signature.
    #[must_use]
    pub fn unsigned(payload: &Value) -> Call {
        Call::post("/api/hooks/github", payload)
            .header("X-GitHub-Event", "deployment_protection_rule")
            .header("X-GitHub-Delivery", "0b989ba4-242f-11e5-81e1-c7b6966d2516")
            .header("X-GitHub-Hook-ID", "292430182")
            .header("User-Agent", "GitHub-Hookshot/044aadd")
    }

    /// What was decided about a run, once it is.
    pub async fn reviewed(&self, run: u64) -> Review {
        let find = |state: &State| {
            state.reviews.iter().find(|review| review.run == run && review.state.is_some()).cloned()
        };
        self.0.found("a review", find).await
    }

    /// The comment on how a run stands that holds this text, once it is there.
    pub async fn commented(&self, run: u64, text: &str) -> Review {
        let holds =
            |review: &&Review| review.run == run && review.state.is_none() && review.comment.contains(text);
        self.0.found("a comment", |state: &State| state.reviews.iter().find(holds).cloned()).await
    }

    /// All that was accepted about a run.
    #[must_use]
    pub fn reviews(&self, run: u64) -> Vec<Review> {
        self.0.state().reviews.iter().filter(|review| review.run == run).cloned().collect()
    }

    /// What it has refused, and why.
    #[must_use]
    pub fn refused(&self) -> Vec<String> {
        self.0.refused()
    }

    /// Answers every call with this status from now on, or again as it should.
    pub fn set_down(&self, status: Option<u16>) {
        self.0.set_down(status);
    }

    /// Waits until a call was turned away since it is down.
    pub async fn turned_away(&self) {
        self.0.turned_away().await;
    }
}

fn answer(state: &mut State, call: &Received) -> Answer {
    let refused = |status, why: &str| Err((status, why.to_owned()));
    if call.method != "POST" {
        return refused(404, "not found");
    }
    if call.header("user-agent").is_none() {
        return refused(403, "a user agent is required");
    }
    let Some(bearer) = call.header("authorization").and_then(|it| it.strip_prefix("Bearer ")) else {
        return refused(401, "requires authentication");
    };
    let segments: Vec<&str> = call.path.trim_start_matches('/').split('/').collect();
    match segments.as_slice() {
        ["app", "installations", installation, "access_tokens"] => {
            app_token(bearer).map_err(|why| (401, why))?;
            if installation.parse() != Ok(INSTALLATION) {
                return refused(404, "no such installation");
            }
            if !unknown(&call.body, &["repositories", "repository_ids", "permissions"]).is_empty() {
                return refused(422, "unknown members");
            }
            if call.body["repository_ids"] != json!([REPOSITORY]) {
                return refused(422, "the App is not installed in these repositories");
            }
            if call.body["permissions"] != json!({ "deployments": "write" }) {
                return refused(422, "these permissions are not needed, or not granted");
            }
            let token = format!("ghs_{:036}", state.tokens.len());
            let ends = unix_seconds() + 3600;
            state.tokens.insert(token.clone(), ends);
            let ends =
                jiff::Timestamp::from_second(i64::try_from(ends).expect("it is soon")).expect("it is soon");
            Ok((201, json!({ "token": token, "expires_at": ends.to_string() })))
        }
        ["repos", "acme", "web", "actions", "runs", run, "deployment_protection_rule"] => {
            if state.tokens.get(bearer).is_none_or(|ends| *ends <= unix_seconds()) {
                return refused(401, "bad credentials");
            }
            let Some(run) = run.parse().ok().filter(|run| state.waiting.contains_key(run)) else {
                return refused(404, "no such run");
            };
            review(state, run, &call.body)
        }
        _ => refused(404, "not found"),
    }
}

fn review(state: &mut State, run: u64, body: &Value) -> Answer {
    let refused = |why: &str| Err((422, why.to_owned()));
    if !unknown(body, &["environment_name", "state", "comment"]).is_empty() {
        return refused("unknown members");
    }
    if body["environment_name"].as_str().is_none_or(str::is_empty) {
        return refused("environment_name is required");
    }
    let decision = match body.get("state").map(Value::as_str) {
        None => None,
        Some(Some(state @ ("approved" | "rejected"))) => Some(state.to_owned()),
        Some(_) => return refused("state is approved or rejected"),
    };
    let Some(comment) = body["comment"].as_str() else { return refused("comment is required") };
    if comment.chars().count() > COMMENT_CHARS {
        return refused("the comment is too long");
    }
    if !state.waiting[&run] {
        return refused("the run does not wait for this rule");
    }
    let reports = state.reviews.iter().filter(|review| review.run == run && review.state.is_none()).count();
    if decision.is_none() && reports >= MOST_REPORTS {
        return refused("there are too many reports on this deployment");
    }
    if decision.is_some() {
        state.waiting.insert(run, false);
    }
    state.reviews.push(Review { run, state: decision, comment: comment.to_owned() });
    Ok((204, Value::Null))
}

/// Checks a token of the App itself.
fn app_token(token: &str) -> Result<(), String> {
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(signed), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("a JSON web token could not be decoded".to_owned());
    };
    let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|error| error.to_string());
    let json =
        |part: &str| serde_json::from_slice::<Value>(&decoded(part)?).map_err(|error| error.to_string());
    if json(header)?["alg"] != "RS256" {
        return Err("the algorithm is not RS256".to_owned());
    }
    let pair = RsaKeyPair::from_pkcs8(KEY).expect("the example is a key");
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref());
    let message = &token[..header.len() + 1 + claims.len()];
    public.verify(message.as_bytes(), &decoded(signed)?).map_err(|_| "the signature is wrong".to_owned())?;
    let claims = json(claims)?;
    let (now, time) = (unix_seconds(), |name: &str| claims[name].as_u64().unwrap_or_default());
    match (time("iat"), time("exp")) {
        _ if claims["iss"] != APP => Err("no such App".to_owned()),
        (issued, _) if issued == 0 || issued > now => Err("`iat` is missing or in the future".to_owned()),
        (_, ends) if ends <= now => Err("it has expired".to_owned()),
        (_, ends) if ends > now + 600 => Err("`exp` is too far in the future".to_owned()),
        _ => Ok(()),
    }
}
