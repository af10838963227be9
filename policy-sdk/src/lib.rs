//! For people who write policies for Countersign: the types that a policy sees, the [`Policy`] trait it implements,
//! [`export_policy!`] to make a WebAssembly module of it, and a native tester ([`scenario`]) to test it with.
//!
//! A policy is a pure function.
//! It sees its configuration, what it remembered at admission, the request, the accepted events and one more event;
//! it answers whether that event counts and where the request then stands.
//! It has no clock, no randomness, no files and no network, and nothing survives from one call to the next.
//!
//! This crate does not load or run modules; that is the gateway's part.
//!
//! # A whole policy
//! ```
//! use countersign_policy_sdk::{
//!     Act, Actor, Context, Policy, Reason, ReasonDoc, Request, Requirement, Ruling, scenario::Scenario,
//! };
//! use serde::Deserialize;
//! use serde_json::json;
//!
//! /// One named person decides.
//! struct Owner;
//!
//! #[derive(Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     owner: String,
//! }
//!
//! impl Policy for Owner {
//!     type Config = Config;
//!     type Memo = ();
//!     const NAME: &'static str = "owner";
//!     const VERSION: &'static str = "0.1.0";
//!     const SUMMARY: &'static str = "One named person approves or denies.";
//!     const CONFIG_SCHEMA: &'static str = r#"{
//!         "$schema": "https://json-schema.org/draft/2020-12/schema",
//!         "type": "object",
//!         "properties": { "owner": { "type": "string", "minLength": 1 } },
//!         "required": ["owner"],
//!         "additionalProperties": false
//!     }"#;
//!     const REASONS: &'static [ReasonDoc] =
//!         &[ReasonDoc { code: "denied_by_owner", help: "The owner said no." }];
//!
//!     fn admit(_: &Config, _: &Request) -> Result<(), Vec<Reason>> {
//!         Ok(())
//!     }
//!
//!     fn judge(context: &Context<Self>) -> Result<Ruling, Vec<Reason>> {
//!         let owner = &context.config.owner;
//!         let is_owner = |actor: &Actor| actor.id == *owner;
//!         let grants = match &context.event.act {
//!             Act::Deny { by, .. } if is_owner(by) => {
//!                 return Ok(Ruling::denied(Reason::new("denied_by_owner", "the owner said no")).granting());
//!             }
//!             Act::Approve { by, .. } | Act::Withdraw { by } => is_owner(by),
//!             _ => false,
//!         };
//!         let approved = context.history_with_event().approvals().into_iter().any(is_owner);
//!         let ruling = if approved {
//!             Ruling::satisfied()
//!         } else {
//!             Ruling::waiting([Requirement::approval("the owner's approval", 0, 1, [owner])])
//!         };
//!         Ok(ruling.granting_if(grants))
//!     }
//! }
//!
//! // In a crate of type `cdylib` this makes the module; natively it does nothing.
//! countersign_policy_sdk::export_policy!(Owner);
//!
//! Scenario::<Owner>::new(json!({ "owner": "U1" }))
//!     .requested_by("U9")
//!     .admitted()
//!     .waits_for("the owner's approval")
//!     .approve("U2")
//!     .silent()
//!     .approve("U1")
//!     .satisfied();
//! ```
//!
//! # What makes a module fit
//! Build it for `wasm32-unknown-unknown` with the linker `wasm-component-ld`, `panic = "abort"`, and a stack of 64 KiB
//! (`-Clink-arg=-zstack-size=65536`); the gateway refuses a module that imports anything.
//! The gateway makes a fresh sandbox for each call, so start-up is the cost that counts: keep state out of statics,
//! and read `params` and `meta`, which arrive as JSON text, only when the policy needs them.

mod actor;
mod event;
mod export;
mod history;
mod policy;
mod request;
mod ruling;
mod time;

#[cfg(not(target_arch = "wasm32"))]
pub mod scenario;

#[cfg(target_arch = "wasm32")]
mod bump;

pub use actor::{Actor, Known, SUPER_APPROVERS, check_actor_list};
pub use event::{Act, Edit, Event};
#[doc(hidden)]
pub use export::Exported;
pub use history::{Acknowledgement, History};
pub use policy::{Context, INVALID_CONFIG, INVALID_EVENT, INVALID_MEMO, Policy, ReasonDoc};
pub use request::{Instant, Json, Request};
pub use ruling::{Reason, Requirement, RequirementKind, Ruling, Standing};
pub use serde_json;
pub use time::offset_seconds;

/// The contract as `wit/policy.wit` generates it: plain data, for guests that must say what the typed layer forbids.
#[doc(hidden)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "policy-module",
        pub_export_macro: true,
        default_bindings_module: "countersign_policy_sdk::bindings",
    });
}
