//! What in a registry is meant, and which registries may be asked: each has one spelling.

use std::fmt;
use std::str::FromStr;

use countersign_core::lifecycle::{BadDigest, Digest};
use countersign_core::loopback::is_loopback;

/// What every reference begins with.
const SCHEME: &str = "oci://";

/// The longest path of a repository: registries take no longer ones.
const PATH_BYTES: usize = 255;

/// The longest tag.
const TAG_BYTES: usize = 128;

/// Where a module is kept: a registry and a repository in it, `host[:port]/path`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    registry: String,
    path: String,
}

/// A module in a registry, by what its bytes are: `oci://host[:port]/path@sha256:<64 digits>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pinned {
    /// Where it is kept.
    pub repository: Repository,
    /// SHA-256 of its bytes: of the blob, not of a manifest that lists it.
    pub digest: Digest,
}

/// Where something is pushed to: `oci://host[:port]/path[:tag]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagged {
    /// Where it is kept.
    pub repository: Repository,
    /// The name that it gets there.
    pub tag: Option<Tag>,
}

/// A name in a repository, which can be given to something else at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag(String);

/// What may be asked of a registry: all of it, or what is below a path: `host[:port][/path]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Allowed {
    registry: String,
    /// Whole segments.
    path: Option<String>,
}

/// Why a text is no reference.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReference {
    /// It does not begin as one.
    #[error("`{0}` does not begin with `oci://`")]
    Scheme(String),
    /// A URL in the place of a name.
    #[error("`{0}` is to be written without a scheme: `host[:port]/path`")]
    NoScheme(String),
    /// Nothing after the host.
    #[error("`{0}` names no repository: it is written `host[:port]/path`")]
    NoRepository(String),
    /// Who asks is in it. It is not repeated: it may well be a password.
    #[error("a reference holds neither a user nor a password: credentials are in a file of their own")]
    Credentials,
    /// The host is none.
    #[error(
        "`{0}` is no registry: it is a host in lower case, with a port where it has one: `ghcr.io`, `localhost:5000`"
    )]
    Registry(String),
    /// The path is none.
    #[error(
        "`{0}` is no repository: it is written in lower-case letters and digits, with `.`, `_` or `-` between \
         them and `/` between its parts, 255 characters at most"
    )]
    Path(String),
    /// The tag is none.
    #[error(
        "`{0}` is no tag: it has letters, digits, `_`, `.` and `-`, 128 at most, and does not begin with `.` or `-`"
    )]
    Tag(String),
    /// Nothing says what the bytes are.
    #[error(
        "`{0}` has no digest: it is pinned with `@sha256:` and 64 digits, which `countersign policy push` prints"
    )]
    NoDigest(String),
    /// A name that means nothing beside a digest.
    #[error("`{0}` has a tag, but its digest alone says what is loaded: leave the tag out")]
    TagAndDigest(String),
    /// What is pushed has the digest that it has.
    #[error("`{0}` has a digest, but something is pushed to a tag: `oci://host[:port]/path[:tag]`")]
    Digest(String),
    /// The digest is none.
    #[error("`{text}` is {source}")]
    BadDigest {
        /// What stands in its place.
        text: String,
        /// What it should be.
        source: BadDigest,
    },
    /// Another algorithm.
    #[error("`{0}` is no digest as modules have one: `sha256:` and 64 digits")]
    Algorithm(String),
}

impl Repository {
    /// The registry, `host[:port]`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository in it.
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
    /// The tag.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Allowed {
    /// Whether it covers a repository.
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

/// That nothing stands before the host: whatever else is wrong with a text, what may be a password is not repeated.
fn no_credentials(text: &str) -> Result<(), BadReference> {
    let name = text.split_once("://").map_or(text, |(_, name)| name);
    let registry = name.split('/').next().unwrap_or_default();
    match registry.split_once('@') {
        // No repository, and then a digest.
        Some((_, rest)) if !rest.starts_with("sha256:") => Err(BadReference::Credentials),
        _ => Ok(()),
    }
}

/// A repository and its tag: what follows a colon after the last slash, for a colon before it is a port's.
fn split_tag(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') && repository.contains('/') => (repository, Some(tag)),
        _ => (name, None),
    }
}

fn check_registry(registry: &str) -> Result<String, BadReference> {
    let (host, port) = split_port(registry);
    // One spelling: no zeros before it, and none that means no port.
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

/// The host, and what follows the colon after it.
fn split_port(registry: &str) -> (&str, Option<&str>) {
    match registry.rsplit_once(':') {
        // Not a colon within the brackets of an address.
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
