//! Re-request: a button on what was denied or expired, and a new message for the new request.

use serde_json::json;

use super::Office;

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
    let office = Office::open(ACTIONS).await;
    let request = office.open("deploy").await;
    let message = office.says(&request, "Waiting").await;
    let alice = office.slack.person("U0ALICE");
    alice.click(&message, "deny").await;
    alice.submit(&[]).await;
    let message = office.says(&request, "Denied").await;
    assert_eq!(message.actions(), ["re_request"]);

    // Before the cooldown is over they are told so, as often as they press.
    let dana = office.slack.person("U0DANA");
    let made = countersign_tests::within("the cooldown to end", async {
        loop {
            dana.click(&message, "re_request").await;
            let told = office.slack.until(|slack| slack.person("U0DANA").ephemerals().pop()).await.shown();
            if told.contains("You asked for") {
                return told;
            }
            assert!(told.contains("Not yet"), "{told}");
            dana.dismiss_ephemerals();
        }
    })
    .await;
    assert!(made.contains("request 2 of its lineage"), "{made}");

    let lineage = office.lineage(&request.id).await;
    let chain = lineage["requests"].as_array().or_else(|| lineage.as_array()).expect("a chain").clone();
    assert_eq!(chain.len(), 2, "{lineage}");
    let again = chain[1]["requestId"].as_str().expect("an id").to_owned();
    let again = countersign_tests::Receipt { id: again, token: String::new(), body: json!({}) };
    let message = office.says(&again, "Waiting").await;
    assert!(message.shown().contains("made again by <@U0DANA>"), "{}", message.shown());
    alice.click(&message, "approve").await;
    office.says(&again, "Approved").await;
}
