//! The fastest that axum answers on this machine: the application's own bytes and headers, and nothing behind them.
//!
//! The answers come from the environment, where the benchmark puts what it got from the application.

use std::env;

use anyhow::Context as _;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::Response,
    routing::get,
};
use serde::Deserialize;
use tokio::net::TcpListener;

/// What was recorded.
#[derive(Deserialize)]
struct Recorded {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// The same, ready to be sent again and again.
#[derive(Clone)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Clone)]
struct App {
    page: Answer,
    click: Answer,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let app = App { page: Answer::from_env("BENCH_PAGE")?, click: Answer::from_env("BENCH_CLICK")? };
    let router =
        Router::new().route("/", get(page).post(click)).route("/healthcheck", get("OK\n")).with_state(app);
    let port = env::var("PORT").context("PORT")?;
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    axum::serve(listener, router).await?;
    Ok(())
}

async fn page(State(app): State<App>) -> Response {
    app.page.response()
}

/// Reads the form, as whoever answers it has to.
async fn click(State(app): State<App>, _form: Bytes) -> Response {
    app.click.response()
}

impl Answer {
    fn from_env(name: &str) -> anyhow::Result<Self> {
        let recorded = env::var(name).with_context(|| name.to_owned())?;
        let recorded: Recorded = serde_json::from_str(&recorded).with_context(|| name.to_owned())?;
        let mut headers = HeaderMap::new();
        for (name, value) in recorded.headers {
            headers.append(name.parse::<HeaderName>()?, value.parse::<HeaderValue>()?);
        }
        Ok(Self { status: StatusCode::from_u16(recorded.status)?, headers, body: recorded.body.into() })
    }

    fn response(&self) -> Response {
        let mut response = Response::new(Body::from(self.body.clone()));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.clone();
        response
    }
}
