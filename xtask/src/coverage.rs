//! `cargo xtask coverage`: measures how many lines of the gateway's crates the unit, contract and end-to-end tests run.
//!
//! Only the workspace's crates are compiled with counters, into a target folder of their own. What the processes of the
//! tests run counts, too, the gateway's above all: killed or not, since the counters are in files that are mapped into
//! memory. Tests themselves, and what only tests switch on, are no lines to be covered.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::policies::{self, Pins};
use crate::step::{Stopwatch, step};
use crate::{cargo, mcp, packages};

/// The folders in `host` that are held to [`ENOUGH`].
const CRATES: [&str; 5] = ["core", "policy", "gateway", "store", "slack"];

/// Percent of the lines of each crate.
const ENOUGH: f64 = 85.0;

/// The folder in `target` of what is built with counters.
const TARGET: &str = "target/coverage";

const EXCEPT: [&str; 3] = ["--workspace", "--exclude", "xtask"];
const TESTS: [&str; 3] = ["--lib", "--bins", "--tests"];

pub(crate) fn run() -> Result<()> {
    let watch = Stopwatch::start();
    let root = crate::root()?;
    let tools = Tools::of_toolchain(&root)?;
    step("the programs that the tests start", packages::ensure)?;
    step("policies to WebAssembly", || policies::build_all(&root.join("target/policies"), Pins::Report))?;
    step("programs of npm for the tests", || {
        mcp::install(&root, "mcp-client")?;
        mcp::install(&root, "webhook-receiver")
    })?;

    let profiles = root.join(TARGET).join("profiles");
    match fs::remove_dir_all(&profiles) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove `{}`", profiles.display()));
        }
        _ => {}
    }
    // A file for each program, which all processes of it map (`%c`).
    let profile = profiles.join("%m%c.profraw");
    let profile = profile.to_str().context("the project's path is not UTF-8")?;
    let gateway = root.join(TARGET).join(format!("debug/countersign{}", std::env::consts::EXE_SUFFIX));
    let bin = gateway.to_str().context("the project's path is not UTF-8")?;
    let environment = [("LLVM_PROFILE_FILE", profile), ("COUNTERSIGN_BIN", bin)];
    let wrapper = wrapper(&root)?;
    let counting = ["--target-dir", TARGET, "--config", &wrapper];

    step("the gateway and its tools, with counters", || {
        cargo(&root, &[&["build"], &counting[..], &EXCEPT].concat(), &environment)
    })?;
    let mut programs = step("the tests, with counters", || {
        test_programs(&root, &[&["test", "--no-run"], &counting[..], &EXCEPT, &TESTS].concat(), profile)
    })?;
    programs.push(gateway.clone());
    step("unit, contract and end-to-end tests", || {
        cargo(&root, &[&["test"], &counting[..], &EXCEPT, &TESTS].concat(), &environment)
    })?;
    step("lines that were run", || {
        let lines = tools.lines(&profiles, &programs)?;
        report(&root, &lines)
    })?;
    println!("\nevery crate is above {ENOUGH} %; {} in all", watch.elapsed());
    Ok(())
}

/// What has cargo call the script in place of rustc for the workspace's crates. As an option and not as a variable, which
/// would reach what the tests build.
fn wrapper(root: &Path) -> Result<String> {
    let script = root.join("xtask/instrumented.sh");
    let script = script.to_str().context("the project's path is not UTF-8")?;
    ensure!(!script.contains('\''), "`{script}` has a quote in its name");
    Ok(format!("build.rustc-workspace-wrapper='{script}'"))
}

/// Builds the tests, and returns their programs.
fn test_programs(root: &Path, words: &[&str], profile: &str) -> Result<Vec<PathBuf>> {
    let mut command = Command::new("cargo");
    command.args(words).args(["--message-format", "json-render-diagnostics"]).current_dir(root);
    command.env_remove("CARGO_TARGET_DIR").env_remove("CARGO_BUILD_TARGET_DIR");
    command.env("LLVM_PROFILE_FILE", profile).stderr(Stdio::inherit());
    let built = command.output().context("cannot run cargo")?;
    ensure!(built.status.success(), "the tests do not build");
    let messages = String::from_utf8(built.stdout).context("cargo does not print text")?;
    let mut programs = Vec::new();
    for message in messages.lines() {
        let message: serde_json::Value = serde_json::from_str(message).context("cargo's message")?;
        let is_test = message.pointer("/profile/test").and_then(serde_json::Value::as_bool) == Some(true);
        if is_test && let Some(program) = message.get("executable").and_then(serde_json::Value::as_str) {
            programs.push(PathBuf::from(program));
        }
    }
    ensure!(!programs.is_empty(), "there are no tests");
    Ok(programs)
}

/// How often each line was run, by file.
type Lines = BTreeMap<PathBuf, BTreeMap<usize, u64>>;

/// The programs of the toolchain that read counters.
struct Tools(PathBuf);

impl Tools {
    fn of_toolchain(root: &Path) -> Result<Tools> {
        let rustc = |words: &[&str]| -> Result<String> {
            let printed = Command::new("rustc").args(words).current_dir(root).output();
            let printed = printed.context("cannot run rustc")?;
            ensure!(printed.status.success(), "`rustc {}` failed", words.join(" "));
            Ok(String::from_utf8(printed.stdout)?.trim_end().to_owned())
        };
        // Beside the libraries of this machine's target.
        let folder = PathBuf::from(rustc(&["--print", "target-libdir"])?).with_file_name("bin");
        for tool in ["llvm-profdata", "llvm-cov"] {
            ensure!(
                folder.join(tool).is_file(),
                "the toolchain has no {tool}: `rustup component add llvm-tools`"
            );
        }
        Ok(Tools(folder))
    }

    fn lines(&self, profiles: &Path, programs: &[PathBuf]) -> Result<Lines> {
        let merged = profiles.join("merged.profdata");
        let mut files = Vec::new();
        for entry in fs::read_dir(profiles).context("no test has counted anything")? {
            let file = entry?.path();
            if file.extension().is_some_and(|extension| extension == "profraw") {
                files.push(file);
            }
        }
        let mut merge = Command::new(self.0.join("llvm-profdata"));
        merge.args(["merge", "--sparse"]).args(&files).arg("--output").arg(&merged);
        let status = merge.status().context("cannot run llvm-profdata")?;
        ensure!(status.success(), "the counters cannot be merged");

        let mut export = Command::new(self.0.join("llvm-cov"));
        export.args(["export", "--format", "lcov", "--instr-profile"]).arg(&merged);
        let [first, others @ ..] = programs else { bail!("no program was built") };
        export.arg(first);
        for other in others {
            export.arg("--object").arg(other);
        }
        let exported = export.stderr(Stdio::inherit()).output().context("cannot run llvm-cov")?;
        ensure!(exported.status.success(), "llvm-cov ended with {}", exported.status);
        parse(&String::from_utf8(exported.stdout).context("llvm-cov does not print text")?)
    }
}

/// Reads what llvm-cov prints as lcov: `SF:` and a file, then `DA:`, a line and its count.
fn parse(lcov: &str) -> Result<Lines> {
    let mut lines = Lines::new();
    let mut file = None;
    for line in lcov.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            file = Some(lines.entry(PathBuf::from(path)).or_default());
        } else if let Some(data) = line.strip_prefix("DA:") {
            let mut fields = data.split(',');
            let (Some(number), Some(count)) = (fields.next(), fields.next()) else {
                bail!("`{line}` has no line and count")
            };
            let number = number.parse().with_context(|| format!("`{line}` has no line"))?;
            let count: u64 = count.parse().with_context(|| format!("`{line}` has no count"))?;
            let counts = file.as_mut().with_context(|| format!("`{line}` is of no file"))?;
            *counts.entry(number).or_default() += count;
        }
    }
    Ok(lines)
}

/// Prints a table of the crates, and the files of which most lines were not run. An error if a crate is below
/// [`ENOUGH`].
fn report(root: &Path, lines: &Lines) -> Result<()> {
    let mut low = Vec::new();
    println!("{:<10} {:>7} {:>7} {:>7}", "crate", "lines", "run", "%");
    let mut missed = Vec::new();
    for name in CRATES {
        let source = root.join("host").join(name).join("src");
        let tests = Tests::of(&source)?;
        let (mut all, mut run) = (0, 0);
        for (file, counts) in lines.iter().filter(|(file, _)| file.starts_with(&source)) {
            let counts: Vec<u64> = counts
                .iter()
                .filter(|(line, _)| !tests.include(file, **line))
                .map(|(_, count)| *count)
                .collect();
            let covered = counts.iter().filter(|count| **count > 0).count();
            all += counts.len();
            run += covered;
            missed.push((counts.len() - covered, counts.len(), file.strip_prefix(root).unwrap_or(file)));
        }
        ensure!(all > 0, "nothing was counted in host/{name}");
        let percent = percent(run, all);
        println!("{name:<10} {all:>7} {run:>7} {percent:>7.1}");
        if percent < ENOUGH {
            low.push(format!("{name} ({percent:.1} %)"));
        }
    }
    missed.sort_unstable_by(|one, other| other.cmp(one));
    println!("\nmost lines that no test runs:");
    for (count, all, file) in missed.iter().take(15) {
        println!("{count:>5} of {all:>5}  {}", file.display());
    }
    ensure!(low.is_empty(), "below {ENOUGH} %: {}", low.join(", "));
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "no crate has 2^52 lines")]
fn percent(part: usize, all: usize) -> f64 {
    part as f64 * 100.0 / all as f64
}

/// What is compiled for tests alone.
#[derive(Debug, Default)]
struct Tests {
    /// Files and folders.
    modules: BTreeSet<PathBuf>,
    /// Lines of other files, from one.
    lines: BTreeMap<PathBuf, BTreeSet<usize>>,
}

impl Tests {
    /// Finds it in a crate's sources, which are formatted by rustfmt.
    fn of(source: &Path) -> Result<Tests> {
        let mut tests = Tests::default();
        let mut folders = vec![source.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(&folder);
            for entry in entries.with_context(|| format!("cannot read `{}`", folder.display()))? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = fs::read_to_string(&path);
                    tests.read(&path, &text.with_context(|| format!("cannot read `{}`", path.display()))?);
                }
            }
        }
        Ok(tests)
    }

    /// Reads one file.
    fn read(&mut self, path: &Path, text: &str) {
        let inside = match path.file_name().and_then(|name| name.to_str()) {
            Some("lib.rs" | "mod.rs" | "main.rs") => path.parent().map(Path::to_owned),
            _ => Some(path.with_extension("")),
        };
        let lines: Vec<&str> = text.lines().collect();
        let mut at = 0;
        while let Some(line) = lines.get(at) {
            at += 1;
            if !is_for_tests(line) {
                continue;
            }
            let (from, indent) = (at, indent(line));
            // Further attributes and comments, then the item.
            let mut item = lines.get(at).copied().unwrap_or_default();
            while item.trim_start().starts_with(['#', '/']) {
                at += 1;
                item = lines.get(at).copied().unwrap_or_default();
            }
            if let Some(module) = module(item) {
                if let Some(folder) = &inside {
                    self.modules.insert(folder.join(module));
                    self.modules.insert(folder.join(format!("{module}.rs")));
                }
                continue;
            }
            // It ends where its first line is indented as it is and closes it.
            while let Some(line) = lines.get(at) {
                at += 1;
                let closes = line.ends_with(['}', ';', ',']);
                if closes && self::indent(line) == indent {
                    break;
                }
            }
            self.lines.entry(path.to_owned()).or_default().extend(from..=at);
        }
    }

    fn include(&self, path: &Path, line: usize) -> bool {
        path.ancestors().any(|ancestor| self.modules.contains(ancestor))
            || self.lines.get(path).is_some_and(|lines| lines.contains(&line))
    }
}

/// Whether a line is the attribute of something that only tests, or a feature for tests, switch on.
fn is_for_tests(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(any(test, ")
}

/// The name of a module in a file of its own.
fn module(item: &str) -> Option<&str> {
    let (before, name) = item.trim().strip_suffix(';')?.rsplit_once(' ')?;
    before.ends_with("mod").then_some(name)
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_and_those_of_several_programs_added() {
        let lcov = "SF:/p/a.rs\nFN:1,f\nDA:1,2\nDA:3,0\nend_of_record\nSF:/p/a.rs\nDA:3,4\nend_of_record\n";
        let lines = parse(lcov).expect("it is lcov");
        assert_eq!(lines, Lines::from([(PathBuf::from("/p/a.rs"), BTreeMap::from([(1, 2), (3, 4)]))]));
        for wrong in ["DA:1,2", "SF:/p/a.rs\nDA:1", "SF:/p/a.rs\nDA:x,1", "SF:/p/a.rs\nDA:1,x"] {
            parse(wrong).expect_err(wrong);
        }
    }

    #[test]
    fn what_is_for_tests_does_not_count() {
        let text = "\
fn one() {
    #[cfg(any(test, feature = \"fake\"))]
    if fake {
        two();
    }
    three();
}

#[cfg(test)]
mod far;
#[cfg(any(test, feature = \"fixtures\"))]
pub mod fixtures;

#[cfg(test)]
#[expect(dead_code)]
impl One {
    fn four() {}
}

fn five() {}

#[cfg(not(test))]
fn six() {}

#[cfg(test)]
mod tests {
    fn seven() {
    }
}
";
        let mut tests = Tests::default();
        tests.read(Path::new("/c/src/a.rs"), text);
        let counted: Vec<usize> = (1..=text.lines().count())
            .filter(|line| !tests.include(Path::new("/c/src/a.rs"), *line))
            .filter(|line| {
                text.lines().nth(line - 1).is_some_and(|line| line.contains("();") || line.contains("fn "))
            })
            .collect();
        assert_eq!(counted, [1, 6, 20, 23]);
        for (file, is_test) in [
            ("/c/src/a/far.rs", true),
            ("/c/src/a/far/deep.rs", true),
            ("/c/src/a/fixtures.rs", true),
            ("/c/src/far.rs", false),
            ("/c/src/a/near.rs", false),
        ] {
            assert_eq!(tests.include(Path::new(file), 1), is_test, "{file}");
        }
        tests.read(Path::new("/c/src/lib.rs"), "#[cfg(test)]\nmod contract;\n");
        assert!(tests.include(Path::new("/c/src/contract/mod.rs"), 9));
    }
}
