//! Which hosts are this machine: the only ones that anything is sent to without encryption.

use std::net::IpAddr;

/// Whether a host, as it is written in a URL, is this machine.
pub fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(|it: IpAddr| it.is_loopback())
}
