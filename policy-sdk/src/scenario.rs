//! Tells a policy's stories natively: who does what, and what comes of it.
//!
//! A [`Scenario`] does with one policy what the gateway does: it checks the configuration against the schema and with
//! [`Policy::check`], admits a made-up request, judges one event after the other, and keeps those that count.
//! Configuration, memo and parameters pass as JSON text, through the very code that a module is made of.
//! It does not simulate the gateway's own refusals (a second approval by the same person, say), so that a policy's
//! defences can be tested, nor the other policies of an action, but for [`Scenario::acts_granted_elsewhere`].
//!
//! Beyond what a story claims, these hold in all of them, or the test fails:
//! - an event that does not count is followed by a claim that it does not;
//! - every reason's code is documented in [`Policy::REASONS`];
//! - judging the same thing again gives the same answer.
//!
//! A failure shows the story up to there, what was expected and what was seen.
//! ```should_panic
//! # use countersign_policy_sdk::{Context, Policy, Reason, ReasonDoc, Request, Ruling, scenario::Scenario};
//! # struct Nobody;
//! # impl Policy for Nobody {
//! #     type Config = serde_json::Value;
//! #     type Memo = ();
//! #     const NAME: &'static str = "nobody";
//! #     const VERSION: &'static str = "0.1.0";
//! #     const SUMMARY: &'static str = "Has no say.";
//! #     const CONFIG_SCHEMA: &'static str = "{}";
//! #     const REASONS: &'static [ReasonDoc] = &[];
//! #     fn admit(_: &serde_json::Value, _: &Request) -> Result<(), Vec<Reason>> { Ok(()) }
//! #     fn judge(_: &Context<Self>) -> Result<Ruling, Vec<Reason>> { Ok(Ruling::waiting([])) }
//! # }
//! // Panics with "U1 approves: silent", for a story must say that an approval was not granted.
//! Scenario::<Nobody>::new(serde_json::json!({})).admitted().approve("U1").satisfied();
//! ```

use std::{collections::BTreeMap, fmt::Write as _, marker::PhantomData, time::Duration};

use serde_json::{Value, json};

use crate::{
    Edit, Exported, Instant, Json, Known, Policy,
    bindings::exports::countersign::policy::policy::{self as wire, Guest as _},
};

/// When a made-up request is made unless the story says: an arbitrary time, and the same in every run.
const SUBMITTED_AT_MS: u64 = 1_700_000_000_000;

/// One request's story, as one policy sees it. See the [module](self).
///
/// First the setting ([`group`](Self::group), [`requested_by`](Self::requested_by), …), then
/// [`admitted`](Self::admitted), then acts, each followed by claims about what came of it.
#[derive(Debug)]
pub struct Scenario<P: Policy> {
    config: String,
    groups: BTreeMap<String, Vec<String>>,
    requester: String,
    requester_is: Known,
    owners: Vec<String>,
    params: String,
    meta: String,
    submitted_at: u64,
    lifetime: Duration,
    lineage_depth: u32,
    granted_elsewhere: bool,
    now: u64,
    /// What admission returned; nothing before it.
    memo: Option<String>,
    history: Vec<wire::Event>,
    /// The ruling on the last event that counted.
    ruling: Option<wire::Ruling>,
    outcome: Outcome,
    /// Does the outcome still need a claim?
    unclaimed: bool,
    story: Vec<String>,
    policy: PhantomData<P>,
}

/// What came of the last event.
#[derive(Debug)]
enum Outcome {
    Counted,
    Silent,
    Refused(Vec<wire::Reason>),
}

/// An edit, for [`Scenario::approve_with`]; set its `violations` where the action's schema would find some.
/// ```
/// use countersign_policy_sdk::{Edit, scenario::edit};
/// use serde_json::json;
///
/// let added = edit("canary", None, json!(true));
/// let too_many = Edit { violations: vec!["more than 20".into()], ..edit("replicas", json!(3), json!(30)) };
/// # let _ = (added, too_many);
/// ```
#[must_use]
pub fn edit(key: &str, before: impl Into<Option<Value>>, after: impl Into<Option<Value>>) -> Edit {
    let text = |value: Option<Value>| value.map(|value| Json::from_text(value.to_string()));
    Edit {
        key: key.to_owned(),
        before: text(before.into()),
        after: text(after.into()),
        violations: Vec::new(),
    }
}

/// The setting: what is so before the request is made.
impl<P: Policy> Scenario<P> {
    /// A policy set with this configuration.
    ///
    /// # Panics
    /// Where the gateway would refuse the configuration.
    #[must_use]
    #[track_caller]
    pub fn new(config: Value) -> Self {
        let problems = config_problems::<P>(&config);
        assert!(problems.is_empty(), "expected: a configuration without fault\nseen: {problems:#?}");
        Self {
            config: config.to_string(),
            groups: BTreeMap::new(),
            requester: "U0REQUESTER".to_owned(),
            requester_is: Known::Person,
            owners: Vec::new(),
            params: "{}".to_owned(),
            meta: json!({ "justification": "a made-up request" }).to_string(),
            submitted_at: SUBMITTED_AT_MS,
            lifetime: Duration::from_secs(600),
            lineage_depth: 0,
            granted_elsewhere: false,
            now: SUBMITTED_AT_MS,
            memo: None,
            history: Vec::new(),
            ruling: None,
            outcome: Outcome::Counted,
            unclaimed: false,
            story: Vec::new(),
            policy: PhantomData,
        }
    }

    /// Claims that the gateway would refuse this configuration, for what is at `path` (a JSON Pointer): by the schema or
    /// by [`Policy::check`].
    ///
    /// # Panics
    /// Where nothing is wrong there.
    #[track_caller]
    pub fn config_refused(config: Value, path: &str) {
        let problems = config_problems::<P>(&config);
        let found = problems.iter().any(|problem| problem.path == path);
        assert!(found, "expected: a fault at `{path}` of {config}\nseen: {problems:#?}");
    }

    /// A group of the policy set, named without `@`.
    #[must_use]
    pub fn group<'i>(mut self, name: &str, ids: impl IntoIterator<Item = &'i str>) -> Self {
        self.groups.insert(name.to_owned(), ids.into_iter().map(str::to_owned).collect());
        self
    }

    /// Who makes the request.
    #[must_use]
    pub fn requested_by(mut self, id: &str) -> Self {
        id.clone_into(&mut self.requester);
        self
    }

    /// What kind of thing the requester is: a person, unless this says otherwise.
    #[must_use]
    pub fn requester_is(mut self, known: Known) -> Self {
        self.requester_is = known;
        self
    }

    /// People who count as requesters, too.
    #[must_use]
    pub fn owned_by<'i>(mut self, ids: impl IntoIterator<Item = &'i str>) -> Self {
        self.owners = ids.into_iter().map(str::to_owned).collect();
        self
    }

    /// The request's parameters, as the policy sees them in all calls; a JSON object.
    #[must_use]
    pub fn params(mut self, params: Value) -> Self {
        self.params = params.to_string();
        self
    }

    /// The request's origin, justification and links; a JSON object.
    #[must_use]
    pub fn meta(mut self, meta: Value) -> Self {
        self.meta = meta.to_string();
        self
    }

    /// When the request is made, in RFC 3339; for policies that look at the calendar.
    ///
    /// # Panics
    /// Where this is no point in time.
    #[must_use]
    #[track_caller]
    pub fn requested_at(mut self, time: &str) -> Self {
        self.submitted_at = instant(time);
        self.now = self.submitted_at;
        self
    }

    /// When the request expires, counted from its submission.
    #[must_use]
    pub fn expires_after(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// How many requests of the same lineage came before.
    #[must_use]
    pub fn lineage_depth(mut self, depth: u32) -> Self {
        self.lineage_depth = depth;
        self
    }

    /// Another policy of the action grants every act, so that what this one does not refuse counts.
    /// For policies that grant little or nothing themselves.
    #[must_use]
    pub fn acts_granted_elsewhere(mut self) -> Self {
        self.granted_elsewhere = true;
        self
    }
}

/// The story: what happens, in order.
impl<P: Policy> Scenario<P> {
    /// The request is made and admitted.
    ///
    /// # Panics
    /// Where the policy refuses it.
    #[must_use]
    #[track_caller]
    pub fn admitted(mut self) -> Self {
        match self.admission() {
            Ok(memo) => self.memo = Some(memo),
            Err(reasons) => self.fail("an admission", &codes(&reasons)),
        }
        self.story.push(format!("{} makes a request: admitted", self.requester));
        self.happens("the request is submitted".to_owned(), None, wire::Act::Submitted)
    }

    /// The request is made and refused, with this code among the reasons. The story ends here.
    ///
    /// # Panics
    /// Where it is admitted, or refused for other reasons.
    #[track_caller]
    pub fn not_admitted(self, code: &str) {
        match self.admission() {
            Err(reasons) if reasons.iter().any(|reason| reason.code == code) => {}
            Err(reasons) => self.fail(&format!("no admission, with `{code}`"), &codes(&reasons)),
            Ok(memo) => {
                self.fail(&format!("no admission, with `{code}`"), &format!("admitted, with the memo {memo}"))
            }
        }
    }

    /// Time passes, and nothing else happens.
    #[must_use]
    pub fn later(mut self, duration: Duration) -> Self {
        self.now += u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// Time passes up to this point, in RFC 3339, and nothing else happens.
    ///
    /// # Panics
    /// Where this is no point in time, or is over already.
    #[must_use]
    #[track_caller]
    pub fn until(mut self, time: &str) -> Self {
        let time = instant(time);
        assert!(
            time > self.now,
            "expected: a time that is still to come\nseen: {}",
            Instant::from_millis(time)
        );
        // The next event happens a second after the last one.
        self.now = time - 1000;
        self
    }

    /// Somebody approves the request as it stands.
    #[must_use]
    #[track_caller]
    pub fn approve(self, id: &str) -> Self {
        self.happens(format!("{id} approves"), Some(id), wire::Act::Approve(Vec::new()))
    }

    /// Somebody approves the request with edits.
    #[must_use]
    #[track_caller]
    pub fn approve_with(self, id: &str, edits: impl IntoIterator<Item = Edit>) -> Self {
        let edits: Vec<_> = edits.into_iter().map(write_edit).collect();
        let keys: Vec<_> = edits.iter().map(|edit| edit.key.as_str()).collect();
        let line = format!("{id} approves with edits of {}", keys.join(", "));
        self.happens(line, Some(id), wire::Act::Approve(edits))
    }

    /// Somebody denies the request, without saying why.
    #[must_use]
    #[track_caller]
    pub fn deny(self, id: &str) -> Self {
        self.happens(format!("{id} denies"), Some(id), wire::Act::Deny(None))
    }

    /// Somebody denies the request, and says why.
    #[must_use]
    #[track_caller]
    pub fn deny_saying(self, id: &str, message: &str) -> Self {
        self.happens(format!("{id} denies: `{message}`"), Some(id), wire::Act::Deny(Some(message.to_owned())))
    }

    /// Somebody acknowledges a persona.
    #[must_use]
    #[track_caller]
    pub fn acknowledge(self, id: &str, persona: &str) -> Self {
        let line = format!("{id} acknowledges the persona {persona}");
        self.happens(line, Some(id), wire::Act::Acknowledge(persona.to_owned()))
    }

    /// Somebody takes back their own approval and acknowledgements.
    #[must_use]
    #[track_caller]
    pub fn withdraw(self, id: &str) -> Self {
        self.happens(format!("{id} withdraws"), Some(id), wire::Act::Withdraw)
    }

    /// The escalation time passes.
    #[must_use]
    #[track_caller]
    pub fn escalated(self) -> Self {
        self.happens("the request is escalated".to_owned(), None, wire::Act::Escalated)
    }

    /// The time comes that the policy asked to be woken at; see [`wakes_after`](Self::wakes_after).
    ///
    /// # Panics
    /// Where it did not ask.
    #[must_use]
    #[track_caller]
    pub fn tick(mut self) -> Self {
        match self.ruling.as_ref().and_then(|ruling| ruling.wake_at) {
            Some(wake_at) => self.now = self.now.max(wake_at),
            None => self.fail("a wish to be woken", "none"),
        }
        self.happens("the policy is woken".to_owned(), None, wire::Act::Tick)
    }
}

/// The claims: what came of it. Each hands the story on, and may be its last word.
impl<P: Policy> Scenario<P> {
    /// The last act was refused, with this code among the reasons.
    ///
    /// # Panics
    /// Where it was not.
    #[track_caller]
    pub fn refused_with(self, code: &str) -> Self {
        self.refused(&format!("a refusal with `{code}`"), |reason| reason.code == code)
    }

    /// The last act was refused with this code for what is at `path`.
    ///
    /// # Panics
    /// Where it was not.
    #[track_caller]
    pub fn refused_at(self, code: &str, path: &str) -> Self {
        let is_there = |reason: &wire::Reason| reason.code == code && reason.path.as_deref() == Some(path);
        self.refused(&format!("a refusal with `{code}` at `{path}`"), is_there)
    }

    /// The policy had nothing to say of the last act, so it does not count unless another policy grants it.
    ///
    /// # Panics
    /// Where the policy granted or refused it.
    #[track_caller]
    pub fn silent(mut self) -> Self {
        if !matches!(self.outcome, Outcome::Silent) {
            self.fail("silence", &self.seen());
        }
        self.unclaimed = false;
        self
    }

    /// The request waits for one thing, with this label.
    ///
    /// # Panics
    /// Where it does not, or waits for more.
    #[track_caller]
    pub fn waits_for(self, label: &str) -> Self {
        self.waits_for_all([label])
    }

    /// The request waits for the things with these labels, in this order, and for nothing else.
    ///
    /// # Panics
    /// Where it does not.
    #[track_caller]
    pub fn waits_for_all<'l>(self, labels: impl IntoIterator<Item = &'l str>) -> Self {
        let expected: Vec<&str> = labels.into_iter().collect();
        let claim = format!("waiting for {}", quoted(&expected));
        let found = match self.standing(&claim) {
            wire::Standing::Waiting(wanted) => wanted.iter().map(|wanted| wanted.label.as_str()).eq(expected),
            _ => false,
        };
        self.claim(found, &claim)
    }

    /// The request waits for something that exactly these ids and `@group` names can meet.
    ///
    /// # Panics
    /// Where it does not.
    #[track_caller]
    pub fn asks<'e>(self, eligible: impl IntoIterator<Item = &'e str>) -> Self {
        let expected: Vec<&str> = eligible.into_iter().collect();
        let claim = format!("a requirement that {} can meet", quoted(&expected));
        let found = match self.standing(&claim) {
            wire::Standing::Waiting(requirements) => {
                requirements.iter().any(|wanted| wanted.eligible == expected)
            }
            _ => false,
        };
        self.claim(found, &claim)
    }

    /// The policy is satisfied.
    ///
    /// # Panics
    /// Where it is not.
    #[track_caller]
    pub fn satisfied(self) -> Self {
        let found = matches!(self.standing("satisfied"), wire::Standing::Satisfied);
        self.claim(found, "satisfied")
    }

    /// The request is denied, with this code and message.
    ///
    /// # Panics
    /// Where it is not.
    #[track_caller]
    pub fn denied_with(self, code: &str, message: &str) -> Self {
        let claim = format!("denied with `{code}`: {message}");
        let found = match self.standing(&claim) {
            wire::Standing::Denied(reason) => reason.code == code && reason.message == message,
            _ => false,
        };
        self.claim(found, &claim)
    }

    /// Approvers may edit exactly these parameters.
    ///
    /// # Panics
    /// Where the policy says otherwise.
    #[track_caller]
    pub fn editable<'k>(self, keys: impl IntoIterator<Item = &'k str>) -> Self {
        let expected: Vec<&str> = keys.into_iter().collect();
        let claim = format!("editable: {}", quoted(&expected));
        let seen = self.counted(&claim).editable.clone();
        if seen != expected {
            self.fail(&claim, &format!("editable: {}", quoted(&seen)));
        }
        self
    }

    /// The policy asks to be woken this long after the request was made.
    ///
    /// # Panics
    /// Where it asks for another time, or for none.
    #[track_caller]
    pub fn wakes_after(self, duration: Duration) -> Self {
        let claim = format!("a wish to be woken after {duration:?}");
        match self.counted(&claim).wake_at {
            None => self.fail(&claim, "none"),
            Some(at) => {
                let seen = Duration::from_millis(at.saturating_sub(self.submitted_at));
                if seen != duration {
                    self.fail(&claim, &format!("after {seen:?}"));
                }
            }
        }
        self
    }

    /// The policy asks to be woken at this time, in RFC 3339.
    ///
    /// # Panics
    /// Where it asks for another time, or for none.
    #[track_caller]
    pub fn wakes_at(self, time: &str) -> Self {
        let claim = format!("a wish to be woken at {time}");
        match self.counted(&claim).wake_at {
            Some(at) if at == instant(time) => {}
            Some(at) => self.fail(&claim, &Instant::from_millis(at).to_string()),
            None => self.fail(&claim, "none"),
        }
        self
    }

    /// The policy does not ask to be woken.
    ///
    /// # Panics
    /// Where it does.
    #[track_caller]
    pub fn sleeps(self) -> Self {
        let claim = "no wish to be woken";
        if let Some(at) = self.counted(claim).wake_at {
            self.fail(claim, &Instant::from_millis(at).to_string());
        }
        self
    }

    /// The policy remembers this of the request, from its admission.
    ///
    /// # Panics
    /// Where it remembers something else.
    #[track_caller]
    pub fn remembers(self, memo: &Value) -> Self {
        let seen = self.memo.as_deref().unwrap_or("nothing, for no request was made");
        if serde_json::from_str::<Value>(seen).ok().as_ref() != Some(memo) {
            self.fail(&format!("the memo {memo}"), seen);
        }
        self
    }
}

impl<P: Policy> Scenario<P> {
    /// Judges an event, and keeps it where it counts.
    #[track_caller]
    fn happens(mut self, line: String, by: Option<&str>, act: wire::Act) -> Self {
        self.assert_claimed();
        let Some(memo) = self.memo.clone() else { self.fail("a request, with `admitted()`", "none") };
        if let Some(wire::Ruling { standing: wire::Standing::Denied(_), .. }) = self.ruling {
            self.fail("the end of the story, for the request is denied", &line);
        }
        self.now += 1000;
        let event = wire::Event {
            seq: u32::try_from(self.history.len()).unwrap_or(u32::MAX),
            at: self.now,
            by: by.map(|id| self.actor(id)),
            act,
        };
        let judge = || {
            Exported::<P>::judge(wire::Context {
                config: self.config.clone(),
                memo: memo.clone(),
                request: self.request(),
                history: self.history.clone(),
                event: event.clone(),
            })
        };
        let (judged, again) = (judge(), judge());
        if format!("{judged:?}") != format!("{again:?}") {
            self.fail(&format!("the same answer twice: {judged:?}"), &format!("{again:?}"));
        }
        self.outcome = match judged {
            Err(reasons) => {
                self.assert_documented(&reasons);
                Outcome::Refused(reasons)
            }
            Ok(ruling) => {
                if let wire::Standing::Denied(reason) = &ruling.standing {
                    self.assert_documented([reason]);
                }
                let silent = by.is_some() && !ruling.grants;
                if !silent || self.granted_elsewhere {
                    self.history.push(event);
                    self.ruling = Some(ruling);
                }
                if silent { Outcome::Silent } else { Outcome::Counted }
            }
        };
        self.unclaimed = match &self.outcome {
            Outcome::Counted => false,
            Outcome::Silent => !self.granted_elsewhere,
            Outcome::Refused(_) => true,
        };
        let seen = self.seen();
        self.story.push(format!("{line}: {seen}"));
        self
    }

    #[track_caller]
    fn admission(&self) -> Result<String, Vec<wire::Reason>> {
        let admitted = Exported::<P>::admit(self.config.clone(), self.request());
        match &admitted {
            Ok(memo) if serde_json::from_str::<Value>(memo).is_err() => self.fail("a memo of JSON", memo),
            Ok(_) => {}
            Err(reasons) => self.assert_documented(reasons),
        }
        admitted
    }

    fn request(&self) -> wire::Request {
        let lifetime_ms = u64::try_from(self.lifetime.as_millis()).unwrap_or(u64::MAX);
        wire::Request {
            id: "req_scenario".to_owned(),
            action: "scenario".to_owned(),
            requester: wire::Actor {
                known: match self.requester_is {
                    Known::Person => wire::Known::Person,
                    Known::Machine => wire::Known::Machine,
                    Known::Unknown => wire::Known::Unknown,
                },
                ..self.actor(&self.requester)
            },
            owners: self.owners.clone(),
            rerequested_by: None,
            params: self.params.clone(),
            meta: self.meta.clone(),
            submitted_at: self.submitted_at,
            expires_at: self.submitted_at.saturating_add(lifetime_ms),
            lineage_depth: self.lineage_depth,
        }
    }

    fn actor(&self, id: &str) -> wire::Actor {
        let groups = self.groups.iter().filter(|(_, ids)| ids.iter().any(|member| member == id));
        wire::Actor {
            id: id.to_owned(),
            groups: groups.map(|(name, _)| name.clone()).collect(),
            known: wire::Known::Person,
            authenticated: true,
        }
    }

    #[track_caller]
    fn refused(mut self, claim: &str, expected: impl Fn(&wire::Reason) -> bool) -> Self {
        match &self.outcome {
            Outcome::Refused(reasons) if reasons.iter().any(expected) => {}
            _ => self.fail(claim, &self.seen()),
        }
        self.unclaimed = false;
        self
    }

    #[track_caller]
    fn claim(self, found: bool, claim: &str) -> Self {
        if !found {
            self.fail(claim, &describe(self.standing(claim)));
        }
        self
    }

    #[track_caller]
    fn standing(&self, claim: &str) -> &wire::Standing {
        &self.counted(claim).standing
    }

    /// The ruling on the last event that counted, for claims about what came of it.
    #[track_caller]
    fn counted(&self, claim: &str) -> &wire::Ruling {
        self.assert_claimed();
        match &self.ruling {
            Some(ruling) => ruling,
            None => self.fail(claim, "no request"),
        }
    }

    #[track_caller]
    fn assert_claimed(&self) {
        if self.unclaimed {
            self.fail("an act that counts, or a claim that it does not", &self.seen());
        }
    }

    #[track_caller]
    fn assert_documented<'r>(&self, reasons: impl IntoIterator<Item = &'r wire::Reason>) {
        if let Some(code) = undocumented::<P>(reasons) {
            self.fail(&format!("`{code}` among the documented REASONS"), "it is not there");
        }
    }

    fn seen(&self) -> String {
        match (&self.outcome, &self.ruling) {
            (Outcome::Refused(reasons), _) => codes(reasons),
            (Outcome::Silent, _) if !self.granted_elsewhere => "silent".to_owned(),
            (_, Some(ruling)) => describe(&ruling.standing),
            (_, None) => "nothing".to_owned(),
        }
    }

    #[track_caller]
    fn fail(&self, expected: &str, seen: &str) -> ! {
        let mut message = format!("the story of a request under `{}` {}:\n", P::NAME, self.config);
        for line in &self.story {
            let _ = writeln!(message, "  {line}");
        }
        panic!("{message}expected: {expected}\nseen: {seen}")
    }
}

/// A story must not end on an act that silently did not count.
impl<P: Policy> Drop for Scenario<P> {
    fn drop(&mut self) {
        if self.unclaimed && !std::thread::panicking() {
            self.fail("an act that counts, or a claim that it does not", &self.seen());
        }
    }
}

/// A story's time, in milliseconds since the epoch.
#[track_caller]
fn instant(time: &str) -> u64 {
    match Instant::from_rfc3339(time) {
        Some(instant) => instant.millis(),
        None => panic!("expected: a point in time in RFC 3339\nseen: {time}"),
    }
}

/// Something that the gateway would not accept in a configuration.
#[derive(Debug)]
#[expect(dead_code, reason = "the message is there to be printed")]
struct ConfigProblem {
    path: String,
    message: String,
}

/// What the gateway would find: first what the schema says, then what the policy says.
#[track_caller]
fn config_problems<P: Policy>(config: &Value) -> Vec<ConfigProblem> {
    let schema: Value = serde_json::from_str(P::CONFIG_SCHEMA)
        .unwrap_or_else(|error| panic!("expected: a CONFIG_SCHEMA of JSON\nseen: {error}"));
    let validator = jsonschema::draft202012::new(&schema)
        .unwrap_or_else(|error| panic!("expected: a CONFIG_SCHEMA of JSON Schema\nseen: {error}"));
    let mut problems: Vec<_> = validator
        .iter_errors(config)
        .map(|error| ConfigProblem { path: error.instance_path().to_string(), message: error.to_string() })
        .collect();
    let reasons = Exported::<P>::check_config(config.to_string());
    if let Some(code) = undocumented::<P>(&reasons) {
        panic!("expected: `{code}` among the documented REASONS\nseen: it is not there");
    }
    problems.extend(
        reasons
            .into_iter()
            .map(|reason| ConfigProblem { path: reason.path.unwrap_or_default(), message: reason.message }),
    );
    problems
}

fn undocumented<'r, P: Policy>(reasons: impl IntoIterator<Item = &'r wire::Reason>) -> Option<&'r str> {
    let documented = Exported::<P>::describe().reasons;
    let mut codes = reasons.into_iter().map(|reason| reason.code.as_str());
    codes.find(|code| !documented.iter().any(|doc| doc.code == *code))
}

fn write_edit(edit: Edit) -> wire::Edit {
    let text = |value: Option<Json>| value.map(|value| value.text().to_owned());
    wire::Edit {
        key: edit.key,
        before: text(edit.before),
        after: text(edit.after),
        violations: edit.violations,
    }
}

fn describe(standing: &wire::Standing) -> String {
    match standing {
        wire::Standing::Satisfied => "satisfied".to_owned(),
        wire::Standing::Denied(reason) => format!("denied with `{}`: {}", reason.code, reason.message),
        wire::Standing::Waiting(requirements) => {
            let wanted = requirements.iter().map(|wanted| {
                format!(
                    "`{}` ({} of {}, by {})",
                    wanted.label,
                    wanted.have,
                    wanted.need,
                    quoted(&wanted.eligible)
                )
            });
            format!("waiting for {}", wanted.collect::<Vec<_>>().join(", "))
        }
    }
}

fn codes(reasons: &[wire::Reason]) -> String {
    let reasons = reasons.iter().map(|reason| match &reason.path {
        Some(path) => format!("`{}` at `{path}` ({})", reason.code, reason.message),
        None => format!("`{}` ({})", reason.code, reason.message),
    });
    format!("refused with {}", reasons.collect::<Vec<_>>().join(", "))
}

fn quoted(items: &[impl AsRef<str>]) -> String {
    items.iter().map(|item| format!("`{}`", item.as_ref())).collect::<Vec<_>>().join(", ")
}
