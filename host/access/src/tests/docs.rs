//! The access files that the documentation shows.

use std::fs;
use std::path::Path;

use super::issuer::{SigningKey, key_set};
use super::*;

/// Every block of a Markdown file that begins with this line, with the line of the file that it begins in.
fn blocks(text: &str, first: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if !line.trim_start().starts_with("```") {
            continue;
        }
        let inside =
            lines.by_ref().map(|(_, line)| line).take_while(|line| !line.trim_start().starts_with("```"));
        let block: Vec<&str> = inside.collect();
        if block.first().is_some_and(|line| line.trim_end() == first) {
            blocks.push((number + 2, block.join("\n")));
        }
    }
    blocks
}

#[test]
fn access_files_in_the_documentation_are_sound() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let files =
        docs.chain([root.join("README.md")]).filter(|path| path.extension().is_some_and(|it| it == "md"));
    // The key file that they name, which is checked with them.
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.json");
    fs::write(&keys, key_set(&[&SigningKey::ed25519("a")])).unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, format!("whsec_{}", "QUJD".repeat(8))).unwrap();
    let mut found = Vec::new();
    for path in files {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        for (line, block) in blocks(&fs::read_to_string(&path).unwrap(), "# access.yaml") {
            let block = block.replace("/etc/countersign/cluster-jwks.json", &keys.display().to_string());
            let block = block.replace("/etc/countersign/audit-lake.secret", &secret.display().to_string());
            let read = Access::read(format!("{name}, block at line {line}").as_ref(), &block);
            let read = read.unwrap_or_else(|errors| panic!("{errors}"));
            assert_eq!(read.warnings(NOW).map(|warning| warning.to_string()).collect::<Vec<_>>(), [""; 0]);
            found.push((name.clone(), read));
        }
    }
    let access: Vec<_> = found.iter().filter(|(name, _)| name == "ACCESS.md").map(|(_, read)| read).collect();
    assert!(access.len() >= 6, "{} blocks of ACCESS.md", access.len());
    let complete = access.last().unwrap();
    assert_eq!((complete.callers().count(), complete.admins().count(), complete.issuers().len()), (5, 3, 3));
    assert!(access.iter().filter(|read| read.admins().next().is_some()).count() >= 2);
}
