//! What a policy answers: rulings, requirements, and the reasons of refusals and denials.

use crate::Instant;

/// What a policy says of an event that it does not refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Ruling {
    pub(crate) grants: bool,
    pub(crate) standing: Standing,
    pub(crate) editable: Vec<String>,
    pub(crate) wake_at: Option<Instant>,
}

/// Where the request stands for one policy, once the judged event counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is missing.
    Satisfied,
    /// This is missing still.
    Waiting(Vec<Requirement>),
    /// The request is denied, whatever the other policies say.
    Denied(Reason),
}

impl Ruling {
    /// Nothing is missing for this policy. The request is approved once that is so for all of them.
    pub fn satisfied() -> Self {
        Self::standing(Standing::Satisfied)
    }

    /// These requirements are left; people see them as progress.
    pub fn waiting(requirements: impl IntoIterator<Item = Requirement>) -> Self {
        Self::standing(Standing::Waiting(requirements.into_iter().collect()))
    }

    /// The request is denied. Remember [`granting`](Self::granting): a denial that nobody had the right to make does
    /// not count.
    pub fn denied(reason: Reason) -> Self {
        Self::standing(Standing::Denied(reason))
    }

    fn standing(standing: Standing) -> Self {
        Self { grants: false, standing, editable: Vec::new(), wake_at: None }
    }

    /// This policy gives the actor the right to act so.
    ///
    /// An act counts only if no policy of the action refuses it and at least one grants it.
    /// A policy stays silent about acts that are not its business; it does not refuse them, for another policy may well
    /// grant them.
    pub fn granting(self) -> Self {
        self.granting_if(true)
    }

    /// As [`granting`](Self::granting) if `grants` is true, else silent.
    pub fn granting_if(self, grants: bool) -> Self {
        Self { grants, ..self }
    }

    /// An approver may edit these parameters from here on; what no policy of the action lists cannot be edited.
    pub fn editable<K: Into<String>>(self, keys: impl IntoIterator<Item = K>) -> Self {
        Self { editable: keys.into_iter().map(Into::into).collect(), ..self }
    }

    /// Judge again then, with [`Act::Tick`](crate::Act::Tick), should nothing happen before.
    /// A later ruling replaces this wish, also by saying nothing of it.
    pub fn wake_at(self, instant: Instant) -> Self {
        Self { wake_at: Some(instant), ..self }
    }
}

/// What is missing before a policy is satisfied; shown to people as progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    pub(crate) kind: RequirementKind,
    pub(crate) label: String,
    pub(crate) have: u32,
    pub(crate) need: u32,
    pub(crate) eligible: Vec<String>,
    pub(crate) excluded: Vec<String>,
}

/// What meets a requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequirementKind {
    /// Approvals.
    Approval,
    /// The acknowledgement of a persona.
    Acknowledgement,
    /// Time.
    Time,
}

impl Requirement {
    /// `have` of `need` approvals; `eligible` are the ids and `@group` names to ask.
    #[must_use]
    pub fn approval<E: Into<String>>(
        label: impl Into<String>,
        have: u32,
        need: u32,
        eligible: impl IntoIterator<Item = E>,
    ) -> Self {
        let eligible = eligible.into_iter().map(Into::into).collect();
        Self {
            kind: RequirementKind::Approval,
            label: label.into(),
            have,
            need,
            eligible,
            excluded: Vec::new(),
        }
    }

    /// An acknowledgement of `persona`, which is also the label; `eligible` are the ids and `@group` names that hold it.
    #[must_use]
    pub fn acknowledgement<E: Into<String>>(
        persona: impl Into<String>,
        eligible: impl IntoIterator<Item = E>,
    ) -> Self {
        let eligible = eligible.into_iter().map(Into::into).collect();
        Self {
            kind: RequirementKind::Acknowledgement,
            label: persona.into(),
            have: 0,
            need: 1,
            eligible,
            excluded: Vec::new(),
        }
    }

    /// Some time has to pass; see [`Ruling::wake_at`].
    #[must_use]
    pub fn time(label: impl Into<String>) -> Self {
        Self {
            kind: RequirementKind::Time,
            label: label.into(),
            have: 0,
            need: 1,
            eligible: Vec::new(),
            excluded: Vec::new(),
        }
    }

    /// These people may not meet it although `eligible` names them or a group of theirs: nobody is told to wait for them.
    /// It only says so; the policy has to refuse them itself.
    #[must_use]
    pub fn excluding<E: Into<String>>(self, ids: impl IntoIterator<Item = E>) -> Self {
        Self { excluded: ids.into_iter().map(Into::into).collect(), ..self }
    }
}

/// Why something is not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// For machines and metrics: one of the codes that the policy documents, in `snake_case`.
    pub code: &'static str,
    /// For people: one sentence, in lower case and without a full stop.
    pub message: String,
    /// What it concerns: a JSON Pointer into the configuration, or the key of a parameter.
    pub path: Option<String>,
}

impl Reason {
    /// A reason that concerns the whole.
    #[must_use]
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), path: None }
    }

    /// The same reason, concerning the thing at `path`.
    #[must_use]
    pub fn at(self, path: impl Into<String>) -> Self {
        Self { path: Some(path.into()), ..self }
    }
}

/// For `?` and `.into()` if there is just one reason.
impl From<Reason> for Vec<Reason> {
    fn from(reason: Reason) -> Self {
        vec![reason]
    }
}
