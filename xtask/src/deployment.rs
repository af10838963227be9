//! `cargo xtask deployment`: lints, renders and checks all that deploys the gateway, against the gateway's program.

use std::path::Path;

use anyhow::Result;

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
pub(crate) fn check(root: &Path) -> Result<()> {
    let program = built(root, "countersign");
    image::script(root, "deploy/check/run.sh", &[program.as_os_str(), "target/policies".as_ref()])
}
