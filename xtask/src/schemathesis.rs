//! `cargo xtask schemathesis`: holds the gateway to its OpenAPI document, with a client that makes up calls from it.

use anyhow::Result;

use crate::policies::{self, Pins};
use crate::step::step;
use crate::{built, cargo, image, packages};

pub(crate) fn run() -> Result<()> {
    let root = crate::root()?;
    step("the programs that this needs", packages::ensure)?;
    step("policies to WebAssembly", || policies::build(&root.join("target/policies"), false, Pins::Report))?;
    step("the gateway", || cargo(&root, &["build", "--package", "countersign"], &[]))?;
    let program = built(&root, "countersign");
    let words = [program.as_os_str(), "target/policies".as_ref()];
    step("what the document allows and forbids", || {
        image::script(&root, "deploy/check/schemathesis.sh", &words)
    })
}
