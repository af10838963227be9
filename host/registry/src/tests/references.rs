//! What is a reference, and what is said of what is none.

use std::fmt::Display;
use std::str::FromStr;

use super::*;

const DIGITS: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// That a text is one, and is written as it was.
#[track_caller]
fn good<T: FromStr<Err = BadReference> + Display>(text: &str) {
    match text.parse::<T>() {
        Ok(reference) => assert_eq!(reference.to_string(), text),
        Err(error) => panic!("{text}: {error}"),
    }
}

/// That a text is none, with what is said of it.
#[track_caller]
fn bad<T: FromStr<Err = BadReference> + Display>(text: &str, said: &str) {
    match text.parse::<T>() {
        Ok(reference) => panic!("{text} is taken for {reference}"),
        Err(error) => {
            assert!(error.to_string().contains(said), "{text}: {error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}

#[test]
fn repositories() {
    for text in [
        "ghcr.io/acme/quorum",
        "localhost:5000/quorum",
        "127.0.0.1:5000/a/b/c",
        "[::1]:5000/quorum",
        "registry/a.b_c__d---e/0",
        &format!("ghcr.io/{}", "a".repeat(255)),
    ] {
        good::<Repository>(text);
    }
    let credentials = "neither a user nor a password";
    let registry = "is no registry: it is a host in lower case";
    let path = "is no repository: it is written in lower-case letters";
    for (text, said) in [
        ("", "`` names no repository"),
        ("quorum", "`quorum` names no repository"),
        ("localhost:5000", "`localhost:5000` names no repository"),
        ("oci://ghcr.io/acme/quorum", "to be written without a scheme"),
        ("https://ghcr.io/acme/quorum", "to be written without a scheme"),
        ("/quorum", registry),
        ("GHCR.io/quorum", registry),
        ("user:pass@ghcr.io/quorum", credentials),
        ("user@ghcr.io/quorum", credentials),
        ("ghcr..io/quorum", registry),
        ("-ghcr.io/quorum", registry),
        ("ghcr.io./quorum", registry),
        ("ghcr.io:/quorum", registry),
        ("ghcr.io:0/quorum", registry),
        ("ghcr.io:0443/quorum", registry),
        ("ghcr.io:65536/quorum", registry),
        ("ghcr.io:+443/quorum", registry),
        ("[::1/quorum", registry),
        ("[0::1]:5000/quorum", registry),
        ("::1/quorum", registry),
        ("ghcr.io?x/quorum", registry),
        ("ghcr.io/", path),
        ("ghcr.io/acme/", path),
        ("ghcr.io//quorum", path),
        ("ghcr.io/Acme/quorum", path),
        ("ghcr.io/acme/../quorum", path),
        ("ghcr.io/acme/quorum?x=y", path),
        ("ghcr.io/acme/quo rum", path),
        ("ghcr.io/acme/quorum:1.0.0", path),
        ("ghcr.io/acme/.quorum", path),
        ("ghcr.io/acme/quorum-", path),
        ("ghcr.io/acme/quo..rum", path),
        ("ghcr.io/acme/quo___rum", path),
        ("ghcr.io/acme/quo-_rum", path),
        ("ghcr.io/acme/kvóta", path),
    ] {
        bad::<Repository>(text, said);
    }
    bad::<Repository>(&format!("ghcr.io/{}", "a".repeat(256)), path);
}

#[test]
fn pins() {
    good::<Pinned>(&format!("oci://ghcr.io/acme/quorum@sha256:{DIGITS}"));
    good::<Pinned>(&format!("oci://localhost:5000/quorum@sha256:{DIGITS}"));
    for (text, said) in [
        (format!("ghcr.io/acme/quorum@sha256:{DIGITS}"), "does not begin with `oci://`"),
        (format!("OCI://ghcr.io/acme/quorum@sha256:{DIGITS}"), "does not begin with `oci://`"),
        (format!("oci://ghcr.io@sha256:{DIGITS}"), "names no repository"),
        (format!("oci://ghcr.io/acme/quorum:1.0.0@sha256:{DIGITS}"), "leave the tag out"),
        (format!("oci://ghcr.io/acme/quorum@sha512:{DIGITS}"), "is no digest as modules have one"),
        (format!("oci://ghcr.io/acme/quorum@{DIGITS}"), "is no digest as modules have one"),
        (format!("oci://ghcr.io/acme/quorum@sha256:{}", DIGITS.to_uppercase()), "is not a SHA-256 digest"),
        (format!("oci://ghcr.io/acme/quorum@sha256:{DIGITS}0"), "is not a SHA-256 digest"),
        (format!("oci://ghcr.io/acme/quorum@sha256:{DIGITS}@x"), "is not a SHA-256 digest"),
        ("oci://ghcr.io/acme/quorum".to_owned(), "has no digest: it is pinned with `@sha256:`"),
        ("oci://ghcr.io/acme/quorum:1.0.0".to_owned(), "has no digest"),
        ("oci://ghcr.io/acme/quorum@sha256:abc".to_owned(), "`abc` is not a SHA-256 digest"),
    ] {
        bad::<Pinned>(&text, said);
    }
}

#[test]
fn tags() {
    for text in [
        "oci://ghcr.io/acme/quorum",
        "oci://ghcr.io/acme/quorum:1.0.0",
        "oci://localhost:5000/quorum",
        "oci://localhost:5000/quorum:_V1.0-rc.1",
        &format!("oci://ghcr.io/acme/quorum:{}", "a".repeat(128)),
    ] {
        good::<Tagged>(text);
    }
    for (text, said) in [
        ("ghcr.io/acme/quorum:1.0.0", "does not begin with `oci://`"),
        ("oci://localhost:5000", "names no repository"),
        ("oci://ghcr.io/acme/quorum:", "`` is no tag"),
        ("oci://ghcr.io/acme/quorum:1.0.0+5", "`1.0.0+5` is no tag"),
        ("oci://ghcr.io/acme/quorum:.1", "`.1` is no tag"),
        ("oci://ghcr.io/acme/quorum:-1", "`-1` is no tag"),
        (&format!("oci://ghcr.io/acme/quorum:{}", "a".repeat(129)), "is no tag"),
        (&format!("oci://ghcr.io/acme/quorum@sha256:{DIGITS}"), "something is pushed to a tag"),
        ("oci://user:hunter2@ghcr.io/quorum", "neither a user nor a password"),
        ("https://user:hunter2@ghcr.io/quorum", "neither a user nor a password"),
    ] {
        bad::<Tagged>(text, said);
    }
}

#[test]
fn what_may_be_asked() {
    for text in ["ghcr.io", "localhost:5000", "ghcr.io/acme", "ghcr.io/acme/policies"] {
        good::<Allowed>(text);
    }
    for (text, said) in [
        ("", "is no registry"),
        ("*", "is no registry"),
        ("*.acme.com", "is no registry"),
        ("oci://ghcr.io", "to be written without a scheme"),
        ("https://ghcr.io", "to be written without a scheme"),
        ("ghcr.io/", "is no repository"),
        ("ghcr.io/acme/*", "is no repository"),
    ] {
        bad::<Allowed>(text, said);
    }
    for (allowed, text, covers) in [
        ("ghcr.io", "ghcr.io/acme/quorum", true),
        ("ghcr.io", "ghcr.io:443/acme/quorum", false),
        ("ghcr.io", "ghcr.io.evil.example/acme/quorum", false),
        ("ghcr.io", "eu.ghcr.io/acme/quorum", false),
        ("ghcr.io/acme", "ghcr.io/acme", true),
        ("ghcr.io/acme", "ghcr.io/acme/quorum", true),
        ("ghcr.io/acme", "ghcr.io/acme-evil/quorum", false),
        ("ghcr.io/acme", "ghcr.io/evil/acme/quorum", false),
        ("ghcr.io/acme/policies", "ghcr.io/acme", false),
        ("localhost:5000", "localhost:5000/quorum", true),
        ("localhost:5000", "localhost/quorum", false),
    ] {
        let allowed: Allowed = allowed.parse().unwrap();
        assert_eq!(allowed.covers(&repository(text)), covers, "{allowed}: {text}");
    }
}

fn session(repository: &Repository) -> Session<'_> {
    let encryption = super::super::session::encryption(repository).unwrap();
    Session::new(repository, Access::Pull, None, Patience::default(), encryption)
}

#[test]
fn only_this_machine_is_spoken_to_without_encryption() {
    for (text, place) in [
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
        let repository = repository(text);
        let session = session(&repository);
        assert_eq!(session.place("x").unwrap().to_string(), place);
    }
}

#[test]
fn where_a_registry_may_send_us_and_where_we_say_who_we_are() {
    for (registry, place, private, itself) in [
        ("ghcr.io", "https://ghcr.io/v2/", true, true),
        ("ghcr.io", "https://GHCR.io:443/v2/", true, true),
        ("ghcr.io", "https://ghcr.io:8443/v2/", true, false),
        ("ghcr.io", "https://storage.example/", true, false),
        ("ghcr.io", "http://ghcr.io/v2/", false, false),
        // Who asks from outside cannot be sent to what listens on this machine only.
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
        let session = session(&repository);
        let uri = place.parse().unwrap();
        let seen = (session.is_private(&uri), session.is_registry(&uri));
        assert_eq!(seen, (private, itself), "{registry}: {place}");
    }
}
