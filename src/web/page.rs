//! The page: the count, two buttons, and which instance served it.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    response::{AppendHeaders, Html, IntoResponse, Response},
};
use tokio::time::Instant;

use super::{
    App, PATIENCE,
    error::{self, Error},
    seen,
    story::{self, Story},
};
use crate::{
    counter::{Key, ReadError},
    instance::{Instance, Observed, Position, Role},
};

#[derive(Template)]
#[template(path = "counter.html")]
struct Page<'a> {
    /// With a minus sign where it is negative: a hyphen is short, and few screen readers say it.
    count: String,
    /// Length of that text, which decides its size.
    digits: usize,
    is_negative: bool,
    /// How far the database is, in LiteFS's last word: the page's stream may be another instance's, and waits for that.
    position: Option<Position>,
    /// One for each form: a rendered form that is sent twice is one click.
    decrement_key: Key,
    increment_key: Key,
    instance: &'a Instance,
    role: Observed,
    /// Told without script only.
    story: Option<Story>,
    /// For those who show a preview of the page: they take no relative address.
    origin: Option<String>,
}

/// `GET /`
pub(super) async fn show(State(app): State<Arc<App>>, request: Request) -> Result<Response, Error> {
    let headers = request.into_parts().0.headers;
    if let Some(seen) = Position::from_cookies(&headers)
        && let Some(elsewhere) = seen::elsewhere(&app, seen, &headers).await?
    {
        return Ok(error::replayed(&elsewhere));
    }
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
    // After the read: one that is ahead of the count does no harm, and one that is behind would let it go back.
    let position = *instance.watch_position().borrow();
    let is_negative = count < 0;
    let count = count.to_string().replace('-', "−");
    let digits = count.chars().count();
    let story = Story::from_cookies(&headers);
    let forget = story.as_ref().map(|_| (header::SET_COOKIE, story::FORGET));
    let page = Page {
        count,
        digits,
        is_negative,
        position,
        decrement_key: Key::fresh(),
        increment_key: Key::fresh(),
        instance,
        role,
        story,
        origin: origin(&headers),
    };
    Ok((AppendHeaders(forget), Html(page.render().map_err(Error::internal)?)).into_response())
}

/// Where the visitor has found this site. Fly's proxy tells whether that was by https.
fn origin(headers: &HeaderMap) -> Option<String> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let is_https = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    Some(format!("{}://{host}", if is_https { "https" } else { "http" }))
}
