//! What a caller reads when a call fails.
//!
//! Errors become HTTP statuses here and nowhere else; the gateway's own errors bring their codes and messages.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use countersign_access::{RequesterError, Role, Unauthenticated};
use countersign_core::json;
use countersign_core::lifecycle::{Reason, Refusal, UseRefusal};
use countersign_core::record::ChangeFault;
use countersign_gateway::GatewayError;
use countersign_gateway::policy_sets::ChangeError;
use countersign_slack::SignatureError;
use countersign_store::StoreError;
use serde::Serialize;

use crate::caller_rights::CallerRefusal;
use crate::interactions::InteractionError;
use crate::telemetry::log_failure;

/// One error in what was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(crate) struct Invalid {
    /// Where: `meta.requester.id`, `meta.links[0].url`, or empty for the whole body.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

impl Invalid {
    pub(crate) fn new(path: impl Into<String>, message: impl Into<String>) -> Invalid {
        Invalid { path: path.into(), message: message.into() }
    }
}

impl From<ChangeFault> for Invalid {
    fn from(ChangeFault { path, message }: ChangeFault) -> Invalid {
        Invalid { path, message }
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
    #[error("the body is compressed, and this gateway reads none that is")]
    Compressed,
    #[error("the request took too long to arrive")]
    TooSlow,
    #[error("there is no such {0}")]
    NoSuch(&'static str),
    #[error("the credentials of an admin are missing or wrong")]
    Unauthorized,
    #[error("{0}")]
    NotAnAdmin(Unauthenticated),
    #[error("this call needs the role `{0}`, which this admin does not have")]
    RoleMissing(Role),
    #[error(
        "say who you are: an API key or a token of an identity provider, as `Authorization: Bearer`, or a client \
        certificate"
    )]
    Unauthenticated,
    #[error("{0}")]
    NotAuthenticated(Unauthenticated),
    #[error("the delivery is not signed by the CI system that it should come from")]
    BadSignature,
    #[error("no caller of the access file has a gate for this delivery, or several have")]
    NoGate,
    #[error(transparent)]
    Caller(#[from] CallerRefusal),
    #[error(transparent)]
    RequesterMismatch(RequesterError),
    #[error(
        "this gateway has no access file, so it answers its own machine alone, and this came through a proxy"
    )]
    Proxied,
    #[error("{0}, so that there is nothing to send")]
    NotDeliverable(&'static str),
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

impl From<InteractionError> for ApiError {
    fn from(error: InteractionError) -> ApiError {
        match error {
            InteractionError::Signature(error) => error.into(),
            InteractionError::Gateway(error) => error.into(),
            InteractionError::Panicked => ApiError::Panicked,
        }
    }
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

/// An error, in the format of RFC 9457.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Problem {
    /// A URI for the kind of problem: `urn:countersign:problem:` and the code.
    #[serde(rename = "type")]
    #[schema(rename = "type")]
    kind: String,
    /// The reason phrase of the status.
    title: &'static str,
    /// The status.
    status: u16,
    /// What went wrong, for people to read.
    detail: String,
    /// A stable code, for programs to match.
    error: &'static str,
    /// The errors in what was sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Invalid>,
    /// The policies' reasons.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    reasons: Vec<Reason>,
    /// The keys of parameters that differ from what was approved.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    differing: Vec<String>,
}

/// The content type of every error.
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            ApiError::Invalid(_) | ApiError::Signature(_) => StatusCode::BAD_REQUEST,
            ApiError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            ApiError::NotJson | ApiError::Compressed => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ApiError::TooSlow => StatusCode::REQUEST_TIMEOUT,
            ApiError::NoSuch(_) => StatusCode::NOT_FOUND,
            ApiError::Unauthorized
            | ApiError::NotAnAdmin(_)
            | ApiError::Unauthenticated
            | ApiError::NotAuthenticated(_)
            | ApiError::BadSignature => StatusCode::UNAUTHORIZED,
            ApiError::Caller(CallerRefusal::NotAllowed)
            | ApiError::NoGate
            | ApiError::RequesterMismatch(_)
            | ApiError::RoleMissing(_)
            | ApiError::Proxied => StatusCode::FORBIDDEN,
            ApiError::NotDeliverable(_) => StatusCode::CONFLICT,
            ApiError::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            ApiError::RateLimited { .. } | ApiError::Caller(CallerRefusal::QuotaUsedUp { .. }) => {
                StatusCode::TOO_MANY_REQUESTS
            }
            ApiError::TooManyStreams => StatusCode::SERVICE_UNAVAILABLE,
            ApiError::Gateway(error) => gateway_status(error),
            ApiError::Change(error) => change_status(error),
            ApiError::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether the same call would fail in the same way later.
    pub(super) fn is_final(&self) -> bool {
        self.status().is_client_error()
    }

    /// The stable code.
    pub(super) fn code(&self) -> &'static str {
        match self {
            ApiError::Invalid(_) => "invalid_payload",
            ApiError::TooLarge(_) => "payload_too_large",
            ApiError::NotJson | ApiError::Compressed => "unsupported_media_type",
            ApiError::TooSlow => "request_timeout",
            ApiError::NoSuch(_) => "not_found",
            ApiError::Unauthorized | ApiError::NotAnAdmin(_) => "unauthorized",
            ApiError::RoleMissing(_) => "role_missing",
            ApiError::NotDeliverable(_) => "not_deliverable",
            ApiError::WrongMethod => "method_not_allowed",
            ApiError::RateLimited { .. } => "rate_limited",
            ApiError::BadSignature => SignatureError::Bad.code(),
            ApiError::NoGate => CallerRefusal::NotAllowed.code(),
            ApiError::Caller(refusal) => refusal.code(),
            ApiError::Unauthenticated | ApiError::NotAuthenticated(_) => "unauthenticated",
            ApiError::RequesterMismatch(_) => "requester_mismatch",
            ApiError::Proxied => "proxied",
            ApiError::TooManyStreams => "too_many_streams",
            ApiError::Signature(error) => error.code(),
            ApiError::Gateway(error) => error.code(),
            ApiError::Change(error) => error.code(),
            ApiError::Panicked => "internal",
        }
    }

    fn detail(&self) -> String {
        match self {
            ApiError::Gateway(error) => error.public_message(),
            ApiError::Change(error) => error.public_message(),
            error => error.to_string(),
        }
    }

    /// When to try again, in whole seconds.
    fn retry_after(&self) -> Option<u64> {
        let retry_after_ms = match self {
            ApiError::RateLimited { retry_after_ms }
            | ApiError::Caller(CallerRefusal::QuotaUsedUp { retry_after_ms }) => Some(*retry_after_ms),
            ApiError::Gateway(error) => error.retry_after_ms(),
            // As often as the gateway itself tries to fetch a module.
            ApiError::Change(ChangeError::Unfetched(_)) => Some(30_000),
            // Streams end when people decide, which takes a while.
            ApiError::TooManyStreams => Some(10_000),
            _ => None,
        };
        let soon = (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(1_000);
        retry_after_ms.or(soon).map(|millis| millis.div_ceil(1000).max(1))
    }
}

fn gateway_status(error: &GatewayError) -> StatusCode {
    match error {
        GatewayError::UnknownAction(_) | GatewayError::Denied(_) | GatewayError::NotAllowed(_) => {
            StatusCode::FORBIDDEN
        }
        GatewayError::NotFound => StatusCode::NOT_FOUND,
        GatewayError::NotUsed(UseRefusal::NotTheCaller) => StatusCode::FORBIDDEN,
        GatewayError::NotUsed(UseRefusal::ApprovalExpired(_)) => StatusCode::GONE,
        GatewayError::NotUsed(_) => StatusCode::CONFLICT,
        GatewayError::KeyReused
        | GatewayError::Unsatisfiable(_)
        | GatewayError::Refused(Refusal::TooLargeToReview) => StatusCode::UNPROCESSABLE_ENTITY,
        GatewayError::TokenRetired | GatewayError::SaltLost | GatewayError::Undecided => StatusCode::CONFLICT,
        GatewayError::Cooldown { .. } | GatewayError::LineageLimit { .. } | GatewayError::TooManyOpen => {
            StatusCode::TOO_MANY_REQUESTS
        }
        GatewayError::PolicyFailed(_)
        | GatewayError::Rules(_)
        | GatewayError::RulesLost(_)
        | GatewayError::Stopped(_)
        | GatewayError::Contended
        | GatewayError::Overloaded
        | GatewayError::Refused(Refusal::PolicyFailed(_)) => StatusCode::SERVICE_UNAVAILABLE,
        GatewayError::Repeated | GatewayError::Refused(_) => StatusCode::CONFLICT,
        GatewayError::Store(error) => store_status(error),
        GatewayError::Salt(_) | GatewayError::Randomness(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn change_status(error: &ChangeError) -> StatusCode {
    match error {
        ChangeError::Refused(_) | ChangeError::Module(_) => StatusCode::UNPROCESSABLE_ENTITY,
        ChangeError::Unfetched(_) => StatusCode::SERVICE_UNAVAILABLE,
        ChangeError::HeldBack(_)
        | ChangeError::Conflict { .. }
        | ChangeError::NothingBefore
        | ChangeError::InForce(_)
        | ChangeError::Shadow(_) => StatusCode::CONFLICT,
        ChangeError::Unknown(_) => StatusCode::NOT_FOUND,
        ChangeError::Store(error) => store_status(error),
        ChangeError::Stopped(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn store_status(error: &StoreError) -> StatusCode {
    match error {
        StoreError::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        StoreError::Corrupt { .. } | StoreError::Cursor(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, error) = (self.status(), self.code());
        let (detail, retry_after) = (self.detail(), self.retry_after());
        let (mut errors, mut reasons, mut differing) = (Vec::new(), Vec::new(), Vec::new());
        match self {
            ApiError::Invalid(invalid) => errors = invalid,
            ApiError::Gateway(error) => {
                log_failure(&error, None);
                reasons = error.reasons();
                differing = error.differing().to_vec();
            }
            ApiError::Change(
                error @ (ChangeError::Refused(_) | ChangeError::Unfetched(_) | ChangeError::Module(_)),
            ) => errors = error.faults().into_iter().map(Invalid::from).collect(),
            _ => {}
        }
        let problem = Problem {
            kind: format!("urn:countersign:problem:{error}"),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail,
            error,
            errors,
            reasons,
            differing,
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
    use countersign_core::lifecycle::{Digest, FailureKind, PolicyFailure, Status, Timestamp};
    use countersign_store::StoreFault;
    use http_body_util::BodyExt as _;
    use serde_json::Value;

    use super::*;

    fn store(detail: &str) -> (StoreError, StoreError) {
        let corrupt = StoreError::Corrupt {
            table: "requests",
            column: "body",
            key: "secret key".into(),
            detail: detail.into(),
        };
        (
            StoreError::Unavailable { backend: "sqlite", fault: StoreFault::Other, detail: detail.into() },
            corrupt,
        )
    }

    /// By these words clients tell an address without routes for admins from a request that is not there.
    #[test]
    fn a_path_that_is_not_served_is_told_as_clients_know_it() {
        assert_eq!(ApiError::NoSuch("path").to_string(), countersign_client::Problem::NO_SUCH_PATH);
    }

    /// Every failure has a status, a code and, if it passes by itself, a time to try again; nothing internal is shown.
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
            GatewayError::TokenRetired.into(),
            GatewayError::SaltLost.into(),
            GatewayError::NotFound.into(),
            GatewayError::Undecided.into(),
            GatewayError::NotAllowed("the request was approved").into(),
            GatewayError::Cooldown { retry_after_ms: 1 }.into(),
            GatewayError::LineageLimit { limit: 5, retry_after_ms: 60_001 }.into(),
            GatewayError::Refused(Refusal::Ended(Status::Denied)).into(),
            GatewayError::Refused(Refusal::TooLate).into(),
            GatewayError::Refused(Refusal::SaltLost).into(),
            GatewayError::Refused(Refusal::Objected(vec![reason])).into(),
            GatewayError::Refused(Refusal::PolicyFailed(vec![failure])).into(),
            GatewayError::from(UseRefusal::NotTheCaller).into(),
            GatewayError::from(UseRefusal::ApprovalExpired(Timestamp::EPOCH)).into(),
            GatewayError::from(UseRefusal::PayloadMismatch(vec!["ref".into()])).into(),
            GatewayError::Contended.into(),
            GatewayError::Overloaded.into(),
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
        409 token_retired, retry -: the request of this idempotency key is there, but its token was made with a key that is gone
        409 salt_lost, retry -: a request with hidden parameters cannot be made again without its salt, whose key is gone; ask anew
        404 not_found, retry -: no such request
        409 not_decided, retry -: the request has not been decided yet
        403 not_allowed, retry -: the request was approved
        429 cooldown, retry 1: this request can be made again in 1 s
        429 rate_limited, retry 61: this request was made 5 times within the allowed window
        409 already_decided, retry -: the request is already denied
        409 expired, retry -: the request has expired
        409 salt_lost, retry -: these parameters can no longer be edited; approve them as they are, or deny
        409 refused, retry -: a policy objects: not today
        503 policy_failure, retry 1: a policy gave no usable answer, so nothing was changed
        403 not_the_caller, retry -: only the caller that made the request can use its approval
        410 approval_expired, retry -: this approval could be consumed until 1970-01-01T00:00:00.000Z
        409 payload_mismatch, retry -: these are not the parameters that were approved: ref
        503 contended, retry 1: too many others act on this request at this instant
        503 overloaded, retry 1: the policies of this action have too much to judge at this instant; try again
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
