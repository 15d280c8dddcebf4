//! Where a server runs while it is measured: on a plain file, or in a cluster with LiteFS.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use devcluster::{Cluster, Options, instance::Instance, status::Role};
use tokio::{
    process::{Child, Command},
    time::sleep,
};

use crate::{process, server::Server};

/// How long a server may take to answer first.
const START: Duration = Duration::from_secs(20);
/// Between two tries to get an answer.
const TRY: Duration = Duration::from_millis(1);

/// Which of a server's processes is asked, and on what way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// SQLite without LiteFS.
    PlainFile,
    /// The primary's application, past LiteFS's proxy.
    Primary,
    /// A replica's application, past LiteFS's proxy.
    Replica,
    /// The primary's, through LiteFS's proxy.
    Proxy,
}

impl Place {
    pub const ALL: [Self; 4] = [Self::PlainFile, Self::Primary, Self::Replica, Self::Proxy];

    /// In tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::PlainFile => "plain file",
            Self::Primary => "LiteFS, primary",
            Self::Replica => "LiteFS, replica",
            Self::Proxy => "behind LiteFS's proxy",
        }
    }
}

/// What is measured.
pub struct Target {
    /// Where wrk finds it.
    pub url: String,
    /// The process whose network namespace wrk runs in.
    pub within: Option<u32>,
    /// The server's process.
    pub server: u32,
    /// LiteFS's, where there is one.
    pub litefs: Option<u32>,
    /// Where this process finds its page, which shows the count.
    pub page: String,
}

impl Target {
    /// All whose work is part of an answer.
    pub fn processes(&self) -> Vec<u32> {
        [Some(self.server), self.litefs].into_iter().flatten().collect()
    }
}

/// A server on a plain file. Dropping it kills it.
pub struct PlainFile {
    child: Child,
    port: u16,
    /// From its start until it had answered a request.
    pub first_answer: Duration,
}

impl PlainFile {
    /// Starts it with a new database in `folder`.
    pub async fn start(server: &Server, folder: &Path) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let log = File::create(folder.join("log"))?;
        let mut command = Command::new(&server.program);
        command
            .env_remove("LITEFS_DIR")
            .env("PORT", port.to_string())
            .env("DATABASE_URL", format!("sqlite://{}", folder.join("sqlite.db").display()))
            .envs(server.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("cannot start {}", server.program.display()))?;
        while !answers(port) {
            if started.elapsed() > START {
                let log = fs::read_to_string(folder.join("log"))?;
                bail!("{} did not answer within {START:?}:\n{log}", server.name);
            }
            sleep(TRY).await;
        }
        Ok(Self { child, port, first_answer: started.elapsed() })
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    pub fn target(&self, click_path: &str) -> Result<Target> {
        let server = self.child.id().context("it has ended")?;
        let url = format!("http://127.0.0.1:{}{click_path}", self.port);
        Ok(Target { url, within: None, server, litefs: None, page: self.url() })
    }
}

/// A server on two candidates with LiteFS, one of which is primary.
pub struct Replicated {
    cluster: Cluster,
    ports: Ports,
}

/// As the Dockerfile sets them.
struct Ports {
    app: u16,
    proxy: u16,
}

impl Replicated {
    pub async fn start(server: &Server) -> Result<Self> {
        let candidates = ["sjc-1", "sjc-2"];
        let options = Options {
            instances: candidates.map(|id| (id.to_owned(), "sjc".to_owned())).to_vec(),
            // As the other servers have to be started.
            entrypoint: Some(["litefs", "mount"].map(str::to_owned).to_vec()),
            app: server.program.clone(),
            environment: server.environment.clone(),
            files: server.directory.iter().map(|folder| (folder.clone(), folder.clone())).collect(),
            ..Options::default()
        };
        let cluster = Cluster::start(options).await.with_context(|| server.name)?;
        Ok(Self { cluster, ports: Ports { app: 8081, proxy: 8080 } })
    }

    pub async fn target(&self, place: Place, click_path: &str) -> Result<Target> {
        let status = self.cluster.status().await;
        let is_asked = |role: &Role| match place {
            Place::Replica => matches!(role, Role::Replica { .. }),
            _ => *role == Role::Primary,
        };
        let asked = status.iter().find(|status| is_asked(&status.role));
        let asked = asked.with_context(|| format!("no {}: {status:?}", place.name()))?;
        let instance = self.cluster.instance(&asked.id)?;
        let (litefs, server) = processes(instance)?;
        let port = if place == Place::Proxy { self.ports.proxy } else { self.ports.app };
        Ok(Target {
            url: format!("http://127.0.0.1:{port}{click_path}"),
            within: Some(server),
            server,
            litefs: Some(litefs),
            page: instance.url(self.ports.proxy),
        })
    }
}

/// LiteFS's process, and its child's.
pub fn processes(instance: &Arc<Instance>) -> Result<(u32, u32)> {
    let all = instance.processes();
    let litefs = all.iter().find(|process| process.name == "litefs");
    let litefs = litefs.with_context(|| format!("no LiteFS on {}: {all:?}", instance.id()))?.pid;
    let server = all.iter().find(|child| process::parent(child.pid) == Some(litefs));
    Ok((litefs, server.with_context(|| format!("LiteFS has no child: {all:?}"))?.pid))
}

/// Whether a request for the page gets an answer with 200.
fn answers(port: u16) -> bool {
    let ask = || -> Result<()> {
        let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        ensure!(&status == b"HTTP/1.1 200", "not yet");
        Ok(())
    };
    ask().is_ok()
}
