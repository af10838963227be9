//! Configuration: flags and the environment, read once, checked whole, before anything starts.
//!
//! Flags win over the environment. A malformed or unknown value stops the start and is named;
//! so does a variable that asks for a protection which this build does not have.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use crate::dev::Dev;
use countersign_authoring as author;
use countersign_core::secret::Secret;
use countersign_policy::settings::{PolicyLimits, Supply};
use countersign_slack::{self as slack, DEFAULT_API_URL};
use countersign_store::StoreUrl;

/// The environment, as it is handed over: tests make up their own.
pub type Environment = BTreeMap<String, String>;

/// A gate in front of risky automation: policies say who must agree, people decide.
#[derive(Debug, Parser)]
#[command(name = "countersign", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway.
    #[command(after_long_help = ENVIRONMENT_HELP)]
    Serve(Box<Config>),
    /// Try things out against a running gateway.
    #[command(subcommand)]
    Dev(Dev),
    /// Write, build, test and measure policies.
    #[command(subcommand)]
    Policy(author::Policy),
}

/// Everything that `serve` can be told.
#[derive(Debug, Args)]
pub struct Config {
    /// Where to listen, and how much to take.
    #[command(flatten)]
    pub network: Network,
    /// What requests are judged by.
    #[command(flatten)]
    pub policies: Policies,
    /// Where requests are kept.
    #[command(flatten)]
    pub storage: Storage,
    /// How callers are held back.
    #[command(flatten)]
    pub limits: RateLimit,
    /// How often to look at what is due.
    #[command(flatten)]
    pub scheduling: Scheduling,
    /// Where people decide.
    #[command(flatten)]
    pub slack: Slack,
    /// What is logged.
    #[command(flatten)]
    pub logging: Logging,
    /// Secrets. From the environment only: every user of a machine can read the flags of its processes.
    #[arg(skip)]
    pub secrets: Secrets,
    /// What was set without effect, one sentence each.
    #[arg(skip)]
    pub warnings: Vec<String>,
}

/// Where to listen, and how much to take.
#[derive(Debug, Args)]
#[command(next_help_heading = "Network")]
pub struct Network {
    /// The address to listen on; port 0 takes any free one.
    #[arg(long, value_name = "COUNTERSIGN_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// The largest request body, in bytes.
    #[arg(long, value_name = "COUNTERSIGN_BODY_LIMIT_BYTES", default_value = "262144")]
    #[arg(value_parser = clap::value_parser!(u32).range(1024..=16 * 1024 * 1024))]
    pub body_limit_bytes: u32,
    /// How many event streams may be open at once.
    #[arg(long, value_name = "SSE_MAX_CONNECTIONS", default_value = "20000")]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub sse_max_connections: u32,
}

/// What requests are judged by.
#[derive(Debug, Args)]
#[command(next_help_heading = "Policies")]
pub struct Policies {
    /// The directory of the policy set: `policy-set.yaml`, `modules` and `schemas`.
    #[arg(long = "policies", value_name = "COUNTERSIGN_POLICIES", required = true)]
    pub directory: PathBuf,
    /// Where compiled policy modules are kept between starts; beside the SQLite file where it is not said.
    #[arg(long, value_name = "COUNTERSIGN_CACHE_DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Whether to load the policy set again when its directory changes.
    #[arg(long = "policy-watch", value_name = "COUNTERSIGN_POLICY_WATCH", default_value = "true")]
    #[arg(action = clap::ArgAction::Set)]
    pub watch: bool,
    /// Whose signatures count, and where modules may be fetched from.
    #[command(flatten)]
    pub supply: Supply,
    /// What one call of a policy may use.
    #[command(flatten)]
    pub limits: PolicyLimits,
}

/// Where requests are kept.
#[derive(Debug, Args)]
#[command(next_help_heading = "Store")]
pub struct Storage {
    /// The store: `sqlite:PATH`.
    #[arg(long, value_name = "COUNTERSIGN_STORE", default_value = "sqlite:countersign.db")]
    pub store: StoreUrl,
}

/// How callers are held back: each client address has a bucket of requests.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Rate limit")]
pub struct RateLimit {
    /// How many requests a client address may make at once.
    #[arg(long = "rate-limit-capacity", value_name = "RATE_LIMIT_CAPACITY", default_value = "30")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub capacity: u32,
    /// How many requests it gets back each second; a fraction is fine.
    #[arg(long = "rate-limit-refill-per-sec", value_name = "RATE_LIMIT_REFILL_PER_SEC", default_value = "1")]
    #[arg(value_parser = refill)]
    pub refill_per_sec: f64,
}

/// How often to look at what is due.
#[derive(Debug, Args)]
#[command(next_help_heading = "Scheduler")]
pub struct Scheduling {
    /// The most time between two looks at what is due, in milliseconds.
    #[arg(long = "scheduler-interval-ms", value_name = "SCHEDULER_INTERVAL_MS", default_value = "1000")]
    #[arg(value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub interval_ms: u64,
}

/// Where people decide. The tokens come from the environment only.
#[derive(Debug, Args)]
#[command(next_help_heading = "Slack")]
pub struct Slack {
    /// Where Slack's Web API is: `https`, or `http` to a simulator on this machine.
    #[arg(long = "slack-api-url", value_name = "SLACK_API_URL", default_value = DEFAULT_API_URL)]
    #[arg(value_parser = slack::api_url)]
    pub api_url: String,
    /// What to multiply Slack's rate limits by, where a workspace has other ones; a fraction is fine.
    #[arg(long = "slack-rate-factor", value_name = "SLACK_RATE_FACTOR", default_value = "1")]
    #[arg(value_parser = factor)]
    pub rate_factor: f64,
    /// How many WebSockets to keep open where interactions come by Socket Mode.
    #[arg(long = "slack-socket-connections", value_name = "SLACK_SOCKET_CONNECTIONS", default_value = "2")]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=10))]
    pub socket_connections: u8,
}

/// What is logged, and how. The log goes to the standard error.
#[derive(Debug, Args)]
#[command(next_help_heading = "Log")]
pub struct Logging {
    /// What to log: a level, or directives such as `info,countersign::scheduler=debug`.
    #[arg(long = "log", value_name = "COUNTERSIGN_LOG", default_value = "info", value_parser = directives)]
    pub filter: String,
    /// One JSON object a line, or lines for people.
    #[arg(long = "log-format", value_name = "COUNTERSIGN_LOG_FORMAT", default_value = "json")]
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Lines for people.
    Text,
}

/// What only the environment says.
#[derive(Debug, Default)]
pub struct Secrets {
    /// `COUNTERSIGN_SECRET`: 32 bytes in hexadecimal, from which wait tokens are derived.
    /// Where it is not given, the embedded store makes and keeps one.
    pub server: Option<Secret>,
    /// `ADMIN_TOKEN`: what admins show. Without it there are no admin routes.
    pub admin: Option<Secret>,
    /// `SLACK_SIGNING_SECRET`: what Slack signs its interactions with. Without it there is no such route.
    pub slack_signing: Option<Secret>,
    /// `SLACK_BOT_TOKEN`: what messages are posted with, `xoxb-…`. Without it they wait in the outbox.
    pub slack_bot: Option<Secret>,
    /// `SLACK_APP_TOKEN`: what Socket Mode is opened with, `xapp-…`. Without it interactions come over HTTP only.
    pub slack_app: Option<Secret>,
}

/// Why the process does not start.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The flags, or the variables that stand in for them, are wrong; also carries `--help` and `--version`.
    #[error(transparent)]
    Flags(#[from] clap::Error),
    /// Variables are wrong, one sentence each.
    #[error("{}", .0.join("\n"))]
    Environment(Vec<String>),
}

/// Variables that only the environment gives, because they are secret.
const SECRETS: [&str; 5] =
    ["COUNTERSIGN_SECRET", "ADMIN_TOKEN", "SLACK_SIGNING_SECRET", "SLACK_BOT_TOKEN", "SLACK_APP_TOKEN"];

/// What `serve --help` says of the environment.
const ENVIRONMENT_HELP: &str = "\
Environment:
  Each option can also be given as the variable that its value is named after; options win.
  Secrets come from the environment only:
    SLACK_BOT_TOKEN       xoxb-…, what messages are posted with; without it they wait in the outbox
    SLACK_SIGNING_SECRET  what Slack signs interactions with, where it sends them over HTTP
    SLACK_APP_TOKEN       xapp-…, what Socket Mode is opened with, where it sends them that way;
                          with neither of the two nobody can act in Slack
    ADMIN_TOKEN           what admins show, 16 or more printable characters; without it there are no
                          admin routes
    COUNTERSIGN_SECRET    32 bytes in hexadecimal, from which wait tokens are derived; the embedded
                          store makes and keeps one where it is not given";

/// Variables of a feature that is still to come and that nobody would miss silently: they only warn.
const WITHOUT_EFFECT: [&str; 3] = ["OTLP_ENDPOINT", "OTLP_HEADERS", "OTLP_TIMEOUT_MS"];

/// Variables that promise a protection or a record which this build cannot give: they stop the start.
const NOT_IN_THIS_BUILD: [&str; 10] = [
    "REDIS_URL",
    "TLS_CERT_FILE",
    "TLS_KEY_FILE",
    "TLS_CA_FILE",
    "REQUIRE_CLIENT_CERT",
    "AUDIT_FILE",
    "REQUEST_RETENTION_SEC",
    "REQUEST_RETENTION_SWEEP_SEC",
    "REQUEST_ARCHIVE_FILE",
    "AUDIT_RETENTION_SEC",
];

/// What every variable of our own begins with; one that is unknown is a typo.
const OURS: &str = "COUNTERSIGN_";

impl Cli {
    /// Reads the process's own arguments and environment.
    ///
    /// # Errors
    /// Where a value is malformed or unknown.
    #[expect(clippy::disallowed_methods, reason = "this is where the environment is read, once")]
    pub fn from_process() -> Result<Cli, ConfigError> {
        let mut environment = Environment::new();
        let mut unreadable = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str() else { continue };
            match value.into_string() {
                Ok(value) => drop(environment.insert(name.to_owned(), value)),
                Err(_) if name.starts_with(OURS) || SECRETS.contains(&name) => {
                    unreadable.push(format!("the variable `{name}` is not UTF-8"));
                }
                Err(_) => {}
            }
        }
        if !unreadable.is_empty() {
            return Err(ConfigError::Environment(unreadable));
        }
        Cli::read(std::env::args_os(), &environment)
    }

    /// Reads these arguments, the program's name first, and this environment.
    ///
    /// # Errors
    /// Where a value is malformed or unknown.
    pub fn read<A>(arguments: A, environment: &Environment) -> Result<Cli, ConfigError>
    where
        A: IntoIterator,
        A::Item: Into<OsString> + Clone,
    {
        let mut known = Vec::new();
        let command = Cli::command().mut_subcommand("serve", |serve| {
            known = variables(&serve);
            stand_in(serve, environment, &known)
        });
        let command = command.mut_subcommand("policy", |policy| {
            let commands: Vec<_> = policy.get_subcommands().map(|it| it.get_name().to_owned()).collect();
            commands.into_iter().fold(policy, |policy, name| {
                policy.mut_subcommand(name, |command| {
                    // What else their values are named after is no variable.
                    let ours: Vec<_> =
                        variables(&command).into_iter().filter(|name| name.starts_with(OURS)).collect();
                    stand_in(command, environment, &ours)
                })
            })
        });
        let mut cli = Cli::from_arg_matches(&command.try_get_matches_from(arguments)?)?;
        match &mut cli.command {
            Command::Serve(config) => config.take_the_rest(environment, &known)?,
            Command::Policy(policy) if policy.loads_a_set() => no_typos(environment, &known)?,
            Command::Policy(_) | Command::Dev(_) => {}
        }
        Ok(cli)
    }
}

impl Config {
    /// Takes what is in no flag: secrets, and variables that must not be passed over in silence.
    fn take_the_rest(&mut self, environment: &Environment, flags: &[String]) -> Result<(), ConfigError> {
        let mut wrong = Vec::new();
        for (name, value) in environment {
            let name = name.as_str();
            let known = flags.iter().any(|flag| flag == name) || SECRETS.contains(&name);
            let harmless = value.is_empty() || (name == "REQUIRE_CLIENT_CERT" && value == "false");
            if NOT_IN_THIS_BUILD.contains(&name) && !harmless {
                wrong.push(format!("the variable `{name}` is set, but this build does not implement it yet"));
            } else if WITHOUT_EFFECT.contains(&name) && !harmless {
                self.warnings.push(format!("the variable `{name}` has no effect in this build yet"));
            } else if name.starts_with(OURS) && !known {
                wrong.push(unknown_variable(name, flags));
            }
        }
        if let Some(text) = environment.get("COUNTERSIGN_SECRET") {
            let mut bytes = zeroize::Zeroizing::new([0; 32]);
            match hex::decode_to_slice(text, &mut *bytes) {
                Ok(()) => self.secrets.server = Some(Secret::new(bytes.as_slice())),
                Err(_) => {
                    wrong.push("the variable `COUNTERSIGN_SECRET` is not 32 bytes in hexadecimal".into())
                }
            }
        }
        if let Some(text) = environment.get("ADMIN_TOKEN") {
            if text.len() >= 16 && text.bytes().all(|byte| byte.is_ascii_graphic()) {
                self.secrets.admin = Some(Secret::new(text.as_bytes()));
            } else {
                wrong.push(
                    "the variable `ADMIN_TOKEN` is too weak: \
                     a token has 16 or more printable characters and no spaces"
                        .into(),
                );
            }
        }
        if let Some(text) = environment.get("SLACK_SIGNING_SECRET") {
            if text.len() >= 8 && text.bytes().all(|byte| byte.is_ascii_graphic()) {
                self.secrets.slack_signing = Some(Secret::new(text.as_bytes()));
            } else {
                wrong.push(
                    "the variable `SLACK_SIGNING_SECRET` is not a signing secret: \
                     it has 8 or more printable characters and no spaces"
                        .into(),
                );
            }
        }
        self.secrets.slack_bot = token(environment, "SLACK_BOT_TOKEN", "xoxb-", &mut wrong);
        self.secrets.slack_app = token(environment, "SLACK_APP_TOKEN", "xapp-", &mut wrong);
        let given = |name: &str| environment.contains_key(name);
        if given("SLACK_BOT_TOKEN") && !given("SLACK_SIGNING_SECRET") && !given("SLACK_APP_TOKEN") {
            wrong.push(
                "the variable `SLACK_BOT_TOKEN` is set, but neither `SLACK_SIGNING_SECRET` nor `SLACK_APP_TOKEN`: \
                 people would see buttons that do nothing"
                    .into(),
            );
        }
        if given("SLACK_APP_TOKEN") && !given("SLACK_BOT_TOKEN") {
            wrong.push(
                "the variable `SLACK_APP_TOKEN` is set, but not `SLACK_BOT_TOKEN`: \
                 there would be no message to act on, and nobody could be answered"
                    .into(),
            );
        }
        if wrong.is_empty() { Ok(()) } else { Err(ConfigError::Environment(wrong)) }
    }

    /// Where compiled policy modules are kept.
    #[must_use]
    pub fn cache_dir(&self) -> PathBuf {
        self.policies.cache_dir.clone().unwrap_or_else(|| {
            let file = self.storage.store.file().unwrap_or(Path::new("countersign"));
            let mut name = file.file_name().unwrap_or_default().to_owned();
            name.push(".modules");
            file.with_file_name(name)
        })
    }
}

/// That no variable of ours is unknown: one that is a typo would let what it names go without being asked for.
fn no_typos(environment: &Environment, flags: &[String]) -> Result<(), ConfigError> {
    let unknown =
        environment.keys().filter(|name| name.starts_with(OURS) && !ours(flags).contains(&name.as_str()));
    let wrong: Vec<_> = unknown.map(|name| unknown_variable(name, flags)).collect();
    if wrong.is_empty() { Ok(()) } else { Err(ConfigError::Environment(wrong)) }
}

fn unknown_variable(name: &str, flags: &[String]) -> String {
    format!("the variable `{name}` is unknown; known are {}", ours(flags).join(", "))
}

/// What the values of a command's flags are named after: where a flag can also be given as a variable, that one.
fn variables(command: &clap::Command) -> Vec<String> {
    let names = command.get_arguments().filter_map(|arg| Some(arg.get_value_names()?.first()?.to_string()));
    names.collect()
}

/// Has these variables stand where the defaults of their flags do. So flags win over them, they are parsed as flags are,
/// and an error names both: the flag, and the variable as the name of the flag's value.
fn stand_in(command: clap::Command, environment: &Environment, variables: &[String]) -> clap::Command {
    command.mut_args(|arg| {
        let variable = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
        let variable = variable.filter(|variable| variables.contains(variable));
        match variable.and_then(|variable| environment.get(&variable)) {
            Some(value) => arg.default_value(value.clone()).required(false).hide_default_value(true),
            None => arg,
        }
    })
}

/// One variable of the environment, for commands that are told its name.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this file is where the environment is read")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn ours(flags: &[String]) -> Vec<&str> {
    let names = flags.iter().map(String::as_str).chain(SECRETS);
    names.filter(|name| name.starts_with(OURS)).collect()
}

/// A token of Slack's, where it is given and is one.
fn token(environment: &Environment, name: &str, prefix: &str, wrong: &mut Vec<String>) -> Option<Secret> {
    let text = environment.get(name)?;
    if text.len() > prefix.len()
        && text.starts_with(prefix)
        && text.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Some(Secret::new(text.as_bytes()));
    }
    wrong.push(format!("the variable `{name}` is not a token: it begins with `{prefix}` and has no spaces"));
    None
}

fn factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if factor > 0.0 && factor <= 1000.0 => Ok(factor),
        _ => Err("this is a number above 0 and up to 1000".into()),
    }
}

fn refill(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.000_1..=1_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("this is a number from 0.0001 to 1000000".into()),
    }
}

fn directives(text: &str) -> Result<String, String> {
    match text.parse::<tracing_subscriber::filter::Targets>() {
        Ok(_) if !text.trim().is_empty() => Ok(text.to_owned()),
        Ok(_) => Err("this is a level, or directives such as `info,countersign::scheduler=debug`".into()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(flags: &[&str], variables: &[(&str, &str)]) -> Result<Config, String> {
        let environment =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let arguments = ["countersign", "serve"].iter().chain(flags).copied();
        match Cli::read(arguments, &environment) {
            Ok(Cli { command: Command::Serve(config) }) => Ok(*config),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let config = read(&["--policies", "p"], &[]).unwrap();
        assert_eq!(config.network.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.network.body_limit_bytes, 256 * 1024);
        assert_eq!(config.storage.store, StoreUrl::Sqlite("countersign.db".into()));
        assert_eq!((config.limits.capacity, config.limits.refill_per_sec), (30, 1.0));
        assert_eq!(config.scheduling.interval_ms, 1000);
        assert!(config.policies.watch && config.secrets.admin.is_none());
        assert!(config.secrets.server.is_none() && config.secrets.slack_signing.is_none());
        assert!(config.secrets.slack_bot.is_none() && config.secrets.slack_app.is_none());
        assert_eq!(config.slack.api_url, "https://slack.com/api");
        assert_eq!((config.slack.rate_factor, config.slack.socket_connections), (1.0, 2));
        assert_eq!(config.policies.limits.limits(), countersign_policy::Limits::default());
        assert!(config.warnings.is_empty());
    }

    #[test]
    fn flags_win_over_the_environment() {
        let variables = [("COUNTERSIGN_POLICIES", "env"), ("COUNTERSIGN_LISTEN", "127.0.0.1:1")];
        let config = read(&["--listen", "127.0.0.1:2"], &variables).unwrap();
        assert_eq!(config.policies.directory, PathBuf::from("env"));
        assert_eq!(config.network.listen.port(), 2);
    }

    /// What commands for authors share with the gateway can be said in the same way; other variables are none of theirs.
    #[test]
    fn authors_commands_take_the_gateways_variables() {
        let variables = [("COUNTERSIGN_MODULE_KEYS", "ours.pem"), ("SET", "elsewhere"), ("FILE", "x")];
        let environment = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let read = |words: &[&str]| {
            let words = ["countersign", "policy"].iter().chain(words).copied();
            Cli::read(words, &environment).map(|cli| format!("{cli:?}")).map_err(|error| error.to_string())
        };
        let check = read(&["check", "here"]).unwrap();
        assert!(
            check.contains("ours.pem") && check.contains("here") && !check.contains("elsewhere"),
            "{check}"
        );
        let check = read(&["check", "here", "--module-keys", "mine.pem"]).unwrap();
        assert!(check.contains("mine.pem") && !check.contains("ours.pem"), "{check}");
        assert!(read(&["sign", "here"]).unwrap_err().contains("--key"));
        let environment = [("COUNTERSIGN_MODULE_KEY".to_owned(), "ours.pem".to_owned())].into();
        let error =
            Cli::read(["countersign", "policy", "check", "here"], &environment).unwrap_err().to_string();
        assert!(error.contains("`COUNTERSIGN_MODULE_KEY` is unknown"), "{error}");
    }

    #[test]
    fn the_cache_is_beside_the_database() {
        let config = read(&["--policies", "p", "--store", "sqlite:/data/c.db"], &[]).unwrap();
        assert_eq!(config.cache_dir(), PathBuf::from("/data/c.db.modules"));
        let config = read(&["--policies", "p", "--cache-dir", "/tmp/c"], &[]).unwrap();
        assert_eq!(config.cache_dir(), PathBuf::from("/tmp/c"));
    }

    /// Every wrong value stops the start, and what is said names it.
    #[test]
    fn a_wrong_value_is_named() {
        let rows: &[(&str, &str, &[&str])] = &[
            ("COUNTERSIGN_LISTEN", "8080", &["--listen", "COUNTERSIGN_LISTEN"]),
            ("COUNTERSIGN_LISTEN", "", &["--listen", "COUNTERSIGN_LISTEN"]),
            (
                "COUNTERSIGN_STORE",
                "redis://r",
                &["--store", "COUNTERSIGN_STORE", "not supported by this build"],
            ),
            ("COUNTERSIGN_STORE", "sqlite:", &["COUNTERSIGN_STORE", "sqlite:PATH"]),
            ("COUNTERSIGN_STORE", "/var/db", &["COUNTERSIGN_STORE", "sqlite:PATH"]),
            ("REDIS_URL", "redis://r", &["REDIS_URL", "does not implement"]),
            ("SCHEDULER_INTERVAL_MS", "soon", &["--scheduler-interval-ms", "SCHEDULER_INTERVAL_MS"]),
            ("SCHEDULER_INTERVAL_MS", "0", &["SCHEDULER_INTERVAL_MS"]),
            ("RATE_LIMIT_CAPACITY", "0", &["--rate-limit-capacity", "RATE_LIMIT_CAPACITY"]),
            ("RATE_LIMIT_REFILL_PER_SEC", "NaN", &["RATE_LIMIT_REFILL_PER_SEC"]),
            ("SSE_MAX_CONNECTIONS", "-1", &["SSE_MAX_CONNECTIONS"]),
            ("COUNTERSIGN_BODY_LIMIT_BYTES", "1", &["COUNTERSIGN_BODY_LIMIT_BYTES"]),
            ("COUNTERSIGN_LOG", "x=y=z", &["--log", "COUNTERSIGN_LOG"]),
            ("COUNTERSIGN_LOG_FORMAT", "xml", &["COUNTERSIGN_LOG_FORMAT"]),
            ("COUNTERSIGN_LISTN", "127.0.0.1:1", &["COUNTERSIGN_LISTN", "unknown", "COUNTERSIGN_LISTEN"]),
            ("REQUIRE_CLIENT_CERT", "true", &["REQUIRE_CLIENT_CERT", "does not implement"]),
            ("TLS_CERT_FILE", "c.pem", &["TLS_CERT_FILE", "does not implement"]),
            ("AUDIT_FILE", "a.ndjson", &["AUDIT_FILE", "does not implement"]),
            ("COUNTERSIGN_POLICY_WATCH", "maybe", &["--policy-watch", "COUNTERSIGN_POLICY_WATCH"]),
            ("ADMIN_TOKEN", "", &["ADMIN_TOKEN", "16 or more"]),
            ("SLACK_SIGNING_SECRET", "", &["SLACK_SIGNING_SECRET"]),
            ("COUNTERSIGN_POLICY_FUEL", "all", &["--policy-fuel", "COUNTERSIGN_POLICY_FUEL"]),
            ("COUNTERSIGN_POLICY_DEADLINE_MS", "0", &["COUNTERSIGN_POLICY_DEADLINE_MS"]),
            ("COUNTERSIGN_POLICY_MEMORY_MIB", "300", &["COUNTERSIGN_POLICY_MEMORY_MIB"]),
            ("COUNTERSIGN_MODULE_KEYS", "", &["--module-keys", "COUNTERSIGN_MODULE_KEYS"]),
            ("COUNTERSIGN_SET_KEYS", "", &["--set-keys", "COUNTERSIGN_SET_KEYS"]),
            ("SLACK_BOT_TOKEN", "", &["SLACK_BOT_TOKEN", "`xoxb-`"]),
            ("SLACK_BOT_TOKEN", "xoxp-1", &["SLACK_BOT_TOKEN", "`xoxb-`"]),
            ("SLACK_BOT_TOKEN", "xoxb-1", &["`SLACK_BOT_TOKEN` is set, but neither", "buttons"]),
            ("SLACK_APP_TOKEN", "xoxb-1", &["SLACK_APP_TOKEN", "`xapp-`"]),
            ("SLACK_APP_TOKEN", "xapp-1", &["`SLACK_APP_TOKEN` is set, but not `SLACK_BOT_TOKEN`"]),
            ("SLACK_API_URL", "slack", &["--slack-api-url", "SLACK_API_URL"]),
            ("SLACK_API_URL", "http://slack.com/api", &["SLACK_API_URL", "in the clear"]),
            ("SLACK_RATE_FACTOR", "0", &["--slack-rate-factor", "SLACK_RATE_FACTOR"]),
            ("SLACK_RATE_FACTOR", "inf", &["SLACK_RATE_FACTOR", "up to 1000"]),
            ("SLACK_SOCKET_CONNECTIONS", "11", &["SLACK_SOCKET_CONNECTIONS"]),
        ];
        for (name, value, said) in rows {
            let error = read(&["--policies", "p"], &[(name, value)]).expect_err(name);
            for part in *said {
                assert!(error.contains(part), "{name}={value}: {error}");
            }
        }
        assert!(read(&[], &[]).expect_err("no policies").contains("COUNTERSIGN_POLICIES"));
    }

    #[test]
    fn a_wrong_secret_is_not_repeated() {
        for (name, value) in [
            ("COUNTERSIGN_SECRET", "hunter2hunter2"),
            ("ADMIN_TOKEN", "hunter2"),
            ("SLACK_SIGNING_SECRET", "hun ter2 hun"),
            ("SLACK_BOT_TOKEN", "xoxp-hunter2"),
            ("SLACK_APP_TOKEN", "xapp-hunter 2"),
        ] {
            let error = read(&["--policies", "p"], &[(name, value)]).expect_err(name);
            assert!(error.contains(name) && !error.contains("hun"), "{error}");
        }
    }

    #[test]
    fn what_has_no_effect_yet_is_said() {
        let variables = [("OTLP_ENDPOINT", "x"), ("REQUIRE_CLIENT_CERT", "false"), ("HOME", "/")];
        let config = read(&["--policies", "p"], &variables).unwrap();
        assert_eq!(config.warnings, ["the variable `OTLP_ENDPOINT` has no effect in this build yet"]);
    }

    #[test]
    fn secrets_are_taken_and_not_shown() {
        let secret = "ab".repeat(32);
        let variables = [
            ("COUNTERSIGN_SECRET", secret.as_str()),
            ("ADMIN_TOKEN", "hunter2hunter2hunter2"),
            ("SLACK_SIGNING_SECRET", "0123456789abcdef"),
            ("SLACK_BOT_TOKEN", "xoxb-hunter2"),
            ("SLACK_APP_TOKEN", "xapp-hunter2"),
        ];
        let config = read(&["--policies", "p"], &variables).unwrap();
        assert_eq!(config.secrets.server.as_ref().unwrap().expose(), [0xab; 32]);
        assert_eq!(config.secrets.slack_bot.as_ref().unwrap().expose(), b"xoxb-hunter2");
        let shown = format!("{config:?}");
        assert!(!shown.contains("abab") && !shown.contains("0123456789abcdef"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
