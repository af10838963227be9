//! How a registry asks who we are, and how it is told: a password in each call, or a token that somebody else gives for
//! one, as the distribution specification's [authentication](https://distribution.github.io/distribution/spec/auth/)
//! has it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use form_urlencoded::Serializer;
use http_auth::parser::ChallengeParser;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, Uri};
use serde::Deserialize;

use super::credentials::Credential;
use countersign_core::secret::Secret;

/// What a registry wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A password.
    Basic,
    /// A token from the realm.
    Bearer { realm: Uri, service: Option<String> },
}

/// A token to ask for.
pub(super) struct Token<'a> {
    pub(super) realm: &'a Uri,
    pub(super) service: Option<&'a str>,
    pub(super) scope: &'a str,
}

impl Challenge {
    /// What an answer asks for; a token rather than a password, where it would take either.
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

impl Token<'_> {
    /// The request for it.
    pub(super) fn request(&self, credential: Option<&Credential>) -> Option<Request<Full<Bytes>>> {
        let mut form = Serializer::new(String::new());
        form.append_pair("scope", self.scope);
        form.extend_pairs(self.service.map(|service| ("service", service)));
        // An identity token is one that tokens are got for, as OAuth 2 has it.
        if let Some(Credential::IdentityToken(token)) = credential {
            form.append_pair("grant_type", "refresh_token").append_pair("client_id", "countersign");
            form.append_pair("refresh_token", std::str::from_utf8(token.expose()).ok()?);
            let request = Request::post(self.realm.clone())
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
            return request.body(Full::from(form.finish())).ok();
        }
        let joint = if self.realm.query().is_some() { '&' } else { '?' };
        let mut request = Request::get(format!("{}{joint}{}", self.realm, form.finish()));
        if let Some(Credential::Password { user, password }) = credential {
            request = request.header(header::AUTHORIZATION, basic(user, password)?);
        }
        request.body(Full::default()).ok()
    }
}

/// A password, as a header has it.
pub(super) fn basic(user: &str, password: &Secret) -> Option<HeaderValue> {
    let pair = [user.as_bytes(), b":", password.expose()].concat();
    hidden(&format!("Basic {}", STANDARD.encode(pair)))
}

/// The token in an answer, as a header has it.
pub(super) fn bearer(answer: &[u8]) -> Option<HeaderValue> {
    #[derive(Deserialize)]
    struct Given {
        token: Option<String>,
        access_token: Option<String>,
    }
    let given: Given = serde_json::from_slice(answer).ok()?;
    let token = given.token.or(given.access_token).filter(|token| !token.is_empty())?;
    hidden(&format!("Bearer {token}"))
}

fn hidden(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}
