//! `cargo xtask demo`: the gateway on the embedded store with the sample policies, and what to type to try it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::policies::{self, Pins};

/// The secret that signs the demo's Slack interactions. It guards nothing: the demo listens on loopback only.
const SIGNING_SECRET: &str = "demo-signing-secret";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.listen.ip().is_loopback(), "the demo's secret is public: it listens on loopback only");
    let root = crate::root()?;
    let folder = root.join("target/demo");
    println!("building the policies and the gateway; the first time takes some minutes");
    policies::build(&folder.join("policies"), false, Pins::Tell)?;
    let built = Command::new("cargo")
        .args(["build", "--quiet", "--package", "countersign"])
        .current_dir(&root)
        .status()
        .context("cannot run cargo")?;
    ensure!(built.success(), "the gateway does not build");

    let program = root.join("target/debug").join(format!("countersign{}", std::env::consts::EXE_SUFFIX));
    fs::create_dir_all(&folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
    let mut gateway = Command::new(&program)
        .arg("serve")
        .args(["--listen", &arguments.listen.to_string()])
        .arg("--policies")
        .arg(folder.join("policies"))
        .args(["--store", &format!("sqlite:{}", folder.join("countersign.db").display())])
        .env("SLACK_SIGNING_SECRET", SIGNING_SECRET)
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", program.display()))?;
    let mut lines = BufReader::new(gateway.stdout.take().context("the gateway has no output")?).lines();
    let mut url = None;
    for line in lines.by_ref() {
        let line = line.context("cannot read what the gateway says")?;
        if let Some(said) = line.strip_prefix("listening on ") {
            url = Some(said.to_owned());
            break;
        }
        println!("{line}");
    }
    match url {
        Some(url) => print!("{}", instructions(&url)),
        None => bail!("the gateway did not start: {}", gateway.wait()?),
    }
    // An interrupt reaches the gateway too; it drains, and ends this loop by closing its output.
    for line in lines {
        println!("{}", line?);
    }
    let status = gateway.wait()?;
    ensure!(status.success(), "the gateway ended with {status}");
    Ok(())
}

fn instructions(url: &str) -> String {
    format!(
        r#"
The gateway listens on {url}, with the policies of target/demo/policies.
Paste this into a second terminal, in this folder:

  # Ask whether production may be deployed; two personas and two people have a say.
  curl -s {url}/api/guard/request -H 'content-type: application/json' -d '{{
    "action": "deploy_prod",
    "params": {{"service": "web", "ref": "v1.2.3", "replicas": 3, "token": "s3cret"}},
    "meta": {{"origin": {{"repo": "acme/web"}}, "requester": {{"id": "U0DANA", "source": "slack"}},
             "justification": "Release 1.2.3"}}}}' | tee target/demo/answer.json; echo
  TOKEN=$(sed 's/.*"token":"\([^"]*\)".*/\1/' target/demo/answer.json)
  ID=$(sed 's/.*"requestId":"\([^"]*\)".*/\1/' target/demo/answer.json)

  # Watch it: one event at every change, until it is decided.
  curl -sN -H "authorization: Bearer $TOKEN" {url}/api/guard/wait-sse &

  # Act as the people whom the policy names; each of these signs a click as Slack would.
  export SLACK_SIGNING_SECRET={SIGNING_SECRET}
  click() {{ target/debug/countersign dev click --url {url} --user "$@" $ID; }}
  click U0MALLORY approve               # refused: nobody gave Mallory a say
  click U0ALICE approve                 # refused: two acknowledgements are missing
  click U0SEC persona_ack:security
  click U0RM1 persona_ack:release
  click U0ALICE approve
  click U0BOB approve                   # the stream ends: approved

Stop the gateway with Ctrl-C.
"#
    )
}
