//! `cargo xtask mcp`: the official client of MCP waits 90 seconds for a decision, on pipes and by HTTP.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::policies::{self, Pins};
use crate::step::step;
use crate::{built, cargo, end_to_end, packages};

/// For how many seconds nobody decides: longer than clients wait for one call.
const WAIT: &str = "90";

pub(crate) fn run() -> Result<()> {
    let root = crate::root()?;
    step("the programs that this starts", packages::ensure)?;
    step("policies to WebAssembly", || policies::build_all(&root.join("target/policies"), Pins::Report))?;
    step("the official client of MCP", || install(&root, "mcp-client"))?;
    step("the gateway and its tests", || cargo(&root, &["build", "--workspace", "--exclude", "xtask"], &[]))?;
    step("a decision after 90 seconds", || {
        let wait = [("COUNTERSIGN_TEST_MCP_WAIT", WAIT)];
        end_to_end(&root, &built(&root, "countersign"), &["mcp::"], &wait)
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
