//! A Redis for gateways: Debian's `redis-server`, as a process of its own that only listens on a socket in a folder of its
//! own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::home::{Home, collect};
use crate::printed::Printed;
use crate::within;

/// In its log once it listens, whatever it listens on.
const READY: &str = "eady to accept connections";

/// Ends the server when the tests do, however they end: then the shell's input is closed.
const SHELL: &str = "\"$0\" \"$@\" & server=$!; read -r _; kill -9 $server; wait $server";

/// A running Redis, which syncs each write to its disk. Dropping it kills it, and removes its data.
#[derive(Debug)]
pub struct Redis {
    folder: TempDir,
    process: Option<Process>,
    options: Vec<String>,
}

#[derive(Debug)]
struct Process {
    shell: Child,
    input: Option<ChildStdin>,
    output: Printed,
}

impl Redis {
    /// Starts one.
    pub async fn start() -> Redis {
        Redis::start_with(&[]).await
    }

    /// Starts one with these options besides.
    pub async fn start_with(options: &[&str]) -> Redis {
        let folder = tempfile::tempdir().expect("there is room for a temporary folder");
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut redis = Redis { folder, process: None, options };
        redis.resume().await;
        redis
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.path("redis.sock").display())
    }

    /// Kills it with SIGKILL. What it has synced is still there.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&mut self) {
        let process = self.process.take().expect("it runs");
        drop(process);
    }

    /// Stops it without a word, as a machine that hangs does, until [`Redis::thaw`].
    ///
    /// # Panics
    /// If it does not run.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// If it does not run.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Has it carry out a command, with `redis-cli`, and returns the answer.
    ///
    /// # Panics
    /// If it refuses, or there is no `redis-cli`.
    pub async fn command(&self, words: &[&str]) -> String {
        let mut cli = Command::new("redis-cli");
        cli.arg("-e").arg("-s").arg(self.path("redis.sock")).args(words).stdin(Stdio::null());
        let ran = tokio::task::spawn_blocking(move || cli.output());
        let output = within("redis-cli", ran).await.expect("it ends").expect("there is `redis-cli`");
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts it again, with the data that it had.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn resume(&mut self) {
        let folder = self.folder.path().display().to_string();
        let mut command = Command::new("sh");
        command.args(["-c", SHELL, "redis-server", "--port", "0", "--save", "", "--dir", &folder]);
        command.args(["--unixsocket", "redis.sock", "--pidfile", "redis.pid"]);
        command.args(["--appendonly", "yes", "--appendfsync", "always"]).args(&self.options);
        command.current_dir(self.folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut shell = command.spawn().expect("there is a shell");
        let output = Printed::read(shell.stdout.take().expect("its output is piped"), |_| {});
        let input = shell.stdin.take();
        let mut lines = output.lines.clone();
        let process = self.process.insert(Process { shell, input, output });
        let ready = async {
            while !process.output.text().contains(READY) {
                assert!(
                    lines.changed().await.is_ok(),
                    "no Redis: install `redis-server`: {}",
                    process.output.text()
                );
            }
        };
        within("Redis to start", ready).await;
    }

    fn signal(&self, signal: Signal) {
        let pid = fs::read_to_string(self.path("redis.pid")).expect("it runs");
        let pid = pid.trim().parse().ok().and_then(Pid::from_raw).expect("a number");
        rustix::process::kill_process(pid, signal).expect("it runs");
    }

    /// Every file that it has written, with its bytes: each write that changed something is in one.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        collect(self.folder(), &mut files);
        files
    }

    /// The folder with its data.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.input.take());
        // The shell kills the server; one that hangs, too.
        let _ = self.shell.wait();
    }
}

impl Home {
    /// With this Redis as its store, and a folder for what it cannot take.
    #[must_use]
    pub fn with_redis(self, redis: &Redis) -> Home {
        self.with("COUNTERSIGN_STORE", &redis.url()).with_file("COUNTERSIGN_SPOOL_DIR", "spool")
    }
}
