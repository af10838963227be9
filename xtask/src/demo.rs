//! `cargo xtask demo`: a Slack simulator and the gateway with the sample policies, and what to do with them.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::policies::{self, Pins};

/// What the simulator and the gateway share. It guards nothing: the demo listens on loopback only.
const SIGNING_SECRET: &str = "demo-signing-secret";
const BOT_TOKEN: &str = "xoxb-demo-bot-token";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where the gateway listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where the Slack simulator listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8090")]
    slack: SocketAddr,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    for address in [arguments.listen, arguments.slack] {
        ensure!(address.ip().is_loopback(), "the demo's secrets are public: it listens on loopback only");
    }
    // Each must know where the other is before it starts.
    ensure!(arguments.listen.port() != 0, "the gateway needs a port of its own in the demo");
    let root = crate::root()?;
    let folder = root.join("target/demo");
    println!("building the policies, the gateway and the simulator; the first time takes some minutes");
    policies::build(&folder.join("policies"), false, Pins::Tell)?;
    let packages = ["--package", "countersign", "--package", "slack-simulator"];
    crate::cargo(&root, &[&["build", "--quiet"], &packages[..]].concat(), &[])?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot create `{}`", folder.display()))?;

    let program = |name: &str| {
        Command::new(root.join("target/debug").join(format!("{name}{}", std::env::consts::EXE_SUFFIX)))
    };
    let mut slack = program("slack-simulator");
    slack.args(["--listen", &arguments.slack.to_string()]);
    slack.args(["--gateway", &format!("http://{}", arguments.listen)]);
    let slack = Running::start("the Slack simulator", slack)?;

    let mut gateway = program("countersign");
    gateway.args(["serve", "--listen", &arguments.listen.to_string()]);
    gateway.arg("--policies").arg(folder.join("policies"));
    gateway.args(["--store", &format!("sqlite:{}", folder.join("countersign.db").display())]);
    gateway.env("SLACK_API_URL", format!("{}/api", slack.url));
    let mut gateway = Running::start("the gateway", gateway)?;

    print!("{}", instructions(&slack.url, &gateway.url));
    // An interrupt reaches both; the gateway drains, and ends this loop by closing its output.
    for line in gateway.lines.by_ref() {
        println!("{}", line?);
    }
    let status = gateway.wait()?;
    ensure!(status.success(), "the gateway ended with {status}");
    Ok(())
}

/// A program that serves, until this is dropped.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Where it says that it listens.
    url: String,
}

impl Running {
    /// Starts it with the demo's secrets, and waits until it says where it listens.
    fn start(name: &str, mut command: Command) -> Result<Running> {
        command.env("SLACK_SIGNING_SECRET", SIGNING_SECRET).env("SLACK_BOT_TOKEN", BOT_TOKEN);
        let mut child =
            command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {name}"))?;
        let output = child.stdout.take().with_context(|| format!("{name} has no output"))?;
        let mut running = Running { child, lines: BufReader::new(output).lines(), url: String::new() };
        for line in running.lines.by_ref() {
            let line = line.with_context(|| format!("cannot read what {name} says"))?;
            if let Some(url) = line.strip_prefix("listening on ") {
                url.clone_into(&mut running.url);
                return Ok(running);
            }
            println!("{line}");
        }
        bail!("{name} did not start: {}", running.wait()?)
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails where it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn instructions(slack: &str, gateway: &str) -> String {
    format!(
        r#"
The gateway listens on {gateway}, with the policies of target/demo/policies.

1. Open Slack, as Alice:  {slack}/#U0ALICE/C0APPROVALS

2. Paste this into a second terminal. It asks whether production may be deployed, and watches until that is decided:

  curl -s {gateway}/api/guard/request -H 'content-type: application/json' -d '{{
    "action": "deploy_prod",
    "params": {{"service": "web", "ref": "v1.2.3", "replicas": 3, "token": "s3cret"}},
    "meta": {{"origin": {{"repo": "acme/web"}}, "requester": {{"id": "U0DANA", "source": "slack"}},
             "justification": "Release 1.2.3"}}}}' |
    sed 's/.*"token":"\([^"]*\)".*/\1/' |
    xargs -I TOKEN curl -sN -H 'authorization: Bearer TOKEN' {gateway}/api/guard/wait-sse

3. Click in the page. "You are" says as whom:
     Mallory  Acknowledge security   refused, and only Mallory sees it: nobody gave Mallory a say
     Sam      Acknowledge security
     Rita     Acknowledge release
     Alice    Approve                or Approve with edits, to change the number of replicas
     Bob      Approve                the terminal finishes: approved

Without a browser, `target/debug/countersign dev` does the same; each click is signed as Slack would:
  export SLACK_SIGNING_SECRET={SIGNING_SECRET}
  target/debug/countersign dev request --url {gateway} --params '{{"service": "web"}}' deploy_staging
  target/debug/countersign dev click --url {gateway} --user U0ALICE approve REQUEST_ID

Stop both with Ctrl-C.
"#
    )
}
