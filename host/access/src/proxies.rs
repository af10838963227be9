//! Which address a call comes from, if it came through proxies of ours: reads the header in which they say it.
//!
//! A header about that is believed only as far as a trusted proxy wrote it: it is read from the right, where each proxy
//! adds the address that it was called from, and what the first untrusted address says of others is not looked at.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;

/// How many addresses of a header are looked at: nobody has so many proxies.
const MOST_HOPS: usize = 32;

/// The header in which proxies say whom they were called by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ClientHeader {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl ClientHeader {
    /// Its name, in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            ClientHeader::XForwardedFor => "x-forwarded-for",
            ClientHeader::Forwarded => "forwarded",
        }
    }
}

/// The proxies that are believed.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// The networks of their addresses.
    pub trusted: Vec<IpNet>,
    /// The header that they write.
    pub header: ClientHeader,
}

impl Proxies {
    /// The address of whoever called the first of our proxies; `peer` itself if it is none of ours. And whether the
    /// header could be read as far as that.
    ///
    /// `lines` are the values of the header, in the order in which they came: several are one list.
    #[must_use]
    pub fn client(&self, peer: IpAddr, lines: &[&[u8]]) -> (IpAddr, bool) {
        let mut client = peer.to_canonical();
        if !self.is_trusted(client) {
            return (client, true);
        }
        let hops = lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
        for (number, hop) in hops.enumerate() {
            if number >= MOST_HOPS {
                return (client, false);
            }
            // Each for itself: what a client wrote must not make unreadable what a proxy added.
            let address = std::str::from_utf8(hop).ok().and_then(|hop| match self.header {
                ClientHeader::XForwardedFor => address(hop.trim()),
                ClientHeader::Forwarded => forwarded_for(hop),
            });
            // What cannot be read was written by whoever called the proxy before: nothing left of it counts.
            let Some(address) = address else { return (client, false) };
            client = address;
            if !self.is_trusted(client) {
                break;
            }
        }
        (client, true)
    }

    /// Whether it is the address of one of our proxies.
    #[must_use]
    pub fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&address))
    }
}

/// An address as proxies write it: with or without a port, IPv6 with or without brackets, IPv4 in IPv6 as IPv4.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = IpAddr::from_str(bare).ok().or_else(|| SocketAddr::from_str(text).ok().map(|it| it.ip()));
    address.map(|address| address.to_canonical())
}

/// The address in one element of `Forwarded`: `for=192.0.2.7;proto=https`, `For="[2001:db8::1]:4711"`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let mut values =
        pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for")).map(|(_, value)| value);
    let value = values.next()?.trim();
    if values.next().is_some() {
        return None;
    }
    address(value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(header: ClientHeader) -> Proxies {
        let trusted = ["10.0.0.0/8", "127.0.0.1/32", "fd00::/8"].map(|network| network.parse().unwrap());
        Proxies { trusted: trusted.into(), header }
    }

    #[track_caller]
    fn check(header: ClientHeader, peer: &str, lines: &[&str], expected: &str) {
        let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        let (client, _) = proxies(header).client(peer.parse().unwrap(), &lines);
        assert_eq!(client, expected.parse::<IpAddr>().unwrap(), "{peer} {lines:?}");
    }

    #[test]
    fn the_first_untrusted_address_from_the_right_is_the_client() {
        for (peer, lines, expected) in [
            // Nobody but a proxy of ours is believed.
            ("192.0.2.1", &["198.51.100.7"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            // What the client itself wrote stands left of what the proxy added.
            ("10.0.0.1", &["127.0.0.1, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["203.0.113.9, 198.51.100.7, 10.0.0.2"], "198.51.100.7"),
            ("10.0.0.1", &["203.0.113.9", "198.51.100.7", "10.0.0.2"], "198.51.100.7"),
            ("10.0.0.1", &["10.0.0.3,10.0.0.2"], "10.0.0.3"),
            // Forms of addresses.
            ("10.0.0.1", &["198.51.100.7:4711"], "198.51.100.7"),
            ("10.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["::ffff:198.51.100.7"], "198.51.100.7"),
            ("::ffff:10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("fd00::1", &["198.51.100.7"], "198.51.100.7"),
            // Garbage counts as whoever wrote it: the proxy that it came through.
            ("10.0.0.1", &["198.51.100.7, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7, , 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["198.51.100.7, 10.0.0.2:x"], "10.0.0.1"),
            ("10.0.0.1", &["é, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["é, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["198.51.100.7, é"], "10.0.0.1"),
            ("10.0.0.1", &[""], "10.0.0.1"),
        ] {
            check(ClientHeader::XForwardedFor, peer, lines, expected);
        }
        let long = vec!["10.0.0.2"; 10_000].join(",");
        check(ClientHeader::XForwardedFor, "10.0.0.1", &[&format!("198.51.100.7,{long}")], "10.0.0.2");
    }

    #[test]
    fn forwarded_is_read_as_its_rfc_says() {
        for (lines, expected) in [
            (&["for=198.51.100.7"][..], "198.51.100.7"),
            (&["For=\"[2001:db8::1]:4711\";proto=https;by=10.0.0.1"], "2001:db8::1"),
            (&["for=203.0.113.9, for=198.51.100.7;host=gate.acme.example", "for=10.0.0.2"], "198.51.100.7"),
            (&["for=198.51.100.7, for=_hidden"], "10.0.0.1"),
            (&["for=198.51.100.7, for=unknown"], "10.0.0.1"),
            (&["for=203.0.113.9;for=198.51.100.7"], "10.0.0.1"),
            (&["proto=https"], "10.0.0.1"),
        ] {
            check(ClientHeader::Forwarded, "10.0.0.1", lines, expected);
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_apart() {
        let long = vec!["10.0.0.2"; 40].join(",");
        for (line, expected) in [
            ("198.51.100.7", true),
            ("198.51.100.7, 10.0.0.2", true),
            // Nothing left of the client is looked at.
            ("garbage, 198.51.100.7", true),
            ("198.51.100.7, garbage", false),
            ("", false),
            (long.as_str(), false),
        ] {
            let (_, is_readable) =
                proxies(ClientHeader::XForwardedFor).client("10.0.0.1".parse().unwrap(), &[line.as_bytes()]);
            assert_eq!(is_readable, expected, "{line}");
        }
    }
}
