//! Messages, notices and modals, in every state and for every input.

mod limits;
mod modals;
mod properties;
mod states;

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::lifecycle::{
    Act, Actor, Digest, Edit, Identity, Known, Link, Origin, Party, PayloadHashVersion, Reason, Request,
    RequestId, Requirement, RequirementKind, Ruling, Standing, Submission, Timestamp, Verdict, draft,
    parameter_digests,
};
use countersign_core::record::{Escalate, PolicyEntry, Redaction, Rerequest};
use serde_json::{Map, Value, json};

/// Noon of 1 March 2026, UTC.
const START: Timestamp = Timestamp::from_millis(1_772_366_400_000);
const MINUTE: u64 = 60_000;

fn minutes(minutes: u64) -> Timestamp {
    START.plus(minutes * MINUTE)
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().expect("an object")
}

fn entry() -> PolicyEntry {
    let members = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<String>>();
    PolicyEntry {
        action: "deploy_prod".into(),
        description: "Deploy to production".into(),
        timeout_ms: 20 * MINUTE,
        channel: Some("C0DEPLOYS".into()),
        escalate: Some(Escalate {
            before_ms: 5 * MINUTE,
            channel: Some("C0ONCALL".into()),
            mention: Some("U0LEAD".into()),
        }),
        redact: Redaction::Hide(BTreeSet::from(["token".into()])),
        rerequest: Some(Rerequest {
            cooldown_ms: 5 * MINUTE,
            limit: 5,
            window_ms: 1440 * MINUTE,
            by: Default::default(),
        }),
        unattended: false,
        consent: Default::default(),
        notify: false,
        terms: Default::default(),
        supersede: Default::default(),
        unsatisfiable: Default::default(),
        schema: Some(json!({
            "type": "object",
            "properties": {
                "ref": {"type": "string", "title": "Git ref", "maxLength": 80},
                "replicas": {"type": "integer", "minimum": 1, "maximum": 20, "description": "How many to run"}
            }
        })),
        groups: BTreeMap::from([
            ("release-managers".into(), members(&["U0ANA", "U0BEN"])),
            ("nobody-yet".into(), members(&[])),
        ]),
        policies: Vec::new(),
    }
}

/// A known person.
fn known_person(id: &str) -> Identity {
    Identity { id: id.into(), known: Known::Person, authenticated: false }
}

fn submission() -> Submission {
    let params = object(json!({"ref": "v1.42.0", "replicas": 3, "dry_run": false, "token": "hunter2"}));
    let (shown, redacted) = entry().redact.apply(params.clone());
    Submission {
        action: "deploy_prod".into(),
        rules: "deploy_prod".into(),
        lineage: id(1),
        depth: 0,
        rerequested_by: None,
        caller: None,
        requester_is: Some(known_person("U0DEV")),
        owners: Default::default(),
        rerequester_is: None,
        requester: Party { id: "U0DEV".into(), source: "slack".into(), display: Some("dev".into()) },
        requester_groups: BTreeSet::new(),
        origin: Origin {
            repo: "acme/web".into(),
            branch: Some("main".into()),
            pr: Some(json!(1234)),
            run_id: Some(json!("77-1")),
        },
        justification: "Fixes the checkout outage.\nRolled out to staging an hour ago.".into(),
        links: vec![Link { label: "Run 77".into(), url: "https://ci.example/run/77?x=1&y=2".into() }],
        policy_hints: None,
        params: shown,
        redacted,
        digests: parameter_digests(&params),
        payload_hash_version: PayloadHashVersion::One,
        salt: None,
        policy_hash: Digest::of(b"rules"),
        token_hash: Digest::of(b"token"),
        submitted_at: START,
        expires_at: minutes(20),
        escalate_at: Some(minutes(15)),
        unattended: false,
        consent: Default::default(),
        terms: Default::default(),
        supersede: Default::default(),
        gate: None,
    }
}

fn id(random: u64) -> RequestId {
    RequestId::new(START, 7, random)
}

fn approvals(have: u32, need: u32) -> Requirement {
    let noun = if need == 1 { "approval" } else { "approvals" };
    Requirement {
        kind: RequirementKind::Approval,
        label: format!("{have} of {need} {noun}"),
        have,
        need,
        eligible: vec!["U0CAT".into(), "@release-managers".into()],
        excluded: Vec::new(),
    }
}

fn persona(name: &str, holders: &[&str]) -> Requirement {
    let eligible = holders.iter().map(|holder| (*holder).to_owned()).collect();
    Requirement {
        kind: RequirementKind::Acknowledgement,
        label: name.into(),
        have: 0,
        need: 1,
        eligible,
        excluded: Vec::new(),
    }
}

fn waiting(requirements: Vec<Requirement>) -> Standing {
    Standing::Waiting(requirements)
}

fn verdict(standing: Standing) -> Vec<Verdict> {
    let editable = vec!["replicas".to_owned(), "ref".to_owned()];
    vec![Verdict::Ruled(Ruling { grants: true, standing, editable, wake_at: None })]
}

fn nothing_hidden() -> Redaction {
    Redaction::Hide(BTreeSet::new())
}

fn open_with(submission: Submission, requirements: Vec<Requirement>) -> Request {
    submit(submission, waiting(requirements))
}

/// What the request is once it is made.
fn submit(submission: Submission, standing: Standing) -> Request {
    let at = submission.submitted_at;
    let draft = draft(id(1), submission, vec!["null".into()]);
    let proposal = draft.propose(at, None, Act::Submitted, None).expect("it is possible");
    proposal.judged(&verdict(standing), &nothing_hidden()).expect("admitted").request
}

fn open(requirements: Vec<Requirement>) -> Request {
    open_with(submission(), requirements)
}

/// The request after this act at this minute.
fn after(request: Request, minute: u64, by: Option<&str>, act: Act, standing: Standing) -> Request {
    let by =
        by.map(|id| Actor { id: id.into(), groups: BTreeSet::new(), groups_as_of: None, ..Actor::default() });
    let proposal = request.propose(minutes(minute), by, act, None).expect("it is possible");
    proposal.judged(&verdict(standing), &nothing_hidden()).expect("it counts").request
}

fn approve() -> Act {
    Act::Approve { edits: Vec::new() }
}

fn edited(edits: &[(&str, Option<Value>, Option<Value>)]) -> Act {
    let edits = edits.iter().map(|(key, before, after)| Edit {
        key: (*key).into(),
        before: before.clone(),
        after: after.clone(),
        commitment: None,
        violations: Vec::new(),
    });
    Act::Approve { edits: edits.collect() }
}

fn acknowledge(persona: &str) -> Act {
    Act::Acknowledge { persona: persona.into() }
}

fn denied(message: &str) -> Standing {
    Standing::Denied(Reason { code: "denied_by_approver".into(), message: message.into(), path: None })
}

/// Every trick that text from outside may try.
const HOSTILE: &str = "`*~_ <!channel> <!here> <@U0VICTIM> <!subteam^S0ALL> <#C0X|x> &lt; &amp; <http://evil.example|Approve> \
    :white_check_mark: *Approved* by <@U0ANA>\n>>> quote\n```code\n\r\n\t\u{202e}desrever\u{2066} \u{200b}\u{feff}zero \u{0}\u{1b}[31m \
    שלום مرحبا 日本 🎉👩\u{200d}💻 \"quoted\" \\n {\"a\":1} e\u{301}\u{301}\u{301}\u{301}\u{301} @channel @here #general";

/// A request of hostile text only.
fn hostile() -> (Request, PolicyEntry) {
    let mut submission = submission();
    let words = HOSTILE.to_owned();
    let long = words.repeat(100_000 / words.len() + 1);
    submission.action = words.clone();
    submission.requester = Party { id: words.clone(), source: words.clone(), display: Some(words.clone()) };
    submission.rerequested_by = Some(submission.requester.clone());
    submission.depth = 3;
    submission.origin = Origin {
        repo: words.clone(),
        branch: Some(words.clone()),
        pr: Some(json!(words)),
        run_id: Some(json!(words)),
    };
    submission.justification = long.clone();
    submission.links = vec![
        Link { label: words.clone(), url: "https://evil.example/|x>".into() },
        Link { label: words.clone(), url: "https://evil.example/?a=1&b=<!channel>".into() },
        Link { label: words.clone(), url: format!("https://evil.example/{}", "a".repeat(1900)) },
        Link { label: words.clone(), url: "https://evil.example/?a=1&b=2".into() },
    ];
    submission.params = object(
        json!({"long": long, "replicas": words, "ref": "x\nreplicas: 3", "n": "3", "list": [words, {"a": null}]}),
    );
    submission.params.insert(words.clone(), json!("short"));
    submission.params.insert("fake: 1, real".into(), json!("[redacted]"));
    submission.params.insert("secret".into(), json!("[redacted]"));
    submission.redacted = BTreeSet::from(["secret".to_owned(), format!("secret {words}")]);
    let mut persona = persona(&words, &["U0SEC", "@channel", "@release-managers"]);
    persona.eligible.push(words.clone());
    let mut approval = approvals(1, 2);
    approval.label = words.clone();
    approval.eligible.push(format!("@{words}"));
    let request = open_with(submission, vec![persona.clone(), approval.clone()]);
    let edits = edited(&[("replicas", Some(json!(words)), Some(json!(long))), ("ref", None, None)]);
    let request = after(request, 3, Some(&words), edits, waiting(vec![persona, approval]));
    let mut entry = entry();
    entry.description = words.clone();
    entry.groups.insert(words.clone(), BTreeSet::from([words]));
    (request, entry)
}
