//! A decision is re-executed offline, by the modules that made it.

use std::path::PathBuf;
use std::process::Output;

use countersign_tests::{ApiKey, Ask, Call, Click, Gateway, Home, Receipt, countersign};
use serde_json::{Value, json};

const ACTIONS: &str = "
  deploy:
    description: Deploy to staging
    timeout: 10m
    redact: { hide: [password] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB], approvals: 2 }
";

fn params() -> Value {
    json!({"ref": "v1.2.3", "replicas": 2, "password": "hunter2"})
}

fn bundle_of(token: &str) -> Call {
    Call::get("/api/guard/bundle").bearer(token)
}

/// A decided request: its receipt, its bundle and the keys, in files.
struct Decided {
    folder: tempfile::TempDir,
    receipt: String,
    bundle: String,
    salt: String,
}

impl Decided {
    async fn of(gateway: &Gateway, made: &Receipt) -> Decided {
        let seen = gateway.ended(&made.token).await;
        let text = |key: &str| seen[key].as_str().expect(key).to_owned();
        let folder = tempfile::tempdir().expect("a folder");
        let keys = gateway.send(&Call::get("/.well-known/jwks.json")).await;
        std::fs::write(folder.path().join("jwks.json"), keys.text()).expect("written");
        let bundle = gateway.send(&bundle_of(&made.token)).await;
        let form = (bundle.status(), bundle.header("content-type"), bundle.header("cache-control"));
        assert_eq!(form, (200, Some("application/json"), Some("no-store")), "{}", bundle.text());
        let decided = Decided {
            receipt: text("receipt"),
            salt: seen["payloadSalt"].as_str().unwrap_or_default().to_owned(),
            bundle: bundle.text(),
            folder,
        };
        decided.file("bundle.json", &decided.bundle);
        decided
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).expect("written");
        path
    }

    /// Runs `countersign receipt replay`; returns the exit code and what was printed.
    fn replay(&self, receipt: &str, bundle: &str, more: &[&str]) -> (i32, String) {
        let [receipt, bundle] = [("receipt", receipt), ("tried.json", bundle)]
            .map(|(name, content)| self.file(name, content).display().to_string());
        let words = ["receipt", "replay", &receipt, "--bundle", &bundle].into_iter();
        let Output { status, stdout, stderr } = countersign(words.chain(more.iter().copied()));
        (status.code().expect("a code"), String::from_utf8([stdout, stderr].concat()).expect("text"))
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

#[tokio::test]
async fn a_decision_is_re_executed_offline() {
    let gateway = Home::new(ACTIONS).start().await;
    let made = gateway.create(&Ask::new("deploy").params(params())).await.expect("it is admitted");
    let early = gateway.send(&bundle_of(&made.token)).await;
    assert_eq!((early.status(), early.json()["error"].clone()), (409, json!("not_decided")));
    for person in ["U0ALICE", "U0BOB"] {
        gateway.click_ok(&Click::approve(person, &made.id)).await;
    }
    let decided = Decided::of(&gateway, &made).await;
    let other = gateway.create(&Ask::new("deploy").params(params())).await.expect("it is admitted");
    gateway.click_ok(&Click::deny("U0ALICE", &other.id)).await;
    let denied = Decided::of(&gateway, &other).await;
    // A token in an address is in logs; another's token opens nothing.
    let by_query = gateway.send(&Call::get(&format!("/api/guard/bundle?token={}", made.token))).await;
    assert_eq!((by_query.status(), by_query.json()["errors"][0]["path"].clone()), (400, json!("token")));
    let wrong = gateway.send(&bundle_of(&format!("{}x", made.token))).await;
    assert_eq!(wrong.status(), 404);
    let none = gateway.send(&Call::get("/api/guard/bundle")).await;
    assert_eq!(none.status(), 400);
    drop(gateway.kill());

    let keys = decided.path("jwks.json");
    let (code, line) = decided.replay(&decided.receipt, &decided.bundle, &["--jwks", &keys]);
    assert_eq!(code, 0, "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
    for part in [
        "approved again: deploy (req_",
        "3 events and 1 policies re-executed",
        "as their policies remembered",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let (code, line) = decided.replay(&decided.receipt, &decided.bundle, &[]);
    assert!(code == 0 && line.contains("the receipt's signature was not checked"), "{code} {line}");
    assert!(!decided.bundle.contains("hunter2"));
    let (code, line) = denied.replay(&denied.receipt, &denied.bundle, &["--jwks", &keys]);
    assert!(code == 0 && line.starts_with("denied again"), "{code} {line}");

    let agreed = decided.file("params.json", &params().to_string()).display().to_string();
    let with = |file: &str, salt: &str| {
        decided.replay(
            &decided.receipt,
            &decided.bundle,
            &["--jwks", &keys, "--params", file, "--salt", salt],
        )
    };
    let (code, line) = with(&agreed, &decided.salt);
    assert!(code == 0 && !line.contains("remembered"), "{code} {line}");
    let mut others = params();
    others["password"] = "hunter3".into();
    let others = decided.file("others.json", &others.to_string()).display().to_string();
    let (code, line) = with(&others, &decided.salt);
    assert!(code == 3 && line.contains("`password` differs"), "{code} {line}");
    assert_eq!(with(&agreed, "00").0, 2);

    // Each part that is another one is named.
    let mut forged = decided.receipt.clone();
    forged.replace_range(120..121, if &forged[120..121] == "A" { "B" } else { "A" });
    assert_eq!(decided.replay(&forged, &decided.bundle, &["--jwks", &keys]).0, 1);
    let (code, line) = decided.replay(&decided.receipt, &denied.bundle, &["--jwks", &keys]);
    assert!(code == 3 && line.contains("the request of the bundle"), "{code} {line}");
    for (from, to, part) in [
        ("Ship the fix", "Ship the fox", "what was asked"),
        ("\"seq\":1", "\"seq\":7", "what happened"),
        ("\"approvals\":2", "\"approvals\":1", "the policy entry"),
        ("\"modules\":[{\"bytes\":\"AGFz", "\"modules\":[{\"bytes\":\"BGFz", "the module `quorum`"),
        ("\"version\":1}", "\"version\":2}", "it is of another version"),
        ("\"version\":1}", "\"version\":1} ", "it is not in canonical form"),
    ] {
        assert_eq!(decided.bundle.matches(from).count(), 1, "{from}");
        let bundle = decided.bundle.replace(from, to);
        let (code, line) = decided.replay(&decided.receipt, &bundle, &["--jwks", &keys]);
        assert!(code == 3 && line.contains(part), "{from}: {code} {line}");
    }
    let absent = decided.path("absent.json");
    assert_eq!(
        countersign(["receipt", "replay", &decided.receipt, "--bundle", &absent]).status.code(),
        Some(2)
    );
}

/// What `admit` made of hidden values is all that is left of them. Who has them asks it again.
#[tokio::test]
async fn what_a_policy_remembers_of_hidden_values_is_made_again() {
    let home = Home::cookbook("threshold").change("show: [order, amount, currency]", "show: [order]");
    let gateway = home.start().await;
    let params = |amount: u32| json!({"order": "o-1", "amount": amount, "currency": "EUR"});
    let made = gateway.create(&Ask::new("refund").params(params(250))).await.expect("it is admitted");
    gateway.click_ok(&Click::approve("U0LEAD1", &made.id)).await;
    let large = Decided::of(&gateway, &made).await;
    let made = gateway.create(&Ask::new("refund").params(params(20))).await.expect("it is admitted");
    let small = Decided::of(&gateway, &made).await;
    drop(gateway.kill());
    let replay = |decided: &Decided, amount: u32| {
        let file = decided.file("params.json", &params(amount).to_string()).display().to_string();
        decided.replay(&decided.receipt, &decided.bundle, &["--params", &file])
    };
    for (decided, amount, others) in [(&large, 250, 20), (&small, 20, 250)] {
        let (code, line) = decided.replay(&decided.receipt, &decided.bundle, &[]);
        assert!(code == 0 && line.contains("as their policies remembered them"), "{code} {line}");
        let (code, line) = replay(decided, amount);
        assert_eq!(code, 0, "{line}");
        let unproven =
            "not proven without `--salt` that these hidden values were asked for: amount, currency";
        assert!(line.contains(unproven), "{line}");
        let file = decided.file("params.json", &params(amount).to_string()).display().to_string();
        let with_salt = ["--params", &file, "--salt", &decided.salt];
        let (code, line) = decided.replay(&decided.receipt, &decided.bundle, &with_salt);
        assert!(code == 0 && !line.contains("not proven"), "{code} {line}");
        let (code, line) = replay(decided, others);
        assert!(
            code == 4 && line.contains("the policy `threshold` remembers something else"),
            "{code} {line}"
        );
    }
}

/// A token that got out is not enough.
#[tokio::test]
async fn with_an_access_file_only_the_caller_gets_a_bundle() {
    let (web, nightly) = (ApiKey::new("web"), ApiKey::new("nightly"));
    let caller = |name: &str, key: &ApiKey| {
        format!("  {name}:\n    keys:\n      {}\n    requester: asserted\n    actions: [deploy]\n", key.line)
    };
    let access = format!("version: 1\ncallers:\n{}{}", caller("web", &web), caller("nightly", &nightly));
    let gateway = Home::new(ACTIONS).with_access(&access).start().await;
    let reply = gateway.send(&Ask::new("deploy").call().bearer(&web.secret)).await;
    let made = Receipt::read(reply).expect("it is admitted");
    gateway.click_ok(&Click::deny("U0ALICE", &made.id)).await;
    let refused = async |call: &Call| {
        let reply = gateway.send(call).await;
        (reply.status(), reply.json()["error"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(refused(&bundle_of(&made.token)).await, (401, "unauthenticated".to_owned()));
    let theirs = bundle_of(&made.token).bearer(&nightly.secret);
    assert_eq!(refused(&theirs).await, (403, "not_the_caller".to_owned()));
    let without = Call::get("/api/guard/bundle").bearer(&web.secret);
    assert_eq!(refused(&without).await, (400, "invalid_payload".to_owned()));
    assert_eq!(gateway.send(&bundle_of(&made.token).bearer(&web.secret)).await.status(), 200);
}
