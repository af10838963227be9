//! How often a client address or a caller may make requests: a token bucket for each, in the store if several instances
//! share it, else in this process.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use countersign_core::clock::Monotonic;
use countersign_store::Rate;
use governor::Quota;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use tokio::time::Instant;

use crate::config::RateLimit;
use crate::state::App;

/// What has one bucket: an IPv4 address, or a /64 network of IPv6, which is what one subscriber gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Client(IpAddr);

impl Client {
    pub(crate) fn of(address: IpAddr) -> Client {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) & !u128::from(u64::MAX);
                Client(IpAddr::V6(Ipv6Addr::from(network)))
            }
            address @ IpAddr::V4(_) => Client(address),
        }
    }
}

/// Whose bucket it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whose<'a> {
    /// An address's.
    Client(Client),
    /// That of a caller of the access file.
    Caller(&'a str),
}

impl fmt::Display for Whose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Whose::Client(Client(address)) => write!(f, "address:{address}"),
            Whose::Caller(name) => write!(f, "caller:{name}"),
        }
    }
}

/// Takes one request from a bucket in the store that several instances share. If there is none, or it does not answer,
/// from that of this process: what the request is for is not done without the store anyway.
///
/// # Errors
/// If the bucket is empty: in how many milliseconds it is no longer.
pub(crate) async fn take(
    app: &App,
    whose: Whose<'_>,
    rate: Rate,
    alone: impl FnOnce() -> Result<(), u64>,
) -> Result<(), u64> {
    let Some(shared) = app.gateway.store().shared() else { return alone() };
    match shared.take(&whose.to_string(), rate).await {
        Ok(None) => Ok(()),
        Ok(Some(wait_ms)) => Err(wait_ms),
        Err(_) => alone(),
    }
}

/// The buckets of all clients.
pub(crate) struct RateLimiter {
    buckets: governor::RateLimiter<Client, DashMapStateStore<Client>, Steady, NoOpMiddleware<Duration>>,
    steady: Steady,
    rate: Rate,
}

impl RateLimiter {
    pub(crate) fn new(limit: &RateLimit) -> RateLimiter {
        let capacity = NonZeroU32::new(limit.capacity).unwrap_or(NonZeroU32::MIN);
        let period = Duration::from_secs_f64(1.0 / limit.refill_per_sec.max(f64::MIN_POSITIVE));
        // The configuration accepts at most a million a second, so the period is never zero.
        let quota = Quota::with_period(period.max(Duration::from_nanos(1)))
            .unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN))
            .allow_burst(capacity);
        let steady = Steady(Instant::now());
        RateLimiter {
            buckets: governor::RateLimiter::new(quota, DashMapStateStore::default(), steady),
            steady,
            rate: Rate { capacity: limit.capacity, per_sec: limit.refill_per_sec },
        }
    }

    /// What each bucket holds and gets.
    pub(crate) fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes one request from the client's bucket.
    ///
    /// # Errors
    /// If the bucket is empty: in how many milliseconds it is no longer.
    pub(crate) fn take(&self, client: Client) -> Result<(), u64> {
        self.buckets.check_key(&client).map_err(|until| {
            let wait = until.wait_time_from(self.steady.now());
            u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
        })
    }

    /// Removes the buckets that are full again, so that a client that does not come back takes no memory.
    pub(crate) fn remove_full(&self) {
        self.buckets.retain_recent();
        self.buckets.shrink_to_fit();
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.buckets.len()
    }
}

/// How many requests a minute each caller may make.
#[derive(Default)]
pub(crate) struct CallerQuotas {
    buckets: Mutex<HashMap<String, Bucket>>,
}

/// What a caller has left, under the quota that it had then.
struct Bucket {
    per_minute: u32,
    /// In parts of which 60,000 are one request.
    left: u64,
    at: Monotonic,
}

impl CallerQuotas {
    /// Takes one request from the caller's bucket, which holds a minute's worth.
    ///
    /// # Errors
    /// If it is empty: in how many milliseconds it is no longer.
    pub(crate) fn take(&self, caller: &str, per_minute: u32, now: Monotonic) -> Result<(), u64> {
        const ONE: u64 = 60_000;
        let full = u64::from(per_minute.max(1)).saturating_mul(ONE);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(caller.to_owned()).or_insert(Bucket { per_minute, left: full, at: now });
        if bucket.per_minute != per_minute {
            *bucket = Bucket { per_minute, left: bucket.left.min(full), at: bucket.at };
        }
        // Each millisecond gives back as much as the quota says for a minute, in parts of which 60,000 are a request.
        let back = now.since(bucket.at).saturating_mul(u64::from(per_minute));
        (bucket.left, bucket.at) = (bucket.left.saturating_add(back).min(full), now);
        match bucket.left.checked_sub(ONE) {
            Some(left) => {
                bucket.left = left;
                Ok(())
            }
            None => Err((ONE - bucket.left).div_ceil(u64::from(per_minute.max(1)))),
        }
    }
}

/// Monotonic time since the start: a wall clock that jumps could lock callers out.
#[derive(Clone, Copy)]
struct Steady(Instant);

impl Clock for Steady {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn client(address: &str) -> Client {
        Client::of(address.parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_empties_and_fills_again() {
        let limiter = RateLimiter::new(&RateLimit { capacity: 3, refill_per_sec: 0.5 });
        let alice = client("192.0.2.1");
        for _ in 0..3 {
            assert_eq!(limiter.take(alice), Ok(()));
        }
        assert_eq!(limiter.take(alice), Err(2000));
        assert_eq!(limiter.take(client("192.0.2.2")), Ok(()));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(limiter.take(alice), Err(1500));
        tokio::time::advance(Duration::from_millis(1500)).await;
        assert_eq!(limiter.take(alice), Ok(()));
        assert!(limiter.take(alice).is_err());
    }

    #[test]
    fn a_caller_has_its_own_quota() {
        let quotas = CallerQuotas::default();
        let at = |millis: u64| Monotonic::from_millis(1_000_000 + millis);
        for _ in 0..30 {
            assert_eq!(quotas.take("web", 30, at(0)), Ok(()));
        }
        assert_eq!(quotas.take("web", 30, at(0)), Err(2000));
        assert_eq!(quotas.take("db", 30, at(0)), Ok(()));
        assert_eq!(quotas.take("web", 30, at(1999)), Err(1));
        assert_eq!(quotas.take("web", 30, at(2000)), Ok(()));
        assert!(quotas.take("web", 30, at(2000)).is_err());
        // Another file gives another quota.
        assert_eq!(quotas.take("web", 60, at(3000)), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn full_buckets_are_removed() {
        let limiter = RateLimiter::new(&RateLimit { capacity: 2, refill_per_sec: 1.0 });
        for n in 0..100 {
            limiter.take(Client(IpAddr::V4(Ipv4Addr::from(n)))).unwrap();
        }
        assert_eq!(limiter.len(), 100);
        tokio::time::advance(Duration::from_secs(3)).await;
        limiter.remove_full();
        assert_eq!(limiter.len(), 0);
    }

    #[test]
    fn a_network_is_one_client() {
        assert_eq!(client("2001:db8:0:1::1"), client("2001:db8:0:1:ffff::2"));
        assert_ne!(client("2001:db8:0:1::1"), client("2001:db8:0:2::1"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
    }
}
