//! How often a client address may make requests: a token bucket for each, in this process.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use governor::Quota;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use tokio::time::Instant;

use crate::config::RateLimit;

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

/// The buckets of all clients.
pub(crate) struct RateLimiter {
    buckets: governor::RateLimiter<Client, DashMapStateStore<Client>, Steady, NoOpMiddleware<Duration>>,
    steady: Steady,
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
        }
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
