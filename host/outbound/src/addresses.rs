//! Which addresses may be connected to. What a name leads to is looked up once, checked, and connected to: so a name that
//! leads elsewhere a moment later is of no use.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How far a target may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Addresses of the public internet alone.
    Public,
    /// Those of this machine and of private networks, too. What clouds give their machines credentials at, and what else
    /// is link-local, stays out of reach.
    Private,
}

/// What clouds give their machines credentials or commands at, outside of the link-local ranges.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

impl Reach {
    /// Whether an address may be connected to.
    #[must_use]
    pub fn allows(self, address: IpAddr) -> bool {
        // An IPv4 address in the clothes of IPv6 is that IPv4 address.
        let address = address.to_canonical();
        if METADATA.contains(&address) || is_never(address) {
            return false;
        }
        self == Reach::Private || is_public(address)
    }
}

/// Neither a program that listens nor anything that a request may be told to.
fn is_never(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(it) => {
            it.octets().first() == Some(&0) || it.is_link_local() || it.octets() >= [224, 0, 0, 0]
        }
        IpAddr::V6(it) => {
            it.is_unspecified()
                || it.is_unicast_link_local()
                || it.is_multicast()
                || carries(it).is_some_and(is_never)
        }
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(it) => {
            let [a, b, c, _] = it.octets();
            !(it.is_private()
                || it.is_loopback()
                || it.is_documentation()
                // Shared by carriers, benchmarks, protocol assignments, and relays to IPv6 that are no more.
                || (a == 100 && (64..128).contains(&b))
                || (a == 198 && (18..20).contains(&b))
                || (a, b, c) == (192, 0, 0)
                || (a, b, c) == (192, 88, 99))
        }
        IpAddr::V6(it) => match carries(it) {
            // By way of NAT64 it is the IPv4 address that is reached.
            Some(inner) => is_public(inner),
            None => {
                let [first, second, third, ..] = it.segments();
                // Global unicast, but for what is for protocols, documentation and 6to4.
                (0x2000..0x4000).contains(&first)
                    && !(first == 0x2001 && (second < 0x200 || second == 0xdb8))
                    && first != 0x2002
                    && !(first == 0x3fff && second < 0x1000)
                    && !(first == 0x2620 && (second, third) == (0x4f, 0x8000))
            }
        },
    }
}

/// The IPv4 address that a gateway between the two would connect to (`64:ff9b::/96`).
fn carries(address: Ipv6Addr) -> Option<IpAddr> {
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            Some(Ipv4Addr::new(a, b, c, d).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(public: bool, private: bool, addresses: &[&str]) {
        for address in addresses {
            let parsed = address.parse().unwrap();
            assert_eq!(
                (Reach::Public.allows(parsed), Reach::Private.allows(parsed)),
                (public, private),
                "{address}"
            );
        }
    }

    #[test]
    fn public_addresses_are_reached() {
        check(
            true,
            true,
            &["1.1.1.1", "8.8.8.8", "100.63.0.1", "100.128.0.1", "172.15.0.1", "172.32.0.1", "193.0.0.1"],
        );
        check(true, true, &["2606:4700::1111", "2a00:1450::1", "64:ff9b::808:808", "::ffff:8.8.8.8"]);
    }

    #[test]
    fn private_addresses_are_reached_if_they_are_allowed() {
        check(
            false,
            true,
            &["127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"],
        );
        check(false, true, &["100.64.0.1", "100.127.255.255", "198.18.0.1", "192.0.0.8", "203.0.113.9"]);
        check(
            false,
            true,
            &[
                "::1",
                "fd12::1",
                "fc00::1",
                "2001:db8::1",
                "2002:a00:1::1",
                "::ffff:127.0.0.1",
                "64:ff9b::a00:1",
            ],
        );
        check(false, true, &["64:ff9b:1::1", "2001:0:1::1", "3fff::1", "4000::1", "::7f00:1", "fec0::1"]);
    }

    #[test]
    fn what_gives_credentials_is_never_reached() {
        check(
            false,
            false,
            &["169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "fd00:ec2::254"],
        );
        check(
            false,
            false,
            &["0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255", "::", "fe80::1", "ff02::1"],
        );
        check(false, false, &["::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "::ffff:0.0.0.0"]);
    }
}
