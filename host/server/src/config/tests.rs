//! The settings, as the command line reads them.

use super::*;
use crate::cli::{Cli, Command};

pub(super) fn read(flags: &[&str], variables: &[(&str, &str)]) -> Result<Config, String> {
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
    assert_eq!(config.storage.store.to_string(), "sqlite:countersign.db");
    assert_eq!((config.rate_limit.capacity, config.rate_limit.refill_per_sec), (30, 1.0));
    assert_eq!(config.scheduling.interval_ms, 1000);
    assert!(config.policies.watch && config.secrets.admin.is_none());
    assert!(config.secrets.server.is_none() && config.secrets.slack_signing.is_none());
    assert!(config.secrets.slack_bot.is_none() && config.secrets.slack_app.is_none());
    assert_eq!(config.slack.api_url, "https://slack.com/api");
    assert_eq!((config.slack.rate_factor, config.slack.socket_connections), (1.0, 2));
    assert!(config.slack.team_ids.is_empty());
    assert_eq!(config.policies.limits.limits(), countersign_policy::Limits::default());
    assert!(config.warnings.is_empty());
}

#[test]
fn workspaces_are_listed_with_commas() {
    let variables = [("SLACK_TEAM_IDS", "T0ACME, E0ACME")];
    let config = read(&["--policies", "p"], &variables).unwrap();
    assert_eq!(config.slack.team_ids, ["T0ACME", "E0ACME"]);
    assert!(config.warnings[0].contains("no effect without `SLACK_BOT_TOKEN`"), "{:?}", config.warnings);
    let flags = ["--policies", "p", "--slack-team-ids", "T0OTHER"];
    assert_eq!(read(&flags, &variables).unwrap().slack.team_ids, ["T0OTHER"]);
    let secrets = [("SLACK_BOT_TOKEN", "xoxb-1"), ("SLACK_SIGNING_SECRET", "0123456789abcdef")];
    let config = read(&flags, &secrets).unwrap();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn the_cache_is_beside_the_database() {
    let config = read(&["--policies", "p", "--store", "sqlite:/data/c.db"], &[]).unwrap();
    assert_eq!(config.cache_dir(), Some(PathBuf::from("/data/c.db.modules")));
    let config = read(&["--policies", "p", "--cache-dir", "/tmp/c"], &[]).unwrap();
    assert_eq!(config.cache_dir(), Some(PathBuf::from("/tmp/c")));
    let config = read(&["--policies", "p", "--store", "memory"], &[]).unwrap();
    assert_eq!((config.cache_dir(), config.spool_dir()), (None, None));
}

/// Every wrong value stops the start, and the error names it.
#[test]
fn a_wrong_value_is_named() {
    let rows: &[(&str, &str, &[&str])] = &[
        ("COUNTERSIGN_LISTEN", "8080", &["--listen", "COUNTERSIGN_LISTEN"]),
        ("COUNTERSIGN_LISTEN", "", &["--listen", "COUNTERSIGN_LISTEN"]),
        ("COUNTERSIGN_STORE", "redis://", &["--store", "COUNTERSIGN_STORE", "host 1 of the address"]),
        ("COUNTERSIGN_STORE", "redis://:secret@r", &["has a password", "`REDIS_PASSWORD`"]),
        (
            "COUNTERSIGN_STORE",
            "redis://u:s3cret@r:x",
            &["--store", "COUNTERSIGN_STORE", "host 1 of the address"],
        ),
        ("COUNTERSIGN_REDIS_PARTITIONS", "0", &["--redis-partitions", "COUNTERSIGN_REDIS_PARTITIONS"]),
        ("COUNTERSIGN_STORE", "sqlite:", &["COUNTERSIGN_STORE", "sqlite:PATH"]),
        ("COUNTERSIGN_STORE", "/var/db", &["COUNTERSIGN_STORE", "sqlite:PATH"]),
        ("REDIS_URL", "sqlite:x", &["`REDIS_URL`"]),
        ("REDIS_URL", "redis+sentinel://r", &["`REDIS_URL`", "the name of the server"]),
        ("SCHEDULER_INTERVAL_MS", "soon", &["--scheduler-interval-ms", "SCHEDULER_INTERVAL_MS"]),
        ("SCHEDULER_INTERVAL_MS", "0", &["SCHEDULER_INTERVAL_MS"]),
        ("RATE_LIMIT_CAPACITY", "0", &["--rate-limit-capacity", "RATE_LIMIT_CAPACITY"]),
        ("RATE_LIMIT_REFILL_PER_SEC", "NaN", &["RATE_LIMIT_REFILL_PER_SEC"]),
        ("COUNTERSIGN_MAX_OPEN_REQUESTS", "0", &["COUNTERSIGN_MAX_OPEN_REQUESTS"]),
        ("SSE_MAX_CONNECTIONS", "-1", &["SSE_MAX_CONNECTIONS"]),
        ("SSE_HEARTBEAT_SEC", "4", &["--sse-heartbeat-sec", "SSE_HEARTBEAT_SEC", "5..=60"]),
        ("SSE_HEARTBEAT_SEC", "61", &["--sse-heartbeat-sec", "SSE_HEARTBEAT_SEC", "5..=60"]),
        ("COUNTERSIGN_BODY_LIMIT_BYTES", "1", &["COUNTERSIGN_BODY_LIMIT_BYTES"]),
        ("COUNTERSIGN_LOG", "x=y=z", &["--log", "COUNTERSIGN_LOG"]),
        ("COUNTERSIGN_LOG", "warning", &["--log", "COUNTERSIGN_LOG", "`warning` is neither a level"]),
        ("COUNTERSIGN_LOG_FORMAT", "xml", &["COUNTERSIGN_LOG_FORMAT"]),
        ("COUNTERSIGN_LISTN", "127.0.0.1:1", &["COUNTERSIGN_LISTN", "unknown", "COUNTERSIGN_LISTEN"]),
        ("REQUIRE_CLIENT_CERT", "true", &["`REQUIRE_CLIENT_CERT` is set, but not `TLS_CA_FILE`"]),
        ("REQUIRE_CLIENT_CERT", "yes", &["--require-client-cert", "REQUIRE_CLIENT_CERT"]),
        ("TLS_CERT_FILE", "cert.pem", &["`TLS_CERT_FILE` is set, but not `TLS_KEY_FILE`"]),
        ("TLS_CRL_FILE", "revoked.pem", &["`TLS_CRL_FILE` is set, but not `TLS_CA_FILE`"]),
        ("COUNTERSIGN_SLACK_TLS_KEY_FILE", "slack.key", &["not `COUNTERSIGN_SLACK_LISTEN`", "_CERT_FILE`"]),
        ("AUDIT_RETENTION_SEC", "60", &["`AUDIT_RETENTION_SEC` needs a `REQUEST_RETENTION_SEC`"]),
        ("POLICY_RETENTION_SEC", "3599", &["--policy-retention-sec", "POLICY_RETENTION_SEC"]),
        ("REQUEST_RETENTION_SEC", "0", &["--request-retention-sec", "REQUEST_RETENTION_SEC"]),
        ("REQUEST_RETENTION_SWEEP_SEC", "0", &["REQUEST_RETENTION_SWEEP_SEC"]),
        (
            "REQUEST_ARCHIVE_FILE",
            "requests.ndjson",
            &["`REQUEST_ARCHIVE_FILE` is set, but not `REQUEST_RETENTION_SEC`"],
        ),
        ("COUNTERSIGN_AUDIT_CHECKPOINT_SEC", "0", &["--audit-checkpoint-sec", "AUDIT_CHECKPOINT_SEC"]),
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
        ("SLACK_TEAM_IDS", "", &["--slack-team-ids", "SLACK_TEAM_IDS"]),
        ("SLACK_TEAM_IDS", "T0ACME,", &["SLACK_TEAM_IDS"]),
        ("SLACK_TEAM_IDS", "T0ACME;T0OTHER", &["SLACK_TEAM_IDS", "T0ACME;T0OTHER"]),
        ("SLACK_TEAM_IDS", "acme", &["SLACK_TEAM_IDS", "`T…`"]),
    ];
    for (name, value, parts) in rows {
        let error = read(&["--policies", "p"], &[(name, value)]).expect_err(name);
        for part in *parts {
            assert!(error.contains(part), "{name}={value}: {error}");
        }
        assert!(!error.contains("s3cret"), "{name}={value}: {error}");
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
fn secrets_are_read_and_not_shown() {
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

/// Whoever mends one mistake is told of all of them.
#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let variables = [
        ("COUNTERSIGN_LISTEN", "8080"),
        ("RATE_LIMIT_CAPACITY", "0"),
        ("COUNTERSIGN_LISTN", "127.0.0.1:1"),
        ("COUNTERSIGN_SECRET", "hunter2"),
        ("SLACK_APP_TOKEN", "xapp-1"),
        ("TLS_CERT_FILE", "cert.pem"),
        ("COUNTERSIGN_TRUSTED_PROXIES", "10.0.0.0/8,everybody"),
    ];
    let flags = ["--log-format", "xml", "--redis-partitions=0", "--store", "redis://u:s3cret@r:x"];
    let error = read(&flags, &variables).expect_err("a lot is wrong");
    let lines: Vec<&str> = error.lines().collect();
    let expected = [
        "--listen",
        "--trusted-proxies",
        "--policies",
        "--store",
        "--redis-partitions",
        "--rate-limit-capacity",
        "--log-format",
        "`COUNTERSIGN_LISTN` is unknown",
        "`COUNTERSIGN_SECRET`",
        "`SLACK_APP_TOKEN`",
        "`TLS_CERT_FILE` is set, but not `TLS_KEY_FILE`",
    ];
    assert_eq!(lines.len(), expected.len(), "{error}");
    for (line, named) in lines.iter().zip(expected) {
        assert!(line.contains(named), "`{line}` does not name {named}");
    }
    assert!(!error.contains("s3cret") && !error.contains("hunter2"), "{error}");
}

/// What follows from a value that cannot be read is not said as if it were a mistake of its own.
#[test]
fn nothing_is_said_of_what_a_malformed_value_would_decide() {
    let variables = [
        ("COUNTERSIGN_OPS_LISTEN", "9090"),
        ("REQUIRE_CLIENT_CERT", "true"),
        ("COUNTERSIGN_ACCESS", ""),
        ("COUNTERSIGN_LISTEN", "0.0.0.0:80"),
    ];
    let error = read(&["--policies", "p"], &variables).expect_err("two are wrong");
    assert_eq!(error.lines().count(), 2, "{error}");
    assert!(error.contains("--ops-listen") && error.contains("--access"), "{error}");
}

#[test]
fn an_unknown_flag_hides_no_wrong_variable() {
    let error = read(&["--policies", "p", "--listne", "x"], &[("RATE_LIMIT_CAPACITY", "0")]).unwrap_err();
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 2, "{error}");
    assert!(lines[0].contains("--listne"), "{error}");
    assert!(lines[1].contains("RATE_LIMIT_CAPACITY"), "{error}");
}

#[test]
fn a_ci_system_is_configured_whole_or_not_at_all() {
    let secret = "0123456789abcdef";
    let github = [
        ("COUNTERSIGN_GITHUB_APP", "Iv23liExample"),
        ("COUNTERSIGN_GITHUB_KEY_FILE", "app.pem"),
        ("COUNTERSIGN_GITHUB_WEBHOOK_SECRET", secret),
    ];
    let gitlab = [("COUNTERSIGN_GITLAB_TOKEN", "glpat-1234"), ("COUNTERSIGN_GITLAB_WEBHOOK_SECRET", secret)];
    let access = ("COUNTERSIGN_ACCESS", "access.yaml");
    for settings in [&github[..], &gitlab] {
        let whole = read(&["--policies", "p"], &[settings, &[access]].concat()).unwrap();
        assert_eq!(whole.secrets.github_webhook.is_some(), settings == github);
        assert_eq!(whole.secrets.gitlab.is_some(), settings == gitlab);
        let wrong = read(&["--policies", "p"], settings).unwrap_err();
        assert!(wrong.contains("no access file"), "{wrong}");
        for missing in settings {
            let rest: Vec<_> = settings.iter().filter(|it| *it != missing).copied().chain([access]).collect();
            let wrong = read(&["--policies", "p"], &rest).unwrap_err();
            assert!(wrong.contains(&format!("but not `{}`", missing.0)), "{wrong}");
        }
    }
    for (name, value) in [
        ("COUNTERSIGN_GITHUB_APP", "an app"),
        ("COUNTERSIGN_GITHUB_API_URL", "http://api.github.com"),
        ("COUNTERSIGN_GITLAB_API_URL", "gitlab.com"),
        ("COUNTERSIGN_GITHUB_WEBHOOK_SECRET", "short"),
        ("COUNTERSIGN_GITLAB_WEBHOOK_SECRET", "0123456789 abcdef"),
        ("COUNTERSIGN_GITLAB_TOKEN", "short"),
    ] {
        let wrong = read(&["--policies", "p"], &[(name, value), access]).unwrap_err();
        assert!(wrong.contains(name), "{wrong}");
        assert!(!wrong.contains("0123456789 abcdef"), "{wrong}");
    }
}

/// The second would find the address in use.
#[test]
fn listeners_have_addresses_of_their_own() {
    let at = |listen, operations, slack| {
        let flags =
            ["--policies", "p", "--listen", listen, "--ops-listen", operations, "--slack-listen", slack];
        read(&[&flags[..], &["--insecure-anonymous"]].concat(), &[])
    };
    for (listen, operations, slack) in [
        ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"),
        ("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"),
        ("127.0.0.1:1", "127.0.0.2:1", "[::1]:1"),
    ] {
        at(listen, operations, slack).unwrap();
    }
    for (listen, operations, slack, names) in [
        ("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:3", ["COUNTERSIGN_LISTEN", "COUNTERSIGN_OPS_LISTEN"]),
        ("0.0.0.0:1", "127.0.0.1:2", "127.0.0.1:1", ["COUNTERSIGN_LISTEN", "COUNTERSIGN_SLACK_LISTEN"]),
        ("127.0.0.1:1", "[::1]:2", "[::]:2", ["COUNTERSIGN_OPS_LISTEN", "COUNTERSIGN_SLACK_LISTEN"]),
    ] {
        let refused = at(listen, operations, slack).unwrap_err();
        assert_eq!(refused.lines().count(), 1, "{refused}");
        assert!(names.iter().all(|name| refused.contains(&format!("`{name}`"))), "{refused}");
    }
}
