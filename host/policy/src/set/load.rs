//! From the files to a set in which everything has been tried.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jsonschema::ValidationError;
use serde_json::Value;

use super::read::{self, Draft, DraftAction, Pin};
use super::source::{Kept, Source};
use super::{ANY_ACTION, PolicySet, Stored, hash_of, trial};
use crate::action::{ActionError, ActionPolicy};
use crate::engine::Engine;
use crate::module::Module;
use crate::schema;
use crate::trust::{Signed, Verified};
use crate::yaml::document::{self, Kind, Node, Place};
use crate::yaml::error::{Errors, LoadErrors};
use countersign_core::json;
use countersign_core::lifecycle::Digest;
use countersign_core::record::PolicyUse;
use countersign_core::record::Signature;
use countersign_registry::Repository;

pub(super) fn load(source: &Source, engine: &Engine) -> Result<PolicySet, LoadErrors> {
    let mut errors = Errors::about(&source.name);
    let document = match document::parse(&source.text) {
        Ok(document) => document,
        Err((place, message)) => {
            errors.add(place, message);
            errors.into_result()?;
            return Ok(PolicySet::new(BTreeMap::new(), None, BTreeMap::new()));
        }
    };
    let Draft { modules: pins, mut actions, fallback } = read::read(&document, &mut errors);
    let mut schemas = load_schemas(source, &actions, &mut errors);
    for action in &mut actions {
        action.entry.schema = schemas.remove(&action.entry.action);
    }
    if engine.trust().asks_for(Signed::PolicySet) {
        // Nothing of a set without a valid signature is run, not even to be tried; and a set with errors has no hash to sign.
        errors.stop_here()?;
        let entries =
            actions.iter().chain(&fallback).map(|action| (&action.entry.action, action.entry.hash()));
        verify(&hash_of(entries), &mut errors, &source.signatures, engine);
        errors.stop_here()?;
    }
    let modules = load_modules(source, engine, &pins, &mut errors);
    let mut loaded = BTreeMap::new();
    for action in actions {
        if let Some(policy) = prove(action, &modules, &mut errors, Proof::New) {
            loaded.insert(policy.entry().action.clone(), policy);
        }
    }
    let fallback = fallback.and_then(|action| prove(action, &modules, &mut errors, Proof::New));
    errors.into_result()?;
    verified(PolicySet::new(loaded, fallback, modules), &source.name, &source.signatures, engine)
}

/// Tries entries that were proved before, with the modules at hand, as if they were new: the limits may be other ones,
/// and so may the compiler.
pub(super) fn restore(
    Stored { name, entries, modules: stored, signatures }: Stored,
    engine: &Engine,
    measured_as: &dyn Fn(&str) -> String,
) -> Result<PolicySet, LoadErrors> {
    let mut errors = Errors::about(&name);
    let (mut modules, mut refused) = (BTreeMap::new(), BTreeSet::new());
    for bytes in &stored {
        match engine.load(bytes, &signatures) {
            Ok(module) => {
                modules.insert(module.digest(), module);
            }
            Err(error) => {
                let digest = Digest::of(bytes);
                refused.insert(digest);
                errors
                    .add(Place::default(), format!("the stored module sha256:{digest} is refused: {error}"));
            }
        }
    }
    let (mut actions, mut fallback) = (BTreeMap::new(), None);
    for entry in entries {
        let at = Place::default();
        let nowhere = |_: &PolicyUse| Node::implied(at, Kind::Null);
        let configs = entry.policies.iter().map(nowhere).collect();
        let draft = DraftAction { at, entry, configs, complete: true, sound: true };
        let missing = draft.entry.policies.iter().find(|used| !modules.contains_key(&used.digest));
        if let Some(used) = missing {
            if !refused.contains(&used.digest) {
                errors.add(at, format!("the module `{}`, sha256:{}, is not at hand", used.name, used.digest));
            }
            continue;
        }
        let Some(policy) = prove(draft, &modules, &mut errors, Proof::Stored(measured_as)) else { continue };
        match policy.entry().action.as_str() {
            ANY_ACTION => fallback = Some(policy),
            action => drop(actions.insert(action.to_owned(), policy)),
        }
    }
    errors.into_result()?;
    verified(PolicySet::new(actions, fallback, modules), &name, &signatures, engine)
}

/// The set, if it has the signatures that are required. Those of its modules were verified when they were loaded.
fn verified(
    mut set: PolicySet,
    name: &str,
    signatures: &[Signature],
    engine: &Engine,
) -> Result<PolicySet, LoadErrors> {
    let mut errors = Errors::about(name);
    let verified = verify(&set.hash, &mut errors, signatures, engine);
    errors.into_result()?;
    set.verified.extend(verified.into_iter().map(|verified| (set.hash, verified)));
    for digest in set.modules.keys() {
        let verified = engine.trust().verify(Signed::Module, digest, signatures).unwrap_or_default();
        set.verified.extend(verified.into_iter().map(|verified| (*digest, verified)));
    }
    Ok(set)
}

/// The valid signatures of the set with this hash, if one is required.
fn verify(hash: &Digest, errors: &mut Errors, signatures: &[Signature], engine: &Engine) -> Vec<Verified> {
    match engine.trust().verify(Signed::PolicySet, hash, signatures) {
        Ok(verified) => verified,
        Err(unsigned) => {
            errors.add(Place::default(), format!("the set with the hash {hash} is refused: {unsigned}"));
            Vec::new()
        }
    }
}

/// The digests that a document pins, as far as it can be read.
pub(super) fn pinned(text: &str) -> BTreeMap<Digest, Option<Repository>> {
    let Ok(document) = document::parse(text) else { return BTreeMap::new() };
    // What is wrong with it is told once it is loaded.
    let draft = read::read(&document, &mut Errors::about(""));
    let mut pinned = BTreeMap::new();
    for Pin { digest, repository, .. } in draft.modules.into_values() {
        let known: &mut Option<Repository> = pinned.entry(digest).or_default();
        *known = known.take().or(repository);
    }
    pinned
}

/// Loads every pinned module, used or not: what is pinned must be there.
fn load_modules(
    source: &Source,
    engine: &Engine,
    pins: &BTreeMap<String, Pin>,
    errors: &mut Errors,
) -> BTreeMap<Digest, Arc<Module>> {
    let files: Vec<(Digest, &str, &[u8])> = source
        .modules
        .iter()
        .map(|(name, bytes)| (Digest::of(bytes), name.as_str(), bytes.as_slice()))
        .collect();
    let mut modules = BTreeMap::new();
    let mut tried = BTreeSet::new();
    for (name, pin) in pins {
        if !tried.insert(pin.digest) {
            continue;
        }
        let Some((_, file, bytes)) = files.iter().find(|(digest, ..)| *digest == pin.digest) else {
            let missing = match (source.unfetched.get(&pin.digest), source.kept) {
                (Some(error), _) => format!("the module `{name}` cannot be fetched: {error}"),
                (None, Kept::InFolder) => {
                    missing_module(name, &pin.digest, &files, engine.limits().module_bytes)
                }
                (None, Kept::InStore) => format!(
                    "the module `{name}`, sha256:{}, is not in the store: send it with `PUT /api/admin/modules` first",
                    pin.digest
                ),
            };
            errors.add(pin.at, missing);
            continue;
        };
        match engine.load(bytes, &source.signatures) {
            Ok(module) => {
                modules.insert(pin.digest, module);
            }
            Err(error) => errors.add(pin.at, format!("the module `{name}` ({file}) is refused: {error}")),
        }
    }
    modules
}

fn missing_module(name: &str, digest: &Digest, files: &[(Digest, &str, &[u8])], limit: usize) -> String {
    let own_name = |file: &str| std::path::Path::new(file).file_stem().is_some_and(|stem| stem == name);
    let missing = format!("no file in `modules` is the module `{name}`, sha256:{digest}");
    match files.iter().find(|(_, file, _)| own_name(file)) {
        // It was not read to its end, so its digest is not known.
        Some((_, file, bytes)) if bytes.len() > limit => {
            format!("{missing}; {file} has more than the {limit} bytes that a policy module may have")
        }
        Some((found, file, _)) => format!("{missing}; {file} is sha256:{found}"),
        None => missing,
    }
}

/// The schemas by action. Whether they are valid is seen when they are used.
fn load_schemas(source: &Source, actions: &[DraftAction], errors: &mut Errors) -> BTreeMap<String, Value> {
    let mut schemas = BTreeMap::new();
    for (action, file, bytes) in &source.schemas {
        if !actions.iter().any(|draft| draft.entry.action == *action) {
            let known = actions.iter().map(|draft| draft.entry.action.as_str());
            let hint = crate::yaml::error::did_you_mean(action, known);
            errors.add_in(file, format!("there is no action `{action}` to use this schema{hint}"));
            continue;
        }
        // As strictly as YAML: the schema is part of what the policy hash is made of.
        match json::parse(bytes) {
            Ok(schema) => {
                if let Some(unknown) = schema::unknown_format(&schema) {
                    errors.add_in(file, unknown);
                }
                schemas.insert(action.clone(), schema);
            }
            Err(refused) => errors.add_in(file, without_strings(&refused.to_string())),
        }
    }
    schemas
}

/// A schema is written, and a limit in it cannot be a string.
fn without_strings(refused: &str) -> String {
    refused.replace("; send a string", "").replace("send fewer digits, or a string", "write fewer digits")
}

/// What is proved.
#[derive(Clone, Copy)]
enum Proof<'a> {
    /// What somebody has written.
    New,
    /// What was proved before, perhaps when `format` was not checked yet. Metrics call its policies what this makes of
    /// their names.
    Stored(&'a dyn Fn(&str) -> String),
}

/// Checks an action as far as its modules were loaded, and tries it.
fn prove(
    draft: DraftAction,
    modules: &BTreeMap<Digest, Arc<Module>>,
    errors: &mut Errors,
    proof: Proof<'_>,
) -> Option<Arc<ActionPolicy>> {
    let is_due = |error: &ValidationError<'_>| matches!(proof, Proof::New) || !schema::is_of_format(error);
    let DraftAction { at, entry, configs, complete, sound: readable } = draft;
    let mut sound = true;
    for (policy, config) in entry.policies.iter().zip(&configs) {
        let Some(module) = modules.get(&policy.digest) else { continue };
        for error in module.config().iter_errors(&policy.config).filter(is_due) {
            let pointer = error.instance_path().as_str();
            let place = config.place_of(pointer);
            let at = at_pointer(pointer);
            let hint = schema::hint(&module.descriptor().config_schema, &error);
            errors.add_at(place, pointer, format!("configuration of `{}`{at}: {error}{hint}", policy.name));
            sound = false;
        }
    }
    // A missing module or a missing policy has been reported where it is missing.
    let complete = complete && entry.policies.iter().all(|policy| modules.contains_key(&policy.digest));
    if !sound || !complete {
        return None;
    }
    let module_of = |digest: &Digest| modules.get(digest).cloned();
    let measured_as = match proof {
        Proof::New => &str::to_owned,
        Proof::Stored(measured_as) => measured_as,
    };
    let policy = match ActionPolicy::measured_as(entry, module_of, measured_as) {
        Ok(policy) => policy,
        Err(ActionError::Schema { action, detail }) => {
            errors.add(
                at,
                format!("the schema of the action `{action}` (`schemas/{action}.json`) is refused: {detail}"),
            );
            return None;
        }
        Err(error) => {
            errors.add(at, error.to_string());
            return None;
        }
    };
    if !check_configs(&policy, &configs, errors) || !readable {
        return None;
    }
    let problems = trial::problems(&policy);
    if problems.is_empty() {
        return Some(Arc::new(policy));
    }
    let action = &policy.entry().action;
    for problem in problems {
        errors.add(at, format!("the action `{action}`: {problem}"));
    }
    None
}

/// What the modules themselves say of their configurations.
fn check_configs(policy: &ActionPolicy, configs: &[Node], errors: &mut Errors) -> bool {
    let mut sound = true;
    for ((rule, used), config) in policy.rules().iter().zip(&policy.entry().policies).zip(configs) {
        let name = &used.name;
        let mut refuse = |place: Place, pointer: &str, message: String| {
            errors.add_at(place, pointer, message);
            sound = false;
        };
        match rule.check_config().0 {
            Ok(reasons) => {
                for reason in reasons {
                    let pointer = reason.path.unwrap_or_default();
                    let (code, message, at) = (reason.code, reason.message, at_pointer(&pointer));
                    refuse(
                        config.place_of(&pointer),
                        &pointer,
                        format!("configuration of `{name}`{at}: {message} ({code})"),
                    );
                }
            }
            Err(failure) => {
                let message = format!("the configuration of `{name}` cannot be checked: {failure}");
                refuse(config.at, "", message);
            }
        }
    }
    sound
}

fn at_pointer(pointer: &str) -> String {
    if pointer.is_empty() { String::new() } else { format!(" at `{pointer}`") }
}
