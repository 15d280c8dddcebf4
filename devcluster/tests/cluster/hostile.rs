//! Malformed, oversized, slow and truncated requests, while visitors click and look.

mod attack;
mod requests;
mod resources;

use std::{
    env,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use devcluster::{Cluster, Options, instance::Instance};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::support::{Visitor, eventually, everywhere, primary, times};
use attack::{Attack, Outcomes};
use requests::Target;
use resources::{Held, held, new_lines};

/// What a visitor may wait at the 99th percentile, on a machine that is fast enough.
const QUICK: Duration = Duration::from_millis(100);
/// So many times what it is without the attack it may be otherwise.
const SLOWER: u32 = 5;
/// Of each kind: on the primary those who click, and those who only look at a replica.
const VISITORS: usize = 4;
/// A visitor's pace.
const PACE: Duration = Duration::from_millis(50);
/// How many of the visitors' requests are measured without the attack, and with it at least.
const MEASURED: usize = 500;
/// How much more memory a process may hold afterwards, in KiB, and how many more files.
const MORE_MEMORY: u64 = 10 * 1024;
const MORE_FILES: u64 = 8;
/// How long it may take until it holds no more than that: Go gives memory back with time.
const REST: Duration = Duration::from_mins(4);
/// How many lines the application may write.
const LINES: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_change_nothing_and_hold_up_nobody() {
    // So that the application's own port can be reached past LiteFS's proxy, as no visitor can.
    let environment = vec![("HOST".to_owned(), "::".to_owned())];
    let cluster = Cluster::start(Options { environment, ..Options::default() }).await.unwrap();
    let primary = primary(&cluster).await;
    let replica = cluster.instance("ams-1").unwrap();
    let attack = Attack::new(targets(primary, replica), seed());
    let requests = times(10_000, 100_000);

    // What is made once and kept, and a percentile to compare with.
    attack.run(0..requests / 20).await;
    let (stop, stopped) = watch::channel(0);
    let visitors = visit(primary, replica, &stopped);
    let calm = visitors.finish(MEASURED, &stop).await;
    let before = [held(primary), held(replica)].concat();
    let lines = [primary, replica].map(|instance| instance.log().lines().count());

    let (stop, stopped) = watch::channel(0);
    let visitors = visit(primary, replica, &stopped);
    let began = Instant::now();
    attack.run(requests / 20..requests).await;
    let took = began.elapsed();
    let attacked = visitors.finish(MEASURED, &stop).await;

    let outcomes = attack.outcomes();
    report(&outcomes);
    let all: usize = outcomes.values().sum();
    println!(
        "{all} hostile requests, of which the last {} in {took:.1?}; visitors: {calm}; meanwhile: {attacked}",
        requests - requests / 20
    );
    everywhere(&cluster, i64::try_from(calm.clicks + attacked.clicks).unwrap()).await;
    judge(&outcomes, requests);
    let limit = QUICK.max(calm.percentile(99) * SLOWER);
    let seen = attacked.percentile(99);
    assert!(seen <= limit, "visitors waited {seen:?} at the 99th percentile; without the attack {calm}");

    let rested = Instant::now();
    let after = eventually("memory and files are where they were", REST, async || {
        let after = [held(primary), held(replica)].concat();
        has_rested(&before, &after).map(|()| after)
    })
    .await;
    for (before, after) in before.iter().zip(&after) {
        println!("{before}; after {:.1?} of rest {after}", rested.elapsed());
    }
    for (instance, known) in [primary, replica].into_iter().zip(lines) {
        let (application, litefs) = new_lines(instance, known);
        println!(
            "{}: {} lines of the application, {} of LiteFS",
            instance.id(),
            application.len(),
            litefs.len()
        );
        assert!(application.len() <= LINES, "{}: {application:#?}", instance.id());
        // LiteFS's proxy writes one for each stream that is left, and of those there are so many.
        assert!(litefs.len() <= requests / 40, "{}: {litefs:#?}", instance.id());
        let log = instance.log();
        for bad in [" ERROR ", "panicked", "panic:", "too many open files"] {
            let line = log.lines().find(|line| line.contains(bad));
            assert_eq!(line, None, "{}", instance.id());
        }
    }
}

/// LiteFS's proxy and the application itself, on the primary and on a replica.
fn targets(primary: &Instance, replica: &Instance) -> Vec<(Target, SocketAddr)> {
    let of = |instance: &Instance, is_primary| {
        [(8080, true), (8081, false)].map(|(port, is_proxy)| {
            (Target { is_proxy, is_primary }, SocketAddr::from((instance.address(), port)))
        })
    };
    [of(primary, true), of(replica, false)].concat()
}

/// `HOSTILE_SEED`, which a run that failed has told; or any.
fn seed() -> u64 {
    let given = env::var("HOSTILE_SEED").map(|seed| seed.parse().expect("HOSTILE_SEED is a number"));
    let seed = given.unwrap_or_else(|_| fastrand::u64(..));
    println!("HOSTILE_SEED={seed}");
    seed
}

fn report(outcomes: &Outcomes) {
    let mut last = "";
    for ((kind, outcome), times) in outcomes {
        print!("{}{times} x {outcome}", if kind == last { ", ".to_owned() } else { format!("\n{kind}: ") });
        last = kind;
    }
    println!();
}

/// What became of the attack itself: all of it was sent, none of it was taken for a click, failed within, or was waited
/// for without end.
fn judge(outcomes: &Outcomes, requests: usize) {
    let quick = outcomes.iter().filter(|((kind, _), _)| !kind.starts_with("slow"));
    assert_eq!(quick.map(|(_, times)| times).sum::<usize>(), requests);
    for (kind, outcome) in outcomes.keys() {
        for bad in ["303", "500", "no end in time", "connection refused"] {
            assert!(!outcome.contains(bad), "{kind}: {outcome}");
        }
    }
    for (kind, outcome) in [
        // LiteFS's time-outs: the future never comes, and a head has 10 s.
        ("slow: FutureTxid, LiteFS's proxy", "504"),
        ("slow: Head, LiteFS's proxy", "400"),
        ("slow: Nothing, LiteFS's proxy", "closed"),
        // The application's: a body has 10 s.
        ("slow: Body, application", "400"),
        ("slow: Body, LiteFS's proxy", "400"),
    ] {
        let is_seen = outcomes.contains_key(&(kind.to_owned(), outcome.to_owned()));
        assert!(is_seen, "{kind}: never {outcome}");
    }
}

/// The first process, or file, that is more than it was.
fn has_rested(before: &[Held], after: &[Held]) -> Result<(), String> {
    let names = |all: &[Held]| all.iter().map(|held| held.by.clone()).collect::<Vec<_>>();
    if names(before) != names(after) {
        return Err(format!("other processes: {after:?}"));
    }
    let grown = before.iter().zip(after).find(|(before, after)| {
        after.memory > before.memory + MORE_MEMORY || after.files > before.files + MORE_FILES
    });
    grown.map_or(Ok(()), |(before, after)| Err(format!("{before}; now {after}")))
}

/// What well-behaved visitors have seen.
#[derive(Default)]
struct Seen {
    /// How long each page and each click took.
    waits: Vec<Duration>,
    /// Those that were acknowledged, which is all.
    clicks: usize,
}

impl Seen {
    fn percentile(&self, percent: usize) -> Duration {
        let mut waits = self.waits.clone();
        waits.sort();
        waits[waits.len() * percent / 100]
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [half, most] = [50, 99].map(|percent| self.percentile(percent));
        write!(f, "{} requests, median {half:.1?}, 99th percentile {most:.1?}", self.waits.len())
    }
}

/// Visitors at work.
struct Visitors(JoinSet<Seen>);

impl Visitors {
    /// Lets each go on until they have made `least` requests together.
    async fn finish(self, least: usize, stop: &watch::Sender<usize>) -> Seen {
        stop.send_replace(least.div_ceil(2 * VISITORS));
        let mut all = Seen::default();
        for seen in self.0.join_all().await {
            all.waits.extend(seen.waits);
            all.clicks += seen.clicks;
        }
        all
    }
}

/// Some click at the primary and look; others look at the replica. Each keeps its connection, as Fly's proxy does.
fn visit(primary: &Arc<Instance>, replica: &Arc<Instance>, stop: &watch::Receiver<usize>) -> Visitors {
    let mut visitors = JoinSet::new();
    for number in 0..2 * VISITORS {
        let clicks = number < VISITORS;
        let mut visitor = Visitor::at(if clicks { primary } else { replica });
        let stop = stop.clone();
        visitors.spawn(async move {
            let mut seen = Seen::default();
            let mut pace = interval(PACE);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let is_enough = |seen: &Seen| *stop.borrow() > 0 && seen.waits.len() >= *stop.borrow();
            while !is_enough(&seen) {
                pace.tick().await;
                let began = Instant::now();
                if clicks && seen.waits.len() % 2 == 0 {
                    assert!(visitor.click("increment").await, "a visitor's click was not acknowledged");
                    seen.clicks += 1;
                } else {
                    visitor.look().await;
                }
                seen.waits.push(began.elapsed());
            }
            seen
        });
    }
    Visitors(visitors)
}
