//! `countersign ask` against a running gateway: what people decide, and whatever goes wrong on the way.

mod credentials;
mod decisions;
mod failures;
mod signals;

use std::path::Path;

use countersign_tests::{Ended, Gateway, Relay, Running};
use tempfile::TempDir;

const ACTIONS: &str = "
  deploy:
    description: Deploy a service
    timeout: 10m
    redact: { hide: [password] }
    consume: required
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB] }
  hurry:
    description: Deploy at once
    timeout: 1s
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
  scale:
    description: Scale a service
    timeout: 10m
    redact: { hide: [] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
      - use: override-guard
        with: { keys: [ref, replicas], max_keys: 2, max_chars: 20 }
";

/// A hidden parameter.
const PASSWORD: &str = "hunter2-and-more";

/// Whoever asks: a folder to work in, and the way to the gateway.
struct Asker {
    folder: TempDir,
    url: String,
}

impl Asker {
    fn new(url: &str) -> Asker {
        Asker { folder: tempfile::tempdir().expect("a folder"), url: url.to_owned() }
    }

    fn of(gateway: &Gateway) -> Asker {
        Asker::new(&format!("http://{}", gateway.address()))
    }

    fn through(relay: &Relay) -> Asker {
        Asker::new(&relay.url())
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What a file in the folder holds, if there is one.
    fn file(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.path().join(name)).ok()
    }

    /// Starts `countersign ask ACTION` with these further words.
    fn ask(&self, action: &str, more: &[&str]) -> Running {
        self.ask_with(&[], action, more)
    }

    fn ask_with(&self, variables: &[(&str, &str)], action: &str, more: &[&str]) -> Running {
        let password = format!("password={PASSWORD}");
        let words =
            ["ask", action, "--param", "ref=v1.2.3", "--param-json", "replicas=2", "--param", &password];
        let rest = ["--repo", "acme/shop", "--requester", "slack:U0REQ", "--why", "Ship the fix"];
        self.run(variables, &[&words[..], &rest[..], more].concat())
    }

    /// Starts the program with these words.
    fn run(&self, variables: &[(&str, &str)], words: &[&str]) -> Running {
        let url = ("COUNTERSIGN_URL", self.url.as_str());
        Running::start(self.path(), words, &[&[url], variables].concat(), "")
    }
}

/// A command that leaves a mark that it was run.
const RUN: [&str; 4] =
    ["--", "sh", "-c", "echo \"$COUNTERSIGN_PARAM_REF $COUNTERSIGN_PARAM_REPLICAS\" >> ran"];

/// It ended with this exit code and said this, and did not say what is hidden; the command was not run.
fn not_run(asker: &Asker, ended: &Ended, code: i32, said: &str) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    assert!(ended.stderr.contains(said), "`{said}`: {ended:?}");
    assert_eq!(asker.file("ran"), None, "{ended:?}");
    keeps_secrets(ended);
}

/// Nothing that it printed holds what is hidden.
fn keeps_secrets(ended: &Ended) {
    assert!(!ended.stdout.contains(PASSWORD) && !ended.stderr.contains(PASSWORD), "{ended:?}");
}
