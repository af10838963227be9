//! People of other Slack workspaces.

use countersign_slack::fake::{FakeSlack, Fate};

use super::delivery::{until, with_slack};
use super::*;

/// A gateway and its Slack, and a request.
struct Setup {
    server: TestServer,
    slack: FakeSlack,
    id: String,
    token: String,
}

impl Setup {
    /// Slack has not said yet which workspace is the gateway's.
    async fn new(variables: &[(&str, &str)]) -> Setup {
        let (server, slack) = with_slack(variables).await;
        let (id, token) = server.open("deploy").await;
        Setup { server, slack, id, token }
    }

    /// Slack says which workspace is the gateway's.
    async fn identify(&self) {
        let outgoing = self.server.app.outgoing.as_ref().expect("there is a token");
        outgoing.client.auth_test().await.expect("an answer");
    }

    /// Approves as a person of this workspace; returns the gateway's answer.
    async fn approve(&self, user: &str, workspace: &Value) -> Value {
        let mut payload = press(user, "approve", &self.id);
        payload["channel"] = json!({"id": "C0X"});
        self.send(payload, workspace).await
    }

    async fn send(&self, mut payload: Value, workspace: &Value) -> Value {
        payload["user"]["team_id"] = workspace["own"].clone();
        for (key, value) in workspace.as_object().expect("an object") {
            payload[key] = value.clone();
        }
        let answer = self.server.send(self.server.signed(&payload)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    async fn ephemerals(&self) -> Vec<(String, String)> {
        delivery::ephemerals(&self.server, &self.slack).await
    }
}

#[tokio::test]
async fn people_of_other_workspaces_change_nothing() {
    let setup = Setup::new(&[]).await;
    let before = setup.server.look(&setup.token).await;
    setup.identify().await;
    let rows = [
        json!({"own": "T2", "team": {"id": "T2"}}),
        // A guest in a channel of the gateway's workspace.
        json!({"own": "T2", "team": {"id": "T1"}}),
        json!({"own": "E2", "team": {"id": "T1"}}),
        json!({"team": {"id": "T2", "enterprise_id": "E1"}}),
        json!({"team": null, "enterprise": {"id": "E1"}, "is_enterprise_install": true}),
        json!({}),
    ];
    for workspace in &rows {
        let answer = setup.approve("U1", workspace).await;
        let expected = (&json!(false), &json!("foreign_workspace"));
        assert_eq!((&answer["ok"], &answer["error"]), expected, "{workspace}");
        assert_eq!(answer["message"], "this request belongs to another Slack workspace than yours");
    }
    assert_eq!(setup.server.look(&setup.token).await, before);
    assert!(setup.server.metric(r#"security_events_total{type="foreign_workspace"} 6"#).await);
    assert!(setup.server.metric(r#"security_events_total{type="unauthorized"} 0"#).await);
    let expected = ":no_entry_sign: This request belongs to another Slack workspace than yours, \
                    so nothing was changed.";
    assert_eq!(setup.ephemerals().await, vec![("U1".to_owned(), expected.to_owned()); rows.len()]);
    assert_eq!(setup.approve("U1", &json!({"own": "T1"})).await["ok"], true);
}

#[tokio::test]
async fn nobody_of_another_workspace_opens_or_submits_a_dialog() {
    let setup = Setup::new(&[]).await;
    let before = setup.server.look(&setup.token).await;
    setup.identify().await;
    let foreign = json!({"own": "T2"});
    for action_id in ["approve_edit", "deny", "withdraw", "re_request", "persona_ack:security"] {
        let answer = setup.send(press("U1", action_id, &setup.id), &foreign).await;
        assert_eq!(answer["error"], "foreign_workspace", "{action_id}");
    }
    let answer = setup.send(modal("U1", &setup.id, &[("replicas", "5")]), &foreign).await;
    let expected = json!({"ov_replicas": "this request belongs to another Slack workspace than yours"});
    assert_eq!((&answer["response_action"], &answer["errors"]), (&json!("errors"), &expected));
    assert_eq!(setup.server.look(&setup.token).await, before);
    assert!(!setup.slack.methods().contains(&"views.open".to_owned()));
}

#[tokio::test]
async fn listed_workspaces_count() {
    let setup = Setup::new(&[("SLACK_TEAM_IDS", "T2,E3")]).await;
    setup.identify().await;
    assert_eq!(setup.approve("U1", &json!({"own": "T4"})).await["error"], "foreign_workspace");
    assert_eq!(setup.approve("U1", &json!({"own": "T2", "team": {"id": "T1"}})).await["ok"], true);
    let answer =
        setup.approve("U2", &json!({"own": "T3", "team": {"id": "T3", "enterprise_id": "E3"}})).await;
    assert_eq!(answer["status"], "approved");
}

#[tokio::test]
async fn people_of_the_same_organization_count() {
    let setup = Setup::new(&[]).await;
    setup.slack.say("auth.test", json!({"team_id": "T1", "enterprise_id": "E1", "user_id": "UBOT"}));
    setup.identify().await;
    let guest = json!({"own": "T9", "team": {"id": "T2", "enterprise_id": "E1"}, "enterprise": {"id": "E1"}});
    assert_eq!(setup.approve("U1", &guest).await["error"], "foreign_workspace");
    let colleague = json!({"own": "T2", "team": {"id": "T2"}, "enterprise": {"id": "E1"}});
    assert_eq!(setup.approve("U1", &colleague).await["ok"], true);
    assert_eq!(setup.approve("U2", &json!({"own": "E1"})).await["status"], "approved");
}

#[tokio::test]
async fn people_of_every_workspace_count_until_slack_has_answered() {
    let setup = Setup::new(&[]).await;
    assert_eq!(setup.approve("U1", &json!({"own": "T2"})).await["ok"], true);
    assert!(setup.server.metric(r#"security_events_total{type="foreign_workspace"} 0"#).await);
    setup.identify().await;
    assert_eq!(setup.approve("U2", &json!({"own": "T2"})).await["error"], "foreign_workspace");
    let after = setup.server.look(&setup.token).await;
    assert_eq!((&after["status"], &after["approvers"]), (&json!("ready_for_approval"), &json!(["U1"])));
}

#[tokio::test]
async fn slack_is_asked_from_the_start_until_it_answers() {
    let setup = Setup::new(&[]).await;
    setup.slack.decide(|_, _| Fate::Cut);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let serving = setup.server.run(listener);
    let asked = || setup.slack.methods().iter().filter(|method| *method == "auth.test").count();
    let client = &setup.server.app.outgoing.as_ref().expect("there is a token").client;
    until(&setup.server, || asked() >= 2).await;
    assert_eq!(client.identity(), None);
    setup.slack.decide(|_, _| Fate::Done);
    until(&setup.server, || client.identity().is_some()).await;
    assert_eq!(client.identity().and_then(|identity| identity.team_id.clone()).as_deref(), Some(TEAM));
    setup.server.app.shutdown.cancel();
    serving.await.expect("it ends").expect("well");
}
