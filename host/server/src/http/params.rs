//! Query strings and bearer tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::LazyLock;

use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use countersign_access::ApiKey;
use countersign_core::lifecycle::{BadRequestId, RequestId};
use countersign_policy::yaml::error::did_you_mean;

use super::error::{ApiError, Invalid};
use super::{admin, openapi};

/// What a call is told that shows no wait token.
pub(crate) const TOKEN_MISSING: &str = "is missing; send it as a parameter or as `Authorization: Bearer`";

/// The largest number in a query string: 2^53 - 1, up to which every program reads whole numbers alike.
pub(super) const LARGEST: u64 = (1 << 53) - 1;

/// The query string, and the tokens in `Authorization: Bearer`.
pub(crate) struct Params {
    query: Vec<(String, String)>,
    bearer: Vec<String>,
}

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Params, Infallible> {
        let query = parts.uri.query().unwrap_or_default();
        let bearer = parts.headers.get_all(header::AUTHORIZATION).iter().filter_map(bearer_token);
        Ok(Params {
            query: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
            bearer: bearer.map(str::to_owned).collect(),
        })
    }
}

impl Params {
    /// A parameter that may be given once. Parameters that no handler reads are ignored, except by the routes of admins: see
    /// [`refuse_unknown`].
    pub(crate) fn get(&self, name: &str) -> Result<Option<&str>, Invalid> {
        let mut found = self.query.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let first = found.next();
        if found.next().is_some() {
            return Err(Invalid::new(name, "must come once"));
        }
        Ok(first)
    }

    /// A parameter that may be given once, as a text of its own.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, Invalid> {
        Ok(self.get(name)?.map(str::to_owned))
    }

    /// A whole number, of at most [`LARGEST`].
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Invalid> {
        let Some(text) = self.get(name)? else { return Ok(None) };
        let number = text.parse().ok().filter(|number| *number <= LARGEST);
        let wrong = || Invalid::new(name, format!("must be a whole number from 0 to {LARGEST}"));
        number.map(Some).ok_or_else(wrong)
    }

    /// How many items an answer has: what `limit` says, from one to `most`, or else `default`.
    pub(crate) fn limit(&self, (default, most): (usize, usize)) -> Result<usize, Invalid> {
        let number = self.number("limit")?.map(|number| usize::try_from(number).unwrap_or(most));
        Ok(number.unwrap_or(default).clamp(1, most))
    }

    /// The request that `requestId` names.
    pub(crate) fn request_id(&self) -> Result<RequestId, ApiError> {
        let text = self.get("requestId")?.ok_or_else(|| Invalid::new("requestId", "is missing"))?;
        request_id("requestId", text)
    }

    /// The request that `requestId` names, if it names one.
    pub(crate) fn optional_request_id(&self) -> Result<Option<RequestId>, ApiError> {
        self.get("requestId")?.map(|text| request_id("requestId", text)).transpose()
    }

    /// The wait token, from the header, the query or the body. If it is in several places, it must be the same.
    pub(crate) fn wait_token<'a>(&'a self, body: Option<&'a str>) -> Result<Option<&'a str>, Invalid> {
        let bearer = self.bearer.iter().map(String::as_str).filter(|bearer| !is_credential(bearer));
        let given: Vec<&str> = bearer.chain(self.get("token")?).chain(body).collect();
        match given.split_first() {
            None => Ok(None),
            Some((&"", _)) => Err(Invalid::new("token", TOKEN_MISSING)),
            Some((first, others)) if others.iter().any(|other| other != first) => {
                Err(Invalid::new("token", "was sent twice, and differs"))
            }
            Some((first, _)) => Ok(Some(first)),
        }
    }

    /// What the caller shows to say who it is: an API key or a token of an identity provider.
    pub(crate) fn credential(&self) -> Result<Option<&str>, Invalid> {
        let mut credentials = self.bearer.iter().map(String::as_str).filter(|bearer| is_credential(bearer));
        let first = credentials.next();
        match credentials.next() {
            None => Ok(first),
            Some(_) => Err(Invalid::new("authorization", "must come once")),
        }
    }
}

/// Refuses a call of an admin to a route that takes parameters, if it has another one: most lead to fewer entries, so with a
/// typing error in its name there would be too many. Callers may be newer than the gateway, so theirs are ignored.
pub(super) fn refuse_unknown(request: &Request) -> Result<(), ApiError> {
    static DOCUMENTED: LazyLock<BTreeMap<String, BTreeSet<String>>> =
        LazyLock::new(openapi::query_parameters);
    let (Some(query), true) = (request.uri().query(), request.uri().path().starts_with(admin::PREFIX)) else {
        return Ok(());
    };
    let Some(route) = request.extensions().get::<MatchedPath>() else { return Ok(()) };
    let Some(known) = DOCUMENTED.get(route.as_str()).filter(|known| !known.is_empty()) else { return Ok(()) };
    let unknown = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| !known.contains(&**name));
    let unknown: Vec<Invalid> = unknown
        .map(|(name, _)| {
            let hint = did_you_mean(&name, known.iter().map(String::as_str));
            Invalid::new(name, format!("is no parameter of this path{hint}"))
        })
        .collect();
    if unknown.is_empty() { Ok(()) } else { Err(ApiError::Invalid(unknown)) }
}

/// Whether a bearer token has the form of an API key, or of a token of an identity provider, rather than of a wait token.
pub(super) fn is_credential(bearer: &str) -> bool {
    ApiKey::is_one(bearer) || bearer.matches('.').count() == 2
}

/// What is said of a `cursor` that no answer to this question has given.
pub(crate) fn bad_cursor() -> Invalid {
    Invalid::new("cursor", "is no `next` of an answer to this question")
}

/// Parses a request id.
pub(crate) fn request_id(path: &str, text: &str) -> Result<RequestId, ApiError> {
    text.parse().map_err(|error: BadRequestId| Invalid::new(path, error.to_string()).into())
}

/// The token of `Authorization: Bearer TOKEN`.
pub(super) fn bearer_token(authorization: &HeaderValue) -> Option<&str> {
    let (scheme, token) = authorization.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
