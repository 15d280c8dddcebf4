//! A click: which one, whose it is to count, and the answer.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, header, request::Parts},
    response::{AppendHeaders, IntoResponse, Redirect, Response},
};
use percent_encoding::percent_decode;
use serde_json::json;
use tokio::time::{self, Instant};

use super::{
    App, PATIENCE, accepts_json, body,
    error::{self, Error, Refused},
    story,
};
use crate::{
    counter::{ClickError, Counted, Intent, Key},
    instance::{Confirmation, Instance, Replay, Role, Route},
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How long the database may take for a click that it has taken, beyond the time that a click is tried for.
const COMMIT: Duration = Duration::from_secs(5);

/// What a visitor asks for.
#[derive(Clone, Debug)]
pub(super) struct Click {
    pub(super) intent: Intent,
    /// Without it nothing can be sent twice and counted once.
    pub(super) key: Option<Key>,
}

/// What has become of it.
enum Settled {
    Counted(Counted),
    Elsewhere(Replay),
}

/// `POST /`
pub(super) async fn count(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refused> {
    let begun = Instant::now();
    let (Parts { headers, .. }, body) = request.into_parts();
    let form = body::bytes(body).await?;
    let click = Click::read(&headers, &form)?;
    match settle(&app, &click, &headers).await {
        Ok(Settled::Counted(counted)) if accepts_json(&headers) => {
            Ok(Json(as_json(&counted, &app.instance)).into_response())
        }
        Ok(Settled::Counted(counted)) => {
            let told = story::set_cookie(&counted, &app.instance, begun.elapsed());
            Ok((AppendHeaders([(header::SET_COOKIE, told)]), Redirect::to("/")).into_response())
        }
        Ok(Settled::Elsewhere(replay)) => Ok(error::replayed(&replay)),
        Err(error) => {
            app.counter.tally().add(error.outcome(), 1);
            error.log_click();
            Err(Refused { error, click: Some(click) })
        }
    }
}

/// Counts it here, or finds who does. What fails because the primary changes, or a candidate goes, is tried again for
/// a while, as long as the click cannot be counted twice.
async fn settle(app: &App, click: &Click, headers: &HeaderMap) -> Result<Settled, Error> {
    let deadline = Instant::now() + PATIENCE;
    let mut failed: Option<ClickError> = None;
    let mut may_be_counted = false;
    let refused = loop {
        // LiteFS's proxy sends writes to the primary. A change of primary can come between, and so can a client that
        // goes around the proxy.
        match app.primary_for(headers, deadline, &app.metrics.clicks).await {
            Ok(None) => {}
            Ok(Some(elsewhere)) => return Ok(Settled::Elsewhere(elsewhere)),
            Err(nobody) => break failed.map_or(nobody, Error::from),
        }
        let applied = app.counter.apply(click.intent, click.key.clone());
        let error = match time::timeout_at(deadline + COMMIT, applied).await {
            Ok(Ok(counted)) => return Ok(Settled::Counted(counted)),
            Ok(Err(error)) => error,
            Err(_) => ClickError::Unknown,
        };
        may_be_counted |= error == ClickError::Unknown;
        if click.may_be_handed_on(&error)
            && app.instance.role() == Ok(Role::Primary)
            && let Route::Replay(elsewhere) = app.instance.route_to_holder(headers).await
        {
            app.metrics.clicks.replayed.fetch_add(1, Relaxed);
            return Ok(Settled::Elsewhere(elsewhere));
        }
        if !click.may_be_sent_again(&error) || Instant::now() >= deadline {
            break error.into();
        }
        // That nobody writes at this moment is what comes after a failure, and hides no other.
        if error != ClickError::NotWriting {
            failed = Some(error);
        }
    };
    // Whatever came last: an attempt before it may have been counted.
    let can_be_settled = may_be_counted && click.key.is_some();
    Err(if can_be_settled && refused.is_unsettled() { Error::NotSettled } else { refused })
}

impl Click {
    fn read(headers: &HeaderMap, form: &[u8]) -> Result<Self, Error> {
        if !is_form(headers) {
            return Err(Error::NotAForm);
        }
        if !is_percent_encoded(form) {
            return Err(Error::Form(
                "it holds a % that is not followed by two hexadecimal digits, or no UTF-8",
            ));
        }
        let mut fields = form_urlencoded::parse(form).filter(|(name, _)| name == "intent");
        let (_, intent) = fields.next().ok_or(Error::Form("it has no intent"))?;
        if fields.next().is_some() {
            return Err(Error::Form("it has more than one intent"));
        }
        let intent =
            intent.parse().map_err(|_| Error::Form("its intent is neither increment nor decrement"))?;

        let in_headers =
            headers.get_all(IDEMPOTENCY_KEY).iter().map(|key| key.to_str().unwrap_or_default().into());
        let in_form = form_urlencoded::parse(form).filter(|(name, _)| name == "key").map(|(_, key)| key);
        let mut keys = in_headers.chain(in_form);
        let key = keys.next().map(|key| key.parse::<Key>()).transpose();
        let key = key.map_err(|_| Error::Form("its key is not 1 to 64 visible ASCII characters"))?;
        if keys.any(|other| key.as_ref().is_some_and(|key| key.to_string() != other)) {
            return Err(Error::Form("it has more than one key"));
        }
        Ok(Self { intent, key })
    }

    /// Whether this failure may mean that another instance is primary before LiteFS knows, and that one cannot count the click
    /// twice.
    fn may_be_handed_on(&self, after: &ClickError) -> bool {
        match after {
            ClickError::NotReady => true,
            ClickError::Unknown => self.key.is_some(),
            _ => false,
        }
    }

    /// Whether this failure is one that passes, and trying once more cannot count the click twice.
    fn may_be_sent_again(&self, after: &ClickError) -> bool {
        match after {
            ClickError::NotWriting | ClickError::Failed => true,
            ClickError::Unknown => self.key.is_some(),
            ClickError::OutOfRange
            | ClickError::OtherIntent
            | ClickError::NoRoom
            | ClickError::NotReady
            | ClickError::Full => false,
        }
    }
}

/// How it was confirmed, and by whom.
pub(super) fn confirmation(counted: &Counted) -> (&'static str, Vec<String>) {
    match &counted.confirmation {
        Confirmation::Standalone => ("standalone", Vec::new()),
        Confirmation::Off => ("off", Vec::new()),
        Confirmation::Alone => ("alone", Vec::new()),
        Confirmation::Candidates(ids) => ("candidates", ids.iter().map(ToString::to_string).collect()),
    }
}

fn as_json(counted: &Counted, written_at: &Instance) -> serde_json::Value {
    let (confirmation, by) = confirmation(counted);
    json!({
        "count": counted.count,
        "version": counted.version,
        "txid": counted.position.map(|at| at.txid.to_string()),
        "position": counted.position.map(|at| at.to_string()),
        "instance": written_at.id().to_string(),
        "region": written_at.region().to_string(),
        "confirmation": confirmation,
        "by": by,
    })
}

fn is_form(headers: &HeaderMap) -> bool {
    let essence = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = essence.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// The parser puts up with anything, as browsers do; here what is damaged changes nothing.
fn is_percent_encoded(form: &[u8]) -> bool {
    let mut after_percent_signs = form.split(|byte| *byte == b'%').skip(1);
    after_percent_signs.all(|rest| rest.len() >= 2 && rest[..2].iter().all(u8::is_ascii_hexdigit))
        && percent_decode(form).decode_utf8().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_counted_goes_nowhere_without_a_key() {
        let click = |key| Click { intent: Intent::Increment, key };
        let (keyed, bare) = (click(Some(Key::fresh())), click(None));
        let unknown = &ClickError::Unknown;
        assert!(keyed.may_be_handed_on(unknown) && keyed.may_be_sent_again(unknown));
        assert!(!bare.may_be_handed_on(unknown) && !bare.may_be_sent_again(unknown));
        for unchanged in [ClickError::NotWriting, ClickError::Failed] {
            assert!(bare.may_be_sent_again(&unchanged), "{unchanged}");
        }
        assert!(bare.may_be_handed_on(&ClickError::NotReady));
    }
}
