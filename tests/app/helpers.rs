//! One application, really started, on a free port, with a database of its own.

use std::{path::PathBuf, time::Duration};

use clap::Parser;
use litefs_counter::{Server, config::Config};
use reqwest::{Client, Response, StatusCode, redirect::Policy};
use sqlx::{Connection, SqliteConnection};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// No answer takes this long unless it hangs.
const LONGEST: Duration = Duration::from_secs(30);

pub struct App {
    /// `http://127.0.0.1:PORT`
    pub url: String,
    pub private_url: Option<String>,
    /// Follows no redirect, so that each answer is seen.
    pub client: Client,
    folder: TempDir,
    stop: CancellationToken,
    serving: JoinHandle<anyhow::Result<()>>,
}

impl App {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub async fn start_with(flags: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), flags).await
    }

    pub async fn start_in(folder: TempDir, flags: &[&str]) -> Self {
        let database = format!("sqlite://{}", database_in(&folder).display());
        let always = ["litefs-counter", "--port", "0", "--database-url", &database];
        let config = Config::parse_from(always.iter().chain(flags));
        let server = Server::bind(&config).await.unwrap();
        let url = format!("http://{}", server.address().unwrap());
        let private_url = server.private_address().map(|address| format!("http://{address}"));
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server.run(stop.clone()));
        let client = Client::builder().redirect(Policy::none()).timeout(LONGEST).build().unwrap();
        Self { url, private_url, client, folder, stop, serving }
    }

    /// Stops in order, and hands back the folder with the database.
    pub async fn stop(self) -> TempDir {
        self.stop.cancel();
        self.serving.await.unwrap().unwrap();
        self.folder
    }

    pub fn database(&self) -> PathBuf {
        database_in(&self.folder)
    }

    /// A connection beside the application's own, for what no visitor can bring about.
    pub async fn sql(&self, statement: &'static str) {
        // The page answers only once the migrations are through.
        self.count().await;
        let url = format!("sqlite://{}", self.database().display());
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        sqlx::query(statement).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    pub async fn page(&self) -> Response {
        self.client.get(&self.url).send().await.unwrap()
    }

    /// The count as a visitor reads it on the page.
    pub async fn count(&self) -> i64 {
        let response = self.page().await;
        assert_eq!(response.status(), StatusCode::OK);
        count_on(&response.text().await.unwrap())
    }

    pub async fn click(&self, intent: &str) -> Response {
        self.post(format!("intent={intent}")).await
    }

    pub async fn post(&self, form: impl Into<reqwest::Body>) -> Response {
        let post = self.client.post(&self.url).header("content-type", "application/x-www-form-urlencoded");
        post.body(form).send().await.unwrap()
    }
}

pub fn count_on(page: &str) -> i64 {
    let (_, rest) = page.split_once(r#"<output id="count""#).expect("a page without a count");
    let (_, rest) = rest.split_once('>').unwrap();
    rest.split_once("</output>").unwrap().0.replace('−', "-").parse().unwrap()
}

fn database_in(folder: &TempDir) -> PathBuf {
    folder.path().join("data/sqlite.db")
}
