//! An event of a synthetic request: who does what, and when. The scenarios' YAML has it in fields;
//! `policy judge --event` has it in one line, `U0BOB approve replicas=4 @12m`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde_json::Value;

use countersign_core::lifecycle::{BadTimestamp, Timestamp};
use countersign_core::{duration, json};
use countersign_gateway::Intent;

use crate::synthetic::Somebody;

/// An event of a synthetic request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    /// Milliseconds after the submission; by default a second after the event before.
    pub(crate) at_ms: Option<u64>,
    /// Who acts; `None` for what happens by itself.
    pub(crate) by: Option<String>,
    pub(crate) intent: Intent,
}

/// What a line says that is no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}; an event is `WHO approve [KEY=VALUE …] [KEY- …]`, `WHO deny [WHY]`, `WHO acknowledge PERSONA`, `WHO withdraw`, `escalated` or `tick`, each with a time at its end, such as `@5m`, if need be"
)]
pub(crate) struct BadEvent(String);

/// Names a person may act by, in any command and file.
pub(crate) const ACTS: [&str; 4] = ["approve", "deny", "acknowledge", "withdraw"];
/// What happens without a person.
pub(crate) const AUTOMATIC: [&str; 2] = ["escalated", "tick"];

impl FromStr for Event {
    type Err = BadEvent;

    fn from_str(line: &str) -> Result<Event, BadEvent> {
        let mut words = words(line)?;
        let at_ms = match words.last().and_then(|word| word.strip_prefix('@')) {
            Some(time) if words.len() > 1 => {
                let at = millis(time).map_err(BadEvent)?;
                words.pop();
                Some(at)
            }
            _ => None,
        };
        let mut words = words.into_iter();
        let (by, intent) = match (words.next(), words.next()) {
            (None, _) => return Err(BadEvent("it is empty".to_owned())),
            (Some(word), None) if word == "escalated" => (None, Intent::Escalate),
            (Some(word), None) if word == "tick" => (None, Intent::Wake),
            (Some(word), _) if AUTOMATIC.contains(&word.as_str()) => {
                return Err(BadEvent(format!("`{word}` is done by nobody and takes nothing but a time")));
            }
            (Some(word), None) => return Err(BadEvent(format!("`{word}` is not all of an event"))),
            (Some(by), Some(act)) => {
                let rest: Vec<String> = words.collect();
                let intent = intent(&by, &act, &rest)?;
                let Somebody { name, .. } = by.parse().map_err(BadEvent)?;
                (Some(name), intent)
            }
        };
        Ok(Event { at_ms, by, intent })
    }
}

fn intent(by: &str, act: &str, rest: &[String]) -> Result<Intent, BadEvent> {
    match (act, rest) {
        ("approve", rest) => {
            let mut edits = BTreeMap::new();
            for word in rest {
                let (key, after) = edit(word)?;
                if edits.insert(key.clone(), after).is_some() {
                    return Err(BadEvent(format!("`{key}` is edited twice")));
                }
            }
            Ok(Intent::Approve { edits })
        }
        ("deny", []) => Ok(Intent::Deny { reason: None }),
        ("deny", rest) => Ok(Intent::Deny { reason: Some(rest.join(" ")) }),
        ("acknowledge", []) => Err(BadEvent(format!("`{by} acknowledge` names no persona"))),
        ("acknowledge", rest) => Ok(Intent::Acknowledge { persona: rest.join(" ") }),
        ("withdraw", []) => Ok(Intent::Withdraw),
        ("withdraw", [word, ..]) => Err(BadEvent(format!("`withdraw` takes nothing, but there is `{word}`"))),
        (other, _) => Err(BadEvent(format!("`{other}` is not something that a person does"))),
    }
}

/// `KEY=VALUE`, the value in JSON or else a text, or `KEY-` to take the parameter away.
fn edit(word: &str) -> Result<(String, Option<Value>), BadEvent> {
    let (key, after) = match word.split_once('=') {
        Some((key, text)) => {
            let value = json::parse_or_text(text);
            (key, Some(value.map_err(|refused| BadEvent(format!("`{key}`: {}", refused.message)))?))
        }
        None => (word.strip_suffix('-').unwrap_or_default(), None),
    };
    if key.is_empty() {
        return Err(BadEvent(format!("`{word}` is no edit: that is `KEY=VALUE`, or `KEY-` to take it away")));
    }
    Ok((key.to_owned(), after))
}

/// Splits at spaces, but not within double quotes or brackets, so that a value may be any JSON.
fn words(line: &str) -> Result<Vec<String>, BadEvent> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut escaped, mut depth) = (false, false, 0_u32);
    for letter in line.chars() {
        if letter.is_whitespace() && !quoted && depth == 0 {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        word.push(letter);
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            // An apostrophe or a bracket in a reason is only that; values are what follows `=`.
            '"' if word.contains('=') => quoted = !quoted,
            '[' | '{' if !quoted && word.contains('=') => depth += 1,
            ']' | '}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    if quoted || depth > 0 {
        return Err(BadEvent(format!("`{word}` does not end")));
    }
    if !word.is_empty() {
        words.push(word);
    }
    Ok(words)
}

/// A duration such as `5m`, in milliseconds.
pub(crate) fn millis(text: &str) -> Result<u64, String> {
    let duration =
        duration::parse(text).map_err(|error| format!("`{text}` is no duration such as `5m`: {error}"))?;
    u64::try_from(duration.as_millis()).map_err(|_| format!("`{text}` is too long"))
}

/// A point in time in RFC 3339.
pub(crate) fn time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|wrong: BadTimestamp| {
        // One that would be sound in another year is only out of bounds.
        let is_sound = |rest: &str| format!("2000{rest}").parse::<Timestamp>().is_ok();
        match text.split_at_checked(4).filter(|(_, rest)| is_sound(rest)) {
            Some(("9999", _)) => "times end with 9999-12-30T22:00:00Z here".to_owned(),
            Some((year, _)) if year.parse::<u16>().is_ok() => "times begin with 1970 here".to_owned(),
            _ => wrong.to_string(),
        }
    })
}

/// Milliseconds for people: `5m 3s`.
pub(crate) fn duration(millis: u64) -> String {
    duration::show(Duration::from_millis(millis))
}

/// For a report: `U0BOB approves with replicas=4`.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = self.by.as_deref().unwrap_or("nobody");
        match &self.intent {
            Intent::Escalate => f.write_str("the escalation time passes"),
            Intent::Wake => f.write_str("the time to wake comes"),
            Intent::Expire => f.write_str("nobody decided in time"),
            Intent::Cancel { .. } => f.write_str("the caller cancels"),
            Intent::End(_) => f.write_str("an admin ends it"),
            Intent::Acknowledge { persona } => write!(f, "{by} acknowledges {persona}"),
            Intent::Deny { reason: None } => write!(f, "{by} denies"),
            Intent::Deny { reason: Some(reason) } => write!(f, "{by} denies: {reason}"),
            Intent::Withdraw => write!(f, "{by} withdraws"),
            Intent::Approve { edits } => {
                write!(f, "{by} approves")?;
                for (index, (key, after)) in edits.iter().enumerate() {
                    f.write_str(if index == 0 { " with " } else { ", " })?;
                    match after {
                        Some(value) => write!(f, "{key}={value}")?,
                        None => write!(f, "{key} taken away")?,
                    }
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn reads(line: &str, at_ms: Option<u64>, shown: &str) {
        let event: Event = line.parse().expect(line);
        assert_eq!((event.at_ms, event.to_string().as_str()), (at_ms, shown), "{line}");
    }

    #[test]
    fn a_line_is_read_as_it_is_said() {
        reads("U1 approve", None, "U1 approves");
        reads("  U1   approve  @5m ", Some(300_000), "U1 approves");
        reads(
            "U1 approve replicas=4 canary- @1m30s",
            Some(90_000),
            "U1 approves with canary taken away, replicas=4",
        );
        reads("U1 approve ref=main", None, r#"U1 approves with ref="main""#);
        reads(r#"U1 approve why="a b" list=[1, 2]"#, None, r#"U1 approves with list=[1,2], why="a b""#);
        reads(
            r#"U1 approve why="say \"hi\" ]" x=null"#,
            None,
            r#"U1 approves with why="say \"hi\" ]", x=null"#,
        );
        // As Slack's dialog has it: what is no JSON is a text.
        reads("U1 approve n=1,5", None, r#"U1 approves with n="1,5""#);
        reads("U1 deny", None, "U1 denies");
        reads("U1 deny not on a Friday @2h", Some(7_200_000), "U1 denies: not on a Friday");
        reads("U1 deny it's [odd", None, "U1 denies: it's [odd");
        reads("U1 acknowledge security", None, "U1 acknowledges security");
        reads("U1 withdraw", None, "U1 withdraws");
        reads("escalated @15m", Some(900_000), "the escalation time passes");
        reads("tick", None, "the time to wake comes");
    }

    #[test]
    fn a_time_out_of_bounds_is_told_from_none() {
        assert_eq!(time("1970-01-01T00:00:00Z"), Ok(Timestamp::EPOCH));
        for (text, said) in [
            ("9999-12-31T23:59:59Z", "times end with 9999-12-30T22:00:00Z here"),
            ("1969-12-31T23:59:59Z", "times begin with 1970 here"),
            ("9999-12-32T23:59:59Z", "not a time in RFC 3339"),
            ("2026-12-31", "not a time in RFC 3339"),
            ("é026-12-31T23:59:59Z", "not a time in RFC 3339"),
        ] {
            let error = time(text).expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_no_event_is_told_why() {
        for (line, said) in [
            ("", "it is empty"),
            ("  ", "it is empty"),
            ("U1", "`U1` is not all of an event"),
            ("@5m", "`@5m` is not all of an event"),
            ("U1 aprove", "`aprove` is not something that a person does"),
            ("U1 approve replicas", "`replicas` is no edit"),
            ("U1 approve =4", "`=4` is no edit"),
            ("U1 approve -", "`-` is no edit"),
            ("U1 approve a=1 a=2", "`a` is edited twice"),
            ("U1 approve a=[1", "`a=[1` does not end"),
            // As Slack's dialog has it: JSON that a gateway does not take is no text.
            ("U1 approve n=9007199254740992", "`n`: a whole number beyond"),
            ("U1 approve n=9007199254740991.4", "`n`: this number is not exactly"),
            ("U1 approve n={\"a\":1,\"a\":2}", "`n`: this key comes twice"),
            ("U1 approve @soon", "`soon` is no duration"),
            ("U1 acknowledge", "names no persona"),
            ("U1 withdraw it", "takes nothing, but there is `it`"),
            ("escalated now", "`escalated` is done by nobody"),
            ("tick U1", "`tick` is done by nobody"),
        ] {
            let error = line.parse::<Event>().expect_err(line).to_string();
            assert!(error.contains(said) && error.contains("an event is"), "{line}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics_on_any_line(line in ".*") {
            let _ = line.parse::<Event>();
        }
    }
}
