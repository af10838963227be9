//! Slack's side: interactions, signed as Slack signs them.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::ambient::unix_seconds;
use crate::wire::Call;

/// The signing secret of the gateways in these tests.
pub const SIGNING_SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";

/// The workspace of the people who click: that of the Slack simulator.
const TEAM: &str = "T0ACME";

/// What a person does in Slack.
#[derive(Clone, Debug)]
pub struct Click {
    payload: Value,
    /// How many seconds Slack's clock is ahead.
    ahead: i64,
}

impl Click {
    /// Presses Approve.
    #[must_use]
    pub fn approve(actor: &str, request: &str) -> Click {
        Click::button("approve", actor, request)
    }

    /// Presses Deny.
    #[must_use]
    pub fn deny(actor: &str, request: &str) -> Click {
        Click::button("deny", actor, request)
    }

    /// Presses Deny if the message asks for a reason.
    #[must_use]
    pub fn deny_because(actor: &str, request: &str, reason: &str) -> Click {
        let mut click = Click::deny(actor, request);
        click.payload["state"] = json!({"values": {"reason": {"value": input(reason)}}});
        click
    }

    /// Acknowledges a persona.
    #[must_use]
    pub fn acknowledge(persona: &str, actor: &str, request: &str) -> Click {
        Click::button(&format!("persona_ack:{persona}"), actor, request)
    }

    /// Withdraws the person's own approval or acknowledgement.
    #[must_use]
    pub fn withdraw(actor: &str, request: &str) -> Click {
        Click::button("withdraw", actor, request)
    }

    /// Presses the button with this `action_id`.
    #[must_use]
    pub fn button(action_id: &str, actor: &str, request: &str) -> Click {
        let serial = serial();
        Click::raw(json!({
            "type": "block_actions",
            "user": {"id": actor, "team_id": TEAM},
            "trigger_id": serial,
            "actions": [{"action_id": action_id, "value": request, "action_ts": serial}],
        }))
    }

    /// Submits the override modal with these texts in its inputs.
    #[must_use]
    pub fn edit(actor: &str, request: &str, inputs: &[(&str, &str)]) -> Click {
        let values = inputs.iter().map(|(key, value)| (format!("ov_{key}"), json!({"value": input(value)})));
        Click::raw(json!({
            "type": "view_submission",
            "user": {"id": actor, "team_id": TEAM},
            "trigger_id": serial(),
            "view": {
                "callback_id": "override_submit",
                "private_metadata": json!({"request_id": request}).to_string(),
                "state": {"values": Value::Object(values.collect())},
            },
        }))
    }

    /// Some payload, such as one that Slack would never send.
    #[must_use]
    pub fn raw(payload: Value) -> Click {
        Click { payload, ahead: 0 }
    }

    /// When Slack's clock is so many seconds ahead of this machine's.
    #[must_use]
    pub fn ahead(mut self, seconds: i64) -> Click {
        self.ahead = seconds;
        self
    }

    /// With another member in the payload, as Slack sends more than a gateway reads.
    #[must_use]
    pub fn with(mut self, member: &str, value: Value) -> Click {
        self.payload[member] = value;
        self
    }

    /// Beside parameters with this payload hash, in a button's row or in the modal.
    ///
    /// # Panics
    /// If it is neither.
    #[must_use]
    pub fn beside(mut self, payload_hash: &Value) -> Click {
        let hash = payload_hash.as_str().expect("a payload hash");
        if let Some(action) = self.payload.pointer_mut("/actions/0") {
            action["block_id"] = format!("decide:{hash}").into();
        } else {
            let about = self.payload.pointer_mut("/view/private_metadata").expect("a modal");
            let mut told: Value = serde_json::from_str(about.as_str().expect("a text")).expect("JSON");
            told["payload_hash"] = hash.into();
            *about = told.to_string().into();
        }
        self
    }

    /// Signed now, by Slack's clock, with the secret that the gateway knows.
    #[must_use]
    pub fn signed(&self) -> Signed {
        self.signed_ago(-self.ahead)
    }

    /// Signed `seconds` ago: stale, or in the future if negative.
    #[must_use]
    pub fn signed_ago(&self, seconds: i64) -> Signed {
        Signed::new(&self.payload.to_string(), unix_seconds().saturating_add_signed(-seconds), SIGNING_SECRET)
    }

    /// Signed now, by somebody who does not know the secret.
    #[must_use]
    pub fn forged(&self) -> Signed {
        Signed::new(&self.payload.to_string(), unix_seconds(), "somebody else's secret")
    }
}

fn input(value: &str) -> Value {
    json!({"type": "plain_text_input", "value": value})
}

/// Slack gives each click its own trigger and time, so no two are alike.
fn serial() -> String {
    static SERIAL: AtomicU64 = AtomicU64::new(1);
    format!("{}.{:06}", unix_seconds(), SERIAL.fetch_add(1, Ordering::Relaxed))
}

/// An interaction as Slack sends it. The same one can be sent twice.
#[derive(Clone, Debug)]
pub struct Signed {
    body: String,
    timestamp: String,
    signature: String,
}

impl Signed {
    /// Signs a payload.
    #[must_use]
    pub fn new(payload: &str, timestamp: u64, secret: &str) -> Signed {
        let body = format!("payload={}", percent_encoded(payload));
        let signature = signature(secret, timestamp, &body);
        Signed { body, timestamp: timestamp.to_string(), signature }
    }

    /// With another timestamp than was signed.
    #[must_use]
    pub fn restamped(mut self, timestamp: u64) -> Signed {
        self.timestamp = timestamp.to_string();
        self
    }

    /// With another body than was signed.
    #[must_use]
    pub fn with_body_suffix(mut self, suffix: &str) -> Signed {
        self.body.push_str(suffix);
        self
    }

    /// The call that Slack makes.
    #[must_use]
    pub fn call(&self) -> Call {
        Call::new("POST", "/api/slack/interactions")
            .header("x-slack-request-timestamp", &self.timestamp)
            .header("x-slack-signature", &self.signature)
            .body("application/x-www-form-urlencoded", self.body.as_str())
    }

    /// The same call without a header.
    #[must_use]
    pub fn call_without_signature(&self) -> Call {
        Call::new("POST", "/api/slack/interactions")
            .header("x-slack-request-timestamp", &self.timestamp)
            .body("application/x-www-form-urlencoded", self.body.as_str())
    }
}

fn signature(secret: &str, timestamp: u64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(format!("v0:{timestamp}:{body}").as_bytes());
    format!("v0={}", hex::encode(mac.finalize().into_bytes()))
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte))
            }
            b' ' => encoded.push('+'),
            _ => write!(encoded, "%{byte:02X}").expect("a String takes all that is written to it"),
        }
    }
    encoded
}
