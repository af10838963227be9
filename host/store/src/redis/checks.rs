//! What is looked at before a store is used: the options, the server's configuration, and the number of partitions.

use redis::{InfoDict, Value};

use super::call::Call;
use super::options::RedisOptions;
use super::reply::Place;
use super::{Space, copy};
use crate::StoreError;

/// The oldest version of Redis that has all that is used.
const OLDEST: (u32, u32) = (7, 0);

/// The version of the keys and their contents.
pub(super) const FORMAT: &str = "2";

/// In place of the version while a copy is written.
pub(super) const UNFINISHED: &str = "copying";

/// Why a store in a Redis cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum RedisOpenError {
    /// An option has a value that cannot be used.
    #[error("{0}")]
    Option(&'static str),
    /// It is on another machine, and would be talked to without TLS.
    #[error(
        "the Redis on `{host}` is on another machine, and would be used without TLS: whoever is on the way reads every request, \
        and can decide it; use `rediss://`, or allow it with `--redis-plaintext` (`COUNTERSIGN_REDIS_PLAINTEXT=true`)"
    )]
    Plaintext {
        /// The host.
        host: String,
    },
    /// The server is too old.
    #[error("this Redis has version {found}, and 7.0 or later is needed")]
    Version {
        /// Its version.
        found: String,
    },
    /// The server throws values away when its memory is full.
    #[error(
        "this Redis has `maxmemory-policy {found}`: when its memory is full it throws away requests that nobody has \
        decided; set `maxmemory-policy noeviction`"
    )]
    Evicts {
        /// Its policy.
        found: String,
    },
    /// The store was made with another number of partitions.
    #[error(
        "the store `{namespace}` has {stored} partitions, and {configured} are configured; their number is fixed when a \
        store is made"
    )]
    Partitions {
        /// The namespace.
        namespace: String,
        /// As it was made.
        stored: String,
        /// As configured.
        configured: u16,
    },
    /// The store was made by another version of this program.
    #[error("the store `{namespace}` has format {stored}, and this version knows {FORMAT}")]
    Format {
        /// The namespace.
        namespace: String,
        /// Its format.
        stored: String,
    },
    /// There is none.
    #[error("there is no store `{namespace}`")]
    Missing {
        /// The namespace.
        namespace: String,
    },
    /// A copy into it was interrupted, or is being made.
    #[error(
        "the store `{namespace}` has a part of a store: a copy into it has not ended; if it was interrupted, copy again with \
        `countersign store copy --restart`"
    )]
    Unfinished {
        /// The namespace.
        namespace: String,
    },
    /// It is copied to another one, which would not get what is stored now.
    #[error("the store `{namespace}` is being copied to another one")]
    BeingCopied {
        /// The namespace.
        namespace: String,
    },
    /// It cannot be reached.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What of a server's configuration can lose what was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisWarning {
    /// It writes nothing to disk: a restart loses everything.
    NoLog,
    /// It forces what it writes to disk only now and then, as its `appendfsync` says: a loss of power loses what was
    /// acknowledged last.
    LateSync(String),
    /// It goes on without replicas: what was acknowledged by a primary that was cut off is lost.
    NoReplicasNeeded,
    /// Its configuration may not be read by this user.
    Unknown,
}

impl std::fmt::Display for RedisWarning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RedisWarning::NoLog => f.write_str(
                "this Redis has `appendonly no`: a restart loses every decision since its last snapshot",
            ),
            RedisWarning::LateSync(policy) => write!(
                f,
                "this Redis has `appendfsync {policy}`: a loss of power loses decisions of the last second or more"
            ),
            RedisWarning::NoReplicasNeeded => f.write_str(
                "this Redis has `min-replicas-to-write 0`: a primary that is cut off acknowledges decisions that a \
                failover takes back",
            ),
            RedisWarning::Unknown => {
                f.write_str("the configuration of this Redis may not be read: what it can lose is not known")
            }
        }
    }
}

pub(super) fn options(options: &RedisOptions) -> Result<(), RedisOpenError> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    if options.namespace.is_empty() || !options.namespace.chars().all(is_plain) {
        return Err(RedisOpenError::Option("the namespace of a store has letters, digits, `-` and `_`"));
    }
    if options.partitions == 0 || options.partitions > 4096 {
        return Err(RedisOpenError::Option("a store has from 1 to 4096 partitions"));
    }
    if let Some(host) = options.url.plaintext_host().filter(|_| !options.plaintext) {
        return Err(RedisOpenError::Plaintext { host: host.to_owned() });
    }
    if options.deadline.as_secs() >= 60 {
        return Err(RedisOpenError::Option("the deadline of a call to Redis is less than a minute"));
    }
    Ok(())
}

/// Refuses a server that may lose what it holds as it runs, and lists what else may lose something.
pub(super) async fn server(space: &Space) -> Result<Vec<RedisWarning>, RedisOpenError> {
    let meta = space.meta();
    let place = Place { table: "INFO", key: &"server" };
    let info = |section: &str| Call::bare("INFO", &meta).text(section);
    for answer in nodes(space.link.call(info("server")).await?) {
        let found = dictionary(place.text("server", answer)?).get::<String>("redis_version");
        let found = found.unwrap_or_default();
        let mut numbers = found.split('.').map(|number| number.parse().unwrap_or(0));
        if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < OLDEST {
            return Err(RedisOpenError::Version { found });
        }
    }
    let mut policies = Vec::new();
    for answer in space.link.call(info("memory")).await.map_or_else(|_| Vec::new(), nodes) {
        policies.extend(dictionary(place.text("memory", answer)?).get::<String>("maxmemory_policy"));
    }
    if policies.is_empty() {
        policies.extend(setting(space, "maxmemory-policy").await);
    }
    if let Some(found) = policies.into_iter().find(|policy| policy != "noeviction") {
        return Err(RedisOpenError::Evicts { found });
    }
    let mut warnings = Vec::new();
    match setting(space, "appendonly").await.as_deref() {
        None => return Ok(vec![RedisWarning::Unknown]),
        Some("yes") => match setting(space, "appendfsync").await {
            Some(policy) if policy != "always" => warnings.push(RedisWarning::LateSync(policy)),
            _ => {}
        },
        Some(_) => warnings.push(RedisWarning::NoLog),
    }
    if setting(space, "min-replicas-to-write").await.as_deref() == Some("0") {
        warnings.push(RedisWarning::NoReplicasNeeded);
    }
    Ok(warnings)
}

/// A setting of the server, if it may be read.
async fn setting(space: &Space, name: &str) -> Option<String> {
    let answer = space.link.call(Call::bare("CONFIG", &space.meta()).text("GET").text(name)).await.ok()?;
    let pair: Vec<String> = redis::from_redis_value(nodes(answer).into_iter().next()?).ok()?;
    pair.into_iter().nth(1)
}

/// What each node of a Cluster has answered, or the one server.
fn nodes(answer: Value) -> Vec<Value> {
    match answer {
        Value::Map(nodes) => nodes.into_iter().map(|(_, answer)| answer).collect(),
        other => vec![other],
    }
}

fn dictionary(text: String) -> InfoDict {
    InfoDict::new(&text)
}

/// Makes a store, if there is none: its format, and the number of its partitions.
pub(super) async fn make(space: &Space) -> Result<(), RedisOpenError> {
    let meta = space.meta();
    space.link.call(Call::command("SETNX", &meta, "format").text(FORMAT)).await?;
    let configured = Call::command("SETNX", &meta, "partitions").number(u64::from(space.partitions));
    space.link.durable(configured).await?;
    Ok(())
}

/// Refuses a store that has another number of partitions, or is copied.
pub(super) async fn partitions(space: &Space) -> Result<(), RedisOpenError> {
    let meta = space.meta();
    // A store that is copied to has a lease, too.
    let stored = existing(space).await?;
    let lease = Call::command("EXISTS", &meta, format_args!("lease:{}", copy::LEASE_NAME));
    let place = Place { table: "lease", key: &copy::LEASE_NAME };
    if place.number("exists", space.link.call(lease).await?)? == 1 {
        return Err(RedisOpenError::BeingCopied { namespace: space.namespace.clone() });
    }
    match stored {
        Some(stored) if stored != space.partitions => {
            let (namespace, configured) = (space.namespace.clone(), space.partitions);
            Err(RedisOpenError::Partitions { namespace, stored: stored.to_string(), configured })
        }
        _ => Ok(()),
    }
}

/// The number of partitions of a store that is there; `None` if there is none.
pub(super) async fn existing(space: &Space) -> Result<Option<u16>, RedisOpenError> {
    let meta = space.meta();
    let place = Place { table: "meta", key: &space.namespace };
    let get = |key: &str| Call::command("GET", &meta, key);
    let found = space.link.calls(vec![get("format"), get("partitions")]).await?;
    let [format, partitions] = place.row(Value::Array(found))?;
    let namespace = || space.namespace.clone();
    match place.optional_bytes("format", format)?.map(|format| String::from_utf8_lossy(&format).into_owned())
    {
        None => return Ok(None),
        Some(format) if format == UNFINISHED => {
            return Err(RedisOpenError::Unfinished { namespace: namespace() });
        }
        Some(stored) if stored != FORMAT => {
            return Err(RedisOpenError::Format { namespace: namespace(), stored });
        }
        Some(_) => {}
    }
    Ok(Some(place.parsed("partitions", partitions)?))
}
