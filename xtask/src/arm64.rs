//! `cargo xtask arm64`: builds the gateway for arm64 on another machine, and starts and asks it in an emulator.
//!
//! The build is unoptimised: what is shown is that the program, the code that its sandbox makes of a policy, and its store
//! work there, and not how fast they are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::policies::{self, Pins};
use crate::step::step;
use crate::{cargo, image, packages};

const TARGET: &str = "aarch64-unknown-linux-gnu";

/// The compiler of C, which also links.
const COMPILER: &str = "aarch64-linux-gnu-gcc";

pub(crate) fn run() -> Result<()> {
    let root = crate::root()?;
    step("what builds and runs programs for arm64", || {
        packages::ensure_arm64()?;
        ensure!(
            has_standard_library(&root)?,
            "the toolchain has no standard library for arm64: `rustup target add {TARGET}`"
        );
        Ok(())
    })?;
    step("policies to WebAssembly", || policies::build(&root.join("target/policies"), false, Pins::Report))?;
    step("the gateway, for arm64", || {
        let compiler = [
            ("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", COMPILER),
            ("CC_aarch64_unknown_linux_gnu", COMPILER),
        ];
        cargo(&root, &["build", "--package", "countersign", "--target", TARGET], &compiler)
    })?;
    let program = root.join("target").join(TARGET).join("debug/countersign");
    let words = [program.as_os_str(), "target/policies".as_ref()];
    step("started and asked in an emulator", || image::script(&root, "deploy/check/arm64.sh", &words))
}

fn has_standard_library(root: &Path) -> Result<bool> {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", TARGET]).current_dir(root);
    let printed = rustc.output().context("cannot run rustc")?;
    let folder = PathBuf::from(String::from_utf8_lossy(&printed.stdout).trim_end());
    Ok(printed.status.success() && folder.is_dir())
}
