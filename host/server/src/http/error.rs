//! What a caller is told when a call fails. This is the only place where an error becomes a status.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use countersign_core::json;
use countersign_core::lifecycle::{Reason, Refusal};
use countersign_gateway::GatewayError;
use countersign_gateway::policy_sets::ChangeError;
use countersign_slack::SignatureError;
use countersign_store::StoreError;

/// One thing that is wrong with what was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(crate) struct Invalid {
    /// Where: `meta.requester.id`, `meta.links[0].url`, or empty for the whole.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

impl Invalid {
    pub(crate) fn new(path: impl Into<String>, message: impl Into<String>) -> Invalid {
        Invalid { path: path.into(), message: message.into() }
    }
}

/// Why a call fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("what was sent is not valid")]
    Invalid(Vec<Invalid>),
    #[error("{0}")]
    TooLarge(String),
    #[error("the content type must be `application/json`")]
    NotJson,
    #[error("the request took too long to arrive")]
    TooSlow,
    #[error("there is no such {0}")]
    NoSuch(&'static str),
    #[error("the admin token is missing or wrong")]
    Unauthorized,
    #[error("this path does not take this method")]
    WrongMethod,
    #[error("too many requests from this address")]
    RateLimited { retry_after_ms: u64 },
    #[error("too many streams are open; poll `/api/guard/wait` instead")]
    TooManyStreams,
    #[error(transparent)]
    Signature(#[from] SignatureError),
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error("something in the gateway broke; nothing was approved by it")]
    Panicked,
}

impl From<json::Refused> for ApiError {
    fn from(json::Refused { path, message }: json::Refused) -> ApiError {
        Invalid { path, message }.into()
    }
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> ApiError {
        ApiError::Invalid(vec![invalid])
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        ApiError::Gateway(error.into())
    }
}

/// An error, as RFC 9457 has it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Problem {
    /// A URI for the kind of problem: `urn:countersign:problem:` and the code.
    #[serde(rename = "type")]
    #[schema(rename = "type")]
    kind: String,
    /// The status, in words.
    title: &'static str,
    /// The status.
    status: u16,
    /// What went wrong this time.
    detail: String,
    /// A stable code.
    error: &'static str,
    /// What is wrong with what was sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Invalid>,
    /// The policies' reasons.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    reasons: Vec<Reason>,
}

/// The content type of every error.
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

impl ApiError {
    /// The status and the stable code.
    fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            ApiError::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid_payload"),
            ApiError::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large"),
            ApiError::NotJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            ApiError::TooSlow => (StatusCode::REQUEST_TIMEOUT, "request_timeout"),
            ApiError::NoSuch(_) => (StatusCode::NOT_FOUND, "not_found"),
            ApiError::WrongMethod => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            ApiError::RateLimited { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
            ApiError::TooManyStreams => (StatusCode::SERVICE_UNAVAILABLE, "too_many_streams"),
            ApiError::Signature(error) => (StatusCode::BAD_REQUEST, error.code()),
            ApiError::Panicked => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
            ApiError::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
            ApiError::Change(error) => match error {
                ChangeError::Refused(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_policy_set"),
                ChangeError::Unfetched(_) => (StatusCode::SERVICE_UNAVAILABLE, "registry_unavailable"),
                ChangeError::Module(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_module"),
                ChangeError::Conflict { .. } => (StatusCode::CONFLICT, "conflict"),
                ChangeError::NothingBefore => (StatusCode::CONFLICT, "nothing_before"),
                ChangeError::InForce(_) => (StatusCode::CONFLICT, "in_force"),
                ChangeError::Shadow(_) => (StatusCode::CONFLICT, "shadow_not_ready"),
                ChangeError::Unknown(_) => (StatusCode::NOT_FOUND, "not_found"),
                ChangeError::Store(StoreError::Unavailable { .. }) => {
                    (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable")
                }
                ChangeError::Store(StoreError::Corrupt { .. }) | ChangeError::Stopped(_) => {
                    (StatusCode::INTERNAL_SERVER_ERROR, "internal")
                }
            },
            ApiError::Gateway(error) => match error {
                GatewayError::UnknownAction(_) | GatewayError::Denied(_) => {
                    (StatusCode::FORBIDDEN, "policy_denied")
                }
                GatewayError::PolicyFailed(_)
                | GatewayError::Rules(_)
                | GatewayError::RulesLost(_)
                | GatewayError::Stopped(_)
                | GatewayError::Refused(Refusal::PolicyFailed(_)) => {
                    (StatusCode::SERVICE_UNAVAILABLE, "policy_failure")
                }
                GatewayError::KeyReused => (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused"),
                GatewayError::NotFound => (StatusCode::NOT_FOUND, "not_found"),
                GatewayError::NotAllowed(_) => (StatusCode::FORBIDDEN, "not_allowed"),
                GatewayError::Cooldown { .. } => (StatusCode::TOO_MANY_REQUESTS, "cooldown"),
                GatewayError::LineageLimit { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
                GatewayError::Refused(refusal) => (StatusCode::CONFLICT, refusal.code()),
                GatewayError::Contended => (StatusCode::SERVICE_UNAVAILABLE, "contended"),
                GatewayError::Store(StoreError::Unavailable { .. }) => {
                    (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable")
                }
                GatewayError::Store(StoreError::Corrupt { .. }) | GatewayError::Randomness(_) => {
                    (StatusCode::INTERNAL_SERVER_ERROR, "internal")
                }
            },
        }
    }

    /// The stable code.
    pub(crate) fn code(&self) -> &'static str {
        self.kind().1
    }

    /// What to tell the caller. What the store or a policy said is for the log only.
    pub(crate) fn detail(&self) -> String {
        match self {
            ApiError::Gateway(error) => match error {
                GatewayError::Rules(_) | GatewayError::RulesLost(_) | GatewayError::Stopped(_) => {
                    "the rules that this request was made under cannot be loaded".to_owned()
                }
                GatewayError::Store(StoreError::Unavailable { .. }) => {
                    "the store cannot be reached; try again".to_owned()
                }
                GatewayError::Store(StoreError::Corrupt { .. }) => "a stored value cannot be read".to_owned(),
                GatewayError::Randomness(_) => "the system gave no randomness".to_owned(),
                error => error.to_string(),
            },
            ApiError::Change(ChangeError::Store(StoreError::Unavailable { .. })) => {
                "the store cannot be reached; try again".to_owned()
            }
            error => error.to_string(),
        }
    }

    /// The policies' reasons, where there are any.
    pub(crate) fn reasons(&self) -> Vec<Reason> {
        match self {
            ApiError::Gateway(GatewayError::Denied(reasons)) => reasons.clone(),
            ApiError::Gateway(GatewayError::Refused(refusal)) => refusal.reasons().to_vec(),
            ApiError::Gateway(error @ GatewayError::UnknownAction(_)) => {
                vec![Reason {
                    code: "unknown_action".into(),
                    message: error.to_string(),
                    path: Some("action".into()),
                }]
            }
            _ => Vec::new(),
        }
    }

    /// When to try again, in whole seconds.
    fn retry_after(&self) -> Option<u64> {
        let (status, _) = self.kind();
        let millis = match self {
            ApiError::RateLimited { retry_after_ms }
            | ApiError::Gateway(
                GatewayError::Cooldown { retry_after_ms } | GatewayError::LineageLimit { retry_after_ms, .. },
            ) => *retry_after_ms,
            // As often as the gateway tries by itself.
            ApiError::Change(ChangeError::Unfetched(_)) => 30_000,
            // Streams end when people decide, which takes a while; the rest is over soon.
            ApiError::TooManyStreams => 10_000,
            _ if status == StatusCode::SERVICE_UNAVAILABLE => 1_000,
            _ => return None,
        };
        Some(millis.div_ceil(1000).max(1))
    }

    /// Logs what an operator should know of. Callers' mistakes are theirs alone.
    pub(crate) fn log(&self) {
        match self {
            // A policy's failure was logged by the gateway, a panic by whoever caught it.
            ApiError::Gateway(
                error @ (GatewayError::Store(_)
                | GatewayError::Rules(_)
                | GatewayError::RulesLost(_)
                | GatewayError::Stopped(_)
                | GatewayError::Randomness(_)),
            ) => {
                tracing::error!(%error, code = self.code(), "a call failed");
            }
            ApiError::Gateway(GatewayError::Contended) => {
                tracing::warn!("a call failed because too many others act on the same request");
            }
            _ => {}
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.log();
        let (status, error) = self.kind();
        let (detail, reasons, retry_after) = (self.detail(), self.reasons(), self.retry_after());
        let errors = match self {
            ApiError::Invalid(errors) => errors,
            ApiError::Change(
                error @ (ChangeError::Refused(_) | ChangeError::Unfetched(_) | ChangeError::Module(_)),
            ) => error.faults().into_iter().map(Invalid::from).collect(),
            _ => Vec::new(),
        };
        let problem = Problem {
            kind: format!("urn:countersign:problem:{error}"),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail,
            error,
            errors,
            reasons,
        };
        let mut response = (status, Json(problem)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, PROBLEM_JSON);
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use serde_json::Value;

    use super::*;
    use countersign_core::lifecycle::{Digest, FailureKind, PolicyFailure, Status};

    fn store(detail: &str) -> (StoreError, StoreError) {
        let corrupt = StoreError::Corrupt {
            table: "requests",
            column: "body",
            key: "secret key".into(),
            detail: detail.into(),
        };
        (StoreError::Unavailable { backend: "sqlite", detail: detail.into() }, corrupt)
    }

    /// Whatever goes wrong, the caller learns a stable code and when to try again, and nothing of the inside.
    #[tokio::test]
    async fn every_failure_has_a_status() {
        let failure =
            PolicyFailure { policy: "quorum".into(), kind: FailureKind::Trap, detail: "secret".into() };
        let reason = Reason { code: "no".into(), message: "not today".into(), path: None };
        let (unavailable, corrupt) = store("secret");
        let errors: Vec<ApiError> = vec![
            GatewayError::UnknownAction("x".into()).into(),
            GatewayError::Denied(vec![reason.clone()]).into(),
            GatewayError::PolicyFailed(vec![failure.clone()]).into(),
            GatewayError::KeyReused.into(),
            GatewayError::NotFound.into(),
            GatewayError::NotAllowed("the request was approved").into(),
            GatewayError::Cooldown { retry_after_ms: 1 }.into(),
            GatewayError::LineageLimit { limit: 5, retry_after_ms: 60_001 }.into(),
            GatewayError::Refused(Refusal::Ended(Status::Denied)).into(),
            GatewayError::Refused(Refusal::TooLate).into(),
            GatewayError::Refused(Refusal::Objected(vec![reason])).into(),
            GatewayError::Refused(Refusal::PolicyFailed(vec![failure])).into(),
            GatewayError::Contended.into(),
            GatewayError::RulesLost(Digest::of(b"")).into(),
            GatewayError::Stopped("secret".into()).into(),
            GatewayError::Randomness("secret".into()).into(),
            unavailable.into(),
            corrupt.into(),
            ApiError::RateLimited { retry_after_ms: 0 },
            ApiError::TooManyStreams,
            ApiError::TooSlow,
            ApiError::Panicked,
        ];
        let mut shown = String::new();
        for error in errors {
            let (parts, body) = error.into_response().into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let problem: Value = serde_json::from_slice(&body).unwrap();
            assert!(!problem.to_string().contains("secret"), "{problem}");
            assert_eq!(problem["status"], parts.status.as_u16());
            let retry = parts.headers.get("retry-after").map_or("-", |value| value.to_str().unwrap());
            let (code, detail) = (problem["error"].as_str().unwrap(), problem["detail"].as_str().unwrap());
            shown += &format!("{} {code}, retry {retry}: {detail}\n", parts.status.as_u16());
        }
        insta::assert_snapshot!(shown, @r#"
        403 policy_denied, retry -: no policy admits the action `x`
        403 policy_denied, retry -: the policy does not admit this request
        503 policy_failure, retry 1: a policy gave no usable answer, so nothing was changed
        422 idempotency_key_reused, retry -: this idempotency key was used with another body
        404 not_found, retry -: no such request
        403 not_allowed, retry -: the request was approved
        429 cooldown, retry 1: this request can be made again in 1 s
        429 rate_limited, retry 61: this request was made 5 times within the allowed window
        409 already_decided, retry -: the request is already denied
        409 expired, retry -: the request has expired
        409 refused, retry -: a policy objects: not today
        503 policy_failure, retry 1: a policy gave no usable answer, so nothing was changed
        503 contended, retry 1: too many others act on this request at this instant
        503 policy_failure, retry 1: the rules that this request was made under cannot be loaded
        503 policy_failure, retry 1: the rules that this request was made under cannot be loaded
        500 internal, retry -: the system gave no randomness
        503 store_unavailable, retry 1: the store cannot be reached; try again
        500 internal, retry -: a stored value cannot be read
        429 rate_limited, retry 1: too many requests from this address
        503 too_many_streams, retry 10: too many streams are open; poll `/api/guard/wait` instead
        408 request_timeout, retry -: the request took too long to arrive
        500 internal, retry -: something in the gateway broke; nothing was approved by it
        "#);
    }
}
