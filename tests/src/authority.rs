//! An authority of the tests' own: certificates of servers and clients, and revocation lists.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use time::{Duration, OffsetDateTime};

/// An authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate, and its key.
pub struct Certified {
    /// The certificate, in PEM.
    pub certificate: String,
    /// Its key, in PEM.
    pub key: String,
    der: CertificateDer<'static>,
    key_der: Vec<u8>,
    serial: SerialNumber,
}

/// A name in a certificate.
#[derive(Clone, Copy, Debug)]
pub enum Name<'a> {
    /// A URI.
    Uri(&'a str),
    /// A DNS name.
    Dns(&'a str),
}

/// How a client speaks TLS to a gateway: whom it trusts, and which certificate it shows. It is never freed, so that it can
/// be copied as an address can.
#[derive(Clone, Copy, Debug)]
pub struct TlsClient(pub(crate) &'static Arc<ClientConfig>);

impl Certified {
    /// A server that shows it.
    ///
    /// # Panics
    /// If it cannot be used.
    #[must_use]
    pub fn tls_server(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::try_from(self.key_der.clone()).expect("a key");
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.der.clone()], key);
        Arc::new(config.expect("a key that fits"))
    }
}

impl Default for Authority {
    fn default() -> Authority {
        Authority::new()
    }
}

impl Authority {
    /// A new authority.
    ///
    /// # Panics
    /// If there is no randomness.
    #[must_use]
    pub fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Authority of the tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("randomness");
        Authority { issuer: CertifiedIssuer::self_signed(params, key).expect("sound parameters") }
    }

    /// Its own certificate, in PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for a gateway on this machine.
    #[must_use]
    pub fn server(&self) -> Certified {
        let names = [SanType::DnsName("localhost".try_into().expect("ASCII"))];
        self.certified(names.into(), ExtendedKeyUsagePurpose::ServerAuth, Duration::days(1))
    }

    /// A client's certificate with these names.
    #[must_use]
    pub fn client(&self, names: &[Name<'_>]) -> Certified {
        self.client_until(names, Duration::days(1))
    }

    /// The same, which ended an hour ago.
    #[must_use]
    pub fn expired_client(&self, names: &[Name<'_>]) -> Certified {
        self.client_until(names, -Duration::hours(1))
    }

    fn client_until(&self, names: &[Name<'_>], until: Duration) -> Certified {
        let names = names.iter().map(|name| match name {
            Name::Uri(uri) => SanType::URI((*uri).try_into().expect("ASCII")),
            Name::Dns(name) => SanType::DnsName((*name).try_into().expect("ASCII")),
        });
        self.certified(names.collect(), ExtendedKeyUsagePurpose::ClientAuth, until)
    }

    fn certified(&self, names: Vec<SanType>, usage: ExtendedKeyUsagePurpose, until: Duration) -> Certified {
        let key = KeyPair::generate().expect("randomness");
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.extended_key_usages = vec![usage];
        params.not_before = now() - Duration::days(2);
        params.not_after = now() + until;
        // A random one, of which the first bit is not set: a serial number is positive.
        let mut serial = key.public_key_raw().iter().rev().take(16).copied().collect::<Vec<u8>>();
        serial.insert(0, 1);
        let serial = SerialNumber::from_slice(&serial);
        params.serial_number = Some(serial.clone());
        let certificate = params.signed_by(&key, &self.issuer).expect("sound parameters");
        Certified {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            der: certificate.der().clone(),
            key_der: key.serialize_der(),
            serial,
        }
    }

    /// A revocation list of these certificates, in PEM.
    #[must_use]
    pub fn revocation_list(&self, revoked: &[&Certified]) -> String {
        self.revocation_list_until(revoked, now() + Duration::days(1))
    }

    /// The same, which ran out an hour ago.
    #[must_use]
    pub fn revocation_list_run_out(&self, revoked: &[&Certified]) -> String {
        self.revocation_list_until(revoked, now() - Duration::hours(1))
    }

    fn revocation_list_until(&self, revoked: &[&Certified], until: OffsetDateTime) -> String {
        let revoked = revoked.iter().map(|certified| RevokedCertParams {
            serial_number: certified.serial.clone(),
            revocation_time: now() - Duration::days(1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: now() - Duration::days(1),
            next_update: until,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("sound parameters").pem().expect("PEM")
    }

    /// A client that trusts this authority, and shows a certificate if it has one.
    ///
    /// # Panics
    /// If the certificate cannot be used.
    #[must_use]
    pub fn tls_client(&self, certified: Option<&Certified>) -> TlsClient {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = match certified {
            None => builder.with_no_client_auth(),
            Some(Certified { der, key_der, .. }) => {
                let key = PrivateKeyDer::try_from(key_der.clone()).expect("a key");
                builder.with_client_auth_cert(vec![der.clone()], key).expect("a key that fits")
            }
        };
        TlsClient(Box::leak(Box::new(Arc::new(config))))
    }
}

#[expect(clippy::disallowed_methods, reason = "certificates are made for the machine's own time")]
fn now() -> OffsetDateTime {
    OffsetDateTime::from(std::time::SystemTime::now())
}
