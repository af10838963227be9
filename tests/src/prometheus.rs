//! A Prometheus that scrapes gateways: Debian's `prometheus`, in a folder of its own, and its `promtool`.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server_process::ServerProcess;
use crate::wire::{Call, Connection, Reply};
use crate::within;

/// In its log once it listens, whatever address it was given.
const READY: &str = "msg=\"Listening on\" address=";

/// How often a condition is looked at.
const PACE: Duration = Duration::from_millis(100);

/// A running Prometheus. Dropping it kills it, and removes its data.
#[derive(Debug)]
pub struct Prometheus {
    address: SocketAddr,
    _process: ServerProcess,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts one that scrapes these gateways each second, as the job `countersign`, and has these alert rules.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn scraping(gateways: &[SocketAddr], rules: &str) -> Prometheus {
        let folder = tempfile::tempdir().expect("there is room for a temporary folder");
        let targets: Vec<String> = gateways.iter().map(ToString::to_string).collect();
        let configuration = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "scrape_configs": [{"job_name": "countersign", "static_configs": [{"targets": targets}]}],
            "rule_files": ["rules.yaml"],
        });
        // JSON is YAML.
        for (file, text) in [("prometheus.yaml", configuration.to_string()), ("rules.yaml", rules.to_owned())]
        {
            fs::write(folder.path().join(file), text).expect("a temporary folder can be written to");
        }
        let mut command = Command::new("prometheus");
        command.args(["--config.file=prometheus.yaml", "--storage.tsdb.path=data"]);
        command.args(["--web.listen-address=127.0.0.1:0"]).current_dir(folder.path()).env_clear();
        let (process, address) =
            ServerProcess::start("prometheus (Debian: `apt-get install prometheus`)", command, READY).await;
        let prometheus = Prometheus { address, _process: process, _folder: folder };
        let mut pace = tokio::time::interval(PACE);
        let ready = async {
            while prometheus.ask("/-/ready").await.status() != 200 {
                pace.tick().await;
            }
        };
        within("Prometheus to be ready", ready).await;
        prometheus
    }

    async fn ask(&self, path: &str) -> Reply {
        let asking = async { Connection::open(self.address).await?.send(&Call::get(path)).await };
        within("Prometheus", asking).await.expect("it answers")
    }

    /// The series that an expression comes to now: their labels and values.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn query(&self, expression: &str) -> Vec<(Value, String)> {
        let query: String = form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let answer = self.ask(&format!("/api/v1/query?query={query}")).await.json();
        let series = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{answer}"));
        let value = |of: &Value| of["value"][1].as_str().unwrap_or_default().to_owned();
        series.iter().map(|of| (of["metric"].clone(), value(of))).collect()
    }

    /// Waits until an expression comes to one series with this value.
    ///
    /// # Panics
    /// If it does not for a long time.
    pub async fn is(&self, expression: &str, value: &str) {
        self.until(expression, |series| matches!(series, [(_, found)] if found == value)).await;
    }

    /// Waits until an expression comes to what is wanted.
    ///
    /// # Panics
    /// If it does not for a long time.
    pub async fn until(&self, expression: &str, is_so: impl Fn(&[(Value, String)]) -> bool) {
        let mut pace = tokio::time::interval(PACE);
        let waiting = async {
            while !is_so(&self.query(expression).await) {
                pace.tick().await;
            }
        };
        within(expression, waiting).await;
    }
}

/// Runs `promtool` in this folder, with this on its standard input.
///
/// # Panics
/// If it cannot be run.
#[must_use]
pub fn promtool(folder: &Path, words: &[&str], input: &str) -> Output {
    let file = tempfile::NamedTempFile::new().expect("there is room for a temporary file");
    fs::write(file.path(), input).expect("it can be written to");
    let mut command = Command::new("promtool");
    command.args(words).current_dir(folder).stdin(Stdio::from(file.reopen().expect("it can be read")));
    command.output().expect("there is `promtool` (Debian: `apt-get install prometheus`)")
}
