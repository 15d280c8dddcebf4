//! The page: the count, two buttons, and which instance served it.
//!
//! It is rendered once for all who ask at the same time, with gaps for what is each visitor's own.

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
    counter::{Counter, Key, ReadError},
    instance::{Instance, Observed, Position, Role},
    shared::{Shared, Work},
};

/// In nothing that is shown.
const GAP: char = '\0';

/// The page as all see it.
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
    instance: &'a Instance,
    role: Observed,
}

/// What is a visitor's own, in the order of the template.
struct Own {
    /// For those who show a preview of the page: they take no relative address.
    origin: String,
    /// One for each form: a rendered form that is sent twice is one click.
    decrement_key: Key,
    increment_key: Key,
    /// Told without script only.
    story: String,
}

/// A rendered page with its gaps.
#[derive(Debug)]
pub(super) struct Frame(askama::Result<String>);

/// The page as it is now, for all who ask at the same time.
pub(super) type Frames = Shared<Result<Arc<Frame>, ReadError>>;

/// Needs a Tokio runtime.
pub(super) fn frames(counter: Arc<Counter>, instance: Instance) -> Frames {
    Shared::new(Rendering { counter, instance })
}

/// `GET /`
pub(super) async fn show(State(app): State<Arc<App>>, request: Request) -> Result<Response, Error> {
    let headers = request.into_parts().0.headers;
    if let Some(seen) = Position::from_cookies(&headers)
        && let Some(elsewhere) = seen::elsewhere(&app, seen, &headers).await?
    {
        return Ok(error::replayed(&elsewhere));
    }
    let now = async || app.frames.get().await.unwrap_or(Err(ReadError::Late));
    let frame = match now().await {
        // This binary is newer than the schema, or the first sync is still to come.
        Err(ReadError::Behind) => {
            match app.primary_for(&headers, Instant::now() + PATIENCE, &app.metrics.pages).await {
                Ok(Some(elsewhere)) => return Ok(error::replayed(&elsewhere)),
                // This is the primary, and it has just migrated.
                Ok(None) => now().await?,
                Err(_) => return Err(Error::NothingToShow),
            }
        }
        frame => frame?,
    };
    let story = Story::from_cookies(&headers);
    let forget = story.as_ref().map(|_| (header::SET_COOKIE, story::FORGET));
    let own = Own {
        origin: origin(&headers).unwrap_or_default(),
        decrement_key: Key::fresh(),
        increment_key: Key::fresh(),
        story: story.as_ref().map(ToString::to_string).unwrap_or_default(),
    };
    Ok((AppendHeaders(forget), Html(frame.filled(&own)?)).into_response())
}

struct Rendering {
    counter: Arc<Counter>,
    instance: Instance,
}

impl Work for Rendering {
    type Output = Result<Arc<Frame>, ReadError>;

    async fn run(&mut self) -> Self::Output {
        let count = self.counter.current().await?;
        let (instance, role) = (&self.instance, self.instance.role());
        // After the read: one that is ahead of the count does no harm, and one that is behind would let it go back.
        let position = *instance.watch_position().borrow();
        let is_negative = count < 0;
        let count = count.to_string().replace('-', "−");
        let digits = count.chars().count();
        let page = Page { count, digits, is_negative, position, instance, role };
        Ok(Frame(page.render()).into())
    }
}

impl Frame {
    fn filled(&self, own: &Own) -> Result<String, Error> {
        let frame = self.0.as_ref().map_err(Error::internal)?;
        let (decrement_key, increment_key) = (own.decrement_key.as_str(), own.increment_key.as_str());
        let mut gaps = [&*own.origin, decrement_key, increment_key, &*own.story].into_iter();
        let length = frame.len() + gaps.clone().map(str::len).sum::<usize>();
        let mut page = String::with_capacity(length);
        for part in frame.split(GAP) {
            page.push_str(part);
            page.extend(gaps.next());
        }
        Ok(page)
    }
}

/// Where the visitor has found this site. Fly's proxy tells whether that was by https.
fn origin(headers: &HeaderMap) -> Option<String> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    // It goes into the page as it is.
    let is_plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte));
    let is_https = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    is_plain.then(|| format!("{}://{host}", if is_https { "https" } else { "http" }))
}
