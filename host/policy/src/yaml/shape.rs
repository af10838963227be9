//! Whether a document has the shape of an earlier one: the same keys, and no fewer items.
//!
//! A document that is being written lacks what is still to come. What is missing shows in a comparison with the earlier
//! one; what is new might lack something as well, which nothing shows. A value alone cannot be half once its line has ended.

use super::document::{Kind, Node, Place};

/// The most differences that are told.
const MOST: usize = 20;

/// How a document that may be half-written differs in shape from the one before it: what is missing, and what is new.
/// Nothing if only values differ, or lists of values have grown. What `may_go` accepts by its path may be missing.
#[must_use]
pub fn differences(
    (before, now): (&Node, &Node),
    text: &str,
    may_go: &dyn Fn(&[&str]) -> bool,
) -> Vec<(Place, String)> {
    let mut found = Differences { path: Vec::new(), may_go, found: Vec::new() };
    found.compare(before, now);
    let mut found = found.found;
    if !text.ends_with('\n') {
        let line = u64::try_from(text.lines().count()).unwrap_or(u64::MAX);
        found.push((Place { line, column: 1 }, "the last line does not end with a line break".to_owned()));
    }
    found
}

struct Differences<'a> {
    path: Vec<&'a str>,
    may_go: &'a dyn Fn(&[&str]) -> bool,
    found: Vec<(Place, String)>,
}

impl<'a> Differences<'a> {
    fn compare(&mut self, before: &'a Node, now: &'a Node) {
        match (&before.kind, &now.kind) {
            (Kind::Map(members), Kind::Map(others)) => {
                for (key, before) in members {
                    match others.iter().find(|(other, _)| other.text == key.text) {
                        Some((_, now)) => self.within(&key.text, |this| this.compare(before, now)),
                        None => self.within(&key.text, |this| {
                            if !(this.may_go)(&this.path) {
                                this.add(now.at, "is missing");
                            }
                        }),
                    }
                }
                for (key, _) in others {
                    if !members.iter().any(|(other, _)| other.text == key.text) {
                        self.within(&key.text, |this| this.add(key.at, "is new"));
                    }
                }
            }
            (Kind::List(items), Kind::List(others)) => {
                if others.len() < items.len() {
                    self.compare_fewer(items, others, now.at);
                    return;
                }
                for (before, now) in items.iter().zip(others) {
                    self.compare(before, now);
                }
                for item in others.iter().skip(items.len()) {
                    if matches!(item.kind, Kind::List(_) | Kind::Map(_)) {
                        self.add(item.at, "has a new item");
                    }
                }
            }
            (Kind::List(_) | Kind::Map(_), _) | (_, Kind::List(_) | Kind::Map(_)) => {
                self.add(now.at, "is something else");
            }
            (Kind::Null, _) => {}
            (_, Kind::Null) => self.add(now.at, "has no value"),
            _ => {}
        }
    }

    /// Which of the items have gone is not known, unless the others are as they were.
    fn compare_fewer(&mut self, items: &[Node], others: &[Node], at: Place) {
        let known = |item: &Node| items.iter().any(|before| before.to_json() == item.to_json());
        if !(self.may_go)(&self.path) {
            self.add(at, &format!("has {} of {} items", others.len(), items.len()));
        } else if !others.iter().all(known) {
            self.add(at, "has fewer items, and others");
        }
    }

    fn within(&mut self, key: &'a str, work: impl FnOnce(&mut Self)) {
        if self.found.len() < MOST {
            self.path.push(key);
            work(self);
            self.path.pop();
        }
    }

    fn add(&mut self, at: Place, what: &str) {
        self.found.push((at, format!("`{}` {what}", self.path.join("."))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::document::parse;

    const BEFORE: &str = "\
groups:
  admins: [U1, U2]
actions:
  deploy:
    timeout: 10m
    policies:
      - use: quorum
        with: { approvers: [U1, U2], approvals: 2 }
      - use: gate
";

    #[track_caller]
    fn check(now: &str, expected: &[&str]) {
        let (before, parsed) = (parse(BEFORE).unwrap(), parse(now).unwrap());
        let told = |(at, what): (Place, String)| format!("{}:{}: {what}", at.line, at.column);
        let found: Vec<_> = differences((&before, &parsed), now, &|_| false).into_iter().map(told).collect();
        assert_eq!(found, expected, "{now}");
    }

    #[test]
    fn what_is_missing_or_new_is_told_and_values_may_change() {
        check(BEFORE, &[]);
        check(&format!("# a comment\n{BEFORE}"), &[]);
        check(&BEFORE.replace("approvals: 2", "approvals: 1").replace("10m", "20m"), &[]);
        check(&BEFORE.replace("admins: [U1, U2]", "admins: [U3, U4, U5]"), &[]);
        check(
            &BEFORE.replace("admins: [U1, U2]", "admins: [U1]"),
            &["2:11: `groups.admins` has 1 of 2 items"],
        );
        check(
            &BEFORE.replace(", approvals: 2", ""),
            &["8:15: `actions.deploy.policies.with.approvals` is missing"],
        );
        check(
            &BEFORE.replace("      - use: gate\n", ""),
            &["7:7: `actions.deploy.policies` has 1 of 2 items"],
        );
        check(&BEFORE.replace("10m", ""), &["5:12: `actions.deploy.timeout` has no value"]);
        check(
            &BEFORE.replace("[U1, U2], a", "everybody, a"),
            &["8:28: `actions.deploy.policies.with.approvers` is something else"],
        );
        check(&BEFORE.replace("groups:\n  admins: [U1, U2]\n", ""), &["1:1: `groups` is missing"]);
        check(&format!("{BEFORE}  other: {{}}\n"), &["10:3: `actions.other` is new"]);
        check(&format!("{BEFORE}      - use: other\n"), &["10:9: `actions.deploy.policies` has a new item"]);
        check(
            &BEFORE.replace("10m\n", "10m\n    unattended: true\n"),
            &["6:5: `actions.deploy.unattended` is new"],
        );
        check(BEFORE.trim_end(), &["9:1: the last line does not end with a line break"]);
    }

    /// Wherever a text is cut that is being written anew, something tells, or nothing is read at all.
    #[test]
    fn no_part_of_a_text_has_its_shape() {
        let before = parse(BEFORE).unwrap();
        for end in 0..BEFORE.len() {
            let part = &BEFORE[..end];
            if let Ok(now) = parse(part) {
                assert_ne!(differences((&before, &now), part, &|_| false), [], "{part}");
            }
        }
    }

    #[test]
    fn of_a_list_that_may_be_shorter_the_rest_stays() {
        let may_go = |path: &[&str]| path == ["keys"];
        let before = parse("keys: [{ a: 1 }, { b: 1, until: 2 }]\n").unwrap();
        for (now, told) in [
            ("keys: [{ b: 1, until: 2 }]\n", None),
            ("keys: []\n", None),
            ("keys: [{ b: 1 }]\n", Some("`keys` has fewer items, and others")),
        ] {
            let parsed = parse(now).unwrap();
            let found = differences((&before, &parsed), now, &may_go);
            assert_eq!(found.first().map(|(_, what)| what.as_str()), told, "{now}");
        }
    }

    #[test]
    fn what_may_go_may_be_missing() {
        let (before, now) = (parse(BEFORE).unwrap(), "actions: {}\n");
        let parsed = parse(now).unwrap();
        let found = differences((&before, &parsed), now, &|path| path == ["actions", "deploy"]);
        let told: Vec<_> = found.into_iter().map(|(_, what)| what).collect();
        assert_eq!(told, ["`groups` is missing"]);
    }
}
