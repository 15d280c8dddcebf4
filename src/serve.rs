//! Connections: HTTP/1.1, as LiteFS's proxy speaks it to the application, straight over hyper.
//!
//! `axum::serve` does the same for most; it sets no bound to how long a request's head may take, and what it has for
//! HTTP/2 costs each request time and each connection memory (docs/performance.md).

use std::{convert::Infallible, io::ErrorKind, pin::pin, sync::Arc, time::Duration};

use axum::response::Response;
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use rustix::process::{Resource, getrlimit};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

/// The pause where no connection can be taken: all file descriptors are in use, say.
const PAUSE: Duration = Duration::from_millis(100);
/// How often at most the log says that more connections wait.
const REMIND: Duration = Duration::from_mins(1);
/// How many files the process needs besides its connections: the database, LiteFS's API, the other instances'.
const OTHER_FILES: u64 = 256;

/// What a listener's connections may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How many are open at once. Others wait, in the kernel's queue, until one of them is closed.
    open: usize,
    /// How many bytes a request's line and headers may have, and up to twice that where they come at once: `431`. Of
    /// more than a hundred headers hyper says the same.
    head: usize,
    /// How long one may take from one answer to the whole head of the next request. LiteFS's proxy keeps idle
    /// connections for 90 s: whoever closes first loses the request that the other one is just sending.
    next: Duration,
    /// How long what was written may wait until the other side takes it.
    unread: Duration,
}

impl Limits {
    /// For pages: each one that is open is a connection.
    pub(crate) fn pages() -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let open = files.saturating_sub(OTHER_FILES).clamp(64, 16_384);
        Self {
            open: open.try_into().unwrap_or(usize::MAX),
            head: 32 * 1024,
            next: Duration::from_secs(100),
            unread: Duration::from_mins(1),
        }
    }

    /// For the other instances and the operator.
    pub(crate) fn instances() -> Self {
        Self { open: 128, ..Self::pages() }
    }
}

/// What answers the requests.
pub(crate) trait Answer: Clone + Send + Sync + 'static {
    /// Always: what fails is an answer as well.
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Response> + Send;
}

/// Serves until `close`; then takes no more connections, and returns when those that are open have had their answers.
pub(crate) async fn serve(
    listener: TcpListener,
    site: impl Answer,
    limits: Limits,
    close: CancellationToken,
) {
    let open = GracefulShutdown::new();
    let mut places = Places::new(limits.open);
    let mut closing = pin!(close.cancelled());
    loop {
        let (place, stream) = tokio::select! {
            taken = async { (places.next().await, accept(&listener).await) } => taken,
            () = &mut closing => break,
        };
        // An answer is written at once and whole; waiting for more to send with it only delays it.
        let _ = stream.set_nodelay(true);
        // So a stream ends whose reader has stopped reading: the kernel holds what it can, and hyper waits for that.
        #[cfg(target_os = "linux")]
        let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(limits.unread));
        let site = site.clone();
        let service = service_fn(move |request| {
            let site = site.clone();
            async move { Ok::<_, Infallible>(site.answer(request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.next)
            .max_buf_size(limits.head)
            .serve_connection(TokioIo::new(stream), service);
        let connection = open.watch(connection);
        tokio::spawn(async move {
            // What fails here is the other side's connection.
            _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    open.shutdown().await;
}

/// Places for open connections.
struct Places {
    free: Arc<Semaphore>,
    reminded: Option<Instant>,
}

impl Places {
    fn new(number: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(number)), reminded: None }
    }

    async fn next(&mut self) -> OwnedSemaphorePermit {
        if self.free.available_permits() == 0 && self.reminded.is_none_or(|then| then.elapsed() > REMIND) {
            tracing::warn!("As many connections are open as may be; others wait.");
            self.reminded = Some(Instant::now());
        }
        self.free.clone().acquire_owned().await.expect("nobody closes it")
    }
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::{Router, body::Body, routing::get};
    use futures_util::stream;
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        sync::mpsc,
    };

    use super::*;

    /// Longer than any limit here, on a slow machine.
    const PATIENCE: Duration = Duration::from_secs(30);
    const LIMITS: Limits = Limits { open: 2, head: 8192, next: PATIENCE, unread: PATIENCE };

    impl Answer for Router {
        async fn answer(&self, request: Request<Incoming>) -> Response {
            TowerToHyperService::new(self.clone()).call(request).await.unwrap()
        }
    }

    fn start(router: Router, limits: Limits) -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        tokio::spawn(serve(listener, router, limits, CancellationToken::new()));
        address
    }

    fn hello() -> Router {
        Router::new().route("/", get(async || "hello"))
    }

    async fn send(to: SocketAddr, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    /// All that comes until the server closes.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut answer = Vec::new();
        let read = time::timeout(PATIENCE / 2, stream.read_to_end(&mut answer)).await;
        // A reset is an end as well.
        let _ = read.expect("the connection stays open");
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn who_does_not_finish_a_head_or_sends_nothing_is_not_waited_for() {
        let limits = Limits { next: Duration::from_millis(200), ..LIMITS };
        for begun in ["", "GET / HT", "GET / HTTP/1.1\r\nhost: x\r\n", "GET / HTTP/1.1\r\nhost: x\r\n\r\n"] {
            let mut stream = send(start(hello(), limits), begun).await;
            let answer = rest(&mut stream).await;
            assert_eq!(answer.ends_with("hello"), begun.ends_with("\r\n\r\n"), "{begun:?}: {answer}");
        }
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_or_has_too_many_headers_is_refused() {
        let many = "a: b\r\n".repeat(101);
        for headers in [format!("long: {}\r\n", "x".repeat(4 * LIMITS.head)), many] {
            let address = start(hello(), LIMITS);
            let mut stream = send(address, &format!("GET / HTTP/1.1\r\n{headers}\r\n")).await;
            let answer = rest(&mut stream).await;
            assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        }
    }

    #[tokio::test]
    async fn one_connection_too_many_waits_for_a_place() {
        let address = start(hello(), LIMITS);
        let request = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        let mut first = send(address, request).await;
        let mut second = send(address, request).await;
        for open in [&mut first, &mut second] {
            assert_eq!(open.read_u8().await.unwrap(), b'H');
        }
        let mut third = send(address, request).await;
        let early = time::timeout(Duration::from_millis(200), third.read_u8()).await;
        assert!(early.is_err(), "there are two places");

        drop(first);
        assert_eq!(time::timeout(PATIENCE, third.read_u8()).await.unwrap().unwrap(), b'H');
    }

    /// The stream is dropped, so its sender learns of it.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_stream_that_nobody_reads_ends() {
        let (sender, receiver) = mpsc::channel::<Vec<u8>>(1);
        let receiver = Arc::new(std::sync::Mutex::new(Some(receiver)));
        let endless = Router::new().route(
            "/",
            get(async move || {
                let receiver = receiver.lock().unwrap().take().expect("asked once");
                Body::from_stream(stream::unfold(receiver, async |mut receiver| {
                    let chunk = receiver.recv().await?;
                    Some((Ok::<_, std::convert::Infallible>(chunk), receiver))
                }))
            }),
        );
        let address = start(endless, Limits { unread: Duration::from_millis(500), ..LIMITS });
        let _never_reads = send(address, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let fill = async { while sender.send(vec![0; 65_536]).await.is_ok() {} };
        time::timeout(PATIENCE / 2, fill).await.expect("the stream lasts");
    }
}
