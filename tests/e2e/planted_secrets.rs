//! Secrets are planted everywhere where one can come from, and nothing that the gateway writes has any of them: its log at
//! the most verbose level, its metrics, its audit log, its store, its spool, what it sends to Slack, and what it prints as
//! it crashes.
//!
//! What people may read in Slack and in the audit log, parameters that are shown, names and reasons, is in no log and in no
//! metric.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use countersign_tests::{
    ADMIN_TOKEN, ApiKey, Ask, Call, Click, Collected, Collector, GITHUB_KEY, GITHUB_SECRET, GITLAB_SECRET,
    GITLAB_TOKEN, Gateway, Github, Gitlab, Home, Issuer, Receipt, Receiver, Redis, SIGNING_SECRET,
    SigningKey, Slack, holds, within,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::{Value, json};
use slack_simulator::{Faults, Options};

const ACTIONS: &str = "
  rotate:
    description: Rotate a secret
    timeout: 10m
    redact: { show: [name, note] }
    rerequest: { cooldown: 0s, limit: 5, window: 24h }
    consume: required
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB] }
      - use: override-guard
        with: { keys: [note] }
  login:
    description: Log in somewhere
    timeout: 10m
    redact: { hide: [password] }
    rerequest: { cooldown: 0s, limit: 5, window: 24h }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB] }
";

/// The file with the signing secret of a webhook, and that with the key of the GitHub App: what is planted in them is there.
const WEBHOOK_SECRET: &str = "lake.secret";
const APP_KEY: &str = "app.pem";

const COMMIT: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c";

/// Something that must not be found.
struct Planted {
    what: &'static str,
    /// As it is, and as it may be written.
    forms: Vec<(&'static str, Vec<u8>)>,
}

impl Planted {
    fn new(what: &'static str, text: &str) -> Planted {
        Planted { what, forms: forms(text) }
    }

    /// The form in which it is in `bytes`, if it is.
    fn found_in(&self, bytes: &[u8]) -> Option<&'static str> {
        self.forms.iter().find(|(_, form)| holds(bytes, form)).map(|(name, _)| *name)
    }
}

/// A text as it is, and as programs write it. Markers are letters, digits and `-_`, which JSON and URLs leave as they are.
fn forms(text: &str) -> Vec<(&'static str, Vec<u8>)> {
    let each = |write: &dyn Fn(u8) -> String| text.bytes().map(write).collect::<String>().into_bytes();
    let mut forms = vec![
        ("plain", text.as_bytes().to_vec()),
        ("hexadecimal", hex::encode(text).into_bytes()),
        ("hexadecimal, in capitals", hex::encode_upper(text).into_bytes()),
        ("percent-encoded", each(&|byte| format!("%{byte:02X}"))),
        ("escaped in JSON", each(&|byte| format!("\\u{byte:04x}"))),
        ("a list of bytes", text.bytes().map(|byte| format!("{byte}, ")).collect::<String>().into_bytes()),
        (
            "a list of bytes in JSON",
            text.bytes().map(|byte| format!("{byte},")).collect::<String>().into_bytes(),
        ),
    ];
    for list in forms.iter_mut().filter(|(name, _)| name.starts_with("a list")) {
        // The last one may have a bracket after it.
        list.1.truncate(list.1.iter().rposition(|byte| *byte == b',').unwrap_or_default());
    }
    forms.extend(encoded(text.as_bytes()));
    forms
}

/// Bytes in base64.
fn encoded(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut forms = Vec::new();
    // They look different for each place where they can begin; their first and last digits depend on what is beside them.
    for before in 0..3 {
        let padded = [&b"\0\0"[..before], bytes].concat();
        for (name, engine) in [("base64", &STANDARD_NO_PAD), ("base64 of URLs", &URL_SAFE_NO_PAD)] {
            let digits = engine.encode(&padded);
            let (first, last) = (before.div_ceil(1) * 4 / 3 + usize::from(before > 0), padded.len() * 8 / 6);
            forms.push((name, digits.as_bytes()[first..last].to_vec()));
        }
    }
    forms
}

/// A text that nobody else has written anywhere.
fn marker() -> String {
    let mut bytes = [0; 12];
    SystemRandom::new().fill(&mut bytes).expect("randomness");
    format!("zq{}", hex::encode(bytes))
}

/// What was planted so far.
#[derive(Default)]
struct Garden {
    /// Must be nowhere.
    secrets: Vec<Planted>,
    /// May be where people read, and not where operators do.
    words: Vec<Planted>,
}

impl Garden {
    fn secret(&mut self, what: &'static str) -> String {
        let text = marker();
        self.known(what, &text);
        text
    }

    /// A secret that somebody else has made.
    fn known(&mut self, what: &'static str, text: &str) {
        self.secrets.push(Planted::new(what, text));
    }

    fn word(&mut self, what: &'static str) -> String {
        let text = marker();
        self.words.push(Planted::new(what, &text));
        text
    }

    /// Plants what is bytes, and no text.
    fn raw(&mut self, what: &'static str, bytes: &[u8]) {
        let mut forms = vec![
            ("raw", bytes.to_vec()),
            ("hexadecimal", hex::encode(bytes).into_bytes()),
            ("hexadecimal, in capitals", hex::encode_upper(bytes).into_bytes()),
        ];
        forms.extend(encoded(bytes));
        self.secrets.push(Planted { what, forms });
    }

    /// Plants a wait token: the part of it that is secret.
    fn token(&mut self, receipt: &Receipt) {
        let (_, secret) = receipt.token.split_once('.').expect("`ID.SECRET`");
        self.known("a wait token", secret);
        let salt = receipt.body["payloadSalt"].as_str().expect("a salt");
        self.known("a salt", salt);
        let mut raw = vec![0; salt.len() / 2];
        hex::decode_to_slice(salt, &mut raw).expect("hexadecimal");
        self.secrets.push(Planted { what: "a salt", forms: vec![("raw", raw)] });
    }
}

/// Where something may have been written, and what.
struct Written {
    place: String,
    bytes: Vec<u8>,
}

fn written(place: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Written {
    Written { place: place.into(), bytes: bytes.into() }
}

/// A sentence for each of `planted` that is in one of `places`.
fn found(planted: &[Planted], places: &[Written]) -> String {
    let mut found = String::new();
    for Written { place, bytes } in places {
        for planted in planted {
            if let Some(form) = planted.found_in(bytes) {
                writeln!(found, "{} is in {place} ({form})", planted.what).expect("a String takes it");
            }
        }
    }
    found
}

fn of_files(files: Vec<(PathBuf, Vec<u8>)>) -> impl Iterator<Item = Written> {
    files.into_iter().map(|(path, bytes)| written(path.display().to_string(), bytes))
}

#[test]
fn each_form_is_found() {
    let planted = Planted::new("a secret", "zq00-secret_marker");
    let text = "zq00-secret_marker";
    for (name, expected) in [
        (format!("a {text} b"), "plain"),
        (json!({ "a": text }).to_string(), "plain"),
        (hex::encode(format!("a {text} b")), "hexadecimal"),
        (format!("{:?}", text.as_bytes()), "a list of bytes"),
        (json!(text.as_bytes()).to_string(), "a list of bytes in JSON"),
    ] {
        assert_eq!(planted.found_in(name.as_bytes()), Some(expected), "{name}");
    }
    for before in 0..7 {
        for after in 0..4 {
            let around = format!("{}{text}{}", "é?x~".repeat(before), "y>".repeat(after));
            for encoded in [STANDARD_NO_PAD.encode(&around), URL_SAFE_NO_PAD.encode(&around)] {
                assert!(planted.found_in(encoded.as_bytes()).is_some(), "{around} {encoded}");
            }
        }
    }
    assert_eq!(planted.found_in(b"zq00-secret-marker"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_what_was_planted_is_found_with_sqlite() {
    drive(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_what_was_planted_is_found_with_redis() {
    let mut garden = Garden::default();
    let password = garden.secret("the password of Redis");
    let redis = Redis::start_with(&["--requirepass", &password]).await;
    drive(Some((redis, password, garden))).await;
}

async fn drive(store: Option<(Redis, String, Garden)>) {
    let (mut redis, password, mut garden) = match store {
        Some((redis, password, garden)) => (Some(redis), password, garden),
        None => (None, String::new(), Garden::default()),
    };
    let options = Options {
        rate_factor: f64::INFINITY,
        bot_token: format!("xoxb-{}", garden.secret("the bot token of Slack")),
        app_token: format!("xapp-{}", garden.secret("the token of Socket Mode")),
        keeps_calls: true,
        ..Options::default()
    };
    let slack = Slack::start_with(options).await;
    let server_secret = garden.secret("the secret of the gateway").replace("zq", "5e") + "00000000";
    let server_secret = hex::encode(&server_secret.as_bytes()[..32]);
    garden.known("the secret of the gateway", &server_secret);
    garden.known("the admin token", ADMIN_TOKEN);
    garden.known("the signing secret of Slack", SIGNING_SECRET);
    let (key, signing) = (ApiKey::new("portal"), SigningKey::es256("ec"));
    garden.known("an API key", &key.secret);
    let issuer = Issuer::start(&[&signing]).await;
    let (collector, receiver) = (Collector::start().await, Receiver::start().await);
    let (github, gitlab) = (Github::start().await, Gitlab::start(COMMIT).await);
    let webhook = garden.secret("the signing secret of a webhook");
    for (what, secret) in [
        ("the secret of GitHub's webhooks", GITHUB_SECRET),
        ("the secret of GitLab's status checks", GITLAB_SECRET),
        ("the token for GitLab's API", GITLAB_TOKEN),
    ] {
        garden.known(what, secret);
    }
    // Its last part is as secret as the whole, and too short to be broken into lines.
    garden.raw("the key of the GitHub App", &GITHUB_KEY[GITHUB_KEY.len() - 32..]);
    let access = format!(
        "version: 1\nissuers:\n  acme: {{ issuer: \"{}\", audience: countersign }}\ncallers:\n  portal:\n    keys:\n      \
         {}\n    requester: asserted\n    actions: [\"*\"]\n  pipeline:\n    oidc: {{ issuer: acme, claims: {{ \
         repository_id: \"4711\" }} }}\n    requester: asserted\n    actions: [\"*\"]\n  web:\n    gate: {{ system: \
         github, claims: {{ repository_id: \"4711\", environment: production }}, action: login }}\n  infra:\n    \
         gate: {{ system: gitlab, claims: {{ project_id: \"815\", target_branch: main }}, action: login \
         }}\nwebhooks:\n  lake: {{ url: \"{}\", secret_file: {WEBHOOK_SECRET}, allow_private: true }}\npeople:\n  dana: {{ slack: U0DANA, github: \"583231\", gitlab: \"1042\" }}\n  rita: {{ slack: U0RITA, gitlab: \"1043\" }}\n",
        issuer.url(),
        key.line,
        receiver.url()
    );
    let home = Home::new(ACTIONS)
        .administered()
        .with_access(&access)
        .with("COUNTERSIGN_SECRET", &server_secret)
        .with_file("COUNTERSIGN_CACHE_DIR", "modules")
        .with_file("AUDIT_FILE", "audit.ndjson")
        .with("OTLP_ENDPOINT", &collector.url())
        .with(
            "OTLP_HEADERS",
            &format!("authorization=Bearer%20{}", garden.secret("a header for the collector")),
        )
        .with("COUNTERSIGN_LOG", "trace");
    home.write(WEBHOOK_SECRET, format!("whsec_{}\n", STANDARD.encode(&webhook)).as_bytes());
    let home = gitlab.configure(github.configure(home));
    let home = match &redis {
        Some(redis) => home.with_redis(redis).with("REDIS_PASSWORD", &password),
        None => home,
    };
    let gateway = slack.gateway(home.with_socket_mode(&slack)).await;
    for id in ["U0ALICE", "U0BOB", "U0REQ"] {
        garden.words.push(Planted::new("a person's id", id));
    }

    let claims = {
        let mut claims = issuer.claims();
        claims["repository_id"] = "4711".into();
        claims["jti"] = garden.secret("a claim of a token").into();
        claims
    };
    let token = signing.token(&claims);
    garden.known("a token of the identity provider", token.rsplit('.').next().expect("a signature"));
    refusals(&gateway, &mut garden, &token).await;

    // All of a request's life, twice.
    let mut denied = None;
    for (action, bearer) in [("rotate", &key.secret), ("login", &token)] {
        let hidden = json!({
            "password": garden.secret("a hidden parameter"),
            "deep": {"er": [garden.secret("a hidden parameter's part")]},
            "name": garden.word("a parameter that is shown"),
            "note": garden.word("a parameter that is shown"),
        });
        let mut hidden = hidden;
        if action == "login" {
            // What is not listed is shown.
            hidden.as_object_mut().expect("an object").remove("deep");
        }
        let ask = ask(&mut garden, action, &hidden);
        let made = create(&gateway, &ask, bearer).await;
        garden.token(&made);
        assert_eq!(create(&gateway, &ask, bearer).await.id, made.id, "the key was sent before");
        slack.shown(&made.id).await;

        if action == "rotate" {
            let forged = garden.secret("what somebody wants a hidden parameter to be");
            let edit = click(&mut garden, Click::edit("U0BOB", &made.id, &[("password", &forged)]));
            gateway.click(&edit).await;
            let note = garden.word("an edited parameter");
            let edit = click(&mut garden, Click::edit("U0ALICE", &made.id, &[("note", &note)]));
            gateway.click_ok(&edit).await;
            let wrong = garden.secret("a parameter that was not approved");
            let uses = [
                json!({"token": made.token, "params": {"password": wrong}}),
                json!({"token": made.token, "params": {"password": hidden["password"], "deep": hidden["deep"],
                       "name": hidden["name"], "note": note}}),
            ];
            let mut statuses = Vec::new();
            for body in &uses {
                let call = Call::post("/api/guard/consume", body).bearer(bearer);
                statuses.push(gateway.send(&call).await.status());
            }
            assert_eq!(statuses, [409, 200]);
            let outcome =
                json!({"token": made.token, "status": "failed", "detail": garden.word("an outcome")});
            let call = Call::post("/api/guard/outcome", &outcome).bearer(bearer);
            assert_eq!(gateway.send(&call).await.status(), 200);
        } else {
            let reason = garden.word("why somebody denies");
            let deny = click(&mut garden, Click::deny_because("U0BOB", &made.id, &reason));
            gateway.click_ok(&deny).await;
            let body = json!({"originalRequestId": made.id, "actor": {"id": "U0REQ", "source": "slack"},
                              "token": made.token});
            let again = Receipt::read(gateway.send(&Call::post("/api/guard/rerequest", &body)).await);
            let again = again.expect("it can be made again");
            garden.token(&again);
            let reason = garden.word("why a caller takes a request back");
            gateway.cancel(&again.token, Some(&reason)).await.expect("it is open");
            denied = Some(made);
        }
    }
    gates(&gateway, &mut garden, &github, &gitlab).await;
    // Slack fails, and answers again.
    slack.set_faults(Faults::down());
    let last = create(&gateway, &ask(&mut garden, "login", &json!({"password": "x"})), &key.secret).await;
    garden.token(&last);
    slack.set_faults(Faults::none());
    slack.shown(&last.id).await;

    let mut places = Vec::new();
    let reason = garden.word("a reason that is given while the store is away");
    let press = click(&mut garden, Click::deny_because("U0ALICE", &last.id, &reason));
    if let Some(redis) = &mut redis {
        redis.kill();
        let answer = gateway.click(&press).await;
        assert_eq!(answer["recorded"], true, "{answer}");
        let spool: Vec<_> =
            gateway.home().files().into_iter().filter(|(path, _)| is_in_spool(path)).collect();
        assert!(!spool.is_empty(), "the press is kept");
        places.extend(of_files(spool));
        redis.resume().await;
        let back = async {
            while gateway.send(&Call::post("/api/guard/wait", &json!({"token": last.token}))).await.status()
                != 200
            {
                tokio::task::yield_now().await;
            }
        };
        within("the store to be back", back).await;
    } else {
        gateway.click_ok(&press).await;
    }
    assert_eq!(gateway.ended(&last.token).await["status"], "denied");

    receiver.called(1).await;
    for message in receiver.messages() {
        places.push(written("the headers of a webhook", format!("{:?}", message.headers)));
        places.push(written("a webhook", message.body));
    }
    // What of a request's end was not sent as the gateway crashes was not sent.
    let denied_span = denied.as_ref().map(|denied| denied.id.clone()).unwrap_or_default();
    collector.span("deny", |span| span.is_of(&denied_span)).await;
    let traces = places.len();
    // The headers have what the collector is to know.
    let spans = collector.spans().into_iter().map(|span| Collected { headers: BTreeMap::new(), ..span });
    places.push(written("the traces", format!("{:?}", spans.collect::<Vec<_>>())));
    for path in ["/metrics?stored=always", "/readyz"] {
        places.push(written(path, gateway.send(&Call::get(path)).await.body));
    }
    let metrics = places.len() - 2;
    for path in ["state", "audit", "requests"] {
        places.push(written(path, gateway.seen(path).await.to_string()));
    }
    let denied = denied.expect("one was denied");
    places.push(written(
        "what an admin is shown",
        gateway.seen(&format!("requests/{}", denied.id)).await.to_string(),
    ));
    let store = match &redis {
        Some(redis) => redis.url(),
        None => format!("sqlite:{}", gateway.home().path("data/countersign.db").display()),
    };
    let exported = gateway.home().run(&["audit", "export", "--store", &store]);
    let export = String::from_utf8_lossy(&exported.stdout).into_owned();
    assert!(export.contains(&denied.id), "{exported:?}");
    places.push(written("an export of the audit log", exported.stdout));
    places.push(written("what an export of the audit log says", exported.stderr));

    let crashed = gateway.abort();
    let (home, exit) = gateway.stopped(crashed).await;
    assert!(!exit.status.success());
    places.push(written("the log", exit.output.into_bytes()));
    let log = places.len() - 1;
    // Modules are made of nothing that is secret, and there are megabytes of them.
    let holds_secrets = |place: &str| [WEBHOOK_SECRET, APP_KEY].iter().any(|name| place.ends_with(name));
    places.extend(
        of_files(home.files())
            .filter(|written| !written.place.contains("/modules/") && !holds_secrets(&written.place)),
    );
    places.extend(redis.iter().flat_map(|redis| of_files(redis.files())));
    for (call, body) in slack.received() {
        places.push(written(
            format!("what Slack received: {}", call.split(' ').next().unwrap_or_default()),
            call,
        ));
        places.push(written("a body that Slack received", body));
    }

    let secrets = found(&garden.secrets, &places);
    let operators =
        [metrics, log, traces].map(|place| written(&*places[place].place, places[place].bytes.clone()));
    let words = found(&garden.words, &operators);
    assert!(secrets.is_empty() && words.is_empty(), "{secrets}{words}");
    // The search finds what is there: what people may read is in the store, and in Slack.
    let is_store = |place: &str| [".db", ".db-wal", ".aof"].iter().any(|end| place.ends_with(end));
    let is_slack = |place: &str| place.contains("Slack received");
    for (what, is_where) in
        [("why somebody asks", &is_store as &dyn Fn(&str) -> bool), ("why somebody asks", &is_slack)]
    {
        let places = places.iter().filter(|written| is_where(&written.place));
        let words = garden.words.iter().filter(|word| word.what == what);
        let everywhere: Vec<u8> = places.flat_map(|written| written.bytes.iter().copied()).collect();
        for word in words {
            assert_eq!(word.found_in(&everywhere), Some("plain"), "{what}");
        }
    }
    for word in &garden.words {
        let somewhere = places.iter().any(|written| word.found_in(&written.bytes).is_some());
        assert!(somewhere, "{} is nowhere, not even where people read it", word.what);
    }
}

/// Gates of CI systems ask, with and without a valid signature, and are told.
async fn gates(gateway: &Gateway, garden: &mut Garden, github: &Github, gitlab: &Gitlab) {
    let (run, merge) = (github.waits(77, "production"), Gitlab::merge_request(COMMIT, "opened"));
    for unsigned in [Github::unsigned(&run), Gitlab::unsigned(&merge)] {
        let forged = garden.secret("a forged signature");
        let call = unsigned
            .header("X-Hub-Signature-256", &format!("sha256={forged}"))
            .header("X-Gitlab-Token", &forged);
        assert_eq!(gateway.send(&call).await.status(), 401);
    }
    for delivery in [Github::delivery(&run), Gitlab::delivery(&merge)] {
        let answer = gateway.send(&delivery).await;
        let id =
            answer.json()["requestId"].as_str().unwrap_or_else(|| panic!("{}", answer.text())).to_owned();
        let reason = garden.word("why somebody denies what a gate asks");
        let deny = click(garden, Click::deny_because("U0BOB", &id, &reason));
        gateway.click_ok(&deny).await;
    }
    github.reviewed(77).await;
    gitlab.told(COMMIT, "failed").await;
}

fn is_in_spool(path: &std::path::Path) -> bool {
    path.extension().is_some_and(|it| it == "press")
}

/// A request with words in it, and with an idempotency key.
fn ask(garden: &mut Garden, action: &str, params: &Value) -> Ask {
    let mut body = Ask::new(action).params(params.clone()).body();
    body["meta"]["justification"] = garden.word("why somebody asks").into();
    body["meta"]["requester"]["display"] = garden.word("a person's name").into();
    body["meta"]["links"] = json!([{"label": garden.word("a link"), "url": "https://ci.example/1"}]);
    Ask::of(body).idempotency_key(&garden.secret("an idempotency key"))
}

async fn create(gateway: &Gateway, ask: &Ask, bearer: &str) -> Receipt {
    let made = Receipt::read(gateway.send(&ask.call().bearer(bearer)).await);
    made.unwrap_or_else(|problem| panic!("{problem:?}"))
}

/// A press with what Slack sends besides: what answers it, and who pressed.
fn click(garden: &mut Garden, click: Click) -> Click {
    let url =
        format!("https://hooks.slack.com/actions/{}", garden.secret("the address for answers to a press"));
    click
        .with("response_url", url.into())
        .with("token", garden.secret("the verification token of Slack").into())
}

/// Calls that are refused, with secrets in all that they have.
async fn refusals(gateway: &Gateway, garden: &mut Garden, token: &str) {
    let body = |garden: &mut Garden| {
        let secret = garden.secret("what a refused call has in its body");
        json!({"action": "rotate", "params": {"password": secret}, "meta": {"justification": 7}})
    };
    let mut calls = Vec::new();
    let unreadable = body(garden).to_string();
    for text in [unreadable[..unreadable.len() - 9].to_owned(), format!("[{unreadable}]"), unreadable] {
        for bearer in [None, Some(token)] {
            let call = Call::new("POST", "/api/guard/request").body("application/json", text.clone());
            calls.push(match bearer {
                Some(bearer) => call.bearer(bearer),
                None => call,
            });
        }
    }
    let mut unknown = Ask::new("login").body();
    unknown[garden.secret("the name of an unknown field")] =
        garden.secret("the value of an unknown field").into();
    unknown["meta"]["requester"]["id"] = json!([garden.secret("a value of another type")]);
    calls.push(Call::post("/api/guard/request", &unknown).bearer(token));
    // No policy knows the action, so nothing says what to hide.
    let mut nobodys = Ask::new("launch").body();
    nobodys["params"] = json!({"password": garden.secret("a parameter of an unknown action")});
    calls.push(Call::post("/api/guard/request", &nobodys).bearer(token));
    let id = "req_000000000000000000000000";
    for wrong in ["cs_portal_", &format!("{id}."), "eyJhbGciOiJFUzI1NiJ9.e30.", ""] {
        let wrong = format!("{wrong}{}", garden.secret("a wrong bearer"));
        calls.push(Ask::new("login").call().bearer(&wrong));
        calls.push(Call::get(&format!("/api/guard/wait?token={wrong}")));
        calls.push(Call::get(&format!("/api/guard/status?requestId={wrong}")).bearer(&wrong));
        calls.push(Call::post("/api/guard/consume", &json!({"token": wrong, "params": {}})));
        calls.push(Call::get("/api/admin/requests").bearer(&wrong));
        calls.push(Call::get("/api/admin/requests").header("x-admin-token", &wrong));
        calls.push(Call::get(&format!("/api/{wrong}")));
    }
    let header = garden.secret("an idempotency key");
    calls.push(Ask::new("login").call().bearer(token).header("idempotency-key", &format!("{header}é")));
    let press = |secret: String| Click::deny_because("U0ALICE", "req_none", &secret);
    calls.push(press(garden.secret("a reason in a forged press")).forged().call());
    calls.push(press(garden.secret("a reason in an old press")).signed_ago(1000).call());
    let secret = garden.secret("what Slack never sends");
    calls.push(Click::raw(json!({"type": secret, "user": [secret]})).signed().call());
    calls.push(Click::raw(json!(secret)).signed().call());
    calls.push(Click::button(&secret, "U0ALICE", &secret).signed().call());
    for call in calls {
        let answered = within("an answer", gateway.send(&call)).await;
        assert!(answered.status() < 500, "{} {}", answered.status(), answered.text());
    }
}
