//! Snapshots of the message in every state, of notices, and of ephemeral messages.

use std::sync::Arc;

use countersign_core::directory::{Directory, Members, Presence};
use countersign_core::lifecycle::{Consent, Consumption, Event, RunReport, RunResult, State, UseTerms};
use countersign_core::people::{People, Person};

use super::*;
use crate::blocks::cost;
use crate::ephemeral_text;
use crate::mentions;
use crate::message::{Message, message, minimal};
use crate::notice::{Place, escalation, replaced, succeeded};

/// The ids that these messages may mention.
fn known(id: &str) -> bool {
    ["U0DEV", "U0ANA", "U0BEN", "U0CAT", "U0SEC", "U0LEAD", "S0ONCALL"].contains(&id)
}

#[track_caller]
fn check(name: &str, message: &Message) {
    let json = serde_json::to_value(message).expect("serialises");
    let broken = limits::broken_message(&json, &known);
    assert!(broken.is_empty(), "{name}: {broken:?}");
    insta::assert_json_snapshot!(name, message);
}

fn buttons(message: &Message) -> Vec<String> {
    let json = serde_json::to_value(&message.blocks).expect("serialises");
    let rows = json.as_array().into_iter().flatten().filter(|block| block["type"] == "actions");
    rows.flat_map(|row| row["elements"].as_array().cloned().unwrap_or_default())
        .map(|button| button["action_id"].as_str().unwrap_or_default().to_owned())
        .collect()
}

fn awaiting_personas() -> Request {
    let release = persona("release", &["@release-managers"]);
    let security = persona("security", &["U0SEC"]);
    let request = open(vec![release.clone(), security, approvals(0, 2)]);
    after(request, 2, Some("U0SEC"), acknowledge("security"), waiting(vec![release, approvals(0, 2)]))
}

fn one_approval() -> Request {
    after(open(vec![approvals(0, 2)]), 3, Some("U0ANA"), approve(), waiting(vec![approvals(1, 2)]))
}

fn with_edits() -> Request {
    let edits = edited(&[
        ("replicas", Some(json!(3)), Some(json!(5))),
        ("ref", Some(json!("v1.42.0")), Some(json!("v1.42.1"))),
    ]);
    after(open(vec![approvals(0, 2)]), 4, Some("U0BEN"), edits, waiting(vec![approvals(1, 2)]))
}

fn expired() -> Request {
    one_approval().expire(minutes(20)).expect("it is due").request
}

#[test]
fn pending_for_a_time_window() {
    let window = Requirement {
        kind: RequirementKind::Time,
        label: "deploys from 13:00".into(),
        have: 0,
        need: 1,
        eligible: Vec::new(),
        excluded: Vec::new(),
    };
    let mut request = open(vec![window, approvals(0, 1)]);
    let State::Open(open) = &mut request.state else { panic!("it is open") };
    open.wake_at = Some(minutes(10));
    check("pending", &message(&request, &entry(), &Directory::default(), minutes(1)));
}

#[test]
fn awaiting_personas_with_partial_progress() {
    let message = message(&awaiting_personas(), &entry(), &Directory::default(), minutes(3));
    check("awaiting_personas", &message);
    assert_eq!(buttons(&message), ["persona_ack:release", "deny", "withdraw"]);
}

#[test]
fn the_rows_of_persona_buttons_say_which_parameters_they_are_beside() {
    let names: Vec<String> = (0..30).map(|n| format!("persona-{n:02}")).collect();
    let requirements = names.iter().map(|name| persona(name, &["U0SEC"])).collect();
    let request = open(requirements);
    let payload = request.payload_hash();
    let message = message(&request, &entry(), &Directory::default(), minutes(3));
    let json = serde_json::to_value(&message.blocks).expect("serialises");
    let rows = json.as_array().into_iter().flatten().filter(|block| block["type"] == "actions");
    let ids: Vec<&str> = rows.filter_map(|row| row["block_id"].as_str()).collect();
    let expected =
        [format!("decide:{payload}:1"), format!("decide:{payload}:2"), format!("decide:{payload}")];
    assert_eq!(ids, expected);
}

#[test]
fn ready() {
    let message = message(&open(vec![approvals(0, 1)]), &entry(), &Directory::default(), minutes(1));
    check("ready", &message);
    assert_eq!(buttons(&message), ["approve", "approve_edit", "deny"]);
}

#[test]
fn nobody_is_waited_for_who_cannot_act() {
    let directory = Directory::default();
    let gone = |id: &str| directory.put_user(id, Presence { gone: true, as_of: START });
    gone("U0GONE");
    let mut people = People::default();
    let aliases = vec!["U0DANA".to_owned(), "github:dana-d".to_owned()];
    people.add(Person { name: "dana".to_owned(), aliases }).unwrap();
    directory.set_people(Arc::new(people));
    let mut entry = entry();
    let as_of = START;
    directory.put("S0KNOWN", Members { ids: ["U0ONE".to_owned()].into(), as_of });
    let mixed = ["S0KNOWN", "S0UNKNOWN", "U0SAM", "U0GONE"].map(str::to_owned);
    entry.groups.insert("mixed".to_owned(), mixed.into());
    entry.groups.insert("elsewhere".to_owned(), ["S0UNKNOWN".to_owned()].into());
    entry.groups.insert("big".to_owned(), (0..8).map(|n| format!("U0M{n}")).collect());
    entry.groups.insert("left".to_owned(), ["U0GONE".to_owned()].into());
    entry.groups.insert("team".to_owned(), ["U0REQ", "U0SAM"].map(str::to_owned).into());
    for (eligible, excluded, expected) in [
        (&["U0CAT", "U0GONE"][..], &[][..], "waiting for <@U0CAT>"),
        (&["U0CAT", "U0REQ"], &["U0REQ"], "waiting for <@U0CAT>"),
        (&["U0REQ", "U0GONE"], &["U0REQ"], "*nobody else can approve it*"),
        (&["@team"], &["U0REQ"], "waiting for @team (<@U0SAM>; except the requester)"),
        (&["@team"], &["U0REQ", "U0SAM"], "waiting for @team (nobody)"),
        (&["@left", "U0CAT"], &[], "waiting for @left (nobody), <@U0CAT>"),
        (&["@team"], &["U0OTHER"], "waiting for @team (<@U0REQ>, <@U0SAM>)"),
        (&["@big"], &[], "waiting for @big (<@U0M0>, <@U0M1>, <@U0M2> and 5 more)"),
        (&["@mixed", "U0CAT"], &[], "waiting for @mixed (<@U0ONE>, <@U0SAM> and others), <@U0CAT>"),
        (&["@elsewhere"], &[], "waiting for @elsewhere"),
        (
            &["@big"; 1],
            &["U0M0"],
            "waiting for @big (<@U0M1>, <@U0M2>, <@U0M3> and 4 more; except the requester)",
        ),
        (&["dana", "bob"], &[], "waiting for <@U0DANA>, `bob`"),
        (&["dana"], &["dana"], "*nobody else can approve it*"),
        (&[], &["U0REQ"], "waiting for somebody"),
    ] {
        let strings = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        let wanted =
            Requirement { eligible: strings(eligible), excluded: strings(excluded), ..approvals(0, 1) };
        let shown = message(&open(vec![wanted]), &entry, &directory, minutes(1));
        let text = serde_json::to_string(&shown).unwrap();
        let line = format!("0 of 1 approval: {expected}\"");
        assert!(text.contains(&line), "{eligible:?} without {excluded:?}: {line}\n{text}");
    }
}

#[test]
fn ready_with_one_approval() {
    let message = message(&one_approval(), &entry(), &Directory::default(), minutes(8));
    check("one_approval", &message);
    assert_eq!(buttons(&message), ["approve", "approve_edit", "deny", "withdraw"]);
}

#[test]
fn escalated() {
    let request = after(one_approval(), 15, None, Act::Escalated, waiting(vec![approvals(1, 3)]));
    check("escalated", &message(&request, &entry(), &Directory::default(), minutes(15)));
    check(
        "escalated_notice_thread",
        &escalation(&request, &entry(), &Directory::default(), minutes(15), Place::Thread, None),
    );
    let permalink = Some("https://acme.slack.example/archives/C0DEPLOYS/p1?thread_ts=1&cid=2");
    let mut entry = entry();
    let escalate = entry.escalate.as_mut().expect("it escalates");
    escalate.mention = Some("@on-call".into());
    let members = ["U0ANA", "S0ONCALL", "bob"].map(str::to_owned);
    entry.groups.insert("on-call".into(), members.into());
    let notice = escalation(&request, &entry, &Directory::default(), minutes(16), Place::Channel, permalink);
    check("escalated_notice_channel", &notice);
    let expired = request.expire(minutes(20)).expect("it is due").request;
    check(
        "escalated_notice_ended",
        &escalation(&expired, &entry, &Directory::default(), minutes(21), Place::Thread, permalink),
    );
}

#[test]
fn edits_so_far() {
    check("with_edits", &message(&with_edits(), &entry(), &Directory::default(), minutes(5)));
}

/// Ana approved, and Ben then edited what she had approved.
fn replaced_approval() -> Request {
    let edits = edited(&[
        ("replicas", Some(json!(3)), Some(json!(5))),
        ("ref", Some(json!("v1.42.0")), None),
        ("note", None, Some(json!(format!("{} {}", HOSTILE.replace("U0ANA", "U0EVE"), "x".repeat(9000))))),
        ("password", Some(json!("hunter2")), Some(json!("hunter3"))),
    ]);
    let first =
        after(open(vec![approvals(0, 2)]), 2, Some("U0ANA"), approve(), waiting(vec![approvals(1, 2)]));
    let mut request =
        after(first, 3, Some("ben"), Act::Approve { edits: vec![] }, waiting(vec![approvals(2, 3)]));
    let alias = request.history.last_mut().and_then(|event| event.by.as_mut()).expect("somebody");
    alias.alias = Some("U0BEN".into());
    let seq = u32::try_from(request.history.len()).expect("few");
    let by = Actor { id: "U0CAT".into(), ..Actor::default() };
    request.history.push(Event { seq, at: minutes(4), by: Some(by), act: edits });
    Arc::make_mut(&mut request.submission).redacted.insert("password".into());
    request
}

#[test]
fn whose_approval_was_replaced_is_told() {
    let request = replaced_approval();
    let replacements = request.replacements();
    let [replacement] = &replacements[..] else { panic!("one: {replacements:?}") };
    let permalink = Some("https://acme.slack.example/archives/C0DEPLOYS/p1?thread_ts=1&cid=2");
    let directory = Directory::default();
    let render =
        |request: &Request, mentions| replaced(request, replacement, &directory, permalink, mentions);
    let open = render(&request, true);
    check("replaced_notice", &open);
    let ended = request.cancel(minutes(9), None).expect("it is open").request;
    let (late, closed) = (render(&ended, true), render(&ended, false));
    check("replaced_notice_closed", &closed);
    for (message, mentioned) in [(&open, true), (&late, true), (&closed, false)] {
        let shown = serde_json::to_string(message).expect("serialises");
        for user in ["<@U0ANA>", "<@U0BEN>"] {
            assert_eq!(shown.contains(user), mentioned, "{user}: {shown}");
        }
        for hidden in ["<@U0CAT>", "password", "hunter"] {
            assert!(!shown.contains(hidden), "{hidden}: {shown}");
        }
        assert!(shown.contains("cut: "), "{shown}");
    }
    let mut people = People::default();
    people.add(Person { name: "cat".to_owned(), aliases: vec!["U0CAT".to_owned()] }).unwrap();
    directory.set_people(Arc::new(people));
    let named = serde_json::to_string(&replaced(&request, replacement, &directory, None, true)).unwrap();
    assert!(named.contains("`cat` approved `deploy_prod` with other parameters"), "{named}");
}

#[test]
fn everybody_whose_approval_was_replaced_is_mentioned() {
    let mut request = open(vec![approvals(0, 400)]);
    let people: Vec<String> = (0..400).map(|n| format!("U0PERSON{n:04}")).collect();
    let acts = people.iter().map(|id| (id.as_str(), approve()));
    let edits = edited(&[("replicas", Some(json!("x".repeat(9000))), Some(json!("y".repeat(9000))))]);
    for (id, act) in acts.chain([("U0EDITOR", edits)]) {
        let seq = u32::try_from(request.history.len()).expect("few");
        let by = Some(Actor { id: id.into(), ..Actor::default() });
        request.history.push(Event { seq, at: minutes(4), by, act });
    }
    let replacements = request.replacements();
    let message = replaced(&request, &replacements[0], &Directory::default(), None, true);
    let json = serde_json::to_value(&message).expect("serialises");
    let blocks = json["blocks"].to_string();
    for id in &people {
        assert_eq!(blocks.matches(&format!("<@{id}>")).count(), 1, "{id}");
    }
    let broken = limits::broken_message(&json, &|id| people.iter().any(|person| person == id));
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn approved() {
    let request = after(one_approval(), 9, Some("U0CAT"), approve(), Standing::Satisfied);
    let message = message(&request, &entry(), &Directory::default(), minutes(30));
    check("approved", &message);
    assert_eq!(buttons(&message), ["show_all"]);
}

/// Nothing is said of an approval that may be used at any time, by whoever only waits for it.
#[test]
fn how_far_an_approval_was_used() {
    let hour = 60 * 60_000;
    let terms = |valid_for_ms, required| UseTerms { valid_for_ms, required };
    let (at_any_time, in_time) = (UseTerms::default(), terms(Some(hour), false));
    let report = |result, detail: Option<&str>| RunReport {
        at: minutes(31),
        result,
        detail: detail.map(str::to_owned),
    };
    let used = |report| Some(Consumption { at: minutes(30), by: None, repeat: None, report });
    let succeeded = || used(Some(report(RunResult::Succeeded, None)));
    for (terms, consumed, minute, expected) in [
        (at_any_time, None, 30, ""),
        (terms(None, true), None, 30, "*Not used yet*"),
        (in_time, None, 30, "*Not used yet*, possible until <!date^1772370540"),
        (in_time, None, 69, "*Lapsed*: nobody used it in time"),
        (in_time, used(None), 300, "*Used* <!date^1772368200"),
        (
            at_any_time,
            succeeded(),
            31,
            "*Ran* <!date^1772368200^{date_short_pretty} at {time}|2026-03-01 12:30 UTC>, *succeeded*",
        ),
        (at_any_time, used(Some(report(RunResult::Failed, None))), 31, ", *failed*"),
    ] {
        let mut request = after(one_approval(), 9, Some("U0CAT"), approve(), Standing::Satisfied);
        Arc::make_mut(&mut request.submission).terms = terms;
        let State::Approved { decided, .. } = request.state else { panic!("it was approved") };
        request.state = State::Approved { decided, consumed: consumed.clone() };
        let shown = message(&request, &entry(), &Directory::default(), minutes(minute));
        let words = serde_json::to_value(&shown.blocks[2]).unwrap()["text"]["text"].clone();
        let lines: Vec<&str> = words.as_str().unwrap().lines().collect();
        assert_eq!(lines.len(), if expected.is_empty() { 2 } else { 3 }, "{lines:?}");
        assert!(lines.last().unwrap().contains(expected), "{expected}: {lines:?}");
        assert_eq!(buttons(&shown), ["show_all"]);
    }
    let mut request = after(one_approval(), 9, Some("U0CAT"), approve(), Standing::Satisfied);
    let State::Approved { decided, .. } = request.state else { panic!("it was approved") };
    let failed = used(Some(report(RunResult::Failed, Some("exit code 1:\n*Approved* by <!channel>"))));
    request.state = State::Approved { decided, consumed: failed };
    check("approved_and_failed", &message(&request, &entry(), &Directory::default(), minutes(31)));
}

#[test]
fn approved_with_edits() {
    let request = after(with_edits(), 9, Some("U0CAT"), approve(), Standing::Satisfied);
    check("approved_with_edits", &message(&request, &entry(), &Directory::default(), minutes(30)));
}

#[test]
fn approved_by_personas_alone() {
    let request = open(vec![persona("security", &["U0SEC"])]);
    let request = after(request, 1, Some("U0SEC"), acknowledge("security"), Standing::Satisfied);
    check("approved_by_personas", &message(&request, &entry(), &Directory::default(), minutes(2)));
}

#[test]
fn approved_unattended() {
    let mut submission = submission();
    submission.unattended = true;
    let request = submit(submission, Standing::Satisfied);
    check("unattended", &message(&request, &entry(), &Directory::default(), minutes(2)));
}

#[test]
fn how_the_requester_is_known() {
    let identity = |known, authenticated| Some(Identity { id: "x".into(), known, authenticated });
    for (requester_is, caller, owners, expected) in [
        (identity(Known::Person, true), Some("web"), &[][..], "<@U0DEV> (verified, through `web`) for "),
        (identity(Known::Unknown, false), Some("portal"), &[], "(`slack:U0DEV`) (as `portal` says) for "),
        (identity(Known::Person, false), None, &[], "<@U0DEV> (not verified) for "),
        (
            identity(Known::Machine, true),
            Some("nightly"),
            &["U0ANA", "dana"],
            ", owned by `U0ANA`, `dana` for ",
        ),
        (identity(Known::Machine, true), Some("nightly"), &[], "<@U0DEV> for "),
        // Whoever has a part in what a gate asks for counts as a requester too; the requester is named once.
        (
            identity(Known::Person, true),
            Some("merge-requests"),
            &["dana", "gitlab:1043", "x"],
            "(verified, through `merge-requests`) for `acme/web`, branch `main`, PR `1234`, run `77-1`\\n\
             *Count as requesters too:* `dana`, `gitlab:1043`\"",
        ),
        (
            identity(Known::Unknown, false),
            Some("portal"),
            &["dana"],
            "\\n*Count as requesters too:* `dana`\"",
        ),
        // Of requests from before that was kept.
        (None, None, &[], "(`slack:U0DEV`) for "),
    ] {
        let mut submission = submission();
        submission.requester_is = requester_is.clone();
        submission.caller = caller.map(str::to_owned);
        submission.owners = owners.iter().map(|owner| (*owner).to_owned()).collect();
        let request = submit(submission, waiting(vec![approvals(0, 1)]));
        let shown = message(&request, &entry(), &Directory::default(), minutes(2));
        let json = serde_json::to_string(&shown).unwrap();
        assert!(json.contains(expected), "{requester_is:?} {caller:?}: {json}");
    }
}

/// Whoever holds the wait token says in whose name a request is made again.
#[test]
fn how_whoever_made_it_again_is_known() {
    let identity = |known, authenticated| Some(Identity { id: "U0BEN".into(), known, authenticated });
    for (rerequester_is, expected) in [
        (identity(Known::Person, true), "<@U0BEN> (verified)"),
        (identity(Known::Person, false), "<@U0BEN> (not verified)"),
        (identity(Known::Unknown, false), "`Ben` (`slack:U0BEN`) (not verified)"),
        // Of requests from before that was kept.
        (None, "`Ben` (`slack:U0BEN`)"),
    ] {
        let mut submission = submission();
        submission.caller = Some("web".into());
        submission.depth = 1;
        submission.rerequested_by =
            Some(Party { id: "U0BEN".into(), source: "slack".into(), display: Some("Ben".into()) });
        submission.rerequester_is = rerequester_is;
        let request = submit(submission, waiting(vec![approvals(0, 1)]));
        let line = format!(":repeat: request 2 of its lineage, made again by {expected}\"");
        let shown = message(&request, &entry(), &Directory::default(), minutes(2));
        let view = crate::review::page(&request, 1).expect("a page");
        for json in [serde_json::to_string(&shown).unwrap(), serde_json::to_string(&view).unwrap()] {
            assert!(json.contains(&line), "{line}: {json}");
        }
    }
}

/// What is cut is no less a part of what people agree to, wherever it stands.
#[test]
fn a_message_in_which_the_origin_or_a_name_is_cut_leads_to_a_review_that_shows_it() {
    type Change = fn(&mut Submission, String);
    let rows: [(&str, usize, Change); 11] = [
        ("action", 148, |submission, text| submission.action = text),
        ("repo", 118, |submission, text| submission.origin.repo = text),
        ("branch", 118, |submission, text| submission.origin.branch = Some(text)),
        ("pr", 58, |submission, text| submission.origin.pr = Some(text.into())),
        ("run", 58, |submission, text| submission.origin.run_id = Some(text.into())),
        ("source", 98 - ":U0DEV".len(), |submission, text| submission.requester.source = text),
        ("id", 98 - "slack:".len(), |submission, text| submission.requester.id = text),
        ("display", 78, |submission, text| submission.requester.display = Some(text)),
        ("caller", 58, |submission, text| submission.caller = Some(text)),
        ("owner", 58, |submission, text| submission.owners = [text].into()),
        ("rerequester", 98 - "slack:".len(), |submission, text| {
            submission.depth = 1;
            submission.rerequested_by = Some(Party { id: text, source: "slack".into(), display: None });
        }),
    ];
    let check = |name: &str, text: String, shown: &str, is_whole: bool, change: Change| {
        let mut submission = submission();
        submission.requester_is = Some(Identity { known: Known::Unknown, ..known_person("x") });
        change(&mut submission, text);
        let request = open_with(submission, vec![approvals(0, 1)]);
        assert_eq!(crate::is_whole(&request, &entry()), is_whole, "{name}: {shown}");
        let message = message(&request, &entry(), &Directory::default(), minutes(1));
        let expected = if is_whole { &["approve", "approve_edit", "deny"][..] } else { &["review", "deny"] };
        assert_eq!(buttons(&message), expected, "{name}");
        let view = serde_json::to_value(crate::review::page(&request, 1).expect("a page")).unwrap();
        let first = &view["blocks"][1]["elements"];
        assert_eq!(first[0]["elements"][0]["text"], "Action, origin and requester, as canonical JSON");
        let first = first[1]["elements"][0]["text"].as_str().unwrap();
        assert!(first.contains(&format!("\"{shown}\"")), "{name}: {shown} is not in {first}");
    };
    for (name, widest, change) in rows {
        let (fits, cut) = ("x".repeat(widest), "x".repeat(widest + 1));
        check(name, fits.clone(), &fits, true, change);
        check(name, cut.clone(), &cut, false, change);
        // An escape takes more room than its character.
        check(name, "\u{200b}".repeat(20), &"\\u{200b}".repeat(20), false, change);
    }

    // An action without a description has its name as the heading.
    let without = PolicyEntry { description: String::new(), ..entry() };
    for (width, is_whole) in [(141, true), (142, false)] {
        let request = open_with(Submission { action: "x".repeat(width), ..submission() }, vec![]);
        assert_eq!(crate::is_whole(&request, &without), is_whole, "{width}");
    }
    // Others are counted.
    for (number, width, is_whole) in [(7, 10, true), (8, 10, false), (4, 50, true), (5, 50, false)] {
        let owners = (0..number).map(|n| format!("{n:0width$}")).collect();
        let request = open_with(Submission { owners, ..submission() }, vec![]);
        assert_eq!(crate::is_whole(&request, &entry()), is_whole, "{number}");
    }
}

#[test]
fn denied_with_a_reason() {
    let reason = "Not during the freeze:\nask again on *Monday* <!channel>";
    let deny = Act::Deny { reason: Some(reason.into()) };
    let request = after(one_approval(), 5, Some("U0CAT"), deny, denied(reason));
    let message = message(&request, &entry(), &Directory::default(), minutes(6));
    check("denied", &message);
    assert_eq!(buttons(&message), ["show_all", "re_request"]);
}

#[test]
fn expired_with_and_without_rerequest() {
    let mut entry = entry();
    let can = message(&expired(), &entry, &Directory::default(), minutes(21));
    check("expired", &can);
    assert_eq!(buttons(&can), ["show_all", "re_request"]);
    entry.rerequest = None;
    let cannot = message(&expired(), &entry, &Directory::default(), minutes(21));
    assert_eq!(buttons(&cannot), ["show_all"]);
    assert_eq!(cannot.blocks.len(), can.blocks.len());
}

/// A finished message is short however long the request was, and says what it leaves out.
#[test]
fn ended_after_a_long_request() {
    let mut submission = submission();
    submission.justification = (1..=20).map(|n| format!("Step {n} of the plan.\n")).collect();
    submission.params.insert("command".into(), json!("psql -c 'VACUUM' && ".repeat(200)));
    for n in 0..9 {
        submission.params.insert(format!("flag_{n}"), json!(n));
    }
    let edits = edited(&[("replicas", Some(json!(3)), Some(json!(5)))]);
    let request = open_with(submission, vec![approvals(0, 2)]);
    let request = after(request, 4, Some("U0BEN"), edits, waiting(vec![approvals(1, 2)]));
    let request = request.expire(minutes(20)).expect("it is due").request;
    check("ended_short", &message(&request, &entry(), &Directory::default(), minutes(21)));
    let view = crate::review::reading_page(&request, 1).expect("a page");
    insta::assert_json_snapshot!("reading_page", view);
}

/// Who gave their approval already is not waited for, in a group either; and names that take too much room are left out.
#[test]
fn members_of_groups_are_named_as_far_as_they_can_still_act() {
    let waits = |request: &Request, entry: &PolicyEntry| {
        let shown = message(request, entry, &Directory::default(), minutes(8));
        let text = serde_json::to_string(&shown).unwrap();
        let (_, waits) = text.split_once("waiting for ").expect("somebody is waited for");
        waits.split(['\\', '"']).next().unwrap_or_default().to_owned()
    };
    assert_eq!(waits(&one_approval(), &entry()), "<@U0CAT>, @release-managers (<@U0BEN>)");
    let both = after(one_approval(), 4, Some("U0BEN"), approve(), waiting(vec![approvals(2, 3)]));
    assert_eq!(waits(&both, &entry()), "<@U0CAT>, @release-managers (nobody else)");
    let mut entry = entry();
    let groups: Vec<String> = (0..7).map(|n| format!("team-{n}")).collect();
    for group in &groups {
        entry
            .groups
            .insert(group.clone(), (0..9).map(|n| format!("U0MEMBER{n}{}", "X".repeat(12))).collect());
    }
    let eligible = groups.iter().map(|group| format!("@{group}")).collect();
    let request = open(vec![Requirement { eligible, ..approvals(0, 1) }]);
    assert_eq!(waits(&request, &entry), "@team-0, @team-1, @team-2, @team-3, @team-4, @team-5, @team-6");
}

/// A new message notifies nobody, unless the action says so: then everybody who can act, once.
#[test]
fn a_new_message_mentions_whom_it_calls_and_nobody_else() {
    let directory = Directory::default();
    directory.put_user("U0GONE", Presence { gone: true, as_of: START });
    for (group, members) in [("S0TEAM", &["U0SAM", "U0CAT"][..]), ("S0REQ", &["U0REQ"])] {
        let ids = members.iter().map(|id| (*id).to_owned()).collect();
        directory.put(group, Members { ids, as_of: START });
    }
    let mut people = People::default();
    people.add(Person { name: "dana".to_owned(), aliases: vec!["U0DANA".to_owned()] }).unwrap();
    directory.set_people(Arc::new(people));
    let mut entry = entry();
    let mut group = |name: &str, members: &[&str]| {
        entry.groups.insert(name.to_owned(), members.iter().map(|member| (*member).to_owned()).collect());
    };
    group("team", &["S0TEAM", "U0BEN", "bob", "U0GONE"]);
    group("asks", &["S0REQ"]);
    group("elsewhere", &["S0UNKNOWN"]);
    let many: Vec<String> = (10..35).map(|n| format!("U0M{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    group("many", &[&many[..], &["S0UNKNOWN"]].concat());
    let first: Vec<String> = many.iter().take(20).map(|id| format!("<@{id}>")).collect();
    let first = format!(
        ":bell: {} <!subteam^S0UNKNOWN>: please decide (5 more people are not notified)",
        first.join(" ")
    );
    let strings = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    for (eligible, excluded, expected) in [
        (&["U0CAT", "dana", "U0GONE", "bob"][..], &[][..], Some(":bell: <@U0CAT> <@U0DANA>: please decide")),
        (&["U0CAT", "U0REQ"], &["U0REQ"], Some(":bell: <@U0CAT>: please decide")),
        (&["@team", "U0CAT"], &[], Some(":bell: <@U0BEN> <!subteam^S0TEAM>: please decide")),
        (&["@asks"], &["U0REQ"], None),
        (&["@elsewhere"], &["U0REQ"], Some(":bell: <!subteam^S0UNKNOWN>: please decide")),
        (&["@many"], &[], Some(&first)),
        (&[], &[], None),
    ] {
        let wanted =
            Requirement { eligible: strings(eligible), excluded: strings(excluded), ..approvals(0, 1) };
        let request = open(vec![wanted.clone(), persona("release", eligible)]);
        let called = |entry: &PolicyEntry| {
            let block = mentions::call(&request, entry, &directory, minutes(1))?;
            assert!(cost(&block) <= mentions::MOST_CALL);
            Some(serde_json::to_value(&block).unwrap()["text"]["text"].as_str().unwrap().to_owned())
        };
        assert_eq!(called(&entry), None, "the action does not say so");
        let entry = PolicyEntry { notify: true, ..entry.clone() };
        let mut request_personas = request.clone();
        let State::Open(open) = &mut request_personas.state else { panic!("it is open") };
        // A persona's holders are called by who is named for it, whoever is excluded from approving.
        open.requirements.truncate(1);
        let block = mentions::call(&request_personas, &entry, &directory, minutes(1));
        let text = block
            .map(|block| serde_json::to_value(&block).unwrap()["text"]["text"].as_str().unwrap().to_owned());
        assert_eq!(text.as_deref(), expected, "{eligible:?}");
        if let Some(text) = text {
            // Each one once, be it for an approval, for a persona, or for both.
            let both = called(&entry).expect("there is somebody");
            for mention in text.split(' ').filter(|word| word.starts_with('<')) {
                assert_eq!(both.matches(mention.trim_end_matches(':')).count(), 1, "{both}");
            }
        }
        let posted = mentions::without_mentions(message(&request, &entry, &directory, minutes(1)));
        let json = serde_json::to_value(&posted).unwrap();
        assert_eq!(limits::broken_message(&json, &|_| false), Vec::<String>::new());
    }
    // Whoever approved before the first message was posted is not called.
    let entry = PolicyEntry { notify: true, ..self::entry() };
    let block = mentions::call(&one_approval(), &entry, &Directory::default(), minutes(4)).expect("somebody");
    assert!(serde_json::to_string(&block).unwrap().contains(":bell: <@U0BEN> <@U0CAT>: please"), "{block:?}");
    assert_eq!(mentions::call(&expired(), &entry, &Directory::default(), minutes(21)), None);
    // What it says in place of mentions.
    let posted =
        mentions::without_mentions(message(&one_approval(), &entry, &Directory::default(), minutes(4)));
    let json = serde_json::to_string(&posted).unwrap();
    for words in
        ["*Requested by* `U0DEV`", "approvals: `U0ANA`; waiting for `U0CAT`, @release-managers (`U0BEN`)"]
    {
        assert!(json.contains(words), "no {words}: {json}");
    }
}

/// What an action does is the heading; a name that the policy set does not know is no words of ours.
#[test]
fn headings() {
    let long = "Deploy to production. ".repeat(12);
    for (description, action, heading, below) in [
        ("Deploy to production", "deploy_prod", "Deploy to production", Some("`deploy_prod`")),
        (" \n", "deploy_prod", "Request: deploy_prod", None),
        ("", "Approved by everybody", "Request: “Approved by everybody”", None),
        ("Anything", "*Approved* `x` <!here>", "Anything", Some("`*Approved* ˋxˋ &lt;!here&gt;`")),
        (&long, "deploy_prod", &long[..149], Some("`deploy_prod`")),
    ] {
        let mut entry = entry();
        entry.description = description.to_owned();
        let mut submission = submission();
        submission.action = action.to_owned();
        let request = open_with(submission, vec![approvals(0, 1)]);
        let message = message(&request, &entry, &Directory::default(), minutes(1));
        let blocks = serde_json::to_value(&message.blocks).unwrap();
        let shown = blocks[0]["text"]["text"].as_str().unwrap();
        assert!(shown == heading || shown == format!("{heading}…"), "{shown}");
        let elements = blocks[1]["elements"].as_array().filter(|_| blocks[1]["type"] == "context");
        assert_eq!(elements.and_then(|all| all[0]["text"].as_str()), below, "{description}");
        let rest = elements.and_then(|all| Some(all.get(1)?["text"].as_str()?.trim_end().to_owned()));
        assert_eq!(rest, (description == long).then(|| long.trim().to_owned()));
        let name = below.unwrap_or("(`");
        assert!(below.is_none() || message.text.contains(&format!("({name})")), "{}", message.text);
    }
}

#[test]
fn cancelled() {
    let reason = Some("the pipeline was stopped".into());
    let request = awaiting_personas().cancel(minutes(4), reason).expect("it can be").request;
    let message = message(&request, &entry(), &Directory::default(), minutes(5));
    check("cancelled", &message);
    assert_eq!(buttons(&message), ["show_all"]);
}

#[test]
fn superseded() {
    let newer = RequestId::new(minutes(4), 0, 9);
    let request = awaiting_personas().supersede(minutes(4), newer).expect("it can be").request;
    let message = message(&request, &entry(), &Directory::default(), minutes(5));
    assert_eq!(message.text.split(". ").next(), Some("Cancelled: a newer request has superseded it"));
    let message = succeeded(message, &request, "https://acme.slack.example/archives/C0DEPLOYS/p1");
    check("superseded", &message);
    assert_eq!(buttons(&message), ["show_all"]);
}

#[test]
fn rerequested() {
    let mut submission = submission();
    submission.depth = 2;
    submission.rerequested_by = Some(Party { id: "U0BEN".into(), source: "slack".into(), display: None });
    submission.rerequester_is = Some(known_person("U0BEN"));
    submission.requester =
        Party { id: "octo-cat".into(), source: "github".into(), display: Some("Octo Cat".into()) };
    let request = open_with(submission, vec![approvals(0, 1)]);
    check("made_again", &message(&request, &entry(), &Directory::default(), minutes(1)));
    let text = ephemeral_text::rerequested(&request);
    insta::assert_snapshot!("ephemeral_text_rerequested", text);
}

/// A mention notifies, so a name that a caller only asserts is no mention.
#[test]
fn only_known_people_are_mentioned_as_requesters() {
    let identity = |known, authenticated| Some(Identity { id: "alice".into(), known, authenticated });
    for (requester_is, mentioned) in [
        (None, false),
        (identity(Known::Unknown, false), false),
        (identity(Known::Machine, false), false),
        (identity(Known::Unknown, true), true),
        (identity(Known::Machine, true), true),
        (identity(Known::Person, false), true),
        (identity(Known::Person, true), true),
    ] {
        let mut submission = submission();
        submission.depth = 1;
        submission.rerequested_by = Some(submission.requester.clone());
        submission.requester_is = requester_is.clone();
        submission.rerequester_is = requester_is.clone();
        let request = open_with(submission, vec![approvals(0, 1)]);
        let (entry, now) = (entry(), minutes(1));
        for (message, names) in [
            (message(&request, &entry, &Directory::default(), now), 3),
            (minimal(&request, &entry, now), 2),
            (escalation(&request, &entry, &Directory::default(), now, Place::Channel, None), 1),
        ] {
            let shown = serde_json::to_string(&message).unwrap();
            let (mentions, code) =
                (shown.matches("<@U0DEV>").count(), shown.matches("`slack:U0DEV`").count());
            let expected = if mentioned { (names, 0) } else { (0, names) };
            assert_eq!((mentions, code), expected, "{requester_is:?}: {shown}");
        }
    }
}

#[test]
fn hostile_text() {
    let (request, entry) = hostile();
    let now = minutes(4);
    check("hostile", &message(&request, &entry, &Directory::default(), now));
    check("hostile_minimal", &minimal(&request, &entry, now));
    check(
        "hostile_notice",
        &escalation(&request, &entry, &Directory::default(), now, Place::Channel, Some(HOSTILE)),
    );
}

#[test]
fn minimal_message() {
    let message = minimal(&one_approval(), &entry(), minutes(8));
    check("minimal", &message);
    assert_eq!(buttons(&message), ["review", "deny", "withdraw"]);
}

#[test]
fn ephemeral_texts_of_refusals() {
    let reason =
        |code: &str, message: &str| Reason { code: code.into(), message: message.into(), path: None };
    let (directory, now) = (Directory::default(), minutes(8));
    let texts = [
        ephemeral_text::refusal(
            "unauthorized",
            "you are not entitled to this: only a holder of the persona `release` may acknowledge it",
            &[reason("not_a_holder", "only a holder of the persona `release` may acknowledge it")],
            Some((&awaiting_personas(), &entry())),
            &directory,
            now,
        ),
        ephemeral_text::refusal(
            "duplicate_approval",
            "your approval already counts",
            &[],
            Some((&one_approval(), &entry())),
            &directory,
            now,
        ),
        ephemeral_text::refusal(
            "already_decided",
            "the request is already expired",
            &[],
            Some((&expired(), &entry())),
            &directory,
            now,
        ),
        ephemeral_text::refusal(
            "cooldown",
            "this can be requested again in 240 s",
            &[],
            None,
            &directory,
            now,
        ),
        ephemeral_text::refusal(
            "stale",
            "the parameters changed since <!channel> `you` looked",
            &[],
            None,
            &directory,
            now,
        ),
        ephemeral_text::refusal(
            "key_not_allowed",
            "these parameters cannot be edited: ref",
            &[],
            None,
            &directory,
            now,
        ),
    ];
    insta::assert_snapshot!("ephemeral_text_refusals", texts.join("\n---\n"));
}

/// Every part takes the most room that it may, and none is missing.
#[test]
fn everything_at_once() {
    let (mut request, mut entry) = hostile();
    let names = (0..60).map(|n| format!("{n:03}{}", "<\"x\"> ".repeat(40)));
    let State::Open(open) = &mut request.state else { panic!("it is open") };
    let approval = open.requirements.iter().find(|one| one.kind == RequirementKind::Approval).cloned();
    open.requirements = names.map(|name| persona(&name, &[HOSTILE, "@release-managers", "U0ANA"])).collect();
    open.requirements.extend(std::iter::repeat_n(approval.expect("there is one"), 20));
    open.escalation = countersign_core::lifecycle::Escalation::Done(minutes(3));
    let edits: Vec<_> = (0..30).map(|n| (format!("key {n}"), Some(json!(HOSTILE)))).collect();
    let edits: Vec<_> = edits.iter().map(|(key, after)| (key.as_str(), None, after.clone())).collect();
    let act = edited(&edits);
    request.history.last_mut().expect("there are events").act = act;
    let too_large = message(&request, &entry, &Directory::default(), minutes(4));
    assert_eq!(buttons(&too_large), ["deny", "withdraw"]);
    entry.consent = Consent::Summary;
    let message = message(&request, &entry, &Directory::default(), minutes(4));
    let json = serde_json::to_value(&message).expect("serialises");
    let broken = limits::broken_message(&json, &known);
    assert!(broken.is_empty(), "{broken:?}");
    let text = json.to_string();
    for part in [
        "Requested by",
        "Why",
        "to be acknowledged by",
        "Edits so far",
        "Parameters",
        "more parameters do not fit",
        "People approve a summary",
    ] {
        assert!(text.contains(part), "{part}");
    }
    let buttons = buttons(&message);
    assert!(buttons.len() > 5, "{buttons:?}");
    assert!(buttons.ends_with(&["deny".to_owned(), "withdraw".to_owned()]));
}

#[test]
fn thirty_personas_have_a_button_each() {
    let names: Vec<String> = (0..30).map(|n| format!("team-{n}")).collect();
    let request = open(names.iter().map(|name| persona(name, &["@release-managers"])).collect());
    let message = message(&request, &entry(), &Directory::default(), minutes(1));
    let mut expected: Vec<String> = names.iter().map(|name| format!("persona_ack:{name}")).collect();
    expected.push("deny".into());
    assert_eq!(buttons(&message), expected);
    let json = serde_json::to_value(&message).expect("serialises");
    assert_eq!(limits::broken_message(&json, &known), Vec::<String>::new());
}
