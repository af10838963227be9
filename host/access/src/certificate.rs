//! The name that a client certificate gives its holder. Whether the certificate counts is for TLS to say.

use std::fmt;

use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// The one name that a client certificate is known by: its URI, or, if it has none, its DNS name. Names are compared as
/// they are written, and neither the subject nor any other kind of name is looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CertificateName {
    /// A URI, such as a SPIFFE id.
    Uri(String),
    /// A DNS name.
    Dns(String),
}

/// Why a client certificate names nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Malformed,
    /// It has neither a URI nor a DNS name.
    #[error("it has neither a URI nor a DNS name")]
    NoName,
    /// It has several URIs.
    #[error("it has several URIs")]
    SeveralUris,
    /// It has no URI, and several DNS names.
    #[error("it has several DNS names")]
    SeveralDnsNames,
}

impl CertificateName {
    /// The name of a certificate in DER.
    ///
    /// # Errors
    /// If it has none, or several.
    pub fn of(der: &[u8]) -> Result<CertificateName, CertificateError> {
        let certificate = Certificate::from_der(der).map_err(|_| CertificateError::Malformed)?;
        let names = certificate.tbs_certificate().get_extension::<SubjectAltName>();
        let names = names.map_err(|_| CertificateError::Malformed)?.map(|(_, SubjectAltName(names))| names);
        let (mut uris, mut dns_names) = (Vec::new(), Vec::new());
        for name in names.unwrap_or_default() {
            match name {
                GeneralName::UniformResourceIdentifier(uri) => uris.push(uri.to_string()),
                GeneralName::DnsName(name) => dns_names.push(name.to_string()),
                _ => {}
            }
        }
        match (uris.as_slice(), dns_names.as_slice()) {
            ([uri], _) => Ok(CertificateName::Uri(uri.clone())),
            ([], [name]) => Ok(CertificateName::Dns(name.clone())),
            ([], []) => Err(CertificateError::NoName),
            ([], _) => Err(CertificateError::SeveralDnsNames),
            _ => Err(CertificateError::SeveralUris),
        }
    }

    /// The name of this kind, `uri` or `dns`, if a certificate can have it.
    ///
    /// # Errors
    /// Why none can.
    pub(crate) fn configured(kind: &str, text: &str) -> Result<CertificateName, &'static str> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("has other characters than certificates can have");
        }
        if text.contains('*') {
            return Err("has a `*`: the whole name is compared, and it is no pattern");
        }
        if kind == "uri" {
            return match text.split_once(':') {
                Some((scheme, rest)) if !scheme.is_empty() && !rest.is_empty() => {
                    Ok(CertificateName::Uri(text.to_owned()))
                }
                _ => Err("is no URI, such as `spiffe://acme.example/portal`"),
            };
        }
        if text.contains([':', '/', '@']) {
            return Err("is no DNS name, such as `portal.acme.example`");
        }
        Ok(CertificateName::Dns(text.to_owned()))
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CertificateName::Uri(name) | CertificateName::Dns(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(names: &[SanType]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "common.acme.example");
        params.subject_alt_names = names.to_vec();
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().unwrap())
    }

    #[test]
    fn a_certificate_has_one_name() {
        let portal = || Ok(CertificateName::Uri("spiffe://acme/portal".to_owned()));
        let ip = SanType::IpAddress("192.0.2.1".parse().unwrap());
        let mail = SanType::Rfc822Name("dana@acme.example".try_into().unwrap());
        for (names, expected) in [
            (&[uri("spiffe://acme/portal")][..], portal()),
            (&[uri("spiffe://acme/portal"), dns("a.example"), dns("b.example")], portal()),
            (&[dns("a.example"), ip.clone()], Ok(CertificateName::Dns("a.example".to_owned()))),
            (&[dns("*.example")], Ok(CertificateName::Dns("*.example".to_owned()))),
            (&[uri("spiffe://acme/a"), uri("spiffe://acme/b")], Err(CertificateError::SeveralUris)),
            (&[uri("spiffe://acme/a"), uri("spiffe://acme/a")], Err(CertificateError::SeveralUris)),
            (&[dns("a.example"), dns("b.example")], Err(CertificateError::SeveralDnsNames)),
            (&[ip, mail], Err(CertificateError::NoName)),
            (&[], Err(CertificateError::NoName)),
        ] {
            assert_eq!(CertificateName::of(&certificate(names)), expected, "{names:?}");
        }
    }

    #[test]
    fn what_is_no_certificate_names_nobody() {
        let whole = certificate(&[uri("spiffe://acme/portal")]);
        for bytes in [&[][..], b"x", &whole[..whole.len() - 1], &[whole.as_slice(), b"x"].concat()] {
            assert_eq!(CertificateName::of(bytes), Err(CertificateError::Malformed));
        }
    }
}
