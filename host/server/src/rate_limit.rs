//! How often a client address may make requests: a bucket for each, in this process.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use crate::config::RateLimit;

/// The address of the peer, as the listener saw it.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// Whoever shares one bucket: an IPv4 address, or an IPv6 network of 64 bits, which is what one subscriber has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Client(IpAddr);

impl Client {
    fn of(address: IpAddr) -> Client {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) & !u128::from(u64::MAX);
                Client(IpAddr::V6(Ipv6Addr::from(network)))
            }
            address @ IpAddr::V4(_) => Client(address),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Client, Infallible> {
        // A router that is driven without a listener has one client.
        let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Ok(Client::of(parts.extensions.get::<Peer>().map_or(unknown, |Peer(address)| *address)))
    }
}

/// The buckets.
pub(crate) struct Buckets {
    limiter: RateLimiter<Client, DashMapStateStore<Client>, Steady, NoOpMiddleware<Duration>>,
    steady: Steady,
}

impl Buckets {
    pub(crate) fn new(limit: &RateLimit) -> Buckets {
        let capacity = NonZeroU32::new(limit.capacity).unwrap_or(NonZeroU32::MIN);
        let period = Duration::from_secs_f64(1.0 / limit.refill_per_sec.max(f64::MIN_POSITIVE));
        // No period at all is more than a million a second, which the configuration does not let through.
        let quota = Quota::with_period(period.max(Duration::from_nanos(1)))
            .unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN))
            .allow_burst(capacity);
        let steady = Steady(Instant::now());
        Buckets { limiter: RateLimiter::new(quota, DashMapStateStore::default(), steady), steady }
    }

    /// Takes one from the client's bucket, or says in how many milliseconds there will be one.
    pub(crate) fn take(&self, client: Client) -> Result<(), u64> {
        self.limiter.check_key(&client).map_err(|until| {
            let wait = until.wait_time_from(self.steady.now());
            u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
        })
    }

    /// Forgets the buckets that are full again: a client that never comes back costs nothing.
    pub(crate) fn forget_full(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }

    /// How many buckets are kept.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.limiter.len()
    }
}

/// Time since the start, which nobody can set back: a wall clock that jumps would lock callers out.
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
    use super::*;

    fn client(address: &str) -> Client {
        Client::of(address.parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_empties_and_fills_again() {
        let buckets = Buckets::new(&RateLimit { capacity: 3, refill_per_sec: 0.5 });
        let alice = client("192.0.2.1");
        for _ in 0..3 {
            assert_eq!(buckets.take(alice), Ok(()));
        }
        assert_eq!(buckets.take(alice), Err(2000));
        assert_eq!(buckets.take(client("192.0.2.2")), Ok(()));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(buckets.take(alice), Err(1500));
        tokio::time::advance(Duration::from_millis(1500)).await;
        assert_eq!(buckets.take(alice), Ok(()));
        assert!(buckets.take(alice).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn full_buckets_are_forgotten() {
        let buckets = Buckets::new(&RateLimit { capacity: 2, refill_per_sec: 1.0 });
        for n in 0..100 {
            buckets.take(Client(IpAddr::V4(Ipv4Addr::from(n)))).unwrap();
        }
        assert_eq!(buckets.len(), 100);
        tokio::time::advance(Duration::from_secs(3)).await;
        buckets.forget_full();
        assert_eq!(buckets.len(), 0);
    }

    #[test]
    fn a_network_is_one_client() {
        assert_eq!(client("2001:db8:0:1::1"), client("2001:db8:0:1:ffff::2"));
        assert_ne!(client("2001:db8:0:1::1"), client("2001:db8:0:2::1"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
    }
}
