//! `cargo xtask mcp`: the official client of MCP waits 90 seconds for a decision, on pipes and by HTTP.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::policies::{self, Pins};
use crate::step::step;
use crate::{cargo, packages};

/// For how many seconds nobody decides: longer than clients wait for one call.
const WAIT: &str = "90";

pub(crate) fn run() -> Result<()> {
    let root = crate::root()?;
    step("the programs that this starts", packages::ensure)?;
    step("policies to WebAssembly", || policies::build_all(&root.join("target/policies"), Pins::Report))?;
    step("the official client of MCP", || install(&root, "mcp-client"))?;
    step("the gateway and its tests", || cargo(&root, &["build", "--workspace", "--exclude", "xtask"], &[]))?;
    step("a decision after 90 seconds", || {
        let gateway = crate::built(&root, "countersign");
        let gateway = gateway.to_str().context("the project's path is not UTF-8")?;
        let words = ["test", "-p", "countersign-tests", "--test", "e2e", "--", "mcp::"];
        cargo(&root, &words, &[("COUNTERSIGN_BIN", gateway), ("COUNTERSIGN_TEST_MCP_WAIT", WAIT)])
    })
}

/// Installs what the lock file of a program in `tests` pins; the tests leave out the program if it is not there.
pub(crate) fn install(root: &Path, program: &str) -> Result<()> {
    let status = Command::new("npm")
        .args(["ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"])
        .current_dir(root.join("tests").join(program))
        .status()
        .context("cannot run npm")?;
    ensure!(status.success(), "`npm ci` failed in tests/{program}");
    Ok(())
}
