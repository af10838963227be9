//! `GET /.well-known/jwks.json`: the keys that receipts can be checked with.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::{self, HeaderName};
use countersign_gateway::receipts::KeySet;

use crate::state::App;

/// For how long the keys may be kept: a new one is published long before it signs.
const CACHED: (HeaderName, &str) = (header::CACHE_CONTROL, "public, max-age=300");

/// The public keys that receipts are signed with (RFC 7517), those of earlier receipts and of the next ones included.
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    responses(
        (status = 200, description = "The keys", body = Object),
        (status = "4XX", description = "403 `proxied`"),
    )
)]
pub(super) async fn jwks(State(app): State<Arc<App>>) -> ([(HeaderName, &'static str); 1], Json<KeySet>) {
    ([CACHED], Json(app.gateway.receipt_keys().unwrap_or_default()))
}
