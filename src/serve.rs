//! Connections: HTTP/1.1, as LiteFS's proxy speaks it to the application, straight over hyper.
//!
//! `axum::serve` does the same for most; it sets no bound to how long a request's head may take, and what it has for
//! HTTP/2 costs each request time and each connection memory (docs/performance.md).

use std::{io::ErrorKind, pin::pin, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time,
};
use tokio_util::sync::CancellationToken;

/// How long a connection may take from one answer to the whole head of the next request. LiteFS's proxy keeps idle
/// connections for 90 s: whoever closes first loses the request that the other one is just sending.
const HEAD: Duration = Duration::from_secs(100);
/// The pause where no connection can be taken: all file descriptors are in use, say.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `close`; then takes no more connections, and returns when those that are open have had their answers.
pub(crate) async fn serve(listener: TcpListener, router: Router, close: CancellationToken) {
    let (open, service) = (GracefulShutdown::new(), TowerToHyperService::new(router));
    let mut closing = pin!(close.cancelled());
    loop {
        let stream = tokio::select! {
            stream = accept(&listener) => stream,
            () = &mut closing => break,
        };
        // An answer is written at once and whole; waiting for more to send with it only delays it.
        let _ = stream.set_nodelay(true);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .serve_connection(TokioIo::new(stream), service.clone());
        let connection = open.watch(connection);
        // What fails here is the other side's connection.
        tokio::spawn(async move { _ = connection.await });
    }
    drop(listener);
    open.shutdown().await;
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // It was gone before it was taken.
            Err(error)
                if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            Err(error) => {
                tracing::error!(%error, "No connection can be taken.");
                time::sleep(PAUSE).await;
            }
        }
    }
}
