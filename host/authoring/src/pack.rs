//! `countersign policy pack`: a policy set's folder as the one document that `POST /api/admin/policy-sets` takes.

use std::io;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::{Map, Value, json};

use super::sign::signatures_of;
use super::{Answer, file};
use countersign_core::record::SIGNATURES_BYTES;
use countersign_policy::{Limits, Source};

/// A policy set.
#[derive(Debug, Args)]
pub struct Pack {
    /// The policy set: its folder, or the `policy-set.yaml` in it.
    #[arg(value_name = "SET")]
    set: PathBuf,
}

pub(super) fn run(pack: &Pack) -> Result<Answer> {
    let folder = Source::folder(&pack.set);
    let source = Source::read(folder, &Limits::default())?;
    let mut schemas = Map::new();
    for (action, name, bytes) in source.schemas {
        let schema: Value = serde_json::from_slice(&bytes).with_context(|| format!("`{name}` is no JSON"))?;
        schemas.insert(action, schema);
    }
    let beside = signatures_of(&folder.join("policy-set.yaml"));
    let signatures = match file::text(&beside, SIGNATURES_BYTES) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", beside.display())),
    };
    let packed = json!({ "document": source.text, "schemas": schemas, "signatures": signatures });
    Ok(Answer { text: format!("{packed:#}\n"), good: true })
}
