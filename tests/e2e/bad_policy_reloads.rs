//! Faults of a policy set or a module are found before it is in force, whatever triggers the reload: it is refused with the
//! place of the fault, the previous set stays, and there is one audit entry and one count.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use countersign_tests::{Call, Click, Gateway, Home, Problem, digest};
use serde_json::{Value, json};

use crate::ledger::Ledger;

const ACTIONS: &str = "
  deploy:
    description: Deploy to staging
    timeout: 10m
    redact: { show: [replicas] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE], approvals: 1 }
      - use: override-guard
        with: { keys: [replicas] }
";

const ANOTHER_DIGEST: &str = "a module with another digest";

/// An invalid set, file by file.
struct Bad {
    what: &'static str,
    /// `policy-set.yaml`, if there is one.
    document: Option<String>,
    /// The files in `modules`.
    modules: BTreeMap<&'static str, Vec<u8>>,
    schemas: BTreeMap<&'static str, String>,
    /// A module that is invalid by itself, and can be sent alone.
    module: Option<Vec<u8>>,
    /// What the error must contain, the place first.
    error: Vec<&'static str>,
}

impl Bad {
    /// A valid set, to be changed to an invalid one.
    fn new(what: &'static str, error: &[&'static str]) -> Bad {
        Bad {
            what,
            document: Some(Home::new(ACTIONS).policy_set()),
            modules: ["quorum", "override-guard"].map(|name| (name, Home::built(name))).into(),
            schemas: BTreeMap::new(),
            module: None,
            error: error.to_vec(),
        }
    }

    fn replace(mut self, from: &str, to: &str) -> Bad {
        let document = self.document.take().expect("a document");
        assert!(document.contains(from), "{}: nothing to replace: {from}", self.what);
        self.document = Some(document.replacen(from, to, 1));
        self
    }

    /// With these bytes instead of quorum's, not pinned.
    fn swapped(mut self, bytes: Option<Vec<u8>>) -> Bad {
        self.modules.remove("quorum");
        self.modules.extend(bytes.map(|bytes| ("quorum", bytes)));
        self
    }

    /// With these bytes instead of quorum's, and pinned.
    fn pinned(self, bytes: Vec<u8>) -> Bad {
        let (before, after) = (digest(&Home::built("quorum")), digest(&bytes));
        let mut bad = self.replace(&before, &after).swapped(Some(bytes.clone()));
        bad.module = Some(bytes);
        bad
    }

    fn schema(mut self, action: &'static str, text: &str) -> Bad {
        self.schemas.insert(action, text.to_owned());
        self
    }

    /// Replaces the folder by it in one step, as a mounted volume is swapped.
    fn install(&self, mount: &Path, version: usize) {
        let name = format!("..{version}");
        let folder = mount.join(&name);
        for part in ["modules", "schemas"] {
            fs::create_dir_all(folder.join(part)).expect("folders");
        }
        if let Some(document) = &self.document {
            fs::write(folder.join("policy-set.yaml"), document).expect("written");
        }
        for (name, bytes) in &self.modules {
            fs::write(folder.join(format!("modules/{name}.wasm")), bytes).expect("written");
        }
        for (action, text) in &self.schemas {
            fs::write(folder.join(format!("schemas/{action}.json")), text).expect("written");
        }
        symlink(&name, mount.join("..data_tmp")).expect("linked");
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).expect("renamed");
    }
}

fn bad_sets() -> Vec<Bad> {
    let quorum = Home::built("quorum");
    let wat = |text: &str| wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"));
    let mut flipped = quorum.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let misbehaving = |with: &str| {
        let module = Home::built("misbehaving");
        let policy = format!("      - use: quorum\n        with: {with}\n");
        let sound = "      - use: quorum\n        with: { approvers: [U0ALICE], approvals: 1 }\n";
        let pin = format!("quorum: {}", digest(&quorum));
        Bad::new("a policy that fails", &["policy-set.yaml:"])
            .replace(sound, &policy)
            .replace(&pin, &format!("quorum: {}", digest(&module)))
            .swapped(Some(module))
    };
    let mut traps = misbehaving("{ at: admit, do: trap }");
    (traps.what, traps.error) = ("a trap at admission", vec!["policy-set.yaml:", "`deploy`", "trap"]);
    let mut loops = misbehaving("{ at: check-config, do: loop }");
    (loops.what, loops.error) = ("a loop in the check", vec!["policy-set.yaml:", "quorum", "fuel"]);
    let mut no_set = Bad::new("no policy set", &["policy-set.yaml", "cannot be read"]);
    no_set.document = None;
    vec![
        Bad::new("a typo", &["policy-set.yaml:", "polices", "`policies`"]).replace("    policies:\n", "    polices:\n"),
        Bad::new("a typo in a configuration", &["policy-set.yaml:", "aprovals"]).replace("approvals: 1", "aprovals: 1"),
        Bad::new("a configuration that its schema rejects", &["policy-set.yaml:", "/approvals"]).replace("approvals: 1", "approvals: one"),
        Bad::new("a configuration that its module rejects", &["policy-set.yaml:", "2 approvals cannot come from 1"]).replace("approvals: 1", "approvals: 2"),
        Bad::new("an unknown group", &["policy-set.yaml:", "@release-manager", "`release-managers`"]).replace("[U0ALICE]", "[\"@release-manager\"]"),
        Bad::new("no duration", &["policy-set.yaml:", "ten"]).replace("timeout: 10m\n", "timeout: ten\n"),
        Bad::new("a duration out of bounds", &["policy-set.yaml:", "99days"]).replace("timeout: 10m\n", "timeout: 99days\n"),
        Bad::new("a key twice", &["policy-set.yaml:", "timeout"]).replace("timeout: 10m\n", "timeout: 10m\n    timeout: 20m\n"),
        Bad::new("a module without a pin", &["policy-set.yaml:", "quorom", "`quorum`"]).replace("use: quorum", "use: quorom"),
        Bad::new("another version", &["policy-set.yaml:", "version"]).replace("version: 1", "version: 2"),
        Bad::new("an unknown field", &["policy-set.yaml:", "surprise"]).replace("version: 1", "version: 1\nsurprise: 1"),
        Bad::new("a digest of another kind", &["policy-set.yaml:", "sha256:"]).replace("sha256:", "sha512:"),
        Bad::new("no YAML", &["policy-set.yaml:"]).replace("actions:", "actions: ["),
        Bad::new("an open default", &["policy-set.yaml:", "allow"]).replace("unknown_action: deny", "unknown_action: allow"),
        Bad::new("nobody who must agree", &["policy-set.yaml:", "`deploy`", "unattended"])
            .replace("      - use: quorum\n        with: { approvers: [U0ALICE], approvals: 1 }\n", ""),
        Bad::new("an edit of what is hidden", &["policy-set.yaml:", "`deploy`", "replicas", "hides"]).replace("show: [replicas]", "show: [ref]"),
        Bad::new("a schema that forbids the edit", &["policy-set.yaml:", "replicas", "schema"])
            .schema("deploy", r#"{"type": "object", "additionalProperties": false, "properties": {"ref": {}}}"#),
        Bad::new("a rule about what is hidden and what can be edited", &["policy-set.yaml:", "replicas", "`/allOf/1/if`", "hides"])
            .schema("deploy", r#"{"allOf": [{}, {"if": {"properties": {"token": {"const": "x"}}}, "then": {"properties": {"replicas": {"maximum": 1}}}}]}"#),
        Bad::new("a schema of nothing", &["deploi", "`deploy`"]).schema("deploi", "{}"),
        Bad::new("a schema that is none", &["policy-set.yaml:", "`deploy`", "schema"]).schema("deploy", r#"{"type": "strnig"}"#),
        Bad::new("a schema that is no JSON", &["deploy.json", "malformed JSON"]).schema("deploy", "{"),
        Bad::new("a module that is missing", &["policy-set.yaml:", "`quorum`", "sha256:"]).swapped(None),
        Bad::new(ANOTHER_DIGEST, &["policy-set.yaml:", "`quorum`", "sha256:"]).swapped(Some(flipped)),
        Bad::new("a truncated module", &["policy-set.yaml:", "`quorum`"]).pinned(quorum[..quorum.len() / 2].to_vec()),
        Bad::new("text", &["policy-set.yaml:", "`quorum`", "no WebAssembly"]).pinned(b"no module".to_vec()),
        Bad::new("a core module", &["policy-set.yaml:", "`quorum`", "core WebAssembly module"]).pinned(wat("(module)")),
        Bad::new("no exports", &["policy-set.yaml:", "`quorum`", "export"]).pinned(wat("(component)")),
        Bad::new("imports", &["policy-set.yaml:", "`quorum`", "imports", "wasi:clocks/monotonic-clock"]).pinned(wat(
            r#"(component (import "wasi:clocks/monotonic-clock@0.2.0" (instance (export "now" (func (result u64))))))"#,
        )),
        Bad::new("a module that is too large", &["policy-set.yaml:", "`quorum`", "bytes"]).pinned([quorum.as_slice(), &vec![0; 3 << 20]].concat()),
        Bad::new("a description that loops", &["policy-set.yaml:", "`quorum`", "describe", "fuel"]).pinned(looping()),
        traps,
        loops,
        no_set,
    ]
}

/// A policy whose `describe` never ends.
fn looping() -> Vec<u8> {
    let mut bytes = Home::built("misbehaving");
    let at = bytes.windows(15).position(|window| window == b"describe: works").expect("the mark is in it");
    bytes[at..at + 15].copy_from_slice(b"describe: loops");
    bytes
}

/// A gateway on a folder that can be swapped in one step, with a valid set in it.
async fn gateway(watch: bool) -> Gateway {
    let home = Home::new(ACTIONS).administered().with("COUNTERSIGN_POLICY_WATCH", &watch.to_string());
    let mount = home.path("mounted");
    fs::create_dir(&mount).expect("a folder");
    for part in ["policy-set.yaml", "modules", "schemas"] {
        symlink(format!("..data/{part}"), mount.join(part)).expect("linked");
    }
    Bad::new("sound", &[]).install(&mount, 0);
    home.with("COUNTERSIGN_POLICIES", &mount.display().to_string()).start().await
}

/// Checks that the set was refused, in the history and elsewhere, and that the previous one is in force and works.
async fn check(gateway: &Gateway, bad: &Bad, source: &str, before: &str, refused: usize) -> Value {
    let what = bad.what;
    assert_eq!(gateway.policy().await, before, "{what}");
    let history = gateway.seen("policy-sets/history?limit=1").await;
    let last = &history["changes"][0];
    assert_eq!((&last["source"], &last["outcome"]), (&json!(source), &json!("failed")), "{what}: {last}");
    assert_eq!(last["from"], before, "{what}");
    let metrics = gateway.metrics().await;
    let failed = metrics.count("policy_reloads_total", &[("source", source), ("outcome", "failed")]);
    assert_eq!(failed, refused as u64, "{what}: each is counted once");
    assert_eq!(metrics.count("policy_reloads_total", &[]), failed, "{what}: and nothing else is");
    last["errors"].clone()
}

/// Checks that one error has the place and all the words.
fn assert_error(bad: &Bad, errors: &Value, place: &str) {
    let found = errors.as_array().expect("errors").iter().any(|error| {
        let (path, message) =
            (error["path"].as_str().unwrap_or_default(), error["message"].as_str().unwrap_or_default());
        let text = format!("{path}: {message}");
        let of_place = |part: &&&str| part.starts_with("policy-set.yaml");
        let words = bad.error.iter().filter(|part| !of_place(part)).all(|part| text.contains(part));
        let named = bad
            .error
            .iter()
            .filter(of_place)
            .all(|part| text.contains(&part.replace("policy-set.yaml", place)));
        words && named
    });
    assert!(found, "{}: {:?} is not in {errors}", bad.what, bad.error);
}

async fn at_the_end(gateway: Gateway, refused: usize) {
    let request = gateway.open("deploy").await;
    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    assert_eq!(gateway.ended(&request.token).await["status"], "approved");
    let ledger = Ledger::of(&gateway.kill());
    assert_eq!(ledger.count_of("policy_reload_failed"), refused);
    assert_eq!(ledger.count_of("policy_reloaded"), 1, "the start");
}

#[tokio::test]
async fn by_a_signal() {
    let gateway = gateway(false).await;
    let before = gateway.policy().await;
    let mut refused = 0;
    for bad in bad_sets() {
        bad.install(&gateway.home().path("mounted"), refused + 1);
        gateway.hang_up();
        refused += 1;
        gateway.logged("stays as it is", refused).await;
        assert_error(&bad, &check(&gateway, &bad, "sighup", &before, refused).await, "policy-set.yaml");
    }
    assert!(refused > 20);
    at_the_end(gateway, refused).await;
}

#[tokio::test]
async fn by_a_changed_folder() {
    let gateway = gateway(true).await;
    let before = gateway.policy().await;
    let mut refused = 0;
    for bad in bad_sets() {
        bad.install(&gateway.home().path("mounted"), refused + 1);
        refused += 1;
        gateway.logged("stays as it is", refused).await;
        assert_error(&bad, &check(&gateway, &bad, "file", &before, refused).await, "policy-set.yaml");
    }
    at_the_end(gateway, refused).await;
}

#[tokio::test]
async fn by_an_admins_reload() {
    let gateway = gateway(false).await;
    let before = gateway.policy().await;
    let mut refused = 0;
    for bad in bad_sets() {
        bad.install(&gateway.home().path("mounted"), refused + 1);
        let problem = gateway.admin("POST", "reload-policy", &json!({})).await.expect_err(bad.what);
        refused += 1;
        assert_eq!(problem.is(), (422, "invalid_policy_set"), "{}", bad.what);
        assert_error(&bad, &problem.body["errors"], "policy-set.yaml");
        assert_error(&bad, &check(&gateway, &bad, "api", &before, refused).await, "policy-set.yaml");
    }
    at_the_end(gateway, refused).await;
}

#[tokio::test]
async fn by_http() {
    let gateway = gateway(false).await;
    let before = gateway.policy().await;
    let put = async |bytes: &[u8]| {
        let call = Call::new("PUT", "/api/admin/modules").body("application/wasm", bytes);
        gateway.admin_call(call).await
    };
    let mut refused = 0;
    for bad in bad_sets() {
        // An invalid module is refused by itself; one that is too large is not even read.
        let problem = if let Some(module) = &bad.module {
            let problem = put(module).await.expect_err(bad.what);
            if problem.status == 413 {
                continue;
            }
            assert_eq!(problem.is(), (422, "invalid_module"), "{}", bad.what);
            let detail = problem.body["detail"].as_str().expect("a detail");
            // The error of a module alone has neither the set nor its name for the module.
            let words =
                bad.error.iter().filter(|part| !part.starts_with("policy-set.yaml") && **part != "`quorum`");
            for part in words {
                assert!(detail.contains(part), "{}: `{part}` is not in {detail}", bad.what);
            }
            problem
        } else {
            let sound = bad.modules.values().filter(|_| bad.what != ANOTHER_DIGEST);
            for module in sound {
                put(module).await.unwrap_or_else(|problem| panic!("{}: {problem:?}", bad.what));
            }
            let Some(problem) = store(&gateway, &bad).await else { continue };
            assert_eq!(problem.is(), (422, "invalid_policy_set"), "{}", bad.what);
            if bad.what != "a schema that is no JSON" {
                assert_error(&bad, &problem.body["errors"], "document");
            }
            problem
        };
        refused += 1;
        assert!(problem.body["errors"][0]["message"].is_string(), "{}: {problem:?}", bad.what);
        check(&gateway, &bad, "api", &before, refused).await;
    }
    assert!(refused > 20, "{refused}");
    let sets = gateway.seen("policy-sets").await;
    assert_eq!(sets["sets"].as_array().map(Vec::len), Some(1), "none of them is stored");
    at_the_end(gateway, refused).await;
}

/// Sends it as a set; `None` if it cannot be written as a document.
async fn store(gateway: &Gateway, bad: &Bad) -> Option<Problem> {
    // The store keeps every module, so a set that lacks one must name another.
    let document = bad.document.as_ref()?;
    let document = match bad.what {
        "a module that is missing" | ANOTHER_DIGEST => {
            document.replace(&digest(&Home::built("quorum")), &digest(bad.what.as_bytes()))
        }
        _ => document.clone(),
    };
    let mut schemas = serde_json::Map::new();
    for (action, text) in &bad.schemas {
        schemas.insert((*action).to_owned(), serde_json::from_str(text).ok()?);
    }
    let body = json!({"document": document, "schemas": schemas});
    Some(gateway.admin("POST", "policy-sets", &body).await.expect_err(bad.what))
}

/// A pipe waits for a writer when it is opened: a gateway that opened one would never read its folder again.
#[tokio::test]
async fn a_pipe_in_the_folder_is_refused_and_not_opened() {
    let gateway = Home::new(ACTIONS).administered().with("COUNTERSIGN_POLICY_WATCH", "false").start().await;
    let before = gateway.policy().await;
    let home = gateway.home();
    let mut refused = 0;
    for file in ["policy-set.yaml", "modules/other.wasm", "policy-set.yaml.sig", "policy-set.yaml.sha256"] {
        let (path, kept) = (home.path(&format!("policies/{file}")), home.path("kept"));
        let there = fs::rename(&path, &kept).is_ok();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .expect("a pipe");
        let problem = gateway.admin("POST", "reload-policy", &json!({})).await.expect_err(file);
        assert_eq!(problem.is(), (422, "invalid_policy_set"), "{file}");
        let error = problem.body["errors"][0].to_string();
        assert!(error.contains(file) && error.contains("it is not a regular file"), "{error}");
        gateway.hang_up();
        refused += 2;
        gateway.logged("stays as it is", refused).await;
        fs::remove_file(&path).expect("the pipe");
        if there {
            fs::rename(&kept, &path).expect("it was there");
        }
    }
    assert_eq!(gateway.policy().await, before);
    let answer = gateway.admin("POST", "reload-policy", &json!({})).await.expect("the folder is as it was");
    assert_eq!(answer["outcome"], "unchanged");
}

/// A text of some hundred bytes that stands for hundreds of millions of values.
#[tokio::test]
async fn alias_bombs_are_refused_and_keep_nobody_waiting() {
    let gateway = Home::new(ACTIONS).administered().start().await;
    let level = |number: u32| {
        format!("a{number}: &a{number} [{}]\n", vec![format!("*a{}", number - 1); 9].join(", "))
    };
    let bomb: String = std::iter::once("a0: &a0 [x]\n".to_owned()).chain((1..10).map(level)).collect();
    let body = json!({"document": bomb});
    let bombs = (0..16).map(|_| gateway.admin("POST", "policy-sets", &body));
    let bombs = futures_util::future::join_all(bombs);
    let healthy = async {
        for _ in 0..16 {
            assert_eq!(gateway.send(&Call::get("/healthz")).await.status(), 200);
        }
    };
    let (refused, ()) = tokio::join!(bombs, healthy);
    for problem in refused {
        let problem = problem.expect_err("a bomb");
        assert_eq!(problem.is(), (422, "invalid_policy_set"));
        assert!(
            problem.body["errors"].to_string().contains("aliases stand for more than"),
            "{}",
            problem.body
        );
    }
}
