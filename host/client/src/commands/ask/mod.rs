//! `countersign ask`: asks, waits, checks the decision, uses the approval, runs the command, and reports what came of it.

mod origin;
mod output;
mod program;
mod progress;
mod run;
mod signals;

pub(super) use self::signals::{Signals, name as signal_name};

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use countersign_console::{note, say};
use countersign_core::clock::{Clock as _, SystemClock};
use countersign_core::duration::show;
use countersign_core::lifecycle::{Party, RunResult, canonical};
use rustix::process::Signal;
use serde_json::{Map, Value};
use tokio::time::Instant;

use self::origin::Job;
use self::output::{Output, Outputs};
use self::program::{Prepared, Program};
use self::progress::Progress;
use self::run::{Ran, run};
use self::signals::{GRACE, name};
use super::connection::Connection;
use super::decision::{approved, check, consume, not_asked};
use super::duration::duration;
use super::exit::{EXIT_CODES, Ended, Exit};
use super::parameters::Parameters;
use super::party::party;
use crate::answer::{Created, Waited};
use crate::api::{Ask, Client, Meta, random_key};
use crate::approval::{Approval, Asked};
use crate::environment::Environment;
use crate::error::CallError;
use crate::patience::until;
use crate::text::{cut, plain};
use crate::wait::{News, Waiting};

/// What is said of a request if it is not known whether it was made.
pub(in crate::commands) const MAY_BE_OPEN: &str = "whether it was asked is not known; if it was, the request stays open until it expires, and nothing is run";

/// The longest report of a command, in characters.
const DETAIL: usize = 500;

/// Ask for an approval, wait for it, use it, and run a command with what was approved.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_CODES)]
pub struct AskCommand {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    parameters: Parameters,
    /// The repository that the request comes from; in GitHub Actions and GitLab that of the job.
    #[arg(long, value_name = "REPO")]
    repo: Option<String>,
    /// Who wants it, unless the credentials say so.
    #[arg(long, value_name = "SOURCE:ID", value_parser = party)]
    requester: Option<Party>,
    /// Why, for people to read; by default what GitHub Actions or GitLab say of the job.
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    /// After how long to give up: the request is then cancelled. By default it is waited for until it expires.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    /// A key under which the request is made once, however often it is asked for. By default each call asks anew.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Only ask, and print the request and its wait token; `countersign wait` waits for it.
    #[arg(long, conflicts_with_all = ["command", "timeout", "params_stdin", "params_out", "receipt_out"])]
    detach: bool,
    /// Write the wait token to this file, which only its owner reads, and do not print it; `countersign wait @FILE` takes it.
    #[arg(long, value_name = "FILE", requires = "detach")]
    token_out: Option<PathBuf>,
    /// Give the command the approved parameters on its standard input, as a JSON object.
    #[arg(long, requires = "command")]
    params_stdin: bool,
    /// Write the approved parameters to this file, as a JSON object, hidden ones in clear.
    #[arg(long, value_name = "FILE")]
    params_out: Option<PathBuf>,
    /// Write the receipt to this file.
    #[arg(long, value_name = "FILE")]
    receipt_out: Option<PathBuf>,
    /// The action.
    #[arg(value_name = "ACTION")]
    action: String,
    /// The command to run once it is approved, without a shell. `{name}` stands for a parameter, and each is in a variable:
    /// `COUNTERSIGN_PARAM_NAME`.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What was approved, and how it is used.
struct ToRun {
    command: Option<Prepared>,
    /// The command's standard input.
    input: Option<String>,
    outputs: Outputs,
    params: String,
    receipt: String,
}

impl AskCommand {
    /// Asks, and does what comes of it.
    pub async fn run(&self, environment: &Environment) -> Exit {
        match self.ask(environment).await {
            Ok(exit) => exit,
            Err(Ended { exit, why }) => {
                note!("{}: {why}", word(exit));
                exit
            }
        }
    }

    async fn ask(&self, environment: &Environment) -> Result<Exit, Ended> {
        // Before anybody is asked: what would fail after they have agreed.
        let ask = self.request(environment)?;
        let program = Program::new(&self.command, environment).map_err(Ended::usage)?;
        let outputs = Outputs::open(self.params_out.as_deref(), self.receipt_out.as_deref());
        let outputs = outputs.map_err(Ended::usage)?;
        let token_out = self.token_out.as_deref().map(Output::open).transpose().map_err(Ended::usage)?;
        if let Some(program) = &program {
            program.prepare(&ask.params).map_err(Ended::usage)?;
        }
        let client = self.connection.client(environment).await?;
        let mut signals = Signals::listen().map_err(Ended::doubt)?;
        let keys = tokio::select! {
            keys = self.connection.keys(&client) => keys?,
            signal = signals.next() => return Err(Ended::new(Exit::Cancelled, name(signal))),
        };
        if keys.as_ref().is_some_and(|keys| keys.keys.is_empty()) {
            return Err(Ended::usage("this gateway signs no receipts; `--no-receipt` does without"));
        }

        let started = Instant::now();
        let since = self.idempotency_key.is_none().then(|| SystemClock.now());
        let created = self.create(&client, &ask, &mut signals).await?;
        announce(&created, &self.action, client.url());
        if self.detach {
            say!("{}", detached(&created, token_out).map_err(Ended::doubt)?);
            return Ok(Exit::Approved);
        }
        let asked = Asked::new(&self.action, ask.params, &created, since).map_err(Ended::doubt)?;
        let decided = self.wait(&client, &created, started, &mut signals).await?;
        approved(&decided)?;
        let approval = tokio::select! {
            biased;
            checked = check(&client, &asked, &decided, keys) => checked?,
            signal = signals.next() => {
                let why = format!("by {}; the approval was not used", name(signal));
                return Err(Ended::new(Exit::Cancelled, why));
            }
        };
        let to_run = self.to_run(program.as_ref(), &asked, &approval, &decided, outputs)?;
        let consuming = signals.or_cut(consume(&client, &created, &approval)).await;
        let (consumed, signal) = consuming.map_err(|signal| {
            let name = name(signal);
            Ended::doubt(format!(
                "by {name}; whether the approval was consumed is not known; nothing was run"
            ))
        })?;
        consumed?;
        note!("approved by {}", plain(&decided.approvers.join(", ")));
        Ok(use_it(&client, &created, to_run, signal, &mut signals).await)
    }

    /// What is asked for.
    fn request(&self, environment: &Environment) -> Result<Ask, Ended> {
        let job = Job::of(environment);
        let repo = self.repo.clone().or_else(|| job.repo.clone());
        let repo = repo.ok_or_else(|| Ended::usage("say where the request comes from: `--repo REPO`"))?;
        let why = self.why.clone().or_else(|| job.why.clone());
        let why = why.ok_or_else(|| Ended::usage("say why, for people to read: `--why TEXT`"))?;
        let meta = Meta {
            origin: job.origin(repo),
            requester: self.requester.clone(),
            justification: why,
            links: job.links(),
        };
        Ok(Ask { action: self.action.clone(), params: self.parameters.read()?, meta })
    }

    /// Makes the request. If a signal comes in on it, it has to be known whether it was made before it can be cancelled.
    async fn create(&self, client: &Client, ask: &Ask, signals: &mut Signals) -> Result<Created, Ended> {
        let key = match &self.idempotency_key {
            Some(key) => key.clone(),
            None => random_key().map_err(Ended::doubt)?,
        };
        let creating = client.create(ask, &key);
        let mut creating = std::pin::pin!(creating);
        let signal = tokio::select! {
            biased;
            created = &mut creating => return created.map_err(not_asked),
            signal = signals.next() => signal,
        };
        let why = format!("by {}, while it was asked", name(signal));
        // The call may hang, so it is made once more, on another connection and under the same key.
        let known = signals.within_grace(async {
            tokio::select! {
                Ok(created) = creating => Some(created),
                Ok(created) = client.create(ask, &key) => Some(created),
                else => None,
            }
        });
        Err(match known.await.flatten() {
            Some(created) => cancel(client, &created, signals, Exit::Cancelled, &why).await,
            None => Ended::doubt(format!("{why}; {MAY_BE_OPEN}")),
        })
    }

    /// Waits for the decision.
    async fn wait(
        &self,
        client: &Client,
        created: &Created,
        started: Instant,
        signals: &mut Signals,
    ) -> Result<Waited, Ended> {
        let expires = started + Duration::from_millis(created.time_left_ms(SystemClock.now()));
        // Its end may be told late, and some time may have passed before it was made.
        let lost = expires + client.patience() + Duration::from_secs(5);
        let give_up = self.timeout.map(|timeout| started + timeout);
        let mut progress = Progress::new(created, expires);
        let mut ticks = tokio::time::interval(progress.period());
        let mut waiting = Waiting::start(client, &created.token);
        loop {
            tokio::select! {
                biased;
                signal = signals.next() => {
                    progress.line(&format!("{}: cancelling", name(signal)));
                    return Err(cancel(client, created, signals, Exit::Cancelled, &format!("by {}", name(signal))).await);
                }
                news = waiting.next() => match news {
                    Some(News::State(waited)) if waited.status.is_terminal() => {
                        progress.line(waited.status.as_str());
                        return Ok(*waited);
                    }
                    Some(News::State(waited)) => progress.state(&waited),
                    Some(News::Lost(error)) => progress.line(&format!("{error}; trying again")),
                    Some(News::Back) => progress.line("the gateway answers again"),
                    Some(News::Refused(error)) => return Err(Ended::doubt(error)),
                    None => return Err(Ended::doubt("the gateway says no more of this request")),
                },
                () = until(give_up) => {
                    let why = format!("nobody decided within {}", show(self.timeout.unwrap_or_default()));
                    return Err(cancel(client, created, signals, Exit::Expired, &why).await);
                }
                () = tokio::time::sleep_until(lost) => {
                    return Err(Ended::doubt("the request must have expired, and the gateway does not say so"));
                }
                _ = ticks.tick() => progress.tick(),
            }
        }
    }

    /// What is done once the approval is consumed. Everything that could fail for what people have changed fails here.
    fn to_run(
        &self,
        program: Option<&Program>,
        asked: &Asked,
        approval: &Approval,
        decided: &Waited,
        outputs: Outputs,
    ) -> Result<ToRun, Ended> {
        let unusable =
            |why: String| Ended::new(Exit::Unusable, format!("as it was approved it cannot be run: {why}"));
        let mut command =
            program.map(|program| program.prepare(&approval.params)).transpose().map_err(unusable)?;
        let receipt = decided.receipt.clone().unwrap_or_default();
        if let Some(command) = &mut command {
            let given = [
                ("COUNTERSIGN_REQUEST_ID", asked.request_id.to_string()),
                ("COUNTERSIGN_RECEIPT", receipt.clone()),
            ];
            command.variables.extend(given.map(|(name, value)| (name.to_owned(), value)));
        }
        let params = json(&approval.params);
        let input = self.params_stdin.then(|| params.clone());
        Ok(ToRun { command, input, outputs, params, receipt })
    }
}

/// Writes the files and runs the command, unless a signal came before, and reports what came of it.
async fn use_it(
    client: &Client,
    created: &Created,
    to_run: ToRun,
    signal: Option<Signal>,
    signals: &mut Signals,
) -> Exit {
    let ToRun { command, input, outputs, params, receipt } = to_run;
    let written = outputs.write(&params, &receipt);
    let pending = match signal {
        Some(signal) => Some(signal),
        None => signals.pending().await,
    };
    let (ran, exit) = match (written, pending, command) {
        (Err(error), ..) => (Some(Ran::not(error)), Exit::CommandFailed),
        (Ok(()), Some(signal), Some(_)) => {
            (Some(Ran::not(format!("not run: {} came first", name(signal)))), Exit::Cancelled)
        }
        (Ok(()), Some(_), None) => (None, Exit::Cancelled),
        (Ok(()), None, None) => (None, Exit::Approved),
        (Ok(()), None, Some(command)) => {
            let ran = run(command, input, signals).await;
            let exit = if ran.succeeded { Exit::Approved } else { Exit::CommandFailed };
            (Some(ran), exit)
        }
    };
    let Some(Ran { succeeded, detail }) = ran else { return exit };
    if !succeeded {
        note!("failed: {}", plain(&detail));
    }
    let result = if succeeded { RunResult::Succeeded } else { RunResult::Failed };
    let detail = cut(&detail, DETAIL - 1);
    // What was done is done: if this fails it only is not known to people.
    match signals.or_cut(client.report(&created.token, result, &detail)).await {
        Ok((Ok(()), _)) => {}
        Ok((Err(error), _)) => note!("the outcome could not be reported: {}", plain(&error.to_string())),
        Err(signal) => note!("whether the outcome was reported is not known: {} came first", name(signal)),
    }
    exit
}

/// Takes the request back, and says why.
async fn cancel(client: &Client, created: &Created, signals: &mut Signals, exit: Exit, why: &str) -> Ended {
    let reason = cut(why, 1000);
    let cancelling = client.cancel(&created.token, &reason);
    let cancelled = tokio::select! {
        cancelled = tokio::time::timeout(GRACE, cancelling) => cancelled,
        signal = signals.next() => {
            return Ended::new(exit, format!("{why}; {} came again before it was cancelled", name(signal)));
        }
    };
    match cancelled {
        Ok(Ok(())) => Ended::new(exit, why),
        Ok(Err(CallError::Refused(problem))) => {
            Ended::new(exit, format!("{why}; it had ended before ({}); nothing was run", problem.detail))
        }
        Ok(Err(error)) => Ended::new(exit, format!("{why}; it could not be cancelled: {error}")),
        Err(_) => Ended::new(exit, format!("{why}; it could not be cancelled in time")),
    }
}

/// Says what was asked, where people see it, and who can act.
fn announce(created: &Created, action: &str, url: &crate::GatewayUrl) {
    let Created { request_id, expires_at, replayed, places, undeliverable, can_act, .. } = created;
    let before = if *replayed { ", which was made before with the same idempotency key" } else { "" };
    note!("asked {url} for {}: {request_id}{before}; it expires at {expires_at}", plain(action));
    for place in places.iter().flatten() {
        let link = place.permalink.as_deref().map(|link| format!(" ({link})")).unwrap_or_default();
        note!("people see it in {}", plain(&format!("{}{link}", place.channel)));
    }
    if let Some(why) = undeliverable {
        note!("nobody sees it in Slack: {}", plain(why));
    }
    for can in can_act.iter().flatten() {
        let who = if can.who.is_empty() { "nobody who is known".to_owned() } else { can.who.join(", ") };
        let what =
            can.persona.as_ref().map_or_else(|| can.act.clone(), |persona| format!("{} {persona}", can.act));
        note!("{}", plain(&format!("can {what}: {who}")));
    }
}

/// What is printed of a request that somebody else waits for. The token is, unless it goes to a file.
fn detached(created: &Created, token_out: Option<Output>) -> Result<String, String> {
    let Created { request_id, token, status, .. } = created;
    let token = match token_out {
        Some(file) => {
            let written = file.write(&format!("{token}\n"));
            written.map_err(|why| format!("{why}; the request {request_id} stays open until it expires"))?;
            String::new()
        }
        None => format!("token   {}\n", plain(token)),
    };
    Ok(format!("request {request_id}\n{token}status  {}", status.as_str()))
}

fn json(params: &Map<String, Value>) -> String {
    canonical(&Value::Object(params.clone()))
}

/// What came of it, in a word or two.
#[must_use]
pub fn word(exit: Exit) -> &'static str {
    match exit {
        Exit::Approved => "approved",
        Exit::CommandFailed => "failed",
        Exit::Usage => "error",
        Exit::Denied => "denied",
        Exit::Expired => "expired",
        Exit::Cancelled => "cancelled",
        Exit::Refused => "refused",
        Exit::Doubt => "in doubt",
        Exit::Unusable => "not to be used",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::read_token;

    #[test]
    fn a_wait_token_is_printed_or_written_to_a_file_that_wait_takes() {
        let id = "req_01arz3ndektsv4rrffq69g5fav";
        let token = format!("{id}.c2VjcmV0");
        let created: Created = serde_json::from_value(json!({
            "requestId": id, "token": token, "status": "pending", "expiresAt": "2027-01-15T09:12:44.000Z",
            "payloadHash": "0".repeat(64), "payloadHashVersion": 2, "payloadSalt": "", "policy": {"minApprovals": 1, "timeoutSec": 600},
        }))
        .unwrap();
        assert_eq!(
            detached(&created, None).unwrap(),
            format!("request {id}\ntoken   {token}\nstatus  pending")
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let said = detached(&created, Some(Output::open(&path).unwrap())).unwrap();
        assert_eq!(said, format!("request {id}\nstatus  pending"));
        assert_eq!(read_token(&format!("@{}", path.display())).unwrap(), token);
    }
}
