//! What is in force at a listener: one immutable configuration, made of the contents of its files.

use std::path::Path;
use std::sync::Arc;

use countersign_core::lifecycle::Timestamp;
use rustls::crypto::ring;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode as _;
use x509_cert::time::Time;

use super::{Contents, TlsError, TlsFiles};

/// What is in force at a listener.
pub(crate) struct InForce {
    pub(crate) config: Arc<ServerConfig>,
    /// Says whose client certificates count, if they are asked for.
    clients: Option<Arc<dyn ClientCertVerifier>>,
    certificate_until: Timestamp,
    lists_until: Option<Timestamp>,
}

impl InForce {
    /// Makes it of these contents.
    pub(super) fn new(files: &TlsFiles, contents: &Contents) -> Result<InForce, TlsError> {
        let chain: Vec<CertificateDer<'static>> = sections(&files.cert, &contents.cert, "certificate")?;
        let certificate_until = chain.first().and_then(|own| Certificate::from_der(own).ok());
        let certificate_until = certificate_until
            .map(|own| timestamp(&own.tbs_certificate().validity().not_after))
            .ok_or_else(|| TlsError::new(&files.cert, "its first certificate cannot be read"))?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|_| TlsError::new(&files.key, "has no private key in PEM"))?;

        let (clients, lists_until) = clients(files, contents)?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::new(&files.cert, error.to_string()))?;
        let builder = match &clients {
            Some(clients) => builder.with_client_cert_verifier(Arc::clone(clients)),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                TlsError::new(&files.key, format!("is not the key of `{}`", files.cert.display()))
            }
            other => TlsError::new(&files.cert, other.to_string()),
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        if clients.is_some() {
            // Whoever resumes a session is not verified again: a certificate that has ended since, or a revocation list
            // that has run out, would count on.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(InForce { config: Arc::new(config), clients, certificate_until, lists_until })
    }

    /// Whether this chain of a client counts, its own certificate first.
    pub(crate) fn counts(&self, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        match (&self.clients, chain.split_first()) {
            (Some(clients), Some((own, others))) => {
                clients.verify_client_cert(own, others, UnixTime::now()).map(drop)
            }
            _ => Err(rustls::Error::NoCertificatesPresented),
        }
    }

    /// When the listener's own certificate ends.
    pub(super) fn certificate_until(&self) -> Timestamp {
        self.certificate_until
    }

    /// When the first of its revocation lists runs out, if it has any.
    pub(super) fn lists_until(&self) -> Option<Timestamp> {
        self.lists_until
    }
}

/// Who says whose certificates count, and when the first of the revocation lists runs out.
type Clients = (Option<Arc<dyn ClientCertVerifier>>, Option<Timestamp>);

fn clients(files: &TlsFiles, contents: &Contents) -> Result<Clients, TlsError> {
    let (Some(file), Some(authorities)) = (&files.ca, &contents.ca) else { return Ok((None, None)) };
    let mut roots = RootCertStore::empty();
    for (number, authority) in
        sections::<CertificateDer<'static>>(file, authorities, "certificate")?.into_iter().enumerate()
    {
        roots.add(authority).map_err(|error| {
            TlsError::new(file, format!("its certificate {} is no authority's: {error}", number + 1))
        })?;
    }
    let provider = Arc::new(ring::default_provider());
    let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .enforce_revocation_expiration();
    let mut lists_until = None;
    if let (Some(file), Some(lists)) = (&files.crl, &contents.crl) {
        let lists: Vec<CertificateRevocationListDer<'static>> = sections(file, lists, "revocation list")?;
        for (number, list) in lists.iter().enumerate() {
            let until = CertificateList::<x509_cert::certificate::Rfc5280>::from_der(list);
            let until = until.ok().and_then(|list| list.tbs_cert_list.next_update);
            let until = until.map(|until| timestamp(&until)).ok_or_else(|| {
                let why = format!(
                    "its revocation list {} cannot be read, or does not say when it runs out",
                    number + 1
                );
                TlsError::new(file, why)
            })?;
            lists_until = Some(lists_until.map_or(until, |earlier: Timestamp| earlier.min(until)));
        }
        verifier = verifier.with_crls(lists);
    }
    if !files.require_client_cert {
        verifier = verifier.allow_unauthenticated();
    }
    let verifier = verifier.build().map_err(|error| match (&error, &files.crl) {
        (VerifierBuilderError::InvalidCrl(why), Some(file)) => TlsError::new(file, format!("{why:?}")),
        _ => TlsError::new(file, error.to_string()),
    })?;
    Ok((Some(verifier), lists_until))
}

/// The sections of one kind in a PEM file: at least one.
fn sections<T: PemObject>(file: &Path, text: &[u8], what: &str) -> Result<Vec<T>, TlsError> {
    let sections: Result<Vec<T>, _> = T::pem_slice_iter(text).collect();
    let sections = sections.map_err(|_| TlsError::new(file, "is not PEM"))?;
    if sections.is_empty() {
        return Err(TlsError::new(file, format!("has no {what} in PEM")));
    }
    Ok(sections)
}

fn timestamp(time: &Time) -> Timestamp {
    let millis = time.to_unix_duration().as_millis();
    Timestamp::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}
