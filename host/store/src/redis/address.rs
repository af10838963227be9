//! The address of a Redis: one server, the Sentinels of one, or a Cluster.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;

use countersign_core::loopback::is_loopback;
use countersign_core::secret::Secret;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// The address of a Redis, with the name and password to use, if any.
///
/// - `redis://[USER:PASSWORD@]HOST[:PORT]`: one server
/// - `redis+unix://[USER:PASSWORD@]/PATH`: one server, by its socket
/// - `redis+sentinel://[USER:PASSWORD@]HOST[:PORT],…/NAME`: the server that Sentinels know by this name
/// - `redis+cluster://[USER:PASSWORD@]HOST[:PORT],…`: a Cluster, found through any of its nodes
///
/// With `rediss` in place of `redis`, connections use TLS. Nothing but database 0 is used: a Cluster has no other.
#[derive(Clone, Debug)]
pub struct RedisUrl {
    pub(super) hosts: Hosts,
    pub(super) tls: bool,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hosts {
    One(String, u16),
    Socket(PathBuf),
    Sentinels(Vec<(String, u16)>, String),
    Cluster(Vec<(String, u16)>),
}

/// Why a text is no address of a Redis. It does not repeat the text, which may hold a password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisUrlError {
    /// The scheme is another one.
    #[error(
        "the address of a Redis begins with `redis://`, `rediss://`, `redis+unix://`, `redis+sentinel://` or \
        `redis+cluster://`"
    )]
    Scheme,
    /// A host or port is missing or malformed; which of the hosts, from 1 on.
    #[error(
        "host {0} of the address is not written as `HOST` or `HOST:PORT`; user and password, if any, come before it, with an \
        `@` between"
    )]
    Host(usize),
    /// The path of a socket is missing or malformed.
    #[error(
        "`redis+unix://` is followed by the absolute path of a socket, which has no `?` in it, or by `USER:PASSWORD@` and the path"
    )]
    Socket,
    /// There are several hosts, or none.
    #[error("`redis://` takes one host; several are given as `redis+sentinel://` or `redis+cluster://`")]
    Hosts,
    /// The name that the Sentinels have for the server is missing or malformed.
    #[error(
        "`redis+sentinel://` ends with the name of the server, which has letters, digits, `.`, `-` and `_`: \
        `redis+sentinel://HOST,HOST/NAME`"
    )]
    Name,
    /// Something follows the hosts that is not understood.
    #[error("after the hosts, nothing may follow but, for Sentinels, the name of the server")]
    Rest,
    /// A percent sign that is not followed by two hexadecimal digits.
    #[error("the user or password has a `%` that is not followed by two hexadecimal digits")]
    Percent,
}

impl FromStr for RedisUrl {
    type Err = RedisUrlError;

    fn from_str(text: &str) -> Result<RedisUrl, RedisUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(RedisUrlError::Scheme)?;
        let (scheme, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        let tls = match scheme {
            "redis" => false,
            "rediss" => true,
            _ => return Err(RedisUrlError::Scheme),
        };
        if kind == "unix" {
            if tls {
                return Err(RedisUrlError::Scheme);
            }
            // A path may have an `@` in it.
            let at = rest.find('/').ok_or(RedisUrlError::Socket)?;
            let (login, path) = rest.split_at(at);
            let (user, password) = match login.strip_suffix('@') {
                Some(login) => credentials(login)?,
                None if login.is_empty() => (None, None),
                None => return Err(RedisUrlError::Socket),
            };
            if path.contains('?') {
                return Err(RedisUrlError::Socket);
            }
            return Ok(RedisUrl { hosts: Hosts::Socket(PathBuf::from(path)), tls, user, password });
        }
        // A password may have an `@` in it, and a host may not.
        let (login, rest) = rest.rsplit_once('@').map_or((None, rest), |(login, rest)| (Some(login), rest));
        let (user, password) = login.map_or(Ok((None, None)), credentials)?;
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let hosts = match kind {
            "" => match hosts_of(hosts, PORT)?.as_slice() {
                [(host, port)] => Hosts::One(host.clone(), *port),
                _ => return Err(RedisUrlError::Hosts),
            },
            "cluster" => Hosts::Cluster(hosts_of(hosts, PORT)?),
            "sentinel" if path.is_empty() || !path.chars().all(is_plain) => return Err(RedisUrlError::Name),
            "sentinel" => Hosts::Sentinels(hosts_of(hosts, SENTINEL_PORT)?, path.to_owned()),
            _ => return Err(RedisUrlError::Scheme),
        };
        if !path.is_empty() && !matches!(hosts, Hosts::Sentinels(..)) {
            return Err(RedisUrlError::Rest);
        }
        Ok(RedisUrl { hosts, tls, user, password })
    }
}

impl RedisUrl {
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.hosts, Hosts::Cluster(_))
    }

    /// The first host on another machine that would be talked to without TLS.
    pub(super) fn plaintext_host(&self) -> Option<&str> {
        let hosts = match &self.hosts {
            Hosts::One(host, _) => return Some(host.as_str()).filter(|host| !self.tls && !is_loopback(host)),
            Hosts::Socket(_) => return None,
            Hosts::Sentinels(hosts, _) | Hosts::Cluster(hosts) => hosts,
        };
        let mut hosts = hosts.iter().map(|(host, _)| host.as_str());
        hosts.find(|host| !self.tls && !is_loopback(host))
    }

    /// The same address with this user and password, as far as they are given.
    #[must_use]
    pub fn with_login(self, user: Option<String>, password: Option<Secret>) -> RedisUrl {
        RedisUrl { user: user.or(self.user), password: password.or(self.password), ..self }
    }

    /// Whether it has a password in it.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.password.is_some()
    }
}

/// Without user and password.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let list = |hosts: &[(String, u16)]| {
            let hosts: Vec<_> = hosts.iter().map(|(host, port)| address(host, *port)).collect();
            hosts.join(",")
        };
        match &self.hosts {
            Hosts::One(host, port) => write!(f, "{scheme}://{}", address(host, *port)),
            Hosts::Socket(path) => write!(f, "redis+unix://{}", path.display()),
            Hosts::Sentinels(hosts, name) => write!(f, "{scheme}+sentinel://{}/{name}", list(hosts)),
            Hosts::Cluster(hosts) => write!(f, "{scheme}+cluster://{}", list(hosts)),
        }
    }
}

fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn hosts_of(list: &str, port: u16) -> Result<Vec<(String, u16)>, RedisUrlError> {
    let hosts = list.split(',').zip(1..);
    hosts.map(|(host, number)| host_of(host, port).ok_or(RedisUrlError::Host(number))).collect()
}

/// What is here is printed, so what can be no host, such as a password, is not taken for one.
fn host_of(text: &str, port: u16) -> Option<(String, u16)> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, rest)
        }
        None => text.find(':').map_or((text, ""), |at| text.split_at(at)),
    };
    let port = match rest.strip_prefix(':') {
        Some(number) => number.parse().ok()?,
        None if rest.is_empty() => port,
        None => return None,
    };
    let is_host = !host.is_empty() && host.chars().all(|letter| is_plain(letter) || letter == ':');
    is_host.then(|| (host.to_owned(), port))
}

fn is_plain(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_')
}

fn credentials(login: &str) -> Result<(Option<String>, Option<Secret>), RedisUrlError> {
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let text = |part: &str| decoded(part).map(|text| Some(text).filter(|text| !text.is_empty()));
    Ok((text(user)?, text(password)?.map(Secret::new)))
}

fn decoded(part: &str) -> Result<String, RedisUrlError> {
    let mut pieces = part.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2).ok_or(RedisUrlError::Percent)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| RedisUrlError::Percent)?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).map_err(|_| RedisUrlError::Percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read() {
        let host = |name: &str, port| (name.to_owned(), port);
        let rows = [
            ("redis://localhost", Hosts::One("localhost".into(), 6379), "redis://localhost:6379"),
            ("rediss://h:1/", Hosts::One("h".into(), 1), "rediss://h:1"),
            ("redis://u:p%40%3a@[::1]:7", Hosts::One("::1".into(), 7), "redis://[::1]:7"),
            ("redis+unix:///run/r.sock", Hosts::Socket("/run/r.sock".into()), "redis+unix:///run/r.sock"),
            (
                "redis+sentinel://:pw@a,b:5/main",
                Hosts::Sentinels(vec![host("a", 26379), host("b", 5)], "main".into()),
                "redis+sentinel://a:26379,b:5/main",
            ),
            (
                "rediss+cluster://a,b:5",
                Hosts::Cluster(vec![host("a", 6379), host("b", 5)]),
                "rediss+cluster://a:6379,b:5",
            ),
        ];
        for (text, hosts, shown) in rows {
            let url: RedisUrl = text.parse().unwrap();
            assert_eq!(url.hosts, hosts, "{text}");
            assert_eq!(url.tls, text.starts_with("rediss"), "{text}");
            assert_eq!(url.to_string(), shown);
        }
        let url: RedisUrl = "redis://u:p%40%3a@h".parse().unwrap();
        let password = url.password.map(|password| password.expose().to_vec());
        assert_eq!((url.user.as_deref(), password.as_deref()), (Some("u"), Some(b"p@:".as_slice())));
    }

    /// Neither in what is printed of an address, nor in what is said of one that is malformed.
    #[test]
    fn a_password_is_not_shown() {
        for text in [
            "redis://:hunter2@h",
            "redis://u:hun@ter2@h:1",
            "redis+unix://u:hunter2@/run/r.sock",
            "redis+unix://:hunter2@/run/a@b.sock",
            "redis+sentinel://u:hunter2@h/main",
            "rediss+cluster://u:hunter2@h",
            // A login without its `@`, or where it is given as to another client.
            "redis://u:hunter2",
            "redis+unix://:hunter2/run/r.sock",
            "redis+unix:///run/r.sock?password=hunter2",
            "redis://h?password=hunter2",
            "redis://h/0?password=hunter2",
            "redis+sentinel://h/main?password=hunter2",
            "redis+cluster://h,u:hunter2",
            "redis://u:hunter2%@h",
            "redis+none://u:hunter2@h",
        ] {
            let (shown, debug) = match text.parse::<RedisUrl>() {
                Ok(url) => {
                    assert!(url.has_password(), "{text}");
                    (url.to_string(), format!("{url:?}"))
                }
                Err(error) => (error.to_string(), format!("{error:?}")),
            };
            for shown in [shown, debug] {
                assert!(!shown.contains("ter2"), "{shown}");
            }
        }
        let url: RedisUrl = "redis+unix://u:p@/run/a@b.sock".parse().unwrap();
        assert_eq!(
            (url.to_string().as_str(), url.user.as_deref()),
            ("redis+unix:///run/a@b.sock", Some("u"))
        );
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let rows = [
            ("sqlite:x", RedisUrlError::Scheme),
            ("http://h", RedisUrlError::Scheme),
            ("redis+other://h", RedisUrlError::Scheme),
            ("redis://", RedisUrlError::Host(1)),
            ("redis://h:x", RedisUrlError::Host(1)),
            ("redis+cluster://a,b:x", RedisUrlError::Host(2)),
            ("redis://[::1", RedisUrlError::Host(1)),
            ("redis+unix://run/r.sock", RedisUrlError::Socket),
            ("redis+unix://", RedisUrlError::Socket),
            ("rediss+unix:///run/r.sock", RedisUrlError::Scheme),
            ("redis://a,b", RedisUrlError::Hosts),
            ("redis://a/1", RedisUrlError::Rest),
            ("redis+sentinel://a", RedisUrlError::Name),
            ("redis://u:%4@h", RedisUrlError::Percent),
        ];
        for (text, error) in rows {
            assert_eq!(text.parse::<RedisUrl>().unwrap_err(), error, "{text}");
        }
    }
}
