//! Spans, and who makes them.

use countersign_core::trace::{TraceContext, TraceParent};
use futures_util::future::Either;
use opentelemetry::context::FutureExt as _;
use opentelemetry::trace::{
    SpanBuilder, SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _,
};
use opentelemetry::{Context, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::SdkTracer;

use crate::vocabulary::{Key, Name};

/// Makes spans; by default none. The clones are one.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<SdkTracer>);

/// Something that is done, from when this is made to when it is dropped. It may be none: then all that is asked of it costs
/// one comparison.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct Span(Option<Context>);

impl Tracer {
    pub(crate) fn new(tracer: SdkTracer) -> Tracer {
        Tracer(Some(tracer))
    }

    /// Whether anything is traced.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins a span: within the span that this is called in, if there is one; else a trace.
    pub fn start(&self, name: Name) -> Span {
        if self.0.is_none() { Span(None) } else { self.start_in(name, &Context::current()) }
    }

    /// The place of a caller in a trace. What is done within it belongs to the caller's span.
    pub fn of_caller(&self, caller: Option<TraceContext>) -> Span {
        let Some(caller) = caller.filter(|_| self.is_on()) else { return Span(None) };
        // Without the tracer: what is not begun by `start` is none of the caller's trace.
        Span(Some(Context::new().with_remote_span_context(span_context(&caller))))
    }

    fn start_in(&self, name: Name, parent: &Context) -> Span {
        let Some(tracer) = &self.0 else { return Span(None) };
        let builder = SpanBuilder::from_name(name.as_str()).with_kind(name.kind());
        let span = tracer.build_with_context(builder, parent);
        let parent =
            if parent.get::<Tracer>().is_some() { parent.clone() } else { parent.with_value(self.clone()) };
        Span(Some(parent.with_span(span)))
    }
}

impl Span {
    /// None.
    pub const fn none() -> Span {
        Span(None)
    }

    /// Begins a span within the one that this is called in; none if there is none.
    pub fn child(name: Name) -> Span {
        let parent = Context::map_current(|parent| Some((parent.get::<Tracer>()?.clone(), parent.clone())));
        parent.map_or(Span(None), |(tracer, parent)| tracer.start_in(name, &parent))
    }

    /// Says something about it. `value` is asked for only if somebody gets to know it.
    pub fn set(&self, key: Key, value: impl FnOnce() -> String) -> &Span {
        self.set_value(key, || Value::from(value()))
    }

    /// Says a word about it.
    pub fn set_word(&self, key: Key, word: &'static str) -> &Span {
        self.set_value(key, || Value::from(StringValue::from(word)))
    }

    /// Says a number about it.
    pub fn set_number(&self, key: Key, number: u64) -> &Span {
        self.set_value(key, || Value::from(i64::try_from(number).unwrap_or(i64::MAX)))
    }

    fn set_value(&self, key: Key, value: impl FnOnce() -> Value) -> &Span {
        if let Some(context) = &self.0 {
            set(context, key, value);
        }
        self
    }

    /// Says that it failed, and why, by a code.
    pub fn fail(&self, code: &'static str) {
        if let Some(context) = &self.0 {
            context.span().set_status(Status::error(code));
        }
    }

    /// Links it to the span that made what it is about.
    pub fn link(&self, to: Option<&TraceContext>) {
        if let (Some(context), Some(to)) = (&self.0, to) {
            context.span().add_link(span_context(to), Vec::new());
        }
    }

    /// What is done in `work` belongs to it.
    pub fn around<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        match &self.0 {
            None => Either::Left(work),
            Some(context) => Either::Right(work.with_context(context.clone())),
        }
    }

    /// Its place in its trace.
    #[must_use]
    pub fn place(&self) -> Option<TraceContext> {
        let context = self.0.as_ref()?.span().span_context().clone();
        let parent = TraceParent {
            trace: context.trace_id().to_bytes(),
            span: context.span_id().to_bytes(),
            sampled: context.is_sampled(),
        };
        let state = context.trace_state().header();
        context.is_valid().then(|| TraceContext { parent, state: Some(state).filter(|it| !it.is_empty()) })
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        // What was spawned within it may hold the context for longer.
        if let Some(context) = &self.0 {
            context.span().end();
        }
    }
}

/// Work that is done on another thread, and still belongs to the span that this is called in.
pub fn carried<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let context = Context::map_current(|context| context.get::<Tracer>().map(|_| context.clone()));
    move || {
        let _within = context.map(Context::attach);
        work()
    }
}

fn set(context: &Context, key: Key, value: impl FnOnce() -> Value) {
    let span = context.span();
    if span.is_recording() {
        span.set_attribute(KeyValue::new(key.as_str(), value()));
    }
}

fn span_context(place: &TraceContext) -> SpanContext {
    let TraceContext { parent: TraceParent { trace, span, sampled }, state } = place;
    let flags = TraceFlags::default().with_sampled(*sampled);
    let state = state.as_deref().and_then(|state| state.parse::<TraceState>().ok()).unwrap_or_default();
    SpanContext::new(TraceId::from_bytes(*trace), SpanId::from_bytes(*span), flags, true, state)
}
