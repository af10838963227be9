//! The flags that say which gateway is asked, and what of it is believed.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use countersign_core::receipt::signed::KeySet;

use super::duration::duration;
use super::exit::Ended;
use crate::address::GatewayUrl;
use crate::api::{Client, Settings};
use crate::credentials::Credentials;
use crate::environment::Environment;

/// Where a gateway is, and how it is reached.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Gateway")]
pub struct Address {
    /// The URL of the gateway.
    #[arg(long, value_name = "COUNTERSIGN_URL")]
    pub url: String,
    /// Certificate authorities to believe in place of the system's: a PEM file.
    #[arg(long, value_name = "COUNTERSIGN_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// The audience of tokens that are fetched from GitHub.
    #[arg(long, value_name = "COUNTERSIGN_AUDIENCE", default_value = "countersign")]
    pub audience: String,
    /// Whether `http` is allowed to other machines.
    #[arg(long, value_name = "COUNTERSIGN_INSECURE_HTTP", default_value = "false")]
    #[arg(num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    pub insecure_http: bool,
}

impl Address {
    /// A client of the gateway, with the keys that its receipts are checked with, if they are known.
    pub(super) async fn client(
        &self,
        credentials: Credentials,
        keys: Option<KeySet>,
        patience: Duration,
        environment: &Environment,
    ) -> Result<Client, Ended> {
        let url = GatewayUrl::new(&self.url, self.insecure_http).map_err(Ended::usage)?;
        let (ca_file, unused_proxy) = (self.ca_file.clone(), environment.unused_proxy());
        let settings = Settings { url, ca_file, credentials, keys, patience, unused_proxy };
        let made = tokio::task::spawn_blocking(|| Client::new(settings)).await;
        made.map_err(Ended::doubt)?.map_err(Ended::usage)
    }
}

/// Which gateway is asked, and what of it is believed.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Gateway")]
pub struct Connection {
    /// Where it is.
    #[command(flatten)]
    pub address: Address,
    /// The keys of its receipts, as it publishes them at `/.well-known/jwks.json`. Without them they are fetched from it,
    /// so that receipts prove no more than the connection does.
    #[arg(long, value_name = "COUNTERSIGN_JWKS")]
    pub jwks: Option<PathBuf>,
    /// For how long a gateway that gives no usable answer is tried again.
    #[arg(long, value_name = "COUNTERSIGN_PATIENCE", default_value = "1m", value_parser = duration)]
    pub patience: Duration,
    /// Do without a receipt, for a gateway that signs none.
    #[arg(long)]
    pub no_receipt: bool,
}

impl Connection {
    /// A client of it.
    ///
    /// # Errors
    /// If the settings or the files that they name are wrong.
    pub async fn client(&self, environment: &Environment) -> Result<Client, Ended> {
        let keys = self.jwks.as_ref().map(|path| {
            let shown = path.display();
            let text =
                fs::read(path).map_err(|error| Ended::usage(format!("cannot read `{shown}`: {error}")))?;
            KeySet::read(&text).map_err(|error| Ended::usage(format!("`{shown}` is no key set: {error}")))
        });
        let credentials = Credentials::find(environment, &self.address.audience);
        self.address.client(credentials, keys.transpose()?, self.patience, environment).await
    }

    /// The keys that receipts are checked with; `None` if there need be none.
    ///
    /// # Errors
    /// If they cannot be fetched, or the settings contradict each other.
    pub async fn keys(&self, client: &Client) -> Result<Option<KeySet>, Ended> {
        match &self.jwks {
            Some(_) if self.no_receipt => {
                let why = "`--no-receipt` contradicts `--jwks` and `COUNTERSIGN_JWKS`";
                return Err(Ended::usage(why));
            }
            None if self.no_receipt => return Ok(None),
            _ => {}
        }
        let keys = client.keys().await;
        keys.map(Some)
            .map_err(|error| Ended::doubt(format!("the keys of receipts cannot be fetched: {error}")))
    }
}
