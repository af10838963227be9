//! How many connections a listener has open, in all and by address. Each takes a file descriptor, and some of those are
//! kept back: for the store, for Slack, and for the other listeners.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use countersign_access::Proxies;

use crate::rate_limit::Client;

/// How many file descriptors are kept back for everything but the connections of callers.
const KEPT_BACK: u64 = 128;

/// The most connections of a listener for operations or for Slack.
const ASIDE: usize = 32;

/// The limits of one listener.
#[derive(Clone, Debug)]
pub struct ConnectionLimit {
    total: usize,
    by_address: usize,
    /// Proxies bring many clients, so they have no limit of their own.
    proxies: Proxies,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_address: HashMap<Client, usize>,
}

/// One open connection. It is counted until this is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    client: Client,
    open: Arc<Mutex<Open>>,
    /// There is little room left, so a client must hurry.
    pub(super) crowded: bool,
}

impl ConnectionLimit {
    /// For the listener of callers: as many as `wanted`, or as the file descriptors allow; of one address half of that.
    pub(crate) fn of_callers(wanted: Option<u32>, proxies: Proxies) -> ConnectionLimit {
        let allowed = descriptors().saturating_sub(KEPT_BACK).max(16);
        let allowed = usize::try_from(allowed).unwrap_or(usize::MAX);
        let total = wanted.map_or(allowed, |wanted| usize::try_from(wanted).unwrap_or(allowed).min(allowed));
        ConnectionLimit::new(total, (total / 2).max(1), proxies)
    }

    /// For a listener for operations or for Slack.
    pub(crate) fn aside() -> ConnectionLimit {
        ConnectionLimit::new(ASIDE, ASIDE, Proxies::default())
    }

    fn new(total: usize, by_address: usize, proxies: Proxies) -> ConnectionLimit {
        ConnectionLimit { total, by_address, proxies, open: Arc::default() }
    }

    /// The most connections.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }

    /// Counts a connection from this address, or from its network as [`Client`] says; `None` if there are too many.
    pub(super) fn open(&self, address: IpAddr) -> Option<Slot> {
        let address = address.to_canonical();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.total >= self.total {
            return None;
        }
        let client = Client::of(address);
        let of_address = open.by_address.entry(client).or_default();
        if *of_address >= self.by_address && !self.proxies.is_trusted(address) {
            return None;
        }
        *of_address += 1;
        open.total += 1;
        let crowded = open.total > self.total / 4 * 3;
        Some(Slot { client, open: Arc::clone(&self.open), crowded })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total = open.total.saturating_sub(1);
        if let Some(of_address) = open.by_address.get_mut(&self.client) {
            *of_address = of_address.saturating_sub(1);
            if *of_address == 0 {
                open.by_address.remove(&self.client);
            }
        }
    }
}

/// How many file descriptors this process may have: as many as the system lets it have.
fn descriptors() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // If it cannot be raised, what is there has to do.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let now = if raised.is_ok() { maximum } else { current };
    // No limit at all is as good as a million.
    now.unwrap_or(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn connections_are_counted_while_they_are_open() {
        let limit = ConnectionLimit::new(4, 2, Proxies::default());
        let (one, other, third) = (address("192.0.2.1"), address("192.0.2.2"), address("::ffff:192.0.2.1"));
        let first = limit.open(one).unwrap();
        let second = limit.open(third).unwrap();
        assert!(limit.open(one).is_none(), "two of one address, however it is written");
        assert!(!first.crowded && !second.crowded);
        let more = [limit.open(other).unwrap(), limit.open(other).unwrap()];
        assert!(more[1].crowded);
        assert!(limit.open(address("192.0.2.3")).is_none(), "four in all");
        drop(first);
        assert!(limit.open(address("192.0.2.3")).is_some());
        drop((second, more));
        assert!(limit.open.lock().unwrap().by_address.is_empty(), "nothing is remembered");
    }

    #[test]
    fn a_subscriber_of_ipv6_is_one_client() {
        let limit = ConnectionLimit::new(4, 1, Proxies::default());
        let first = limit.open(address("2001:db8:1:2::1")).unwrap();
        assert!(limit.open(address("2001:db8:1:2:ffff::2")).is_none());
        let other = limit.open(address("2001:db8:1:3::1")).unwrap();
        drop((first, other));
        assert!(limit.open(address("2001:db8:1:2::3")).is_some());
    }

    #[test]
    fn a_trusted_proxy_is_limited_by_the_total_alone() {
        let proxies = Proxies { trusted: vec!["10.0.0.0/8".parse().unwrap()], ..Proxies::default() };
        let limit = ConnectionLimit::new(4, 1, proxies);
        let open: Vec<Slot> = (0..4).map(|_| limit.open(address("10.0.0.1")).unwrap()).collect();
        assert!(limit.open(address("10.0.0.1")).is_none());
        drop(open);
    }
}
