//! An issuer of the tests' own, which signs tokens with real keys, and when the gateway asks it for them.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::authenticating::{SECONDS, claims, file, with};
use super::*;

/// A key of the issuer's.
pub(super) enum SigningKey {
    Ed25519(String, Ed25519KeyPair),
    P256(String, EcdsaKeyPair),
}

impl SigningKey {
    pub(super) fn ed25519(kid: &str) -> SigningKey {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        SigningKey::Ed25519(kid.to_owned(), Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
    }

    pub(super) fn p256(kid: &str) -> SigningKey {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        SigningKey::P256(kid.to_owned(), pair)
    }

    pub(super) fn jwk(&self) -> Value {
        match self {
            SigningKey::Ed25519(kid, pair) => {
                let x = URL_SAFE_NO_PAD.encode(pair.public_key());
                json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "use": "sig", "x": x})
            }
            SigningKey::P256(kid, pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "alg": "ES256", "x": x, "y": y})
            }
        }
    }

    fn kid(&self) -> &str {
        match self {
            SigningKey::Ed25519(kid, _) | SigningKey::P256(kid, _) => kid,
        }
    }

    fn alg(&self) -> &'static str {
        match self {
            SigningKey::Ed25519(..) => "EdDSA",
            SigningKey::P256(..) => "ES256",
        }
    }

    /// A token with these claims.
    pub(super) fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({"alg": self.alg(), "kid": self.kid(), "typ": "JWT"}), claims)
    }

    /// A token with this header, signed with this key whatever the header says.
    pub(super) fn token_with(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = match self {
            SigningKey::Ed25519(_, pair) => pair.sign(message.as_bytes()).as_ref().to_vec(),
            SigningKey::P256(_, pair) => {
                pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap().as_ref().to_vec()
            }
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// The key set of these keys.
pub(super) fn key_set(keys: &[&SigningKey]) -> String {
    json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()}).to_string()
}

/// The server of an issuer's keys. It counts how often it is asked.
struct Server {
    url: String,
    /// What it answers; with `None` it hangs up.
    answer: Arc<Mutex<Option<Vec<u8>>>>,
    /// How many more answers it may give.
    answers: Arc<Semaphore>,
    fetches: watch::Receiver<usize>,
}

impl Server {
    async fn start(answer: impl Into<Vec<u8>>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let (count, fetches) = watch::channel(0);
        let answer = Arc::new(Mutex::new(Some(answer.into())));
        let answers = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let server = Server { url, answer: Arc::clone(&answer), answers: Arc::clone(&answers), fetches };
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                count.send_modify(|count| *count += 1);
                answers.acquire().await.unwrap().forget();
                let Some(answer) = answer.lock().unwrap().clone() else { continue };
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    answer.len()
                );
                let mut request = [0; 4096];
                let _ = socket.read(&mut request).await;
                let _ = socket.write_all(head.as_bytes()).await;
                let _ = socket.write_all(&answer).await;
            }
        });
        server
    }

    fn publish(&self, keys: &[&SigningKey]) {
        *self.answer.lock().unwrap() = Some(key_set(keys).into_bytes());
    }

    fn go_down(&self) {
        *self.answer.lock().unwrap() = None;
    }

    fn fetches(&self) -> usize {
        *self.fetches.borrow()
    }

    fn authenticator(&self) -> Arc<Authenticator> {
        Arc::new(Authenticator::new(read(&file(&self.url))))
    }
}

type Answer = Result<(), Unauthenticated>;

const UNKNOWN_KEY: Answer = Err(Unauthenticated::Token(TokenError::Key));
const NO_KEYS: Answer = Err(Unauthenticated::Token(TokenError::Keys));

/// What a new token of this key is taken for.
async fn show(authenticator: &Authenticator, key: &SigningKey, now: Timestamp) -> Answer {
    show_at(authenticator, key, at(now)).await
}

async fn show_at(authenticator: &Authenticator, key: &SigningKey, now: Moment) -> Answer {
    let seconds = now.wall.as_millis() / 1000;
    let mut claims = with("exp", json!(seconds + 300));
    (claims["iat"], claims["nbf"]) = (json!(seconds), json!(seconds));
    authenticator.identify(&key.token(&claims), now).await.map(drop)
}

/// What many new tokens of this key are taken for that come at once.
async fn show_many(authenticator: &Arc<Authenticator>, key: &SigningKey, now: Timestamp) -> Vec<Answer> {
    let mut tasks = JoinSet::new();
    for number in 0..50 {
        let (authenticator, token) = (Arc::clone(authenticator), key.token(&with("n", json!(number))));
        tasks.spawn(async move { authenticator.identify(&token, at(now)).await.map(drop) });
    }
    tasks.join_all().await
}

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

#[tokio::test]
async fn a_key_counts_as_soon_as_the_issuer_has_it() {
    let [first, second, third] = ["a", "b", "c"].map(SigningKey::ed25519);
    let server = Server::start(key_set(&[&first])).await;
    let authenticator = server.authenticator();
    assert_eq!(show(&authenticator, &first, NOW).await, Ok(()));
    server.publish(&[&first, &second]);
    assert_eq!(show(&authenticator, &second, NOW).await, Ok(()));
    assert_eq!(show(&authenticator, &first, NOW).await, Ok(()));
    assert_eq!(server.fetches(), 2);
    // The same once keys were fetched again because they were old.
    assert_eq!(show(&authenticator, &first, NOW.plus(HOUR)).await, Ok(()));
    assert_eq!(server.fetches(), 3);
    server.publish(&[&third]);
    assert_eq!(show(&authenticator, &third, NOW.plus(HOUR)).await, Ok(()));
    assert_eq!(server.fetches(), 4);
}

#[tokio::test]
async fn many_tokens_of_an_unknown_key_ask_the_issuer_once() {
    let (key, unknown) = (SigningKey::ed25519("a"), SigningKey::ed25519("b"));
    let server = Server::start(key_set(&[&key])).await;
    let authenticator = server.authenticator();
    assert_eq!(show(&authenticator, &key, NOW).await, Ok(()));
    for _ in 0..2 {
        assert_eq!(show_many(&authenticator, &unknown, NOW).await, [UNKNOWN_KEY; 50]);
        assert_eq!(server.fetches(), 2, "one refresh, then the cool-down");
    }
    assert_eq!(show(&authenticator, &unknown, NOW.plus(MINUTE - 1)).await, UNKNOWN_KEY);
    assert_eq!(server.fetches(), 2);
    assert_eq!(show(&authenticator, &unknown, NOW.plus(MINUTE)).await, UNKNOWN_KEY);
    assert_eq!(server.fetches(), 3);
    assert_eq!(show(&authenticator, &key, NOW.plus(MINUTE)).await, Ok(()));
}

#[tokio::test]
async fn many_tokens_while_no_keys_are_known_ask_the_issuer_once() {
    let key = SigningKey::ed25519("a");
    let server = Server::start(key_set(&[&key])).await;
    assert_eq!(show_many(&server.authenticator(), &key, NOW).await, [Ok(()); 50]);
    assert_eq!(server.fetches(), 1);
    server.go_down();
    assert_eq!(show_many(&server.authenticator(), &key, NOW).await, [NO_KEYS; 50]);
    assert_eq!(server.fetches(), 2);
}

#[tokio::test]
async fn an_issuer_that_is_down_is_left_alone_for_a_minute() {
    let [key, other] = ["a", "b"].map(SigningKey::ed25519);
    let server = Server::start(key_set(&[&key])).await;
    server.go_down();
    let authenticator = server.authenticator();
    for wait in [0, 1, MINUTE - 1] {
        assert_eq!(show(&authenticator, &key, NOW.plus(wait)).await, NO_KEYS);
        assert_eq!(server.fetches(), 1);
    }
    server.publish(&[&key]);
    let start = NOW.plus(MINUTE);
    assert_eq!(show(&authenticator, &key, start).await, Ok(()));
    assert_eq!(server.fetches(), 2);

    // Keys that cannot be fetched again count on, for as long as the file says; a day, if it says nothing.
    server.go_down();
    for wait in [0, MINUTE - 1] {
        assert_eq!(show(&authenticator, &key, start.plus(HOUR + wait)).await, Ok(()));
        assert_eq!(show(&authenticator, &other, start.plus(HOUR + wait)).await, UNKNOWN_KEY);
        assert_eq!(server.fetches(), 3);
    }
    assert_eq!(show(&authenticator, &key, start.plus(24 * HOUR - 1)).await, Ok(()));
    assert_eq!(show(&authenticator, &key, start.plus(24 * HOUR)).await, NO_KEYS);
}

#[tokio::test]
async fn a_withdrawn_key_ends_with_the_next_fetch_for_known_tokens_too() {
    let [old, new] = ["a", "b"].map(SigningKey::ed25519);
    let server = Server::start(key_set(&[&old])).await;
    let authenticator = server.authenticator();
    let long = old.token(&with("exp", json!(SECONDS + 100_000)));
    assert!(authenticator.identify(&long, at(NOW)).await.is_ok());
    server.publish(&[&new]);
    assert!(authenticator.identify(&long, at(NOW)).await.is_ok(), "nothing was fetched since");
    assert_eq!(show(&authenticator, &new, NOW).await, Ok(()));
    assert_eq!(authenticator.identify(&long, at(NOW)).await.map(drop), UNKNOWN_KEY);

    // Without another token too, once the keys are old.
    server.publish(&[&old]);
    let authenticator = server.authenticator();
    assert!(authenticator.identify(&long, at(NOW)).await.is_ok());
    server.publish(&[&new]);
    assert!(authenticator.identify(&long, at(NOW.plus(HOUR - 1))).await.is_ok());
    assert_eq!(authenticator.identify(&long, at(NOW.plus(HOUR))).await.map(drop), UNKNOWN_KEY);
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_end_the_fetch() {
    let key = SigningKey::ed25519("a");
    let server = Server::start(key_set(&[&key])).await;
    let authenticator = server.authenticator();
    server.answers.forget_permits(Semaphore::MAX_PERMITS);
    let mut fetches = server.fetches.clone();
    let token = key.token(&claims());
    tokio::select! {
        biased;
        _ = fetches.wait_for(|count| *count == 1) => {}
        answer = authenticator.identify(&token, at(NOW)) => panic!("it was answered before the keys came: {answer:?}"),
    }
    server.answers.add_permits(1);
    assert!(authenticator.identify(&token, at(NOW)).await.is_ok());
    assert_eq!(server.fetches(), 1);
}

#[tokio::test]
async fn an_issuer_that_sends_too_much_or_nonsense_is_not_believed() {
    let key = SigningKey::ed25519("a");
    let mut long = key_set(&[&key]).into_bytes();
    long.resize(10 << 20, b' ');
    for answer in
        [long, b"{}".to_vec(), b"not JSON".to_vec(), br#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#.to_vec()]
    {
        let server = Server::start(answer).await;
        assert_eq!(show(&server.authenticator(), &key, NOW).await, NO_KEYS);
    }
}

/// How far the wall clock is set, in milliseconds.
const JUMPS: [i64; 4] = [-3_600_000, -20_000, 20_000, 3_600_000];

/// The clocks after this many milliseconds, if the wall clock was set by `jump` meanwhile.
fn after(millis: u64, jump: i64) -> Moment {
    let Moment { wall, monotonic } = at(NOW.plus(millis));
    let by = jump.unsigned_abs();
    Moment { wall: if jump < 0 { wall.minus(by) } else { wall.plus(by) }, monotonic }
}

#[tokio::test]
async fn a_wall_clock_that_is_set_makes_no_key_count_longer() {
    for jump in JUMPS {
        let [old, new] = ["a", "b"].map(SigningKey::ed25519);
        let server = Server::start(key_set(&[&old])).await;
        let authenticator = server.authenticator();
        let long = old.token(&with("exp", json!(SECONDS + 100_000)));
        assert!(authenticator.identify(&long, after(0, 0)).await.is_ok());
        server.publish(&[&new]);
        // A token that is remembered, and one that is not, with a key that was withdrawn.
        assert_eq!(authenticator.identify(&long, after(HOUR, jump)).await.map(drop), UNKNOWN_KEY, "{jump}");
        assert_eq!(show_at(&authenticator, &old, after(HOUR, jump)).await, UNKNOWN_KEY, "{jump}");
        assert_eq!(show_at(&authenticator, &new, after(HOUR, jump)).await, Ok(()), "{jump}");

        // Keys that cannot be fetched again.
        server.go_down();
        let end = HOUR + 24 * HOUR;
        assert_eq!(show_at(&authenticator, &new, after(end, jump)).await, NO_KEYS, "{jump}");
    }
}

#[tokio::test]
async fn a_wall_clock_that_is_set_makes_no_pause_longer() {
    for jump in JUMPS {
        let [known, other] = ["a", "b"].map(SigningKey::ed25519);
        let server = Server::start(key_set(&[&known])).await;
        let authenticator = server.authenticator();
        assert_eq!(show_at(&authenticator, &known, after(0, 0)).await, Ok(()));
        assert_eq!(show_at(&authenticator, &other, after(0, 0)).await, UNKNOWN_KEY);
        server.publish(&[&known, &other]);
        // Keys of an hour ago by the wall clock are fetched again all the same: nobody can make keys old.
        if jump < 3_600_000 {
            assert_eq!(show_at(&authenticator, &other, after(MINUTE - 1, jump)).await, UNKNOWN_KEY, "{jump}");
        }
        assert_eq!(show_at(&authenticator, &other, after(MINUTE, jump)).await, Ok(()), "{jump}");

        server.go_down();
        let authenticator = server.authenticator();
        assert_eq!(show_at(&authenticator, &known, after(0, 0)).await, NO_KEYS);
        server.publish(&[&known]);
        assert_eq!(show_at(&authenticator, &known, after(MINUTE - 1, jump)).await, NO_KEYS, "{jump}");
        assert_eq!(show_at(&authenticator, &known, after(MINUTE, jump)).await, Ok(()), "{jump}");
    }
}
