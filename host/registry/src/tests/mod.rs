//! References, credentials, and calls to a fake registry that misbehaves.

mod credentials;
mod fake;
mod fetching;
mod pushing;
mod references;

use super::*;

fn repository(text: &str) -> Repository {
    text.parse().unwrap()
}
