//! The browser that the tests drive.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

/// Makes sure that there is one: installs it where that can be done without asking anybody.
pub(crate) fn ensure() -> Result<()> {
    // Pictures for the documents need signs that most fonts lack.
    const PACKAGES: [&str; 2] = ["chromium", "fonts-noto-color-emoji"];
    if is_there() {
        return Ok(());
    }
    if is_root() && runs("apt-get", &["--version"]) {
        println!("installing {}", PACKAGES.join(" and "));
        let install =
            [&["install", "--yes", "--quiet", "--no-install-recommends"], PACKAGES.as_slice()].concat();
        if runs("apt-get", &["update", "--quiet"]) && runs("apt-get", &install) && is_there() {
            return Ok(());
        }
    }
    bail!(
        "the tests need Chromium: install it (Debian: `apt-get install {}`), then run this again",
        PACKAGES.join(" ")
    )
}

fn is_there() -> bool {
    let named = variable("COUNTERSIGN_CHROMIUM");
    match &named {
        Some(program) => runs(program, &["--version"]),
        None => {
            ["chromium", "chromium-browser", "google-chrome"].iter().any(|name| runs(name, &["--version"]))
        }
    }
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command.status().is_ok_and(|status| status.success())
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

#[expect(clippy::disallowed_methods, reason = "it names the browser for the tests")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
