//! An OpenTelemetry collector: it takes spans by OTLP over HTTP, decodes them, and keeps them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{Span, status};
use prost::Message as _;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What a collector does with what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It takes it.
    Takes,
    /// It answers with this status, and takes nothing.
    Refuses(u16),
    /// It never answers, and takes nothing.
    Hangs,
}

/// A collector. Dropping it ends it.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    taken: watch::Receiver<Taken>,
    manner: watch::Sender<Manner>,
    accepting: JoinHandle<()>,
}

/// What came.
#[derive(Debug, Default)]
struct Taken {
    calls: usize,
    spans: Vec<Collected>,
}

/// A span, as a collector has it.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// Its name.
    pub name: String,
    /// The id of its trace, in hexadecimal.
    pub trace: String,
    /// Its id.
    pub id: String,
    /// The id of its parent; empty if it has none.
    pub parent: String,
    /// The traces and the spans that it is linked to.
    pub links: Vec<(String, String)>,
    /// What the systems of callers have added to its trace.
    pub state: String,
    /// Its attributes.
    pub attributes: BTreeMap<String, Value>,
    /// The attributes of the process that it is from.
    pub resource: BTreeMap<String, Value>,
    /// Whether it failed.
    pub failed: bool,
    /// How long it took, in nanoseconds.
    pub took_ns: u64,
    /// The headers that it came with.
    pub headers: BTreeMap<String, String>,
    /// All of it, and of the process, as text.
    pub text: String,
}

impl Collector {
    /// A collector that takes spans.
    pub async fn start() -> Collector {
        Collector::with_manner(Manner::Takes).await
    }

    /// A collector that does this with what it is sent.
    ///
    /// # Panics
    /// If it cannot listen.
    pub async fn with_manner(manner: Manner) -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it has an address");
        let ((took, taken), manner) = (watch::channel(Taken::default()), watch::channel(manner).0);
        let manners = manner.subscribe();
        let accepting = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (took, manners) = (took.clone(), manners.clone());
                // It ends with the connection.
                tokio::spawn(async move { serve(socket, &took, manners).await.map(drop) });
            }
        });
        Collector { address, taken, manner, accepting }
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it does this.
    pub fn set_manner(&self, manner: Manner) {
        self.manner.send_replace(manner);
    }

    /// What it has got so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Collected> {
        self.taken.borrow().spans.clone()
    }

    /// Waits until so many calls have come, whatever became of them.
    pub async fn called(&self, times: usize) {
        let mut taken = self.taken.clone();
        let enough = taken.wait_for(|taken| taken.calls >= times);
        drop(crate::within(&format!("{times} batches of spans"), enough).await.expect("it runs"));
    }

    /// Waits for a span of this name of which this is true.
    ///
    /// # Panics
    /// If there is none in the end, with those that there are.
    pub async fn span(&self, name: &str, is: impl Fn(&Collected) -> bool) -> Collected {
        let found = |taken: &Taken| taken.spans.iter().find(|span| span.name == name && is(span)).cloned();
        let mut taken = self.taken.clone();
        let waited = tokio::time::timeout(crate::PATIENCE, taken.wait_for(|taken| found(taken).is_some()));
        match waited.await {
            Ok(taken) => found(&taken.expect("it runs")).expect("it was found"),
            Err(_) => panic!("no such span `{name}`: {:#?}", self.spans()),
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Collected {
    /// An attribute that is text; empty if there is none.
    #[must_use]
    pub fn text_of(&self, key: &str) -> &str {
        self.attributes.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether it is about this request.
    #[must_use]
    pub fn is_of(&self, request: &str) -> bool {
        self.text_of("countersign.request.id") == request
    }

    fn of(span: &Span, resource: &[KeyValue], headers: &BTreeMap<String, String>) -> Collected {
        let failed = span.status.as_ref().is_some_and(|it| it.code == status::StatusCode::Error as i32);
        Collected {
            name: span.name.clone(),
            trace: hex::encode(&span.trace_id),
            id: hex::encode(&span.span_id),
            parent: hex::encode(&span.parent_span_id),
            links: span
                .links
                .iter()
                .map(|link| (hex::encode(&link.trace_id), hex::encode(&link.span_id)))
                .collect(),
            state: span.trace_state.clone(),
            attributes: values(&span.attributes),
            resource: values(resource),
            failed,
            took_ns: span.end_time_unix_nano - span.start_time_unix_nano,
            headers: headers.clone(),
            text: format!("{span:?} {resource:?}"),
        }
    }
}

fn values(attributes: &[KeyValue]) -> BTreeMap<String, Value> {
    let mut values = BTreeMap::new();
    for KeyValue { key, value, .. } in attributes {
        let value = match value.as_ref().and_then(|value| value.value.clone()) {
            Some(any_value::Value::StringValue(text)) => Value::from(text),
            Some(any_value::Value::IntValue(number)) => Value::from(number),
            other => panic!("no other value is sent: {other:?}"),
        };
        assert!(values.insert(key.clone(), value).is_none(), "the attribute {key} is there twice");
    }
    values
}

/// Answers the calls of a connection.
async fn serve(
    socket: TcpStream,
    took: &watch::Sender<Taken>,
    mut manners: watch::Receiver<Manner>,
) -> std::io::Result<()> {
    let mut socket = BufReader::new(socket);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if socket.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if line.trim().is_empty() {
                break;
            }
            lines.push(line.trim().to_owned());
        }
        let headers: BTreeMap<String, String> = lines
            .iter()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let length = headers["content-length"].parse().expect("a length");
        let mut body = vec![0; length];
        socket.read_exact(&mut body).await?;
        let manner = *manners.borrow_and_update();
        let is_otlp = lines[0] == "POST /v1/traces HTTP/1.1"
            && headers.get("content-type").map(String::as_str) == Some("application/x-protobuf");
        let status = match manner {
            _ if !is_otlp => 404,
            Manner::Takes => 200,
            Manner::Refuses(status) => status,
            Manner::Hangs => 0,
        };
        let sent = ExportTraceServiceRequest::decode(body.as_slice()).expect("protobuf of OTLP");
        took.send_modify(|taken| {
            taken.calls += 1;
            if status == 200 {
                for resource_spans in &sent.resource_spans {
                    let resource = resource_spans.resource.as_ref().map_or(&[][..], |it| &it.attributes);
                    let spans = resource_spans.scope_spans.iter().flat_map(|scope| &scope.spans);
                    taken.spans.extend(spans.map(|span| Collected::of(span, resource, &headers)));
                }
            }
        });
        if manner == Manner::Hangs {
            // Until it is told otherwise; then the call is lost.
            let _ = manners.changed().await;
            return Ok(());
        }
        let answer = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"
        );
        socket.write_all(answer.as_bytes()).await?;
    }
}
