//! The folder of the policy set, as it is at one moment.

use std::path::Path;

use countersign_core::lifecycle::Digest;
use countersign_policy::{Limits, LoadErrors, Source};
use countersign_registry::Pinned;

use crate::fetch::elsewhere;

/// What was found when the folder was read, once, so that what is compared is what is loaded.
pub(super) struct Look {
    /// Differs if anything in the folder does, or in what keeps it from being read.
    pub(super) fingerprint: Digest,
    /// The files.
    pub(super) source: Result<Source, LoadErrors>,
    /// The modules that they pin in registries.
    pub(super) elsewhere: Vec<Pinned>,
}

impl Look {
    /// Reads the folder. Blocks.
    pub(super) fn at(directory: &Path, limits: &Limits) -> Look {
        let source = Source::read(directory, limits);
        let fingerprint = match &source {
            Ok(source) => source.fingerprint(),
            Err(errors) => Digest::of(errors.to_string().as_bytes()),
        };
        let elsewhere = source.as_ref().map(elsewhere).unwrap_or_default();
        Look { fingerprint, source, elsewhere }
    }
}
