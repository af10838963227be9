//! What people do in Slack while the store is away is recorded on disk, and applied once, in order, when it is back.

use std::fs;
use std::path::PathBuf;

use countersign_tests::{Call, Click, Gateway, Home, Redis, Slack, deploy, within};
use serde_json::json;

/// A gateway over a Redis, with its Slack.
struct Setup {
    redis: Redis,
    slack: Slack,
    gateway: Gateway,
}

impl Setup {
    async fn open(actions: &str) -> Setup {
        let (redis, slack) = (Redis::start().await, Slack::start().await);
        let gateway = slack.gateway(Home::new(actions).with_redis(&redis)).await;
        Setup { redis, slack, gateway }
    }

    /// The answer to a press that is recorded.
    async fn recorded(&self, click: &Click) {
        let answer = self.gateway.click(click).await;
        assert_eq!((&answer["ok"], &answer["recorded"]), (&json!(true), &json!(true)), "{answer}");
    }
}

fn presses(home: &Home) -> Vec<PathBuf> {
    let files = fs::read_dir(home.path("spool")).expect("there is a spool");
    let mut files: Vec<PathBuf> = files.map(|file| file.expect("readable").path()).collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_press_is_recorded_while_redis_is_away_and_counts_once_afterwards() {
    let Setup { mut redis, slack, gateway } = Setup::open(&deploy(2)).await;
    let request = gateway.open("deploy").await;
    let message = slack.shown(&request.id).await;
    redis.kill();
    let clicked = slack.person("U0CAROL").click(&message, "approve").await;
    assert_eq!(clicked.warning, None);
    let told = slack.ephemeral("U0CAROL", 1).await;
    assert!(told.shown().contains("is recorded"), "{}", told.shown());
    let setup = Setup { redis, slack, gateway };
    let bob = Click::approve("U0BOB", &request.id);
    setup.recorded(&bob).await;
    assert_eq!(presses(setup.gateway.home()).len(), 2);
    // A load balancer must not take all gateways out at once: streams, and what people do, go on.
    let ready = within("the store's absence to be noticed", async {
        loop {
            let answer = setup.gateway.send(&Call::get("/readyz")).await;
            assert_eq!(answer.status(), 200);
            if answer.json()["storeFault"].is_string() {
                return answer.json();
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(
        (&ready["status"], &ready["degraded"]),
        (&json!("degraded"), &json!(["store_unavailable", "presses_spooled"]))
    );

    // The process dies, and with it what is in its memory.
    let Setup { mut redis, slack, gateway } = setup;
    let home = gateway.kill();
    redis.resume().await;
    let gateway = slack.gateway(home).await;
    let ended = gateway.ended(&request.token).await;
    assert_eq!((&ended["status"], &ended["approvers"]), (&json!("approved"), &json!(["U0CAROL", "U0BOB"])));
    let again = gateway.click(&bob).await;
    assert_eq!(again["ok"], true, "it is answered as it was: {again}");
    let emptied = async {
        while !presses(gateway.home()).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    within("the spool to be empty", emptied).await;
    assert_eq!(gateway.metrics().await.count("approvals_total", &[]), 1);
    slack.shown_when(&request.id, "to say so", |message| message.shown().contains("Approved")).await;
}

/// A Redis that hangs answers nothing; the press is acknowledged in time all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_press_is_recorded_while_redis_hangs() {
    let setup = Setup::open(&deploy(1)).await;
    let request = setup.gateway.open("deploy").await;
    setup.redis.freeze();
    let answer = setup.gateway.click_once(&Click::approve("U0ALICE", &request.id)).await;
    assert!(answer == json!({}) || answer["recorded"] == true, "{answer}");
    assert_eq!(presses(setup.gateway.home()).len(), 1);
    setup.redis.thaw();
    // What was noticed to be away is asked again after a moment.
    let back = async {
        while setup.gateway.send(&Call::get("/readyz")).await.json()["status"] != "ready" {
            tokio::task::yield_now().await;
        }
    };
    within("the store to be back", back).await;
    assert_eq!(setup.gateway.ended(&request.token).await["status"], "approved");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_press_that_is_applied_too_late_is_refused_and_told() {
    let short = deploy(1).replace("timeout: 10m", "timeout: 10s");
    let Setup { mut redis, slack, gateway } = Setup::open(&short).await;
    let request = gateway.open("deploy").await;
    slack.shown(&request.id).await;
    redis.kill();
    let setup = Setup { redis, slack, gateway };
    setup.recorded(&Click::approve("U0ALICE", &request.id)).await;
    let Setup { mut redis, slack, gateway } = setup;
    let expires =
        u64::try_from(countersign_tests::millis(&request.body["expiresAt"]) / 1000).expect("positive");
    while countersign_tests::unix_seconds() <= expires {
        tokio::task::yield_now().await;
    }
    redis.resume().await;
    let told = within("Alice to be told", async {
        slack
            .until(|slack| {
                let messages = slack.person("U0ALICE").ephemerals();
                messages
                    .into_iter()
                    .map(|message| message.shown())
                    .find(|shown| shown.contains("nothing was changed"))
            })
            .await
    });
    let told = told.await;
    assert!(told.contains("time to decide is over") || told.contains("has ended"), "{told}");
    assert_eq!(gateway.ended(&request.token).await["status"], "expired");
}

/// Two gateways share a Redis. The approval is kept by one of them, and its person takes it back by the other one.
#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_approval_does_not_count_if_it_was_taken_back_by_another_gateway() {
    let Setup { mut redis, slack, gateway } = Setup::open(&deploy(2)).await;
    let request = gateway.open("deploy").await;
    slack.shown(&request.id).await;
    redis.kill();
    let setup = Setup { redis, slack, gateway };
    setup.recorded(&Click::approve("U0ALICE", &request.id)).await;
    let Setup { mut redis, slack, gateway } = setup;
    let home = gateway.kill();
    redis.resume().await;

    let other = slack.gateway(Home::new(&deploy(2)).with_redis(&redis)).await;
    let withdraw = Click::withdraw("U0ALICE", &request.id);
    assert_eq!(other.click_refused(&withdraw).await, "nothing_to_withdraw");
    other.click_ok(&Click::approve("U0BOB", &request.id)).await;

    let gateway = slack.gateway(home).await;
    let told = slack.until(|slack| {
        let messages = slack.person("U0ALICE").ephemerals();
        messages.into_iter().map(|message| message.shown()).find(|shown| shown.contains("is not applied"))
    });
    within("Alice to be told", told).await;
    assert!(presses(gateway.home()).is_empty());
    let stands = gateway.status(&request.id).await;
    assert_eq!((&stands["status"], &stands["approvers"]), (&json!("ready_for_approval"), &json!(["U0BOB"])));
    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    assert_eq!(gateway.ended(&request.token).await["status"], "approved");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_press_that_was_changed_on_disk_is_none() {
    let Setup { mut redis, slack, gateway } = Setup::open(&deploy(1)).await;
    let request = gateway.open("deploy").await;
    redis.kill();
    let setup = Setup { redis, slack, gateway };
    setup.recorded(&Click::approve("U0MALLORY", &request.id)).await;
    let Setup { mut redis, slack, gateway } = setup;
    let home = gateway.kill();
    let [press] = presses(&home).try_into().expect("one press");
    let forged = fs::read_to_string(&press).expect("text").replace("U0MALLORY", "U0ALICE");
    fs::write(&press, forged).expect("the spool can be written to");
    redis.resume().await;
    let gateway = slack.gateway(home).await;
    gateway.logged("a file in the spool is set aside", 1).await;
    assert_eq!(gateway.look(&request.token).await["status"], "ready_for_approval");
    assert!(presses(gateway.home()).iter().all(|file| file.extension().is_some_and(|it| it == "damaged")));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_spool_a_person_is_told_to_press_again() {
    let mut redis = Redis::start().await;
    let slack = Slack::start().await;
    let home = Home::new(&deploy(1)).with_redis(&redis).without("COUNTERSIGN_SPOOL_DIR");
    let gateway = slack.gateway(home).await;
    let request = gateway.open("deploy").await;
    redis.kill();
    // A write that was on its way as the Redis went may be stored, so it is tried again for longer than Slack waits.
    let noticed = async {
        while gateway.send(&Call::get("/readyz")).await.json()["store"] != "unavailable" {
            tokio::task::yield_now().await;
        }
    };
    within("the outage to be noticed", noticed).await;
    let (mut connection, press) = (gateway.connect().await, Click::approve("U0ALICE", &request.id));
    let answer =
        within("the answer to a press", connection.click(&press)).await.expect("it is answered").json();
    assert_eq!(answer["error"], "store_unavailable", "{answer}");
    // The caller's side says so, too, and the process stays.
    let look = Call::post("/api/guard/wait", &json!({"token": request.token}));
    assert_eq!(gateway.send(&look).await.status(), 503);
    redis.resume().await;
    let decided = async {
        loop {
            let press = Click::approve("U0ALICE", &request.id).signed().call();
            let reply = gateway.send(&press).await;
            if reply.status() == 200 && reply.json()["ok"] == true {
                return;
            }
        }
    };
    within("the press to count", decided).await;
    assert_eq!(gateway.ended(&request.token).await["status"], "approved");
}
