//! Who is who: the people of the access file, who is in the user groups of Slack that groups of a policy set name, and who
//! has left Slack.
//!
//! It only remembers: the access file says who people are, and `countersign-slack` asks Slack for the rest.
//! A group of which nothing is known has no members, and a user of whom nothing is known is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use crate::lifecycle::Timestamp;
use crate::people::People;

/// How old a list of members may be before whoever acts by it is marked, in milliseconds.
pub const STALE_AFTER_MS: u64 = 15 * 60 * 1000;

/// How old it may be at the most: Slack can be away for a day before nobody is let in by it.
pub const VOID_AFTER_MS: u64 = 24 * 60 * 60 * 1000;

/// People, the members of user groups by the group's Slack id, and users by their Slack id.
#[derive(Debug, Default)]
pub struct Directory {
    people: ArcSwap<People>,
    known: ArcSwap<BTreeMap<String, Arc<Members>>>,
    users: ArcSwap<BTreeMap<String, Presence>>,
    /// Nothing says who the people are.
    lacks_people: bool,
}

/// Whether somebody is still in Slack, and when Slack last said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// The user was deactivated, or there is none with this id.
    pub gone: bool,
    /// When Slack said so.
    pub as_of: Timestamp,
}

/// Who is in a user group, and when Slack last said so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// Their Slack ids.
    pub ids: BTreeSet<String>,
    /// When Slack said so.
    pub as_of: Timestamp,
}

/// Whether a member of a group of the policy set is a user group of Slack rather than a person.
#[must_use]
pub fn is_usergroup(id: &str) -> bool {
    let upper = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    id.len() >= 3 && id.starts_with('S') && id.bytes().all(upper)
}

impl Directory {
    /// A directory without the file that says who people are: any name may be somebody's.
    #[must_use]
    pub fn without_people() -> Directory {
        Directory { lacks_people: true, ..Directory::default() }
    }

    /// Whether a name that nobody here has is nobody's.
    #[must_use]
    pub fn knows_people(&self) -> bool {
        !self.lacks_people
    }

    /// Everybody who is known by more than one name.
    #[must_use]
    pub fn people(&self) -> Arc<People> {
        self.people.load_full()
    }

    /// Other people are known from now on.
    pub fn set_people(&self, people: Arc<People>) {
        self.people.store(people);
    }

    /// Remembers who is in a user group.
    pub fn put(&self, usergroup: &str, members: Members) {
        let members = Arc::new(members);
        self.known.rcu(|known| {
            let mut known = BTreeMap::clone(known);
            known.insert(usergroup.to_owned(), Arc::clone(&members));
            known
        });
    }

    /// Who is in a user group, if that is known.
    #[must_use]
    pub fn members(&self, usergroup: &str) -> Option<Arc<Members>> {
        self.known.load().get(usergroup).cloned()
    }

    /// Who is in a user group, if Slack said so not too long ago to count.
    #[must_use]
    pub fn members_at(&self, usergroup: &str, now: Timestamp) -> Option<Arc<Members>> {
        self.members(usergroup).filter(|members| now.since(members.as_of) < VOID_AFTER_MS)
    }

    /// Remembers whether somebody is still in Slack.
    pub fn put_user(&self, id: &str, presence: Presence) {
        self.users.rcu(|users| {
            let mut users = BTreeMap::clone(users);
            users.insert(id.to_owned(), presence);
            users
        });
    }

    /// What Slack last said of a user, if it was asked.
    #[must_use]
    pub fn user(&self, id: &str) -> Option<Presence> {
        self.users.load().get(id).copied()
    }

    /// Whether Slack said, not too long ago to count, that the user has left.
    #[must_use]
    pub fn is_gone(&self, id: &str, now: Timestamp) -> bool {
        self.user(id).is_some_and(|user| user.gone && now.since(user.as_of) < VOID_AFTER_MS)
    }

    /// When Slack last said that `id` is in the user group; `None` if it did not, or too long ago to count.
    #[must_use]
    pub fn belongs(&self, usergroup: &str, id: &str, now: Timestamp) -> Option<Timestamp> {
        let members = self.members_at(usergroup, now)?;
        members.ids.contains(id).then_some(members.as_of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_slack_calls_a_user_group_is_told_from_a_person() {
        for (id, expected) in [
            ("S0614TZR7", true),
            ("SAB", true),
            ("U0614TZR7", false),
            ("S", false),
            ("Sab", false),
            ("", false),
        ] {
            assert_eq!(is_usergroup(id), expected, "{id}");
        }
    }

    #[test]
    fn members_count_for_a_day() {
        let at = Timestamp::from_millis(1_000_000);
        let directory = Directory::default();
        assert_eq!(directory.belongs("S1", "U1", at), None);
        directory.put("S1", Members { ids: ["U1".to_owned()].into(), as_of: at });
        assert_eq!(directory.belongs("S1", "U1", at), Some(at));
        assert_eq!(directory.belongs("S1", "U2", at), None);
        assert_eq!(directory.belongs("S2", "U1", at), None);
        assert_eq!(directory.belongs("S1", "U1", at.plus(VOID_AFTER_MS - 1)), Some(at));
        assert_eq!(directory.belongs("S1", "U1", at.plus(VOID_AFTER_MS)), None);
    }
}
