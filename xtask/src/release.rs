//! `cargo xtask release VERSION`: makes the tag of a release, from a commit that is ready for it.
//!
//! Three steps, so that what is tagged is what was checked: `--prepare` writes the version and the date where they stand,
//! which somebody commits; then the checks run on that commit; then the tag is made. Pushing it is left to whoever
//! releases: the workflow publishes what the tag names.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

use crate::checks::{self, git};

/// The checks that must have passed on the commit, each with the command that runs it.
const CHECKS: [(&str, &str); 3] =
    [("ci", ".ci/run"), ("redis", "cargo xtask redis"), ("image", "cargo xtask image")];

/// Where the version stands besides the manifest, as the text before it.
const MENTIONS: [(&str, &str); 4] = [
    ("deploy/compose.yaml", "ghcr.io/countersign/countersign:"),
    ("deploy/kubernetes/overlays/prod/kustomization.yaml", "newTag: "),
    ("deploy/kubernetes/overlays/single/kustomization.yaml", "newTag: "),
    ("deploy/kubernetes/overlays/staging/kustomization.yaml", "newTag: "),
];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The version: `1.2.3`
    version: String,
    /// Write the version and the date where they stand, to be committed; then run the checks
    #[arg(long, conflicts_with = "notes")]
    prepare: bool,
    /// Only print the notes of the version, for a tag that is there
    #[arg(long)]
    notes: bool,
    /// Sign the tag
    #[arg(long)]
    sign: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let root = crate::root()?;
    let version = &arguments.version;
    if arguments.prepare {
        let today =
            std::process::Command::new("date").args(["--utc", "+%F"]).output().context("no `date`")?;
        prepare(&root, version, String::from_utf8_lossy(&today.stdout).trim())?;
        println!("version {version} is written; commit it, and run {}", commands().join(", "));
        // The lock file has the versions of the workspace, too.
        return crate::cargo(&root, &["update", "--workspace", "--offline"], &[]);
    }
    if arguments.notes {
        ensure_version(&root, version)?;
        println!("{}", notes(&root, version)?);
        return Ok(());
    }
    let tag = tag(&root, version, arguments.sign)?;
    println!("made the tag {tag}; `git push origin {tag}` releases it");
    Ok(())
}

fn commands() -> Vec<String> {
    CHECKS.iter().map(|(_, command)| format!("`{command}`")).collect()
}

/// Makes the tag, or says all that is in the way.
fn tag(root: &Path, version: &str, sign: bool) -> Result<String> {
    let tag = format!("v{version}");
    let mut wrong: Vec<String> = Vec::new();
    wrong.extend(ensure_version(root, version).err().map(|error| error.to_string()));
    let notes = notes(root, version);
    wrong.extend(notes.as_ref().err().map(ToString::to_string));
    let changes = checks::changes(root)?;
    if !changes.is_empty() {
        wrong.push(format!("there are changes that are not committed:\n{changes}"));
    }
    if git(root, &["rev-parse", "--verify", "--quiet", &format!("refs/tags/{tag}")]).is_ok() {
        wrong.push(format!("there is a tag {tag} already"));
    }
    let commit = checks::commit(root)?;
    for (name, command) in CHECKS {
        match checks::when(root, &commit, name)? {
            Some(time) => println!("`{command}` passed on this commit, {time}"),
            None => wrong.push(format!("`{command}` did not pass on this commit, {commit}")),
        }
    }
    ensure!(wrong.is_empty(), "{version} is not released:\n- {}", wrong.join("\n- "));
    let kind = if sign { "--sign" } else { "--annotate" };
    // Its headings begin with what git takes for a comment.
    let message = format!("Countersign {version}\n\n{}", notes?);
    git(root, &["tag", kind, "--cleanup=verbatim", "--message", &message, &tag, &commit])?;
    Ok(tag)
}

/// The version must be one, and that of the manifest and of whatever else names it.
fn ensure_version(root: &Path, version: &str) -> Result<()> {
    let parts: Vec<&str> = version.split('.').collect();
    let is_number = |part: &&str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && (part.len() == 1 || !part.starts_with('0'))
    };
    ensure!(parts.len() == 3 && parts.iter().all(is_number), "`{version}` is no version such as `1.2.3`");
    let mut other = Vec::new();
    if !read(root, "Cargo.toml")?.contains(&format!("\nversion = \"{version}\"\n")) {
        other.push("Cargo.toml");
    }
    for (file, before) in MENTIONS {
        let text = read(root, file)?;
        let mut named =
            text.lines().filter_map(|line| line.split_once(before)).map(|(_, named)| named.trim());
        if !named.all(|named| named == version) {
            other.push(file);
        }
    }
    ensure!(
        other.is_empty(),
        "another version stands in {}: `cargo xtask release {version} --prepare` writes it",
        other.join(", ")
    );
    Ok(())
}

/// What the changelog says of the version.
fn notes(root: &Path, version: &str) -> Result<String> {
    let changelog = read(root, "CHANGELOG.md")?;
    let heading = format!("## [{version}]");
    let mut lines = changelog.lines().skip_while(|line| !line.starts_with(&heading));
    ensure!(lines.next().is_some(), "CHANGELOG.md has no section `{heading}`");
    let section: Vec<&str> = lines.take_while(|line| !line.starts_with("## ")).collect();
    ensure!(
        section.iter().any(|line| line.starts_with("- ")),
        "the section `{heading}` of CHANGELOG.md says nothing"
    );
    Ok(section.join("\n").trim().to_owned())
}

/// Writes the version and the date: into the manifest, and as the heading of what is unreleased.
fn prepare(root: &Path, version: &str, today: &str) -> Result<()> {
    let changelog = read(root, "CHANGELOG.md")?;
    ensure!(!changelog.contains(&format!("## [{version}]")), "CHANGELOG.md has {version} already");
    let unreleased = "## [Unreleased]\n";
    let Some((before, after)) = changelog.split_once(unreleased) else {
        bail!("CHANGELOG.md has no section `{}`", unreleased.trim());
    };
    write(root, "CHANGELOG.md", &format!("{before}{unreleased}\n## [{version}] - {today}\n{after}"))?;

    let manifest = read(root, "Cargo.toml")?;
    let is_own = |line: &&str| line.starts_with("version = \"");
    let own = manifest.lines().find(is_own).context("Cargo.toml has no version")?;
    write(root, "Cargo.toml", &manifest.replacen(own, &format!("version = \"{version}\""), 1))?;
    for (file, before) in MENTIONS {
        let text = read(root, file)?;
        let line = |line: &str| match line.split_once(before) {
            Some((start, _)) => format!("{start}{before}{version}\n"),
            None => format!("{line}\n"),
        };
        write(root, file, &text.lines().map(line).collect::<String>())?;
    }
    Ok(())
}

fn read(root: &Path, file: &str) -> Result<String> {
    fs::read_to_string(root.join(file)).with_context(|| format!("cannot read `{file}`"))
}

fn write(root: &Path, file: &str, text: &str) -> Result<()> {
    fs::write(root.join(file), text).with_context(|| format!("cannot write `{file}`"))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A repository with one commit, ready for the release of 1.2.3 but for the checks.
    fn repository() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for (file, _) in MENTIONS {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
        }
        write(root, "Cargo.toml", "[workspace.package]\nversion = \"1.2.2\"\nedition = \"2024\"\n").unwrap();
        write(
            root,
            "CHANGELOG.md",
            "# Changelog\n\n## [Unreleased]\n\n### Added\n- A thing.\n\n## [1.2.2] - 2026-01-01\n- Old.\n",
        )
        .unwrap();
        for (file, before) in MENTIONS {
            write(root, file, &format!("x:\n  {before}1.2.2\n")).unwrap();
        }
        prepare(root, "1.2.3", "2026-02-03").unwrap();
        git(root, &["init", "--quiet"]).unwrap();
        for (name, value) in
            [("user.name", "Dana"), ("user.email", "dana@acme.example"), ("commit.gpgsign", "false")]
        {
            git(root, &["config", name, value]).unwrap();
        }
        commit(root);
        folder
    }

    fn commit(root: &Path) {
        git(root, &["add", "--all"]).unwrap();
        git(root, &["commit", "--quiet", "--message", "ready"]).unwrap();
    }

    fn check_all(root: &Path) {
        for (name, _) in CHECKS {
            checks::passed(root, name).unwrap();
        }
    }

    fn refused(root: &Path, version: &str) -> String {
        let tags = git(root, &["tag"]).unwrap();
        let error = tag(root, version, false).unwrap_err().to_string();
        assert_eq!(git(root, &["tag"]).unwrap(), tags, "a tag was made");
        error
    }

    #[test]
    fn a_commit_that_is_ready_is_tagged_with_its_notes() {
        let folder = repository();
        let root = folder.path();
        check_all(root);
        assert_eq!(tag(root, "1.2.3", false).unwrap(), "v1.2.3");
        let message = git(root, &["tag", "--list", "--format=%(contents)", "v1.2.3"]).unwrap();
        assert_eq!(message.trim(), "Countersign 1.2.3\n\n### Added\n- A thing.");
        let tagged = git(root, &["rev-parse", "v1.2.3^{commit}"]).unwrap();
        assert_eq!(tagged, checks::commit(root).unwrap());
        assert!(refused(root, "1.2.3").contains("there is a tag v1.2.3 already"));
    }

    #[test]
    fn changes_that_are_not_committed_are_in_the_way() {
        let folder = repository();
        let root = folder.path();
        check_all(root);
        write(root, "new.txt", "x").unwrap();
        let error = refused(root, "1.2.3");
        assert!(error.contains("not committed") && error.contains("new.txt"), "{error}");
    }

    #[test]
    fn each_check_must_have_passed_on_this_very_commit() {
        let folder = repository();
        let root = folder.path();
        let error = refused(root, "1.2.3");
        for (_, command) in CHECKS {
            assert!(error.contains(&format!("`{command}` did not pass")), "{error}");
        }
        // A check of changes is none of the commit.
        write(root, "new.txt", "x").unwrap();
        check_all(root);
        fs::remove_file(root.join("new.txt")).unwrap();
        assert!(refused(root, "1.2.3").contains("`.ci/run` did not pass"));
        check_all(root);
        write(root, "new.txt", "x").unwrap();
        commit(root);
        let error = refused(root, "1.2.3");
        assert!(
            error.contains("`cargo xtask image` did not pass") && !error.contains("not committed"),
            "{error}"
        );
    }

    #[test]
    fn a_changelog_that_says_nothing_is_in_the_way() {
        let folder = repository();
        let root = folder.path();
        let changelog = read(root, "CHANGELOG.md").unwrap();
        for (text, why) in [
            (changelog.replace("- A thing.\n", ""), "says nothing"),
            (changelog.replace("[1.2.3]", "[1.2.4]"), "has no section"),
        ] {
            write(root, "CHANGELOG.md", &text).unwrap();
            commit(root);
            check_all(root);
            let error = refused(root, "1.2.3");
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn the_version_must_be_the_one_that_is_named_everywhere() {
        let folder = repository();
        let root = folder.path();
        check_all(root);
        let error = refused(root, "1.2.4");
        for file in ["Cargo.toml", "deploy/compose.yaml", "prod/kustomization.yaml"] {
            assert!(error.contains(file), "{error}");
        }
        for version in ["1.2", "1.2.3-rc1", "v1.2.3", "01.2.3", "1.2.x", ""] {
            assert!(refused(root, version).contains("is no version"), "{version}");
        }
    }

    #[test]
    fn what_is_unreleased_becomes_the_version_once() {
        let folder = repository();
        let root = folder.path();
        let changelog = read(root, "CHANGELOG.md").unwrap();
        assert!(
            changelog.starts_with("# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-02-03\n\n### Added\n"),
            "{changelog}"
        );
        assert!(prepare(root, "1.2.3", "2026-02-03").unwrap_err().to_string().contains("already"));
    }
}
