//! Of the requests that agree in what their action names, only the newest open one stands; whenever the gateway is killed.

use countersign_tests::{ApiKey, Ask, Call, Click, Gateway, Home, Receipt, Redis, Slack, holds, within};
use futures_util::future::join_all;
use serde_json::{Value, json};

const ACTIONS: &str = "
  deploy:
    description: Deploy one service
    timeout: 10m
    redact: { hide: [env, token] }
    supersede: [service, env]
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB], approvals: 2 }
";

fn ask(service: &str, reference: &str) -> Ask {
    Ask::new("deploy").params(json!({"service": service, "env": "production", "ref": reference}))
}

/// Waits until no more than one request is open, which then is.
async fn one_stands(gateway: &Gateway) {
    let passing = async {
        while gateway.metrics().await.count("pending_requests", &[("action", "deploy")]) != 1 {
            tokio::task::yield_now().await;
        }
    };
    within("one request that stands", passing).await;
}

/// Where whoever follows from this request arrives, and its state.
async fn newest(gateway: &Gateway, id: &str) -> (String, Value) {
    let mut id = id.to_owned();
    loop {
        let seen = gateway.status(&id).await;
        match seen["successor"]["requestId"].as_str() {
            Some(next) => next.clone_into(&mut id),
            None => return (id, seen),
        }
    }
}

#[tokio::test]
async fn the_newest_request_takes_the_place_of_older_ones() {
    let gateway = Home::new(ACTIONS).start().await;
    let first = gateway.create(&ask("web", "v1")).await.expect("it is admitted");
    let other = gateway.create(&ask("api", "v1")).await.expect("it is admitted");
    gateway.click_ok(&Click::approve("U0ALICE", &first.id)).await;
    let mut stream = gateway.stream(&first.token).await;
    assert_eq!(stream.state().await.status(), "ready_for_approval");
    let second = gateway.create(&ask("web", "v2")).await.expect("it is admitted");

    let heard = stream.state().await.json();
    assert_eq!(heard["status"], "cancelled");
    assert_eq!(heard["reason"], format!("superseded by the newer request {}", second.id));
    assert_eq!(heard["successor"], json!({"requestId": second.id}));
    assert_eq!(gateway.look(&first.token).await["successor"], heard["successor"]);
    assert_eq!(gateway.status(&first.id).await["successor"], heard["successor"]);
    let refused = gateway.click(&Click::approve("U0BOB", &first.id)).await;
    assert_eq!(refused["error"], "already_decided", "{refused}");
    for open in [&second, &other] {
        assert_eq!(gateway.look(&open.token).await["status"], "ready_for_approval");
    }

    // The same key is the same request, and supersedes nothing a second time.
    let keyed = ask("web", "v3").idempotency_key("run-1");
    let third = gateway.create(&keyed).await.expect("it is admitted");
    assert_eq!(gateway.create(&keyed).await.expect("it is known").id, third.id);
    assert_eq!(newest(&gateway, &first.id).await.0, third.id);
    for person in ["U0ALICE", "U0BOB"] {
        gateway.click_ok(&Click::approve(person, &third.id)).await;
    }
    gateway.create(&ask("web", "v4")).await.expect("it is admitted");
    assert_eq!(gateway.look(&third.token).await["status"], "approved", "what has ended is left alone");
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("superseded_total", &[("action", "deploy")]), 2);
    let home = gateway.stop().await;
    for (path, bytes) in home.files() {
        let is_store = path.starts_with(home.path("data"));
        assert!(!(is_store && holds(&bytes, b"production")), "a hidden value is in {}", path.display());
    }
}

/// Without an access file all have one name, which is none: so who supersedes whose request proves nothing.
#[tokio::test]
async fn an_unauthenticated_caller_learns_no_token_through_supersede() {
    let gateway = Home::new(ACTIONS).start().await;
    // Somebody asks so as to be superseded by the victim, and to go on with the token of the victim.
    let bait = gateway.create(&ask("web", "bait")).await.expect("it is admitted");
    let mut stream = gateway.stream(&bait.token).await;
    assert_eq!(stream.state().await.status(), "ready_for_approval");
    let victim = gateway.create(&ask("web", "v1")).await.expect("it is admitted");
    // And the other way round: the victim is superseded, and must not go on with what somebody else asked for.
    let stranger = gateway.create(&ask("web", "other")).await.expect("it is admitted");
    let told = stream.state().await.json();
    assert_eq!(told["successor"], json!({"requestId": victim.id}));
    for (older, newer) in [(&bait, &victim), (&victim, &stranger)] {
        let status = Call::get(&format!("/api/guard/status?requestId={}", older.id)).bearer(&older.token);
        for told in [gateway.look(&older.token).await, gateway.send(&status).await.json()] {
            assert_eq!(
                (&told["status"], &told["successor"]),
                (&json!("cancelled"), &json!({"requestId": newer.id}))
            );
        }
    }
}

#[tokio::test]
async fn nobody_supersedes_the_request_of_another_caller() {
    let (web, nightly) = (ApiKey::new("web"), ApiKey::new("nightly"));
    let caller = |name: &str, key: &ApiKey| {
        format!("  {name}:\n    keys:\n      {}\n    requester: asserted\n    actions: [deploy]\n", key.line)
    };
    let access = format!("version: 1\ncallers:\n{}{}", caller("web", &web), caller("nightly", &nightly));
    let gateway = Home::new(ACTIONS).with_access(&access).start().await;
    let create = async |key: &ApiKey, reference: &str| {
        let reply = gateway.send(&ask("web", reference).call().bearer(&key.secret)).await;
        Receipt::read(reply).expect("it is admitted")
    };
    let (ours, theirs) = (create(&web, "v1").await, create(&nightly, "v1").await);
    for open in [&ours, &theirs] {
        assert_eq!(gateway.look(&open.token).await["status"], "ready_for_approval");
    }
    let newer = create(&web, "v2").await;
    assert_eq!(gateway.look(&theirs.token).await["status"], "ready_for_approval");
    let seen = gateway.look(&ours.token).await;
    assert_eq!(seen["successor"], json!({"requestId": newer.id, "token": newer.token}));
    // What it hides beside that, whoever holds the old token does not know, and could find by trying.
    let mut secret = ask("web", "v2").body();
    secret["params"]["token"] = "hunter2".into();
    let reply = gateway.send(&Ask::of(secret).call().bearer(&web.secret)).await;
    let hiding = Receipt::read(reply).expect("it is admitted");
    assert_eq!(gateway.look(&newer.token).await["successor"], json!({"requestId": hiding.id}));

    let open = create(&web, "v2").await;
    // By a hidden value nobody supersedes what another requester of the same caller has asked for: else they would find it by
    // asking.
    let mut other = ask("web", "v3").body();
    other["meta"]["requester"] = json!({"id": "U0OTHER", "source": "slack"});
    let reply = gateway.send(&Ask::of(other).call().bearer(&web.secret)).await;
    let third = Receipt::read(reply).expect("it is admitted");
    for open in [&open, &third] {
        assert_eq!(gateway.look(&open.token).await["status"], "ready_for_approval");
    }
    // Its caller, by the id, is told the next id, and no token.
    let wait = Call::get(&format!("/api/guard/wait?requestId={}&timeoutSec=0", ours.id));
    let seen = gateway.send(&wait.bearer(&web.secret)).await.json();
    assert_eq!(seen["successor"], json!({"requestId": newer.id}));
}

#[tokio::test]
async fn one_stands_after_kill_9_at_any_moment() {
    let mut gateway = Home::new(ACTIONS).start().await;
    let mut followed: Option<String> = None;
    for round in 0..12 {
        let mut connections = Vec::new();
        for _ in 0..6 {
            connections.push(gateway.connect().await);
        }
        for (number, connection) in connections.iter_mut().enumerate() {
            let call = ask("web", &format!("v{round}-{number}")).call();
            connection.write(&call.bytes()).await.expect("it is sent");
        }
        // The others are on their way, each at another place.
        let answered = round % connections.len();
        let answer = within("an answer", connections[answered].answer()).await.expect("an answer");
        let made = Receipt::read(answer).expect("it is admitted");
        gateway = gateway.kill().start().await;
        one_stands(&gateway).await;
        let followed = followed.get_or_insert(made.id.clone());
        let (stands, seen) = newest(&gateway, followed).await;
        assert_eq!(seen["status"], "ready_for_approval");
        assert_eq!(newest(&gateway, &made.id).await.0, stands, "all lead to the one that stands");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_on_several_gateways_one_stands() {
    let redis = Redis::start().await;
    let slack = Slack::start().await;
    let start = || Home::new(ACTIONS).with_redis(&redis).with_slack(&slack).start();
    let gateways = [start().await, start().await];
    let first = gateways[0].create(&ask("web", "first")).await.expect("it is admitted");
    slack.shown(&first.id).await;
    let asked = (0..20).map(|number| {
        let gateway = &gateways[number % 2];
        async move { gateway.create(&ask("web", &format!("v{number}"))).await.expect("it is admitted") }
    });
    let made = within("the answers", join_all(asked)).await;
    for gateway in &gateways {
        one_stands(gateway).await;
    }
    let mut arrived = Vec::new();
    for request in &made {
        arrived.push(newest(&gateways[0], &request.id).await.0);
    }
    arrived.dedup();
    assert_eq!(arrived.len(), 1, "all lead to the one that stands");
    assert_eq!(newest(&gateways[1], &first.id).await.0, arrived[0]);
    // People see it, too.
    slack.shown_when(&first.id, "to be superseded", |message| message.shown().contains("superseded")).await;
}
