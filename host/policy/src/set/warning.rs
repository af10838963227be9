//! What is no fault of a set, and whoever wrote it may not want.

use std::collections::BTreeSet;

use countersign_core::directory::{Directory, is_usergroup};
use countersign_core::eligible::Eligible;
use countersign_core::lifecycle::{Request, State, Timestamp};
use countersign_core::record::{PolicyEntry, Redaction};
use countersign_core::text::plain;

use super::{ANY_ACTION, PolicySet, SUPER_APPROVERS, running_out, trial};
use crate::action::ActionPolicy;
use crate::reach;
use crate::yaml::error::did_you_mean;

impl PolicySet {
    /// What whoever wrote the set may not want, although it can be in force: a text for each. `directory` knows people and
    /// the members of Slack's user groups at `now`; what it does not know is not warned of.
    ///
    /// Asks the policies, so it is to be called off the request path.
    #[must_use]
    pub fn warnings(&self, directory: &Directory, now: Timestamp) -> Vec<String> {
        let mut warnings = self.oddities.to_vec();
        if self.policies().next().is_none() {
            warnings.push("there is no action: every request is denied".to_owned());
        }
        warnings.extend(self.channels());
        // What is approved at once need not be shown to anybody.
        let shown = || self.policies().map(|policy| policy.entry()).filter(|entry| !entry.unattended);
        if shown().count() > 1 && shown().all(|entry| entry.channel.is_none()) {
            warnings.push(
                "no action has a channel, so no request is shown to anybody: set `channel` in `defaults`"
                    .to_owned(),
            );
        }
        // Every entry has all groups of the set, so each has something to say of them.
        let mut seen = BTreeSet::new();
        let of_actions = self.policies().flat_map(|policy| policy.warnings(directory, now));
        warnings.extend(of_actions.filter(|warning| seen.insert(warning.clone())));
        one_line_each(&warnings)
    }

    fn channels(&self) -> impl Iterator<Item = String> {
        let channels = self.policies().flat_map(|policy| {
            let entry = policy.entry();
            let escalation = entry.escalate.as_ref().and_then(|escalate| escalate.channel.as_deref());
            entry.channel.as_deref().into_iter().chain(escalation)
        });
        let others: BTreeSet<&str> = channels.filter(|channel| !is_channel_id(channel)).collect();
        others.into_iter().map(|channel| {
            format!(
                "`{channel}` is not the id of a channel (`C…`, `G…` or `D…`): \
                 a message there that Slack does not confirm cannot be looked for, and may be posted twice"
            )
        })
    }
}

impl ActionPolicy {
    /// A synthetic request at the moment in which it is made, so that it shows who must agree; or why it is not made.
    ///
    /// # Errors
    /// What its policies have against it.
    pub fn synthetic_request(&self) -> Result<Request, String> {
        trial::request(self)
    }

    /// What whoever wrote the action may not want; see [`PolicySet::warnings`].
    #[must_use]
    pub fn warnings(&self, directory: &Directory, now: Timestamp) -> Vec<String> {
        let entry = self.entry();
        let (request, skipped) = match self.synthetic_request() {
            Ok(request) => (Some(request), None),
            Err(why) => (None, Some(why)),
        };
        let mut seen = BTreeSet::new();
        let mut warnings = groups(entry, directory, now);
        warnings.extend(skipped.map(|why| {
            format!(
                "the action `{}` was not tried, because its policies do not admit a synthetic request: {why}; so it is not \
                 known whether it can be approved, nor whether what it lets people edit is shown and fits its schema{}",
                entry.action,
                match entry.schema {
                    Some(_) => " (`examples` in the schema make better synthetic parameters)",
                    None => "",
                }
            )
        }));
        // Unknown actions have no place where a set could say what is shown.
        if entry.redact.shows_nothing() && entry.action != ANY_ACTION {
            warnings.push(format!(
                "the action `{}` shows approvers no parameters: `redact` is missing, or shows none",
                entry.action
            ));
        }
        warnings.extend(unknown_redaction(self));
        warnings.extend(unlikely_parameters(self));
        for (module, used) in self.modules().zip(&entry.policies) {
            let tables = running_out::tables(&module.descriptor().config_schema, &used.config, now);
            warnings.extend(tables.into_iter().map(|(key, last)| {
                format!(
                    "the action `{}`: the last entry of `{key}` of `{}` is of {last}, and nothing is known after it: add later \
                     ones",
                    entry.action, used.name
                )
            }));
        }
        if let Some(unknown) = self.param_schema().and_then(|schema| schema.unknown_format()) {
            warnings.push(format!("the schema of the action `{}`: {unknown}", entry.action));
        }
        let unknown = self.param_schema().map(|schema| schema.unknown_keywords()).unwrap_or_default();
        warnings.extend(
            unknown.iter().map(|keyword| format!("the schema of the action `{}`: {keyword}", entry.action)),
        );
        if self.param_schema().is_some_and(|schema| schema.allows_anything()) {
            warnings.push(format!(
                "the schema of the action `{}` allows any parameters, so it checks nothing: say which there are in \
                 `properties`, or remove it",
                entry.action
            ));
        }
        if entry.channel.is_none() && !entry.unattended {
            let in_vain = if entry.notify { ", though it says `notify: true`" } else { "" };
            warnings.push(format!(
                "the action `{}` has no channel, so nobody is told of its requests{in_vain}",
                entry.action
            ));
        }
        // What is wrong with a group is said of the group.
        let names = names(entry, request.as_ref());
        for (does, name) in names.into_iter().filter(|(_, name)| !name.starts_with('@')) {
            let Eligible { unreachable, gone, unknown, .. } = entry.named(name, &[], directory, now);
            if !seen.insert(name) {
                continue;
            }
            let group = match entry.groups.contains_key(name) {
                true => format!("; did you mean the group `\"@{name}\"`?"),
                false => String::new(),
            };
            if !unreachable.is_empty() {
                warnings.push(format!("the action `{}` {does} {}{group}", entry.action, nobody(name)));
            }
            if !unknown.is_empty() {
                warnings.push(format!("the action `{}` {does} {}{group}", entry.action, not_known(name)));
            }
            if !gone.is_empty() {
                warnings.push(format!("the action `{}` {does} `{name}`, who has left Slack", entry.action));
            }
        }
        let tried = request.as_ref().map(|request| {
            let obstacles = reach::obstacles(self, request, directory);
            obstacles.into_iter().chain(reach::surprises(self, request, directory))
        });
        let tried = tried.into_iter().flatten();
        warnings.extend(tried.map(|found| format!("the action `{}`: {found}", entry.action)));
        one_line_each(&warnings)
    }

    /// Names that the action and its policies give people, and of which `directory`, which does not know people, cannot say
    /// whose they are.
    #[must_use]
    pub fn unknown_people(&self, directory: &Directory, now: Timestamp) -> BTreeSet<String> {
        let entry = self.entry();
        let request = self.synthetic_request().ok();
        let groups = entry.groups.keys().map(|group| format!("@{group}"));
        let names = names(entry, request.as_ref()).into_iter().map(|(_, name)| name.to_owned()).chain(groups);
        let unknown = names.flat_map(|name| entry.named(&name, &[], directory, now).unknown);
        unknown.filter(|name| !is_usergroup(name)).collect()
    }
}

/// Whom an action names, and for what: in what its policies ask for, and by itself.
fn names<'a>(entry: &'a PolicyEntry, request: Option<&'a Request>) -> Vec<(&'static str, &'a str)> {
    let mut names = Vec::new();
    if let Some(State::Open(open)) = request.map(|request| &request.state) {
        let eligible = open.requirements.iter().flat_map(|wanted| &wanted.eligible);
        names.extend(eligible.map(|name| ("asks for", name.as_str())));
    }
    let mention = entry.escalate.iter().filter_map(|escalate| escalate.mention.as_deref());
    names.extend(mention.filter(|name| !is_usergroup(name)).map(|name| ("mentions", name)));
    let by = entry.rerequest.iter().flat_map(|rerequest| &rerequest.by).map(String::as_str);
    let by = by.filter(|who| !matches!(*who, "requester" | "approvers"));
    names.extend(by.map(|name| ("lets requests be made again by", name)));
    names
}

/// They go to terminals and logs, and repeat texts of the set.
fn one_line_each(warnings: &[String]) -> Vec<String> {
    warnings.iter().map(|warning| plain(warning)).collect()
}

/// Parameters that `redact` names and no request can have: a typing error, with which a secret would be shown.
fn unknown_redaction(policy: &ActionPolicy) -> Vec<String> {
    let (Some(schema), entry) = (policy.param_schema(), policy.entry()) else { return Vec::new() };
    let (does, keys) = match &entry.redact {
        Redaction::Show(keys) => ("shows", keys),
        Redaction::Hide(keys) => ("hides", keys),
    };
    let unknown = keys.iter().filter(|key| !schema.lists(key));
    let warning = |key: &String| {
        let hint = did_you_mean(key, schema.listed());
        let action = &entry.action;
        format!("the action `{action}` {does} the parameter `{key}`, which its schema does not list{hint}")
    };
    unknown.map(warning).collect()
}

/// Parameters that are named as if they were within others, or several: a parameter is named by its top-level key, so most
/// likely nothing has this one. A schema tells.
fn unlikely_parameters(policy: &ActionPolicy) -> Vec<String> {
    let entry = policy.entry();
    if policy.param_schema().is_some() {
        return Vec::new();
    }
    let (does, keys) = match &entry.redact {
        Redaction::Show(keys) => ("shows", keys),
        Redaction::Hide(keys) => ("hides", keys),
    };
    let named =
        keys.iter().map(|key| (does, key)).chain(entry.supersede.iter().map(|key| ("supersedes by", key)));
    let unlikely = |key: &str| key.contains(|letter: char| ".,/".contains(letter) || letter.is_whitespace());
    let warning = |(does, key): (&str, &String)| {
        let action = &entry.action;
        format!(
            "the action `{action}` {does} the parameter `{key}`: parameters are named by their top-level keys, so nothing \
             within one, and one at a time"
        )
    };
    named.filter(|(_, key)| unlikely(key)).map(warning).collect()
}

/// What is wrong with groups.
fn groups(entry: &PolicyEntry, directory: &Directory, now: Timestamp) -> Vec<String> {
    let mut warnings = Vec::new();
    for group in entry.groups.keys() {
        let members = entry.named(&format!("@{group}"), &[], directory, now);
        warnings.extend(
            members.unreachable.iter().map(|name| format!("the group `{group}` holds {}", nobody(name))),
        );
        warnings.extend(
            members.gone.iter().map(|id| format!("the group `{group}` holds `{id}`, who has left Slack")),
        );
        let unknown = members.unknown.iter().filter(|name| !is_usergroup(name));
        warnings.extend(unknown.map(|name| format!("the group `{group}` holds {}", not_known(name))));
        if !entry.groups.contains_key(SUPER_APPROVERS) {
            let hint = did_you_mean(group, [SUPER_APPROVERS]);
            if !hint.is_empty() {
                warnings.push(format!("the group `{group}` has no say unless a policy names it{hint}"));
            }
        }
        if !members.empty.is_empty() {
            warnings.push(format!("the group `{group}` has no members"));
        }
    }
    warnings
}

/// A name that nobody in Slack can act under.
fn nobody(name: &str) -> String {
    format!(
        "`{name}`, who can be nobody in Slack: it is neither a Slack id (`U…` or `W…`, in capitals) nor a name of somebody \
         in `people` of the access file who has one"
    )
}

/// A name of which only the access file says whose it is.
fn not_known(name: &str) -> String {
    format!(
        "`{name}`, which is no Slack id (`U…` or `W…`, in capitals), and only `people` of the access file says who has this \
         name: give it with `--access FILE`"
    )
}

/// Whether Slack would read the history of a channel that is given so. Names of channels have no capitals.
fn is_channel_id(channel: &str) -> bool {
    let upper = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    channel.len() >= 2 && channel.starts_with(['C', 'G', 'D']) && channel.bytes().all(upper)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_channels_are_told_from_all_else_that_slack_posts_to() {
        for id in ["C0", "C0123ABCD", "G0123ABCD", "D0123ABCD"] {
            assert!(is_channel_id(id), "{id}");
        }
        for other in [
            "",
            "C",
            "#deploys",
            "deploys",
            "#C0123ABCD",
            "c0123abcd",
            "C0123abcd",
            " C0123ABCD",
            "C0123ABCD ",
            "C0123-ABCD",
            "U0123ABCD",
            "W0123ABCD",
            "@alice",
            "Ç0123ABCD",
        ] {
            assert!(!is_channel_id(other), "{other}");
        }
    }
}
