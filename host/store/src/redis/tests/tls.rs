//! TLS, with an authority that the system does not know.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::options;
use super::server::Server;
use crate::fixtures::*;
use crate::redis::{RedisOptions, RedisStore};
use crate::{Created, Requests as _};

#[tokio::test]
async fn a_server_is_known_by_its_authority() {
    let (authority, [certificate, key]) = signed();
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (certificate, key) = (file("server.crt", &certificate), file("server.key", &key));
    let files = ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &certificate];
    let (_server, port) = Server::on_a_tls_port(&[&files, &["--tls-auth-clients", "no"][..]].concat());

    let known = RedisOptions {
        authorities: Some(authority.into()),
        ..options(&format!("rediss://localhost:{port}"))
    };
    let store = RedisStore::open(known.clone()).await.unwrap();
    assert_eq!(store.create(new(&request(1))).await.unwrap(), Created::New);
    assert_eq!(store.request(id(1)).await.unwrap(), Some(request(1)));

    let (other, _) = signed();
    for authorities in [Some(other.into_bytes()), None] {
        let error = RedisStore::open(RedisOptions { authorities, ..known.clone() }).await.err().unwrap();
        assert!(error.to_string().contains("invalid peer certificate"), "{error}");
    }
    // The name is looked at too.
    let url = format!("rediss://127.0.0.1:{port}").parse().unwrap();
    let error = RedisStore::open(RedisOptions { url, ..known }).await.err().unwrap();
    assert!(error.to_string().contains("invalid peer certificate"), "{error}");
}

/// The certificate of a new authority, and a certificate and key for `localhost` that it has signed, in PEM.
fn signed() -> (String, [String; 2]) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    (authority, [certificate.pem(), key.serialize_pem()])
}
