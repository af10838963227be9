//! Where a request stands in a distributed trace: the W3C Trace Context that is kept with it.
//!
//! <https://www.w3.org/TR/trace-context/>. What callers send is parsed strictly: what is malformed counts as absent.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most members that a `tracestate` may have.
const MOST_MEMBERS: usize = 32;

/// The longest `tracestate` that is kept, in bytes: as much as everybody has to pass on.
const MOST_STATE_BYTES: usize = 512;

/// A place in a trace: the header `traceparent`, and `tracestate` with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// The trace, and the span in it.
    pub parent: TraceParent,
    /// What the systems of the callers add to it, as a valid `tracestate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// A span of a trace. Its text is a `traceparent` of version 00.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TraceParent {
    /// The trace; not all zero.
    pub trace: [u8; 16],
    /// The span; not all zero.
    pub span: [u8; 8],
    /// Whether whoever made the span records it.
    pub sampled: bool,
}

/// A text that is no `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no `traceparent`")]
pub struct BadTraceParent;

impl TraceContext {
    /// What a call says. `None` if there is not exactly one `traceparent`, or it is malformed. Several lines of `tracestate`
    /// are one list; a malformed list is left out.
    pub fn of_call<'a>(
        parents: impl IntoIterator<Item = &'a [u8]>,
        states: impl IntoIterator<Item = &'a [u8]>,
    ) -> Option<TraceContext> {
        let mut parents = parents.into_iter();
        let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
        let parent = std::str::from_utf8(parent).ok()?.parse().ok()?;
        let states: Result<Vec<&str>, _> = states.into_iter().map(std::str::from_utf8).collect();
        let state = states.ok().and_then(|states| one_state(&states.join(",")));
        Some(TraceContext { parent, state })
    }
}

impl TraceParent {
    /// The id of the trace, in hexadecimal.
    #[must_use]
    pub fn trace_id(&self) -> String {
        hex::encode(self.trace)
    }
}

impl FromStr for TraceParent {
    type Err = BadTraceParent;

    /// Reads a `traceparent` of any version, of which it takes what version 00 has.
    fn from_str(text: &str) -> Result<TraceParent, BadTraceParent> {
        let mut parts = text.split('-');
        let mut next = || parts.next().ok_or(BadTraceParent);
        let [version] = bytes(next()?)?;
        let (trace, span) = (bytes::<16>(next()?)?, bytes::<8>(next()?)?);
        let [flags] = bytes(next()?)?;
        let has_more = parts.next().is_some();
        // Later versions may add something.
        if version == 0xff || (version == 0 && has_more) || trace == [0; 16] || span == [0; 8] {
            return Err(BadTraceParent);
        }
        Ok(TraceParent { trace, span, sampled: flags & 1 == 1 })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span, flags) = (self.trace_id(), hex::encode(self.span), u8::from(self.sampled));
        write!(f, "00-{trace}-{span}-{flags:02x}")
    }
}

impl TryFrom<String> for TraceParent {
    type Error = BadTraceParent;

    fn try_from(text: String) -> Result<TraceParent, BadTraceParent> {
        text.parse()
    }
}

impl From<TraceParent> for String {
    fn from(parent: TraceParent) -> String {
        parent.to_string()
    }
}

/// So many bytes in lower-case hexadecimal.
fn bytes<const N: usize>(text: &str) -> Result<[u8; N], BadTraceParent> {
    let mut bytes = [0; N];
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(BadTraceParent);
    }
    hex::decode_to_slice(text, &mut bytes).map_err(|_| BadTraceParent)?;
    Ok(bytes)
}

/// A `tracestate` without its empty members and spaces; `None` if it is malformed, or empty.
fn one_state(text: &str) -> Option<String> {
    let members = text.split(',').map(|member| member.trim_matches([' ', '\t']));
    let members: Vec<&str> = members.filter(|member| !member.is_empty()).collect();
    let mut keys = Vec::new();
    for member in &members {
        let (key, value) = member.split_once('=')?;
        if !is_key(key) || !is_value(value) || keys.contains(&key) {
            return None;
        }
        keys.push(key);
    }
    let state = members.join(",");
    ((1..=MOST_MEMBERS).contains(&members.len()) && state.len() <= MOST_STATE_BYTES).then_some(state)
}

/// Whether it is a key: `vendor`, or `tenant@vendor`.
fn is_key(key: &str) -> bool {
    let is_name = |name: &str, most: usize, may_begin_with_digit: bool| {
        let begins =
            |first: u8| first.is_ascii_lowercase() || (may_begin_with_digit && first.is_ascii_digit());
        let goes_on =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/".contains(&byte);
        name.len() <= most && name.bytes().next().is_some_and(begins) && name.bytes().all(goes_on)
    };
    match key.split_once('@') {
        Some((tenant, vendor)) => is_name(tenant, 241, true) && is_name(vendor, 14, false),
        None => is_name(key, 256, false),
    }
}

fn is_value(value: &str) -> bool {
    let is_printable = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b',' && byte != b'=';
    (1..=256).contains(&value.len()) && value.bytes().all(is_printable) && !value.ends_with(' ')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(parents: &[&str], states: &[&str]) -> Option<TraceContext> {
        TraceContext::of_call(parents.iter().map(|it| it.as_bytes()), states.iter().map(|it| it.as_bytes()))
    }

    #[test]
    fn a_traceparent_is_read_strictly() {
        for (text, expected) in [
            (PARENT, Some(true)),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", Some(false)),
            // Unknown flags are left out.
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-fe", Some(false)),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-has", Some(true)),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", None),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more", None),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", None),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", None),
            (" 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            ("", None),
        ] {
            let parsed = text.parse::<TraceParent>().ok();
            assert_eq!(parsed.map(|it| it.sampled), expected, "{text}");
        }
        let parent: TraceParent = PARENT.parse().unwrap();
        assert_eq!((parent.to_string().as_str(), parent.trace_id().as_str()), (PARENT, &PARENT[3..35]));
    }

    #[test]
    fn a_tracestate_that_is_malformed_is_left_out() {
        let long = format!("a={}", "x".repeat(511));
        let many: Vec<String> = (0..33).map(|number| format!("k{number}=v")).collect();
        for (states, expected) in [
            (
                &["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"][..],
                Some("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
            ),
            (&["rojo=1", "tenant@vendor=a b"], Some("rojo=1,tenant@vendor=a b")),
            (&["1tenant@vendor=x , ,rojo=1"], Some("1tenant@vendor=x,rojo=1")),
            (&[], None),
            (&[""], None),
            (&["rojo"], None),
            (&["rojo="], None),
            (&["Rojo=1"], None),
            (&["1rojo=1"], None),
            (&["a@b@c=1"], None),
            (&["rojo=1=2"], None),
            (&["rojo=\u{e9}"], None),
            (&["rojo=1,rojo=2"], None),
            (&[&long], None),
            (&[&many.join(",")], None),
        ] {
            let context = of(&[PARENT], states).expect("the parent is sound");
            assert_eq!(context.state.as_deref(), expected, "{states:?}");
        }
        assert_eq!(of(&[PARENT, PARENT], &[]), None, "nobody knows which of two it is");
        assert_eq!(of(&[], &["rojo=1"]), None);
    }

    #[test]
    fn it_is_stored_as_text() {
        let context = of(&[PARENT], &["rojo=1"]).unwrap();
        let stored = serde_json::to_string(&context).unwrap();
        assert_eq!(stored, format!(r#"{{"parent":"{PARENT}","state":"rojo=1"}}"#));
        assert_eq!(serde_json::from_str::<TraceContext>(&stored).unwrap(), context);
        assert!(serde_json::from_str::<TraceContext>(r#"{"parent":"00-1-2-01"}"#).is_err());
    }

    proptest! {
        /// Whatever a caller sends, what is kept of it means the same when it is sent on.
        #[test]
        fn what_is_kept_is_read_again_as_it_is(
            parent in "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}|.{0,60}",
            state in "([a-z0-9@_]{1,4}=[a-z =,]{0,4}[, \t]{0,2}){0,4}|.{0,60}",
        ) {
            if let Some(kept) = of(&[&parent], &[&state]) {
                let (parent, state) = (kept.parent.to_string(), kept.state.clone().unwrap_or_default());
                prop_assert_eq!(of(&[&parent], &[&state]), Some(kept));
            }
        }
    }
}
