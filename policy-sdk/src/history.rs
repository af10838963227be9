//! Walks over the accepted events, with the questions that policies ask of them.

use crate::{Act, Actor, Edit, Event};

/// The accepted events of a request, oldest first, with or without the one that is being judged.
///
/// Get one from [`Context::history`](crate::Context::history) or
/// [`Context::history_with_event`](crate::Context::history_with_event).
#[derive(Debug, Clone, Copy)]
pub struct History<'a> {
    accepted: &'a [Event],
    judged: Option<&'a Event>,
}

/// A persona that was acknowledged, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledgement<'a> {
    /// The persona's name.
    pub persona: &'a str,
    /// Who acknowledged it.
    pub by: &'a Actor,
}

impl<'a> History<'a> {
    pub(crate) fn new(accepted: &'a [Event], judged: Option<&'a Event>) -> Self {
        Self { accepted, judged }
    }

    /// The events, oldest first.
    pub fn events(self) -> impl Iterator<Item = &'a Event> {
        self.accepted.iter().chain(self.judged)
    }

    /// Everybody whose approval stands, once each, in the order of their approvals.
    ///
    /// An approval with edits supersedes all earlier ones, for those agreed to other parameters.
    /// A withdrawal removes the actor's own.
    /// All approvals are here, whichever policy granted them: ask [`Actor::is_listed`] which ones are yours.
    #[must_use]
    pub fn approvals(self) -> Vec<&'a Actor> {
        let mut standing: Vec<&Actor> = Vec::new();
        for event in self.events() {
            match &event.act {
                Act::Approve { by, edits } => {
                    if !edits.is_empty() {
                        standing.clear();
                    }
                    if !standing.iter().any(|actor| actor.id == by.id) {
                        standing.push(by);
                    }
                }
                Act::Withdraw { by } => standing.retain(|actor| actor.id != by.id),
                _ => {}
            }
        }
        standing
    }

    /// Every persona whose acknowledgement stands, once each, oldest first.
    ///
    /// A withdrawal removes the actor's own. Edits remove nothing: an acknowledgement says that a persona knows of the
    /// request, not that it agrees to a parameter's value.
    #[must_use]
    pub fn acknowledgements(self) -> Vec<Acknowledgement<'a>> {
        let mut standing: Vec<Acknowledgement<'_>> = Vec::new();
        for event in self.events() {
            match &event.act {
                Act::Acknowledge { persona, .. }
                    if standing.iter().any(|earlier| earlier.persona == persona) => {}
                Act::Acknowledge { by, persona } => standing.push(Acknowledgement { persona, by }),
                Act::Withdraw { by } => standing.retain(|earlier| earlier.by.id != by.id),
                _ => {}
            }
        }
        standing
    }

    /// The newest edit of each key, in the order in which the keys were first edited.
    ///
    /// A withdrawal undoes no edit: the parameters stay as the approvers after it saw them.
    #[must_use]
    pub fn edits(self) -> Vec<&'a Edit> {
        let mut merged: Vec<&Edit> = Vec::new();
        for event in self.events() {
            let Act::Approve { edits, .. } = &event.act else { continue };
            for edit in edits {
                match merged.iter_mut().find(|earlier| earlier.key == edit.key) {
                    Some(earlier) => *earlier = edit,
                    None => merged.push(edit),
                }
            }
        }
        merged
    }

    /// Has the escalation time passed?
    #[must_use]
    pub fn escalated(self) -> bool {
        self.events().any(|event| event.act == Act::Escalated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Instant, scenario::edit};
    use serde_json::json;

    fn actor(id: &str) -> Actor {
        Actor { id: id.to_owned(), ..Actor::default() }
    }

    fn approve(id: &str) -> Act {
        Act::Approve { by: actor(id), edits: Vec::new() }
    }

    fn change(id: &str, edits: &[(&str, u32)]) -> Act {
        let edits = edits.iter().map(|(key, after)| edit(key, json!(0), json!(after))).collect();
        Act::Approve { by: actor(id), edits }
    }

    fn withdraw(id: &str) -> Act {
        Act::Withdraw { by: actor(id) }
    }

    fn acknowledge(id: &str, persona: &str) -> Act {
        Act::Acknowledge { by: actor(id), persona: persona.to_owned() }
    }

    fn events(acts: Vec<Act>) -> Vec<Event> {
        acts.into_iter().zip(0..).map(|(act, seq)| Event { seq, at: Instant::from_millis(0), act }).collect()
    }

    #[test]
    fn approvals_are_distinct_and_superseded_by_edits_and_taken_back() {
        for (acts, standing) in [
            (vec![], &[][..]),
            (vec![approve("A"), approve("B"), approve("A")], &["A", "B"]),
            (vec![approve("A"), withdraw("A")], &[]),
            (vec![approve("A"), withdraw("A"), approve("A")], &["A"]),
            (vec![approve("A"), change("B", &[("k", 1)])], &["B"]),
            (vec![approve("A"), change("A", &[("k", 1)]), approve("B")], &["A", "B"]),
            (vec![change("A", &[("k", 1)]), change("B", &[("k", 2)]), withdraw("B")], &[]),
        ] {
            let events = events(acts);
            let seen: Vec<_> =
                History::new(&events, None).approvals().iter().map(|actor| actor.id.as_str()).collect();
            assert_eq!(seen, standing, "{events:?}");
        }
    }

    #[test]
    fn acknowledgements_outlive_edits_and_end_with_their_giver_s_withdrawal() {
        for (acts, standing) in [
            (
                vec![acknowledge("A", "p"), acknowledge("B", "p"), acknowledge("B", "q")],
                &[("p", "A"), ("q", "B")][..],
            ),
            (vec![acknowledge("A", "p"), change("A", &[("k", 1)])], &[("p", "A")]),
            (
                vec![acknowledge("A", "p"), acknowledge("A", "q"), acknowledge("B", "r"), withdraw("A")],
                &[("r", "B")],
            ),
        ] {
            let events = events(acts);
            let acknowledgements = History::new(&events, None).acknowledgements();
            let seen: Vec<_> =
                acknowledgements.iter().map(|held| (held.persona, held.by.id.as_str())).collect();
            assert_eq!(seen, standing, "{events:?}");
        }
    }

    #[test]
    fn edits_merge_by_key_and_a_withdrawal_undoes_none() {
        let events = events(vec![
            change("A", &[("k", 1), ("l", 2)]),
            change("B", &[("m", 3), ("k", 4)]),
            withdraw("A"),
        ]);
        let edits = History::new(&events, None).edits();
        let seen: Vec<_> = edits
            .iter()
            .map(|edit| (edit.key.as_str(), edit.after.as_ref().map(|json| json.text())))
            .collect();
        assert_eq!(seen, [("k", Some("4")), ("l", Some("2")), ("m", Some("3"))]);
    }

    #[test]
    fn the_judged_event_comes_last() {
        let events = events(vec![Act::Submitted, approve("A"), Act::Escalated]);
        let (judged, accepted) = events.split_last().expect("there are three");
        assert!(!History::new(accepted, None).escalated());
        assert!(History::new(accepted, Some(judged)).escalated());
        assert!(History::new(accepted, Some(judged)).events().eq(&events));
    }
}
