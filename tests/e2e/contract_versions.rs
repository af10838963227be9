//! A module of the policy contract's earlier version judges as one of the current version does.

use std::path::Path;

use countersign_tests::{Ask, Click, Home, deploy};
use serde_json::Value;

/// What callers and people hear of the same story, with this module in place of the quorum.
async fn story(module: Option<&[u8]>) -> Vec<String> {
    let home = Home::new(&deploy(2));
    if let Some(bytes) = module {
        home.pin("quorum", bytes);
    }
    let gateway = home.start().await;
    let mut heard = Vec::new();
    let request = gateway.create(&Ask::new("deploy").requester("U0ALICE")).await.expect("it is admitted");
    for person in ["U0ALICE", "U0STRANGER", "U0BOB", "U0BOB"] {
        heard.push(without_ids(&gateway.click(&Click::approve(person, &request.id)).await, &request.id));
    }
    heard.push(gateway.look(&request.token).await["status"].to_string());
    // A restart loads the module again, and the open request with it.
    let gateway = gateway.kill().start().await;
    heard.push(without_ids(&gateway.click(&Click::approve("U0CAROL", &request.id)).await, &request.id));
    heard.push(gateway.ended(&request.token).await["approvers"].to_string());

    let denied = gateway.open("deploy").await;
    heard.push(without_ids(&gateway.click(&Click::deny("U0CAROL", &denied.id)).await, &denied.id));
    heard.push(gateway.ended(&denied.token).await["status"].to_string());
    heard
}

fn without_ids(answer: &Value, id: &str) -> String {
    answer.to_string().replace(id, "ID")
}

#[tokio::test]
async fn the_same_story_ends_alike() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("modules/0.1.0/quorum.wasm");
    let earlier = std::fs::read(&fixture).expect("the fixture is part of the project");
    assert_ne!(earlier, Home::built("quorum"));
    let (before, now) = (story(Some(&earlier)).await, story(None).await);
    assert_eq!(before, now);
    assert!(now.iter().any(|heard| heard.contains("U0CAROL")) && now[4].contains("ready"), "{now:?}");
}
