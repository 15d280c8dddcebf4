//! The page: the count, two buttons, and which instance served it.

use std::{pin::pin, sync::Arc, time::Duration};

use askama::Template;
use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    response::{AppendHeaders, Html, IntoResponse, Response},
};
use tokio::time::{self, Instant};

use super::{
    App, PATIENCE,
    error::{self, Error},
    story::{self, Story},
};
use crate::{
    counter::{Key, ReadError},
    instance::{Instance, Nowhere, Observed, Position, Replay, Role, Route},
};

/// Between two questions to Consul, for a visitor who waits.
const AGAIN: Duration = Duration::from_millis(500);

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
    if let Some(elsewhere) = elsewhere(&app, &headers).await? {
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

/// Who has what the visitor has seen, where this instance does not. LiteFS's proxy lets them wait for the transaction's number,
/// but that may be of another history.
async fn elsewhere(app: &App, headers: &HeaderMap) -> Result<Option<Replay>, Error> {
    let Some(seen) = Position::from_cookies(headers) else { return Ok(None) };
    if app.instance.has_been_at(seen).is_none() && app.instance.role() != Ok(Role::Primary) {
        return Ok(None);
    }
    let (mut role, mut position) = (app.instance.watch(), app.instance.watch_position());
    let mut patience = pin!(time::sleep(PATIENCE));
    loop {
        let is_primary = *role.borrow_and_update() == Ok(Role::Primary);
        let at = [*position.borrow_and_update(), app.counter.confirmed()];
        let is_far_enough = || at.into_iter().flatten().any(|at| at.txid >= seen.txid);
        if app.instance.has_been_at(seen).unwrap_or_else(is_far_enough) {
            return Ok(None);
        }
        let doubt = match app.instance.route_to_holder(headers).await {
            Route::Replay(replay) => return Ok(Some(replay)),
            // It was lost with the primary that had it, or is of no instance at all.
            Route::Here if is_primary => return Ok(None),
            Route::Here => Error::Outdated,
            Route::Nowhere(reason @ Nowhere::TooManyHops) => return Err(reason.into()),
            Route::Nowhere(doubt) => doubt.into(),
        };
        tokio::select! {
            Ok(()) = role.changed() => {}
            Ok(()) = position.changed() => {}
            () = time::sleep(AGAIN) => {}
            () = &mut patience => return Err(doubt),
        }
    }
}

/// Where the visitor has found this site. Fly's proxy tells whether that was by https.
fn origin(headers: &HeaderMap) -> Option<String> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let is_https = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    Some(format!("{}://{host}", if is_https { "https" } else { "http" }))
}
