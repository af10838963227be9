//! `cargo xtask demo`: starts a Slack simulator and the gateway with the sample policies, and prints what to try.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::policies::{self, Pins};
use crate::step::step;

/// The access file of the demo: one caller with an API key, which says who its requesters are, and a person with two
/// names.
const ACCESS: &str = "version: 1
callers:
  demo:
    keys:
      LINE
    requester: asserted
    actions: [\"*\"]
    limits: { open: 50 }
people:
  dana: { slack: U0DANA, github: dana-d }
";

/// The secrets that the simulator and the gateway share. They protect nothing: the demo listens on loopback only.
const SIGNING_SECRET: &str = "demo-signing-secret";
const BOT_TOKEN: &str = "xoxb-demo-bot-token";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Address for the gateway to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Address for the Slack simulator to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8090")]
    slack: SocketAddr,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    for address in [arguments.listen, arguments.slack] {
        ensure!(address.ip().is_loopback(), "the demo's secrets are public, so it listens on loopback only");
    }
    // The simulator has to know the gateway's address before the gateway starts.
    ensure!(arguments.listen.port() != 0, "the demo needs a fixed port for the gateway");
    let root = crate::root()?;
    let folder = root.join("target/demo");
    println!("the first build takes some minutes");
    step("policies to WebAssembly", || policies::build(&folder.join("policies"), false, Pins::Report))?;
    step("the gateway and the Slack simulator", || {
        crate::cargo(&root, &["build", "--package", "countersign", "--package", "slack-simulator"], &[])
    })?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot create `{}`", folder.display()))?;

    let mut slack = Command::new(crate::built(&root, "slack-simulator"));
    slack.args(["--listen", &arguments.slack.to_string()]);
    slack.args(["--gateway", &format!("http://{}", arguments.listen)]);
    let slack = Running::start("the Slack simulator", slack)?;

    let access = folder.join("access.yaml");
    let key = access_file(&root, &access)?;

    let mut gateway = Command::new(crate::built(&root, "countersign"));
    gateway.args(["serve", "--listen", &arguments.listen.to_string()]);
    gateway.arg("--policies").arg(folder.join("policies"));
    gateway.arg("--access").arg(access);
    gateway.args(["--store", &format!("sqlite:{}", folder.join("countersign.db").display())]);
    gateway.env("SLACK_API_URL", format!("{}/api", slack.url));
    let mut gateway = Running::start("the gateway", gateway)?;

    print!("{}", instructions(&slack.url, &gateway.url, &key));
    // Ctrl-C reaches both programs. The gateway shuts down, and ends this loop by closing its output.
    for line in gateway.lines.by_ref() {
        println!("{}", line?);
    }
    let status = gateway.wait()?;
    ensure!(status.success(), "the gateway ended with {status}");
    Ok(())
}

/// Writes the access file, with a new API key as an operator makes one; returns the key.
fn access_file(root: &Path, path: &Path) -> Result<String> {
    let mut command = Command::new(crate::built(root, "countersign"));
    let output = command.args(["access", "key", "demo"]).output().context("cannot make an API key")?;
    ensure!(output.status.success(), "cannot make an API key: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).context("the API key is not text")?;
    let line = |prefix: &str| {
        let found = text.lines().map(str::trim).find(|line| line.starts_with(prefix));
        found.with_context(|| format!("`countersign access key` printed no `{prefix}`"))
    };
    fs::write(path, ACCESS.replace("LINE", line("- {")?))
        .with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(line("cs_")?.to_owned())
}

/// A running server program; dropping it kills it.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// The URL that it listens on, as it printed it.
    url: String,
}

impl Running {
    /// Starts it with the demo's secrets, and waits until it prints where it listens.
    fn start(name: &str, mut command: Command) -> Result<Running> {
        command.env("SLACK_SIGNING_SECRET", SIGNING_SECRET).env("SLACK_BOT_TOKEN", BOT_TOKEN);
        let mut child =
            command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {name}"))?;
        let output = child.stdout.take().with_context(|| format!("{name} has no output"))?;
        let mut running = Running { child, lines: BufReader::new(output).lines(), url: String::new() };
        for line in running.lines.by_ref() {
            let line = line.with_context(|| format!("cannot read the output of {name}"))?;
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
        // This fails if it has exited already, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn instructions(slack: &str, gateway: &str, key: &str) -> String {
    format!(
        r#"
The gateway listens on {gateway}, with the policies of target/demo/policies.
Who may ask stands in target/demo/access.yaml: without the API key below the answer is 401.

1. Open Slack, as Alice:  {slack}/#U0ALICE/C0APPROVALS

2. Paste this into a second terminal. It requests a deployment to production, and waits for the decision:

  export COUNTERSIGN_URL={gateway} COUNTERSIGN_API_KEY={key}
  target/debug/countersign ask deploy_prod --repo acme/web --requester slack:U0DANA --why "Release 1.2.3" \
    --param service=web --param ref=v1.2.3 --param-json replicas=3 --param token=s3cret \
    -- echo "deploying {{service}} {{ref}}, {{replicas}} replicas"

3. Click in the page. Choose the person under "You are":
     Mallory  Acknowledge security   refused, and only Mallory sees it: Mallory does not hold that persona
     Sam      Acknowledge security
     Rita     Acknowledge release
     Alice    Approve                or Approve with edits, to change the number of replicas
     Bob      Approve                the command in the terminal goes on, and deploys

Without a browser, `target/debug/countersign dev click` does the same. It signs each click as Slack does:
  export SLACK_SIGNING_SECRET={SIGNING_SECRET}
  target/debug/countersign dev click --url {gateway} --team T0ACME --user U0ALICE approve REQUEST_ID

Stop both with Ctrl-C.
"#
    )
}
