//! The home of a gateway: a temporary folder with its policy set and its data, and its configuration.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::ambient;
use crate::audit_fields;
use crate::authority::{Certified, TlsClient};
use crate::command::{countersign, may_mount};
use crate::redis::Redis;
use crate::slack::SIGNING_SECRET;

const MODULES: [&str; 4] = ["quorum", "persona-gate", "override-guard", "misbehaving"];

/// The admin token of gateways with [`Home::administered`].
pub const ADMIN_TOKEN: &str = "correct-horse-battery-staple";

/// The embedded store.
const DATABASE: &str = "data/countersign.db";

/// The file that says what the wall clock shows.
const CLOCK: &str = "clock";

/// Dropping it checks the audit log that gateways have left in it.
#[derive(Debug)]
struct Folder(TempDir);

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            audit_fields::check(&self.0.path().join(DATABASE));
        }
    }
}

/// A folder that a gateway can be started in, again and again.
#[derive(Debug)]
pub struct Home {
    folder: Folder,
    pub(crate) variables: BTreeMap<String, String>,
    /// How the tests call the gateway, if it speaks TLS.
    pub(crate) tls: Option<TlsClient>,
    /// How many file descriptors the gateway may have, if not as many as the tests.
    pub(crate) descriptors: Option<u32>,
    /// What a shell mounts for the gateway alone, before it starts.
    pub(crate) mounts: Option<String>,
    /// The Redis that this home has for itself, if the tests are run with one.
    pub(crate) redis: Option<Arc<Redis>>,
}

impl Home {
    /// A home whose policy set has these `actions`: YAML, indented by any number of spaces.
    #[must_use]
    pub fn new(actions: &str) -> Home {
        let home = Home::empty();
        home.set_actions(actions);
        home
    }

    /// A home with the policy set, the modules and the schemas of an entry of the cookbook.
    ///
    /// # Panics
    /// If it was not built.
    #[must_use]
    pub fn cookbook(entry: &str) -> Home {
        Home::of(&ambient::example(entry))
    }

    /// A home with a copy of the policy set, the modules and the schemas in `folder`.
    ///
    /// # Panics
    /// If there are none.
    #[must_use]
    pub fn of(folder: &Path) -> Home {
        let home = Home::empty();
        let mut files = Vec::new();
        collect(folder, &mut files);
        for (path, bytes) in files {
            let path = path.strip_prefix(folder).expect("it was found in the folder");
            home.write(&format!("policies/{}", path.display()), &bytes);
        }
        home
    }

    fn empty() -> Home {
        let folder = tempfile::tempdir().expect("there is room for a temporary folder");
        let home = Home {
            folder: Folder(folder),
            variables: BTreeMap::new(),
            tls: None,
            descriptors: None,
            mounts: None,
            redis: None,
        }
        .with("COUNTERSIGN_LISTEN", "127.0.0.1:0")
        .with("SLACK_SIGNING_SECRET", SIGNING_SECRET)
        // Homes share compiled modules, so they share the secret that authenticates them; see `alone`.
        .with("COUNTERSIGN_SECRET", &"5e".repeat(32))
        .with("COUNTERSIGN_CACHE_DIR", &ambient::cache().display().to_string())
        // A busy machine must not fail a policy; fuel stops one that loops.
        .with("COUNTERSIGN_POLICY_DEADLINE_MS", "10000")
        // Tests create more requests, and faster, than callers do; the tests of the limits set their own.
        .with("RATE_LIMIT_CAPACITY", "1000000")
        .with("RATE_LIMIT_REFILL_PER_SEC", "1000000")
        .with("COUNTERSIGN_MAX_OPEN_REQUESTS", "1000000");
        let policies = home.path("policies");
        let store = format!("sqlite:{}", home.path(DATABASE).display());
        for folder in ["policies/modules", "policies/schemas", "data"] {
            fs::create_dir_all(home.path(folder)).expect("folders can be made in a temporary folder");
        }
        home.with("COUNTERSIGN_POLICIES", &policies.display().to_string()).with("COUNTERSIGN_STORE", &store)
    }

    /// A home that shares nothing with others: the gateway makes its own secret, and compiles the modules itself.
    #[must_use]
    pub fn alone(actions: &str) -> Home {
        Home::new(actions).without("COUNTERSIGN_SECRET").without("COUNTERSIGN_CACHE_DIR")
    }

    /// With admins.
    #[must_use]
    pub fn administered(self) -> Home {
        self.with("ADMIN_TOKEN", ADMIN_TOKEN)
    }

    /// With this variable in the gateway's environment; it replaces an earlier one.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Home {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Without this variable.
    #[must_use]
    pub fn without(mut self, name: &str) -> Home {
        self.variables.remove(name);
        self
    }

    /// With TLS for callers: a certificate of this authority, which is trusted by `client`.
    #[must_use]
    pub fn with_tls(mut self, certified: &Certified, client: TlsClient) -> Home {
        self.write("server.pem", certified.certificate.as_bytes());
        self.write("server.key", certified.key.as_bytes());
        self.tls = Some(client);
        self.with_file("TLS_CERT_FILE", "server.pem").with_file("TLS_KEY_FILE", "server.key")
    }

    /// With a wall clock that [`Gateway::set_clock`](crate::Gateway::set_clock) sets, and a monotonic clock that it leaves.
    ///
    /// # Panics
    /// If Debian's faketime is not installed.
    #[must_use]
    pub fn with_settable_clock(self) -> Home {
        self.set_clock(0);
        self.with("LD_PRELOAD", &ambient::libfaketime())
            .with_file("FAKETIME_TIMESTAMP_FILE", CLOCK)
            // It reads the file at each call.
            .with("FAKETIME_NO_CACHE", "1")
            .with("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .with("NO_FAKE_STAT", "1")
    }

    /// Sets the wall clock to this many seconds ahead of the machine's.
    pub fn set_clock(&self, seconds: i64) {
        // Renamed into its place, so that it is never read half.
        let new = format!("{CLOCK}.new");
        self.write(&new, format!("{seconds:+}").as_bytes());
        fs::rename(self.path(&new), self.path(CLOCK)).expect("files can be renamed in a temporary folder");
    }

    /// With the path of a file of this home in this variable.
    #[must_use]
    pub fn with_file(self, variable: &str, name: &str) -> Home {
        let path = self.path(name).display().to_string();
        self.with(variable, &path)
    }

    /// With at most this many file descriptors for the gateway.
    #[must_use]
    pub const fn with_descriptors(mut self, most: u32) -> Home {
        self.descriptors = Some(most);
        self
    }

    /// With what these words of a shell mount, for the gateway alone; `None` if this machine does not allow it.
    #[must_use]
    pub fn with_mounts(mut self, mounts: &str) -> Option<Home> {
        may_mount().then(|| {
            self.mounts = Some(mounts.to_owned());
            self
        })
    }

    /// With this access file.
    #[must_use]
    pub fn with_access(self, file: &str) -> Home {
        self.write("access.yaml", file.as_bytes());
        let path = self.path("access.yaml").display().to_string();
        self.with("COUNTERSIGN_ACCESS", &path)
    }

    /// With this JSON Schema for an action's parameters.
    #[must_use]
    pub fn with_schema(self, action: &str, schema: &Value) -> Home {
        self.write(&format!("policies/schemas/{action}.json"), schema.to_string().as_bytes());
        self
    }

    /// Writes a policy set with these actions, over any earlier one, pinned to the modules that they use.
    pub fn set_actions(&self, actions: &str) {
        let mut pins = String::new();
        for module in MODULES.iter().filter(|module| actions.contains(&format!("use: {module}"))) {
            let bytes = fs::read(ambient::module(module)).expect("the module was built");
            pins.push_str(&format!("  {module}: {}\n", digest(&bytes)));
            self.write(&format!("policies/modules/{module}.wasm"), &bytes);
        }
        self.set_policy_set(&format!(
            "version: 1\n\
             modules:\n{pins}\
             groups:\n\
             \x20 release-managers: [U0RM1, U0RM2]\n\
             \x20 super-approvers: [U0ADMIN]\n\
             defaults: {{ timeout: 10m, channel: C0PRIVATE, unknown_action: deny }}\n\
             actions:\n{actions}"
        ));
    }

    /// Replaces a module by these bytes, and pins the policy set to them.
    ///
    /// # Panics
    /// If the policy set does not use the module.
    pub fn pin(&self, module: &str, bytes: &[u8]) {
        let path = format!("policies/modules/{module}.wasm");
        let before = fs::read(self.path(&path)).expect("the policy set uses the module");
        let set = self.policy_set().replace(&digest(&before), &digest(bytes));
        self.write(&path, bytes);
        self.set_policy_set(&set);
    }

    /// Replaces a part of the policy set: to shorten a time, for instance.
    ///
    /// # Panics
    /// If the part does not occur exactly once.
    #[must_use]
    pub fn change(self, part: &str, by: &str) -> Home {
        let set = self.policy_set();
        assert_eq!(set.matches(part).count(), 1, "`{part}` in {set}");
        self.set_policy_set(&set.replace(part, by));
        self
    }

    /// Writes this text as the policy set, as it is.
    pub fn set_policy_set(&self, text: &str) {
        self.write("policies/policy-set.yaml", text.as_bytes());
    }

    /// A module that was built, with its bytes.
    #[must_use]
    pub fn built(module: &str) -> Vec<u8> {
        fs::read(ambient::module(module)).expect("the module was built")
    }

    /// The policy set's text.
    #[must_use]
    pub fn policy_set(&self) -> String {
        fs::read_to_string(self.path("policies/policy-set.yaml")).expect("the policy set was written")
    }

    /// Writes a file, by its path in the home.
    pub fn write(&self, path: &str, content: &[u8]) {
        fs::write(self.path(path), content).expect("files can be written in a temporary folder");
    }

    /// Runs `countersign policy` with these words, of which those that begin with `./` are paths in the home.
    #[must_use]
    pub fn policy(&self, words: &[&str]) -> Output {
        let words = words.iter().map(|word| match word.strip_prefix("./") {
            Some(file) => self.path(file).display().to_string(),
            None => (*word).to_owned(),
        });
        countersign(["policy".to_owned()].into_iter().chain(words))
    }

    /// Runs the program with these words and with the settings that a gateway would have here.
    ///
    /// # Panics
    /// If it cannot be run.
    #[must_use]
    pub fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(ambient::binary());
        command.args(words).current_dir(self.path(".")).stdin(Stdio::null());
        command.env_clear().env("HOME", self.path(".")).envs(&self.variables);
        command.envs(ambient::counters());
        command.output().expect("the program can be run")
    }

    /// The same as [`Home::policy`] for a command that must succeed; returns its output.
    ///
    /// # Panics
    /// If it fails.
    pub fn policy_done(&self, words: &[&str]) -> String {
        let output = self.policy(words);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// A path in the home.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.0.path().join(path)
    }

    /// If the tests are run with Redis (`COUNTERSIGN_TEST_STORE=redis`), the home gets one for itself, unless the test has
    /// chosen a store.
    pub(crate) async fn choose_store(&mut self) {
        if self.redis.is_some() || ambient::variable("COUNTERSIGN_TEST_STORE").as_deref() != Some("redis") {
            return;
        }
        let embedded = format!("sqlite:{}", self.path("data/countersign.db").display());
        // What makes its own secret is about the embedded store.
        if self.variables.get("COUNTERSIGN_STORE") != Some(&embedded)
            || !self.variables.contains_key("COUNTERSIGN_SECRET")
        {
            return;
        }
        let redis = Arc::new(Redis::start().await);
        self.variables.insert("COUNTERSIGN_STORE".to_owned(), redis.url());
        let spool = self.path("spool").display().to_string();
        self.variables.insert("COUNTERSIGN_SPOOL_DIR".to_owned(), spool);
        let receipts = self.path("receipts.key").display().to_string();
        if !self.path("receipts.key").exists() {
            let made =
                countersign(["receipt", "rotate-keys", "--receipt-keys", &receipts, "--after-sec", "0"]);
            assert!(made.status.success(), "{made:?}");
        }
        self.variables.insert("COUNTERSIGN_RECEIPT_KEYS".to_owned(), receipts);
        self.redis = Some(redis);
    }

    /// The address of the Redis that this home has for itself, if the tests are run with one.
    #[must_use]
    pub fn redis(&self) -> Option<String> {
        self.redis.as_ref().map(|redis| redis.url())
    }

    /// Every file in the home, with its bytes, and every file of the Redis that it has for itself.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        collect(self.folder.0.path(), &mut files);
        if let Some(redis) = &self.redis {
            collect(redis.folder(), &mut files);
        }
        files
    }
}

/// The action `deploy` of a policy set, which needs so many approvals of three people.
#[must_use]
pub fn deploy(approvals: u32) -> String {
    format!(
        "
  deploy:
    description: Deploy to production
    timeout: 10m
    policies:
      - use: quorum
        with: {{ approvers: [U0ALICE, U0BOB, U0CAROL], approvals: {approvals} }}
"
    )
}

/// The digest of a module, as a policy set pins it.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

pub(crate) fn collect(folder: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.is_file() {
            let bytes = fs::read(&path).expect("the file can be read");
            files.push((path, bytes));
        }
    }
}
