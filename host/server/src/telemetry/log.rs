//! The log: lines on the standard error, as JSON or as plain text.
//!
//! A failure is logged once, where it is handled. No line contains a body, a token, a parameter or a person's name.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write as _};
use std::panic::{self, PanicHookInfo};

use countersign_core::lifecycle::RequestId;
use countersign_gateway::GatewayError;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{LogFormat, Logging};

/// Starts the log of this process.
///
/// # Errors
/// If a log was started before.
pub fn start_log(logging: &Logging) -> anyhow::Result<()> {
    let registry = tracing_subscriber::registry().with(logging.filter.clone()).with(filter_fn(may_log));
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    match logging.format {
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init()?,
        LogFormat::Text => {
            registry.with(layer.with_ansi(io::IsTerminal::is_terminal(&io::stderr()))).try_init()?
        }
    }
    panic::set_hook(Box::new(print_panic));
    Ok(())
}

/// Prints where a thread panicked, whatever the log's filter. Also why, if that was written in the source: a text that was
/// made as the program ran may hold a parameter.
fn print_panic(panic: &PanicHookInfo<'_>) {
    let why = panic.payload().downcast_ref::<&'static str>();
    let why = why.copied().unwrap_or("a message with values in it, which is left out");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let backtrace = Backtrace::capture();
    let backtrace = match backtrace.status() {
        BacktraceStatus::Captured => format!("\n{backtrace}"),
        _ => String::new(),
    };
    // It fails if the standard error is closed: then nobody reads it.
    let _ = writeln!(io::stderr(), "a thread panicked at {place}: {why}{backtrace}");
}

/// Whether a line may be in the log, whatever the settings say: of libraries those that tell of something, and none that
/// traces what they do, for it has URLs, headers and bodies in it.
fn may_log(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO || metadata.target().starts_with("countersign")
}

/// Logs an error if an operator should know of it, with the request that it is about, if it is known. Mistakes of callers are
/// not logged.
pub(crate) fn log_failure(error: &GatewayError, request: Option<RequestId>) {
    let request = request.map(tracing::field::display);
    match error {
        GatewayError::Store(_)
        | GatewayError::Rules(_)
        | GatewayError::RulesLost(_)
        | GatewayError::Stopped(_)
        | GatewayError::Randomness(_) => tracing::error!(request, %error, code = error.code(), "call failed"),
        GatewayError::Contended => {
            tracing::warn!(
                request,
                code = error.code(),
                "call failed: too many concurrent changes of the request"
            );
        }
        // The gateway itself logs failures of policies.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;

    use tracing_subscriber::filter::Targets;

    use super::*;

    const VALUE: &str = "hunter2-and-more";

    /// The hook is that of a whole process, so it is tried in one of its own.
    #[test]
    fn a_panic_prints_where_and_no_values() {
        let this = std::env::current_exe().unwrap();
        let test = "telemetry::log::tests::panics";
        let output = Command::new(this).args([test, "--exact", "--ignored", "--nocapture"]).output().unwrap();
        let printed = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{printed}");
        let lines: Vec<&str> =
            printed.lines().filter(|line| line.starts_with("a thread panicked at ")).collect();
        let [constant, formatted, unwrapped] = lines.try_into().unwrap_or_else(|_| panic!("{printed}"));
        assert!(constant.contains("log.rs:") && constant.ends_with(": as it was written"), "{constant}");
        for line in [formatted, unwrapped] {
            assert!(line.contains("log.rs:") && line.ends_with("which is left out"), "{line}");
        }
        assert!(!printed.contains(VALUE), "{printed}");
    }

    #[test]
    #[ignore = "it panics; the test above runs it"]
    fn panics() {
        start_log(&Logging { filter: Targets::new(), format: LogFormat::Json }).unwrap();
        let panics: [fn(); 3] = [
            || panic!("as it was written"),
            || panic!("it is {VALUE:?}, {}", 1),
            || assert_eq!(VALUE.parse::<u8>().map_err(|_| VALUE).unwrap(), 1),
        ];
        for panics in panics {
            assert!(thread::spawn(panics).join().is_err());
        }
    }
}
