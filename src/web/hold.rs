//! `POST /hold`, on the private network: nothing is written for as long as whoever asks listens. `litefs-counter restore`
//! sends it, which replaces the database meanwhile.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use tokio::time;

use super::App;

/// How often it is said that it still holds, so that a listener who is gone is noticed.
const EACH: Duration = Duration::from_secs(1);

pub(super) async fn hold(State(app): State<Arc<App>>) -> Response {
    let Some(hold) = app.counter.hold().await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "it is held already, or ends\n").into_response();
    };
    // The first line tells that it has begun.
    let lines = stream::unfold((hold, Duration::ZERO), async |(mut hold, pause)| {
        match time::timeout(pause, hold.ended()).await {
            Ok(()) => None,
            Err(_) => Some((Ok::<_, std::convert::Infallible>(Bytes::from_static(b"held\n")), (hold, EACH))),
        }
    });
    Body::from_stream(lines).into_response()
}
