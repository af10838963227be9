//! Redis servers that the tests start. They end with the test process, however that ends.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{LazyLock, Mutex};

use rustix::process::{Pid, Signal, kill_process};

/// Starts the program, says its process id, and ends it when the input ends: with the process that has the other end.
const GUARD: &str = r#"directory=$1; shift; sh -c 'echo "pid $$"; exec "$@"' sh "$@" & exec >/dev/null
    read -r _; kill -9 $!; rm -rf "$directory""#;

const MISSING: &str = "redis-server has ended, or is missing (Debian: `apt-get install redis-server`)";

/// A server of its own. Dropping it ends it.
pub(super) struct Server {
    pub(super) directory: PathBuf,
    pid: Pid,
    guard: Child,
    _input: Option<ChildStdin>,
    lines: Mutex<Receiver<String>>,
}

/// The server that tests share. Each has a namespace of its own in it.
pub(super) static SHARED: LazyLock<Server> = LazyLock::new(|| {
    let rules = documented_rules();
    let user = |name| ["--user", name, "on", ">secret", "~{test-*", "&{test-*"];
    // Who copies a store looks for its keys, too.
    let (gateway, copier) = (user("countersign"), user("copier"));
    Server::start(&[gateway.as_slice(), &rules, &copier, &rules, &["+scan"]].concat())
});

/// The commands that the documentation has users be allowed.
fn documented_rules() -> Vec<&'static str> {
    let documentation = include_str!("../../../../../docs/REDIS.md");
    let (_, rules) = documentation.split_once("ACL SETUSER countersign on >PASSWORD ~{cs:* &{cs:* ").unwrap();
    rules.lines().take_while(|line| *line != "```").flat_map(str::split_whitespace).collect()
}

impl Server {
    /// Starts a server that listens on a socket in its directory.
    pub(super) fn start(arguments: &[&str]) -> Server {
        Server::run(&[&["--port", "0"], arguments].concat())
    }

    /// Starts a server that listens on a port too.
    pub(super) fn on_a_port(arguments: &[&str]) -> (Server, u16) {
        Server::on_some_port(&["--port"], arguments)
    }

    /// The same, with TLS on the port.
    pub(super) fn on_a_tls_port(arguments: &[&str]) -> (Server, u16) {
        Server::on_some_port(&["--port", "0", "--tls-port"], arguments)
    }

    /// The port follows `option`. Somebody may take it, or the one beside it that a Cluster uses, after it was chosen; then
    /// another one is.
    fn on_some_port(option: &[&str], arguments: &[&str]) -> (Server, u16) {
        loop {
            let port = free_port();
            match Server::try_to_run(&[option, &[&port.to_string()], arguments].concat()) {
                Ok(server) => return (server, port),
                Err(log) if log.iter().any(|line| line.contains("Address already in use")) => {}
                Err(log) => panic!("{MISSING}: {log:?}"),
            }
        }
    }

    /// Starts a Sentinel that watches the server on this port, under the name `main`.
    pub(super) fn sentinel(watched: u16) -> (Server, u16) {
        let port = free_port();
        let directory = directory();
        let configuration = format!(
            "port {port}\nsentinel monitor main 127.0.0.1 {watched} 2\nsentinel down-after-milliseconds main 500\n\
             sentinel failover-timeout main 3000\n"
        );
        let path = directory.join("sentinel.conf");
        std::fs::write(&path, configuration).unwrap();
        let server = Server::guarded(directory, &[path.to_str().unwrap(), "--sentinel"]);
        server.wait_for("+monitor master main");
        (server, port)
    }

    fn run(arguments: &[&str]) -> Server {
        Server::try_to_run(arguments).unwrap_or_else(|log| panic!("{MISSING}: {log:?}"))
    }

    /// The error is the log of a server that ended.
    fn try_to_run(arguments: &[&str]) -> Result<Server, Vec<String>> {
        let directory = directory();
        let path = directory.to_str().unwrap();
        let socket = format!("{path}/redis.sock");
        let first = ["--unixsocket", &socket, "--dir", path, "--save", "", "--appendonly", "no"];
        let server = Server::guarded(directory.clone(), &[&first, arguments].concat());
        server.log_until("eady to accept connections")?;
        Ok(server)
    }

    fn guarded(directory: PathBuf, arguments: &[&str]) -> Server {
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "sh", directory.to_str().unwrap(), "redis-server"]).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut guard = command.spawn().unwrap();
        let input = guard.stdin.take();
        let output = BufReader::new(guard.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // Its output is read to the end, so that it never waits for a reader.
                let _wanted = sender.send(line);
            }
        });
        let pid = lines.recv().unwrap().strip_prefix("pid ").unwrap().parse().ok().and_then(Pid::from_raw);
        Server { directory, pid: pid.unwrap(), guard, _input: input, lines: Mutex::new(lines) }
    }

    /// Waits until its log says this.
    pub(super) fn wait_for(&self, text: &str) {
        self.log_until(text).unwrap_or_else(|log| panic!("{MISSING}: {log:?}"));
    }

    fn log_until(&self, text: &str) -> Result<(), Vec<String>> {
        let mut seen = Vec::new();
        let lines = self.lines.lock().unwrap();
        while let Ok(line) = lines.recv() {
            if line.contains(text) {
                return Ok(());
            }
            seen.push(line);
        }
        Err(seen)
    }

    pub(super) fn url(&self) -> String {
        format!("redis+unix://{}/redis.sock", self.directory.display())
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self._input.take());
        let _ended = self.guard.wait();
    }
}

fn directory() -> PathBuf {
    tempfile::Builder::new().prefix("redis").tempdir().unwrap().keep()
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    // A Cluster uses the port 10,000 above, too.
    if port < 55_000 { port } else { port - 10_000 }
}
