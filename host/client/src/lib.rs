//! The client of a gateway: asks, waits, checks what was decided, uses the approval, and says what came of it.
//!
//! It knows nothing of how a gateway works: of the other crates it uses the core's types, the rules of payload hashes, and
//! those of receipts. Whatever it cannot check counts as no approval.

// They panic if nobody reads: `host/console` prints.
#![deny(clippy::print_stdout, clippy::print_stderr)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unreachable
)]

// Asking, for any program.
mod address;
mod answer;
mod api;
mod approval;
mod credentials;
mod error;
mod http;
mod patience;
mod sse;
mod wait;

// The commands.
pub mod commands;
mod environment;
mod text;

pub use address::{AddressError, GatewayUrl};
pub use answer::{Consumed, Created, Place, Required, Waited, WhoCan};
pub use api::{Ask, Client, Meta, Settings, random_key};
pub use approval::{Approval, Asked, Doubt};
pub use credentials::{Credentials, CredentialsError};
pub use environment::Environment;
pub use error::{CallError, Invalid, Problem, SettingsError};
pub use wait::{News, Waiting};
