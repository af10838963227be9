//! How many event streams are open, in all and for whom: nobody can hold all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{IntGauge, Registry};

use crate::rate_limit::Client;

/// For whom a stream is open.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum StreamOf {
    /// The caller that made the request, by its name.
    Caller(String),
    /// A client by its address, if nobody authenticates callers.
    Client(Client),
}

/// The open event streams.
pub(crate) struct Streams {
    /// How many there may be at once; of one holder half of them, unless the access file says less.
    most: usize,
    /// How long one is silent at most, in seconds.
    heartbeat_sec: u32,
    open: Mutex<Open>,
    shown: IntGauge,
}

#[derive(Default)]
struct Open {
    total: usize,
    by_holder: HashMap<StreamOf, usize>,
}

/// One open stream. It is counted until this is dropped.
pub(crate) struct StreamSlot {
    streams: Arc<Streams>,
    holder: StreamOf,
}

impl Streams {
    /// No stream yet, and at most this many, each with a heartbeat after so many seconds of silence.
    ///
    /// # Errors
    /// If the metric exists already.
    pub(crate) fn new(most: usize, heartbeat_sec: u32, registry: &Registry) -> prometheus::Result<Streams> {
        let shown = IntGauge::new("sse_connections", "Open event streams.")?;
        registry.register(Box::new(shown.clone()))?;
        Ok(Streams { most, heartbeat_sec, open: Mutex::default(), shown })
    }

    /// How long a stream is silent at most, in seconds.
    pub(crate) const fn heartbeat_sec(&self) -> u32 {
        self.heartbeat_sec
    }

    /// Counts a stream for this holder, who may have at most `limit` if there is one; `None` if there are too many.
    pub(crate) fn open(self: &Arc<Self>, holder: StreamOf, limit: Option<u32>) -> Option<StreamSlot> {
        let half = self.most.div_ceil(2);
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).map_or(half, |limit| limit.min(half));
        {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let of_holder = open.by_holder.get(&holder).copied().unwrap_or_default();
            if open.total >= self.most || of_holder >= limit {
                return None;
            }
            open.total += 1;
            open.by_holder.insert(holder.clone(), of_holder + 1);
        }
        self.shown.inc();
        Some(StreamSlot { streams: Arc::clone(self), holder })
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        let mut open = self.streams.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total = open.total.saturating_sub(1);
        if let Some(of_holder) = open.by_holder.get_mut(&self.holder) {
            *of_holder = of_holder.saturating_sub(1);
            if *of_holder == 0 {
                open.by_holder.remove(&self.holder);
            }
        }
        self.streams.shown.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams(most: usize) -> (Arc<Streams>, Registry) {
        let registry = Registry::new();
        (Arc::new(Streams::new(most, 20, &registry).unwrap()), registry)
    }

    fn caller(name: &str) -> StreamOf {
        StreamOf::Caller(name.to_owned())
    }

    #[test]
    fn streams_are_counted_while_they_are_open() {
        let (streams, registry) = streams(4);
        let shown = || registry.gather()[0].get_metric()[0].get_gauge().get_value();
        let address = StreamOf::Client(Client::of("192.0.2.1".parse().unwrap()));
        let first = streams.open(caller("a"), None).unwrap();
        let second = streams.open(caller("a"), None).unwrap();
        assert!(streams.open(caller("a"), None).is_none(), "one caller may hold half");
        let third = streams.open(address.clone(), None).unwrap();
        let fourth = streams.open(caller("b"), Some(3)).unwrap();
        assert!(streams.open(caller("c"), None).is_none(), "four in all");
        assert!((shown() - 4.0).abs() < f64::EPSILON);
        drop(first);
        assert!(streams.open(caller("b"), Some(1)).is_none(), "its own limit");
        assert!(streams.open(address, None).is_some());
        drop((second, third, fourth));
        assert!(streams.open.lock().unwrap().by_holder.is_empty(), "nothing is remembered");
        assert!(shown().abs() < f64::EPSILON);
    }

    #[test]
    fn with_room_for_none_or_for_one_there_are_so_many() {
        assert!(streams(0).0.open(caller("a"), None).is_none());
        assert!(streams(1).0.open(caller("a"), Some(9)).is_some());
    }
}
