//! Who sends what [`super::requests`] makes, and what became of it.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, interval, sleep_until, timeout},
};

use super::requests::{End, KINDS, Slow, Target};

/// How many attack at once; and how many of them are slow.
const CONNECTIONS: usize = 64;
const SLOW: usize = 24;
/// How long a request that has its answer at once may take, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a slow connection is held, unless it is closed before: longer than LiteFS's proxy waits for a head, and the
/// application for a body.
const HOLD: Duration = Duration::from_secs(12);
/// Between two bytes of a slow connection.
const NOW_AND_THEN: Duration = Duration::from_millis(500);

/// The targets, and what has come of the attack so far.
pub struct Attack {
    pub targets: Vec<(Target, SocketAddr)>,
    pub seed: u64,
    /// Between two quick requests, of all attackers together.
    pub pace: Duration,
    outcomes: Mutex<Outcomes>,
}

/// How often each kind of request had each outcome: a status, or how the connection ended.
pub type Outcomes = BTreeMap<(String, String), usize>;

impl Attack {
    pub fn new(targets: Vec<(Target, SocketAddr)>, seed: u64, pace: Duration) -> Arc<Self> {
        Arc::new(Self { targets, seed, pace, outcomes: Mutex::default() })
    }

    pub fn outcomes(&self) -> Outcomes {
        self.outcomes.lock().unwrap().clone()
    }

    /// Sends the quick requests of these numbers, which make each what it is, from as many connections as there may be
    /// beside the slow ones. The slow ones go on as long.
    pub async fn run(self: &Arc<Self>, numbers: std::ops::Range<usize>) {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut slow = JoinSet::new();
        for number in 0..SLOW {
            let (attack, is_over) = (self.clone(), is_over.clone());
            slow.spawn(async move {
                let mut turn = number;
                while !is_over.load(Ordering::Relaxed) {
                    attack.slow(turn, &is_over).await;
                    turn += SLOW + 1;
                }
            });
        }
        let (began, next) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
        let mut quick = JoinSet::new();
        for _ in SLOW..CONNECTIONS {
            let (attack, next, numbers) = (self.clone(), next.clone(), numbers.clone());
            quick.spawn(async move {
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    if turn >= numbers.len() {
                        return;
                    }
                    sleep_until(began + attack.pace * u32::try_from(turn).unwrap()).await;
                    attack.quick(numbers.start + turn).await;
                }
            });
        }
        quick.join_all().await;
        is_over.store(true, Ordering::Relaxed);
        slow.join_all().await;
    }

    async fn quick(&self, number: usize) {
        let (target, address) = self.targets[number % self.targets.len()];
        let (kind, make) = KINDS[number / self.targets.len() % KINDS.len()];
        let mut rng = Rng::with_seed(self.seed.wrapping_add(u64::try_from(number).unwrap()));
        let request = make(&mut rng, target);
        let outcome = timeout(PATIENCE, send(address, &request.bytes, request.end)).await;
        self.note(kind.to_owned(), outcome.map_or("no end in time".to_owned(), describe));
    }

    async fn slow(&self, number: usize, is_over: &AtomicBool) {
        let (target, address) = self.targets[number % self.targets.len()];
        let slow = Slow::ALL[number / self.targets.len() % Slow::ALL.len()];
        let outcome = timeout(PATIENCE, hold(address, slow, is_over)).await;
        let port = if target.is_proxy { "LiteFS's proxy" } else { "application" };
        self.note(format!("slow: {slow:?}, {port}"), outcome.map_or("no end in time".to_owned(), describe));
    }

    fn note(&self, kind: String, outcome: String) {
        *self.outcomes.lock().unwrap().entry((kind, outcome)).or_default() += 1;
    }
}

/// A narrow line, so that what is large does not fill the queues of the machines' network: where those drop the visitors' packets,
/// it is that network which is measured.
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v6()?;
    socket.set_send_buffer_size(8 * 1024)?;
    socket.connect(address).await
}

async fn send(address: SocketAddr, bytes: &[u8], end: End) -> io::Result<Vec<u8>> {
    let mut stream = connect(address).await?;
    let mut answer = Vec::new();
    // It may be refused before all is sent; what is said to that is still read.
    let sent = stream.write_all(bytes).await;
    match end {
        End::Read => {}
        End::HalfClose => _ = stream.shutdown().await,
        End::Leave => {
            stream.read_buf(&mut answer).await?;
            return Ok(answer);
        }
        End::Reset => {
            stream.set_zero_linger()?;
            return Ok(answer);
        }
    }
    match stream.read_to_end(&mut answer).await {
        Err(error) if answer.is_empty() => Err(sent.err().unwrap_or(error)),
        _ => Ok(answer),
    }
}

/// Until the server closes, or it has lasted long enough.
async fn hold(address: SocketAddr, slow: Slow, is_over: &AtomicBool) -> io::Result<Vec<u8>> {
    let mut stream = connect(address).await?;
    stream.write_all(&slow.begin()).await?;
    if slow == Slow::HalfClosed {
        stream.shutdown().await?;
    }
    let (mut answer, mut is_closed) = (Vec::new(), false);
    let mut pace = interval(NOW_AND_THEN);
    let until = Instant::now() + HOLD;
    while Instant::now() < until && !is_over.load(Ordering::Relaxed) && !is_closed {
        pace.tick().await;
        is_closed = match slow {
            Slow::Head => stream.write_all(b"x").await.is_err(),
            Slow::Body | Slow::KeptBody => stream.write_all(b"&").await.is_err(),
            _ => false,
        };
        if slow != Slow::Unread {
            match stream.try_read_buf(&mut answer) {
                Ok(0) => is_closed = true,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => is_closed = true,
                _ => {}
            }
        }
    }
    if answer.is_empty() {
        let end = if is_closed { "closed" } else { "open until left" };
        return Err(io::Error::other(end));
    }
    Ok(answer)
}

/// The statuses of all answers, or how the connection ended without one.
fn describe(outcome: io::Result<Vec<u8>>) -> String {
    let answer = match outcome {
        Ok(answer) => answer,
        Err(error) if error.kind() == io::ErrorKind::Other => return error.to_string(),
        Err(error) => return error.kind().to_string(),
    };
    let text = String::from_utf8_lossy(&answer);
    let answers = text.split("HTTP/1.1 ").skip(1).chain(text.split("HTTP/1.0 ").skip(1));
    let mut statuses: Vec<&str> = answers.filter_map(|answer| answer.get(..3)).collect();
    statuses.dedup();
    if statuses.is_empty() { "closed".to_owned() } else { statuses.join(" ") }
}
