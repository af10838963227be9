//! `people`: the names that people have in several systems.

use countersign_core::people::{People, Person, is_slack_id, name_of};
use countersign_policy::yaml::document::Node;

use super::{Reading, Refused};

/// The systems that a person has names in, as fields of `people`; `slack` is apart.
const SYSTEMS: [&str; 4] = ["github", "gitlab", "email", "subject"];

impl Reading<'_> {
    pub(super) fn people(&mut self, node: Option<&Node>) -> People {
        let mut people = People::default();
        let known: Vec<&str> = std::iter::once("slack").chain(SYSTEMS).collect();
        self.refused_people = Refused::of(node);
        for (key, node) in self.reader.members(node, "`people`") {
            self.named(key, "a person");
            if is_slack_id(&key.text) || key.text.contains(':') {
                let message =
                    format!("`{}` names a person, and looks like an id of another system", key.text);
                self.reader.error(key.at, message);
                self.refused_people.names.insert(key.text.clone());
                continue;
            }
            let Some(fields) = self.reader.fields(node, "a person", &known) else {
                self.refused_people.names.insert(key.text.clone());
                continue;
            };
            let mut aliases = Vec::new();
            for system in &known {
                for (at, id) in self.one_or_more(fields.get(system), &format!("`{system}`")) {
                    if let Some(why) = impossible_id(system, &id) {
                        self.reader.error(at, format!("`{id}` {why}"));
                        continue;
                    }
                    match name_of(system, &id) {
                        Ok(name) => aliases.push((at, name)),
                        Err(why) => self.reader.error(at, format!("`{id}` {why}")),
                    }
                }
            }
            if known.iter().all(|system| fields.get(system).is_none()) {
                let message =
                    format!("the person `{}` has no name anywhere: say `slack`, at least", key.text);
                self.reader.error(key.at, message);
            }
            let names = aliases.iter().map(|(_, name)| name.clone()).collect();
            if let Err((taken, whose)) = people.add(Person { name: key.text.clone(), aliases: names }) {
                let at = aliases.iter().find(|(_, name)| *name == taken).map_or(key.at, |(at, _)| *at);
                let names = aliases.iter().map(|(_, name)| name.clone());
                self.refused_people.names.extend(names.chain([key.text.clone()]));
                let message = match whose == key.text {
                    true => format!("`{taken}` is listed twice"),
                    false => format!("`{taken}` is the person `{whose}` already"),
                };
                self.reader.error(at, message);
            }
        }
        people
    }
}

/// Why an id cannot be anybody's in this system, besides what holds for every name.
fn impossible_id(system: &str, id: &str) -> Option<&'static str> {
    if matches!(system, "github" | "gitlab" | "email") && id.trim() == id && id.contains(char::is_whitespace)
    {
        return Some("has spaces in it");
    }
    (system == "email" && !id.contains('@')).then_some("is no e-mail address")
}
