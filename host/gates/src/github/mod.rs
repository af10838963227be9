//! GitHub: the calls of an App whose custom deployment protection rule an environment has.

mod app;
mod delivery;

pub use app::{App, AppKey, KeyError};
pub use delivery::{CLAIMS, EVENT, read};

/// How many characters a comment may have.
pub const COMMENT_CHARS: usize = 1024;

/// The API of github.com.
pub const DEFAULT_API_URL: &str = "https://api.github.com";
