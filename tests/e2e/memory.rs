//! `--store memory`: a gateway to try things out with, which keeps nothing.

use countersign_tests::{Click, Home, deploy};

#[tokio::test]
async fn a_gateway_in_memory_does_all_and_keeps_nothing() {
    let home = Home::alone(&deploy(2)).with("COUNTERSIGN_STORE", "memory");
    let before = home.files();
    let gateway = home.start().await;
    gateway.logged("are lost when this process ends", 1).await;
    let request = gateway.open("deploy").await;
    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    gateway.click_ok(&Click::approve("U0BOB", &request.id)).await;
    let decided = gateway.look(&request.token).await;
    assert_eq!(decided["status"], "approved");
    assert!(decided["receipt"].is_string(), "{decided}");

    let home = gateway.stop().await;
    assert_eq!(home.files(), before, "something was written");
    let gateway = home.start().await;
    let other = gateway.open("deploy").await;
    let call = countersign_tests::Call::get(&format!("/api/guard/wait?token={}", request.token));
    assert_eq!(gateway.send(&call).await.status(), 404, "a token of the last process is known");
    assert_eq!(gateway.look(&other.token).await["status"], "ready_for_approval");
}

/// Many callers at once, on several threads, as with every other store.
#[tokio::test(flavor = "multi_thread")]
async fn votes_at_once_all_count() {
    let gateway = Home::new(&deploy(3)).with("COUNTERSIGN_STORE", "memory").start().await;
    for _ in 0..20 {
        let request = gateway.open("deploy").await;
        let clicks = ["U0ALICE", "U0BOB", "U0CAROL"].map(|user| Click::approve(user, &request.id));
        futures_util::future::join_all(clicks.iter().map(|click| gateway.click_ok(click))).await;
        let decided = gateway.look(&request.token).await;
        assert_eq!(decided["status"], "approved");
        assert_eq!(decided["approvers"].as_array().map(Vec::len), Some(3), "{decided}");
    }
}
