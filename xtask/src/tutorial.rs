//! `cargo xtask tutorial`: runs the tutorial of docs/POLICIES.md in an empty folder outside of the workspace.
//!
//! Its `sh` blocks are run in one shell, in order. A block that is marked `sh fails` has to fail. A `diff` block is applied
//! as a reader would in an editor. A `text` block shows the output of the block before it, with `…` for what differs.
//! The gateway's program is on the path, as its users have it, and listens on a free port.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::step::step;

const DOCUMENT: &str = "docs/POLICIES.md";
const SECTION: &str = "## Tutorial";
const ADDRESS: &str = "127.0.0.1:8080";

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Arguments {
    /// Keep the folder, and print its path
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
    step("the tutorial, in an empty folder", || follow(&root, arguments.keep))
}

/// Runs the tutorial with the gateway's program as it was built last.
pub(crate) fn check(root: &Path) -> Result<()> {
    follow(root, false)
}

fn follow(root: &Path, keep: bool) -> Result<()> {
    let text =
        fs::read_to_string(root.join(DOCUMENT)).with_context(|| format!("cannot read `{DOCUMENT}`"))?;
    let blocks = blocks(&text)?;
    let mut folder = tempfile::tempdir().context("cannot create a temporary folder")?;
    if keep {
        folder.disable_cleanup(true);
        println!("{}", folder.path().display());
    }
    run_blocks(root, folder.path(), &blocks)
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
    /// A change to a file.
    Diff,
    /// The output of the block before it.
    Output,
}

/// The blocks of the tutorial.
fn blocks(document: &str) -> Result<Vec<Block<'_>>> {
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
            (Some(name), None) if inside => {
                let kind = match name {
                    "sh" => Kind::Shell,
                    "sh fails" => Kind::Failing,
                    "diff" => Kind::Diff,
                    "text" => Kind::Output,
                    _ => {
                        bail!(
                            "{DOCUMENT}:{}: the tutorial cannot have a block of the kind `{name}`",
                            index + 1
                        )
                    }
                };
                open = Some((index + 1, kind, offset));
            }
            (None, None) if line.starts_with("## ") => inside = line.starts_with(SECTION),
            _ => {}
        }
    }
    ensure!(open.is_none(), "{DOCUMENT}: a block of the tutorial does not end");
    let shells = blocks.iter().filter(|block| block.kind == Kind::Shell).count();
    ensure!(shells > 3, "{DOCUMENT}: found only {shells} shell blocks under `{SECTION}`");
    Ok(blocks)
}

/// Runs the blocks in `folder`, which is empty, and compares their output with that in the document.
fn run_blocks(root: &Path, folder: &Path, blocks: &[Block<'_>]) -> Result<()> {
    let (work, notes) = (folder.join("work"), folder.join("notes"));
    for path in [&work, &notes] {
        fs::create_dir_all(path).with_context(|| format!("cannot create `{}`", path.display()))?;
    }
    let script = notes.join("script");
    fs::write(&script, self::script(&notes, blocks)?)?;
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
        let at = format!("{DOCUMENT}:{}", block.line);
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
    println!("{} blocks of {DOCUMENT} ran", blocks.len());
    Ok(())
}

/// All blocks as one script. The output of each goes to a file, and another file marks that it ran to completion.
fn script(notes: &Path, blocks: &[Block<'_>]) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("found no free port")?;
    let address = listener.local_addr()?.to_string();
    drop(listener);
    let program = std::env::current_exe().context("this program does not know its own path")?;
    // Background jobs end with the shell.
    let mut script = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n".to_owned();
    for (index, block) in blocks.iter().enumerate() {
        if block.kind == Kind::Output {
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
            Kind::Shell | Kind::Output => script.push_str(&text),
        }
        script.push_str(&format!("touch {}\n", note("done")));
    }
    Ok(script)
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
    fn the_document_has_a_tutorial() -> Result<()> {
        let blocks = blocks(include_str!("../../docs/POLICIES.md"))?;
        for kind in [Kind::Shell, Kind::Failing, Kind::Diff, Kind::Output] {
            assert!(blocks.iter().any(|block| block.kind == kind), "{kind:?}");
        }
        Ok(())
    }

    #[test]
    fn only_blocks_of_the_section_are_found() {
        let shell = "```sh\ntrue\n```\n";
        let document =
            format!("## Before\n```yaml\na\n```\n{SECTION} x\n{}## After\n```rust\n```\n", shell.repeat(4));
        let found = blocks(&document).expect("there are blocks");
        assert_eq!(found.len(), 4);
        assert_eq!(found.first(), Some(&Block { line: 6, kind: Kind::Shell, text: "true\n" }));
        assert!(blocks(&format!("{SECTION}\n```rust\n```\n")).is_err());
        assert!(blocks(&format!("{SECTION}\n{}```sh\n", shell.repeat(4))).is_err());
        assert!(blocks("# nothing\n").is_err());
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
