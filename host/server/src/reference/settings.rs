//! docs/SETTINGS.md, from the definitions of the command line.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::{Arg, Args as _, Command};

use super::{cell, compare};
use crate::config::{Config, secrets};

const INTRODUCTION: &str = "\
# Settings
Every setting of `countersign serve` and `check-config`.
This page is made from the definitions of the command line, and a test fails if it is not what they say.

Each setting is a flag, and also the variable of that name; flags win.
A malformed or unknown value stops the start, and all of them are named at once; so does a variable that begins with `COUNTERSIGN_` and that nobody knows, unless Kubernetes has made it of a Service of such a name.
Settings without this prefix share the environment with other programs, so of names like theirs only a near one is refused: one that begins with the same word as such a setting and differs from it by one or two letters, as `AUDIT_FIL` does.
One that is the beginning of a setting, as `TLS_CERT` is, is warned of, and any other is taken for another program's.
`countersign check-config` does the same without starting.
";

/// What is a variable only. Every user of a machine can read the flags of its processes.
const VARIABLES: [(&str, &str); 13] = [
    (
        "COUNTERSIGN_SECRET",
        "32 bytes in hexadecimal, from which wait tokens and other keys are derived; without it, it lies in `PATH.key` beside the \
         database `PATH` of the store, and is made at the first start",
    ),
    (
        "COUNTERSIGN_SECRET_PREVIOUS",
        "what `COUNTERSIGN_SECRET` was before it was changed; [for how long](SECURITY.md#the-keys-of-a-gateway)",
    ),
    (
        "ADMIN_TOKEN",
        "authenticates an admin with every role, 16 or more printable characters; without it and without admins in the access \
         file there are no admin routes",
    ),
    (
        "SLACK_SIGNING_SECRET",
        "verifies the interactions that Slack sends over HTTP; without it there is no such route",
    ),
    ("SLACK_BOT_TOKEN", "`xoxb-…`, posts messages; without it they wait in the outbox"),
    ("SLACK_APP_TOKEN", "`xapp-…`, opens Socket Mode; without it interactions come over HTTP only"),
    (
        "COUNTERSIGN_GITHUB_WEBHOOK_SECRET",
        "16 or more printable characters that verify what the GitHub App delivers; [GITHUB.md](GITHUB.md)",
    ),
    (
        "COUNTERSIGN_GITLAB_WEBHOOK_SECRET",
        "the same for what GitLab delivers to the external status check; [GITLAB.md](GITLAB.md)",
    ),
    (
        "COUNTERSIGN_GITLAB_TOKEN",
        "an access token of GitLab with the scope `api`, by which status checks are set",
    ),
    (
        "OTLP_HEADERS",
        "headers for the collector of traces, `name=value,…`, percent-encoded; [TRACING.md](TRACING.md) has the variables \
         `OTEL_*` that count, too",
    ),
    (
        "REDIS_URL",
        "the address of a Redis, in place of `COUNTERSIGN_STORE`; user and password may be in it: \
         `redis://USER:PASSWORD@HOST:PORT`",
    ),
    ("REDIS_USERNAME", "the user of a Redis, in place of one in its address"),
    (
        "REDIS_PASSWORD",
        "the password of a Redis; `--store` and `COUNTERSIGN_STORE` refuse an address with a password in it",
    ),
];

#[test]
fn every_setting_is_in_the_reference() {
    compare("SETTINGS.md", &reference());
}

#[test]
fn every_secret_is_in_the_reference() {
    for name in secrets::NAMES {
        assert!(VARIABLES.iter().any(|(listed, _)| *listed == name), "{name}");
    }
}

fn reference() -> String {
    let command = Config::augment_args(Command::new("serve"));
    let mut order = Vec::new();
    let mut sections: BTreeMap<String, Vec<&Arg>> = BTreeMap::new();
    for arg in command.get_arguments().filter(|arg| arg.get_long().is_some()) {
        let heading = arg.get_help_heading().unwrap_or("Others");
        let heading = heading.split(" (").next().unwrap_or(heading).to_owned();
        if !order.contains(&heading) {
            order.push(heading.clone());
        }
        sections.entry(heading).or_default().push(arg);
    }
    let mut text = INTRODUCTION.to_owned();
    for heading in order {
        let _ = writeln!(
            text,
            "\n## {heading}\n| variable | flag | default | values | meaning |\n|---|---|---|---|---|"
        );
        for arg in &sections[&heading] {
            text.push_str(&row(arg));
        }
    }
    text.push_str("\n## Variables without a flag\n| variable | meaning |\n|---|---|\n");
    for (name, meaning) in VARIABLES {
        let _ = writeln!(text, "| `{name}` | {} |", cell(meaning));
    }
    text
}

fn row(arg: &Arg) -> String {
    let long = arg.get_long().expect("only flags are listed");
    let variable = arg.get_value_names().and_then(|names| names.first());
    let variable = variable.unwrap_or_else(|| panic!("`--{long}` names no variable"));
    let help = arg.get_long_help().or_else(|| arg.get_help());
    let help = help.unwrap_or_else(|| panic!("`--{long}` is not explained")).to_string();
    let default: Vec<String> =
        arg.get_default_values().iter().map(|value| format!("`{}`", value.display())).collect();
    let default = match (default.is_empty(), arg.is_required_set()) {
        (false, _) => default.join(", "),
        (true, true) => "must be given".to_owned(),
        (true, false) => String::new(),
    };
    format!("| `{variable}` | `--{long}` | {default} | {} | {} |\n", values(arg), cell(&help))
}

/// Which values there are: those that are listed, or the range that the parser's own error names.
fn values(arg: &Arg) -> String {
    let listed: Vec<String> =
        arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    if !listed.is_empty() {
        return listed.join(", ");
    }
    let long = arg.get_long().expect("only flags are listed");
    let alone = Command::new("alone").no_binary_name(true).arg(arg.clone().required(false));
    for probe in ["-1", "0", "4294967295", "18446744073709551615"] {
        let Err(error) = alone.clone().try_get_matches_from([format!("--{long}={probe}")]) else { continue };
        let error = error.to_string();
        let Some((_, range)) = error.split_once(" is not in ") else { continue };
        let range = range.split_whitespace().next().unwrap_or_default();
        return match range.split_once("..") {
            Some((least, most)) => match most.strip_prefix('=').unwrap_or(most) {
                "" => format!("from {least}"),
                most => format!("{least} to {most}"),
            },
            None => range.to_owned(),
        };
    }
    String::new()
}
