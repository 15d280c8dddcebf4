//! The page: the count, two buttons, and which instance served it.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Request, State},
    response::{Html, IntoResponse, Response},
};

use tokio::time::Instant;

use super::{
    App, PATIENCE,
    error::{self, Error},
};
use crate::{
    counter::{Key, ReadError},
    instance::{Instance, Observed, Role},
};

#[derive(Template)]
#[template(path = "counter.html")]
struct Page<'a> {
    count: i64,
    /// Length of the count's text, which decides its size.
    digits: usize,
    /// One for each form: a rendered form that is sent twice is one click.
    decrement_key: Key,
    increment_key: Key,
    instance: &'a Instance,
    role: Observed,
}

/// `GET /`
pub(super) async fn show(State(app): State<Arc<App>>, request: Request) -> Result<Response, Error> {
    let headers = request.into_parts().0.headers;
    let count = match app.counter.current().await {
        // This binary is newer than the schema, or the first sync is still to come.
        Err(ReadError::Behind) => match app.primary_for(&headers, Instant::now() + PATIENCE).await {
            Ok(Some(elsewhere)) => return Ok(error::replayed(&elsewhere)),
            // This is the primary, and it has just migrated.
            Ok(None) => app.counter.current().await?,
            Err(_) => return Err(Error::NothingToShow),
        },
        count => count?,
    };
    let (instance, role) = (&app.instance, app.instance.role());
    let digits = count.to_string().len();
    let page =
        Page { count, digits, decrement_key: Key::fresh(), increment_key: Key::fresh(), instance, role };
    Ok(Html(page.render().map_err(Error::internal)?).into_response())
}
