//! `cargo xtask policies`: builds the policies to WebAssembly, and writes the sample policy set pinned to their digests.
//!
//! The same sources and toolchain give the same bytes on any machine, so that a digest can be checked by rebuilding.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

const TARGET: &str = "wasm32-unknown-unknown";
const POLICIES: [&str; 3] = ["quorum", "persona-gate", "override-guard"];
const MISBEHAVING: &str = "misbehaving";
/// The policies that come with the cookbook.
const EXAMPLE_POLICIES: [&str; 3] = ["business-hours", "threshold", "freeze-calendar"];
const SAMPLE_SET: &str = include_str!("../sample/policy-set.yaml");
const SAMPLE_SCHEMAS: [(&str, &str); 1] =
    [("deploy_prod.json", include_str!("../sample/schemas/deploy_prod.json"))];
/// What the project promises of its own policies; the gateway takes larger ones.
const MAX_MODULE_BYTES: usize = 200 * 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to write modules/, schemas/ and policy-set.yaml; files of these names are replaced
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Also build the module that does what no policy should, for the gateway's tests
    #[arg(long)]
    with_misbehaving: bool,
    /// Also build the example policies, and write each entry of the cookbook as a policy set of its own, examples/NAME/
    #[arg(long)]
    with_examples: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    for module in build(&arguments.out, arguments.with_misbehaving)? {
        println!("{:<15} {:>7} bytes  {}", module.name, module.bytes, module.digest);
    }
    println!("{}", arguments.out.join("policy-set.yaml").display());
    if arguments.with_examples {
        for set in build_examples(&arguments.out)? {
            println!("{}", set.join("policy-set.yaml").display());
        }
    }
    Ok(())
}

/// A module that was built and written.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) name: &'static str,
    pub(crate) bytes: usize,
    /// `sha256:` and 64 hex digits, as a policy set pins it.
    pub(crate) digest: String,
}

/// Builds the modules and writes them into `out` with the sample policy set; the set last, so that a gateway that
/// watches it finds everything it names.
pub(crate) fn build(out: &Path, with_misbehaving: bool) -> Result<Vec<Module>> {
    let names: Vec<&'static str> =
        POLICIES.into_iter().chain(with_misbehaving.then_some(MISBEHAVING)).collect();
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is a folder of the workspace")?;
    ensure_target(root)?;
    compile(root, &names)?;
    for folder in ["modules", "schemas"] {
        let folder = out.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
    }
    let modules = names.into_iter().map(|name| install(root, out, name)).collect::<Result<Vec<_>>>()?;
    for (name, schema) in SAMPLE_SCHEMAS {
        replace(&out.join("schemas").join(name), schema.as_bytes())?;
    }
    let set = modules.iter().fold(SAMPLE_SET.to_owned(), |set, module| {
        set.replace(&format!("<digest of {}>", module.name), &module.digest)
    });
    replace(&out.join("policy-set.yaml"), set.as_bytes())?;
    Ok(modules)
}

/// Builds the example policies, and writes every entry of the cookbook into `out`/examples with the modules it pins:
/// a folder that `countersign serve --policies` takes. Needs what [`build`] wrote. Returns the folders.
pub(crate) fn build_examples(out: &Path) -> Result<Vec<PathBuf>> {
    let root = crate::root()?;
    compile(&root, &EXAMPLE_POLICIES)?;
    let mut digests = BTreeMap::new();
    for name in EXAMPLE_POLICIES {
        digests.insert(name, install(&root, out, name)?.digest);
    }
    for name in POLICIES {
        let path = module_path(out, name);
        let bytes = fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        digests.insert(name, format!("sha256:{}", hex::encode(Sha256::digest(&bytes))));
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

/// The folders of the cookbook's entries: each has a policy set.
fn cookbook(root: &Path) -> Result<Vec<PathBuf>> {
    let folder = root.join("policies/examples");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot list `{}`", folder.display()))?;
    let mut entries = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    entries.retain(|entry| entry.join("policy-set.yaml").is_file());
    entries.sort();
    ensure!(!entries.is_empty(), "there are no examples in `{}`", folder.display());
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
    ensure!(!set.contains("<digest of "), "it pins a module that nobody builds");
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

/// Adds the target where rustup has not done so on account of `rust-toolchain.toml`.
fn ensure_target(root: &Path) -> Result<()> {
    if Path::new(&rustc(root, &["--print=target-libdir", "--target", TARGET])?).is_dir() {
        return Ok(());
    }
    let added = Command::new("rustup").args(["target", "add", TARGET]).current_dir(root).status();
    if !added.is_ok_and(|status| status.success()) {
        bail!("the policies need the Rust target `{TARGET}`; install it, then run this again");
    }
    Ok(())
}

fn compile(root: &Path, names: &[&str]) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root).args(["build", "--quiet", "--profile", "guest", "--target", TARGET]);
    // A target folder of its own, so that this build and the gateway's do not wait for each other.
    cargo.arg("--target-dir").arg(target_dir(root));
    for name in names {
        cargo.args(["--package", name]);
    }
    // The variable replaces the flags of .cargo/config.toml, so the stack size is said again.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", guest_flags(root)?.join("\u{1f}"));
    let status = cargo.status().context("cannot run cargo")?;
    ensure!(status.success(), "the policies do not build");
    Ok(())
}

/// The flags that make a module: a small stack, and no path of this machine in it.
fn guest_flags(root: &Path) -> Result<Vec<String>> {
    let version = rustc(root, &["--version", "--verbose"])?;
    let commit = version.lines().find_map(|line| line.strip_prefix("commit-hash: ")).unwrap_or("unknown");
    let std_sources = Path::new(&rustc(root, &["--print=sysroot"])?).join("lib/rustlib/src/rust");
    let mut flags = vec!["-Clink-arg=-zstack-size=65536".to_owned()];
    let mut remap =
        |from: &Path, to: &str| flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    // The last flag that fits wins, and any of these folders may be inside an earlier one.
    remap(&cargo_home()?, "/cargo");
    remap(root, "/countersign");
    remap(&std_sources, &format!("/rustc/{commit}"));
    Ok(flags)
}

/// Where cargo keeps the sources of dependencies, found as cargo finds it.
#[expect(
    clippy::disallowed_methods,
    reason = "it is cargo's configuration that is read here, not the gateway's"
)]
fn cargo_home() -> Result<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| Some(env::home_dir()?.join(".cargo")))
        .context("neither CARGO_HOME nor a home folder is known")
}

fn rustc(root: &Path, arguments: &[&str]) -> Result<String> {
    let output =
        Command::new("rustc").args(arguments).current_dir(root).output().context("cannot run rustc")?;
    ensure!(output.status.success(), "rustc {} failed", arguments.join(" "));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn target_dir(root: &Path) -> PathBuf {
    root.join("target").join("guest")
}

/// Checks a module that was built, and writes it where the policy set looks for it.
fn install(root: &Path, out: &Path, name: &'static str) -> Result<Module> {
    let file = format!("{}.wasm", name.replace('-', "_"));
    let built = target_dir(root).join(TARGET).join("guest").join(file);
    let bytes = fs::read(&built).with_context(|| format!("cannot read `{}`", built.display()))?;
    if let Some(import) = first_import(&bytes).with_context(|| format!("`{name}` is not a component"))? {
        bail!("`{name}` imports `{import}`: a policy may import nothing");
    }
    ensure!(bytes.len() <= MAX_MODULE_BYTES, "`{name}` has {} bytes, over {MAX_MODULE_BYTES}", bytes.len());
    replace(&module_path(out, name), &bytes)?;
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
    Ok(Module { name, bytes: bytes.len(), digest })
}

/// Writes a file so that whoever watches it sees the old content or the new, and nothing between.
fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let beside = path.with_added_extension("new");
    fs::write(&beside, content)
        .and_then(|()| fs::rename(&beside, path))
        .with_context(|| format!("cannot write `{}`", path.display()))
}

/// The name of the first thing that a component imports, if it imports anything.
///
/// Looks at the component's outermost sections only: what is nested can import nothing but what these hand on.
/// The gateway checks for itself, and thoroughly; this is to fail where the policy is built.
fn first_import(component: &[u8]) -> Result<Option<String>> {
    const HEADER: &[u8] = b"\0asm\x0d\0\x01\0";
    const IMPORT_SECTION: u8 = 10;
    let mut rest = component.strip_prefix(HEADER).context("it does not start as one")?;
    while let Some((&section, after)) = rest.split_first() {
        let (length, after) = leb128(after)?;
        let (content, next) = after.split_at_checked(length).context("a section ends early")?;
        if section == IMPORT_SECTION {
            let (count, imports) = leb128(content)?;
            if count > 0 {
                // A name is one byte that says of what kind, a length, and the text.
                let (length, name) = leb128(imports.get(1..).context("an import ends early")?)?;
                let name = name.get(..length).context("an import's name ends early")?;
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
    bail!("a number ends early")
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
    fn what_is_no_component_is_an_error() {
        for bytes in [&b""[..], b"\0asm\x01\0\0\0", b"\0asm\x0d\0\x01\0\x0a\x09\x01"] {
            assert!(first_import(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn the_sample_set_pins_every_policy() {
        for name in POLICIES {
            let pin = format!("  {name}: <digest of {name}>");
            assert!(SAMPLE_SET.lines().any(|line| line == pin), "`{pin}` is missing");
        }
    }
}
