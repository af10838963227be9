//! TLS and client certificates: who is a caller or an admin by them, what is refused, and what a reload changes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use countersign_tests::{
    Ask, Authority, Call, Certified, Click, Connection, Gateway, Home, Name, Problem, Stopwatch, TlsClient,
    deploy, within,
};

use crate::ledger::Ledger;

const PORTAL: Name<'_> = Name::Uri("spiffe://acme/portal");
const NIGHTLY: Name<'_> = Name::Dns("nightly.acme.example");
const ADA: Name<'_> = Name::Uri("spiffe://acme/ada");

const ACCESS: &str = r#"
version: 1
callers:
  portal: { certificate: { uri: "spiffe://acme/portal" }, requester: asserted, actions: "*" }
  nightly: { certificate: { dns: nightly.acme.example }, requester: machine, actions: "deploy" }
admins:
  ada: { certificate: { uri: "spiffe://acme/ada" }, roles: [read, activate] }
"#;

/// A home whose callers need certificates of this authority.
fn home(authority: &Authority) -> Home {
    let home = Home::new(&deploy(1))
        .with_access(ACCESS)
        .with_tls(&authority.server(), authority.tls_client(Some(&authority.client(&[PORTAL]))))
        .with_file("TLS_CA_FILE", "ca.pem")
        .with("REQUIRE_CLIENT_CERT", "true")
        .with("COUNTERSIGN_OPS_LISTEN", "127.0.0.1:0")
        .with("COUNTERSIGN_SLACK_LISTEN", "127.0.0.1:0");
    home.write("ca.pem", authority.pem().as_bytes());
    home
}

/// Where the gateway listens for this.
fn printed(gateway: &Gateway, what: &str) -> SocketAddr {
    let output = gateway.output();
    let line = output.lines().find_map(|line| line.strip_prefix(what)).expect("it says where it listens");
    let address = line.trim_start_matches("https://").trim_start_matches("http://");
    address.parse().expect("an address")
}

fn operations(gateway: &Gateway) -> SocketAddr {
    printed(gateway, "operations on ")
}

/// The answer to a call of this client, on a connection of its own; an error if the gateway hangs up.
async fn call_as(
    gateway: &Gateway,
    client: TlsClient,
    call: &Call,
) -> anyhow::Result<countersign_tests::Reply> {
    let made = async { Connection::open_tls(gateway.address(), client).await?.send(call).await };
    within("an answer or a refusal", made).await
}

async fn metric(gateway: &Gateway, name: &str) -> u64 {
    let mut connection = Connection::open(operations(gateway)).await.expect("operations are served");
    let measured = async {
        loop {
            let reply = connection.send(&Call::get("/metrics")).await.expect("it answers");
            if reply.header("cache-status").is_none() {
                return reply.text();
            }
        }
    };
    let metrics = within("metrics to be measured again", measured).await;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {name} in {metrics}"))
}

const REJECTED: &str = "security_events_total{type=\"client_certificate_rejected\"}";

#[tokio::test]
async fn a_certificate_is_a_caller_or_an_admin() {
    let authority = Authority::new();
    let gateway = home(&authority).start().await;

    let request = gateway.create(&Ask::new("deploy")).await.expect("the portal may ask");
    let nightly = authority.tls_client(Some(&authority.client(&[NIGHTLY])));
    let made = call_as(&gateway, nightly, &Ask::new("deploy").call()).await.expect("an answer");
    assert_eq!(made.status(), 200, "{}", made.text());
    let status = Call::get(&format!("/api/guard/status?requestId={}", request.id));
    assert_eq!(gateway.send(&status).await.status(), 200);
    let of_others = call_as(&gateway, nightly, &status).await.expect("an answer");
    assert_eq!(of_others.status(), 404, "it is another caller's");

    // A certificate that counts, and is nobody's in the access file.
    for names in [&[Name::Uri("spiffe://acme/portal/x")][..], &[Name::Dns("spiffe.acme.example")], &[]] {
        let stranger = authority.tls_client(Some(&authority.client(names)));
        let refused =
            Problem::read(&call_as(&gateway, stranger, &Ask::new("deploy").call()).await.expect("an answer"));
        assert_eq!(refused.is(), (401, "unauthenticated"), "{names:?}");
    }
    let two = authority.client(&[PORTAL, Name::Uri("spiffe://acme/other")]);
    let refused = call_as(&gateway, authority.tls_client(Some(&two)), &Ask::new("deploy").call()).await;
    let refused = Problem::read(&refused.expect("an answer"));
    assert_eq!(refused.is(), (401, "unauthenticated"));
    assert!(refused.body["detail"].to_string().contains("several URIs"), "{refused:?}");

    // A key that does not count is not made good by the certificate.
    let with_key = Ask::new("deploy").call().bearer(&format!("cs_{}", "0".repeat(64)));
    assert_eq!(gateway.send(&with_key).await.status(), 401);

    // The stream goes over TLS, too.
    let mut stream = gateway.stream(&request.token).await;
    assert_eq!(stream.state().await.status(), "ready_for_approval");
    let press = Click::approve("U0ALICE", &request.id).signed().call();
    let mut slack = Connection::open(printed(&gateway, "Slack on ")).await.expect("Slack is served");
    assert_eq!(slack.send(&press).await.expect("an answer").status(), 200);
    assert_eq!(stream.state().await.status(), "approved");
    gateway.stop().await;
}

#[tokio::test]
async fn an_admin_shows_a_certificate_where_probes_need_none() {
    let authority = Authority::new();
    let home = home(&authority)
        .with_file("COUNTERSIGN_OPS_TLS_CERT_FILE", "server.pem")
        .with_file("COUNTERSIGN_OPS_TLS_KEY_FILE", "server.key")
        .with_file("COUNTERSIGN_OPS_TLS_CA_FILE", "ca.pem");
    let gateway = home.start().await;
    let operations = operations(&gateway);
    let status = async |client: TlsClient, call: &Call| {
        let mut connection = Connection::open_tls(operations, client).await.expect("a handshake");
        connection.send(call).await.expect("an answer")
    };
    let probe = authority.tls_client(None);
    assert_eq!(status(probe, &Call::get("/healthz")).await.status(), 200);
    let active = Call::get("/api/admin/policy-sets/active");
    assert_eq!(status(probe, &active).await.status(), 401);
    let ada = authority.tls_client(Some(&authority.client(&[ADA])));
    assert_eq!(status(ada, &active).await.status(), 200);
    let reload = Call::new("POST", "/api/admin/reload-policy");
    assert_eq!(status(ada, &reload).await.status(), 200);
    let portal = authority.tls_client(Some(&authority.client(&[PORTAL])));
    let refused = Problem::read(&status(portal, &active).await);
    assert_eq!(refused.is(), (401, "unauthorized"), "a caller is no admin");
    // Ada is no caller.
    let refused = call_as(&gateway, ada, &Ask::new("deploy").call()).await.expect("an answer");
    assert_eq!(refused.status(), 401);
    let audited = Ledger::of(&gateway.stop().await).entries("policy_reloaded");
    let by_ada = audited.iter().find(|entry| entry["actor"] == "ada").expect("her act is audited");
    assert_eq!(by_ada["authentication"], "certificate");
}

#[tokio::test]
async fn who_has_no_certificate_that_counts_is_not_answered() {
    let (authority, other) = (Authority::new(), Authority::new());
    let revoked = authority.client(&[PORTAL]);
    let home = home(&authority).with_file("TLS_CRL_FILE", "revoked.pem");
    home.write("revoked.pem", authority.revocation_list(&[&revoked]).as_bytes());
    let gateway = home.start().await;
    let call = Ask::new("deploy").call();
    let trusted_by = |certified: &Certified| authority.tls_client(Some(certified));
    for (what, client) in [
        ("none", authority.tls_client(None)),
        ("of another authority", trusted_by(&other.client(&[PORTAL]))),
        ("revoked", trusted_by(&revoked)),
        ("expired", trusted_by(&authority.expired_client(&[PORTAL]))),
        ("a server's", trusted_by(&authority.server())),
    ] {
        let before = metric(&gateway, REJECTED).await;
        assert!(call_as(&gateway, client, &call).await.is_err(), "{what}");
        assert_eq!(metric(&gateway, REJECTED).await, before + 1, "{what}");
    }
    // What does not speak TLS is no client certificate, and a port that is only tried is nothing.
    let mut plain = Connection::open(gateway.address()).await.expect("it listens");
    assert!(within("a refusal", plain.send(&call)).await.is_err());
    assert_eq!(metric(&gateway, "security_events_total{type=\"tls_handshake_failed\"}").await, 1);
    gateway.create(&Ask::new("deploy")).await.expect("the portal may still ask");
    let home = gateway.stop().await;
    let audited = format!("{:?}", Ledger::of(&home).entries("authentication_failures"));
    assert!(audited.contains("bad_certificate"), "{audited}");
}

#[tokio::test]
async fn under_a_revocation_list_that_has_run_out_nobody_counts() {
    let authority = Authority::new();
    let home = home(&authority).with_file("TLS_CRL_FILE", "revoked.pem");
    home.write("revoked.pem", authority.revocation_list_run_out(&[]).as_bytes());
    let gateway = home.start().await;
    let portal = authority.tls_client(Some(&authority.client(&[PORTAL])));
    assert!(call_as(&gateway, portal, &Ask::new("deploy").call()).await.is_err());
    gateway.logged("TLS revocation list has run out", 1).await;
    // A new one is taken by itself.
    gateway.home().write("revoked.pem", authority.revocation_list(&[]).as_bytes());
    gateway.logged("TLS files reloaded", 1).await;
    gateway.create(&Ask::new("deploy")).await.expect("the portal may ask");
}

#[tokio::test]
async fn a_revoked_client_is_cut_off_although_it_would_resume_its_session() {
    let authority = Authority::new();
    let (revoked, kept) = (authority.client(&[PORTAL]), authority.client(&[NIGHTLY]));
    let home = home(&authority).with_file("TLS_CRL_FILE", "revoked.pem");
    home.write("revoked.pem", authority.revocation_list(&[]).as_bytes());
    let gateway = home.start().await;
    let portal = authority.tls_client(Some(&revoked));
    let nightly = authority.tls_client(Some(&kept));
    let call = Ask::new("deploy").call();
    // Twice, so that there is a session that could be resumed.
    for _ in 0..2 {
        assert_eq!(call_as(&gateway, portal, &call).await.expect("an answer").status(), 200);
    }
    let mut open = Connection::open_tls(gateway.address(), portal).await.expect("a handshake");
    let request = open.send(&call).await.expect("an answer").json();
    let token = request["token"].as_str().expect("a token");
    let mut stream = gateway.called_by(portal).stream(token).await;
    stream.state().await;
    let mut others = Connection::open_tls(gateway.address(), nightly).await.expect("a handshake");
    assert_eq!(others.send(&call).await.expect("an answer").status(), 200);

    gateway.home().write("revoked.pem", authority.revocation_list(&[&revoked]).as_bytes());
    gateway.hang_up();
    gateway.logged("TLS files reloaded", 1).await;
    assert!(within("the end of the connection", open.send(&call)).await.is_err(), "it was open, and is cut");
    let ended = async {
        while stream.receive().await?.is_some() {}
        anyhow::Ok(())
    };
    assert!(within("the end of the stream", ended).await.is_err(), "the stream is cut, too");
    assert!(call_as(&gateway, portal, &call).await.is_err(), "it cannot come back");
    // Whoever still counts notices nothing.
    assert_eq!(others.send(&call).await.expect("an answer").status(), 200);
    assert_eq!(call_as(&gateway, nightly, &call).await.expect("an answer").status(), 200);
}

/// Without client certificates sessions are resumed, but none that was begun under other files.
#[tokio::test]
async fn a_session_is_resumed_only_under_the_files_that_it_was_begun_under() {
    let authority = Authority::new();
    let home = Home::new(&deploy(1)).with_tls(&authority.server(), authority.tls_client(None));
    let gateway = home.start().await;
    let client = authority.tls_client(None);
    let is_resumed = async || {
        let mut connection = Connection::open_tls(gateway.address(), client).await.expect("a handshake");
        assert_eq!(connection.send(&Call::get("/healthz")).await.expect("an answer").status(), 200);
        connection.is_resumed()
    };
    assert_eq!([is_resumed().await, is_resumed().await], [Some(false), Some(true)]);
    gateway.hang_up();
    gateway.logged("TLS files reloaded", 1).await;
    assert_eq!([is_resumed().await, is_resumed().await], [Some(false), Some(true)]);
}

#[tokio::test]
async fn certificates_are_replaced_under_load_and_no_call_fails() {
    let authority = Arc::new(Authority::new());
    let gateway = home(&authority).start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    for number in 0..4 {
        let client = authority.tls_client(Some(&authority.client(&[PORTAL])));
        let (api, stop) = (gateway.called_by(client), Arc::clone(&stop));
        callers.push(tokio::spawn(async move {
            let mut made = 0;
            let mut kept = api.connect().await;
            while !stop.load(Ordering::Relaxed) {
                // One in two calls is on a connection of its own.
                let mut new = api.connect().await;
                for connection in [&mut kept, &mut new] {
                    let reply = connection.send(&Ask::new("deploy").call()).await.expect("an answer");
                    assert_eq!(reply.status(), 200, "caller {number}: {}", reply.text());
                    made += 1;
                }
            }
            made
        }));
    }
    for reload in 1..=5 {
        let fresh = authority.server();
        gateway.home().write("server.pem", fresh.certificate.as_bytes());
        gateway.home().write("server.key", fresh.key.as_bytes());
        gateway.hang_up();
        gateway.logged("TLS files reloaded", reload).await;
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        assert!(within("the callers to end", caller).await.expect("no call failed") > 0);
    }
}

#[tokio::test]
async fn files_that_do_not_fit_together_change_nothing() {
    let authority = Authority::new();
    let gateway = home(&authority).start().await;
    let failed = "tls_reloads_total{listener=\"callers\",outcome=\"failed\"}";
    let replaced = [
        ("server.key", authority.server().key, "server.key`: is not the key of `"),
        ("server.pem", "no certificate".to_owned(), "server.pem`: has no certificate in PEM"),
        ("ca.pem", authority.server().key, "ca.pem`: has no certificate in PEM"),
    ];
    for (number, (file, text, why)) in replaced.into_iter().enumerate() {
        let sound = std::fs::read(gateway.home().path(file)).expect("it is there");
        gateway.home().write(file, text.as_bytes());
        gateway.hang_up();
        gateway.logged(why, 1).await;
        assert_eq!(metric(&gateway, failed).await, number as u64 + 1);
        gateway.create(&Ask::new("deploy")).await.expect("the last good files stay in force");
        gateway.home().write(file, &sound);
        gateway.hang_up();
        gateway.logged("TLS files reloaded", number + 1).await;
    }
    std::fs::remove_file(gateway.home().path("server.pem")).expect("it is there");
    // Nobody asks for it: the gateway looks by itself.
    gateway.logged("server.pem`: cannot be read", 1).await;
    gateway.create(&Ask::new("deploy")).await.expect("the last good files stay in force");
    assert!(!gateway.output().contains("PRIVATE KEY"));
}

#[tokio::test]
async fn what_cannot_work_does_not_start() {
    let authority = Authority::new();
    let sound = || home(&authority);
    let write = |home: Home, file: &str, text: &str| {
        home.write(file, text.as_bytes());
        home
    };
    for (home, why) in [
        (
            sound().without("COUNTERSIGN_OPS_LISTEN"),
            "not `COUNTERSIGN_OPS_LISTEN`: probes have no certificate",
        ),
        (
            sound().without("COUNTERSIGN_SLACK_LISTEN"),
            "not `COUNTERSIGN_SLACK_LISTEN`: Slack has no certificate",
        ),
        (sound().without("TLS_CA_FILE"), "not `TLS_CA_FILE`: nobody could have a certificate"),
        (sound().without("TLS_KEY_FILE"), "`TLS_CERT_FILE` is set, but not `TLS_KEY_FILE`"),
        (sound().without("TLS_CERT_FILE"), "`TLS_KEY_FILE` is set, but not `TLS_CERT_FILE`"),
        (sound().with("COUNTERSIGN_OPS_TLS_CA_FILE", "x"), "not `COUNTERSIGN_OPS_TLS_CERT_FILE`"),
        (sound().with("TLS_CA_FILE", "/nowhere/ca.pem"), "`/nowhere/ca.pem`: cannot be read"),
        (sound().with("REQUIRE_CLIENT_CERT", "yes"), "REQUIRE_CLIENT_CERT"),
        (write(sound(), "server.key", &authority.server().key), "is not the key of"),
        (write(sound(), "ca.pem", ""), "ca.pem`: has no certificate in PEM"),
        (
            write(sound().with_file("TLS_CRL_FILE", "x.pem"), "x.pem", &authority.pem()),
            "has no revocation list in PEM",
        ),
    ] {
        let failure = home.fail_to_start().await;
        assert_eq!(failure.code, Some(2), "{why}: {}", failure.stderr);
        assert!(failure.stderr.contains(why), "{why}: {}", failure.stderr);
    }
}

#[tokio::test]
async fn a_connection_does_not_last_for_ever() {
    let authority = Authority::new();
    let gateway = home(&authority).with("COUNTERSIGN_MAX_CONNECTION_AGE_SEC", "1").start().await;
    let request = gateway.create(&Ask::new("deploy")).await.expect("the portal may ask");
    let mut stream = gateway.stream(&request.token).await;
    let rest = stream.rest().await;
    assert!(
        rest.iter().all(|event| event.name != "state" || event.status() == "ready_for_approval"),
        "{rest:?}"
    );
    let mut connection = gateway.connect().await;
    let told = async {
        loop {
            let reply = connection.send(&Call::get("/api/schemas/none")).await.expect("no call is cut");
            if reply.header("connection") == Some("close") {
                return;
            }
        }
    };
    within("the connection to be ended", told).await;
    assert!(connection.send(&Call::get("/api/schemas/none")).await.is_err());
}

/// Handshakes that never end hold a connection for their time, and nobody else up.
#[tokio::test]
async fn a_handshake_that_stalls_is_ended() {
    let authority = Authority::new();
    let gateway = home(&authority).start().await;
    let watch = Stopwatch::start();
    let mut stalled = Connection::open(gateway.address()).await.expect("it listens");
    // The first bytes of a handshake, and no more.
    stalled.write(&[0x16, 0x03, 0x01, 0x02]).await.expect("it is read");
    gateway.create(&Ask::new("deploy")).await.expect("others are served");
    assert!(within("the end of the handshake", stalled.answer()).await.is_err());
    assert!(watch.elapsed().as_secs() >= 9, "it had its time");
    assert_eq!(metric(&gateway, "security_events_total{type=\"tls_handshake_failed\"}").await, 1);
}
