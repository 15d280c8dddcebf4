//! LiteFS's API, spoken by the test: for changes of role at a moment of its choosing. The database is a plain file.
//! Real LiteFS is what the cluster's tests run.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Json, Router, body::Body, extract::State, routing::get};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// What LiteFS says of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    Primary,
    ReplicaOf(&'static str),
    NoPrimary,
    /// Nothing at all: it hangs.
    Nothing,
}

pub struct LiteFs {
    pub url: String,
    says: watch::Sender<Says>,
    applied: watch::Sender<&'static str>,
    measured: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl LiteFs {
    pub async fn start(says: Says) -> Self {
        let ((says, heard), (applied, is_applied)) = (watch::channel(says), watch::channel(""));
        let measured = Arc::new(AtomicUsize::new(0));
        let metrics = measured.clone();
        let router = Router::new()
            .route("/info", get(info))
            .route("/debug/vars", get(vars))
            .route("/events", get(events))
            .route("/metrics", get(async move || lag(&metrics)))
            .with_state((heard, is_applied));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, says, applied, measured, serving }
    }

    pub fn say(&self, says: Says) {
        self.says.send_replace(says);
    }

    /// A transaction has come from the primary: its TXID and checksum.
    pub fn apply(&self, position: &'static str) {
        self.applied.send_replace(position);
    }

    /// How often it was asked for its metrics, which only those who look at the status want.
    pub fn measured(&self) -> usize {
        self.measured.load(Ordering::SeqCst)
    }

    /// As when its process is killed.
    pub async fn die(self) {
        self.serving.abort();
        let _ = self.serving.await;
        drop(self.says);
    }
}

type Heard = (watch::Receiver<Says>, watch::Receiver<&'static str>);

fn lease(says: Says) -> Value {
    match says {
        Says::Primary => json!({"isPrimary": true}),
        Says::ReplicaOf(primary) => json!({"isPrimary": false, "hostname": primary}),
        Says::NoPrimary | Says::Nothing => json!({"isPrimary": false}),
    }
}

async fn info(State((says, _)): State<Heard>) -> Json<Value> {
    let says = *says.borrow();
    if says == Says::Nothing {
        std::future::pending::<()>().await;
    }
    let lease = lease(says);
    Json(
        json!({"isPrimary": lease["isPrimary"], "primary": {"hostname": lease["hostname"].as_str().unwrap_or("")}}),
    )
}

async fn vars(heard: State<Heard>) -> Json<Value> {
    let Json(info) = info(heard).await;
    Json(json!({"store": {"isPrimary": info["isPrimary"], "candidate": true, "dbs": {}}}))
}

fn lag(measured: &AtomicUsize) -> &'static str {
    measured.fetch_add(1, Ordering::SeqCst);
    "litefs_lag_seconds 0.25\n"
}

async fn events(State((mut says, mut applied)): State<Heard>) -> Body {
    let (mut writer, reader) = tokio::io::duplex(4096);
    tokio::spawn(async move {
        let mut r#type = "init";
        loop {
            let now = *says.borrow_and_update();
            let mut lines = Vec::new();
            if now != Says::Nothing {
                lines.push(json!({"type": r#type, "data": lease(now)}).to_string());
                r#type = "primaryChange";
            }
            if let Some((txid, checksum)) = applied.borrow_and_update().split_once('/') {
                let data = json!({"txID": txid, "postApplyChecksum": checksum});
                lines.push(json!({"type": "tx", "db": "sqlite.db", "data": data}).to_string());
            }
            let lines: String = lines.into_iter().flat_map(|line| [line, "\n".to_owned()]).collect();
            if tokio::io::AsyncWriteExt::write_all(&mut writer, lines.as_bytes()).await.is_err() {
                return;
            }
            let changed = tokio::select! {
                changed = says.changed() => changed,
                changed = applied.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    });
    Body::from_stream(tokio_util::io::ReaderStream::new(reader))
}

/// What a change of role takes to arrive, at most, on a busy machine.
pub const SOON: Duration = Duration::from_secs(15);
