//! The export: batches of spans, by OTLP over HTTP with protobuf.
//!
//! Nothing waits for a collector. A batch that it does not take is dropped and counted: whoever has to know what happened
//! has the audit log.

use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Request, Uri};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData};
use prost::Message as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::queue::{self, Dropped, ExportMetrics};
use crate::span::Tracer;

/// The most spans of one batch.
const MOST_AT_ONCE: usize = 512;

/// How long a batch is filled.
const FILLED_FOR: Duration = Duration::from_secs(1);

/// The longest answer that is read, in bytes.
const ANSWER_BYTES: usize = 64 * 1024;

/// Where spans go, which of them, and what is said of this process.
#[derive(Clone)]
pub struct Collector {
    /// The URL that batches are sent to: `http` or `https`.
    pub url: Uri,
    /// What each call has besides: often a secret.
    pub headers: HeaderMap,
    /// How long the collector may take for a batch.
    pub timeout: Duration,
    /// Which part of all traces is recorded, from 0 to 1; the id of a trace says which.
    pub ratio: f64,
    /// The attributes of this process.
    pub resource: Vec<(String, String)>,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Collector { url, headers, timeout, ratio, resource } = self;
        let headers: Vec<&str> = headers.keys().map(|name| name.as_str()).collect();
        f.debug_struct("Collector")
            .field("host", &url.authority().map_or("", |authority| authority.as_str()))
            .field("headers", &headers)
            .field("timeout", timeout)
            .field("ratio", ratio)
            .field("resource", resource)
            .finish()
    }
}

/// Why nothing can be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    /// The system has no root certificates to verify the collector's with.
    #[error("the system's certificates cannot be read: {0}")]
    Certificates(io::Error),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

/// Sends spans to a collector, in a task of its own.
#[derive(Debug)]
pub struct Exporter {
    stop: oneshot::Sender<Instant>,
    task: JoinHandle<()>,
}

impl Exporter {
    /// Begins to export. Must be called in a runtime.
    ///
    /// # Errors
    /// If the system's root certificates are needed, and cannot be read.
    pub fn start(collector: Collector, metrics: &ExportMetrics) -> Result<(Tracer, Exporter), ExporterError> {
        let (entrance, queue) = queue::new(metrics);
        let provider = SdkTracerProvider::builder()
            // Not that of a caller's parent: whether something is recorded is for whoever pays for it to say.
            .with_sampler(Sampler::TraceIdRatioBased(collector.ratio))
            .with_span_processor(entrance)
            .with_resource(Resource::builder_empty().build())
            .build();
        let tracer = Tracer::new(provider.tracer("countersign"));
        let attributes =
            collector.resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
        let resource = Resource::builder_empty().with_attributes(attributes).build();
        let worker = Worker {
            client: client(&collector.url)?,
            resource: (&resource).into(),
            collector,
            queue,
            metrics: metrics.clone(),
            fails: false,
        };
        let (stop, stopped) = oneshot::channel();
        Ok((tracer, Exporter { stop, task: tokio::spawn(worker.run(stopped)) }))
    }

    /// Sends what waits, and ends. What the collector has not taken within `within` is dropped.
    pub async fn flush(self, within: Duration) {
        // If the task has panicked there is nothing to flush.
        let _ = self.stop.send(Instant::now() + within);
        let _ = self.task.await;
    }
}

/// Calls that are under way have a connection each: not HTTP/2, whose one connection could hang for all.
fn client(url: &Uri) -> Result<Client<HttpsConnector<HttpConnector>, Full<Bytes>>, ExporterError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ExporterError::Tls(error.to_string()))?;
    let config = match url.scheme_str() {
        Some("https") => config.with_native_roots().map_err(ExporterError::Certificates)?,
        // No certificate is looked at.
        _ => config.with_root_certificates(RootCertStore::empty()),
    };
    let mut http = HttpConnector::new();
    http.set_nodelay(true);
    http.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config.with_no_client_auth())
        .https_or_http()
        .enable_http1()
        .wrap_connector(http);
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

/// Takes spans out of the queue, and sends them.
struct Worker {
    collector: Collector,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    resource: ResourceAttributesWithSchema,
    queue: Receiver<SpanData>,
    metrics: ExportMetrics,
    /// Whether the last batch was not taken, which the log says once.
    fails: bool,
}

impl Worker {
    async fn run(mut self, mut stopped: oneshot::Receiver<Instant>) {
        // If whoever could have asked for a flush is gone, nobody waits for it.
        let until = |stop: Result<Instant, _>| stop.unwrap_or_else(|_| Instant::now());
        let mut batch = Vec::with_capacity(MOST_AT_ONCE);
        let until = loop {
            tokio::select! {
                biased;
                stop = &mut stopped => break until(stop),
                () = fill(&mut self.queue, &mut batch) => {}
            }
            let number = batch.len();
            let body = self.encoded(std::mem::take(&mut batch));
            let mut stop = None;
            let sent = {
                let mut sending = pin!(self.send(body));
                tokio::select! {
                    sent = &mut sending => Some(sent),
                    // A collector that takes long does not keep a shutdown waiting.
                    at = &mut stopped => timeout_at(*stop.insert(until(at)), sending).await.ok(),
                }
            };
            self.note(sent, number);
            if let Some(until) = stop {
                break until;
            }
        };
        self.queue.close();
        while let Ok(span) = self.queue.try_recv() {
            batch.push(span);
        }
        while !batch.is_empty() {
            let rest = batch.split_off(batch.len().min(MOST_AT_ONCE));
            let (number, body) = (batch.len(), self.encoded(batch));
            let sent = timeout_at(until, self.send(body)).await.ok();
            self.note(sent, number);
            batch = rest;
        }
    }

    /// Counts what became of a batch: `None` if the process ends first. The log says that batches begin to fail, and that
    /// they do not any more.
    fn note(&mut self, sent: Option<Result<u64, Failed>>, spans: usize) {
        // Nothing else of the URL, which may hold a secret.
        let collector = self.collector.url.authority().map_or("", |authority| authority.as_str());
        match sent {
            Some(Ok(rejected)) => {
                let rejected = usize::try_from(rejected).unwrap_or(usize::MAX).min(spans);
                self.metrics.dropped(Dropped::Rejected, rejected);
                self.metrics.exported.inc_by(u64::try_from(spans - rejected).unwrap_or_default());
                if std::mem::take(&mut self.fails) {
                    tracing::info!(collector, "the collector takes spans again");
                }
            }
            Some(Err(error)) => {
                self.metrics.dropped(Dropped::ExportFailed, spans);
                if !std::mem::replace(&mut self.fails, true) {
                    tracing::warn!(collector, %error, "the collector does not take spans; they are dropped until it does");
                }
            }
            None => {
                self.metrics.dropped(Dropped::Shutdown, spans);
                tracing::warn!(
                    collector,
                    spans,
                    "shutdown: the collector did not take the last spans in time"
                );
            }
        }
    }

    fn encoded(&self, spans: Vec<SpanData>) -> Bytes {
        let resource_spans = group_spans_by_resource_and_scope(spans, &self.resource);
        ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
    }

    /// Sends a batch. Returns how many spans of it the collector did not want.
    async fn send(&self, body: Bytes) -> Result<u64, Failed> {
        timeout(self.collector.timeout, self.call(body)).await.map_err(|_| Failed::Slow)?
    }

    async fn call(&self, body: Bytes) -> Result<u64, Failed> {
        let mut call = Request::post(self.collector.url.clone())
            .header(CONTENT_TYPE, PROTOBUF)
            .header(USER_AGENT, concat!("countersign/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(|_| Failed::Unsendable)?;
        call.headers_mut().extend(self.collector.headers.clone());
        let answer = self.client.request(call).await.map_err(|error| Failed::unreachable(&error))?;
        let (parts, body) = answer.into_parts();
        if !parts.status.is_success() {
            return Err(Failed::Status(parts.status.as_u16()));
        }
        let is_protobuf = parts.headers.get(CONTENT_TYPE).is_some_and(|it| it == PROTOBUF);
        let body = Limited::new(body, ANSWER_BYTES).collect().await;
        // An answer that cannot be read says as little as one that is empty: all was taken.
        let answer = body.ok().filter(|_| is_protobuf);
        let answer = answer.and_then(|body| ExportTraceServiceResponse::decode(body.to_bytes()).ok());
        let rejected = answer.and_then(|answer| answer.partial_success).map_or(0, |it| it.rejected_spans);
        Ok(u64::try_from(rejected).unwrap_or_default())
    }
}

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// Waits for spans, and then until there are enough of them, or it has been long enough. What was taken out of the queue is
/// in `batch` even if this is dropped.
async fn fill(queue: &mut Receiver<SpanData>, batch: &mut Vec<SpanData>) {
    if batch.is_empty() && queue.recv_many(batch, MOST_AT_ONCE).await == 0 {
        // All tracers are gone.
        return std::future::pending().await;
    }
    let until = Instant::now() + FILLED_FOR;
    while batch.len() < MOST_AT_ONCE {
        let room = MOST_AT_ONCE - batch.len();
        match timeout_at(until, queue.recv_many(batch, room)).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("it does not answer in time")]
    Slow,
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("it answers with {0}")]
    Status(u16),
    #[error("the call cannot be made")]
    Unsendable,
}

impl Failed {
    fn unreachable(error: &hyper_util::client::legacy::Error) -> Failed {
        // The innermost cause says what happened.
        let mut last = error as &dyn std::error::Error;
        while let Some(inner) = last.source() {
            last = inner;
        }
        Failed::Unreachable(last.to_string())
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;
    use prometheus::Registry;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::vocabulary::{Key, Name};

    /// A collector that takes one batch, and does not want so many spans of it. Returns its URL, and what it is sent.
    async fn collector(rejected: i64) -> (Uri, JoinHandle<ExportTraceServiceRequest>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/traces", listener.local_addr().unwrap()).parse().unwrap();
        let serving = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut sent = Vec::new();
            let body = loop {
                assert!(socket.read_buf(&mut sent).await.unwrap() > 0, "all of it comes");
                let text = String::from_utf8_lossy(&sent);
                let Some(end) = text.find("\r\n\r\n") else { continue };
                let length =
                    text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                let length: usize = length.expect("a length");
                let end = sent.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(end) + 4;
                if sent.len() >= end + length {
                    break sent.split_off(end);
                }
            };
            let partial =
                ExportTracePartialSuccess { rejected_spans: rejected, error_message: String::new() };
            let answer = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
                answer.len()
            );
            socket.write_all(&[head.as_bytes(), &answer].concat()).await.unwrap();
            ExportTraceServiceRequest::decode(body.as_slice()).unwrap()
        });
        (url, serving)
    }

    #[tokio::test]
    async fn what_waits_is_sent_at_the_end_and_what_is_rejected_is_counted() {
        let (url, serving) = collector(2).await;
        let metrics = ExportMetrics::new(&Registry::new()).unwrap();
        let collector = Collector {
            url,
            headers: HeaderMap::new(),
            timeout: Duration::from_secs(60),
            ratio: 1.0,
            resource: vec![("service.name".to_owned(), "test".to_owned())],
        };
        let (tracer, exporter) = Exporter::start(collector, &metrics).unwrap();
        for number in 0..5 {
            tracer.start(Name::Wake).set_number(Key::Fuel, number);
        }
        exporter.flush(Duration::from_secs(60)).await;
        assert_eq!(metrics.exported.get(), 3);
        let sent = serving.await.unwrap();
        let spans = &sent.resource_spans[0].scope_spans[0].spans;
        assert_eq!(
            spans.iter().filter(|span| span.name == "wake" && span.parent_span_id.is_empty()).count(),
            5
        );
        // A span that ends after that is counted, too.
        drop(tracer.start(Name::Wake));
    }
}
