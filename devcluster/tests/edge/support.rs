//! Instances that misbehave on demand, and an edge in front of them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use axum::{
    Router,
    body::{Bytes, to_bytes},
    extract::Request,
    http::{HeaderMap, HeaderName, Method, StatusCode, Uri},
};
use devcluster::edge::{Backend, BackendState, Edge, Entry};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    time::timeout,
};

/// Nothing in these tests takes this long unless it hangs.
pub const SOON: Duration = Duration::from_secs(10);

/// An entry in Los Angeles, where no instance runs, that gives up soon.
pub struct Entrance {
    pub edge: Edge,
    pub backends: watch::Sender<Vec<Backend>>,
    pub client: reqwest::Client,
}

impl Entrance {
    pub async fn to(backends: impl Into<Vec<Backend>>) -> Entrance {
        Entrance::start(None, Duration::from_millis(400), backends.into()).await
    }

    pub async fn with_patience(patience: Duration, backends: impl Into<Vec<Backend>>) -> Entrance {
        Entrance::start(None, patience, backends.into()).await
    }

    pub async fn from_source(source: IpAddr, backends: impl Into<Vec<Backend>>) -> Entrance {
        Entrance::start(Some(source), SOON, backends.into()).await
    }

    async fn start(source: Option<IpAddr>, patience: Duration, backends: Vec<Backend>) -> Entrance {
        let (sender, receiver) = watch::channel(backends);
        let entry = Entry {
            region: "lax".to_owned(),
            listen: ([127, 0, 0, 1], 0).into(),
            source,
            app: "counter".to_owned(),
            backends: receiver,
            patience,
        };
        let edge = Edge::start(entry).await.expect("a free port");
        let client = reqwest::Client::builder().timeout(SOON).build().expect("a client");
        Entrance { edge, backends: sender, client }
    }

    pub fn request(&self, method: Method, target: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("http://{}{target}", self.edge.address()))
    }

    pub fn get(&self, target: &str) -> reqwest::RequestBuilder {
        self.request(Method::GET, target)
    }

    pub fn post(&self, target: &str) -> reqwest::RequestBuilder {
        self.request(Method::POST, target)
    }

    /// A connection to write whatever bytes to.
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.edge.address()).await.expect("the edge listens")
    }
}

/// What an instance was asked, as [`echo`] tells it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Seen {
    pub instance: String,
    pub method: String,
    pub target: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Seen {
    /// The value of a header; empty if it did not come. Lines of the same name are joined by a bar.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Sends a request that has to be answered by an [`echo`].
pub async fn seen(request: reqwest::RequestBuilder) -> Seen {
    let response = request.send().await.expect("an answer");
    let status = response.status();
    let text = response.text().await.expect("a whole answer");
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: {text}"))
}

/// Sends a request that has to fail in the edge.
pub async fn failure(request: reqwest::RequestBuilder) -> (StatusCode, String) {
    let response = request.send().await.expect("an answer");
    assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    (response.status(), response.text().await.expect("a whole answer"))
}

pub fn backend(id: &str, region: &str, address: SocketAddr) -> Backend {
    Backend { id: id.to_owned(), region: region.to_owned(), address, state: BackendState::Started }
}

/// An instance that runs this application.
pub async fn instance(id: &str, region: &str, application: Router) -> Backend {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, application).await });
    backend(id, region, address)
}

/// An instance that answers with what it was asked.
pub async fn echo(id: &str, region: &str) -> Backend {
    instance(id, region, echoing(id)).await
}

pub fn echoing(id: &str) -> Router {
    let instance = id.to_owned();
    Router::new().fallback(async move |method: Method, uri: Uri, headers: HeaderMap, request: Request| {
        let body = to_bytes(request.into_body(), usize::MAX).await.unwrap_or_default();
        let text = |name: &HeaderName| {
            let values = headers.get_all(name).iter();
            values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect::<Vec<_>>().join("|")
        };
        let seen = Seen {
            instance,
            method: method.to_string(),
            target: uri.to_string(),
            headers: headers.keys().map(|name| (name.to_string(), text(name))).collect(),
            body: String::from_utf8_lossy(&body).into_owned(),
        };
        serde_json::to_string(&seen).expect("text")
    })
}

/// An instance that answers everything with this `fly-replay`, once it has read the request.
pub async fn replayer(id: &str, region: &str, replay: &'static str) -> Backend {
    let answer = async move |_: Bytes| ([("fly-replay", replay)], "");
    instance(id, region, Router::new().fallback(answer)).await
}

/// An instance whose connections the test itself answers.
pub struct Puppet(TcpListener);

impl Puppet {
    pub async fn new(id: &str, region: &str) -> (Puppet, Backend) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        (Puppet(listener), backend(id, region, address))
    }

    /// The next connection, and the head of the request on it.
    pub async fn accept(&self) -> (TcpStream, String) {
        let (mut stream, _) = timeout(SOON, self.0.accept()).await.expect("a request").expect("a connection");
        let head = read_until(&mut stream, "\r\n\r\n").await;
        (stream, head)
    }
}

/// Reads until the text ends in `end`, or until the other side closes.
pub async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    let reading = async {
        while !read.ends_with(end.as_bytes()) {
            match stream.read_u8().await {
                Ok(byte) => read.push(byte),
                Err(_) => break,
            }
        }
    };
    let in_time = timeout(SOON, reading).await;
    let text = String::from_utf8_lossy(&read).into_owned();
    assert!(in_time.is_ok(), "waited for {end:?}, got {text:?}");
    text
}

/// Whether the other side closes the connection soon, whatever it sends before.
pub async fn closes(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    // A reset is an error, and closes it as well.
    timeout(SOON, stream.read_to_end(&mut rest)).await.is_ok()
}

pub async fn write(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.expect("an open connection");
}

/// An instance whose port is closed.
pub async fn refusing(id: &str, region: &str) -> Backend {
    let (_, backend) = Puppet::new(id, region).await;
    backend
}

/// An instance whose network swallows everything: its queue of new connections is full. Keep what comes with it.
pub async fn swallowing(id: &str, region: &str) -> (Backend, (TcpListener, Vec<TcpStream>)) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let listener = socket.listen(1).expect("to listen");
    let address = listener.local_addr().expect("an address");
    let mut queue = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(100), TcpStream::connect(address)).await {
        queue.push(stream.expect("a place in the queue"));
    }
    (backend(id, region, address), (listener, queue))
}
