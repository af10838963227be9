//! Admins of the access file, and what sets them apart from callers.

use super::authenticating::{claims, file, with};
use super::issuer::{SigningKey, key_set};
use super::*;

const KEY: &str = "51d0000000000000000000000000000000000000000000000000000000000000";
const OTHER: &str = "51d0000000000000000000000000000000000000000000000000000000000001";

/// A caller and two admins.
fn sound() -> String {
    format!(
        "version: 1\n\
         issuers: {{ acme: {{ issuer: https://id.acme.example, audience: countersign }} }}\n\
         callers:\n  \
         nightly: {{ oidc: {{ issuer: acme, claims: {{ team: [web, db] }} }}, keys: [{{ sha256: {KEY} }}], requester: machine, actions: \"*\" }}\n\
         admins:\n  \
         ada: {{ oidc: {{ issuer: acme, claims: {{ email: ada@acme.example }} }}, roles: [read, operate, activate] }}\n  \
         nightly: {{ keys: [{{ sha256: {OTHER}, until: 2027-01-31 }}], roles: read }}\n"
    )
}

#[test]
fn admins_have_roles_and_names_of_their_own() {
    let access = read(&sound());
    let admins: Vec<_> = access.admins().map(|admin| (&*admin.name, &admin.roles)).collect();
    assert_eq!(admins, [("ada", &Role::ALL.into()), ("nightly", &[Role::Read].into())]);
    assert_eq!(access.callers().count(), 1);
    let without = sound().split("admins:").next().unwrap().to_owned();
    for text in [without.clone(), format!("{without}admins: {{}}\n")] {
        assert_eq!(read(&text).admins().count(), 0);
    }
}

#[test]
fn a_name_that_the_file_does_not_take_is_refused_before_a_key_is_made_for_it() {
    for name in ["ada", "web-deploys", "a.b:c"] {
        assert_eq!(holder_name(name), Ok(name.to_owned()));
    }
    for (name, why) in
        [("a b", "a name is 1 to 64"), ("", "a name is 1 to 64"), ("admin-token", "another name")]
    {
        let refused = holder_name(name).expect_err(name);
        assert!(refused.contains(why), "{name}: {refused}");
        let text = sound().replacen("  ada: ", &format!("  \"{name}\": "), 1);
        let errors = Access::read("access.yaml".as_ref(), &text).map(drop).expect_err(name).to_string();
        assert!(errors.contains(&refused), "{name}: {errors}");
    }
}

#[test]
fn what_is_wrong_with_an_admin_is_said_with_its_place() {
    for (from, to, expected) in [
        (
            "roles: read }",
            "roles: reed }",
            ":7:126: `reed` is no role; there are `read`, `operate`, `activate`",
        ),
        ("[read, operate, activate]", "[read, Activate]", "`Activate` is no role"),
        ("[read, operate, activate]", "[read, read]", "`read` is listed twice"),
        ("[read, operate, activate]", "[]", "`roles` is an empty list"),
        ("[read, operate, activate]", "{ read: true }", ":6:78: `roles` must be text"),
        (", roles: read }", " }", ":7:3: the admin `nightly` has no `roles`"),
        ("roles: read }", "role: read }", "an admin has no field `role`; did you mean `roles`?"),
        ("roles: read }", "roles: read, actions: \"*\" }", "an admin has no field `actions`"),
        (
            "oidc: { issuer: acme, claims: { email: ada@acme.example } }, ",
            "",
            ":6:3: the admin `ada` has neither",
        ),
        ("claims: { email: ada@acme.example }", "claims: {}", "`claims` is missing"),
        ("  ada:", "  a/da:", "an admin"),
        ("  ada:", "  admin-token:", ":6:3: `admin-token` is the holder of `ADMIN_TOKEN`"),
        (OTHER, KEY, ":7:31: this key is one of the caller `nightly` already"),
        (
            "email: ada@acme.example",
            "team: [web, db]",
            "is also one of the caller `nightly`, and a token of two",
        ),
        ("email: ada@acme.example", "team: [web, db]", "is also one of the admin `ada`, and a token of two"),
        (
            "email: ada@acme.example",
            "team: web",
            ":6:3: every token of the admin `ada` is also one of the caller `nightly`",
        ),
        ("  nightly: { keys", "  ada: { keys", "the key `ada` comes twice"),
    ] {
        let text = match from {
            "  nightly: { keys" => sound().replace(from, to),
            _ => sound().replacen(from, to, 1),
        };
        assert_ne!(text, sound(), "{from}");
        let errors = Access::read("access.yaml".as_ref(), &text).map(drop).expect_err(to).to_string();
        assert!(errors.contains(expected), "{to}: {errors}");
    }
}

/// Each key of a caller but the last may end.
#[test]
fn the_end_of_a_last_key_is_known() {
    let key = |number: u32, until: &str| format!("{{ sha256: \"{number:064x}\"{until} }}");
    let keys = |ends: &[&str], first: u32| {
        let ends = (first..).zip(ends);
        let keys: Vec<String> = ends
            .map(|(number, end)| {
                key(number, &if end.is_empty() { String::new() } else { format!(", until: {end}") })
            })
            .collect();
        keys.join(", ")
    };
    let times = |one: &[&str], other: &[&str], admin: &[&str]| {
        let rest = "requester: machine, actions: \"*\"";
        let access = read(&format!(
            "version: 1\ncallers:\n  one: {{ keys: [{}], {rest} }}\n  other: {{ keys: [{}], {rest} }}\nadmins:\n  \
             one: {{ keys: [{}], roles: read }}\n",
            keys(one, 1),
            keys(other, 100),
            keys(admin, 200),
        ));
        let (callers, admins) = access.keys_end(NOW);
        [callers, admins].map(|end| end.map(|end| end.to_string()[..10].to_owned()).unwrap_or_default())
    };
    // It is the 1st of March of 2026, and a key lasts to the end of its day.
    assert_eq!(times(&[""], &[""], &[""]), ["", ""]);
    assert_eq!(times(&["2026-04-30"], &[""], &[""]), ["2026-05-01", ""]);
    assert_eq!(times(&["2026-04-30"], &["2026-03-30", "2026-04-04"], &[""]), ["2026-04-05", ""]);
    assert_eq!(times(&["2026-04-30", ""], &["", "2026-03-30"], &["2026-03-02"]), ["", "2026-03-03"]);
    // Whoever has none left is not told of for ever.
    assert_eq!(times(&["2026-02-01", "2026-02-20"], &["2026-04-30"], &["2026-02-01"]), ["2026-05-01", ""]);
}

/// Who a bearer is: `caller NAME`, `admin NAME`, or why it is nobody.
async fn holder(authenticator: &Authenticator, bearer: &str) -> Result<String, Unauthenticated> {
    authenticator.holder(bearer, at(NOW)).await.map(|holder| match holder {
        Holder::Caller(found) => format!("caller {}", found.caller.name),
        Holder::Admin(admin) => format!("admin {}", admin.name),
    })
}

#[tokio::test]
async fn an_admin_is_recognised_like_a_caller_and_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let jwks = folder.path().join("keys.json").display().to_string();
    let signing = SigningKey::ed25519("a");
    std::fs::write(&jwks, key_set(&[&signing])).unwrap();
    let (callers, admins) = (ApiKey::generate().unwrap(), ApiKey::generate().unwrap());
    let text = format!(
        "{}  job: {{ keys: [{{ sha256: {} }}], requester: machine, actions: \"*\" }}\n\
         admins:\n  \
         ada: {{ keys: [{{ sha256: {}, until: 2026-03-01 }}], oidc: {{ issuer: acme, claims: {{ email: ada@acme.example }} }}, roles: read }}\n",
        file(&jwks),
        callers.digest(),
        admins.digest(),
    );
    let authenticator = Authenticator::new(read(&text));
    let ada = signing.token(&{
        let mut claims = with("email", json!("ada@acme.example"));
        claims["team"] = json!("security");
        claims
    });
    // The second time the token is remembered.
    for _ in 0..2 {
        for (bearer, expected) in [
            (callers.reveal(), "caller job"),
            (admins.reveal(), "admin ada"),
            (&signing.token(&claims()), "caller web"),
            (&ada, "admin ada"),
        ] {
            assert_eq!(holder(&authenticator, bearer).await.as_deref(), Ok(expected));
            let caller = authenticator.identify(bearer, at(NOW)).await.map(|found| found.caller.name.clone());
            match expected.strip_prefix("caller ") {
                Some(name) => assert_eq!(caller.as_deref(), Ok(name)),
                None => assert_eq!(caller, Err(Unauthenticated::NotACaller)),
            }
        }
    }
    // What is a caller's and an admin's is nobody's.
    let both = signing.token(&with("email", json!("ada@acme.example")));
    assert_eq!(holder(&authenticator, &both).await, Err(Unauthenticated::Several));
    let nobody = signing.token(&with("team", json!("db")));
    assert_eq!(holder(&authenticator, &nobody).await, Err(Unauthenticated::Nobody));
    let ended = authenticator.holder(admins.reveal(), at(NOW.plus(12 * 3_600_000))).await.map(drop);
    assert_eq!(ended, Err(Unauthenticated::KeyEnded));
    // An admin who was taken out of the file counts no longer.
    authenticator.replace(read(&text.replace("ada@acme.example", "rita@acme.example")));
    assert_eq!(holder(&authenticator, &ada).await, Err(Unauthenticated::Nobody));
}
