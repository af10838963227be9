//! Webhooks: what becomes of requests is told to receivers, signed, in order, and again until they have taken it.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use countersign_tests::{
    Answering, ApiKey, Ask, Authority, Call, Click, Delivered, Gateway, Home, Receipt, Receiver, project,
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

const ACTIONS: &str = "
  deploy:
    description: Deploy to production
    timeout: 10m
    redact: { hide: [token] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB] }
";

/// 32 bytes in base64.
const KEY: &str = "Y291bnRlcnNpZ24gd2ViaG9vayBzZWNyZXQgMzIgYnl0ZXM=";

struct Setup {
    key: ApiKey,
}

impl Setup {
    fn new() -> Setup {
        Setup { key: ApiKey::new("portal") }
    }

    fn file(&self, webhooks: &str) -> String {
        format!(
            "version: 1\ncallers:\n  portal:\n    keys:\n      {}\n    requester: asserted\n    actions: [deploy]\n{}",
            self.key.line,
            if webhooks.is_empty() { String::new() } else { format!("webhooks:\n{webhooks}") }
        )
    }

    fn home(&self, webhooks: &str) -> Home {
        let home = Home::new(ACTIONS).administered();
        home.write("lake.secret", format!("whsec_{KEY}\n").as_bytes());
        home.with_access(&self.file(webhooks))
    }

    /// Puts other webhooks in force.
    async fn reload(&self, gateway: &Gateway, webhooks: &str, times: usize) {
        gateway.home().write("access.new", self.file(webhooks).as_bytes());
        fs::rename(gateway.home().path("access.new"), gateway.home().path("access.yaml"))
            .expect("one folder");
        gateway.hang_up();
        gateway.logged("webhooks in force", times + 1).await;
    }

    async fn ask(&self, gateway: &Gateway) -> Receipt {
        let ask = Ask::new("deploy").params(json!({"ref": "v1-shown", "token": "hunter2"}));
        Receipt::read(gateway.send(&self.with(ask.call())).await).expect("it is made")
    }

    fn with(&self, call: Call) -> Call {
        call.header("authorization", &format!("Bearer {}", self.key.secret))
    }
}

/// A webhook `lake` at this receiver.
fn lake(receiver: &Receiver, more: &str) -> String {
    let url = receiver.url();
    format!("  lake: {{ url: \"{url}\", secret_file: lake.secret, allow_private: true{more} }}\n")
}

fn events(messages: &[Delivered], request: &str) -> Vec<String> {
    let of = messages.iter().filter(|it| it.request() == request && it.status.is_some_and(|it| it < 300));
    of.map(Delivered::event).collect()
}

fn is_signed(message: &Delivered) -> bool {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::STANDARD;
    let mut mac = Hmac::<Sha256>::new_from_slice(&engine.decode(KEY).expect("base64")).expect("any length");
    let header = |name: &str| message.headers.get(name).cloned().unwrap_or_default();
    mac.update(format!("{}.{}.{}", message.id(), header("webhook-timestamp"), message.body).as_bytes());
    let expected = format!("v1,{}", engine.encode(mac.finalize().into_bytes()));
    header("webhook-signature") == expected && header("content-type") == "application/json"
}

/// Has the library for JavaScript verify them, if `npm ci` was run in `tests/webhook-receiver`.
async fn library_verifies(messages: &[Delivered]) {
    let folder = project("tests/webhook-receiver");
    if !folder.join("node_modules").is_dir() {
        println!("skipped: `npm ci` was not run in tests/webhook-receiver");
        return;
    }
    let messages: Vec<Value> =
        messages.iter().map(|it| json!({"headers": it.headers, "body": it.body})).collect();
    let run = move || {
        let mut node = Command::new("node");
        node.arg("verify.mjs").current_dir(folder).env("SECRET", format!("whsec_{KEY}"));
        node.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut node = node.spawn().expect("node can be run");
        let mut input = node.stdin.take().expect("it is piped");
        input.write_all(Value::from(messages).to_string().as_bytes()).expect("it reads");
        drop(input);
        node.wait_with_output().expect("it ends")
    };
    let ran = tokio::task::spawn_blocking(run).await.expect("it does not panic");
    assert!(ran.status.success(), "{ran:?}");
}

fn webhooks(gateway: &Gateway, words: &[&str]) -> Output {
    let url = format!("http://{}", gateway.address());
    let words = [&["webhooks"], words, &["--url", &url]].concat();
    gateway.home().run(&words)
}

#[tokio::test]
async fn a_receiver_hears_of_everything_signed_and_in_order() {
    let (setup, receiver) = (Setup::new(), Receiver::start().await);
    let gateway = setup.home(&lake(&receiver, "")).start().await;
    let request = setup.ask(&gateway).await;
    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    let params = json!({"ref": "v1-shown", "token": "hunter2"});
    let consume = Call::post("/api/guard/consume", &json!({"token": request.token, "params": params}));
    let consumed = gateway.send(&setup.with(consume.header("idempotency-key", "run-1"))).await;
    assert_eq!(consumed.status(), 200, "{}", consumed.text());
    let outcome = json!({"token": request.token, "status": "succeeded"});
    let reported = gateway.send(&setup.with(Call::post("/api/guard/outcome", &outcome))).await;
    assert_eq!(reported.status(), 200, "{}", reported.text());

    let messages = receiver.received(4).await;
    assert_eq!(events(&messages, &request.id), ["created", "decided", "consumed", "outcome"]);
    let ids: Vec<String> = messages.iter().map(|message| message.id().to_owned()).collect();
    for (place, id) in ids.iter().enumerate() {
        let rest = id.strip_prefix(&format!("{}-{place}-", request.id)).expect("the request and the place");
        let millis = rest.strip_suffix("-webhook-lake").expect("the target");
        assert!(millis.parse::<u64>().is_ok(), "{id}");
    }
    assert!(messages.iter().all(is_signed), "{messages:?}");
    library_verifies(&messages).await;
    let last = messages.last().expect("four came").json();
    assert_eq!(last["data"]["decidedBy"], "U0ALICE");
    assert_eq!(
        (&last["data"]["outcome"], &last["data"]["status"]),
        (&json!("succeeded"), &json!("approved"))
    );
    let times = ["createdAt", "expiresAt", "decidedAt", "consumedAt", "outcomeAt"];
    for message in &messages {
        let body = message.json();
        let times = times.iter().filter_map(|field| body["data"].get(field)).chain([&body["timestamp"]]);
        for time in times {
            let is_text = time.as_str().is_some_and(|text| text.len() == 24 && text.ends_with('Z'));
            assert!(is_text, "{time} is no time in RFC 3339: {body}");
        }
        for secret in ["v1-shown", "hunter2", request.token.as_str(), KEY] {
            assert!(!message.body.contains(secret), "{secret} in {}", message.body);
        }
    }
    let output = gateway.output();
    assert!(!output.contains(KEY) && !output.contains("/hook"), "a secret is in the log");
    let told = [("target", "webhook:lake"), ("outcome", "told")];
    assert_eq!(gateway.metrics().await.count("dispatch_attempts_total", &told), 4);
}

#[tokio::test]
async fn a_receiver_hears_of_what_it_asked_for() {
    let (setup, receiver) = (Setup::new(), Receiver::start().await);
    let more = ", events: [decided], actions: [\"dep*\"], parameters: shown";
    let other = lake(&receiver, ", actions: [other]").replace("lake:", "none:");
    let gateway = setup.home(&format!("{}{other}", lake(&receiver, more))).start().await;
    let request = setup.ask(&gateway).await;
    gateway.click_ok(&Click::deny_because("U0BOB", &request.id, "not today")).await;
    let messages = receiver.received(1).await;
    assert_eq!(events(&messages, &request.id), ["decided"]);
    let data = messages[0].json()["data"].clone();
    assert_eq!(data["params"], json!({"ref": "v1-shown", "token": "[redacted]"}));
    assert_eq!((&data["redacted"], &data["reason"]), (&json!(["token"]), &json!("not today")));
    // Whatever waits for a webhook is known by now: the state of the request was written with it.
    let listed = webhooks(&gateway, &["list", "--format", "json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap_or_else(|_| panic!("{listed:?}"));
    let targets: Vec<&str> =
        listed["targets"].as_array().expect("a list").iter().filter_map(|it| it["target"].as_str()).collect();
    assert_eq!(targets, ["webhook:lake", "webhook:none"]);
    assert_eq!(receiver.messages().len(), 1);
}

#[tokio::test]
async fn a_gateway_that_is_killed_between_decision_and_report_reports_once() {
    let (setup, receiver) = (Setup::new(), Receiver::start().await);
    let gateway = setup.home(&lake(&receiver, ", events: [decided]")).start().await;
    let request = setup.ask(&gateway).await;
    // Of a shared store the claim of who was killed has to end first; there nothing was claimed.
    let shared = gateway.home().redis().is_some();
    receiver.answer(if shared { Answering::Down } else { Answering::Silence });
    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    receiver.called(1).await;
    if shared {
        gateway.logged("a target was not told", 1).await;
    } else {
        receiver.received(1).await;
    }
    let home = gateway.kill();
    let cut_off = receiver.messages();
    receiver.answer_with(200);
    let gateway = home.start().await;
    let messages = receiver.received(cut_off.len() + 1).await;
    let last = messages.last().expect("it came");
    assert_eq!((last.event().as_str(), last.request()), ("decided", request.id.clone()));
    assert!(messages.iter().all(|message| message.id() == last.id() && message.body == last.body));
    // It is not told again once it was taken: neither now, nor after another start.
    let told = [("target", "webhook:lake"), ("outcome", "told")];
    gateway.metrics_until("dispatch_attempts_total", &told, 1).await;
    let gateway = gateway.kill().start().await;
    let after = setup.ask(&gateway).await;
    gateway.click_ok(&Click::approve("U0ALICE", &after.id)).await;
    let messages = receiver.received(messages.len() + 1).await;
    assert_eq!(events(&messages, &request.id), ["decided"]);
    assert_eq!(events(&messages, &after.id), ["decided"]);
}

#[tokio::test]
async fn a_receiver_that_is_down_for_an_hour_gets_everything_in_order() {
    let (setup, receiver) = (Setup::new(), Receiver::start().await);
    let gateway = setup.home(&lake(&receiver, "")).with_settable_clock().start().await;
    if gateway.home().redis().is_some() {
        // A shared store goes by its own clock, which no test sets.
        return;
    }
    receiver.answer(Answering::Down);
    let mut requests = Vec::new();
    for number in 0..6 {
        let request = setup.ask(&gateway).await;
        if number % 2 == 0 {
            gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
        } else {
            gateway.click_ok(&Click::deny("U0BOB", &request.id)).await;
        }
        requests.push(request.id);
    }
    receiver.called(6).await;
    gateway.logged("a target was not told", 6).await;
    let home = gateway.kill();
    home.set_clock(3_600);
    receiver.answer_with(200);
    let gateway = home.start().await;
    let messages = receiver.received(12).await;
    for request in &requests {
        assert_eq!(events(&messages, request), ["created", "decided"]);
    }
    assert!(messages.iter().all(is_signed));
    gateway.metrics_until("dispatch_attempts_total", &[("outcome", "told")], 12).await;
    assert_eq!(receiver.messages().len(), 12);
}

#[tokio::test]
async fn neither_a_redirect_nor_a_private_address_is_followed() {
    let setup = Setup::new();
    let (redirecting, elsewhere) = (Receiver::start().await, Receiver::start().await);
    redirecting.answer(Answering::Status(307, format!("location: {}\r\n", elsewhere.url())));
    // A name leads to an address of this machine, and it does not say that it may.
    let port = elsewhere.address().port();
    let private =
        format!("  inner: {{ url: \"https://localhost:{port}/hook\", secret_file: lake.secret }}\n");
    let gateway = setup.home(&format!("{}{private}", lake(&redirecting, ""))).start().await;
    setup.ask(&gateway).await;
    for (target, why) in [
        ("lake", "answers with 307: redirects are not followed"),
        ("inner", "leads to private addresses alone"),
    ] {
        let target = format!("webhook:{target}");
        let failed = [("target", target.as_str()), ("outcome", "failed")];
        gateway.metrics_until("dispatch_attempts_total", &failed, 1).await;
        gateway.logged(why, 1).await;
    }
    assert_eq!(elsewhere.connections(), 0);
    assert_eq!(events(&redirecting.messages(), ""), [""; 0]);

    for (url, why) in [
        ("http://127.0.0.1:9/", "say `allow_private: true`"),
        ("https://10.0.0.1/", "a private address: say `allow_private: true`"),
        ("https://[fd00:ec2::23]/", "never connected to"),
        ("http://lake.acme.example/", "must begin with `https://`"),
        ("https://me:hunter2@lake.acme.example/", "a user or a password"),
    ] {
        let home = setup.home(&format!("  lake: {{ url: \"{url}\", secret_file: lake.secret }}\n"));
        let failed = home.fail_to_start().await;
        assert!(failed.code == Some(2) && failed.stderr.contains(why), "{url}: {failed:?}");
        assert!(!failed.stderr.contains("hunter2"), "{failed:?}");
    }
    let home = setup.home("  lake: { url: \"https://lake.acme.example/\", secret_file: lake.secret }\n");
    home.write("lake.secret", b"hunter2");
    let failed = home.fail_to_start().await;
    assert!(failed.stderr.contains("line 1 of the secret file") && !failed.stderr.contains("hunter2"));
}

#[tokio::test]
async fn a_receiver_is_called_over_tls_and_must_be_the_one_that_is_meant() {
    let (setup, authority) = (Setup::new(), Authority::new());
    let receiver = Receiver::start_tls(authority.server().tls_server()).await;
    let port = receiver.address().port();
    let webhook = |name: &str, host: &str| {
        let url = format!("https://{host}:{port}/hook");
        format!("  {name}: {{ url: \"{url}\", secret_file: lake.secret, allow_private: true }}\n")
    };
    // The certificate has the name, and not the address.
    let home = setup.home(&format!("{}{}", webhook("lake", "localhost"), webhook("other", "127.0.0.1")));
    home.write("authority.pem", authority.pem().as_bytes());
    let gateway = home.with_file("SSL_CERT_FILE", "authority.pem").start().await;
    let request = setup.ask(&gateway).await;
    let messages = receiver.received(1).await;
    assert_eq!(events(&messages, &request.id), ["created"]);
    assert!(is_signed(&messages[0]) && messages[0].id().ends_with("-webhook-lake"));
    let failed = [("target", "webhook:other"), ("outcome", "failed")];
    gateway.metrics_until("dispatch_attempts_total", &failed, 1).await;
    gateway.logged("cannot be reached: invalid peer certificate", 1).await;
    assert_eq!(receiver.messages().len(), 1);
}

#[tokio::test]
async fn a_dead_letter_is_listed_and_sent_again_by_a_command() {
    let (setup, receiver) = (Setup::new(), Receiver::start().await);
    let gateway = setup.home(&lake(&receiver, "")).start().await;
    receiver.answer_with(410);
    let request = setup.ask(&gateway).await;
    gateway.metrics_until("dispatch_dead_letters", &[("target", "webhook:lake")], 1).await;
    // What happens later waits behind it, and another request is not even tried.
    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    setup.ask(&gateway).await;
    gateway.metrics_until("dispatch_dead_letters", &[("target", "webhook:lake")], 2).await;
    assert_eq!(receiver.messages().len(), 1);

    let [sent] = receiver.messages().try_into().expect("one message");
    let id = sent.id().to_owned();
    let listed = webhooks(&gateway, &["list"]);
    let said = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.status.success() && said.contains(&id) && said.contains("410"), "{listed:?}");

    receiver.answer_with(200);
    setup.reload(&gateway, &format!("  # It is back.\n{}", lake(&receiver, "")), 1).await;
    let unknown = webhooks(&gateway, &["resend", "req_00000000000000000000000000-0-webhook-lake"]);
    assert_eq!(unknown.status.code(), Some(6), "{unknown:?}");
    let resent = webhooks(&gateway, &["resend", &id]);
    assert!(resent.status.success(), "{resent:?}");
    let messages = receiver.received(3).await;
    assert_eq!(events(&messages, &request.id), ["created", "decided"]);
    let resent = webhooks(&gateway, &["resend", "--target", "webhook:lake"]);
    assert!(resent.status.success(), "{resent:?}");
    receiver.received(4).await;
    let audit = gateway.seen("audit?event=webhook_resent").await;
    let entries = audit["entries"].as_array().expect("a list").iter().map(|it| &it["entry"]);
    let resent: Vec<_> = entries.filter(|entry| entry["event"] == "webhook_resent").collect();
    assert_eq!(resent.len(), 2, "{audit}");
    assert!(
        resent.iter().any(|it| it["deadLetter"] == id.as_str() && it["actor"] == "admin-token"),
        "{audit}"
    );
    let listed = webhooks(&gateway, &["list", "--format", "json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap_or_else(|_| panic!("{listed:?}"));
    assert_eq!(listed["deadLetters"], json!([]));
}

#[tokio::test]
async fn what_a_removed_webhook_was_not_told_is_dropped_loudly() {
    let (setup, receiver) = (Setup::new(), Receiver::start().await);
    receiver.answer(Answering::Down);
    let other = lake(&receiver, "").replace("lake:", "stays:");
    let gateway = setup.home(&format!("{}{other}", lake(&receiver, ""))).start().await;
    setup.ask(&gateway).await;
    gateway.logged("a target was not told", 2).await;
    setup.reload(&gateway, &other, 1).await;
    gateway.metrics_until("dispatches_dropped_total", &[("target", "webhook:lake")], 1).await;
    gateway.logged("there is no such target any more", 1).await;
    assert_eq!(gateway.metrics().await.count("dispatch_depth", &[("target", "webhook:stays")]), 1);
    // At a start the same.
    let home = gateway.kill();
    home.write("access.yaml", setup.file("").as_bytes());
    let gateway = home.start().await;
    gateway.metrics_until("dispatches_dropped_total", &[("target", "webhook:stays")], 1).await;
    assert_eq!(gateway.metrics().await.count("dispatch_depth", &[("target", "webhook:stays")]), 0);
}
