//! The access file: who may ask, who may administer, and which names people have. It is checked as a whole, with file,
//! line and column in every error; of a file that is wrong nothing is used.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign_core::lifecycle::{Digest, Milestone, Timestamp};
use countersign_core::people::{People, Person, is_slack_id, name_of};
use countersign_dispatch::Reach;
use countersign_dispatch::webhook::{Secrets, WebhookRule, checked_url};
use countersign_policy::yaml::document::{self, Key, Kind, Node, Place};
use countersign_policy::yaml::error::{Errors, LoadError, LoadErrors};
use countersign_policy::yaml::fields::{Fields, Reader, is_name};

use crate::admin::{ADMIN_TOKEN_NAME, Admin, Role};
use crate::authenticate::Holder;
use crate::caller::{Caller, Glob, RequesterRule, Template, TokenRule};
use crate::certificate::CertificateName;
use crate::gate::{Filling, GateRule, GateSystem};
use crate::issuer::{Issuer, Keys};
use crate::key;
use crate::requester::MACHINE;

/// The largest access file, in bytes.
pub const ACCESS_BYTES: u64 = 4 << 20;

/// The systems that a person has names in, as fields of `people`; `slack` is apart.
const SYSTEMS: [&str; 4] = ["github", "gitlab", "email", "subject"];

/// The most limits that can be said.
const MOST: u32 = 1_000_000;

/// The most characters that the name of an action may have, as requests are checked.
const ACTION_CHARS: usize = 128;

/// What an access file says. Immutable: a file that has changed is read into another one.
#[derive(Debug, Default)]
pub struct Access {
    digest: Option<Digest>,
    callers: BTreeMap<String, Arc<Caller>>,
    admins: BTreeMap<String, Arc<Admin>>,
    keys: HashMap<Digest, ApiKeyEntry>,
    certificates: HashMap<CertificateName, Holder>,
    issuers: BTreeMap<String, Arc<Issuer>>,
    people: Arc<People>,
    webhooks: BTreeMap<String, Arc<WebhookRule>>,
}

/// What is kept of an API key.
#[derive(Clone, Debug)]
pub(crate) struct ApiKeyEntry {
    /// Whose it is.
    pub(crate) holder: Holder,
    /// When it ends; it counts before that.
    pub(crate) until: Option<Timestamp>,
}

impl Access {
    /// Reads an access file with this path and text. The file itself need not exist, but the key files that it names
    /// must; relative ones are in its folder. Blocks to read them.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its place.
    pub fn read(file: &Path, text: &str) -> Result<Access, LoadErrors> {
        let mut errors = Errors::about(&file.display().to_string());
        let document = match document::parse(text) {
            Ok(document) => document,
            Err((at, message)) => {
                errors.add(at, message);
                errors.into_result().map_err(without_keys)?;
                return Ok(Access::default());
            }
        };
        let folder = file.parent().unwrap_or(Path::new(""));
        let mut reading = Reading {
            reader: Reader::new(&mut errors),
            folder,
            keys: HashMap::new(),
            certificates: HashMap::new(),
        };
        let mut access = reading.access(&document);
        access.keys = reading.keys;
        access.certificates = reading.certificates;
        access.digest = Some(Digest::of(text.as_bytes()));
        errors.into_result().map_err(without_keys)?;
        Ok(access)
    }

    /// SHA-256 of the file; `None` if there is none.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// A caller by its name.
    #[must_use]
    pub fn caller(&self, name: &str) -> Option<&Arc<Caller>> {
        self.callers.get(name)
    }

    /// Every caller, by name.
    pub fn callers(&self) -> impl Iterator<Item = &Arc<Caller>> {
        self.callers.values()
    }

    /// The CI systems whose deliveries some caller is recognised by.
    #[must_use]
    pub fn gate_systems(&self) -> BTreeSet<GateSystem> {
        self.callers.values().filter_map(|caller| Some(caller.gate.as_ref()?.system)).collect()
    }

    /// Every admin, by name.
    pub fn admins(&self) -> impl Iterator<Item = &Arc<Admin>> {
        self.admins.values()
    }

    /// Everybody who is known by more than one name.
    #[must_use]
    pub fn people(&self) -> &Arc<People> {
        &self.people
    }

    /// The webhooks, by name.
    #[must_use]
    pub fn webhooks(&self) -> &BTreeMap<String, Arc<WebhookRule>> {
        &self.webhooks
    }

    pub(crate) fn key(&self, digest: &Digest) -> Option<&ApiKeyEntry> {
        self.keys.get(digest)
    }

    pub(crate) fn certified(&self, name: &CertificateName) -> Option<&Holder> {
        self.certificates.get(name)
    }

    /// Whether anybody is recognised by a client certificate.
    #[must_use]
    pub fn has_certificates(&self) -> bool {
        !self.certificates.is_empty()
    }

    /// The issuers of tokens, by the names that callers and admins use.
    #[must_use]
    pub fn issuers(&self) -> &BTreeMap<String, Arc<Issuer>> {
        &self.issuers
    }
}

struct Reading<'e> {
    reader: Reader<'e>,
    /// Where relative paths begin.
    folder: &'e Path,
    keys: HashMap<Digest, ApiKeyEntry>,
    certificates: HashMap<CertificateName, Holder>,
}

impl Reading<'_> {
    fn access(&mut self, document: &Node) -> Access {
        let known = ["version", "issuers", "callers", "admins", "people", "webhooks"];
        let Some(fields) = self.reader.fields(document, "an access file", &known) else {
            return Access::default();
        };
        match fields.get("version") {
            None => self.reader.error(document.at, "`version` is missing: write `version: 1`"),
            Some(node) => drop(self.reader.count(node, "`version`", 1..=1)),
        }
        let people = Arc::new(self.people(fields.get("people")));
        let issuers = self.issuers(fields.get("issuers"));
        let mut callers = BTreeMap::new();
        if fields.get("callers").is_none() {
            self.reader.error(document.at, "`callers` is missing: nobody could ask");
        }
        let mut rules = Vec::new();
        for (key, node) in self.reader.members(fields.get("callers"), "`callers`") {
            self.named(key, "a caller");
            if let Some(caller) = self.caller(key, node, &issuers, &people) {
                rules.push((key.at, Holder::of(&caller)));
                callers.insert(key.text.clone(), caller);
            }
        }
        let mut admins = BTreeMap::new();
        for (key, node) in self.reader.members(fields.get("admins"), "`admins`") {
            self.named(key, "an admin");
            if let Some(admin) = self.admin(key, node, &issuers) {
                rules.push((key.at, Holder::Admin(Arc::clone(&admin))));
                admins.insert(key.text.clone(), admin);
            }
        }
        self.ambiguous(&rules, "token", Holder::tokens);
        self.ambiguous(&rules, "delivery", Holder::deliveries);
        let webhooks = self.webhooks(fields.get("webhooks"));
        Access { callers, admins, issuers, people, webhooks, ..Access::default() }
    }

    /// A token of two holders is nobody's, so a rule is of no use if each of its tokens is another holder's too; and the same
    /// goes for deliveries.
    fn ambiguous(
        &mut self,
        rules: &[(Place, Holder)],
        what: &str,
        rule: impl Fn(&Holder) -> Option<&TokenRule>,
    ) {
        let with_tokens = || rules.iter().filter_map(|(at, holder)| Some((at, holder, rule(holder)?)));
        for (place, (at, holder, narrow)) in with_tokens().enumerate() {
            let mut others = with_tokens().enumerate().filter(|(other, _)| *other != place);
            if let Some((_, (_, other, _))) = others.find(|(_, (_, _, wide))| wide.covers(narrow)) {
                let message = format!(
                    "every {what} of {} is also one of {}, and a {what} of two is nobody's",
                    holder.described(),
                    other.described()
                );
                self.reader.error(*at, message);
            }
        }
    }

    fn named(&mut self, key: &Key, what: &str) {
        if !is_name(&key.text) {
            self.reader.name_error(key.at, what, &key.text);
        }
    }

    fn people(&mut self, node: Option<&Node>) -> People {
        let mut people = People::default();
        let known: Vec<&str> = std::iter::once("slack").chain(SYSTEMS).collect();
        for (key, node) in self.reader.members(node, "`people`") {
            self.named(key, "a person");
            if is_slack_id(&key.text) || key.text.contains(':') {
                let message =
                    format!("`{}` names a person, and looks like an id of another system", key.text);
                self.reader.error(key.at, message);
                continue;
            }
            let Some(fields) = self.reader.fields(node, "a person", &known) else { continue };
            let mut aliases = Vec::new();
            for system in &known {
                for (at, id) in self.one_or_more(fields.get(system), &format!("`{system}`")) {
                    if let Some(why) = impossible_id(system, &id) {
                        self.reader.error(at, format!("`{id}` {why}"));
                        continue;
                    }
                    match name_of(system, &id) {
                        Ok(name) => aliases.push((at, name)),
                        Err(why) => self.reader.error(at, format!("`{id}` {why}")),
                    }
                }
            }
            if aliases.is_empty() {
                let message =
                    format!("the person `{}` has no name anywhere: say `slack`, at least", key.text);
                self.reader.error(key.at, message);
            }
            let names = aliases.iter().map(|(_, name)| name.clone()).collect();
            if let Err((taken, whose)) = people.add(Person { name: key.text.clone(), aliases: names }) {
                let at = aliases.iter().find(|(_, name)| *name == taken).map_or(key.at, |(at, _)| *at);
                let message = match whose == key.text {
                    true => format!("`{taken}` is listed twice"),
                    false => format!("`{taken}` is the person `{whose}` already"),
                };
                self.reader.error(at, message);
            }
        }
        people
    }

    /// A text, or a list of them, each with its place.
    fn one_or_more(&mut self, node: Option<&Node>, what: &str) -> Vec<(Place, String)> {
        let Some(node) = node else { return Vec::new() };
        let items = match node.kind {
            Kind::List(_) => self.reader.items(node, what),
            _ => vec![node],
        };
        if items.is_empty() {
            self.reader.error(node.at, format!("{what} is an empty list"));
        }
        let mut texts: Vec<(Place, String)> = Vec::new();
        for item in items {
            let Some(text) = self.reader.text(item, what) else { continue };
            if texts.iter().any(|(_, earlier)| earlier == text) {
                self.reader.error(item.at, format!("`{text}` is listed twice"));
            }
            texts.push((item.at, text.to_owned()));
        }
        texts
    }

    fn issuers(&mut self, node: Option<&Node>) -> BTreeMap<String, Arc<Issuer>> {
        let mut issuers: BTreeMap<String, Arc<Issuer>> = BTreeMap::new();
        for (key, node) in self.reader.members(node, "`issuers`") {
            self.named(key, "an issuer");
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
            if let Some(other) = issuers.iter().find(|(_, other)| other.issuer == issuer) {
                let message = format!("`{issuer}` is the issuer `{}` already", other.0);
                self.reader.error(node.at, message);
            }
            match Keys::new(jwks.as_deref(), &issuer, self.folder) {
                Ok(keys) => {
                    let issuer = Issuer::new(issuer, audience, keys, keep_ms);
                    issuers.insert(key.text.clone(), Arc::new(issuer));
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

    fn webhooks(&mut self, node: Option<&Node>) -> BTreeMap<String, Arc<WebhookRule>> {
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

    fn required(&mut self, fields: &Fields<'_>, node: &Node, name: &str, what: &str) -> Option<String> {
        let Some(found) = fields.get(name) else {
            self.reader.error(node.at, format!("`{name}` is missing: {what}"));
            return None;
        };
        let text = self.reader.text(found, &format!("`{name}`"))?;
        if text.trim().is_empty() {
            self.reader.error(found.at, format!("`{name}` is empty"));
            return None;
        }
        if text.trim() != text {
            self.reader.error(found.at, format!("`{name}` has spaces around it"));
            return None;
        }
        Some(text.to_owned())
    }

    fn caller(
        &mut self,
        key: &Key,
        node: &Node,
        issuers: &BTreeMap<String, Arc<Issuer>>,
        people: &People,
    ) -> Option<Arc<Caller>> {
        let known = ["keys", "oidc", "certificate", "gate", "actions", "limits", "requester", "owners"];
        let fields = self.reader.fields(node, "a caller", &known)?;
        let gate = match fields.get("gate") {
            Some(node) => Some(self.gate(node, &fields, key)?),
            None => None,
        };
        let tokens = match gate {
            Some(_) => None,
            None => self.tokens(&fields, key, "caller", issuers),
        };
        let actions = match (fields.get("actions"), &gate) {
            (_, Some(gate)) => vec![(key.at, gate.action.clone())],
            (Some(node), None) => self.one_or_more(Some(node), "`actions`"),
            (None, None) => {
                let message = format!("the caller `{}` has no `actions`: it could ask for nothing", key.text);
                self.reader.error(key.at, message);
                Vec::new()
            }
        };
        for (at, glob) in &actions {
            if let Some(why) = impossible_action(glob) {
                self.reader.error(*at, format!("`{glob}` {why}, so it is no action"));
            }
        }
        let [open, open_per_action, per_minute, streams] = self.limits(fields.get("limits"));
        let requester = match (&gate, fields.get("requester")) {
            (Some(gate), None) => RequesterRule::Claims {
                source: gate.system.as_str().to_owned(),
                id: Template::new(gate.system.requester()).ok()?,
            },
            (_, node) => self.requester(node, key, tokens.is_some() || gate.is_some())?,
        };
        self.gate_requester(&fields, gate.as_ref(), &requester);
        let mut owners = BTreeSet::new();
        for (at, owner) in self.one_or_more(fields.get("owners"), "`owners`") {
            if people.find(&owner).is_none() && !is_slack_id(&owner) {
                self.reader.error(at, format!("the owner `{owner}` is neither in `people` nor a Slack id"));
            }
            owners.insert(owner);
        }
        for (name, what) in [("keys", "key"), ("certificate", "certificate")] {
            if let (Some(node), RequesterRule::Claims { .. }) = (fields.get(name), &requester) {
                let message = format!(
                    "a {what} has no claims to make the requester from, so nothing could be asked for with it"
                );
                self.reader.error(node.at, message);
            }
        }
        let caller = Arc::new(Caller {
            name: key.text.clone(),
            actions: actions.iter().map(|(_, glob)| Glob::new(glob)).collect(),
            open,
            open_per_action,
            per_minute,
            streams,
            requester,
            owners,
            tokens,
            gate,
        });
        self.credentials(&fields, &Holder::of(&caller));
        Some(caller)
    }

    /// Which deliveries of a CI system are a caller's, and what they ask for.
    fn gate(&mut self, node: &Node, of: &Fields<'_>, key: &Key) -> Option<GateRule> {
        for name in ["keys", "oidc", "certificate", "actions"] {
            if let Some(other) = of.get(name) {
                let message = format!(
                    "the caller `{}` is a gate, whose deliveries are its only credentials and have one action: \
                     it has no `{name}`",
                    key.text
                );
                self.reader.error(other.at, message);
            }
        }
        let fields = self.reader.fields(node, "`gate`", &["system", "claims", "action", "params"])?;
        let place = |name: &str| fields.get(name).map_or(node.at, |node| node.at);
        let name = self.required(&fields, node, "system", "`github` or `gitlab`")?;
        let Some(system) = GateSystem::named(&name) else {
            let message = format!("`{name}` is no system with gates: there are `github` and `gitlab`");
            self.reader.error(place("system"), message);
            return None;
        };
        let mut claims = BTreeMap::new();
        for (claim, node) in self.reader.members(fields.get("claims"), "`claims`") {
            self.known_claim(claim.at, system, &claim.text);
            claims.insert(claim.text.clone(), self.claim_values(node, &claim.text));
        }
        if !claims.contains_key(system.required_claim()) {
            let message = format!(
                "`claims` must name `{}`: a name can become somebody else's, and every repository could ask",
                system.required_claim()
            );
            self.reader.error(place("claims"), message);
        }
        let action = self.required(&fields, node, "action", "the action that is asked for");
        if let Some(action) = action.as_deref().filter(|action| action.contains('*')) {
            self.reader.error(place("action"), format!("`{action}` is a pattern, and a gate has one action"));
        }
        let params = fields.get("params").map(|node| {
            let mut params = BTreeMap::new();
            for (name, node) in self.reader.members(Some(node), "`params`") {
                let Some(text) = self.reader.text(node, &format!("`{}`", name.text)).map(str::to_owned)
                else {
                    continue;
                };
                if !text.contains(['{', '}']) {
                    params.insert(name.text.clone(), Filling::Fixed(text));
                    continue;
                }
                match Template::new(&text) {
                    Ok(template) => {
                        template.claims().for_each(|claim| self.known_claim(node.at, system, claim));
                        params.insert(name.text.clone(), Filling::Template(template));
                    }
                    Err(why) => self.reader.error(node.at, why),
                }
            }
            params
        });
        let deliveries = TokenRule { issuer: system.as_str().to_owned(), claims };
        Some(GateRule { system, deliveries, action: action?, params })
    }

    fn known_claim(&mut self, at: Place, system: GateSystem, claim: &str) {
        if !system.claims().contains(&claim) {
            let known = system.claims().join("`, `");
            let message = format!("a delivery of {} has no `{claim}`; it has `{known}`", system.as_str());
            self.reader.error(at, message);
        }
    }

    /// The requester of a gate is whoever triggered it: nobody else is in the delivery.
    fn gate_requester(&mut self, of: &Fields<'_>, gate: Option<&GateRule>, requester: &RequesterRule) {
        let (Some(gate), Some(node)) = (gate, of.get("requester")) else { return };
        match requester {
            RequesterRule::Claims { id, .. } => {
                id.claims().for_each(|claim| self.known_claim(node.at, gate.system, claim));
            }
            RequesterRule::Machine | RequesterRule::Asserted => {
                let message =
                    "the requester of a gate is made of what its deliveries say: a map of `source` and `id`";
                self.reader.error(node.at, message);
            }
        }
    }

    fn admin(
        &mut self,
        key: &Key,
        node: &Node,
        issuers: &BTreeMap<String, Arc<Issuer>>,
    ) -> Option<Arc<Admin>> {
        let fields = self.reader.fields(node, "an admin", &["keys", "oidc", "certificate", "roles"])?;
        if key.text == ADMIN_TOKEN_NAME {
            let message = format!("`{ADMIN_TOKEN_NAME}` is the holder of `ADMIN_TOKEN`: use another name");
            self.reader.error(key.at, message);
        }
        let tokens = self.tokens(&fields, key, "admin", issuers);
        if fields.get("roles").is_none() {
            let message = format!("the admin `{}` has no `roles`: it could do nothing", key.text);
            self.reader.error(key.at, message);
        }
        let mut roles = BTreeSet::new();
        for (at, name) in self.one_or_more(fields.get("roles"), "`roles`") {
            match Role::named(&name) {
                Some(role) => drop(roles.insert(role)),
                None => {
                    let known = Role::ALL.map(|role| format!("`{role}`")).join(", ");
                    self.reader.error(at, format!("`{name}` is no role; there are {known}"));
                }
            }
        }
        let admin = Arc::new(Admin { name: key.text.clone(), roles, tokens });
        self.credentials(&fields, &Holder::Admin(Arc::clone(&admin)));
        Some(admin)
    }

    /// Which tokens a caller or an admin is recognised by; it needs them, keys, or a certificate.
    fn tokens(
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
            self.reader.error(at, format!("`issuers` has no `{issuer}`"));
            return None;
        };
        let mut claims = BTreeMap::new();
        for (claim, node) in self.reader.members(fields.get("claims"), "`claims`") {
            let values = self.claim_values(node, &claim.text);
            claims.insert(claim.text.clone(), values);
        }
        if claims.is_empty() {
            self.reader.error(node.at, "`claims` is missing: without it every token of the issuer would do");
        }
        let mut wrong = known.unsafe_rule(&claims);
        if wrong.is_empty() {
            wrong = impossible_rule(known, &claims);
        }
        for wrong in wrong {
            self.reader.error(node.at, wrong);
        }
        Some(TokenRule { issuer, claims })
    }

    /// The values that a claim may have: a text, a number, a truth value, or a list of them.
    fn claim_values(&mut self, node: &Node, claim: &str) -> BTreeSet<String> {
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

    fn limits(&mut self, node: Option<&Node>) -> [Option<u32>; 4] {
        const NAMES: [&str; 4] = ["open", "open_per_action", "per_minute", "streams"];
        let Some(fields) = node.and_then(|node| self.reader.fields(node, "`limits`", &NAMES)) else {
            return [None; 4];
        };
        NAMES.map(|name| {
            fields.get(name).and_then(|node| self.reader.count(node, &format!("`{name}`"), 1..=MOST))
        })
    }

    fn requester(&mut self, node: Option<&Node>, key: &Key, has_tokens: bool) -> Option<RequesterRule> {
        let Some(node) = node else {
            let message = format!(
                "the caller `{}` has no `requester`: say `machine`, `asserted`, or which claims make one",
                key.text
            );
            self.reader.error(key.at, message);
            return None;
        };
        if let Kind::Text(text) = &node.kind {
            return match text.as_str() {
                "machine" => Some(RequesterRule::Machine),
                "asserted" => Some(RequesterRule::Asserted),
                other => {
                    let message = format!(
                        "`requester` is `machine`, `asserted`, or a map of `source` and `id`, but not `{other}`"
                    );
                    self.reader.error(node.at, message);
                    None
                }
            };
        }
        let fields = self.reader.fields(node, "`requester`", &["source", "id"])?;
        let source = self.required(&fields, node, "source", "the system that the id belongs to")?;
        let id = self.required(&fields, node, "id", "the id, with claims in braces, such as `{actor}`")?;
        let place = |name: &str| fields.get(name).map_or(node.at, |node| node.at);
        if source == MACHINE {
            let message =
                "`machine` is no source of ids: for a caller that is a machine write `requester: machine`";
            self.reader.error(place("source"), message);
        } else if let Err(why) = name_of(&source, EXAMPLE) {
            self.reader.error(place("source"), format!("a requester {why}"));
        }
        if !has_tokens {
            self.reader.error(node.at, "a requester is made from claims, but the caller has no `oidc`");
        }
        match Template::new(&id) {
            Ok(template) => {
                // What is wrong whatever the claims are, is wrong for every request.
                if name_of(&source, EXAMPLE).is_ok()
                    && let Err(why) = name_of(&source, &template.with_each(EXAMPLE))
                {
                    self.reader.error(place("id"), format!("`{id}` {why}, whatever the claims are"));
                }
                Some(RequesterRule::Claims { source, id: template })
            }
            Err(why) => {
                self.reader.error(place("id"), why);
                None
            }
        }
    }

    /// What a caller or an admin is recognised by besides tokens.
    fn credentials(&mut self, fields: &Fields<'_>, holder: &Holder) {
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

/// Errors quote what is wrong, and are logged and stored: an API key in the wrong place, or its digest, must not be.
pub(crate) fn without_keys(errors: LoadErrors) -> LoadErrors {
    let errors = errors.0.into_iter();
    LoadErrors(errors.map(|error| LoadError { message: key::hidden(&error.message), ..error }).collect())
}

/// An id that is one in every source, to try rules with.
const EXAMPLE: &str = "U0EXAMPLE";

/// Why an id cannot be anybody's in this system, besides what holds for every name.
fn impossible_id(system: &str, id: &str) -> Option<&'static str> {
    if matches!(system, "github" | "gitlab" | "email") && id.trim() == id && id.contains(char::is_whitespace)
    {
        return Some("has spaces in it");
    }
    (system == "email" && !id.contains('@')).then_some("is no e-mail address")
}

/// Why no action that a request can name fits this pattern.
fn impossible_action(glob: &str) -> Option<String> {
    let text = glob.replace('*', "");
    if glob.trim().is_empty() {
        return Some("is blank".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Some("has control characters".to_owned());
    }
    (text.chars().count() > ACTION_CHARS).then(|| format!("has more than {ACTION_CHARS} characters"))
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
