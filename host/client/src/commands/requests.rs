//! `countersign requests`: an admin's day's work with requests, on a gateway that runs somewhere.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use countersign_console::{note, say, say_text};
use countersign_core::clock::{Clock as _, SystemClock};
use countersign_core::lifecycle::{RequestId, Timestamp};
use countersign_core::secret::Secret;
use serde_json::{Value, json};

use super::connection::Address;
use super::duration::duration;
use super::exit::{Ended, Exit};
use crate::api::Client;
use crate::credentials::Credentials;
use crate::environment::Environment;
use crate::error::CallError;
use crate::text::{cut, json_line, plain, pretty};

/// The largest page that a gateway gives.
const PAGE: usize = 500;

/// The widest cell of a table, in characters.
const WIDEST: usize = 40;

pub(super) const CREDENTIALS: &str = "\
Variables with secrets, of which the first that is set counts:
  ADMIN_TOKEN                the gateway's own
  COUNTERSIGN_API_KEY        the API key of an admin of the access file
  COUNTERSIGN_ID_TOKEN       a token of an identity provider
  COUNTERSIGN_ID_TOKEN_FILE  a file with such a token

Exit codes:
  0  done
  2  wrong arguments
  6  the gateway refuses: no such request, it has ended already, or the role is missing
  7  the gateway gives no usable answer";

/// List, show and end requests, as an admin of a gateway.
#[derive(Debug, Args)]
pub struct RequestsCommand {
    #[command(subcommand)]
    act: Act,
}

/// What is done.
#[derive(Debug, Subcommand)]
enum Act {
    /// List requests: the open ones, unless `--status` says otherwise.
    #[command(after_long_help = CREDENTIALS)]
    List(List),
    /// Show a request: what was asked, what has happened, what is missing, who can still act and why others cannot.
    #[command(after_long_help = CREDENTIALS)]
    Show(One),
    /// Cancel an open request, as its caller could.
    #[command(after_long_help = CREDENTIALS)]
    Cancel(End),
    /// Have an open request expire now, as if nobody had decided in time.
    #[command(after_long_help = CREDENTIALS)]
    Expire(End),
    /// Have the Slack messages of an open request delivered again, now. It never leads to a second message.
    #[command(after_long_help = CREDENTIALS)]
    Resend(One),
    /// Print each change of the requests that are open, until it is stopped.
    #[command(after_long_help = CREDENTIALS)]
    Watch(Watch),
}

/// Which gateway is called.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Gateway")]
pub(super) struct Gateway {
    #[command(flatten)]
    address: Address,
    /// For how long a gateway that gives no usable answer is tried again.
    #[arg(long, value_name = "COUNTERSIGN_PATIENCE", default_value = "10s", value_parser = duration)]
    patience: Duration,
}

/// Which requests are meant.
#[derive(Debug, Args)]
struct Filter {
    /// Only requests for this action.
    #[arg(long, value_name = "NAME")]
    action: Option<String>,
    /// Only requests of this caller of the access file.
    #[arg(long, value_name = "NAME")]
    caller: Option<String>,
    /// Only requests of this requester.
    #[arg(long, value_name = "ID")]
    requester: Option<String>,
    /// Only requests that are at least so old, such as `30m`.
    #[arg(long, value_name = "AGE", value_parser = duration)]
    older_than: Option<Duration>,
}

/// Which requests are listed, and how.
#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    gateway: Gateway,
    #[command(flatten)]
    filter: Filter,
    /// Only requests with this status, such as `ready_for_approval`; or `open`, `ended` or `any`.
    #[arg(long, value_name = "STATUS", default_value = "open")]
    status: String,
    /// How many at most.
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    limit: usize,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Which request is meant.
#[derive(Debug, Args)]
struct One {
    #[command(flatten)]
    gateway: Gateway,
    /// The request.
    #[arg(value_name = "ID")]
    request: RequestId,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Which request ends, and why.
#[derive(Debug, Args)]
struct End {
    #[command(flatten)]
    one: One,
    /// Why, for people, the caller and the audit log.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Which requests are watched.
#[derive(Debug, Args)]
struct Watch {
    #[command(flatten)]
    gateway: Gateway,
    #[command(flatten)]
    filter: Filter,
    /// How often the gateway is asked.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    every: Duration,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// How something is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// The gateway's own answer; of `watch`, one line for each change.
    Json,
}

impl RequestsCommand {
    /// Does it.
    pub async fn run(&self, environment: &Environment) -> ExitCode {
        let done = match &self.act {
            Act::List(list) => list.run(environment).await,
            Act::Show(one) => one.show(environment).await,
            Act::Cancel(end) => end.run(environment, "cancel").await,
            Act::Expire(end) => end.run(environment, "expire").await,
            Act::Resend(one) => one.act(environment, "resend", &json!({})).await,
            Act::Watch(watch) => watch.run(environment).await,
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(Ended { exit, why }) => {
                note!("error: {why}");
                exit.into()
            }
        }
    }
}

impl Gateway {
    pub(super) async fn client(&self, environment: &Environment) -> Result<Client, Ended> {
        let credentials = match environment.get("ADMIN_TOKEN") {
            Some(token) => Credentials::Bearer(Secret::new(token)),
            None => Credentials::find(environment, &self.address.audience),
        };
        self.address.client(credentials, None, self.patience, environment).await
    }
}

pub(super) fn failed(error: CallError) -> Ended {
    match &error {
        // The callers' address has no routes for admins if there is one for operations.
        CallError::Refused(problem) if problem.is_no_such_path() => {
            Ended::new(Exit::Refused, NO_ADMIN_ROUTES)
        }
        CallError::Refused(_) => Ended::new(Exit::Refused, error),
        _ => Ended::new(Exit::Doubt, error),
    }
}

const NO_ADMIN_ROUTES: &str = "there are no routes for admins at this address: they are at the gateway's \
                               `COUNTERSIGN_OPS_LISTEN`, or the gateway has no admins";

impl Filter {
    /// The path that lists them, up to `limit` of them after `cursor`.
    fn path(&self, status: &str, limit: usize, cursor: Option<&str>) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("status", status).append_pair("limit", &limit.min(PAGE).to_string());
        for (name, value) in
            [("action", &self.action), ("caller", &self.caller), ("requester", &self.requester)]
        {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        if let Some(age) = self.older_than {
            query.append_pair("olderThan", &age.as_secs().to_string());
        }
        if let Some(cursor) = cursor {
            query.append_pair("cursor", cursor);
        }
        format!("/api/admin/requests?{}", query.finish())
    }

    /// Up to `limit` of them.
    async fn all(&self, client: &Client, status: &str, limit: usize) -> Result<Listed, Ended> {
        let mut listed = Listed::default();
        let mut cursor = None::<String>;
        while listed.requests.len() < limit {
            let path = self.path(status, limit - listed.requests.len(), cursor.as_deref());
            let mut page = client.read(&path).await.map_err(failed)?;
            match page.get_mut("requests").map(Value::take) {
                Some(Value::Array(found)) => listed.requests.extend(found),
                _ => return Err(Ended::doubt("this is not the answer of a gateway: it lists no requests")),
            }
            if let Some(Value::Array(ids)) = page.get("unreadable") {
                listed.unreadable.extend(ids.iter().filter_map(Value::as_str).map(str::to_owned));
            }
            cursor = page.get("next").and_then(Value::as_str).map(str::to_owned);
            if cursor.is_none() {
                return Ok(listed);
            }
        }
        Ok(Listed { has_more: true, ..listed })
    }
}

/// What a gateway lists.
#[derive(Default)]
struct Listed {
    requests: Vec<Value>,
    /// The ids of those that are stored and cannot be read.
    unreadable: Vec<String>,
    has_more: bool,
}

impl List {
    async fn run(&self, environment: &Environment) -> Result<(), Ended> {
        let client = self.gateway.client(environment).await?;
        let listed = self.filter.all(&client, &self.status, self.limit).await?;
        let Listed { requests, unreadable, has_more } = listed;
        if self.format == Format::Json {
            say!("{}", pretty(&requests.into()));
        } else {
            let now = SystemClock.now();
            print_table(&HEADER, requests.iter().map(|request| summary(request, now)).collect());
        }
        for id in unreadable {
            note!("warning: the request {} is stored and cannot be read", id.escape_debug());
        }
        if has_more {
            note!("there are more; raise `--limit`");
        }
        Ok(())
    }
}

impl One {
    async fn show(&self, environment: &Environment) -> Result<(), Ended> {
        let client = self.gateway.client(environment).await?;
        let path = format!("/api/admin/requests/{}", self.request);
        self.print(&client.read(&path).await.map_err(failed)?);
        Ok(())
    }

    async fn act(&self, environment: &Environment, act: &str, body: &Value) -> Result<(), Ended> {
        let client = self.gateway.client(environment).await?;
        let path = format!("/api/admin/requests/{}/{act}", self.request);
        self.print(&client.act(&path, body).await.map_err(failed)?);
        Ok(())
    }

    fn print(&self, request: &Value) {
        match self.format {
            Format::Json => say!("{}", pretty(request)),
            Format::Table => say_text(format_args!("{}", details(request, SystemClock.now()))),
        }
    }
}

impl End {
    async fn run(&self, environment: &Environment, act: &str) -> Result<(), Ended> {
        self.one.act(environment, act, &json!({"reason": self.reason})).await
    }
}

impl Watch {
    async fn run(&self, environment: &Environment) -> Result<(), Ended> {
        let client = self.gateway.client(environment).await?;
        let mut known: BTreeMap<String, Value> = BTreeMap::new();
        loop {
            let Listed { requests, .. } = self.filter.all(&client, "open", usize::MAX).await?;
            let open: BTreeMap<String, Value> =
                requests.into_iter().map(|request| (text(&request, "/requestId"), request)).collect();
            for (id, request) in &open {
                let is_news = known.get(id).is_none_or(|before| {
                    ["/status", "/approvers", "/personaState"]
                        .iter()
                        .any(|path| before.pointer(path) != request.pointer(path))
                });
                if is_news {
                    self.print(request);
                }
            }
            for id in known.keys().filter(|id| !open.contains_key(*id)) {
                let request = client.read(&format!("/api/admin/requests/{id}")).await.map_err(failed)?;
                // A filter by age aside, one that is not listed any more has ended; or it moved while it was listed.
                self.print(&request);
            }
            known = open;
            tokio::time::sleep(self.every).await;
        }
    }

    fn print(&self, request: &Value) {
        match self.format {
            Format::Json => say!("{}", json_line(request)),
            Format::Table => {
                say!("{}  {}", SystemClock.now(), summary(request, SystemClock.now()).join("  "));
            }
        }
    }
}

const HEADER: [&str; 8] = ["ID", "ACTION", "STATUS", "AGE", "LEFT", "REQUESTER", "WHERE", "WAITS FOR"];

/// A request as a row of [`HEADER`].
fn summary(request: &Value, now: Timestamp) -> Vec<String> {
    let time = |path: &str| text(request, path).parse::<Timestamp>().ok();
    let is_open = request.pointer("/decidedAt").is_none_or(Value::is_null);
    let age = time("/createdAt").map(|at| span(now.since(at)));
    let left = time("/expiresAt").filter(|_| is_open).map(|at| span(at.since(now)));
    let row = [
        text(request, "/requestId"),
        text(request, "/action"),
        text(request, "/status"),
        age.unwrap_or_default(),
        left.unwrap_or_else(|| "-".to_owned()),
        text(request, "/requester/id"),
        text(request, "/origin/repo"),
        list(request, "/waitsFor").iter().map(missing).collect::<Vec<_>>().join("; "),
    ];
    row.map(|cell| cut(&plain(&cell), WIDEST)).to_vec()
}

/// Something that is missing.
fn missing(wanted: &Value) -> String {
    let (have, need) = (text(wanted, "/have"), text(wanted, "/need"));
    match text(wanted, "/kind").as_str() {
        "time" => text(wanted, "/label"),
        kind => format!("{kind} {} ({have} of {need})", text(wanted, "/label")),
    }
}

/// All of a request, a line for each thing.
fn details(request: &Value, now: Timestamp) -> String {
    let mut lines: Vec<(&str, String)> = Vec::new();
    for (name, cell) in HEADER.iter().zip(summary(request, now)).take(5) {
        lines.push((name, cell));
    }
    for (name, path) in [
        ("CALLER", "/caller"),
        ("REQUESTER", "/requester/id"),
        ("REPOSITORY", "/origin/repo"),
        ("BRANCH", "/origin/branch"),
        ("WHY", "/justification"),
        ("EXPIRES", "/expiresAt"),
        ("ENDED", "/decidedAt"),
        ("BY ADMIN", "/endedByAdmin"),
        ("REASON", "/reason"),
        ("NOT TOLD", "/undeliverable"),
        ("SUCCESSOR", "/successor/requestId"),
        ("TRACE", "/traceId"),
    ] {
        lines.push((name, text(request, path)));
    }
    if let Some(Value::Object(params)) = request.get("params") {
        lines.extend(params.iter().map(|(key, value)| ("PARAMETER", format!("{key} = {}", shown(value)))));
    }
    lines.extend(
        list(request, "/links")
            .iter()
            .map(|link| ("LINK", format!("{}: {}", text(link, "/label"), text(link, "/url")))),
    );
    lines.extend(list(request, "/history").iter().map(|event| {
        let said = [text(event, "/by"), text(event, "/persona"), text(event, "/reason")];
        let said: Vec<String> = said.into_iter().filter(|it| !it.is_empty()).collect();
        ("HAPPENED", format!("{} {} {}", text(event, "/at"), text(event, "/act"), said.join(", ")))
    }));
    lines.extend(list(request, "/waitsFor").iter().map(|wanted| {
        let who: Vec<String> = list(wanted, "/eligible").iter().map(shown).collect();
        ("WAITS FOR", format!("{}: {}", missing(wanted), who.join(", ")))
    }));
    for person in list(request, "/people/tried") {
        for tried in list(person, "/acts") {
            let act = [text(tried, "/act"), text(tried, "/persona")].join(" ");
            let (id, act) = (text(person, "/id"), act.trim());
            lines.push(match tried.get("counts").and_then(Value::as_bool) {
                Some(true) => ("CAN ACT", format!("{id} can {act}: {}", text(tried, "/leadsTo"))),
                _ => ("CANNOT", format!("{id} cannot {act}: {}", text(tried, "/why"))),
            });
        }
    }
    match text(request, "/people/untried").as_str() {
        "" | "0" => {}
        more => lines.push(("NOT TRIED", format!("{more} more people"))),
    }
    lines.extend(
        list(request, "/people/unknownGroups")
            .iter()
            .map(|group| ("NOT KNOWN", format!("who is in the user group {}", shown(group)))),
    );
    lines.push(("NOT TRIED", text(request, "/people/failed")));
    lines.extend(
        list(request, "/where")
            .iter()
            .map(|place| ("SHOWN IN", format!("{} {}", text(place, "/channel"), text(place, "/permalink")))),
    );
    lines.extend(list(request, "/messages").iter().map(|message| {
        let failed = match text(message, "/failed") {
            code if code.is_empty() => String::new(),
            code => format!(", refused by Slack: {code}"),
        };
        let is_current = message.get("isCurrent").and_then(Value::as_bool) == Some(true);
        let age = if is_current { "" } else { ", not up to date" };
        ("MESSAGE", format!("{} {}{age}{failed}", text(message, "/slot"), text(message, "/state")))
    }));
    let lines = lines.iter().filter(|(_, value)| !value.trim().is_empty());
    lines.map(|(name, value)| format!("{name:<10}  {}\n", plain(value).trim_end())).collect()
}

/// What is at `path`: a text as it is, other values as JSON; empty if there is nothing.
pub(super) fn text(value: &Value, path: &str) -> String {
    value.pointer(path).map(shown).unwrap_or_default()
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub(super) fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    value.pointer(path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// A time span in its two largest units.
fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

pub(super) fn print_table(header: &[&str], rows: Vec<Vec<String>>) {
    say_text(format_args!("{}", table(header, &rows)));
}

/// Columns as wide as their widest cell.
fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = header.iter().map(|name| (*name).to_owned()).collect();
    let all = || std::iter::once(&header).chain(rows);
    let widths: Vec<usize> = (0..header.len())
        .map(|at| all().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    all().map(line).collect()
}

#[cfg(test)]
mod tests {
    use countersign_core::text::is_invisible;

    use super::*;
    use crate::error::Problem;

    /// Both are 404 `not_found`, and what helps is another thing.
    #[test]
    fn an_address_without_routes_for_admins_is_told_from_a_request_that_is_not_there() {
        for (detail, expected) in [
            (Problem::NO_SUCH_PATH, "they are at the gateway's `COUNTERSIGN_OPS_LISTEN`"),
            ("there is no such request", "not_found: there is no such request"),
        ] {
            let problem = json!({"status": 404, "error": "not_found", "detail": detail});
            let Ended { exit, why } = failed(CallError::Refused(serde_json::from_value(problem).unwrap()));
            assert!(exit == Exit::Refused && why.contains(expected), "{why}");
        }
    }

    #[test]
    fn a_time_span_has_two_units() {
        for (ms, expected) in
            [(0, "0s"), (59_999, "59s"), (61_000, "1m1s"), (3_600_000, "1h0m"), (90_000_000, "1d1h")]
        {
            assert_eq!(span(ms), expected);
        }
    }

    /// Whatever somebody else wrote, a row is one line, and does nothing to a terminal.
    #[test]
    fn a_request_is_one_line_without_control_characters() {
        let request = json!({
            "requestId": "req_1",
            "action": "deploy\u{1b}[2J\nfake\u{2028}\u{202e}row",
            "status": "ready_for_approval",
            "createdAt": "1970-01-01T00:00:00.000Z",
            "expiresAt": "1970-01-01T00:10:00.000Z",
            "decidedAt": null,
            "requester": {"id": "U0\u{9b}REQ"},
            "origin": {"repo": "acme/web"},
            "waitsFor": [{"kind": "approval", "label": "quorum", "have": 1, "need": 2}],
        });
        let rows = [summary(&request, Timestamp::from_millis(61_000))];
        let text = table(&HEADER, &rows);
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.chars().all(|letter| letter == '\n' || !is_invisible(letter)), "{text:?}");
        assert!(text.contains("1m1s") && text.contains("8m59s"), "{text}");
        assert!(text.contains("approval quorum (1 of 2)"), "{text}");
        let all = details(&request, Timestamp::from_millis(61_000));
        assert!(all.chars().all(|letter| letter == '\n' || !is_invisible(letter)), "{all:?}");
    }
}
