//! What people decide.

use std::os::unix::fs::PermissionsExt as _;

use countersign_tests::{Call, Click, Home, Slack};
use serde_json::{Value, json};

use super::{ACTIONS, Asker, PASSWORD, RUN, keeps_secrets, not_run};

/// From the message in Slack to the report of what came of it.
#[tokio::test]
async fn what_was_approved_is_run_and_reported() {
    let slack = Slack::start().await;
    let gateway = slack.gateway(Home::new(ACTIONS)).await;
    let asker = Asker::of(&gateway);
    let script = "cat > stdin; printf '%s\\n' \"$@\" > arguments; env > variables; echo done";
    let more = [
        "--params-stdin",
        "--params-out",
        "params.json",
        "--receipt-out",
        "receipt",
        "--",
        "sh",
        "-c",
        script,
        "sh",
        "--ref={ref}",
        "{{ref}}",
    ];
    let asking = asker.ask_with(&[("COUNTERSIGN_PARAM_OLD", "stale")], "deploy", &more);
    let id = asking.request().await;
    assert!(asking.said("people see it in").await.contains("C0PRIVATE"));
    assert!(asking.said("can approve").await.contains("U0ALICE, U0BOB"));
    let message = slack.shown(&id).await;
    slack.person("U0ALICE").click(&message, "approve").await;
    let ended = asking.ended().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "done\n"), "{ended:?}");
    assert!(ended.stderr.contains("approved by U0ALICE"), "{ended:?}");
    keeps_secrets(&ended);

    let params = json!({"password": PASSWORD, "ref": "v1.2.3", "replicas": 2});
    let file = |name: &str| asker.file(name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(serde_json::from_str::<Value>(&file("stdin")).expect("JSON"), params);
    assert_eq!(serde_json::from_str::<Value>(&file("params.json")).expect("JSON"), params);
    let mode = asker.path().join("params.json").metadata().expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(file("arguments"), "--ref=v1.2.3\n{ref}\n");
    let variables = file("variables");
    for line in [
        "COUNTERSIGN_PARAM_REF=v1.2.3",
        "COUNTERSIGN_PARAM_REPLICAS=2",
        &format!("COUNTERSIGN_REQUEST_ID={id}"),
        &format!("COUNTERSIGN_RECEIPT={}", file("receipt")),
    ] {
        assert!(variables.lines().any(|it| it == line), "{line}: {variables}");
    }
    assert!(!variables.contains("COUNTERSIGN_PARAM_OLD"), "{variables}");
    slack.shown_when(&id, "to say what came of it", |message| message.shown().contains("succeeded")).await;
    assert_eq!(gateway.status(&id).await["use"], "succeeded");
}

#[tokio::test]
async fn what_fails_is_reported() {
    let gateway = Home::new(ACTIONS).start().await;
    let asker = Asker::of(&gateway);
    for (words, code, detail) in [
        (["sh", "-c", "exit 3"], 1, "exit code 3"),
        (["sh", "-c", "kill -9 $$"], 1, "ended by signal 9"),
        (["sh", "-c", "exit 0"], 0, ""),
    ] {
        let asking = asker.ask("deploy", &[&["--"], &words[..]].concat());
        let id = asking.request().await;
        gateway.click_ok(&Click::approve("U0BOB", &id)).await;
        let ended = asking.ended().await;
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(ended.stderr.contains(detail), "{ended:?}");
        let expected = if code == 0 { "succeeded" } else { "failed" };
        assert_eq!(gateway.status(&id).await["use"], expected);
    }
}

#[tokio::test]
async fn what_is_not_approved_is_not_run() {
    let gateway = Home::new(ACTIONS).start().await;
    let asker = Asker::of(&gateway);
    let asking = asker.ask("deploy", &RUN);
    let id = asking.request().await;
    gateway.click_ok(&Click::deny_because("U0ALICE", &id, "not on a Friday")).await;
    not_run(&asker, &asking.ended().await, 3, "denied: not on a Friday");

    not_run(&asker, &asker.ask("hurry", &RUN).ended().await, 4, "expired: nobody decided in time");

    let asking = asker.ask("deploy", &[&["--timeout", "0s"], &RUN[..]].concat());
    let id = asking.request().await;
    not_run(&asker, &asking.ended().await, 4, "nobody decided within 0s");
    assert_eq!(gateway.status(&id).await["status"], "cancelled");

    // The caller has the token in another process, and takes it back there.
    let asking = asker.ask("deploy", &[&["--idempotency-key", "run-4711"], &RUN[..]].concat());
    asking.request().await;
    let again = asker.ask("deploy", &["--idempotency-key", "run-4711", "--detach"]).ended().await;
    let token = again.stdout.lines().find_map(|line| line.strip_prefix("token   ")).expect("a token");
    gateway.cancel(token, Some("another way was found")).await.expect("it is open");
    not_run(&asker, &asking.ended().await, 5, "cancelled: another way was found");

    let refused = asker.ask("launch", &RUN).ended().await;
    not_run(&asker, &refused, 6, "refused: policy_denied");
    assert!(refused.stderr.contains("no policy admits the action `launch`"), "{refused:?}");
}

/// As in two jobs of one pipeline.
#[tokio::test]
async fn what_differs_between_jobs_is_not_asked() {
    let gateway = Home::new(ACTIONS).start().await;
    let asker = Asker::of(&gateway);
    let asked = async |job: &str, url: &str| {
        let variables = [
            ("GITLAB_CI", "true"),
            ("CI_PROJECT_PATH", "acme/shop"),
            ("CI_COMMIT_BRANCH", "main"),
            ("CI_PIPELINE_ID", "9"),
            ("CI_PIPELINE_URL", "https://gitlab.example/acme/shop/-/pipelines/9"),
            ("CI_JOB_ID", job),
            ("CI_JOB_URL", url),
        ];
        let more = ["--idempotency-key", "pipeline-9", "--detach"];
        let ended = asker.ask_with(&variables, "deploy", &more).ended().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.stdout
    };
    let first = asked("41", "https://gitlab.example/acme/shop/-/jobs/41").await;
    assert_eq!(asked("42", "https://gitlab.example/acme/shop/-/jobs/42").await, first);
}

/// What approvers change is what is run: in variables, in arguments, and in what is consumed.
#[tokio::test]
async fn edited_parameters_are_the_ones_that_are_run() {
    let gateway = Home::new(ACTIONS).start().await;
    let asker = Asker::of(&gateway);
    let asking = asker.ask("scale", &[&RUN[..], &["{replicas}"]].concat());
    let id = asking.request().await;
    gateway.click_ok(&Click::edit("U0ALICE", &id, &[("replicas", "7"), ("ref", "v2")])).await;
    let ended = asking.ended().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(asker.file("ran").as_deref(), Some("v2 7\n"));
    assert_eq!(gateway.status(&id).await["use"], "succeeded");
}

/// The same job again gets the same approval, and does not run a second time.
#[tokio::test]
async fn an_approval_is_used_once() {
    let gateway = Home::new(ACTIONS).start().await;
    let asker = Asker::of(&gateway);
    let words = [&["--idempotency-key", "run-4711"], &RUN[..]].concat();
    let asking = asker.ask("deploy", &words);
    let id = asking.request().await;
    gateway.click_ok(&Click::approve("U0ALICE", &id)).await;
    assert_eq!(asking.ended().await.code, Some(0));
    assert_eq!(asker.file("ran").as_deref(), Some("v1.2.3 2\n"));
    let again = asker.ask("deploy", &words);
    assert_eq!(again.request().await, id);
    let ended = again.ended().await;
    assert!(ended.stderr.contains("made before with the same idempotency key"), "{ended:?}");
    assert!(ended.code == Some(8) && ended.stderr.contains("already_consumed"), "{ended:?}");
    assert_eq!(asker.file("ran").as_deref(), Some("v1.2.3 2\n"), "once");

    // With other parameters it is another request.
    let other = asker.ask("deploy", &[&["--param", "more=1"], &words[..]].concat()).ended().await;
    assert!(other.code == Some(6) && other.stderr.contains("idempotency_key_reused"), "{other:?}");
}

/// Somebody with the token, and the right to use it, is faster.
#[tokio::test]
async fn what_somebody_else_has_used_is_not_run() {
    let gateway = Home::new(ACTIONS).start().await;
    let asker = Asker::of(&gateway);
    let key = ["--idempotency-key", "run-4711"];
    let detached = asker.ask("deploy", &[&key[..], &["--detach"]].concat()).ended().await;
    assert_eq!(detached.code, Some(0), "{detached:?}");
    let line = |name: &str| {
        let found = detached.stdout.lines().find_map(|line| line.strip_prefix(name));
        found.unwrap_or_else(|| panic!("no {name}: {detached:?}")).trim().to_owned()
    };
    let (id, token) = (line("request "), line("token "));
    gateway.click_ok(&Click::approve("U0ALICE", &id)).await;
    let params = json!({"password": PASSWORD, "ref": "v1.2.3", "replicas": 2});
    let used = Call::post("/api/guard/consume", &json!({"token": token, "params": params}));
    // Whoever has the token can watch.
    std::fs::write(asker.path().join("token"), &token).expect("written");
    let watched = async |code: i32, said: &str| {
        let watched = asker.run(&[], &["wait", "@token"]).ended().await;
        assert_eq!(watched.stdout, "approved  approvers: U0ALICE\n", "{watched:?}");
        assert!(watched.code == Some(code) && watched.stderr.contains(said), "{watched:?}");
    };
    watched(0, "").await;
    assert_eq!(gateway.send(&used).await.status(), 200);
    watched(8, "the approval was used before").await;
    let ended = asker.ask("deploy", &[&key[..], &RUN[..]].concat()).ended().await;
    not_run(&asker, &ended, 8, "already_consumed");

    let failed = json!({"token": token, "status": "failed"});
    assert_eq!(gateway.send(&Call::post("/api/guard/outcome", &failed)).await.status(), 200);
    watched(8, "the approval was used before, and what was run failed").await;
}

/// `countersign hash` agrees with the gateway.
#[tokio::test]
async fn the_payload_hash_can_be_computed() {
    let gateway = Home::new(ACTIONS).start().await;
    let asker = Asker::of(&gateway);
    let made = gateway.open("deploy").await;
    let salt = made.body["payloadSalt"].as_str().expect("a salt");
    std::fs::write(asker.path().join("salt"), format!("{salt}\n")).expect("written");
    let words = ["hash", "--param", "ref=v1.2.3", "--param-json", "replicas=2"];
    let hashed = asker.run(&[], &[&words[..], &["--salt-file", "salt"]].concat()).ended().await;
    let expected = gateway.look(&made.token).await["payloadHash"].as_str().map(|hash| format!("{hash}\n"));
    assert_eq!((hashed.code, Some(hashed.stdout)), (Some(0), expected));
    assert_eq!(asker.run(&[], &words).ended().await.code, Some(2), "neither a salt nor `--unsalted`");
}
