//! What the commands about receipts read: receipts, keys, parameters and salts.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use countersign_core::json;
use countersign_core::lifecycle::Salt;
use countersign_gateway::receipts::{KeySet, MOST_BYTES};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

/// Reads a file of at most this many bytes.
pub(super) fn read(path: &Path, most: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX);
    let file = fs::File::open(path).with_context(|| format!("cannot open `{}`", path.display()))?;
    let length = file.take(limit.saturating_add(1)).read_to_end(&mut bytes);
    length.with_context(|| format!("cannot read `{}`", path.display()))?;
    ensure!(bytes.len() <= most, "`{}` has more than {most} bytes", path.display());
    Ok(bytes)
}

/// The text of a receipt: it begins with a JSON object in base64url, which no sensible file name does.
pub(super) fn receipt(argument: &str) -> anyhow::Result<String> {
    if argument.starts_with("eyJ") && argument.matches('.').count() == 2 {
        return Ok(argument.to_owned());
    }
    let bytes = match argument {
        "-" => read(Path::new("/dev/stdin"), MOST_BYTES)?,
        path => read(Path::new(path), MOST_BYTES)?,
    };
    let text = String::from_utf8(bytes).ok().context("the receipt is no text")?;
    Ok(text.trim().to_owned())
}

/// The keys that a gateway publishes.
pub(super) fn keys(path: &Path) -> anyhow::Result<KeySet> {
    let keys = read(path, MOST_BYTES)?;
    KeySet::read(&keys).map_err(|error| anyhow::anyhow!("`{}` is no key set: {error}", path.display()))
}

/// Parameters, which are no larger than what the gateway takes.
pub(super) fn params(path: &Path) -> anyhow::Result<Map<String, Value>> {
    let shown = path.display();
    let values = json::parse(&read(path, MOST_BYTES)?);
    let values = values.map_err(|error| anyhow::anyhow!("in `{shown}`: {error}"))?;
    let Value::Object(values) = values else { bail!("`{shown}` does not hold a JSON object") };
    Ok(values)
}

/// A salt as the gateway gives it: 32 bytes in hexadecimal.
pub(super) fn salt(argument: &str) -> anyhow::Result<Salt> {
    let text = match argument.strip_prefix('@') {
        Some(path) => {
            String::from_utf8(read(Path::new(path), MOST_BYTES)?).ok().context("the salt is no text")?
        }
        None => argument.to_owned(),
    };
    let text = Zeroizing::new(text);
    Ok(text.trim().parse()?)
}
