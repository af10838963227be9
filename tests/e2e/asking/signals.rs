//! Signals: while it waits they cancel the request, and while the command runs they are the command's.

use countersign_tests::{Click, Home};
use rustix::process::Signal;

use super::{ACTIONS, Asker, RUN, not_run};

#[tokio::test]
async fn a_signal_cancels_what_is_not_decided() {
    let gateway = Home::new(ACTIONS).start().await;
    let asker = Asker::of(&gateway);
    for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT"), (Signal::HUP, "SIGHUP")] {
        let asking = asker.ask("deploy", &RUN);
        let id = asking.request().await;
        asking.said("ready_for_approval").await;
        asking.signal(signal);
        not_run(&asker, &asking.ended().await, 5, &format!("cancelled: by {name}"));
        assert_eq!(gateway.status(&id).await["status"], "cancelled");
    }
}

#[tokio::test]
async fn a_signal_reaches_the_command() {
    let gateway = Home::new(ACTIONS).start().await;
    let asker = Asker::of(&gateway);
    // It ends by itself only if nobody tells it.
    let script = "trap 'echo told > told; exit 7' TERM; echo started >&2; while :; do sleep 0.05; done";
    let asking = asker.ask("deploy", &["--", "sh", "-c", script]);
    let id = asking.request().await;
    gateway.click_ok(&Click::approve("U0ALICE", &id)).await;
    asking.said("started").await;
    asking.signal(Signal::TERM);
    let ended = asking.ended().await;
    assert!(ended.code == Some(1) && ended.stderr.contains("exit code 7"), "{ended:?}");
    assert_eq!(asker.file("told").as_deref(), Some("told\n"));
    assert_eq!(gateway.status(&id).await["use"], "failed");
}
