//! For every input: Slack accepts it, it notifies nobody, and neither the status nor a button is missing.

mod generators;

use countersign_core::directory::Directory;
use countersign_core::lifecycle::{Escalation, Event, State, Status, canonical, payload_hash};
use generators::{any_entry, any_large_params, any_request, any_time, any_value, any_words};
use proptest::prelude::*;
use slack_morphism::prelude::SlackModalView;

use super::*;
use crate::blocks::cost;
use crate::message::{Message, Shown, is_whole, message, minimal};
use crate::notice::{Place, escalation, replaced};
use crate::parameters::{key_text, short_line, value_line, value_text};
use crate::text::{self, Lines};
use crate::{ephemeral_text, mentions, modal, review};

/// Whom the messages of this request may mention: people and groups whose ids are in members for ids.
fn mentionable(request: &Request, entry: &PolicyEntry) -> BTreeSet<String> {
    let submission = &request.submission;
    let mut ids: BTreeSet<String> = BTreeSet::new();
    ids.insert(submission.requester.id.clone());
    ids.extend(submission.rerequested_by.iter().map(|party| party.id.clone()));
    ids.extend(request.history.iter().filter_map(|event| Some(event.by.as_ref()?.id.clone())));
    if let State::Open(open) = &request.state {
        ids.extend(open.requirements.iter().flat_map(|requirement| requirement.eligible.iter().cloned()));
    }
    if let State::Approved { decided, .. } | State::Denied(decided) = &request.state {
        ids.extend(decided.by.clone());
    }
    ids.extend(entry.groups.values().flatten().cloned());
    ids.extend(entry.escalate.iter().filter_map(|escalate| escalate.mention.clone()));
    ids
}

fn check_message(message: &Message, allowed: &dyn Fn(&str) -> bool) {
    let json = serde_json::to_value(message).expect("serialises");
    let broken = limits::broken_message(&json, allowed);
    assert!(broken.is_empty(), "{broken:#?}\n{json:#}");
}

fn check_view(view: &SlackModalView, allowed: &dyn Fn(&str) -> bool) {
    let json = serde_json::to_value(view).expect("serialises");
    let broken = limits::broken_view(&json, allowed);
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Checks that the status and every button of the request's state are there.
fn check_essentials(message: &Message, request: &Request, entry: &PolicyEntry, shown: Shown) {
    let blocks = serde_json::to_value(&message.blocks).expect("serialises");
    let blocks = blocks.as_array().expect("a list");
    assert_eq!(blocks[0]["type"], "header");
    let emoji = crate::progress::status_label(request).0;
    let escalated =
        matches!(&request.state, State::Open(open) if matches!(open.escalation, Escalation::Done(_)));
    let emoji = if escalated { ":rotating_light:" } else { emoji };
    let is_status = |block: &Value| {
        block["type"] == "section"
            && block["text"]["text"].as_str().is_some_and(|text| text.starts_with(emoji))
    };
    assert!(blocks.iter().take(3).any(is_status), "no status line");
    let rows = blocks.iter().filter(|block| block["type"] == "actions");
    let buttons: Vec<Value> =
        rows.flat_map(|row| row["elements"].as_array().cloned().unwrap_or_default()).collect();
    let ids: Vec<&str> = buttons.iter().filter_map(|button| button["action_id"].as_str()).collect();
    for button in &buttons {
        assert_eq!(button["value"], request.id.to_string());
    }
    let (personas, fixed): (Vec<&str>, Vec<&str>) = ids.iter().partition(|id| id.starts_with("persona_ack:"));
    let offers_approval = shown == Shown::Whole || shown == Shown::Part && !entry.consent.is_whole();
    let State::Open(open) = &request.state else {
        let again =
            matches!(request.state, State::Expired { .. } | State::Denied(_)) && entry.rerequest.is_some();
        assert_eq!(ids, if again { vec!["show_all", "re_request"] } else { vec!["show_all"] });
        return;
    };
    let pending: BTreeSet<&str> = open
        .requirements
        .iter()
        .filter(|requirement| requirement.kind == RequirementKind::Acknowledgement)
        .map(|requirement| requirement.label.as_str())
        .collect();
    let mut expected = Vec::new();
    if pending.is_empty() && offers_approval {
        expected.push("approve");
        if modal::overrides(request, entry, &BTreeSet::new(), None).is_some() {
            expected.push("approve_edit");
        }
    }
    if shown != Shown::Whole && review::fits(request) {
        expected.push("review");
    }
    expected.push("deny");
    if !request.approvers().is_empty() || !request.acknowledgements().is_empty() {
        expected.push("withdraw");
    }
    assert_eq!(fixed, expected);
    let named: BTreeSet<&str> = personas.iter().filter_map(|id| id.strip_prefix("persona_ack:")).collect();
    assert_eq!(named.len(), personas.len(), "a persona has two buttons");
    assert!(named.is_subset(&pending));
    let possible =
        pending.iter().filter(|name| !name.is_empty() && name.encode_utf16().count() <= 243).count();
    if !offers_approval {
        assert!(named.is_empty(), "somebody can acknowledge what they could not read");
        return;
    }
    assert!(named.len() >= possible.min(3), "{} buttons for {possible} personas", named.len());
    let noted = blocks.iter().any(|block| {
        let text = block["elements"][0]["text"].as_str().unwrap_or_default();
        text.contains("can be acknowledged once") || text.contains("too long a name")
    });
    assert_eq!(noted, named.len() < pending.len(), "a persona without a button must be mentioned");
}

/// A part of the usual number of cases: each writes whole messages, or all pages of a review.
fn fewer(part: u32, max_shrink_iters: u32) -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases / part, max_shrink_iters, ..usual }
}

proptest! {
    #![proptest_config(fewer(2, 200))]

    #[test]
    fn every_message_is_accepted_and_shows_what_it_must(
        request in any_request(),
        entry in any_entry(),
        now in any_time(),
    ) {
        let ids = mentionable(&request, &entry);
        let whole = message(&request, &entry, &Directory::default(), now);
        check_message(&whole, &|id| ids.contains(id));
        let shown = if is_whole(&request, &entry) { Shown::Whole } else { Shown::Part };
        check_essentials(&whole, &request, &entry, shown);
        if shown == Shown::Whole && !request.status().is_terminal() {
            check_all_is_shown(&whole, &request);
        }
        let heads = |words: &str| {
            let first = |block: &Value| block["elements"][0]["elements"][0]["text"] == words;
            serde_json::to_value(&whole.blocks).expect("serialises").as_array().expect("a list").iter().any(first)
        };
        prop_assert!(heads("Why") && heads("Parameters"));
        let edits = match request.status() {
            Status::Approved => "Edits, approved",
            status if status.is_terminal() => "Edits, not approved",
            _ => "Edits so far",
        };
        prop_assert_eq!(heads(edits), !crate::progress::changes(&request).is_empty());
        let has_links = !request.submission.links.is_empty();
        prop_assert_eq!(heads("Links"), has_links && !request.status().is_terminal());
        if request.status().is_terminal() {
            let takes: usize = whole.blocks.iter().map(cost).sum();
            prop_assert!(takes < 9_000, "{takes}, which is not short");
            if review::fits(&request) {
                check_reading(&request);
            }
        }
        let least = minimal(&request, &entry, now);
        check_message(&least, &|id| ids.contains(id));
        check_essentials(&least, &request, &entry, Shown::Nothing);
        prop_assert!(least.blocks.len() <= whole.blocks.len());
    }

    #[test]
    fn every_post_and_notice_is_accepted_and_notifies_nobody_else(
        request in any_request(),
        entry in any_entry(),
        now in any_time(),
        permalink in prop::option::of(prop_oneof![
            Just("https://acme.slack.example/archives/C1/p1?a=1&b=2".to_owned()),
            any_words().prop_map(|words| format!("https://acme.slack.example/{words}")),
        ]),
    ) {
        let ids = mentionable(&request, &entry);
        let allowed = |id: &str| ids.contains(id);
        let (directory, permalink) = (Directory::default(), permalink.as_deref());
        let whole = message(&request, &entry, &directory, now);
        let posted = mentions::without_mentions(whole.clone());
        check_message(&posted, &|_| false);
        prop_assert!(posted.blocks.len() == whole.blocks.len());
        let entry_that_notifies = PolicyEntry { notify: true, ..entry.clone() };
        let mut first = mentions::without_mentions(message(&request, &entry_that_notifies, &directory, now));
        if let Some(call) = mentions::call(&request, &entry_that_notifies, &directory, now) {
            prop_assert!(cost(&call) <= mentions::MOST_CALL);
            first.blocks.insert(1, call);
        }
        check_message(&first, &allowed);
        for place in [Place::Thread, Place::Channel] {
            check_message(&escalation(&request, &entry, &directory, now, place, permalink), &allowed);
        }
        for replacement in request.replacements() {
            for mentions in [true, false] {
                check_message(&replaced(&request, &replacement, &directory, permalink, mentions), &allowed);
            }
        }
    }

    #[test]
    fn every_modal_is_accepted(request in any_request(), entry in any_entry(), words in any_words(), title in any_words()) {
        let nobody = |_: &str| false;
        if let Some(view) =
            modal::overrides(&request, &entry, &request.params().keys().cloned().collect(), None)
        {
            check_view(&view, &nobody);
            let json = serde_json::to_value(&view).expect("serialises");
            let about: Value = serde_json::from_str(json["private_metadata"].as_str().expect("there")).expect("JSON");
            prop_assert_eq!(&about["request_id"], &json!(request.id));
            prop_assert_eq!(&about["payload_hash"], &json!(request.payload_hash()));
            let told = about["clearable"].as_str().expect("a digest").parse().expect("a digest");
            prop_assert!(modal::is_as_told(&modal::clearable(&request, &entry), told));
            check_answers(&json, &request, &entry);
        }
        check_view(&modal::deny(&request), &nobody);
        let ids = mentionable(&request, &entry);
        let allowed = |id: &str| ids.contains(id);
        let reasons = vec![Reason { code: "x".into(), message: words.clone(), path: None }; words.len() % 9];
        for (code, request) in [("unauthorized", Some((&request, &entry))), (words.as_str(), None), ("cooldown", Some((&request, &entry)))] {
            let text = ephemeral_text::refusal(code, &words, &reasons, request, &Directory::default(), minutes(2));
            prop_assert!(text.encode_utf16().count() <= 3000, "{} characters", text.encode_utf16().count());
            check_view(&modal::notice(&title, &text), &allowed);
        }
        check_view(&modal::notice(&title, &ephemeral_text::rerequested(&request)), &allowed);
    }
}

/// All texts of a message or a view, as they are sent.
fn texts(json: &Value) -> String {
    match json {
        Value::String(text) => format!("{text}\n"),
        Value::Array(items) => items.iter().map(texts).collect(),
        Value::Object(members) => members.values().map(texts).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => String::new(),
    }
}

/// Checks that every value that people agree to is there, uncut.
fn check_all_is_shown(message: &Message, request: &Request) {
    let shown = texts(&serde_json::to_value(&message.blocks).expect("serialises"));
    let is_there = |what: &str, whole: &str| {
        assert!(shown.contains(whole), "{what} is not shown whole: {whole}\n{shown}");
    };
    let has = |what: &str, words: &str, lines: Lines| {
        let whole = text::literal(words, lines, usize::MAX).text;
        is_there(what, &whole);
    };
    let submission = &request.submission;
    // As inline code, in which some characters are written in another way, and which is not cut.
    let is_coded = |what: &str, words: &str| is_there(what, &text::code(words, usize::MAX));
    let origin = &submission.origin;
    is_coded("the repository", &origin.repo);
    if let Some(branch) = &origin.branch {
        is_coded("the branch", branch);
    }
    for value in [&origin.pr, &origin.run_id].into_iter().flatten() {
        is_coded("a number", &value_line(value));
    }
    for owner in submission.owners.iter().filter(|owner| *owner != submission.requester_id()) {
        is_coded("an owner", owner);
    }
    let why = submission.justification.trim().replace("\r\n", "\n");
    is_there("why", &text::prose(&why, usize::MAX, usize::MAX).text);
    for link in &submission.links {
        has("a label", &link.label, Lines::One);
        match crate::links::target(&link.url) {
            Some(target) => has("a link", &target, Lines::One),
            None => has("an address", &link.url, Lines::One),
        }
    }
    for (key, value) in request.params() {
        if submission.redacted.contains(&key) {
            has("a hidden name", &key_text(&key), Lines::One);
            continue;
        }
        has("a name", &key_text(&key), Lines::One);
        let lines = match short_line(&key, &value) {
            Some(_) => Lines::One,
            None => Lines::Most(usize::MAX),
        };
        has("a value", &value_text(&value), lines);
    }
    for (_, before, after) in crate::progress::changes(request) {
        for value in [before, after].into_iter().flatten() {
            has("an edit", &value_line(value), Lines::One);
        }
    }
}

/// The text with the escapes of invisible characters undone, and without isolates. In JSON `\\` is a backslash, and `\u{` is
/// no escape.
fn unescaped(shown: &str) -> String {
    let mut text = String::new();
    let shown = without_isolates(shown);
    let mut rest = shown.as_str();
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        text.push_str(before);
        let inside = escape.strip_prefix("\\u{").and_then(|inside| inside.split_once('}'));
        rest = match inside {
            Some((code, after)) => {
                let code = u32::from_str_radix(code, 16).expect("hexadecimal digits");
                text.push(char::from_u32(code).expect("a character"));
                after
            }
            // An escape of JSON: the backslash, and what it escapes.
            None => {
                let (escape, after) = escape.split_at(2);
                text.push_str(escape);
                after
            }
        };
    }
    text + rest
}

fn without_isolates(shown: &str) -> String {
    shown.replace(['\u{2068}', '\u{2069}'], "")
}

/// A text as boxes show it, joined and without isolates: where a box ends, one may end and another one begin.
fn in_boxes(text: &str) -> String {
    without_isolates(&text::literal(text, Lines::Most(usize::MAX), usize::MAX).text)
}

/// Checks that the pages that show an ended request are accepted, show all of it and how it ended, and approve nothing.
fn check_reading(request: &Request) {
    let count = review::count(request);
    assert!(review::reading_page(request, 0).is_none() && review::reading_page(request, count + 1).is_none());
    let (mut json, mut all, mut boxes) = (String::new(), String::new(), String::new());
    // Each page makes all pages anew: of many only the first and the last one are looked at.
    const FEW: usize = 4;
    for number in (1..=count).filter(|number| count <= FEW || [1, count].contains(number)) {
        let view = review::reading_page(request, number).expect("a page");
        check_view(&view, &|_| true);
        let view = serde_json::to_value(&view).expect("serialises");
        assert_eq!(view["callback_id"], "reading_page");
        let expected = if number == count { Value::Null } else { json!("Next page") };
        assert_eq!(view["submit"]["text"], expected);
        let about: Value =
            serde_json::from_str(view["private_metadata"].as_str().expect("there")).expect("JSON");
        assert_eq!(about, json!({"request_id": request.id, "page": number, "pages": count}));
        all += &texts(&view["blocks"]);
        json += &parameter_boxes(&view);
        boxes += &all_boxes(&view);
    }
    assert!(all.contains(crate::progress::status_label(request).1));
    if count <= FEW {
        let redacted = &request.submission.redacted;
        let mut params = request.params();
        params.retain(|key, _| !redacted.contains(key));
        assert_eq!(unescaped(&json), canonical(&Value::Object(params)));
        let reason = crate::progress::reason(request).map(in_boxes);
        assert!(reason.is_none_or(|reason| without_isolates(&boxes).contains(&reason)), "{boxes}");
    }
}

/// Checks that the first page begins with the action, the origin and the requester, all of it.
fn check_head(view: &Value, request: &Request) {
    let blocks = view["blocks"].as_array().expect("blocks").iter().skip(1);
    let boxes = blocks.take_while(|block| {
        let title = &block["elements"][0]["elements"][0]["text"];
        block["type"] == "rich_text"
            && (block["elements"][0]["type"] == "rich_text_preformatted"
                || title.as_str().is_some_and(|title| title.starts_with("Action, ")))
    });
    let elements = boxes.flat_map(|block| block["elements"].as_array().expect("elements"));
    let boxes = elements.filter(|element| element["type"] == "rich_text_preformatted");
    let json: String =
        boxes.map(|element| element["elements"][0]["text"].as_str().expect("a text")).collect();
    let head: Value = serde_json::from_str(&unescaped(&json)).expect("JSON");
    let Submission { action, origin, requester, .. } = &*request.submission;
    assert_eq!((&head["action"], &head["origin"]), (&json!(action), &json!(origin)));
    let said = &head["requester"];
    assert_eq!((&said["source"], &said["id"]), (&json!(requester.source), &json!(requester.id)));
}

/// What the boxes with parameters on a page say.
fn parameter_boxes(view: &Value) -> String {
    boxes(view, |block| block["block_id"].as_str().is_some_and(|id| id.starts_with("parameters:")))
}

/// What all boxes on a page say.
fn all_boxes(view: &Value) -> String {
    boxes(view, |_| true)
}

fn boxes(view: &Value, is_wanted: impl Fn(&Value) -> bool) -> String {
    let blocks = view["blocks"].as_array().expect("blocks").iter();
    let blocks = blocks.filter(|block| block["type"] == "rich_text" && is_wanted(block));
    let elements = blocks.flat_map(|block| block["elements"].as_array().expect("elements"));
    let boxes = elements.filter(|element| element["type"] == "rich_text_preformatted");
    boxes.map(|element| element["elements"][0]["text"].as_str().expect("a text")).collect()
}

/// Checks that the pages of the review are accepted and lead on to each other, and that what they show, page after page,
/// is the canonical JSON of what the last page approves.
fn check_review(request: &Request) {
    let count = review::count(request);
    assert!(review::page(request, 0).is_none() && review::page(request, count + 1).is_none());
    assert_eq!(review::fits(request), count <= review::MOST_PAGES, "{count} pages");
    if count > review::MOST_PAGES {
        assert!((1..=count).all(|number| review::page(request, number).is_none()));
        return;
    }
    let (mut json, mut boxes) = (String::new(), String::new());
    let head = review::page(request, 1).expect("a page");
    check_head(&serde_json::to_value(&head).expect("serialises"), request);
    for number in 1..=count {
        let view = review::page(request, number).expect("a page");
        check_view(&view, &|_| true);
        let SlackModalView { blocks, .. } = &view;
        assert!(blocks.len() <= 20 && blocks.iter().map(cost).sum::<usize>() <= 20_000, "page {number}");
        let view = serde_json::to_value(&view).expect("serialises");
        let about: Value =
            serde_json::from_str(view["private_metadata"].as_str().expect("there")).expect("JSON");
        let expected = json!({"request_id": request.id, "payload_hash": request.payload_hash(), "page": number, "pages": count});
        assert_eq!(about, expected);
        let can_be_approved = !request.status().is_terminal() && request.status() != Status::AwaitingPersonas;
        let submit = match number == count {
            false => json!("Next page"),
            true if can_be_approved => json!("Approve"),
            true => Value::Null,
        };
        assert_eq!(view["submit"]["text"], submit);
        json += &parameter_boxes(&view);
        boxes += &all_boxes(&view);
    }
    let redacted = &request.submission.redacted;
    let mut params = request.params();
    params.retain(|key, _| !redacted.contains(key));
    assert_eq!(unescaped(&json), canonical(&Value::Object(params.clone())));
    // Those parameters and the digests of the hidden ones make the payload hash that the last page approves.
    let mut digests = request.submission.digests.clone();
    digests.retain(|key, _| redacted.contains(key));
    let edited = request.edits();
    digests.retain(|key, _| edited.get(key.as_str()) != Some(&None));
    digests.extend(parameter_digests(&params));
    assert_eq!(payload_hash(&digests), request.payload_hash());
    let names: Vec<String> = redacted.iter().map(|key| key_text(key)).collect();
    let names = in_boxes(&names.join("\n"));
    assert!(without_isolates(&boxes).ends_with(&names), "the hidden are not named: {names}\n{boxes}");
}

proptest! {
    // Each case makes every page anew for each page, of up to 120,000 characters.
    #![proptest_config(fewer(6, 20))]

    #[test]
    fn a_review_shows_everything_and_approves_that(
        params in any_large_params(),
        words in any_words(),
        hidden in any::<prop::sample::Index>(),
        edit in prop::option::of((any_words(), prop::option::of(any_value()))),
    ) {
        let hidden: BTreeSet<String> = params.keys().take(hidden.index(params.len() + 1)).cloned().collect();
        let (digests, mut params) = (parameter_digests(&params), params);
        params.extend(hidden.iter().map(|key| (key.clone(), json!("[redacted]"))));
        let key = params.keys().find(|key| !hidden.contains(*key)).cloned().unwrap_or("new".into());
        let origin = Origin { branch: Some(words.chars().take(256).collect()), ..submission().origin };
        let request = open_with(
            Submission { origin, justification: words, params, redacted: hidden, digests, ..submission() },
            vec![approvals(0, 1)],
        );
        check_review(&request);
        if let Some((other, after)) = edit {
            let key = if other.len() % 2 == 0 { key } else { other };
            let edits = edited(&[(&key, None, after)]);
            if !request.submission.redacted.contains(&key) {
                let mut request = request;
                request.history.push(Event { seq: 1, at: START, by: Some(Actor { id: "U0ANA".into(), ..Actor::default() }), act: edits });
                check_review(&request);
            }
        }
    }
}

/// Checks that the initial values and the options of inputs are read back as the values that they stand for.
fn check_answers(view: &Value, request: &Request, entry: &PolicyEntry) {
    let params = request.params();
    for block in view["blocks"].as_array().into_iter().flatten() {
        let Some(key) = block["block_id"].as_str().and_then(|id| id.strip_prefix("ov_")) else { continue };
        assert!(!request.submission.redacted.contains(key), "a hidden parameter can be edited");
        let current = params.get(key);
        let read = |text: &str| match serde_json::from_str(text) {
            Ok(value) if !modal::reads_as_text(entry.schema.as_ref(), key, current) => value,
            _ => Value::from(text),
        };
        let element = &block["element"];
        let property = &entry.schema.as_ref().unwrap_or(&Value::Null)["properties"][key];
        for option in element["options"].as_array().into_iter().flatten() {
            let read = read(option["value"].as_str().expect("a text"));
            let is_listed = match property["enum"].as_array() {
                Some(values) => values.contains(&read),
                None => read.is_boolean(),
            };
            assert!(is_listed, "{key}: {read} is none of the choices");
        }
        let initial =
            element["initial_value"].as_str().or_else(|| element["initial_option"]["value"].as_str());
        if let Some(initial) = initial {
            let (read, current) = (read(initial), current.expect("there is a value so far"));
            let same_number = read.as_f64().is_some() && read.as_f64() == current.as_f64();
            assert!(read == *current || same_number, "{key}: {read} is not {current}");
        }
    }
}
