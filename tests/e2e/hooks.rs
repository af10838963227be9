//! Hooks of agents' hosts: whatever happens, the host is told in its own form, and in doubt it is told no.

use std::process::{Child, Command, Stdio};

use countersign_tests::{Call, Click, Ended, Fault, Gateway, Home, Relay, Running, binary, counters};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tempfile::TempDir;

const ACTIONS: &str = "
  agent_shell:
    description: An agent runs a command
    timeout: 10m
    redact: { hide: [] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
      - use: override-guard
        with: { keys: [command, tool_name], max_keys: 2, max_chars: 200 }
";

const RULES: &str = "
version: 1
requester: slack:U0REQ
rules:
  - { tool: Read, decide: allow }
  - { tool: WebFetch, decide: ask }
  - { tool: Bash, input: { command: 'git status*' }, decide: allow }
  - { tool: Bash, action: agent_shell, params: { environment: staging } }
";

const HOSTS: [&str; 2] = ["claude-code", "codex"];
const EVENTS: [&str; 2] = ["PreToolUse", "PermissionRequest"];

/// What a host does after a hook.
#[derive(Debug, PartialEq)]
enum Done {
    /// It makes the call, with this input if it is another one.
    Calls(Option<Value>),
    /// It asks its user.
    Asks,
    /// The hook has ended well and said nothing: it does whatever it does without one.
    Silent,
    /// The hook has failed, or nobody understands what it said: it goes on as if there were none.
    GoesOn,
    /// It does not make the call, for this reason.
    Blocks(String),
}

/// Reads an answer as a host does, by the exit code and the output: most failures let the call go on.
fn read(host: &str, event: &str, ended: &Ended) -> Done {
    match ended.code {
        Some(0) => {}
        Some(2) if host == "codex" && !ended.stderr.trim().is_empty() => {
            return Done::Blocks(ended.stderr.clone());
        }
        Some(2) if host == "claude-code" && event == "PreToolUse" => {
            return Done::Blocks(ended.stderr.clone());
        }
        _ => return Done::GoesOn,
    }
    if ended.stdout.trim().is_empty() {
        return Done::Silent;
    }
    let Ok(output) = serde_json::from_str::<Value>(&ended.stdout) else { return Done::GoesOn };
    let specific = &output["hookSpecificOutput"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if specific["hookEventName"] != event {
        return Done::GoesOn;
    }
    if event == "PreToolUse" {
        let (input, reason) = (&specific["updatedInput"], text(&specific["permissionDecisionReason"]));
        return match text(&specific["permissionDecision"]).as_str() {
            "deny" if host == "codex" && reason.trim().is_empty() => Done::GoesOn,
            "deny" => Done::Blocks(reason),
            "allow" if host == "codex" && input.is_null() => Done::GoesOn,
            "allow" => Done::Calls(Some(input.clone()).filter(|input| !input.is_null())),
            "ask" => Done::Asks,
            _ => Done::GoesOn,
        };
    }
    let decision = &specific["decision"];
    let input = Some(decision["updatedInput"].clone()).filter(|input| !input.is_null());
    match text(&decision["behavior"]).as_str() {
        "deny" => Done::Blocks(text(&decision["message"])),
        "allow" if host == "codex" && input.is_some() => Done::Blocks("fails closed".to_owned()),
        "allow" => Done::Calls(input),
        _ => Done::GoesOn,
    }
}

/// An agent at work, in a folder with a script and the rules.
struct Agent {
    folder: TempDir,
    url: String,
}

impl Agent {
    fn new(url: &str) -> Agent {
        let agent = Agent { folder: tempfile::tempdir().expect("a folder"), url: url.to_owned() };
        agent.write("rules.yaml", RULES);
        agent.write("deploy.sh", "echo deployed");
        agent
    }

    fn of(gateway: &Gateway) -> Agent {
        Agent::new(&format!("http://{}", gateway.address()))
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.folder.path().join(name), content).expect("written");
    }

    /// What a host sends.
    fn input(&self, event: &str, tool: &str, input: &Value) -> String {
        let folder = self.folder.path();
        json!({
            "session_id": "s1", "cwd": folder, "permission_mode": "default", "hook_event_name": event,
            "tool_name": tool, "tool_input": input, "tool_use_id": "t1",
        })
        .to_string()
    }

    fn run(&self, host: &str, more: &[&str], input: &str) -> Running {
        let words = ["hook", host, "--rules", "rules.yaml"];
        let url = ("COUNTERSIGN_URL", self.url.as_str());
        Running::start(self.folder.path(), &[&words[..], more].concat(), &[url], input)
    }

    /// Runs a hook for a command of a shell.
    fn shell(&self, host: &str, event: &str, command: &str, more: &[&str]) -> Running {
        self.run(host, more, &self.input(event, "Bash", &json!({"command": command, "timeout": 5})))
    }
}

/// The id of the `nth` request that was made through the relay, once the hook waits for it.
async fn asked(relay: &Relay, nth: usize) -> String {
    relay.called("wait-sse", nth).await;
    relay.made()[nth - 1].0.clone()
}

#[tokio::test]
async fn what_is_approved_is_called_and_what_is_denied_is_not() {
    let gateway = Home::new(ACTIONS).start().await;
    let relay = Relay::start(Some(gateway.address())).await;
    let agent = Agent::new(&relay.url());
    let mut nth = 0;
    for host in HOSTS {
        for event in EVENTS {
            // Before a tool is used, Codex knows no consent: it goes on if nothing is said.
            let consents =
                if (host, event) == ("codex", "PreToolUse") { Done::Silent } else { Done::Calls(None) };
            nth += 1;
            let hook = agent.shell(host, event, "bash deploy.sh", &[]);
            let id = asked(&relay, nth).await;
            gateway.click_ok(&Click::approve("U0ALICE", &id)).await;
            let ended = hook.ended().await;
            assert_eq!(read(host, event, &ended), consents, "{ended:?}");
            assert_eq!(gateway.status(&id).await["use"], "consumed");

            nth += 1;
            let hook = agent.shell(host, event, "bash deploy.sh", &[]);
            let id = asked(&relay, nth).await;
            gateway.click_ok(&Click::deny_because("U0ALICE", &id, "not on a Friday")).await;
            let ended = hook.ended().await;
            let Done::Blocks(why) = read(host, event, &ended) else { panic!("{ended:?}") };
            assert!(why.contains("not on a Friday"), "{why}");
        }
    }
}

/// People see all that is called, and the digests of the scripts that it names.
#[tokio::test]
async fn all_of_a_call_is_bound() {
    let gateway = Home::new(ACTIONS).start().await;
    let relay = Relay::start(Some(gateway.address())).await;
    let agent = Agent::new(&relay.url());
    let hook = agent.shell("claude-code", "PreToolUse", "bash deploy.sh", &[]);
    let id = asked(&relay, 1).await;
    let token = relay.made()[0].1.clone();
    gateway.click_ok(&Click::approve("U0ALICE", &id)).await;
    assert_eq!(read("claude-code", "PreToolUse", &hook.ended().await), Done::Calls(None));
    let params = gateway.look(&token).await["decisionParams"].clone();
    let digest = countersign_tests::digest(b"echo deployed").replace("sha256:", "");
    assert_eq!(
        params,
        json!({
            "command": "bash deploy.sh", "timeout": 5, "environment": "staging", "tool_name": "Bash",
            "working_directory": agent.folder.path(), "file_digests": {"deploy.sh": digest},
        })
    );

    // The script is changed while people decide.
    let hook = agent.shell("claude-code", "PreToolUse", "bash deploy.sh", &[]);
    let id = asked(&relay, 2).await;
    agent.write("deploy.sh", "echo something else");
    gateway.click_ok(&Click::approve("U0ALICE", &id)).await;
    let ended = hook.ended().await;
    let Done::Blocks(why) = read("claude-code", "PreToolUse", &ended) else { panic!("{ended:?}") };
    assert!(why.contains("another one than was approved"), "{why}");
    assert_eq!(gateway.status(&id).await["use"], "unused");
}

#[tokio::test]
async fn edited_input_is_handed_over_where_the_host_takes_it() {
    let gateway = Home::new(ACTIONS).start().await;
    let relay = Relay::start(Some(gateway.address())).await;
    let agent = Agent::new(&relay.url());
    let mut nth = 0;
    for host in HOSTS {
        for event in EVENTS {
            nth += 1;
            let hook = agent.shell(host, event, "make deploy", &[]);
            let id = asked(&relay, nth).await;
            gateway.click_ok(&Click::edit("U0ALICE", &id, &[("command", "make deploy-dry-run")])).await;
            let ended = hook.ended().await;
            let edited = json!({"command": "make deploy-dry-run", "timeout": 5});
            match (host, read(host, event, &ended)) {
                ("claude-code", done) => assert_eq!(done, Done::Calls(Some(edited)), "{ended:?}"),
                (_, Done::Blocks(why)) => assert!(why.contains("other input"), "{why}"),
                (_, done) => panic!("{done:?}: {ended:?}"),
            }
        }
    }
    // What is no part of the input cannot be changed, and an edit cannot bring in another script.
    for (key, value, said) in [
        ("tool_name", "Write", "`tool_name`"),
        ("command", "bash deploy.sh", "another one than was approved"),
    ] {
        nth += 1;
        let hook = agent.shell("claude-code", "PreToolUse", "make deploy", &[]);
        let id = asked(&relay, nth).await;
        gateway.click_ok(&Click::edit("U0ALICE", &id, &[(key, value)])).await;
        let ended = hook.ended().await;
        let Done::Blocks(why) = read("claude-code", "PreToolUse", &ended) else { panic!("{ended:?}") };
        assert!(why.contains(said), "{why}");
    }
}

#[tokio::test]
async fn rules_decide_without_the_gateway() {
    let agent = Agent::new("http://127.0.0.1:1");
    let said = async |host: &str, event: &str, tool: &str, input: Value| {
        read(host, event, &agent.run(host, &[], &agent.input(event, tool, &input)).ended().await)
    };
    let calls = || Done::Calls(None);
    let (claude, codex, pre, request) = ("claude-code", "codex", "PreToolUse", "PermissionRequest");
    for (host, event, tool, input, expected) in [
        (claude, pre, "Read", json!({"file_path": "a"}), calls()),
        (claude, request, "Read", json!({"file_path": "a"}), calls()),
        (claude, pre, "WebFetch", json!({}), Done::Asks),
        (claude, request, "WebFetch", json!({}), Done::Silent),
        (claude, pre, "Bash", json!({"command": "git status -s"}), calls()),
        (codex, pre, "Read", json!({}), Done::Silent),
        (codex, request, "Read", json!({}), calls()),
    ] {
        assert_eq!(said(host, event, tool, input).await, expected, "{host} {event} {tool}");
    }
    for (host, event, tool, input) in [
        (claude, pre, "Write", json!({})),
        (claude, request, "Write", json!({})),
        (codex, pre, "WebFetch", json!({})),
        (codex, request, "Write", json!({})),
    ] {
        assert!(matches!(said(host, event, tool, input).await, Done::Blocks(_)), "{host} {event} {tool}");
    }
}

/// A file that is being read when the time is over may never end; the process does.
#[tokio::test]
async fn what_never_ends_does_not_keep_a_hook_from_its_answer() {
    let agent = Agent::new("http://127.0.0.1:1");
    let rules = agent.folder.path().join("rules.yaml");
    std::fs::remove_file(&rules).expect("it is there");
    let made = std::process::Command::new("mkfifo").arg(&rules).status().expect("mkfifo");
    assert!(made.success());
    let ended = agent.shell("claude-code", "PreToolUse", "make deploy", &["--deadline", "1s"]).ended().await;
    let Done::Blocks(why) = read("claude-code", "PreToolUse", &ended) else { panic!("{ended:?}") };
    assert!(why.contains("nobody decided within 1s"), "{why}");
}

/// For each host and event, everything that can go wrong is a denial.
#[tokio::test]
async fn whatever_goes_wrong_the_host_is_told_no() {
    let gateway = Home::new(ACTIONS).start().await;
    let impatient = ["--patience", "0s"];
    for host in HOSTS {
        for event in EVENTS {
            let blocked = async |name: &str, said: &str, hook: Running| {
                let ended = hook.ended().await;
                let Done::Blocks(why) = read(host, event, &ended) else {
                    panic!("{host} {event} {name}: {ended:?}")
                };
                assert!(why.contains(said), "{host} {event} {name}: {why}");
            };
            let shell = |agent: &Agent, more: &[&str]| agent.shell(host, event, "make deploy", more);
            let relay = Relay::start(None).await;
            blocked("gateway away", "in doubt", shell(&Agent::new(&relay.url()), &impatient)).await;
            let gone = relay.url();
            drop(relay);
            blocked("nobody listens", "in doubt", shell(&Agent::new(&gone), &impatient)).await;
            let problem = r#"{"error":"internal","detail":"something broke"}"#;
            for (name, path, fault) in [
                ("HTML", "/", Fault::html("200 OK")),
                ("500", "/", Fault::answer("500 Internal Server Error", "application/problem+json", problem)),
                ("500 on create", "/api/guard/request", Fault::html("500 Internal Server Error")),
            ] {
                let relay = Relay::start(Some(gateway.address())).await;
                relay.fault(path, fault);
                blocked(name, "in doubt", shell(&Agent::new(&relay.url()), &impatient)).await;
            }
            // It is slow beyond the deadline: at the first call, and while people decide.
            for path in ["/", "/api/guard/request", "/api/guard/wait"] {
                let relay = Relay::start(Some(gateway.address())).await;
                relay.fault(path, Fault::Silence);
                let agent = Agent::new(&relay.url());
                blocked("slow", "nobody decided within 1s", shell(&agent, &["--deadline", "1s"])).await;
            }

            let agent = Agent::of(&gateway);
            let whole = agent.input(event, "Bash", &json!({"command": "make"}));
            let no_input = agent.input(event, "Bash", &Value::Null);
            let no_tool = whole.replace("\"tool_name\"", "\"tool\"");
            let twice = whole.replace("\"tool_name\"", "\"session_id\":\"s2\",\"tool_name\"");
            let half = &whole[..whole.len() / 2];
            for input in ["", "null", "[]", "<html>", half, &no_input, &no_tool, &twice] {
                blocked("malformed", "", agent.run(host, &["--event", event], input)).await;
            }
            for rules in ["", "version: 2", "version: 1\nrules: [{ tool: Bash, decide: perhaps }]", "\u{0}"] {
                agent.write("rules.yaml", rules);
                blocked("wrong rules", "rules.yaml", shell(&agent, &[])).await;
            }
            std::fs::remove_file(agent.folder.path().join("rules.yaml")).expect("it is there");
            blocked("no rules", "rules.yaml", shell(&agent, &[])).await;

            // A hook that is set up wrongly.
            let url = [("COUNTERSIGN_URL", agent.url.as_str())];
            let start = |words: &[&str], variables: &[(&str, &str)]| {
                Running::start(agent.folder.path(), words, variables, &whole)
            };
            blocked("no rules flag", "--rules", start(&["hook", host], &url)).await;
            blocked("no URL", "--url", start(&["hook", host, "--rules", "rules.yaml"], &[])).await;
            blocked("unknown flag", "--rulse", start(&["hook", host, "--rulse", "rules.yaml"], &url)).await;
            let endless = ["hook", host, "--rules", "rules.yaml", "--deadline", "300000000000years"];
            blocked("endless deadline", "longer than ten years", start(&endless, &url)).await;
            let typo = [url[0], ("COUNTERSIGN_JKWS", "keys.json")];
            blocked("unknown variable", "COUNTERSIGN_JKWS", start(&["hook", host, "--rules", "x"], &typo))
                .await;
        }
    }
}

/// A receipt is not signed by whom it should be; the hook is asked to end.
#[tokio::test]
async fn what_happens_while_people_decide_is_no_consent() {
    let other = Home::new(ACTIONS).start().await;
    let keys = other.send(&Call::get("/.well-known/jwks.json")).await.text();
    for host in HOSTS {
        for event in EVENTS {
            let blocked = |ended: Ended, said: &str| {
                let Done::Blocks(why) = read(host, event, &ended) else {
                    panic!("{host} {event}: {ended:?}")
                };
                assert!(why.contains(said), "{host} {event}: {why}");
            };
            let gateway = Home::new(ACTIONS).start().await;
            let relay = Relay::start(Some(gateway.address())).await;
            let agent = Agent::new(&relay.url());
            agent.write("jwks.json", &keys);
            let hook = agent.shell(host, event, "make deploy", &["--jwks", "jwks.json"]);
            let id = asked(&relay, 1).await;
            gateway.click_ok(&Click::approve("U0ALICE", &id)).await;
            blocked(hook.ended().await, "not among the keys at hand");
            assert_eq!(gateway.status(&id).await["use"], "unused");

            let hook = agent.shell(host, event, "make deploy", &[]);
            let id = asked(&relay, 2).await;
            hook.signal(Signal::TERM);
            blocked(hook.ended().await, "SIGTERM");
            assert_eq!(gateway.status(&id).await["status"], "cancelled");
        }
    }
}

/// While it still reads the input, and while it asks: the answer hangs, and the request is made once and cancelled.
#[tokio::test]
async fn a_signal_is_a_denial_at_any_time() {
    let gateway = Home::new(ACTIONS).start().await;
    // It takes calls and never answers.
    let hanging = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let hanging = hanging.local_addr().map(|address| (hanging, address)).expect("it has an address");
    for host in HOSTS {
        for event in EVENTS {
            let blocked = |ended: &Ended, said: &str| {
                let Done::Blocks(why) = read(host, event, ended) else { panic!("{host} {event}: {ended:?}") };
                assert!(why.contains(said), "{host} {event}: {why}");
            };
            let relay = Relay::start(Some(hanging.1)).await;
            let agent = Agent::new(&relay.url());
            let hook = agent.shell(host, event, "make deploy", &["--no-receipt"]);
            relay.called("/api/guard/request", 1).await;
            relay.lead_to(Some(gateway.address()));
            hook.signal(Signal::TERM);
            blocked(&hook.ended().await, "SIGTERM");
            assert_eq!(gateway.status(&relay.made()[0].0).await["status"], "cancelled");

            let rules = ["hook", host, "--event", event, "--rules", "rules.yaml"];
            for more in [&["--url", "http://127.0.0.1:1"][..], &["--no-such-flag"]] {
                let hook = Command::new(binary())
                    .args(rules)
                    .args(more)
                    .env_clear()
                    .envs(counters())
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .expect("it runs");
                catches(&hook, Signal::TERM).await;
                rustix::process::kill_process(Pid::from_child(&hook), Signal::TERM).expect("it runs");
                let mut hook = hook;
                // It stays open, so that there is no input.
                let stdin = hook.stdin.take();
                let ended = tokio::task::spawn_blocking(|| hook.wait_with_output().expect("it ends"));
                let ended =
                    countersign_tests::within("the hook to end", ended).await.expect("it is no panic");
                drop(stdin);
                let text = |bytes| String::from_utf8(bytes).expect("text");
                let (stdout, stderr) = (text(ended.stdout), text(ended.stderr));
                blocked(&Ended { code: ended.status.code(), stdout, stderr }, "");
            }
        }
    }
}

/// Waits until a process has a handler for a signal.
async fn catches(process: &Child, signal: Signal) {
    let file = format!("/proc/{}/status", process.id());
    countersign_tests::within("a handler", async {
        loop {
            let status = std::fs::read_to_string(&file).expect("it runs");
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("a mask");
            let caught = u64::from_str_radix(caught.trim(), 16).expect("it is hexadecimal");
            if caught & (1 << (signal.as_raw() - 1)) != 0 {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The gateway is killed while people decide, and does not come back.
#[tokio::test]
async fn a_gateway_that_is_killed_consents_to_nothing() {
    let gateway = Home::new(ACTIONS).start().await;
    let relay = Relay::start(Some(gateway.address())).await;
    let agent = Agent::new(&relay.url());
    let hosts = HOSTS.into_iter().flat_map(|host| EVENTS.map(|event| (host, event)));
    // All at once, since each lasts as long as its deadline.
    let hooks: Vec<_> = hosts
        .map(|(host, event)| (host, event, agent.shell(host, event, "make deploy", &["--deadline", "20s"])))
        .collect();
    asked(&relay, hooks.len()).await;
    relay.lead_to(None);
    drop(gateway.kill());
    for (host, event, hook) in hooks {
        let ended = hook.ended().await;
        let Done::Blocks(why) = read(host, event, &ended) else { panic!("{host} {event}: {ended:?}") };
        assert!(why.contains("nobody decided within 20s"), "{host} {event}: {why}");
    }
}
