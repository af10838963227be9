//! References by rows, credentials in files, and a registry that does what no registry should.

mod credentials;
mod fetching;
mod hostile;
mod pushing;
mod references;

use super::*;

fn repository(text: &str) -> Repository {
    text.parse().unwrap()
}
