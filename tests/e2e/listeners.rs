//! Listeners of their own for operations and for Slack, and addresses of clients behind a proxy.

use std::net::Ipv4Addr;
use std::time::Duration;

use countersign_tests::{
    Api, Ask, Call, Click, Connection, Home, Nginx, Problem, Reply, Slack, Stopwatch, deploy, within,
};

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
    // If it takes longer than Slack waits, it is stored after its answer.
    assert_eq!(gateway.ended(&request.token).await["status"], "approved");
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

#[tokio::test]
async fn behind_nginx_each_client_has_a_bucket_of_its_own() {
    // The front door would refuse what comes through a proxy, if there were no access file.
    let home = Home::new(&deploy(1))
        .with("COUNTERSIGN_INSECURE_ANONYMOUS", "true")
        .with("COUNTERSIGN_TRUSTED_PROXIES", "127.0.0.1")
        .with("RATE_LIMIT_CAPACITY", "1")
        .with("RATE_LIMIT_REFILL_PER_SEC", "0.001");
    let gateway = home.start().await;
    let nginx = Nginx::in_front_of(gateway.address());
    let ask_from = async |host: u8, call: &Call| -> Reply {
        let asking = async {
            Connection::open_from(Ipv4Addr::new(127, 0, 1, host), nginx.address()).await?.send(call).await
        };
        within("an answer through nginx", asking)
            .await
            .unwrap_or_else(|error| panic!("host {host}: {error:#}"))
    };
    for host in 1..=40 {
        let reply = ask_from(host, &Ask::new("deploy").call()).await;
        assert_eq!(reply.status(), 200, "host {host}: {}", reply.text());
    }
    for forged in ["198.51.100.1", "127.0.0.1", "198.51.100.1, 127.0.0.1", "\u{e9}", "unknown", ","] {
        let reply = ask_from(1, &Ask::new("deploy").call().header("x-forwarded-for", forged)).await;
        assert_eq!(Problem::read(&reply).is(), (429, "rate_limited"), "{forged}");
    }
    // nginx has limits of its own for headers; what it lets through is read to the 32nd address.
    let hops = vec!["198.51.100.1"; 500].join(",");
    let reply = ask_from(2, &Ask::new("deploy").call().header("x-forwarded-for", &hops)).await;
    assert_eq!(Problem::read(&reply).is(), (429, "rate_limited"));
}

/// docs/PROXIES.md: nginx holds nothing back, waits long enough, and publishes nothing else.
#[tokio::test]
async fn through_nginx_events_come_at_once_and_silence_is_bridged() {
    let home = Home::new(&deploy(1))
        .with("COUNTERSIGN_INSECURE_ANONYMOUS", "true")
        .with("COUNTERSIGN_TRUSTED_PROXIES", "127.0.0.1")
        .with("SSE_HEARTBEAT_SEC", "5");
    let gateway = home.start().await;
    // The proxy gives up after less than the test takes, and after three times a heartbeat.
    let nginx = Nginx::changed(gateway.address(), &[("proxy_read_timeout 90s;", "proxy_read_timeout 15s;")]);
    let through = Api::new(nginx.address());
    let request = through.open("deploy").await;
    let mut stream = through.stream(&request.token).await;
    assert_eq!(stream.state().await.status(), "ready_for_approval");
    let silent = Stopwatch::start();
    while silent.elapsed() <= Duration::from_secs(15) {
        let event = stream.next().await.expect("nginx does not end the stream");
        assert_eq!(event.name, "heartbeat");
    }
    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    assert_eq!(stream.state().await.status(), "approved");
    assert!(stream.rest().await.is_empty());
    for path in ["/metrics", "/readyz", "/api/admin/requests", "/"] {
        assert_eq!(through.send(&Call::get(path)).await.status(), 404, "{path} is published");
    }
}

/// Without what docs/PROXIES.md says of buffers, the gateway's own header keeps nginx from gathering a stream; and a
/// proxy that waits for less than a long-poll takes ends it.
#[tokio::test]
async fn a_proxy_that_is_not_configured_for_it_gathers_no_stream_but_cuts_a_long_poll() {
    let home = Home::new(&deploy(1))
        .with("COUNTERSIGN_INSECURE_ANONYMOUS", "true")
        .with("COUNTERSIGN_TRUSTED_PROXIES", "127.0.0.1");
    let gateway = home.start().await;
    let nginx = Nginx::changed(gateway.address(), &[("proxy_buffering off;", "gzip on; gzip_types *;")]);
    let through = Api::new(nginx.address());
    let request = through.open("deploy").await;
    let mut stream = through.stream(&request.token).await;
    assert_eq!(stream.state().await.status(), "ready_for_approval");
    let hasty = Nginx::changed(gateway.address(), &[("proxy_read_timeout 90s;", "proxy_read_timeout 1s;")]);
    let path = format!("/api/guard/wait?token={}&timeoutSec=60", request.token);
    assert_eq!(Api::new(hasty.address()).send(&Call::get(&path)).await.status(), 504);
    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    assert_eq!(stream.state().await.status(), "approved");
}

/// Many clients who say nothing, or little at a time, while the gateway has few file descriptors.
#[tokio::test]
async fn with_few_descriptors_health_decisions_and_slack_go_on() {
    let slack = Slack::start().await;
    let home = Home::new(&deploy(1)).with_slack(&slack).with_descriptors(256).administered();
    let Split { gateway, operations, slack: interactions } = split(home).await;
    let request = gateway.create(&Ask::new("deploy")).await.expect("it is admitted");
    slack.shown(&request.id).await;

    let (mut idle, mut slow) = (Vec::new(), Vec::new());
    for number in 0..2_000_u32 {
        // From ten hosts, so that the limit by address is not what helps.
        let own = Ipv4Addr::new(127, 0, 2, u8::try_from(number % 10).expect("a digit"));
        let Ok(mut connection) = Connection::open_from(own, gateway.address()).await else { continue };
        let said: &[u8] = match number % 4 {
            0 => b"",
            1 => b"POST /api/guard/request HTTP/1.1\r\nhost: loc",
            2 => {
                b"POST /api/guard/request HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                   content-length: 1000\r\n\r\n{"
            }
            _ => b"GET /api/guard/status?",
        };
        // What the gateway has closed already cannot be written to.
        let _ = connection.write(said).await;
        if said.is_empty() {
            idle.push(connection)
        } else {
            slow.push(connection)
        }
        if idle.len() + slow.len() > 400 {
            // Those that the gateway has closed need not stay open here.
            idle.drain(..50.min(idle.len()));
            slow.drain(..100.min(slow.len()));
        }
    }
    for _ in 0..20 {
        let probe = Call::get("/healthz");
        assert_eq!(within("the answer to a probe", status(operations, &probe)).await, 200);
    }
    assert_eq!(status(operations, &Call::get("/readyz")).await, 200);
    let press = Click::approve("U0ALICE", &request.id).signed().call();
    assert_eq!(status(interactions, &press).await, 200);
    // The message is updated in Slack: the gateway can still open connections of its own.
    slack.shown_when(&request.id, "the decision", |message| message.shown().contains("Approved")).await;
    drop((idle, slow));
    assert_eq!(gateway.look(&request.token).await["status"], "approved");
    drop(gateway);
}

#[tokio::test]
async fn one_caller_cannot_hold_all_streams() {
    let gateway = Home::new(&deploy(1)).with("SSE_MAX_CONNECTIONS", "4").start().await;
    let request = gateway.create(&Ask::new("deploy")).await.expect("it is admitted");
    let wait = Call::get("/api/guard/wait-sse").bearer(&request.token);
    let mut open = vec![gateway.stream(&request.token).await, gateway.stream(&request.token).await];
    let refused = Problem::read(&gateway.send(&wait).await);
    assert_eq!(refused.is(), (503, "too_many_streams"), "one address may hold half");
    assert!(refused.retry_after.is_some());
    for stream in &mut open {
        assert_eq!(stream.state().await.status(), "ready_for_approval");
    }
    let elsewhere = Connection::open_from(Ipv4Addr::new(127, 0, 3, 1), gateway.address()).await;
    let mut elsewhere = elsewhere.expect("it listens");
    elsewhere.write(&wait.bytes()).await.expect("it is read");
    let other = within("another client's stream", elsewhere.status_of_stream()).await.expect("it answers");
    assert_eq!(other, 200);
}
