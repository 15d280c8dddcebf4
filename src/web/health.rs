//! `GET /healthcheck`: whether this process can answer reads, or hand them on.
//!
//! Neither the absence of a primary nor lag makes a node that has the count unhealthy: every replica would be taken
//! out of the routing ten seconds after the primary died, and the application with them.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
};

use super::App;
use crate::{
    counter::ReadError,
    instance::{Instance, Nowhere, Route},
};

/// `200 OK`, or `503` and the reason.
pub(super) async fn check(State(app): State<Arc<App>>) -> (StatusCode, String) {
    match healthy(&app).await {
        Ok(()) => (StatusCode::OK, "OK\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn healthy(app: &App) -> Result<(), String> {
    if let Some(reason) = app.counter.is_failing() {
        return Err(format!("this instance is primary and cannot write: {reason}"));
    }
    match app.counter.current().await {
        Ok(_) => Ok(()),
        Err(ReadError::Behind) => can_hand_on(&app.instance),
        Err(error) => Err(error.to_string()),
    }
}

fn can_hand_on(instance: &Instance) -> Result<(), String> {
    match instance.route_to_primary(&HeaderMap::new()) {
        Route::Replay(_) => Ok(()),
        Route::Here => Err("this instance is primary and has not finished its migrations".to_owned()),
        Route::Nowhere(Nowhere::NoPrimary) => {
            Err("the database is not here yet or too old, and no primary is known to get it from".to_owned())
        }
        Route::Nowhere(reason) => Err(reason.to_string()),
    }
}
