//! The clients of docs/CLIENTS.md, as they stand there: they run nothing that was not approved.

use std::fs;
use std::net::SocketAddr;

use countersign_tests::{ApiKey, Click, Fault, Home, Relay, Running, project};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

const ACTIONS: &str = "
  deploy_staging:
    description: Deploy to staging
    redact: { show: [service, ref] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE], approvals: 1 }
";

#[tokio::test]
async fn curl() {
    check("sh", "client.sh", "sh").await;
}

#[tokio::test]
async fn python() {
    check("python", "client.py", "python3").await;
}

#[tokio::test]
async fn node() {
    check("js", "client.mjs", "node").await;
}

async fn check(language: &str, file: &str, program: &str) {
    let page = fs::read_to_string(project("docs/CLIENTS.md")).expect("there is a page on clients");
    let start = format!("\n```{language}\n");
    let blocks: Vec<&str> =
        page.split(&start).skip(1).filter_map(|rest| rest.split("\n```").next()).collect();
    let [client] = blocks[..] else { panic!("the page has {} clients in {language}", blocks.len()) };
    let key = ApiKey::new("web-deploys");
    let access = format!(
        "version: 1\ncallers:\n  web-deploys:\n    keys: [{}]\n    requester: asserted\n    actions: [deploy_staging]\n",
        key.line.trim_start_matches("- ")
    );
    let gateway = Home::new(ACTIONS).with_access(&access).start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join(file), client).expect("it can be written");
    let url = format!("http://{}", gateway.address());
    for (run, click, expected) in [
        ("run-1", Some(Click::approve as fn(&str, &str) -> Click), (Some(0), "run it")),
        // A job that is started again gets the same approval, and does not run it again.
        ("run-1", None, (Some(1), "decided: approved")),
        ("run-2", Some(Click::deny), (Some(1), "decided: denied")),
    ] {
        let variables =
            [("COUNTERSIGN_URL", url.as_str()), ("COUNTERSIGN_API_KEY", &key.secret), ("RUN_ID", run)];
        let client = Running::other(program, folder.path(), &[file], &variables);
        let asked = client.printed("asked: ").await;
        let request = asked.trim_start_matches("asked: ");
        if let Some(click) = click {
            gateway.click_ok(&click("U0ALICE", request)).await;
        }
        let ended = client.ended().await;
        assert_eq!(ended.code, expected.0, "{ended:?}");
        assert_eq!(ended.stdout.lines().last(), Some(expected.1), "{ended:?}");
        assert_eq!(ended.stderr.contains("already_consumed"), click.is_none(), "{ended:?}");
    }

    // Whatever happens to its connections, it goes on, and uses the approval under one key.
    let hasty = client.replace("130", "3");
    assert_ne!(hasty, client, "it says how long a stream may be silent");
    fs::write(folder.path().join(format!("hasty-{file}")), hasty).expect("it can be written");
    let url = broken(gateway.address()).await;
    let variables =
        [("COUNTERSIGN_URL", url.as_str()), ("COUNTERSIGN_API_KEY", &key.secret), ("RUN_ID", "run-4")];
    let client = Running::other(program, folder.path(), &[&format!("hasty-{file}")], &variables);
    let asked = client.printed("asked: ").await;
    gateway.click_ok(&Click::approve("U0ALICE", asked.trim_start_matches("asked: "))).await;
    let ended = client.ended().await;
    assert_eq!((ended.code, ended.stdout.lines().last()), (Some(0), Some("run it")), "{ended:?}");

    // A stream that is refused is not asked for again and again.
    let relay = Relay::start(Some(gateway.address())).await;
    let problem = r#"{"error":"not_found","detail":"no such request"}"#;
    relay.fault("/api/guard/wait-sse", Fault::answer("404 Not Found", "application/problem+json", problem));
    let url = relay.url();
    let variables =
        [("COUNTERSIGN_URL", url.as_str()), ("COUNTERSIGN_API_KEY", &key.secret), ("RUN_ID", "run-3")];
    let ended = Running::other(program, folder.path(), &[file], &variables).ended().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("the stream is refused: 404"), "{ended:?}");
}

/// A way to the gateway on which the first connections break: a request's answer is lost; streams are refused, cut within a
/// chunk, cut within the head, and silent; the answer of the consumption comes in part.
async fn broken(gateway: SocketAddr) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
    let url = format!("http://{}", listener.local_addr().expect("it has an address"));
    let stream = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let full = "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/problem+json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
    let mut troubles = vec![
        ("/api/guard/request", Trouble::Lost(usize::MAX)),
        ("/api/guard/wait-sse", Trouble::Answer(full.to_owned())),
        ("/api/guard/wait-sse", Trouble::Answer(format!("{stream}40\r\nevent: st"))),
        ("/api/guard/wait-sse", Trouble::Answer("HTTP/1.1 200".to_owned())),
        ("/api/guard/wait-sse", Trouble::Silence(stream.to_owned())),
        ("/api/guard/consume", Trouble::Lost(10)),
    ];
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let call = BufReader::new(client);
            // Each trouble comes once; calls come one after another.
            serve(call, gateway, &mut troubles).await;
        }
    });
    url
}

enum Trouble {
    /// This is answered, and the connection closed.
    Answer(String),
    /// This is answered, and then nothing, and the connection stays open.
    Silence(String),
    /// The gateway gets the call, and the last bytes of its answer do not come back.
    Lost(usize),
}

async fn serve(
    mut client: BufReader<TcpStream>,
    gateway: SocketAddr,
    troubles: &mut Vec<(&'static str, Trouble)>,
) {
    let (mut call, mut length) = (String::new(), 0);
    while !call.ends_with("\r\n\r\n") {
        let begin = call.len();
        if client.read_line(&mut call).await.unwrap_or(0) == 0 {
            return;
        }
        let line = call[begin..].to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
    }
    let mut body = vec![0; length];
    client.read_exact(&mut body).await.expect("it sends its body");
    let path = call.split(' ').nth(1).expect("it has a path");
    let trouble = troubles.iter().position(|(of, _)| *of == path).map(|place| troubles.remove(place).1);
    let mut client = client.into_inner();
    let lost = match trouble {
        Some(Trouble::Answer(answer)) => return client.write_all(answer.as_bytes()).await.expect("it reads"),
        Some(Trouble::Silence(answer)) => {
            client.write_all(answer.as_bytes()).await.expect("it reads");
            // Until it is given up.
            let _ = client.read_to_end(&mut Vec::new()).await;
            return;
        }
        Some(Trouble::Lost(lost)) => lost,
        None => 0,
    };
    let mut upstream = TcpStream::connect(gateway).await.expect("it listens");
    let head = call.replacen("\r\n", "\r\nconnection: close\r\n", 1);
    upstream.write_all(&[head.as_bytes(), &body].concat()).await.expect("it reads");
    if lost == 0 {
        let _ = tokio::io::copy(&mut upstream, &mut client).await;
        return;
    }
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).await.expect("it answers");
    client.write_all(&answer[..answer.len().saturating_sub(lost)]).await.expect("it reads");
}
