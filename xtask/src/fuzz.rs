//! `cargo xtask fuzz`: runs the fuzz targets (`fuzz/`) with libFuzzer, which needs a nightly toolchain and `cargo-fuzz`.

use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

/// What libFuzzer holds each input to: 16 KiB, ten seconds (as long as a body may take to arrive), and a process of 512 MiB
/// (as much as a pod of the gateway gets).
const LIMITS: [&str; 3] = ["-max_len=16384", "-timeout=10", "-rss_limit_mb=512"];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// One target; all of them if it is left out
    target: Option<String>,
    /// For how long to run each
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let root = crate::root()?;
    let cargo_fuzz = |words: &[&str]| {
        let mut command = Command::new("cargo");
        // The cargo that runs this has set its own toolchain.
        command.current_dir(&root).env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
        command.args(["+nightly", "fuzz"]).args(words);
        command
    };
    let is_there = cargo_fuzz(&["--version"]).output().is_ok_and(|output| output.status.success());
    ensure!(
        is_there,
        "fuzzing needs a nightly toolchain and cargo-fuzz: `rustup toolchain install nightly && cargo install cargo-fuzz`"
    );
    let targets = match &arguments.target {
        Some(target) => vec![target.clone()],
        None => {
            let listed = cargo_fuzz(&["list"]).output().context("cannot run cargo-fuzz")?;
            ensure!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
            String::from_utf8(listed.stdout)?.lines().map(str::to_owned).collect()
        }
    };
    ensure!(!targets.is_empty(), "there are no fuzz targets");
    let seconds = format!("-max_total_time={}", arguments.seconds);
    for target in targets {
        // What is found on the way is kept in the build folder, beside the seeds.
        let found = root.join("fuzz/target/found").join(&target);
        std::fs::create_dir_all(&found).with_context(|| format!("cannot make `{}`", found.display()))?;
        let found = found.to_str().context("the path is no text")?.to_owned();
        let seeds = format!("fuzz/corpus/{target}");
        // The code is safe Rust but for its dependencies; a sanitizer would take most of the time.
        let built = cargo_fuzz(&["build", "--sanitizer", "none", &target]).status();
        ensure!(built.context("cannot run cargo-fuzz")?.success(), "`{target}` cannot be built");
        let words = ["run", "--sanitizer", "none", &target, &found, &seeds, "--", &seconds];
        let status = cargo_fuzz(&[&words[..], &LIMITS].concat()).status().context("cannot run cargo-fuzz")?;
        if !status.success() {
            bail!("`{target}` found something: what breaks it is in fuzz/artifacts/{target}");
        }
    }
    Ok(())
}
