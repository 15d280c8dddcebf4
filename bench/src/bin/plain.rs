//! The counter as one would write it with axum and sqlx for a database on a disk: a pool, and a query per request.

use std::{env, path::Path, str::FromStr as _, time::Duration};

use anyhow::Context as _;
use axum::{
    Form, Router,
    extract::State,
    http::StatusCode,
    response::{Html, Redirect},
    routing::get,
};
use serde::Deserialize;
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};
use tokio::{net::TcpListener, time::sleep};

#[derive(Deserialize)]
struct Click {
    intent: String,
}

/// What went wrong, as text for whoever asked.
type Failure = (StatusCode, String);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = SqliteConnectOptions::from_str(&env::var("DATABASE_URL").context("DATABASE_URL")?)?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    let pool = SqlitePool::connect_lazy_with(options);
    // LiteFS starts its child before the node has a role, and only a primary can migrate.
    while let Err(error) = migrate(&pool).await {
        if is_replica() {
            break;
        }
        eprintln!("not yet migrated: {error}");
        sleep(Duration::from_millis(100)).await;
    }
    let router =
        Router::new().route("/", get(page).post(click)).route("/healthcheck", get("OK\n")).with_state(pool);
    let port = env::var("PORT").context("PORT")?;
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    axum::serve(listener, router).await?;
    Ok(())
}

async fn page(State(pool): State<SqlitePool>) -> Result<Html<String>, Failure> {
    let count: i64 = sqlx::query_scalar("select count from counter where id = 1")
        .fetch_one(&pool)
        .await
        .map_err(failure)?;
    Ok(Html(include_str!("plain.html").replace("{count}", &count.to_string())))
}

async fn click(State(pool): State<SqlitePool>, Form(click): Form<Click>) -> Result<Redirect, Failure> {
    let change = match click.intent.as_str() {
        "increment" => 1,
        "decrement" => -1,
        _ => return Err((StatusCode::UNPROCESSABLE_ENTITY, "no such intent".to_owned())),
    };
    sqlx::query("update counter set count = count + ? where id = 1")
        .bind(change)
        .execute(&pool)
        .await
        .map_err(failure)?;
    Ok(Redirect::to("/"))
}

async fn migrate(pool: &SqlitePool) -> Result<(), sqlx::Error> {
    sqlx::query("create table if not exists counter (id integer primary key, count integer not null)")
        .execute(pool)
        .await?;
    sqlx::query("insert or ignore into counter (id, count) values (1, 0)").execute(pool).await?;
    Ok(())
}

fn is_replica() -> bool {
    env::var("LITEFS_DIR").is_ok_and(|dir| Path::new(&dir).join(".primary").exists())
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` hands it over by value")]
fn failure(error: sqlx::Error) -> Failure {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}
