//! The commands of a caller, as processes: while they run, and when they have ended.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::process::{Pid, Signal};

use crate::ambient;
use crate::printed::Printed;
use crate::within;

/// A command that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Printed,
    stderr: Printed,
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` if a signal has ended it.
    pub code: Option<i32>,
    /// What it printed on its standard output.
    pub stdout: String,
    /// What it printed on its standard error.
    pub stderr: String,
}

impl Running {
    /// Starts the program in `folder` with these words, these variables, and this standard input.
    ///
    /// # Panics
    /// If it cannot be run.
    #[must_use]
    pub fn start(folder: &Path, words: &[&str], variables: &[(&str, &str)], input: &str) -> Running {
        let (running, mut stdin) = Running::open(folder, words, variables);
        // It fails if the program has ended without reading it.
        let _ = stdin.write_all(input.as_bytes());
        running
    }

    /// The same with a standard input that stays open.
    ///
    /// # Panics
    /// If it cannot be run.
    #[must_use]
    pub fn open(folder: &Path, words: &[&str], variables: &[(&str, &str)]) -> (Running, ChildStdin) {
        Running::spawn(&ambient::binary(), folder, words, variables)
    }

    /// Starts another program, which the path leads to, without an input.
    ///
    /// # Panics
    /// If it cannot be run.
    #[must_use]
    pub fn other(program: &str, folder: &Path, words: &[&str], variables: &[(&str, &str)]) -> Running {
        Running::spawn(Path::new(program), folder, words, variables).0
    }

    fn spawn(
        program: &Path,
        folder: &Path,
        words: &[&str],
        variables: &[(&str, &str)],
    ) -> (Running, ChildStdin) {
        let mut command = Command::new(program);
        command.args(words).current_dir(folder).env_clear().env("HOME", folder);
        command.envs(ambient::variable("PATH").map(|path| ("PATH", path)));
        command.envs(ambient::counters());
        command.envs(variables.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program can be run");
        let stdin = child.stdin.take().expect("its input is piped");
        let stdout = Printed::read(child.stdout.take().expect("its output is piped"), |_| {});
        let stderr = Printed::read(child.stderr.take().expect("its output is piped"), |_| {});
        (Running { child, stdout, stderr }, stdin)
    }

    /// Waits for a line of its standard output for which this gives something.
    ///
    /// # Panics
    /// If it ends without.
    pub async fn found<T>(&self, find: impl Fn(&str) -> Option<T>) -> T {
        Running::line(&self.stdout, "a line of the output", find).await
    }

    /// Waits for a line of its standard error with `text` in it, and returns the line.
    ///
    /// # Panics
    /// If it ends without.
    pub async fn said(&self, text: &str) -> String {
        Running::line(&self.stderr, text, |line| line.contains(text).then(|| line.to_owned())).await
    }

    /// The same of its standard output.
    ///
    /// # Panics
    /// If it ends without.
    pub async fn printed(&self, text: &str) -> String {
        Running::line(&self.stdout, text, |line| line.contains(text).then(|| line.to_owned())).await
    }

    async fn line<T>(of: &Printed, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let mut lines = of.lines.clone();
        let found = async {
            loop {
                let printed = of.text();
                if let Some(found) = printed.lines().find_map(&find) {
                    return found;
                }
                assert!(lines.changed().await.is_ok(), "it ended without `{what}`: {printed}");
            }
        };
        within(&format!("`{what}`"), found).await
    }

    /// The id of the request that `countersign ask` has made.
    ///
    /// # Panics
    /// If it makes none.
    pub async fn request(&self) -> String {
        let line = self.said(" for ").await;
        let id = line.split([' ', ';', ',', ':']).find(|word| word.starts_with("req_"));
        id.unwrap_or_else(|| panic!("no request in `{line}`")).to_owned()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If it has ended.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// If it does not, or panicked.
    pub async fn ended(mut self) -> Ended {
        within("the command to end", async {
            self.stdout.closed().await;
            self.stderr.closed().await;
        })
        .await;
        let status = self.child.wait().expect("a child can be waited for");
        let ended = Ended { code: status.code(), stdout: self.stdout.text(), stderr: self.stderr.text() };
        assert!(!ended.stderr.contains("panicked at"), "{ended:?}");
        ended
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail if it has ended already, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
