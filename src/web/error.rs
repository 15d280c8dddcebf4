//! Every answer that is not the page: what was wrong, and what to do. Internals are logged and never sent.

use askama::Template;
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};

use super::{body, click::Click};
use crate::{
    counter::{ClickError, Key, Outcome, ReadError},
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
    #[error("The count is at its end: it cannot go beyond −{} and {}.", i64::MIN.unsigned_abs(), i64::MAX)]
    OutOfRange,
    /// `422`: the key of another click.
    #[error(
        "This form's key stands for another click, so it was not counted. Load the page anew and click again."
    )]
    OtherIntent,
    /// `503`: as many keys as are kept are young.
    #[error("More clicks arrive than can be told apart. This one was not counted.")]
    NoRoom,
    /// `503`: no other candidate is up, and this instance may not or cannot acknowledge alone.
    #[error("At this moment no click can be made safe. Send it again in a moment: it counts once.")]
    NotReady,
    /// `503`: committed, perhaps, and not confirmed. The same click sent again settles it.
    #[error("It is not settled yet whether this click was counted. Send it again: it counts once.")]
    NotSettled,
    /// `503`: no primary is known.
    #[error("At this moment no instance is primary. Reading works; writing resumes in a moment.")]
    NoPrimary,
    /// `503`: the visitor has seen more than there is here, and it is not known where that is.
    #[error("This instance does not have what you have seen. It will be there in a moment.")]
    Outdated,
    /// `503`: LiteFS or its files do not answer.
    #[error("The database of this instance does not answer at this moment.")]
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
    #[error("More clicks arrive than can be written. Send this one again in a moment: it counts once.")]
    Full,
    /// `503`: the database failed before the commit.
    #[error("This click could not be written. Send it again in a moment: it counts once.")]
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
    /// The click to send again.
    again: Option<Again>,
}

struct Again {
    intent: String,
    key: String,
}

/// A request that was not served, and the click that was in it: a visitor without script can send it again.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) error: Error,
    pub(super) click: Option<Click>,
}

impl Error {
    fn status(&self) -> StatusCode {
        match self {
            Self::Form(_) | Self::OtherIntent => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NotAForm => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Truncated => StatusCode::BAD_REQUEST,
            Self::CrossOrigin => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::OutOfRange => StatusCode::CONFLICT,
            Self::NoRoom
            | Self::NotReady
            | Self::NotSettled
            | Self::NoPrimary
            | Self::Outdated
            | Self::Silent
            | Self::HandedOn
            | Self::NothingToShow
            | Self::Starting
            | Self::Full
            | Self::NotCounted => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unknown | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The same click sent again may be counted.
    pub(super) fn is_unsettled(&self) -> bool {
        matches!(self, Self::Unknown) || self.status() == StatusCode::SERVICE_UNAVAILABLE
    }

    /// What it means for a click.
    pub(super) fn outcome(&self) -> Outcome {
        if matches!(self, Self::Unknown | Self::NotSettled) { Outcome::Unknown } else { Outcome::Refused }
    }

    /// Logs that a click was not counted, or may not have been. Where more come than can be written, or an instance waits for
    /// a primary, that would be a line for each; the others have been held, and come from one batch that failed.
    pub(super) fn log_click(&self) {
        if matches!(self, Self::Unknown | Self::NotSettled | Self::NotCounted) {
            tracing::warn!(reason = %self, "A click failed.");
        } else {
            tracing::debug!(reason = %self, "A click was refused.");
        }
    }

    /// Logs what the visitor is not told.
    pub(super) fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "A request failed.");
        Self::Internal
    }
}

impl Refused {
    /// The same click once more. One that surely was not counted and had no key gets one.
    fn again(&self) -> Option<Again> {
        if self.error.status() != StatusCode::SERVICE_UNAVAILABLE {
            return None;
        }
        let Click { intent, key } = self.click.as_ref()?;
        let key = key.clone().unwrap_or_else(Key::fresh);
        Some(Again { intent: intent.to_string(), key: key.to_string() })
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = self.error.status();
        let page = Page { status, message: self.error.to_string(), again: self.again() }.render();
        let mut response = (status, Html(page.unwrap_or_default())).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        Refused::from(self).into_response()
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { error, click: None }
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
            ClickError::OtherIntent => Self::OtherIntent,
            ClickError::NoRoom => Self::NoRoom,
            ClickError::NotReady => Self::NotReady,
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
            Nowhere::Doubtful(_) => Self::Outdated,
        }
    }
}

/// Asks Fly's proxy to send the request to another instance. The visitor never sees this answer; without Fly's
/// proxy before it, `409` and the text say what is missing.
pub(super) fn replayed(replay: &Replay) -> Response {
    let text = format!("This request is for {}: Fly's proxy takes it there.\n", replay.instance);
    (StatusCode::CONFLICT, [replay.header()], text).into_response()
}
