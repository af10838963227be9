//! Why a token is whose it is, or nobody's: for whoever keeps the access file.
//!
//! Callers are not told which claims of theirs differ from a rule, since the rules are not theirs to read. Nothing is fetched
//! here, so nothing says that the issuer has made the token.

use std::collections::BTreeSet;

use countersign_core::lifecycle::Timestamp;
use countersign_core::text::plain;
use serde_json::{Map, Value};

use crate::caller::{TokenRule, claim_text};
use crate::file::Access;
use crate::token::{Token, TokenError};

/// What an access file makes of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// For people, line by line. What the token says is escaped, so that it does nothing to a terminal.
    pub lines: Vec<String>,
    /// Whether a gateway with this file would take the token now, if it is signed by its issuer.
    pub counts: bool,
}

/// What `access` makes of a token at `now`, whoever has signed it. Of the token nothing is repeated but claims.
///
/// # Errors
/// If it is no token, or has no issuer.
pub fn explain(access: &Access, token: &str, now: Timestamp) -> Result<Explained, TokenError> {
    let token = Token::read(token)?;
    let named = token.issuer()?;
    let mut lines = vec!["its signature is not checked here".to_owned()];
    let Some((name, issuer)) = access.issuers().iter().find(|(_, issuer)| issuer.issuer == named) else {
        lines.push(format!("its issuer is none of the access file's: it is `{named}`, and those are"));
        lines.extend(access.issuers().values().map(|issuer| format!("  `{}`", issuer.issuer)));
        return Ok(Explained { lines: escaped(lines), counts: false });
    };
    lines.push(format!("it is of the issuer `{name}`, `{named}`"));
    if let Ok(Some(ends)) = token.ends() {
        lines.push(format!("it ends at {ends}, and now it is {now}"));
    }
    let in_time = token.counts(named, &issuer.audience, now);
    let mut wrong: Vec<String> = in_time.err().iter().map(|error| in_detail(*error, &token)).collect();
    wrong.extend(issuer.trusts(token.claims()).err().map(|error| error.to_string()));
    lines.extend(wrong.iter().map(|why| format!("it does not count: {why}")));

    let callers = access
        .callers()
        .filter_map(|caller| Some((format!("the caller `{}`", caller.name), caller.tokens.as_ref()?)));
    let admins = access
        .admins()
        .filter_map(|admin| Some((format!("the admin `{}`", admin.name), admin.tokens.as_ref()?)));
    let mut holders = Vec::new();
    for (holder, rule) in callers.chain(admins).filter(|(_, rule)| rule.issuer == *name) {
        let fits = rule.matches(name, token.claims());
        lines.push(format!("{holder}: {}", if fits { "every claim fits" } else { "not every claim fits" }));
        lines.extend(compared(rule, token.claims()));
        holders.extend(fits.then_some(holder));
    }
    lines.push(match holders.as_slice() {
        [] => "so its claims are those of no caller and no admin".to_owned(),
        [holder] => format!("so its claims are those of {holder}"),
        several => format!("so its claims are those of several, and it is nobody's: {}", several.join(", ")),
    });
    Ok(Explained { lines: escaped(lines), counts: wrong.is_empty() && holders.len() == 1 })
}

/// Why a token does not count, with what it says of that.
fn in_detail(error: TokenError, token: &Token<'_>) -> String {
    if error != TokenError::Audience {
        return error.to_string();
    }
    let found = token.claims().get("aud").map(Value::to_string).unwrap_or_default();
    format!("{error}: its `aud` is {found}")
}

/// A line for each claim of a rule.
fn compared(rule: &TokenRule, claims: &Map<String, Value>) -> Vec<String> {
    let line = |(name, expected): (&String, &BTreeSet<String>)| {
        let values: Vec<String> = expected.iter().map(|value| format!("`{value}`")).collect();
        let wanted = match values.as_slice() {
            [one] => one.clone(),
            several => format!("one of {}", several.join(", ")),
        };
        match claims.get(name).map(claim_text) {
            None => format!("  differs  {name}: it is absent, and must be {wanted}"),
            Some(None) => format!("  differs  {name}: it is no plain value, and must be {wanted}"),
            Some(Some(found)) if expected.contains(&found) => format!("  fits     {name}: `{found}`"),
            Some(Some(found)) => format!("  differs  {name}: it is `{found}`, and must be {wanted}"),
        }
    };
    rule.claims.iter().map(line).collect()
}

fn escaped(lines: Vec<String>) -> Vec<String> {
    lines.iter().map(|line| plain(line)).collect()
}
