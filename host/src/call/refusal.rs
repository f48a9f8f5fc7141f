//! Why does no handler answer a request?
//!
//! The same for a client's request and for one of a plugin's.

use http::StatusCode;

use crate::live::route::Found;
use crate::live::snapshot::{Snapshot, Target};

/// Why.
#[derive(Debug)]
pub(crate) enum NoRoute {
    /// The path takes WebSockets only.
    Upgrade,
    /// The path takes these methods.
    OtherMethods(String),
    /// No plugin has the path.
    Nothing,
    /// A parameter isn't UTF-8.
    NotText,
}

/// The handler that a method and a path lead to, with the route's parameters, percent-decoded.
///
/// # Errors
///
/// Why there is none.
pub(crate) fn routed(snapshot: &Snapshot, method: &str, path: &str) -> Result<(Target, Vec<(String, String)>), NoRoute> {
    match snapshot.find(method, path) {
        Found::Handler(target, params) => decode(params).map(|params| (target, params)).ok_or(NoRoute::NotText),
        Found::Upgrade => Err(NoRoute::Upgrade),
        Found::OtherMethods(allow) => Err(NoRoute::OtherMethods(allow)),
        Found::Nothing => Err(NoRoute::Nothing),
    }
}

impl NoRoute {
    /// The status of the answer.
    #[must_use]
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Upgrade => StatusCode::UPGRADE_REQUIRED,
            Self::OtherMethods(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Nothing => StatusCode::NOT_FOUND,
            Self::NotText => StatusCode::BAD_REQUEST,
        }
    }

    /// Its text.
    #[must_use]
    pub(crate) fn text(&self, path: &str) -> String {
        match self {
            Self::Upgrade => format!("{path} takes WebSockets only"),
            Self::OtherMethods(allow) => format!("{path} takes {allow}"),
            Self::Nothing => format!("nothing answers {path}"),
            Self::NotText => format!("{path} isn't UTF-8"),
        }
    }
}

/// Percent-decodes the parameters; `None` if one isn't UTF-8.
#[must_use]
pub(crate) fn decode(mut params: Vec<(String, String)>) -> Option<Vec<(String, String)>> {
    for (_, value) in &mut params {
        if value.contains('%') {
            *value = percent_encoding::percent_decode_str(value).decode_utf8().ok()?.into_owned();
        }
    }
    Some(params)
}
