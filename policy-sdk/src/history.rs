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
