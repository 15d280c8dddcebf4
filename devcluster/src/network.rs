//! The private network between the machines, as Fly's 6PN: a router in this process.
//!
//! Each machine has one TUN interface, and so has the host. Their other ends are file descriptors of this process,
//! which reads a packet from one and writes it to another. So a packet can be delayed or thrown away with nothing
//! asked of the kernel, whose `netem` is not everywhere; and when the process ends, all interfaces go.

mod delay;
mod packet;
mod router;

use std::{
    hash::{BuildHasher as _, RandomState},
    net::Ipv6Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tokio::{process::Command, task::JoinSet};
use tun_rs::{AsyncDevice, DeviceBuilder};

use router::Router;

/// Large, because the router's work is per packet; the greatest IPv6 packet has 65,575 bytes.
const MTU: u16 = 65_000;

/// The last 16 bits of the first address that [`Network::new_address`] hands out.
const FIRST_HOST: u16 = 0x10;

/// A network of its own, with a random `/48` in Fly's `fdaa::/16`. Dropping it takes all its interfaces away.
///
/// The packets travel in tasks of the Tokio runtime that it was started on: what blocks that runtime's threads
/// stops the network.
pub struct Network {
    prefix: Ipv6Addr,
    interface: String,
    host: Arc<AsyncDevice>,
    next_host: AtomicU16,
    router: Arc<Router>,
    readers: Mutex<JoinSet<()>>,
}

/// Which packets are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// To and from one machine, except to and from [`Network::observer`].
    Of(Ipv6Addr),
    /// From the first machine to the second, and not back.
    OneWay(Ipv6Addr, Ipv6Addr),
}

/// What becomes of packets that do not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// They vanish. The sender waits.
    Silent,
    /// TCP is answered with a reset, as where nothing listens; the rest vanishes.
    Refused,
}

impl Network {
    /// Makes the host's interface, which needs root.
    pub async fn start() -> Result<Network> {
        let random = RandomState::new().hash_one(()).to_be_bytes();
        let [high, low] = [[random[0], random[1]], [random[2], random[3]]].map(u16::from_be_bytes);
        let prefix = Ipv6Addr::new(0xfdaa, high, low, 0, 0, 0, 0, 0);
        let interface = format!("lfc{high:04x}{low:04x}");
        let host = tun(DeviceBuilder::new().name(&interface))?;
        // Containers often come with IPv6 switched off. Where this cannot be written, it may well be on.
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), "0");
        ip(&format!("link set {interface} up")).await?;

        let observer = address(prefix, 1);
        ip(&format!("address add {observer}/48 dev {interface} nodad")).await?;
        let network = Network {
            prefix,
            interface,
            host: host.clone(),
            next_host: AtomicU16::new(FIRST_HOST),
            router: Arc::new(Router::start(observer)?),
            readers: Mutex::default(),
        };
        network.plug(observer, host);
        network.add_host_address(network.name_server()).await?;
        Ok(network)
    }

    /// The address from which the host speaks unless told otherwise. No [`Path::Of`] separates it from a machine,
    /// so that tests see what a machine says that is cut off.
    #[must_use]
    pub fn observer(&self) -> Ipv6Addr {
        self.router.observer
    }

    /// The host's address for DNS; Fly's is `fdaa::3`.
    #[must_use]
    pub fn name_server(&self) -> Ipv6Addr {
        address(self.prefix, 3)
    }

    /// An address that nobody has.
    #[must_use]
    pub fn new_address(&self) -> Ipv6Addr {
        address(self.prefix, self.next_host.fetch_add(1, Ordering::Relaxed))
    }

    /// One more address for the host, from which it speaks only where it is told to.
    pub async fn new_host_address(&self) -> Result<Ipv6Addr> {
        let address = self.new_address();
        self.add_host_address(address).await?;
        Ok(address)
    }

    /// Gives the network namespace of the process `pid` an interface `eth0`, behind which `address` is.
    pub async fn attach(&self, pid: u32, address: Ipv6Addr) -> Result<()> {
        let device = tun(DeviceBuilder::new())?;
        ip(&format!("link set {} netns {pid} name eth0", device.name()?)).await?;
        self.plug(address, device);
        Ok(())
    }

    /// How long packets from one address to another are on their way; they keep their order.
    pub fn delay(&self, from: Ipv6Addr, to: Ipv6Addr, delay: Duration) {
        self.router.set_delay(from, to, delay);
    }

    /// Stops packets until [`Network::heal`].
    pub fn cut(&self, path: Path, fault: Fault) {
        self.router.set_fault(path, Some(fault));
    }

    /// Stops packets between two machines, both ways.
    pub fn cut_between(&self, a: Ipv6Addr, b: Ipv6Addr, fault: Fault) {
        self.cut(Path::OneWay(a, b), fault);
        self.cut(Path::OneWay(b, a), fault);
    }

    /// Undoes [`Network::cut`] of the same path.
    pub fn heal(&self, path: Path) {
        self.router.set_fault(path, None);
    }

    /// Undoes [`Network::cut_between`].
    pub fn heal_between(&self, a: Ipv6Addr, b: Ipv6Addr) {
        self.heal(Path::OneWay(a, b));
        self.heal(Path::OneWay(b, a));
    }

    /// `preferred_lft 0`: the kernel does not choose this address by itself.
    async fn add_host_address(&self, address: Ipv6Addr) -> Result<()> {
        ip(&format!("address add {address}/128 dev {} nodad preferred_lft 0", self.interface)).await?;
        self.router.connect(address, self.host.clone());
        Ok(())
    }

    fn plug(&self, address: Ipv6Addr, device: Arc<AsyncDevice>) {
        self.router.connect(address, device.clone());
        let mut readers = self.readers.lock().expect("nothing panics while it holds the lock");
        // Those that ended with their interface.
        while readers.try_join_next().is_some() {}
        readers.spawn(self.router.clone().forward_from(device));
    }
}

/// A TUN interface that exists as long as its descriptor is open, still down.
fn tun(builder: DeviceBuilder) -> Result<Arc<AsyncDevice>> {
    let device = builder.mtu(MTU).enable(false).build_async().context(
        "cannot make a TUN interface; that needs root, the kernel's module `tun` and the device /dev/net/tun \
         (mknod /dev/net/tun c 10 200)",
    )?;
    Ok(Arc::new(device))
}

async fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip").args(arguments.split(' ')).output().await;
    let output = output.context("cannot run `ip`, which is of Debian's package iproute2")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`ip {arguments}`: {}", complaint.trim());
    Ok(())
}

fn address(prefix: Ipv6Addr, host: u16) -> Ipv6Addr {
    let [a, b, c, ..] = prefix.segments();
    Ipv6Addr::new(a, b, c, 0, 0, 0, 0, host)
}
