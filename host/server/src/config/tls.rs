//! TLS of each listener. All of it is read again when a file changes.

use std::path::PathBuf;

use clap::Args;

use super::{Network, Secrets};
use crate::tls::TlsFiles;

/// TLS of each listener.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsSettings {
    /// The certificate chain of the callers' listener, in PEM, its own first; with it, the listener speaks TLS alone.
    #[arg(long, value_name = "TLS_CERT_FILE")]
    pub tls_cert_file: Option<PathBuf>,
    /// The private key for it, in PEM.
    #[arg(long, value_name = "TLS_KEY_FILE")]
    pub tls_key_file: Option<PathBuf>,
    /// The authorities whose client certificates count at the callers' listener, in PEM.
    #[arg(long, value_name = "TLS_CA_FILE")]
    pub tls_ca_file: Option<PathBuf>,
    /// Their revocation lists, in PEM. If there are any, each authority needs one that has not run out.
    #[arg(long, value_name = "TLS_CRL_FILE")]
    pub tls_crl_file: Option<PathBuf>,
    /// Whether nobody reaches the callers' listener without a client certificate that counts.
    #[arg(long, value_name = "REQUIRE_CLIENT_CERT", default_value = "false")]
    #[arg(num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    pub require_client_cert: bool,
    /// The certificate chain of the listener for operations.
    #[arg(long, value_name = "COUNTERSIGN_OPS_TLS_CERT_FILE")]
    pub ops_tls_cert_file: Option<PathBuf>,
    /// The private key for it.
    #[arg(long, value_name = "COUNTERSIGN_OPS_TLS_KEY_FILE")]
    pub ops_tls_key_file: Option<PathBuf>,
    /// The authorities whose client certificates count there. Probes need none.
    #[arg(long, value_name = "COUNTERSIGN_OPS_TLS_CA_FILE")]
    pub ops_tls_ca_file: Option<PathBuf>,
    /// Their revocation lists.
    #[arg(long, value_name = "COUNTERSIGN_OPS_TLS_CRL_FILE")]
    pub ops_tls_crl_file: Option<PathBuf>,
    /// The certificate chain of the listener for Slack.
    #[arg(long, value_name = "COUNTERSIGN_SLACK_TLS_CERT_FILE")]
    pub slack_tls_cert_file: Option<PathBuf>,
    /// The private key for it.
    #[arg(long, value_name = "COUNTERSIGN_SLACK_TLS_KEY_FILE")]
    pub slack_tls_key_file: Option<PathBuf>,
    /// How many seconds a TLS connection may last: certificates that end, and revocation lists that run out, count no
    /// longer than that for connections that are open. Event streams end then, and their clients reconnect.
    #[arg(long, value_name = "COUNTERSIGN_MAX_CONNECTION_AGE_SEC", default_value = "3600")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub max_connection_age_sec: u32,
}

/// The files of one listener, as they are configured, with the prefixes of their variables.
struct Given<'a> {
    prefix: &'static str,
    cert: Option<&'a PathBuf>,
    key: Option<&'a PathBuf>,
    ca: Option<&'a PathBuf>,
    crl: Option<&'a PathBuf>,
}

impl TlsSettings {
    /// The files of the callers' listener, if it speaks TLS.
    #[must_use]
    pub fn callers(&self) -> Option<TlsFiles> {
        self.given_for_callers().files(self.require_client_cert)
    }

    /// The files of the listener for operations.
    #[must_use]
    pub fn operations(&self) -> Option<TlsFiles> {
        self.given_for_operations().files(false)
    }

    /// The files of the listener for Slack.
    #[must_use]
    pub fn slack(&self) -> Option<TlsFiles> {
        self.given_for_slack().files(false)
    }

    /// The files of each listener that speaks TLS, with what it serves.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = (&'static str, TlsFiles)> {
        let all = [("callers", self.callers()), ("operations", self.operations()), ("slack", self.slack())];
        all.into_iter().filter_map(|(name, files)| Some((name, files?)))
    }

    fn given_for_callers(&self) -> Given<'_> {
        Given {
            prefix: "",
            cert: self.tls_cert_file.as_ref(),
            key: self.tls_key_file.as_ref(),
            ca: self.tls_ca_file.as_ref(),
            crl: self.tls_crl_file.as_ref(),
        }
    }

    fn given_for_operations(&self) -> Given<'_> {
        Given {
            prefix: "COUNTERSIGN_OPS_",
            cert: self.ops_tls_cert_file.as_ref(),
            key: self.ops_tls_key_file.as_ref(),
            ca: self.ops_tls_ca_file.as_ref(),
            crl: self.ops_tls_crl_file.as_ref(),
        }
    }

    fn given_for_slack(&self) -> Given<'_> {
        Given {
            prefix: "COUNTERSIGN_SLACK_",
            cert: self.slack_tls_cert_file.as_ref(),
            key: self.slack_tls_key_file.as_ref(),
            ca: None,
            crl: None,
        }
    }

    /// Whether [`TlsSettings::check`] looks at the setting of this variable.
    pub(super) fn is_checked(variable: &str) -> bool {
        variable.contains("TLS_")
            || ["REQUIRE_CLIENT_CERT", "COUNTERSIGN_OPS_LISTEN", "COUNTERSIGN_SLACK_LISTEN"]
                .contains(&variable)
    }

    /// What is wrong with these settings, one sentence each.
    pub(crate) fn check(&self, network: &Network, secrets: &Secrets) -> Vec<String> {
        let mut wrong = Vec::new();
        for (given, listener, listens) in [
            (self.given_for_callers(), "", true),
            (self.given_for_operations(), "COUNTERSIGN_OPS_LISTEN", network.ops_listen.is_some()),
            (self.given_for_slack(), "COUNTERSIGN_SLACK_LISTEN", network.slack_listen.is_some()),
        ] {
            if !listens && given.is_any() {
                wrong.push(format!("`{}TLS_…` is set, but not `{listener}`", given.prefix));
            }
            wrong.extend(given.missing());
        }
        if self.require_client_cert {
            if self.tls_ca_file.is_none() {
                wrong.push(
                    "`REQUIRE_CLIENT_CERT` is set, but not `TLS_CA_FILE`: nobody could have a certificate"
                        .to_owned(),
                );
            }
            if network.ops_listen.is_none() {
                wrong.push(
                    "`REQUIRE_CLIENT_CERT` is set, but not `COUNTERSIGN_OPS_LISTEN`: probes have no certificate"
                        .to_owned(),
                );
            }
            if network.slack_listen.is_none() && secrets.slack_signing.is_some() {
                wrong.push(
                    "`REQUIRE_CLIENT_CERT` is set, but not `COUNTERSIGN_SLACK_LISTEN`: Slack has no certificate"
                        .to_owned(),
                );
            }
        }
        wrong
    }
}

impl Given<'_> {
    fn is_any(&self) -> bool {
        [self.cert, self.key, self.ca, self.crl].iter().any(Option::is_some)
    }

    /// Each file that is given needs another one.
    fn missing(&self) -> Vec<String> {
        let needs = [
            (self.cert, "TLS_CERT_FILE", self.key, "TLS_KEY_FILE"),
            (self.key, "TLS_KEY_FILE", self.cert, "TLS_CERT_FILE"),
            (self.ca, "TLS_CA_FILE", self.cert, "TLS_CERT_FILE"),
            (self.crl, "TLS_CRL_FILE", self.ca, "TLS_CA_FILE"),
        ];
        let missing = needs.into_iter().filter(|(given, _, needed, _)| given.is_some() && needed.is_none());
        let prefix = self.prefix;
        missing
            .map(|(_, given, _, needed)| format!("`{prefix}{given}` is set, but not `{prefix}{needed}`"))
            .collect()
    }

    fn files(&self, require_client_cert: bool) -> Option<TlsFiles> {
        Some(TlsFiles {
            cert: self.cert?.clone(),
            key: self.key?.clone(),
            ca: self.ca.cloned(),
            crl: self.crl.cloned(),
            require_client_cert,
        })
    }
}
