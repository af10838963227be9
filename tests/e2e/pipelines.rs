//! What pipelines run: the steps of the action for GitHub and of the component for GitLab, and the recipes for other systems,
//! each as it is written, against a running gateway.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use countersign_tests::{
    ApiKey, Click, Fault, Gateway, Home, Issuer, Relay, SigningKey, binary, counters, digest, install_script,
    project, variable,
};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;
use tokio::task::JoinHandle;

const ACTIONS: &str = "
  deploy_web:
    description: Deploy the web shop
    timeout: 10m
    redact: { hide: [] }
    consume: required
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
  terraform_apply:
    description: Apply a plan
    timeout: 10m
    redact: { hide: [] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
";

/// The version in the names of the tarballs.
const VERSION: &str = "9.9.9";

/// A gateway and a job's folder.
struct Pipeline {
    gateway: Gateway,
    key: ApiKey,
    /// A token of the job's.
    token: String,
    _issuer: Issuer,
    folder: TempDir,
}

/// The tarball of a release.
struct Release {
    url: String,
    sha256: String,
}

impl Pipeline {
    async fn new() -> Pipeline {
        let key = ApiKey::new("pipeline");
        let signing = SigningKey::es256("k1");
        let issuer = Issuer::start(&[&signing]).await;
        let mut claims = issuer.claims();
        claims["repository_id"] = "4711".into();
        claims["actor_id"] = "583231".into();
        let token = signing.token(&claims);
        let access = format!(
            "version: 1\nissuers:\n  ci: {{ issuer: \"{}\", audience: countersign }}\ncallers:\n  \
             pipeline:\n    keys:\n      {}\n    requester: machine\n    actions: [\"*\"]\n  \
             job:\n    oidc: {{ issuer: ci, claims: {{ repository_id: \"4711\" }} }}\n    \
             requester: {{ source: github, id: \"{{actor_id}}\" }}\n    actions: [deploy_web]\n\
             people:\n  dana: {{ slack: U0DANA, github: \"583231\" }}\n",
            issuer.url(),
            key.line
        );
        let gateway = Home::new(ACTIONS).with_access(&access).administered().start().await;
        let folder = tempfile::tempdir().expect("a folder");
        Pipeline { gateway, key, token, _issuer: issuer, folder }
    }

    fn url(&self) -> String {
        format!("http://{}", self.gateway.address())
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Packs the program.
    fn release(&self) -> Release {
        let name = format!("countersign-{VERSION}-{}-linux-gnu", std::env::consts::ARCH);
        let root = self.path().join(&name).join("bin");
        fs::create_dir_all(&root).expect("a folder");
        std::os::unix::fs::symlink(binary(), root.join("countersign")).expect("a link");
        let packed = Command::new("tar")
            // Unstripped, it is large; how small it gets is nothing here.
            .args(["--create", "--use-compress-program", "gzip -1", "--dereference"])
            .args(["--file", "release.tar.gz", &name])
            .current_dir(self.path())
            .status();
        assert!(packed.expect("tar runs").success());
        fs::remove_dir_all(self.path().join(&name)).expect("removed");
        let bytes = fs::read(self.path().join("release.tar.gz")).expect("packed");
        let sha256 = digest(&bytes).trim_start_matches("sha256:").to_owned();
        let url = format!("file://{}", self.path().join("release.tar.gz").display());
        Release { url, sha256 }
    }

    /// A program of the job's, in its folder and on its path.
    fn program(&self, name: &str, script: &str) {
        install_script(&self.path().join(name), &format!("#!/bin/sh\n{script}\n"));
    }

    /// A command of the job, with these variables and no others but the credentials.
    fn command(&self, words: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(words[0]);
        let path = variable("PATH").expect("there is a path");
        let program = binary().parent().expect("it is in a folder").display().to_string();
        command
            .args(&words[1..])
            .current_dir(self.path())
            .env_clear()
            .env("PATH", format!("{}:{program}:{path}", self.path().display()))
            .env("HOME", "/nonexistent")
            .env("TMPDIR", self.path())
            .env("COUNTERSIGN_URL", self.url())
            .env("COUNTERSIGN_API_KEY", &self.key.secret)
            .envs(counters())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end; if it asks, `decide` is done with the request.
    async fn decided(&self, mut command: Command, decide: fn(&str) -> Click) -> Output {
        let mut running = tokio::task::spawn_blocking(move || command.output().expect("it runs"));
        let id = self.asked(&mut running).await;
        self.gateway.click_ok(&decide(&id)).await;
        running.await.expect("it does not panic")
    }

    /// Runs this as a system of pipelines does, as a file; once somebody is asked, and then `meanwhile` has come true, its
    /// shell is signalled, and nothing else. Returns the request and what has come of it.
    async fn cancelled(
        &self,
        mut command: Command,
        signal: Signal,
        meanwhile: impl AsyncFnOnce(&str),
    ) -> (String, Output) {
        let child = command.spawn().expect("it runs");
        let shell = Pid::from_child(&child);
        let mut running = tokio::task::spawn_blocking(|| child.wait_with_output().expect("it runs"));
        let id = self.asked(&mut running).await;
        meanwhile(&id).await;
        rustix::process::kill_process(shell, signal).expect("it runs");
        let ended = countersign_tests::within("it to end", running).await;
        (id, ended.expect("it does not panic"))
    }

    /// The request that is open, once it is.
    async fn asked(&self, running: &mut JoinHandle<Output>) -> String {
        let asked = countersign_tests::within("a request", async {
            loop {
                let open = self.gateway.seen("requests?status=open").await;
                if let Some(id) = open["requests"][0]["requestId"].as_str() {
                    break id.to_owned();
                }
                tokio::task::yield_now().await;
            }
        });
        tokio::select! {
            id = asked => id,
            ended = running => panic!("it ended before anybody was asked: {ended:?}"),
        }
    }

    fn ran(&self) -> Option<String> {
        fs::read_to_string(self.path().join("ran")).ok()
    }
}

fn approve(request: &str) -> Click {
    Click::approve("U0ALICE", request)
}

fn deny(request: &str) -> Click {
    Click::deny("U0ALICE", request)
}

/// The script that follows this line of a YAML file, without its indentation.
fn script(text: &str, begins: &str, nth: usize) -> String {
    let mut blocks = text.split(begins).skip(nth + 1);
    let block = blocks.next().expect("there is such a block");
    let lines: Vec<&str> = block.lines().skip(1).collect();
    let indent = lines[0].len() - lines[0].trim_start().len();
    let inside = lines
        .iter()
        .take_while(|line| line.trim().is_empty() || line.len() - line.trim_start().len() >= indent);
    inside.map(|line| format!("{}\n", line.get(indent..).unwrap_or_default())).collect()
}

fn succeeded(output: &Output) {
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn the_action_installs_what_is_pinned_and_asks() {
    let pipeline = Pipeline::new().await;
    let action = fs::read_to_string(project("deploy/github-action/action.yml")).expect("there is an action");
    let (install, ask) = (script(&action, "      run: |", 0), script(&action, "      run: |", 1));
    let temp = pipeline.path().display().to_string();
    let file = |name: &str| pipeline.path().join(name).display().to_string();
    let (release, environment, output) = (pipeline.release(), file("environment"), file("output"));
    let installed = |sha256: &str, version: &str| {
        let variables = [
            ("VERSION", version),
            ("SHA256", sha256),
            ("TARBALL", release.url.as_str()),
            ("RUNNER_TEMP", temp.as_str()),
            ("GITHUB_OUTPUT", environment.as_str()),
        ];
        pipeline
            .command(&["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", &install], &variables)
            .output()
    };
    for (sha256, version) in
        [("0".repeat(64).as_str(), VERSION), ("sha256:x", VERSION), (&release.sha256, "$(id)")]
    {
        let refused = installed(sha256, version).expect("bash runs");
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(!Path::new(&environment).exists(), "nothing was installed");
    }
    succeeded(&installed(&release.sha256, VERSION).expect("bash runs"));
    let installed = fs::read_to_string(&environment).expect("written");
    let program = installed.trim().strip_prefix("program=").expect("the program").to_owned();

    let github = Relay::start(None).await;
    github.fault("/token?api-version=2&audience=countersign", {
        Fault::answer(
            "200 OK",
            "application/json",
            &format!("{{\"count\":1,\"value\":\"{}\"}}", pipeline.token),
        )
    });
    let runner = format!("{}/token?api-version=2", github.url());
    let asking = |run: &str| {
        let variables = [
            ("PROGRAM", program.as_str()),
            ("ACTION", "deploy_web"),
            ("PARAMS", "ref=v1 $(touch pwned)\n\nservice=web\n"),
            ("RUN", run),
            ("WHY", ""),
            ("TIMEOUT", "5m"),
            ("JWKS", ""),
            ("CA_FILE", ""),
            ("RUNNER_TEMP", temp.as_str()),
            ("GITHUB_OUTPUT", output.as_str()),
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_REPOSITORY", "acme/web"),
            ("GITHUB_RUN_ID", "77"),
            ("GITHUB_WORKFLOW", "deploy"),
            ("GITHUB_EVENT_NAME", "push"),
            ("GITHUB_SERVER_URL", "https://github.com"),
            ("GITHUB_REF_NAME", "main"),
            ("GITHUB_ACTOR", "dana-d"),
            ("ACTIONS_ID_TOKEN_REQUEST_URL", runner.as_str()),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "right"),
        ];
        fs::write(pipeline.path().join("ask.sh"), &ask).expect("written");
        let mut command =
            pipeline.command(&["bash", "--noprofile", "--norc", "-eo", "pipefail", "ask.sh"], &variables);
        // What a job with `id-token: write` has, in place of a key.
        command.env_remove("COUNTERSIGN_API_KEY");
        command
    };
    let run = "echo \"$COUNTERSIGN_PARAM_REF in $COUNTERSIGN_PARAM_SERVICE\" >> ran";
    let denied = pipeline.decided(asking(run), deny).await;
    assert_eq!((denied.status.code(), pipeline.ran()), (Some(3), None), "{denied:?}");
    succeeded(&pipeline.decided(asking(run), approve).await);
    assert_eq!(pipeline.ran().as_deref(), Some("v1 $(touch pwned) in web\n"));
    assert!(!pipeline.path().join("pwned").exists());
    let receipt = fs::read_to_string(&output).expect("written");
    // Each run has said before it asked where a receipt would be.
    let receipt = receipt.lines().last().and_then(|line| line.strip_prefix("receipt=")).expect("a receipt");
    assert!(fs::read_to_string(receipt).expect("written").split('.').count() == 3);
    // Without anything to run it only gates.
    succeeded(&pipeline.decided(asking(""), approve).await);
    let (id, ended) = pipeline.cancelled(asking(""), Signal::INT, async |_| {}).await;
    assert_eq!(ended.status.code(), Some(5), "{ended:?}");
    assert_eq!(pipeline.gateway.seen(&format!("requests/{id}")).await["status"], "cancelled");
}

#[tokio::test]
async fn the_component_installs_what_is_pinned_and_asks() {
    let pipeline = Pipeline::new().await;
    let template =
        fs::read_to_string(project("deploy/gitlab-component/template.yml")).expect("there is a template");
    let job = script(&template, "    - |", 0);
    let release = pipeline.release();
    let running = |sha256: &str| {
        let variables = [
            ("COUNTERSIGN_ID_TOKEN", pipeline.token.as_str()),
            ("ASK_ACTION", "deploy_web"),
            ("ASK_PARAMS", "ref=v1 $(touch pwned) `touch pwned`\nservice=web"),
            ("ASK_RUN", "echo \"$COUNTERSIGN_PARAM_REF in $COUNTERSIGN_PARAM_SERVICE\" >> ran"),
            ("ASK_TIMEOUT", ""),
            ("ASK_VERSION", VERSION),
            ("ASK_SHA256", sha256),
            ("ASK_TARBALL", release.url.as_str()),
            ("GITLAB_CI", "true"),
            ("CI_PROJECT_PATH", "acme/web"),
            ("CI_PIPELINE_ID", "9"),
            ("CI_COMMIT_BRANCH", "main"),
            ("CI_COMMIT_TITLE", "More disks"),
        ];
        // From a file, as it is run: the last command of `-c` may take the shell's place by itself.
        fs::write(pipeline.path().join("job.sh"), &job).expect("written");
        let mut command = pipeline.command(&["sh", "job.sh"], &variables);
        command.env_remove("COUNTERSIGN_API_KEY");
        command
    };

    let refused = running(&"0".repeat(64)).output().expect("sh runs");
    assert_eq!((refused.status.code(), pipeline.ran()), (Some(2), None), "{refused:?}");
    let denied = pipeline.decided(running(&release.sha256), deny).await;
    assert_eq!((denied.status.code(), pipeline.ran()), (Some(3), None), "{denied:?}");
    succeeded(&pipeline.decided(running(&release.sha256), approve).await);
    assert_eq!(pipeline.ran().as_deref(), Some("v1 $(touch pwned) `touch pwned` in web\n"));
    assert!(!pipeline.path().join("pwned").exists());
    let (id, ended) = pipeline.cancelled(running(&release.sha256), Signal::TERM, async |_| {}).await;
    assert_eq!(ended.status.code(), Some(5), "{ended:?}");
    assert_eq!(pipeline.gateway.seen(&format!("requests/{id}")).await["status"], "cancelled");
}

#[tokio::test]
async fn recipes_run_as_they_are_written() {
    let pipeline = Pipeline::new().await;
    let recipes = fs::read_to_string(project("docs/RECIPES.md")).expect("there are recipes");
    pipeline.program("deploy.sh", "echo \"deployed $1\" >> ran");
    pipeline.program(
        "terraform",
        "case $1 in plan) echo a plan > \"$3\" ;; show) echo 'Plan: 1 to add, 0 to change, 0 to destroy.' ;; \
         apply) [ ! -e slow ] || { trap 'echo interrupted >> ran; exit 1' TERM; echo > applying; \
         while :; do sleep 0.05; done; }; echo \"applied $3\" >> ran ;; esac",
    );
    pipeline.program("git", "echo 0f1e2d3");
    let variables = [
        ("GIT_COMMIT", "v1"),
        ("JOB_NAME", "deploy"),
        ("BUILD_NUMBER", "12"),
        ("BUILD_SOURCEVERSION", "v2"),
        ("BUILD_REPOSITORY_NAME", "acme/web"),
        ("BUILD_REQUESTEDFORID", "5b1"),
        ("BUILD_BUILDNUMBER", "20270115.1"),
        ("BUILD_DEFINITIONNAME", "web"),
    ];
    let mut expected = String::new();
    for (recipe, ran) in
        [("jenkins", "deployed v1"), ("terraform", "applied plan.tfplan"), ("azure", "deployed v2")]
    {
        let block = recipes.split(&format!("```sh {recipe}\n")).nth(1).expect("there is such a recipe");
        let block = block.split("```").next().expect("it ends");
        let denied = pipeline.decided(pipeline.command(&["sh", "-ec", block], &variables), deny).await;
        assert_eq!(denied.status.code(), Some(3), "{recipe}: {denied:?}");
        assert_eq!(pipeline.ran().unwrap_or_default(), expected, "{recipe}");
        succeeded(&pipeline.decided(pipeline.command(&["sh", "-ec", block], &variables), approve).await);
        expected.push_str(&format!("{ran}\n"));
        assert_eq!(pipeline.ran().unwrap_or_default(), expected, "{recipe}");

        fs::write(pipeline.path().join("job.sh"), block).expect("written");
        let job = || pipeline.command(&["sh", "-e", "job.sh"], &variables);
        let (id, ended) = pipeline.cancelled(job(), Signal::TERM, async |_| {}).await;
        assert_eq!(ended.status.code(), Some(5), "{recipe}: {ended:?}");
        assert_eq!(pipeline.gateway.seen(&format!("requests/{id}")).await["status"], "cancelled", "{recipe}");
        if recipe != "terraform" {
            continue;
        }
        // What is being applied is interrupted, and nothing of it goes on.
        fs::write(pipeline.path().join("slow"), "").expect("written");
        let applying = async |id: &str| {
            pipeline.gateway.click_ok(&approve(id)).await;
            countersign_tests::within("terraform", async {
                while !pipeline.path().join("applying").exists() {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        };
        let (id, ended) = pipeline.cancelled(job(), Signal::TERM, applying).await;
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.code() == Some(1) && said.contains("exit code 1"), "{ended:?}");
        assert_eq!(pipeline.gateway.seen(&format!("requests/{id}")).await["use"], "failed");
        expected.push_str("interrupted\n");
        assert_eq!(pipeline.ran().unwrap_or_default(), expected);
    }
}

/// What was printed before, as to a log, is not written over, and what is printed later comes after it.
#[tokio::test]
async fn a_receipt_can_be_printed() {
    let pipeline = Pipeline::new().await;
    let line = "echo before; exec countersign ask deploy_web --repo acme/shop --why 'Ship it' \
                --params-out /dev/null --receipt-out /dev/stdout -- sh -c 'echo; echo after'";
    let mut command = pipeline.command(&["sh", "-c", line], &[]);
    let log = pipeline.path().join("log");
    command.stdout(fs::File::create(&log).expect("made"));
    succeeded(&pipeline.decided(command, approve).await);
    let log = fs::read_to_string(log).expect("written");
    let lines: Vec<&str> = log.lines().collect();
    let [before, receipt, after] = lines[..] else { panic!("{log}") };
    assert_eq!((before, receipt.split('.').count(), after), ("before", 3, "after"));
}

/// What nobody reads any more, as after `| head -1`.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

const ASK: [&str; 6] = ["countersign", "ask", "deploy_web", "--repo", "acme/shop", "--why=Ship it"];

#[tokio::test]
async fn an_approved_command_runs_whether_or_not_anybody_reads_what_is_told() {
    let pipeline = Pipeline::new().await;
    let ask = [&ASK[..], &["--", "sh", "-c", "echo ran > ran"]].concat();
    let mut asking = pipeline.command(&ask, &[]);
    asking.stderr(unread());
    succeeded(&pipeline.decided(asking, approve).await);
    assert_eq!(pipeline.ran().as_deref(), Some("ran\n"));
}

/// It must not seem to have succeeded, and a panic would tell nobody anything.
#[tokio::test]
async fn a_command_ends_if_its_output_cannot_be_written() {
    let pipeline = Pipeline::new().await;
    let token = {
        let detached = pipeline.command(&[&ASK[..], &["--detach"]].concat(), &[]).output();
        let text = String::from_utf8(detached.expect("it runs").stdout).expect("text");
        let token = text.lines().find_map(|line| line.strip_prefix("token")).expect("a token");
        token.trim().to_owned()
    };
    let policies = pipeline.gateway.home().path("policies").display().to_string();
    let detached = [&ASK[1..], &["--detach"]].concat();
    let commands: [&[&str]; 7] = [
        &["man"],
        &["completions", "bash"],
        &["hash", "--unsalted", "--param", "ref=v1"],
        &["access", "key", "pipeline"],
        &detached,
        &["wait", &token],
        &["policy", "pack", &policies],
    ];
    for words in commands {
        let words = [&["countersign"], words].concat();
        let full = || fs::OpenOptions::new().write(true).open("/dev/full").expect("there is such a device");
        for (stdout, code, says) in
            [(unread(), 141, ""), (full().into(), 74, "error: the output cannot be written: ")]
        {
            let mut command = pipeline.command(&words, &[]);
            let ended = command.stdout(stdout).output().expect("it runs");
            let told = String::from_utf8_lossy(&ended.stderr);
            assert_eq!(ended.status.code(), Some(code), "{words:?}: {told}");
            assert!(told.contains(says) && !told.contains("panicked"), "{words:?}: {told}");
        }
    }
}
