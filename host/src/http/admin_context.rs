//! What do the handlers of the admin listener share?

use std::sync::Arc;

use axum::response::{IntoResponse, Json, Response};
use http::StatusCode;
use serde_json::json;

use crate::swap::Host;

/// Asks for another look at what is on disk, with `true` also at what was found unchanged; `false` if nobody looks any more.
pub type Reload = Arc<dyn Fn(bool) -> bool + Send + Sync>;

/// What each of them gets.
#[derive(Clone)]
pub(super) struct Room {
    pub(super) host: Host,
    pub(super) reload: Reload,
}

/// An answer that says why there is no other.
pub(super) fn refuse(status: StatusCode, reason: &str) -> Response {
    (status, Json(json!({ "error": reason }))).into_response()
}
