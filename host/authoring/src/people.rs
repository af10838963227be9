//! The people of an access file, for commands that judge as a gateway with that file would.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args;
use countersign_access::{ACCESS_BYTES, Access};
use countersign_core::directory::Directory;

use crate::file;

/// Where people come from.
#[derive(Clone, Debug, Args)]
pub(crate) struct People {
    /// The access file of the gateway: its `people` are known then, by all their names.
    #[arg(long, value_name = "FILE")]
    access: Option<PathBuf>,
}

impl People {
    /// A directory of them; without an access file, one that does not know people. Nothing is known of Slack's user groups.
    pub(crate) fn directory(&self) -> Result<Directory> {
        let Some(path) = &self.access else { return Ok(Directory::without_people()) };
        let limit = usize::try_from(ACCESS_BYTES).unwrap_or(usize::MAX);
        let text = file::text(path, limit)
            .with_context(|| format!("cannot read the access file `{}`", path.display()))?;
        let access = Access::read(path, &text)?;
        let directory = Directory::default();
        directory.set_people(Arc::clone(access.people()));
        Ok(directory)
    }
}
