//! The lines of an export, and of the file that the log is mirrored to: JSON, one line an entry.

use countersign_core::lifecycle::Digest;
use countersign_store::LogEntry;
use serde::{Deserialize, Serialize};

/// The version of the form.
pub(super) const VERSION: u32 = 1;

/// The first line of an export.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    /// [`VERSION`].
    pub(super) audit_export: u32,
    /// Whether the export has every entry, so that it can be verified.
    pub(super) whole: bool,
}

/// The last line of an export. One without it is not complete.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Footer {
    /// How many entries there are.
    pub(super) entries: u64,
    /// SHA-256 of all lines before this one.
    pub(super) sha256: Digest,
    /// The newest checkpoint when the export began.
    pub(super) checkpoint: Option<String>,
}

/// An entry in an export.
#[derive(Debug, PartialEq)]
pub(super) struct Line<'a> {
    pub(super) partition: u16,
    pub(super) number: u64,
    pub(super) digest: Digest,
    pub(super) body: &'a str,
}

/// What the line of every entry begins with.
pub(super) const START: &str = r#"{"partition":"#;

/// The line of an entry. Its bytes are in it as they are stored.
pub(super) fn write(entry: &LogEntry, to: &mut Vec<u8>) {
    let LogEntry { partition, number, digest, body, .. } = entry;
    let start = format!(r#"{START}{partition},"number":{number},"sha256":"{digest}","entry":"#);
    to.extend(start.as_bytes());
    // A line feed is in no entry that a gateway wrote, and would make another line of what follows.
    to.extend(body.bytes().map(|byte| if byte == b'\n' { b' ' } else { byte }));
    to.extend(b"}\n");
}

/// Reads the line of an entry; `None` if it is not exactly what [`write`] writes.
pub(super) fn read(line: &str) -> Option<Line<'_>> {
    let (partition, rest) = line.strip_prefix(START)?.split_once(r#","number":"#)?;
    let (number, rest) = rest.split_once(r#","sha256":""#)?;
    let (digest, rest) = rest.split_once(r#"","entry":"#)?;
    Some(Line {
        partition: partition.parse().ok()?,
        number: number.parse().ok()?,
        digest: digest.parse().ok()?,
        body: rest.strip_suffix('}')?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let body = r#"{"at":5,"event":"a \"b\",\"entry\":","x":{}}"#;
        let entry = LogEntry {
            partition: 3,
            number: 17,
            digest: Digest::of(body.as_bytes()),
            body: body.to_owned(),
            columns: None,
        };
        let mut text = Vec::new();
        write(&entry, &mut text);
        let text = String::from_utf8(text).unwrap();
        let line = text.strip_suffix('\n').unwrap();
        let expected = Line { partition: 3, number: 17, digest: entry.digest, body };
        assert_eq!(read(line), Some(expected));
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok());
        for broken in
            [&line[1..], &line[..line.len() - 3], &line.replace("17", "x"), &line.replace("sha256", "sha")]
        {
            assert_eq!(read(broken), None, "{broken}");
        }
        let two_lines = LogEntry { body: "{\n}".into(), ..entry };
        let mut text = Vec::new();
        write(&two_lines, &mut text);
        assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 1);
    }
}
