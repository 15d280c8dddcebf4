//! The page: the count, two buttons, and which instance served it.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
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
    /// With a minus sign where it is negative: a hyphen is short, and few screen readers say it.
    count: String,
    /// Length of that text, which decides its size.
    digits: usize,
    is_negative: bool,
    /// One for each form: a rendered form that is sent twice is one click.
    decrement_key: Key,
    increment_key: Key,
    instance: &'a Instance,
    role: Observed,
    /// For those who show a preview of the page: they take no relative address.
    origin: Option<String>,
}

/// `GET /`
pub(super) async fn show(State(app): State<Arc<App>>, request: Request) -> Result<Response, Error> {
    let headers = request.into_parts().0.headers;
    let count = match app.counter.current().await {
        // This binary is newer than the schema, or the first sync is still to come.
        Err(ReadError::Behind) => {
            match app.primary_for(&headers, Instant::now() + PATIENCE, &app.metrics.pages).await {
                Ok(Some(elsewhere)) => return Ok(error::replayed(&elsewhere)),
                // This is the primary, and it has just migrated.
                Ok(None) => app.counter.current().await?,
                Err(_) => return Err(Error::NothingToShow),
            }
        }
        count => count?,
    };
    let (instance, role) = (&app.instance, app.instance.role());
    let is_negative = count < 0;
    let count = count.to_string().replace('-', "−");
    let digits = count.chars().count();
    let page = Page {
        count,
        digits,
        is_negative,
        decrement_key: Key::fresh(),
        increment_key: Key::fresh(),
        instance,
        role,
        origin: origin(&headers),
    };
    Ok(Html(page.render().map_err(Error::internal)?).into_response())
}

/// Where the visitor has found this site. Fly's proxy tells whether that was by https.
fn origin(headers: &HeaderMap) -> Option<String> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let is_https = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    Some(format!("{}://{host}", if is_https { "https" } else { "http" }))
}
