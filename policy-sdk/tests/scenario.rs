//! The scenarios fail when they should, and show what they saw.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use countersign_policy_sdk::{
    Act, Context, Policy, Reason, ReasonDoc, Request, Requirement, Ruling,
    scenario::{Scenario, edit},
};
use serde_json::{Value, json};

thread_local! {
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

/// Does by the actor's id what a policy may do, and some things that it may not.
struct Puppet;

impl Policy for Puppet {
    type Config = Value;
    type Memo = Value;
    const NAME: &'static str = "puppet";
    const VERSION: &'static str = "0.1.0";
    const SUMMARY: &'static str = "Does what the test wants.";
    const CONFIG_SCHEMA: &'static str = r#"{ "properties": { "n": { "type": "integer" } } }"#;
    const REASONS: &'static [ReasonDoc] =
        &[ReasonDoc { code: "known", help: "Known." }, ReasonDoc { code: "known_too", help: "Known, too." }];

    fn check(config: &Value) -> Vec<Reason> {
        match config.get("odd") {
            Some(_) => Reason::new("known", "odd").at("/odd").into(),
            None => Vec::new(),
        }
    }

    fn admit(config: &Value, request: &Request) -> Result<Value, Vec<Reason>> {
        match request.requester.id.as_str() {
            "unwelcome" => Err(Reason::new("known", "not you").into()),
            _ => Ok(config.clone()),
        }
    }

    fn judge(context: &Context<Self>) -> Result<Ruling, Vec<Reason>> {
        let submitted = context.request.submitted_at;
        let waiting = Ruling::waiting([Requirement::approval("a nod", 0, 1, ["U1"])])
            .editable(["k"])
            .wake_at(submitted.plus(Duration::from_secs(60)));
        match context.event.act.by().map(|by| by.id.as_str()) {
            Some("refused") => Err(vec![Reason::new("known", "no").at("k"), Reason::new("known_too", "no")]),
            Some("undocumented") => Err(Reason::new("unheard_of", "no").into()),
            Some("fickle") => {
                CALLS.set(CALLS.get() + 1);
                Ok(if CALLS.get().is_multiple_of(2) { Ruling::satisfied() } else { waiting }.granting())
            }
            Some("silent") => Ok(waiting),
            Some("denier") => Ok(Ruling::denied(Reason::new("known", "no")).granting()),
            Some(_) => Ok(Ruling::satisfied().granting()),
            None if context.event.act == Act::Tick => Ok(Ruling::satisfied()),
            None => Ok(waiting),
        }
    }
}

fn admitted() -> Scenario<Puppet> {
    Scenario::new(json!({ "n": 1 })).admitted()
}

/// Asserts that the scenario fails, and that the failure says this.
#[track_caller]
fn fails<T>(scenario: impl FnOnce() -> T, with: &str) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(scenario()))) else {
        panic!("expected: a failure with `{with}`\nseen: none");
    };
    let message = panic.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(message.contains(with), "expected: `{with}` in the failure\nseen: {message}");
}

#[test]
fn true_assertions_pass() {
    admitted()
        .remembers(&json!({ "n": 1 }))
        .waits_for("a nod")
        .waits_for_all(["a nod"])
        .asks(["U1"])
        .editable(["k"])
        .wakes_after(Duration::from_secs(60))
        .approve("refused")
        .refused_with("known_too")
        .refused_at("known", "k")
        .approve_with("silent", [edit("k", json!(1), json!(2))])
        .silent()
        .tick()
        .satisfied()
        .deny("denier")
        .denied_with("known", "no");
    Scenario::<Puppet>::new(json!({})).requested_by("unwelcome").not_admitted("known");
    Scenario::<Puppet>::config_refused(json!({ "n": "x" }), "/n");
    Scenario::<Puppet>::config_refused(json!({ "odd": 1 }), "/odd");
}

#[test]
fn false_assertions_fail() {
    fails(|| admitted().satisfied(), "expected: satisfied\nseen: waiting for `a nod` (0 of 1, by `U1`)");
    fails(|| admitted().waits_for("two nods"), "expected: waiting for `two nods`\nseen: waiting for `a nod`");
    fails(|| admitted().waits_for_all(["a nod", "b"]), "expected: waiting for `a nod`, `b`");
    fails(|| admitted().asks(["U2"]), "expected: a requirement that `U2` can meet");
    fails(|| admitted().editable(["l"]), "seen: editable: `k`");
    fails(|| admitted().wakes_after(Duration::from_secs(1)), "seen: after 60s");
    fails(|| admitted().remembers(&json!(2)), r#"seen: {"n":1}"#);
    fails(|| admitted().approve("U1").silent(), "expected: silence\nseen: satisfied");
    fails(
        || admitted().approve("U1").refused_with("known"),
        "expected: a refusal with `known`\nseen: satisfied",
    );
    fails(
        || admitted().approve("refused").refused_at("known", "l"),
        "seen: refused with `known` at `k` (no)",
    );
    fails(|| admitted().deny("denier").denied_with("known", "yes"), "seen: denied with `known`: no");
    fails(|| admitted().approve("U1").tick(), "expected: a wish to be woken");
    fails(|| Scenario::<Puppet>::new(json!({})).not_admitted("known"), "seen: admitted");
    fails(
        || Scenario::<Puppet>::new(json!({})).requested_by("unwelcome").admitted(),
        "seen: refused with `known`",
    );
    fails(|| Scenario::<Puppet>::new(json!({ "odd": 1 })), "expected: a configuration without fault");
    fails(|| Scenario::<Puppet>::config_refused(json!({}), "/n"), "expected: a fault at `/n`");
}

#[test]
fn an_act_that_does_not_count_needs_an_assertion() {
    fails(|| admitted().approve("silent").approve("U1"), "expected: an act that counts");
    fails(|| admitted().approve("silent").waits_for("a nod"), "seen: silent");
    fails(|| admitted().approve("refused"), "seen: refused with `known`");
}

#[test]
fn what_the_contract_forbids_fails() {
    fails(
        || admitted().approve("undocumented").refused_with("unheard_of"),
        "`unheard_of` among the documented REASONS",
    );
    fails(|| admitted().approve("fickle"), "expected: the same answer twice");
    fails(|| admitted().deny("denier").approve("U1"), "the request is denied");
    fails(|| Scenario::<Puppet>::new(json!({})).approve("U1"), "expected: a request, with `admitted()`");
}

#[test]
fn a_failure_shows_the_events_so_far() {
    let events = "a request under `puppet` {\"n\":1}:\n  U0REQUESTER makes a request: admitted\n  \
                 the request is submitted: waiting for `a nod` (0 of 1, by `U1`)\n  U1 approves: satisfied\n";
    fails(|| admitted().approve("U1").waits_for("more"), events);
}
