//! Who asks: an API key, or the token of a pipeline.

use countersign_tests::{ApiKey, Authority, Click, Fault, Gateway, Home, Issuer, Relay, SigningKey};

use super::{ACTIONS, Asker, RUN, not_run};

async fn gateway(issuer: &Issuer, key: &ApiKey) -> Gateway {
    let file = format!(
        "version: 1\nissuers:\n  acme: {{ issuer: \"{}\", audience: countersign }}\ncallers:\n  pipeline:\n    \
         oidc: {{ issuer: acme, claims: {{ repository_id: \"4711\" }} }}\n    \
         requester: {{ source: github, id: \"{{actor_id}}\" }}\n    actions: [deploy]\n  portal:\n    keys:\n      \
         {}\n    requester: asserted\n    actions: [deploy]\npeople:\n  \
         dana: {{ github: \"583231\" }}\n",
        issuer.url(),
        key.line
    );
    Home::new(ACTIONS).with_access(&file).start().await
}

#[tokio::test]
async fn callers_are_who_they_say() {
    let signing = SigningKey::es256("k1");
    let issuer = Issuer::start(&[&signing]).await;
    let key = ApiKey::new("portal");
    let gateway = gateway(&issuer, &key).await;
    let mut claims = issuer.claims();
    claims["repository_id"] = "4711".into();
    claims["actor_id"] = "583231".into();
    let token = signing.token(&claims);
    // What GitHub's runner offers: it hands out tokens to whoever has the right.
    let github = Relay::start(None).await;
    github.fault("/token?api-version=2&audience=countersign", {
        Fault::answer("200 OK", "application/json", &format!("{{\"count\":1,\"value\":\"{token}\"}}"))
    });
    let asker = Asker::of(&gateway);
    let url = format!("{}/token?api-version=2", github.url());
    std::fs::write(asker.path().join("token"), format!("{token}\n")).expect("written");
    let words = ["ask", "deploy", "--param", "ref=v1", "--why", "Ship it", "--repo", "acme/web"];
    for variables in [
        &[("COUNTERSIGN_ID_TOKEN", token.as_str())][..],
        &[("COUNTERSIGN_ID_TOKEN_FILE", "token")],
        &[("ACTIONS_ID_TOKEN_REQUEST_URL", url.as_str()), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "right")],
    ] {
        let asking = asker.run(variables, &[&words[..], &["--", "true"]].concat());
        let id = asking.request().await;
        gateway.click_ok(&Click::approve("U0BOB", &id)).await;
        let ended = asking.ended().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(!ended.stderr.contains(&token), "{ended:?}");
        let status = gateway
            .send(&countersign_tests::Call::get(&format!("/api/guard/status?requestId={id}")).bearer(&token))
            .await;
        assert_eq!(status.json()["use"], "succeeded", "{}", status.text());
        assert_eq!(status.json()["caller"], "pipeline");
    }
    assert!(github.count("audience=countersign") >= 3, "a new token for each call");

    let asking = asker.ask_with(&[("COUNTERSIGN_API_KEY", &key.secret)], "deploy", &["--", "true"]);
    let id = asking.request().await;
    gateway.click_ok(&Click::approve("U0BOB", &id)).await;
    let ended = asking.ended().await;
    assert!(ended.code == Some(0) && !ended.stderr.contains(&key.secret), "{ended:?}");
}

#[tokio::test]
async fn without_credentials_that_count_nothing_is_run() {
    let issuer = Issuer::start(&[&SigningKey::es256("k1")]).await;
    let gateway = gateway(&issuer, &ApiKey::new("portal")).await;
    let asker = Asker::of(&gateway);
    let away = Relay::start(None).await.url();
    for (variables, code, said) in [
        (&[][..], 6, "unauthenticated"),
        // A job that may have no token.
        (&[("GITHUB_ACTIONS", "true")], 6, "`permissions: { id-token: write }`"),
        (&[("COUNTERSIGN_API_KEY", "cs_nobody")], 6, "unauthenticated"),
        (&[("COUNTERSIGN_API_KEY", "two\nlines")], 2, "cannot be sent"),
        (&[("COUNTERSIGN_ID_TOKEN_FILE", "missing")], 2, "missing"),
        (
            &[("ACTIONS_ID_TOKEN_REQUEST_URL", away.as_str()), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "right")],
            7,
            "GitHub Actions gives no token",
        ),
        (
            &[
                ("ACTIONS_ID_TOKEN_REQUEST_URL", "http://github.example/"),
                ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "right"),
            ],
            7,
            "is not an `https` URL",
        ),
    ] {
        let ended =
            asker.ask_with(variables, "deploy", &[&["--patience", "0s"], &RUN[..]].concat()).ended().await;
        not_run(&asker, &ended, code, said);
        assert!(!ended.stderr.contains("cs_nobody"), "{ended:?}");
    }
}

/// The receipt's keys, the request, the stream and the use all go over TLS, and nothing goes to whoever cannot prove who it
/// is.
#[tokio::test]
async fn over_tls_only_a_gateway_of_a_known_authority_is_asked() {
    let authority = Authority::new();
    let home = Home::new(ACTIONS).with_tls(&authority.server(), authority.tls_client(None));
    let gateway = home.start().await;
    let url = format!("https://localhost:{}", gateway.address().port());
    let asker = Asker::new(&url);
    std::fs::write(asker.path().join("ca.pem"), authority.pem()).expect("written");
    let asking = asker.ask("scale", &[&["--ca-file", "ca.pem"][..], &RUN].concat());
    let id = asking.request().await;
    gateway.click_ok(&Click::approve("U0ALICE", &id)).await;
    let ended = asking.ended().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(asker.file("ran").as_deref(), Some("v1.2.3 2\n"));

    let stranger = Asker::new(&url);
    std::fs::write(stranger.path().join("other.pem"), Authority::new().pem()).expect("written");
    let words = [&["--patience", "0s", "--ca-file", "other.pem"][..], &RUN].concat();
    not_run(&stranger, &stranger.ask("scale", &words).ended().await, 7, "certificate");
}
