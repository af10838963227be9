//! The programs besides Rust that the tests start, and those that other commands need.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

/// A program that is started, and the packages to install if it is missing.
struct Needed {
    name: &'static str,
    /// The names that it may have on the path.
    programs: &'static [&'static str],
    /// The arguments with which it does nothing, and ends well if all that is needed is there.
    probe: &'static [&'static str],
    /// The variable that may name another program.
    variable: Option<&'static str>,
    packages: &'static [&'static str],
}

const NEEDED: [Needed; 13] = [
    Needed {
        name: "Chromium",
        programs: &["chromium", "chromium-browser", "google-chrome"],
        probe: &["--version"],
        variable: Some("COUNTERSIGN_CHROMIUM"),
        // Screenshots for the documents need characters that most fonts lack.
        packages: &["chromium", "fonts-noto-color-emoji"],
    },
    Needed {
        name: "a registry",
        programs: &["docker-registry"],
        probe: &["--version"],
        variable: None,
        packages: &["docker-registry"],
    },
    Needed {
        name: "nginx",
        // Debian has it where only the path of root leads.
        programs: &["nginx", "/usr/sbin/nginx"],
        probe: &["-v"],
        variable: None,
        packages: &["nginx"],
    },
    Needed {
        name: "Redis",
        programs: &["redis-server"],
        probe: &["--version"],
        variable: None,
        packages: &["redis-server"],
    },
    Needed {
        name: "Prometheus",
        programs: &["prometheus"],
        probe: &["--version"],
        variable: None,
        packages: &["prometheus"],
    },
    Needed {
        name: "faketime",
        programs: &["faketime"],
        probe: &["--version"],
        variable: None,
        packages: &["faketime"],
    },
    Needed {
        name: "a JOSE library for Python (jwcrypto)",
        // Debian's library is that of Debian's Python, which need not be the first on the path.
        programs: &["python3", "/usr/bin/python3"],
        probe: &["-c", "import jwcrypto"],
        variable: None,
        packages: &["python3-jwcrypto"],
    },
    Needed {
        name: "virtual environments for Python",
        programs: &["python3"],
        probe: &["-c", "import ensurepip, venv"],
        variable: None,
        packages: &["python3-venv"],
    },
    Needed { name: "curl", programs: &["curl"], probe: &["--version"], variable: None, packages: &["curl"] },
    Needed { name: "jq", programs: &["jq"], probe: &["--version"], variable: None, packages: &["jq"] },
    Needed {
        name: "openssl",
        programs: &["openssl"],
        probe: &["version"],
        variable: None,
        packages: &["openssl"],
    },
    Needed {
        name: "npm",
        programs: &["npm"],
        probe: &["--version"],
        variable: None,
        packages: &["nodejs", "npm"],
    },
    Needed {
        name: "kustomize, kubectl or Go",
        programs: &["kustomize", "kubectl", "go"],
        probe: &["help"],
        variable: None,
        packages: &["golang-go"],
    },
];

/// What builds a program for arm64 on another machine, and runs it.
const ARM64: [Needed; 3] = [
    Needed {
        name: "a C compiler for arm64",
        programs: &["aarch64-linux-gnu-gcc"],
        probe: &["--version"],
        variable: None,
        packages: &["gcc-aarch64-linux-gnu"],
    },
    Needed {
        name: "the C library for arm64",
        programs: &["aarch64-linux-gnu-gcc"],
        probe: &["-E", "-include", "stdlib.h", "-x", "c", "/dev/null"],
        variable: None,
        packages: &["libc6-dev-arm64-cross"],
    },
    Needed {
        name: "an emulator of arm64",
        programs: &["qemu-aarch64"],
        probe: &["--version"],
        variable: None,
        packages: &["qemu-user"],
    },
];

/// Makes sure that all that the tests start is there. What is missing is installed if this runs as root on Debian or the
/// like.
pub(crate) fn ensure() -> Result<()> {
    ensure_all(&NEEDED)
}

/// The same for what `cargo xtask arm64` needs.
pub(crate) fn ensure_arm64() -> Result<()> {
    ensure_all(&ARM64)
}

fn ensure_all(needed: &[Needed]) -> Result<()> {
    let missing: Vec<&Needed> = needed.iter().filter(|needed| !needed.is_installed()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().flat_map(|needed| needed.packages).copied().collect();
    if is_root() && runs("apt-get", &["--version"]) {
        println!("installing {}", packages.join(" and "));
        let install =
            [&["install", "--yes", "--quiet", "--no-install-recommends"], packages.as_slice()].concat();
        if runs("apt-get", &["update", "--quiet"])
            && runs("apt-get", &install)
            && missing.iter().all(|needed| needed.is_installed())
        {
            return Ok(());
        }
    }
    let names: Vec<&str> = missing.iter().map(|needed| needed.name).collect();
    bail!(
        "this needs {}: install what is missing (Debian: `apt-get install {}`), then run this again",
        names.join(" and "),
        packages.join(" ")
    )
}

impl Needed {
    fn is_installed(&self) -> bool {
        match self.variable.and_then(variable) {
            Some(program) => runs(&program, self.probe),
            None => self.programs.iter().any(|name| runs(name, self.probe)),
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

#[expect(clippy::disallowed_methods, reason = "it names a program for the tests")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
