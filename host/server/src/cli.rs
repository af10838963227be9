//! The command line, and the only code that reads the process's environment.
//!
//! Flags win over variables. A malformed or unknown value stops the start, and all of them are named at once.

use std::ffi::OsString;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use countersign_authoring as authoring;
use countersign_client::commands::{
    self, AskCommand, HashCommand, HookCommand, RequestsCommand, WaitCommand, WebhooksCommand,
};
use countersign_mcp::McpCommand;
use countersign_policy::yaml::error::did_you_mean;

use crate::access_key::AccessCommand;
use crate::audit::AuditCommand;
use crate::config::{Config, Environment, secrets};
use crate::dev::Dev;
use crate::health::Health;
use crate::keys::command::KeysCommand;
use crate::receipt::ReceiptCommand;
use crate::settings;
use crate::shell::{Completions, Manual};
use crate::store_copy::StoreCommand;

/// Approval gateway for risky automation: policies say who must agree, people decide.
#[derive(Debug, Parser)]
#[command(name = "countersign", version, arg_required_else_help = true)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway.
    #[command(after_long_help = secrets::HELP)]
    Serve(Box<Config>),
    /// Check the settings and the files that they name, as at start, and say all that is wrong. Nothing is started or made.
    #[command(after_long_help = secrets::HELP)]
    CheckConfig(Box<Config>),
    /// Ask the gateway on this machine whether it is alive, for the health checks of containers.
    Health(Health),
    /// Ask for an approval, wait for it, use it, and run a command with what was approved.
    Ask(Box<AskCommand>),
    /// Print every state of a request until it ends, and check the receipt of the decision.
    Wait(WaitCommand),
    /// Print the payload hash of parameters.
    Hash(HashCommand),
    /// Ask the gateway before an agent uses a tool, as a hook of its host.
    Hook(Box<HookCommand>),
    /// Serve tools to an agent by which it asks, waits, and uses approvals.
    Mcp(Box<McpCommand>),
    /// Try out a running gateway.
    #[command(subcommand)]
    Dev(Dev),
    /// Write, build, test and measure policies.
    #[command(subcommand)]
    Policy(authoring::Policy),
    /// Change the key file beside an embedded store.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Make API keys for the access file, and see whose a token is by it.
    #[command(subcommand)]
    Access(AccessCommand),
    /// Check receipts, and rotate the keys that they are signed with.
    #[command(subcommand)]
    Receipt(ReceiptCommand),
    /// Print what completes the commands in a shell.
    Completions(Completions),
    /// Print a manual page.
    Man(Manual),
    /// Move a store to another place, or from SQLite to Redis and back.
    #[command(subcommand)]
    Store(StoreCommand),
    /// List, show and end requests, as an admin of a gateway.
    Requests(RequestsCommand),
    /// List dead letters of webhooks and send them again, as an admin of a gateway.
    Webhooks(WebhooksCommand),
    /// Export the audit log, and show that it is what was written.
    #[command(subcommand)]
    Audit(AuditCommand),
}

/// Why the command line or the environment is refused.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// A flag, or the variable that stands in for it, is wrong; also carries `--help` and `--version`.
    #[error(transparent)]
    Flags(#[from] clap::Error),
    /// Settings are wrong, one sentence each.
    #[error("{}", .0.join("\n"))]
    Settings(Vec<String>),
}

/// The commands that call a gateway.
const CLIENTS: [&str; 4] = ["ask", "hook", "mcp", "wait"];

/// The prefix of the project's own variables. One with this prefix that is unknown is a typo.
const PREFIX: &str = "COUNTERSIGN_";

impl Cli {
    /// Reads the process's arguments and environment.
    ///
    /// # Errors
    /// If a value is malformed or unknown.
    #[expect(clippy::disallowed_methods, reason = "this is where the environment is read, once")]
    pub fn from_process() -> Result<Cli, CliError> {
        let mut environment = Environment::new();
        let mut unreadable = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str() else { continue };
            match value.into_string() {
                Ok(value) => drop(environment.insert(name.to_owned(), value)),
                Err(_) if name.starts_with(PREFIX) || secrets::NAMES.contains(&name) => {
                    unreadable.push(format!("the variable `{name}` is not UTF-8"));
                }
                Err(_) => {}
            }
        }
        if !unreadable.is_empty() {
            return Err(CliError::Settings(unreadable));
        }
        Cli::read(std::env::args_os(), &environment)
    }

    /// Reads `arguments`, which begin with the program's name, and `environment`.
    ///
    /// # Errors
    /// If a value is malformed or unknown.
    pub fn read<A>(arguments: A, environment: &Environment) -> Result<Cli, CliError>
    where
        A: IntoIterator,
        A::Item: Into<OsString> + Clone,
    {
        let mut serve_variables = Vec::new();
        let command = ["serve", "check-config"].into_iter().fold(Cli::command(), |command, name| {
            command.mut_subcommand(name, |serve| {
                serve_variables = variables(&serve);
                default_from_environment(serve, environment, &serve_variables)
            })
        });
        let command = command.mut_subcommand("health", |health| {
            let own = variables(&health);
            default_from_environment(health, environment, &own)
        });
        let shares_settings = |group: clap::Command| {
            let names: Vec<_> = group.get_subcommands().map(|it| it.get_name().to_owned()).collect();
            names.into_iter().fold(group, |group, name| {
                group.mut_subcommand(name, |command| {
                    // Other value names of these commands, such as `FILE`, are no variables.
                    let own = own_variables(&command);
                    default_from_environment(command, environment, &own)
                })
            })
        };
        let command = ["access", "audit", "keys", "policy", "receipt", "requests", "store", "webhooks"]
            .into_iter()
            .fold(command, |command, group| command.mut_subcommand(group, shares_settings));
        let mut client_variables = Vec::new();
        let command = CLIENTS.iter().fold(command, |command, name| {
            command.mut_subcommand(name, |command| {
                let own = own_variables(&command);
                client_variables.extend(own.iter().cloned());
                default_from_environment(command, environment, &own)
            })
        });
        client_variables.extend(commands::VARIABLES.map(str::to_owned));
        let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
        let matches = match command.clone().try_get_matches_from(&arguments) {
            Ok(matches) => matches,
            Err(error) => {
                let Some((mut wrong, mut config, malformed)) =
                    settings::all_wrong(&command, &arguments, &error)
                else {
                    return Err(error.into());
                };
                wrong.extend(unknown_variables(environment, &serve_variables, &client_variables));
                wrong.extend(misspelt_variables(environment, &serve_variables));
                wrong.extend(config.read_variables(environment, &malformed));
                return Err(CliError::Settings(wrong));
            }
        };
        let mut cli = Cli::from_arg_matches(&matches)?;
        let wrong = match &mut cli.command {
            Command::Serve(config) | Command::CheckConfig(config) => {
                let mut wrong = unknown_variables(environment, &serve_variables, &client_variables);
                wrong.extend(misspelt_variables(environment, &serve_variables));
                wrong.extend(config.read_variables(environment, &[]));
                config.warnings.extend(cut_short_variables(environment, &serve_variables));
                wrong
            }
            // A typo in the name of a key file would skip the check of signatures.
            Command::Policy(policy) if policy.loads_a_set() => {
                let mut wrong = unknown_variables(environment, &serve_variables, &client_variables);
                wrong.extend(policy.read_variables(environment));
                wrong
            }
            Command::Keys(keys) => {
                let mut wrong = unknown_variables(environment, &serve_variables, &client_variables);
                wrong.extend(keys.read_variables(environment));
                wrong
            }
            // One in the name of the file of keys, or of the store, would rotate others than the gateway's.
            Command::Receipt(ReceiptCommand::RotateKeys(_)) => {
                unknown_variables(environment, &serve_variables, &client_variables)
            }
            Command::Audit(audit) => audit.read_variables(environment),
            Command::Store(store) => {
                let mut wrong = unknown_variables(environment, &serve_variables, &client_variables);
                wrong.extend(store.read_variables(environment));
                wrong
            }
            // A typo in the name of the file of keys would skip what it pins.
            Command::Ask(_)
            | Command::Wait(_)
            | Command::Hook(_)
            | Command::Requests(_)
            | Command::Webhooks(_)
            | Command::Mcp(_) => unknown_variables(environment, &client_variables, &serve_variables),
            Command::Hash(_)
            | Command::Policy(_)
            | Command::Dev(_)
            | Command::Access(_)
            | Command::Receipt(_)
            | Command::Health(_)
            | Command::Completions(_)
            | Command::Man(_) => Vec::new(),
        };
        if wrong.is_empty() { Ok(cli) } else { Err(CliError::Settings(wrong)) }
    }
}

/// The variables that commands of a client read: those that are UTF-8.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this file is where the environment is read")]
pub fn client_environment() -> countersign_client::Environment {
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    countersign_client::Environment::new(variables.collect())
}

/// A variable of the process's environment, for commands that are given its name.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this file is where the environment is read")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The first value name of each flag: if a flag can also be given as a variable, the name of that variable.
fn variables(command: &clap::Command) -> Vec<String> {
    let names = command.get_arguments().filter_map(|arg| Some(arg.get_value_names()?.first()?.to_string()));
    names.collect()
}

/// Makes each variable the default of its flag.
///
/// So flags win over variables, both are parsed alike, and an error names both: the flag, and the variable as the name
/// of the flag's value.
fn default_from_environment(
    command: clap::Command,
    environment: &Environment,
    variables: &[String],
) -> clap::Command {
    command.mut_args(|arg| {
        let variable = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
        let variable = variable.filter(|variable| variables.contains(variable));
        match variable.and_then(|variable| environment.get(&variable)) {
            Some(value) => arg.default_value(value.clone()).required(false).hide_default_value(true),
            None => arg,
        }
    })
}

/// The project's own variables among them.
fn own_variables(command: &clap::Command) -> Vec<String> {
    variables(command).into_iter().filter(|name| name.starts_with(PREFIX)).collect()
}

/// One sentence for each of the project's variables that is nobody's: neither a flag's of this command nor a secret's, and
/// none of `others`. A machine may have a client beside a gateway, and a command that was approved may use either.
fn unknown_variables(environment: &Environment, flags: &[String], others: &[String]) -> Vec<String> {
    let known = flags.iter().map(String::as_str).chain(secrets::NAMES);
    let mut known: Vec<&str> = known.filter(|name| name.starts_with(PREFIX)).collect();
    // Commands share flags.
    known.sort_unstable();
    known.dedup();
    let services = services(environment);
    let is_unknown = |name: &&String| {
        name.starts_with(PREFIX)
            && !known.contains(&name.as_str())
            && !others.contains(name)
            && !commands::is_given(name)
            && !services.iter().any(|service| is_of_service(name, service))
    };
    let names = environment.keys().filter(is_unknown);
    names.map(|name| format!("the variable `{name}` is unknown; known are {}", known.join(", "))).collect()
}

/// The gateway's settings that have no prefix, in order.
fn bare(flags: &[String]) -> Vec<&str> {
    let names = flags.iter().map(String::as_str).chain(secrets::NAMES);
    let mut names: Vec<&str> = names.filter(|name| !name.starts_with(PREFIX)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// One sentence for each variable that is nearly one of the gateway's settings without a prefix: it begins with the same word,
/// and differs in a letter or two. Whatever else it is, the setting would be off. More is not refused, for other programs'
/// variables are in the same environment.
fn misspelt_variables(environment: &Environment, flags: &[String]) -> Vec<String> {
    let known = bare(flags);
    let begins_alike = |name: &str, known: &str| {
        let first = known.split_inclusive('_').next().unwrap_or(known);
        first.ends_with('_') && name.starts_with(first)
    };
    let names = environment.keys().filter(|name| !known.contains(&name.as_str()));
    let hints = names.map(|name| {
        (name, did_you_mean(name, known.iter().copied().filter(|known| begins_alike(name, known))))
    });
    let near = hints.filter(|(_, hint)| !hint.is_empty());
    near.map(|(name, hint)| format!("the variable `{name}` is unknown{hint}")).collect()
}

/// One sentence for each variable that is the beginning of such a setting, up to the end of a word.
fn cut_short_variables(environment: &Environment, flags: &[String]) -> Vec<String> {
    let known = bare(flags);
    let names = environment.keys().filter(|name| name.contains('_') && !known.contains(&name.as_str()));
    let whole = |name: &str| {
        let rest = |known: &&&str| known.strip_prefix(name).is_some_and(|rest| rest.starts_with('_'));
        known.iter().find(rest).copied()
    };
    let cut = names.filter_map(|name| Some((name, whole(name)?)));
    cut.map(|(name, whole)| {
        format!("the variable `{name}` is none of the gateway's, and has no effect; did you mean `{whole}`?")
    })
    .collect()
}

/// The Services of Kubernetes whose variables begin as ours do, by the beginning of these. Each pod of a namespace has the
/// variables of its Services: a host and a port for each, and then others that begin alike.
fn services(environment: &Environment) -> Vec<&str> {
    let services = environment.keys().filter_map(|name| name.strip_suffix("_SERVICE_HOST"));
    let has_port = |service: &&str| environment.contains_key(&format!("{service}_SERVICE_PORT"));
    services.filter(has_port).collect()
}

/// Whether Kubernetes makes a variable of this name for a Service whose variables begin so.
fn is_of_service(name: &str, service: &str) -> bool {
    const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
    let Some(rest) = name.strip_prefix(service) else { return false };
    if ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"].contains(&rest) || rest.starts_with("_SERVICE_PORT_") {
        return true;
    }
    let mut parts = rest.strip_prefix("_PORT_").unwrap_or_default().split('_');
    let is_port = parts.next().is_some_and(|port| port.parse::<u16>().is_ok());
    let is_protocol = parts.next().is_some_and(|protocol| PROTOCOLS.contains(&protocol));
    let is_part = parts.next().is_none_or(|part| ["ADDR", "PORT", "PROTO"].contains(&part));
    is_port && is_protocol && is_part && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_variables() {
        let variables = [("COUNTERSIGN_POLICIES", "env"), ("COUNTERSIGN_LISTEN", "127.0.0.1:1")];
        let environment = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let cli = Cli::read(["countersign", "serve", "--listen", "127.0.0.1:2"], &environment).unwrap();
        let Command::Serve(config) = cli.command else { panic!("{cli:?}") };
        assert_eq!(config.policies.directory.to_str(), Some("env"));
        assert_eq!(config.network.listen.port(), 2);
    }

    /// Whoever has told a shell where the gateway is may check a policy set in it, or start a gateway.
    #[test]
    fn a_gateway_and_its_tools_take_no_offence_at_a_clients_variables() {
        let variables =
            ["COUNTERSIGN_URL", "COUNTERSIGN_API_KEY", "COUNTERSIGN_PARAM_REF", "COUNTERSIGN_RECEIPT"];
        let environment: Environment = variables.map(|name| (name.to_owned(), "x".to_owned())).into();
        for words in [&["policy", "check", "here"][..], &["check-config", "--policies", "here"]] {
            Cli::read(["countersign"].iter().chain(words), &environment).unwrap();
        }
        let typo: Environment = [("COUNTERSIGN_RECEIPT_KEYZ".to_owned(), "x".to_owned())].into();
        let refused = Cli::read(["countersign", "check-config", "--policies", "here"], &typo).unwrap_err();
        assert!(refused.to_string().contains("`COUNTERSIGN_RECEIPT_KEYZ` is unknown"), "{refused}");
    }

    /// Settings without the prefix share the environment with other programs.
    #[test]
    fn a_typo_in_a_setting_without_the_prefix_is_refused_if_it_is_near() {
        let read = |names: &[&str]| {
            let environment = names.iter().map(|name| ((*name).to_owned(), "5".to_owned())).collect();
            let cli = Cli::read(["countersign", "check-config", "--policies", "p"], &environment);
            cli.map(|cli| match cli.command {
                Command::CheckConfig(config) => config.warnings,
                other => panic!("{other:?}"),
            })
            .map_err(|error| error.to_string())
        };
        for (name, meant) in [
            ("REQUIRE_CLIENT_CERTS", "REQUIRE_CLIENT_CERT"),
            ("TLS_CERT_FIEL", "TLS_CERT_FILE"),
            ("AUDIT_FIL", "AUDIT_FILE"),
            ("REQUEST_RETENTION_SECS", "REQUEST_RETENTION_SEC"),
            ("SLACK_BOT_TOKE", "SLACK_BOT_TOKEN"),
        ] {
            // Beside a value that is malformed, too.
            for names in [&[name][..], &[name, "COUNTERSIGN_LISTEN"]] {
                let refused = read(names).expect_err(name);
                let said = format!("the variable `{name}` is unknown; did you mean `{meant}`?");
                assert!(refused.lines().any(|line| line == said), "{refused}");
            }
        }
        for (name, meant) in [("TLS_CERT", "TLS_CERT_FILE"), ("REQUEST_RETENTION", "REQUEST_RETENTION_SEC")] {
            let warnings = read(&[name]).unwrap();
            let says = |it: &&String| it.contains(&format!("`{name}`")) && it.contains(&format!("`{meant}`"));
            assert_eq!(warnings.iter().filter(says).count(), 1, "{warnings:?}");
        }
        let others =
            ["SSL_CERT_FILE", "TLS_VERSION", "REDIS_URI", "OTEL_LOGS", "SLACK_WEBHOOK", "AUDIT", "HOME"];
        assert_eq!(read(&others).unwrap(), [""; 0]);
        // What calls a gateway runs beside programs that nobody here knows.
        let environment = [("SLACK_BOT_TOKE".to_owned(), "x".to_owned())].into();
        Cli::read(["countersign", "wait", "--url", "http://x", "token"], &environment).unwrap();
    }

    /// The store that the gateway has is the one that its tools look at.
    #[test]
    fn the_tools_of_a_store_take_the_gateways() {
        let environment: Environment =
            [("COUNTERSIGN_STORE".to_owned(), "sqlite:/here/ours.db".to_owned())].into();
        for words in [
            &["keys", "show"][..],
            &["audit", "key"],
            &["receipt", "rotate-keys"],
            &["policy", "diff", "a", "b"],
            &["policy", "replay", "--since", "1d", "--set", "a"],
            &["store", "backup", "to"],
        ] {
            let read = |more: &[&str]| {
                let words = ["countersign"].iter().chain(words).chain(more);
                format!("{:?}", Cli::read(words, &environment).unwrap())
            };
            assert!(read(&[]).contains("/here/ours.db"), "{words:?}");
            assert!(!read(&["--store", "sqlite:mine.db"]).contains("/here/ours.db"), "{words:?}");
        }
    }

    /// Kubernetes gives them to every pod of the namespace.
    #[test]
    fn the_variables_of_a_service_are_not_typos() {
        let service = [
            "COUNTERSIGN_SERVICE_HOST",
            "COUNTERSIGN_SERVICE_PORT",
            "COUNTERSIGN_SERVICE_PORT_HTTP",
            "COUNTERSIGN_PORT",
            "COUNTERSIGN_PORT_8080_TCP",
            "COUNTERSIGN_PORT_8080_TCP_ADDR",
            "COUNTERSIGN_PORT_8080_TCP_PORT",
            "COUNTERSIGN_PORT_8080_TCP_PROTO",
            "COUNTERSIGN_OPS_SERVICE_HOST",
            "COUNTERSIGN_OPS_SERVICE_PORT",
            "COUNTERSIGN_OPS_PORT",
            "COUNTERSIGN_OPS_PORT_53_UDP",
        ];
        let environment = |more: &[&str]| -> Environment {
            service
                .iter()
                .chain(more)
                .map(|name| ((*name).to_owned(), "tcp://10.0.0.1:80".to_owned()))
                .collect()
        };
        let commands = [
            &["wait", "--url", "http://x", "token"][..],
            &["check-config", "--policies", "p"],
            &["policy", "check", "p"],
        ];
        for words in commands {
            let read = |more: &[&str]| Cli::read(["countersign"].iter().chain(words), &environment(more));
            read(&[]).unwrap_or_else(|error| panic!("{words:?}: {error}"));
            for typo in [
                "COUNTERSIGN_LISTEN_PORT",
                "COUNTERSIGN_PORTS",
                "COUNTERSIGN_PORT_HTTP",
                "COUNTERSIGN_PORT_8080_TCP_HOST",
                "COUNTERSIGN_PORT_8080_TCP_ADDR_X",
                "COUNTERSIGN_PORT_8080_HTTP",
                "COUNTERSIGN_SERVICE_HOSTS",
                "COUNTERSIGN_SLACK_SERVICE_HOST",
            ] {
                let refused = read(&[typo]).expect_err(typo).to_string();
                assert_eq!(refused.matches(" is unknown").count(), 1, "{refused}");
                assert!(refused.contains(&format!("`{typo}` is unknown")), "{refused}");
            }
        }
    }

    #[test]
    fn known_names_are_listed_once() {
        let environment: Environment = [("COUNTERSIGN_X".to_owned(), String::new())].into();
        for words in [&["wait", "--url", "http://x", "token"][..], &["check-config", "--policies", "p"]] {
            let refused =
                Cli::read(["countersign"].iter().chain(words), &environment).unwrap_err().to_string();
            let (_, known) = refused.split_once("known are ").expect("it lists them");
            let mut known: Vec<&str> = known.split(", ").collect();
            let listed = known.len();
            known.dedup();
            assert!(listed > 2 && known.len() == listed && known.is_sorted(), "{refused}");
        }
    }

    /// Flags that `policy` commands share with the gateway can be variables there, too; other value names are not.
    #[test]
    fn policy_commands_take_the_gateways_variables() {
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
}
