//! What a gateway left in its store, read from a copy after it was killed or stopped.
//!
//! The one place in which the tests look behind HTTP: nothing else shows that the outbox and the audit log are complete.

use std::collections::HashSet;
use std::fs;

use countersign_tests::Home;
use rusqlite::{Connection, OpenFlags, Params};
use serde_json::Value;
use tempfile::TempDir;

/// A copy of the database of a gateway that has ended.
#[derive(Debug)]
pub(crate) struct Ledger {
    database: Connection,
    /// The copy of a file; what was in a Redis is copied into memory.
    _copy: Option<TempDir>,
}

/// A stored request.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) status: String,
}

impl Ledger {
    /// Opens a copy, so that the original is found by the next gateway as the last one left it.
    pub(crate) fn of(home: &Home) -> Ledger {
        if let Some(redis) = home.redis() {
            return Ledger { database: of_redis(&redis), _copy: None };
        }
        let copy = tempfile::tempdir().expect("there is room for a temporary folder");
        for suffix in ["", "-wal"] {
            let from = home.path(&format!("data/countersign.db{suffix}"));
            if from.exists() {
                let to = copy.path().join(format!("countersign.db{suffix}"));
                fs::copy(&from, to).expect("the database can be copied");
            }
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Connection::open_with_flags(copy.path().join("countersign.db"), flags);
        Ledger { database: database.expect("the database can be opened"), _copy: Some(copy) }
    }

    /// Whether SQLite finds the file sound.
    pub(crate) fn is_sound(&self) -> bool {
        self.texts("PRAGMA integrity_check", ()) == ["ok"]
    }

    /// Every request.
    pub(crate) fn requests(&self) -> Vec<Row> {
        let mut query = self.prepare("SELECT body ->> '$.id', status FROM request ORDER BY seq");
        let rows = query.query_map((), |row| Ok(Row { id: row.get(0)?, status: row.get(1)? }));
        rows.and_then(Iterator::collect).expect("requests can be read")
    }

    /// The events of a request in the audit log, in order.
    pub(crate) fn audit_of(&self, id: &str) -> Vec<String> {
        self.texts(&format!("SELECT {EVENT} FROM audit WHERE {OF_REQUEST} = ?1 ORDER BY seq"), [id])
    }

    /// The audit entries of a request with this event, whole.
    pub(crate) fn audit_entries(&self, id: &str, event: &str) -> Vec<Value> {
        let query = format!("SELECT body FROM audit WHERE {OF_REQUEST} = ?1 AND {EVENT} = ?2 ORDER BY seq");
        let bodies = self.texts(&query, [id, event]);
        bodies.iter().map(|body| serde_json::from_str(body).expect("an audit entry is JSON")).collect()
    }

    /// The ids of the requests that have audit entries with one of these events, once for each entry.
    pub(crate) fn audited(&self, events: &[&str]) -> Vec<String> {
        let events = Value::from(events.to_vec()).to_string();
        let query = format!(
            "SELECT {OF_REQUEST} FROM audit WHERE {EVENT} IN (SELECT value FROM json_each(?1)) ORDER BY seq"
        );
        self.texts(&query, [events])
    }

    /// Which request and which actor each audit entry with this event is about.
    pub(crate) fn acts(&self, event: &str) -> HashSet<(String, String)> {
        let query = format!("SELECT {OF_REQUEST}, body ->> '$.actor' FROM audit WHERE {EVENT} = ?1");
        let mut query = self.prepare(&query);
        let rows = query.query_map([event], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.and_then(Iterator::collect).expect("the rows can be read")
    }

    /// How many audit entries have this event.
    pub(crate) fn count_of(&self, event: &str) -> usize {
        self.entries(event).len()
    }

    /// The audit entries with this event, whole.
    pub(crate) fn entries(&self, event: &str) -> Vec<Value> {
        let bodies = self.texts(&format!("SELECT body FROM audit WHERE {EVENT} = ?1 ORDER BY seq"), [event]);
        bodies.iter().map(|body| serde_json::from_str(body).expect("an audit entry is JSON")).collect()
    }

    /// The ids of the requests that the outbox has this effect for.
    pub(crate) fn outbox(&self, effect: &str) -> Vec<String> {
        self.texts(
            "SELECT request.body ->> '$.id' FROM outbox JOIN request ON request.id = outbox.request \
             WHERE effect = ?1",
            [effect],
        )
    }

    /// A counter's sum over all its labels.
    pub(crate) fn counter(&self, metric: &str) -> u64 {
        let mut query = self.prepare("SELECT coalesce(sum(value), 0) FROM counter WHERE metric = ?1");
        let sum: i64 = query.query_one([metric], |row| row.get(0)).expect("counters can be read");
        sum.try_into().expect("counters are not negative")
    }

    fn prepare(&self, query: &str) -> rusqlite::Statement<'_> {
        self.database.prepare(query).unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    fn texts(&self, query: &str, params: impl Params) -> Vec<String> {
        let mut query = self.prepare(query);
        let rows = query.query_map(params, |row| row.get(0));
        rows.and_then(Iterator::collect).expect("the rows can be read")
    }
}

/// What a Redis has, in the tables of the embedded store: as much of it as is asked for here.
fn of_redis(url: &str) -> Connection {
    let client = redis::Client::open(url).expect("an address");
    let mut redis = client.get_connection().expect("it runs");
    let database = Connection::open_in_memory().expect("there is memory");
    let tables = "CREATE TABLE request (seq INTEGER PRIMARY KEY, id TEXT, status TEXT, body TEXT);
        CREATE TABLE audit (seq INTEGER PRIMARY KEY, body TEXT);
        CREATE TABLE outbox (request TEXT, effect TEXT);
        CREATE TABLE counter (metric TEXT, value INTEGER)";
    database.execute_batch(tables).expect("tables can be made");
    let partitions: u16 = ask(&mut redis, &["GET", "{cs:meta}:partitions"]);
    let names = (0..partitions).map(|number| number.to_string()).chain(["meta".to_owned()]);
    for tag in names.map(|name| format!("{{cs:{name}}}")) {
        let entries: Vec<(String, Vec<String>)> =
            ask(&mut redis, &["XRANGE", &format!("{tag}:audit"), "-", "+"]);
        for body in entries.into_iter().filter_map(|(_, fields)| fields.into_iter().nth(1)) {
            database.execute("INSERT INTO audit (body) VALUES (?1)", [body]).expect("an entry");
        }
        let counters: Vec<(String, i64)> = ask(&mut redis, &["HGETALL", &format!("{tag}:cnt")]);
        for (counter, value) in counters {
            let insert = "INSERT INTO counter VALUES (?1 ->> 0, ?2)";
            database.execute(insert, rusqlite::params![counter, value]).expect("a counter");
        }
        let ids: Vec<String> = ask(&mut redis, &["ZRANGE", &format!("{tag}:ids"), "0", "-1"]);
        for id in ids {
            let body: String = ask(&mut redis, &["HGET", &format!("{tag}:r:{id}"), "body"]);
            let request: Value = serde_json::from_str(&body).expect("a request is JSON");
            let status = match &request["state"] {
                Value::String(state) => state.clone(),
                state => state.as_object().and_then(|state| state.keys().next()).cloned().unwrap_or_default(),
            };
            let insert = "INSERT INTO request (id, status, body) VALUES (?1, ?2, ?3)";
            database.execute(insert, [id, status, body]).expect("a request");
        }
        let waiting: Vec<String> = ask(&mut redis, &["ZRANGE", &format!("{tag}:waiting"), "0", "-1"]);
        for entry in waiting {
            let (request, effect) = entry.split_once(':').expect("a request and an effect");
            database.execute("INSERT INTO outbox VALUES (?1, ?2)", [request, effect]).expect("an entry");
        }
    }
    database
}

fn ask<T: redis::FromRedisValue>(redis: &mut redis::Connection, words: &[&str]) -> T {
    let (name, arguments) = words.split_first().expect("a command");
    redis::cmd(name).arg(arguments).query(redis).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

/// What an audit entry is about.
const EVENT: &str = "body ->> '$.event'";

const OF_REQUEST: &str = "(body ->> '$.requestId')";
