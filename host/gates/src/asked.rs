//! What a delivery asks for, in the same form for every CI system.

use countersign_core::lifecycle::{Gate, Link, Origin};
use serde_json::{Map, Value};

/// What a delivery says.
#[derive(Clone, Debug, PartialEq)]
pub enum Read {
    /// A decision is asked for.
    Asked(Box<Asked>),
    /// What was asked about has ended on its own: a decision about its subject is not needed any more.
    Over(Gate),
    /// It asks for nothing, for this reason.
    Nothing(&'static str),
}

/// A decision that a CI system asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// Whom the decision is reported to, and about what: the same for each delivery of it, and for nothing else. It is made of
    /// what is signed.
    pub gate: Gate,
    /// What rules match and templates are filled with: texts and whole numbers by name.
    pub claims: Map<String, Value>,
    /// What people see unless the access file has parameters of its own.
    pub params: Map<String, Value>,
    /// Where it comes from.
    pub origin: Origin,
    /// Why it is asked for.
    pub justification: String,
    /// Where to read more.
    pub links: Vec<Link>,
    /// What to call whoever triggered it.
    pub display: Option<String>,
    /// Others who have a part in it, and so may not approve it: `github:5`.
    pub owners: Vec<String>,
    /// Programs that have a part in it, which the CI system itself tells from people: `github:5`.
    pub programs: Vec<String>,
}

/// Why a delivery cannot be read, although it is signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Malformed {
    /// Where: `deployment.id`.
    pub path: &'static str,
    /// What is wrong there.
    pub message: String,
}

/// A member of a delivery, by its path from the root.
pub(crate) struct Member<'a> {
    root: &'a Value,
    path: &'static str,
}

impl<'a> Member<'a> {
    pub(crate) fn of(root: &'a Value, path: &'static str) -> Member<'a> {
        Member { root, path }
    }

    fn value(&self) -> Option<&'a Value> {
        self.path.split('.').try_fold(self.root, |value, key| value.get(key))
    }

    fn wrong(&self, message: &str) -> Malformed {
        Malformed { path: self.path, message: message.to_owned() }
    }

    /// A positive number, as ids are.
    pub(crate) fn id(&self) -> Result<u64, Malformed> {
        let id = self.value().and_then(Value::as_u64).filter(|id| *id > 0);
        id.ok_or_else(|| self.wrong("is no id"))
    }

    /// A text that is not empty, of at most `most` characters and without control characters.
    pub(crate) fn text(&self, most: usize) -> Result<&'a str, Malformed> {
        let text = self.value().and_then(Value::as_str).ok_or_else(|| self.wrong("is no text"))?;
        let fits = !text.trim().is_empty() && text.chars().count() <= most;
        if fits && !text.chars().any(char::is_control) {
            return Ok(text);
        }
        Err(self.wrong(&format!("must have 1 to {most} characters, and no control characters")))
    }

    /// The same, if it is there.
    pub(crate) fn optional(&self, most: usize) -> Option<&'a str> {
        self.text(most).ok()
    }
}
