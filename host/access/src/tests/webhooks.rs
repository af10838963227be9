//! Webhooks, sound and wrong.

use std::fs;
use std::sync::Arc;

use countersign_core::lifecycle::Milestone;
use countersign_dispatch::Reach;

use super::*;

const SECRET: &str = "whsec_Y291bnRlcnNpZ24gd2ViaG9vayBzZWNyZXQgMzIgYnl0ZXM=";

fn read_with(webhook: &str) -> Result<Access, String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("good"), SECRET).unwrap();
    fs::write(folder.path().join("bad"), "hunter2").unwrap();
    let text = format!(
        "version: 1\ncallers:\n  a: {{ keys: [{{ sha256: \"{:064}\" }}], requester: machine, actions: [deploy] }}\n\
         webhooks:\n  lake: {{ {webhook} }}\n",
        7
    );
    Access::read(&folder.path().join("access.yaml"), &text).map_err(|errors| errors.to_string())
}

#[test]
fn a_webhook_says_what_it_is_told() {
    let access = read_with("url: https://lake.example/in, secret_file: good").unwrap();
    let all = &access.webhooks()["lake"];
    assert!(Milestone::ALL.into_iter().all(|milestone| all.wants("deploy", milestone)));
    assert_eq!((all.reach, all.shows_parameters), (Reach::Public, false));
    assert!(all.secret_file.is_absolute());

    let some = "url: \"http://[::1]:9/\", secret_file: good, events: [decided, outcome], actions: [\"de*\"], \
                allow_private: true, parameters: shown";
    let some = Arc::clone(&read_with(some).unwrap().webhooks()["lake"]);
    assert!(some.wants("deploy", Milestone::Decided) && some.wants("destroy", Milestone::Outcome));
    assert!(!some.wants("deploy", Milestone::Created) && !some.wants("rotate", Milestone::Decided));
    assert_eq!((some.reach, some.shows_parameters), (Reach::Private, true));
}

#[test]
fn the_name_of_a_webhook_can_be_part_of_an_id() {
    let text = "version: 1\ncallers: {}\nwebhooks:\n  a.b: {}\n  c:d: {}\n";
    let said = Access::read(Path::new("access.yaml"), text).unwrap_err().to_string();
    for name in ["a.b", "c:d"] {
        assert!(said.contains(&format!("`{name}` names a webhook, so it has no `.` and no `:`")), "{said}");
    }
}

#[test]
fn what_is_wrong_with_a_webhook_is_said_without_its_secrets() {
    let url = "url: https://lake.example/in";
    for (webhook, why) in [
        ("secret_file: good".to_owned(), "`url` is missing"),
        (url.to_owned(), "`secret_file` is missing"),
        (format!("{url}, secret_file: none"), "the secret file cannot be read"),
        (format!("{url}, secret_file: bad"), "line 1 of the secret file is neither"),
        (format!("{url}, secret_file: {SECRET}"), "this is a secret itself"),
        ("url: http://lake.example/hunter2, secret_file: good".to_owned(), "must begin with `https://`"),
        ("url: https://x:hunter2@lake.example/, secret_file: good".to_owned(), "a user or a password"),
        ("url: http://127.0.0.1/hunter2, secret_file: good".to_owned(), "say `allow_private: true`"),
        ("url: https://192.168.0.1/hunter2, secret_file: good".to_owned(), "a private address"),
        (
            "url: https://169.254.169.254/, secret_file: good, allow_private: true".to_owned(),
            "never connected to",
        ),
        (format!("{url}, secret_file: good, events: [made]"), "`made` is no event; there are `created`"),
        (format!("{url}, secret_file: good, events: []"), "`events` is an empty list"),
        (format!("{url}, secret_file: good, actions: [\" \"]"), "is blank, so it is no action"),
        (format!("{url}, secret_file: good, parameters: all"), "`parameters` is `hidden`, or `shown`"),
        (format!("{url}, secret_file: good, allow_private: maybe"), "`allow_private`"),
        (format!("{url}, secret_file: good, secret: x"), "`secret`"),
    ] {
        let said = read_with(&webhook).expect_err(&webhook);
        assert!(said.contains(why) && said.contains("access.yaml:5:"), "{webhook}: {said}");
        assert!(!said.contains("hunter2") && !said.contains("Y291bnRl"), "{said}");
    }
}
