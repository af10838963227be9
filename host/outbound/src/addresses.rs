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

/// Why an address may not be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooFar {
    /// It is none of the public internet.
    Private,
    /// It is out of every reach.
    Never,
}

impl TooFar {
    /// What a name leads to that has no other address.
    pub(crate) const fn addresses(self) -> &'static str {
        match self {
            TooFar::Private => "private addresses alone",
            TooFar::Never => "addresses alone that are never connected to",
        }
    }
}

impl Reach {
    /// Why an address may not be connected to; `None` if it may.
    #[must_use]
    pub fn refuses(self, address: IpAddr) -> Option<TooFar> {
        // An IPv4 address in the clothes of IPv6 is that IPv4 address.
        let address = address.to_canonical();
        if gives_credentials(address) || is_never(address) {
            return Some(TooFar::Never);
        }
        (self == Reach::Public && !is_public(address)).then_some(TooFar::Private)
    }
}

/// What clouds give their machines credentials or commands at, outside of the link-local ranges.
const METADATA: [Ipv4Addr; 3] = [
    // Alibaba.
    Ipv4Addr::new(100, 100, 100, 200),
    // Azure.
    Ipv4Addr::new(168, 63, 129, 16),
    // Oracle, on earlier machines.
    Ipv4Addr::new(192, 0, 0, 192),
];

/// Whether clouds give their machines credentials or commands there.
fn gives_credentials(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(it) => it.is_link_local() || METADATA.contains(&it),
        IpAddr::V6(it) => {
            let is_of_cloud = match it.segments() {
                // AWS.
                [0xfd00, 0xec2, ..] => true,
                // Google.
                [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => true,
                _ => false,
            };
            is_of_cloud || embedded(it).into_iter().any(|inner| gives_credentials(inner.into()))
        }
    }
}

/// The IPv4 addresses that an IPv6 address may stand for, if a gateway between the two is set up so.
fn embedded(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let [_, _, a, b, c, d, e, f, _, g, h, i, j, k, l, m] = address.octets();
    let last = Ipv4Addr::new(j, k, l, m);
    match address.segments() {
        // NAT64, and what is compatible with IPv4.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0, 0, ..] => vec![last],
        // NAT64 of one's own, with a prefix of 48, 56, 64 or 96 bits (RFC 6052).
        [0x64, 0xff9b, 1, ..] => {
            vec![Ipv4Addr::new(e, f, g, h), Ipv4Addr::new(f, g, h, i), Ipv4Addr::new(g, h, i, j), last]
        }
        // 6to4.
        [0x2002, ..] => vec![Ipv4Addr::new(a, b, c, d)],
        _ => Vec::new(),
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
                (Reach::Public.refuses(parsed).is_none(), Reach::Private.refuses(parsed).is_none()),
                (public, private),
                "{address}"
            );
        }
    }

    #[test]
    fn a_refusal_says_whether_another_reach_would_do() {
        for (address, expected) in [
            ("1.1.1.1", None),
            ("10.0.0.1", Some(TooFar::Private)),
            ("fd20:ce::253", Some(TooFar::Private)),
            ("169.254.169.254", Some(TooFar::Never)),
            ("fd00:ec2::23", Some(TooFar::Never)),
            ("224.0.0.1", Some(TooFar::Never)),
        ] {
            assert_eq!(Reach::Public.refuses(address.parse().unwrap()), expected, "{address}");
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
            &[
                "169.254.169.254",
                "169.254.170.2",
                "169.254.170.23",
                "100.100.100.200",
                "168.63.129.16",
                "192.0.0.192",
                "fd00:ec2::254",
                "fd00:ec2::23",
                "fd00:ec2:1::1",
                "fd20:ce::254",
            ],
        );
        // The same by way of IPv6.
        check(
            false,
            false,
            &[
                "::ffff:100.100.100.200",
                "::ffff:168.63.129.16",
                "64:ff9b::a83f:8110",
                "64:ff9b::c000:c0",
                "64:ff9b:1::a9fe:a9fe",
                "64:ff9b:1:a9fe:a9:fe00::",
                "64:ff9b:1:a9:fe:a9fe::",
                "64:ff9b:1:0:a9:fea9:fe00:0",
                "2002:a9fe:a9fe::1",
                "::a9fe:a9fe",
            ],
        );
        check(
            false,
            false,
            &["0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255", "::", "fe80::1", "ff02::1"],
        );
        check(false, false, &["::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "::ffff:0.0.0.0"]);
    }
}
