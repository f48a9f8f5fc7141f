//! How do operators see, save and bring what plugins remember?
//!
//! Pages of the admin listener: the tables, and the values of one as lines of JSON, both ways.

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{MethodRouter, get};
use futures_util::stream;
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::json;

use super::admin_context::{Room, refuse};
use crate::report::error::Error;

/// Lines that are brought at once may have so many bytes.
const LARGEST: usize = 256 << 20;

/// `GET /state`.
pub(super) fn tables() -> MethodRouter<Room> {
    get(async |State(room): State<Room>| match tokio::task::spawn_blocking(move || room.host.tables()).await {
        Ok(tables) => Json(json!({ "tables": tables })).into_response(),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    })
}

/// `GET` and `POST /state/{plugin}/{table}`.
pub(super) fn table() -> MethodRouter<Room> {
    get(export).post(import).layer(DefaultBodyLimit::max(LARGEST))
}

async fn export(State(room): State<Room>, Path((plugin, table)): Path<(String, String)>) -> Response {
    let (host, whose) = (room.host.clone(), (plugin.clone(), table.clone()));
    let known = tokio::task::spawn_blocking(move || {
        host.tables().iter().any(|known| (&known.plugin, &known.table) == (&whose.0, &whose.1))
    });
    if !known.await.unwrap_or_default() {
        return refuse(
            StatusCode::NOT_FOUND,
            &format!("there is no table {plugin}/{table} that holds anything; `midair state` shows those that do"),
        );
    }
    // A page at a time, each when the one before was taken.
    let pages = stream::unfold(Some(None), move |after: Option<Option<String>>| {
        let (host, plugin, table) = (room.host.clone(), plugin.clone(), table.clone());
        async move {
            let after = after?;
            let page = tokio::task::spawn_blocking(move || host.export(&plugin, &table, after.as_deref())).await;
            match page {
                Ok(Ok(page)) => page.last.map(|last| (Ok(Bytes::from(page.lines)), Some(Some(last)))),
                Ok(Err(error)) => Some((Err(error.to_string()), None)),
                Err(error) => Some((Err(error.to_string()), None)),
            }
        }
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(pages)).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct From {
    /// The number of the first line.
    #[serde(default = "one")]
    line: usize,
    /// Whether what the code that serves can't read is written too.
    #[serde(default)]
    force: bool,
}

fn one() -> usize {
    1
}

/// All lines or none: 409 if one of them is wrong or can't be read by the code that serves, or the store refuses.
async fn import(
    State(room): State<Room>,
    Path((plugin, table)): Path<(String, String)>,
    from: Result<Query<From>, QueryRejection>,
    lines: Bytes,
) -> Response {
    let from = match from {
        Ok(Query(from)) => from,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    let Ok(lines) = String::from_utf8(lines.into()) else { return refuse(StatusCode::BAD_REQUEST, "the lines aren't UTF-8") };
    match tokio::task::spawn_blocking(move || room.host.import(&plugin, &table, &lines, from.line, from.force)).await {
        Ok(Ok(lines)) => Json(json!({ "lines": lines })).into_response(),
        Ok(Err(error)) => refuse(StatusCode::CONFLICT, &whole(&error)),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn whole(error: &Error) -> String {
    format!("{}: {}", error.subject(), error.reason())
}
