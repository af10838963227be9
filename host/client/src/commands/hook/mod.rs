//! `countersign hook`: the hosts of agents ask the gateway before a tool is used.
//!
//! The hosts go on if a hook fails, so whatever happens here ends in an answer in the host's own form, and in doubt that
//! is a denial: before the host's own time is over, on a panic, and if the command line is wrong.

mod files;
mod host;
mod rules;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use clap::Args;
use countersign_console::note;
use countersign_core::clock::{Clock as _, SystemClock};
use countersign_core::duration::show;
use countersign_core::json;
use countersign_core::lifecycle::{Digest, Origin};
use rustix::process::Signal;
use serde_json::{Map, Value};
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::host::{Printed, ToolCall, Verdict, answer, deny_unknown};
use self::rules::{Decide, Fate, Rules};
use super::ask::{MAY_BE_OPEN, Signals, signal_name, word};
use super::connection::Connection;
use super::decision::{approved, check, consume, not_asked};
use super::duration::duration;
use super::exit::Ended;
use super::party::party;
use crate::answer::Waited;
use crate::api::{Ask, Client, Meta, random_key};
use crate::approval::{Approval, Asked};
use crate::environment::Environment;
use crate::text::{cut, plain};
use crate::wait::{News, Waiting};

pub use self::host::{HookEvent, Host};

/// The largest input and the largest file of rules that are read, in bytes.
const MOST_BYTES: u64 = 4 << 20;

/// How long the request may take to be cancelled when the time is over.
const CANCEL: Duration = Duration::from_secs(3);

/// What is said of a tool's call beside its input.
const TOOL: &str = "tool_name";
const FOLDER: &str = "working_directory";
const FILES: &str = "file_digests";

/// Ask the gateway before an agent uses a tool, as a hook of its host.
#[derive(Clone, Debug, Args)]
pub struct HookCommand {
    /// Who calls the hook.
    #[arg(value_enum, value_name = "HOST")]
    host: Host,
    /// The rules: which calls of tools go to the gateway as which action, and which are decided here.
    #[arg(long, value_name = "FILE")]
    rules: PathBuf,
    /// The event that the hook is for. Without it, an input that cannot be read is denied with exit code 2, which Claude Code
    /// does not take for a denial of a permission request.
    #[arg(long, value_enum, value_name = "EVENT")]
    event: Option<HookEvent>,
    /// After how long the call is denied: less than the host gives a hook, since it goes on after that.
    #[arg(long, value_name = "DURATION", default_value = "9m", value_parser = duration)]
    deadline: Duration,
    #[command(flatten)]
    connection: Connection,
}

/// What may be open, to be cancelled if the time is over.
type OpenRequest = Arc<Mutex<Option<Open>>>;

enum Open {
    /// It is being made, under this idempotency key.
    Asked(Client, Box<Ask>, String),
    /// It has this wait token.
    Made(Client, String),
}

impl HookCommand {
    /// Reads a call from the standard input, answers it, and ends the process.
    pub async fn run(self, environment: Environment) -> ! {
        let deadline = Instant::now() + self.deadline;
        let (host, expected) = (self.host, self.event);
        let open = OpenRequest::default();
        let late = format!("nobody decided within {}", show(self.deadline));
        // Before anything is waited for: a signal would end the process without an answer.
        let mut signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(error) => print(deny(host, expected, &format!("cannot listen for signals: {error}"))),
        };
        let read = tokio::select! {
            input = input() => input,
            () = tokio::time::sleep_until(deadline) => Err(late.clone()),
            signal = signals.next() => Err(by(signal)),
        };
        let (input, event) = match read {
            Ok(input) => {
                let event = HookEvent::of(&input).or(expected);
                (input, event)
            }
            Err(why) => print(deny(host, expected, &why)),
        };
        let deciding = decide(self, environment, input, Arc::clone(&open));
        let verdict = match settle(deciding, deadline, &late, &mut signals).await {
            Ok(verdict) => verdict,
            Err(why) => denied(&cancel(&open, why).await),
        };
        print(match event {
            Some(event) => answer(host, event, verdict),
            None => match verdict {
                Verdict::Deny(why) => deny_unknown(&why),
                Verdict::Allow { .. } | Verdict::Ask => deny_unknown("the event is not known"),
            },
        })
    }
}

/// Answers a hook whose command line is wrong, so that this is no way around it, and ends the process.
///
/// # Panics
/// Outside of a runtime of tokio's.
pub fn refuse(arguments: &[OsString], why: &str) -> ! {
    let (sender, receiver) = mpsc::channel();
    if let Ok(mut signals) = Signals::listen() {
        let sender = sender.clone();
        tokio::spawn(async move { sender.send(Err(by(signals.next().await))) });
    }
    std::thread::spawn(move || sender.send(read(std::io::stdin().lock())));
    let input = receiver.recv_timeout(Duration::from_secs(5)).ok().and_then(Result::ok).unwrap_or_default();
    let event = HookEvent::of(&input).or_else(|| HookEvent::in_words(arguments));
    print(deny(Host::ClaudeCode, event, why))
}

fn deny(host: Host, event: Option<HookEvent>, why: &str) -> Printed {
    let why = format!("countersign: {}", plain(why));
    event.map_or_else(|| deny_unknown(&why), |event| answer(host, event, Verdict::Deny(why.clone())))
}

/// What comes of a decision.
///
/// # Errors
/// The reason, if it is late, or breaks: then something may still be open.
async fn settle(
    deciding: impl Future<Output = Verdict> + Send + 'static,
    deadline: Instant,
    late: &str,
    signals: &mut Signals,
) -> Result<Verdict, String> {
    // In a task of its own, so that a panic there is a denial here.
    let mut deciding = tokio::spawn(deciding);
    let why = tokio::select! {
        decided = &mut deciding => match decided {
            Ok(verdict) => return Ok(verdict),
            Err(_) => "internal error in the hook".to_owned(),
        },
        () = tokio::time::sleep_until(deadline) => late.to_owned(),
        signal = signals.next() => by(signal),
    };
    deciding.abort();
    Err(why)
}

fn by(signal: Signal) -> String {
    format!("the hook was ended by {}", signal_name(signal))
}

fn denied(why: &str) -> Verdict {
    Verdict::Deny(format!("countersign: {}", cut(&plain(why), 1000)))
}

/// Takes back what may be open, and returns the reason with what is not known of that.
async fn cancel(open: &OpenRequest, why: String) -> String {
    let Some(taken) = lock(open).take() else { return why };
    let (until, reason) = (Instant::now() + CANCEL, cut(&format!("countersign: {why}"), 1000));
    let (client, token) = match taken {
        Open::Made(client, token) => (client, token),
        // Under the same key it is not made twice.
        Open::Asked(client, ask, key) => {
            match tokio::time::timeout_at(until, client.create(&ask, &key)).await {
                Ok(Ok(created)) => (client, created.token),
                _ => return format!("{why}; {MAY_BE_OPEN}"),
            }
        }
    };
    // It fails if the request has ended, or nobody answers: it is denied all the same.
    let _ = tokio::time::timeout_at(until, client.cancel(&token, &reason)).await;
    why
}

fn lock(open: &OpenRequest) -> std::sync::MutexGuard<'_, Option<Open>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn decide(
    command: HookCommand,
    environment: Environment,
    input: Vec<u8>,
    open: OpenRequest,
) -> Verdict {
    match judge(&command, &environment, &input, &open).await {
        Ok(verdict) => verdict,
        Err(Ended { exit, why }) => denied(&format!("{}: {why}", word(exit))),
    }
}

async fn judge(
    command: &HookCommand,
    environment: &Environment,
    input: &[u8],
    open: &OpenRequest,
) -> Result<Verdict, Ended> {
    let input =
        json::parse(input).map_err(|refused| Ended::usage(format!("the input cannot be read: {refused}")))?;
    let call = ToolCall::read(&input).map_err(Ended::usage)?;
    if command.event.is_some_and(|expected| expected != call.event) {
        return Err(Ended::usage("this hook is for another event"));
    }
    let rules = rules(&command.rules)?;
    let (action, params) = match rules.fate(&call.tool, &call.input) {
        Fate::Decided(Decide::Allow) => {
            return Ok(Verdict::Allow { input: None, why: "a rule allows it".to_owned() });
        }
        Fate::Decided(Decide::Ask) => return Ok(Verdict::Ask),
        Fate::Decided(Decide::Deny) => return Ok(denied("no rule allows it")),
        Fate::Gate { action, params } => (action, params),
    };
    let digests = digests(&call.input, &call.folder).await?;
    let params = parameters(&call, params, &digests)?;
    let ask =
        Ask { action: action.to_owned(), params: params.clone(), meta: meta(&rules, &call, command.host)? };
    let client = command.connection.client(environment).await?;
    let keys = command.connection.keys(&client).await?;
    let since = Some(SystemClock.now());
    let key = random_key().map_err(Ended::doubt)?;
    *lock(open) = Some(Open::Asked(client.clone(), Box::new(ask.clone()), key.clone()));
    let created = client.create(&ask, &key).await.map_err(not_asked)?;
    *lock(open) = Some(Open::Made(client.clone(), created.token.clone()));
    // Hosts show this in their logs, if anywhere.
    note!("asked for {}: {}", plain(action), created.request_id);
    let asked = Asked::new(action, params, &created, since).map_err(Ended::doubt)?;
    let decided = wait(&client, &created.token).await?;
    lock(open).take();
    approved(&decided)?;
    let approval = check(&client, &asked, &decided, keys).await?;
    let input = edited(&call, &asked, &approval)?;
    // What people have agreed to is what was in the files then. Looked at again once the gateway has answered, which it
    // may take its time for.
    let named = input.as_ref().unwrap_or(&call.input);
    unchanged(named, &call.folder, &digests).await?;
    consume(&client, &created, &approval).await?;
    unchanged(named, &call.folder, &digests).await?;
    let why = format!("approved by {}", plain(&decided.approvers.join(", ")));
    Ok(Verdict::Allow { input, why })
}

async fn wait(client: &Client, token: &str) -> Result<Waited, Ended> {
    let mut waiting = Waiting::start(client, token);
    while let Some(news) = waiting.next().await {
        match news {
            News::State(waited) if waited.status.is_terminal() => return Ok(*waited),
            News::Refused(error) => return Err(Ended::doubt(error)),
            // The deadline ends this.
            News::State(_) | News::Lost(_) | News::Back => {}
        }
    }
    Err(Ended::doubt("the gateway says no more of this request"))
}

/// Every field of the input is a parameter under its own name, so that nothing runs that was not asked for.
fn parameters(
    call: &ToolCall,
    more: &Map<String, Value>,
    digests: &BTreeMap<String, Digest>,
) -> Result<Map<String, Value>, Ended> {
    let mut params = call.input.clone();
    let files = digests.iter().map(|(path, digest)| (path.clone(), Value::from(digest.to_string())));
    let files = Value::Object(files.collect());
    let ours = [(TOOL, call.tool.as_str().into()), (FOLDER, call.folder.as_str().into()), (FILES, files)];
    let ours = ours.into_iter().map(|(key, value)| (key.to_owned(), value));
    for (key, value) in ours.chain(more.clone()) {
        if params.insert(key.clone(), value).is_some() {
            return Err(Ended::usage(format!("the parameter `{key}` would stand for two things")));
        }
    }
    Ok(params)
}

fn meta(rules: &Rules, call: &ToolCall, host: Host) -> Result<Meta, Ended> {
    let requester = rules.requester.as_deref().map(party).transpose();
    let requester = requester.map_err(|error| Ended::usage(format!("`requester` in the rules: {error}")))?;
    let name = match host {
        Host::ClaudeCode => "Claude Code",
        Host::Codex => "Codex",
    };
    let described =
        call.input.get("description").and_then(Value::as_str).filter(|text| text.trim().len() >= 3);
    let justification = match described {
        Some(text) => format!("{name}: {}", cut(text, 1900)),
        None => format!("{name} wants to use {}", call.tool),
    };
    let repo = rules.repo.clone().unwrap_or_else(|| call.folder.clone());
    let origin = Origin { repo, branch: None, pr: None, run_id: None };
    Ok(Meta { origin, requester, justification, links: Vec::new() })
}

/// The input as people have approved it, if they have changed it.
fn edited(call: &ToolCall, asked: &Asked, approval: &Approval) -> Result<Option<Map<String, Value>>, Ended> {
    let mut input = call.input.clone();
    let keys = asked.params.keys().chain(approval.params.keys());
    for key in keys {
        let (before, after) = (asked.params.get(key), approval.params.get(key));
        if before == after {
            continue;
        }
        // What stands for something else than the input cannot be handed over.
        if before.is_some() && !call.input.contains_key(key) {
            return Err(Ended::doubt(format!(
                "people have changed `{key}`, which is not the tool's to change"
            )));
        }
        match after {
            Some(value) => input.insert(key.clone(), value.clone()),
            None => input.remove(key),
        };
    }
    Ok((input != call.input).then_some(input))
}

async fn digests(input: &Map<String, Value>, folder: &str) -> Result<BTreeMap<String, Digest>, Ended> {
    let (input, folder) = (input.clone(), PathBuf::from(folder));
    let digests = tokio::task::spawn_blocking(move || files::digests(&input, &folder)).await;
    digests.map_err(Ended::doubt)?.map_err(Ended::doubt)
}

async fn unchanged(
    input: &Map<String, Value>,
    folder: &str,
    before: &BTreeMap<String, Digest>,
) -> Result<(), Ended> {
    if digests(input, folder).await? == *before {
        return Ok(());
    }
    Err(Ended::doubt("a file that the command names is another one than was approved"))
}

fn rules(path: &Path) -> Result<Rules, Ended> {
    let shown = path.display();
    let unreadable = |error: String| Ended::usage(format!("the rules `{shown}` cannot be read: {error}"));
    let file = std::fs::File::open(path).map_err(|error| unreadable(error.to_string()))?;
    let text =
        String::from_utf8(read(file).map_err(unreadable)?).map_err(|error| unreadable(error.to_string()))?;
    Rules::read(&text).map_err(|why| Ended::usage(format!("the rules `{shown}` are wrong: {why}")))
}

/// What the host sends. The thread is left behind if it sends no end.
async fn input() -> Result<Vec<u8>, String> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || sender.send(read(std::io::stdin().lock())));
    receiver.await.map_err(|_| "the input cannot be read".to_owned())?
}

fn read(input: impl std::io::Read) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    input.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MOST_BYTES {
        return Err(format!("it has more than {MOST_BYTES} bytes"));
    }
    Ok(bytes)
}

/// Prints an answer, and ends the process: what still reads a file or a socket may never end, and the host would go on
/// without the answer. If the host cannot read it, the exit code is the one that blocks most.
fn print(Printed { stdout, stderr, code }: Printed) -> ! {
    // Nobody is left to be told if this fails.
    let _ = std::io::stderr().write_all(stderr.as_bytes());
    let mut output = std::io::stdout();
    let line = if stdout.is_empty() { stdout } else { format!("{stdout}\n") };
    let written = output.write_all(line.as_bytes()).and_then(|()| output.flush());
    std::process::exit(if written.is_ok() { code.into() } else { 2 })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call() -> ToolCall {
        let input = json!({"command": "./deploy.sh", "timeout": 5}).as_object().cloned().unwrap();
        ToolCall { event: HookEvent::PreToolUse, tool: "Bash".into(), input, folder: "/srv/web".into() }
    }

    #[tokio::test]
    async fn whatever_breaks_is_a_denial() {
        let later = Instant::now() + Duration::from_secs(600);
        let mut signals = Signals::listen().unwrap();
        let broken = settle(async { panic!("broken") }, later, "late", &mut signals).await;
        assert_eq!(broken, Err("internal error in the hook".to_owned()));
        let late = settle(std::future::pending(), Instant::now(), "late", &mut signals).await;
        assert_eq!(late, Err("late".to_owned()));
        assert_eq!(settle(async { Verdict::Ask }, later, "late", &mut signals).await, Ok(Verdict::Ask));
    }

    #[test]
    fn all_of_the_input_is_asked_for() {
        let digests = BTreeMap::from([("./deploy.sh".to_owned(), Digest::of(b""))]);
        let more = json!({"environment": "production"}).as_object().cloned().unwrap();
        let params = parameters(&call(), &more, &digests).unwrap();
        assert_eq!(
            Value::Object(params),
            json!({
                "command": "./deploy.sh", "timeout": 5, "environment": "production",
                "tool_name": "Bash", "working_directory": "/srv/web",
                "file_digests": {"./deploy.sh": Digest::of(b"").to_string()},
            })
        );
        for key in ["command", TOOL, FILES] {
            let more = Map::from_iter([(key.to_owned(), Value::Null)]);
            assert!(parameters(&call(), &more, &digests).unwrap_err().why.contains(key));
        }
    }
}
