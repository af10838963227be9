//! Callers that are gates of CI systems.

use std::sync::Arc;

use countersign_core::people::People;

use super::*;

const FILE: &str = r#"
version: 1
callers:
  web-production:
    gate:
      system: github
      claims: { repository_id: "4711", environment: production }
      action: deploy_prod
      params: { service: web, to: "{environment}", ref: "{ref}" }
    limits: { open: 5 }
  web-staging:
    gate:
      system: github
      claims: { repository_id: "4711", environment: [staging, preview] }
      action: deploy_staging
  infra:
    gate:
      system: gitlab
      claims: { project_id: 815 }
      action: terraform_apply
    requester: { source: gitlab, id: "{author_id}" }
"#;

fn claims(value: Value) -> Arc<Map<String, Value>> {
    Arc::new(object(value))
}

#[test]
fn a_delivery_is_one_callers() {
    let authenticator = Authenticator::new(read(FILE));
    let delivered = |system, said: Value| authenticator.delivered(system, &claims(said));
    for (system, said, expected) in [
        (
            GateSystem::Github,
            json!({"repository_id": "4711", "environment": "production"}),
            Some("web-production"),
        ),
        (GateSystem::Github, json!({"repository_id": "4711", "environment": "preview"}), Some("web-staging")),
        (GateSystem::Github, json!({"repository_id": "4712", "environment": "production"}), None),
        (GateSystem::Github, json!({"repository_id": "4711", "environment": "Production"}), None),
        (GateSystem::Github, json!({"environment": "production"}), None),
        (GateSystem::Gitlab, json!({"repository_id": "4711", "environment": "production"}), None),
        (GateSystem::Gitlab, json!({"project_id": "815"}), Some("infra")),
    ] {
        let found = delivered(system, said.clone());
        assert_eq!(found.as_ref().map(|it| it.caller.name.as_str()), expected, "{said}");
    }
    let said = claims(json!({
        "repository_id": "4711", "environment": "production", "ref": "refs/heads/main", "sender_id": "583231",
    }));
    let found = authenticator.delivered(GateSystem::Github, &said).unwrap();
    let gate = found.caller.gate.as_ref().unwrap();
    assert!(found.caller.may_ask_for("deploy_prod") && !found.caller.may_ask_for("deploy_staging"));
    let filled = gate.params(&said, &Map::new());
    let expected = json!({"service": "web", "to": "production", "ref": "refs/heads/main"});
    assert_eq!(filled, Some(object(expected)));
    assert_eq!(gate.params(&claims(json!({"environment": "x"})), &Map::new()), None);
    let requester = found.requester(None, &People::default()).unwrap();
    assert_eq!((requester.name.as_str(), requester.authenticated), ("github:583231", true));
    // Without parameters of its own it has those that every delivery has.
    let staging = claims(json!({"repository_id": "4711", "environment": "staging"}));
    let staging = authenticator.delivered(GateSystem::Github, &staging).unwrap();
    let usual = object(json!({"sha": "0f"}));
    assert_eq!(staging.caller.gate.as_ref().unwrap().params(&Map::new(), &usual), Some(usual.clone()));
}

#[test]
fn a_delivery_of_two_is_nobodys() {
    let wider =
        FILE.replace("environment: [staging, preview]", "environment: [production, preview], ref: main");
    let authenticator = Authenticator::new(read(&wider));
    let said = claims(json!({"repository_id": "4711", "environment": "production", "ref": "main"}));
    assert!(authenticator.delivered(GateSystem::Github, &said).is_none());
}

#[test]
fn what_could_never_work_is_an_error() {
    for (from, to, expected) in [
        ("system: github", "system: jenkins", "`jenkins` is no system with gates"),
        ("repository_id: \"4711\", ", "", "`claims` must name `repository_id`"),
        ("project_id: 815", "project: acme/infra", "`claims` must name `project_id`"),
        ("environment: production", "enviroment: production", "has no `enviroment`"),
        ("environment: production", "environment: \"prod*\"", "it is no pattern"),
        ("to: \"{environment}\"", "to: \"{env}\"", "has no `env`"),
        ("to: \"{environment}\"", "to: \"{environment\"", "without its `}`"),
        ("action: deploy_prod", "action: \"deploy_*\"", "is a pattern"),
        ("limits: { open: 5 }", "actions: [x]", "it has no `actions`"),
        ("limits: { open: 5 }", "requester: asserted", "made of what its deliveries say"),
        ("id: \"{author_id}\"", "id: \"{sub}\"", "has no `sub`"),
        ("[staging, preview]", "production", "every delivery of the caller `web-production` is also one of"),
    ] {
        let wrong = FILE.replacen(from, to, 1);
        assert_ne!(wrong, FILE, "{from}");
        let errors = Access::read(Path::new("access.yaml"), &wrong).unwrap_err().to_string();
        assert!(errors.contains(expected), "{to}: {errors}");
    }
}
