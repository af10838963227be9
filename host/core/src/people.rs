//! People and the names that they have in other systems.
//!
//! A name has one form everywhere: a bare Slack id, or `source:id` for any other system. It is compared exactly.

use std::collections::{BTreeMap, HashMap};

/// The source whose ids stand by themselves.
pub const SLACK: &str = "slack";

/// One person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The name that policy sets use.
    pub name: String,
    /// The person's names elsewhere, Slack ids first: `U0DANA`, `github:dana-d`, `email:dana@acme.example`.
    pub aliases: Vec<String>,
}

impl Person {
    /// Every name, the one that policy sets use first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.name).chain(&self.aliases).map(String::as_str)
    }

    /// The person's Slack ids.
    pub fn slack_ids(&self) -> impl Iterator<Item = &str> {
        self.aliases.iter().map(String::as_str).filter(|alias| is_slack_id(alias))
    }
}

/// Everybody who is known by more than one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct People {
    by_name: BTreeMap<String, Person>,
    /// The person's name by each alias.
    by_alias: HashMap<String, String>,
}

impl People {
    /// Adds a person.
    ///
    /// # Errors
    /// The name that somebody else has already, and whose it is.
    pub fn add(&mut self, person: Person) -> Result<(), (String, String)> {
        let names = std::iter::once(&person.name).chain(&person.aliases);
        for name in names.clone() {
            if let Some(other) = self.find(name) {
                return Err((name.clone(), other.name.clone()));
            }
        }
        for alias in &person.aliases {
            self.by_alias.insert(alias.clone(), person.name.clone());
        }
        self.by_name.insert(person.name.clone(), person);
        Ok(())
    }

    /// The person with this name, or who has it elsewhere.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Person> {
        self.by_name.get(name).or_else(|| self.by_name.get(self.by_alias.get(name)?))
    }

    /// Everybody, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Person> {
        self.by_name.values()
    }

    /// Whether nobody is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

/// Whether an id has the form of a person's Slack id: `U…` or `W…`, capital letters and digits.
#[must_use]
pub fn is_slack_id(id: &str) -> bool {
    id.len() >= 2
        && id.starts_with(['U', 'W'])
        && id.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

/// An id of a system as a name, in its one form.
///
/// # Errors
/// Why the id cannot be one of that system's.
pub fn name_of(source: &str, id: &str) -> Result<String, String> {
    if id.trim() != id {
        return Err("has spaces around it".to_owned());
    }
    if id.is_empty() || id.chars().any(char::is_control) {
        return Err("is empty or has control characters".to_owned());
    }
    if source == SLACK {
        return match is_slack_id(id) {
            true => Ok(id.to_owned()),
            false => {
                Err("is no Slack id: one is `U` or `W`, followed by capital letters and digits".to_owned())
            }
        };
    }
    let is_source = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    if source.is_empty() || !source.bytes().all(is_source) {
        return Err(format!(
            "is of the source `{source}`, which is not written in small letters, digits, `-`, `_` and `.`"
        ));
    }
    Ok(format!("{source}:{id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dana() -> Person {
        let aliases = ["U0DANA", "W0DANA", "github:dana-d"].map(str::to_owned);
        Person { name: "dana".to_owned(), aliases: aliases.into() }
    }

    #[test]
    fn a_person_is_found_by_any_name() {
        let mut people = People::default();
        people.add(dana()).unwrap();
        for (name, expected) in [
            ("dana", true),
            ("U0DANA", true),
            ("W0DANA", true),
            ("github:dana-d", true),
            ("dana-d", false),
            ("github:Dana-d", false),
            ("u0dana", false),
            ("", false),
        ] {
            assert_eq!(
                people.find(name).map(|person| person.name.as_str()),
                expected.then_some("dana"),
                "{name}"
            );
        }
        assert_eq!(people.find("dana").unwrap().slack_ids().collect::<Vec<_>>(), ["U0DANA", "W0DANA"]);
    }

    #[test]
    fn nobody_has_a_name_of_somebody_else() {
        for (name, alias, taken) in [
            ("dana", "U1", "dana"),
            ("rita", "W0DANA", "W0DANA"),
            ("U0DANA", "U2", "U0DANA"),
            ("rita", "dana", "dana"),
        ] {
            let mut people = People::default();
            people.add(dana()).unwrap();
            let rita = Person { name: name.to_owned(), aliases: vec![alias.to_owned()] };
            assert_eq!(people.add(rita), Err((taken.to_owned(), "dana".to_owned())), "{name} {alias}");
            assert_eq!(people.iter().count(), 1);
        }
    }

    #[test]
    fn a_name_has_one_form() {
        for (source, id, expected) in [
            ("slack", "U0DANA", Some("U0DANA")),
            ("slack", "u0dana", None),
            ("slack", "U0DANA ", None),
            ("slack", "dana", None),
            ("slack", "U", None),
            ("slack", "", None),
            ("github", "dana-d", Some("github:dana-d")),
            ("github", " dana-d", None),
            ("github", "", None),
            ("GitHub", "dana-d", None),
            ("", "dana", None),
            ("git:hub", "dana", None),
            ("ci", "a\nb", None),
        ] {
            assert_eq!(name_of(source, id).ok().as_deref(), expected, "{source} {id:?}");
        }
    }
}
