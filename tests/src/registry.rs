//! A registry to push to and to fetch from: Debian's `docker-registry`, in a folder of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use serde_json::json;
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::ambient;
use crate::printed::Printed;
use crate::wire::{Call, Connection, Reply};
use crate::within;

/// In its log once it listens.
const READY: &str = "msg=\"listening on ";

/// Who may use a registry that wants a password.
pub const REGISTRY_USER: &str = "policy-author";

/// Their password, an example.
pub const REGISTRY_PASSWORD: &str = "correct-horse-battery-staple";

/// The two of them as `htpasswd -B` writes them.
const HTPASSWD: &str = "policy-author:$2y$05$Zq0vX1mT7uYc3LkR9wEbHesBb1WS1IvoDy9NbB2O3HLJtX85fafXq\n";

/// The two of them in an `Authorization` header.
const BASIC: &str = "Basic cG9saWN5LWF1dGhvcjpjb3JyZWN0LWhvcnNlLWJhdHRlcnktc3RhcGxl";

/// The media type of manifests; the registry returns only types that the request accepts.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A running registry. Dropping it kills it, and removes its data.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    process: Process,
    folder: TempDir,
}

impl Registry {
    /// Starts one that anybody may use.
    pub async fn start() -> Registry {
        Registry::start_with("").await
    }

    /// Starts one that only [`REGISTRY_USER`] may use.
    pub async fn start_with_password() -> Registry {
        Registry::start_with("auth: { htpasswd: { realm: registry, path: htpasswd } }\n").await
    }

    async fn start_with(auth: &str) -> Registry {
        let folder = tempfile::tempdir().expect("there is room for a temporary folder");
        let write = |name: &str, text: String| {
            fs::write(folder.path().join(name), text).expect("a temporary folder can be written to");
        };
        write("htpasswd", HTPASSWD.to_owned());
        write(
            "config.yml",
            format!(
                "version: 0.1\n\
                 log: {{ formatter: text }}\n\
                 storage: {{ filesystem: {{ rootdirectory: storage }} }}\n\
                 http: {{ addr: 127.0.0.1:0, secret: example }}\n{auth}"
            ),
        );
        let mut process = Process::spawn(&folder);
        let ready = process.ready.take().expect("it is waited for once");
        match within("the registry to start", ready).await {
            Ok(address) => Registry { address, process, folder },
            Err(_) => panic!("the registry did not start: {}", process.log.text()),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A repository in it, as references have it: `oci://127.0.0.1:PORT/path`.
    #[must_use]
    pub fn repository(&self, path: &str) -> String {
        format!("oci://{}/{path}", self.address)
    }

    /// A file in the format of Docker's `config.json` with this password for it.
    #[must_use]
    pub fn credentials(&self, password: &str) -> PathBuf {
        let folder = self.folder.path().join(password);
        let entry = json!({"username": REGISTRY_USER, "password": password});
        let file = folder.join("config.json");
        fs::create_dir_all(folder).expect("a temporary folder can be written to");
        fs::write(&file, json!({"auths": {self.address.to_string(): entry}}).to_string())
            .expect("a temporary folder can be written to");
        file
    }

    /// Its answer to `GET path`, with the password.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn get(&self, path: &str) -> Reply {
        let call = Call::get(path).header("authorization", BASIC).header("accept", MANIFEST);
        let asking = async { Connection::open(self.address).await?.send(&call).await };
        within("the registry", asking).await.expect("the registry answers")
    }

    /// Stops it: nothing answers at its address any more.
    pub fn stop(mut self) {
        self.process.kill();
    }
}

/// The process, and what it logs. Dropping it ends it.
#[derive(Debug)]
struct Process {
    child: Child,
    log: Printed,
    /// Gets the address once the registry logs it; is closed when the registry closes its output.
    ready: Option<oneshot::Receiver<SocketAddr>>,
}

impl Process {
    fn spawn(folder: &TempDir) -> Process {
        let mut command = Command::new(ambient::docker_registry());
        // Its variables would overrule its configuration.
        command.args(["serve", "config.yml"]).current_dir(folder.path()).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("docker-registry can be run");
        let (sender, ready) = oneshot::channel();
        let mut sender = Some(sender);
        let log = child.stderr.take().expect("its output is piped");
        let log = Printed::read(log, move |line| {
            let address = line.split_once(READY).and_then(|(_, rest)| rest.split('"').next());
            if let Some(address) = address.and_then(|address| address.parse().ok())
                && let Some(sender) = sender.take()
            {
                // This fails if the test has given up, which is fine.
                let _ = sender.send(address);
            }
        });
        Process { child, log, ready: Some(ready) }
    }

    fn kill(&mut self) {
        // This fails if it has exited already, which is fine.
        let _ = self.child.kill();
        self.child.wait().expect("a child can be waited for");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("--- the registry logged:\n{}---", self.log.text());
            return;
        }
        // A child process that is still running would keep the output open.
        self.log.ended("log");
    }
}
