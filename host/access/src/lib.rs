//! Who asks and who administers: callers and admins by their API keys, by tokens of identity providers or by client
//! certificates, and the names that people have.
//!
//! The access file says all of it. It is read as a whole, and read again while the gateway runs; a file that is wrong
//! changes nothing. Which requests a caller owns and how many it may make is the server's to hold it to.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod admin;
mod authenticate;
mod caller;
mod certificate;
mod doubt;
mod explain;
mod file;
mod gate;
mod key;
mod proxies;
mod requester;

// Tokens: what is read, whose they are, and where keys come from.
mod fetch;
mod issuer;
mod jwk;
mod provider;
mod token;

#[cfg(test)]
mod tests;

pub use admin::{ADMIN_TOKEN_NAME, Admin, Role, holder_name};
pub use authenticate::{Authenticator, Holder, Identified, Unauthenticated};
pub use caller::{Caller, Glob, RequesterRule, Template, TokenRule, claim_text};
pub use certificate::{CertificateError, CertificateName};
pub use doubt::doubts;
pub use explain::{Explained, explain};
pub use fetch::KeyUrl;
pub use file::{ACCESS_BYTES, Access};
pub use gate::{GateRule, GateSystem};
pub use issuer::{Issuer, Keys};
pub use key::{ApiKey, PREFIX};
pub use proxies::{ClientHeader, Proxies};
pub use requester::{Requester, RequesterError};
pub use token::TokenError;
