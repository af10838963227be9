//! What GitHub delivers: `deployment_protection_rule`, when a deployment waits for the App's rule.

use countersign_core::lifecycle::{Deployment, Gate, Link, Origin};
use serde_json::{Map, Value, json};

use super::app::report_url;
use crate::api_url::ApiUrl;
use crate::asked::{Asked, Malformed, Member, Read};

/// The value of `X-GitHub-Event` that asks for something.
pub const EVENT: &str = "deployment_protection_rule";

/// What rules can match, and what templates can be filled with.
pub const CLAIMS: [&str; 12] = [
    "repository_id",
    "repository",
    "repository_owner_id",
    "environment",
    "ref",
    "sha",
    "event",
    "run_id",
    "deployment_id",
    "installation_id",
    "sender_id",
    "sender_login",
];

/// Reads a delivery with this `X-GitHub-Event`. `api` is where the report will go: a delivery that wants it elsewhere is
/// malformed.
///
/// # Errors
/// If something is missing that GitHub documents, or is not what it should be.
pub fn read(event: &str, body: &Value, api: &ApiUrl) -> Result<Read, Malformed> {
    if event != EVENT {
        return Ok(Read::Nothing("this event asks for nothing"));
    }
    let member = |path| Member::of(body, path);
    if member("action").text(64)? != "requested" {
        return Ok(Read::Nothing("this action of the event asks for nothing"));
    }
    let environment = member("environment").text(255)?;
    let repository = member("repository.id").id()?;
    let name = member("repository.full_name").text(255)?;
    let owner = member("repository.owner.id").id()?;
    let deployment = member("deployment.id").id()?;
    let installation = member("installation.id").id()?;
    let (sha, git_ref) = (member("sha").text(64)?, member("ref").text(1024)?);
    let cause = member("event").text(64)?;
    let (sender, login) = (member("sender.id").id()?, member("sender.login").text(128)?);
    let run = run_of(&member("deployment_callback_url"))?;
    let waits = Deployment {
        installation,
        repository,
        name: name.to_owned(),
        run,
        environment: environment.to_owned(),
        deployment,
    };
    // The report goes where the settings say. Where the delivery says is compared, so that one that means another GitHub,
    // or another run, leads nowhere.
    let callback = member("deployment_callback_url").text(2048)?;
    if report_url(api, &waits).is_none_or(|url| url.as_str() != callback) {
        let message = format!("is not the report of this repository and run below `{api}`");
        return Err(Malformed { path: "deployment_callback_url", message });
    }
    let (repository, run, deployment) = (repository.to_string(), run.to_string(), deployment.to_string());
    let claims = json!({
        "repository_id": repository,
        "repository": name,
        "repository_owner_id": owner.to_string(),
        "environment": environment,
        "ref": git_ref,
        "sha": sha,
        "event": cause,
        "run_id": run,
        "deployment_id": deployment,
        "installation_id": installation.to_string(),
        "sender_id": sender.to_string(),
        "sender_login": login,
    });
    let shown = ["repository", "environment", "ref", "sha", "event"];
    let claims = claims.as_object().cloned().unwrap_or_default();
    let params: Map<String, Value> =
        shown.iter().filter_map(|key| Some(((*key).to_owned(), claims.get(*key)?.clone()))).collect();
    let pull_request =
        body.get("pull_requests").and_then(|all| all.get(0)).and_then(|first| first.get("number"));
    let creator = member("deployment.creator.id").id().ok().filter(|creator| *creator != sender);
    let creator = creator.map(|creator| format!("github:{creator}"));
    // Who runs a workflow is the sender; its deployments are made by `github-actions[bot]`.
    let is_program = is_program(&member("deployment.creator.type"), &member("deployment.creator.login"));
    let (programs, owners) = if is_program { (creator, None) } else { (None, creator) };
    let html = member("repository.html_url").optional(1024);
    Ok(Read::Asked(Box::new(Asked {
        gate: Gate::Github(waits),
        params,
        origin: Origin {
            repo: name.to_owned(),
            branch: Some(git_ref.to_owned()),
            pr: pull_request.filter(|number| number.is_u64()).cloned(),
            run_id: Some(run.clone().into()),
        },
        justification: format!(
            "a deployment to `{environment}` waits on GitHub: {git_ref} of {name}, by {cause}"
        ),
        links: html
            .map(|html| Link { label: format!("Run {run}"), url: format!("{html}/actions/runs/{run}") })
            .into_iter()
            .collect(),
        display: Some(login.to_owned()),
        owners: owners.into_iter().collect(),
        programs: programs.into_iter().collect(),
        claims,
    })))
}

/// Whether an account of GitHub is that of an App. No person can have a name with brackets.
fn is_program(kind: &Member<'_>, login: &Member<'_>) -> bool {
    kind.optional(64) == Some("Bot") || login.optional(128).is_some_and(|login| login.ends_with("[bot]"))
}

/// The number of the run, which is in no other member.
fn run_of(callback: &Member<'_>) -> Result<u64, Malformed> {
    let text = callback.text(2048)?;
    let mut parts = text.rsplit('/');
    let number = match (parts.next(), parts.next(), parts.next()) {
        (Some("deployment_protection_rule"), Some(number), Some("runs")) => number.parse().ok(),
        _ => None,
    };
    let message =
        "is not the URL of a report: it ends with `/runs/NUMBER/deployment_protection_rule`".to_owned();
    number.filter(|run| *run > 0).ok_or(Malformed { path: "deployment_callback_url", message })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api() -> ApiUrl {
        ApiUrl::new("https://api.github.com").unwrap()
    }

    fn delivery() -> Value {
        json!({
            "action": "requested",
            "environment": "production",
            "event": "push",
            "sha": "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c",
            "ref": "refs/heads/main",
            "deployment_callback_url":
                "https://api.github.com/repos/acme/web/actions/runs/77/deployment_protection_rule",
            "deployment": { "id": 9001, "creator": { "id": 41_898_282, "login": "github-actions[bot]" } },
            "pull_requests": [{ "number": 12 }],
            "repository": {
                "id": 4711, "full_name": "acme/web", "html_url": "https://github.com/acme/web",
                "owner": { "id": 42, "login": "acme" },
            },
            "installation": { "id": 314 },
            "sender": { "id": 583_231, "login": "dana-d" },
        })
    }

    fn with(path: &str, value: Value) -> Value {
        let mut body = delivery();
        *body.pointer_mut(path).unwrap() = value;
        body
    }

    #[test]
    fn a_deployment_that_waits_is_read() {
        let Read::Asked(asked) = read(EVENT, &delivery(), &api()).unwrap() else { panic!("nothing asked") };
        let expected = Deployment {
            installation: 314,
            repository: 4711,
            name: "acme/web".into(),
            run: 77,
            environment: "production".into(),
            deployment: 9001,
        };
        assert_eq!(asked.gate, Gate::Github(expected));
        assert_eq!(
            asked.claims.keys().map(String::as_str).collect::<std::collections::BTreeSet<_>>(),
            CLAIMS.into()
        );
        assert_eq!(asked.claims["repository_id"], "4711");
        assert_eq!(asked.params["ref"], "refs/heads/main");
        assert_eq!(asked.origin.pr, Some(json!(12)));
        assert_eq!(asked.links[0].url, "https://github.com/acme/web/actions/runs/77");
        assert_eq!((asked.owners, asked.programs), (vec![], vec!["github:41898282".to_owned()]));
    }

    /// A person who made the deployment has a part in it; an App has none that a person could approve by.
    #[test]
    fn people_who_made_a_deployment_are_told_from_programs() {
        for (creator, is_program) in [
            (json!({ "id": 5, "login": "rita", "type": "User" }), false),
            (json!({ "id": 5, "login": "rita" }), false),
            (json!({ "id": 5, "login": "rita-bot", "type": "User" }), false),
            (json!({ "id": 5 }), false),
            (json!({ "id": 5, "login": "rita", "type": "Bot" }), true),
            (json!({ "id": 5, "login": "deployer[bot]" }), true),
        ] {
            let Read::Asked(asked) =
                read(EVENT, &with("/deployment/creator", creator.clone()), &api()).unwrap()
            else {
                panic!("nothing asked")
            };
            let found = (asked.owners.as_slice(), asked.programs.as_slice());
            let it = ["github:5".to_owned()];
            let none: &[String] = &[];
            assert_eq!(found, if is_program { (none, &it[..]) } else { (&it[..], none) }, "{creator}");
        }
    }

    #[test]
    fn what_identifies_a_deployment_is_all_of_it() {
        let identity = |body: &Value| match read(EVENT, body, &api()).unwrap() {
            Read::Asked(asked) => asked.gate.identity(),
            other => panic!("{other:?}"),
        };
        let same = identity(&delivery());
        assert_eq!(identity(&with("/sender/login", json!("d"))), same);
        assert_ne!(identity(&with("/deployment/id", json!(9002))), same);
        assert_ne!(identity(&with("/environment", json!("staging"))), same);
        // A report tells only the last two from each other.
        let subject = |body: &Value| match read(EVENT, body, &api()).unwrap() {
            Read::Asked(asked) => asked.gate.subject(),
            other => panic!("{other:?}"),
        };
        assert_eq!(subject(&with("/deployment/id", json!(9002))), subject(&delivery()));
        assert_ne!(subject(&with("/environment", json!("staging"))), subject(&delivery()));
    }

    #[test]
    fn a_report_never_goes_elsewhere() {
        for url in [
            "https://evil.example/repos/acme/web/actions/runs/77/deployment_protection_rule",
            "http://api.github.com/repos/acme/web/actions/runs/77/deployment_protection_rule",
            "https://api.github.com.evil.example/repos/acme/web/actions/runs/77/deployment_protection_rule",
            "https://api.github.com@evil.example/repos/acme/web/actions/runs/77/deployment_protection_rule",
            "https://api.github.com/repos/acme/other/actions/runs/77/deployment_protection_rule",
            "https://api.github.com/repos/acme/web/../../x/actions/runs/77/deployment_protection_rule",
            "https://api.github.com/repos/acme/web/actions/runs/0/deployment_protection_rule",
            "https://api.github.com/repos/acme/web/actions/runs/077/deployment_protection_rule",
            "https://api.github.com/repos/acme/web/actions/runs/77/deployment_protection_rule?x=1",
            "http://169.254.169.254/runs/77/deployment_protection_rule",
            "",
        ] {
            let read = read(EVENT, &with("/deployment_callback_url", json!(url)), &api());
            assert_eq!(read.unwrap_err().path, "deployment_callback_url", "{url}");
        }
        let odd = with("/repository/full_name", json!("acme/../web"));
        assert!(read(EVENT, &odd, &api()).is_err());
    }

    #[test]
    fn what_is_missing_is_named_and_other_events_ask_for_nothing() {
        for (path, value) in [
            ("/repository/id", json!("4711")),
            ("/repository/id", json!(0)),
            ("/installation/id", Value::Null),
            ("/sender/id", json!(-1)),
            ("/environment", json!("")),
            ("/environment", json!("a\nb")),
            ("/sha", json!(7)),
        ] {
            let error = read(EVENT, &with(path, value.clone()), &api()).unwrap_err();
            assert_eq!(error.path, path[1..].replace('/', "."), "{value}");
        }
        let other = with("/action", json!("completed"));
        assert!(matches!(read(EVENT, &other, &api()), Ok(Read::Nothing(_))));
        for event in ["ping", "installation", "push"] {
            assert!(matches!(read(event, &json!({}), &api()), Ok(Read::Nothing(_))), "{event}");
        }
    }
}
