//! An identity provider of the tests' own: it signs tokens with real keys, publishes which they are, and can misbehave.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::ambient::unix_seconds;

/// The `aud` of its tokens.
pub const AUDIENCE: &str = "countersign";

/// An RSA key in PKCS#8, which ring cannot make. It was made for this, and protects nothing.
const EXAMPLE_RSA: &[u8] = include_bytes!("issuer/example-rsa.pk8");

/// More bytes than a gateway should read of any document.
const TOO_MUCH: usize = 10 << 20;

/// The document that names the keys.
const CONFIGURATION: &str = "/.well-known/openid-configuration";

/// A key that tokens are signed with.
#[derive(Debug)]
pub struct SigningKey {
    kid: String,
    pair: Pair,
}

#[derive(Debug)]
enum Pair {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// An RSA key for RS256; always the same one, by another `kid`.
    ///
    /// # Panics
    /// Never: it is sound.
    #[must_use]
    pub fn rs256(kid: &str) -> SigningKey {
        let pair = RsaKeyPair::from_pkcs8(EXAMPLE_RSA).expect("the example is a key");
        SigningKey { kid: kid.to_owned(), pair: Pair::Rsa(pair) }
    }

    /// A new key on P-256 for ES256.
    ///
    /// # Panics
    /// If there is no randomness.
    #[must_use]
    pub fn es256(kid: &str) -> SigningKey {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("there is randomness");
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).expect("it is a key");
        SigningKey { kid: kid.to_owned(), pair: Pair::P256(pair) }
    }

    /// A new Ed25519 key for EdDSA.
    ///
    /// # Panics
    /// If there is no randomness.
    #[must_use]
    pub fn eddsa(kid: &str) -> SigningKey {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("there is randomness");
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("it is a key");
        SigningKey { kid: kid.to_owned(), pair: Pair::Ed25519(pair) }
    }

    /// The header of its tokens.
    #[must_use]
    pub fn header(&self) -> Value {
        let alg = match &self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::P256(_) => "ES256",
            Pair::Ed25519(_) => "EdDSA",
        };
        json!({"alg": alg, "kid": self.kid, "typ": "JWT"})
    }

    /// A token with these claims.
    #[must_use]
    pub fn token(&self, claims: &Value) -> String {
        self.token_with(&self.header(), claims)
    }

    /// A token with this header, signed with this key whatever the header says.
    #[must_use]
    pub fn token_with(&self, header: &Value, claims: &Value) -> String {
        token_signed_by(header, claims, |message| self.sign(message))
    }

    /// Its public key, as bytes that an attacker would have too.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_ref(),
            Pair::P256(pair) => pair.public_key().as_ref(),
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
        }
    }

    /// The JSON Web Key Set of these keys.
    #[must_use]
    pub fn key_set(keys: &[&SigningKey]) -> String {
        json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()}).to_string()
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let signed = pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature);
                signed.expect("there is randomness");
                signature
            }
            Pair::P256(pair) => pair.sign(&random, message).expect("there is randomness").as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// The public key, as a JSON Web Key.
    fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Rsa(pair) => {
                let rsa::PublicKeyComponents { n, e } =
                    rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({"kty": "RSA", "alg": "RS256", "n": encoded(n), "e": encoded(e)})
            }
            Pair::P256(pair) => {
                let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "x": encoded(x), "y": encoded(y)})
            }
            Pair::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": encoded(pair.public_key())})
            }
        };
        jwk["kid"] = self.kid.as_str().into();
        jwk["use"] = "sig".into();
        jwk
    }
}

/// A token in its compact form, with whatever `sign` makes of it as its signature.
#[must_use]
pub fn token_signed_by(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()));
    let signature = encoded(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A running issuer, on a port of its own. Dropping it ends it.
#[derive(Debug)]
pub struct Issuer {
    address: SocketAddr,
    published: Arc<Published>,
    server: JoinHandle<()>,
}

/// What it answers.
#[derive(Debug)]
struct Published {
    keys: Mutex<Keys>,
    /// How often its configuration was asked for, which each fetch of its keys begins with.
    fetches: AtomicUsize,
}

/// What it answers if it is asked for its keys.
#[derive(Clone, Debug)]
enum Keys {
    Set(String),
    /// Nothing to any question: it hangs up.
    Nothing,
}

impl Issuer {
    /// Starts one that has these keys.
    ///
    /// # Panics
    /// If it cannot listen.
    pub async fn start(keys: &[&SigningKey]) -> Issuer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it listens");
        let published = Published {
            keys: Mutex::new(Keys::Set(SigningKey::key_set(keys))),
            fetches: AtomicUsize::new(0),
        };
        let published = Arc::new(published);
        let shared = Arc::clone(&published);
        let server = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                // This fails if the gateway hangs up, as it does on an answer that is too long.
                tokio::spawn(answer(socket, address, Arc::clone(&shared)));
            }
        });
        Issuer { address, published, server }
    }

    /// The `iss` of its tokens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Has these keys from now on, and no others.
    pub fn publish(&self, keys: &[&SigningKey]) {
        self.answer(Keys::Set(SigningKey::key_set(keys)));
    }

    /// Hangs up on whoever asks, from now on.
    pub fn go_down(&self) {
        self.answer(Keys::Nothing);
    }

    /// Answers with 10 MB from now on: its keys, and spaces, so that nothing but the length is wrong.
    ///
    /// # Panics
    /// If it is down.
    pub fn send_too_much(&self) {
        match &mut *self.published.keys.lock().unwrap_or_else(PoisonError::into_inner) {
            Keys::Set(set) => set.push_str(&" ".repeat(TOO_MUCH)),
            Keys::Nothing => panic!("an issuer that is down sends nothing"),
        }
    }

    /// How often somebody set out to fetch its keys.
    #[must_use]
    pub fn fetches(&self) -> usize {
        self.published.fetches.load(Ordering::SeqCst)
    }

    /// The claims that every token needs, for five minutes from now.
    #[must_use]
    pub fn claims(&self) -> Value {
        let now = unix_seconds();
        json!({"iss": self.url(), "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + 300})
    }

    fn answer(&self, keys: Keys) {
        *self.published.keys.lock().unwrap_or_else(PoisonError::into_inner) = keys;
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Answers one question.
async fn answer(
    mut socket: TcpStream,
    address: SocketAddr,
    published: Arc<Published>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if socket.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let is_configuration = request.starts_with(format!("GET {CONFIGURATION} ").as_bytes());
    if is_configuration {
        published.fetches.fetch_add(1, Ordering::SeqCst);
    }
    let keys = published.keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let body = match keys {
        Keys::Nothing => return Ok(()),
        _ if is_configuration => {
            let issuer = format!("http://{address}");
            json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")}).to_string()
        }
        Keys::Set(set) => set,
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await?;
    socket.write_all(body.as_bytes()).await
}
