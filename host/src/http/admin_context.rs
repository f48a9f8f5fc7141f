//! What do the handlers of the admin listener share?

use std::sync::Arc;

use axum::response::{IntoResponse, Json, Response, sse};
use http::StatusCode;
use serde_json::json;

use crate::report::attempt::Asker;
use crate::report::event::Event;
use crate::swap::Host;

/// Asks for another look at what is on disk, with `true` also at what was found unchanged, for somebody who waits for what comes of it, or for
/// nobody; `false` if nobody looks any more.
pub type Reload = Arc<dyn Fn(bool, Option<Box<dyn Asker>>) -> bool + Send + Sync>;

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

/// An event, as streams of them tell it.
pub(super) fn message(event: &Event) -> sse::Event {
    let name = serde_json::to_value(event).ok().and_then(|value| Some(value.get("event")?.as_str()?.to_owned()));
    let data = serde_json::to_string(event).unwrap_or_default();
    sse::Event::default().event(name.unwrap_or_default()).data(data)
}
