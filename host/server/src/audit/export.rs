//! `countersign audit export`: streams entries, in memory that does not grow with the log.

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use countersign_console::{Progress, note};
use countersign_core::lifecycle::{AuditEntry, AuditEvent, Digest, RequestId, Status, Timestamp};
use countersign_store::{AuditCursor, AuditRange, LogEntry};
use serde::Deserialize;
use serde::de::IntoDeserializer as _;
use serde_json::Value;

use super::line::{self, Footer, Header, VERSION};
use super::{AuditFilter, Place};
use crate::hashing::Hashing;

/// Which entries are written, and how.
#[derive(Debug, Args)]
pub struct Export {
    #[command(flatten)]
    pub(super) place: Place,
    /// Only entries from this time on, in RFC 3339.
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Only entries before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// Only entries about this action.
    #[arg(long, value_name = "NAME")]
    action: Option<String>,
    /// Only entries with this event, such as `approved`.
    #[arg(long, value_name = "NAME", value_parser = AuditFilter::event)]
    event: Option<AuditEvent>,
    /// Only entries after which the request had this status.
    #[arg(long, value_name = "STATUS", value_parser = status)]
    status: Option<Status>,
    /// Only entries about this request.
    #[arg(long, value_name = "ID")]
    request: Option<RequestId>,
    /// Only acts of this person or caller.
    #[arg(long, value_name = "ID")]
    actor: Option<String>,
    /// The form. Only NDJSON without a filter can be verified.
    #[arg(long, value_enum, default_value_t = Format::Ndjson)]
    format: Format,
}

/// The form of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// JSON, a line for each entry, with a header and a footer.
    Ndjson,
    /// Values separated by commas, for spreadsheets; with a line that says that it is complete.
    Csv,
}

/// A status by its name.
pub(crate) fn status(name: &str) -> Result<Status, serde::de::value::Error> {
    Status::deserialize(name.into_deserializer())
}

impl Export {
    pub(super) async fn run(&self) -> anyhow::Result<ExitCode> {
        let out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
        match self.write(out).await {
            Err(error) if is_closed(&error) => Ok(ExitCode::from(countersign_console::CLOSED)),
            written => written.map(|()| ExitCode::SUCCESS),
        }
    }

    async fn write(&self, out: impl Write) -> anyhow::Result<()> {
        let filter = self.filter();
        let source = self.place.open().await?;
        // Before the entries: they are at least those that it covers.
        let checkpoint = source.checkpoint().await?.map(|kept| kept.note);
        let mut out = Hashing::new(out);
        let whole = filter.takes_all();
        let range = if whole { AuditRange::default() } else { filter.range(false) };
        match self.format {
            Format::Ndjson => write_json(&mut out, &Header { audit_export: VERSION, whole })?,
            Format::Csv => writeln!(out, "{}", COLUMNS.join(","))?,
        }
        // Entries that are printed on a terminal are progress enough.
        let progress = (!io::stdout().is_terminal()).then(|| Progress::start("exporting entries"));
        let mut position = match &progress {
            Some(progress) => Some(source.position(progress, whole).await?),
            None => None,
        };
        let (mut after, mut entries, mut text) = (AuditCursor::default(), 0_u64, Vec::new());
        loop {
            let page = source.page(range, &after).await?;
            for stored in &page.entries {
                position.iter_mut().for_each(|position| position.read(stored.partition, stored.number));
                if self.append(stored, &filter, &mut text)? {
                    entries += 1;
                }
            }
            out.write_all(&text)?;
            text.clear();
            after = page.next;
            if page.is_last {
                break;
            }
        }
        if entries == 0 && !whole {
            // What never was cannot be told from what is not found.
            note!("no entry is what was asked for");
        }
        let sha256 = out.digest();
        match self.format {
            Format::Ndjson => write_json(&mut out, &Footer { entries, sha256, checkpoint })?,
            Format::Csv => writeln!(out, "# complete: {entries} entries with SHA-256 {sha256}")?,
        }
        Ok(out.flush()?)
    }

    /// Writes an entry if it is asked for.
    fn append(&self, stored: &LogEntry, filter: &AuditFilter, text: &mut Vec<u8>) -> anyhow::Result<bool> {
        if self.format == Format::Ndjson && filter.takes_all() {
            // Also one that cannot be read any more: verifying names it.
            line::write(stored, text);
            return Ok(true);
        }
        let entry = stored.entry()?;
        if !filter.takes(&entry) {
            return Ok(false);
        }
        match self.format {
            Format::Ndjson => line::write(stored, text),
            Format::Csv => csv(stored, entry, text),
        }
        Ok(true)
    }

    fn filter(&self) -> AuditFilter {
        AuditFilter {
            since: self.since,
            until: self.until,
            action: self.action.clone(),
            event: self.event,
            status: self.status,
            request: self.request,
            actor: self.actor.clone(),
        }
    }
}

/// Whoever read the output has closed it.
fn is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn write_json(out: &mut impl Write, value: &impl serde::Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string(value).context("it is no JSON")?;
    Ok(writeln!(out, "{text}")?)
}

const COLUMNS: [&str; 12] = [
    "partition",
    "number",
    "at",
    "event",
    "action",
    "request",
    "status",
    "actor",
    "policy_hash",
    "payload_hash",
    "detail",
    "sha256",
];

fn csv(stored: &LogEntry, entry: AuditEntry, text: &mut Vec<u8>) {
    let hash = |digest: Option<Digest>| digest.map(|it| it.to_string()).unwrap_or_default();
    let cells = [
        stored.partition.to_string(),
        stored.number.to_string(),
        entry.at.to_string(),
        entry.event,
        entry.action,
        entry.request.map(|it| it.to_string()).unwrap_or_default(),
        entry.status.map(|it| it.as_str().to_owned()).unwrap_or_default(),
        entry.actor.unwrap_or_default(),
        hash(entry.policy_hash),
        hash(entry.payload_hash),
        Value::Object(entry.detail).to_string(),
        stored.digest.to_string(),
    ];
    let cells: Vec<String> = cells.iter().map(|cell| csv_cell(cell)).collect();
    text.extend(cells.join(",").as_bytes());
    text.push(b'\n');
}

/// A cell (RFC 4180). One that a spreadsheet would take for a formula begins with an apostrophe, since callers choose what
/// some of them hold; whoever needs the exact values takes NDJSON.
fn csv_cell(value: &str) -> String {
    let is_formula = value.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠', '\t', '\r', '\n']);
    let value = if is_formula { format!("'{value}") } else { value.to_owned() };
    if value.contains([',', '"', '\n', '\r']) { format!("\"{}\"", value.replace('"', "\"\"")) } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_no_formula() {
        for (value, expected) in [
            ("plain", "plain"),
            ("", ""),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("=HYPERLINK(\"http://x\")", "\"'=HYPERLINK(\"\"http://x\"\")\""),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("-1", "'-1"),
            ("+1", "'+1"),
            ("＝1+1", "'＝1+1"),
            ("＠SUM(A1)", "'＠SUM(A1)"),
            ("\n=1", "\"'\n=1\""),
            ("\tx", "'\tx"),
            ("two\nlines", "\"two\nlines\""),
        ] {
            assert_eq!(csv_cell(value), expected, "{value}");
        }
    }
}
