//! `cargo xtask deployment`: lints, renders and checks all that deploys the gateway, against the gateway's program.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Seek as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::policies::{self, Pins};
use crate::step::step;
use crate::{built, cargo, image, packages};

pub(crate) fn run() -> Result<()> {
    let root = crate::root()?;
    step("the programs that this needs", packages::ensure)?;
    step("policies to WebAssembly", || policies::build(&root.join("target/policies"), false, Pins::Report))?;
    step("the gateway", || cargo(&root, &["build", "--package", "countersign"], &[]))?;
    step("image, manifests and workflows", || check(&root))
}

/// The check itself. The gateway and the policies must have been built.
fn check(root: &Path) -> Result<()> {
    image::script(root, SCRIPT, &words(root).each_ref().map(OsString::as_os_str))
}

/// Starts the check itself, which waits most of the time. The gateway and the policies must have been built.
pub(crate) fn begin(root: &Path) -> Result<Begun> {
    let output = tempfile::tempfile().context("cannot create a temporary file")?;
    let into = || output.try_clone().context("cannot share a temporary file");
    let mut script = Command::new(root.join(SCRIPT));
    script.args(words(root)).current_dir(root).stdin(Stdio::null()).stdout(into()?).stderr(into()?);
    let child = script.spawn().with_context(|| format!("cannot run `{SCRIPT}`"))?;
    Ok(Begun { child, output })
}

/// The check, while it runs.
pub(crate) struct Begun {
    child: Child,
    output: File,
}

impl Begun {
    /// Waits for it, and shows what it printed.
    pub(crate) fn finish(mut self) -> Result<()> {
        let status = self.child.wait().with_context(|| format!("cannot wait for `{SCRIPT}`"))?;
        self.output.rewind()?;
        io::copy(&mut self.output, &mut io::stdout().lock())?;
        ensure!(status.success(), "`{SCRIPT}` ended with {status}");
        Ok(())
    }
}

const SCRIPT: &str = "deploy/check/run.sh";

/// What the script is given.
fn words(root: &Path) -> [OsString; 2] {
    [built(root, "countersign").into(), "target/policies".into()]
}
