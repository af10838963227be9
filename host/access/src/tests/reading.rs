//! Access files, sound and wrong.

use tempfile::TempDir;

use super::issuer::{SigningKey, key_set};
use super::*;

const SOUND: &str = r#"
version: 1
issuers:
  github: { issuer: https://token.actions.githubusercontent.com, audience: countersign }
  local: { issuer: https://id.acme.example, audience: countersign, jwks: keys.json, keep: 2d }
callers:
  web-deploys:
    oidc: { issuer: github, claims: { repository_id: "4711", event_name: [push, workflow_dispatch] } }
    requester: { source: github, id: "{actor}" }
    actions: ["deploy_*"]
    limits: { open: 50, open_per_action: 9, per_minute: 30 }
  nightly:
    keys:
      - { sha256: 51d0000000000000000000000000000000000000000000000000000000000000, until: 2027-01-31 }
      - { sha256: 51d0000000000000000000000000000000000000000000000000000000000001 }
    requester: machine
    owners: [dana, U0RITA]
    actions: rotate_secret
people:
  dana: { slack: [U0DANA, W0DANA], github: dana-d, email: dana@acme.example }
"#;

/// The folder of an access file, with the key file that [`SOUND`] names.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("keys.json"), key_set(&[&SigningKey::ed25519("a")])).unwrap();
    folder
}

fn read_in(folder: &Path, text: &str) -> Result<Access, String> {
    Access::read(&folder.join("access.yaml"), text).map_err(|errors| errors.to_string())
}

#[test]
fn a_sound_file_says_who_may_ask_for_what() {
    let access = read_in(folder().path(), SOUND).unwrap();
    let caller = access.caller("web-deploys").unwrap();
    assert!(caller.may_ask_for("deploy_prod") && !caller.may_ask_for("rotate_secret"));
    assert_eq!((caller.open, caller.open_per_action, caller.per_minute), (Some(50), Some(9), Some(30)));
    let nightly = access.caller("nightly").unwrap();
    assert_eq!(nightly.requester, RequesterRule::Machine);
    assert_eq!(nightly.owners.iter().map(String::as_str).collect::<Vec<_>>(), ["U0RITA", "dana"]);
    assert_eq!(access.people().find("github:dana-d").unwrap().name, "dana");
    assert!(access.people().find("email:dana@acme.example").is_some());
    assert_eq!(access.callers().count(), 2);
}

/// Each row takes something away or puts something in, and names what the error must say and where.
#[test]
fn what_is_wrong_is_said_with_its_place() {
    let key = "51d0000000000000000000000000000000000000000000000000000000000000";
    let folder = folder();
    let start = format!("{}/access.yaml:", folder.path().display());
    for (from, to, expected) in [
        ("version: 1", "version: 2", ":2:10: `version`"),
        ("version: 1\n", "", "`version` is missing"),
        ("callers:", "caller:", "has no field `caller`; did you mean `callers`?"),
        ("actions: rotate_secret", "action: rotate_secret", "has no field `action`; did you mean `actions`?"),
        ("    actions: rotate_secret\n", "", "the caller `nightly` has no `actions`"),
        ("requester: machine", "requester: somebody", "but not `somebody`"),
        ("    requester: machine\n", "", "the caller `nightly` has no `requester`"),
        ("id: \"{actor}\"", "id: actor", "names no claim"),
        ("issuer: github,", "issuer: gitlab,", "`issuers` has no `gitlab`"),
        ("{ repository_id: \"4711\", event_name: [push, workflow_dispatch] }", "{}", "`claims` is missing"),
        ("repository_id: \"4711\"", "ref: refs/heads/main", "match `repository_id` or `repository_owner_id`"),
        ("repository_id: \"4711\"", "repository_id: \"4711\", sub: x", "`sub` of GitHub"),
        (
            "[push, workflow_dispatch]",
            "[pull_request_target]",
            "`pull_request_target` runs what strangers wrote",
        ),
        (key, "cs_00", "this is a key itself"),
        (key, "51D0", "64 hexadecimal digits in lower case"),
        ("000001 }", "000000 }", "this key is one of the caller `nightly` already"),
        ("2027-01-31", "2027-02-31", "neither a day"),
        (
            "owners: [dana, U0RITA]",
            "owners: [dina]",
            "the owner `dina` is neither in `people` nor a Slack id",
        ),
        ("open: 50", "open: 0", "`open`"),
        ("W0DANA", "w0dana", "`w0dana` is no Slack id"),
        ("W0DANA", "U0DANA", "`U0DANA` is listed twice"),
        ("github: dana-d,", "github: \" dana-d\",", "has spaces around it"),
        ("people:\n", "people:\n  rita: { slack: U0DANA }\n", "`U0DANA` is the person `rita` already"),
        ("people:\n", "people:\n  U0RITA: { slack: U0RITA }\n", "looks like an id of another system"),
        ("people:\n", "people:\n  rita: {}\n", "the person `rita` has no name anywhere"),
        ("  nightly:\n", "  web-deploys:\n", "the key `web-deploys` comes twice"),
        ("jwks: keys.json", "jwks: http://id.acme.example/keys", "must be an `https` URL"),
        ("issuer: https://id.acme.example", "issuer: http://id.acme.example", ""),
        ("audience: countersign, jwks", "audience: \"\", jwks", "`audience` is empty"),
        ("keep: 2d", "keep: 2", "`keep`"),
        (
            "issuer: https://token.actions.githubusercontent.com",
            "issuer: https://gitlab.com",
            "match `project_id` or `namespace_id`",
        ),
        // What loads, and could then never work.
        ("source: github,", "source: machine,", ":9:26: `machine` is no source of ids"),
        ("source: github,", "source: GitHub,", "is of the source `GitHub`"),
        ("source: github, id: \"{actor}\"", "source: slack, id: \"u{actor}\"", "whatever the claims are"),
        (
            "source: github, id: \"{actor}\"",
            "source: slack, id: \"{team}-{actor}\"",
            "`{team}-{actor}` is no Slack id",
        ),
        ("source: github, id: \"{actor}\"", "source: slack, id: \"U{actor}\"", ""),
        ("id: \"{actor}\"", "id: \" {actor}\"", "`id` has spaces around it"),
        ("id: \"{actor}\"", "id: \"{actor}\\u0007x\"", "has control characters"),
        (
            "    requester: { source: github",
            "    keys: [{ sha256: 51d0000000000000000000000000000000000000000000000000000000000009 }]\n    requester: { source: github",
            ":9:11: a key has no claims",
        ),
        ("actions: rotate_secret", "actions: \" \"", "is blank, so it is no action"),
        ("actions: rotate_secret", "actions: \"rotate\\n*\"", "has control characters, so it is no action"),
        ("repository_id: \"4711\"", "repository_id: \"4711\", aud: sigstore", "its `aud` is the `audience`"),
        ("repository_id: \"4711\"", "repository_id: \"4711\", aud: [sigstore, countersign]", ""),
        ("repository_id: \"4711\"", "repository_id: \"4711\", iss: github", "its `iss` is the `issuer`"),
        (
            "issuer: github, claims: { repository_id: \"4711\", event_name: [push, workflow_dispatch] }",
            "issuer: local, claims: { event_name: pull_request_target }",
            "one of `pull_request_target` is always refused",
        ),
        (
            "issuer: github, claims: { repository_id: \"4711\",",
            "issuer: local, claims: { project_id: \"4711\", ref_protected: \"false\",",
            "needs `ref_protected: \"true\"`",
        ),
        (
            "githubusercontent.com, aud",
            "githubusercontent.com/, aud",
            "tokens of GitHub have `https://token.actions.githubusercontent.com`",
        ),
        ("repository_id: \"4711\"", "repository_id: \"4711\", ref: \"refs/tags/*\"", "it is no pattern"),
        ("repository_id: \"4711\"", "repository_id: [\"4711\", \"48*\"]", "`48*` has a `*`"),
        ("github: dana-d", "github: dana d", "`dana d` has spaces in it"),
        ("dana@acme.example", "dana.acme.example", "`dana.acme.example` is no e-mail address"),
        (
            "audience: countersign, jwks",
            "audience: \"countersign \", jwks",
            "`audience` has spaces around it",
        ),
        ("jwks: keys.json", "jwks: \"\"", "`jwks` is empty"),
    ] {
        let text = SOUND.replacen(from, to, 1);
        assert_ne!(text, SOUND, "{from}");
        let errors = read_in(folder.path(), &text).map(drop);
        if expected.is_empty() {
            assert_eq!(errors, Ok(()), "{to}");
            continue;
        }
        let errors = errors.expect_err(to);
        assert!(errors.contains(expected) && errors.starts_with(&start), "{to}: {errors}");
    }
}

/// GitHub and gitlab.com have tokens for anybody, and a slash at the end would make every rule of no use.
#[test]
fn an_issuers_rules_hold_however_it_is_spelt() {
    let read = |issuer: &str, claims: &str| {
        let text = format!(
            "version: 1\nissuers: {{ ci: {{ issuer: \"{issuer}\", audience: countersign }} }}\n\
             callers:\n  web: {{ oidc: {{ issuer: ci, claims: {{ {claims} }} }}, requester: machine, actions: \"*\" }}\n"
        );
        Access::read(Path::new("access.yaml"), &text).map(drop).map_err(|errors| errors.to_string())
    };
    let github = [
        "https://token.actions.githubusercontent.com",
        "https://token.actions.githubusercontent.com/acme-inc",
        "https://token.actions.acme.ghe.com",
        "https://github.acme.example/_services/token",
    ];
    let wrong = "event_name: [push, pull_request_target], sub: \"repo:acme/web:*\"";
    let right = "repository_id: \"4711\", event_name: push";
    for issuer in github {
        let errors = read(issuer, wrong).unwrap_err();
        let expected =
            ["`sub` of GitHub", "`repository_id` or", "runs what strangers wrote", "it is no pattern"];
        assert!(expected.iter().all(|said| errors.contains(said)), "{issuer}: {errors}");
        assert_eq!(errors.lines().count(), expected.len(), "{issuer}: {errors}");
        assert_eq!(read(issuer, right), Ok(()), "{issuer}");
    }
    for issuer in github.iter().chain(&["https://gitlab.com"]) {
        let errors = read(&format!("{issuer}/"), "project_id: \"815\", repository_id: \"4711\"").unwrap_err();
        assert!(errors.contains(":2:26: ") && errors.contains(&format!("have `{issuer}`")), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
    // Others may have one.
    assert_eq!(read("https://acme.eu.auth0.com/", wrong), Ok(()));
}

/// Each row takes something away or puts something in, and names what the warning must say and where.
#[test]
fn what_may_not_do_what_was_meant_is_a_warning() {
    let folder = folder();
    let warnings = |text: &str| -> Vec<String> {
        read_in(folder.path(), text).unwrap().warnings(NOW).map(ToString::to_string).collect()
    };
    assert_eq!(warnings(SOUND), [""; 0]);
    for (from, to, expected) in [
        (
            "2027-01-31",
            "2026-02-28",
            ":14:92: the end of this API key of the caller `nightly` is 2026-03-01T00:00:00.000Z: make another one",
        ),
        // Fourteen days before.
        ("2027-01-31", "2026-03-15T12:00:00Z", ":14:92: the end of this API key"),
        ("2027-01-31", "2026-03-15T12:00:01Z", ""),
        ("    owners: [dana, U0RITA]\n", "", ":12:3: the caller `nightly` is a machine without `owners`"),
        ("\"{actor}\"", "\"{actorid}\"", ":9:16: tokens of GitHub are not known to have the claim `actorid`"),
        ("\"{actor}\"", "\"{actor_idd}\"", "did you mean `actor_id`?"),
        ("repository_id: \"4711\"", "repository_id: \"4711\", envronment: x", "did you mean `environment`?"),
        ("repository_id: \"4711\"", "repository_id: \"4711\", repo_property_team: x", ""),
        ("\"{actor}\"", "\"{actor_id}\"", ":20:3: `dana` is never a requester of the caller `web-deploys`"),
        ("\"{actor}\" }", "\"{actor_id}\" }\n    # ", ":21:3: `dana` is never a requester"),
        ("\"{actor}\"", "\"x{actor_id}\"", ""),
        (
            "issuer: github, claims: { repository_id: \"4711\",",
            "issuer: local, claims: { scope: \"*\",",
            "`*` has a `*`: all of the claim `scope` is compared",
        ),
    ] {
        let text = SOUND.replacen(from, to, 1);
        assert_ne!(text, SOUND, "{from}");
        let found = warnings(&text);
        if expected.is_empty() {
            assert_eq!(found, [""; 0], "{to}");
            continue;
        }
        assert!(found.len() == 1 && found[0].contains(expected), "{to}: {found:?}");
    }
    let both = SOUND.replace("\"{actor}\"", "\"{actor_id}\"").replace("dana-d", "[dana-d, \"583231\"]");
    assert_eq!(warnings(&both), [""; 0]);
    let gate = "version: 1\ncallers:\n  web: { gate: { system: github, claims: { repository_id: 1 }, action: deploy } }\n\
                people:\n  dana: { github: dana-d }\n";
    assert!(warnings(gate)[0].contains("(`sender_id`)"), "{:?}", warnings(gate));
}

#[test]
fn warnings_hold_no_digest() {
    let digest = ApiKey::generate().unwrap().digest().to_string();
    let claims = format!("issuer: local, claims: {{ team: \"{digest}*\",");
    let text = SOUND.replacen("issuer: github, claims: { repository_id: \"4711\",", &claims, 1);
    let access = read_in(folder().path(), &text).unwrap();
    let warnings: Vec<String> = access.warnings(NOW).map(ToString::to_string).collect();
    assert!(warnings.len() == 1 && !warnings[0].contains(&digest), "{warnings:?}");
}

#[test]
fn actions_that_the_policy_set_lacks_are_named() {
    let access = read_in(folder().path(), SOUND).unwrap();
    assert_eq!(access.idle_actions(&["deploy_prod", "rotate_secret", "other"]), [""; 0]);
    let idle = access.idle_actions(&["deploy-prod", "rotate_secrets"]);
    assert_eq!(
        idle,
        [
            "the caller `nightly` may ask for `rotate_secret`, and the policy set has no such action; did you mean `rotate_secrets`?",
            "the caller `web-deploys` may ask for `deploy_*`, and the policy set has no such action",
        ]
    );
}

/// What was refused is not said to be missing where it is referred to.
#[test]
fn one_fault_is_one_error() {
    let folder = folder();
    for (from, to, expected) in [
        // An issuer.
        ("issuer: https://token.actions.githubusercontent.com, ", "", "`issuer` is missing"),
        ("githubusercontent.com, audience: countersign", "githubusercontent.com", "`audience` is missing"),
        ("githubusercontent.com, aud", "githubusercontent.com, jwks: 7, aud", "`jwks`"),
        ("issuer: github,", "issuer: gitlab,", "`issuers` has no `gitlab`"),
        // Claims.
        (
            "\"4711\", event_name: [push, workflow_dispatch] }",
            "[], event_name: push }",
            "`repository_id` can have",
        ),
        (
            "claims: { repository_id: \"4711\", event_name: [push, workflow_dispatch] }",
            "claims: [push]",
            "a map",
        ),
        (
            "oidc: { issuer: github, claims",
            "oidc: { isuer: local, issuer: github, claims",
            "no field `isuer`",
        ),
        // A person.
        ("slack: [U0DANA, W0DANA]", "slck: U0DANA", "no field `slck`"),
        (
            "{ slack: [U0DANA, W0DANA], github: dana-d, email: dana@acme.example }",
            "U0DANA",
            "a person must be",
        ),
        (
            "{ slack: [U0DANA, W0DANA], github: dana-d, email: dana@acme.example }",
            "{ slack: u1 }",
            "`u1` is no",
        ),
        ("people:\n", "people:\n  rita: { slack: U0DANA }\n", "`U0DANA` is the person `rita` already"),
        (
            "people:\n  dana: { slack: [U0DANA, W0DANA], github: dana-d, email: dana@acme.example }",
            "people: []",
            "a map",
        ),
        ("owners: [dana,", "owners: [dina,", "the owner `dina`"),
    ] {
        let text = SOUND.replacen(from, to, 1);
        assert_ne!(text, SOUND, "{from}");
        let errors = read_in(folder.path(), &text).map(drop).expect_err(to);
        assert!(errors.contains(expected) && errors.lines().count() == 1, "{to}:\n{errors}");
    }
    // An owner by another name of somebody who was refused.
    let text = SOUND.replace("owners: [dana,", "owners: [\"github:dana-d\",");
    let text = text.replace("people:\n", "people:\n  rita: { slack: U0DANA }\n");
    let errors = read_in(folder.path(), &text).map(drop).unwrap_err();
    assert_eq!(errors.lines().count(), 1, "{errors}");
    let unread = SOUND.replacen("issuers:\n", "issuers: []\nissuer_s:\n", 1);
    let errors = read_in(folder.path(), &unread).map(drop).unwrap_err();
    assert!(!errors.contains("has no `github`"), "{errors}");
}

/// The same for what a gate is recognised by.
#[test]
fn claims_of_a_gate_that_were_not_read_are_not_said_to_be_missing() {
    let text = "version: 1\ncallers:\n  gate: { gate: { system: github, claims: [x], action: deploy } }\n";
    let errors = Access::read(Path::new("access.yaml"), text).map(drop).unwrap_err().to_string();
    assert!(errors.contains("a map") && errors.lines().count() == 1, "{errors}");
}

#[test]
fn errors_hold_no_key_and_no_digest() {
    let key = ApiKey::generate().unwrap();
    let digest = key.digest().to_string();
    for place in ["requester: machine", "U0RITA", "2027-01-31", "web-deploys", "\"{actor}\"", "rotate_secret"]
    {
        for secret in [key.reveal(), digest.as_str()] {
            let text = SOUND.replacen(place, secret, 1);
            if let Err(errors) = Access::read("access.yaml".as_ref(), &text) {
                let secret = secret.trim_start_matches(PREFIX);
                assert!(!errors.to_string().contains(secret), "{place}: {errors}");
            }
        }
    }
}

#[test]
fn no_callers_tokens_are_all_somebody_elses() {
    let folder = folder();
    let check = |other: &str| {
        let caller = format!("callers:\n  other: {{ oidc: {other}, requester: machine, actions: \"*\" }}\n");
        read_in(folder.path(), &SOUND.replacen("callers:\n", &caller, 1)).map(drop)
    };
    for (rule, at) in [
        (
            "{ issuer: github, claims: { repository_id: \"4711\" } }",
            ":8:3: every token of the caller `web-deploys`",
        ),
        ("{ issuer: github, claims: { repository_id: [\"4711\", \"4712\"] } }", ":8:3: "),
        (
            "{ issuer: github, claims: { repository_id: \"4711\", event_name: push } }",
            ":7:3: every token of the caller `other` is also one of the caller `web-deploys`",
        ),
        (
            "{ issuer: github, claims: { repository_id: \"4711\", event_name: [push, workflow_dispatch] } }",
            ":7:3: ",
        ),
    ] {
        let errors = check(rule).expect_err(rule);
        assert!(errors.contains(at), "{rule}: {errors}");
    }
    // These have some tokens in common, or none.
    for rule in [
        "{ issuer: github, claims: { repository_id: \"4711\", ref: refs/heads/main } }",
        "{ issuer: github, claims: { repository_id: \"4712\" } }",
        "{ issuer: local, claims: { repository_id: \"4711\" } }",
    ] {
        assert_eq!(check(rule), Ok(()), "{rule}");
    }
}

#[test]
fn a_file_with_several_faults_names_each() {
    let text = "version: 1\ncallers:\n  a: { requester: x }\n  b: { actions: y }\n";
    let errors = Access::read(Path::new("access.yaml"), text).map(drop).unwrap_err();
    assert!(errors.0.len() >= 3, "{errors}");
    for text in ["", "[]", "callers: [", "version: 1\ncallers: {}\ncallers: {}\n"] {
        assert!(Access::read(Path::new("access.yaml"), text).is_err(), "{text}");
    }
}

#[test]
fn key_files_are_beside_the_access_file_and_checked_with_it() {
    let folder = folder();
    let keys = folder.path().join("keys.json");
    let absolute = SOUND.replace("jwks: keys.json", &format!("jwks: {}", keys.display()));
    let elsewhere = tempfile::tempdir().unwrap();
    read_in(elsewhere.path(), &absolute).unwrap();
    let without = read_in(elsewhere.path(), SOUND).map(drop).unwrap_err();
    let place = format!("{}/access.yaml:5:74: `{0}/keys.json`", elsewhere.path().display());
    assert!(without.starts_with(&place) && without.contains("cannot be read"), "{without}");

    let long = vec![b' '; (1 << 20) + 1];
    let symmetric = br#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#;
    for (content, expected) in [
        (b"not JSON".as_slice(), "it is no JSON Web Key Set"),
        (b"{}", "it is no JSON Web Key Set"),
        (symmetric, "it has no key that signatures of tokens can be checked with"),
        (&long, "has more than 1048576 bytes"),
    ] {
        std::fs::write(&keys, content).unwrap();
        let error = read_in(folder.path(), SOUND).map(drop).unwrap_err();
        assert!(error.contains(":5:74: ") && error.contains(expected), "{error}");
    }
    std::fs::remove_file(&keys).unwrap();
    std::fs::create_dir(&keys).unwrap();
    assert!(read_in(folder.path(), SOUND).map(drop).unwrap_err().contains("cannot be read"));
}
