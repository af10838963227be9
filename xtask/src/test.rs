//! `cargo xtask test`: everything that must pass before a change lands, in the order in which it fails fastest.

use anyhow::{Context as _, Result};

use crate::policies::{self, Pins};
use crate::step::{Stopwatch, step};
use crate::{cargo, deployment, links, mcp, packages, redis, reproducible, tutorial};

/// Workspaces of their own, which are never built here.
const APART: [&str; 2] = ["tests/peers/Cargo.toml", "fuzz/Cargo.toml"];

pub(crate) fn run() -> Result<()> {
    let watch = Stopwatch::start();
    let root = crate::root()?;
    step("formatting", || {
        cargo(&root, &["fmt", "--all", "--check"], &[])?;
        APART.iter().try_for_each(|apart| cargo(&root, &["fmt", "--manifest-path", apart, "--check"], &[]))
    })?;
    // A change of a crate here is one of what is locked there.
    step("lock files of other workspaces", || {
        let tree = ["tree", "--quiet", "--locked", "--depth", "0", "--manifest-path"];
        APART.iter().try_for_each(|apart| cargo(&root, &[tree.as_slice(), &[apart]].concat(), &[]))
    })?;
    step("links between documents", || links::check(&root))?;
    step("a browser, a registry and other programs for the tests", packages::ensure)?;

    let modules = step("policies to WebAssembly", || {
        let (modules, examples) = policies::build_all(&root.join("target/policies"), Pins::Verify)?;
        for module in &modules {
            println!("{:<15} {:>7} bytes  {}", module.name, module.bytes, module.digest);
        }
        println!("{} entries of the cookbook", examples.len());
        Ok(modules)
    })?;
    step("reproducible builds", || reproducible::check(&root, &modules))?;

    step("lints", || {
        cargo(&root, &["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"], &[])
    })?;

    // Somebody who only runs it builds it alone, and no other package asks for features of its libraries then. The SDK is
    // checked with it since wasmtime's macros share a library with it, and would have to be built once more without.
    step("the gateway alone", || {
        let packages = ["--package", "countersign", "--package", "countersign-policy-sdk"];
        cargo(&root, &[["check"].as_slice(), &packages].concat(), &[])
    })?;

    // Without the Slack that our own tests have in it (`fake`), since its users do not have that. With the rest of the
    // workspace, so that libraries get the features that the tests need too: otherwise they, and all that depends on them,
    // would be compiled twice. This program is left out because it runs.
    step("the gateway and its tools", || cargo(&root, &["build", "--workspace", "--exclude", "xtask"], &[]))?;
    step("the official client of MCP", || mcp::install(&root, "mcp-client"))?;
    step("a library that verifies webhooks", || mcp::install(&root, "webhook-receiver"))?;
    // One of them waits while the other computes.
    let deployed = deployment::begin(&root)?;
    let compiled = step("the tests' programs, and meanwhile image, manifests and workflows", || {
        cargo(&root, &["test", "--workspace", "--no-run"], &[])
    });
    step("image, manifests and workflows", || deployed.finish())?;
    compiled?;
    step("unit, contract and end-to-end tests", || {
        let gateway = crate::built(&root, "countersign");
        let gateway = gateway.to_str().context("the project's path is not UTF-8")?;
        let threads = crate::test_threads();
        let ours = [("COUNTERSIGN_BIN", gateway), ("RUST_TEST_THREADS", &threads)];
        cargo(&root, &["test", "--workspace"], &ours)
    })?;
    step("end-to-end tests of the spine, on Redis", || redis::spine(&root))?;
    step("scenario tests of the policies", || {
        let own = policies::POLICIES.map(|name| (name, format!("policies/{name}")));
        let timed =
            ["business-hours", "freeze-calendar"].map(|name| (name, format!("policies/examples/{name}")));
        for (name, folder) in own.into_iter().chain(timed) {
            let module = format!("target/policies/modules/{name}.wasm");
            let scenarios = format!("{folder}/scenarios.yaml");
            crate::gateway(&root, &["policy", "test", &module, &scenarios])?;
        }
        Ok(())
    })?;
    step("the tutorials, in folders of their own", || tutorial::check(&root))?;

    step("documentation", || {
        cargo(&root, &["doc", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "--deny warnings")])
    })?;
    println!("\neverything passed in {}", watch.elapsed());
    Ok(())
}
