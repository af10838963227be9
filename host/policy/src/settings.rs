//! Settings of policies that the gateway and the authors' commands share, as command-line arguments.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use countersign_registry::{Allowed, BadReference, Credentials, Registries};

use crate::{KeyError, Limits, Trust};

/// How a policy set is loaded, for commands that do it as the gateway would.
#[derive(Clone, Debug, Args)]
pub struct Loading {
    /// Whose signatures count, and where modules may be fetched from.
    #[command(flatten)]
    pub supply: Supply,
    /// What one call of a policy may use.
    #[command(flatten)]
    pub limits: PolicyLimits,
}

/// Where policies may come from, and who must have signed them.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Supply chain (also as the variables that the values are named after)")]
pub struct Supply {
    /// A file of public keys in PEM: one of them must have signed each policy module. Without it modules need no signature.
    #[arg(long, value_name = "COUNTERSIGN_MODULE_KEYS")]
    pub module_keys: Option<PathBuf>,
    /// A file of public keys in PEM: one of them must have signed the policy set. Without it sets need no signature.
    #[arg(long, value_name = "COUNTERSIGN_SET_KEYS")]
    pub set_keys: Option<PathBuf>,
    /// The registries that modules may be fetched from, with commas between them: each a host, with a port if it has one,
    /// and below it a path if only that is meant: `ghcr.io/acme,registry.acme.example`. Without it none is asked.
    #[arg(long, value_name = "COUNTERSIGN_REGISTRIES")]
    pub registries: Option<RegistryList>,
    /// The passwords of registries, in the format of Docker's `config.json`. Without it they are asked without any.
    #[arg(long, value_name = "COUNTERSIGN_REGISTRY_AUTH_FILE")]
    pub registry_auth_file: Option<PathBuf>,
}

/// Registries, with commas between them.
#[derive(Clone, Debug, Default)]
pub struct RegistryList(Vec<Allowed>);

impl FromStr for RegistryList {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<RegistryList, BadReference> {
        text.split(',').map(|registry| registry.trim().parse()).collect::<Result<_, _>>().map(RegistryList)
    }
}

impl Supply {
    /// Reads the keys.
    ///
    /// # Errors
    /// Where a file cannot be read, or holds no keys.
    pub fn trust(&self) -> Result<Trust, KeyError> {
        Trust::read(self.module_keys.as_deref(), self.set_keys.as_deref())
    }

    /// The registries that may be asked.
    #[must_use]
    pub fn registries(&self) -> Registries {
        let RegistryList(allowed) = self.registries.clone().unwrap_or_default();
        let credentials = self.registry_auth_file.clone().map_or_else(Credentials::none, Credentials::file);
        Registries::new(allowed, credentials)
    }
}

/// What one call of a policy may use, and how large a module may be.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Policy limits (also as the variables that the values are named after)")]
pub struct PolicyLimits {
    /// Units of fuel: instructions, roughly. The same call always uses the same amount.
    #[arg(long = "policy-fuel", value_name = "COUNTERSIGN_POLICY_FUEL", default_value = "10000000")]
    #[arg(value_parser = clap::value_parser!(u64).range(10_000..=10_000_000_000))]
    pub fuel: u64,
    /// Memory, in MiB.
    #[arg(long = "policy-memory-mib", value_name = "COUNTERSIGN_POLICY_MEMORY_MIB", default_value = "16")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    pub memory_mib: u16,
    /// Time, in milliseconds: a backstop for what fuel does not see. A busy machine needs more of it.
    #[arg(long = "policy-deadline-ms", value_name = "COUNTERSIGN_POLICY_DEADLINE_MS", default_value = "50")]
    #[arg(value_parser = clap::value_parser!(u64).range(5..=60_000))]
    pub deadline_ms: u64,
    /// What a call returns, in KiB.
    #[arg(long = "policy-output-kib", value_name = "COUNTERSIGN_POLICY_OUTPUT_KIB", default_value = "64")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub output_kib: u16,
    /// The size of a module, in KiB.
    #[arg(long = "policy-module-kib", value_name = "COUNTERSIGN_POLICY_MODULE_KIB", default_value = "2048")]
    #[arg(value_parser = clap::value_parser!(u16).range(16..=16_384))]
    pub module_kib: u16,
}

impl PolicyLimits {
    /// As the engine takes them.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            fuel: self.fuel,
            memory_bytes: usize::from(self.memory_mib) << 20,
            deadline_ms: self.deadline_ms,
            output_bytes: usize::from(self.output_kib) << 10,
            module_bytes: usize::from(self.module_kib) << 10,
            ..Limits::default()
        }
    }
}
