//! Listeners of their own for operations and for Slack, and addresses of clients behind a proxy.

use countersign_tests::{Ask, Call, Click, Connection, Home, Problem, deploy, within};

/// A gateway with a listener for each, and where they are.
struct Split {
    gateway: countersign_tests::Gateway,
    operations: std::net::SocketAddr,
    slack: std::net::SocketAddr,
}

async fn split(home: Home) -> Split {
    let home =
        home.with("COUNTERSIGN_OPS_LISTEN", "127.0.0.1:0").with("COUNTERSIGN_SLACK_LISTEN", "127.0.0.1:0");
    let gateway = home.start().await;
    let printed = |what: &str| {
        let output = gateway.output();
        let line = output.lines().find_map(|line| line.strip_prefix(what));
        line.expect("it says where it listens").trim_start_matches("http://").parse().expect("an address")
    };
    let (operations, slack) = (printed("operations on "), printed("Slack on "));
    Split { gateway, operations, slack }
}

async fn status(address: std::net::SocketAddr, call: &Call) -> u16 {
    let mut connection = Connection::open(address).await.expect("it listens");
    connection.send(call).await.expect("it answers").status()
}

#[tokio::test]
async fn each_listener_serves_its_own_routes_alone() {
    let Split { gateway, operations, slack } = split(Home::new(&deploy(1)).administered()).await;
    let request = gateway.create(&Ask::new("deploy")).await.expect("it is admitted");
    let press = Click::approve("U0ALICE", &request.id).signed().call();
    let main = gateway.address();
    for (path, expected) in [
        ("/healthz", [404, 200, 404]),
        ("/readyz", [404, 200, 404]),
        ("/metrics", [404, 200, 404]),
        ("/openapi.json", [200, 200, 404]),
        ("/api/admin/policy-sets/active", [401, 401, 401]),
        ("/api/schemas/none", [404, 404, 404]),
        ("/api/guard/status?requestId=x", [400, 404, 404]),
    ] {
        let call = Call::get(path);
        let seen = [status(main, &call).await, status(operations, &call).await, status(slack, &call).await];
        assert_eq!(seen, expected, "{path}");
    }
    assert_eq!(status(main, &press).await, 404);
    assert_eq!(status(operations, &press).await, 404);
    assert_eq!(status(slack, &press).await, 200);
    assert_eq!(gateway.look(&request.token).await["status"], "approved");
}

#[tokio::test]
async fn an_open_address_for_operations_needs_an_access_file_too() {
    let failure = Home::new(&deploy(1)).with("COUNTERSIGN_OPS_LISTEN", "0.0.0.0:0").fail_to_start().await;
    assert_eq!(failure.code, Some(2));
    assert!(failure.stderr.contains("`0.0.0.0:0` can be reached from other machines"), "{}", failure.stderr);
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_have_buckets_of_their_own() {
    // The front door would refuse what comes through a proxy, if there were no access file.
    let home = Home::new(&deploy(1))
        .with("COUNTERSIGN_INSECURE_ANONYMOUS", "true")
        .with("COUNTERSIGN_TRUSTED_PROXIES", "127.0.0.0/8, ::1")
        .with("RATE_LIMIT_CAPACITY", "1")
        .with("RATE_LIMIT_REFILL_PER_SEC", "0.001");
    let gateway = home.start().await;
    let from = async |client: &str| {
        let call = Ask::new("deploy").call().header("x-forwarded-for", client);
        gateway.send(&call).await
    };
    for number in 1..=40 {
        assert_eq!(from(&format!("198.51.100.{number}")).await.status(), 200, "client {number}");
    }
    // What a client writes itself stands left of its address, and changes nothing.
    for forged in ["198.51.100.1", "203.0.113.1, 198.51.100.1", "127.0.0.1, 198.51.100.1"] {
        let refused = Problem::read(&from(forged).await);
        assert_eq!(refused.is(), (429, "rate_limited"), "{forged}");
    }
}

#[tokio::test]
async fn a_forged_address_is_not_believed_of_a_stranger() {
    let home = Home::new(&deploy(1))
        .with("COUNTERSIGN_INSECURE_ANONYMOUS", "true")
        .with("COUNTERSIGN_TRUSTED_PROXIES", "10.0.0.0/8")
        .with("RATE_LIMIT_CAPACITY", "1")
        .with("RATE_LIMIT_REFILL_PER_SEC", "0.001");
    let gateway = home.start().await;
    let from = async |client: &str| {
        let call = Ask::new("deploy").call().header("x-forwarded-for", client);
        gateway.send(&call).await.status()
    };
    assert_eq!([from("198.51.100.1").await, from("198.51.100.2").await], [200, 429]);
}

#[tokio::test]
async fn a_compressed_body_is_not_read() {
    let gateway = Home::new(&deploy(1)).start().await;
    for encoding in ["gzip", "br", "identity, gzip", "x"] {
        let call = Ask::new("deploy").call().header("content-encoding", encoding);
        let refused = Problem::read(&gateway.send(&call).await);
        assert_eq!(refused.is(), (415, "unsupported_media_type"), "{encoding}");
    }
    let plain = Ask::new("deploy").call().header("content-encoding", "identity");
    let answer = gateway.send(&plain).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.header("cache-control"), Some("no-store"), "it holds a token");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
}

#[tokio::test]
async fn idle_connections_keep_nobody_else_out() {
    let home = Home::new(&deploy(1)).with("COUNTERSIGN_MAX_CONNECTIONS", "16").administered();
    let Split { gateway, operations, slack } = split(home).await;
    let request = gateway.create(&Ask::new("deploy")).await.expect("it is admitted");
    // Two thousand clients of one address connect and say nothing: it may have half of the connections.
    let mut idle = Vec::new();
    for _ in 0..2_000 {
        idle.push(tokio::net::TcpStream::connect(gateway.address()).await.expect("the system accepts it"));
        if idle.len() > 200 {
            // Those that the gateway has closed need not stay open here.
            idle.drain(..100);
        }
    }
    assert_eq!(status(operations, &Call::get("/healthz")).await, 200);
    assert_eq!(status(operations, &Call::get("/readyz")).await, 200);
    let press = Click::approve("U0ALICE", &request.id).signed().call();
    assert_eq!(status(slack, &press).await, 200, "a decision is stored all the same");
    let mut connection = Connection::open(operations).await.expect("it listens");
    // The system accepts connections before the gateway does, so it may take a while until all were looked at.
    let refused = async {
        loop {
            let metrics = connection.send(&Call::get("/metrics")).await.expect("it answers").text();
            let refused = metrics.lines().find(|line| line.contains("type=\"connection_refused\""));
            let refused = refused.and_then(|line| line.split(' ').next_back()?.parse::<u64>().ok());
            if refused.expect("it is counted") > 1_000 {
                return;
            }
        }
    };
    within("most of them to be refused", refused).await;
    drop(idle);
}
