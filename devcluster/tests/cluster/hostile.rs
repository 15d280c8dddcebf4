//! Malformed, oversized, slow and truncated requests, while visitors click and look.

mod attack;
mod requests;
mod resources;

use std::{
    env,
    io::{self, Write as _},
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

use crate::support::{SOON, Visitor, eventually, everywhere, fresh_key, primary, times};
use attack::{Attack, Outcomes};
use requests::Target;
use resources::{Held, held, new_lines};

/// What a visitor may wait at the 99th percentile, on a machine that is fast enough.
const QUICK: Duration = Duration::from_millis(100);
/// Otherwise, so many times what visitors wait meanwhile at an instance that nobody attacks, on the same processors. Lest the
/// attack slows down those as well, the same goes for the median, with and without it.
const SLOWER: u32 = 5;
/// At each instance. On the primary they click and look, on a replica they only look.
const VISITORS: usize = 4;
/// A visitor's pace.
const PACE: Duration = Duration::from_millis(50);
/// How many of the visitors' requests are measured without the attack, and with it at least.
const MEASURED: usize = 500;
/// How much more memory a process may hold afterwards, in KiB, and how many more files.
const MORE_MEMORY: u64 = 10 * 1024;
const MORE_FILES: u64 = 8;
/// How long it may take until it holds no more than that.
const REST: Duration = Duration::from_mins(1);
/// How many lines the application may write.
const LINES: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_change_nothing_and_hold_up_nobody() {
    // So that the application's own port can be reached past LiteFS's proxy, as no visitor can.
    let environment = vec![("HOST".to_owned(), "::".to_owned())];
    let cluster = Cluster::start(Options { environment, ..Options::default() }).await.unwrap();
    let primary = primary(&cluster).await;
    let replica = cluster.instance("ams-1").unwrap();
    let requests = times(10_000, 100_000);
    // Two cores run the cluster, built for tests, the attack and the visitors: 625 a second, or 400 where there is time.
    let pace = Duration::from_micros(times(1_600, 2_500).try_into().unwrap());
    let attack = Attack::new(targets(primary, replica), seed(), pace);
    let both = [(primary, true), (replica, false)];

    // What is made once and kept is there before anything is compared. Without the attack is before it and after it, since
    // who else uses this machine comes and goes.
    attack.run(0..requests / 20).await;
    let mut calm = visit(&both).finish(MEASURED / 2).await;
    let before = [held(primary), held(replica)].concat();
    let lines = [primary, replica].map(|instance| instance.log().lines().count());

    let visitors = visit(&both);
    let others = visit(&[(cluster.instance("syd-1").unwrap(), false)]);
    let began = Instant::now();
    attack.run(requests / 20..requests).await;
    let took = began.elapsed();
    let attacked = visitors.finish(MEASURED).await;
    let beside = others.finish(MEASURED).await;
    calm.add(visit(&both).finish(MEASURED / 2).await);

    let outcomes = attack.outcomes();
    report(&outcomes);
    let all: usize = outcomes.values().sum();
    println!("{all} hostile requests, most of them in {took:.1?}");
    println!("visitors without them: {calm}; meanwhile: {attacked}; meanwhile elsewhere: {beside}");
    everywhere(&cluster, i64::try_from(calm.clicks + attacked.clicks).unwrap()).await;
    judge(&outcomes, requests);
    for (percent, otherwise) in [(99, &beside), (50, &calm)] {
        let limit = QUICK.max(otherwise.percentile(percent) * SLOWER);
        let seen = attacked.percentile(percent);
        if QUICK < seen && seen <= limit {
            // Past what libtest keeps to itself: whoever reads that the test passed reads this as well.
            let _ = writeln!(
                io::stderr(),
                "visitors waited {seen:?} at percentile {percent}, above {QUICK:?}: allowed, up to {limit:?}, by what others \
                 waited on this busy machine"
            );
        }
        assert!(seen <= limit, "visitors were held up: {seen:?} at percentile {percent}, above {limit:?}");
    }

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
        has_little_to_say(instance, known, requests);
    }
}

/// Of an instance's log, whose first `known` lines are older than the attack.
fn has_little_to_say(instance: &Arc<Instance>, known: usize, requests: usize) {
    let (application, litefs) = new_lines(instance, known);
    let (id, log) = (instance.id(), instance.log());
    println!("{id}: {} lines of the application, {} of LiteFS", application.len(), litefs.len());
    for bad in [" ERROR ", "panicked", "panic:", "too many open files"] {
        assert_eq!(log.lines().find(|line| line.contains(bad)), None, "{id}");
    }
    assert!(application.len() <= LINES, "{id}: {application:#?}");
    // LiteFS's proxy writes one for each stream that is left, and of those there are so many.
    assert!(litefs.len() <= requests / 40, "{id}: {litefs:#?}");
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
        ("slow: KeptBody, application", "400"),
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
    fn add(&mut self, other: Self) {
        self.waits.extend(other.waits);
        self.clicks += other.clicks;
    }

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
struct Visitors {
    at_work: JoinSet<Seen>,
    /// How many requests are enough for each, once that is known.
    enough: watch::Sender<usize>,
}

impl Visitors {
    /// Lets them go on until they have made so many requests together.
    async fn finish(self, least: usize) -> Seen {
        self.enough.send_replace(least.div_ceil(self.at_work.len()));
        let mut all = Seen::default();
        for seen in self.at_work.join_all().await {
            all.add(seen);
        }
        all
    }
}

/// Of each instance, and whether they click: those of the primary do. Each keeps its connection, as Fly's proxy does.
fn visit(instances: &[(&Arc<Instance>, bool)]) -> Visitors {
    let enough = watch::Sender::new(usize::MAX);
    let mut at_work = JoinSet::new();
    for (instance, clicks) in instances {
        for _ in 0..VISITORS {
            at_work.spawn(be_visitor(Visitor::at(instance), *clicks, enough.subscribe()));
        }
    }
    Visitors { at_work, enough }
}

async fn be_visitor(mut visitor: Visitor, clicks: bool, enough: watch::Receiver<usize>) -> Seen {
    let mut seen = Seen::default();
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while seen.waits.len() < *enough.borrow() {
        pace.tick().await;
        let began = Instant::now();
        let (key, is_click) = (fresh_key(), clicks && seen.waits.len().is_multiple_of(2));
        // On a machine that stands still for seconds something may fail. They try again, and have waited for all of it.
        loop {
            let failed = if is_click {
                visitor.click_as(key).await.err().map(|status| status.to_string())
            } else {
                visitor.try_look().await.err()
            };
            let Some(failed) = failed else { break };
            assert!(began.elapsed() < SOON, "a visitor tries in vain: {failed}");
        }
        seen.clicks += usize::from(is_click);
        seen.waits.push(began.elapsed());
    }
    seen
}
