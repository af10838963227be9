//! `countersign audit verify`: whether a log is what was written, and if not, what of it is not.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use countersign_console::{Progress, note, say};
use countersign_core::audit::checkpoint::Checkpoint;
use countersign_core::audit::note::NoteKey;
use countersign_core::audit::verify::{Columns, Finding, Report, Stored, Verifier};
use countersign_core::lifecycle::{Digest, Hasher, Timestamp};
use countersign_gateway::audit::verify;
use countersign_store::{AuditCursor, AuditRange, StoreError};
use serde_json::json;

use super::Place;
use super::line::{self, Footer, Header, Line, VERSION};

/// What the exit codes mean.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  the log is what was written, as far as the checkpoints cover it
  1  it is not: entries are altered, missing or out of order, or a checkpoint was changed
  2  it could not be checked: there is no checkpoint, none covers anything yet or one is of another log, no key, or a file
     or an argument is wrong
  3  what is there is what was written, and entries were removed before it by retention, as others of them say

Without `--key` the keys are those of `COUNTERSIGN_SECRET`, or of the key file beside an embedded store; so whoever
can read that file could have signed. To check what others hand over, keep what `countersign audit key` prints, and the
checkpoints, where they cannot change them.";

/// The longest file of checkpoints that is read, in bytes.
const MOST_CHECKPOINTS: u64 = 1 << 30;

/// The longest line of an export that is read, in bytes.
const MOST_LINE: u64 = 64 << 20;

/// Which log, and what it is compared with.
#[derive(Debug, Args)]
pub struct Verify {
    #[command(flatten)]
    pub(super) place: Place,
    /// Check an exported log in place of a store.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Checkpoints that were kept elsewhere, as many as there are in the file. The newest one of the store, or of the
    /// export, is taken too.
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// The name of a log that was ended by `countersign audit accept-loss`: its checkpoints are not compared. Without it a
    /// checkpoint of another log is an error.
    #[arg(long, value_name = "NAME")]
    ended_log: Vec<String>,
    /// A public key, as `countersign audit key` prints it, or a file of them.
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
    /// For people, or one JSON object.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// How the result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Why a log cannot be, or is not, what was written.
enum Wrong {
    /// It could not be checked.
    Unchecked(anyhow::Error),
    /// It is not what was written, in a way that no entry can be named for.
    NotWritten(String),
}

impl From<anyhow::Error> for Wrong {
    fn from(error: anyhow::Error) -> Wrong {
        Wrong::Unchecked(error)
    }
}

impl From<StoreError> for Wrong {
    fn from(error: StoreError) -> Wrong {
        match error {
            // A gateway writes nothing that it cannot read.
            StoreError::Corrupt { .. } => Wrong::NotWritten(format!("altered: {error}")),
            error => Wrong::Unchecked(error.into()),
        }
    }
}

impl Verify {
    pub(super) async fn run(&self) -> anyhow::Result<ExitCode> {
        let progress = Progress::start("verifying entries");
        let checked = match &self.file {
            Some(file) => self.check_file(file, &progress),
            None => self.check_store(&progress).await,
        };
        drop(progress);
        match checked {
            Ok((report, checkpoints)) => Ok(match self.format {
                Format::Text => show(&report, &checkpoints),
                Format::Json => show_json(&report, &checkpoints),
            }),
            Err(Wrong::NotWritten(finding)) => {
                match self.format {
                    Format::Text => say!("{finding}\n\nThe log is NOT what was written."),
                    Format::Json => say!("{}", json!({"result": RESULTS[1], "findings": [finding]})),
                }
                Ok(ExitCode::from(1))
            }
            Err(Wrong::Unchecked(error)) => Err(error),
        }
    }

    async fn check_store(&self, progress: &Progress) -> Result<(Report, Vec<Checkpoint>), Wrong> {
        let source = self.place.open().await?;
        // Before the entries: they are at least those that it covers.
        let own = source.checkpoint().await?.map(|kept| kept.note);
        let checkpoints = self.checkpoints(own.as_deref(), "the store")?;
        let mut verifier = Verifier::new(&checkpoints);
        let mut position = source.position(progress, true).await?;
        let mut after = AuditCursor::default();
        loop {
            let page = source.page(AuditRange::default(), &after).await?;
            for entry in &page.entries {
                position.read(entry.partition, entry.number);
                let columns = entry.columns.as_ref();
                verifier.read(Stored {
                    partition: entry.partition,
                    number: entry.number,
                    digest: entry.digest,
                    body: &entry.body,
                    columns: columns.map(|it| Columns { at: it.at, request: it.request.as_deref() }),
                });
            }
            after = page.next;
            if page.is_last {
                return Ok((verifier.finish(), checkpoints));
            }
        }
    }

    fn check_file(&self, path: &Path, progress: &Progress) -> Result<(Report, Vec<Checkpoint>), Wrong> {
        // The checkpoint comes after the entries, and is needed before them.
        progress.next("reading the export");
        let export = read_export(path, |_| progress.one_more())?;
        let checkpoints = self.checkpoints(export.footer.checkpoint.as_deref(), "the export")?;
        let mut verifier = Verifier::new(&checkpoints);
        progress.next("verifying entries");
        progress.total(export.found.0);
        let again = read_export(path, |Line { partition, number, digest, body }| {
            progress.one_more();
            verifier.read(Stored { partition, number, digest, body, columns: None });
        })?;
        if again.found != export.found {
            return Err(anyhow::anyhow!("`{}` changes while it is read", path.display()).into());
        }
        let report = verifier.finish();
        let Footer { entries, sha256, .. } = export.footer;
        if report.findings.is_empty() && (entries, sha256) != export.found {
            // Nothing that a checkpoint covers.
            let (found, digest) = export.found;
            return Err(Wrong::NotWritten(format!(
                "altered: the export had {entries} entries with SHA-256 {sha256}, and has {found} with {digest}"
            )));
        }
        Ok((report, checkpoints))
    }

    /// The checkpoints that were given, and the newest one of the log itself.
    fn checkpoints(&self, own: Option<&str>, whose: &str) -> Result<Vec<Checkpoint>, Wrong> {
        let mut notes: Vec<(String, String)> = Vec::new();
        for path in &self.checkpoint {
            let name = path.display().to_string();
            let text = read_text(path)?;
            let found = split_notes(&text);
            ensure_some(&found, &name)?;
            notes.extend(found.into_iter().map(|note| (name.clone(), note)));
        }
        notes.extend(own.map(|note| (whose.to_owned(), note.to_owned())));
        if notes.is_empty() {
            return Err(anyhow::anyhow!(
                "there is no checkpoint, so nothing shows that the log is what was written: a gateway signs one when it \
                 starts, and one that was kept elsewhere is given as `--checkpoint`"
            )
            .into());
        }
        let given = self.keys()?;
        let mut checkpoints: Vec<Checkpoint> = Vec::new();
        for (from, note) in &notes {
            let origin = note.lines().next().unwrap_or_default();
            let public = if given.is_empty() { self.place.public(origin)? } else { given.clone() };
            if public.is_empty() {
                return Err(anyhow::anyhow!(
                    "no key is at hand: give the one that `countersign audit key` prints as `--key`"
                )
                .into());
            }
            let checkpoint = verify(note, &public).map_err(|error| match error {
                countersign_gateway::audit::CheckpointError::UnknownKey => {
                    Wrong::Unchecked(anyhow::anyhow!("a checkpoint of {from}: {error}"))
                }
                error => Wrong::NotWritten(format!("altered: a checkpoint of {from}: {error}")),
            })?;
            checkpoints.push(checkpoint);
        }
        // That of the log itself, or else the one that was made last.
        let origin = checkpoints.last().map(|checkpoint| checkpoint.origin.clone()).unwrap_or_default();
        for (other, count) in others(&checkpoints, &origin) {
            if !self.ended_log.iter().any(|ended| ended == other) {
                return Err(anyhow::anyhow!(
                    "{count} checkpoints are of another log, `{other}`, and this is `{origin}`: a log that was ended by \
                     `countersign audit accept-loss` is named with `--ended-log {other}`"
                )
                .into());
            }
            note!("checkpoints of another log, which are not compared: {count} of `{other}`");
        }
        checkpoints.retain(|checkpoint| checkpoint.origin == origin);
        Ok(checkpoints)
    }

    /// The keys that were given.
    fn keys(&self) -> anyhow::Result<Vec<NoteKey>> {
        let mut keys = Vec::new();
        for given in &self.key {
            match given.parse() {
                Ok(key) => keys.push(key),
                Err(error) => {
                    let path = Path::new(given);
                    ensure!(path.exists(), "`{given}`: {error}, and no file of them either");
                    let text = read_text(path)?;
                    // Without this, keys that nobody gave would count.
                    ensure!(!text.trim().is_empty(), "there is no key in `{given}`");
                    for line in text.lines().filter(|line| !line.trim().is_empty()) {
                        keys.push(line.parse().with_context(|| format!("in `{given}`"))?);
                    }
                }
            }
        }
        Ok(keys)
    }
}

/// How many checkpoints there are of logs with other names.
fn others<'a>(checkpoints: &'a [Checkpoint], origin: &str) -> BTreeMap<&'a str, usize> {
    let mut others = BTreeMap::new();
    for checkpoint in checkpoints.iter().filter(|checkpoint| checkpoint.origin != origin) {
        *others.entry(checkpoint.origin.as_str()).or_default() += 1;
    }
    others
}

fn ensure_some(notes: &[String], name: &str) -> anyhow::Result<()> {
    ensure!(!notes.is_empty(), "there is no checkpoint in `{name}`");
    Ok(())
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    let named = || format!("cannot read `{}`", path.display());
    let mut text = String::new();
    let file = File::open(path).with_context(named)?;
    let read = file.take(MOST_CHECKPOINTS + 1).read_to_string(&mut text).with_context(named)?;
    ensure!(
        read as u64 <= MOST_CHECKPOINTS,
        "`{}` has more than {MOST_CHECKPOINTS} bytes: give it in parts",
        path.display()
    );
    Ok(text)
}

/// The notes in a file, one after another: each ends with its signatures.
pub(super) fn split_notes(text: &str) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = String::new();
    let mut lines = text.split_inclusive('\n').peekable();
    let is_signature = |line: &str| line.starts_with('\u{2014}');
    while let Some(line) = lines.next() {
        note.push_str(line);
        if is_signature(line) && !lines.peek().is_some_and(|next| is_signature(next)) {
            notes.push(std::mem::take(&mut note));
        }
    }
    if !note.trim().is_empty() {
        notes.push(note);
    }
    notes
}

/// An export that has its last line.
struct Exported {
    footer: Footer,
    /// How many entries there are, and the digest of their lines and the first one.
    found: (u64, Digest),
}

/// Reads an export.
fn read_export(path: &Path, mut each: impl FnMut(Line<'_>)) -> Result<Exported, Wrong> {
    let named = || format!("cannot read `{}`", path.display());
    let file = File::open(path).with_context(named)?;
    let mut lines = BufReader::with_capacity(1 << 20, file);
    let mut next = |line: &mut String| -> anyhow::Result<bool> {
        line.clear();
        Ok((&mut lines).take(MOST_LINE).read_line(line).with_context(named)? > 0)
    };
    let mut line = String::new();
    next(&mut line)?;
    let header: Header = serde_json::from_str(&line).with_context(|| {
        format!("`{}` is no export of an audit log: its first line is another one", path.display())
    })?;
    if header.audit_export != VERSION || !header.whole {
        let why = if header.whole { "it has another version" } else { "it does not have every entry" };
        return Err(anyhow::anyhow!("`{}` cannot be verified: {why}", path.display()).into());
    }
    let mut hasher = Hasher::default();
    hasher.update(line.as_bytes());
    let mut entries = 0_u64;
    while next(&mut line)? {
        let text = line.strip_suffix('\n').unwrap_or(&line);
        if let Some(entry) = line::read(text) {
            each(entry);
            entries += 1;
            hasher.update(line.as_bytes());
            continue;
        }
        let footer: Footer = serde_json::from_str(text).map_err(|_| {
            Wrong::NotWritten(format!("altered: line {} of the export is not that of an entry", entries + 2))
        })?;
        if next(&mut line)? {
            return Err(Wrong::NotWritten("altered: the export goes on after its last line".to_owned()));
        }
        return Ok(Exported { footer, found: (entries, hasher.digest()) });
    }
    Err(Wrong::NotWritten(format!("cut off: the export has no last line, and ends after {entries} entries")))
}

fn show(report: &Report, checkpoints: &[Checkpoint]) -> ExitCode {
    let newest = checkpoints.iter().map(|checkpoint| checkpoint.at).max();
    say!("entries: {}", report.entries);
    if let Some(newest) = newest {
        say!("checkpoints: {}, the newest of {newest}", checkpoints.len());
    }
    say!("heads of partitions that are right: {}", report.matched);
    say!("entries after the newest checkpoint, which nothing covers yet: {}", report.unsigned);
    for trimmed in &report.trimmed {
        say!(
            "removed by retention: partition {} up to entry {}, as entry {}/{} says",
            trimmed.partition,
            trimmed.removed,
            trimmed.partition,
            trimmed.entry
        );
    }
    for finding in &report.findings {
        say!("{finding}");
    }
    if report.more > 0 {
        say!("and {} more", report.more);
    }
    let (code, says) = verdict(report);
    say!("\n{says}");
    if let Some(proved) = Proved::of(report, checkpoints) {
        say!("{proved}");
    }
    ExitCode::from(code)
}

/// What the exit codes are called in JSON.
const RESULTS: [&str; 4] = ["right", "wrong", "unchecked", "trimmed"];

fn show_json(report: &Report, checkpoints: &[Checkpoint]) -> ExitCode {
    let (code, _) = verdict(report);
    let texts = |findings: &[Finding]| findings.iter().map(Finding::to_string).collect::<Vec<_>>();
    let trimmed = report
        .trimmed
        .iter()
        .map(|it| json!({"partition": it.partition, "removed": it.removed, "entry": it.entry}));
    let proved = Proved::of(report, checkpoints);
    let shown = json!({
        "result": RESULTS.get(usize::from(code)),
        "entries": report.entries,
        "uncovered": report.unsigned,
        "checkpoints": checkpoints.len(),
        "heads": report.matched,
        "removedByRetention": trimmed.collect::<Vec<_>>(),
        "findings": texts(&report.findings),
        "moreFindings": report.more,
        "proved": proved.map(|it| json!({
            "entries": it.entries,
            "until": it.until.map(|until| until.to_string()),
            "checkpoint": it.checkpoint.at.to_string(),
            "log": it.checkpoint.origin,
        })),
    });
    say!("{shown}");
    ExitCode::from(code)
}

/// What a verification has proved to be what was written.
struct Proved<'a> {
    /// How many entries.
    entries: u64,
    /// When the last one of them was written.
    until: Option<Timestamp>,
    /// What covers them.
    checkpoint: &'a Checkpoint,
}

impl<'a> Proved<'a> {
    /// `None` if the log is not what was written, or nothing covers it.
    fn of(report: &Report, checkpoints: &'a [Checkpoint]) -> Option<Proved<'a>> {
        let checkpoint = checkpoints.iter().max_by_key(|checkpoint| checkpoint.at)?;
        let entries = report.entries.saturating_sub(report.unsigned);
        let is_proved = report.findings.is_empty() && report.matched > 0;
        is_proved.then_some(Proved { entries, until: report.covered_until, checkpoint })
    }
}

impl fmt::Display for Proved<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proved: {} entries", self.entries)?;
        if let Some(until) = self.until {
            write!(f, " up to {until}")?;
        }
        write!(f, ", covered by the checkpoint of {} of {}", self.checkpoint.at, self.checkpoint.origin)
    }
}

/// The exit code, and what it means.
fn verdict(report: &Report) -> (u8, &'static str) {
    if !report.findings.is_empty() {
        (1, "The log is NOT what was written.")
    } else if report.matched == 0 {
        (2, "No checkpoint covers any entry yet, so nothing shows that the log is what was written.")
    } else if !report.trimmed.is_empty() {
        (
            3,
            "What is there is what was written, and entries were removed before it by retention, as others of them say.",
        )
    } else {
        (0, "The log is what was written.")
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::audit::verify::Trimmed;

    use super::*;

    #[test]
    fn only_what_was_compared_and_has_every_entry_is_right() {
        let right = Report { entries: 9, matched: 2, ..Report::default() };
        let uncovered = Report { matched: 0, unsigned: 9, ..right.clone() };
        let trimmed =
            Report { trimmed: vec![Trimmed { partition: 1, removed: 3, entry: 9 }], ..right.clone() };
        let altered =
            Report { findings: vec![Finding::Altered { partition: 1, number: 2 }], ..trimmed.clone() };
        for (report, code) in [(right, 0), (altered, 1), (uncovered, 2), (trimmed, 3)] {
            assert_eq!(verdict(&report).0, code, "{report:?}");
        }
    }

    #[test]
    fn what_is_proved_is_what_the_newest_checkpoint_covers() {
        let at = |millis| Timestamp::from_millis(millis);
        let checkpoint = |at| Checkpoint { origin: "countersign-audit/1".to_owned(), at, heads: vec![] };
        let checkpoints = [checkpoint(at(9_000)), checkpoint(at(5_000))];
        let proved = Report {
            entries: 9,
            unsigned: 2,
            matched: 2,
            covered_until: Some(at(8_000)),
            ..Report::default()
        };
        let shown = Proved::of(&proved, &checkpoints).map(|it| it.to_string());
        let expected = "proved: 7 entries up to 1970-01-01T00:00:08.000Z, covered by the checkpoint of \
                        1970-01-01T00:00:09.000Z of countersign-audit/1";
        assert_eq!(shown.as_deref(), Some(expected));
        let altered =
            Report { findings: vec![Finding::Altered { partition: 1, number: 2 }], ..proved.clone() };
        for nothing in [altered, Report { matched: 0, ..proved }] {
            assert!(Proved::of(&nothing, &checkpoints).is_none());
        }
    }
}
