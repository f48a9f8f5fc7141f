//! What does a handler return when it can't answer?
//!
//! [`Error`] swallows any `std::error::Error` through `?` and answers 500; its text is for the operator, and the client sees it in
//! `midair dev` only. An error made with [`Error::new`] or [`Error::bad_request`] is meant for the client.

use std::fmt;

use http::StatusCode;

/// A handler's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong in a handler. Any `std::error::Error` turns into one with `?`.
///
/// It doesn't implement `std::error::Error` itself, as that would make the conversion ambiguous.
pub struct Error {
    status: StatusCode,
    text: String,
    public: bool,
}

impl Error {
    /// An answer with `status` and a text that the client may read.
    ///
    /// ```
    /// # use midair_plugin::{Error, StatusCode};
    /// let error = Error::new(StatusCode::NOT_FOUND, "no such link");
    /// assert_eq!(error.status(), 404);
    /// ```
    #[must_use]
    pub fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), public: true }
    }

    /// A 400 with a text that the client may read.
    #[must_use]
    pub fn bad_request(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// A 500 whose text is for the operator.
    #[must_use]
    pub fn internal(text: impl Into<String>) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, text: text.into(), public: false }
    }

    /// The status that the client gets.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether the client may read the text outside of development.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.public
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status.as_u16(), self.text)
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut below = error.source();
        while let Some(cause) = below {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            below = cause.source();
        }
        Self::internal(text)
    }
}
