//! `policy new`, `policy sdk` and `policy build` without compiling; `cargo xtask tutorial` builds and runs a new crate.

use super::*;

#[test]
fn a_new_crate_has_all_files() {
    let folder = Workspace::new();
    let output = folder.policy(&["new", "two-of-three", "--dir", "./crate"]);
    assert_eq!(output.code, 0, "{}", output.text);
    insta::assert_snapshot!(output.text, @"
    created the policy `two-of-three` in `crate`; next steps:

      cd crate
      cargo test
      countersign policy build --out two-of-three.wasm
      countersign policy test two-of-three.wasm scenarios.yaml
    ");
    let mut files: Vec<String> = walk(&folder.path().join("crate"), "");
    files.retain(|file| !file.starts_with("sdk/policy-sdk/src/"));
    insta::assert_snapshot!(files.join("\n"), @"
    .cargo/config.toml
    .gitignore
    Cargo.lock
    Cargo.toml
    README.md
    config.schema.json
    rust-toolchain.toml
    rustfmt.toml
    scenarios.yaml
    sdk/LICENSE
    sdk/README.md
    sdk/policy-sdk/Cargo.toml
    sdk/wit/policy.wit
    src/lib.rs
    tests/scenarios.rs
    ");
    let lib = fs::read_to_string(folder.path().join("crate/src/lib.rs")).unwrap();
    assert!(lib.contains("export_policy!(TwoOfThree);"), "{lib}");
}

#[test]
fn the_sdk_of_a_crate_is_replaced() {
    let folder = Workspace::new();
    folder.policy(&["new", "mine", "--dir", "./mine"]);
    folder.write("mine/sdk/wit/policy.wit", "package old:version;");
    has(&folder.policy(&["sdk", "./mine"]), 0, &["`mine/sdk` now has the policy SDK"]);
    let contract = fs::read_to_string(folder.path().join("mine/sdk/wit/policy.wit")).unwrap();
    assert_eq!(contract, include_str!("../../../../wit/policy.wit"));
}

#[test]
fn errors() {
    let folder = Workspace::new();
    folder.write("taken/file", "");
    folder.write("file", "");
    folder.write("none/Cargo.toml", "[package]\nname = \"none\"\nversion = \"0.1.0\"\n[workspace]\n");
    folder.write("none/src/lib.rs", "");
    let rows: &[(&[&str], &[&str])] = &[
        (&["new", "Two"], &["a policy's name is 1 to 64 lower-case letters"]),
        (&["new", "match"], &["`match` is a reserved name in Rust"]),
        (&["new", "mine", "--dir", "./taken"], &["`taken` already exists and is not empty"]),
        (&["new", "mine", "--dir", "./file"], &["`file` already exists and is not a folder"]),
        (&["new", "mine", "--dir", "./file/inside"], &["cannot write `file/inside/"]),
        (&["new", "mine", "--dir", "./mine", "--sdk", "./none"], &["`none` is not the SDK"]),
        (&["sdk", "./taken"], &["there is no `Cargo.toml` in `taken`"]),
        (&["build", "./taken"], &["there is no `Cargo.toml` in `taken`"]),
        (&["build", "./none"], &["the package `none` makes no module", "cdylib"]),
    ];
    for (words, expected) in rows {
        has(&folder.policy(words), 2, expected);
    }
    assert!(!folder.path().join("mine").exists(), "files were written");
}
