//! Packets that are on their way for a while.
//!
//! In a thread of its own, because Tokio's timers count in milliseconds, and within a region a packet takes half of
//! one.

use std::{
    collections::BTreeMap,
    io,
    net::Ipv6Addr,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

/// How long the thread sleeps at a time while nothing is on its way.
const IDLE: Duration = Duration::from_mins(1);

/// Takes packets now and delivers them later. Dropping it loses those on their way.
pub struct DelayLine(Sender<Travelling>);

struct Travelling {
    due: Instant,
    to: Ipv6Addr,
    packet: Vec<u8>,
}

impl DelayLine {
    /// `deliver` must not block.
    pub fn start(deliver: impl Fn(Ipv6Addr, &[u8]) + Send + 'static) -> io::Result<DelayLine> {
        let (sender, receiver) = mpsc::channel();
        thread::Builder::new().name("delay".to_owned()).spawn(move || run(&receiver, deliver))?;
        Ok(DelayLine(sender))
    }

    /// Packets that are due at the same time keep their order.
    pub fn send(&self, due: Instant, to: Ipv6Addr, packet: Vec<u8>) {
        // The thread ends only after `self`.
        let _ = self.0.send(Travelling { due, to, packet });
    }
}

fn run(packets: &Receiver<Travelling>, deliver: impl Fn(Ipv6Addr, &[u8])) {
    // By time, then by order of arrival.
    let mut queue: BTreeMap<(Instant, u64), (Ipv6Addr, Vec<u8>)> = BTreeMap::new();
    let mut arrived: u64 = 0;
    loop {
        while let Some(first) = queue.first_entry()
            && first.key().0 <= Instant::now()
        {
            let (to, packet) = first.remove();
            deliver(to, &packet);
        }
        let pause = queue
            .first_key_value()
            .map_or(IDLE, |((due, _), _)| due.saturating_duration_since(Instant::now()));
        match packets.recv_timeout(pause) {
            Ok(Travelling { due, to, packet }) => {
                queue.insert((due, arrived), (to, packet));
                arrived += 1;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
