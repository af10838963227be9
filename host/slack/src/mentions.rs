//! Who is notified of a message. Slack notifies whom a new message mentions, once, and nobody when a message is updated.
//!
//! So a message that is posted has no mention, but for those of an action with `notify`: it names people by their ids, and
//! an update soon after it puts the mentions in their place. Text from outside has no mentions (`text.rs`), so each one in
//! our own text is ours.

use std::collections::BTreeSet;

use countersign_core::directory::{Directory, is_usergroup};
use countersign_core::lifecycle::{Request, RequirementKind, State, Timestamp};
use countersign_core::record::PolicyEntry;
use slack_morphism::prelude::*;

use super::blocks::section;
use super::message::Message;
use super::text::{self, grouped};

/// The most people that are mentioned, and the most user groups.
const MOST_PEOPLE: usize = 20;
const MOST_USERGROUPS: usize = 10;

/// The most room that [`call`] takes.
pub(super) const MOST_CALL: usize = 1_500;

/// The message as it is posted: it notifies nobody.
pub(crate) fn without_mentions(message: Message) -> Message {
    let Message { text, blocks } = message;
    Message { text: quiet(&text), blocks: blocks.into_iter().map(quiet_block).collect() }
}

/// What notifies, in the first message of a request, everybody who can act, once. `None` if the action does not say
/// `notify`, or there is nobody.
pub(crate) fn call(
    request: &Request,
    entry: &PolicyEntry,
    directory: &Directory,
    now: Timestamp,
) -> Option<SlackBlock> {
    let State::Open(open) = &request.state else { return None };
    if !entry.notify {
        return None;
    }
    let approvers = request.approvers();
    let (mut people, mut usergroups) = (BTreeSet::new(), BTreeSet::new());
    for requirement in &open.requirements {
        let done = match requirement.kind {
            RequirementKind::Time => continue,
            RequirementKind::Approval => approvers.as_slice(),
            RequirementKind::Acknowledgement => &[],
        };
        for name in &requirement.eligible {
            let who = entry.named(name, &requirement.excluded, directory, now);
            let members = name.strip_prefix('@').and_then(|group| entry.groups.get(group));
            let in_slack = members.into_iter().flatten().filter(|member| is_usergroup(member));
            let can_act: BTreeSet<String> = who
                .people
                .into_iter()
                .filter(|id| !done.contains(&id.as_str()))
                .filter_map(|id| slack_id(&id, directory))
                .collect();
            // A user group is left out if it is known that nobody in it can act.
            usergroups.extend(in_slack.filter(|group| {
                let members = directory.members_at(group, now);
                members.is_none_or(|members| !members.ids.is_disjoint(&can_act))
            }));
            people.extend(can_act);
        }
    }
    // Nobody is notified by themselves and by their group.
    people.retain(|id| !usergroups.iter().any(|group| directory.belongs(group, id, now).is_some()));
    let mut mentions: Vec<String> = people.iter().take(MOST_PEOPLE).map(|id| format!("<@{id}>")).collect();
    let groups = usergroups.iter().filter(|group| text::is_user_group(group)).take(MOST_USERGROUPS);
    mentions.extend(groups.map(|group| format!("<!subteam^{group}>")));
    let more = match people.len().saturating_sub(MOST_PEOPLE) {
        0 => String::new(),
        1 => " (1 more person is not notified)".to_owned(),
        more => format!(" ({} more people are not notified)", grouped(more)),
    };
    (!mentions.is_empty()).then(|| section(format!(":bell: {}: please decide{more}", mentions.join(" "))))
}

/// The Slack id of somebody whom a policy set names, if it can be mentioned.
fn slack_id(name: &str, directory: &Directory) -> Option<String> {
    if text::is_user(name) {
        return Some(name.to_owned());
    }
    let people = directory.people();
    people.find(name)?.slack_ids().find(|id| text::is_user(id)).map(str::to_owned)
}

fn quiet_block(block: SlackBlock) -> SlackBlock {
    match block {
        SlackBlock::Section(mut section) => {
            if let Some(SlackBlockText::MarkDown(words)) = &mut section.text {
                words.text = quiet(&words.text);
            }
            section.into()
        }
        SlackBlock::Context(mut context) => {
            for element in &mut context.elements {
                if let SlackContextBlockElement::MarkDown(words) = element {
                    words.text = quiet(&words.text);
                }
            }
            context.into()
        }
        SlackBlock::RichText(mut block) => {
            for element in &mut block.elements {
                if let SlackRichTextElement::Section(section) = element {
                    section.elements.iter_mut().for_each(quiet_inline);
                }
            }
            block.into()
        }
        // No other block has text of ours that Slack parses.
        other => other,
    }
}

/// In rich text, a mention is an element of its own.
fn quiet_inline(element: &mut SlackRichTextInlineElement) {
    if let SlackRichTextInlineElement::User(user) = element {
        *element = SlackRichTextText::new(user.user_id.to_string()).code().into();
    }
}

/// `mrkdwn` with ids in place of mentions.
fn quiet(words: &str) -> String {
    let mut quiet = String::new();
    let mut rest = words;
    while let Some((before, mention)) = rest.split_once("<@") {
        quiet.push_str(before);
        let Some((id, after)) = mention.split_once('>') else {
            rest = mention;
            continue;
        };
        quiet.push_str(&text::code(id, usize::MAX));
        rest = after;
    }
    quiet + rest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::blocks::{line, rich, small_print, words};

    #[test]
    fn no_mention_is_left_wherever_it_is() {
        let user = SlackRichTextUser::new(SlackUserId("U0ANA".to_owned()));
        let mention = "by <@U0ANA>, <@W0BEN>: `&lt;@U0CAT&gt;` <!date^1^{date}|then> <@";
        let message = Message {
            text: mention.to_owned(),
            blocks: vec![
                section(mention),
                small_print(mention),
                rich(vec![line(vec![words("by "), user.into()])]),
            ],
        };
        let quiet = "by `U0ANA`, `W0BEN`: `&lt;@U0CAT&gt;` <!date^1^{date}|then> ";
        let Message { text, blocks } = without_mentions(message);
        let blocks = serde_json::to_value(blocks).unwrap();
        assert_eq!(text, quiet);
        assert_eq!(
            (&blocks[0]["text"]["text"], &blocks[1]["elements"][0]["text"]),
            (&json!(quiet), &json!(quiet))
        );
        let by = &blocks[2]["elements"][0]["elements"][1];
        assert_eq!(*by, json!({"type": "text", "text": "U0ANA", "style": {"code": true}}));
    }
}
