//! A running gateway: the real program, as a process of its own.

use std::net::SocketAddr;
use std::ops::Deref;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::ambient::{self, Stopwatch};
use crate::api::Api;
use crate::command::mounted;
use crate::home::Home;
use crate::printed::Printed;
use crate::within;

const READY: [&str; 2] = ["listening on http://", "listening on https://"];

/// A gateway that serves. Dropping it kills it, and checks that nothing is left over.
#[derive(Debug)]
pub struct Gateway {
    /// `None` only after a method that consumes the gateway took it.
    home: Option<Home>,
    process: Process,
    api: Api,
    /// How long it took from the start of the process until it listened.
    pub ready_after: Duration,
}

/// A gateway that was started and may not serve yet. Dropping it kills it.
#[derive(Debug)]
pub struct Starting {
    home: Home,
    process: Process,
    since: Stopwatch,
}

/// How a gateway exited after SIGTERM.
#[derive(Debug)]
pub struct Exit {
    /// Its exit status.
    pub status: ExitStatus,
    /// How long it took.
    pub took: Duration,
    /// Everything that it printed, on both outputs.
    pub output: String,
}

/// How a gateway did not start.
#[derive(Debug)]
pub struct Failure {
    /// Its exit code.
    pub code: Option<i32>,
    /// Its standard error.
    pub stderr: String,
}

impl Home {
    /// Starts a gateway here, and waits until it serves.
    ///
    /// # Panics
    /// If it does not.
    pub async fn start(mut self) -> Gateway {
        self.choose_store().await;
        self.begin().serves().await
    }

    /// Starts a gateway here, and does not wait.
    #[must_use]
    pub fn begin(self) -> Starting {
        let since = Stopwatch::start();
        let process = Process::spawn(&self);
        Starting { home: self, process, since }
    }

    /// Starts a gateway that must refuse to start.
    ///
    /// # Panics
    /// If it starts.
    pub async fn fail_to_start(&self) -> Failure {
        Process::spawn(self).failed().await
    }

    /// Starts a gateway and kills it as soon as `stop` is done, ready or not. Returns whether it was ready.
    pub async fn start_and_kill(&self, stop: impl Future<Output = ()>) -> bool {
        let mut process = Process::spawn(self);
        let ready = tokio::select! {
            ready = process.ready() => ready.is_ok(),
            () = stop => false,
        };
        process.kill();
        ready
    }
}

impl Starting {
    /// Sends it a signal.
    ///
    /// # Panics
    /// If it has exited already.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.process.child), signal).expect("it starts");
    }

    /// Waits until it serves.
    ///
    /// # Panics
    /// If it does not.
    pub async fn serves(self) -> Gateway {
        let Starting { home, mut process, since } = self;
        match process.ready().await {
            Ok(address) => {
                let api = match home.tls {
                    None => Api::new(address),
                    Some(client) => Api::secured(address, client),
                };
                Gateway { home: Some(home), process, api, ready_after: since.elapsed() }
            }
            Err(()) => panic!("the gateway did not start: {}", process.output()),
        }
    }

    /// Waits until it has exited by itself, and has not served.
    ///
    /// # Panics
    /// If it serves, or does not exit.
    pub async fn exited(mut self) -> Failure {
        self.process.failed().await
    }
}

impl Gateway {
    /// Kills it with SIGKILL.
    #[must_use]
    pub fn kill(mut self) -> Home {
        self.process.kill();
        self.home.take().expect("a gateway has a home until it is consumed")
    }

    /// Asks it to stop with SIGTERM, and does not wait; see [`Gateway::stopped`].
    ///
    /// # Panics
    /// If it has exited already.
    pub fn terminate(&self) -> Stopwatch {
        let pid = Pid::from_child(&self.process.child);
        rustix::process::kill_process(pid, Signal::TERM).expect("the gateway runs");
        Stopwatch::start()
    }

    /// Asks it to read its policy set again with SIGHUP.
    ///
    /// # Panics
    /// If it has exited already.
    pub fn hang_up(&self) {
        let pid = Pid::from_child(&self.process.child);
        rustix::process::kill_process(pid, Signal::HUP).expect("the gateway runs");
    }

    /// Ends it with SIGABRT, as a crash does.
    ///
    /// # Panics
    /// If it has exited already.
    pub fn abort(&self) -> Stopwatch {
        let pid = Pid::from_child(&self.process.child);
        rustix::process::kill_process(pid, Signal::ABORT).expect("the gateway runs");
        Stopwatch::start()
    }

    /// Sets its wall clock to this many seconds ahead of the machine's, or behind it. Its home must have
    /// [a clock that can be set](Home::with_settable_clock).
    ///
    /// # Panics
    /// Never, except in a method that consumes the gateway.
    pub fn set_clock(&self, seconds: i64) {
        self.home().set_clock(seconds);
    }

    /// Waits until its log has `text` in this many lines.
    pub async fn logged(&self, text: &str, times: usize) {
        let mut lines = self.process.stderr.lines.clone();
        let heard = async {
            while self.process.stderr.text().lines().filter(|line| line.contains(text)).count() < times {
                lines.changed().await.expect("the gateway still runs");
            }
        };
        within(&format!("`{text}` in the log, {times} times"), heard).await;
    }

    /// Waits until it has exited by itself.
    ///
    /// # Panics
    /// If it does not exit.
    pub async fn stopped(mut self, since: Stopwatch) -> (Home, Exit) {
        let status = self.process.exited().await;
        let took = since.elapsed();
        let output = self.process.output();
        let home = self.home.take().expect("a gateway has a home until it is consumed");
        (home, Exit { status, took, output })
    }

    /// SIGTERM, and a clean exit.
    ///
    /// # Panics
    /// If it does not exit with 0.
    pub async fn stop(self) -> Home {
        let since = self.terminate();
        let (home, exit) = self.stopped(since).await;
        assert!(exit.status.success(), "{exit:?}");
        home
    }

    /// Its home.
    ///
    /// # Panics
    /// Never, except in a method that consumes the gateway.
    #[must_use]
    pub fn home(&self) -> &Home {
        self.home.as_ref().expect("a gateway has a home until it is consumed")
    }

    /// Everything that it printed so far, on both outputs.
    #[must_use]
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }
}

impl Deref for Gateway {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

/// The process, and what it prints. Dropping it ends it.
#[derive(Debug)]
struct Process {
    child: Child,
    stdout: Printed,
    stderr: Printed,
    /// Gets the address once the gateway prints it; is closed when the gateway closes its output.
    ready: Option<tokio::sync::oneshot::Receiver<SocketAddr>>,
}

/// The address in the line that says where it listens.
fn ready_line(line: &str) -> Option<SocketAddr> {
    READY.iter().find_map(|ready| line.strip_prefix(ready))?.parse().ok()
}

impl Process {
    fn spawn(home: &Home) -> Process {
        let mut command = match (home.descriptors, &home.mounts) {
            (None, None) => Command::new(ambient::binary()),
            (_, Some(mounts)) => mounted(mounts),
            (Some(most), None) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -n {most} && exec \"$0\" \"$@\"")]).arg(ambient::binary());
                shell
            }
        };
        command.arg("serve").current_dir(home.path("."));
        // Only the variables of the test: a developer's own configuration must not leak in.
        command.env_clear().env("HOME", home.path(".")).envs(&home.variables);
        command.envs(ambient::counters());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the gateway's program can be run");
        let (sender, ready) = tokio::sync::oneshot::channel();
        let mut sender = Some(sender);
        let stdout = child.stdout.take().expect("its output is piped");
        let stderr = child.stderr.take().expect("its output is piped");
        let stdout = Printed::read(stdout, move |line| {
            if let Some(address) = ready_line(line)
                && let Some(sender) = sender.take()
            {
                // This fails if the test has given up, which is fine.
                let _ = sender.send(address);
            }
        });
        let stderr = Printed::read(stderr, |_| {});
        Process { child, stdout, stderr, ready: Some(ready) }
    }

    /// Waits for the address; an error if it exits before.
    async fn ready(&mut self) -> Result<SocketAddr, ()> {
        let ready = self.ready.take().expect("it is waited for once");
        within("the gateway to start", ready).await.map_err(|_| ())
    }

    /// Waits until it has exited by itself, and has not served.
    async fn failed(&mut self) -> Failure {
        if let Ok(address) = self.ready().await {
            panic!("the gateway started, at {address}");
        }
        let status = self.exited().await;
        Failure { code: status.code(), stderr: self.stderr.text() }
    }

    /// Waits until it has exited by itself.
    async fn exited(&mut self) -> ExitStatus {
        // The outputs end when the process ends, after all of them was read.
        within("the gateway to exit", async {
            self.stdout.closed().await;
            self.stderr.closed().await;
        })
        .await;
        self.child.wait().expect("a child can be waited for")
    }

    fn kill(&mut self) {
        // This fails if it has exited already, which is fine.
        let _ = self.child.kill();
        self.child.wait().expect("a child can be waited for");
    }

    fn output(&self) -> String {
        format!("{}{}", self.stdout.text(), self.stderr.text())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let output = self.output();
        if thread::panicking() {
            eprintln!("--- the gateway printed:\n{output}---");
            return;
        }
        // A child process that is still running would keep the outputs open.
        self.stdout.ended("standard output");
        self.stderr.ended("standard error");
        assert!(!output.contains("panicked at"), "the gateway panicked: {output}");
        // Whoever reads the log keeps one value of a name. Quotes within a value have a backslash before them.
        for line in output.lines().filter(|line| line.starts_with("{\"timestamp\":")) {
            for name in ["level", "message", "target"] {
                assert!(line.matches(&format!(",\"{name}\":")).count() <= 1, "`{name}` comes twice: {line}");
            }
        }
    }
}
