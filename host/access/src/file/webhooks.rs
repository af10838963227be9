//! `webhooks`: what is sent where.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use countersign_core::lifecycle::Milestone;
use countersign_dispatch::Reach;
use countersign_dispatch::webhook::{Secrets, WebhookRule, checked_url};
use countersign_policy::yaml::document::Node;
use countersign_policy::yaml::fields::Fields;

use super::{Reading, impossible_action};
use crate::caller::Glob;

impl Reading<'_> {
    pub(super) fn webhooks(&mut self, node: Option<&Node>) -> BTreeMap<String, Arc<WebhookRule>> {
        let known = ["url", "secret_file", "events", "actions", "allow_private", "parameters"];
        let mut webhooks = BTreeMap::new();
        for (key, node) in self.reader.members(node, "`webhooks`") {
            self.named(key, "a webhook");
            if key.text.contains(['.', ':']) {
                let message = format!("`{}` names a webhook, so it has no `.` and no `:`", key.text);
                self.reader.error(key.at, message);
            }
            let Some(fields) = self.reader.fields(node, "a webhook", &known) else { continue };
            let private =
                fields.get("allow_private").is_some_and(|node| self.reader.truth(node, "`allow_private`"));
            let reach = if private { Reach::Private } else { Reach::Public };
            let url = self.required(&fields, node, "url", "where it is");
            let at = |name: &str| fields.get(name).map_or(node.at, |node| node.at);
            // The path of a URL may be a secret, so no message quotes it.
            let url = url.and_then(|url| match checked_url(&url, reach) {
                Ok(url) => Some(url),
                Err(why) => {
                    self.reader.error(at("url"), format!("nothing is sent to this `url`: {why}"));
                    None
                }
            });
            let secret_file = self.secret_file(&fields, node);
            let events = self.milestones(fields.get("events"));
            let actions = match fields.get("actions") {
                Some(node) => self.one_or_more(Some(node), "`actions`"),
                None => vec![(node.at, "*".to_owned())],
            };
            for (at, glob) in &actions {
                if let Some(why) = impossible_action(glob) {
                    self.reader.error(*at, format!("`{glob}` {why}, so it is no action"));
                }
            }
            let shows_parameters = fields.get("parameters").is_some_and(|node| self.parameters(node));
            let (Some(url), Some(secret_file)) = (url, secret_file) else { continue };
            let rule = WebhookRule {
                name: key.text.clone(),
                url,
                secret_file,
                events,
                actions: actions.iter().map(|(_, glob)| Glob::new(glob)).collect(),
                reach,
                shows_parameters,
            };
            webhooks.insert(key.text.clone(), Arc::new(rule));
        }
        webhooks
    }

    /// The file of a webhook's secrets; it must be there, and sound.
    fn secret_file(&mut self, fields: &Fields<'_>, node: &Node) -> Option<PathBuf> {
        let text = self.required(fields, node, "secret_file", "the file of what it is signed with")?;
        let at = fields.get("secret_file").map_or(node.at, |node| node.at);
        if text.starts_with("whsec_") || text.starts_with("whsk_") {
            self.reader.error(at, "this is a secret itself: write it to a file, and make another one");
            return None;
        }
        let file = self.folder.join(text);
        if let Err(why) = Secrets::read(&file) {
            self.reader.error(at, why.to_string());
        }
        Some(file)
    }

    /// What a webhook is told of: all, if it does not say.
    fn milestones(&mut self, node: Option<&Node>) -> BTreeSet<Milestone> {
        if node.is_none() {
            return Milestone::ALL.into();
        }
        let mut milestones = BTreeSet::new();
        for (at, name) in self.one_or_more(node, "`events`") {
            match Milestone::ALL.into_iter().find(|milestone| milestone.as_str() == name) {
                Some(milestone) => drop(milestones.insert(milestone)),
                None => {
                    let known = Milestone::ALL.map(|it| format!("`{}`", it.as_str())).join(", ");
                    self.reader.error(at, format!("`{name}` is no event; there are {known}"));
                }
            }
        }
        milestones
    }

    /// Whether a webhook is told the values of parameters.
    fn parameters(&mut self, node: &Node) -> bool {
        let text = self.reader.text(node, "`parameters`").unwrap_or_default();
        if !matches!(text, "hidden" | "shown") {
            self.reader
                .error(node.at, "`parameters` is `hidden`, or `shown` for those that people are shown");
        }
        text == "shown"
    }
}
