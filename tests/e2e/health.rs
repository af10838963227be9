//! `countersign health`, `completions` and `man`: what images and packages need of the program.

use countersign_tests::{Home, countersign, deploy};

#[tokio::test]
async fn a_gateway_is_asked_where_it_listens() {
    let gateway = Home::new(&deploy(1)).start().await;
    let address = gateway.address().to_string();
    for (words, answer) in [(vec!["health"], "ok"), (vec!["health", "--ready"], "\"status\":\"ready\"")] {
        let asked = countersign([words, vec!["--listen", &address]].concat());
        let said = String::from_utf8(asked.stdout).expect("text");
        assert!(asked.status.success() && said.contains(answer), "{said}");
        // The listener for operations comes first, and here nobody listens on its port.
        let asked = countersign(["health", "--listen", &address, "--ops-listen", "127.0.0.1:1"]);
        assert_eq!(asked.status.code(), Some(1), "{asked:?}");
    }
    drop(gateway.kill());
    let asked = countersign(["health", "--listen", &address]);
    let said = String::from_utf8(asked.stderr).expect("text");
    assert!(asked.status.code() == Some(1) && said.contains(&address), "{said}");
}

#[test]
fn shells_complete_and_manuals_are_made() {
    for shell in ["bash", "zsh", "fish"] {
        let made = countersign(["completions", shell]);
        let text = String::from_utf8(made.stdout).expect("text");
        assert!(
            made.status.success() && text.contains("check-config") && text.contains("redis-replicas"),
            "{shell}"
        );
    }
    let text = String::from_utf8(countersign(["man", "serve"]).stdout).expect("troff");
    assert!(
        text.contains(".TH") && (text.contains("COUNTERSIGN\\_STORE") || text.contains("COUNTERSIGN_STORE")),
        "{text}"
    );
    assert_eq!(countersign(["man", "nothing"]).status.code(), Some(2));
}
