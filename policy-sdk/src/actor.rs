//! Who acts, and the lists of ids and `@group` names that a configuration names people with.

use crate::{Reason, policy::INVALID_CONFIG};

/// The group of the policy set whose members may approve anything.
/// It is a name to look for in [`Actor::groups`]; a policy decides for itself what "anything" covers.
pub const SUPER_APPROVERS: &str = "super-approvers";

/// What kind of thing somebody is, as far as the gateway knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Known {
    /// A person: one of the access file, or a user of Slack.
    #[default]
    Person,
    /// A program.
    Machine,
    /// Nobody that is known: it may be an approver under another name.
    Unknown,
}

/// Somebody who acts or asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actor {
    /// The one id that the gateway has for them, whatever name they came under: ids can be compared.
    pub id: String,
    /// Every group of the policy set that the gateway found them in, without `@`.
    pub groups: Vec<String>,
    /// What kind of thing they are.
    pub known: Known,
    /// Whether the name was proven, rather than asserted by whoever asks. Whoever acts is always authenticated.
    pub authenticated: bool,
}

impl Actor {
    /// Is this actor in the group, named without `@`?
    #[must_use]
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|name| name == group)
    }

    /// Does `list` name this actor, by id or by a `@group` that they are in?
    ///
    /// An entry with `@` is only ever a group, so that nobody gains a group's rights by having an id that looks like it.
    /// ```
    /// use countersign_policy_sdk::Actor;
    ///
    /// let list = ["U1".to_owned(), "@release-managers".to_owned()];
    /// let manager = Actor { id: "U7".into(), groups: vec!["release-managers".into()], ..Actor::default() };
    /// let impostor = Actor { id: "@release-managers".into(), ..Actor::default() };
    /// assert!(manager.is_listed(&list));
    /// assert!(!impostor.is_listed(&list));
    /// ```
    #[must_use]
    pub fn is_listed(&self, list: &[String]) -> bool {
        list.iter().any(|entry| match entry.strip_prefix('@') {
            Some(group) => self.is_in(group),
            None => *entry == self.id,
        })
    }
}

/// What is wrong with a configured list of ids and `@group` names, for [`Policy::check`](crate::Policy::check):
/// an empty list, a blank entry, an `@` without a name, or an entry that stands there twice.
///
/// `path` is the JSON Pointer of the list; the reasons carry the pointer of the entry that they concern.
/// ```
/// use countersign_policy_sdk::check_actor_list;
///
/// let problems = check_actor_list("/approvers", &["U1".into(), "@".into()]);
/// assert_eq!(problems[0].path.as_deref(), Some("/approvers/1"));
/// ```
#[must_use]
pub fn check_actor_list(path: &str, list: &[String]) -> Vec<Reason> {
    if list.is_empty() {
        return vec![Reason::new(INVALID_CONFIG, "names nobody").at(path)];
    }
    let problem = |(index, entry): (usize, &String)| {
        let message = if entry.trim().is_empty() {
            "a blank entry names nobody".to_owned()
        } else if entry.strip_prefix('@').is_some_and(|group| group.trim().is_empty()) {
            "`@` needs the name of a group behind it".to_owned()
        } else if entry.trim() != entry {
            format!("`{entry}` has spaces around it")
        } else if list.iter().take(index).any(|earlier| earlier == entry) {
            format!("`{entry}` is listed twice")
        } else {
            return None;
        };
        Some(Reason::new(INVALID_CONFIG, message).at(format!("{path}/{index}")))
    };
    list.iter().enumerate().filter_map(problem).collect()
}
