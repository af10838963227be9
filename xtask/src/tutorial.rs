//! `cargo xtask tutorial`: runs the tutorials of the documents, each in a folder of its own outside of the workspace.
//!
//! Their `sh` blocks are run in one shell, in order. A block that is marked `sh fails` has to fail. One that is marked
//! `sh setup` is what was done before: the folder has the policies then, in `policies`. A `diff` block is applied
//! as a reader would in an editor. A `text` block shows the output of the block before it, with `…` for what differs.
//! The gateway's program is on the path, as its users have it, and listens on a free port.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::step::step;

/// The documents with a tutorial, and the section that it is in.
const TUTORIALS: [(&str, &str); 3] = [
    ("docs/POLICIES.md", "## Tutorial"),
    ("docs/PIPELINES.md", "## In five minutes"),
    ("docs/AGENTS.md", "## In five minutes"),
];
const ADDRESS: &str = "127.0.0.1:8080";

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Arguments {
    /// Only the tutorial of this document
    #[arg(long, value_name = "DOCUMENT", value_parser = TUTORIALS.map(|(document, _)| document))]
    only: Option<String>,
    /// Keep the folders, and print their paths
    #[arg(long)]
    keep: bool,
    /// Apply this diff to the files that it names: for the tutorial's own `diff` blocks
    #[arg(long, value_name = "DIFF", hide = true)]
    edit: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if let Some(diff) = &arguments.edit {
        let text = fs::read_to_string(diff).with_context(|| format!("cannot read `{}`", diff.display()))?;
        return edit(&text, Path::new("."));
    }
    let root = crate::root()?;
    step("the gateway", || crate::cargo(&root, &["build", "--package", "countersign"], &[]))?;
    let only = arguments.only.as_deref();
    step("the tutorials, in folders of their own", || follow(&root, only, arguments.keep))
}

/// Runs the tutorials with the gateway's program as it was built last.
pub(crate) fn check(root: &Path) -> Result<()> {
    follow(root, None, false)
}

fn follow(root: &Path, only: Option<&str>, keep: bool) -> Result<()> {
    let chosen = TUTORIALS.iter().filter(|(document, _)| only.is_none_or(|only| only == *document));
    chosen.into_iter().try_for_each(|tutorial| follow_one(root, *tutorial, keep))
}

fn follow_one(root: &Path, tutorial: (&'static str, &str), keep: bool) -> Result<()> {
    let (document, _) = tutorial;
    let text =
        fs::read_to_string(root.join(document)).with_context(|| format!("cannot read `{document}`"))?;
    let blocks = blocks(tutorial, &text)?;
    let mut folder = tempfile::tempdir().context("cannot create a temporary folder")?;
    if keep {
        folder.disable_cleanup(true);
        println!("{}", folder.path().display());
    }
    run_blocks(root, folder.path(), document, &blocks)
}

/// A fenced block of the tutorial.
#[derive(Debug, PartialEq)]
struct Block<'a> {
    line: usize,
    kind: Kind,
    text: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Shell,
    /// A shell block that has to fail.
    Failing,
    /// What a reader puts into the configuration of something else.
    Shown,
    /// What was done before: the program is on the path, and the policies are in the folder.
    Setup,
    /// A change to a file.
    Diff,
    /// The output of the block before it.
    Output,
}

/// The blocks of a tutorial.
fn blocks<'a>((name, section): (&str, &str), document: &'a str) -> Result<Vec<Block<'a>>> {
    let mut blocks = Vec::new();
    let mut inside = false;
    let mut open: Option<(usize, Kind, usize)> = None;
    let mut offset = 0;
    for (index, line) in document.split_inclusive('\n').enumerate() {
        let start = offset;
        offset += line.len();
        match (line.trim_end().strip_prefix("```"), open) {
            (Some(""), Some((at, kind, from))) => {
                let text = document.get(from..start).unwrap_or_default();
                blocks.push(Block { line: at, kind, text });
                open = None;
            }
            (Some(kind), None) if inside => {
                let kind = match kind {
                    "sh" => Kind::Shell,
                    "sh fails" => Kind::Failing,
                    "sh setup" => Kind::Setup,
                    "json" => Kind::Shown,
                    "diff" => Kind::Diff,
                    "text" => Kind::Output,
                    _ => {
                        bail!("{name}:{}: the tutorial cannot have a block of the kind `{kind}`", index + 1)
                    }
                };
                open = Some((index + 1, kind, offset));
            }
            (None, None) if line.starts_with("## ") => inside = line.starts_with(section),
            _ => {}
        }
    }
    ensure!(open.is_none(), "{name}: a block of the tutorial does not end");
    let shells = blocks.iter().filter(|block| block.kind == Kind::Shell).count();
    ensure!(shells > 3, "{name}: found only {shells} shell blocks under `{section}`");
    Ok(blocks)
}

/// Runs the blocks in `folder`, which is empty, and compares their output with that in the document.
fn run_blocks(root: &Path, folder: &Path, document: &str, blocks: &[Block<'_>]) -> Result<()> {
    let (work, notes) = (folder.join("work"), folder.join("notes"));
    for path in [&work, &notes] {
        fs::create_dir_all(path).with_context(|| format!("cannot create `{}`", path.display()))?;
    }
    if blocks.iter().any(|block| block.kind == Kind::Setup) {
        copy(&root.join("target/policies/modules"), &work.join("policies/modules"))?;
    }
    let script = notes.join("script");
    fs::write(&script, self::script(root, &notes, blocks)?)?;
    let mut shell = Command::new("bash");
    shell.arg(&script).current_dir(&work).stdin(Stdio::null());
    // As for somebody who has only installed the program; compiled dependencies are kept for the next run.
    for variable in
        ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUST_BACKTRACE"]
    {
        shell.env_remove(variable);
    }
    shell.env("CARGO_TARGET_DIR", root.join("target/tutorial"));
    shell.env("PATH", path_with(&root.join("target/debug"))?);
    let status = shell.status().context("cannot run bash")?;
    let mut before = String::new();
    for (index, block) in blocks.iter().enumerate() {
        let at = format!("{document}:{}", block.line);
        if matches!(block.kind, Kind::Setup | Kind::Shown) {
            continue;
        }
        if block.kind == Kind::Output {
            if let Some(missing) = missing(block.text, &before) {
                bail!("{at}: `{missing}` is not in the output:\n{before}");
            }
            continue;
        }
        let printed = fs::read(notes.join(format!("{index}.out"))).unwrap_or_default();
        before = String::from_utf8_lossy(&printed).into_owned();
        if !notes.join(format!("{index}.done")).exists() {
            bail!("{at}: this block of the tutorial ended with {status}:\n{}\n{before}", block.text);
        }
    }
    ensure!(status.success(), "the tutorial's shell ended with {status}");
    println!("{} blocks of {document} ran", blocks.len());
    Ok(())
}

fn free_port(root: &Path) -> Result<String> {
    let asked = Command::new(root.join("deploy/check/free_ports.py")).arg("1").output();
    let asked = asked.context("cannot run `deploy/check/free_ports.py`")?;
    ensure!(asked.status.success(), "found no free port: {}", String::from_utf8_lossy(&asked.stderr));
    Ok(String::from_utf8_lossy(&asked.stdout).trim().to_owned())
}

/// All blocks as one script. The output of each goes to a file, and another file marks that it ran to completion.
fn script(root: &Path, notes: &Path, blocks: &[Block<'_>]) -> Result<String> {
    let address = format!("127.0.0.1:{}", free_port(root)?);
    let program = std::env::current_exe().context("this program does not know its own path")?;
    // Background jobs end with the shell.
    let mut script = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n".to_owned();
    for (index, block) in blocks.iter().enumerate() {
        if matches!(block.kind, Kind::Output | Kind::Setup | Kind::Shown) {
            continue;
        }
        let note = |extension: &str| quoted(&notes.join(format!("{index}.{extension}")));
        script.push_str(&format!("exec >{} 2>&1\n", note("out")));
        let text = block.text.replace(ADDRESS, &address);
        match block.kind {
            Kind::Failing => {
                script.push_str(&format!("if (\n{text}); then echo 'it should have failed'; exit 1; fi\n"));
            }
            Kind::Diff => {
                let diff = notes.join(format!("{index}.diff"));
                fs::write(&diff, &text)?;
                script.push_str(&format!("{} tutorial --edit {}\n", quoted(&program), quoted(&diff)));
            }
            Kind::Shell | Kind::Output | Kind::Setup | Kind::Shown => script.push_str(&text),
        }
        script.push_str(&format!("touch {}\n", note("done")));
    }
    Ok(script)
}

/// Copies the files of a folder.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create `{}`", to.display()))?;
    let files =
        fs::read_dir(from).with_context(|| format!("there are no policies in `{}`", from.display()))?;
    for file in files {
        let file = file?;
        fs::copy(file.path(), to.join(file.file_name())).context("cannot copy a module")?;
    }
    Ok(())
}

/// A path as one word of the shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

/// The search path with this folder in front.
#[expect(clippy::disallowed_methods, reason = "PATH is passed on to a shell")]
fn path_with(folder: &Path) -> Result<std::ffi::OsString> {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let folders = [folder.to_owned()].into_iter().chain(std::env::split_paths(&rest));
    Ok(std::env::join_paths(folders)?)
}

/// The first line of `expected` that `printed` lacks, in the same order; `…` matches anything.
fn missing<'a>(expected: &'a str, printed: &str) -> Option<&'a str> {
    let mut lines = printed.lines();
    expected.lines().find(|line| !line.trim().is_empty() && !lines.any(|printed| fits(line, printed)))
}

/// Whether a line has the parts between the `…`, in this order.
fn fits(expected: &str, printed: &str) -> bool {
    let mut rest = printed;
    expected.trim().split('…').all(|part| match rest.split_once(part.trim()) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

/// Applies a diff: in the file that it names, the lines with a space or `-` become those with a space or `+`.
fn edit(diff: &str, folder: &Path) -> Result<()> {
    let mut lines = diff.lines();
    let name = lines.find_map(|line| line.strip_prefix("+++ ")).context("the diff names no file")?;
    let path = folder.join(name);
    let mut text = fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let rest: Vec<&str> = lines.collect();
    for hunk in rest.split(|line| line.starts_with("@@")).filter(|hunk| !hunk.is_empty()) {
        let side = |sign: char| -> String {
            let lines = hunk.iter().filter_map(|line| {
                // An editor may have removed the space of an empty line.
                let line = if line.is_empty() { " " } else { line };
                line.strip_prefix([' ', sign])
            });
            lines.map(|line| format!("{line}\n")).collect()
        };
        let (old, new) = (side('-'), side('+'));
        let found = text.matches(&old).count();
        ensure!(found == 1, "`{name}` must have this exactly once, and has it {found} times:\n{old}");
        text = text.replace(&old, &new);
    }
    fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_have_tutorials() -> Result<()> {
        let documents = [
            include_str!("../../docs/POLICIES.md"),
            include_str!("../../docs/PIPELINES.md"),
            include_str!("../../docs/AGENTS.md"),
        ];
        for (tutorial, text) in TUTORIALS.into_iter().zip(documents) {
            let blocks = blocks(tutorial, text)?;
            for kind in [Kind::Shell, Kind::Output] {
                assert!(blocks.iter().any(|block| block.kind == kind), "{tutorial:?} {kind:?}");
            }
        }
        let [policies, ..] = TUTORIALS;
        let blocks = blocks(policies, documents[0])?;
        assert!(
            [Kind::Failing, Kind::Diff].iter().all(|kind| blocks.iter().any(|block| block.kind == *kind))
        );
        Ok(())
    }

    #[test]
    fn only_blocks_of_the_section_are_found() {
        let shell = "```sh\ntrue\n```\n";
        let tutorial = ("a.md", "## Tutorial");
        let document =
            format!("## Before\n```yaml\na\n```\n## Tutorial x\n{}## After\n```rust\n```\n", shell.repeat(4));
        let found = blocks(tutorial, &document).expect("there are blocks");
        assert_eq!(found.len(), 4);
        assert_eq!(found.first(), Some(&Block { line: 6, kind: Kind::Shell, text: "true\n" }));
        assert!(blocks(tutorial, "## Tutorial\n```rust\n```\n").is_err());
        assert!(blocks(tutorial, &format!("## Tutorial\n{}```sh\n", shell.repeat(4))).is_err());
        assert!(blocks(tutorial, "# nothing\n").is_err());
    }

    #[test]
    fn output_is_compared_line_by_line() {
        let printed = "one two three\nfour\nfive  six\n";
        for (expected, missing_line) in [
            ("one … three\nfive …\n", None),
            ("  four\n\n", None),
            ("four\none …\n", Some("one …")),
            ("one … four\n", Some("one … four")),
            ("seven\n", Some("seven")),
        ] {
            assert_eq!(missing(expected, printed), missing_line, "{expected}");
        }
    }

    #[test]
    fn a_diff_applies_only_if_it_matches_once() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let folder = folder.path();
        fs::write(folder.join("f"), "a\n\nb\nc\nc\n")?;
        edit("--- f\n+++ f\n@@\n a\n\n-b\n+B\n+B\n@@\n B\n c\n+d\n", folder)?;
        assert_eq!(fs::read_to_string(folder.join("f"))?, "a\n\nB\nB\nc\nd\nc\n");
        for wrong in ["+++ f\n@@\n-x\n+y\n", "+++ f\n@@\n-c\n", "+++ g\n@@\n-c\n", "@@\n-c\n"] {
            assert!(edit(wrong, folder).is_err(), "{wrong}");
        }
        Ok(())
    }
}
