//! What a person did in Slack, read out of the payload that Slack sends.
//!
//! Slack adds to its payloads as it pleases, so what is not asked for is passed over.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use countersign_core::lifecycle::{Digest, RequestId};

/// What the block of the buttons that decide is called: this and the payload hash of the parameters that it is about.
///
/// So a press on a message that is no longer true can be told from one on what the person saw.
pub const DECIDE_BLOCK: &str = "decide:";

/// The block whose `value` is the reason of a denial, in a message or in a modal of its own.
pub const REASON_BLOCK: &str = "reason";

/// What the modal's block of a parameter is called: this and the key.
pub const ANSWER_BLOCK: &str = "ov_";

/// The action of every input.
pub const VALUE_ACTION: &str = "value";

/// The modal in which parameters are edited.
pub(super) const OVERRIDE_MODAL: &str = "override_submit";

/// The modal that asks why somebody denies.
pub(super) const DENY_MODAL: &str = "deny_submit";

/// The longest reason that is kept, in characters.
pub(super) const REASON_CHARS: usize = 1000;

/// A person did something.
#[derive(Clone, Debug, PartialEq)]
pub struct Interaction {
    /// The person's Slack id.
    pub user: String,
    /// The request that it is about.
    pub request: RequestId,
    /// What they did.
    pub what: What,
    /// The payload hash of the parameters that they saw, where the message or the modal says.
    pub seen: Option<Digest>,
    /// Where they did it.
    pub source: Source,
}

/// Where something was done, as far as Slack says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// What lets a modal be opened, for 3 s. Every interaction has its own.
    pub trigger: Option<String>,
    /// The channel of the message, where there is one.
    pub channel: Option<String>,
    /// The thread that the message is in, where it is.
    pub thread: Option<String>,
}

impl Interaction {
    /// What tells this interaction from every other, whichever way it comes; `None` where Slack gave it no trigger.
    #[must_use]
    pub fn identity(&self) -> Option<Digest> {
        let trigger = self.source.trigger.as_deref()?;
        Some(Digest::of(format!("slack interaction\0{}\0{trigger}", self.user).as_bytes()))
    }
}

/// What a person did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Approve as it stands.
    Approve,
    /// Open the modal in which parameters are edited.
    ApproveEdit,
    /// Deny, with a reason where the message asks for one.
    Deny(Option<String>),
    /// Acknowledge this persona.
    Acknowledge(String),
    /// Make the request again.
    Rerequest,
    /// Take back the own approval and acknowledgements.
    Withdraw,
    /// Sent the modal in which parameters are edited: the text of each input by its key, `None` where it was left empty.
    Overrides(BTreeMap<String, Option<String>>),
    /// Sent the modal that asks why they deny.
    DenyBecause(Option<String>),
}

impl What {
    /// The blocks of the modal that was sent, where it was one; an error can be shown on them alone.
    #[must_use]
    pub fn modal_blocks(&self) -> Option<Vec<String>> {
        match self {
            What::Overrides(inputs) => {
                Some(inputs.keys().map(|key| format!("{ANSWER_BLOCK}{key}")).collect())
            }
            What::DenyBecause(_) => Some(vec![REASON_BLOCK.to_owned()]),
            _ => None,
        }
    }
}

/// A payload that says nothing that the gateway knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The form has no `payload`, or it is no JSON of the documented shape.
    #[error("the payload cannot be read")]
    Malformed,
    /// A button, a modal or a kind of interaction that is not ours.
    #[error("this interaction is not known here")]
    Unknown,
    /// The request id is missing or malformed.
    #[error("the interaction names no request")]
    NoRequest,
    /// There is a payload hash, and it is malformed. It must not pass for none, of which nothing is asked.
    #[error("what the interaction says of the parameters that were seen is no payload hash")]
    NoHash,
}

impl Unreadable {
    /// A stable code for machines.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Unreadable::Malformed => "invalid_payload",
            Unreadable::Unknown => "unknown_interaction",
            Unreadable::NoRequest => "not_found",
            Unreadable::NoHash => "invalid_hash",
        }
    }
}

/// Reads the form that Slack sends over HTTP.
///
/// # Errors
/// Where the payload says nothing that the gateway knows.
pub fn parse(form: &[u8]) -> Result<Interaction, Unreadable> {
    let payload = form_urlencoded::parse(form).find(|(key, _)| key == "payload");
    let (_, payload) = payload.ok_or(Unreadable::Malformed)?;
    read(payload.as_bytes())
}

/// Reads a payload, which is JSON.
///
/// # Errors
/// As for [`parse`].
pub fn read(payload: &[u8]) -> Result<Interaction, Unreadable> {
    let mut payload: Payload = serde_json::from_slice(payload).map_err(|_| Unreadable::Malformed)?;
    let source = payload.source();
    if payload.user.id.is_empty() || payload.user.id.len() > 128 {
        return Err(Unreadable::Malformed);
    }
    match payload.kind.as_str() {
        "block_actions" => {
            // One press is one action. Several at once would be several acts, of which only one could be answered.
            let [action] = payload.actions.as_slice() else { return Err(Unreadable::Unknown) };
            let press = press(action, payload.state.as_ref()).ok_or(Unreadable::Unknown)?;
            let request = action.value.as_deref().and_then(|value| value.parse().ok());
            Ok(Interaction {
                user: payload.user.id,
                request: request.ok_or(Unreadable::NoRequest)?,
                what: press,
                seen: seen_with(&action.block_id)?,
                source,
            })
        }
        "view_submission" => {
            let View { callback_id, private_metadata, state } = payload.view.ok_or(Unreadable::Unknown)?;
            let state = state.unwrap_or_default();
            let what = match callback_id.as_str() {
                OVERRIDE_MODAL => What::Overrides(texts(state)),
                DENY_MODAL => What::DenyBecause(reason(&state)),
                _ => return Err(Unreadable::Unknown),
            };
            let about: About = serde_json::from_str(&private_metadata).map_err(|_| Unreadable::NoRequest)?;
            let request = about.request_id.parse().map_err(|_| Unreadable::NoRequest)?;
            let seen = about.payload_hash.map(Digest::deserialize).transpose();
            let seen = seen.map_err(|_| Unreadable::NoHash)?;
            Ok(Interaction { user: payload.user.id, request, what, seen, source })
        }
        _ => Err(Unreadable::Unknown),
    }
}

fn press(action: &Action, state: Option<&Inputs>) -> Option<What> {
    match action.action_id.as_str() {
        "approve" => Some(What::Approve),
        "approve_edit" => Some(What::ApproveEdit),
        "deny" => Some(What::Deny(state.and_then(reason))),
        "re_request" => Some(What::Rerequest),
        "withdraw" => Some(What::Withdraw),
        other => {
            let persona = other.strip_prefix("persona_ack:").filter(|persona| !persona.is_empty())?;
            Some(What::Acknowledge(persona.to_owned()))
        }
    }
}

/// What was seen by whoever pressed a button in a block of this id. An id of another form says nothing of that:
/// Slack makes one up for a block that has none, such as the blocks of messages that the Node.js service posted.
fn seen_with(block_id: &str) -> Result<Option<Digest>, Unreadable> {
    let hash = block_id.strip_prefix(DECIDE_BLOCK).map(str::parse).transpose();
    hash.map_err(|_| Unreadable::NoHash)
}

fn reason(state: &Inputs) -> Option<String> {
    let text = state.values.get(REASON_BLOCK)?.get(VALUE_ACTION)?.text()?;
    Some(text.trim().chars().take(REASON_CHARS).collect()).filter(|reason: &String| !reason.is_empty())
}

fn texts(state: Inputs) -> BTreeMap<String, Option<String>> {
    let inputs = state.values.into_iter().filter_map(|(block, actions)| {
        let key = block.strip_prefix(ANSWER_BLOCK)?.to_owned();
        Some((key, actions.get(VALUE_ACTION)?.text().filter(|text| !text.is_empty())))
    });
    inputs.collect()
}

#[derive(Deserialize)]
struct Payload {
    #[serde(rename = "type")]
    kind: String,
    user: User,
    #[serde(default)]
    actions: Vec<Action>,
    #[serde(default)]
    state: Option<Inputs>,
    #[serde(default)]
    view: Option<View>,
    #[serde(default)]
    trigger_id: Option<String>,
    #[serde(default)]
    channel: Option<Channel>,
    #[serde(default)]
    container: Option<Container>,
}

impl Payload {
    fn source(&mut self) -> Source {
        let container = self.container.take().unwrap_or_default();
        let channel = self.channel.take().map(|channel| channel.id).or(container.channel_id);
        let short = |text: &String| !text.is_empty() && text.len() <= 255;
        Source {
            trigger: self.trigger_id.take().filter(short),
            channel: channel.filter(short),
            thread: container.thread_ts.filter(short),
        }
    }
}

#[derive(Deserialize)]
struct Channel {
    id: String,
}

#[derive(Default, Deserialize)]
struct Container {
    #[serde(default)]
    channel_id: Option<String>,
    #[serde(default)]
    thread_ts: Option<String>,
}

#[derive(Deserialize)]
struct User {
    id: String,
}

#[derive(Deserialize)]
struct Action {
    action_id: String,
    #[serde(default)]
    block_id: String,
    #[serde(default)]
    value: Option<String>,
}

#[derive(Deserialize)]
struct View {
    #[serde(default)]
    callback_id: String,
    #[serde(default)]
    private_metadata: String,
    #[serde(default)]
    state: Option<Inputs>,
}

#[derive(Default, Deserialize)]
struct Inputs {
    #[serde(default)]
    values: BTreeMap<String, BTreeMap<String, Input>>,
}

/// An input block's answer: a text, or one of several options.
#[derive(Deserialize)]
struct Input {
    #[serde(default)]
    value: Value,
    #[serde(default)]
    selected_option: Value,
}

impl Input {
    fn text(&self) -> Option<String> {
        let text = self.value.as_str().or_else(|| self.selected_option.get("value")?.as_str());
        text.map(str::to_owned)
    }
}

#[derive(Deserialize)]
struct About {
    request_id: String,
    /// As it stands there; `null` is not the same as nothing.
    #[serde(default, deserialize_with = "present")]
    payload_hash: Option<Value>,
}

fn present<'de, D: Deserializer<'de>>(member: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(member).map(Some)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const REQUEST: &str = "req_01jd8xkm0n0000000000000000";

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
    fn buttons_are_read() {
        let rows = [
            ("approve", What::Approve),
            ("approve_edit", What::ApproveEdit),
            ("deny", What::Deny(Some("not now".into()))),
            ("persona_ack:security", What::Acknowledge("security".into())),
            ("persona_ack:a:b", What::Acknowledge("a:b".into())),
            ("re_request", What::Rerequest),
            ("withdraw", What::Withdraw),
        ];
        for (action_id, press) in rows {
            let read = parse(&form(&button(action_id, REQUEST))).unwrap();
            assert_eq!(read.user, "U0ALICE");
            assert_eq!(read.request.to_string(), REQUEST);
            assert_eq!(read.what, press);
        }
    }

    #[test]
    fn the_modal_is_read() {
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
        let What::Overrides(texts) = parse(&form(&payload)).unwrap().what else { panic!("no overrides") };
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
        let read = parse(&form(&payload)).unwrap();
        assert_eq!(read.what, What::DenyBecause(Some("too risky".into())));
        assert_eq!(read.what.modal_blocks(), Some(vec!["reason".to_owned()]));
    }

    fn seen_pressing_in(block_id: &str) -> Result<Option<Digest>, Unreadable> {
        let mut payload = button("approve", REQUEST);
        payload["actions"][0]["block_id"] = block_id.into();
        Ok(parse(&form(&payload))?.seen)
    }

    fn seen_sending(about: &Value) -> Result<Option<Digest>, Unreadable> {
        let payload = json!({
            "type": "view_submission",
            "user": {"id": "U0ALICE"},
            "view": {"callback_id": "override_submit", "private_metadata": about.to_string()}
        });
        Ok(parse(&form(&payload))?.seen)
    }

    #[test]
    fn what_was_seen_is_read_or_refused_and_never_passed_over() {
        let hash = Digest::of(b"what was seen");
        let text = hash.to_string();
        let about = |payload_hash: Value| json!({"request_id": REQUEST, "payload_hash": payload_hash});
        assert_eq!(seen_pressing_in(&format!("decide:{text}")), Ok(Some(hash)));
        assert_eq!(seen_sending(&about(json!(text))), Ok(Some(hash)));

        // Ids that Slack makes up, and others that are not of our form.
        for block_id in ["", "b", "YPk3", "b+x4c", "=qXeJ", "/4oHf", "decide", &text] {
            assert_eq!(seen_pressing_in(block_id), Ok(None), "{block_id}");
        }
        assert_eq!(seen_sending(&json!({"request_id": REQUEST})), Ok(None));

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
            format!("{text}:{text}"),
            format!("decide:{text}"),
            format!("sha256:{text}"),
            format!("0x{}", &text[2..]),
            format!("g{}", &text[1..]),
            format!("é{}", &text[2..]),
        ];
        for hash in malformed {
            assert_eq!(seen_pressing_in(&format!("decide:{hash}")), Err(Unreadable::NoHash), "{hash:?}");
            assert_eq!(seen_sending(&about(json!(hash))), Err(Unreadable::NoHash), "{hash:?}");
        }
        for hash in [Value::Null, json!(false), json!(0), json!([text]), json!({"hash": text})] {
            assert_eq!(seen_sending(&about(hash.clone())), Err(Unreadable::NoHash), "{hash}");
        }
    }

    #[test]
    fn what_is_not_known_is_said_to_be() {
        let two = json!({"type": "block_actions", "user": {"id": "U"}, "actions": [
            {"action_id": "approve", "value": REQUEST}, {"action_id": "deny", "value": REQUEST}]});
        let rows = [
            (button("explode", REQUEST), Unreadable::Unknown),
            (button("persona_ack:", REQUEST), Unreadable::Unknown),
            (button("approve", "req_1"), Unreadable::NoRequest),
            (two, Unreadable::Unknown),
            (json!({"type": "block_actions", "user": {"id": "U"}, "actions": []}), Unreadable::Unknown),
            (
                json!({"type": "block_actions", "user": {"id": "U"}, "actions": [{"action_id": "approve"}]}),
                Unreadable::NoRequest,
            ),
            (json!({"type": "shortcut", "user": {"id": "U"}}), Unreadable::Unknown),
            (
                json!({"type": "view_submission", "user": {"id": "U"}, "view": {"callback_id": "x"}}),
                Unreadable::Unknown,
            ),
            (
                json!({"type": "view_submission", "user": {"id": "U"}, "view": {"callback_id": "override_submit"}}),
                Unreadable::NoRequest,
            ),
            (json!({"type": "block_actions", "user": {"id": ""}}), Unreadable::Malformed),
            (json!({"type": "block_actions"}), Unreadable::Malformed),
            (json!([]), Unreadable::Malformed),
        ];
        for (payload, expected) in rows {
            assert_eq!(parse(&form(&payload)), Err(expected), "{payload}");
        }
        for form in ["", "payload", "payload=", "payload={", "x=1", "payload=%ff%00"] {
            assert_eq!(parse(form.as_bytes()), Err(Unreadable::Malformed), "{form}");
        }
    }

    proptest! {
        #[test]
        fn no_form_makes_it_panic(form in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&form);
        }

        #[test]
        fn no_text_in_a_payload_makes_it_panic(
            kind in "block_actions|view_submission|.{0,10}",
            action in "approve|deny|persona_ack:.{0,10}|.{0,20}",
            value in ".{0,40}",
            metadata in ".{0,40}",
            callback in "override_submit|deny_submit|.{0,10}",
        ) {
            let _ = parse(&form(&json!({
                "type": kind,
                "user": {"id": value},
                "actions": [{"action_id": action, "value": value}],
                "view": {"callback_id": callback, "private_metadata": metadata,
                    "state": {"values": {value.clone(): {action.clone(): {"value": metadata}}}}},
            })));
        }
    }
}
