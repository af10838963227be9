//! Which URLs a webhook may have.

use countersign_core::loopback::is_loopback;
use countersign_outbound::{Reach, TooFar};
use url::{Host, Url};

/// Whether anything may be sent to this URL: it is encrypted, or does not leave this machine.
///
/// # Errors
/// What is wrong with it. Does not quote it, since it may hold a secret.
pub fn checked_url(text: &str, reach: Reach) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("it is no URL: {error}"))?;
    let host = url.host_str().ok_or("it has no host")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it has a user or a password in it: a target knows who calls by the signature".to_owned());
    }
    if url.fragment().is_some() {
        return Err("it has a fragment, which is not sent".to_owned());
    }
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(host) && reach == Reach::Private => {}
        "http" if is_loopback(host) => {
            return Err("it is of this machine: say `allow_private: true`".to_owned());
        }
        _ => return Err("it must begin with `https://`".to_owned()),
    }
    let literal = match url.host() {
        Some(Host::Ipv4(address)) => Some(address.into()),
        Some(Host::Ipv6(address)) => Some(address.into()),
        _ => None,
    };
    match literal.and_then(|address| reach.refuses(address)) {
        None => Ok(url),
        Some(TooFar::Private) => Err("it has a private address: say `allow_private: true`".to_owned()),
        Some(TooFar::Never) => {
            Err("it has an address that is never connected to, whatever `allow_private` says: \
            clouds give credentials at such addresses, or nothing can listen there"
                .to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_would_help_is_said_of_an_address() {
        for (url, why) in [
            ("https://10.0.0.1/", "say `allow_private: true`"),
            ("https://169.254.169.254/", "never connected to"),
            ("https://[fd00:ec2::23]/", "never connected to"),
        ] {
            let said = checked_url(url, Reach::Public).unwrap_err();
            assert!(said.contains(why), "{url}: {said}");
            assert_eq!(said.contains("say `allow_private: true`"), why.starts_with("say"), "{said}");
        }
    }

    #[test]
    fn a_url_is_encrypted_or_stays_on_this_machine() {
        let ok = |text: &str, reach| checked_url(text, reach).is_ok();
        for (text, public, private) in [
            ("https://audit.example.com/in?x=1", true, true),
            ("https://audit.example.com:8443/in", true, true),
            ("https://1.1.1.1/", true, true),
            ("http://audit.example.com/in", false, false),
            ("http://127.0.0.1:8080/in", false, true),
            ("http://localhost/in", false, true),
            ("https://127.0.0.1/in", false, true),
            ("https://10.0.0.1/in", false, true),
            // Other ways to write an address are the same address.
            ("https://0x7f.1/in", false, true),
            ("https://2130706433/in", false, true),
            ("https://[::ffff:10.0.0.1]/in", false, true),
            ("https://169.254.169.254/latest", false, false),
            ("https://[fe80::1]/", false, false),
            ("https://user:word@example.com/", false, false),
            ("https://example.com/#part", false, false),
            ("ftp://example.com/", false, false),
            ("file:///etc/passwd", false, false),
            ("audit.example.com", false, false),
            ("", false, false),
        ] {
            assert_eq!((ok(text, Reach::Public), ok(text, Reach::Private)), (public, private), "{text}");
        }
    }
}
