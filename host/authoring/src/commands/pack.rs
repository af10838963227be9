//! `countersign policy pack`: prints a policy set's folder as the JSON document that `POST /api/admin/policy-sets` takes.

use std::io;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use countersign_core::json as strict;
use countersign_core::record::SIGNATURES_BYTES;
use countersign_policy::{Limits, Source};
use serde_json::{Map, json};

use super::sign::signature_file;
use crate::{Answer, file};

/// Print a policy set's folder as the JSON document that the admin API takes.
#[derive(Debug, Args)]
pub struct Pack {
    /// The policy set: its folder, or the `policy-set.yaml` in it.
    #[arg(value_name = "SET")]
    set: PathBuf,
}

pub(crate) fn run(pack: &Pack) -> Result<Answer> {
    let folder = Source::folder(&pack.set);
    let source = Source::read(folder, &Limits::default())?;
    let mut schemas = Map::new();
    for (action, name, bytes) in source.schemas {
        let schema = strict::parse(&bytes).map_err(|refused| anyhow!("`{name}`: {refused}"))?;
        schemas.insert(action, schema);
    }
    let signature_file = signature_file(&folder.join("policy-set.yaml"));
    let signatures = match file::text(&signature_file, SIGNATURES_BYTES) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read `{}`", signature_file.display()));
        }
    };
    let packed = json!({ "document": source.text, "schemas": schemas, "signatures": signatures });
    Answer::json(&packed, true)
}
