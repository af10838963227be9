//! Several gateways over one Redis: to callers and people they are one.

use countersign_tests::{
    ApiKey, Ask, Call, Click, Gateway, Home, Receipt, Receiver, Redis, Slack, deploy, millis, within,
};
use futures_util::future::join_all;
use serde_json::{Value, json};

/// Gateways that share a Redis and a Slack.
async fn instances<const N: usize>(redis: &Redis, slack: &Slack, actions: &str) -> [Gateway; N] {
    let start = || Home::new(actions).with_redis(redis).with_slack(slack).start();
    let mut started = Vec::new();
    for _ in 0..N {
        started.push(start().await);
    }
    let gateways: [Gateway; N] = started.try_into().expect("as many as were started");
    slack.set_gateway(&format!("http://{}", gateways[0].address()));
    gateways
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_made_on_one_waited_for_on_another_and_approved_through_a_third() {
    let redis = Redis::start().await;
    let slack = Slack::start().await;
    let [one, two, three] = instances(&redis, &slack, &deploy(2)).await;
    let keyed = Ask::new("deploy").idempotency_key("run-1");
    let (request, again) = (one.create(&keyed).await.unwrap(), two.create(&keyed).await.unwrap());
    assert_eq!((&request.id, &request.token), (&again.id, &again.token), "the key is known everywhere");
    slack.shown(&request.id).await;

    let mut stream = two.stream(&request.token).await;
    assert_eq!(stream.state().await.status(), "ready_for_approval");
    three.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    assert_eq!(stream.state().await.json()["approvers"].as_array().map(Vec::len), Some(1));
    let refused = one.click(&Click::approve("U0ALICE", &request.id)).await;
    assert_eq!(refused["error"], "duplicate_approval", "{refused}");
    one.click_ok(&Click::approve("U0BOB", &request.id)).await;
    assert_eq!(stream.state().await.status(), "approved");
    assert!(stream.rest().await.is_empty());
    for gateway in [&one, &two, &three] {
        assert_eq!(gateway.ended(&request.token).await["status"], "approved");
    }
    slack.shown_when(&request.id, "to say so", |message| message.shown().contains("Approved")).await;
    assert_eq!(slack.posted(&request.id).len(), 1);
}

/// The same signature, and a second delivery by Slack, which signs anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_press_that_is_delivered_to_two_instances_counts_once() {
    let redis = Redis::start().await;
    let slack = Slack::start().await;
    let [one, two] = instances(&redis, &slack, &deploy(2)).await;
    let request = one.open("deploy").await;
    let click = Click::approve("U0ALICE", &request.id);
    let signed = click.signed();
    let replies = join_all((0..40).map(|number| {
        let gateway = if number % 2 == 0 { &one } else { &two };
        let call = signed.call();
        async move { gateway.send(&call).await }
    }));
    let replies = within("the answers", replies).await;
    let (counted, others): (Vec<_>, Vec<_>) =
        replies.iter().partition(|reply| reply.json()["ok"] == true && reply.status() == 200);
    // What takes longer than Slack waits is answered with nothing, whatever comes of it: also the one that counts.
    let is_unknown = others.iter().any(|reply| reply.text() == "{}");
    assert!(counted.len() == 1 || counted.is_empty() && is_unknown, "{counted:?}, {others:?}");
    for other in others {
        assert!(other.text() == "{}" || other.json()["error"] == "replay_detected", "{}", other.text());
    }
    let once = async {
        while two.status(&request.id).await["approvalsCount"] != 1 {
            tokio::task::yield_now().await;
        }
    };
    within("the press to count", once).await;
    // Signed at another time it is another signature, and the same press: it is answered as it was.
    two.click_ok(&click.ahead(-60)).await;
    one.click_ok(&Click::approve("U0BOB", &request.id)).await;
    let after = two.ended(&request.token).await;
    assert_eq!(after["approvers"].as_array().map(Vec::len), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_set_that_is_put_in_force_on_one_is_in_force_everywhere() {
    let redis = Redis::start().await;
    let start = |approvals| Home::new(&deploy(approvals)).administered().with_redis(&redis).start();
    let (one, two) = (start(1).await, start(1).await);
    one.home().set_actions(&deploy(2));
    one.admin("POST", "reload-policy", &json!({})).await.expect("it is taken");
    let hash = one.policy().await;
    follows(&two, &hash).await;

    // One with the old folder is started again: it does not take everybody back.
    let home = two.stop().await;
    let two = home.start().await;
    assert_eq!(two.policy().await, hash);
    assert_eq!(one.policy().await, hash);
    // One with a newer folder brings a new set for all, and each change is recorded once.
    let three = start(3).await;
    let newest = three.policy().await;
    assert_ne!(newest, hash);
    follows(&one, &newest).await;
    follows(&two, &newest).await;
    let history = one.seen("policy-sets/history").await;
    let changes = history["changes"].as_array().expect("a list");
    let in_force: Vec<&Value> = changes.iter().filter(|change| change["outcome"] == "ok").collect();
    assert_eq!(in_force.len(), 3, "{history:#}");
}

/// What is in force is in the store, with its modules: an instance needs no files for it.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_without_a_policy_folder_has_what_is_in_force() {
    let redis = Redis::start().await;
    let one = Home::new(&deploy(1)).with_redis(&redis).start().await;
    let home = Home::new(&deploy(1)).with_redis(&redis);
    std::fs::remove_dir_all(home.path("policies")).expect("there is a folder");
    let two = home.start().await;
    assert_eq!(two.policy().await, one.policy().await);
    let request = two.open("deploy").await;
    one.click_ok(&Click::approve("U0BOB", &request.id)).await;
    assert_eq!(two.ended(&request.token).await["status"], "approved");
}

/// Waits until a gateway has this set in force.
async fn follows(gateway: &Gateway, hash: &str) {
    let followed = async {
        while gateway.policy().await != hash {
            tokio::task::yield_now().await;
        }
    };
    within("the instance to follow", followed).await;
}

/// Streams see the end of their requests, votes for one request that come to several instances at once make one decision,
/// and each request has one message and one escalation, although instances are killed and Redis is, too.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_an_instance_and_redis_die() {
    const REQUESTS: usize = 200;
    const STREAMS: usize = 50;
    // It escalates three seconds after it was made.
    let actions =
        deploy(2).replace("timeout: 10m", "timeout: 10m\n    escalate: { before: 9m57s, channel: C0ONCALL }");
    let mut redis = Redis::start().await;
    let slack = Slack::start().await;
    let [one, two, three] = instances(&redis, &slack, &actions).await;
    let gateways = [&one, &two, &three];
    let asked = within(
        "the requests to be made",
        join_all((0..REQUESTS).map(|number| gateways[number % 3].open("deploy"))),
    );
    let requests = asked.await;
    // It has its share of what is due, and perhaps the delivery.
    let three = three.kill().start().await;
    let gateways = [&one, &two, &three];
    for request in &requests {
        slack.shown(&request.id).await;
        slack.posted_in(&request.id, "escalation_channel").await;
    }
    // Not on the instance that is going to be killed.
    let mut streams = Vec::new();
    for (number, request) in requests.iter().take(STREAMS).enumerate() {
        let mut stream = gateways[number % 2].stream(&request.token).await;
        stream.state().await;
        streams.push(stream);
    }

    // Each request gets three votes at once, on three instances, while one of them is killed and Redis is started again.
    let (before, after) = requests.split_at(REQUESTS / 2);
    vote(&gateways, before).await;
    let left = three.kill();
    redis.kill();
    let look = Call::post("/api/guard/wait", &json!({"token": after[0].token}));
    let during = one.send(&look).await;
    assert_eq!(during.status(), 503, "{}", during.text());
    redis.resume().await;
    let alive = [&one, &two];
    let ready = async {
        for gateway in alive {
            while gateway.send(&look).await.status() != 200 {
                tokio::task::yield_now().await;
            }
        }
    };
    within("the instances to go on", ready).await;
    vote(&alive, after).await;

    for request in &requests {
        let ended = two.ended(&request.token).await;
        assert_eq!(ended["status"], "approved", "{ended}");
        assert_eq!(ended["approvers"].as_array().map(Vec::len), Some(2), "{ended}");
    }
    for (stream, request) in streams.iter_mut().zip(&requests) {
        let events = within("the end of a stream", stream.rest()).await;
        let last = events.iter().rev().find(|event| event.name == "state");
        assert_eq!(last.map(|event| event.status()).as_deref(), Some("approved"), "{}", request.id);
    }
    for request in &requests {
        slack
            .shown_when(&request.id, "to say that it was approved", |it| it.shown().contains("Approved"))
            .await;
        let slots: Vec<_> =
            slack.posted(&request.id).iter().map(|it| it.mark("slot").map(ToOwned::to_owned)).collect();
        for slot in ["main", "escalation_channel"] {
            let posted = slots.iter().filter(|it| it.as_deref() == Some(slot)).count();
            assert_eq!(posted, 1, "{slot} of {}: {slots:?}", request.id);
        }
    }
    let metrics = one.metrics().await;
    assert_eq!(metrics.count("approvals_total", &[]), REQUESTS as u64, "one decision each");
    assert_eq!(metrics.count("escalations_total", &[]), REQUESTS as u64, "one escalation each");
    drop(left);
}

/// Three people approve each request at the same moment, each through another instance.
async fn vote(gateways: &[&Gateway], requests: &[Receipt]) {
    let people = ["U0ALICE", "U0BOB", "U0CAROL"];
    for some in requests.chunks(20) {
        let clicks: Vec<Click> =
            some.iter().flat_map(|request| people.map(|who| Click::approve(who, &request.id))).collect();
        let calls = clicks.iter().enumerate().map(|(number, click)| {
            let gateway = gateways[number % gateways.len()];
            gateway.click(click)
        });
        let answers = within("the answers", join_all(calls)).await;
        let counted = answers.iter().filter(|answer| answer["ok"] == true).count();
        assert_eq!(counted, some.len() * 2, "{answers:?}");
    }
}

/// What is due of a request is done although the instance that made it is gone, and once.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_is_done_by_whoever_lives() {
    const ESCALATING: &str = "
  deploy:
    description: Deploy to production
    timeout: 16s
    escalate: { before: 13s, channel: C0ONCALL }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB], approvals: 1 }
";
    let redis = Redis::start().await;
    let slack = Slack::start().await;
    let [one, two, three] = instances(&redis, &slack, ESCALATING).await;
    let gateways = [&one, &two, &three];
    let requests = join_all((0..30).map(|number| gateways[number % 3].open("deploy"))).await;
    let mut streams = Vec::new();
    for (number, request) in requests.iter().enumerate() {
        streams.push(gateways[number % 2].stream(&request.token).await);
    }
    let left = three.kill();
    for request in &requests {
        slack.posted_in(&request.id, "escalation_channel").await;
    }
    for (stream, request) in streams.iter_mut().zip(&requests) {
        let events = within("the end of a stream", stream.rest()).await;
        let last = events.iter().rev().find(|event| event.name == "state").expect("a state").json();
        assert_eq!(last["status"], "expired", "{last}");
        let drift = millis(&last["decidedAt"]) - millis(&request.body["expiresAt"]);
        assert!(drift >= 0, "{last}");
    }
    for request in &requests {
        let escalations =
            slack.posted(&request.id).into_iter().filter(|it| it.mark("slot") == Some("escalation_channel"));
        assert_eq!(escalations.count(), 1, "one escalation of {}", request.id);
    }
    let metrics = one.metrics().await;
    assert_eq!(metrics.count("escalations_total", &[]), 30);
    drop(left);
}

/// An access file with one caller, and perhaps a webhook.
fn access_file(key: &ApiKey, webhook: &str) -> String {
    format!(
        "version: 1\ncallers:\n  portal:\n    keys:\n      {}\n    requester: asserted\n    actions: [deploy]\n{webhook}",
        key.line
    )
}

/// A gateway over this Redis with an access file of its own.
async fn with_access_file(redis: &Redis, file: &str) -> Gateway {
    Home::new(&deploy(1)).administered().with_redis(redis).with_access(file).start().await
}

/// Moves an access file into its place.
fn move_in(gateway: &Gateway, file: &str) {
    gateway.home().write("access.new", file.as_bytes());
    let (new, place) = (gateway.home().path("access.new"), gateway.home().path("access.yaml"));
    std::fs::rename(new, place).expect("one folder");
}

/// Waits until a gateway's `degraded` says so, and its state has this version of the access file.
async fn knows(gateway: &Gateway, degraded: &Value, version: u64) -> Value {
    let known = async {
        loop {
            let ready = gateway.send(&Call::get("/readyz")).await.json();
            let state = gateway.seen("state").await;
            // It is left out if nothing is wrong.
            let shown = ready.get("degraded").cloned().unwrap_or_else(|| json!([]));
            if shown == *degraded && state["accessFiles"]["version"] == version {
                return state;
            }
            tokio::task::yield_now().await;
        }
    };
    within("the access files to be known", known).await
}

/// Of several gateways each has a file of its own: one with an older file says so, until it has the newest.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_with_an_older_access_file_says_so_until_it_has_the_newest() {
    let redis = Redis::start().await;
    let (old, new) = (ApiKey::new("portal"), ApiKey::new("portal"));
    let (before, after) = (access_file(&old, ""), access_file(&new, ""));
    let (one, two) = (with_access_file(&redis, &before).await, with_access_file(&redis, &before).await);
    let (none, outdated) = (json!([]), json!(["access_file_outdated"]));
    knows(&one, &none, 1).await;
    knows(&two, &none, 1).await;

    move_in(&one, &after);
    one.hang_up();
    let state = knows(&two, &outdated, 2).await;
    let files = state["accessFiles"]["instances"].as_object().expect("the instances").clone();
    assert_eq!(files.len(), 2, "{state:#}");
    assert_eq!(
        files[one.seen("state").await["instance"].as_str().expect("its number")],
        state["accessFiles"]["newest"]
    );
    assert_ne!(files[state["instance"].as_str().expect("its number")], state["accessFiles"]["newest"]);
    knows(&one, &none, 2).await;
    two.logged("the access file is older than that of another instance", 1).await;

    // One that starts with the old file is late, too, and makes it no newer.
    let three = with_access_file(&redis, &before).await;
    knows(&three, &outdated, 2).await;
    move_in(&two, &after);
    knows(&two, &none, 2).await;
    two.logged("the access file is the newest one again", 1).await;
    knows(&one, &none, 2).await;

    // The one that replaces the newest by an older one means it.
    move_in(&one, &before);
    one.hang_up();
    knows(&three, &none, 3).await;
    knows(&two, &outdated, 3).await;
}

/// An instance whose file is on disk when it hears of it has it in force without waiting for its next look.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_another_instance_has_put_in_force_is_taken_at_once() {
    let redis = Redis::start().await;
    let (old, new) = (ApiKey::new("portal"), ApiKey::new("portal"));
    let (before, after) = (access_file(&old, ""), access_file(&new, "people: {}\n"));
    let (one, two) = (with_access_file(&redis, &before).await, with_access_file(&redis, &before).await);
    // Written in place it is held back: it has a part that is new.
    two.home().write("access.yaml", after.as_bytes());
    two.logged("access file held back", 1).await;
    move_in(&one, &after);
    one.hang_up();
    two.logged("access file reloaded", 1).await;
    // It is noted in the store once it is in force.
    let noted = async {
        loop {
            let shown = two.seen("access").await;
            let attempts = shown["attempts"].as_array().expect("a list");
            if attempts.iter().any(|it| it["source"] == "instance" && it["outcome"] == "ok") {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    within("why it was reloaded", noted).await;
    knows(&two, &json!([]), 2).await;
}

/// A webhook of an access file.
fn lake(receiver: &Receiver) -> String {
    format!(
        "webhooks:\n  lake: {{ url: \"{}\", secret_file: lake.secret, allow_private: true }}\n",
        receiver.url()
    )
}

/// A gateway without an access file has no webhooks, and leaves what waits for those of the others.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_without_an_access_file_drops_nothing_of_webhooks() {
    let redis = Redis::start().await;
    let (key, receiver) = (ApiKey::new("portal"), Receiver::start().await);
    let home = Home::new(&deploy(1)).administered().with_redis(&redis);
    home.write("lake.secret", b"whsec_Y291bnRlcnNpZ24gd2ViaG9vayBzZWNyZXQgMzIgYnl0ZXM=\n");
    let one = home.with_access(&access_file(&key, &lake(&receiver))).start().await;
    receiver.answer_with(503);
    let bearer = format!("Bearer {}", key.secret);
    let asked = Ask::new("deploy").requester("U0REQ").call().header("authorization", &bearer);
    assert_eq!(one.send(&asked).await.status(), 200);
    receiver.called(1).await;

    let other = Home::new(&deploy(1)).administered().with_redis(&redis).start().await;
    receiver.answer_with(200);
    assert_eq!(receiver.received(1).await.len(), 1, "it is told in the end");
    assert!(!other.output().contains("there is no such target any more"), "{}", other.output());
}

/// What a webhook is to be told is dropped once the newest access file lacks the webhook, and by nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_with_an_older_access_file_drops_nothing_of_webhooks() {
    let redis = Redis::start().await;
    let key = ApiKey::new("portal");
    let receiver = Receiver::start().await;
    let (before, after) = (access_file(&key, ""), access_file(&key, &lake(&receiver)));
    let home = Home::new(&deploy(1)).administered().with_redis(&redis);
    home.write("lake.secret", b"whsec_Y291bnRlcnNpZ24gd2ViaG9vayBzZWNyZXQgMzIgYnl0ZXM=\n");
    let one = home.with_access(&before).start().await;
    knows(&one, &json!([]), 1).await;
    move_in(&one, &after);
    one.hang_up();
    knows(&one, &json!([]), 2).await;
    receiver.answer_with(503);
    let bearer = format!("Bearer {}", key.secret);
    let asked = Ask::new("deploy").requester("U0REQ").call().header("authorization", &bearer);
    assert_eq!(one.send(&asked).await.status(), 200);
    receiver.called(1).await;
    // It starts with the old file, which lacks the webhook.
    let late = with_access_file(&redis, &before).await;
    knows(&late, &json!(["access_file_outdated"]), 2).await;
    receiver.answer_with(200);
    assert_eq!(receiver.received(1).await.len(), 1, "it is told in the end");
    assert!(!late.output().contains("there is no such target any more"), "{}", late.output());
}
