//! The sandbox that policies run in: which instructions exist, how much a call may use, and who keeps time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wasmtime::component::{ComponentNamedList, Instance, InstancePre, Lift, Linker, Lower, TypedFunc};
use wasmtime::{
    Config, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, ResourceLimiter, Store, Strategy,
    Trap,
};

use super::cache::CompileCache;
use super::function::{Function, FunctionType};
use super::metrics::Metrics;
use super::module::LoadedModules;
use super::ticker::{Slots, Ticker};
use super::trust::Trust;
use countersign_core::lifecycle::FailureKind;

/// How much one call of a policy may use, and how large a module may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Instructions, roughly; the same call always uses the same amount.
    pub fuel: u64,
    /// Linear memory, in bytes.
    pub memory_bytes: usize,
    /// Wall-clock time, in milliseconds: a backstop for what fuel does not see. A call that runs on is
    /// stopped at most a fifth of it late.
    pub deadline_ms: u64,
    /// What a call returns, in bytes.
    pub output_bytes: usize,
    /// A component, in bytes.
    pub module_bytes: usize,
    /// The stack of a call, in bytes; it is taken from the calling thread's.
    pub stack_bytes: usize,
    /// Elements of a table.
    pub table_elements: usize,
    /// Calls at the same time; further ones wait for one to end.
    pub concurrent_calls: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            fuel: 10_000_000,
            memory_bytes: 16 << 20,
            deadline_ms: 50,
            output_bytes: 64 << 10,
            module_bytes: 2 << 20,
            stack_bytes: 512 << 10,
            table_elements: 10_000,
            concurrent_calls: 64,
        }
    }
}

/// Memory that a sandbox keeps between calls, in bytes. A guest of two pages, and one page that it may grow
/// by, are put back by copying instead of by unmapping, which is most of what a fresh sandbox would cost.
const KEEP_RESIDENT_BYTES: usize = 192 << 10;

/// Loads policy modules and runs them, each call in a fresh sandbox.
///
/// Cheap to clone; the clones are one engine.
#[derive(Clone)]
pub struct Engine {
    pub(super) shared: Arc<Shared>,
}

/// The sandbox cannot be set up on this machine.
#[derive(Debug, thiserror::Error)]
#[error("the policy sandbox cannot be set up: {0}")]
pub struct EngineError(String);

/// What every module needs as long as it can be called.
///
/// INVARIANT: who can run a guest holds this, and this holds the ticker. So no deadline is without one.
pub(super) struct Shared {
    pub(super) wasm: wasmtime::Engine,
    pub(super) limits: Limits,
    pub(super) metrics: Metrics,
    pub(super) cache: Option<CompileCache>,
    pub(super) loaded: LoadedModules,
    pub(super) trust: Trust,
    slots: Slots,
    ticker: Ticker,
    pub(super) names_unlisted_codes: AtomicBool,
}

impl Engine {
    /// An engine with these limits, which keeps compiled code in `cache` if there is one, and loads what `trust` lets
    /// it load.
    pub fn new(limits: Limits, cache: Option<CompileCache>, trust: Trust) -> Result<Engine, EngineError> {
        let wasm =
            wasmtime::Engine::new(&config(&limits)).map_err(|error| EngineError(format!("{error:#}")))?;
        let ticker = Ticker::start(&wasm, Duration::from_millis(limits.deadline_ms))
            .map_err(|error| EngineError(format!("no thread for its clock: {error}")))?;
        Engine::with(wasm, ticker, limits, (cache, trust))
    }

    fn with(
        wasm: wasmtime::Engine,
        ticker: Ticker,
        limits: Limits,
        (cache, trust): (Option<CompileCache>, Trust),
    ) -> Result<Engine, EngineError> {
        let metrics = Metrics::new().map_err(|error| EngineError(error.to_string()))?;
        let slots = Slots::new(limits.concurrent_calls.max(1));
        let loaded = LoadedModules::default();
        Ok(Engine {
            shared: Arc::new(Shared {
                wasm,
                limits,
                metrics,
                cache,
                loaded,
                trust,
                slots,
                ticker,
                names_unlisted_codes: AtomicBool::new(false),
            }),
        })
    }

    /// What a call may use.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// Has failures name a reason's code that the description of its module does not list, for authors. A gateway does not:
    /// a module knows hidden parameters, could put one there, and failures are logged.
    #[must_use]
    pub fn naming_unlisted_codes(self) -> Engine {
        self.shared.names_unlisted_codes.store(true, Ordering::Relaxed);
        self
    }

    /// Whose signatures count.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.shared.trust
    }

    /// Whether no policy is run any more, because the thread that ends calls at their deadline has ended. Nothing but a
    /// new process makes that good.
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.shared.ticker.has_stopped()
    }

    /// Adds the engine's metrics to `registry`.
    pub fn register(&self, registry: &prometheus::Registry) -> prometheus::Result<()> {
        self.shared.metrics.register(registry)
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("limits", &self.shared.limits).finish_non_exhaustive()
    }
}

#[cfg(test)]
impl Shared {
    /// A call of any function of any component.
    pub(super) fn call<P, R>(
        &self,
        instance: &InstancePre<Sandbox>,
        function: &wasmtime::component::ComponentExportIndex,
        params: P,
    ) -> (Result<R, Failure>, Cost)
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift + 'static,
    {
        self.run(instance, |instance, store| instance.get_typed_func(store, function), params)
    }
}

#[cfg(test)]
impl Engine {
    /// One whose clock has stopped.
    pub(super) fn without_clock() -> Engine {
        let limits = Limits::default();
        let wasm = wasmtime::Engine::new(&config(&limits)).unwrap();
        Engine::with(wasm, Ticker::broken(), limits, (None, Trust::default())).unwrap()
    }
}

/// What one call used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Wall-clock time, sandbox and all.
    pub time: Duration,
    /// Instructions, roughly: the same for the same call, on any machine.
    pub fuel: u64,
}

/// How a call failed; a `PolicyFailure` without the policy's name.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    pub(super) detail: String,
}

impl Failure {
    pub(super) fn malformed(detail: impl Into<String>) -> Failure {
        Failure { kind: FailureKind::Malformed, detail: detail.into() }
    }
}

impl Shared {
    /// One call in a fresh sandbox, and what it used.
    pub(super) fn call_function<S: FunctionType>(
        &self,
        instance: &InstancePre<Sandbox>,
        function: &Function<S>,
        params: S::Params<'_>,
    ) -> (Result<S::Result, Failure>, Cost) {
        self.run(instance, |instance, store| function.of(instance, store), params)
    }

    /// One call in a fresh sandbox, of the function that `find` finds in it.
    fn run<P, R>(
        &self,
        instance: &InstancePre<Sandbox>,
        find: impl FnOnce(&Instance, &mut Store<Sandbox>) -> wasmtime::Result<TypedFunc<P, R>>,
        params: P,
    ) -> (Result<R, Failure>, Cost)
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift + 'static,
    {
        let _slot = self.slots.take();
        let started = now();
        let mut store = match self.store() {
            Ok(store) => store,
            Err(error) => {
                let cost = Cost { time: started.elapsed(), fuel: 0 };
                return (Err(Failure::malformed(format!("no sandbox: {error}"))), cost);
            }
        };
        let result = (|| {
            let instance = instance.instantiate(&mut store)?;
            find(&instance, &mut store)?.call(&mut store, params)
        })();
        let result = result.map_err(|error| self.failure(&error, store.data()));
        let fuel = self.limits.fuel.saturating_sub(store.get_fuel().unwrap_or_default());
        // Giving the memory back is part of what a call costs.
        drop(store);
        (result, Cost { time: started.elapsed(), fuel })
    }

    /// A store in which every limit is set: there is no other way to make one.
    pub(super) fn store(&self) -> wasmtime::Result<Store<Sandbox>> {
        if self.ticker.has_stopped() {
            return Err(wasmtime::Error::new(NoClock));
        }
        let sandbox = Sandbox {
            memory_bytes: self.limits.memory_bytes,
            table_elements: self.limits.table_elements,
            denied: false,
        };
        let mut store = Store::new(&self.wasm, sandbox);
        store.limiter(|sandbox| sandbox);
        store.set_fuel(self.limits.fuel)?;
        store.set_epoch_deadline(self.ticker.ticks());
        store.set_hostcall_fuel(self.limits.output_bytes);
        Ok(store)
    }

    pub(super) fn failure(&self, error: &wasmtime::Error, sandbox: &Sandbox) -> Failure {
        let limits = &self.limits;
        if sandbox.denied {
            let detail = format!("it asked for more than {} bytes of memory", limits.memory_bytes);
            return Failure { kind: FailureKind::Memory, detail };
        }
        let (kind, detail) = match error.downcast_ref::<Trap>() {
            Some(Trap::OutOfFuel) => {
                (FailureKind::Fuel, format!("it used up its {} units of fuel", limits.fuel))
            }
            Some(Trap::Interrupt) => {
                (FailureKind::Deadline, format!("it ran for more than {} ms", limits.deadline_ms))
            }
            // What a guest says when it panics cannot leave the sandbox: this is the runtime's own sentence.
            Some(trap) => (FailureKind::Trap, trap.to_string()),
            None => (
                FailureKind::Malformed,
                format!(
                    "its answer breaks the contract, or has more than {} bytes: {}",
                    limits.output_bytes,
                    error.root_cause()
                ),
            ),
        };
        Failure { kind, detail }
    }
}

/// A store's data: the limits on what the guest may grow.
pub(super) struct Sandbox {
    memory_bytes: usize,
    table_elements: usize,
    denied: bool,
}

/// Nothing would end a call at its deadline.
#[derive(Debug, thiserror::Error)]
#[error("the thread that ends calls at their deadline has ended, so no policy is run")]
struct NoClock;

/// The guest asked for more than it may have. Ends the call at once, since what it would do without is
/// of no use to anybody.
#[derive(Debug, thiserror::Error)]
#[error("more memory than allowed")]
struct Denied;

impl Sandbox {
    fn allow(&mut self, wanted: usize, limit: usize) -> wasmtime::Result<bool> {
        if wanted <= limit {
            return Ok(true);
        }
        self.denied = true;
        Err(wasmtime::Error::new(Denied))
    }
}

impl ResourceLimiter for Sandbox {
    fn memory_growing(&mut self, _: usize, wanted: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        self.allow(wanted, self.memory_bytes)
    }

    fn table_growing(&mut self, _: usize, wanted: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        self.allow(wanted, self.table_elements)
    }
}

/// A linker that offers nothing.
pub(super) fn empty_linker(wasm: &wasmtime::Engine) -> Linker<Sandbox> {
    Linker::new(wasm)
}

/// What exists inside a sandbox. Everything that could make two runs differ is off.
fn config(limits: &Limits) -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        .cranelift_nan_canonicalization(true)
        .wasm_component_model(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .concurrency_support(false)
        .consume_fuel(true)
        .epoch_interruption(true)
        .wasm_backtrace_max_frames(None)
        .max_wasm_stack(limits.stack_bytes)
        .memory_init_cow(true)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(limits)));
    config
}

/// Room for `concurrent_calls` sandboxes, each as large as the limits let it become.
fn pool(limits: &Limits) -> PoolingAllocationConfig {
    const INSTANCES_EACH: u32 = 8;
    const TABLES_EACH: u32 = 4;
    let calls = limits.concurrent_calls.max(1);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(calls)
        .total_core_instances(calls.saturating_mul(INSTANCES_EACH))
        .total_memories(calls)
        .total_tables(calls.saturating_mul(TABLES_EACH))
        .max_core_instances_per_component(INSTANCES_EACH)
        .max_memories_per_component(1)
        .max_tables_per_component(TABLES_EACH)
        .max_memory_size(limits.memory_bytes)
        .table_elements(limits.table_elements)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(16 << 10)
        .max_unused_warm_slots(calls);
    pool
}

#[expect(clippy::disallowed_methods, reason = "measures how long a call takes; decides nothing")]
fn now() -> Instant {
    Instant::now()
}
