//! The URLs of a registry, and which of them may be requested.

use countersign_core::loopback::is_loopback;
use hyper::Uri;

use super::reference::Repository;

/// The URL of an endpoint in a repository, such as `blobs/…`; `None` if the name makes no valid URL.
///
/// Only a registry on this machine is spoken to without encryption.
pub(super) fn endpoint(repository: &Repository, endpoint: &str) -> Option<Uri> {
    let scheme = if repository.is_on_this_machine() { "http" } else { "https" };
    let (host, path) = (api_host(repository.registry()), repository.path());
    format!("{scheme}://{host}/v2/{path}/{endpoint}").parse().ok()
}

/// Whether a URL is on the registry itself: the only server that gets credentials.
pub(super) fn is_registry(repository: &Repository, url: &Uri) -> bool {
    endpoint(repository, "").is_some_and(|registry| origin(&registry) == origin(url))
}

/// Whether a URL may be requested: over TLS, or on this machine if the registry is there too.
pub(super) fn is_private(repository: &Repository, url: &Uri) -> bool {
    // No registry should redirect to a URL with a password in it.
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return false;
    }
    match url.scheme_str() {
        Some("https") => true,
        // A remote registry must not redirect to a service that only listens on this machine.
        Some("http") => repository.is_on_this_machine() && url.host().is_some_and(is_loopback),
        _ => false,
    }
}

/// Resolves a `Location` header; a relative one has the base's origin.
pub(super) fn resolve(base: &Uri, location: Uri) -> Uri {
    if location.authority().is_some() {
        return location;
    }
    let mut parts = location.into_parts();
    parts.scheme = base.scheme().cloned();
    parts.authority = base.authority().cloned();
    // Fails for a relative path. The default has no scheme, so that `is_private` rejects it.
    Uri::from_parts(parts).unwrap_or_default()
}

/// The host and port, for error messages. Not the authority, which may contain a password.
pub(super) fn host(url: &Uri) -> String {
    let host = url.host().unwrap_or_default().to_ascii_lowercase();
    url.port().map_or_else(|| host.clone(), |port| format!("{host}:{port}"))
}

/// The host of a registry's API: Docker Hub's differs from its name.
fn api_host(registry: &str) -> &str {
    if registry == "docker.io" { "registry-1.docker.io" } else { registry }
}

/// Scheme, host and port, with the scheme's default port filled in.
fn origin(url: &Uri) -> (Option<&str>, String, u16) {
    let default = if url.scheme_str() == Some("https") { 443 } else { 80 };
    let host = url.host().unwrap_or_default().to_ascii_lowercase();
    (url.scheme_str(), host, url.port_u16().unwrap_or(default))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(text: &str) -> Repository {
        text.parse().unwrap()
    }

    #[test]
    fn only_this_machine_is_spoken_to_without_encryption() {
        for (text, url) in [
            ("localhost/a", "http://localhost/v2/a/x"),
            ("localhost:5000/a", "http://localhost:5000/v2/a/x"),
            ("127.8.9.1:5000/a", "http://127.8.9.1:5000/v2/a/x"),
            ("[::1]:5000/a", "http://[::1]:5000/v2/a/x"),
            ("ghcr.io/a", "https://ghcr.io/v2/a/x"),
            ("localhost.evil.example/a", "https://localhost.evil.example/v2/a/x"),
            ("10.0.0.1:5000/a", "https://10.0.0.1:5000/v2/a/x"),
            ("[::2]/a", "https://[::2]/v2/a/x"),
            ("127.0.0.1.evil.example/a", "https://127.0.0.1.evil.example/v2/a/x"),
            ("docker.io/acme/a", "https://registry-1.docker.io/v2/acme/a/x"),
        ] {
            assert_eq!(endpoint(&repository(text), "x").unwrap().to_string(), url);
        }
    }

    #[test]
    fn which_urls_may_be_requested_and_which_get_credentials() {
        for (registry, url, private, itself) in [
            ("ghcr.io", "https://ghcr.io/v2/", true, true),
            ("ghcr.io", "https://GHCR.io:443/v2/", true, true),
            ("ghcr.io", "https://ghcr.io:8443/v2/", true, false),
            ("ghcr.io", "https://storage.example/", true, false),
            ("ghcr.io", "http://ghcr.io/v2/", false, false),
            ("ghcr.io", "http://localhost:8080/", false, false),
            ("ghcr.io", "http://169.254.169.254/", false, false),
            ("ghcr.io", "https://user:password@ghcr.io/v2/", false, true),
            ("localhost:5000", "http://localhost:5000/v2/", true, true),
            ("localhost:5000", "http://127.0.0.1:5000/v2/", true, false),
            ("localhost:5000", "http://[::1]:5001/", true, false),
            ("localhost:5000", "https://localhost:5000/v2/", true, false),
            ("localhost:5000", "https://storage.example/", true, false),
            ("localhost:5000", "http://storage.example/", false, false),
            ("docker.io", "https://registry-1.docker.io/v2/", true, true),
            ("docker.io", "https://auth.docker.io/token", true, false),
        ] {
            let repository = repository(&format!("{registry}/a"));
            let uri = url.parse().unwrap();
            let seen = (is_private(&repository, &uri), is_registry(&repository, &uri));
            assert_eq!(seen, (private, itself), "{registry}: {url}");
        }
    }
}
