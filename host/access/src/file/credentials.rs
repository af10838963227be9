//! What a caller or an admin is recognised by: tokens, API keys, client certificates.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use countersign_core::lifecycle::{Digest, Timestamp};
use countersign_policy::yaml::document::{Key, Kind, Node};
use countersign_policy::yaml::fields::Fields;

use super::{ApiKeyEntry, Reading, Warning};
use crate::authenticate::Holder;
use crate::caller::TokenRule;
use crate::certificate::CertificateName;
use crate::issuer::Issuer;

/// How long before its end there is a warning of an API key, in milliseconds.
const ENDS_SOON_MS: u64 = 14 * 24 * 60 * 60 * 1000;

impl Reading<'_> {
    /// Which tokens a caller or an admin is recognised by; it needs them, keys, or a certificate.
    pub(super) fn tokens(
        &mut self,
        fields: &Fields<'_>,
        key: &Key,
        what: &str,
        issuers: &BTreeMap<String, Arc<Issuer>>,
    ) -> Option<TokenRule> {
        if ["keys", "oidc", "certificate"].iter().all(|name| fields.get(name).is_none()) {
            let message = format!(
                "the {what} `{}` has neither `keys` nor `oidc` nor `certificate`: nothing would recognise it",
                key.text
            );
            self.reader.error(key.at, message);
        }
        fields.get("oidc").and_then(|node| self.token_rule(node, issuers))
    }

    fn token_rule(&mut self, node: &Node, issuers: &BTreeMap<String, Arc<Issuer>>) -> Option<TokenRule> {
        let fields = self.reader.fields(node, "`oidc`", &["issuer", "claims"])?;
        let issuer = self.required(&fields, node, "issuer", "one of `issuers`")?;
        let at = fields.get("issuer").map_or(node.at, |node| node.at);
        let Some(known) = issuers.get(&issuer) else {
            if !self.refused_issuers.has(&issuer) {
                self.reader.error(at, format!("`issuers` has no `{issuer}`"));
            }
            return None;
        };
        let errors = self.reader.errors();
        let mut claims = BTreeMap::new();
        for (claim, node) in self.reader.members(fields.get("claims"), "`claims`") {
            let values = self.claim_values(node, &claim.text);
            claims.insert(claim.text.clone(), values);
        }
        // Of claims that were not read nothing more can be said.
        if self.reader.errors() > errors {
            return None;
        }
        if claims.is_empty() {
            self.reader.error(node.at, "`claims` is missing: without it every token of the issuer would do");
        }
        let unsafe_rule = known.provider.map(|provider| provider.unsafe_rule(&claims)).unwrap_or_default();
        let wrong = match unsafe_rule.is_empty() {
            true => impossible_rule(known, &claims),
            false => unsafe_rule.into_iter().map(str::to_owned).collect(),
        };
        for wrong in wrong {
            self.reader.error(node.at, wrong);
        }
        for (claim, node) in self.reader.members(fields.get("claims"), "`claims`") {
            if let Some(why) = known.provider.and_then(|provider| provider.unknown_claim(&claim.text)) {
                self.warn(claim.at, why);
            }
            if let Some(why) = claims.get(&claim.text).and_then(|values| pattern(&claim.text, values)) {
                // Elsewhere a claim may have such a value.
                match known.provider {
                    Some(_) => self.reader.error(node.at, why),
                    None => self.warn(node.at, why),
                }
            }
        }
        Some(TokenRule { issuer, claims })
    }

    /// The values that a claim may have: a text, a number, a truth value, or a list of them.
    pub(super) fn claim_values(&mut self, node: &Node, claim: &str) -> BTreeSet<String> {
        let items: Vec<&Node> = match &node.kind {
            Kind::List(items) => items.iter().collect(),
            _ => vec![node],
        };
        let mut values = BTreeSet::new();
        for item in items {
            match &item.kind {
                Kind::Text(text) => drop(values.insert(text.clone())),
                Kind::Number(number) => drop(values.insert(number.to_string())),
                Kind::Bool(truth) => drop(values.insert(truth.to_string())),
                Kind::Null | Kind::List(_) | Kind::Map(_) => {
                    self.reader
                        .error(item.at, format!("the claim `{claim}` must be a text, or a list of texts"));
                }
            }
        }
        if values.is_empty() {
            self.reader
                .error(node.at, format!("the claim `{claim}` can have no value, so no token would do"));
        }
        values
    }

    /// What a caller or an admin is recognised by besides tokens.
    pub(super) fn credentials(&mut self, fields: &Fields<'_>, holder: &Holder) {
        if let Some(node) = fields.get("keys") {
            self.api_keys(node, holder);
        }
        if let Some(node) = fields.get("certificate") {
            self.certificates(node, holder);
        }
    }

    /// The names of client certificates: `{uri: …}` or `{dns: …}`, each a text or a list of them.
    fn certificates(&mut self, node: &Node, holder: &Holder) {
        let Some(fields) = self.reader.fields(node, "`certificate`", &["uri", "dns"]) else { return };
        if fields.get("uri").is_none() && fields.get("dns").is_none() {
            self.reader.error(node.at, "`certificate` has neither `uri` nor `dns`: no certificate would do");
        }
        for kind in ["uri", "dns"] {
            for (at, text) in self.one_or_more(fields.get(kind), &format!("`{kind}`")) {
                let name = match CertificateName::configured(kind, &text) {
                    Ok(name) => name,
                    Err(why) => {
                        self.reader.error(at, format!("`{text}` {why}"));
                        continue;
                    }
                };
                if let Some(other) = self.certificates.insert(name, holder.clone()) {
                    let message = format!("the certificate `{text}` is one of {} already", other.described());
                    self.reader.error(at, message);
                }
            }
        }
    }

    fn api_keys(&mut self, node: &Node, holder: &Holder) {
        let items = self.reader.items(node, "`keys`");
        if items.is_empty() {
            self.reader.error(node.at, "`keys` is an empty list");
        }
        for item in items {
            let Some(fields) = self.reader.fields(item, "a key", &["sha256", "until"]) else { continue };
            let Some(text) = self.required(&fields, item, "sha256", "what `countersign access key` prints")
            else {
                continue;
            };
            let at = fields.get("sha256").map_or(item.at, |node| node.at);
            if text.starts_with(crate::key::PREFIX) {
                self.reader.error(at, "this is a key itself: keep its SHA-256, and make another key");
                continue;
            }
            let Ok(digest) = text.parse::<Digest>() else {
                self.reader.error(at, "a key is kept as its SHA-256: 64 hexadecimal digits in lower case");
                continue;
            };
            let until = fields.get("until").and_then(|node| self.until(node));
            if let (Some(node), Some(until)) = (fields.get("until"), until) {
                let message =
                    format!("the end of this API key of {} is {until}: make another one", holder.described());
                let since = Some(Timestamp::from_millis(until.as_millis().saturating_sub(ENDS_SOON_MS)));
                self.warnings.push(Warning { at: node.at, since, message });
            }
            let entry = ApiKeyEntry { holder: holder.clone(), until };
            if let Some(other) = self.keys.insert(digest, entry) {
                let message = format!("this key is one of {} already", other.holder.described());
                self.reader.error(at, message);
            }
        }
    }

    /// When a key ends: at the end of a day in UTC, or at a point in time.
    fn until(&mut self, node: &Node) -> Option<Timestamp> {
        let text = self.reader.text(node, "`until`")?;
        let day = text.parse::<jiff::civil::Date>().ok().and_then(|day| {
            let next = day.tomorrow().ok()?.to_datetime(jiff::civil::Time::midnight());
            jiff::tz::Offset::UTC.to_timestamp(next).ok()
        });
        let at = day.or_else(|| text.parse::<jiff::Timestamp>().ok());
        let millis = at.and_then(|at| u64::try_from(at.as_millisecond()).ok());
        if millis.is_none() {
            let message = format!("`{text}` is neither a day such as `2027-01-31` nor a time in RFC 3339");
            self.reader.error(node.at, message);
        }
        millis.map(Timestamp::from_millis)
    }
}

/// What is wrong with a value of a claim that is meant as a pattern.
pub(super) fn pattern(claim: &str, values: &BTreeSet<String>) -> Option<String> {
    let value = values.iter().find(|value| value.contains('*'))?;
    Some(format!("`{value}` has a `*`: all of the claim `{claim}` is compared, and it is no pattern"))
}

/// Why no token that counts has these claims.
fn impossible_rule(issuer: &Issuer, claims: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let lacks = |claim: &str, value: &str| claims.get(claim).is_some_and(|values| !values.contains(value));
    let mut wrong = Vec::new();
    for (claim, field, value) in [("iss", "issuer", &issuer.issuer), ("aud", "audience", &issuer.audience)] {
        if lacks(claim, value) {
            wrong
                .push(format!("no token can match: its `{claim}` is the `{field}` of its issuer, `{value}`"));
        }
    }
    if claims.get("event_name").is_some_and(|events| events.iter().all(|it| it == "pull_request_target")) {
        wrong.push("no token can match: one of `pull_request_target` is always refused".to_owned());
    }
    if claims.contains_key("project_id") && lacks("ref_protected", "true") {
        wrong.push("no token can match: one with a `project_id` needs `ref_protected: \"true\"`".to_owned());
    }
    wrong
}
