//! A webhook, as the access file describes it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use countersign_core::glob::Glob;
use countersign_core::lifecycle::Milestone;
use url::Url;

use countersign_outbound::Reach;

/// A webhook, as the access file describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct WebhookRule {
    /// Its name in the access file.
    pub name: String,
    /// Where it is.
    pub url: Url,
    /// The file of its secret.
    pub secret_file: PathBuf,
    /// What it is told of.
    pub events: BTreeSet<Milestone>,
    /// The actions that it is told of.
    pub actions: Vec<Glob>,
    /// Whether it may be on a private network.
    pub reach: Reach,
    /// Whether it is told the values of those parameters that people are shown.
    pub shows_parameters: bool,
}

impl WebhookRule {
    /// Whether it is told of this milestone of a request for this action.
    #[must_use]
    pub fn wants(&self, action: &str, milestone: Milestone) -> bool {
        self.events.contains(&milestone) && self.actions.iter().any(|glob| glob.matches(action))
    }
}
