//! The trait that a policy implements, and what it is given to judge.

use serde::{Serialize, de::DeserializeOwned};

use crate::{Event, History, Reason, Request, Ruling};

/// The code of every reason that concerns a configuration: it does not have the policy's shape, or
/// [`Policy::check`] finds fault with it.
pub const INVALID_CONFIG: &str = "invalid_config";
/// The code of the refusal of an event whose memo the policy cannot read.
pub const INVALID_MEMO: &str = "invalid_memo";
/// The code of the refusal of an event that the contract does not know, such as an approval by nobody.
pub const INVALID_EVENT: &str = "invalid_event";

/// The reasons that the SDK itself gives; every descriptor has them, so that a policy need not.
pub(crate) const SDK_REASONS: &[ReasonDoc] = &[
    ReasonDoc { code: INVALID_CONFIG, help: "The policy's configuration is wrong; `path` says where." },
    ReasonDoc { code: INVALID_MEMO, help: "What the policy remembered of the request cannot be read." },
    ReasonDoc { code: INVALID_EVENT, help: "The event lacks something that its act needs." },
];

/// A policy: who must agree to a request, and who may say so.
///
/// All functions are pure; the same arguments give the same answer, always.
/// See the [crate's example](crate#a-whole-policy).
pub trait Policy: Sized + 'static {
    /// What a policy set says under `with`. A configuration that does not deserialise never reaches the policy; the SDK
    /// answers [`INVALID_CONFIG`].
    type Config: DeserializeOwned;
    /// What the policy remembers of a request from its admission; `()` if that is nothing.
    /// Stored by the gateway as JSON text of at most 64 KiB, so remember no secrets.
    type Memo: Serialize + DeserializeOwned;

    /// The policy's name, in kebab-case.
    const NAME: &'static str;
    /// The policy's version; `env!("CARGO_PKG_VERSION")` as a rule.
    const VERSION: &'static str;
    /// What it does, in one sentence.
    const SUMMARY: &'static str;
    /// JSON Schema (2020-12) of the configuration; the gateway checks it before [`check`](Self::check).
    const CONFIG_SCHEMA: &'static str;
    /// Every code that a refusal or a denial of this policy can carry; those of the SDK are added.
    const REASONS: &'static [ReasonDoc];

    /// What the schema cannot say about a configuration. An empty list means that it is sound.
    /// Reasons have the code [`INVALID_CONFIG`], and a JSON Pointer into the configuration as path.
    #[must_use]
    fn check(config: &Self::Config) -> Vec<Reason> {
        let _ = config;
        Vec::new()
    }

    /// May this request be made at all? Returns what the policy wants to remember of it.
    /// The only call that sees the whole parameters.
    ///
    /// # Errors
    /// Every reason why the request may not be made.
    fn admit(config: &Self::Config, request: &Request) -> Result<Self::Memo, Vec<Reason>>;

    /// Does the event count, and where does the request stand once it does?
    ///
    /// # Errors
    /// Every reason why the event may not count. Refuse only what is this policy's business; see [`Ruling::granting`].
    fn judge(context: &Context<Self>) -> Result<Ruling, Vec<Reason>>;
}

/// A reason's code and what it means to the person who meets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReasonDoc {
    /// The code, in `snake_case`.
    pub code: &'static str,
    /// What it means, and what to do about it.
    pub help: &'static str,
}

/// What a policy judges.
#[derive(Debug)]
pub struct Context<P: Policy> {
    /// The policy's configuration.
    pub config: P::Config,
    /// What [`Policy::admit`] returned for this request.
    pub memo: P::Memo,
    /// The request, its parameters redacted.
    pub request: Request,
    /// The event to judge.
    pub event: Event,
    pub(crate) accepted: Vec<Event>,
}

impl<P: Policy> Context<P> {
    /// The accepted events so far, without the one to judge.
    #[must_use]
    pub fn history(&self) -> History<'_> {
        History::new(&self.accepted, None)
    }

    /// The accepted events and the one to judge, as if it counted: what the ruling's standing is about.
    #[must_use]
    pub fn history_with_event(&self) -> History<'_> {
        History::new(&self.accepted, Some(&self.event))
    }
}
