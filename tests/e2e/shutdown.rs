//! SIGTERM: waiting callers get an answer, calls in progress are finished, and the process exits by itself.

use countersign_tests::{Ask, Call, Click, Connection, Home, PATIENCE, within};
use futures_util::future::join_all;

const ACTIONS: &str = "
  deploy:
    description: Deploy to staging
    timeout: 10m
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
";

#[tokio::test]
async fn streams_and_long_polls_end() {
    let gateway = Home::new(ACTIONS).start().await;
    let request = gateway.open("deploy").await;
    let mut streams = join_all((0..20).map(|_| gateway.stream(&request.token))).await;
    for stream in &mut streams {
        stream.state().await;
    }
    let api = *gateway;
    let poll = Call::get(&format!("/api/guard/wait?token={}&timeoutSec=60", request.token));
    let mut polls = join_all((0..5).map(|_| gateway.connect())).await;
    for connection in &mut polls {
        // A first answer shows that the connection was taken; the long-poll follows on it.
        connection.send(&Call::get("/healthz")).await.expect("it is answered");
        connection.write(&poll.bytes()).await.expect("it is sent");
    }
    let mut idle = gateway.connect().await;
    for _ in 0..20 {
        // Calls that were sent later are answered, so the polls were read.
        idle.send(&Call::get("/readyz")).await.expect("it is answered");
    }

    let since = gateway.terminate();

    for connection in &mut polls {
        let answer = within("a long-poll", connection.answer()).await.expect("it is answered");
        assert_eq!((answer.status(), &answer.json()["status"]), (200, &"ready_for_approval".into()));
    }
    for stream in &mut streams {
        let rest = stream.rest().await;
        assert!(rest.iter().all(|event| event.name != "state"), "{rest:?}");
        assert!(rest.last().is_some_and(|event| event.retry.is_some()), "no `retry`: {rest:?}");
    }
    let (home, exit) = gateway.stopped(since).await;
    assert_eq!(exit.status.code(), Some(0), "{exit:?}");
    assert!(exit.took < PATIENCE / 2, "it took {:?}", exit.took);
    assert!(Connection::open(api.address()).await.is_err(), "somebody still listens");

    let gateway = home.start().await;
    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    assert_eq!(gateway.ended(&request.token).await["status"], "approved");
}

#[tokio::test]
async fn what_was_acknowledged_under_load_is_there_afterwards() {
    let gateway = Home::new(ACTIONS).start().await;
    let api = *gateway;
    let call = Ask::new("deploy").call();
    let (acknowledged, mut hear) = tokio::sync::mpsc::unbounded_channel();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (call, acknowledged) = (call.clone(), acknowledged.clone());
            tokio::spawn(async move {
                let mut connection = api.connect().await;
                while let Ok(reply) = connection.send(&call).await {
                    // A gateway that shuts down may answer so, but must not answer anything else.
                    match reply.status() {
                        200 => {
                            let token = reply.json()["token"].as_str().expect("there is a token").to_owned();
                            acknowledged.send(token).expect("the test listens");
                        }
                        503 => break,
                        other => panic!("{other}: {}", reply.text()),
                    }
                    if reply.header("connection") == Some("close") {
                        break;
                    }
                }
            })
        })
        .collect();
    drop(acknowledged);
    let mut tokens = Vec::new();
    while tokens.len() < 50 {
        tokens.push(within("creates", hear.recv()).await.expect("the load goes on"));
    }

    let home = gateway.stop().await;

    for task in within("the load to end", join_all(tasks)).await {
        task.expect("no task panics");
    }
    while let Some(token) = hear.recv().await {
        tokens.push(token);
    }
    let gateway = home.start().await;
    for token in &tokens {
        assert_eq!(gateway.look(token).await["status"], "ready_for_approval");
    }
    let created = gateway.metrics().await.count("approval_requests_total", &[]);
    assert!(created >= tokens.len() as u64, "{created} of {}", tokens.len());
}
