//! What the candidate has judged, alike and otherwise.

use std::collections::{BTreeMap, VecDeque};

use countersign_core::lifecycle::{RequestId, Timestamp};

use crate::simulation::Outcome;

/// How many differences are kept whole.
const SAMPLES: usize = 100;

/// How many kinds of difference are told apart; codes come from descriptors, so there are few.
const MOST_KINDS: usize = 1000;

/// What is told of a difference of which there are too many kinds.
const OTHER_KINDS: &str = "other";

/// What the candidate has judged.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) same: u64,
    pub(super) different: u64,
    pub(super) unjudged: u64,
    kinds: BTreeMap<(String, String), Kind>,
    pub(super) samples: VecDeque<Sample>,
}

impl Tally {
    /// Compares what became of something with what would have; true if that is the same.
    pub(super) fn compare(&mut self, observed: &Told<'_>, candidate: &Outcome) -> bool {
        let Told { request, action, at, event, active } = *observed;
        if active == candidate {
            self.same += 1;
            return true;
        }
        let mut key = (action.to_owned(), format!("{event}: {active} -> {candidate}"));
        if self.kinds.len() >= MOST_KINDS && !self.kinds.contains_key(&key) {
            key.1 = OTHER_KINDS.to_owned();
        }
        self.kinds.entry(key).or_default().count += 1;
        self.different += 1;
        if self.samples.len() >= SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample {
            at,
            action: action.to_owned(),
            request,
            event,
            active: active.to_string(),
            candidate: candidate.to_string(),
        });
        false
    }

    /// The differences by action and kind.
    pub(super) fn differences(&self) -> Vec<Difference> {
        let differences = self.kinds.iter().map(|((action, kind), of)| Difference {
            action: action.clone(),
            kind: kind.clone(),
            count: of.count,
            explained: of.explained.clone(),
        });
        differences.collect()
    }

    /// Says why a kind of difference is as it should be. False if there is no such kind.
    pub(super) fn explain(&mut self, action: &str, kind: &str, explained: Explained) -> bool {
        let Some(found) = self.kinds.get_mut(&(action.to_owned(), kind.to_owned())) else { return false };
        found.explained = Some(explained);
        true
    }

    /// The kinds of difference of which nobody says why.
    pub(super) fn unexplained(&self) -> Vec<String> {
        let unexplained = self.kinds.iter().filter(|(_, of)| of.explained.is_none());
        unexplained.map(|((action, kind), _)| format!("`{action}`: {kind}")).collect()
    }
}

#[derive(Debug, Default)]
struct Kind {
    count: u64,
    explained: Option<Explained>,
}

/// A kind of difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The action.
    pub action: String,
    /// What is different.
    pub kind: String,
    /// How often.
    pub count: u64,
    /// Why it is as it should be, if somebody said so.
    pub explained: Option<Explained>,
}

/// Why a kind of difference is as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Why.
    pub why: String,
    /// Who says so.
    pub by: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub at: Timestamp,
    /// The action.
    pub action: String,
    /// The request.
    pub request: RequestId,
    /// What happened: `admission`, or the name of an act.
    pub event: &'static str,
    /// What became of it under the set in force.
    pub active: String,
    /// What would have become of it under the candidate.
    pub candidate: String,
}

/// What is compared.
pub(super) struct Told<'a> {
    pub(super) request: RequestId,
    pub(super) action: &'a str,
    pub(super) at: Timestamp,
    pub(super) event: &'static str,
    pub(super) active: &'a Outcome,
}
