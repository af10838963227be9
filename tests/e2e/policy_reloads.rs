//! The policy set is swapped while the gateway runs: by a signal, by a changed folder, by admins, and back again.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use countersign_tests::{Api, Ask, Call, Click, Gateway, Home, deploy, digest};
use serde_json::{Value, json};

use crate::ledger::Ledger;

/// The log line when another set comes into force.
const IN_FORCE: &str = "another policy set is in force";

/// The text of a set with this action, as it would be in a folder.
fn document(approvals: u32) -> String {
    Home::new(&deploy(approvals)).policy_set()
}

/// How many approvals a new request needs.
async fn approvals(gateway: &Gateway) -> Value {
    gateway.open("deploy").await.body["policy"]["minApprovals"].clone()
}

async fn rollback(gateway: &Gateway, expected: &str) -> Result<Value, countersign_tests::Problem> {
    gateway.admin("POST", "policy-sets/rollback", &json!({"expectedCurrent": expected, "actor": "ada"})).await
}

#[tokio::test]
async fn a_signal_reads_the_folder_again() {
    let gateway = Home::new(&deploy(1)).with("COUNTERSIGN_POLICY_WATCH", "false").start().await;
    let before = gateway.policy().await;
    gateway.home().set_actions(&deploy(2));
    assert_eq!(approvals(&gateway).await, 1, "there was no signal yet");
    gateway.hang_up();
    gateway.logged(IN_FORCE, 1).await;
    assert_ne!(gateway.policy().await, before);
    assert_eq!(approvals(&gateway).await, 2);
    gateway.hang_up();
    gateway.logged("the policy set in force is the one that is wanted", 1).await;
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("policy_reloads_total", &[("source", "sighup"), ("outcome", "ok")]), 1);
    assert_eq!(metrics.count("policy_reloads_total", &[("source", "sighup"), ("outcome", "unchanged")]), 1);
    // The start, the reload, and the one that changed nothing.
    assert_eq!(Ledger::of(&gateway.kill()).count_of("policy_reloaded"), 3);
}

#[tokio::test]
async fn a_changed_folder_is_read_again() {
    let gateway = Home::new(&deploy(1)).start().await;
    gateway.home().set_actions(&deploy(2));
    gateway.logged(IN_FORCE, 1).await;
    assert_eq!(approvals(&gateway).await, 2);

    // As editors do it: another file is written and renamed into place.
    let home = gateway.home();
    home.write("policies/.policy-set.yaml.swp", document(3).as_bytes());
    fs::rename(home.path("policies/.policy-set.yaml.swp"), home.path("policies/policy-set.yaml"))
        .expect("renamed");
    gateway.logged(IN_FORCE, 2).await;
    assert_eq!(approvals(&gateway).await, 3);

    // The folder is removed: the set in force stays. Then it is there again, with another set.
    fs::rename(home.path("policies"), home.path("away")).expect("renamed");
    gateway.logged("stays as it is", 1).await;
    assert_eq!(approvals(&gateway).await, 3);
    home.write("away/policy-set.yaml", document(1).as_bytes());
    fs::rename(home.path("away"), home.path("policies")).expect("renamed");
    gateway.logged(IN_FORCE, 3).await;
    assert_eq!(approvals(&gateway).await, 1);
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("policy_reloads_total", &[("source", "file"), ("outcome", "ok")]), 3);
    assert_eq!(metrics.count("policy_reloads_total", &[("source", "file"), ("outcome", "failed")]), 1);
}

/// Two actions; the first one has two policies, both of which must be satisfied.
const TWO: &str = "
  deploy:
    timeout: 10m
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB], approvals: 1 }
      - use: quorum
        with: { approvers: [U0CAROL], approvals: 1 }
  drop_table:
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB], approvals: 2 }
";

/// The log line when a set is held back.
const HELD_BACK: &str = "the policy set in the folder is held back";

/// The text before its second policy: a valid set, which asks for less.
fn half(text: &str) -> &str {
    text.split_at(
        text.find("      - use: quorum\n        with: { approvers: [U0CAROL]").expect("it is there"),
    )
    .0
}

/// The status in `/readyz`, and what it names as wrong.
async fn wrong(gateway: &Api) -> (Value, Value) {
    let ready = gateway.send(&Call::get("/readyz")).await;
    assert_eq!(ready.status(), 200);
    let ready = ready.json();
    (ready["status"].clone(), ready["degraded"].clone())
}

/// A folder is written in place, and whoever writes it pauses where what there is happens to be a valid set.
#[tokio::test]
async fn half_of_a_policy_set_is_held_back_however_long_the_pause() {
    let gateway = Home::new(TWO).administered().start().await;
    let first = gateway.policy().await;
    let text = gateway.home().policy_set().replace("10m\n", "20m\n");
    gateway.home().set_policy_set(half(&text));
    gateway.logged(HELD_BACK, 1).await;
    assert_eq!(gateway.policy().await, first);
    assert_eq!(wrong(&gateway).await, (json!("degraded"), json!(["policy_set_held_back"])));
    let request = gateway.open("deploy").await;
    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    assert_eq!(gateway.look(&request.token).await["status"], "ready_for_approval", "Carol is asked as well");
    let shown = gateway.seen("policy-sets/active").await["heldBack"].to_string();
    assert!(shown.contains("`actions.deploy.policies` has 1 of 2 items"), "{shown}");
    assert!(shown.contains("`actions.drop_table` is missing"), "{shown}");
    let held = &gateway.seen("policy-sets/history?limit=1").await["changes"][0];
    assert_eq!((&held["source"], &held["outcome"]), (&json!("file"), &json!("held_back")));

    // The rest of it.
    gateway.home().set_policy_set(&text);
    gateway.logged(IN_FORCE, 1).await;
    assert_eq!(gateway.seen("policy-sets/active").await["heldBack"], json!([]));
    assert_eq!(wrong(&gateway).await, (json!("ready"), json!(null)));
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("policy_reloads_total", &[("source", "file"), ("outcome", "held_back")]), 1);
    assert_eq!(metrics.count("policy_reloads_total", &[("source", "file"), ("outcome", "ok")]), 1);
    assert_eq!(Ledger::of(&gateway.kill()).count_of("policy_reload_held_back"), 1);
}

#[tokio::test]
async fn a_set_that_drops_an_action_is_taken_once_something_says_that_it_is_all_there() {
    let gateway = Home::new(TWO).administered().start().await;
    let first = gateway.policy().await;
    let home = gateway.home();
    let whole = home.policy_set();
    let less = whole.split_at(whole.find("  drop_table").expect("it is there")).0.to_owned();
    let moved = |text: &str| {
        home.write("policies/next", text.as_bytes());
        fs::rename(home.path("policies/next"), home.path("policies/policy-set.yaml")).expect("renamed");
    };
    let mut in_force = 0;
    for (held, way) in ["signal", "admin", "move", "manifest"].into_iter().enumerate() {
        home.set_policy_set(&less);
        gateway.logged(HELD_BACK, held + 1).await;
        assert_eq!(gateway.policy().await, first, "{way}");
        match way {
            "signal" => gateway.hang_up(),
            "admin" => {
                drop(gateway.admin("POST", "reload-policy", &json!({})).await.expect("it is asked for"))
            }
            "move" => moved(&less),
            _ => {
                let line = format!("{}  policy-set.yaml\n", digest(less.as_bytes()).replace("sha256:", ""));
                home.write("policies/policy-set.yaml.sha256", line.as_bytes());
            }
        }
        in_force += 1;
        gateway.logged(IN_FORCE, in_force).await;
        assert_ne!(gateway.policy().await, first, "{way}");
        if way != "manifest" {
            moved(&whole);
            in_force += 1;
            gateway.logged(IN_FORCE, in_force).await;
        }
    }
    let ledger = Ledger::of(&gateway.kill());
    assert_eq!(ledger.count_of("policy_reload_held_back"), 4);
    assert_eq!(ledger.count_of("policy_reload_failed"), 0);
}

/// As Kubernetes does it: every file is a link to `..data`, which is a link to one version of all of them.
#[tokio::test]
async fn a_config_map_is_swapped_as_one() {
    let home = Home::new(&deploy(1));
    let mount = home.path("mounted");
    fs::create_dir(&mount).expect("a folder");
    version(&mount, "..2026_01", 1);
    symlink("..data/policy-set.yaml", mount.join("policy-set.yaml")).expect("linked");
    symlink("..data/modules", mount.join("modules")).expect("linked");
    let gateway = home.with("COUNTERSIGN_POLICIES", &mount.display().to_string()).start().await;
    for (number, approvals_now) in [(1, 2), (2, 3), (3, 1)] {
        version(&mount, &format!("..2026_02_{number}"), approvals_now);
        gateway.logged(IN_FORCE, number).await;
        assert_eq!(approvals(&gateway).await, approvals_now);
    }
    // What is swapped is all there, whatever it lacks of the set before.
    let less = document(1).replace("  super-approvers: [U0ADMIN]\n", "");
    prepare(&mount, "..2026_03", &less);
    gateway.logged(IN_FORCE, 4).await;
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("policy_reloads_total", &[]), 4, "each swap is seen once, and whole");
}

fn version(mount: &Path, name: &str, approvals: u32) {
    prepare(mount, name, &document(approvals));
}

fn prepare(mount: &Path, name: &str, document: &str) {
    fs::create_dir_all(mount.join(name).join("modules")).expect("folders");
    fs::write(mount.join(name).join("modules/quorum.wasm"), Home::built("quorum")).expect("written");
    fs::write(mount.join(name).join("policy-set.yaml"), document).expect("written");
    symlink(name, mount.join("..data_tmp")).expect("linked");
    fs::rename(mount.join("..data_tmp"), mount.join("..data")).expect("renamed");
}

#[tokio::test]
async fn an_admin_has_the_folder_read_again() {
    let gateway =
        Home::new(&deploy(1)).administered().with("COUNTERSIGN_POLICY_WATCH", "false").start().await;
    gateway.home().set_actions(&deploy(2));
    // As scripts for the legacy service call it.
    let call = Call::new("POST", "/api/admin/reload-policy");
    let reply = gateway.send(&call.clone().header("x-admin-token", countersign_tests::ADMIN_TOKEN)).await;
    assert_eq!(reply.status(), 200, "{}", reply.text());
    let answer = reply.json();
    assert_eq!((&answer["ok"], &answer["actions"]), (&json!(true), &json!(["deploy"])));
    assert_eq!(answer["hash"], gateway.policy().await);
    assert_eq!(approvals(&gateway).await, 2);

    let problem =
        countersign_tests::Problem::read(&gateway.send(&call.header("x-admin-token", "guess")).await);
    assert_eq!(problem.is(), (401, "unauthorized"));
    assert_eq!(gateway.metrics().await.count("security_events_total", &[("type", "unauthorized")]), 1);
}

#[tokio::test]
async fn without_an_admin_token_nobody_is_an_admin() {
    let gateway = Home::new(&deploy(1)).start().await;
    let problem = gateway.admin("POST", "reload-policy", &json!({})).await.expect_err("there are no admins");
    assert_eq!(problem.is(), (404, "not_found"));
}

#[tokio::test]
async fn a_set_is_sent_over_http_and_rolled_back() {
    let gateway = Home::new(&deploy(1)).administered().start().await;
    let first = gateway.policy().await;
    // A module that no folder has.
    let module = Home::built("misbehaving");
    let call = Call::new("PUT", "/api/admin/modules").body("application/wasm", module.clone());
    let inspection = gateway.admin_call(call).await.expect("it is a module");
    assert_eq!(
        (&inspection["digest"], &inspection["name"]),
        (&json!(digest(&module)), &json!("misbehaving"))
    );
    let second = gateway
        .store_set(&format!(
            "version: 1
modules: {{ misbehaving: {} }}
actions:
  deploy:
    policies: [{{ use: misbehaving, with: {{ do: behave }} }}]
",
            digest(&module)
        ))
        .await;
    assert_eq!(gateway.policy().await, first, "to store is not to activate");
    let old = gateway.open("deploy").await;

    let activated = gateway.activate(&second, &first).await.expect("it is stored");
    assert_eq!((&activated["hash"], &activated["previous"]), (&json!(second), &json!(first)));
    let new = gateway.open("deploy").await;
    gateway.click_ok(&Click::approve("U0ANYBODY", &new.id)).await;
    assert_eq!(gateway.click_refused(&Click::approve("U0ANYBODY", &old.id)).await, "unauthorized");

    let back = rollback(&gateway, &second).await.expect("there is a set before");
    assert_eq!(back["hash"], json!(first));
    // No open request needs it any more: it goes out of memory, and stays in the store.
    let dropped = async {
        loop {
            let modules = gateway.seen("modules").await;
            let in_memory = |bytes: &[u8]| {
                let mut modules = modules["modules"].as_array().expect("modules").iter();
                modules.find(|it| it["digest"] == digest(bytes)).map(|it| it["inMemory"] == true)
            };
            assert_eq!(in_memory(&Home::built("quorum")), Some(true), "it is in force");
            if in_memory(&module).expect("it stays in the store") {
                continue;
            }
            break;
        }
    };
    countersign_tests::within("the module to be dropped", dropped).await;
    let history = gateway.seen("policy-sets/history").await;
    let changes: Vec<_> = history["changes"]
        .as_array()
        .expect("changes")
        .iter()
        .map(|change| (&change["what"], &change["actor"]))
        .collect();
    assert_eq!(
        changes,
        [
            (&json!("rollback"), &json!("admin-token")),
            (&json!("activate"), &json!("admin-token")),
            (&json!("start"), &Value::Null)
        ]
    );
}

#[tokio::test]
async fn an_admin_does_not_overwrite_another_unseen() {
    let gateway = Home::new(&deploy(1)).administered().start().await;
    let first = gateway.policy().await;
    let (second, third) = (gateway.store_set(&document(2)).await, gateway.store_set(&document(3)).await);
    let both = tokio::join!(gateway.activate(&second, &first), gateway.activate(&third, &first));
    let (won, lost) = match both {
        (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
        both => panic!("{both:?}"),
    };
    assert_eq!(lost.is(), (409, "conflict"));
    assert_eq!(won["hash"], gateway.policy().await);
    assert!(lost.body["detail"].as_str().expect("a detail").contains(&gateway.policy().await), "{lost:?}");
    let problem = rollback(&gateway, &first).await.expect_err("it is not in force any more");
    assert_eq!(problem.is(), (409, "conflict"));
    let ledger = Ledger::of(&gateway.kill());
    assert_eq!((ledger.count_of("policy_reloaded"), ledger.count_of("policy_reload_failed")), (2, 2));
}

#[tokio::test]
async fn open_requests_stay_under_their_rules_through_a_swap_and_a_restart() {
    let gateway = Home::alone(&deploy(2)).administered().start().await;
    let first = gateway.policy().await;
    let old = gateway.open("deploy").await;
    gateway.click_ok(&Click::approve("U0ALICE", &old.id)).await;
    let one = gateway.store_set(&document(1)).await;
    gateway.activate(&one, &first).await.expect("it is stored");
    let three = gateway.store_set(&document(3)).await;
    gateway.activate(&three, &one).await.expect("it is stored");
    let new = gateway.open("deploy").await;

    let gateway = gateway.kill().start().await;
    assert_eq!(gateway.policy().await, three, "what an admin put in force stays");
    let sets = gateway.seen("policy-sets").await;
    let open: Vec<_> = sets["openRequests"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|open| {
            (open["policyHash"].as_str().expect("a hash"), open["count"].as_u64(), open["active"].as_bool())
        })
        .collect();
    let hash = |receipt: &countersign_tests::Receipt| {
        receipt.body["policy"]["hash"].as_str().expect("a hash").to_owned()
    };
    let (under_old, under_new) = (hash(&old), hash(&new));
    let mut expected =
        [(under_old.as_str(), Some(1), Some(false)), (under_new.as_str(), Some(1), Some(true))];
    expected.sort_unstable();
    assert_eq!(open, expected);
    for (set, count) in [(&first, 1), (&one, 0), (&three, 1)] {
        let found = sets["sets"].as_array().expect("sets").iter().find(|stored| stored["hash"] == **set);
        assert_eq!(found.map(|found| &found["openRequests"]), Some(&json!(count)), "{set}");
    }

    gateway.click_ok(&Click::approve("U0BOB", &old.id)).await;
    let ended = gateway.ended(&old.token).await;
    assert_eq!((&ended["status"], &ended["policyHash"]), (&json!("approved"), &json!(under_old)));
    gateway.click_ok(&Click::approve("U0ALICE", &new.id)).await;
    gateway.click_ok(&Click::approve("U0BOB", &new.id)).await;
    assert_eq!(gateway.look(&new.token).await["status"], "ready_for_approval");
    // Nobody needs the two before: no module and no entry of theirs is in memory, and all are in the store.
    assert_eq!(rollback(&gateway, &three).await.expect("it is stored")["hash"], json!(one));
    assert_eq!(approvals(&gateway).await, 1);
}

#[tokio::test]
async fn after_a_restart_the_newest_change_wins() {
    let gateway =
        Home::new(&deploy(1)).administered().with("COUNTERSIGN_POLICY_WATCH", "false").start().await;
    let (first, second) = (gateway.policy().await, gateway.store_set(&document(2)).await);
    gateway.activate(&second, &first).await.expect("it is stored");
    let gateway = gateway.stop().await.start().await;
    assert_eq!(gateway.policy().await, second, "the folder has not changed since");
    assert!(
        gateway.output().contains("the policy set that an admin put in force stays"),
        "{}",
        gateway.output()
    );

    let home = gateway.stop().await;
    home.set_actions(&deploy(3));
    let gateway = home.start().await;
    assert_eq!(approvals(&gateway).await, 3, "the folder is newer");
    assert!(gateway.output().contains("the folder has changed since"), "{}", gateway.output());
    let third = gateway.policy().await;
    assert_eq!(rollback(&gateway, &third).await.expect("there is a set before")["hash"], json!(second));
    let gateway = gateway.kill().start().await;
    assert_eq!(gateway.policy().await, second);
}

/// Requests are made while the set is swapped back and forth; none fails, and each is under one of the two.
#[tokio::test]
async fn a_swap_drops_no_request() {
    let gateway = Home::new(&deploy(1)).administered().with("COUNTERSIGN_LOG", "warn").start().await;
    let mut active = gateway.policy().await;
    let mut other = gateway.store_set(&document(2)).await;
    let (api, create) = (*gateway, Ask::new("deploy").call());
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let creating = (0..4).map(|_| {
        let (create, stopped) = (create.clone(), stopped.clone());
        tokio::spawn(async move {
            let mut connection = api.connect().await;
            let mut made = Vec::new();
            while !*stopped.borrow() {
                let reply = connection.send(&create).await.expect("an answer");
                assert_eq!(reply.status(), 200, "{}", reply.text());
                made.push(reply.json()["policy"]["hash"].as_str().expect("a hash").to_owned());
            }
            made
        })
    });
    let creating: Vec<_> = creating.collect();
    for _ in 0..20 {
        gateway.activate(&other, &active).await.expect("it is stored");
        std::mem::swap(&mut active, &mut other);
    }
    stop.send(true).expect("they listen");
    let mut under = std::collections::BTreeMap::<String, usize>::new();
    for made in creating {
        for hash in made.await.expect("no request fails") {
            *under.entry(hash).or_default() += 1;
        }
    }
    assert_eq!(under.len(), 2, "{under:?}");
}
