//! What GitLab delivers to an external status check: the payload of a merge request's webhook, with
//! `external_approval_rule`.

use countersign_core::lifecycle::{Gate, Link, Origin, StatusCheck};
use serde_json::{Map, Value, json};

use crate::asked::{Asked, Malformed, Member, Read};

/// What rules can match, and what templates can be filled with.
pub const CLAIMS: [&str; 11] = [
    "project_id",
    "project",
    "merge_request",
    "check_id",
    "check",
    "source_branch",
    "target_branch",
    "sha",
    "user_id",
    "username",
    "author_id",
];

/// Reads a delivery.
///
/// # Errors
/// If something is missing that GitLab documents, or is not what it should be.
pub fn read(body: &Value) -> Result<Read, Malformed> {
    let member = |path| Member::of(body, path);
    if member("object_kind").text(64)? != "merge_request" || body.get("external_approval_rule").is_none() {
        return Ok(Read::Nothing("this event asks for nothing"));
    }
    let project = member("project.id").id()?;
    let name = member("project.path_with_namespace").text(255)?;
    let merge_request = member("object_attributes.iid").id()?;
    let (check, check_name) =
        (member("external_approval_rule.id").id()?, member("external_approval_rule.name"));
    let check_name = check_name.text(255)?;
    let sha = member("object_attributes.last_commit.id").text(64)?;
    if sha.len() < 40 || !sha.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        let message = "is no commit".to_owned();
        return Err(Malformed { path: "object_attributes.last_commit.id", message });
    }
    let source = member("object_attributes.source_branch").text(1024)?;
    let target = member("object_attributes.target_branch").text(1024)?;
    let gate = Gate::Gitlab(StatusCheck {
        project,
        merge_request,
        check,
        sha: sha.to_owned(),
        target: target.to_owned(),
    });
    if member("object_attributes.state").text(64)? != "opened" {
        return Ok(Read::Over(gate));
    }
    let (project, merge_request) = (project.to_string(), merge_request.to_string());
    let (user, username) = (member("user.id").id()?, member("user.username").text(128)?);
    let author = member("object_attributes.author_id").id()?;
    let claims = json!({
        "project_id": project,
        "project": name,
        "merge_request": merge_request,
        "check_id": check.to_string(),
        "check": check_name,
        "source_branch": source,
        "target_branch": target,
        "sha": sha,
        "user_id": user.to_string(),
        "username": username,
        "author_id": author.to_string(),
    });
    let shown = ["project", "merge_request", "source_branch", "target_branch", "sha"];
    let claims = claims.as_object().cloned().unwrap_or_default();
    let params: Map<String, Value> =
        shown.iter().filter_map(|key| Some(((*key).to_owned(), claims.get(*key)?.clone()))).collect();
    let link = member("object_attributes.url").optional(1024);
    Ok(Read::Asked(Box::new(Asked {
        gate,
        params,
        origin: Origin {
            repo: name.to_owned(),
            branch: Some(source.to_owned()),
            pr: Some(merge_request.clone().into()),
            run_id: None,
        },
        justification: format!(
            "merge request !{merge_request} of {name} waits on GitLab: {source} into {target}"
        ),
        links: link
            .map(|url| Link { label: format!("Merge request !{merge_request}"), url: url.to_owned() })
            .into_iter()
            .collect(),
        display: Some(username.to_owned()),
        // Whoever pushes to somebody else's merge request may approve it no more than its author may.
        owners: [user, author].map(|id| format!("gitlab:{id}")).into(),
        // GitLab's bots are users like any other.
        programs: Vec::new(),
        claims,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c";

    fn delivery() -> Value {
        json!({
            "object_kind": "merge_request",
            "event_type": "merge_request",
            "user": { "id": 1042, "name": "Dana", "username": "dana" },
            "project": { "id": 815, "path_with_namespace": "acme/infra" },
            "object_attributes": {
                "id": 99, "iid": 7, "author_id": 1043, "state": "opened", "action": "update",
                "source_branch": "more-disks", "target_branch": "main",
                "url": "https://gitlab.com/acme/infra/-/merge_requests/7",
                "last_commit": { "id": SHA },
            },
            "external_approval_rule": { "id": 3, "name": "countersign", "external_url": "https://gate.example" },
        })
    }

    #[test]
    fn a_merge_request_that_waits_is_read() {
        let Read::Asked(asked) = read(&delivery()).unwrap() else { panic!("nothing asked") };
        let expected =
            StatusCheck { project: 815, merge_request: 7, check: 3, sha: SHA.into(), target: "main".into() };
        assert_eq!(asked.gate, Gate::Gitlab(expected));
        assert_eq!(
            asked.claims.keys().map(String::as_str).collect::<std::collections::BTreeSet<_>>(),
            CLAIMS.into()
        );
        assert_eq!(asked.owners, ["gitlab:1042", "gitlab:1043"]);
        assert_eq!(asked.params["target_branch"], "main");
        let mut closed = delivery();
        closed["object_attributes"]["state"] = "merged".into();
        assert_eq!(read(&closed).unwrap(), Read::Over(asked.gate.clone()));
        let mut pushed = delivery();
        pushed["object_attributes"]["last_commit"]["id"] = SHA.replace('0', "1").into();
        let Read::Asked(pushed) = read(&pushed).unwrap() else { panic!("nothing asked") };
        assert_ne!(pushed.gate, asked.gate);
        assert_eq!(pushed.gate.subject(), asked.gate.subject());
        let mut retargeted = delivery();
        retargeted["object_attributes"]["target_branch"] = "production".into();
        let Read::Asked(retargeted) = read(&retargeted).unwrap() else { panic!("nothing asked") };
        assert_ne!(retargeted.gate, asked.gate);
        assert_eq!(retargeted.gate.subject(), asked.gate.subject());
    }

    #[test]
    fn what_is_missing_is_named_and_other_events_ask_for_nothing() {
        for (path, value) in [
            ("/project/id", Value::Null),
            ("/object_attributes/iid", json!("7")),
            ("/object_attributes/last_commit/id", json!("main")),
            ("/object_attributes/last_commit/id", json!("../../../../../../../../../../../../../..")),
            ("/object_attributes/author_id", json!(0)),
            ("/external_approval_rule/id", json!("x")),
            ("/user/id", Value::Null),
        ] {
            let mut body = delivery();
            *body.pointer_mut(path).unwrap() = value.clone();
            assert_eq!(read(&body).unwrap_err().path, path[1..].replace('/', "."), "{value}");
        }
        let mut plain = delivery();
        plain.as_object_mut().unwrap().remove("external_approval_rule");
        assert!(matches!(read(&plain), Ok(Read::Nothing(_))));
        assert!(matches!(read(&json!({ "object_kind": "push" })), Ok(Read::Nothing(_))));
    }
}
