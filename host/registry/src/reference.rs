//! References to modules in registries, and the patterns of allowed registries. Each has exactly one spelling.

use std::fmt;
use std::str::FromStr;

use countersign_core::lifecycle::{BadDigest, Digest};
use countersign_core::loopback::is_loopback;

/// The prefix of every reference.
const SCHEME: &str = "oci://";

/// The maximum length of a repository's path, which is also that of registries.
const PATH_BYTES: usize = 255;

/// The maximum length of a tag.
const TAG_BYTES: usize = 128;

/// A repository in a registry: `host[:port]/path`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    registry: String,
    path: String,
}

/// A module in a registry, pinned by digest: `oci://host[:port]/path@sha256:<64 digits>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pinned {
    /// The repository.
    pub repository: Repository,
    /// SHA-256 of the module's bytes, not of a manifest that lists it.
    pub digest: Digest,
}

/// A target to push to: `oci://host[:port]/path[:tag]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagged {
    /// The repository.
    pub repository: Repository,
    /// The tag to set.
    pub tag: Option<Tag>,
}

/// A mutable name in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag(String);

/// A pattern of allowed repositories: a whole registry, or a path and everything below it: `host[:port][/path]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Allowed {
    registry: String,
    /// Matches whole segments only.
    path: Option<String>,
}

/// Why a text is not a valid reference.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReference {
    /// The scheme is missing.
    #[error("`{0}` does not begin with `oci://`")]
    Scheme(String),
    /// A URL instead of a name.
    #[error("`{0}` must be written without a scheme: `host[:port]/path`")]
    NoScheme(String),
    /// Nothing after the host.
    #[error("`{0}` names no repository; the format is `host[:port]/path`")]
    NoRepository(String),
    /// It contains a user. The text is not repeated, because it may contain a password.
    #[error("a reference cannot have a user or a password: credentials belong in a separate file")]
    Credentials,
    /// The host or the port is invalid.
    #[error(
        "`{0}` is not a valid registry: expected a host in lower case and an optional port, such as `ghcr.io` or `localhost:5000`"
    )]
    Registry(String),
    /// The path is invalid.
    #[error(
        "`{0}` is not a valid repository: expected lower-case letters and digits, with `.`, `_` or `-` between \
         them and `/` between parts, at most 255 characters"
    )]
    Path(String),
    /// The tag is invalid.
    #[error(
        "`{0}` is not a valid tag: expected letters, digits, `_`, `.` and `-`, at most 128, not starting with `.` or `-`"
    )]
    Tag(String),
    /// The digest is missing.
    #[error("`{0}` has no digest: append `@sha256:` and 64 digits, as `countersign policy push` prints them")]
    NoDigest(String),
    /// A tag, which a digest makes meaningless.
    #[error("`{0}` has both a tag and a digest, but only the digest is used: remove the tag")]
    TagAndDigest(String),
    /// A digest in a target to push to.
    #[error("`{0}` has a digest, but a push sets a tag: `oci://host[:port]/path[:tag]`")]
    Digest(String),
    /// The digest is malformed.
    #[error("`{text}` is {source}")]
    BadDigest {
        /// The malformed digits.
        text: String,
        /// What is wrong.
        source: BadDigest,
    },
    /// The digest's algorithm is not SHA-256.
    #[error("`{0}` is not a supported digest: expected `sha256:` and 64 digits")]
    Algorithm(String),
}

impl Repository {
    /// The registry, `host[:port]`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository's path in the registry.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the registry is on this machine.
    pub(super) fn is_on_this_machine(&self) -> bool {
        is_loopback(split_port(&self.registry).0)
    }
}

impl Tag {
    /// The tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Allowed {
    /// Whether a repository is allowed.
    pub(super) fn covers(&self, repository: &Repository) -> bool {
        let below = |path: &String| {
            let rest = repository.path.strip_prefix(path.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.registry == repository.registry && self.path.as_ref().is_none_or(below)
    }
}

impl FromStr for Repository {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Repository, BadReference> {
        no_credentials(text)?;
        if text.contains("://") {
            return Err(BadReference::NoScheme(text.to_owned()));
        }
        let Some((registry, path)) = text.split_once('/') else {
            return Err(BadReference::NoRepository(text.to_owned()));
        };
        Ok(Repository { registry: check_registry(registry)?, path: check_path(path)? })
    }
}

impl FromStr for Pinned {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Pinned, BadReference> {
        let name = unprefixed(text)?;
        let Some((repository, digest)) = name.split_once('@') else {
            return Err(BadReference::NoDigest(text.to_owned()));
        };
        if split_tag(repository).1.is_some() {
            return Err(BadReference::TagAndDigest(text.to_owned()));
        }
        let repository = repository.parse()?;
        let digits =
            digest.strip_prefix("sha256:").ok_or_else(|| BadReference::Algorithm(digest.to_owned()))?;
        let digest =
            digits.parse().map_err(|source| BadReference::BadDigest { text: digits.to_owned(), source })?;
        Ok(Pinned { repository, digest })
    }
}

impl FromStr for Tagged {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Tagged, BadReference> {
        let name = unprefixed(text)?;
        if name.contains('@') {
            return Err(BadReference::Digest(text.to_owned()));
        }
        let (repository, tag) = split_tag(name);
        Ok(Tagged { repository: repository.parse()?, tag: tag.map(str::parse).transpose()? })
    }
}

impl FromStr for Tag {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Tag, BadReference> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        let good = text.bytes().all(known) && !text.starts_with(['.', '-']);
        if good && (1..=TAG_BYTES).contains(&text.len()) {
            Ok(Tag(text.to_owned()))
        } else {
            Err(BadReference::Tag(text.to_owned()))
        }
    }
}

impl FromStr for Allowed {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Allowed, BadReference> {
        no_credentials(text)?;
        if text.contains("://") {
            return Err(BadReference::NoScheme(text.to_owned()));
        }
        let (registry, path) = match text.split_once('/') {
            Some((registry, path)) => (registry, Some(check_path(path)?)),
            None => (text, None),
        };
        Ok(Allowed { registry: check_registry(registry)?, path })
    }
}

fn unprefixed(text: &str) -> Result<&str, BadReference> {
    no_credentials(text)?;
    text.strip_prefix(SCHEME).ok_or_else(|| BadReference::Scheme(text.to_owned()))
}

/// Rejects a user before the host. Checked first, so that no other error repeats what may be a password.
fn no_credentials(text: &str) -> Result<(), BadReference> {
    let name = text.split_once("://").map_or(text, |(_, name)| name);
    let registry = name.split('/').next().unwrap_or_default();
    match registry.split_once('@') {
        // `host@sha256:…` lacks a repository, but has no user.
        Some((_, rest)) if !rest.starts_with("sha256:") => Err(BadReference::Credentials),
        _ => Ok(()),
    }
}

/// Splits at the colon after the last slash; a colon before it starts a port.
fn split_tag(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') && repository.contains('/') => (repository, Some(tag)),
        _ => (name, None),
    }
}

fn check_registry(registry: &str) -> Result<String, BadReference> {
    let (host, port) = split_port(registry);
    // No leading zeros and no port 0, so that there is one spelling.
    let good_port = |port: &str| port.parse().is_ok_and(|it: u16| it > 0 && it.to_string() == port);
    if is_host(host) && port.is_none_or(good_port) {
        Ok(registry.to_owned())
    } else {
        Err(BadReference::Registry(registry.to_owned()))
    }
}

fn check_path(path: &str) -> Result<String, BadReference> {
    if path.len() <= PATH_BYTES && path.split('/').all(is_segment) {
        Ok(path.to_owned())
    } else {
        Err(BadReference::Path(path.to_owned()))
    }
}

/// Splits a host from its port.
fn split_port(registry: &str) -> (&str, Option<&str>) {
    match registry.rsplit_once(':') {
        // A colon inside brackets belongs to an IPv6 address.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (registry, None),
    }
}

fn is_host(host: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(known)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse().is_ok_and(|it: std::net::Ipv6Addr| it.to_string() == address),
        None => host.len() <= 253 && host.split('.').all(label),
    }
}

/// Letters and digits, with `.`, `_`, `__` or any number of `-` between them.
fn is_segment(segment: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut between = segment.split(|letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit());
    segment.bytes().next().is_some_and(known)
        && segment.bytes().next_back().is_some_and(known)
        && between.all(|gap| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|byte| byte == b'-'))
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}@sha256:{}", self.repository, self.digest)
    }
}

impl fmt::Display for Tagged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.repository)?;
        self.tag.as_ref().map_or(Ok(()), |tag| write!(f, ":{tag}"))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.registry)?;
        self.path.as_ref().map_or(Ok(()), |path| write!(f, "/{path}"))
    }
}

impl fmt::Debug for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
