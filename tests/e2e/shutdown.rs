//! SIGTERM: waiting callers get an answer, calls in progress are finished, and the process exits by itself. Before it
//! serves, it exits at once.

use std::process::Command;

use countersign_tests::{Ask, Authority, Call, Click, Connection, Home, PATIENCE, Redis, deploy, within};
use futures_util::future::join_all;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Signal;
use tokio::net::{TcpListener, TcpStream, UnixStream};

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

/// A home whose store is at an address where nobody answers until the test does.
async fn with_silent_store() -> (Home, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
    let address = listener.local_addr().expect("it has an address");
    (Home::new(&deploy(1)).with("COUNTERSIGN_STORE", &format!("redis://{address}")), listener)
}

async fn accepted(listener: &TcpListener) -> TcpStream {
    within("the gateway to ask its store", listener.accept()).await.expect("it connects").0
}

#[tokio::test]
async fn a_start_that_waits_for_its_store_ends() {
    for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT")] {
        let (home, listener) = with_silent_store().await;
        let starting = home.begin();
        let connection = accepted(&listener).await;
        starting.signal(signal);
        let exit = starting.exited().await;
        assert_eq!(exit.code, Some(0), "{exit:?}");
        assert!(exit.stderr.contains("shutting down") && exit.stderr.contains(name), "{exit:?}");
        drop(connection);
    }
}

/// A thread that reads cannot be interrupted.
#[tokio::test]
async fn a_start_that_waits_for_a_file_ends() {
    let authority = Authority::new();
    let home = Home::new(&deploy(1)).with_tls(&authority.server(), authority.tls_client(None));
    let home = home.with_file("TLS_CERT_FILE", "pipe");
    let pipe = home.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let starting = home.begin();
    // It can be opened for writing once the gateway reads it.
    let opened = async {
        loop {
            match rustix::fs::open(&pipe, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty()) {
                Ok(writer) => return writer,
                Err(Errno::NXIO) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    let writer = within("the gateway to read the file", opened).await;
    starting.signal(Signal::TERM);
    let exit = starting.exited().await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    drop(writer);
}

#[tokio::test]
async fn a_reload_during_a_start_is_served_after_it() {
    let redis = Redis::start().await;
    let (home, listener) = with_silent_store().await;
    let starting = home.begin();
    let first = accepted(&listener).await;
    starting.signal(Signal::HUP);
    let socket = redis.url().replace("redis+unix://", "");
    let relay = tokio::spawn(async move {
        let mut next = Ok(first);
        while let Ok(mut connection) = next {
            let socket = socket.clone();
            tokio::spawn(async move {
                let mut redis = UnixStream::connect(socket).await?;
                tokio::io::copy_bidirectional(&mut connection, &mut redis).await
            });
            next = listener.accept().await.map(|(connection, _)| connection);
        }
    });
    let gateway = starting.serves().await;
    gateway.logged("reading the policy set again", 1).await;
    gateway.open("deploy").await;
    gateway.stop().await;
    relay.abort();
}
