//! A message in a channel: a snapshot.

use serde_json::{Map, Value, json};

use crate::blocks;
use crate::workspace::{APP, BOT, BOT_NAME, BOT_USER, Team};

/// Who wrote a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Author {
    /// The app.
    App,
    /// A person.
    Person(String),
}

/// A message. It is a snapshot, so it can be kept to click on a button that is gone by then.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The channel's id.
    pub channel: String,
    /// Its time, which is its id in the channel.
    pub ts: String,
    /// The thread that it is in, if it is a reply.
    pub thread: Option<String>,
    /// Whether a reply is shown in the channel as well.
    pub broadcast: bool,
    /// Who wrote it.
    pub author: Author,
    /// Its text; what notifications show, if there are blocks.
    pub text: String,
    /// Its blocks.
    pub blocks: Vec<Value>,
    /// What the app keeps with it: `event_type` and `event_payload`.
    pub metadata: Option<Value>,
    /// How often it was updated.
    pub updates: u64,
}

/// A button of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Button {
    /// The block that it is in.
    pub block_id: String,
    /// What it does.
    pub action_id: String,
    /// What is on it.
    pub text: String,
    /// `primary` or `danger`, if it has a style.
    pub style: Option<String>,
    /// What it carries.
    pub value: Option<String>,
}

impl Message {
    /// Its buttons, in the order in which they are shown.
    #[must_use]
    pub fn buttons(&self) -> Vec<Button> {
        blocks::elements(&self.blocks)
            .filter(|(_, element)| element["type"] == "button")
            .map(|(block_id, element)| Button {
                block_id: block_id.to_owned(),
                action_id: text_of(&element["action_id"]),
                text: text_of(&element["text"]["text"]),
                style: element["style"].as_str().map(str::to_owned),
                value: element["value"].as_str().map(str::to_owned),
            })
            .collect()
    }

    /// The button with this `action_id`, if there is one.
    #[must_use]
    pub fn button(&self, action_id: &str) -> Option<Button> {
        self.buttons().into_iter().find(|button| button.action_id == action_id)
    }

    /// The `action_id`s of its buttons.
    #[must_use]
    pub fn actions(&self) -> Vec<String> {
        self.buttons().into_iter().map(|button| button.action_id).collect()
    }

    /// A member of its metadata's payload, as text.
    #[must_use]
    pub fn mark(&self, key: &str) -> Option<&str> {
        self.metadata.as_ref()?["event_payload"][key].as_str()
    }

    /// Everything that a reader sees of it, one line for each part: the texts of its blocks as they are, with tokens such as
    /// `<@U0ALICE>` left alone and `&lt;` read as `<`. Its own text if it has no blocks.
    #[must_use]
    pub fn shown(&self) -> String {
        if self.blocks.is_empty() { unescaped(&self.text) } else { shown(&self.blocks) }
    }

    /// Whom it would notify: ids of people and groups, and `here`, `channel` or `everyone`. Its own text counts too, even
    /// if Slack would not notify anybody because of it when there are blocks.
    #[must_use]
    pub fn pings(&self) -> Vec<String> {
        let mut pings = Vec::new();
        tokens(&self.text, &mut pings);
        self.blocks.iter().for_each(|block| ping(block, &mut pings));
        pings.sort();
        pings.dedup();
        pings
    }

    /// As Slack's API returns it.
    pub(crate) fn json(&self, team: &Team, with_metadata: bool) -> Map<String, Value> {
        let mut json = Map::new();
        let mut put = |key: &str, value: Value| json.insert(key.to_owned(), value);
        put("type", json!("message"));
        put("ts", json!(self.ts));
        put("text", json!(self.text));
        put("team", json!(team.id));
        match &self.author {
            Author::App => {
                put("user", json!(BOT_USER));
                put("bot_id", json!(BOT));
                put("app_id", json!(APP));
                put("bot_profile", json!({"id": BOT, "app_id": APP, "name": BOT_NAME, "team_id": team.id}));
            }
            Author::Person(id) => {
                put("user", json!(id));
            }
        }
        if !self.blocks.is_empty() {
            put("blocks", json!(self.blocks));
        }
        if let Some(thread) = &self.thread {
            put("thread_ts", json!(thread));
        }
        if let Some(metadata) = self.metadata.as_ref().filter(|_| with_metadata) {
            put("metadata", metadata.clone());
        }
        json
    }
}

/// An ephemeral message: only one person sees it, until they reload.
#[derive(Clone, Debug, PartialEq)]
pub struct Ephemeral {
    /// Who sees it.
    pub user: String,
    /// The channel that it is shown in.
    pub channel: String,
    /// The thread that it is shown in.
    pub thread: Option<String>,
    /// Its time.
    pub ts: String,
    /// Its text.
    pub text: String,
    /// Its blocks.
    pub blocks: Vec<Value>,
}

impl Ephemeral {
    /// Everything that its reader sees; see [`Message::shown`].
    #[must_use]
    pub fn shown(&self) -> String {
        if self.blocks.is_empty() { unescaped(&self.text) } else { shown(&self.blocks) }
    }
}

/// Everything that a reader sees of blocks.
pub(crate) fn shown(blocks: &[Value]) -> String {
    let mut lines = Vec::new();
    blocks.iter().for_each(|block| show(block, &mut lines));
    lines.join("\n")
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

/// Collects the text, one line for each text object and each part of rich text.
fn show(value: &Value, lines: &mut Vec<String>) {
    let kind = value["type"].as_str().unwrap_or_default();
    match kind {
        "plain_text" | "mrkdwn" => lines.push(unescaped(value["text"].as_str().unwrap_or_default())),
        "markdown" => lines.push(text_of(&value["text"])),
        "rich_text_section" | "rich_text_quote" | "rich_text_preformatted" => {
            lines.push(blocks::items(&value["elements"]).map(piece).collect());
        }
        _ => {
            for key in ["text", "fields", "elements", "element", "accessory", "label", "hint", "options"] {
                match &value[key] {
                    Value::Array(items) => items.iter().for_each(|item| show(item, lines)),
                    Value::Object(_) => show(&value[key], lines),
                    _ => {}
                }
            }
        }
    }
}

fn piece(piece: &Value) -> String {
    let of = |key: &str| text_of(&piece[key]);
    match piece["type"].as_str().unwrap_or_default() {
        "user" => format!("<@{}>", of("user_id")),
        "usergroup" => format!("<!subteam^{}>", of("usergroup_id")),
        "channel" => format!("<#{}>", of("channel_id")),
        "broadcast" => format!("<!{}>", of("range")),
        "emoji" => format!(":{}:", of("name")),
        "date" => of("fallback"),
        "link" if piece["text"].is_null() => of("url"),
        _ => of("text"),
    }
}

fn ping(value: &Value, pings: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| ping(item, pings)),
        Value::Object(members) => {
            let of = |key: &str| text_of(&value[key]);
            match value["type"].as_str().unwrap_or_default() {
                "mrkdwn" | "markdown" => tokens(&of("text"), pings),
                "user" => pings.push(of("user_id")),
                "usergroup" => pings.push(of("usergroup_id")),
                "broadcast" => pings.push(of("range")),
                _ => members.values().for_each(|member| ping(member, pings)),
            }
        }
        _ => {}
    }
}

/// Finds `<@…>`, `<!here>`, `<!subteam^…>` and their like in text that Slack parses.
fn tokens(text: &str, pings: &mut Vec<String>) {
    for rest in text.split('<').skip(1) {
        let Some((token, _)) = rest.split_once('>') else { continue };
        let token = token.split('|').next().unwrap_or_default();
        if let Some(user) = token.strip_prefix('@') {
            pings.push(user.to_owned());
        } else if let Some(group) = token.strip_prefix("!subteam^") {
            pings.push(group.to_owned());
        } else if let Some(range) = token.strip_prefix('!').filter(|range| !range.starts_with("date^")) {
            pings.push(range.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str, blocks: Value) -> Message {
        Message {
            channel: "C0A".into(),
            ts: "1.000000".into(),
            thread: None,
            broadcast: false,
            author: Author::App,
            text: text.into(),
            blocks: blocks.as_array().unwrap().clone(),
            metadata: Some(json!({"event_type": "x", "event_payload": {"request_id": "req_1"}})),
            updates: 0,
        }
    }

    #[test]
    fn pings_are_found_where_slack_would_parse_them_and_nowhere_else() {
        let hostile = "<!channel> <@U0BOB> <!subteam^S0RELEASE|x>";
        let escaped = hostile.replace('<', "&lt;").replace('>', "&gt;");
        let rich = |kind: &str, piece: Value| json!([{"type": "rich_text", "elements": [{"type": kind, "elements": [piece]}]}]);
        let section =
            |kind: &str, text: &str| json!([{"type": "section", "text": {"type": kind, "text": text}}]);
        let all = ["S0RELEASE", "U0BOB", "channel"];
        let rows: [(&str, Value, &[&str]); 8] = [
            (hostile, json!([]), &all),
            (&escaped, json!([]), &[]),
            ("", section("mrkdwn", hostile), &all),
            ("", section("mrkdwn", &escaped), &[]),
            ("", section("plain_text", hostile), &[]),
            ("", rich("rich_text_preformatted", json!({"type": "text", "text": hostile})), &[]),
            ("", rich("rich_text_section", json!({"type": "user", "user_id": "U0BOB"})), &["U0BOB"]),
            ("<!date^1^{date}|x> <https://example.org|@here>", json!([]), &[]),
        ];
        for (text, blocks, pings) in rows {
            assert_eq!(message(text, blocks.clone()).pings(), pings, "{text} {blocks}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read() {
        let blocks = json!([
            {"type": "header", "text": {"type": "plain_text", "text": "Deploy"}},
            {"type": "section", "text": {"type": "mrkdwn", "text": "*by* <@U0DANA> &amp; co"}, "fields": [{"type": "mrkdwn", "text": "f"}]},
            {"type": "rich_text", "elements": [{"type": "rich_text_quote", "elements": [
                {"type": "text", "text": "a <b> "}, {"type": "user", "user_id": "U0BOB"}]}]},
            {"type": "actions", "block_id": "b", "elements": [
                {"type": "button", "action_id": "approve", "style": "primary", "value": "v", "text": {"type": "plain_text", "text": "Approve"}}]},
        ]);
        let message = message("fallback", blocks);
        assert_eq!(message.shown(), "Deploy\n*by* <@U0DANA> & co\nf\na <b> <@U0BOB>\nApprove");
        assert_eq!(message.actions(), ["approve"]);
        assert_eq!(message.button("approve").unwrap().style.as_deref(), Some("primary"));
        assert_eq!(message.button("deny"), None);
        assert_eq!(message.mark("request_id"), Some("req_1"));
    }
}
