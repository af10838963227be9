//! Attacks over HTTP on every route that the gateway itself describes: a new route is attacked, too.
//!
//! What Slack did not sign, or signed long ago or once already, is in `slack_security.rs`.

use std::net::TcpListener;

use countersign_tests::{ADMIN_TOKEN, ApiKey, Ask, Call, Click, Gateway, Home, Problem, Receipt, deploy};
use serde_json::{Value, json};

use crate::ledger::Ledger;

/// An operation of the OpenAPI document.
struct Route {
    method: String,
    path: String,
    takes_json: bool,
}

/// Every route that begins so.
async fn routes(gateway: &Gateway, prefix: &str) -> Vec<Route> {
    let document = gateway.send(&Call::get("/openapi.json")).await.json();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().expect("an object") {
        for (method, operation) in item.as_object().expect("an object") {
            if path.starts_with(prefix) {
                routes.push(Route {
                    method: method.to_uppercase(),
                    path: path.clone(),
                    takes_json: operation.pointer("/requestBody/content/application~1json").is_some(),
                });
            }
        }
    }
    assert!(routes.len() > 5, "{prefix}: {}", routes.len());
    routes
}

impl Route {
    /// A call with this in each place of the path that may vary.
    fn call(&self, part: &str) -> Call {
        let parts: Vec<&str> =
            self.path.split('/').map(|it| if it.starts_with('{') { part } else { it }).collect();
        Call::new(&self.method, &parts.join("/"))
    }

    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

const ID: &str = "req_01jd8xkm0n0000000000000000";

/// Two callers, of which one asks, and an admin who may only read.
struct Scene {
    gateway: Gateway,
    portal: ApiKey,
    other: ApiKey,
    reader: ApiKey,
}

async fn scene() -> Scene {
    let [portal, other, reader] = ["portal", "other", "reader"].map(ApiKey::new);
    let caller = |name: &str, key: &ApiKey| {
        format!("  {name}:\n    keys:\n      {}\n    requester: asserted\n    actions: [deploy]\n", key.line)
    };
    let file = format!(
        "version: 1\ncallers:\n{}{}admins:\n  reader:\n    keys:\n      {}\n    roles: [read]\n",
        caller("portal", &portal),
        caller("other", &other),
        reader.line
    );
    let home = Home::new(&deploy(1))
        .with_access(&file)
        .administered()
        // Guesses are limited by address, which is what another test is about.
        .with("RATE_LIMIT_CAPACITY", "100000");
    Scene { gateway: home.start().await, portal, other, reader }
}

impl Scene {
    async fn open(&self) -> Receipt {
        let made = self.gateway.send(&Ask::new("deploy").call().bearer(&self.portal.secret)).await;
        Receipt::read(made).expect("the caller may ask")
    }
}

#[tokio::test]
async fn admin_routes_let_nobody_in_without_the_rights_for_them() {
    let scene = scene().await;
    let (mut strangers, mut roles) = (0, 0);
    for route in routes(&scene.gateway, "/api/admin/").await {
        let call = route.call(ID).body("application/json", "{}");
        let guesses = [
            ("nothing", call.clone()),
            ("a guess", call.clone().bearer("correct-horse-battery-stable")),
            ("a guess in the other header", call.clone().header("x-admin-token", "correct-horse")),
            ("a caller's key", call.clone().bearer(&scene.portal.secret)),
        ];
        for (what, call) in guesses {
            let problem = Problem::read(&scene.gateway.send(&call).await);
            assert_eq!(problem.is(), (401, "unauthorized"), "{} with {what}", route.name());
            strangers += 1;
        }
        if route.method != "GET" {
            let problem = Problem::read(&scene.gateway.send(&call.bearer(&scene.reader.secret)).await);
            assert_eq!(problem.is(), (403, "role_missing"), "{} by somebody who may only read", route.name());
            roles += 1;
        }
    }
    let metrics = scene.gateway.metrics().await;
    for (kind, count) in [("unauthorized", strangers), ("role_missing", roles)] {
        assert_eq!(metrics.count("security_events_total", &[("type", kind)]), count, "{kind}");
    }
    let ledger = Ledger::of(&scene.gateway.stop().await);
    let audited = |event: &str, list: &str| -> u64 {
        let entries = ledger.entries(event);
        let counts = entries.iter().flat_map(|entry| entry[list].as_array().cloned().unwrap_or_default());
        counts.filter_map(|counted| counted["count"].as_u64()).sum()
    };
    assert_eq!(audited("admin_authentication_failures", "failures"), strangers);
    assert_eq!(audited("admin_rejections", "rejections"), roles);
}

#[tokio::test]
async fn no_route_takes_a_token_that_is_forged_or_of_another_request() {
    let scene = scene().await;
    let (request, second) = (scene.open().await, scene.open().await);
    scene.gateway.click_ok(&Click::deny("U0ALICE", &second.id)).await;
    let (_, second_mac) = second.token.split_once('.').expect("an id and what proves it");
    let (_, mac) = request.token.split_once('.').expect("an id and what proves it");
    let last = if mac.ends_with('A') { 'B' } else { 'A' };
    let cut = &request.token[..request.token.len() - 2];
    let tokens = [
        ("the proof of another request", format!("{}.{second_mac}", request.id)),
        ("half of the proof", cut.to_owned()),
        ("another letter in it", format!("{cut}{last}{last}")),
        ("no proof", request.id.clone()),
        ("an empty proof", format!("{}.", request.id)),
    ];
    let mut attempts = 0;
    for route in routes(&scene.gateway, "/api/guard/").await {
        if route.path == "/api/guard/request" {
            continue;
        }
        for (what, token) in &tokens {
            let name = format!("{} with {what}", route.name());
            let calls = match route.method.as_str() {
                // A bundle is asked for by its token alone.
                "GET" if route.path.ends_with("/bundle") => vec![Call::get(&route.path).bearer(token)],
                "GET" => vec![Call::get(&format!("{}?requestId={}", route.path, request.id)).bearer(token)],
                _ => {
                    let body = body(&route.path, &request.id, token);
                    let call =
                        Call::new(&route.method, &route.path).body("application/json", body.to_string());
                    // By nobody, by another caller, and by the one whose request it is.
                    vec![
                        call.clone(),
                        call.clone().bearer(&scene.other.secret),
                        call.bearer(&scene.portal.secret),
                    ]
                }
            };
            for call in calls {
                attempts += 1;
                let problem = Problem::read(&scene.gateway.send(&call).await);
                assert!(
                    matches!(problem.is(), (404, "not_found") | (401, "unauthenticated")),
                    "{name}: {:?} {}",
                    problem.is(),
                    problem.body
                );
            }
        }
    }
    // Another caller cannot do anything with the request either, whether it knows its id or has got hold of its token.
    for route in routes(&scene.gateway, "/api/guard/").await {
        if ["/api/guard/consume", "/api/guard/outcome"].contains(&route.path.as_str()) {
            let body = body(&route.path, &request.id, &request.token).to_string();
            let call = Call::new(&route.method, &route.path).body("application/json", body);
            let problem = Problem::read(&scene.gateway.send(&call.bearer(&scene.other.secret)).await);
            assert_eq!(problem.is(), (403, "not_the_caller"), "{}", route.name());
        }
    }
    let state = scene.gateway.look(&request.token).await;
    assert_eq!((&state["status"], &state["approvers"]), (&json!("ready_for_approval"), &json!([])));
    let counted =
        scene.gateway.metrics().await.count("security_events_total", &[("type", "unauthenticated")]);
    let ledger = Ledger::of(&scene.gateway.stop().await);
    let entries = ledger.entries("authentication_failures");
    let failures = entries.iter().flat_map(|entry| entry["failures"].as_array().cloned().unwrap_or_default());
    let audited: u64 = failures.filter_map(|failure| failure["count"].as_u64()).sum();
    assert!(
        counted >= attempts && audited == counted,
        "{attempts} attempts, {counted} counted, {audited} audited"
    );
}

/// A body that the route takes. A new route needs one here.
fn body(path: &str, id: &str, token: &str) -> Value {
    match path.trim_start_matches("/api/guard/") {
        "wait" | "cancel" => json!({"token": token}),
        "consume" => json!({"token": token, "params": {}}),
        "outcome" => json!({"token": token, "status": "succeeded"}),
        "rerequest" => {
            json!({"token": token, "originalRequestId": id, "actor": {"id": "U0DANA", "source": "slack"}})
        }
        other => panic!("`{other}` is new: what is a body of it?"),
    }
}

#[tokio::test]
async fn no_route_is_blown_up_by_a_body() {
    let scene = scene().await;
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_objects = format!("{}1{}", "{\"a\":".repeat(20_000), "}".repeat(20_000));
    let twice = r#"{"action": "deploy", "action": "deploy"}"#.to_owned();
    let number = format!("{{\"n\": 1e{}}}", "9".repeat(1000));
    let bodies = [("lists", deep), ("objects", deep_objects), ("a key twice", twice), ("a number", number)];
    let mut attacked = 0;
    for route in routes(&scene.gateway, "/api/").await.into_iter().filter(|route| route.takes_json) {
        // What CI systems deliver is verified before it is read (`gates.rs`); here nobody is set up to.
        if route.path.starts_with("/api/hooks/") {
            let reply = scene.gateway.send(&route.call(ID).body("application/json", "[")).await;
            assert_eq!(reply.status(), 404, "{}", route.name());
            continue;
        }
        attacked += 1;
        let bearer = if route.path.starts_with("/api/admin/") { ADMIN_TOKEN } else { &scene.portal.secret };
        let call = route.call(ID).bearer(bearer);
        for (what, body) in &bodies {
            let reply = scene.gateway.send(&call.clone().body("application/json", body.as_str())).await;
            assert!(
                [400, 404, 413].contains(&reply.status()),
                "{} with {what}: {} {}",
                route.name(),
                reply.status(),
                reply.text()
            );
        }
        let zipped =
            call.clone().header("content-encoding", "gzip").body("application/json", [0x1f, 0x8b, 8, 0]);
        let problem = Problem::read(&scene.gateway.send(&zipped).await);
        assert_eq!(problem.is(), (415, "unsupported_media_type"), "{}", route.name());
        // What is announced is refused before it comes.
        let mut connection = scene.gateway.connect().await;
        let announced = call.header("content-type", "application/json").bytes();
        let announced = String::from_utf8(announced)
            .expect("text")
            .replace("content-length: 0", "content-length: 99999999999");
        connection.write(announced.as_bytes()).await.expect("it is sent");
        let answer = countersign_tests::within("an answer", connection.answer()).await.expect("it answers");
        assert_eq!(answer.status(), 413, "{}", route.name());
    }
    assert!(attacked > 8, "{attacked}");
    assert_eq!(scene.gateway.metrics().await.count("approval_requests_total", &[]), 0);
    scene.open().await;
}

#[tokio::test]
async fn no_part_of_a_path_leads_out_of_it() {
    let scene = scene().await;
    let parts = [
        "..",
        "%2e%2e",
        "..%2f..%2f..%2f..%2fetc%2fpasswd",
        "..%5c..%5cetc%5cpasswd",
        "%2fetc%2fpasswd",
        "....%2f%2fetc%2fpasswd",
        "deploy%00.json",
        "%c0%ae%c0%ae%2fetc%2fpasswd",
        "policy-set.yaml",
        "..%2fpolicy-set.yaml",
        "'%20OR%20'1'='1",
        "%25%32%65%25%32%65",
    ];
    let mut attacked = 0;
    for route in routes(&scene.gateway, "/").await.into_iter().filter(|route| route.path.contains('{')) {
        attacked += 1;
        for part in parts {
            let call = route.call(part).bearer(ADMIN_TOKEN);
            let call = if route.method == "GET" { call } else { call.body("application/json", "{}") };
            let reply = scene.gateway.send(&call).await;
            let text = reply.text();
            assert!((400..500).contains(&reply.status()), "{} at `{part}`: {text}", route.name());
            for leaked in ["root:", "modules:", "No such file"] {
                assert!(!text.contains(leaked), "{} at `{part}`: {text}", route.name());
            }
        }
        let long = route.call(&"a".repeat(6_000)).bearer(ADMIN_TOKEN);
        let reply = scene.gateway.send(&long).await;
        assert!((400..500).contains(&reply.status()), "{}: {}", route.name(), reply.status());
    }
    assert!(attacked > 4, "{attacked}");
    scene.open().await;
}

/// URLs in what is configured or sent never make the gateway call a place that nobody has allowed.
#[tokio::test]
async fn no_url_makes_the_gateway_call_what_was_not_allowed() {
    let inside = TcpListener::bind("127.0.0.1:0").expect("a free port");
    inside.set_nonblocking(true).expect("it can be asked without waiting");
    let address = inside.local_addr().expect("an address");
    let scene = scene().await;

    // A module of a registry that is not listed, in a set that an admin stores.
    let digest = "ab".repeat(32);
    let pinned = |host: &str| {
        let set = scene.gateway.home().policy_set();
        let (before, rest) = set.split_once("quorum: sha256:").expect("it pins the quorum");
        format!("{before}quorum: oci://{host}/acme/quorum@sha256:{digest}{}", &rest[64..])
    };
    for host in [address.to_string(), "169.254.169.254".to_owned(), format!("localhost:{}", address.port())] {
        let store = Call::post("/api/admin/policy-sets", &json!({"document": pinned(&host)}));
        let problem = Problem::read(&scene.gateway.send(&store.bearer(ADMIN_TOKEN)).await);
        assert!((400..500).contains(&problem.is().0), "{host}: {:?} {}", problem.is(), problem.body);
    }

    // Links are shown to people, and not fetched.
    let mut ask = Ask::new("deploy").body();
    ask["meta"]["links"] = json!([{"label": "the run", "url": format!("http://{address}/latest/meta-data")}]);
    let made = scene.gateway.send(&Ask::of(ask).call().bearer(&scene.portal.secret)).await;
    assert_eq!(made.status(), 200, "{}", made.text());

    // Keys of an issuer that is neither of this machine nor proven by TLS.
    let key = ApiKey::new("portal");
    for issuer in
        ["http://169.254.169.254/latest", "http://10.0.0.1/", "file:///etc/passwd", "gopher://127.0.0.1/"]
    {
        let file = format!(
            "version: 1\nissuers:\n  acme: {{ issuer: \"{issuer}\", audience: countersign }}\ncallers:\n  portal:\n    keys:\n      \
             {}\n    requester: asserted\n    actions: [deploy]\n",
            key.line
        );
        let refused = Home::new(&deploy(1)).with_access(&file).fail_to_start().await;
        let named = ["`https` URL", "is no URL"].iter().any(|why| refused.stderr.contains(why));
        assert!(
            named && refused.stderr.contains(issuer.trim_end_matches('/')),
            "{issuer}: {}",
            refused.stderr
        );
    }
    for api in ["http://169.254.169.254/api", "file:///etc/passwd"] {
        let refused = Home::new(&deploy(1)).with("SLACK_API_URL", api).fail_to_start().await;
        assert!(refused.stderr.contains("SLACK_API_URL"), "{api}: {}", refused.stderr);
    }
    let called = inside.accept().map(|(_, from)| from);
    assert!(called.is_err(), "the gateway has called {address}: {called:?}");
}
