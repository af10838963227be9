//! The Web API: authentication, scopes, and the methods.

mod apps;
mod arguments;
mod chat;
mod conversations;
mod users;
mod views;

use serde_json::{Map, Value, json};

pub(crate) use self::arguments::Arguments;
use crate::clock;
use crate::world::World;

/// The answer to a refused call: `ok: false`, with a code.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) code: &'static str,
    /// What is wrong, for people.
    messages: Vec<String>,
    extra: Map<String, Value>,
}

impl From<&'static str> for Refusal {
    fn from(code: &'static str) -> Refusal {
        Refusal { code, messages: Vec::new(), extra: Map::new() }
    }
}

impl Refusal {
    pub(crate) fn because(code: &'static str, messages: Vec<String>) -> Refusal {
        Refusal { code, messages, extra: Map::new() }
    }

    pub(crate) fn json(&self) -> Value {
        let mut json = self.extra.clone();
        json.insert("ok".into(), json!(false));
        json.insert("error".into(), json!(self.code));
        if !self.messages.is_empty() {
            let messages: Vec<String> =
                self.messages.iter().map(|message| format!("[ERROR] {message}")).collect();
            json.insert("errors".into(), json!(self.messages));
            json.insert("response_metadata".into(), json!({"messages": messages}));
        }
        Value::Object(json)
    }
}

/// What a method answers: the members besides `ok`.
pub(crate) type Answer = Result<Value, Refusal>;

/// The tokens that Slack issued.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    pub(crate) bot: String,
    pub(crate) app: String,
}

/// A method, and what it takes to call it.
#[derive(Clone, Copy)]
struct Method {
    name: &'static str,
    /// Any one of these scopes is enough; if empty, none is needed.
    scopes: &'static [&'static str],
    call: fn(&mut World, &Arguments, &Addresses) -> Answer,
}

/// The addresses of the simulator.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    /// `http://HOST:PORT`.
    pub(crate) http: String,
    /// `ws://HOST:PORT`.
    pub(crate) socket: String,
}

const CHANNELS_HISTORY: &str = "channels:history";
const GROUPS_HISTORY: &str = "groups:history";

const METHODS: [Method; 12] = [
    Method { name: "auth.test", scopes: &[], call: users::auth_test },
    Method { name: "chat.postMessage", scopes: &["chat:write"], call: chat::post_message },
    Method { name: "chat.update", scopes: &["chat:write"], call: chat::update },
    Method { name: "chat.postEphemeral", scopes: &["chat:write"], call: chat::post_ephemeral },
    Method { name: "chat.getPermalink", scopes: &[], call: chat::permalink },
    Method { name: "views.open", scopes: &[], call: views::open },
    Method { name: "views.update", scopes: &[], call: views::update },
    Method { name: "usergroups.users.list", scopes: &["usergroups:read"], call: users::usergroup_members },
    Method { name: "users.info", scopes: &["users:read"], call: users::info },
    Method { name: "apps.connections.open", scopes: &[], call: apps::open_connection },
    Method {
        name: "conversations.history",
        scopes: &[CHANNELS_HISTORY, GROUPS_HISTORY],
        call: conversations::history,
    },
    Method {
        name: "conversations.replies",
        scopes: &[CHANNELS_HISTORY, GROUPS_HISTORY],
        call: conversations::replies,
    },
];

/// The outcome of a call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    Answered(Value),
    Refused(Refusal),
    RateLimited { retry_after: u64 },
}

impl Outcome {
    /// As it is counted.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Outcome::Answered(_) => "ok",
            Outcome::Refused(refusal) => refusal.code,
            Outcome::RateLimited { .. } => "ratelimited",
        }
    }
}

/// Carries a call out.
pub(crate) fn call(
    world: &mut World,
    tokens: &Tokens,
    addresses: &Addresses,
    name: &str,
    arguments: Result<Arguments, Refusal>,
) -> Outcome {
    let checked = arguments.and_then(|arguments| {
        let Some(method) = METHODS.iter().find(|method| method.name == name) else {
            return Err(Refusal { code: "unknown_method", messages: vec![], extra: request_method(name) });
        };
        authorize(method, tokens, &arguments)?;
        Ok((method, arguments))
    });
    let (method, arguments) = match checked {
        Ok(checked) => checked,
        Err(refusal) => return Outcome::Refused(refusal),
    };
    let channel = arguments.text("channel").unwrap_or_default();
    if let Err(retry_after) = world.rates.take(name, &channel, clock::micros()) {
        return Outcome::RateLimited { retry_after };
    }
    match check_scope(world, method, &channel).and_then(|()| (method.call)(world, &arguments, addresses)) {
        Ok(Value::Object(mut members)) => {
            members.insert("ok".into(), json!(true));
            Outcome::Answered(Value::Object(members))
        }
        Ok(_) => Outcome::Answered(json!({"ok": true})),
        Err(refusal) => Outcome::Refused(refusal),
    }
}

fn request_method(name: &str) -> Map<String, Value> {
    Map::from_iter([("req_method".to_owned(), json!(name))])
}

fn authorize(method: &Method, tokens: &Tokens, arguments: &Arguments) -> Result<(), Refusal> {
    let token = arguments.token.as_deref().filter(|token| !token.is_empty()).ok_or("not_authed")?;
    let (wanted, other) = match method.name {
        "apps.connections.open" => (&tokens.app, &tokens.bot),
        _ => (&tokens.bot, &tokens.app),
    };
    if token == wanted {
        return Ok(());
    }
    Err(if token == other { "not_allowed_token_type" } else { "invalid_auth" }.into())
}

fn check_scope(world: &World, method: &Method, channel: &str) -> Result<(), Refusal> {
    let private = world.channels.get(channel).is_some_and(|channel| channel.profile.private);
    let needed = match method.scopes {
        [] => return Ok(()),
        [CHANNELS_HISTORY, GROUPS_HISTORY] if private => GROUPS_HISTORY,
        [first, ..] => first,
    };
    if world.scopes.contains(needed) {
        return Ok(());
    }
    let provided = world.scopes.iter().cloned().collect::<Vec<_>>().join(",");
    let extra = [("needed".to_owned(), json!(needed)), ("provided".to_owned(), json!(provided))];
    Err(Refusal { code: "missing_scope", messages: vec![], extra: Map::from_iter(extra) })
}

#[cfg(test)]
mod tests;
