//! Stands in until the rendering is merged.

use slack_morphism::prelude::SlackModalView;

use crate::lifecycle::Request;
use crate::policy::PolicyEntry;

/// None where nothing can be edited.
#[must_use]
pub fn overrides(_: &Request, _: &PolicyEntry) -> Option<SlackModalView> {
    None
}

/// Asks why.
#[must_use]
pub fn deny(_: &Request) -> SlackModalView {
    SlackModalView::new("Deny".into(), Vec::new())
}
