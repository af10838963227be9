//! The access file: who may ask, who may administer, and which names people have. It is checked as a whole, with file,
//! line and column in every error; of a file that is wrong nothing is used.

mod admins;
mod callers;
mod credentials;
mod gates;
mod issuers;
mod people;
mod webhooks;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use countersign_core::lifecycle::{Digest, Timestamp};
use countersign_core::people::People;
use countersign_dispatch::webhook::WebhookRule;
use countersign_policy::yaml::document::{self, Key, Kind, Node, Place};
use countersign_policy::yaml::error::{Errors, LoadError, LoadErrors, did_you_mean};
use countersign_policy::yaml::fields::{Fields, Reader, is_name};

use crate::admin::Admin;
use crate::authenticate::Holder;
use crate::caller::{Caller, RequesterRule, TokenRule};
use crate::certificate::CertificateName;
use crate::gate::GateSystem;
use crate::issuer::Issuer;
use crate::key;

/// The largest access file, in bytes.
pub const ACCESS_BYTES: u64 = 4 << 20;

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
    /// In the order of the file, each with when it becomes one.
    warnings: Vec<(Option<Timestamp>, LoadError)>,
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
            refused_issuers: Refused::default(),
            refused_people: Refused::default(),
            warnings: Vec::new(),
        };
        let mut access = reading.access(&document);
        access.warnings = reading.warnings.into_iter().map(|warning| warning.of(file)).collect();
        access.warnings.sort_by_key(|(_, warning)| warning.place);
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

    /// What may not do what whoever wrote the file has meant, although it can be in force, as far as it is so at `now`; each
    /// with its place.
    pub fn warnings(&self, now: Timestamp) -> impl Iterator<Item = &LoadError> {
        let holds = move |since: Option<Timestamp>| since.is_none_or(|since| now >= since);
        self.warnings.iter().filter(move |(since, _)| holds(*since)).map(|(_, warning)| warning)
    }

    /// When the first of the callers with API keys has none any more that counts, and the first of the admins; `None` if that
    /// happens to none of them. Those who have none left by now are left out.
    #[must_use]
    pub fn keys_end(&self, now: Timestamp) -> (Option<Timestamp>, Option<Timestamp>) {
        // Of each holder the last end.
        let mut ends: BTreeMap<(bool, String), Option<Timestamp>> = BTreeMap::new();
        for ApiKeyEntry { holder, until } in self.keys.values() {
            let who = (matches!(holder, Holder::Admin(_)), holder.described());
            let last = ends.entry(who).or_insert(*until);
            *last = last.zip(*until).map(|(one, other)| one.max(other));
        }
        let first = |of_admins: bool| {
            let ends = ends.iter().filter(|((is_admin, _), _)| *is_admin == of_admins);
            ends.filter_map(|(_, end)| *end).filter(|end| *end > now).min()
        };
        (first(false), first(true))
    }

    /// What callers may ask for and none of these actions is, by which a policy set judges; a sentence for each.
    #[must_use]
    pub fn idle_actions(&self, judged: &[&str]) -> Vec<String> {
        let of_caller = |caller: &Arc<Caller>| {
            let idle = caller.actions.iter().filter(|glob| !judged.iter().any(|action| glob.matches(action)));
            let described = idle.map(|glob| {
                let hint = did_you_mean(glob.as_str(), judged.iter().copied());
                format!(
                    "the caller `{}` may ask for `{}`, and the policy set has no such action{hint}",
                    caller.name,
                    glob.as_str()
                )
            });
            described.collect::<Vec<_>>()
        };
        self.callers().flat_map(of_caller).collect()
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
    refused_issuers: Refused,
    refused_people: Refused,
    warnings: Vec<Warning>,
}

/// What may not do what was meant.
struct Warning {
    at: Place,
    /// When it becomes one; `None` if it is one already.
    since: Option<Timestamp>,
    message: String,
}

impl Warning {
    /// The warning as it is told.
    fn of(self, file: &Path) -> (Option<Timestamp>, LoadError) {
        let Warning { at: Place { line, column }, since, message } = self;
        let (file, message) = (file.display().to_string(), key::hidden(&message));
        (since, LoadError { file, place: Some((line, column)), pointer: None, message })
    }
}

/// Names that were refused where they were given: whoever refers to one of them has made no further mistake.
#[derive(Default)]
struct Refused {
    /// No name could be read.
    all: bool,
    names: BTreeSet<String>,
}

impl Refused {
    /// Of a part of the file that is a map of names.
    fn of(node: Option<&Node>) -> Refused {
        let all = node.is_some_and(|node| !matches!(node.kind, Kind::Map(_)));
        Refused { all, names: BTreeSet::new() }
    }

    fn has(&self, name: &str) -> bool {
        self.all || self.names.contains(name)
    }
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
        self.logins(fields.get("people"), &callers, &people);
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

    /// A person whom a caller could never name as the requester: its requesters have numbers, and the person has another name
    /// there.
    fn logins(&mut self, node: Option<&Node>, callers: &BTreeMap<String, Arc<Caller>>, people: &People) {
        let Some(Node { kind: Kind::Map(members), .. }) = node else { return };
        for source in ["github", "gitlab"] {
            let by_number = callers.values().find_map(|caller| match &caller.requester {
                RequesterRule::Claims { source: of, id } if of == source => Some((caller, id.number()?)),
                _ => None,
            });
            let Some((caller, claim)) = by_number else { continue };
            for (key, _) in members {
                let Some(person) = people.find(&key.text) else { continue };
                let ids = || person.names().filter_map(|name| name.strip_prefix(source)?.strip_prefix(':'));
                if ids().next().is_some() && !ids().any(|id| id.bytes().all(|it| it.is_ascii_digit())) {
                    let message = format!(
                        "`{}` is never a requester of the caller `{}`, which are numbers of {source} (`{claim}`): \
                         none of the person's names there is one",
                        key.text, caller.name
                    );
                    self.warn(key.at, message);
                }
            }
        }
    }

    fn warn(&mut self, at: Place, message: String) {
        self.warnings.push(Warning { at, since: None, message });
    }

    fn named(&mut self, key: &Key, what: &str) {
        if !is_name(&key.text) {
            self.reader.name_error(key.at, what, &key.text);
        }
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
}

/// Errors quote what is wrong, and are logged and stored: an API key in the wrong place, or its digest, must not be.
pub(crate) fn without_keys(errors: LoadErrors) -> LoadErrors {
    let errors = errors.0.into_iter();
    LoadErrors(errors.map(|error| LoadError { message: key::hidden(&error.message), ..error }).collect())
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
