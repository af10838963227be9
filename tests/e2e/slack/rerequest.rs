//! Re-request: a button on what was denied or expired, and a new message for the new request.

use serde_json::json;

use super::Setup;

const ACTIONS: &str = "
  deploy:
    description: Deploy to production
    timeout: 10m
    rerequest: { cooldown: 1s, limit: 2, window: 24h }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
";

#[tokio::test]
async fn a_denied_request_is_made_again_by_its_button() {
    let setup = Setup::open(ACTIONS).await;
    let request = setup.open("deploy").await;
    let message = setup.shows(&request, "Waiting").await;
    let alice = setup.slack.person("U0ALICE");
    alice.click(&message, "deny").await;
    alice.submit(&[]).await;
    let message = setup.shows(&request, "Denied").await;
    assert_eq!(message.actions(), ["show_all", "re_request"]);

    // Somebody who neither asked nor may approve has no right to have it made again.
    let mallory = setup.slack.person("U0MALLORY");
    mallory.click(&message, "re_request").await;
    let refused = setup.slack.until(|slack| slack.person("U0MALLORY").ephemerals().pop()).await.shown();
    assert!(refused.contains("only its requester and its approvers"), "{refused}");

    // Until the cooldown is over each press is refused, with an ephemeral message.
    let requester = setup.slack.person("U0REQ");
    let made = countersign_tests::within("the cooldown to end", async {
        loop {
            requester.click(&message, "re_request").await;
            let ephemeral = setup.slack.until(|slack| slack.person("U0REQ").ephemerals().pop()).await.shown();
            if ephemeral.contains("You asked for") {
                return ephemeral;
            }
            assert!(ephemeral.contains("Not yet"), "{ephemeral}");
            requester.dismiss_ephemerals();
        }
    })
    .await;
    assert!(made.contains("request 2 of its lineage"), "{made}");

    let lineage = setup.lineage(&request.id).await;
    let chain = lineage["requests"].as_array().or_else(|| lineage.as_array()).expect("a chain").clone();
    assert_eq!(chain.len(), 2, "{lineage}");
    let again = chain[1]["requestId"].as_str().expect("an id").to_owned();
    let again = countersign_tests::Receipt { id: again, token: String::new(), body: json!({}) };
    let message = setup.shows(&again, "made again by <@U0REQ>").await;
    // The old message leads to the new one.
    let old = setup.shows(&request, "It was made again").await;
    let link = format!("/archives/{}/p{}", message.channel, message.ts.replace('.', ""));
    assert!(old.shown().contains(&link), "{}", old.shown());
    alice.click(&message, "approve").await;
    setup.shows(&again, "Approved").await;
}
