//! Reads what a scenario expects of an event.

use countersign_core::lifecycle::{FailureKind, RequirementKind};
use countersign_policy::yaml::document::{Kind, Node};

use super::{DAY, ScenarioReader};
use crate::scenario::{Expect, Wanted, WantedReason, WantedRequirement};

const FAILURES: [FailureKind; 5] = [
    FailureKind::Trap,
    FailureKind::Fuel,
    FailureKind::Deadline,
    FailureKind::Memory,
    FailureKind::Malformed,
];

impl ScenarioReader<'_> {
    /// An expectation: a word such as `satisfied`, or a map.
    pub(super) fn expect(&mut self, node: &Node, of_submission: bool) -> Expect {
        let mut expect = Expect {
            line: node.at.line,
            outcome: None,
            grants: None,
            editable: None,
            wake_at: None,
            memo: None,
        };
        if let Kind::Text(word) = &node.kind {
            expect.outcome = self.word(node, word);
            return expect;
        }
        let known = [
            "standing", "waiting", "denied", "refused", "silent", "fails", "grants", "editable", "wake_at",
            "memo",
        ];
        let Some(fields) = self.reader.fields(node, "`expect`", &known) else { return expect };
        let mut outcomes: Vec<Wanted> = Vec::new();
        if let Some(node) = fields.get("standing") {
            let word = self.reader.text(node, "`standing`");
            outcomes.extend(word.and_then(|word| self.word(node, word)));
        }
        if let Some(node) = fields.get("waiting") {
            let items = self.reader.items(node, "`waiting`");
            let wanted = items.into_iter().filter_map(|item| self.requirement(item)).collect();
            outcomes.push(Wanted::Waiting(Some(wanted)));
        }
        if let Some(node) = fields.get("denied") {
            outcomes.extend(self.reason(node, false).map(Wanted::Denied));
        }
        if let Some(node) = fields.get("refused") {
            let items = match &node.kind {
                Kind::List(items) => items.iter().collect(),
                _ => vec![node],
            };
            let wanted = items.into_iter().filter_map(|item| self.reason(item, true)).collect();
            outcomes.push(Wanted::Refused(Some(wanted)));
        }
        if let Some(node) = fields.get("silent")
            && self.reader.truth(node, "`silent`")
        {
            outcomes.push(Wanted::Silent);
        }
        if let Some(node) = fields.get("fails") {
            let kind = self.reader.text(node, "`fails`").map(|word| {
                let kind = FAILURES.into_iter().find(|kind| kind.to_string() == word);
                if kind.is_none() {
                    let all = FAILURES.map(|kind| kind.to_string()).join("`, `");
                    self.reader
                        .error(node.at, format!("`{word}` is not a failure; the failures are `{all}`"));
                }
                kind
            });
            outcomes.extend(kind.flatten().map(Wanted::Fails));
        }
        if outcomes.len() > 1 {
            self.reader.error(node.at, "an event has only one outcome: expect one");
        }
        expect.outcome = outcomes.into_iter().next();
        expect.grants = fields.get("grants").map(|node| self.reader.truth(node, "`grants`"));
        expect.editable = fields.get("editable").map(|node| self.reader.keys(node));
        expect.wake_at = fields.get("wake_at").and_then(|node| self.wake_at(node));
        expect.memo = fields.get("memo").map(Node::to_json);
        if let Some(node) = fields.get("memo").filter(|_| !of_submission) {
            self.reader
                .error(node.at, "only the submission makes a memo: move this to the scenario's `expect`");
        }
        let unchanged = matches!(&expect.outcome, Some(Wanted::Refused(_) | Wanted::Fails(_)));
        for name in ["grants", "editable", "wake_at", "memo"] {
            if let Some(node) = fields.get(name).filter(|_| unchanged) {
                self.reader
                    .error(node.at, format!("an event that is not counted changes nothing: remove `{name}`"));
            }
        }
        expect
    }

    fn word(&mut self, node: &Node, word: &str) -> Option<Wanted> {
        let wanted = match word {
            "satisfied" => Wanted::Satisfied,
            "waiting" => Wanted::Waiting(None),
            "denied" => Wanted::Denied(WantedReason::default()),
            "silent" => Wanted::Silent,
            "refused" => Wanted::Refused(None),
            _ => {
                let message = format!(
                    "`{word}` is not an outcome; the outcomes are `satisfied`, `waiting`, `denied`, `silent` and `refused`"
                );
                self.reader.error(node.at, message);
                return None;
            }
        };
        Some(wanted)
    }

    /// An expected requirement: its label, or a map of fields.
    fn requirement(&mut self, node: &Node) -> Option<WantedRequirement> {
        if let Kind::Text(label) = &node.kind {
            return Some(WantedRequirement { label: Some(label.clone()), ..Default::default() });
        }
        let fields =
            self.reader.fields(node, "a requirement", &["kind", "label", "have", "need", "eligible"])?;
        let kind = match fields.get("kind") {
            Some(node) => self.typed::<RequirementKind>(node, "`kind`"),
            None => None,
        };
        let mut count = |name: &str| {
            let node = fields.get(name)?;
            self.reader.count(node, &format!("`{name}`"), 0..=u32::MAX)
        };
        let (have, need) = (count("have"), count("need"));
        let label = self.reader.optional_text(fields.get("label"), "`label`");
        let eligible =
            fields.get("eligible").map(|node| self.texts(node, "who is eligible").into_iter().collect());
        Some(WantedRequirement { kind, label, have, need, eligible })
    }

    /// An expected reason: its code, or a map of fields.
    fn reason(&mut self, node: &Node, with_path: bool) -> Option<WantedReason> {
        if let Kind::Text(code) = &node.kind {
            return Some(WantedReason { code: Some(code.clone()), ..Default::default() });
        }
        let known: &[&str] = if with_path { &["code", "message", "path"] } else { &["code", "message"] };
        let fields = self.reader.fields(node, "a reason", known)?;
        let mut text = |name: &str| self.reader.optional_text(fields.get(name), &format!("`{name}`"));
        Some(WantedReason { code: text("code"), message: text("message"), path: text("path") })
    }

    fn wake_at(&mut self, node: &Node) -> Option<Option<u64>> {
        if matches!(&node.kind, Kind::Text(text) if text == "never") {
            return Some(None);
        }
        self.reader.duration(node, "`wake_at`", 0..=365 * DAY).map(Some)
    }
}
