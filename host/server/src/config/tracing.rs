//! Where traces go. docs/TRACING.md says what is in them.

use std::time::Duration;

use clap::Args;
use countersign_core::loopback::is_loopback;
use countersign_trace::Collector;
use hyper::Uri;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use super::Environment;

/// Where traces go. The headers come from the environment only: `OTLP_HEADERS`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Traces")]
pub struct Tracing {
    /// The URL of the OpenTelemetry collector that traces are sent to, by OTLP over HTTP with protobuf; `/v1/traces` is
    /// added if it has no path. Without it, `OTEL_EXPORTER_OTLP_ENDPOINT`; without both nothing is traced.
    // Read later, since the parser of flags repeats what is wrong: it may hold a secret.
    #[arg(long = "otlp-endpoint", value_name = "OTLP_ENDPOINT")]
    endpoint: Option<String>,
    /// How long the collector may take for a batch, in milliseconds; 10000 if nothing else is said.
    #[arg(long = "otlp-timeout-ms", value_name = "OTLP_TIMEOUT_MS")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=60_000))]
    timeout_ms: Option<u32>,
    /// Which part of all traces is recorded, from 0 to 1; 1 if nothing else is said.
    #[arg(long = "trace-sample-ratio", value_name = "COUNTERSIGN_TRACE_SAMPLE_RATIO", value_parser = ratio)]
    ratio: Option<f64>,
    /// What these settings and the variables of OpenTelemetry come to; `None` if nothing is traced.
    #[arg(skip)]
    pub collector: Option<Collector>,
}

/// The most that OpenTelemetry's variables may make the collector take, in milliseconds.
const LONGEST_MS: u64 = 60_000;

const DEFAULT_TIMEOUT_MS: u64 = 10_000;

/// The path of OTLP over HTTP.
const PATH: &str = "v1/traces";

/// Headers that say how the body is sent.
const OURS: [&str; 8] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "te",
    "transfer-encoding",
    "user-agent",
];

impl Tracing {
    /// Reads the variables that have no flag: the headers, and what OpenTelemetry has everybody read. Adds what is wrong, and
    /// what has another effect than meant, one sentence each.
    pub(super) fn read_variables(
        &mut self,
        environment: &Environment,
        (wrong, warnings): (&mut Vec<String>, &mut Vec<String>),
    ) {
        let mut read = Reading { environment, wrong, warnings };
        if read.is_off() {
            return;
        }
        let headers = read.headers();
        let given = self.endpoint.take();
        let url = match &given {
            Some(text) => {
                let url = endpoint(text).map_err(|why| {
                    read.wrong.push(format!("`--otlp-endpoint <OTLP_ENDPOINT>` is wrong: {why}"))
                });
                url.ok()
            }
            None => read.endpoint(),
        };
        let Some(url) = url else {
            if given.is_none() && headers.as_ref().is_some_and(|headers| !headers.is_empty()) {
                read.warnings
                    .push("the headers of `OTLP_HEADERS` have no effect without `OTLP_ENDPOINT`".to_owned());
            }
            return;
        };
        read.protocol();
        let timeout_ms = self.timeout_ms.map_or_else(|| read.timeout_ms(), u64::from);
        let ratio = self.ratio.unwrap_or_else(|| read.ratio());
        let resource = read.resource();
        let headers = headers.unwrap_or_default();
        let is_plain = url.scheme_str() == Some("http") && !url.host().is_some_and(is_loopback);
        if is_plain && !headers.is_empty() {
            read.warnings.push(
                "the headers for the collector go over the network in the clear, for its URL is `http`"
                    .to_owned(),
            );
        }
        let timeout = Duration::from_millis(timeout_ms);
        self.collector = Some(Collector { url, headers, timeout, ratio, resource });
    }
}

/// Reads variables.
struct Reading<'a> {
    environment: &'a Environment,
    wrong: &'a mut Vec<String>,
    warnings: &'a mut Vec<String>,
}

impl<'a> Reading<'a> {
    /// The first of these variables that is set. OpenTelemetry takes an empty one as not set.
    fn first(&self, names: &[&'static str]) -> Option<(&'static str, &'a str)> {
        let value = |name: &&'static str| Some((*name, self.environment.get(*name)?.as_str()));
        names.iter().filter_map(value).find(|(_, value)| !value.trim().is_empty())
    }

    /// Whether OpenTelemetry is switched off.
    fn is_off(&mut self) -> bool {
        let is_disabled =
            self.first(&["OTEL_SDK_DISABLED"]).is_some_and(|(_, it)| it.eq_ignore_ascii_case("true"));
        match self.first(&["OTEL_TRACES_EXPORTER"]) {
            Some((_, "none")) => true,
            None | Some((_, "otlp")) => is_disabled,
            Some((name, _)) => {
                self.wrong.push(format!("the variable `{name}` is neither `otlp` nor `none`"));
                is_disabled
            }
        }
    }

    fn endpoint(&mut self) -> Option<Uri> {
        let whole = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        let (name, text) = self.first(&[whole, "OTEL_EXPORTER_OTLP_ENDPOINT"])?;
        let text = text.trim();
        let path = if name == whole {
            String::new()
        } else {
            format!("{}{PATH}", if text.ends_with('/') { "" } else { "/" })
        };
        match url(&format!("{text}{path}")) {
            Ok(url) => Some(url),
            Err(why) => {
                self.wrong.push(format!("the variable `{name}` is wrong: {why}"));
                None
            }
        }
    }

    /// There is one protocol, and one way to say whom to trust.
    fn protocol(&mut self) {
        let names = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
        if let Some((name, _)) = self.first(&names).filter(|(_, protocol)| *protocol != "http/protobuf") {
            self.wrong.push(format!(
                "the variable `{name}` must be `http/protobuf`, the one protocol that is spoken"
            ));
        }
        let names = ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"];
        if let Some((name, _)) = self.first(&names).filter(|(_, compression)| *compression != "none") {
            self.warnings.push(format!("the variable `{name}` has no effect: traces are not compressed"));
        }
        for file in ["CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"] {
            for name in [format!("OTEL_EXPORTER_OTLP_TRACES_{file}"), format!("OTEL_EXPORTER_OTLP_{file}")] {
                if self.environment.get(&name).is_some_and(|value| !value.is_empty()) {
                    self.wrong.push(format!(
                        "the variable `{name}` is not read: the collector's certificate is verified by the system's \
                         certificates, or those of `SSL_CERT_FILE`, and the gateway has none of its own for it"
                    ));
                }
            }
        }
    }

    fn timeout_ms(&mut self) -> u64 {
        let names = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
        let Some((name, text)) = self.first(&names) else { return DEFAULT_TIMEOUT_MS };
        let given = text.trim().parse().ok().filter(|ms| (1..=LONGEST_MS).contains(ms));
        given.unwrap_or_else(|| {
            self.wrong
                .push(format!("the variable `{name}` is no number of milliseconds from 1 to {LONGEST_MS}"));
            DEFAULT_TIMEOUT_MS
        })
    }

    fn ratio(&mut self) -> f64 {
        let Some((name, sampler)) = self.first(&["OTEL_TRACES_SAMPLER"]) else { return 1.0 };
        let sampler = sampler.strip_prefix("parentbased_").map_or(sampler, |rest| {
            self.warnings.push(format!(
                "the variable `{name}` counts without `parentbased_`: whether a caller records its trace decides nothing here"
            ));
            rest
        });
        match sampler {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => {
                let name = "OTEL_TRACES_SAMPLER_ARG";
                let Some((_, text)) = self.first(&[name]) else { return 1.0 };
                ratio(text.trim()).unwrap_or_else(|why| {
                    self.wrong.push(format!("the variable `{name}` is wrong: {why}"));
                    1.0
                })
            }
            _ => {
                self.wrong.push(format!(
                    "the variable `{name}` is none of `always_on`, `always_off` and `traceidratio`"
                ));
                1.0
            }
        }
    }

    /// The headers; what is wrong with them is said without their values.
    fn headers(&mut self) -> Option<HeaderMap> {
        let names = ["OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
        let (name, text) = self.first(&names)?;
        let mut headers = HeaderMap::new();
        for (index, pair) in text.split(',').enumerate() {
            match header(pair) {
                Ok((header, value)) => drop(headers.insert(header, value)),
                Err(why) => {
                    let number = index + 1;
                    self.wrong.push(format!("the variable `{name}` is wrong: its header {number} {why}"));
                }
            }
        }
        Some(headers)
    }

    /// What is said of this process.
    fn resource(&mut self) -> Vec<(String, String)> {
        let mut resource = vec![
            ("service.name".to_owned(), "countersign".to_owned()),
            ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ];
        let mut set = |key: String, value: String| {
            resource.retain(|(known, _)| *known != key);
            resource.push((key, value));
        };
        if let Some((name, text)) = self.first(&["OTEL_RESOURCE_ATTRIBUTES"]) {
            for (index, pair) in text.split(',').enumerate() {
                let decoded =
                    pair.split_once('=').and_then(|(key, value)| Some((key.trim(), decoded(value.trim())?)));
                match decoded.filter(|(key, _)| !key.is_empty()) {
                    Some((key, value)) => set(key.to_owned(), value),
                    None => {
                        let number = index + 1;
                        self.wrong.push(format!(
                            "the variable `{name}` is wrong: its attribute {number} is no `key=value`"
                        ));
                    }
                }
            }
        }
        if let Some((_, service)) = self.first(&["OTEL_SERVICE_NAME"]) {
            set("service.name".to_owned(), service.to_owned());
        }
        resource
    }
}

/// A header, and what is wrong with it otherwise.
fn header(pair: &str) -> Result<(HeaderName, HeaderValue), &'static str> {
    let (name, value) = pair.split_once('=').ok_or("is no `name=value`")?;
    let name: HeaderName = name.trim().parse().map_err(|_| "has a name that no header can have")?;
    if OURS.contains(&name.as_str()) {
        return Err("is one that the gateway sets itself");
    }
    let value = decoded(value.trim()).ok_or("has a value that is not UTF-8")?;
    let mut value = HeaderValue::from_str(&value).map_err(|_| "has a value that no header can have")?;
    value.set_sensitive(true);
    Ok((name, value))
}

fn decoded(text: &str) -> Option<String> {
    Some(percent_decode_str(text).decode_utf8().ok()?.into_owned())
}

fn endpoint(text: &str) -> Result<Uri, String> {
    let given = url(text)?;
    if given.path() != "/" || given.query().is_some() {
        return Ok(given);
    }
    url(&format!("{}/{PATH}", text.trim_end_matches('/')))
}

/// A URL of a collector. What is wrong with it is said without it: it may hold a secret.
fn url(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|_| "this is no URL".to_owned())?;
    let is_http = matches!(url.scheme_str(), Some("http" | "https"));
    match url.authority() {
        Some(authority) if authority.as_str().contains('@') => {
            Err("a URL holds no password here: give it as a header, in `OTLP_HEADERS`".to_owned())
        }
        Some(authority) if is_http && !authority.host().is_empty() => Ok(url),
        _ => Err("this is no `http` or `https` URL".to_owned()),
    }
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err("this is a number from 0 to 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::{Cli, Command};

    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<(Option<Collector>, Vec<String>), String> {
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        match Cli::read(["countersign", "serve", "--policies", "p"], &environment.collect()) {
            Ok(Cli { command: Command::Serve(config) }) => Ok((config.tracing.collector, config.warnings)),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn settings_come_to_a_collector() {
        assert!(read(&[]).unwrap().0.is_none());
        for (variables, expected) in [
            (&[("OTLP_ENDPOINT", "http://otel:4318")][..], "http://otel:4318/v1/traces"),
            (&[("OTLP_ENDPOINT", "http://otel:4318/")], "http://otel:4318/v1/traces"),
            (
                &[("OTLP_ENDPOINT", "https://otel.example/api/traces?tenant=a")],
                "https://otel.example/api/traces?tenant=a",
            ),
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4318/base/")], "http://otel:4318/base/v1/traces"),
            (&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://otel:4318/base")], "http://otel:4318/base"),
            (
                &[("OTLP_ENDPOINT", "http://mine/x"), ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://other")],
                "http://mine/x",
            ),
        ] {
            let (collector, warnings) = read(variables).unwrap();
            let collector = collector.unwrap();
            assert_eq!(collector.url.to_string(), expected);
            assert_eq!((collector.timeout, collector.ratio), (Duration::from_secs(10), 1.0));
            assert_eq!(warnings, [""; 0]);
        }
        for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert!(read(&[("OTLP_ENDPOINT", "http://otel"), off]).unwrap().0.is_none());
        }
        let (collector, warnings) = read(&[
            ("OTLP_ENDPOINT", "http://otel:4318"),
            ("OTLP_HEADERS", "authorization=Bearer%20hunter2, x-tenant = acme"),
            ("OTLP_TIMEOUT_MS", "250"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_SERVICE_NAME", "gate"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod%20eu,service.name=other"),
        ])
        .unwrap();
        let collector = collector.unwrap();
        assert_eq!(collector.headers["authorization"], "Bearer hunter2");
        assert_eq!(collector.headers["x-tenant"], "acme");
        assert_eq!((collector.timeout, collector.ratio), (Duration::from_millis(250), 0.25));
        let resource: Vec<_> =
            collector.resource.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(
            resource,
            [
                ("service.version", env!("CARGO_PKG_VERSION")),
                ("deployment.environment.name", "prod eu"),
                ("service.name", "gate")
            ]
        );
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("parentbased_") && warnings[1].contains("in the clear"), "{warnings:?}");
        assert!(!format!("{collector:?}").contains("hunter2"));
    }

    #[test]
    fn what_is_wrong_is_said_at_once_and_without_secrets() {
        let error = read(&[
            ("OTLP_ENDPOINT", "http://user:hunter2@otel"),
            ("OTLP_HEADERS", "authorization,x-a=1,host=hunter2,bad name=hunter2,x-b=hunter2%0a"),
            ("OTLP_TIMEOUT_MS", "0"),
            ("COUNTERSIGN_TRACE_SAMPLE_RATIO", "1.5"),
        ])
        .unwrap_err();
        let lines: Vec<&str> = error.lines().collect();
        let expected = [
            "--otlp-timeout-ms",
            "--trace-sample-ratio",
            "its header 1 is no `name=value`",
            "its header 3 is one that the gateway sets itself",
            "its header 4 has a name that no header can have",
            "its header 5 has a value that no header can have",
            "`--otlp-endpoint <OTLP_ENDPOINT>` is wrong: a URL holds no password",
        ];
        assert_eq!(lines.len(), expected.len(), "{error}");
        for (line, named) in lines.iter().zip(expected) {
            assert!(line.contains(named), "`{line}` does not say {named}");
        }
        assert!(!error.contains("hunter2"), "{error}");
        let error = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca.pem"),
            ("OTEL_TRACES_SAMPLER", "xray"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a"),
        ])
        .unwrap_err();
        assert_eq!(error.lines().count(), 6, "{error}");
        assert!(
            read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "otel:4317")])
                .unwrap_err()
                .contains("`OTEL_EXPORTER_OTLP_ENDPOINT`")
        );
    }
}
