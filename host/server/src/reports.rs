//! Reports to the gates of CI systems: how a request stands, and what was decided.
//!
//! A gate goes on once it is told to, so telling it is the use of the approval: the approval is consumed first, and once, and
//! what is told is what became of that. A crash in between repeats both, and neither counts twice.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use countersign_access::GateSystem;
use countersign_core::lifecycle::{
    Deployment, Digest, Gate, Milestone, Request, State, Status, StatusCheck, UseRefusal,
};
use countersign_dispatch::{Answer, Target, Telling, What};
use countersign_gates::CallError;
use countersign_gates::gitlab;
use countersign_gateway::{Gateway, GatewayError, Given, GivenParameters, IdempotencyKey};
use countersign_store::StoreError;

use crate::gates::Gates;
use crate::state::App;

/// How often a pending status check is renewed, in milliseconds. After one call that fails there is time for another.
const RENEWAL_MS: u64 = 45_000;

const _: () = assert!(RENEWAL_MS * 2 < gitlab::PENDING_MS);

/// The most characters of a name that a comment shows.
const NAME_CHARS: usize = 64;

/// The most approvers that a comment names.
const NAMES: usize = 10;

/// The targets that reports go to, by the names of their systems.
pub(crate) fn targets(gates: &Arc<Gates>, gateway: &Arc<Gateway>) -> Vec<(String, Arc<dyn Target>)> {
    let reporter = || Reporter { gates: Arc::clone(gates), gateway: Arc::downgrade(gateway) };
    let systems = gates.systems().map(|system| (system.as_str().to_owned(), system));
    systems
        .map(|(name, system)| {
            let target: Arc<dyn Target> = match system {
                GateSystem::Github => Arc::new(ToGithub(reporter())),
                GateSystem::Gitlab => Arc::new(ToGitlab(reporter())),
            };
            (name, target)
        })
        .collect()
}

/// The name of the target that is to be told of these milestones, which a request that stands for a gate has just reached. Any
/// gateway that stores them says so: one that has the settings of the CI system reports them.
pub(crate) fn target_of(request: &Request, milestones: &[Milestone]) -> Option<&'static str> {
    let gate = request.submission.gate.as_ref()?;
    let is_reported = milestones.iter().any(|milestone| is_reported(request, *milestone, gate));
    is_reported.then(|| gate.system())
}

/// Tells a gate once that nothing will be decided, since no request could be made. If that is lost, the gate stays closed.
pub(crate) fn refuse(app: &Arc<App>, gate: Gate, code: &'static str) {
    let app = Arc::clone(app);
    app.background.clone().spawn(async move {
        let now = app.gateway.clock().now();
        let told = match &gate {
            Gate::Github(deployment) => {
                let Some(github) = &app.gates.github else { return };
                let comment = format!("Countersign does not ask for a decision about this: `{code}`.");
                github.api.report(deployment, Some(false), &comment, now).await
            }
            Gate::Gitlab(check) => {
                let Some(gitlab) = &app.gates.gitlab else { return };
                gitlab.api.set(check, gitlab::Status::Failed).await
            }
        };
        if let Err(error) = told {
            tracing::warn!(system = gate.system(), %error, "a gate was not told that nothing is asked for; it stays closed");
        }
    });
}

/// Tells a gate once more what was decided, since it asks again.
pub(crate) fn repeat(app: &Arc<App>, request: &Arc<Request>) {
    let (app, request) = (Arc::clone(app), Arc::clone(request));
    app.background.clone().spawn(async move {
        let reporter = Reporter { gates: Arc::clone(&app.gates), gateway: Arc::downgrade(&app.gateway) };
        let told = match &request.submission.gate {
            Some(Gate::Github(deployment)) => reporter.decided_on_github(&request, deployment).await,
            Some(Gate::Gitlab(check)) => reporter.decided_on_gitlab(&request, check).await,
            None => return,
        };
        if told != Answer::Told {
            tracing::warn!(request = %request.id, trace = request.trace_id(), ?told, "a gate that asked again was not told again");
        }
    });
}

/// The newest open request about what this gate's reports name, if there is one.
pub(crate) async fn open_about(app: &App, gate: &Gate) -> Result<Option<Request>, StoreError> {
    newest_open(&app.gateway, gate).await
}

async fn newest_open(gateway: &Gateway, gate: &Gate) -> Result<Option<Request>, StoreError> {
    let (store, now) = (gateway.store(), gateway.clock().now());
    for id in store.with_supersede_key(&gate.subject(), None).await?.into_iter().rev() {
        let found = store.request(id).await?;
        if let Some(open) = found.filter(|it| !it.status().is_terminal() && now < it.submission.expires_at) {
            return Ok(Some(open));
        }
    }
    Ok(None)
}

/// What a report needs.
struct Reporter {
    gates: Arc<Gates>,
    /// The gateway knows its targets, so that they must not keep it.
    gateway: Weak<Gateway>,
}

/// What a gate is told of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    GoOn,
    /// Why not, for people.
    Stop(&'static str),
}

impl Reporter {
    /// What a gate is told of a request that has ended: it goes on if the approval is used for it, here and now or before.
    async fn verdict(&self, request: &Request) -> Result<Verdict, GatewayError> {
        let stop = |why| Ok(Verdict::Stop(why));
        match &request.state {
            State::Approved { .. } => {}
            State::Denied(_) => return stop("denied"),
            State::Expired { .. } => return stop("expired: nobody decided in time"),
            State::Cancelled { .. } => return stop("cancelled"),
            State::Open(_) => return stop("not decided"),
        }
        // What runs is what the CI system has: it cannot be given other parameters.
        if !request.edits().is_empty() {
            return stop("approved with changed parameters, which a gate cannot pass on");
        }
        let gateway = self.gateway.upgrade().ok_or(GatewayError::Contended)?;
        let key =
            Digest::of(&[b"gate report\0", request.submission.token_hash.as_bytes().as_slice()].concat());
        let once = IdempotencyKey { key, fingerprint: key, earlier: [None, None] };
        let parameters = GivenParameters::PayloadHash(request.payload_hash());
        let (given, by) = (Given { action: None, parameters }, request.submission.caller.as_deref());
        match gateway.consume(Arc::new(request.clone()), &given, by, Some(once)).await {
            Ok(_) => Ok(Verdict::GoOn),
            Err(GatewayError::NotUsed(UseRefusal::ApprovalExpired(_))) => {
                stop("approved, but the approval could not be used in time")
            }
            Err(GatewayError::NotUsed(_) | GatewayError::KeyReused) => {
                stop("approved, but the approval was used elsewhere")
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the CI system does not wait for a decision about this any more, but for one about something else that a report
    /// names alike.
    async fn is_outdated(&self, request: &Request, gate: &Gate) -> Result<bool, GatewayError> {
        let gateway = self.gateway.upgrade().ok_or(GatewayError::Contended)?;
        let subject = gate.subject();
        if let Some(newer) = request.superseded_by()
            && let Some(newer) = gateway.store().request(newer).await?
            && newer.submission.gate.as_ref().is_some_and(|gate| gate.subject() == subject)
        {
            return Ok(true);
        }
        let open = newest_open(&gateway, gate).await?;
        Ok(open.is_some_and(|open| request.submission.submitted_at <= open.submission.submitted_at))
    }

    async fn decided_on_github(&self, request: &Request, deployment: &Deployment) -> Answer {
        let Some(github) = &self.gates.github else { return not_configured() };
        match self.is_outdated(request, &Gate::Github(deployment.clone())).await {
            Ok(false) => {}
            Ok(true) => return outdated(request),
            Err(error) => return Answer::failed(error.public_message()),
        }
        let verdict = match self.verdict(request).await {
            Ok(verdict) => verdict,
            Err(error) => return Answer::failed(error.public_message()),
        };
        let comment = match verdict {
            Verdict::GoOn => format!("Countersign: approved{}. {}", by(request), named(request)),
            Verdict::Stop(why) => format!("Countersign: {why}. {}", named(request)),
        };
        let Some(now) = self.now() else { return Answer::failed("the gateway ends") };
        answer(github.api.report(deployment, Some(verdict == Verdict::GoOn), &comment, now).await)
    }

    async fn decided_on_gitlab(&self, request: &Request, check: &StatusCheck) -> Answer {
        let Some(gitlab) = &self.gates.gitlab else { return not_configured() };
        match self.is_outdated(request, &Gate::Gitlab(check.clone())).await {
            Ok(false) => {}
            Ok(true) => return outdated(request),
            Err(error) => return Answer::failed(error.public_message()),
        }
        // A status names the commit, and not the branch that it was approved for.
        if request.status() == Status::Approved {
            match gitlab.api.is_current(check).await {
                Ok(true) => {}
                Ok(false) => return outdated(request),
                Err(error) => return answer(Err(error)),
            }
        }
        let status = match self.verdict(request).await {
            Ok(Verdict::GoOn) => gitlab::Status::Passed,
            Ok(Verdict::Stop(_)) => gitlab::Status::Failed,
            Err(error) => return Answer::failed(error.public_message()),
        };
        match gitlab.api.set(check, status).await {
            // A newer commit is there, which is asked about by itself. Nobody waits for this one.
            Err(error) if is_stale(&error) => Answer::Told,
            told => answer(told),
        }
    }

    fn now(&self) -> Option<countersign_core::lifecycle::Timestamp> {
        Some(self.gateway.upgrade()?.clock().now())
    }
}

/// Reports to GitHub.
struct ToGithub(Reporter);

#[async_trait]
impl Target for ToGithub {
    fn wants(&self, request: &Request, milestone: Milestone) -> bool {
        target_of(request, &[milestone]) == Some(GateSystem::Github.as_str())
    }

    async fn tell(&self, telling: &Telling<'_>) -> Answer {
        let ToGithub(reporter) = self;
        let request = telling.request;
        let Some(Gate::Github(deployment)) = &request.submission.gate else { return Answer::Told };
        let What::Reached(milestone, _) = telling.what else { return Answer::Told };
        let comment = match milestone {
            Milestone::Created => format!("Countersign asks for a decision. {}", named(request)),
            Milestone::Escalated => {
                format!("Countersign has escalated it, since nobody has decided yet. {}", named(request))
            }
            Milestone::Decided => return reporter.decided_on_github(request, deployment).await,
            Milestone::Consumed | Milestone::Outcome => return Answer::Told,
        };
        let Some(github) = &reporter.gates.github else { return not_configured() };
        match github.api.report(deployment, None, &comment, telling.now).await {
            // The decision comes after it, and must not wait for a comment: one more attempt, soon.
            Err(error) if error.may_pass() && telling.failed == 0 => Answer::failed(error.to_string()),
            Err(error) => {
                tracing::warn!(request = %request.id, trace = request.trace_id(), %error, "a comment on how a request stands is left out");
                Answer::Told
            }
            Ok(()) => Answer::Told,
        }
    }
}

/// Reports to GitLab.
struct ToGitlab(Reporter);

#[async_trait]
impl Target for ToGitlab {
    fn wants(&self, request: &Request, milestone: Milestone) -> bool {
        target_of(request, &[milestone]) == Some(GateSystem::Gitlab.as_str())
    }

    async fn tell(&self, telling: &Telling<'_>) -> Answer {
        let ToGitlab(reporter) = self;
        let request = telling.request;
        let Some(Gate::Gitlab(check)) = &request.submission.gate else { return Answer::Told };
        if matches!(telling.what, What::Reached(Milestone::Decided, _)) {
            return reporter.decided_on_gitlab(request, check).await;
        }
        let Some(gitlab) = &reporter.gates.gitlab else { return not_configured() };
        match gitlab.api.set(check, gitlab::Status::Pending).await {
            Ok(()) => {}
            Err(error) if is_stale(&error) => return reporter.stale(request).await,
            // It is renewed before it fails, so that this is tried again soon enough.
            Err(error) => {
                tracing::warn!(request = %request.id, trace = request.trace_id(), %error, "a status check was not renewed")
            }
        }
        Answer::Told
    }

    fn again_after_ms(&self, request: &Request) -> Option<u64> {
        (!request.status().is_terminal()).then_some(RENEWAL_MS)
    }
}

impl Reporter {
    /// A newer commit has come: nothing of the older one can be merged any more.
    async fn stale(&self, request: &Request) -> Answer {
        let Some(gateway) = self.gateway.upgrade() else { return Answer::failed("the gateway ends") };
        let reason = "a newer commit was pushed to the merge request".to_owned();
        match gateway.cancel(request.id, Some(reason)).await {
            // Somebody may have decided meanwhile, which is told by itself.
            Ok(_) | Err(GatewayError::Refused(_)) => Answer::Told,
            Err(error) => Answer::failed(error.public_message()),
        }
    }
}

/// Whether a gate is told of a milestone. What is over when it could be told is left out, since the decision follows it.
fn is_reported(request: &Request, milestone: Milestone, gate: &Gate) -> bool {
    match milestone {
        Milestone::Created => !request.status().is_terminal(),
        Milestone::Escalated => matches!(gate, Gate::Github(_)) && !request.status().is_terminal(),
        Milestone::Decided => true,
        Milestone::Consumed | Milestone::Outcome => false,
    }
}

fn is_stale(error: &CallError) -> bool {
    error.status() == Some(409)
}

fn answer(told: Result<(), CallError>) -> Answer {
    match told {
        Ok(()) => Answer::Told,
        Err(error) if error.may_pass() => {
            let wait_ms = match error {
                CallError::Refused { retry_after_ms, .. } => retry_after_ms,
                _ => None,
            };
            Answer::Failed { why: error.to_string(), wait_ms }
        }
        Err(error) => Answer::Refused { why: error.to_string() },
    }
}

fn outdated(request: &Request) -> Answer {
    tracing::info!(request = %request.id, trace = request.trace_id(), "a decision is not reported: the CI system waits for another one by now");
    Answer::Told
}

fn not_configured() -> Answer {
    Answer::Refused { why: "the CI system is not configured any more".to_owned() }
}

/// Which request it is. Comments are Markdown, so nothing in them is in anybody's own words.
fn named(request: &Request) -> String {
    format!("Action {}, request `{}`.", code(&request.submission.action), request.id)
}

/// Who approved it.
fn by(request: &Request) -> String {
    debug_assert_eq!(request.status(), Status::Approved, "only an approval has approvers");
    let names: Vec<String> = request.approvers().into_iter().take(NAMES).map(code).collect();
    if names.is_empty() { String::new() } else { format!(" by {}", names.join(", ")) }
}

/// A name as Markdown shows it to the letter: nobody is mentioned, and nothing is a link.
fn code(name: &str) -> String {
    let shown: String =
        name.chars().filter(|letter| *letter != '`' && !letter.is_control()).take(NAME_CHARS).collect();
    format!("`{shown}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_to_the_letter() {
        assert_eq!(code("dana"), "`dana`");
        assert_eq!(
            code("x` @acme/all [y](https://evil.example)\n`"),
            "`x @acme/all [y](https://evil.example)`"
        );
        assert_eq!(code(&"x".repeat(100)).len(), NAME_CHARS + 2);
    }

    #[test]
    fn what_may_pass_is_tried_again_and_what_cannot_is_a_dead_letter() {
        let refused = |status, retry_after_ms| Err(CallError::Refused { status, retry_after_ms });
        for (told, expected) in [
            (Ok(()), "told"),
            (refused(500, None), "failed"),
            (refused(429, Some(7_000)), "failed"),
            (refused(401, None), "failed"),
            (refused(404, None), "refused"),
            (refused(422, None), "refused"),
            (refused(307, None), "refused"),
            (Err(CallError::Unreachable), "failed"),
            (Err(CallError::Impossible), "refused"),
        ] {
            let found = match answer(told) {
                Answer::Told => "told",
                Answer::Failed { .. } => "failed",
                Answer::Refused { .. } => "refused",
            };
            assert_eq!(found, expected, "{told:?}");
        }
    }
}
