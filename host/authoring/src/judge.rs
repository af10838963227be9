//! `countersign policy judge`: a synthetic request and its history under a policy set: what each policy says, what the
//! combination makes of it, what is missing, and who could move it on.
//!
//! The events go through the gateway's own `step`, so a refusal here is the refusal that people would see. What is due
//! by itself (an escalation, a wake-up, the expiry) happens when its time has come, as in the gateway.

mod moves;
mod report;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::Args;
use countersign_core::directory::{Directory, Members, is_usergroup};
use countersign_core::json;
use countersign_core::lifecycle::{
    self, Intent, Known, Reason, Refusal, Request, State, Status, Submission, Timestamp, Verdict,
};
use countersign_core::people::is_slack_id;
use countersign_core::record::{PolicyEntry, PolicyUse};
use countersign_gateway::fetch;
use countersign_policy::decide::{self, Admission, Attempt, Decision, NotMade};
use countersign_policy::reach;
use countersign_policy::settings::Loading;
use countersign_policy::yaml::error::did_you_mean;
use countersign_policy::{ActionPolicy, Engine, Limits, NotAdmitted, Source, Trust};
use serde::de::IntoDeserializer as _;
use serde::{Deserialize as _, Serialize};
use serde_json::{Map, Value};

use self::moves::Moves;
use self::report::Report;
use super::event::{Event, duration, time};
use super::synthetic::{self, SUBMITTED_AT, Somebody, Submitted, SyntheticRequest, request_id};
use super::{Answer, Format, file};
use crate::people::People;
use countersign_console::Progress;

const MAX_PARAMS_BYTES: usize = 1 << 20;

/// A synthetic request and its history.
#[derive(Debug, Args)]
pub struct Judge {
    /// The policy set: its folder, or the `policy-set.yaml` in it.
    #[arg(value_name = "SET")]
    set: PathBuf,
    #[command(flatten)]
    people: People,
    #[command(flatten)]
    loading: Loading,
    /// The action that the request is for.
    #[arg(long, value_name = "NAME")]
    action: String,
    /// The parameters: a JSON object, or `@FILE` with one.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    params: String,
    /// Who asks: a Slack id, or `source:id`.
    #[arg(long, value_name = "ID", default_value = synthetic::REQUESTER)]
    requester: Somebody,
    /// What the requester is: `person`, `machine` or `unknown`. By default a Slack id is a person's, and any other id is
    /// unknown, as in a gateway whose access file does not name it.
    #[arg(long, value_name = "KIND", value_parser = known)]
    requester_is: Option<Known>,
    /// The requester's id was authenticated, rather than asserted by the caller.
    #[arg(long)]
    authenticated: bool,
    /// The id of somebody who owns the machine that asks, and counts as a requester. May come several times.
    #[arg(long = "owned-by", value_name = "ID")]
    owners: Vec<Somebody>,
    /// What happens, in order: `U0BOB approve`, `U0BOB approve replicas=4`, `U0SEC acknowledge security`,
    /// `U0BOB deny too risky`, `U0BOB withdraw`, `escalated` or `tick`; with a time at the end, such as `@5m`, for when
    /// it happens. May come several times.
    #[arg(long = "event", value_name = "EVENT")]
    events: Vec<Event>,
    /// When the request is made, in RFC 3339, for policies that look at the calendar: `2026-12-24T17:30:00Z`.
    #[arg(long, value_name = "TIME", default_value_t = SUBMITTED_AT, value_parser = time)]
    at: Timestamp,
    /// Who is in a user group of Slack that the set's groups name: `S0TEAM=U1,U2`. May come several times.
    #[arg(long = "usergroup", value_name = "ID=MEMBERS", value_parser = usergroup)]
    usergroups: Vec<(String, BTreeSet<String>)>,
    /// Lines for people, or JSON.
    #[arg(long, default_value = "text")]
    format: Format,
}

impl Judge {
    pub(super) fn engine(&self) -> Result<(Trust, Limits)> {
        Ok((self.loading.supply.trust()?, self.loading.limits.limits()))
    }

    /// Checks that a gateway could know everybody who asks, owns or acts.
    fn check_names(&self, directory: &Directory) -> Result<()> {
        let people = directory.people();
        let check = |what: &str, name: &str| {
            synthetic::check_name(name, &people).map_err(|why| anyhow!("{what}: {why}"))
        };
        check("`--requester`", &self.requester.name)?;
        for owner in &self.owners {
            check("`--owned-by`", &owner.name)?;
        }
        for event in &self.events {
            if let Some(by) = &event.by {
                check(&format!("`--event '{event}'`"), by)?;
            }
        }
        Ok(())
    }
}

pub(super) fn run(judge: &Judge, engine: &Engine) -> Result<Answer> {
    let _progress = Progress::start("loading the policy set");
    let set = fetch::load(Source::folder(&judge.set), engine, &judge.loading.supply.registries())??;
    let Some(policy) = set.action(&judge.action) else {
        let hint = did_you_mean(&judge.action, set.actions().keys().map(String::as_str));
        bail!("no policy of the set knows the action `{}`, so a gateway denies it{hint}", judge.action);
    };
    let mut request = SyntheticRequest::new(&judge.action, judge.requester.clone());
    request.requester_is = judge.requester_is;
    request.at = judge.at;
    request.ask.who.authenticated = judge.authenticated;
    request.ask.who.owners = judge.owners.iter().map(|owner| owner.name.clone()).collect();
    request.ask.params = params(&judge.params)?;
    let directory = judge.people.directory()?;
    judge.check_names(&directory)?;
    for (group, ids) in &judge.usergroups {
        directory.put(group, Members { ids: ids.clone(), as_of: judge.at.plus(policy.entry().timeout_ms) });
    }
    let warnings = policy.warnings(&directory, judge.at);
    let mut simulation =
        Simulation { policy, directory, began: judge.at, now: judge.at, steps: Vec::new(), request: None };
    simulation.submit(&request);
    for (index, event) in judge.events.iter().enumerate() {
        simulation.happens(event).with_context(|| format!("event {}, `{event}`", index + 1))?;
    }
    let unknown = simulation.unknown_usergroups();
    let Simulation { policy, directory, began, now, steps, request } = simulation;
    let moves =
        request.as_ref().map(|request| Moves::of(request, policy, &directory, now)).unwrap_or_default();
    let report = Report {
        action: &judge.action,
        policy,
        began,
        steps: &steps,
        request: request.as_ref(),
        moves,
        unknown,
        warnings,
    };
    match judge.format {
        Format::Text => Ok(Answer::lines(&report.text(), true)),
        Format::Json => report.json(),
    }
}

/// One event: what each policy said, and what came of it.
struct Step {
    /// Milliseconds after the submission.
    at_ms: u64,
    event: String,
    /// By policy, in order. Empty for what no policy is asked of, such as the expiry.
    verdicts: Vec<(String, Verdict)>,
    /// The status that it led to, or why it did not count.
    outcome: Result<Status, Refused>,
}

/// Why an event did not count, or the request was not made.
#[derive(Serialize)]
struct Refused {
    code: String,
    message: String,
}

struct Simulation<'a> {
    policy: &'a Arc<ActionPolicy>,
    directory: Directory,
    /// When the request is made.
    began: Timestamp,
    now: Timestamp,
    steps: Vec<Step>,
    /// The request as it stands; none if it was not made.
    request: Option<Request>,
}

impl Simulation<'_> {
    fn entry(&self) -> &PolicyEntry {
        self.policy.entry()
    }

    /// The request is made, or not.
    fn submit(&mut self, request: &SyntheticRequest) {
        let Submitted { submission, params } = request.submit(self.policy, &self.directory);
        let event = format!("{} asks", submission.requester_id());
        let Admission { verdicts, outcome } =
            decide::admit(self.policy, request_id(self.began), submission.clone(), &params, |_| None);
        let mut named = self.named(&verdicts);
        let outcome = match outcome {
            Ok(step) => {
                let reasons = reach::unsatisfiable(self.entry(), &step.request, &self.directory);
                if reasons.is_empty() {
                    let status = step.request.status();
                    self.request = Some(step.request);
                    Ok(status)
                } else {
                    Err(Refused { code: "unsatisfiable".to_owned(), message: messages(&reasons) })
                }
            }
            Err(not_made) => {
                if verdicts.is_empty() && matches!(not_made, NotMade::Denied(_)) {
                    named = self.admissions(&submission, &params);
                }
                Err(Refused::at_admission(&not_made))
            }
        };
        self.steps.push(Step { at_ms: 0, event, verdicts: named, outcome });
    }

    /// What each policy says of the admission by itself.
    fn admissions(&self, submission: &Submission, params: &Map<String, Value>) -> Vec<(String, Verdict)> {
        let entry = self.entry();
        let modules: Vec<_> = self.policy.modules().cloned().collect();
        let refused = |used: &PolicyUse| {
            let alone = PolicyEntry { policies: vec![used.clone()], ..entry.clone() };
            let find = |digest: &lifecycle::Digest| {
                modules.iter().find(|module| module.digest() == *digest).cloned()
            };
            let policy = ActionPolicy::new(alone, find).ok()?;
            match policy.admit(request_id(self.began), submission, params, |_| None) {
                Ok(_) => None,
                Err(NotAdmitted::Denied(reasons)) => Some((used.name.clone(), Verdict::Refused(reasons))),
                Err(NotAdmitted::Failed(failure)) => Some((used.name.clone(), Verdict::Failed(failure))),
            }
        };
        entry.policies.iter().filter_map(refused).collect()
    }

    /// Something happens, after everything that was due before.
    fn happens(&mut self, event: &Event) -> Result<()> {
        let Some(request) = &self.request else { bail!("there is no request, for it was not admitted") };
        let State::Open(open) = &request.state else {
            bail!("the request is {} already", request.status());
        };
        let default = match &event.intent {
            Intent::Escalate => match open.escalation {
                lifecycle::Escalation::At(at) => Some(at),
                lifecycle::Escalation::Done(_) => bail!("the request was escalated already"),
                lifecycle::Escalation::Never => bail!("the action does not escalate"),
            },
            Intent::Wake => Some(open.wake_at.context("no policy asked to be woken")?),
            _ => Some(self.now.plus(1000)),
        };
        let at = event.at_ms.map(|at_ms| self.began.plus(at_ms)).or(default).unwrap_or(self.now);
        ensure!(at >= self.now, "it is {} already", duration(self.now.since(self.began)));
        let before = self.steps.len();
        self.advance(at);
        match &event.by {
            Some(_) => {
                let open = self.request.as_ref().is_some_and(|request| !request.status().is_terminal());
                ensure!(
                    open,
                    "by then the request is {}",
                    self.request.as_ref().map_or("gone", |request| request.status().as_str())
                );
                self.decide(event);
            }
            None => {
                ensure!(self.steps.len() > before, "nothing is due at {}", duration(at.since(self.began)));
            }
        }
        Ok(())
    }

    /// Moves the clock on, and does what is due by itself until then.
    fn advance(&mut self, at: Timestamp) {
        while let Some(request) = self.request.clone()
            && let State::Open(open) = &request.state
            && let Some(due) = request.due_at().filter(|due| *due <= at)
        {
            self.now = due;
            let escalates = matches!(open.escalation, lifecycle::Escalation::At(time) if time <= due);
            let intent = if due >= request.submission.expires_at {
                Intent::Expire
            } else if escalates {
                Intent::Escalate
            } else {
                Intent::Wake
            };
            self.decide(&Event { at_ms: None, by: None, intent });
            // A policy that failed would be asked again a little later; that shows nothing new here.
            if self.steps.last().is_some_and(|step| step.outcome.is_err()) {
                break;
            }
        }
        self.now = self.now.max(at);
    }

    /// Decides about an event that happens now.
    fn decide(&mut self, event: &Event) {
        let Some(request) = &self.request else { return };
        let by = event.by.as_ref().map(|id| self.entry().actor(id, &self.directory, self.now));
        let attempt = Attempt::of(event.intent.clone(), by);
        let Decision { verdicts, outcome, .. } = decide::event(self.policy, request, attempt, self.now);
        let verdicts = self.named(&verdicts);
        let outcome = match outcome {
            Ok(step) => {
                let status = step.request.status();
                self.request = Some(step.request);
                Ok(status)
            }
            Err(refusal) => Err(Refused::of(&refusal)),
        };
        let at_ms = self.now.since(self.began);
        self.steps.push(Step { at_ms, event: event.to_string(), verdicts, outcome });
    }

    fn named(&self, verdicts: &[Verdict]) -> Vec<(String, Verdict)> {
        let names = self.entry().policies.iter().map(|used| used.name.clone());
        names.zip(verdicts.iter().cloned()).collect()
    }

    /// User groups of Slack in groups that matter to the action, and whose members were not given.
    fn unknown_usergroups(&self) -> BTreeSet<String> {
        let entry = self.entry();
        let configs: String = entry.policies.iter().map(|used| used.config.to_string()).collect();
        let matters = |group: &str| group == "super-approvers" || configs.contains(&format!("\"@{group}\""));
        let named = entry.groups.iter().filter(|(group, _)| matters(group)).flat_map(|(_, members)| members);
        let unknown = named.filter(|member| is_usergroup(member) && self.directory.members(member).is_none());
        unknown.cloned().collect()
    }
}

impl Refused {
    fn of(refusal: &Refusal) -> Refused {
        Refused { code: refusal.code().to_owned(), message: said(refusal) }
    }

    /// As the gateway answers the caller whose request is not made.
    fn at_admission(not_made: &NotMade) -> Refused {
        match not_made {
            NotMade::Denied(reasons) => {
                Refused { code: "policy_denied".to_owned(), message: messages(reasons) }
            }
            NotMade::Failed(failures) => Refused::of(&Refusal::PolicyFailed(failures.clone())),
            NotMade::Refused(refusal) => Refused::of(refusal),
        }
    }
}

/// What a refusal says, with what failed if a policy did.
fn said(refusal: &Refusal) -> String {
    match refusal {
        Refusal::PolicyFailed(failures) => {
            failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    }
}

fn messages(reasons: &[Reason]) -> String {
    reasons.iter().map(|reason| reason.message.as_str()).collect::<Vec<_>>().join("; ")
}

fn params(text: &str) -> Result<Map<String, Value>> {
    let read = match text.strip_prefix('@') {
        Some(path) => file::text(path.as_ref(), MAX_PARAMS_BYTES)
            .with_context(|| format!("cannot read the parameters in `{path}`"))?,
        None => text.to_owned(),
    };
    // JSON has no byte order mark, but editors write one.
    let read = read.strip_prefix('\u{feff}').unwrap_or(&read);
    // As a gateway reads them in the body that a caller sends, so that nothing is judged that could not be asked for.
    match json::parse_member("params", read.as_bytes()) {
        Ok(Value::Object(params)) => Ok(params),
        Ok(_) => bail!("`--params` is no JSON object: parameters have names"),
        Err(refused) => bail!("`--params` is not what a gateway takes: {refused}"),
    }
}

fn known(text: &str) -> Result<Known, serde::de::value::Error> {
    Known::deserialize(text.into_deserializer())
}

fn usergroup(text: &str) -> Result<(String, BTreeSet<String>), String> {
    let (group, members) = text.split_once('=').ok_or("this is `ID=MEMBER,MEMBER`")?;
    if !is_usergroup(group) {
        return Err(format!("`{group}` is no user group of Slack, whose ids begin with `S`"));
    }
    let members: BTreeSet<String> =
        members.split(',').map(str::trim).filter(|member| !member.is_empty()).map(str::to_owned).collect();
    match members.iter().find(|member| !is_slack_id(member)) {
        Some(other) => {
            Err(format!("`{other}` is no Slack id, and a user group of Slack has no other members"))
        }
        None => Ok((group.to_owned(), members)),
    }
}
