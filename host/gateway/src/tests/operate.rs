//! What admins do to requests.

use countersign_core::lifecycle::AdminActor;
use countersign_core::record::{PostState, SlackPost, Slot};
use countersign_store::{Committed, KeepPost};

use super::*;

/// Else approvals that are pressed on the minimal message would count until Slack refuses the request once more.
#[tokio::test]
async fn a_message_that_is_sent_again_was_refused_all_the_same() {
    let house = House::ready().await;
    let request = house.ask("single").await.request;
    let store = house.gateway.store();
    let post = SlackPost {
        revision: 1,
        state: PostState::Posted { ts: "1.2".into() },
        shown: request.version,
        looks: Some(Digest::of(b"minimal")),
        minimal: Some(request.version),
        failed: Some("invalid_blocks".into()),
        ..SlackPost::new("C0X")
    };
    let (audit, counts) = (Vec::new(), Vec::new());
    let keep = KeepPost { request: request.id, slot: Slot::Main, post, audit, counts };
    assert_eq!(store.keep_slack_post(keep).await.expect("stored"), Committed::Done);

    let by = AdminActor { name: "rita".into(), call: Default::default() };
    let again = house.gateway.show_again(request.id, &by).await.expect("it is open");
    let post = store.slack_post(request.id, Slot::Main).await.expect("readable").expect("there");
    assert!(post.was_refused(), "nobody may approve by the old message");
    assert_eq!((post.looks, post.failed), (None, None), "it is sent whatever it shows");
    assert_ne!(post.minimal, Some(again.version), "in full, once");
}
