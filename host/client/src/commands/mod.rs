//! The commands of the program that ask a gateway, or check what it said.

mod ask;
mod connection;
pub mod decision;
mod duration;
mod exit;
mod hash;
pub mod hook;
mod parameters;
mod party;
#[cfg(test)]
mod recipes;
mod requests;
mod watch;
mod webhooks;

pub use ask::{AskCommand, word};
pub use connection::{Address, Connection};
pub use exit::{EXIT_CODES, Ended, Exit};
pub use hash::HashCommand;
pub use hook::HookCommand;
pub use party::party;
pub use requests::RequestsCommand;
pub use watch::{WaitCommand, read_token};
pub use webhooks::WebhooksCommand;

/// The variables that these commands read, beside those that are values of flags.
pub const VARIABLES: [&str; 4] =
    ["COUNTERSIGN_API_KEY", "COUNTERSIGN_ID_TOKEN", "COUNTERSIGN_ID_TOKEN_FILE", "COUNTERSIGN_MCP_TOKEN"];

/// Whether a command that was approved finds a variable of this name in its environment.
#[must_use]
pub fn is_given(name: &str) -> bool {
    name.starts_with("COUNTERSIGN_PARAM_")
        || ["COUNTERSIGN_REQUEST_ID", "COUNTERSIGN_RECEIPT"].contains(&name)
}
