//! What happens to a packet: it goes on, now or later, or not at all.

use std::{
    collections::HashMap,
    io,
    net::Ipv6Addr,
    sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, Instant},
};

use tun_rs::AsyncDevice;

use super::{Fault, MTU, Path, delay::DelayLine, packet};

/// Shared by the tasks that read from the interfaces.
pub struct Router {
    /// Out of reach of [`Path::Of`].
    pub observer: Ipv6Addr,
    devices: Arc<Devices>,
    /// From, to; none is no delay.
    delays: RwLock<HashMap<(Ipv6Addr, Ipv6Addr), Duration>>,
    faults: RwLock<Vec<(Path, Fault)>>,
    delayed: DelayLine,
}

/// The interface behind which an address is.
#[derive(Default)]
struct Devices(RwLock<HashMap<Ipv6Addr, Arc<AsyncDevice>>>);

impl Devices {
    /// Does not block: the kernel takes a packet, or drops it. Where nobody has the address it is lost, as behind a
    /// machine that has no power.
    fn deliver(&self, to: Ipv6Addr, packet: &[u8]) {
        let device = read(&self.0).get(&to).cloned();
        if let Some(device) = device
            && let Err(error) = device.try_send(packet)
        {
            tracing::trace!(%to, %error, "a packet was lost");
        }
    }
}

impl Router {
    pub fn start(observer: Ipv6Addr) -> io::Result<Router> {
        let devices = Arc::<Devices>::default();
        let delayed = DelayLine::start({
            let devices = devices.clone();
            move |to, packet| devices.deliver(to, packet)
        })?;
        Ok(Router { observer, devices, delays: RwLock::default(), faults: RwLock::default(), delayed })
    }

    /// Takes an address's packets to this interface from now on.
    pub fn connect(&self, address: Ipv6Addr, device: Arc<AsyncDevice>) {
        write(&self.devices.0).insert(address, device);
    }

    pub fn set_delay(&self, from: Ipv6Addr, to: Ipv6Addr, delay: Duration) {
        write(&self.delays).insert((from, to), delay);
    }

    pub fn set_fault(&self, path: Path, fault: Option<Fault>) {
        let mut faults = write(&self.faults);
        faults.retain(|(known, _)| *known != path);
        faults.extend(fault.map(|fault| (path, fault)));
    }

    /// Forwards what comes from one interface, until the interface is gone.
    pub async fn forward_from(self: Arc<Router>, device: Arc<AsyncDevice>) {
        let mut last_due = HashMap::new();
        let mut buffer = vec![0; usize::from(MTU)];
        while let Ok(length) = device.recv(&mut buffer).await {
            let packet = &buffer[..length];
            let Some(way @ (from, to)) = packet::addresses(packet) else { continue };
            match self.fault(from, to) {
                None => {}
                Some(Fault::Silent) => continue,
                Some(Fault::Refused) => {
                    if let Some(reset) = packet::reset(packet) {
                        self.devices.deliver(from, &reset);
                    }
                    continue;
                }
            }
            let delay = read(&self.delays).get(&way).copied().unwrap_or_default();
            // A packet does not overtake those that were sent before the delay was changed.
            let now = Instant::now();
            let due = last_due.get(&way).copied().unwrap_or(now).max(now + delay);
            if due > now {
                last_due.insert(way, due);
                self.delayed.send(due, to, packet.to_vec());
            } else {
                self.devices.deliver(to, packet);
            }
        }
        write(&self.devices.0).retain(|_, known| !Arc::ptr_eq(known, &device));
    }

    fn fault(&self, from: Ipv6Addr, to: Ipv6Addr) -> Option<Fault> {
        let concerned = |path: Path| match path {
            Path::OneWay(source, destination) => (source, destination) == (from, to),
            Path::Of(machine) => {
                (machine == from || machine == to) && from != self.observer && to != self.observer
            }
        };
        read(&self.faults).iter().find_map(|(path, fault)| concerned(*path).then_some(*fault))
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().expect("nothing panics while it holds the lock")
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().expect("nothing panics while it holds the lock")
}
