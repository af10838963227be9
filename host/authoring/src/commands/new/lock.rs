//! The `Cargo.lock` of a new crate: the dependency versions that the SDK was tested with, so that the same sources
//! build to the same bytes whenever the crate is created.
//!
//! It is a subset of this workspace's lock file. It may list more than the crate needs; cargo removes that on first use.

use std::collections::{BTreeMap, BTreeSet};

/// The lock file of this workspace.
const WORKSPACE: &str = include_str!("../../../../../Cargo.lock");

const SDK: &str = "countersign-policy-sdk";

/// The lock file of a crate with this name that depends on the SDK, serde and serde_json.
pub(super) fn of(name: &str) -> String {
    let packages: Vec<Package<'_>> = WORKSPACE.split("\n[[package]]\n").skip(1).map(Package::read).collect();
    let mut by_name: BTreeMap<&str, Vec<&Package<'_>>> = BTreeMap::new();
    for package in &packages {
        by_name.entry(package.name).or_default().push(package);
    }
    let mut needed: BTreeSet<&Package<'_>> = BTreeSet::new();
    let mut open = vec![SDK, "serde", "serde_json"];
    while let Some(wanted) = open.pop() {
        // `name`, or `name version` if there are several versions.
        let mut words = wanted.split(' ');
        let found = words.next().and_then(|name| by_name.get(name)).into_iter().flatten().copied();
        let version = words.next();
        for package in found.filter(|package| version.is_none_or(|version| version == package.version)) {
            if needed.insert(package) {
                open.extend(package.dependencies());
            }
        }
    }
    let own = format!(
        "name = \"{name}\"\nversion = \"0.1.0\"\n\
         dependencies = [\n \"{SDK}\",\n \"serde\",\n \"serde_json\",\n]"
    );
    let mut blocks: Vec<(&str, String)> =
        needed.iter().map(|package| (package.name, package.text.trim_end().to_owned())).collect();
    blocks.push((name, own));
    blocks.sort();
    let head = WORKSPACE.split("\n[[package]]\n").next().unwrap_or_default();
    let blocks = blocks.into_iter().map(|(_, block)| format!("\n[[package]]\n{block}\n"));
    format!("{head}{}", blocks.collect::<String>())
}

/// One package of a lock file; `text` is its lines after `[[package]]`.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Package<'a> {
    name: &'a str,
    version: &'a str,
    text: &'a str,
}

impl<'a> Package<'a> {
    fn read(text: &'a str) -> Package<'a> {
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.map(|value| value.trim_matches('"')).unwrap_or_default()
        };
        Package { name: value("name = "), version: value("version = "), text }
    }

    fn dependencies(&self) -> impl Iterator<Item = &'a str> {
        let lines = self.text.lines().skip_while(|line| *line != "dependencies = [").skip(1);
        let lines = lines.take_while(|line| *line != "]");
        lines.map(|line| line.trim().trim_end_matches(',').trim_matches('"'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_sdk_and_its_dependencies_are_listed() {
        let lock = of("mine");
        let names: BTreeSet<&str> = lock
            .lines()
            .filter_map(|line| line.strip_prefix("name = "))
            .map(|name| name.trim_matches('"'))
            .collect();
        for needed in ["mine", SDK, "serde", "serde_derive", "serde_json", "wit-bindgen", "jsonschema"] {
            assert!(names.contains(needed), "{needed}");
        }
        for other in ["countersign", "wasmtime", "tokio", "axum"] {
            assert!(!names.contains(other), "{other}");
        }
        // Every dependency is listed too.
        for package in lock.split("\n[[package]]\n").skip(1).map(Package::read) {
            for dependency in package.dependencies() {
                let name = dependency.split(' ').next().unwrap_or_default();
                assert!(names.contains(name), "{dependency} of {}", package.name);
            }
        }
    }
}
