//! `cargo xtask test`: everything that must pass before a change lands, in the order in which it fails fastest.

use anyhow::Result;

use crate::policies::{self, Pins};
use crate::{cargo, links, packages, reproducible, tutorial};

pub(crate) fn run() -> Result<()> {
    let root = crate::root()?;
    heading("formatting");
    cargo(&root, &["fmt", "--all", "--check"], &[])?;

    heading("links between documents");
    links::check(&root)?;

    heading("a browser and a registry for the tests");
    packages::ensure()?;

    heading("policies to WebAssembly");
    let modules = policies::build(&root.join("target/policies"), true, Pins::Verify)?;
    for module in &modules {
        println!("{:<15} {:>7} bytes  {}", module.name, module.bytes, module.digest);
    }
    let examples = policies::build_examples(&root.join("target/policies"))?;
    println!("{} entries of the cookbook", examples.len());

    heading("reproducible builds");
    reproducible::check(&root, &modules)?;

    heading("lints");
    cargo(&root, &["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"], &[])?;

    // The end-to-end tests start the gateway as its users do: as a program of its own.
    heading("unit, contract and end-to-end tests");
    cargo(&root, &["build", "--package", "countersign"], &[])?;
    cargo(&root, &["test", "--workspace"], &[])?;

    heading("the policies' scenarios, told to the modules");
    for name in policies::POLICIES {
        let module = format!("target/policies/modules/{name}.wasm");
        let scenarios = format!("policies/{name}/scenarios.yaml");
        crate::gateway(&root, &["policy", "test", &module, &scenarios])?;
    }

    heading("the tutorial, in an empty folder");
    tutorial::run(&tutorial::Arguments::default())?;

    heading("documentation");
    cargo(&root, &["doc", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "--deny warnings")])?;
    println!("\neverything passed");
    Ok(())
}

fn heading(what: &str) {
    println!("\n── {what}");
}
