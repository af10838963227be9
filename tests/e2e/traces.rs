//! Traces, as a collector gets them: every span, its parent, its links and its attributes, as docs/TRACING.md says; and
//! collectors that are away.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use countersign_tests::{
    Ask, Call, Click, Collected, Collector, Gateway, Home, Manner, Receipt, Redis, Slack, deploy, project,
    within,
};
use serde_json::{Value, json};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// What must be in no trace: a parameter, a justification, a name, a secret.
const SECRETS: [&str; 6] =
    ["v9-hunter2", "because-hunter2", "U0ALICE", "U0REQ", "Rea Quester", "Bearer hunter2"];

const ACTIONS: &str = "
  deploy:
    description: Deploy to production
    timeout: 10m
    rerequest: { cooldown: 1s, limit: 5, window: 24h }
    consume: required
    policies:
      - use: persona-gate
        with: { personas: { security: [U0SEC] } }
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB] }
  brief:
    description: Nobody decides in time
    timeout: 3s
    escalate: { before: 2s, channel: C0ONCALL, mention: U0LEAD }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
  later:
    description: Approved by time
    timeout: 10m
    unattended: true
    policies:
      - use: misbehaving
        with: { do: wake, wake_after_ms: 1500 }
  one:
    description: The newest one stands
    timeout: 10m
    supersede: [ref]
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
";

/// A home whose gateway is traced by this collector.
fn traced(home: Home, collector: &Collector) -> Home {
    home.with("OTLP_ENDPOINT", &collector.url()).with("OTLP_HEADERS", "authorization=Bearer%20hunter2")
}

fn ask(action: &str) -> Ask {
    let mut body = Ask::new(action).params(json!({"ref": "v9-hunter2"})).body();
    body["meta"]["justification"] = "because-hunter2".into();
    Ask::of(body)
}

/// Makes a request as somebody who is at a place in a trace.
async fn made_within(gateway: &Gateway, ask: &Ask, trace: &str, state: &str) -> Receipt {
    let call =
        ask.call().header("traceparent", &format!("00-{trace}-{CALLER}-00")).header("tracestate", state);
    Receipt::read(gateway.send(&call).await).expect("it is admitted")
}

/// The columns of a span in the table of docs/TRACING.md: what it always says, and what it may say.
fn documented() -> BTreeMap<String, [BTreeSet<String>; 2]> {
    let page = fs::read_to_string(project("docs/TRACING.md")).expect("there is a page");
    let quoted =
        |cell: &str| -> BTreeSet<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let table = page.lines().skip_while(|line| !line.starts_with("| span ")).skip(2);
    let rows = table.take_while(|line| line.starts_with('|')).map(|line| {
        let cells: Vec<&str> = line.split('|').collect();
        let name = quoted(cells[1]).into_iter().next().expect("a name");
        (name, [quoted(cells[4]), quoted(cells[5])])
    });
    rows.collect()
}

/// Whether it begins a trace of its own that is linked to the span that made the request.
fn is_linked(span: &Collected, create: &Collected) -> bool {
    span.parent.is_empty()
        && span.trace != create.trace
        && span.links == [(create.trace.clone(), create.id.clone())]
}

#[tokio::test]
async fn every_span_is_as_the_page_says() {
    let (collector, slack) = (Collector::start().await, Slack::start().await);
    let home = traced(Home::new(ACTIONS), &collector)
        .with("COUNTERSIGN_POLICY_WATCH", "false")
        .with("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        .administered();
    let gateway = slack.gateway(home).await;

    let brief = gateway.create(&ask("brief")).await.expect("it is admitted");
    let later = gateway.create(&ask("later")).await.expect("it is admitted");
    let keyed = ask("deploy").idempotency_key("run-1");
    let main = made_within(&gateway, &keyed, TRACE, "rojo=00f067aa0ba902b7").await;
    let again = gateway.create(&keyed).await.expect("its key is known");
    assert_eq!(main.id, again.id);
    slack.shown(&main.id).await;
    assert_eq!(gateway.click_refused(&Click::approve("U0ALICE", &main.id)).await, "refused");
    gateway.click_ok(&Click::acknowledge("security", "U0SEC", &main.id)).await;
    gateway.click_ok(&Click::approve("U0ALICE", &main.id)).await;
    gateway.ended(&main.token).await;
    let use_it = json!({"token": main.token, "params": {"ref": "v9-hunter2"}});
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let consume = Call::post("/api/guard/consume", &use_it).header("traceparent", &parent);
    assert_eq!(gateway.send(&consume).await.status(), 200);
    let report = json!({"token": main.token, "status": "succeeded"});
    assert_eq!(gateway.send(&Call::post("/api/guard/outcome", &report)).await.status(), 200);

    let denied = gateway.create(&ask("deploy")).await.expect("it is admitted");
    slack.shown(&denied.id).await;
    gateway.click_ok(&Click::acknowledge("security", "U0SEC", &denied.id)).await;
    gateway.click_ok(&Click::withdraw("U0SEC", &denied.id)).await;
    gateway.click_ok(&Click::acknowledge("security", "U0SEC", &denied.id)).await;
    gateway.click_ok(&Click::deny("U0BOB", &denied.id)).await;
    let anew = gateway.rerequest_patiently(&denied, "U0REQ").await;
    gateway.cancel(&anew.token, None).await.expect("it is open");
    let older = gateway.create(&ask("one")).await.expect("it is admitted");
    let newer = gateway.create(&ask("one")).await.expect("it is admitted");
    gateway.create(&Ask::new("nowhere-hunter2")).await.expect_err("nobody knows it");

    gateway.home().set_actions(&deploy(1));
    gateway.hang_up();
    gateway.logged("another policy set is in force", 1).await;
    gateway.home().set_policy_set("version: 1");
    gateway.hang_up();
    gateway.logged("the policy set in force stays as it is", 1).await;
    assert_eq!(gateway.ended(&brief.token).await["status"], "expired");
    assert_eq!(gateway.ended(&later.token).await["status"], "approved");
    // When it has ended, it is shown so: once what was sent before is there, all of it is.
    slack.shown_when(&main.id, "to be approved", |message| message.shown().contains("Approved")).await;
    let shown = format!("/api/admin/requests/{}", main.id);
    assert_eq!(gateway.admin_call(Call::get(&shown)).await.expect("it is there")["traceId"], TRACE);
    let output = gateway.output();
    gateway.stop().await;
    let spans = collector.spans();

    // What a page says of each.
    let documented = documented();
    for span in &spans {
        let [always, known] =
            documented.get(&span.name).unwrap_or_else(|| panic!("the page lacks {}", span.name));
        let keys: BTreeSet<String> = span.attributes.keys().cloned().collect();
        assert!(keys.is_superset(always), "{span:#?}");
        assert!(keys.iter().all(|key| always.contains(key) || known.contains(key)), "{span:#?}");
        for (key, value) in [("service.name", "countersign"), ("deployment.environment.name", "test")] {
            assert_eq!(span.resource[key], value, "{span:#?}");
        }
        assert!(
            span.resource.contains_key("service.version")
                && span.resource.contains_key("service.instance.id")
        );
        assert_eq!(span.headers["authorization"], "Bearer hunter2");
        assert!(
            !SECRETS.iter().chain(&[main.token.as_str()]).any(|it| span.text.contains(it)),
            "{}",
            span.text
        );
        assert!(!span.text.contains("nowhere-hunter2"), "{}", span.text);
    }
    assert!(!output.contains("hunter2"), "{output}");
    let seen: BTreeSet<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    let missing: Vec<&String> = documented.keys().filter(|name| !seen.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "no span of these: {missing:?}");

    // Who belongs to whom.
    let all = |name: &str, request: &Receipt| -> Vec<&Collected> {
        // What takes longer than Slack waits is delivered again.
        let is_again = |span: &Collected| {
            span.attributes.get("countersign.outcome").is_some_and(|outcome| outcome == "duplicate_delivery")
        };
        let of = |span: &&Collected| span.name == name && span.is_of(&request.id);
        spans.iter().filter(of).filter(|span| !is_again(span)).collect()
    };
    let one = |name: &str, request: &Receipt| {
        let [one] = <[_; 1]>::try_from(all(name, request)).unwrap_or_else(|all| panic!("{name}: {all:#?}"));
        one
    };
    let children = |of: &Collected, name: &str| -> Vec<&Collected> {
        spans
            .iter()
            .filter(|span| span.parent == of.id && span.trace == of.trace && span.name == name)
            .collect()
    };
    let creates = all("create", &main);
    let [create, replay] = creates[..] else { panic!("{creates:#?}") };
    assert_eq!((create.trace.as_str(), create.parent.as_str()), (TRACE, CALLER));
    assert_eq!(
        (create.state.as_str(), create.text_of("countersign.outcome")),
        ("rojo=00f067aa0ba902b7", "created")
    );
    assert!(is_linked(replay, create) && replay.text_of("countersign.outcome") == "replayed", "{replay:#?}");
    for name in ["admit", "judge"] {
        let asked: BTreeMap<&str, &Collected> = children(create, name)
            .into_iter()
            .map(|span| (span.text_of("countersign.policy.name"), span))
            .collect();
        assert_eq!(asked.keys().copied().collect::<Vec<_>>(), ["persona-gate", "quorum"], "{name}");
        for (policy, span) in asked {
            let module = countersign_tests::digest(&Home::built(policy));
            assert_eq!(format!("sha256:{}", span.text_of("countersign.policy.digest")), module);
            assert!(span.attributes["countersign.policy.fuel"].as_u64().is_some_and(|fuel| fuel > 0));
            assert!(span.took_ns > 0 && span.took_ns < create.took_ns, "{span:#?}");
            let outcome = if name == "admit" { "admitted" } else { "waiting" };
            assert_eq!(span.text_of("countersign.outcome"), outcome);
        }
    }
    let stored = children(create, "store.commit");
    assert!(stored.len() == 1 && stored[0].text_of("countersign.outcome") == "stored", "{stored:#?}");

    let approvals = all("approve", &main);
    // One that takes longer than Slack waits is delivered again.
    let [refused, .., approved] = approvals[..] else { panic!("{approvals:#?}") };
    assert!(is_linked(refused, create) && is_linked(approved, create), "{approvals:#?}");
    assert_eq!(refused.text_of("countersign.outcome"), "refused");
    assert!(!refused.failed && children(refused, "store.commit").is_empty(), "a refusal is an answer");
    assert_eq!(approved.text_of("countersign.outcome"), "counted");
    assert_eq!(approved.text_of("countersign.status"), "approved");
    assert_eq!((children(approved, "judge").len(), children(approved, "store.commit").len()), (2, 1));
    assert!(
        children(approved, "judge").iter().all(|judge| judge.text_of("countersign.outcome") == "satisfied")
    );
    let consume = one("consume", &main);
    assert_eq!((consume.trace.as_str(), consume.parent.as_str()), (TRACE, CALLER));
    assert_eq!(consume.links, [(create.trace.clone(), create.id.clone())]);
    assert!(is_linked(one("report", &main), create));

    for (name, request, status) in [
        ("deny", &denied, "denied"),
        ("withdraw", &denied, "awaiting_personas"),
        ("cancel", &anew, "cancelled"),
        ("escalate", &brief, "ready_for_approval"),
        ("expire", &brief, "expired"),
        ("wake", &later, "approved"),
    ] {
        let span = one(name, request);
        assert!(is_linked(span, one("create", request)), "{span:#?}");
        assert_eq!(span.text_of("countersign.status"), status);
        assert_eq!(children(span, "store.commit").len(), 1, "{name}");
    }
    assert!(is_linked(one("create", &anew), one("create", &denied)));
    let supersede = one("supersede", &newer);
    let by = one("create", &newer);
    assert_eq!(supersede.parent, by.id);
    let places = [by, one("create", &older)].map(|span| (span.trace.clone(), span.id.clone()));
    assert_eq!(supersede.links, places);
    assert!(
        supersede.text_of("countersign.outcome") == "counted"
            && !children(supersede, "store.commit").is_empty()
    );

    for (name, method) in [("slack.post", "chat.postMessage"), ("slack.update", "chat.update")] {
        let calls = all(name, &main);
        assert!(!calls.is_empty(), "{name}");
        for call in calls {
            assert!(is_linked(call, create), "{call:#?}");
            assert_eq!(call.text_of("countersign.slack.method"), method);
            assert_eq!(
                (call.text_of("countersign.outcome"), call.text_of("countersign.slack.message")),
                ("ok", "main")
            );
        }
    }
    let notices: BTreeSet<&str> =
        all("slack.post", &brief).iter().map(|span| span.text_of("countersign.slack.message")).collect();
    assert!(notices.contains("escalation_channel"), "{notices:?}");

    let reloads: Vec<&Collected> = spans.iter().filter(|span| span.name == "reload").collect();
    let [taken, failed] = reloads[..] else { panic!("{reloads:#?}") };
    for span in [taken, failed] {
        assert_eq!(span.text_of("countersign.policy_set.trigger"), "sighup");
        assert!(span.parent.is_empty() && span.links.is_empty());
    }
    assert_eq!((taken.text_of("countersign.outcome"), taken.failed), ("ok", false));
    assert_eq!((failed.text_of("countersign.outcome"), failed.failed), ("invalid_policy_set", true));
}

/// The press comes after a restart, to another instance, or both.
#[tokio::test]
async fn a_press_long_after_is_linked_to_the_request() {
    let collector = Collector::start().await;
    let gateway = traced(Home::new(&deploy(1)), &collector).start().await;
    let request = gateway.open("deploy").await;
    let create = collector.span("create", |span| span.is_of(&request.id)).await;
    let gateway = gateway.kill().start().await;
    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    let approve = collector.span("approve", |span| span.is_of(&request.id)).await;
    assert!(is_linked(&approve, &create), "{approve:#?}");
    assert_ne!(approve.resource["service.instance.id"], create.resource["service.instance.id"]);

    let redis = Redis::start().await;
    let start = || traced(Home::new(&deploy(1)).with_redis(&redis), &collector).start();
    let (one, two) = (start().await, start().await);
    let request = one.open("deploy").await;
    two.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    let create = collector.span("create", |span| span.is_of(&request.id)).await;
    let approve = collector.span("approve", |span| span.is_of(&request.id)).await;
    assert!(is_linked(&approve, &create), "{approve:#?}");
}

/// A caller says neither what is recorded, nor anything that is malformed.
#[tokio::test]
async fn what_is_recorded_depends_on_the_trace_alone() {
    let collector = Collector::start().await;
    let home = traced(Home::new(&deploy(1)), &collector).with("COUNTERSIGN_TRACE_SAMPLE_RATIO", "0.5");
    let gateway = home.administered().start().await;
    // The last eight bytes of the id say whether it is recorded.
    let (low, high) = ("4bf92f3577b34da60000000000000001", "4bf92f3577b34da6ffffffffffffffff");
    let mut made = Vec::new();
    for (trace, flags) in [(high, "01"), (low, "00"), (high, "00"), (low, "01")] {
        let call = ask("deploy").call().header("traceparent", &format!("00-{trace}-{CALLER}-{flags}"));
        made.push((trace, Receipt::read(gateway.send(&call).await).expect("it is admitted")));
    }
    for (trace, request) in &made {
        let shown = Call::get(&format!("/api/admin/requests/{}", request.id));
        assert_eq!(gateway.admin_call(shown).await.expect("it is there")["traceId"], *trace);
    }
    let home = gateway.stop().await;
    let spans = collector.spans();
    for (trace, request) in &made {
        let of = spans.iter().filter(|span| span.is_of(&request.id)).count();
        assert_eq!(of > 0, *trace == low, "{trace}");
    }

    let gateway = home.with("COUNTERSIGN_TRACE_SAMPLE_RATIO", "1").start().await;
    let sound = format!("00-{TRACE}-{CALLER}-01");
    for (parents, state, expected) in [
        (vec!["00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"], "a=1", None),
        (vec![sound.as_str(), sound.as_str()], "a=1", None),
        (vec![], "a=1", None),
        (vec![sound.as_str()], "a=1,a=2", Some("")),
        (vec![sound.as_str()], "a=1", Some("a=1")),
    ] {
        let call =
            parents.iter().fold(ask("deploy").call(), |call, parent| call.header("traceparent", parent));
        let call = call.header("tracestate", state);
        let request = Receipt::read(gateway.send(&call).await).expect("it is admitted");
        let create = collector.span("create", |span| span.is_of(&request.id)).await;
        let within = (create.trace == TRACE).then_some(create.state.as_str());
        assert_eq!(within, expected, "{parents:?} {state}");
        assert_eq!(create.parent.is_empty(), expected.is_none());
    }
}

/// Requests go on, what the collector does not get is counted, and a shutdown does not wait for it.
#[tokio::test]
async fn a_collector_that_is_away_costs_nothing_but_counted_spans() {
    let down = {
        let gone = Collector::start().await;
        gone.url()
    };
    let (refuses, hangs) =
        (Collector::with_manner(Manner::Refuses(500)).await, Collector::with_manner(Manner::Hangs).await);
    for (url, collector) in [(down, None), (refuses.url(), Some(&refuses)), (hangs.url(), Some(&hangs))] {
        let home = Home::new(&deploy(1)).with("OTLP_ENDPOINT", &url).with("OTLP_TIMEOUT_MS", "3000");
        let gateway = home.start().await;
        let request = gateway.open("deploy").await;
        gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
        assert_eq!(gateway.ended(&request.token).await["status"], "approved");
        let dropped = async {
            while gateway.metrics().await.count("trace_spans_dropped_total", &[("reason", "export_failed")])
                == 0
            {
                tokio::task::yield_now().await;
            }
        };
        within("spans to be dropped", dropped).await;
        assert_eq!(gateway.metrics().await.count("trace_spans_exported_total", &[]), 0);
        gateway.logged("the collector does not take spans", 1).await;
        let Some(collector) = collector else {
            gateway.stop().await;
            continue;
        };
        // It comes back.
        collector.set_manner(Manner::Takes);
        let request = gateway.open("deploy").await;
        collector.span("create", |span| span.is_of(&request.id)).await;
        gateway.logged("the collector takes spans again", 1).await;
        // And hangs when the gateway is to stop.
        collector.set_manner(Manner::Hangs);
        gateway.open("deploy").await;
        let since = gateway.terminate();
        let (_, exit) = gateway.stopped(since).await;
        assert!(exit.status.success() && exit.took.as_secs() < 9, "{exit:?}");
        assert!(exit.output.contains("did not take the last spans in time"), "{}", exit.output);
    }
}

/// Nothing is kept of a trace that nobody records, and nothing is sent.
#[tokio::test]
async fn without_a_collector_nothing_is_traced() {
    let gateway = Home::new(&deploy(1)).administered().start().await;
    let request = made_within(&gateway, &ask("deploy"), TRACE, "a=1").await;
    let shown = Call::get(&format!("/api/admin/requests/{}", request.id));
    assert_eq!(gateway.admin_call(shown).await.expect("it is there")["traceId"], Value::Null);
    let metrics = gateway.metrics().await;
    assert!(
        metrics.has("trace_spans_exported_total") && metrics.count("trace_spans_dropped_total", &[]) == 0
    );
}
