//! What is logged, and in which format.

use clap::{Args, ValueEnum};
use tracing_subscriber::filter::{LevelFilter, Targets};

/// What is logged, and in which format. The log goes to the standard error.
#[derive(Debug, Args)]
#[command(next_help_heading = "Log")]
pub struct Logging {
    /// What to log: a level, or directives such as `info,countersign_gateway::scheduler=debug`. Of libraries, nothing
    /// below `info` is logged: they trace URLs and headers.
    #[arg(long = "log", value_name = "COUNTERSIGN_LOG", default_value = "info", value_parser = directives)]
    pub filter: Targets,
    /// JSON, one object a line, or plain text.
    #[arg(long = "log-format", value_name = "COUNTERSIGN_LOG_FORMAT", default_value = "json")]
    pub format: LogFormat,
}

/// The format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Plain text, coloured on a terminal.
    Text,
}

/// The crates whose lines can be in the log: the gateway's own, and the libraries that log what happens.
const CRATES: [&str; 19] = [
    "countersign",
    "countersign_access",
    "countersign_authoring",
    "countersign_client",
    "countersign_console",
    "countersign_core",
    "countersign_dispatch",
    "countersign_gates",
    "countersign_gateway",
    "countersign_mcp",
    "countersign_outbound",
    "countersign_policy",
    "countersign_registry",
    "countersign_slack",
    "countersign_store",
    "countersign_trace",
    "h2",
    "hyper_util",
    "slack_morphism",
];

/// Reads levels and directives. The parser of `Targets` takes a word that is no level for a crate, of which there are no
/// lines: a typo would switch the whole log off.
fn directives(text: &str) -> Result<Targets, String> {
    text.split(',').try_fold(Targets::new(), |targets, part| {
        let part = part.trim();
        if part.is_empty() {
            return Err(format!("an empty part is {LEVELS}"));
        }
        match part.split_once('=') {
            None => Ok(targets.with_default(level(part, part)?)),
            Some((target, word)) => {
                let target = target.trim();
                let name = target.split("::").next().unwrap_or(target);
                if !CRATES.contains(&name) {
                    return Err(format!(
                        "`{part}`: nothing is logged by `{name}`; crates are {}",
                        CRATES.join(", ")
                    ));
                }
                Ok(targets.with_target(target, level(word, part)?))
            }
        }
    })
}

const LEVELS: &str = "neither a level (`off`, `error`, `warn`, `info`, `debug`, `trace`) nor a directive such as \
                      `countersign_gateway::scheduler=debug`";

fn level(word: &str, part: &str) -> Result<LevelFilter, String> {
    let word = word.trim();
    // The parser takes nothing for `error`.
    word.parse().ok().filter(|_| !word.is_empty()).ok_or_else(|| format!("`{part}` is {LEVELS}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_does_not_switch_the_log_off() {
        for (text, named) in [
            ("warning", "`warning` is neither a level"),
            ("inof", "`inof` is neither a level"),
            ("errors", "`errors` is neither a level"),
            ("countersign_gateway", "`countersign_gateway` is neither a level"),
            ("debug,", "an empty part is neither a level"),
            ("", "an empty part"),
            (" ", "an empty part"),
            ("info,,h2=off", "an empty part"),
            ("countersign=", "`countersign=` is neither a level"),
            ("info,countersign=loud", "`countersign=loud` is neither a level"),
            ("info,countersing=debug", "`countersing=debug`: nothing is logged by `countersing`"),
            ("countersign_gatway::scheduler=debug", "nothing is logged by `countersign_gatway`"),
            ("=info", "`=info`: nothing is logged by ``"),
            ("x=y=z", "nothing is logged by `x`"),
            ("countersign=info=debug", "`countersign=info=debug` is neither a level"),
            ("countersign[{request}]=info", "nothing is logged by"),
        ] {
            let error = directives(text).expect_err(text);
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_asked_for_is_logged() {
        use tracing::Level;
        let info = ("countersign_store", Level::INFO);
        let scheduler = ("countersign_gateway::scheduler", Level::DEBUG);
        let other = ("countersign_gateway", Level::DEBUG);
        for (text, logged, not) in [
            ("info", &[info][..], &[scheduler, other][..]),
            ("INFO ", &[info], &[scheduler]),
            ("warn", &[], &[info]),
            ("off", &[], &[info]),
            (" debug", &[info, scheduler, other], &[]),
            ("info, countersign_gateway::scheduler = debug", &[info, scheduler], &[other]),
            ("countersign=debug", &[info, scheduler, other], &[("h2", Level::ERROR)]),
            ("info,h2=off", &[info], &[("h2", Level::ERROR)]),
        ] {
            let targets = directives(text).expect(text);
            for (target, level) in logged {
                assert!(targets.would_enable(target, level), "`{text}` and {target}, {level}");
            }
            for (target, level) in not {
                assert!(!targets.would_enable(target, level), "`{text}` and {target}, {level}");
            }
        }
    }

    #[test]
    fn every_crate_of_the_gateway_can_be_named() {
        let crates = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).unwrap();
        for manifest in crates.map(|found| found.unwrap().path().join("Cargo.toml")).filter(|it| it.exists())
        {
            let text = std::fs::read_to_string(&manifest).unwrap();
            let name =
                text.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).unwrap();
            assert!(CRATES.contains(&&*name.replace('-', "_")), "{name}");
        }
    }
}
