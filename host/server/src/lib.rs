//! The program `countersign`: the command line, and the HTTP and Slack edges of the gateway.
//!
//! What the gateway decides is not here: see the other crates under `host/`.

// They panic if nobody reads: `host/console` prints.
#![deny(clippy::print_stdout, clippy::print_stderr)]

// The command line, and the settings of `serve`.
pub mod check_config;
pub mod cli;
pub mod config;
mod keys;
mod settings;
mod writable;

// The gateway: what is shared, how it is put together, how it is run and stopped.
pub mod build;
mod hangups;
pub mod run;
pub mod shutdown;
pub mod state;
mod supervisor;

// Who may ask.
pub mod access_control;
pub mod access_key;
mod caller_rights;
mod dispatching;
mod instances;
mod rejections;
mod retention;

// How callers, admins and operators reach it.
pub mod http;
mod rate_limit;
mod readiness;
mod spool;
pub mod store_copy;
mod streams;
pub mod telemetry;
pub mod tls;

// How people in Slack do.
mod interactions;

// How the gates of CI systems do.
mod gates;
mod reports;

// For those who check what was decided.
pub mod audit;
mod hashing;
pub mod receipt;

// For those who run it.
pub mod health;
pub mod shell;

// For trying it out.
pub mod dev;

// For finding out whether it holds, and is what the documents say.
#[cfg(test)]
mod reference;
#[cfg(test)]
mod simulated;

pub use keys::command::run as run_keys;
