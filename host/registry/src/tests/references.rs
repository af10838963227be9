//! Valid and invalid references.

use std::fmt::Display;
use std::str::FromStr;

use super::*;

const DIGITS: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// Asserts that a text is valid, and is written as it was read.
#[track_caller]
fn good<T: FromStr<Err = BadReference> + Display>(text: &str) {
    match text.parse::<T>() {
        Ok(reference) => assert_eq!(reference.to_string(), text),
        Err(error) => panic!("{text}: {error}"),
    }
}

/// Asserts that a text is invalid, with part of the error.
#[track_caller]
fn bad<T: FromStr<Err = BadReference> + Display>(text: &str, message: &str) {
    match text.parse::<T>() {
        Ok(reference) => panic!("{text} was read as {reference}"),
        Err(error) => {
            assert!(error.to_string().contains(message), "{text}: {error}");
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
    let credentials = "cannot have a user or a password";
    let registry = "is not a valid registry: expected a host in lower case";
    let path = "is not a valid repository: expected lower-case letters";
    for (text, message) in [
        ("", "`` names no repository"),
        ("quorum", "`quorum` names no repository"),
        ("localhost:5000", "`localhost:5000` names no repository"),
        ("oci://ghcr.io/acme/quorum", "must be written without a scheme"),
        ("https://ghcr.io/acme/quorum", "must be written without a scheme"),
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
        bad::<Repository>(text, message);
    }
    bad::<Repository>(&format!("ghcr.io/{}", "a".repeat(256)), path);
}

#[test]
fn pins() {
    good::<Pinned>(&format!("oci://ghcr.io/acme/quorum@sha256:{DIGITS}"));
    good::<Pinned>(&format!("oci://localhost:5000/quorum@sha256:{DIGITS}"));
    for (text, message) in [
        (format!("ghcr.io/acme/quorum@sha256:{DIGITS}"), "does not begin with `oci://`"),
        (format!("OCI://ghcr.io/acme/quorum@sha256:{DIGITS}"), "does not begin with `oci://`"),
        (format!("oci://ghcr.io@sha256:{DIGITS}"), "names no repository"),
        (format!("oci://ghcr.io/acme/quorum:1.0.0@sha256:{DIGITS}"), "remove the tag"),
        (format!("oci://ghcr.io/acme/quorum@sha512:{DIGITS}"), "is not a supported digest"),
        (format!("oci://ghcr.io/acme/quorum@{DIGITS}"), "is not a supported digest"),
        (format!("oci://ghcr.io/acme/quorum@sha256:{}", DIGITS.to_uppercase()), "is not a SHA-256 digest"),
        (format!("oci://ghcr.io/acme/quorum@sha256:{DIGITS}0"), "is not a SHA-256 digest"),
        (format!("oci://ghcr.io/acme/quorum@sha256:{DIGITS}@x"), "is not a SHA-256 digest"),
        ("oci://ghcr.io/acme/quorum".to_owned(), "has no digest: append `@sha256:`"),
        ("oci://ghcr.io/acme/quorum:1.0.0".to_owned(), "has no digest"),
        ("oci://ghcr.io/acme/quorum@sha256:abc".to_owned(), "`abc` is not a SHA-256 digest"),
    ] {
        bad::<Pinned>(&text, message);
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
    for (text, message) in [
        ("ghcr.io/acme/quorum:1.0.0", "does not begin with `oci://`"),
        ("oci://localhost:5000", "names no repository"),
        ("oci://ghcr.io/acme/quorum:", "`` is not a valid tag"),
        ("oci://ghcr.io/acme/quorum:1.0.0+5", "`1.0.0+5` is not a valid tag"),
        ("oci://ghcr.io/acme/quorum:.1", "`.1` is not a valid tag"),
        ("oci://ghcr.io/acme/quorum:-1", "`-1` is not a valid tag"),
        (&format!("oci://ghcr.io/acme/quorum:{}", "a".repeat(129)), "is not a valid tag"),
        (&format!("oci://ghcr.io/acme/quorum@sha256:{DIGITS}"), "a push sets a tag"),
        ("oci://user:hunter2@ghcr.io/quorum", "cannot have a user or a password"),
        ("https://user:hunter2@ghcr.io/quorum", "cannot have a user or a password"),
    ] {
        bad::<Tagged>(text, message);
    }
}

#[test]
fn allowed_registries() {
    for text in ["ghcr.io", "localhost:5000", "ghcr.io/acme", "ghcr.io/acme/policies"] {
        good::<Allowed>(text);
    }
    for (text, message) in [
        ("", "is not a valid registry"),
        ("*", "is not a valid registry"),
        ("*.acme.com", "is not a valid registry"),
        ("oci://ghcr.io", "must be written without a scheme"),
        ("https://ghcr.io", "must be written without a scheme"),
        ("ghcr.io/", "is not a valid repository"),
        ("ghcr.io/acme/*", "is not a valid repository"),
    ] {
        bad::<Allowed>(text, message);
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
