//! Whatever goes wrong on the way, nothing is run on doubt.

use countersign_tests::{Click, Fault, Home, Relay};

use super::{ACTIONS, Asker, RUN, not_run};

/// Nothing is tried again.
const IMPATIENT: [&str; 2] = ["--patience", "0s"];

#[tokio::test]
async fn cut_streams_and_restarts_are_waited_through() {
    let gateway = Home::new(ACTIONS).start().await;
    let relay = Relay::start(Some(gateway.address())).await;
    let asker = Asker::through(&relay);
    let asking = asker.ask("deploy", &RUN);
    let id = asking.request().await;
    relay.called("wait-sse", 1).await;
    relay.cut();
    asking.said("trying again").await;
    relay.called("wait-sse", 2).await;

    // It is killed, is away for some attempts, and comes back elsewhere.
    relay.lead_to(None);
    let home = gateway.kill();
    relay.called("wait-sse", 4).await;
    let gateway = home.start().await;
    relay.lead_to(Some(gateway.address()));
    gateway.click_ok(&Click::approve("U0ALICE", &id)).await;
    let ended = asking.ended().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(asker.file("ran").as_deref(), Some("v1.2.3 2\n"));
    assert_eq!(gateway.status(&id).await["use"], "succeeded");
}

/// A proxy that knows no streams.
#[tokio::test]
async fn where_no_stream_gets_through_it_polls() {
    let gateway = Home::new(ACTIONS).start().await;
    let relay = Relay::start(Some(gateway.address())).await;
    relay.fault("/api/guard/wait-sse", Fault::html("200 OK"));
    let asker = Asker::through(&relay);
    let asking = asker.ask("deploy", &RUN);
    let id = asking.request().await;
    relay.called("/api/guard/wait?", 1).await;
    gateway.click_ok(&Click::approve("U0ALICE", &id)).await;
    assert_eq!(asking.ended().await.code, Some(0));
    assert_eq!(relay.count("wait-sse"), 1);
}

/// A request that is open is no doubt, where streams have no room.
#[tokio::test]
async fn without_streams_an_open_request_is_seen_at_once() {
    let gateway = Home::new(ACTIONS).start().await;
    let relay = Relay::start(Some(gateway.address())).await;
    let problem = r#"{"error":"too_many_streams","detail":"too many streams are open"}"#;
    relay.fault(
        "/api/guard/wait-sse",
        Fault::answer("503 Service Unavailable", "application/problem+json", problem),
    );
    let asker = Asker::through(&relay);
    let detached = asker.ask("deploy", &["--detach"]).ended().await;
    let token = detached.stdout.lines().find_map(|line| line.strip_prefix("token   ")).expect("a token");
    let waiting = asker.run(&[], &["wait", token, "--patience", "10s"]);
    waiting.printed("ready_for_approval").await;
    relay.called("/api/guard/wait?timeoutSec=50", 1).await;
    assert_eq!(relay.count("/api/guard/wait?timeoutSec=0"), 1);
    gateway.cancel(token, None).await.expect("it is open");
    assert_eq!(waiting.ended().await.code, Some(5));
}

/// Answers that are lost are asked for again, and each step is done once.
#[tokio::test]
async fn lost_answers_change_nothing() {
    let gateway = Home::new(ACTIONS).start().await;
    let relay = Relay::start(Some(gateway.address())).await;
    let calls = ["/.well-known", "/api/guard/request", "/api/guard/consume", "/api/guard/outcome"];
    for path in calls {
        relay.fault(path, Fault::LoseOneAnswer);
    }
    let asker = Asker::through(&relay);
    let asking = asker.ask("deploy", &RUN);
    let id = asking.request().await;
    gateway.click_ok(&Click::approve("U0ALICE", &id)).await;
    let ended = asking.ended().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(asker.file("ran").as_deref(), Some("v1.2.3 2\n"), "once");
    for path in calls {
        assert_eq!(relay.count(path), 2, "{path}");
    }
    let metrics = gateway.metrics().await;
    for (name, count) in [("approval_requests_total", 1), ("approvals_consumed_total", 1)] {
        assert_eq!(metrics.count(name, &[("action", "deploy")]), count, "{name}");
    }
    assert_eq!(gateway.status(&id).await["use"], "succeeded");
}

/// `wait` gives up as `ask` does, and not while it is heard of, even if the gateway has nothing new to say.
#[tokio::test]
async fn a_gateway_that_is_gone_is_not_waited_for() {
    let gateway = Home::new(ACTIONS).start().await;
    let relay = Relay::start(Some(gateway.address())).await;
    let asker = Asker::through(&relay);
    let detached = asker.ask("deploy", &["--detach"]).ended().await;
    let token = detached.stdout.lines().find_map(|line| line.strip_prefix("token   ")).expect("a token");
    let patient = asker.run(&[], &["wait", token]);
    relay.called("wait-sse", 1).await;
    patient.printed("ready_for_approval").await;
    relay.cut();
    patient.said("the gateway answers again").await;
    let impatient = asker.run(&[], &["wait", token, "--patience", "0s"]);
    impatient.printed("ready_for_approval").await;
    relay.lead_to(None);
    relay.cut();
    let ended = impatient.ended().await;
    assert_eq!(ended.code, Some(7), "{ended:?}");
    assert!(ended.stderr.contains("nothing was heard of the gateway"), "{ended:?}");
    relay.lead_to(Some(gateway.address()));
    gateway.cancel(token, None).await.expect("it is open");
    assert_eq!(patient.ended().await.code, Some(5));
}

/// Before anybody is asked.
#[tokio::test]
async fn without_a_gateway_nothing_is_run() {
    let nobody = Relay::start(None).await;
    let asker = Asker::through(&nobody);
    not_run(&asker, &asker.ask("deploy", &[&IMPATIENT[..], &RUN].concat()).ended().await, 7, "in doubt");
    let gone = nobody.url();
    drop(nobody);
    let asker = Asker::new(&gone);
    not_run(&asker, &asker.ask("deploy", &[&IMPATIENT[..], &RUN].concat()).ended().await, 7, "in doubt");
}

/// Each call in turn is answered with what no gateway answers.
#[tokio::test]
async fn nonsense_is_never_an_approval() {
    let gateway = Home::new(ACTIONS).start().await;
    let problem = r#"{"error":"internal","detail":"something broke"}"#;
    let json = |body: &str| Fault::answer("200 OK", "application/json", body);
    let faults = [
        Fault::html("200 OK"),
        Fault::html("502 Bad Gateway"),
        Fault::html("404 Not Found"),
        Fault::answer("500 Internal Server Error", "application/problem+json", problem),
        // It says to come back after the end of the world.
        Fault::answer(
            "503 Service Unavailable\r\nretry-after: 18446744073709551615",
            "application/problem+json",
            problem,
        ),
        Fault::answer("302 Found", "text/plain", ""),
        json(r#"{"status":"approved"}"#),
        json("{}"),
        json(""),
        Fault::Answer(String::new()),
        Fault::Answer("nonsense".to_owned()),
    ];
    for fault in &faults {
        for path in ["/.well-known/jwks.json", "/api/guard/request", "/api/guard/consume"] {
            let relay = Relay::start(Some(gateway.address())).await;
            relay.fault(path, fault.clone());
            let asker = Asker::through(&relay);
            let asking = asker.ask("deploy", &[&IMPATIENT[..], &RUN].concat());
            if path == "/api/guard/consume" {
                gateway.click_ok(&Click::approve("U0ALICE", &asking.request().await)).await;
            }
            not_run(&asker, &asking.ended().await, 7, "in doubt");
        }
    }
}

/// The gateway says that it was approved, and its receipt says something else.
#[tokio::test]
async fn what_does_not_verify_is_not_run() {
    let gateway = Home::new(ACTIONS).start().await;
    let other = Home::new(ACTIONS).start().await;
    let replace = |from: &str, to: &str| Fault::Replace(from.to_owned(), to.to_owned());
    let states = "/api/guard/wait";
    for (path, fault, said) in [
        // Somebody on the way changes what was approved.
        (states, replace("\"replicas\":7", "\"replicas\":9"), "payload hash"),
        (states, replace("\"receipt\":", "\"recaipt\":"), "the answer has no receipt"),
        (states, replace("\"receipt\":\"eyJ", "\"receipt\":\"eyK"), "the receipt does not count"),
        ("/.well-known", replace("\"x\":\"", "\"y\":\""), "not among the keys at hand"),
        ("/api/guard/consume", replace("\"use\":\"consumed\"", "\"use\":\"lapsed\"  "), "contradicts itself"),
    ] {
        let relay = Relay::start(Some(gateway.address())).await;
        relay.fault("/api/guard/wait-sse", Fault::html("404 Not Found"));
        relay.fault(path, fault.clone());
        let asker = Asker::through(&relay);
        let asking = asker.ask("scale", &[&IMPATIENT[..], &RUN].concat());
        let id = asking.request().await;
        gateway.click_ok(&Click::edit("U0ALICE", &id, &[("replicas", "7")])).await;
        not_run(&asker, &asking.ended().await, 7, said);
    }

    // The keys of another gateway are pinned.
    let asker = Asker::of(&gateway);
    let keys = other.send(&countersign_tests::Call::get("/.well-known/jwks.json")).await.text();
    std::fs::write(asker.path().join("jwks.json"), keys).expect("written");
    let asking = asker.ask("deploy", &[&["--jwks", "jwks.json"], &RUN[..]].concat());
    let id = asking.request().await;
    gateway.click_ok(&Click::approve("U0ALICE", &id)).await;
    not_run(&asker, &asking.ended().await, 7, "not among the keys at hand");

    // And those of this one.
    let keys = gateway.send(&countersign_tests::Call::get("/.well-known/jwks.json")).await.text();
    std::fs::write(asker.path().join("jwks.json"), keys).expect("written");
    let asking = asker.ask("deploy", &[&["--jwks", "jwks.json"], &RUN[..]].concat());
    let id = asking.request().await;
    gateway.click_ok(&Click::approve("U0ALICE", &id)).await;
    assert_eq!(asking.ended().await.code, Some(0));
}

/// What is wrong on the command line is said before anybody is asked.
#[tokio::test]
async fn bad_usage_asks_nobody() {
    let gateway = Home::new(ACTIONS).start().await;
    let asker = Asker::of(&gateway);
    for (more, said) in [
        (&["--", "no-such-program"][..], "no program `no-such-program`"),
        (&["--", "sh", "{reff}"], "`{reff}` is none of the parameters"),
        (&["--param", "ref=v2", "--", "sh"], "the parameter `ref` is given twice"),
        (&["--params-file", "missing.json", "--", "sh"], "missing.json"),
        (&["--jwks", "missing.json", "--", "sh"], "missing.json"),
        (&["--params-out", "no/such/folder", "--", "sh"], "no/such/folder"),
        (&["--url", "http://gateway.example", "--", "sh"], "is not encrypted"),
        (&["--timeout", "soon", "--", "sh"], "--timeout"),
        (&["--timeout", "300000000000years", "--", "sh"], "longer than ten years"),
        (&["--patience", "300000000000years", "--", "sh"], "longer than ten years"),
        (&["--params-out", "same", "--receipt-out", "same", "--", "sh"], "the same file"),
        (&["--colour", "--", "sh"], "--colour"),
    ] {
        not_run(&asker, &asker.ask("deploy", more).ended().await, 2, said);
    }
    let unknown = asker.ask_with(&[("COUNTERSIGN_JKWS", "jwks.json")], "deploy", &["--", "sh"]).ended().await;
    not_run(&asker, &unknown, 2, "`COUNTERSIGN_JKWS` is unknown");
    let silent = asker.run(&[], &["ask", "deploy", "--why", "Ship it"]).ended().await;
    not_run(&asker, &silent, 2, "--repo");
    assert_eq!(gateway.metrics().await.count("approval_requests_total", &[]), 0);
}
