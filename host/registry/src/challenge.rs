//! Authentication challenges, and the answers to them: a password, or a token from another server, as in the
//! distribution specification's [authentication](https://distribution.github.io/distribution/spec/auth/).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use countersign_core::secret::Secret;
use form_urlencoded::Serializer;
use http_auth::parser::ChallengeParser;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, Uri};
use serde::Deserialize;

use super::credentials::Credential;

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A user and a password.
    Basic,
    /// A token from the realm.
    Bearer { realm: Uri, service: Option<String> },
}

/// A request for a token.
pub(super) struct TokenRequest<'a> {
    pub(super) realm: &'a Uri,
    pub(super) service: Option<&'a str>,
    pub(super) scope: &'a str,
}

impl Challenge {
    /// The challenge in an answer's headers; prefers a token if a password is accepted too.
    pub(super) fn of(headers: &HeaderMap) -> Option<Challenge> {
        let mut basic = None;
        for value in headers.get_all(header::WWW_AUTHENTICATE) {
            let challenges = ChallengeParser::new(value.to_str().ok()?);
            for challenge in challenges.map_while(Result::ok) {
                let parameter = |name: &str| {
                    let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                    found.map(|(_, value)| value.to_unescaped())
                };
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    let realm = parameter("realm")?.parse().ok()?;
                    return Some(Challenge::Bearer { realm, service: parameter("service") });
                }
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Challenge::Basic);
                }
            }
        }
        basic
    }
}

impl TokenRequest<'_> {
    /// The HTTP request; `None` if the credential or the realm makes no valid one.
    pub(super) fn request(&self, credential: Option<&Credential>) -> Option<Request<Full<Bytes>>> {
        let mut form = Serializer::new(String::new());
        form.append_pair("scope", self.scope);
        form.extend_pairs(self.service.map(|service| ("service", service)));
        // An identity token is an OAuth 2 refresh token.
        if let Some(Credential::IdentityToken(token)) = credential {
            form.append_pair("grant_type", "refresh_token").append_pair("client_id", "countersign");
            form.append_pair("refresh_token", std::str::from_utf8(token.expose()).ok()?);
            let request = Request::post(self.realm.clone())
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
            return request.body(Full::from(form.finish())).ok();
        }
        let separator = if self.realm.query().is_some() { '&' } else { '?' };
        let mut request = Request::get(format!("{}{separator}{}", self.realm, form.finish()));
        if let Some(Credential::Password { user, password }) = credential {
            request = request.header(header::AUTHORIZATION, basic(user, password)?);
        }
        request.body(Full::default()).ok()
    }
}

/// The `Authorization` header for a password.
pub(super) fn basic(user: &str, password: &Secret) -> Option<HeaderValue> {
    let pair = [user.as_bytes(), b":", password.expose()].concat();
    sensitive(&format!("Basic {}", STANDARD.encode(pair)))
}

/// The `Authorization` header for the token in an answer.
pub(super) fn bearer(body: &[u8]) -> Option<HeaderValue> {
    #[derive(Deserialize)]
    struct TokenAnswer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: TokenAnswer = serde_json::from_slice(body).ok()?;
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty())?;
    sensitive(&format!("Bearer {token}"))
}

fn sensitive(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}
