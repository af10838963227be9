//! The TLS configuration for a registry.

use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt as _;
use rustls::{ClientConfig, RootCertStore};

use super::error::RegistryError;
use super::reference::Repository;

/// A configuration that trusts the system's certificates. Blocks: those are some hundred kilobytes to read.
pub(super) fn config(repository: &Repository) -> Result<ClientConfig, RegistryError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let failed = |detail: String| {
        let registry = repository.registry().to_owned();
        RegistryError::Unreachable { registry, detail }
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?;
    let config = match config.clone().with_native_roots() {
        Ok(config) => config,
        // A registry on this machine is not spoken to over TLS.
        Err(_) if repository.is_on_this_machine() => config.with_root_certificates(RootCertStore::empty()),
        Err(error) => return Err(failed(format!("cannot read the system's certificates: {error}"))),
    };
    Ok(config.with_no_client_auth())
}
