//! `GET /status`: all instances of the application, for people who look on.
//!
//! - here: the page, its part that is live, the same as JSON
//! - `poller`: asks the instances, once for all who look
//! - `survey`: what they have answered
//! - `view`: that in words
//! - `map`, `plot`: and in pictures

mod map;
mod plot;
mod poller;
mod survey;
mod view;

use std::{sync::Arc, time::Duration};

use askama::Template;
use axum::{
    Json,
    extract::State,
    http::HeaderMap,
    response::{Html, IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{App, accepts_json, error::Error};
use map::Map;
use survey::Survey;
use view::{ClicksPlot, LagPlot, Row};

pub(super) use poller::Poller;

/// How long the page waits for instances that are asked for the first time. It is live: they come later.
const PATIENCE: Duration = Duration::from_millis(400);
/// The same for those who ask only once: by then each instance has answered or is known not to.
const PATIENCE_JSON: Duration = Duration::from_secs(2);

#[derive(Template)]
#[template(path = "status.html")]
struct Page<'a> {
    live: Live<'a>,
}

/// The part that changes.
#[derive(Template)]
#[template(path = "status-live.html")]
struct Live<'a> {
    app: &'a App,
    headline: String,
    summary: String,
    is_wrong: bool,
    map: Map,
    /// Regions that are not on the map.
    elsewhere: Vec<String>,
    rows: Vec<Row>,
    clicks: ClicksPlot,
    lags: Vec<LagPlot>,
}

/// `GET /status`
pub(super) async fn show(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Error> {
    if accepts_json(&headers) {
        let survey = app.poller.look(PATIENCE_JSON).await;
        return Ok(Json(as_json(&app, &survey)).into_response());
    }
    let survey = app.poller.look(PATIENCE).await;
    let page = Page { live: Live::of(&app, &survey) };
    Ok(Html(page.render().map_err(Error::internal)?).into_response())
}

/// `GET /status/live`: the page's script replaces that part by this one.
pub(super) async fn live(State(app): State<Arc<App>>) -> Result<Html<String>, Error> {
    let survey = app.poller.look(PATIENCE).await;
    Ok(Html(Live::of(&app, &survey).render().map_err(Error::internal)?))
}

impl<'a> Live<'a> {
    fn of(app: &'a App, survey: &Survey) -> Self {
        let regions = survey.regions().into_iter();
        Self {
            app,
            headline: view::headline(survey),
            summary: view::summary(survey),
            is_wrong: survey.sightings.values().any(survey::Sighting::is_wrong),
            map: Map::draw(survey),
            elsewhere: regions.filter(|region| region.place().is_none()).map(ToString::to_string).collect(),
            rows: view::rows(survey),
            clicks: ClicksPlot::draw(survey),
            lags: LagPlot::draw_all(survey),
        }
    }
}

fn as_json(app: &App, survey: &Survey) -> Value {
    let instances = survey.sightings.iter().map(|(id, sighting)| {
        let report = sighting.report.as_ref();
        let vitals = sighting.vitals.as_ref().map(|(_, vitals)| vitals);
        let role = report.map(|report| view::role(&report.role));
        let took = if let survey::State::Answers(took) = sighting.state { Some(took) } else { None };
        json!({
            "id": id.to_string(),
            "region": sighting.region.to_string(),
            "city": sighting.region.place().map(|place| place.city),
            "state": view::state(&sighting.state),
            "role": role,
            "txid": report.and_then(|report| report.position).map(|at| at.txid.to_string()),
            "lag_ms": report.and_then(|report| report.lag).map(|lag| lag.as_millis()),
            "answered_in_ms": took.map(|took| took.as_secs_f64() * 1000.0),
            "version": vitals.map(|vitals| &vitals.version),
            "uptime_seconds": vitals.map(|vitals| vitals.uptime_seconds),
        })
    });
    json!({
        "served_by": app.instance.id().to_string(),
        "primary": survey.primary().map(|(id, _)| id.to_string()),
        "directory_answers": survey.directory_answers,
        "instances": instances.collect::<Vec<_>>(),
        "clicks_per_second": survey.clicks_per_second(),
    })
}
