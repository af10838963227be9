//! `issuers`: the identity providers whose tokens count.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_policy::yaml::document::Node;

use super::{Reading, Refused};
use crate::issuer::{Issuer, Keys};
use crate::provider::Provider;

impl Reading<'_> {
    pub(super) fn issuers(&mut self, node: Option<&Node>) -> BTreeMap<String, Arc<Issuer>> {
        let mut issuers: BTreeMap<String, Arc<Issuer>> = BTreeMap::new();
        self.refused_issuers = Refused::of(node);
        for (key, node) in self.reader.members(node, "`issuers`") {
            self.named(key, "an issuer");
            // Until all of it is read.
            self.refused_issuers.names.insert(key.text.clone());
            let known = ["issuer", "audience", "jwks", "keep"];
            let Some(fields) = self.reader.fields(node, "an issuer", &known) else { continue };
            let issuer = self.required(&fields, node, "issuer", "the `iss` of its tokens");
            let audience =
                self.required(&fields, node, "audience", "the `aud` of tokens that are for this gateway");
            let jwks =
                fields.get("jwks").and_then(|_| self.required(&fields, node, "jwks", "where its keys are"));
            let keep_ms = fields
                .get("keep")
                .and_then(|node| self.reader.duration(node, "`keep`", 60_000..=7 * 24 * 3_600_000));
            let (Some(issuer), Some(audience)) = (issuer, audience) else { continue };
            if let Some((provider, spelt)) = Provider::of(&issuer).filter(|(_, spelt)| *spelt != issuer) {
                let message = format!(
                    "no token can match: `iss` is compared to the character, and tokens of {} have `{spelt}`",
                    provider.name()
                );
                self.reader.error(fields.get("issuer").map_or(node.at, |node| node.at), message);
            }
            if let Some(other) = issuers.iter().find(|(_, other)| other.issuer == issuer) {
                let message = format!("`{issuer}` is the issuer `{}` already", other.0);
                self.reader.error(node.at, message);
            }
            match Keys::new(jwks.as_deref(), &issuer, self.folder) {
                Ok(keys) => {
                    let issuer = Issuer::new(issuer, audience, keys, keep_ms);
                    issuers.insert(key.text.clone(), Arc::new(issuer));
                    self.refused_issuers.names.remove(&key.text);
                }
                Err(why) => {
                    let at =
                        fields.get("jwks").or_else(|| fields.get("issuer")).map_or(node.at, |node| node.at);
                    self.reader.error(at, why);
                }
            }
        }
        issuers
    }
}
