//! Policy sets that somebody is still writing, and every way to say that all of one is there.

use std::io::Write as _;

use super::*;
use crate::policy_sets::notices::Notices;

/// A set with two actions; the first one has two policies, and a schema.
fn full() -> String {
    format!(
        "version: 1
modules: {{ quorum: sha256:{} }}
actions:
  deploy:
    timeout: 10m
    redact: {{ show: [ref] }}
    policies:
      - use: quorum
        with: {{ approvers: [U1, U2, U3], approvals: 1 }}
      - use: quorum
        with:
          approvers: [U4, U5]
          approvals: 2
  drop_table:
    policies:
      - use: quorum
        with: {{ approvers: [U1, U2], approvals: 2 }}
",
        Digest::of(&quorum())
    )
}

/// The part before this one.
fn until(text: &str, part: &str) -> String {
    text[..text.find(part).unwrap()].to_owned()
}

impl House {
    /// In a folder with the full set in force.
    async fn full() -> House {
        let folder = tempfile::tempdir().unwrap();
        let policies = folder.path().join("policies");
        write(&policies, &full());
        fs::create_dir(policies.join("schemas")).unwrap();
        fs::write(policies.join("schemas/deploy.json"), r#"{"type": "object"}"#).unwrap();
        House::in_folder(folder, nowhere()).await
    }

    fn put(&self, file: &str, content: &str) {
        fs::write(self.policies().join(file), content).unwrap();
    }

    /// As `sha256sum` writes it for these files.
    fn manifest(&self, files: &[&str]) {
        let line =
            |file: &&str| format!("{}  {file}\n", Digest::of(&fs::read(self.policies().join(file)).unwrap()));
        self.put("policy-set.yaml.sha256", &files.iter().map(line).collect::<String>());
    }

    fn policies_of_deploy(&self) -> usize {
        self.sets.policies().active().action("deploy").unwrap().entry().policies.len()
    }

    #[track_caller]
    fn held(&self, changed: &Result<Option<Changed>, ChangeError>) -> String {
        let Err(error @ ChangeError::HeldBack(_)) = changed else { panic!("{changed:?}") };
        assert_eq!(self.sets.held_back(), error.faults());
        let told: Vec<_> = error.faults().iter().map(ChangeFault::to_string).collect();
        told.join("\n").replace(&format!("{}/", self.policies().display()), "")
    }
}

#[tokio::test]
async fn half_of_a_set_is_held_back_once_and_told() {
    let house = House::full().await;
    let first = house.active();
    // The second policy of the action is still to come; what there is is a valid set.
    let half = until(&full(), "      - use: quorum\n        with:\n");
    house.put("policy-set.yaml", &half);
    let told = house.held(&house.look_again(Known::Nothing).await);
    assert!(told.contains("policy-set.yaml:8:7: `actions.deploy.policies` has 1 of 2 items"), "{told}");
    assert!(told.contains("policy-set.yaml:4:3: `actions.drop_table` is missing"), "{told}");
    assert_eq!(house.active(), first);
    // It is not tried again as long as nothing changes.
    assert_eq!(house.look_again(Known::Nothing).await.unwrap(), None);
    assert_eq!(house.history().await, ["start start ok", "reload file held_back"]);
    assert_eq!(house.audited().await, ["policy_reloaded", "policy_reload_held_back"]);
    assert_eq!(house.counted(ChangeTrigger::File, ChangeOutcome::HeldBack).await, 1);
    let (_, change) = house.store.policy_changes(u64::MAX, 1).await.unwrap().swap_remove(0);
    assert!(change.to.is_some_and(|to| to != first), "it says which set it would be");
    // The rest comes.
    house.put("policy-set.yaml", &full());
    assert_eq!(house.look_again(Known::Nothing).await.unwrap().unwrap().outcome, ChangeOutcome::Unchanged);
    assert_eq!(house.sets.held_back(), []);
}

#[tokio::test]
async fn whatever_half_of_a_set_lacks_is_held_back() {
    let schema = |house: &House| fs::remove_file(house.policies().join("schemas/deploy.json")).unwrap();
    let house = House::full().await;
    let full = full();
    for (what, half) in [
        ("an action", until(&full, "  drop_table")),
        ("a key", full.replace("    redact: { show: [ref] }\n", "")),
        ("a timeout", full.replace("    timeout: 10m\n", "")),
        ("a person", full.replace("[U1, U2, U3]", "[U1, U2]")),
        ("a setting of a policy", full.replace(", approvals: 1", "")),
        ("the end of the last line", full.trim_end().to_owned()),
        (
            "the rest of a new action",
            format!(
                "{full}  new:\n    policies:\n      - use: quorum\n        with: {{ approvers: [U1] }}\n"
            ),
        ),
        (
            "the rest of a new policy",
            full.replace(
                "  drop_table",
                "      - use: quorum\n        with: { approvers: [U1] }\n  drop_table",
            ),
        ),
        ("what is less than unattended", full.replace("10m\n", "10m\n    unattended: true\n")),
    ] {
        let half = half.replace("U5", "U6");
        house.put("policy-set.yaml", &half);
        house.held(&house.look_again(Known::Nothing).await);
        // Only the text of it is doubtful.
        house.sets.changing.lock().await.folder = Digest::of(what.as_bytes());
        let changed = house.look_again(Known::Text).await;
        assert!(
            matches!(changed, Ok(Some(Changed { outcome: ChangeOutcome::Ok, .. }))),
            "{what}: {changed:?}"
        );
        house.put("policy-set.yaml", &full);
        house.reload().await.unwrap();
    }
    schema(&house);
    house.put("policy-set.yaml", &full.replace("approvals: 1", "approvals: 2"));
    for known in [Known::Nothing, Known::Text] {
        let told = house.held(&house.look_again(known).await);
        assert_eq!(told, "schemas/deploy.json: is missing");
    }
    assert!(house.look_again(Known::Everything).await.unwrap().is_some());
}

#[tokio::test]
async fn values_may_be_changed_in_place() {
    let house = House::full().await;
    house.put(
        "policy-set.yaml",
        &full().replace("[U1, U2, U3], approvals: 1", "[U7, U8, U9, U10], approvals: 3"),
    );
    let changed = house.look_again(Known::Nothing).await.unwrap().unwrap();
    assert_eq!(changed.outcome, ChangeOutcome::Ok);
}

#[tokio::test]
async fn a_manifest_says_that_all_of_it_is_there() {
    let house = House::full().await;
    let less = until(&full(), "  drop_table");
    house.put("policy-set.yaml", &less);
    house.manifest(&["policy-set.yaml"]);
    let told = house.held(&house.look_again(Known::Nothing).await);
    assert_eq!(told, "policy-set.yaml.sha256: it does not list `schemas/deploy.json`");
    house.manifest(&["policy-set.yaml", "schemas/deploy.json", "modules/quorum.wasm"]);
    assert!(house.sets.found(Known::Nothing).await.unwrap().whole);
    let changed = house.look_again(Known::Nothing).await.unwrap().unwrap();
    assert_eq!((changed.outcome, changed.actions), (ChangeOutcome::Ok, vec!["deploy".to_owned()]));
    // It is another set than the manifest says, however harmless, and however it came.
    house.put("policy-set.yaml", &less.replace("approvals: 1", "approvals: 2"));
    for known in [Known::Nothing, Known::Everything] {
        let told = house.held(&house.look_again(known).await);
        assert_eq!(told, "policy-set.yaml.sha256: `policy-set.yaml` has other bytes than it lists");
    }
    // Who asks for it knows.
    assert_eq!(house.reload().await.unwrap().outcome, ChangeOutcome::Ok);
    assert_eq!(house.sets.held_back(), []);
}

#[tokio::test]
async fn whoever_asks_for_a_set_gets_it() {
    let house = House::full().await;
    house.put("policy-set.yaml", &until(&full(), "  drop_table"));
    house.held(&house.look_again(Known::Nothing).await);
    let changed = house.reload().await.unwrap();
    assert_eq!((changed.outcome, changed.actions), (ChangeOutcome::Ok, vec!["deploy".to_owned()]));
    // So does a start.
    house.put("policy-set.yaml", &set(1));
    let house = house.restarted(|_| {}).await;
    assert_eq!(house.policies_of_deploy(), 1);
}

/// What is known of the folder after this, and whether anything was told.
async fn after(notices: &mut Notices, work: impl FnOnce()) -> Known {
    work();
    notices.next().await;
    notices.renew().unwrap();
    notices.known()
}

#[tokio::test]
async fn what_came_in_one_step_is_told_from_what_was_written_in_place() {
    let house = House::full().await;
    let (policies, root) = (house.policies(), house.folder.path().to_owned());
    let mut notices = Notices::of(&policies).unwrap();
    notices.renew().unwrap();
    assert_eq!(notices.known(), Known::Nothing);
    let (text, new) = (policies.join("policy-set.yaml"), policies.join("new"));
    let append = |to: &Path| {
        fs::OpenOptions::new().append(true).open(to).unwrap().write_all(b"# more\n").unwrap();
    };
    let moved = || {
        fs::write(&new, full()).unwrap();
        fs::rename(&new, &text).unwrap();
    };

    assert_eq!(after(&mut notices, moved).await, Known::Text, "it was moved in");
    assert_eq!(after(&mut notices, || append(&text)).await, Known::Nothing, "and then written in place");
    assert_eq!(after(&mut notices, || fs::write(&text, full()).unwrap()).await, Known::Nothing);
    assert_eq!(after(&mut notices, moved).await, Known::Text);
    // A process that begins while a file is written has it open, too, until it is another program.
    let moved_open = |more: &[u8]| {
        let mut file = fs::File::create(&new).unwrap();
        file.write_all(full().as_bytes()).unwrap();
        fs::rename(&new, &text).unwrap();
        file.write_all(more).unwrap();
    };
    assert_eq!(after(&mut notices, || moved_open(b"")).await, Known::Text, "it was closed later");
    assert_eq!(after(&mut notices, || moved_open(b"# more\n")).await, Known::Nothing, "it was written later");
    let unlinked = || {
        fs::remove_file(&text).unwrap();
        fs::write(&text, full()).unwrap();
    };
    assert_eq!(after(&mut notices, unlinked).await, Known::Nothing, "another file, but not moved in");

    // The whole folder.
    let version = |name: &str| {
        write(&root.join(name), &full());
        fs::create_dir(root.join(name).join("schemas")).unwrap();
        fs::write(root.join(name).join("schemas/deploy.json"), "{}").unwrap();
    };
    version("next");
    let swapped = || {
        fs::rename(&policies, root.join("away")).unwrap();
        fs::rename(root.join("next"), &policies).unwrap();
    };
    assert_eq!(after(&mut notices, swapped).await, Known::Everything);
    let schema = policies.join("schemas/deploy.json");
    assert_eq!(after(&mut notices, || append(&schema)).await, Known::Text, "a schema was written in place");
    assert_eq!(after(&mut notices, || append(&text)).await, Known::Nothing);
    let made = || {
        fs::remove_dir_all(&policies).unwrap();
        version("policies");
    };
    assert_eq!(after(&mut notices, made).await, Known::Nothing, "it was filled in its place");

    // A link, as deployments make it; what it leads to is complete by then, or not.
    version("v1");
    let linked = || {
        fs::rename(&policies, root.join("gone")).unwrap();
        symlink("v1", &policies).unwrap();
    };
    assert_eq!(after(&mut notices, linked).await, Known::Everything);
    version("v2");
    let relinked = || {
        symlink("v2", root.join("link")).unwrap();
        fs::rename(root.join("link"), &policies).unwrap();
        fs::remove_dir_all(root.join("v1")).unwrap();
    };
    assert_eq!(after(&mut notices, relinked).await, Known::Everything, "what was there before is removed");
    let too_early = || {
        symlink("v3", root.join("link")).unwrap();
        fs::rename(root.join("link"), &policies).unwrap();
        version("v3");
        append(&root.join("v3/policy-set.yaml"));
    };
    assert_eq!(after(&mut notices, too_early).await, Known::Nothing);
}

#[tokio::test]
async fn writes_to_a_file_beside_the_folder_are_not_even_heard() {
    let house = House::full().await;
    let mut notices = Notices::of(&house.policies()).unwrap();
    notices.renew().unwrap();
    let mut database = fs::File::create(house.folder.path().join("database")).unwrap();
    notices.renew().unwrap();
    let woken = |notices: &mut Notices| futures_util::FutureExt::now_or_never(notices.next()).is_some();
    assert!(!woken(&mut notices), "a file that does not concern the folder was made");
    notices.heard = 0;
    for _ in 0..1000 {
        database.write_all(b"a row").unwrap();
    }
    drop(database);
    assert!(!woken(&mut notices));
    assert_eq!(notices.heard, 0);
    house.put("policy-set.yaml", &set(2));
    notices.next().await;
    assert!(notices.heard > 0);
}

/// As it was found: a folder is written in place, with a pause in which half of it is a valid set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_of_a_set_is_not_taken_however_long_the_pause() {
    let house = House::full().await;
    let watcher = tokio::spawn(Arc::clone(&house.sets).watch_at(true, pace(Duration::from_secs(3600))));
    let text = full().replace("U5", "U6");
    let half = until(&text, "      - use: quorum\n        with:\n");
    house.put("policy-set.yaml", &half);
    // The pause is as long as the watcher needs to have tried.
    house.attempts(2).await;
    assert_eq!(house.policies_of_deploy(), 2);
    let mut file =
        fs::OpenOptions::new().append(true).open(house.policies().join("policy-set.yaml")).unwrap();
    file.write_all(&text.as_bytes()[half.len()..]).unwrap();
    drop(file);
    house.attempts(3).await;
    assert_eq!(house.history().await[1..], ["reload file held_back", "reload file ok"]);

    // A set that was held back is taken once the same bytes come in one step.
    house.put("policy-set.yaml", &half);
    house.attempts(4).await;
    fs::write(house.policies().join("new"), &half).unwrap();
    fs::rename(house.policies().join("new"), house.policies().join("policy-set.yaml")).unwrap();
    house.attempts(5).await;
    assert_eq!(house.history().await[3..], ["reload file held_back", "reload file ok"]);
    assert_eq!(house.policies_of_deploy(), 1);
    watcher.abort();
}
