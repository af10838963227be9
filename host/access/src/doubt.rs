//! Whether an access file might be half of what somebody is writing.

use std::path::Path;

use countersign_policy::yaml::document::{self, Place};
use countersign_policy::yaml::error::{Errors, LoadErrors};
use countersign_policy::yaml::shape;
use countersign_policy::{Known, Manifest};

use crate::file::without_keys;

/// Checks that the text of an access file is not half of another one: half of one can be valid, and give more rights to a
/// caller, or have two people where there is one. `before` is the text in force. Blocks.
///
/// # Errors
/// What is missing, or might be.
pub fn doubts(file: &Path, (before, now): (&str, &str), known: Known) -> Result<(), LoadErrors> {
    let name = file.display().to_string();
    let mut errors = Errors::about(&name);
    match Manifest::of_file(file, now) {
        Ok(Some(manifest)) => {
            if let Err(why) = manifest.fits {
                errors.add_in(&format!("{name}.sha256"), why);
            }
        }
        Ok(None) if known >= Known::Text => {}
        Ok(None) => match (document::parse(before), document::parse(now)) {
            (Ok(before), Ok(parsed)) => {
                for (at, what) in shape::differences((&before, &parsed), now, &only_takes_rights) {
                    errors.add(at, what);
                }
            }
            _ => errors.add(Place::default(), "the text in force cannot be compared with it"),
        },
        Err((name, error)) => errors.add_in(&name, format!("cannot be read: {error}")),
    }
    errors.into_result().map_err(without_keys)
}

/// Whether something takes rights away if it is missing: that must not wait.
fn only_takes_rights(path: &[&str]) -> bool {
    matches!(
        path,
        ["callers" | "admins", _]
            | ["callers" | "admins", _, "keys"]
            | ["callers", _, "actions"]
            | ["admins", _, "roles"]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "\
version: 1
callers:
  portal:
    keys: [{ sha256: aa }, { sha256: bb, until: 2027-01-01 }]
    requester: asserted
    actions: [deploy, drop]
    limits: { open: 2 }
  job:
    oidc:
      issuer: github
      claims:
        repository_id: \"4711\"
        ref: refs/heads/main
people:
  dana: { slack: U0DANA, github: dana-d }
";

    #[test]
    fn rights_may_be_taken_away_in_place_and_nothing_else_may_be_missing() {
        let file = Path::new("nowhere/access.yaml");
        let cut = |part: &str| BEFORE[..BEFORE.find(part).unwrap()].to_owned();
        for (what, now, doubted) in [
            ("a value", BEFORE.replace("open: 2", "open: 3"), false),
            ("a key has gone", BEFORE.replace("{ sha256: aa }, ", ""), false),
            ("a caller has gone", BEFORE.replace("  job:\n    oidc:\n      issuer: github\n      claims:\n        repository_id: \"4711\"\n        ref: refs/heads/main\n", ""), false),
            ("an action has gone", BEFORE.replace("[deploy, drop]", "[deploy]"), false),
            ("a claim is missing", BEFORE.replace("        ref: refs/heads/main\n", ""), true),
            ("the people are missing", cut("people:"), true),
            ("a name is missing", BEFORE.replace(", github: dana-d", ""), true),
            ("a limit is missing", BEFORE.replace("    limits: { open: 2 }\n", ""), true),
            ("the end of a key is missing", BEFORE.replace(", until: 2027-01-01", ""), true),
            ("a new caller", BEFORE.replace("  job:", "  other:\n    requester: asserted\n  job:"), true),
            ("everything", String::new(), true),
        ] {
            let read = doubts(file, (BEFORE, &now), Known::Nothing);
            assert_eq!(read.is_err(), doubted, "{what}: {read:?}");
            assert_eq!(doubts(file, (BEFORE, &now), Known::Text), Ok(()), "{what}");
        }
    }

    #[test]
    fn a_manifest_decides() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("access.yaml");
        let less = &BEFORE[..BEFORE.find("people:").unwrap()];
        let line = |text: &str| {
            let digest = countersign_core::lifecycle::Digest::of(text.as_bytes());
            std::fs::write(folder.path().join("access.yaml.sha256"), format!("{digest}  access.yaml\n"))
                .unwrap();
        };
        line(less);
        assert_eq!(doubts(&file, (BEFORE, less), Known::Nothing), Ok(()));
        line(BEFORE);
        let wrong = doubts(&file, (BEFORE, less), Known::Text).unwrap_err().to_string();
        assert!(
            wrong.ends_with("access.yaml.sha256: `access.yaml` has other bytes than it lists"),
            "{wrong}"
        );
    }
}
