//! Callers authenticate: with an access file nobody asks without a key, and each caller sees its own requests alone.

use countersign_tests::{ApiKey as Key, Ask, Call, Click, Gateway, Home, Problem, Receipt, Redis, holds};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::ledger::Ledger;

const ACTIONS: &str = "
  deploy:
    description: Deploy to production
    timeout: 10m
    rerequest: { cooldown: 1s, limit: 3, window: 24h }
    policies:
      - use: quorum
        with: { approvers: [dana, U0BOB] }
";

fn key(caller: &str) -> Key {
    Key::new(caller)
}

/// An access file with two callers, of which `portal` says who its requesters are.
fn access(portal: &[&Key], nightly: &Key) -> String {
    let lines: String = portal.iter().map(|key| format!("      {}\n", key.line)).collect();
    format!(
        "version: 1\ncallers:\n  portal:\n    keys:\n{lines}    requester: asserted\n    actions: [\"de*\"]\n    \
         limits: {{ open: 2 }}\n  nightly:\n    keys:\n      {}\n    requester: machine\n    owners: [dana]\n    \
         actions: [rotate]\npeople:\n  dana: {{ slack: [U0DANA, W0DANA], github: dana-d }}\n",
        nightly.line
    )
}

/// A home with an access file.
fn home(file: &str) -> Home {
    Home::new(ACTIONS).with_access(file)
}

async fn create(gateway: &Gateway, key: &Key, ask: &Ask) -> Result<Receipt, Problem> {
    Receipt::read(gateway.send(&with(ask.call(), key)).await)
}

fn with(call: Call, key: &Key) -> Call {
    call.header("authorization", &format!("Bearer {}", key.secret))
}

fn asked_by(source: &str, id: &str) -> Ask {
    let mut body = Ask::new("deploy").body();
    body["meta"]["requester"] = json!({"id": id, "source": source});
    Ask::of(body)
}

async fn refused(gateway: &Gateway, call: &Call) -> Problem {
    Problem::read(&gateway.send(call).await)
}

#[tokio::test]
async fn a_key_is_needed_and_gives_what_the_file_says() {
    let (portal, nightly) = (key("portal"), key("nightly"));
    let gateway = home(&access(&[&portal], &nightly)).start().await;
    let ask = Ask::new("deploy");

    assert_eq!(refused(&gateway, &ask.call()).await.is(), (401, "unauthenticated"));
    let wrong = key("portal");
    assert_eq!(refused(&gateway, &with(ask.call(), &wrong)).await.is(), (401, "unauthenticated"));
    let problem = create(&gateway, &nightly, &ask).await.expect_err("it may rotate only");
    assert_eq!(problem.is(), (403, "caller_not_allowed"));

    let first = create(&gateway, &portal, &ask).await.expect("it is allowed");
    create(&gateway, &portal, &ask).await.expect("two may be open");
    let third = create(&gateway, &portal, &ask).await.expect_err("two are open");
    assert_eq!(third.is(), (429, "too_many_open"));
    gateway.click_ok(&Click::deny("U0BOB", &first.id)).await;
    create(&gateway, &portal, &ask).await.expect("one of them has ended");

    let failures = [("type", "unauthenticated")];
    assert_eq!(gateway.metrics().await.count("security_events_total", &failures), 2);
    let output = gateway.output();
    for key in [&portal, &nightly, &wrong] {
        assert!(!output.contains(&key.secret), "a key is in the log");
    }
    for (path, bytes) in gateway.kill().files() {
        for key in [&portal, &nightly, &wrong] {
            assert!(!holds(&bytes, key.secret.as_bytes()), "a key is in {}", path.display());
        }
    }
}

#[tokio::test]
async fn a_request_is_its_callers_and_its_tokens_alone() {
    let (portal, nightly) = (key("portal"), key("nightly"));
    let gateway = home(&access(&[&portal], &nightly)).start().await;
    let request = create(&gateway, &portal, &Ask::new("deploy")).await.expect("it is allowed");
    let again = |token: Option<&str>| {
        let actor = json!({"id": "U0REQ", "source": "slack"});
        let mut body = json!({"originalRequestId": request.id, "actor": actor});
        if let Some(token) = token {
            body["token"] = token.into();
        }
        Call::post("/api/guard/rerequest", &body)
    };
    for what in ["status", "lineage"] {
        let call = Call::get(&format!("/api/guard/{what}?requestId={}", request.id));
        assert_eq!(refused(&gateway, &call).await.is(), (401, "unauthenticated"), "{what}");
        assert_eq!(refused(&gateway, &with(call.clone(), &nightly)).await.is(), (404, "not_found"), "{what}");
        assert_eq!(gateway.send(&with(call.clone(), &portal)).await.status(), 200, "{what}");
        let by_token = call.header("authorization", &format!("Bearer {}", request.token));
        assert_eq!(gateway.send(&by_token).await.status(), 200, "{what}");
    }
    gateway.click_ok(&Click::deny("U0BOB", &request.id)).await;
    assert_eq!(refused(&gateway, &again(None)).await.is(), (401, "unauthenticated"));
    assert_eq!(refused(&gateway, &with(again(None), &nightly)).await.is(), (404, "not_found"));
    // The token of another request opens that one alone.
    let other = create(&gateway, &portal, &Ask::new("deploy")).await.expect("it is allowed");
    assert_eq!(refused(&gateway, &again(Some(&other.token))).await.is(), (404, "not_found"));

    // The same key and body give the same answer.
    let made = async {
        loop {
            let call = again(Some(&request.token)).header("idempotency-key", "once");
            match Receipt::read(gateway.send(&call).await) {
                Ok(receipt) => return (receipt, call),
                Err(problem) => assert_eq!(problem.is(), (429, "cooldown")),
            }
        }
    };
    let (receipt, call) = countersign_tests::within("the cooldown to end", made).await;
    let repeated = Receipt::read(gateway.send(&call).await).expect("it was answered before");
    assert_eq!((repeated.id, repeated.token), (receipt.id, receipt.token));
}

#[tokio::test]
async fn nobody_approves_their_own_request_under_another_name() {
    let (portal, nightly) = (key("portal"), key("nightly"));
    let file = access(&[&portal], &nightly).replace("open: 2", "open: 9");
    let gateway = home(&file).start().await;
    for (source, id) in [("slack", "U0DANA"), ("slack", "W0DANA"), ("github", "dana-d")] {
        let request = create(&gateway, &portal, &asked_by(source, id)).await.expect(id);
        for person in ["U0DANA", "W0DANA"] {
            gateway.click_refused(&Click::approve(person, &request.id)).await;
        }
        gateway.click_ok(&Click::approve("U0BOB", &request.id)).await;
        assert_eq!(gateway.look(&request.token).await["status"], "approved", "{source} {id}");
    }
    for id in ["u0dana", "U0DANA ", " U0DANA", "dana", "U0-DANA"] {
        let problem = create(&gateway, &portal, &asked_by("slack", id)).await.expect_err(id);
        assert_eq!(problem.is(), (400, "invalid_payload"), "{id}");
    }
    // Nobody knows whether a name that no person has is an approver's.
    let problem = create(&gateway, &portal, &asked_by("github", "mallory")).await.expect_err("unknown");
    assert_eq!(problem.is(), (403, "policy_denied"));
    assert!(problem.body.to_string().contains("requester_unknown"), "{}", problem.body);
    // A person approves by any of their names.
    let request = create(&gateway, &portal, &asked_by("slack", "U0REQ")).await.expect("it is admitted");
    gateway.click_ok(&Click::approve("W0DANA", &request.id)).await;
}

#[tokio::test]
async fn the_file_is_read_again_and_a_wrong_one_changes_nothing() {
    let (old, new, nightly) = (key("portal"), key("portal"), key("nightly"));
    let gateway = home(&access(&[&old], &nightly).replace("open: 2", "open: 9")).start().await;
    let ask = Ask::new("deploy");
    let request = create(&gateway, &old, &ask).await.expect("the old key is known");

    // Both keys, then the new one alone: a rotation with overlap.
    let both = access(&[&old, &new], &nightly).replace("open: 2", "open: 9");
    gateway.home().write("access.yaml", both.as_bytes());
    gateway.hang_up();
    gateway.logged("access file reloaded", 1).await;
    create(&gateway, &old, &ask).await.expect("the old key is known still");
    create(&gateway, &new, &ask).await.expect("the new key is known");

    let wrong = both.replace("callers:", "caller:");
    gateway.home().write("access.yaml", wrong.as_bytes());
    gateway.hang_up();
    gateway.logged("the last one stays in force", 1).await;
    create(&gateway, &new, &ask).await.expect("the last good file is in force");

    // Dana has left: she counts no longer, for the open request too.
    let last = access(&[&new], &nightly).replace("slack: [U0DANA, W0DANA]", "slack: [U0ELSE]");
    gateway.home().write("access.yaml", last.as_bytes());
    gateway.hang_up();
    gateway.logged("access file reloaded", 2).await;
    let problem = create(&gateway, &old, &ask).await.expect_err("it was taken away");
    assert_eq!(problem.is(), (401, "unauthenticated"));
    gateway.click_refused(&Click::approve("U0DANA", &request.id)).await;
    gateway.click_ok(&Click::approve("U0ELSE", &request.id)).await;

    let metrics = gateway.metrics().await;
    assert!(metrics.count("access_reloads_total", &[("outcome", "ok")]) >= 2);
    assert!(metrics.count("access_reloads_total", &[("outcome", "failed")]) >= 1);
    let ledger = Ledger::of(&gateway.kill());
    assert!(ledger.count_of("access_reloaded") >= 2);
    assert!(ledger.count_of("access_reload_failed") >= 1);
}

/// A call as it is written, so that it can have any target, and any number of hosts.
async fn raw(gateway: &Gateway, target: &str, hosts: &[&str]) -> String {
    let mut stream = TcpStream::connect(gateway.address()).await.expect("it listens");
    let hosts: String = hosts.iter().map(|host| format!("Host: {host}\r\n")).collect();
    let call = format!("GET {target} HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
    stream.write_all(call.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

/// Puts another access file in its place at once, so that no half of one is read.
fn replace(home: &Home, text: &str) {
    home.write("access.next", text.as_bytes());
    std::fs::rename(home.path("access.next"), home.path("access.yaml")).expect("it is replaced");
}

/// The access file in force, once its history has this many attempts.
async fn attempts(gateway: &Gateway, count: usize) -> Value {
    let noted = async {
        loop {
            let shown = gateway.seen("access").await;
            if shown["attempts"].as_array().is_some_and(|attempts| attempts.len() >= count) {
                return shown;
            }
        }
    };
    countersign_tests::within(&format!("{count} attempts in the history"), noted).await
}

#[tokio::test]
async fn the_history_of_the_file_survives_restarts() {
    let (portal, nightly) = (key("portal"), key("nightly"));
    let first = access(&[&portal], &nightly);
    let gateway = home(&first).administered().start().await;
    let shown = gateway.seen("access").await;
    let counts = ["callers", "issuers", "people"].map(|count| shown[count].as_u64());
    assert_eq!(counts, [Some(2), Some(0), Some(1)], "{shown}");
    let told = |shown: &Value| -> Vec<String> {
        let attempts = shown["attempts"].as_array().expect("a list").iter();
        attempts.map(|it| format!("{} {}", it["source"], it["outcome"]).replace('"', "")).collect()
    };
    assert_eq!(told(&shown), ["start ok"]);

    replace(gateway.home(), &first.replace("callers:", "caller:"));
    let shown = attempts(&gateway, 2).await;
    assert_eq!(told(&shown), ["file failed", "start ok"]);
    let error = &shown["attempts"][0]["errors"][0];
    assert!(error["path"].as_str().is_some_and(|path| path.ends_with("access.yaml:1:1")), "{error}");
    replace(gateway.home(), &first.replace("open: 2", "open: 4"));
    let before = attempts(&gateway, 3).await;
    assert_eq!(told(&before), ["file ok", "file failed", "start ok"]);
    assert_eq!(before["attempts"][0]["previousHash"], shown["hash"]);

    // A start that finds the same file is no attempt.
    let gateway = gateway.kill().start().await;
    let after = gateway.seen("access").await;
    assert_eq!(after, before);

    // Another one is, and the start says so.
    let home = gateway.stop().await;
    replace(&home, &first.replace("open: 2", "open: 3"));
    let gateway = home.start().await;
    let shown = gateway.seen("access").await;
    assert_eq!(told(&shown), ["start ok", "file ok", "file failed", "start ok"]);
    assert_ne!(shown["hash"], before["hash"]);
    assert_eq!(shown["attempts"][0]["previousHash"], before["hash"]);
    assert_eq!(shown["attempts"][0]["at"], shown["since"]);
    assert_eq!(
        shown["attempts"].as_array().map(Vec::len),
        before["attempts"].as_array().map(|it| it.len() + 1)
    );
    for secret in [&portal.secret, &portal.line] {
        assert!(
            !shown.to_string().contains(secret.trim_start_matches("- { sha256: ").trim_end_matches(" }"))
        );
    }

    // Without a file everybody may ask, which is a change as well.
    let gateway = gateway.stop().await.without("COUNTERSIGN_ACCESS").start().await;
    let problem = gateway.admin_call(Call::get("/api/admin/access")).await.expect_err("there is no file");
    assert_eq!(problem.is(), (404, "not_found"));
    let ledger = Ledger::of(&gateway.kill());
    assert_eq!(ledger.count_of("access_reloaded"), 4);
    assert_eq!(ledger.count_of("access_reload_failed"), 1);
}

/// Without its people a file would let somebody approve under one name what they ask for under another.
#[tokio::test]
async fn half_of_a_file_is_held_back_until_it_is_moved_in() {
    let (portal, nightly) = (key("portal"), key("nightly"));
    let file = access(&[&portal], &nightly);
    let half = file.split_at(file.find("people:").expect("people")).0.replace("    owners: [dana]\n", "");
    let gateway = home(&file).administered().start().await;
    gateway.home().write("access.yaml", half.as_bytes());
    let shown = attempts(&gateway, 2).await;
    assert_eq!((&shown["people"], &shown["attempts"][0]["outcome"]), (&json!(1), &json!("held_back")));
    let ready = gateway.send(&Call::get("/readyz")).await.json();
    assert_eq!(ready["degraded"], json!(["access_file_held_back"]));
    replace(gateway.home(), &half);
    let shown = attempts(&gateway, 3).await;
    assert_eq!((&shown["people"], &shown["attempts"][0]["outcome"]), (&json!(0), &json!("ok")));
}

/// A store that hangs may have stored what it did not answer: an attempt is recorded later, and once.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_while_the_store_is_away_is_recorded_once_it_is_back() {
    let redis = Redis::start().await;
    let (portal, nightly) = (key("portal"), key("nightly"));
    let file = access(&[&portal], &nightly);
    let gateway = home(&file).administered().with_redis(&redis).start().await;
    let before = attempts(&gateway, 1).await["attempts"].as_array().expect("a list").len();

    redis.freeze();
    replace(gateway.home(), &file.replace("open: 2", "open: 3"));
    gateway.hang_up();
    gateway.logged("cannot record the reload of the access file", 1).await;
    replace(gateway.home(), &file.replace("callers:", "caller:"));
    gateway.hang_up();
    gateway.logged("cannot record the reload of the access file", 2).await;
    redis.thaw();
    let back = async {
        while gateway.admin_call(Call::get("/api/admin/access")).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    countersign_tests::within("the store to be back", back).await;

    let shown = attempts(&gateway, before + 2).await;
    let outcomes: Vec<_> =
        shown["attempts"].as_array().expect("a list").iter().map(|attempt| &attempt["outcome"]).collect();
    assert_eq!(outcomes[..2], ["failed", "ok"], "{shown}");
    assert_eq!(outcomes.len(), before + 2, "{shown}");
    for (event, outcome) in [("access_reloaded", "ok"), ("access_reload_failed", "failed")] {
        let sent = [("outcome", outcome), ("source", "sighup")];
        assert_eq!(gateway.metrics().await.count("access_reloads_total", &sent), 1, "{outcome}");
        let audited = gateway.seen(&format!("audit?event={event}")).await;
        let entries = audited["entries"].as_array().expect("entries").iter();
        let by_signal = entries.filter(|entry| entry.to_string().contains("sighup")).count();
        assert_eq!(by_signal, 1, "{audited}");
    }
}

#[tokio::test]
async fn without_a_file_only_this_machine_is_answered() {
    let gateway = Home::new(ACTIONS).start().await;
    let ask = Ask::new("deploy").requester("U0REQ");
    for (name, value) in [
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-host", "gate.example"),
        ("forwarded", "for=192.0.2.7"),
        ("via", "1.1 proxy"),
    ] {
        let problem = refused(&gateway, &ask.call().header(name, value)).await;
        assert_eq!(problem.is(), (403, "proxied"), "{name}");
    }
    // The same key of two repositories is two keys.
    let of = |repo: &str| {
        let mut body = ask.body();
        body["meta"]["origin"]["repo"] = Value::from(repo);
        Ask::of(body).idempotency_key("run-1")
    };
    let one = gateway.create(&of("acme/shop")).await.expect("it is admitted");
    let two = gateway.create(&of("acme/web")).await.expect("it is another's key");
    assert_ne!(one.id, two.id);
    assert_eq!(gateway.create(&of("acme/web")).await.expect("it is the same").id, two.id);

    for (target, hosts) in [
        ("http://gate.example/healthz", &["localhost"][..]),
        ("/healthz", &["gate.example"]),
        ("/healthz", &["localhost", "localhost"]),
        ("/healthz", &["localhost", "gate.example"]),
        ("/healthz", &[""]),
    ] {
        let answer = raw(&gateway, target, hosts).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{target} {hosts:?}: {answer}");
        assert!(answer.contains("\"proxied\""), "{target} {hosts:?}: {answer}");
    }
    for target in ["/healthz", "http://localhost/healthz", "http://127.0.0.1:1/healthz"] {
        let answer = raw(&gateway, target, &["localhost"]).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{target}: {answer}");
    }

    let open = Home::new(ACTIONS).with("COUNTERSIGN_LISTEN", "0.0.0.0:0");
    let failure = open.fail_to_start().await;
    assert_eq!(failure.code, Some(2), "{}", failure.stderr);
    assert!(failure.stderr.contains("--access"), "{}", failure.stderr);
    let gateway = open.with("COUNTERSIGN_INSECURE_ANONYMOUS", "true").start().await;
    gateway.logged("anybody", 1).await;
}

#[tokio::test]
async fn whoever_gets_a_name_while_a_request_is_open_stays_one_person() {
    const BOTH: &str = "
  deploy:
    description: Deploy to production
    timeout: 10m
    rerequest: { cooldown: 1s, limit: 3, window: 24h }
    policies:
      - use: quorum
        with: { approvers: [dana, U0DANA, W0DANA, U0BOB], approvals: 2 }
";
    let (portal, nightly) = (key("portal"), key("nightly"));
    let file = access(&[&portal], &nightly);
    let gateway = home(
        &file
            .replace("dana: {", "rita: {")
            .replace("[U0DANA, W0DANA]", "[U0RITA]")
            .replace("owners: [dana]", "owners: [rita]"),
    )
    .start()
    .await;
    gateway.home().set_actions(BOTH);
    gateway.hang_up();
    gateway.logged("another policy set is in force", 1).await;
    let hers = create(&gateway, &portal, &asked_by("slack", "U0DANA")).await.expect("it is admitted");
    let other = create(&gateway, &portal, &asked_by("slack", "U0REQ")).await.expect("it is admitted");
    gateway.click_ok(&Click::approve("U0DANA", &other.id)).await;

    gateway.home().write("access.yaml", file.as_bytes());
    gateway.hang_up();
    gateway.logged("access file reloaded", 1).await;
    for name in ["U0DANA", "W0DANA"] {
        gateway.click_refused(&Click::approve(name, &hers.id)).await;
        let refused = gateway.click_refused(&Click::approve(name, &other.id)).await;
        assert_eq!(refused, "duplicate_approval", "{name}");
    }
    gateway.click_ok(&Click::deny("U0BOB", &hers.id)).await;

    // The token of a request gives its caller no more than the file does.
    let none = file.replace("actions: [\"de*\"]", "actions: [other]");
    gateway.home().write("access.yaml", none.as_bytes());
    gateway.hang_up();
    gateway.logged("access file reloaded", 2).await;
    let problem = gateway.rerequest(&hers, "U0DANA").await.expect_err("it may not ask for it any more");
    assert_eq!(problem.is(), (403, "caller_not_allowed"));
}
