//! What each method takes, what it refuses, and with which code.

use std::collections::BTreeSet;

use super::*;
use crate::workspace::{ChannelProfile, Workspace};

const BOT: &str = "xoxb-test";
const APP: &str = "xapp-test";

struct Slack {
    world: World,
    tokens: Tokens,
    addresses: Addresses,
}

impl Slack {
    fn new() -> Slack {
        let mut workspace = Workspace::sample();
        workspace.channels.extend([
            ChannelProfile { archived: true, ..ChannelProfile::new("C0OLD", "old") },
            ChannelProfile { bot_is_member: false, ..ChannelProfile::new("C0ELSEWHERE", "elsewhere") },
            ChannelProfile {
                bot_is_member: false,
                private: true,
                ..ChannelProfile::new("C0SECRET", "secret")
            },
            ChannelProfile { members: Some(vec!["U0BOB".into()]), ..ChannelProfile::new("C0BOB", "bob") },
        ]);
        let scopes = ["chat:write", "usergroups:read", "channels:history", "groups:history", "users:read"];
        let scopes = scopes.map(str::to_owned).into_iter().collect::<BTreeSet<_>>();
        Slack {
            world: World::new(workspace, scopes, f64::INFINITY, 1),
            tokens: Tokens { bot: BOT.into(), app: APP.into() },
            addresses: Addresses { http: "http://127.0.0.1:1".into(), socket: "ws://127.0.0.1:2".into() },
        }
    }

    fn call_as(&mut self, token: Option<&str>, method: &str, body: &Value) -> Outcome {
        let token = token.map(|token| format!("Bearer {token}"));
        let body = body.to_string();
        let json = Some("application/json; charset=utf-8");
        let arguments = Arguments::read("", token.as_deref(), json, body.as_bytes());
        call(&mut self.world, &self.tokens, &self.addresses, method, arguments)
    }

    fn call(&mut self, method: &str, body: &Value) -> Outcome {
        self.call_as(Some(BOT), method, body)
    }

    #[track_caller]
    fn ok(&mut self, method: &str, body: &Value) -> Value {
        match self.call(method, body) {
            Outcome::Answered(answer) => answer,
            other => panic!("{method} {body}: {other:?}"),
        }
    }

    /// The code of the refusal, or `ok`.
    fn check(&mut self, method: &str, body: &Value, code: &str) {
        assert_eq!(self.call(method, body).code(), code, "{method} {body}");
    }

    fn post(&mut self, text: &str) -> String {
        let answer = self.ok("chat.postMessage", &json!({"channel": "C0APPROVALS", "text": text}));
        answer["ts"].as_str().unwrap().to_owned()
    }
}

fn section(text: &str) -> Value {
    json!([{"type": "section", "text": {"type": "plain_text", "text": text}}])
}

fn modal() -> Value {
    json!({"type": "modal", "title": {"type": "plain_text", "text": "T"}, "blocks": []})
}

#[test]
fn tokens_are_checked_first() {
    let mut slack = Slack::new();
    let rows = [
        (None, "auth.test", "not_authed"),
        (Some(""), "auth.test", "not_authed"),
        (Some("xoxb-other"), "auth.test", "invalid_auth"),
        (Some(APP), "auth.test", "not_allowed_token_type"),
        (Some(BOT), "auth.test", "ok"),
        (Some(BOT), "apps.connections.open", "not_allowed_token_type"),
        (Some(APP), "apps.connections.open", "ok"),
        (Some(BOT), "chat.explode", "unknown_method"),
    ];
    for (token, method, code) in rows {
        assert_eq!(slack.call_as(token, method, &json!({})).code(), code, "{token:?} {method}");
    }
}

#[test]
fn arguments_come_in_every_way() {
    let read = |query: &str, content_type: Option<&str>, body: &str| {
        Arguments::read(query, None, content_type, body.as_bytes())
    };
    let rows = [
        ("channel=C0A&token=t", None, "", Ok("C0A")),
        ("token=t", Some("application/json"), r#"{"channel": "C0A"}"#, Ok("C0A")),
        ("", Some("application/x-www-form-urlencoded; charset=utf-8"), "channel=C0A&token=t", Ok("C0A")),
        ("", Some("application/json"), "{", Err("invalid_json")),
        ("", Some("application/json"), "[]", Err("json_not_object")),
        ("", Some("text/csv"), "x", Err("invalid_post_type")),
        ("", None, "x", Err("missing_post_type")),
    ];
    for (query, content_type, body, wanted) in rows {
        let found = read(query, content_type, body);
        match wanted {
            Ok(channel) => {
                let found = found.unwrap();
                assert_eq!(
                    (found.text("channel").as_deref(), found.token.as_deref()),
                    (Some(channel), Some("t"))
                );
            }
            Err(code) => assert_eq!(found.unwrap_err().code, code, "{query} {body}"),
        }
    }
    let header = Arguments::read("token=query", Some("Bearer header"), None, b"").unwrap();
    assert_eq!(header.token.as_deref(), Some("header"));
}

#[test]
fn posting_is_refused_for_these_reasons() {
    let mut slack = Slack::new();
    let parent = slack.post("parent");
    let reply =
        slack.ok("chat.postMessage", &json!({"channel": "C0APPROVALS", "text": "x", "thread_ts": parent}));
    let reply = reply["ts"].clone();
    let post = |channel: &str, members: Value| {
        let mut body = members;
        body["channel"] = json!(channel);
        body
    };
    let words = |count: usize| "w".repeat(count);
    let rows = [
        (post("C0APPROVALS", json!({"text": "x"})), "ok"),
        (post("C0PRIVATE", json!({"text": "x"})), "ok"),
        (json!({"text": "x"}), "invalid_arguments"),
        (post("C0NOWHERE", json!({"text": "x"})), "channel_not_found"),
        (post("C0SECRET", json!({"text": "x"})), "channel_not_found"),
        (post("C0ELSEWHERE", json!({"text": "x"})), "not_in_channel"),
        (post("C0OLD", json!({"text": "x"})), "is_archived"),
        (post("C0APPROVALS", json!({})), "no_text"),
        (post("C0APPROVALS", json!({"text": "", "blocks": []})), "no_text"),
        (post("C0APPROVALS", json!({"text": words(40_000)})), "ok"),
        (post("C0APPROVALS", json!({"text": words(40_001)})), "msg_too_long"),
        (post("C0APPROVALS", json!({"blocks": vec![section(&words(2_520))[0].clone(); 5]})), "ok"),
        (
            post(
                "C0APPROVALS",
                json!({"text": words(50), "blocks": vec![section(&words(2_520))[0].clone(); 5]}),
            ),
            "msg_too_long",
        ),
        (
            post("C0APPROVALS", json!({"blocks": vec![section(&words(2_530))[0].clone(); 5]})),
            "msg_blocks_too_long",
        ),
        (post("C0APPROVALS", json!({"blocks": section(&words(3_001))})), "invalid_blocks"),
        (post("C0APPROVALS", json!({"blocks": section("x").to_string()})), "ok"),
        (post("C0APPROVALS", json!({"blocks": "[{"})), "invalid_blocks_format"),
        (post("C0APPROVALS", json!({"blocks": {"type": "divider"}})), "invalid_blocks_format"),
        (post("C0APPROVALS", json!({"text": "x", "thread_ts": parent})), "ok"),
        (post("C0APPROVALS", json!({"text": "x", "thread_ts": "1.000001"})), "thread_not_found"),
        (post("C0APPROVALS", json!({"text": "x", "thread_ts": "yesterday"})), "invalid_thread_ts"),
        (post("C0APPROVALS", json!({"text": "x", "thread_ts": reply})), "cannot_reply_to_message"),
        (
            post("C0APPROVALS", json!({"text": "x", "metadata": {"event_type": "a", "event_payload": {}}})),
            "ok",
        ),
        (
            post("C0APPROVALS", json!({"text": "x", "metadata": {"event_type": "a b", "event_payload": {}}})),
            "invalid_metadata_format",
        ),
        (
            post("C0APPROVALS", json!({"text": "x", "metadata": {"event_type": "a"}})),
            "invalid_metadata_format",
        ),
    ];
    for (body, code) in rows {
        slack.check("chat.postMessage", &body, code);
    }
    let refused = slack.call("chat.postMessage", &post("C0APPROVALS", json!({"blocks": section("")})));
    let Outcome::Refused(refusal) = refused else { panic!("{refused:?}") };
    assert_eq!(
        refusal.json()["response_metadata"]["messages"],
        json!(["[ERROR] must be more than 0 characters [json-pointer:/blocks/0/text/text]"])
    );
}

#[test]
fn what_was_posted_is_echoed() {
    let mut slack = Slack::new();
    let metadata = json!({"event_type": "countersign_message", "event_payload": {"request_id": "req_1"}});
    let body = json!({"channel": "C0APPROVALS", "text": "x", "blocks": section("y"), "metadata": metadata});
    let answer = slack.ok("chat.postMessage", &body);
    assert_eq!((&answer["ok"], &answer["channel"]), (&json!(true), &json!("C0APPROVALS")));
    let message = &answer["message"];
    assert_eq!((&message["ts"], &message["text"]), (&answer["ts"], &json!("x")));
    assert_eq!((&message["bot_id"], &message["app_id"]), (&json!("B0COUNTERSIGN"), &json!("A0COUNTERSIGN")));
    assert!(message["blocks"][0]["block_id"].is_string(), "{message}");
    let ts = answer["ts"].as_str().unwrap();
    assert_eq!(ts.split_once('.').map(|(seconds, micros)| (seconds.len(), micros.len())), Some((10, 6)));
}

#[test]
fn updating_is_refused_for_these_reasons() {
    let mut slack = Slack::new();
    let ts = slack.post("x");
    let theirs = slack.world.say("U0BOB", "C0APPROVALS", None, "hello").ts;
    let update = |channel: &str, ts: &str, members: Value| {
        let mut body = members;
        body["channel"] = json!(channel);
        body["ts"] = json!(ts);
        body
    };
    let rows = [
        (update("C0APPROVALS", &ts, json!({"text": "y"})), "ok"),
        (update("C0APPROVALS", "1.000001", json!({"text": "y"})), "message_not_found"),
        (update("C0APPROVALS", "yesterday", json!({"text": "y"})), "message_not_found"),
        (update("C0PRIVATE", &ts, json!({"text": "y"})), "message_not_found"),
        (update("C0NOWHERE", &ts, json!({"text": "y"})), "channel_not_found"),
        (update("C0APPROVALS", &theirs, json!({"text": "y"})), "cant_update_message"),
        (update("C0OLD", &ts, json!({"text": "y"})), "is_inactive"),
        (update("C0APPROVALS", &ts, json!({})), "no_text"),
        (update("C0APPROVALS", &ts, json!({"text": "w".repeat(4000)})), "ok"),
        (update("C0APPROVALS", &ts, json!({"text": "w".repeat(4001)})), "msg_too_long"),
        (update("C0APPROVALS", &ts, json!({"text": "ж".repeat(2001)})), "msg_too_long"),
        (update("C0APPROVALS", &ts, json!({"blocks": [{"type": "x"}]})), "invalid_blocks"),
    ];
    for (body, code) in rows {
        slack.check("chat.update", &body, code);
    }
}

#[test]
fn an_update_replaces_what_it_brings() {
    let mut slack = Slack::new();
    let metadata = json!({"event_type": "a", "event_payload": {"n": "1"}});
    let posted = slack.ok(
        "chat.postMessage",
        &json!({"channel": "C0APPROVALS", "text": "x", "blocks": section("b"), "metadata": metadata}),
    );
    let ts = posted["ts"].clone();
    let mut update = |members: Value| {
        let mut body = members;
        body["channel"] = json!("C0APPROVALS");
        body["ts"] = ts.clone();
        slack.ok("chat.update", &body);
        slack.world.message("C0APPROVALS", ts.as_str().unwrap()).unwrap().clone()
    };
    let after = update(json!({"text": "y", "blocks": section("c")}));
    assert_eq!((after.text.as_str(), after.shown().as_str(), after.updates), ("y", "c", 1));
    assert_eq!(after.mark("n"), Some("1"), "metadata stays");
    let after = update(json!({"text": "z", "metadata": {"event_type": "a", "event_payload": {"n": "2"}}}));
    assert!(after.blocks.is_empty(), "text without blocks takes them away");
    assert_eq!((after.mark("n"), after.updates), (Some("2"), 2));
}

#[test]
fn ephemerals() {
    let mut slack = Slack::new();
    let rows = [
        (json!({"channel": "C0APPROVALS", "user": "U0BOB", "text": "x"}), "ok"),
        (json!({"channel": "C0APPROVALS", "user": "U0NOBODY", "text": "x"}), "user_not_found"),
        (json!({"channel": "C0APPROVALS", "text": "x"}), "invalid_arguments"),
        (json!({"channel": "C0APPROVALS", "user": "U0BOB"}), "no_text"),
        (json!({"channel": "C0BOB", "user": "U0BOB", "text": "x"}), "ok"),
        (json!({"channel": "C0BOB", "user": "U0ALICE", "text": "x"}), "user_not_in_channel"),
        (json!({"channel": "C0ELSEWHERE", "user": "U0BOB", "text": "x"}), "not_in_channel"),
        (json!({"channel": "C0OLD", "user": "U0BOB", "text": "x"}), "is_archived"),
        (
            json!({"channel": "C0APPROVALS", "user": "U0BOB", "text": "x", "thread_ts": "1.000001"}),
            "thread_not_found",
        ),
    ];
    for (body, code) in rows {
        slack.check("chat.postEphemeral", &body, code);
    }
    assert_eq!(slack.world.ephemerals.len(), 2);
}

#[test]
fn a_view_opens_with_a_fresh_trigger() {
    let mut slack = Slack::new();
    let trigger = slack.world.trigger("U0ALICE");
    let bad = json!({"type": "modal", "title": {"type": "plain_text", "text": "a title that is far too long"}, "blocks": []});
    slack.check("views.open", &json!({"trigger_id": "1.2.3", "view": modal()}), "invalid_trigger_id");
    slack.check("views.open", &json!({"view": modal()}), "invalid_arguments");
    slack.check("views.open", &json!({"trigger_id": trigger}), "invalid_arguments");
    // What is wrong with the view is found before the trigger is used up.
    slack.check("views.open", &json!({"trigger_id": trigger, "view": bad}), "invalid_arguments");
    let opened = slack.ok("views.open", &json!({"trigger_id": trigger, "view": modal().to_string()}));
    slack.check("views.open", &json!({"trigger_id": trigger, "view": modal()}), "exchanged_trigger_id");
    assert_eq!(slack.world.views_of("U0ALICE").count(), 1);

    let (id, hash) = (&opened["view"]["id"], &opened["view"]["hash"]);
    slack.check("views.update", &json!({"view_id": "V0", "view": modal()}), "not_found");
    slack.check("views.update", &json!({"view": modal()}), "invalid_arguments");
    slack.check("views.update", &json!({"view_id": id, "hash": "0.0", "view": modal()}), "hash_conflict");
    slack.check("views.update", &json!({"view_id": id, "hash": hash, "view": modal()}), "ok");
    slack.check("views.update", &json!({"view_id": id, "hash": hash, "view": modal()}), "hash_conflict");
    slack.check("views.update", &json!({"view_id": id, "view": modal()}), "ok");
}

#[test]
fn history_is_newest_first_and_threads_are_apart() {
    let mut slack = Slack::new();
    let metadata = json!({"event_type": "a", "event_payload": {"n": "1"}});
    let first = slack
        .ok("chat.postMessage", &json!({"channel": "C0APPROVALS", "text": "first", "metadata": metadata}));
    let first = first["ts"].as_str().unwrap().to_owned();
    let second = slack.post("second");
    let reply = json!({"channel": "C0APPROVALS", "text": "reply", "thread_ts": first, "metadata": metadata});
    slack.ok("chat.postMessage", &reply);
    let third = slack.post("third");

    let texts = |answer: &Value| -> Vec<String> {
        answer["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["text"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut history = |members: Value| {
        let mut body = members;
        body["channel"] = json!("C0APPROVALS");
        slack.ok("conversations.history", &body)
    };
    assert_eq!(texts(&history(json!({}))), ["third", "second", "first"]);
    assert_eq!(texts(&history(json!({"oldest": first}))), ["third", "second"]);
    assert_eq!(texts(&history(json!({"oldest": first, "inclusive": true}))), ["third", "second", "first"]);
    assert_eq!(
        texts(&history(json!({"latest": third, "oldest": second, "inclusive": "true"}))),
        ["third", "second"]
    );
    let page = history(json!({"limit": 2}));
    assert_eq!((texts(&page), &page["has_more"]), (vec!["third".into(), "second".into()], &json!(true)));
    let page = history(json!({"limit": "2", "cursor": page["response_metadata"]["next_cursor"]}));
    assert_eq!((texts(&page), &page["has_more"]), (vec!["first".into()], &json!(false)));
    assert_eq!(page["messages"][0]["reply_count"], 1);
    assert!(page["messages"][0]["metadata"].is_null(), "metadata only if it is asked for");
    let page = history(json!({"include_all_metadata": true}));
    assert_eq!(page["messages"][2]["metadata"]["event_payload"]["n"], "1");

    let replies = slack.ok(
        "conversations.replies",
        &json!({"channel": "C0APPROVALS", "ts": first, "include_all_metadata": true}),
    );
    assert_eq!(texts(&replies), ["first", "reply"]);
    assert_eq!(replies["messages"][1]["metadata"]["event_payload"]["n"], "1");
    let rows = [
        ("conversations.replies", json!({"channel": "C0APPROVALS", "ts": "1.000001"}), "thread_not_found"),
        ("conversations.history", json!({"channel": "C0ELSEWHERE"}), "not_in_channel"),
        ("conversations.history", json!({"channel": "C0NOWHERE"}), "channel_not_found"),
        ("conversations.history", json!({"channel": "C0APPROVALS", "limit": 1000}), "invalid_limit"),
        ("conversations.history", json!({"channel": "C0APPROVALS", "cursor": "x"}), "invalid_cursor"),
        ("conversations.history", json!({"channel": "C0APPROVALS", "oldest": "x"}), "invalid_ts_oldest"),
    ];
    for (method, body, code) in rows {
        slack.check(method, &body, code);
    }
}

#[test]
fn scopes_are_needed() {
    let rows = [
        ("chat:write", "chat.postMessage", json!({"channel": "C0APPROVALS", "text": "x"})),
        ("channels:history", "conversations.history", json!({"channel": "C0APPROVALS"})),
        ("groups:history", "conversations.history", json!({"channel": "C0PRIVATE"})),
        ("usergroups:read", "usergroups.users.list", json!({"usergroup": "S0RELEASE"})),
        ("users:read", "users.info", json!({"user": "U0BOB"})),
    ];
    for (scope, method, body) in rows {
        let mut slack = Slack::new();
        slack.check(method, &body, "ok");
        slack.world.scopes.remove(scope);
        let Outcome::Refused(refusal) = slack.call(method, &body) else { panic!("{method} without {scope}") };
        assert_eq!((refusal.code, &refusal.json()["needed"]), ("missing_scope", &json!(scope)), "{method}");
    }
}

#[test]
fn people_groups_and_links() {
    let mut slack = Slack::new();
    let ts = slack.post("x");
    let members = slack.ok("usergroups.users.list", &json!({"usergroup": "S0RELEASE"}));
    assert_eq!(members["users"], json!(["U0RM1", "U0RM2", "U0RM3"]));
    slack.check("usergroups.users.list", &json!({"usergroup": "S0NONE"}), "no_such_subteam");
    assert_eq!(slack.ok("users.info", &json!({"user": "U0BOB"}))["user"]["name"], "bob");
    slack.check("users.info", &json!({"user": "U0NOBODY"}), "user_not_found");
    let link = slack.ok("chat.getPermalink", &json!({"channel": "C0APPROVALS", "message_ts": ts}));
    let wanted = format!("https://acme.slack.com/archives/C0APPROVALS/p{}", ts.replace('.', ""));
    assert_eq!(link["permalink"], wanted.as_str());
    slack.check(
        "chat.getPermalink",
        &json!({"channel": "C0APPROVALS", "message_ts": "1.000001"}),
        "message_not_found",
    );
    let identity = slack.ok("auth.test", &json!({}));
    assert_eq!((&identity["team_id"], &identity["bot_id"]), (&json!("T0ACME"), &json!("B0COUNTERSIGN")));
}

#[test]
fn one_channel_takes_one_message_a_second() {
    let mut slack = Slack::new();
    slack.world.rates.set_factor(1.0);
    let post = |channel: &str| json!({"channel": channel, "text": "x"});
    for _ in 0..3 {
        slack.check("chat.postMessage", &post("C0APPROVALS"), "ok");
    }
    assert_eq!(slack.call("chat.postMessage", &post("C0APPROVALS")), Outcome::RateLimited { retry_after: 1 });
    slack.check("chat.postMessage", &post("C0ONCALL"), "ok");
}
