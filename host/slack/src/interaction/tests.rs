use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const REQUEST: &str = "req_01jd8xkm0n0000000000000000";

/// Of what cannot be read, what is wrong with it.
fn parse_form(form: &[u8]) -> Result<Interaction, InteractionError> {
    super::parse_form(form).map_err(|unreadable| unreadable.error)
}

fn form(payload: &Value) -> Vec<u8> {
    form_urlencoded::Serializer::new(String::new())
        .append_pair("payload", &payload.to_string())
        .finish()
        .into_bytes()
}

fn button(action_id: &str, value: &str) -> Value {
    json!({
        "type": "block_actions",
        "user": {"id": "U0ALICE", "name": "alice"},
        "trigger_id": "1.2.3",
        "actions": [{"action_id": action_id, "block_id": "b", "type": "button", "value": value}],
        "state": {"values": {"reason": {"value": {"type": "plain_text_input", "value": " not now "}}}}
    })
}

#[test]
fn buttons_are_parsed() {
    let rows = [
        ("approve", InteractionKind::Approve),
        ("approve_edit", InteractionKind::ApproveEdit),
        ("deny", InteractionKind::Deny(Some("not now".into()))),
        ("persona_ack:security", InteractionKind::Acknowledge("security".into())),
        ("persona_ack:a:b", InteractionKind::Acknowledge("a:b".into())),
        ("re_request", InteractionKind::Rerequest),
        ("withdraw", InteractionKind::Withdraw),
        ("review", InteractionKind::Review),
    ];
    for (action_id, press) in rows {
        let interaction = parse_form(&form(&button(action_id, REQUEST))).unwrap();
        assert_eq!(interaction.user, "U0ALICE");
        assert_eq!(interaction.request.to_string(), REQUEST);
        assert_eq!(interaction.kind, press);
    }
}

#[test]
fn modals_are_parsed() {
    let payload = json!({
        "type": "view_submission",
        "user": {"id": "U0ALICE"},
        "view": {
            "callback_id": "override_submit",
            "private_metadata": json!({"request_id": REQUEST}).to_string(),
            "state": {"values": {
                "ov_replicas": {"value": {"type": "plain_text_input", "value": "3"}},
                "ov_ref": {"value": {"type": "plain_text_input", "value": null}},
                "ov_size": {"value": {"type": "static_select", "selected_option": {"value": "large"}}},
                "note": {"value": {"value": "x"}}
            }}
        }
    });
    let InteractionKind::Overrides { inputs: texts, clearable: None } =
        parse_form(&form(&payload)).unwrap().kind
    else {
        panic!("not overrides")
    };
    let texts: Vec<_> = texts.iter().map(|(key, text)| (key.as_str(), text.as_deref())).collect();
    assert_eq!(texts, [("ref", None), ("replicas", Some("3")), ("size", Some("large"))]);

    let payload = json!({
        "type": "view_submission",
        "user": {"id": "U0ALICE"},
        "view": {
            "callback_id": "deny_submit",
            "private_metadata": json!({"request_id": REQUEST}).to_string(),
            "state": {"values": {"reason": {"value": {"value": " too risky"}}}}
        }
    });
    let interaction = parse_form(&form(&payload)).unwrap();
    assert_eq!(interaction.kind, InteractionKind::DenyBecause(Some("too risky".into())));
    assert_eq!(interaction.kind.modal_blocks(), Some(vec!["reason".to_owned()]));
}

#[test]
fn pages_of_a_review_say_what_they_are() {
    let hash = Digest::of(b"what was seen");
    let submit = |about: Value| {
        let view = json!({"callback_id": "review_page", "private_metadata": about.to_string()});
        parse_form(&form(&json!({"type": "view_submission", "user": {"id": "U0ALICE"}, "view": view})))
    };
    let about = json!({"request_id": REQUEST, "payload_hash": hash, "page": 2, "pages": 3});
    let interaction = submit(about.clone()).unwrap();
    assert_eq!(interaction.kind, InteractionKind::ReviewPage);
    assert_eq!(interaction.seen, Seen::Page(hash, Page { number: 2, of: 3 }));
    // A button on the page has seen the same, if it is of the same request.
    let on_page = |value: &str| {
        let mut press = button("persona_ack:security", value);
        press["view"] =
            json!({"id": "V1", "callback_id": "review_page", "private_metadata": about.to_string()});
        parse_form(&form(&press))
    };
    let pressed = on_page(REQUEST).unwrap();
    assert_eq!((pressed.seen, pressed.source.view.as_deref()), (interaction.seen, Some("V1")));
    assert_eq!(on_page("req_01jd8xkm0n0000000000000001"), Err(InteractionError::NoRequest));
    let unknown = Err(InteractionError::Unknown);
    for (key, value, expected) in [
        ("page", json!(0), &unknown),
        ("page", json!(4), &unknown),
        ("page", Value::Null, &unknown),
        ("page", json!(-1), &Err(InteractionError::NoRequest)),
        ("page", json!("3"), &Err(InteractionError::NoRequest)),
        ("pages", Value::Null, &unknown),
        ("payload_hash", Value::Null, &Err(InteractionError::NoHash)),
        ("request_id", json!("req_1"), &Err(InteractionError::NoRequest)),
    ] {
        let mut about = about.clone();
        about[key] = value;
        assert_eq!(submit(about.clone()), *expected, "{about}");
    }
    let mut without = about;
    without.as_object_mut().unwrap().remove("payload_hash");
    assert_eq!(submit(without), Err(InteractionError::NoHash));
}

fn seen_by_press_in(block_id: &str) -> Result<Seen, InteractionError> {
    let mut payload = button("approve", REQUEST);
    payload["actions"][0]["block_id"] = block_id.into();
    Ok(parse_form(&form(&payload))?.seen)
}

fn seen_by_submitting(about: &Value) -> Result<Seen, InteractionError> {
    let payload = json!({
        "type": "view_submission",
        "user": {"id": "U0ALICE"},
        "view": {"callback_id": "override_submit", "private_metadata": about.to_string()}
    });
    Ok(parse_form(&form(&payload))?.seen)
}

#[test]
fn a_payload_hash_is_parsed_or_refused_but_never_ignored() {
    let hash = Digest::of(b"what was seen");
    let text = hash.to_string();
    let about = |payload_hash: Value| json!({"request_id": REQUEST, "payload_hash": payload_hash});
    assert_eq!(seen_by_press_in(&format!("decide:{text}")), Ok(Seen::Payload(hash)));
    assert_eq!(seen_by_press_in(&format!("decide:{text}:2")), Ok(Seen::Payload(hash)));
    assert_eq!(seen_by_submitting(&about(json!(text))), Ok(Seen::Payload(hash)));

    for block_id in ["", "approval_actions"] {
        assert_eq!(seen_by_press_in(block_id), Ok(Seen::Unsaid), "{block_id}");
    }
    // Ids that Slack generates, and others that are not of our form.
    for block_id in ["b", "YPk3", "b+x4c", "=qXeJ", "/4oHf", "decide", "approval_actions:", &text] {
        assert_eq!(seen_by_press_in(block_id), Ok(Seen::Foreign), "{block_id}");
    }
    assert_eq!(seen_by_submitting(&json!({"request_id": REQUEST})), Ok(Seen::Unsaid));

    let malformed = [
        String::new(),
        " ".to_owned(),
        "null".to_owned(),
        text.to_uppercase(),
        text[1..].to_owned(),
        text[2..].to_owned(),
        format!("{text}0"),
        format!("{text}00"),
        format!("{text} "),
        format!("{text}\n"),
        format!(" {text}"),
        format!("{text}:"),
        format!("{text}:x"),
        format!("{text}:1:2"),
        format!("{text}:{text}"),
        format!("decide:{text}"),
        format!("sha256:{text}"),
        format!("0x{}", &text[2..]),
        format!("g{}", &text[1..]),
        format!("é{}", &text[2..]),
    ];
    for hash in malformed {
        assert_eq!(seen_by_press_in(&format!("decide:{hash}")), Err(InteractionError::NoHash), "{hash:?}");
        assert_eq!(seen_by_submitting(&about(json!(hash))), Err(InteractionError::NoHash), "{hash:?}");
    }
    for hash in [Value::Null, json!(false), json!(0), json!([text]), json!({"hash": text})] {
        assert_eq!(seen_by_submitting(&about(hash.clone())), Err(InteractionError::NoHash), "{hash}");
    }
}

#[test]
fn the_workspace_is_the_persons_own() {
    let rows = [
        (json!({"user": {"id": "U1", "team_id": "T1"}, "team": {"id": "T1"}, "enterprise": null}), "T1", ""),
        (json!({"user": {"id": "U1"}, "team": {"id": "T1", "domain": "acme"}}), "T1", ""),
        // An Enterprise organization.
        (
            json!({"user": {"id": "U1", "team_id": "T1"}, "team": {"id": "T1", "enterprise_id": "E1"}}),
            "T1",
            "E1",
        ),
        (
            json!({"user": {"id": "U1", "team_id": "T1"}, "team": {"id": "T1"}, "enterprise": {"id": "E1"}}),
            "T1",
            "E1",
        ),
        (json!({"user": {"id": "U1"}, "team": {"id": "T1"}, "enterprise": {"id": "E1"}}), "T1", "E1"),
        (
            json!({"user": {"id": "U1", "team_id": "E1"}, "team": {"id": "T1", "enterprise_id": "E1"}}),
            "E1",
            "",
        ),
        // Installed in a whole organization.
        (
            json!({"user": {"id": "U1", "team_id": "T1"}, "team": null, "enterprise": {"id": "E1"},
                "is_enterprise_install": true}),
            "T1",
            "E1",
        ),
        (json!({"user": {"id": "U1"}, "enterprise": {"id": "E1"}, "is_enterprise_install": true}), "", "E1"),
        (json!({"user": {"id": "U1", "team_id": "T1"}, "enterprise": {"id": "E1"}}), "T1", ""),
        // Guests: the organization is not theirs.
        (
            json!({"user": {"id": "U1", "team_id": "T2"}, "team": {"id": "T1", "enterprise_id": "E1"}}),
            "T2",
            "",
        ),
        (
            json!({"user": {"id": "U1", "team_id": "T2"}, "team": {"id": "T1"}, "enterprise": {"id": "E1"},
                "is_enterprise_install": true}),
            "T2",
            "",
        ),
        (
            json!({"user": {"id": "U1", "team_id": "E2"}, "team": null, "enterprise": {"id": "E1"},
                "is_enterprise_install": true}),
            "E2",
            "",
        ),
        // Nothing is said, or it is unreadable.
        (json!({"user": {"id": "U1"}}), "", ""),
        (json!({"user": {"id": "U1", "team_id": ""}, "team": "T1", "enterprise": 7}), "", ""),
        (json!({"user": {"id": "U1", "team_id": ["T1"]}, "team": {"id": "T".repeat(256)}}), "", ""),
    ];
    let id = |id: &str| Some(id.to_owned()).filter(|id| !id.is_empty());
    let about = json!({"request_id": REQUEST}).to_string();
    for (members, team, enterprise) in rows {
        let expected = Workspace { team: id(team), enterprise: id(enterprise) };
        let view = json!({"callback_id": "deny_submit", "private_metadata": about});
        for mut payload in [button("approve", REQUEST), json!({"type": "view_submission", "view": view})] {
            for (key, value) in members.as_object().unwrap() {
                payload[key] = value.clone();
            }
            assert_eq!(parse_form(&form(&payload)).unwrap().workspace, expected, "{payload}");
        }
    }
}

#[test]
fn unknown_and_malformed_payloads_are_errors() {
    let two = json!({"type": "block_actions", "user": {"id": "U"}, "actions": [
        {"action_id": "approve", "value": REQUEST}, {"action_id": "deny", "value": REQUEST}]});
    let rows = [
        (button("explode", REQUEST), InteractionError::Unknown),
        (button("persona_ack:", REQUEST), InteractionError::Unknown),
        (button("approve", "req_1"), InteractionError::NoRequest),
        (two, InteractionError::Unknown),
        (json!({"type": "block_actions", "user": {"id": "U"}, "actions": []}), InteractionError::Unknown),
        (
            json!({"type": "block_actions", "user": {"id": "U"}, "actions": [{"action_id": "approve"}]}),
            InteractionError::NoRequest,
        ),
        (json!({"type": "shortcut", "user": {"id": "U"}}), InteractionError::Unknown),
        (
            json!({"type": "view_submission", "user": {"id": "U"}, "view": {"callback_id": "x"}}),
            InteractionError::Unknown,
        ),
        (
            json!({"type": "view_submission", "user": {"id": "U"}, "view": {"callback_id": "override_submit"}}),
            InteractionError::NoRequest,
        ),
        (json!({"type": "block_actions", "user": {"id": ""}}), InteractionError::Malformed),
        (json!({"type": "block_actions"}), InteractionError::Malformed),
        (json!([]), InteractionError::Malformed),
    ];
    for (payload, expected) in rows {
        assert_eq!(parse_form(&form(&payload)), Err(expected), "{payload}");
    }
    for form in ["", "payload", "payload=", "payload={", "x=1", "payload=%ff%00"] {
        assert_eq!(parse_form(form.as_bytes()), Err(InteractionError::Malformed), "{form}");
    }
}

/// Whoever sent what cannot be read is told, so as much as possible of who and where is read.
#[test]
fn what_cannot_be_read_says_who_sent_it_and_from_where() {
    let at = |payload: Value| super::parse_form(&form(&payload)).unwrap_err();
    let mut press = button("explode", REQUEST);
    press["channel"] = json!({"id": "C0X", "name": "x"});
    press["container"] = json!({"type": "message", "channel_id": "C0Y", "thread_ts": "1.2"});
    let source = Source {
        trigger: Some("1.2.3".into()),
        channel: Some("C0X".into()),
        thread: Some("1.2".into()),
        view: None,
    };
    let expected = Unreadable {
        error: InteractionError::Unknown,
        user: Some("U0ALICE".into()),
        source: source.clone(),
        is_modal: false,
    };
    assert_eq!(at(press.clone()), expected);
    let again = parse_payload(press.to_string().as_bytes()).unwrap_err();
    assert_eq!(again, expected);
    let mut known = press.clone();
    known["actions"][0]["action_id"] = "approve".into();
    let known = parse_payload(known.to_string().as_bytes()).unwrap();
    assert!(expected.identity().is_some() && expected.identity() == known.identity());

    // Members of other types than expected do not hide the others.
    press["actions"] = json!(7);
    press["channel"] = json!("C0X");
    let malformed = Unreadable {
        error: InteractionError::Malformed,
        source: Source { channel: Some("C0Y".into()), ..source },
        ..expected
    };
    assert_eq!(at(press), malformed);

    let view = json!({"id": "V1", "callback_id": "other"});
    let submitted = at(json!({"type": "view_submission", "user": {"id": "U1"}, "view": view}));
    assert!(submitted.is_modal);
    assert_eq!((submitted.user.as_deref(), submitted.source.view.as_deref()), (Some("U1"), Some("V1")));
    assert_eq!(submitted.identity(), None);

    for (user, read) in [
        (json!(""), None),
        (json!(7), None),
        (json!("U".repeat(129)), None),
        (json!("<!here>"), Some("<!here>")),
    ] {
        let unreadable = at(json!({"type": "shortcut", "user": {"id": user}}));
        assert_eq!(unreadable.user.as_deref(), read, "{user}");
    }
    assert_eq!(super::parse_form(b"payload={").unwrap_err().user, None);
    assert_eq!(super::parse_form(b"x=1").unwrap_err().user, None);
}

proptest! {
    #[test]
    fn no_form_panics(form in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_form(&form);
    }

    #[test]
    fn no_text_in_a_payload_panics(
        kind in "block_actions|view_submission|.{0,10}",
        action in "approve|deny|persona_ack:.{0,10}|.{0,20}",
        value in ".{0,40}",
        metadata in ".{0,40}",
        callback in "override_submit|deny_submit|.{0,10}",
    ) {
        let _ = parse_form(&form(&json!({
            "type": kind,
            "user": {"id": value},
            "actions": [{"action_id": action, "value": value}],
            "view": {"callback_id": callback, "private_metadata": metadata,
                "state": {"values": {value.clone(): {action.clone(): {"value": metadata}}}}},
        })));
    }
}
