//! The page: the count, two buttons, and which instance served it.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::State,
    http::HeaderMap,
    response::{Html, IntoResponse, Response},
};

use super::{
    App, PATIENCE,
    error::{self, Error},
};
use crate::{
    counter::ReadError,
    instance::{Instance, Observed, Role, Route},
};

#[derive(Template)]
#[template(path = "counter.html")]
struct Page<'a> {
    count: i64,
    /// Length of the count's text, which decides its size.
    digits: usize,
    instance: &'a Instance,
    role: Observed,
}

/// `GET /`
pub(super) async fn show(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Error> {
    let count = match app.counter.current().await {
        // This binary is newer than the schema, or the first sync is still to come: elsewhere there is a page.
        Err(ReadError::Behind) => match app.instance.route_to_primary(&headers) {
            Route::Replay(replay) => return Ok(error::replayed(&replay)),
            Route::Nowhere(reason) => return Err(reason.into()),
            // The primary itself is about to migrate.
            Route::Here if app.counter.is_writing(PATIENCE).await => app.counter.current().await?,
            Route::Here => return Err(Error::Starting),
        },
        count => count?,
    };
    let (instance, role) = (&app.instance, app.instance.role());
    let page = Page { count, digits: count.to_string().len(), instance, role };
    Ok(Html(page.render().map_err(Error::internal)?).into_response())
}
