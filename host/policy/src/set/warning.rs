//! What is no fault of a set, and whoever wrote it may not want.

use std::collections::BTreeSet;

use super::PolicySet;

impl PolicySet {
    /// What whoever wrote the set may not want, although it can be in force: a text for each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let channels = self.policies().flat_map(|policy| {
            let entry = policy.entry();
            let escalation = entry.escalate.as_ref().and_then(|escalate| escalate.channel.as_deref());
            entry.channel.as_deref().into_iter().chain(escalation)
        });
        let others: BTreeSet<&str> = channels.filter(|channel| !is_channel_id(channel)).collect();
        let channels = others.into_iter().map(|channel| {
            format!(
                "`{channel}` is not the id of a channel (`C…`, `G…` or `D…`): \
                 a message there that Slack does not confirm cannot be looked for, and may be posted twice"
            )
        });
        let nothing = self.policies().next().is_none();
        let nothing = nothing.then(|| "there is no action: every request is denied".to_owned());
        nothing.into_iter().chain(channels).collect()
    }
}

/// Whether Slack would read the history of a channel that is given so. Names of channels have no capitals.
fn is_channel_id(channel: &str) -> bool {
    let upper = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    channel.len() >= 2 && channel.starts_with(['C', 'G', 'D']) && channel.bytes().all(upper)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_channels_are_told_from_all_else_that_slack_posts_to() {
        for id in ["C0", "C0123ABCD", "G0123ABCD", "D0123ABCD"] {
            assert!(is_channel_id(id), "{id}");
        }
        for other in [
            "",
            "C",
            "#deploys",
            "deploys",
            "#C0123ABCD",
            "c0123abcd",
            "C0123abcd",
            " C0123ABCD",
            "C0123ABCD ",
            "C0123-ABCD",
            "U0123ABCD",
            "W0123ABCD",
            "@alice",
            "Ç0123ABCD",
        ] {
            assert!(!is_channel_id(other), "{other}");
        }
    }
}
