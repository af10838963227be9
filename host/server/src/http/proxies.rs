//! Puts the address of the client in the place of that of a proxy of ours, if the call came through one.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue};
use countersign_access::Proxies;

use super::client::Peer;
use crate::state::App;
use crate::telemetry::SecurityEvent;

/// Puts the address of the client in the place of that of a trusted proxy.
pub(super) fn resolve(app: &App, request: &mut Request) {
    if let Some(Peer(peer)) = request.extensions().get::<Peer>().copied() {
        let (client, is_readable) = client(&app.proxies, peer, request.headers());
        if !is_readable {
            app.metrics.count(SecurityEvent::ProxyHeader);
        }
        request.extensions_mut().insert(Peer(client));
    }
}

/// See [`Proxies::client`].
fn client(proxies: &Proxies, peer: IpAddr, headers: &HeaderMap) -> (IpAddr, bool) {
    let lines: Vec<&[u8]> =
        headers.get_all(proxies.header.name()).iter().map(HeaderValue::as_bytes).collect();
    proxies.client(peer, &lines)
}

#[cfg(test)]
mod tests {
    use countersign_access::ClientHeader;

    use super::*;

    #[test]
    fn only_the_lines_of_the_configured_header_count_in_their_order() {
        let mut headers = HeaderMap::new();
        for (name, line) in [
            ("x-forwarded-for", "203.0.113.9"),
            ("forwarded", "for=192.0.2.7"),
            ("x-forwarded-for", "198.51.100.7, 10.0.0.2"),
        ] {
            headers.append(name, HeaderValue::from_static(line));
        }
        let found = |header| {
            let proxies = Proxies { trusted: vec!["10.0.0.0/8".parse().unwrap()], header };
            client(&proxies, "10.0.0.1".parse().unwrap(), &headers).0.to_string()
        };
        assert_eq!(found(ClientHeader::XForwardedFor), "198.51.100.7");
        assert_eq!(found(ClientHeader::Forwarded), "192.0.2.7");
    }
}
