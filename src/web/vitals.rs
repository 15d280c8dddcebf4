//! `GET /instance`, on the private network: what this application tells those of the other instances about itself, for
//! their `GET /status`.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::App;
use crate::counter::Counter;

/// What an application says of itself. Those of other versions may say more, or less.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Vitals {
    pub(super) version: String,
    pub(super) uptime_seconds: u64,
    /// The newest last.
    pub(super) clicks_per_second: Vec<u32>,
}

impl Vitals {
    /// This process's own.
    pub(super) fn now(counter: &Counter, started: Instant) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: started.elapsed().as_secs(),
            clicks_per_second: counter.clicks_per_second(),
        }
    }
}

pub(super) async fn show(State(app): State<Arc<App>>) -> Json<Vitals> {
    Json(Vitals::now(&app.counter, app.started))
}
