//! `cargo xtask policies`: builds the policies to WebAssembly, and checks that the sample policy set pins their digests.
//!
//! The same sources, lock file, toolchain and host give the same bytes in any folder (`reproducible.rs` proves it). So
//! the digests are committed in `xtask/sample/policy-set.yaml`, and a change of a policy shows in review.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use countersign_policy_build::{self as policy_build, Build};
use sha2::{Digest as _, Sha256};

pub(crate) const POLICIES: [&str; 3] = ["quorum", "persona-gate", "override-guard"];
const MISBEHAVING: &str = "misbehaving";
/// The policies of the cookbook.
const EXAMPLE_POLICIES: [&str; 3] = ["business-hours", "threshold", "freeze-calendar"];
const SAMPLE_SET: &str = "xtask/sample/policy-set.yaml";
const SAMPLE_SCHEMAS: [(&str, &str); 1] =
    [("deploy_prod.json", include_str!("../sample/schemas/deploy_prod.json"))];
/// The limit for the project's own policies; the gateway accepts larger ones.
const MAX_MODULE_BYTES: usize = 200 * 1024;
/// Its time is when the newest complete build began; `tests/modules` compares it with the sources.
const STAMP: &str = ".built-for-tests";
/// The host platform of the pinned builds. On others the functions of a module may come in another order.
const PINNED_HOST: &str = "x86_64-unknown-linux-gnu";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to write modules/, schemas/ and policy-set.yaml; existing files are replaced
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Also build the misbehaving module of the gateway's tests
    #[arg(long)]
    with_misbehaving: bool,
    /// Also build the example policies, and write each entry of the cookbook as a policy set, examples/NAME/
    #[arg(long)]
    with_examples: bool,
    /// Write the new digests into the sample policy set, to be committed
    #[arg(long)]
    update_pins: bool,
    /// Report a digest that the sample policy set does not pin, instead of failing
    #[arg(long, conflicts_with = "update_pins")]
    allow_unpinned: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let out = &arguments.out;
    let pins = match arguments {
        Arguments { update_pins: true, .. } => Pins::Update,
        Arguments { allow_unpinned: true, .. } => Pins::Report,
        _ => Pins::Verify,
    };
    let (modules, examples) = match (arguments.with_misbehaving, arguments.with_examples) {
        (true, true) => build_all(out, pins)?,
        (with_misbehaving, false) => (build(out, with_misbehaving, pins)?, Vec::new()),
        (false, true) => (build(out, false, pins)?, build_examples(out)?),
    };
    for module in modules {
        println!("{:<15} {:>7} bytes  {}", module.name, module.bytes, module.digest);
    }
    for folder in [out].into_iter().chain(&examples) {
        println!("{}", folder.join("policy-set.yaml").display());
    }
    Ok(())
}

/// What to do if a module is not the one that the sample policy set pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pins {
    /// Fail.
    Verify,
    /// Report it, and use the new module: for trying out changes.
    Report,
    /// Pin the new module.
    Update,
}

/// A module that was built and written.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) name: &'static str,
    pub(crate) bytes: usize,
    /// `sha256:` and 64 hex digits, as a policy set pins it.
    pub(crate) digest: String,
}

/// Builds everything that the tests load: the modules, the misbehaving one included, and the cookbook. Returns the modules
/// and the folders of the cookbook's entries.
pub(crate) fn build_all(out: &Path, pins: Pins) -> Result<(Vec<Module>, Vec<PathBuf>)> {
    fs::create_dir_all(out).with_context(|| format!("cannot create `{}`", out.display()))?;
    // The stamp has the time at which the build began, so that a source that changes meanwhile is newer.
    let (begun, stamp) = (out.join(format!("{STAMP}.new")), out.join(STAMP));
    fs::write(&begun, "").with_context(|| format!("cannot write `{}`", begun.display()))?;
    let modules = build(out, true, pins)?;
    let examples = build_examples(out)?;
    fs::rename(&begun, &stamp).with_context(|| format!("cannot write `{}`", stamp.display()))?;
    Ok((modules, examples))
}

/// Builds the modules and writes them into `out` with the sample policy set. The set is written last, so that a gateway
/// that watches the folder finds every module that it names.
pub(crate) fn build(out: &Path, with_misbehaving: bool, pins: Pins) -> Result<Vec<Module>> {
    let root = crate::root()?;
    let names: Vec<&'static str> =
        POLICIES.into_iter().chain(with_misbehaving.then_some(MISBEHAVING)).collect();
    for folder in ["modules", "schemas"] {
        let folder = out.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
    }
    let mut modules = Vec::new();
    for name in names {
        let bytes = compile(&root, &root.join("target/guest"), name)?;
        replace(&module_path(out, name), &bytes)?;
        modules.push(Module { name, bytes: bytes.len(), digest: digest(&bytes) });
    }
    let set = pinned_set(&root, &modules, pins)?;
    for (name, schema) in SAMPLE_SCHEMAS {
        replace(&out.join("schemas").join(name), schema.as_bytes())?;
    }
    replace(&out.join("policy-set.yaml"), set.as_bytes())?;
    Ok(modules)
}

/// Builds the example policies, and writes every entry of the cookbook into `out`/examples with the modules that it pins:
/// a folder for `countersign serve --policies`. Needs what [`build`] wrote. Returns the folders.
pub(crate) fn build_examples(out: &Path) -> Result<Vec<PathBuf>> {
    let root = crate::root()?;
    let mut digests = BTreeMap::new();
    for name in EXAMPLE_POLICIES {
        let bytes = compile(&root, &root.join("target/guest"), name)?;
        replace(&module_path(out, name), &bytes)?;
        digests.insert(name, digest(&bytes));
    }
    for name in POLICIES {
        let path = module_path(out, name);
        let bytes = fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        digests.insert(name, digest(&bytes));
    }
    let mut written = Vec::new();
    for entry in cookbook(&root)? {
        let name = entry.file_name().context("an entry has a name")?;
        let folder = out.join("examples").join(name);
        write_example(&entry, out, &folder, &digests)
            .with_context(|| format!("the example `{}`", entry.display()))?;
        written.push(folder);
    }
    Ok(written)
}

/// The folders of the cookbook's entries: those with a policy set.
fn cookbook(root: &Path) -> Result<Vec<PathBuf>> {
    let folder = root.join("policies/examples");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot list `{}`", folder.display()))?;
    let mut entries = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    entries.retain(|entry| entry.join("policy-set.yaml").is_file());
    entries.sort();
    ensure!(!entries.is_empty(), "found no examples in `{}`", folder.display());
    Ok(entries)
}

/// Copies an entry's policy set with the digests in place of its pins, its schemas, and the modules that it pins.
fn write_example(entry: &Path, out: &Path, folder: &Path, digests: &BTreeMap<&str, String>) -> Result<()> {
    for folder in [folder.join("modules"), folder.join("schemas")] {
        fs::create_dir_all(&folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
    }
    let mut set = fs::read_to_string(entry.join("policy-set.yaml"))?;
    for (name, digest) in digests {
        let pin = format!("<digest of {name}>");
        if set.contains(&pin) {
            set = set.replace(&pin, digest);
            let module = fs::read(module_path(out, name))?;
            replace(&module_path(folder, name), &module)?;
        }
    }
    ensure!(!set.contains("<digest of "), "it pins a module that is not built");
    let schemas = entry.join("schemas");
    if schemas.is_dir() {
        for schema in fs::read_dir(schemas)? {
            let schema = schema?;
            replace(&folder.join("schemas").join(schema.file_name()), &fs::read(schema.path())?)?;
        }
    }
    replace(&folder.join("policy-set.yaml"), set.as_bytes())
}

/// Where the policy set in `folder` looks for a module.
fn module_path(folder: &Path, name: &str) -> PathBuf {
    folder.join("modules").join(format!("{name}.wasm"))
}

/// The names and digests of the policies that are built from the sources in `root`, in a target folder of its own.
pub(crate) fn digests(root: &Path, target_dir: &Path) -> Result<Vec<(&'static str, String)>> {
    POLICIES.into_iter().map(|name| Ok((name, digest(&compile(root, target_dir, name)?)))).collect()
}

/// The module of one policy. Each is built alone, as its author builds it, so that the features that other packages ask
/// for do not change its bytes.
fn compile(root: &Path, target_dir: &Path, name: &str) -> Result<Vec<u8>> {
    let among = match name {
        MISBEHAVING => "tests",
        name if EXAMPLE_POLICIES.contains(&name) => "policies/examples",
        _ => "policies",
    };
    let folder = root.join(among).join(name);
    // A target folder of its own, so that this build and the gateway's do not wait for each other.
    let build = Build { folder: &folder, target_dir: Some(target_dir), locked: false, quiet: false };
    let bytes = policy_build::build(&build).with_context(|| format!("`{name}` does not build"))?.bytes;
    if let Some(import) = first_import(&bytes).with_context(|| format!("`{name}` is not a component"))? {
        bail!("`{name}` imports `{import}`: a policy may import nothing");
    }
    ensure!(bytes.len() <= MAX_MODULE_BYTES, "`{name}` has {} bytes, over {MAX_MODULE_BYTES}", bytes.len());
    Ok(bytes)
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Compares the modules with those that the sample policy set pins, and returns the set with the digests of the modules.
fn pinned_set(root: &Path, modules: &[Module], pins: Pins) -> Result<String> {
    let path = root.join(SAMPLE_SET);
    let sample = fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let built: Vec<(&str, &str)> = modules
        .iter()
        .filter(|module| POLICIES.contains(&module.name))
        .map(|module| (module.name, module.digest.as_str()))
        .collect();
    let (set, changed) = repin(&sample, &built).with_context(|| format!("`{SAMPLE_SET}`"))?;
    if changed.is_empty() {
        return Ok(set);
    }
    let changed = changed.join("\n");
    match pins {
        Pins::Update => replace(&path, set.as_bytes())?,
        Pins::Report => println!("these modules differ from the pins of {SAMPLE_SET}:\n{changed}"),
        Pins::Verify if policy_build::host(root)? != PINNED_HOST => {
            println!(
                "the pins of {SAMPLE_SET} are for {PINNED_HOST}; on this host the bytes differ:\n{changed}"
            );
        }
        Pins::Verify => bail!(
            "these modules differ from the pins of {SAMPLE_SET}:\n{changed}\n\
             If a policy, the SDK, a dependency or the toolchain was meant to change, run\n  \
             cargo xtask policies --out target/policies --update-pins\n\
             and commit the new digests with the change."
        ),
    }
    Ok(set)
}

/// The set with these digests under `modules`, and a description of each one that changed.
fn repin(set: &str, built: &[(&str, &str)]) -> Result<(String, Vec<String>)> {
    let mut lines: Vec<String> = set.lines().map(str::to_owned).collect();
    let mut changed = Vec::new();
    for (name, digest) in built {
        let pin = format!("  {name}: sha256:");
        let mut pins = lines.iter_mut().filter(|line| line.starts_with(&pin));
        let (Some(line), None) = (pins.next(), pins.next()) else {
            bail!("needs exactly one line `{pin}…`");
        };
        let pinned = line.trim_start().strip_prefix(&format!("{name}: ")).unwrap_or_default().to_owned();
        if pinned != *digest {
            changed.push(format!("  {name}: pinned {pinned}\n  {:>1$}  built {digest}", "", name.len()));
            *line = format!("  {name}: {digest}");
        }
    }
    Ok((lines.join("\n") + "\n", changed))
}

/// Replaces a file in one step: a reader sees the old content or the new, also if two builds write it at once.
fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let beside = path.with_added_extension(format!("{}.new", std::process::id()));
    fs::write(&beside, content)
        .and_then(|()| fs::rename(&beside, path))
        .with_context(|| format!("cannot write `{}`", path.display()))
}

/// The name of the first thing that a component imports, if it imports anything.
///
/// Reads the component's outermost sections only: nested ones can import only what these pass on. The gateway makes the
/// full check; this one finds the mistake when the policy is built.
fn first_import(component: &[u8]) -> Result<Option<String>> {
    const HEADER: &[u8] = b"\0asm\x0d\0\x01\0";
    const IMPORT_SECTION: u8 = 10;
    let mut rest = component.strip_prefix(HEADER).context("it does not start with a component's header")?;
    while let Some((&section, after)) = rest.split_first() {
        let (length, after) = leb128(after)?;
        let (content, next) = after.split_at_checked(length).context("a section is cut short")?;
        if section == IMPORT_SECTION {
            let (count, imports) = leb128(content)?;
            if count > 0 {
                // A name is a byte for its kind, a length, and the text.
                let (length, name) = leb128(imports.get(1..).context("an import is cut short")?)?;
                let name = name.get(..length).context("an import's name is cut short")?;
                return Ok(Some(String::from_utf8_lossy(name).into_owned()));
            }
        }
        rest = next;
    }
    Ok(None)
}

/// An unsigned 32-bit number in LEB128, and what follows it.
fn leb128(bytes: &[u8]) -> Result<(usize, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((value, bytes.get(index + 1..).unwrap_or_default()));
        }
    }
    bail!("a number is cut short")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_is_found_and_named() -> Result<()> {
        let component = |sections: &[&[u8]]| [b"\0asm\x0d\0\x01\0", sections.concat().as_slice()].concat();
        let custom: &[u8] = b"\x00\x03\x01xy";
        let import: &[u8] = b"\x0a\x09\x01\x00\x04wasi\x01\x00";
        assert_eq!(first_import(&component(&[custom]))?, None);
        assert_eq!(first_import(&component(&[custom, import]))?, Some("wasi".to_owned()));
        Ok(())
    }

    #[test]
    fn other_files_are_errors() {
        for bytes in [&b""[..], b"\0asm\x01\0\0\0", b"\0asm\x0d\0\x01\0\x0a\x09\x01"] {
            assert!(first_import(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn pins_are_compared_and_rewritten() -> Result<()> {
        let set = "modules:\n  quorum: sha256:aa\n  gate: sha256:bb # why\nactions: {}\n";
        let same = repin(set, &[("quorum", "sha256:aa")])?;
        assert_eq!(same, (set.to_owned(), vec![]));
        let (repinned, changed) = repin(set, &[("quorum", "sha256:cc")])?;
        assert_eq!(repinned, set.replace("sha256:aa", "sha256:cc"));
        assert_eq!(changed, ["  quorum: pinned sha256:aa\n          built sha256:cc"]);
        for (set, name) in [(set, "guard"), ("  quorum: sha256:aa\n  quorum: sha256:bb\n", "quorum")] {
            assert!(repin(set, &[(name, "sha256:cc")]).is_err(), "{name}");
        }
        Ok(())
    }

    #[test]
    fn the_sample_set_pins_every_policy() -> Result<()> {
        let set = include_str!("../sample/policy-set.yaml");
        let built: Vec<_> = POLICIES.iter().map(|name| (*name, "sha256:other")).collect();
        assert_eq!(repin(set, &built)?.1.len(), POLICIES.len());
        Ok(())
    }
}
