//! A registry to push to and to fetch from: Debian's `docker-registry`, in a folder of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::ambient;
use crate::server_process::ServerProcess;
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
    process: ServerProcess,
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
        let mut command = Command::new(ambient::docker_registry());
        // Its variables would overrule its configuration.
        command.args(["serve", "config.yml"]).current_dir(folder.path()).env_clear();
        let (process, address) = ServerProcess::start("the registry", command, READY).await;
        Registry { address, process, folder }
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
