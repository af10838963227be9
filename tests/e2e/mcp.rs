//! `countersign mcp` as an agent's host has it: asking, waiting and using an approval, on pipes and by HTTP.

use std::cell::Cell;
use std::io::Write as _;
use std::process::ChildStdin;

use countersign_tests::{
    Call, Click, Connection, Fault, Gateway, Home, Relay, Running, SIGNING_SECRET, binary, project, variable,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

const ACTIONS: &str = "
  scale:
    description: Scale a service
    timeout: 10m
    redact: { hide: [] }
    consume: required
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
      - use: override-guard
        with: { keys: [ref, replicas], max_keys: 2, max_chars: 20 }
  hurry:
    description: Deploy at once
    timeout: 10m
    valid_for: 1s
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
";

const TOKEN: &str = "a-token-for-tests-alone";

/// An agent's host that has started the server.
struct Host {
    server: Running,
    input: ChildStdin,
    calls: Cell<u64>,
    _folder: TempDir,
}

impl Host {
    fn start(url: &str, more: &[&str]) -> Host {
        let folder = tempfile::tempdir().expect("a folder");
        let words = ["mcp", "--requester", "slack:U0REQ", "--repo", "acme/shop"];
        let url = ("COUNTERSIGN_URL", url);
        let (server, input) = Running::open(folder.path(), &[&words[..], more].concat(), &[url]);
        Host { server, input, calls: Cell::new(0), _folder: folder }
    }

    /// One that has said hello.
    async fn of(gateway: &Gateway, more: &[&str]) -> Host {
        let mut host = Host::start(&format!("http://{}", gateway.address()), more);
        host.greet().await;
        host
    }

    async fn greet(&mut self) {
        let hello = self.request("initialize", &hello()).await;
        assert_eq!(hello["result"]["serverInfo"]["name"], "countersign", "{hello}");
        self.send(json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    }

    fn send(&mut self, message: impl std::fmt::Display) {
        writeln!(self.input, "{message}").expect("the server reads");
    }

    /// Sends a request; returns its id.
    fn begin(&mut self, method: &str, params: &Value) -> u64 {
        let id = self.calls.get() + 1;
        self.calls.set(id);
        self.send(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        id
    }

    /// The answer to a request. Each line of the output has to be a message.
    async fn answer(&self, id: u64) -> Value {
        let answer = |line: &str| {
            let message: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no message: {line}"));
            (message["id"] == id && message["method"].is_null()).then_some(message)
        };
        self.server.found(answer).await
    }

    async fn request(&mut self, method: &str, params: &Value) -> Value {
        let id = self.begin(method, params);
        self.answer(id).await
    }

    /// The result of a tool.
    async fn call(&mut self, tool: &str, arguments: &Value) -> Value {
        let answer = self.request("tools/call", &json!({"name": tool, "arguments": arguments})).await;
        answer["result"].clone()
    }

    /// Asks; returns the handle and the request's id.
    async fn ask(&mut self) -> (String, String) {
        let asked = good(&self.call("request_approval", &asking()).await);
        assert_eq!(asked["approved"], false);
        (text(&asked["handle"]), text(&asked["request_id"]))
    }
}

fn hello() -> Value {
    json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}})
}

fn asking() -> Value {
    json!({"action": "scale", "params": {"ref": "v1.2.3", "replicas": 2}, "why": "Ship the fix"})
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// What a tool that succeeded says.
fn good(result: &Value) -> Value {
    assert_eq!(result["isError"], false, "{result}");
    result["structuredContent"].clone()
}

/// A tool said no, with this in its words.
fn bad(result: &Value, said: &str) {
    let words = text(&result["content"][0]["text"]);
    assert!(result["isError"] == true && words.contains(said), "`{said}`: {result}");
    assert!(words.starts_with("Not approved; do not act."), "{words}");
}

#[tokio::test]
async fn an_agent_asks_waits_and_uses_what_people_approved() {
    let gateway = Home::new(ACTIONS).start().await;
    let mut host = Host::of(&gateway, &[]).await;
    let tools = host.request("tools/list", &json!({})).await["result"]["tools"].clone();
    let names: Vec<_> = tools.as_array().expect("tools").iter().map(|tool| text(&tool["name"])).collect();
    let all = ["request_approval", "check_approval", "consume_approval", "report_outcome", "cancel_request"];
    assert_eq!(names, all);

    let (handle, id) = host.ask().await;
    let state = good(&host.call("check_approval", &json!({"handle": handle})).await);
    assert_eq!((&state["approved"], &state["pending"]), (&json!(false), &json!(true)), "{state}");
    let params = asking()["params"].clone();
    let with = |params: &Value| json!({"handle": handle, "params": params});
    bad(&host.call("consume_approval", &with(&params)).await, "nobody has decided");

    let waiting = json!({"name": "check_approval", "arguments": {"handle": handle, "wait_seconds": 50},
                         "_meta": {"progressToken": "p1"}});
    let waiting = host.begin("tools/call", &waiting);
    let told = |line: &str| line.contains("notifications/progress").then(|| line.to_owned());
    let told = host.server.found(told).await;
    assert!(told.contains("\"p1\"") && told.contains("0 of 1 approved"), "{told}");
    gateway.click_ok(&Click::approve("U0ALICE", &id)).await;
    let state = good(&host.answer(waiting).await["result"]);
    assert_eq!(state["approved_params"], params, "{state}");
    assert_eq!((&state["approved"], &state["edited"]), (&json!(true), &json!(false)), "{state}");

    bad(&host.call("consume_approval", &with(&json!({"ref": "v1.2.3", "replicas": 3}))).await, "replicas");
    bad(&host.call("report_outcome", &json!({"handle": handle, "result": "failed"})).await, "not used");
    let used = good(&host.call("consume_approval", &with(&params)).await);
    assert_eq!(used["approved_params"], params);
    assert_eq!(gateway.status(&id).await["use"], "consumed");
    bad(&host.call("consume_approval", &with(&params)).await, "used before");
    good(&host.call("report_outcome", &json!({"handle": handle, "result": "succeeded"})).await);
    let state = good(&host.call("check_approval", &json!({"handle": handle})).await);
    assert_eq!(state["used"], true, "what has come of it changes nothing: {state}");
}

#[tokio::test]
async fn whatever_is_no_approval_is_told_as_none() {
    let gateway = Home::new(ACTIONS).start().await;
    let mut host = Host::of(&gateway, &["--action", "scale"]).await;
    let (handle, id) = host.ask().await;
    gateway.click_ok(&Click::deny("U0ALICE", &id)).await;
    let state = good(&host.call("check_approval", &json!({"handle": handle, "wait_seconds": 50})).await);
    assert_eq!((&state["status"], &state["approved"]), (&json!("denied"), &json!(false)), "{state}");
    let params = &asking()["params"];
    bad(&host.call("consume_approval", &json!({"handle": handle, "params": params})).await, "denied");

    let (handle, _) = host.ask().await;
    good(&host.call("cancel_request", &json!({"handle": handle, "why": "not needed"})).await);
    bad(&host.call("consume_approval", &json!({"handle": handle, "params": params})).await, "cancelled");

    let other = json!({"action": "deploy", "params": {}, "why": "Ship the fix"});
    bad(&host.call("request_approval", &other).await, "not set up");
    let chosen = json!({"action": "scale", "params": {}, "why": "Ship", "requester": "slack:U0ALICE"});
    bad(&host.call("request_approval", &chosen).await, "requester");
    bad(&host.call("check_approval", &json!({"handle": "f00"})).await, "not known");
    bad(&host.call("approve", &json!({})).await, "no such tool");

    let (handle, _) = host.ask().await;
    gateway.stop().await;
    bad(&host.call("check_approval", &json!({"handle": handle, "wait_seconds": 1})).await, "in doubt");
}

/// An open request is told as one where streams do not get through, or have no room.
#[tokio::test]
async fn without_streams_an_open_request_is_pending() {
    let gateway = Home::new(ACTIONS).start().await;
    let problem = r#"{"error":"too_many_streams","detail":"too many streams are open"}"#;
    let full = Fault::answer("503 Service Unavailable", "application/problem+json", problem);
    for fault in [full, Fault::Silence] {
        let relay = Relay::start(Some(gateway.address())).await;
        relay.fault("/api/guard/wait-sse", fault);
        let mut host = Host::start(&relay.url(), &[]);
        host.greet().await;
        let (handle, id) = host.ask().await;
        let waiting = json!({"handle": handle, "wait_seconds": 2});
        let state = good(&host.call("check_approval", &waiting).await);
        assert_eq!((&state["approved"], &state["pending"]), (&json!(false), &json!(true)), "{state}");
        gateway.click_ok(&Click::approve("U0ALICE", &id)).await;
        assert_eq!(good(&host.call("check_approval", &waiting).await)["approved"], true);
    }
}

/// Nobody may use it any more, and it is not told as one that can be.
#[tokio::test]
async fn an_approval_that_has_lapsed_is_told_as_none() {
    let gateway = Home::new(ACTIONS).start().await;
    let mut host = Host::of(&gateway, &[]).await;
    let asking = json!({"action": "hurry", "params": {"ref": "v1"}, "why": "Ship the fix"});
    let asked = good(&host.call("request_approval", &asking).await);
    gateway.click_ok(&Click::approve("U0ALICE", &text(&asked["request_id"]))).await;
    let handle = json!({"handle": asked["handle"]});
    let lapsed = countersign_tests::within("it to lapse", async {
        loop {
            let state = host.call("check_approval", &handle).await;
            if state["isError"] == true {
                break state;
            }
            assert_eq!(good(&state)["used"], false);
        }
    });
    bad(&lapsed.await, "the approval could be used until");
}

/// A client that has tasks waits in one: no call is open meanwhile.
#[tokio::test]
async fn a_client_with_tasks_waits_in_one() {
    let gateway = Home::new(ACTIONS).start().await;
    let mut host = Host::start(&format!("http://{}", gateway.address()), &[]);
    let tasks = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    let mut greeting = hello();
    greeting["capabilities"] = tasks.clone();
    let hello = host.request("initialize", &greeting).await;
    assert_eq!(hello["result"]["capabilities"]["extensions"], tasks["extensions"], "{hello}");
    host.send(json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));

    let (handle, id) = host.ask().await;
    let now = good(&host.call("check_approval", &json!({"handle": handle})).await);
    assert_eq!(now["pending"], true, "who does not wait needs no task");
    let waiting = json!({"handle": handle, "wait_seconds": 50});
    let task = host.call("check_approval", &waiting).await;
    assert_eq!((&task["resultType"], &task["status"]), (&json!("task"), &json!("working")), "{task}");
    let name = json!({"taskId": task["taskId"]});
    let state = host.request("tasks/get", &name).await["result"].clone();
    assert_eq!((&state["status"], &state["statusMessage"]), (&json!("working"), &json!("0 approved so far")));
    assert!(state["pollIntervalMs"].is_u64() && state["ttlMs"].is_u64(), "{state}");

    // Whoever gives up waiting takes nothing back.
    assert!(host.request("tasks/cancel", &name).await["error"].is_null());
    assert_eq!(host.request("tasks/get", &name).await["result"]["status"], "cancelled");
    assert_eq!(gateway.status(&id).await["status"], "ready_for_approval");
    host.call("check_approval", &waiting).await;
    gateway.click_ok(&Click::approve("U0ALICE", &id)).await;
    let ended = host.request("tasks/get", &name).await["result"].clone();
    assert_eq!(ended["status"], "completed", "{ended}");
    assert_eq!(good(&ended["result"])["approved"], true, "{ended}");
    let again = good(&host.call("check_approval", &waiting).await);
    assert_eq!(again["approved"], true, "there is nothing to wait for");

    let (handle, _) = host.ask().await;
    let waiting = json!({"handle": handle, "wait_seconds": 50});
    let name = json!({"taskId": host.call("check_approval", &waiting).await["taskId"]});
    gateway.stop().await;
    let unknown = host.request("tasks/get", &name).await;
    assert!(
        unknown["error"].is_object() && unknown["result"].is_null(),
        "nothing is known, so it goes on: {unknown}"
    );
    let other = host.request("tasks/get", &json!({"taskId": "f00"})).await;
    assert_eq!(other["error"]["code"], -32602, "{other}");
    bad(&host.call("check_approval", &json!({"handle": "f00", "wait_seconds": 50})).await, "not known");
}

/// What ends with the server cannot be used, so people need not decide it.
#[tokio::test]
async fn what_is_open_is_cancelled_when_the_host_goes() {
    let gateway = Home::new(ACTIONS).start().await;
    for by_signal in [None, Some(Signal::TERM), Some(Signal::INT), Some(Signal::HUP)] {
        let mut host = Host::of(&gateway, &[]).await;
        let (_, id) = host.ask().await;
        let Host { server, input, .. } = host;
        match by_signal {
            Some(signal) => server.signal(signal),
            None => drop(input),
        }
        assert_eq!(server.ended().await.code, Some(0), "{by_signal:?}");
        assert_eq!(gateway.status(&id).await["status"], "cancelled");
    }
}

/// The gateway has made it, and its answer was lost.
#[tokio::test]
async fn what_is_being_asked_is_cancelled_when_the_host_goes() {
    for by_signal in [false, true] {
        let gateway = Home::new(ACTIONS).administered().start().await;
        let relay = Relay::start(Some(gateway.address())).await;
        let mut host = Host::start(&relay.url(), &[]);
        host.greet().await;
        relay.fault("/api/guard/request", Fault::LoseOneAnswer);
        host.begin("tools/call", &json!({"name": "request_approval", "arguments": asking()}));
        let made = countersign_tests::within("a request", async {
            loop {
                let seen = gateway.seen("requests").await;
                if let Some(id) = seen["requests"][0]["requestId"].as_str() {
                    break id.to_owned();
                }
                tokio::task::yield_now().await;
            }
        });
        let id = made.await;
        let Host { server, input, .. } = host;
        if by_signal {
            server.signal(Signal::TERM);
        } else {
            drop(input);
        }
        assert_eq!(server.ended().await.code, Some(0));
        assert_eq!(gateway.status(&id).await["status"], "cancelled");
        let metrics = gateway.metrics().await;
        assert_eq!(metrics.count("approval_requests_total", &[("action", "scale")]), 1, "it is made once");
    }
}

/// What people would see as another number, or as one of two values, is not asked for.
#[tokio::test]
async fn a_call_that_can_be_read_in_two_ways_is_refused() {
    let gateway = Home::new(ACTIONS).administered().start().await;
    let mut host = Host::of(&gateway, &[]).await;
    for params in [r#"{"ref":9007199254740991.4}"#, r#"{"ref":1e-400}"#, r#"{"ref":1,"ref":2}"#] {
        let id = host.calls.get() + 1;
        host.calls.set(id);
        let arguments = format!(r#"{{"action":"scale","params":{params},"why":"Ship the fix"}}"#);
        let call = format!(r#"{{"name":"request_approval","arguments":{arguments}}}"#);
        host.send(format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{call}}}"#));
        let answer = host.answer(id).await;
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
        assert!(text(&answer["error"]["message"]).contains("arguments.params.ref"), "{answer}");
    }
    assert_eq!(gateway.seen("requests").await["requests"], json!([]));
    host.ask().await;
}

/// A gateway that does not answer once takes no approval away.
#[tokio::test]
async fn a_use_that_is_in_doubt_can_be_tried_again() {
    let gateway = Home::new(ACTIONS).start().await;
    let relay = Relay::start(Some(gateway.address())).await;
    let mut host = Host::start(&relay.url(), &["--patience", "0s"]);
    host.greet().await;
    let (handle, id) = host.ask().await;
    gateway.click_ok(&Click::approve("U0ALICE", &id)).await;
    relay.fault("/api/guard/consume", Fault::LoseOneAnswer);
    let using = json!({"handle": handle, "params": asking()["params"]});
    bad(&host.call("consume_approval", &using).await, "whether the approval was consumed is not known");
    assert_eq!(gateway.status(&id).await["use"], "consumed");
    let other = json!({"handle": handle, "params": {"ref": "v9"}});
    bad(&host.call("consume_approval", &other).await, "ref");
    good(&host.call("consume_approval", &using).await);
    bad(&host.call("consume_approval", &using).await, "used before");
    good(&host.call("report_outcome", &json!({"handle": handle, "result": "failed"})).await);
}

#[tokio::test]
async fn by_http_only_a_caller_with_the_token_is_served() {
    let gateway = Home::new(ACTIONS).start().await;
    let url = format!("http://{}", gateway.address());
    let folder = tempfile::tempdir().expect("a folder");
    let words = ["mcp", "--listen", "127.0.0.1:0", "--requester", "slack:U0REQ", "--url", &url];
    let refused = Running::start(folder.path(), &words, &[], "").ended().await;
    assert!(refused.code == Some(2) && refused.stderr.contains("COUNTERSIGN_MCP_TOKEN"), "{refused:?}");

    let server = Running::start(folder.path(), &words, &[("COUNTERSIGN_MCP_TOKEN", TOKEN)], "");
    let listening = |line: &str| line.strip_prefix("listening on http://").map(str::to_owned);
    let listening = server.found(listening).await;
    let address = listening.strip_suffix("/mcp").expect("a path").parse().expect("an address");
    let listed = async |token: &str, more: &[(&str, &str)]| {
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}});
        let call = Call::post("/mcp", &message).bearer(token);
        let call = call.header("accept", "application/json, text/event-stream");
        let call = more.iter().fold(call, |call, (name, value)| call.header(name, value));
        let mut connection = Connection::open(address).await.expect("it listens");
        connection.send(&call).await.expect("an answer")
    };
    let answer = listed(TOKEN, &[]).await;
    assert!(answer.status() == 200 && answer.text().contains("request_approval"), "{answer:?}");
    assert_eq!(listed("another-token-for-tests", &[]).await.status(), 401);
    let twice = r#"{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{"a":1,"a":2}}"#;
    let twice = Call::new("POST", "/mcp").body("application/json", twice).bearer(TOKEN);
    let twice = twice.header("accept", "application/json, text/event-stream");
    let mut connection = Connection::open(address).await.expect("it listens");
    let refused = connection.send(&twice).await.expect("an answer").json();
    assert_eq!((&refused["error"]["code"], &refused["id"]), (&json!(-32602), &json!(7)), "{refused}");
    assert_eq!(listed(TOKEN, &[("origin", "https://evil.example")]).await.status(), 403);

    official(&gateway, &[("MCP_URL", &format!("http://{listening}")), ("MCP_TOKEN", TOKEN)]).await;
}

#[tokio::test]
async fn the_official_client_gets_the_decision() {
    let gateway = Home::new(ACTIONS).start().await;
    official(&gateway, &[]).await;
}

/// The official client, in Node.js, if `npm ci` was run in `tests/mcp-client`. `COUNTERSIGN_TEST_MCP_WAIT` says for how many
/// seconds nobody decides.
async fn official(gateway: &Gateway, variables: &[(&str, &str)]) {
    let folder = project("tests/mcp-client");
    if !folder.join("node_modules").is_dir() {
        println!("skipped: `npm ci` was not run in tests/mcp-client");
        return;
    }
    let wait = variable("COUNTERSIGN_TEST_MCP_WAIT").unwrap_or_else(|| "0".to_owned());
    let mut node = std::process::Command::new("node");
    node.arg("client.mjs").current_dir(folder).env("PROGRAM", binary()).env("WAIT", wait);
    node.env("COUNTERSIGN_URL", format!("http://{}", gateway.address()));
    node.env("SLACK_SIGNING_SECRET", SIGNING_SECRET).envs(variables.iter().copied());
    let ran = tokio::task::spawn_blocking(move || node.output()).await;
    let ran = ran.expect("it does not panic").expect("node can be run");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("approved after"), "{ran:?}");
    println!("{said}");
}
