//! A policy module that breaks the rules, to test that the gateway survives it.
//!
//! Its configuration says what to do in which call: `{"at": "admit" | "judge" | "vote" | "check-config", "do": …}`;
//! `vote` is a `judge` of an act of a person.
//! With `"requester": ID` it does so only with that requester's requests, and so passes the checks of a policy set.
//! In every other call, and by default, it is a policy that grants every approval, and is satisfied by one.
//! `do` is one of
//! - `loop`, `eat_memory`, `overflow_stack`, `trap`: as named;
//! - `huge_output`: answers with a text of 10 MB;
//! - `malformed_memo`: `admit` answers with a text that is not JSON;
//! - `behave`: nothing unusual;
//! - `wake`: asks to be woken `wake_after_ms` after the request was made, and is satisfied then, whatever people do;
//! - `editable`: says that approvers may edit `keys`;
//! - `grant_nothing`: asks `U1` for an approval, and grants nobody one;
//! - `refuse`: does not admit the request;
//! - `show_request`: remembers what `admit` sees of the request, and labels the approval that it waits for with that.
//!
//! Of the last five, all but `refuse` concern `judge`, and the last two `admit`, whatever `at` says.
//! It is built on the contract itself, since the SDK's types do not allow such answers.

use countersign_policy_sdk::bindings::exports::countersign::policy::policy::{
    Act, Actor, Context, Descriptor, Event, Guest, Known, Reason, ReasonDoc, Request, Requirement,
    RequirementKind, Ruling, Standing,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The module.
#[derive(Debug)]
pub struct Misbehaving;

#[cfg(target_arch = "wasm32")]
countersign_policy_sdk::bindings::export!(Misbehaving with_types_in countersign_policy_sdk::bindings);

/// What `describe` does. A test that replaces `works` by `loops` in the module's bytes gets one that cannot even
/// describe itself.
static DESCRIBE: [u8; 15] = *b"describe: works";

const HUGE_OUTPUT_BYTES: usize = 10_000_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    at: Option<Call>,
    requester: Option<String>,
    #[serde(rename = "do", default)]
    behaviour: Behaviour,
    #[serde(default)]
    wake_after_ms: u64,
    #[serde(default)]
    keys: Vec<String>,
}

#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Call {
    Admit,
    Judge,
    Vote,
    CheckConfig,
}

#[derive(Deserialize, Clone, Copy, Default, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Behaviour {
    #[default]
    Behave,
    Loop,
    EatMemory,
    OverflowStack,
    Trap,
    HugeOutput,
    MalformedMemo,
    Wake,
    Editable,
    GrantNothing,
    Refuse,
    UnlistedCode,
    ShowRequest,
}

impl Guest for Misbehaving {
    fn describe() -> Descriptor {
        if std::hint::black_box(&DESCRIBE).ends_with(b"loops") {
            spin();
        }
        Descriptor {
            name: "misbehaving".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Does what no policy should, for the gateway's tests.".to_owned(),
            config_schema: include_str!("../config.schema.json").to_owned(),
            reasons: vec![ReasonDoc {
                code: "invalid_config".to_owned(),
                help: "The policy's configuration is wrong.".to_owned(),
            }],
        }
    }

    fn check_config(config: String) -> Vec<Reason> {
        match Config::read(&config) {
            Ok(config) => config.output_at(Call::CheckConfig, None).map(refusal).into_iter().collect(),
            Err(reason) => vec![reason],
        }
    }

    fn admit(config: String, request: Request) -> Result<String, Vec<Reason>> {
        let config = Config::read(&config).map_err(|reason| vec![reason])?;
        if let Some(huge) = config.output_at(Call::Admit, Some(&request)) {
            return Ok(huge);
        }
        if config.behaviour == Behaviour::ShowRequest {
            return Ok(seen(&request));
        }
        if config.behaviour == Behaviour::Refuse && config.concerns(&request) {
            return Err(vec![refusal("not for them".to_owned())]);
        }
        if config.behaviour == Behaviour::UnlistedCode && config.concerns(&request) {
            // As a module would that wants a parameter to be seen.
            return Err(vec![Reason { code: "swordfish".to_owned(), message: String::new(), path: None }]);
        }
        let malformed = config.behaviour == Behaviour::MalformedMemo && config.concerns(&request);
        Ok(if malformed { "this is {not JSON" } else { "null" }.to_owned())
    }

    fn judge(context: Context) -> Result<Ruling, Vec<Reason>> {
        let config = Config::read(&context.config).map_err(|reason| vec![reason])?;
        let by_a_person = context.event.by.is_some();
        for call in [Call::Judge].into_iter().chain(by_a_person.then_some(Call::Vote)) {
            if let Some(huge) = config.output_at(call, Some(&context.request)) {
                return Err(vec![refusal(huge)]);
            }
        }
        let mut events = context.history.iter().chain([&context.event]);
        if config.behaviour == Behaviour::Wake {
            let woken = events.any(|event| matches!(event.act, Act::Tick));
            let wake_at = (!woken).then(|| context.request.submitted_at.saturating_add(config.wake_after_ms));
            let standing =
                if woken { Standing::Satisfied } else { waiting(RequirementKind::Time, "the wake-up") };
            return Ok(Ruling { grants: false, standing, editable: Vec::new(), wake_at });
        }
        if config.behaviour == Behaviour::GrantNothing {
            let standing = asking(RequirementKind::Approval, "an approval", &["U1"]);
            return Ok(Ruling { grants: false, standing, editable: Vec::new(), wake_at: None });
        }
        let is_approval = |event: &Event| matches!(event.act, Act::Approve(_));
        let approved = events.any(is_approval);
        Ok(Ruling {
            grants: is_approval(&context.event),
            standing: if approved {
                Standing::Satisfied
            } else {
                let shows = config.behaviour == Behaviour::ShowRequest;
                waiting(RequirementKind::Approval, if shows { &context.memo } else { "any approval" })
            },
            editable: if config.behaviour == Behaviour::Editable { config.keys } else { Vec::new() },
            wake_at: None,
        })
    }
}

impl Config {
    fn read(text: &str) -> Result<Self, Reason> {
        serde_json::from_str(text).map_err(|error| Reason {
            code: "invalid_config".to_owned(),
            message: error.to_string(),
            path: None,
        })
    }

    fn concerns(&self, request: &Request) -> bool {
        self.requester.as_ref().is_none_or(|id| *id == request.requester.id)
    }

    /// Misbehaves in this call if the configuration says so. Returns the answer, if that is the misbehaviour.
    fn output_at(&self, call: Call, request: Option<&Request>) -> Option<String> {
        if self.at != Some(call) || !request.is_none_or(|request| self.concerns(request)) {
            return None;
        }
        match self.behaviour {
            Behaviour::Loop => spin(),
            Behaviour::EatMemory => eat_memory(),
            Behaviour::OverflowStack => {
                overflow_stack(0);
                None
            }
            Behaviour::Trap => trap(),
            Behaviour::HugeOutput => Some(huge_text()),
            Behaviour::Behave
            | Behaviour::MalformedMemo
            | Behaviour::Wake
            | Behaviour::Editable
            | Behaviour::GrantNothing
            | Behaviour::Refuse
            | Behaviour::UnlistedCode
            | Behaviour::ShowRequest => None,
        }
    }
}

fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
}

/// Takes memory without writing to it: writing costs fuel, which would run out first.
fn eat_memory() -> ! {
    loop {
        std::mem::forget(std::hint::black_box(Vec::<u8>::with_capacity(1 << 20)));
    }
}

/// A text of 10 MB, all of it NUL characters, made without writing it: writing costs fuel, which would run out first.
#[expect(
    unsafe_code,
    clippy::uninit_vec,
    reason = "memory that nobody wrote to cannot be called a text in any other way"
)]
fn huge_text() -> String {
    let mut bytes = Vec::with_capacity(HUGE_OUTPUT_BYTES);
    // SAFETY: the gateway's sandbox hands out zeroed memory, and this much of it was never used before in this call;
    // a run of zero bytes is valid UTF-8. Nothing calls this natively, and there neither is certain.
    unsafe {
        bytes.set_len(HUGE_OUTPUT_BYTES);
        String::from_utf8_unchecked(std::hint::black_box(bytes))
    }
}

/// Each turn needs a frame of its own, for it is looked at after the next one has returned.
fn overflow_stack(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    if depth == u64::MAX {
        return 0;
    }
    let deeper = overflow_stack(std::hint::black_box(depth + 1));
    std::hint::black_box(frame).iter().fold(deeper, |sum, word| sum.wrapping_add(*word))
}

fn trap() -> ! {
    #[cfg(target_arch = "wasm32")]
    std::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort();
}

/// What a policy sees of a request and the people in it, as JSON. Without the parameters, since a memo must not repeat
/// hidden ones.
fn seen(request: &Request) -> String {
    let who = |actor: &Actor| {
        let known = match actor.known {
            Known::Person => "person",
            Known::Machine => "machine",
            Known::Unknown => "unknown",
        };
        json!({ "id": actor.id, "known": known, "authenticated": actor.authenticated })
    };
    let params: Map<String, Value> = serde_json::from_str(&request.params).unwrap_or_default();
    let hidden = params.iter().filter(|(_, value)| *value == "[redacted]").map(|(key, _)| key);
    json!({
        "requester": who(&request.requester),
        "owners": request.owners,
        "rerequested_by": request.rerequested_by.as_ref().map(who),
        "lineage_depth": request.lineage_depth,
        "hidden": hidden.collect::<Vec<_>>(),
    })
    .to_string()
}

fn refusal(message: String) -> Reason {
    Reason { code: "invalid_config".to_owned(), message, path: None }
}

fn waiting(kind: RequirementKind, label: &str) -> Standing {
    asking(kind, label, &[])
}

fn asking(kind: RequirementKind, label: &str, eligible: &[&str]) -> Standing {
    Standing::Waiting(vec![Requirement {
        kind,
        label: label.to_owned(),
        have: 0,
        need: 1,
        eligible: eligible.iter().map(|id| (*id).to_owned()).collect(),
        excluded: Vec::new(),
    }])
}
