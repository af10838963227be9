//! `policy new`, `policy sdk` and `policy build`, as far as they go without a compiler: what compiles and runs is the
//! tutorial's part.

use super::*;

#[test]
fn a_new_crate_is_whole() {
    let folder = Folder::new();
    let said = folder.policy(&["new", "two-of-three", "--dir", "./crate"]);
    assert_eq!(said.code, 0, "{}", said.text);
    insta::assert_snapshot!(said.text, @"
    made the policy `two-of-three` in `crate`; go on with

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

/// Every file in a folder, by its path in it.
fn walk(folder: &Path, prefix: &str) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            files.extend(walk(&entry.path(), &format!("{name}/")));
        } else {
            files.push(name);
        }
    }
    files.sort();
    files
}

#[test]
fn the_sdk_of_a_crate_is_replaced() {
    let folder = Folder::new();
    folder.policy(&["new", "mine", "--dir", "./mine"]);
    folder.write("mine/sdk/wit/policy.wit", "package old:version;");
    has(&folder.policy(&["sdk", "./mine"]), 0, &["`mine/sdk` is the policy SDK"]);
    let contract = fs::read_to_string(folder.path().join("mine/sdk/wit/policy.wit")).unwrap();
    assert_eq!(contract, include_str!("../../../../wit/policy.wit"));
}

#[test]
fn what_cannot_be_made_says_why() {
    let folder = Folder::new();
    folder.write("taken/file", "");
    folder.write("file", "");
    folder.write("none/Cargo.toml", "[package]\nname = \"none\"\nversion = \"0.1.0\"\n[workspace]\n");
    folder.write("none/src/lib.rs", "");
    let rows: &[(&[&str], &[&str])] = &[
        (&["new", "Two"], &["a policy's name is 1 to 64 lower-case letters"]),
        (&["new", "match"], &["`match` means something else to Rust already"]),
        (&["new", "mine", "--dir", "./taken"], &["`taken` is there already, and is not empty"]),
        (&["new", "mine", "--dir", "./file"], &["`file` is there already, and is no folder"]),
        (&["new", "mine", "--dir", "./file/inside"], &["cannot write `file/inside/"]),
        (&["new", "mine", "--dir", "./mine", "--sdk", "./none"], &["`none` is no SDK"]),
        (&["sdk", "./taken"], &["there is no `Cargo.toml` in `taken`"]),
        (&["build", "./taken"], &["there is no `Cargo.toml` in `taken`"]),
        (&["build", "./none"], &["the package `none` makes no module", "cdylib"]),
    ];
    for (words, said) in rows {
        let answer = folder.policy(words);
        has(&answer, 2, said);
    }
    assert!(!folder.path().join("mine").exists(), "a crate was begun");
}
