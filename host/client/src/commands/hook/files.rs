//! The files that a command names: their digests are parameters, so that what runs is what people agreed to.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use countersign_core::lifecycle::Digest;
use serde_json::{Map, Value};

/// What separates words, also inside quotes, where a shell may find another command.
const SEPARATORS: &[char] = &[
    ' ', '\t', '\n', '\r', '\'', '"', '`', ';', '&', '|', '<', '>', '(', ')', '{', '}', '=', ',', '$', '@',
    ':', '[', ']',
];

/// The largest file whose digest is taken, in bytes.
const MOST_BYTES: u64 = 64 << 20;

const MOST_FILES: usize = 50;

/// The files that the input's command names, in `folder` or by an absolute path, with their SHA-256. Blocks.
///
/// A path with a space in it, one that the shell makes of variables, and what a script itself runs are not found.
///
/// # Errors
/// If there are too many, or one cannot be read.
pub(super) fn digests(input: &Map<String, Value>, folder: &Path) -> Result<BTreeMap<String, Digest>, String> {
    let mut digests = BTreeMap::new();
    let command = input.get("command");
    let texts = command.into_iter().flat_map(|command| match command {
        Value::Array(words) => words.iter().filter_map(Value::as_str).collect::<Vec<_>>(),
        other => other.as_str().into_iter().collect(),
    });
    for word in texts.flat_map(|text| text.split(SEPARATORS)).filter(|word| !word.is_empty()) {
        let path = folder.join(word);
        // What is no file is not read: a device or a pipe may never end.
        if digests.contains_key(word) || !path.metadata().is_ok_and(|file| file.is_file()) {
            continue;
        }
        if digests.len() == MOST_FILES {
            return Err(format!("the command names more than {MOST_FILES} files"));
        }
        digests.insert(word.to_owned(), digest(&path).map_err(|why| format!("`{word}` {why}"))?);
    }
    Ok(digests)
}

fn digest(path: &Path) -> Result<Digest, String> {
    let unreadable = |error| format!("cannot be read: {error}");
    let mut bytes = Vec::new();
    // It may have become a pipe since it was looked at, which nobody may ever write to.
    let without_waiting = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(without_waiting).open(path).map_err(unreadable)?;
    if !file.metadata().is_ok_and(|file| file.is_file()) {
        return Err("is no regular file".to_owned());
    }
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MOST_BYTES {
        return Err(format!("has more than {MOST_BYTES} bytes, so what is in it cannot be bound"));
    }
    Ok(Digest::of(&bytes))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_files_that_a_command_names_are_found() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["deploy.sh", "config", "other"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let absolute = folder.path().join("other");
        let absolute = absolute.to_str().unwrap();
        let names = |command: Value| {
            let input = json!({"command": command, "other": "other"}).as_object().cloned().unwrap();
            let found = digests(&input, folder.path()).unwrap();
            found.into_keys().collect::<Vec<_>>().join(" ")
        };
        for (command, expected) in [
            (json!("ls -l"), ""),
            (json!("./deploy.sh --now"), "./deploy.sh"),
            (json!("bash deploy.sh;true"), "deploy.sh"),
            (json!("sh -c 'bash ./deploy.sh --config=config'"), "./deploy.sh config"),
            (json!("X=$(cat config) true"), "config"),
            (json!(format!("{absolute} && deploy.sh")), &format!("{absolute} deploy.sh")),
            (json!(["bash", "-lc", "deploy.sh"]), "deploy.sh"),
            (json!("cat /dev/zero ."), ""),
            (json!(7), ""),
        ] {
            assert_eq!(names(command.clone()), expected, "{command}");
        }
        let input = json!({"command": "deploy.sh"}).as_object().cloned().unwrap();
        assert_eq!(digests(&input, folder.path()).unwrap()["deploy.sh"], Digest::of(b"deploy.sh"));
    }
}
