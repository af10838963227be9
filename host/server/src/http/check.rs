//! Validates what callers send: lengths, characters, links. Collects all errors, not only the first.

use countersign_core::lifecycle::{Link, Origin, Party, canonical};
use serde_json::{Map, Value};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};

use super::error::{ApiError, Invalid};

/// The largest parameters together, in bytes of canonical JSON.
const MAX_PARAMS_BYTES: usize = 128 * 1024;

/// The largest policy hints, in bytes of canonical JSON.
const MAX_HINTS_BYTES: usize = 16 * 1024;

const MAX_PARAMS: usize = 1000;
const MAX_LINKS: usize = 20;

/// What [`Check::params`] takes, in the OpenAPI document.
pub(crate) struct Parameters;

impl utoipa::PartialSchema for Parameters {
    fn schema() -> RefOr<Schema> {
        let name = ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
            .max_length(Some(128))
            .pattern(Some(r"^[^\x00-\x1f\x7f-\x9f]+$"));
        ObjectBuilder::new()
            .description(Some("Parameters of an action, by their names."))
            .property_names(Some(name))
            .into()
    }
}

impl utoipa::ToSchema for Parameters {}

/// Collects validation errors.
#[derive(Default)]
pub(crate) struct Check {
    wrong: Vec<Invalid>,
}

impl Check {
    /// Fails if there are errors.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        if self.wrong.is_empty() { Ok(()) } else { Err(ApiError::Invalid(self.wrong)) }
    }

    /// A name or an id: one line that is not blank.
    pub(crate) fn name(&mut self, path: &str, text: &str, most: usize) {
        if text.trim().is_empty() {
            self.wrong(path, "must not be blank");
        } else if text.chars().count() > most {
            self.wrong(path, format!("must have at most {most} characters"));
        } else if text.chars().any(char::is_control) {
            self.wrong(path, "must not have control characters");
        }
    }

    /// A text for people, which may have several lines.
    pub(crate) fn text(&mut self, path: &str, text: &str, least: usize, most: usize) {
        if text.trim().chars().count() < least {
            self.wrong(path, format!("must have at least {least} characters"));
        } else if text.chars().count() > most {
            self.wrong(path, format!("must have at most {most} characters"));
        } else if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
            self.wrong(path, "must not have control characters");
        }
    }

    pub(crate) fn party(&mut self, path: &str, party: &Party) {
        self.name(&format!("{path}.id"), &party.id, 128);
        self.name(&format!("{path}.source"), &party.source, 64);
        if let Some(display) = &party.display {
            self.name(&format!("{path}.display"), display, 128);
        }
    }

    pub(crate) fn origin(&mut self, path: &str, origin: &Origin) {
        self.name(&format!("{path}.repo"), &origin.repo, 256);
        if let Some(branch) = &origin.branch {
            self.name(&format!("{path}.branch"), branch, 256);
        }
        for (key, value) in [("pr", &origin.pr), ("run_id", &origin.run_id)] {
            let path = format!("{path}.{key}");
            match value {
                None | Some(Value::Number(_)) => {}
                Some(Value::String(text)) => self.name(&path, text, 128),
                Some(_) => self.wrong(&path, "must be a number or a string"),
            }
        }
    }

    pub(crate) fn links(&mut self, path: &str, links: &[Link]) {
        if links.len() > MAX_LINKS {
            self.wrong(path, format!("must have at most {MAX_LINKS} links"));
            return;
        }
        for (n, link) in links.iter().enumerate() {
            self.name(&format!("{path}[{n}].label"), &link.label, 150);
            if let Err(message) = web_address(&link.url) {
                self.wrong(&format!("{path}[{n}].url"), message);
            }
        }
    }

    /// The parameters.
    ///
    /// # Errors
    /// If they are too large: that is a status of its own.
    pub(crate) fn params(&mut self, path: &str, params: &Map<String, Value>) -> Result<(), ApiError> {
        if params.len() > MAX_PARAMS {
            self.wrong(path, format!("must have at most {MAX_PARAMS} parameters"));
        }
        for key in params.keys() {
            if key.is_empty() || key.chars().count() > 128 || key.chars().any(char::is_control) {
                let shown: String = key.chars().filter(|c| !c.is_control()).take(64).collect();
                self.wrong(
                    &format!("{path}.{shown}"),
                    "the name must have 1 to 128 characters, and no control characters",
                );
            }
        }
        let size: usize = params.iter().map(|(key, value)| key.len() + canonical(value).len() + 4).sum();
        if size > MAX_PARAMS_BYTES {
            return Err(ApiError::TooLarge(format!("`{path}` has more than {MAX_PARAMS_BYTES} bytes")));
        }
        Ok(())
    }

    pub(crate) fn hints(&mut self, path: &str, hints: &Value) {
        if canonical(hints).len() > MAX_HINTS_BYTES {
            self.wrong(path, format!("must have at most {MAX_HINTS_BYTES} bytes"));
        }
    }

    fn wrong(&mut self, path: &str, message: impl Into<String>) {
        self.wrong.push(Invalid::new(path, message));
    }
}

/// A URL that is safe to show to an approver as a link: nothing in it can disguise the host.
fn web_address(url: &str) -> Result<(), &'static str> {
    let rest = ["https://", "http://"].iter().find_map(|scheme| url.strip_prefix(scheme));
    let Some(rest) = rest else { return Err("must be an https or http URL") };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if url.len() > 2000 {
        Err("must have at most 2000 bytes")
    } else if authority.is_empty() || authority.starts_with(':') {
        Err("must name a host")
    } else if authority.contains('@') {
        Err("must not name a user, since that can pass for the host")
    } else if url.chars().any(|c| c.is_control() || c.is_whitespace() || "<>\"|\\`{}^".contains(c)) {
        Err("must not have characters that do not belong in a URL")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_go_where_they_say() {
        for url in ["https://ci.example/run/1?x=1#y", "http://[::1]:80/", "https://bücher.example/"] {
            assert_eq!(web_address(url), Ok(()), "{url}");
        }
        for url in [
            "",
            "ftp://x",
            "javascript:alert(1)",
            "HTTPS:/x",
            "https://",
            "https:///x",
            "https://:80/",
            "https://good.example@evil.example/",
            "https://x/a b",
            "https://x/a|label",
            "https://x/>",
            "https://x/\u{202f}",
            "https://x\\@y",
        ] {
            assert!(web_address(url).is_err(), "{url}");
        }
        assert!(web_address(&format!("https://x/{}", "a".repeat(2000))).is_err());
    }

    #[test]
    fn a_name_is_one_visible_line() {
        let wrong = |text: &str| {
            let mut check = Check::default();
            check.name("id", text, 8);
            check.finish().is_err()
        };
        assert!(!wrong("U0ALICE") && !wrong("Zoë"));
        assert!(wrong("") && wrong("  ") && wrong("a\nb") && wrong("a\0") && wrong("123456789"));
    }
}
