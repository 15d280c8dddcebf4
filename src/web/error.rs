//! Every answer that is not the page: what was wrong, and what to do. Internals are logged and never sent.

use askama::Template;
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};

use super::body;
use crate::{
    counter::{ClickError, ReadError},
    instance::{Nowhere, Replay},
};

/// Why a request was not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// `422`
    #[error("The form cannot be read: {0}.")]
    Form(&'static str),
    /// `415`
    #[error("Clicks come as a form, of content type application/x-www-form-urlencoded.")]
    NotAForm,
    /// `413`
    #[error("The form is larger than {} bytes.", body::LARGEST)]
    TooLarge,
    /// `400`: the body ended before its length, took too long, or its encoding is broken.
    #[error("The request's body did not arrive whole.")]
    Truncated,
    /// `403`
    #[error("This click came from a page of another site, so it was not counted.")]
    CrossOrigin,
    /// `404`
    #[error("There is nothing here.")]
    NotFound,
    /// `405`; axum adds `Allow`.
    #[error("This address does not know that method.")]
    MethodNotAllowed,
    /// `409`
    #[error("The count is at its end: it cannot go beyond {} and {}.", i64::MIN, i64::MAX)]
    OutOfRange,
    /// `503`: no primary is known.
    #[error("At this moment no instance is primary. Reading works; writing resumes in a moment.")]
    NoPrimary,
    /// `503`: LiteFS or its files do not answer.
    #[error("The database of this instance does not answer.")]
    Silent,
    /// `503`: two instances took each other for the primary.
    #[error("This request was handed on from instance to instance, and none took it.")]
    HandedOn,
    /// `503`: there is nothing to read here, and nobody to hand the request to.
    #[error("This instance has nothing to show yet, and no primary is known. It will be there in a moment.")]
    NothingToShow,
    /// `503`: the first seconds of a new instance, or of a new primary.
    #[error("This instance is starting. It will be there in a moment.")]
    Starting,
    /// `503`: the queue is full.
    #[error("More clicks arrive than can be written. This one was not counted.")]
    Full,
    /// `503`: the database failed before the commit.
    #[error("This click could not be written, and was not counted.")]
    NotCounted,
    /// `500`: the commit's outcome is not known. Nothing invites to repeat it unseen.
    #[error("It is not known whether this click was counted: look at the count before you click again.")]
    Unknown,
    /// `500`: the cause is in the log.
    #[error("Something went wrong here. It was logged.")]
    Internal,
}

#[derive(Template)]
#[template(path = "error.html")]
struct Page {
    status: StatusCode,
    message: String,
}

impl Error {
    fn status(&self) -> StatusCode {
        match self {
            Self::Form(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NotAForm => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Truncated => StatusCode::BAD_REQUEST,
            Self::CrossOrigin => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::OutOfRange => StatusCode::CONFLICT,
            Self::NoPrimary
            | Self::Silent
            | Self::HandedOn
            | Self::NothingToShow
            | Self::Starting
            | Self::Full
            | Self::NotCounted => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unknown | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Logs what the visitor is not told.
    pub(super) fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "A request failed.");
        Self::Internal
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = self.status();
        let page = Page { status, message: self.to_string() }.render();
        let mut response = (status, Html(page.unwrap_or_default())).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Behind => Self::Starting,
            ReadError::Late => Self::Silent,
            ReadError::Failed(cause) => Self::internal(cause),
        }
    }
}

impl From<ClickError> for Error {
    fn from(error: ClickError) -> Self {
        match error {
            ClickError::OutOfRange => Self::OutOfRange,
            ClickError::NotWriting => Self::NoPrimary,
            ClickError::Full => Self::Full,
            ClickError::Failed => Self::NotCounted,
            ClickError::Unknown => Self::Unknown,
        }
    }
}

impl From<Nowhere> for Error {
    fn from(reason: Nowhere) -> Self {
        match reason {
            Nowhere::NoPrimary => Self::NoPrimary,
            Nowhere::TooManyHops => Self::HandedOn,
            Nowhere::Unreachable(_) => Self::Silent,
        }
    }
}

/// Asks Fly's proxy to send the request to another instance. The visitor never sees this answer; without Fly's
/// proxy before it, `409` and the text say what is missing.
pub(super) fn replayed(replay: &Replay) -> Response {
    let text = format!("This request is for {}: Fly's proxy takes it there.\n", replay.instance);
    (StatusCode::CONFLICT, [replay.header()], text).into_response()
}
