//! One policy module: checked, compiled, and proved to run before anybody depends on it.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use jsonschema::Validator;
use serde_json::Value;
use wasmtime::Store;
use wasmtime::component::{Component, ComponentExportIndex, Instance, InstancePre};

use super::bindings::{self, Admit, Admit1, CheckConfig, Describe, INTERFACE, INTERFACE_1, Judge, Judge1};
use super::engine::{Cost, Engine, Failure, Sandbox, Shared, empty_linker};
use super::function::{Function, FunctionType};
use super::metrics::Meter;
use super::schema;
use super::trust::{Signed, Unsigned};
use countersign_core::lifecycle::{self, Digest, FailureKind};
use countersign_core::record::Signature;

/// What a module says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Descriptor {
    /// Its own name; a policy set may use another.
    pub name: String,
    /// Its version, for people: what pins a module is its digest.
    pub version: String,
    /// What it does, for people.
    pub summary: String,
    /// JSON Schema (2020-12) of its configuration.
    pub config_schema: Value,
    /// Every code that a refusal or a denial of it can carry.
    pub reasons: Vec<ReasonDoc>,
}

/// A reason's code, and what it means to whoever meets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasonDoc {
    /// The code.
    pub code: String,
    /// What it means.
    pub help: String,
}

/// A module that can be called.
pub struct Module {
    digest: Digest,
    bytes: Arc<[u8]>,
    descriptor: Descriptor,
    codes: BTreeSet<String>,
    config: Validator,
    shared: Arc<Shared>,
    instance: InstancePre<Sandbox>,
    exports: Exports,
}

/// What `admit` answered.
pub(super) type Admitted = Result<String, Vec<bindings::Reason>>;

/// What `judge` answered, whatever version of the contract it is of.
pub(super) type Judged = Result<lifecycle::Ruling, Vec<bindings::Reason>>;

/// Where the functions are, looked up once.
struct Exports {
    describe: Function<Describe>,
    check_config: Function<CheckConfig>,
    of_requests: OfRequests,
}

/// The functions that differ between the versions of the contract.
enum OfRequests {
    /// 0.1.0: actors are ids and groups alone.
    V1 { admit: Function<Admit1>, judge: Function<Judge1> },
    /// 0.2.0.
    V2 { admit: Function<Admit>, judge: Function<Judge> },
}

/// Why bytes are no policy module.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// More bytes than allowed.
    #[error("it has {size} bytes, but a policy module may have at most {limit}")]
    TooLarge {
        /// Bytes.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// It has no valid signature of a trusted key.
    #[error(transparent)]
    Unsigned(#[from] Unsigned),
    /// Something else altogether.
    #[error("it is no WebAssembly: it does not begin with the bytes `\\0asm`")]
    NotWasm,
    /// A WebAssembly module of the first kind.
    #[error("it is a core WebAssembly module, but a policy is a component (`wasm-component-ld` links one)")]
    CoreModule,
    /// Truncated, corrupt, too large inside, or using instructions that a policy may not use.
    #[error("it is not a component that can be run here: {0}")]
    Invalid(String),
    /// It asks for something from outside of its sandbox.
    #[error("it imports {}, but a policy may import nothing", list(.0))]
    Imports(Vec<String>),
    /// It does not export what a policy exports.
    #[error("it does not export `{INTERFACE}` as a policy must: {0}")]
    Interface(String),
    /// It could not describe itself.
    #[error("it cannot describe itself ({kind}): {detail}")]
    Describe {
        /// How it failed.
        kind: FailureKind,
        /// What happened.
        detail: String,
    },
    /// What it says of itself cannot be used.
    #[error("its description of itself is wrong: {0}")]
    Descriptor(String),
}

/// The modules in memory, so that one that is used twice is compiled once.
#[derive(Default)]
pub(super) struct LoadedModules(Mutex<HashMap<Digest, Weak<Module>>>);

impl Engine {
    /// Checks, compiles and describes a module. Slow: to be called off the request path.
    ///
    /// INVARIANT: this is the only way to a module. So where signatures are asked for, nothing runs without one, wherever
    /// it came from and whenever it was stored.
    pub fn load(&self, bytes: &[u8], signatures: &[Signature]) -> Result<Arc<Module>, ModuleError> {
        let shared = &self.shared;
        check_form(bytes, shared.limits.module_bytes)?;
        let digest = Digest::of(bytes);
        shared.trust.verify(Signed::Module, &digest, signatures)?;
        if let Some(module) = shared.loaded.get(&digest) {
            return Ok(module);
        }
        let component = compile(shared, &digest, bytes)?;
        let imports = component.component_type();
        let imports: Vec<String> = imports.imports(&shared.wasm).map(|(name, _)| name.to_owned()).collect();
        if !imports.is_empty() {
            return Err(ModuleError::Imports(imports));
        }
        let instance = empty_linker(&shared.wasm)
            .instantiate_pre(&component)
            .map_err(|error| ModuleError::Invalid(error.root_cause().to_string()))?;
        let exports = Exports::find(shared, &component, &instance)?;
        let descriptor = describe(shared, &instance, &exports)?;
        let config = schema::compile(&descriptor.config_schema).map_err(|error| {
            ModuleError::Descriptor(format!("its configuration schema is not valid: {error}"))
        })?;
        let codes = descriptor.reasons.iter().map(|doc| doc.code.clone()).collect();
        let (shared, bytes) = (Arc::clone(shared), bytes.into());
        let module = Module { digest, bytes, descriptor, codes, config, shared, instance, exports };
        Ok(self.shared.loaded.keep(module))
    }
}

impl Engine {
    /// The module with this digest, if it is in memory.
    #[must_use]
    pub fn loaded(&self, digest: &Digest) -> Option<Arc<Module>> {
        self.shared.loaded.get(digest)
    }
}

impl Module {
    /// SHA-256 of its bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The component itself.
    #[must_use]
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// What it says of itself.
    #[must_use]
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Whether its description lists this code.
    pub(super) fn knows(&self, code: &str) -> bool {
        self.codes.contains(code)
    }

    /// Whether failures may name codes that it does not list.
    pub(super) fn names_unlisted_codes(&self) -> bool {
        self.shared.names_unlisted_codes.load(Ordering::Relaxed)
    }

    /// A synthetic configuration that its schema takes, if one is easily made.
    #[must_use]
    pub fn synthetic_config(&self) -> Option<Value> {
        let config = schema::synthetic(&self.descriptor.config_schema, &self.descriptor.config_schema, 0)?;
        self.config.is_valid(&config).then_some(config)
    }

    /// Checks configurations against its schema.
    pub(super) fn config(&self) -> &Validator {
        &self.config
    }

    /// How it is measured under the name that a policy set gives it.
    pub(super) fn meter(&self, policy: &str) -> Meter {
        self.shared.metrics.meter(policy)
    }

    /// Has it describe itself once more, for what that uses.
    #[must_use]
    pub fn describe_again(&self) -> Cost {
        let describe = &self.exports.describe;
        self.shared.call_function(&self.instance, describe, ()).1
    }

    pub(super) fn output_bytes(&self) -> usize {
        self.shared.limits.output_bytes
    }

    pub(super) fn check_config(
        &self,
        meter: &Meter,
        config: &str,
    ) -> (Result<(Vec<bindings::Reason>,), Failure>, Cost) {
        let (result, cost) = self.shared.call_function(&self.instance, &self.exports.check_config, (config,));
        Meter::took(&meter.check_config, cost.time);
        (result, cost)
    }

    pub(super) fn admit(
        &self,
        meter: &Meter,
        config: &str,
        request: bindings::Request<'_>,
    ) -> (Result<Admitted, Failure>, Cost) {
        let (result, cost) = match &self.exports.of_requests {
            OfRequests::V2 { admit, .. } => {
                self.shared.call_function(&self.instance, admit, (config, request))
            }
            OfRequests::V1 { admit, .. } => {
                self.shared.call_function(&self.instance, admit, (config, request.into()))
            }
        };
        let result = result.map(|(answer,)| answer);
        Meter::took(&meter.admit, cost.time);
        (result, cost)
    }

    pub(super) fn judge(
        &self,
        meter: &Meter,
        (config, memo): (&str, &str),
        request: bindings::Request<'_>,
        events: &bindings::Events<'_>,
    ) -> (Result<Judged, Failure>, Cost) {
        let (result, cost) = match &self.exports.of_requests {
            OfRequests::V2 { judge, .. } => {
                let (history, event) = events.now();
                let context = bindings::Context { config, memo, request, history, event };
                let (answer, cost) = self.shared.call_function(&self.instance, judge, (context,));
                (answer.map(|(answer,)| answer.map(Into::into)), cost)
            }
            OfRequests::V1 { judge, .. } => {
                let (history, event) = events.then();
                let context = bindings::Context { config, memo, request: request.into(), history, event };
                let (answer, cost) = self.shared.call_function(&self.instance, judge, (context,));
                (answer.map(|(answer,)| answer.map(Into::into)), cost)
            }
        };
        Meter::took(&meter.judge, cost.time);
        (result, cost)
    }
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Module { digest, descriptor, .. } = self;
        f.debug_struct("Module")
            .field("name", &descriptor.name)
            .field("digest", digest)
            .finish_non_exhaustive()
    }
}

impl LoadedModules {
    fn get(&self, digest: &Digest) -> Option<Arc<Module>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(digest).and_then(Weak::upgrade)
    }

    /// Keeps `module`, or takes the one that somebody else loaded meanwhile.
    fn keep(&self, module: Module) -> Arc<Module> {
        let mut loaded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.retain(|_, module| module.strong_count() > 0);
        if let Some(module) = loaded.get(&module.digest).and_then(Weak::upgrade) {
            return module;
        }
        let module = Arc::new(module);
        loaded.insert(module.digest, Arc::downgrade(&module));
        module
    }
}

/// What can be said of the bytes without reading them all.
fn check_form(bytes: &[u8], limit: usize) -> Result<(), ModuleError> {
    const CORE: [u8; 4] = [1, 0, 0, 0];
    if bytes.len() > limit {
        return Err(ModuleError::TooLarge { size: bytes.len(), limit });
    }
    let Some(version) = bytes.strip_prefix(b"\0asm") else { return Err(ModuleError::NotWasm) };
    if version.starts_with(&CORE) {
        return Err(ModuleError::CoreModule);
    }
    Ok(())
}

fn compile(shared: &Shared, digest: &Digest, bytes: &[u8]) -> Result<Component, ModuleError> {
    if let Some(component) = shared.cache.as_ref().and_then(|cache| cache.load(&shared.wasm, digest)) {
        return Ok(component);
    }
    let component = Component::from_binary(&shared.wasm, bytes)
        .map_err(|error| ModuleError::Invalid(format!("{error:#}")))?;
    if let Some(cache) = &shared.cache {
        cache.keep(&shared.wasm, digest, &component);
    }
    Ok(component)
}

#[cfg(test)]
impl Module {
    /// Asks an instance of this module for a function of another one.
    pub(super) fn call_function_of(&self, other: &Module) -> Result<(), Failure> {
        self.shared.call_function(&self.instance, &other.exports.describe, ()).0.map(drop)
    }
}

impl Exports {
    /// The functions, each of which takes and returns what the contract says.
    fn find(
        shared: &Shared,
        component: &Component,
        instance: &InstancePre<Sandbox>,
    ) -> Result<Exports, ModuleError> {
        let (current, interface) = [(true, INTERFACE), (false, INTERFACE_1)]
            .into_iter()
            .find_map(|(current, name)| Some((current, component.get_export_index(None, name)?)))
            .ok_or_else(|| ModuleError::Interface("there is no such export".to_owned()))?;
        let function = |name: &str| {
            component
                .get_export_index(Some(&interface), name)
                .ok_or_else(|| ModuleError::Interface(format!("it lacks the function `{name}`")))
        };
        let (describe, check_config) = (function("describe")?, function("check-config")?);
        let (admit, judge) = (function("admit")?, function("judge")?);
        let invalid = |error: wasmtime::Error| ModuleError::Invalid(format!("{error:#}"));
        let mut store = shared.store().map_err(invalid)?;
        let instance = instance.instantiate(&mut store).map_err(|error| {
            let Failure { kind, detail } = shared.failure(&error, store.data());
            ModuleError::Invalid(format!("it cannot be started ({kind}): {detail}"))
        })?;
        let mut types = Types { instance, store };
        let describe = types.compare::<Describe>("describe", describe)?;
        let check_config = types.compare::<CheckConfig>("check-config", check_config)?;
        let of_requests = if current {
            let admit = types.compare("admit", admit)?;
            OfRequests::V2 { admit, judge: types.compare("judge", judge)? }
        } else {
            let admit = types.compare("admit", admit)?;
            OfRequests::V1 { admit, judge: types.compare("judge", judge)? }
        };
        Ok(Exports { describe, check_config, of_requests })
    }
}

/// An instance to compare the types of its functions with the contract's.
struct Types {
    instance: Instance,
    store: Store<Sandbox>,
}

impl Types {
    fn compare<S: FunctionType>(
        &mut self,
        name: &str,
        function: ComponentExportIndex,
    ) -> Result<Function<S>, ModuleError> {
        Function::compared(function, &self.instance, &mut self.store).map_err(|error| {
            ModuleError::Interface(format!("`{name}` has another signature: {}", error.root_cause()))
        })
    }
}

fn describe(
    shared: &Shared,
    instance: &InstancePre<Sandbox>,
    exports: &Exports,
) -> Result<Descriptor, ModuleError> {
    let (described, _) = shared.call_function(instance, &exports.describe, ());
    let (described,) =
        described.map_err(|Failure { kind, detail }| ModuleError::Describe { kind, detail })?;
    let wrong = |what: String| Err(ModuleError::Descriptor(what));
    let bindings::Descriptor { name, version, summary, config_schema, reasons } = described;
    if !is_name(&name, |letter| matches!(letter, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_')) {
        return wrong("its name must be 1 to 64 lower-case letters, digits, `-` or `_`".to_owned());
    }
    if version.is_empty() || version.len() > 64 || version.chars().any(char::is_control) {
        return wrong("its version must be 1 to 64 bytes of text".to_owned());
    }
    let config_schema = match serde_json::from_str(&config_schema) {
        Ok(schema) => schema,
        Err(error) => return wrong(format!("its configuration schema is no JSON: {error}")),
    };
    let mut codes = BTreeSet::new();
    for doc in &reasons {
        let is_code = is_name(&doc.code, |letter| matches!(letter, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        if !is_code {
            return wrong("a reason's code must be 1 to 64 lower-case letters, digits or `_`".to_owned());
        }
        if !codes.insert(&doc.code) {
            return wrong(format!("the reason `{}` is listed twice", doc.code));
        }
    }
    let reasons = reasons.into_iter().map(|doc| ReasonDoc { code: doc.code, help: doc.help }).collect();
    Ok(Descriptor { name, version, summary, config_schema, reasons })
}

fn is_name(name: &str, letter: impl Fn(u8) -> bool) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(letter)
}

fn list(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}
