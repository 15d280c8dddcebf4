//! `POST /handover`, on the private network: another candidate is to be primary. `litefs-counter handover` sends it.

use std::{sync::Arc, time::Duration};

use axum::{body::Bytes, extract::State, http::StatusCode};

use super::App;
use crate::instance::HandOverError;

/// How long a candidate may take to be there and to catch up. Only while it catches up is nothing written.
const PATIENCE: Duration = Duration::from_secs(2);

/// The body names who is to take over; where it is empty, any candidate that has all transactions may.
pub(super) async fn hand_over(State(app): State<Arc<App>>, to: Bytes) -> (StatusCode, String) {
    let to = match str::from_utf8(&to).unwrap_or_default().trim() {
        "" if to.is_empty() => None,
        name => match name.parse() {
            Ok(id) => Some(id),
            Err(error) => return (StatusCode::UNPROCESSABLE_ENTITY, format!("not an instance: {error}\n")),
        },
    };
    match app.counter.hand_over(to, PATIENCE).await {
        Ok(heir) => (StatusCode::OK, format!("{heir}\n")),
        Err(error @ HandOverError::NotPrimary) => (StatusCode::MISDIRECTED_REQUEST, format!("{error}\n")),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    }
}
