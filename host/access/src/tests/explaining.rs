//! What an access file makes of a token, for whoever keeps it.

use super::authenticating::{SECONDS, claims, with};
use super::issuer::{SigningKey, key_set};
use super::*;

const FILE: &str = r#"
version: 1
issuers:
  acme: { issuer: https://id.acme.example, audience: countersign, jwks: keys.json }
  other: { issuer: https://id.other.example, audience: countersign, jwks: keys.json }
callers:
  web: { oidc: { issuer: acme, claims: { team: web } }, requester: machine, owners: [U0DANA], actions: "*" }
  both:
    oidc: { issuer: acme, claims: { team: [web, shop], ref: refs/heads/main, level: 3 } }
    requester: machine
    owners: [U0DANA]
    actions: "*"
  elsewhere: { oidc: { issuer: other, claims: { team: web } }, requester: machine, owners: [U0DANA], actions: "*" }
admins:
  ada: { oidc: { issuer: acme, claims: { email: ada@acme.example } }, roles: read }
"#;

fn explained(claims: &Value, now: Timestamp) -> Explained {
    let folder = tempfile::tempdir().unwrap();
    let key = SigningKey::ed25519("a");
    std::fs::write(folder.path().join("keys.json"), key_set(&[&key])).unwrap();
    let access = Access::read(&folder.path().join("access.yaml"), FILE).unwrap();
    // Signed by somebody else, which is not looked at.
    let token = SigningKey::ed25519("b").token(claims);
    let explained = explain(&access, &token, now).unwrap();
    for line in &explained.lines {
        assert!(token.split('.').all(|part| !line.contains(part)), "{line}");
    }
    explained
}

#[test]
fn each_claim_of_each_rule_of_the_issuer_is_compared() {
    let Explained { lines, counts } = explained(&with("ref", json!("refs/heads/x\u{1b}[2J")), NOW);
    assert!(counts);
    assert_eq!(
        lines,
        [
            "its signature is not checked here",
            "it is of the issuer `acme`, `https://id.acme.example`",
            "it ends at 2026-03-01T12:05:00.000Z, and now it is 2026-03-01T12:00:00.000Z",
            "the caller `both`: not every claim fits",
            "  differs  level: it is absent, and must be `3`",
            "  differs  ref: it is `refs/heads/x\\u{1b}[2J`, and must be `refs/heads/main`",
            "  fits     team: `web`",
            "the caller `web`: every claim fits",
            "  fits     team: `web`",
            "the admin `ada`: not every claim fits",
            "  differs  email: it is absent, and must be `ada@acme.example`",
            "so its claims are those of the caller `web`",
        ]
    );
}

#[test]
fn why_a_token_is_nobodys_is_said() {
    let mut two = with("ref", json!("refs/heads/main"));
    two["level"] = json!(3);
    let later = Timestamp::from_millis((SECONDS + 330) * 1000);
    for (claims, now, expected) in [
        (
            two,
            NOW,
            "so its claims are those of several, and it is nobody's: the caller `both`, the caller `web`",
        ),
        (with("team", json!("shop")), NOW, "so its claims are those of no caller and no admin"),
        (with("team", json!(["web"])), NOW, "  differs  team: it is no plain value, and must be `web`"),
        (claims(), later, "it does not count: it has expired"),
        (
            with("aud", json!(["sigstore"])),
            NOW,
            "it does not count: it is for another audience: its `aud` is [\"sigstore\"]",
        ),
        (with("nbf", json!(SECONDS + 31)), NOW, "it does not count: it is from the future"),
        (
            with("event_name", json!("pull_request_target")),
            NOW,
            "it does not count: it is of a pipeline that anybody could have started: `pull_request_target` runs with the rights of the base repository",
        ),
        (
            with("iss", json!("https://id.acme.example/")),
            NOW,
            "its issuer is none of the access file's: it is `https://id.acme.example/`, and those are",
        ),
    ] {
        let Explained { lines, counts } = explained(&claims, now);
        assert!(!counts && lines.iter().any(|line| line == expected), "{expected}: {lines:#?}");
    }
}

#[test]
fn what_is_no_token_is_not_explained() {
    for text in ["", "cs_00", "a.b.c"] {
        assert!(explain(&Access::default(), text, NOW).is_err(), "{text}");
    }
}
