//! The forms of the hosts: what they send to a hook, and how they are answered so that they do as they are told.
//!
//! Both hosts go on with a call if a hook fails, so each answer is in the one form that blocks:
//! Claude Code takes exit code 2 for a denial before a tool is used, and not for a permission request; Codex takes it for
//! both, needs a reason, and refuses edited input.

use std::ffi::OsString;

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Who calls the hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Host {
    /// Claude Code.
    ClaudeCode,
    /// Codex.
    Codex,
}

/// What the hook is called about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum HookEvent {
    /// A tool is about to be used.
    #[value(name = "PreToolUse")]
    PreToolUse,
    /// The host is about to ask its user.
    #[value(name = "PermissionRequest")]
    PermissionRequest,
}

/// A call of a tool.
#[derive(Debug, PartialEq)]
pub(super) struct ToolCall {
    pub(super) event: HookEvent,
    pub(super) tool: String,
    pub(super) input: Map<String, Value>,
    /// The folder that the agent works in.
    pub(super) folder: String,
}

/// What the host is told.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    /// The call may be made, with other input if there is one.
    Allow { input: Option<Map<String, Value>>, why: String },
    /// The host asks its user.
    Ask,
    /// The call must not be made.
    Deny(String),
}

/// What is printed, and the exit code.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Printed {
    pub(super) stdout: String,
    pub(super) stderr: String,
    pub(super) code: u8,
}

impl HookEvent {
    fn name(self) -> &'static str {
        match self {
            HookEvent::PreToolUse => "PreToolUse",
            HookEvent::PermissionRequest => "PermissionRequest",
        }
    }

    fn named(name: &str) -> Option<HookEvent> {
        [HookEvent::PreToolUse, HookEvent::PermissionRequest].into_iter().find(|event| event.name() == name)
    }

    /// The event that an input is about, also of one that is not read any further.
    ///
    /// Nothing but its own member says so: whatever else is in the input was written by an agent, which must not choose the
    /// form of an answer.
    pub(super) fn of(input: &[u8]) -> Option<HookEvent> {
        #[derive(Deserialize)]
        struct Head {
            hook_event_name: String,
        }
        HookEvent::named(&serde_json::from_slice::<Head>(input).ok()?.hook_event_name)
    }

    /// The event that a command line names, of one that cannot be read.
    pub(super) fn in_words(words: &[OsString]) -> Option<HookEvent> {
        words
            .iter()
            .filter_map(|word| word.to_str())
            .find_map(|word| HookEvent::named(word.strip_prefix("--event=").unwrap_or(word)))
    }
}

impl ToolCall {
    /// Reads what a host sends.
    pub(super) fn read(input: &Value) -> Result<ToolCall, String> {
        let text = |name: &str| {
            let value = input.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
            value.map(str::to_owned).ok_or_else(|| format!("the input has no `{name}`"))
        };
        let name = text("hook_event_name")?;
        let event =
            HookEvent::named(&name).ok_or_else(|| format!("this hook is not for the event `{name}`"))?;
        let Some(Value::Object(tool_input)) = input.get("tool_input") else {
            return Err("the input has no `tool_input`".to_owned());
        };
        Ok(ToolCall { event, tool: text("tool_name")?, input: tool_input.clone(), folder: text("cwd")? })
    }
}

/// How a host is told.
pub(super) fn answer(host: Host, event: HookEvent, verdict: Verdict) -> Printed {
    let output = |specific: Value| Printed {
        stdout: json!({"hookSpecificOutput": specific}).to_string(),
        stderr: String::new(),
        code: 0,
    };
    let silence = Printed { stdout: String::new(), stderr: String::new(), code: 0 };
    let name = event.name();
    match (event, host, verdict) {
        (HookEvent::PreToolUse, _, Verdict::Deny(why)) => output(json!({
            "hookEventName": name, "permissionDecision": "deny", "permissionDecisionReason": why,
        })),
        (HookEvent::PermissionRequest, _, Verdict::Deny(why)) => output(json!({
            "hookEventName": name, "decision": {"behavior": "deny", "message": why},
        })),
        (_, Host::Codex, Verdict::Allow { input: Some(_), .. }) => answer(
            host,
            event,
            Verdict::Deny(
                "approved with other input than was asked for, which Codex cannot take from a hook; ask with that input"
                    .to_owned(),
            ),
        ),
        // Codex knows no consent before a tool is used, and takes one for a hook that has failed: to say nothing lets it go on.
        (HookEvent::PreToolUse, Host::Codex, Verdict::Allow { .. }) => silence,
        // There it cannot ask, and would go on.
        (HookEvent::PreToolUse, Host::Codex, Verdict::Ask) => answer(
            host,
            event,
            Verdict::Deny("a rule wants the user to be asked, which Codex cannot do at this point".to_owned()),
        ),
        (HookEvent::PreToolUse, Host::ClaudeCode, Verdict::Allow { input, why }) => {
            let mut specific =
                json!({"hookEventName": name, "permissionDecision": "allow", "permissionDecisionReason": why});
            if let (Some(input), Some(specific)) = (input, specific.as_object_mut()) {
                specific.insert("updatedInput".to_owned(), Value::Object(input));
            }
            output(specific)
        }
        (HookEvent::PreToolUse, Host::ClaudeCode, Verdict::Ask) => {
            output(json!({"hookEventName": name, "permissionDecision": "ask"}))
        }
        (HookEvent::PermissionRequest, _, Verdict::Allow { input, .. }) => {
            let decision = match input {
                Some(input) => json!({"behavior": "allow", "updatedInput": input}),
                None => json!({"behavior": "allow"}),
            };
            output(json!({"hookEventName": name, "decision": decision}))
        }
        // It is about to ask anyway.
        (HookEvent::PermissionRequest, _, Verdict::Ask) => silence,
    }
}

/// The denial of a call of which not even the event is known: what blocks most.
pub(super) fn deny_unknown(why: &str) -> Printed {
    Printed { stdout: String::new(), stderr: why.to_owned(), code: 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(host: Host, event: HookEvent, verdict: Verdict) -> (Value, u8) {
        let Printed { stdout, stderr, code } = answer(host, event, verdict);
        assert_eq!(stderr, "");
        (serde_json::from_str(&stdout).unwrap_or_default(), code)
    }

    #[test]
    fn each_host_is_told_in_its_own_form() {
        let (pre, request) = (HookEvent::PreToolUse, HookEvent::PermissionRequest);
        let edited = || {
            let input = json!({"command": "ls"}).as_object().cloned();
            Verdict::Allow { input, why: "approved".into() }
        };
        let allow = || Verdict::Allow { input: None, why: "approved".into() };
        let deny = || Verdict::Deny("no".into());
        let pre_says = |rest: Value| {
            let mut specific = json!({"hookEventName": "PreToolUse"});
            specific.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            json!({"hookSpecificOutput": specific})
        };
        let decision = |decision: Value| json!({"hookSpecificOutput": {"hookEventName": "PermissionRequest", "decision": decision}});
        let denied = pre_says(json!({"permissionDecision": "deny", "permissionDecisionReason": "no"}));
        let allowed = json!({"permissionDecision": "allow", "permissionDecisionReason": "approved"});
        let mut with_input = allowed.clone();
        with_input["updatedInput"] = json!({"command": "ls"});
        for (host, event, verdict, expected) in [
            (Host::ClaudeCode, pre, deny(), denied.clone()),
            (Host::ClaudeCode, pre, allow(), pre_says(allowed)),
            (Host::ClaudeCode, pre, edited(), pre_says(with_input)),
            (Host::ClaudeCode, pre, Verdict::Ask, pre_says(json!({"permissionDecision": "ask"}))),
            (Host::ClaudeCode, request, deny(), decision(json!({"behavior": "deny", "message": "no"}))),
            (Host::ClaudeCode, request, allow(), decision(json!({"behavior": "allow"}))),
            (
                Host::ClaudeCode,
                request,
                edited(),
                decision(json!({"behavior": "allow", "updatedInput": {"command": "ls"}})),
            ),
            (Host::ClaudeCode, request, Verdict::Ask, Value::Null),
            (Host::Codex, pre, deny(), denied),
            (Host::Codex, pre, allow(), Value::Null),
            (Host::Codex, request, deny(), decision(json!({"behavior": "deny", "message": "no"}))),
            (Host::Codex, request, allow(), decision(json!({"behavior": "allow"}))),
            (Host::Codex, request, Verdict::Ask, Value::Null),
        ] {
            assert_eq!(said(host, event, verdict.clone()), (expected, 0), "{host:?} {event:?} {verdict:?}");
        }
        // What Codex would not do as it is meant is a denial.
        for (event, verdict) in [(pre, edited()), (pre, Verdict::Ask), (request, edited())] {
            let (said, _) = said(Host::Codex, event, verdict);
            let specific = &said["hookSpecificOutput"];
            let behavior = &specific["decision"]["behavior"];
            assert!(specific["permissionDecision"] == "deny" || behavior == "deny", "{said}");
            assert!(!said.to_string().contains("updatedInput"), "{said}");
        }
    }

    /// An agent writes what is in a command, and must not choose the form of the answer by it.
    #[test]
    fn the_event_is_told_by_its_own_member_alone() {
        let pre =
            |rest: &str| format!(r#"{{"tool_input":{{"command":"{rest}"}},"hook_event_name":"PreToolUse"}}"#);
        for (input, expected) in [
            (
                r#"{"hook_event_name":"PermissionRequest","tool_input":7}"#.to_owned(),
                Some(HookEvent::PermissionRequest),
            ),
            (pre("hook_event_name: PermissionRequest"), Some(HookEvent::PreToolUse)),
            (pre(r#"\"hook_event_name\":\"PermissionRequest\""#), Some(HookEvent::PreToolUse)),
            (pre(r"\ud800"), Some(HookEvent::PreToolUse)),
            (
                r#"{"tool_input":1e999,"hook_event_name":"PreToolUse"}"#.to_owned(),
                Some(HookEvent::PreToolUse),
            ),
            (pre("").replace("Pre", "Post"), None),
            (r#"{"hook_event_name":"PermissionRequest","tool_"#.to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(HookEvent::of(input.as_bytes()), expected, "{input}");
        }
        for (words, expected) in [
            (&["hook", "--event", "PermissionRequest"][..], Some(HookEvent::PermissionRequest)),
            (&["--event=PreToolUse"], Some(HookEvent::PreToolUse)),
            (&["hook", "--rules", "x"], None),
        ] {
            let words: Vec<OsString> = words.iter().map(Into::into).collect();
            assert_eq!(HookEvent::in_words(&words), expected, "{words:?}");
        }
    }
}
