//! A click: which one, whose it is to count, and the way back to the page.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Redirect, Response},
};
use percent_encoding::percent_decode;

use super::{
    App,
    error::{self, Error},
};
use crate::counter::{ClickError, Intent};

/// `POST /`
pub(super) async fn count(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    form: Bytes,
) -> Result<Response, Error> {
    if !is_form(&headers) {
        return Err(Error::NotAForm);
    }
    let intent = intent(&form)?;
    // LiteFS's proxy sends writes to the primary. A change of primary can come between, and so can a client that
    // goes around the proxy.
    if let Some(elsewhere) = app.primary_for(&headers).await? {
        return Ok(error::replayed(&elsewhere));
    }
    let mut counted = app.counter.apply(intent).await;
    if counted == Err(ClickError::NotWriting) {
        // The lease was lost in this very moment; nothing was changed, so the request may go on.
        if let Some(elsewhere) = app.primary_for(&headers).await? {
            return Ok(error::replayed(&elsewhere));
        }
        counted = app.counter.apply(intent).await;
    }
    counted?;
    Ok(Redirect::to("/").into_response())
}

fn is_form(headers: &HeaderMap) -> bool {
    let essence = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = essence.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// The form's one intent. The browser sends the name and value of the button that was pressed.
fn intent(form: &[u8]) -> Result<Intent, Error> {
    if !is_percent_encoded(form) {
        return Err(Error::Form("it holds a % that is not followed by two hexadecimal digits, or no UTF-8"));
    }
    let mut intents = form_urlencoded::parse(form).filter(|(name, _)| name == "intent");
    let (_, intent) = intents.next().ok_or(Error::Form("it has no intent"))?;
    if intents.next().is_some() {
        return Err(Error::Form("it has more than one intent"));
    }
    intent.parse().map_err(|_| Error::Form("its intent is neither increment nor decrement"))
}

/// The parser puts up with anything, as browsers do; here what is damaged changes nothing.
fn is_percent_encoded(form: &[u8]) -> bool {
    let mut after_percent_signs = form.split(|byte| *byte == b'%').skip(1);
    after_percent_signs.all(|rest| rest.len() >= 2 && rest[..2].iter().all(u8::is_ascii_hexdigit))
        && percent_decode(form).decode_utf8().is_ok()
}
