//! Machines on a network of their own. Consul stands for any server; LiteFS and the application are not there.

use std::{
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use devcluster::{
    Options,
    consul::Consul,
    dns::{Dns, Zone},
    edge::{Backend, BackendState},
    machine::{Machine, Plan},
    network::{Fault, Network, Path},
};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RecordType},
};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream, UdpSocket},
    sync::watch,
    time::timeout,
};

/// Nothing takes this long unless it hangs.
const SOON: Duration = Duration::from_secs(10);

/// Long enough for an answer on an idle network, which takes about 1 ms.
const SILENCE: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_finds_another_by_name_and_reaches_it() -> Result<()> {
    let world = World::start().await?;
    let zone = Zone {
        app: "counter".to_owned(),
        backends: watch::channel(Vec::new()).1,
        consul: world.consul.address().into(),
    };
    let _dns = Dns::start(world.network.name_server().into(), zone).await?;
    let machine = world.machine("client").await?;
    let script =
        "exec 3<>/dev/tcp/consul.internal/8500; printf 'GET /v1/status/leader HTTP/1.0\r\n\r\n' >&3; cat <&3";
    let output = timeout(SOON, machine.command("bash").args(["-c", script]).output()).await??;
    let answer = String::from_utf8_lossy(&output.stdout);
    ensure!(answer.contains(&world.consul.address().to_string()), "{output:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_of_200_ms_each_way_is_seen() -> Result<()> {
    let world = World::start().await?;
    let before = Instant::now();
    world.visit().await?;
    let undelayed = before.elapsed();

    let (there, back) = (world.visitor, world.consul.address());
    for (from, to) in [(there, back), (back, there)] {
        world.network.delay(from, to, Duration::from_millis(200));
    }
    let before = Instant::now();
    let mut visit = world.visit().await?;
    let delayed = before.elapsed();
    ensure!(undelayed < Duration::from_millis(100), "undelayed: {undelayed:?}");
    ensure!((400..500).contains(&delayed.as_millis()), "the way there and back: {delayed:?}");

    // 100 KB of packets that are under way together come in order, or TCP would be much slower.
    visit.ask("/v1/agent/metrics?".to_owned() + &"x".repeat(100_000)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_cut_keeps_the_client_waiting_and_heals_with_the_connection_alive() -> Result<()> {
    let world = World::start().await?;
    let mut visit = world.visit().await?;
    visit.ask(LEADER).await?;

    let path = Path::Of(world.consul.address());
    world.network.cut(path, Fault::Silent);
    visit.send(LEADER).await?;
    ensure!(timeout(SILENCE, visit.answer()).await.is_err(), "the connection answers through the cut");
    ensure!(timeout(SILENCE, world.visit()).await.is_err(), "a new connection is not silent");

    world.network.heal(path);
    timeout(SOON, visit.answer()).await.context("the connection did not survive")??;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusing_cut_breaks_connections_at_once() -> Result<()> {
    let world = World::start().await?;
    let mut visit = world.visit().await?;
    visit.ask(LEADER).await?;

    world.network.cut(Path::Of(world.consul.address()), Fault::Refused);
    visit.send(LEADER).await?;
    let broken = timeout(SILENCE, visit.answer()).await.context("the connection is silent")?;
    ensure!(broken.is_err(), "the connection answers through the cut");
    let refused = timeout(SILENCE, world.visit()).await.context("a new connection is silent")?;
    ensure!(refused.is_err(), "a new connection is made through the cut");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_way_cut_stops_that_way_only() -> Result<()> {
    let world = World::start().await?;
    let mut visit = world.visit().await?;
    visit.ask(LEADER).await?;
    // Answers do not come back, and other addresses are not concerned.
    world.network.cut(Path::OneWay(world.consul.address(), world.visitor), Fault::Silent);
    visit.send(LEADER).await?;
    ensure!(timeout(SILENCE, visit.answer()).await.is_err(), "the answer came through the cut");
    let other = world.network.new_host_address().await?;
    world.visit_from(other).await?.ask(LEADER).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_observer_sees_a_machine_that_is_cut_off() -> Result<()> {
    let world = World::start().await?;
    world.network.cut(Path::Of(world.consul.address()), Fault::Silent);
    world.visit_from(world.network.observer()).await?.ask(LEADER).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn dns_lists_the_instances_that_are_up_by_udp_and_by_tcp() -> Result<()> {
    let network = Network::start().await?;
    let (backends, receiver) = watch::channel(Vec::new());
    let address = network.new_address();
    let zone = Zone { app: "counter".to_owned(), backends: receiver, consul: address.into() };
    let _dns = Dns::start(network.name_server().into(), zone).await?;
    let resolver = Resolver(network.name_server());

    let (name, aaaa) = ("ams-1.vm.counter.internal", RecordType::AAAA);
    ensure!(resolver.udp(name, aaaa).await? == (ResponseCode::NXDomain, vec![]));
    backends.send_replace(vec![Backend {
        id: "ams-1".to_owned(),
        region: "ams".to_owned(),
        address: (address, 8080).into(),
        state: BackendState::Started,
    }]);
    let found = |text: &str| (ResponseCode::NoError, vec![text.to_owned()]);
    ensure!(resolver.udp(name, aaaa).await? == found(&address.to_string()));
    ensure!(resolver.tcp(name, aaaa).await? == found(&address.to_string()));
    ensure!(resolver.udp("VMS.counter.internal", RecordType::TXT).await? == found("ams-1 ams"));
    // It exists, with no such record: not the same as a name that does not exist.
    ensure!(resolver.udp(name, RecordType::A).await? == (ResponseCode::NoError, vec![]));

    backends.send_replace(Vec::new());
    ensure!(resolver.udp(name, aaaa).await? == (ResponseCode::NXDomain, vec![]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_cannot_write_to_the_host_but_to_its_volume() -> Result<()> {
    let world = World::start().await?;
    let (file, volume) = (world.directory.path().join("file"), world.directory.path().join("volume"));
    std::fs::write(&file, "the host's")?;
    std::fs::create_dir(&volume)?;
    let files = vec![(file.clone(), "/etc/file".into()), (volume.clone(), "/var/lib/volume".into())];
    let machine = world.machine_with("client", files).await?;
    let writes = |path: &str| {
        let script = format!("echo changed >{path} && hostname");
        let mut command = machine.command("sh");
        command.args(["-c", &script]);
        async move { anyhow::Ok(command.output().await?.status.success()) }
    };
    ensure!(!writes("/etc/file").await? && std::fs::read_to_string(&file)? == "the host's");
    ensure!(!writes("/usr/lib/file").await?);
    ensure!(writes("/var/lib/volume/file").await?);
    ensure!(std::fs::read_to_string(volume.join("file"))? == "changed\n");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_process_does_not_hold_up_its_machine_s_end() -> Result<()> {
    let world = World::start().await?;
    let machine = world.machine("client").await?;
    let mut command = machine.command("sleep").arg("60").spawn()?;
    let started = Instant::now();
    while machine.signal("sleep", Signal::STOP).is_err() {
        ensure!(started.elapsed() < SOON, "sleep does not run: {:?}", machine.processes());
        tokio::task::yield_now().await;
    }
    timeout(SOON, machine.end()).await.context("the machine does not end")?;
    timeout(SOON, command.wait()).await.context("the command does not end")??;
    ensure!(machine.processes().is_empty());
    Ok(())
}

const LEADER: &str = "/v1/status/leader";

/// A network with Consul on a machine, and an address of the host to visit it from.
struct World {
    consul: Consul,
    visitor: Ipv6Addr,
    network: Arc<Network>,
    directory: TempDir,
}

impl World {
    async fn start() -> Result<World> {
        let directory = TempDir::new()?;
        let network = Arc::new(Network::start().await?);
        let visitor = network.new_host_address().await?;
        let http = reqwest::Client::builder().no_proxy().timeout(SOON).build()?;
        let consul =
            Consul::new(Options::default().consul, directory.path().join("consul"), network.clone(), http);
        consul.start().await?;
        Ok(World { consul, visitor, network, directory })
    }

    async fn machine(&self, name: &str) -> Result<Machine> {
        self.machine_with(name, Vec::new()).await
    }

    async fn machine_with(&self, name: &str, files: Vec<(PathBuf, PathBuf)>) -> Result<Machine> {
        let plan = Plan {
            name: name.to_owned(),
            address: self.network.new_address(),
            files,
            environment: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            directory: self.directory.path().join(name),
        };
        Machine::start(plan, &self.network).await
    }

    async fn visit(&self) -> Result<Visit> {
        self.visit_from(self.visitor).await
    }

    async fn visit_from(&self, source: Ipv6Addr) -> Result<Visit> {
        let socket = TcpSocket::new_v6()?;
        socket.bind((source, 0).into())?;
        Ok(Visit(socket.connect((self.consul.address(), 8500).into()).await?))
    }
}

/// A connection to Consul.
struct Visit(TcpStream);

impl Visit {
    async fn ask(&mut self, path: impl AsRef<str>) -> Result<()> {
        self.send(path.as_ref()).await?;
        timeout(SOON, self.answer()).await.context("no answer")?
    }

    async fn send(&mut self, path: &str) -> Result<()> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: consul\r\n\r\n");
        Ok(self.0.write_all(request.as_bytes()).await?)
    }

    /// Returns when a first part of the answer is there.
    async fn answer(&mut self) -> Result<()> {
        ensure!(self.0.read(&mut [0; 4096]).await? > 0, "the connection was closed");
        Ok(())
    }
}

/// Asks the name server at this address.
struct Resolver(Ipv6Addr);

impl Resolver {
    async fn udp(&self, name: &str, kind: RecordType) -> Result<(ResponseCode, Vec<String>)> {
        let socket = UdpSocket::bind((IpAddr::from(self.0), 0)).await?;
        socket.send_to(&question(name, kind)?, (self.0, 53)).await?;
        let mut buffer = [0; 512];
        let length = timeout(SOON, socket.recv(&mut buffer)).await??;
        read(&buffer[..length])
    }

    async fn tcp(&self, name: &str, kind: RecordType) -> Result<(ResponseCode, Vec<String>)> {
        let mut stream = TcpStream::connect((self.0, 53)).await?;
        let question = question(name, kind)?;
        stream.write_u16(question.len().try_into()?).await?;
        stream.write_all(&question).await?;
        let mut buffer = vec![0; timeout(SOON, stream.read_u16()).await??.into()];
        stream.read_exact(&mut buffer).await?;
        read(&buffer)
    }
}

fn question(name: &str, kind: RecordType) -> Result<Vec<u8>> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name)?, kind));
    Ok(message.to_vec()?)
}

fn read(answer: &[u8]) -> Result<(ResponseCode, Vec<String>)> {
    let answer = Message::from_vec(answer)?;
    ensure!(answer.metadata.id == 7);
    let data = answer.answers.iter().map(|record| record.data.to_string()).collect();
    Ok((answer.metadata.response_code, data))
}
