//! Who can meet a requirement: the people behind the ids and `@group` names of a policy.

use std::collections::BTreeSet;

use crate::directory::{Directory, is_usergroup};
use crate::lifecycle::{Requirement, Timestamp};
use crate::people::is_slack_id;
use crate::record::PolicyEntry;

/// The people whom a requirement or a name stands for, as far as is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Eligible {
    /// Who can act: the one id that each has under the entry.
    pub people: BTreeSet<String>,
    /// Who is named, and may not: the ids that the policy excludes.
    pub excluded: BTreeSet<String>,
    /// Who is named, and has left Slack: their ids under the entry.
    pub gone: BTreeSet<String>,
    /// Names that nobody in Slack can have: neither a Slack id, nor of somebody in `people` who has one.
    pub unreachable: BTreeSet<String>,
    /// Groups of the policy set that hold nobody at all.
    pub empty: BTreeSet<String>,
    /// User groups of Slack whose members are not known, and names in a directory that does not know people, so that there
    /// may be more people.
    pub unknown: BTreeSet<String>,
}

impl Eligible {
    /// Whether everybody who is meant is known.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.unknown.is_empty()
    }

    fn extend(&mut self, other: Eligible) {
        let Eligible { people, excluded, gone, unreachable, empty, unknown } = other;
        self.people.extend(people);
        self.excluded.extend(excluded);
        self.gone.extend(gone);
        self.unreachable.extend(unreachable);
        self.empty.extend(empty);
        self.unknown.extend(unknown);
    }
}

impl PolicyEntry {
    /// Who can meet a requirement. Whoever has met it already is among them.
    #[must_use]
    pub fn eligible(&self, wanted: &Requirement, directory: &Directory, now: Timestamp) -> Eligible {
        let mut eligible = Eligible::default();
        for name in &wanted.eligible {
            eligible.extend(self.named(name, &wanted.excluded, directory, now));
        }
        eligible
    }

    /// Whom one name of a policy stands for: an id, a person's name, or a group as `@group`. `excluded` may not act.
    #[must_use]
    pub fn named(&self, name: &str, excluded: &[String], directory: &Directory, now: Timestamp) -> Eligible {
        let mut named = Eligible::default();
        let Some(group) = name.strip_prefix('@') else {
            self.add(name, excluded, directory, now, &mut named);
            return named;
        };
        for member in self.groups.get(group).into_iter().flatten() {
            if !is_usergroup(member) {
                self.add(member, excluded, directory, now, &mut named);
                continue;
            }
            match directory.members_at(member, now) {
                Some(members) => {
                    for id in &members.ids {
                        self.add(id, excluded, directory, now, &mut named);
                    }
                }
                None => drop(named.unknown.insert(member.clone())),
            }
        }
        if named == Eligible::default() {
            named.empty.insert(group.to_owned());
        }
        named
    }

    /// Adds one person, by any of their names.
    fn add(&self, name: &str, excluded: &[String], directory: &Directory, now: Timestamp, to: &mut Eligible) {
        let people = directory.people();
        let person = people.find(name);
        let id = person.map_or(name, |person| self.id_of(person)).to_owned();
        let (reachable, gone) = match person {
            Some(person) => (
                person.slack_ids().next().is_some(),
                person.slack_ids().all(|slack| directory.is_gone(slack, now)),
            ),
            None => (is_slack_id(name), directory.is_gone(name, now)),
        };
        let set = if !reachable {
            let unknown = person.is_none() && !directory.knows_people();
            let names = if unknown { &mut to.unknown } else { &mut to.unreachable };
            names.insert(name.to_owned());
            return;
        } else if gone {
            &mut to.gone
        } else if excluded.contains(&id) {
            &mut to.excluded
        } else {
            &mut to.people
        };
        set.insert(id);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::directory::{Members, Presence, VOID_AFTER_MS};
    use crate::lifecycle::RequirementKind;
    use crate::people::{People, Person};
    use crate::record::Redaction;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

    fn entry(groups: &[(&str, &[&str])]) -> PolicyEntry {
        let set = |members: &[&str]| members.iter().map(|member| (*member).to_owned()).collect();
        let groups: BTreeMap<_, _> =
            groups.iter().map(|(name, members)| ((*name).to_owned(), set(members))).collect();
        PolicyEntry {
            action: "deploy".to_owned(),
            description: String::new(),
            timeout_ms: 1,
            channel: None,
            escalate: None,
            redact: Redaction::Show(BTreeSet::new()),
            rerequest: None,
            unattended: false,
            consent: Default::default(),
            notify: false,
            terms: Default::default(),
            supersede: Default::default(),
            unsatisfiable: Default::default(),
            schema: None,
            groups,
            policies: Vec::new(),
        }
    }

    fn directory() -> Directory {
        let mut people = People::default();
        for (name, aliases) in [("dana", &["U0DANA", "github:dana-d"][..]), ("bot", &["github:bot"])] {
            let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
            people.add(Person { name: name.to_owned(), aliases }).unwrap();
        }
        let directory = Directory::default();
        directory.set_people(Arc::new(people));
        directory.put("S0TEAM", Members { ids: ["U1", "U0DANA"].map(str::to_owned).into(), as_of: NOW });
        directory.put_user("U0GONE", Presence { gone: true, as_of: NOW });
        directory.put_user("U1", Presence { gone: false, as_of: NOW });
        directory
    }

    #[test]
    fn names_stand_for_people() {
        let entry = entry(&[
            ("team", &["S0TEAM", "U2"]),
            ("nobody", &[]),
            ("elsewhere", &["S0OTHER"]),
            ("left", &["U0GONE"]),
        ]);
        let sets = |eligible: Eligible| {
            let Eligible { people, excluded, gone, unreachable, empty, unknown } = eligible;
            [people, excluded, gone, unreachable, empty, unknown]
                .map(|set| set.into_iter().collect::<Vec<_>>().join(" "))
        };
        for (names, excluded, expected) in [
            (&["U1", "@team"][..], &[][..], ["U1 U2 dana", "", "", "", "", ""]),
            (&["@team", "dana", "U0DANA"], &["dana"], ["U1 U2", "dana", "", "", "", ""]),
            (&["U0GONE", "@left", "U1"], &[], ["U1", "", "U0GONE", "", "", ""]),
            (
                &["bob", "alice@acme.example", "u0alice", "bot"],
                &[],
                ["", "", "", "alice@acme.example bob bot u0alice", "", ""],
            ),
            (&["@nobody", "@no-such-group"], &[], ["", "", "", "", "no-such-group nobody", ""]),
            (&["@elsewhere", "U1"], &["U9"], ["U1", "", "", "", "", "S0OTHER"]),
            (&["github:dana-d"], &[], ["dana", "", "", "", "", ""]),
        ] {
            let strings = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
            let wanted = Requirement {
                kind: RequirementKind::Approval,
                label: "a nod".to_owned(),
                have: 0,
                need: 1,
                eligible: strings(names),
                excluded: strings(excluded),
            };
            assert_eq!(sets(entry.eligible(&wanted, &directory(), NOW)), expected, "{names:?}");
        }
    }

    #[test]
    fn without_the_people_any_name_may_be_somebodys() {
        let entry = entry(&[("team", &["dana", "U2"])]);
        let directory = Directory::without_people();
        let named = |name: &str| entry.named(name, &[], &directory, NOW);
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!((named("dana").unknown, named("dana").unreachable), (set(&["dana"]), set(&[])));
        assert_eq!((named("@team").unknown, named("@team").people), (set(&["dana"]), set(&["U2"])));
        assert_eq!(named("U2").people, set(&["U2"]));
    }

    #[test]
    fn what_slack_said_too_long_ago_does_not_count() {
        let entry = entry(&[("team", &["S0TEAM"])]);
        let later = NOW.plus(VOID_AFTER_MS);
        assert_eq!(entry.named("@team", &[], &directory(), later).unknown, ["S0TEAM".to_owned()].into());
        assert_eq!(entry.named("U0GONE", &[], &directory(), later).people, ["U0GONE".to_owned()].into());
    }
}
