//! Another application, with the instance module copied as it is: it uses nothing else of this project.
//!
//! It tells who it is, how far its database is and which instances there are, takes notes (in memory) only where that
//! is allowed, and lets a request be answered by an instance that it names.
//!
//! ```text
//! cargo run --example second_app
//! curl http://localhost:8090/
//! curl -d 'milk' http://localhost:8090/notes
//! curl http://localhost:8090/on/local
//! ```

// In an application of yours: the folder copied to src/instance, and `mod instance;`.
#[path = "../src/instance/mod.rs"]
#[allow(dead_code, unused_imports, reason = "a module is copied whole, and used in part")]
mod instance;

use std::{env, path::PathBuf, sync::Mutex};

use anyhow::Context;
use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use instance::{Instance, LiteFs, Role, Route, Settings};

struct App {
    instance: Instance,
    notes: Mutex<Vec<String>>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let variable = |name: &str, fallback: &str| env::var(name).unwrap_or_else(|_| fallback.to_owned());
    let instance = Instance::start(Settings {
        id: variable("FLY_MACHINE_ID", "local").parse().context("FLY_MACHINE_ID")?,
        region: variable("FLY_REGION", "local").parse().context("FLY_REGION")?,
        app: env::var("FLY_APP_NAME").ok().map(|name| name.parse()).transpose().context("FLY_APP_NAME")?,
        primary_region: None,
        litefs: env::var("LITEFS_DIR").ok().map(|dir| LiteFs {
            dir: PathBuf::from(dir),
            database: variable("DATABASE_FILENAME", "sqlite.db"),
            url: variable("LITEFS_URL", "http://localhost:20202"),
            consul: None,
        }),
    });
    tokio::spawn(follow(instance.clone()));
    let listener = tokio::net::TcpListener::bind(variable("ADDRESS", "127.0.0.1:8090")).await?;
    println!("Listening at http://{}", listener.local_addr()?);
    let app: &App = Box::leak(Box::new(App { instance, notes: Mutex::default() }));
    let router = Router::new()
        .route("/", get(who))
        .route("/healthcheck", get("OK"))
        .route("/instances", get(instances))
        .route("/notes", post(note))
        .route("/on/{instance}", get(on))
        .with_state(app);
    axum::serve(listener, router).await?;
    Ok(())
}

/// Where a database would be opened to write, and migrated, on becoming primary, and closed on ceasing to be.
async fn follow(instance: Instance) {
    let mut role = instance.watch();
    loop {
        match &*role.borrow_and_update() {
            Ok(Role::Standalone | Role::Primary) => println!("This instance writes."),
            Ok(role) => println!("This instance only reads: {role}."),
            Err(unreachable) => println!("Unknown: {unreachable}."),
        }
        if role.changed().await.is_err() {
            return;
        }
    }
}

async fn who(State(app): State<&App>) -> Result<String, Failure> {
    let role = match app.instance.role() {
        Ok(Role::Replica { primary }) => format!("a replica; the primary is {primary}"),
        Ok(role) => role.to_string(),
        Err(unreachable) => unreachable.to_string(),
    };
    let position = match app.instance.position().await? {
        Some(position) => format!(", at transaction {}", position.txid),
        None => String::new(),
    };
    Ok(format!("{} in {}: {role}{position}\n", app.instance.id(), app.instance.region()))
}

async fn instances(State(app): State<&App>) -> Result<String, Failure> {
    let line = |listed: &instance::Listed| {
        let address = app.instance.private_address(&listed.id).unwrap_or_default();
        format!("{} in {} at {address}\n", listed.id, listed.region)
    };
    Ok(app.instance.instances().await?.iter().map(line).collect())
}

async fn note(State(app): State<&App>, headers: HeaderMap, text: String) -> Response {
    if let Some(elsewhere) = elsewhere(app.instance.route_to_primary(&headers)) {
        return elsewhere;
    }
    let mut notes = app.notes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    notes.push(text);
    format!("{} notes\n", notes.len()).into_response()
}

async fn on(
    State(app): State<&App>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let route = app.instance.route_to(&id.parse()?, &headers);
    Ok(elsewhere(route).unwrap_or_else(|| format!("answered by {}\n", app.instance.id()).into_response()))
}

/// `None`: the request is for this instance.
fn elsewhere(route: Route) -> Option<Response> {
    match route {
        Route::Here => None,
        Route::Replay(replay) => Some((StatusCode::CONFLICT, [replay.header()]).into_response()),
        Route::Nowhere(reason) => {
            Some((StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response())
        }
    }
}

struct Failure(anyhow::Error);

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("{:#}\n", self.0)).into_response()
    }
}
