//! The edge's own error answers: short text that says what went wrong.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE},
};
use thiserror::Error;

use super::{MAX_REPLAYS, REPLAY_LIMIT};

/// Why a visitor gets no instance's answer.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// 400: not a request for a page, but `CONNECT` or `OPTIONS *`.
    #[error("this request cannot be forwarded")]
    NotForwardable,

    /// 400: the visitor stopped sending in the middle of the body.
    #[error("the request's body broke off: {0}")]
    BodyBrokeOff(axum::Error),

    /// 413 rather than 502, because sending it again cannot help.
    #[error("a request body of over {REPLAY_LIMIT} bytes cannot be replayed")]
    TooLargeToReplay,

    /// 502: the instance may or may not have done what the request asks for, so that only the visitor can
    /// decide to repeat it.
    #[error("the connection to instance {instance} broke before it answered: {cause}")]
    Broken { instance: String, cause: String },

    /// 502: an instance's `fly-replay` makes no sense.
    #[error("instance {instance} answered with a fly-replay that cannot be followed: {cause}")]
    BadReplay { instance: String, cause: String },

    /// 502: replays led nowhere, most likely in a circle.
    #[error("gave up after {MAX_REPLAYS} replays, the last one by instance {instance}")]
    TooManyReplays { instance: String },

    /// 502: Fly allows no replay of a request that fell back.
    #[error("instance {instance} replayed a request that had fallen back to it")]
    FallbackReplayed { instance: String },

    /// 502: the target of a replay was not reached.
    #[error("the replay failed: {0}")]
    ReplayUnreached(Unreached),

    /// 503: no instance took the request.
    #[error("{0}")]
    Unreached(Unreached),
}

/// The search for an instance that ended without one.
#[derive(Debug, Error)]
#[error("no instance was reached in {} ms: {}", elapsed.as_millis(), cause.as_deref().unwrap_or("no candidate"))]
pub(super) struct Unreached {
    /// How long it took.
    pub elapsed: Duration,
    /// What the last attempt died of; none where there was never an instance to try.
    pub cause: Option<String>,
}

impl Failure {
    pub fn into_response(self) -> Response<Body> {
        tracing::debug!(error = %self, "the edge answers by itself");
        let mut response = Response::new(Body::from(format!("{self}\n")));
        *response.status_mut() = self.status();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response
    }

    fn status(&self) -> StatusCode {
        match self {
            Failure::NotForwardable | Failure::BodyBrokeOff(_) => StatusCode::BAD_REQUEST,
            Failure::TooLargeToReplay => StatusCode::PAYLOAD_TOO_LARGE,
            Failure::Broken { .. }
            | Failure::BadReplay { .. }
            | Failure::TooManyReplays { .. }
            | Failure::FallbackReplayed { .. }
            | Failure::ReplayUnreached(_) => StatusCode::BAD_GATEWAY,
            Failure::Unreached(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}
