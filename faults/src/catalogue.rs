//! Every fault, with what is promised for it.
//!
//! In none of them a confirmed click may be lost, or any be counted twice: that is not repeated here.

use std::time::Duration;

use devcluster::network::Fault as Cut;
use rustix::process::Signal;
use tokio::time::sleep;

use crate::{
    fault::{Fault, Limit, Noticed},
    run::{Blow, Scene},
    strikes::{
        ELECTION, RELEASE, chance,
        data::{self, VOLUME},
        deploys::{self, Order},
        network,
        processes::{self, APPLICATION, LITEFS, without_the_heir},
    },
};

/// What a planned change of primary may take.
const PLANNED: Duration = Duration::from_secs(2);

/// What most crashes take. A single one may meet a slow machine, and has more (`RELEASE`).
const RELEASE_MEDIAN: Duration = Duration::from_secs(3);

/// The orders of a deploy that the short form takes: the primary first, and last.
const SHORT_ORDERS: [Order; 2] = [[0, 1, 2, 3], [3, 2, 1, 0]];

/// What is close to another fault, and left to the full form.
const FULL_ONLY: [&str; 5] = [
    "sigstop_succeeded",
    "stale_candidate",
    "candidate_just_back",
    "candidates_apart_refused",
    "primary_cut_off_silent",
];

/// What clicks without the other candidate, and so is not for `strict`; or is there with it already.
const NOT_STRICT: [&str; 7] = [
    "alone_sigkill_litefs",
    "alone_sigkill_both",
    "alone_sigkill_node",
    "other_candidate_away",
    "sigstop_succeeded",
    "stale_candidate",
    "primary_cut_off_silent",
];

/// How often the full form tries each.
const RUNS: u64 = 10;
/// And how often with `strict`.
const STRICT_RUNS: u64 = 3;

const LEASE: &str = "Consul's session: twice 10 s; lock delay and reconnect: 1 s each; 2 s";
const RELEASED: &str = "its lease is released; LiteFS looks once a second; an instance's start";
const OTHERS: &str = "the edge asks another instance";
const OWN: &str = "every instance reads its own copy";
const WAITS: &str = "LiteFS's proxy waits up to 5 s for their own click";

/// The short form, which has two orders of a deploy and one run of chance, or the full one with all orders and many.
#[must_use]
pub fn all(is_full: bool) -> Vec<Fault> {
    let mut faults = single(is_full);
    faults.retain(|fault| is_full || !FULL_ONLY.contains(&fault.name.as_str()));
    if is_full {
        for fault in &mut faults {
            fault.runs = RUNS;
        }
    }
    // All orders are many runs as they are.
    let orders = if is_full { deploys::orders() } else { SHORT_ORDERS.to_vec() };
    faults.extend(orders.into_iter().map(deploy));
    faults.push(by_chance(is_full));
    if is_full {
        let mut others = single(is_full);
        others.extend(SHORT_ORDERS.map(deploy));
        others.push(by_chance(is_full));
        faults.extend(others.into_iter().filter_map(strict));
    }
    faults
}

/// All but deploys and chance.
fn single(is_full: bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    processes(&mut faults);
    candidates(&mut faults);
    network(&mut faults, is_full);
    data(&mut faults);
    faults
}

/// The same with `CONFIRM_WRITES=strict`: whatever is acknowledged is confirmed, so nothing may be lost.
fn strict(fault: Fault) -> Option<Fault> {
    if fault.confirm == "strict" || NOT_STRICT.contains(&fault.name.as_str()) {
        return None;
    }
    let limit = |limit: Limit| Limit { median: None, is_promised: false, ..limit };
    Some(Fault {
        name: format!("{}_strict", fault.name),
        promise: "with strict, nothing is acknowledged alone, and no acknowledged click is lost",
        confirm: "strict",
        writes: expected(
            fault.writes.at_most + ELECTION,
            "as without, and until both candidates are up again",
        ),
        reads: limit(fault.reads),
        reads_elsewhere: limit(fault.reads_elsewhere),
        own_clicks: limit(fault.own_clicks),
        may_lose_alone: false,
        noticed: Noticed::ByAll,
        runs: STRICT_RUNS,
        ..fault
    })
}

fn processes(faults: &mut Vec<Fault>) {
    let planned = |name, fault: Fault| Fault {
        name,
        promise: "nobody notices: no click and no page fails",
        writes: promised(PLANNED, "the role is handed over, clicks are held meanwhile"),
        reads: expected(PLANNED, OTHERS),
        reads_elsewhere: expected(PLANNED, OWN),
        noticed: Noticed::ByNobody,
        ..fault
    };
    crashes(faults);
    faults.extend([
        Fault {
            name: "node_lost".to_owned(),
            promise: "writes come back by themselves, and reads go on",
            writes: promised(ELECTION, LEASE),
            reads_elsewhere: promised(PLANNED, OWN),
            ..fault(|scene| Box::pin(processes::lose_node(scene)))
        },
        Fault {
            name: "sigstop_30_s".to_owned(),
            promise: "a primary that stood still goes on, and has lost nothing",
            writes: expected(
                seconds(30) + ELECTION,
                "its connections stay open, so that nobody else is elected; then it takes its lease again",
            ),
            ..frozen(|scene| {
                let time = async {
                    sleep(seconds(30)).await;
                    Ok(())
                };
                Box::pin(processes::freeze(scene, time))
            })
        },
        Fault {
            name: "sigstop_succeeded".to_owned(),
            promise: "a primary that stood still acknowledges nothing that the next one does not have",
            writes: expected(
                seconds(23) + ELECTION,
                "Consul ends its session, and the other candidate restarts; replicas follow it only then",
            ),
            ..frozen(|scene| Box::pin(processes::freeze(scene, processes::succeed(scene))))
        },
        Fault {
            name: "second_launch".to_owned(),
            promise: "a second launch of the primary's name takes nothing from it: nobody notices",
            writes: promised(PLANNED, "nothing happens to the primary"),
            noticed: Noticed::ByNobody,
            ..fault(|scene| Box::pin(processes::launch_a_twin(scene)))
        },
        planned("sigterm".to_owned(), fault(|scene| Box::pin(processes::restart(scene, Signal::TERM)))),
        planned("sigint".to_owned(), fault(|scene| Box::pin(processes::restart(scene, Signal::INT)))),
        planned("handover".to_owned(), fault(|scene| Box::pin(processes::hand_over(scene)))),
        Fault {
            name: "promote_unannounced".to_owned(),
            promise: "LiteFS's own promotion loses nothing, though the old primary may crash",
            writes: expected(ELECTION, "at best a moment, at worst as after a crash"),
            reads: expected(PLANNED, OTHERS),
            ..fault(|scene| Box::pin(processes::promote(scene)))
        },
    ]);
}

/// A primary that stands still: its visitors wait until they give up.
fn frozen(strike: impl for<'a> Fn(&'a Scene) -> Blow<'a> + Send + Sync + 'static) -> Fault {
    Fault {
        reads: expected(seconds(20), "its visitors wait until they give up"),
        own_clicks: expected(seconds(36), "the same"),
        ..fault(strike)
    }
}

/// What dies comes back at once, as on Fly; with another candidate and without one.
fn crashes(faults: &mut Vec<Fault>) {
    const BOTH: [&str; 2] = [LITEFS, APPLICATION];
    let killed = |name: &str, fault: Fault| Fault {
        name: name.to_owned(),
        promise: "writes are back within seconds, and reads go on",
        writes: Limit { median: Some(RELEASE_MEDIAN), ..promised(RELEASE, RELEASED) },
        reads: promised(RELEASE, OTHERS),
        reads_elsewhere: promised(PLANNED, OWN),
        own_clicks: promised(RELEASE, WAITS),
        noticed: Noticed::NotElsewhere,
        ..fault
    };
    faults.extend([
        killed("sigkill_litefs", fault(|scene| Box::pin(processes::kill(scene, &[LITEFS])))),
        killed("sigkill_application", fault(|scene| Box::pin(processes::kill(scene, &[APPLICATION])))),
        killed("sigkill_both", fault(|scene| Box::pin(processes::kill(scene, &BOTH)))),
        killed("sigkill_node", fault(|scene| Box::pin(processes::kill_node(scene)))),
        killed(
            "alone_sigkill_litefs",
            fault(|scene| Box::pin(without_the_heir(scene, processes::kill(scene, &[LITEFS])))),
        ),
        killed(
            "alone_sigkill_both",
            fault(|scene| Box::pin(without_the_heir(scene, processes::kill(scene, &BOTH)))),
        ),
        killed(
            "alone_sigkill_node",
            fault(|scene| Box::pin(without_the_heir(scene, processes::kill_node(scene)))),
        ),
        Fault {
            name: "sigkill_amid_promotions".to_owned(),
            promise: "a lease that is being handed over is never taken from two",
            writes: expected(ELECTION, "at best as after a crash, at worst without a release"),
            ..fault(|scene| Box::pin(processes::kill_amid_promotions(scene, 6)))
        },
    ]);
}

fn candidates(faults: &mut Vec<Fault>) {
    let alone = "the primary goes on alone, and says so";
    let both_gone = "none until one is back; then an election";
    faults.extend([
        Fault {
            name: "other_candidate_away".to_owned(),
            promise: alone,
            writes: expected(seconds(5), "the time that a candidate has to confirm"),
            ..fault(|scene| Box::pin(processes::miss_the_other_candidate(scene)))
        },
        Fault {
            name: "both_candidates_down".to_owned(),
            promise: "the one that comes back has every confirmed click",
            writes: expected(ELECTION, both_gone),
            reads: expected(seconds(10), "those near the candidates go to the next region"),
            ..fault(|scene| Box::pin(processes::kill_candidates(scene)))
        },
        Fault {
            name: "dead_unconfirmed".to_owned(),
            promise: "nobody waits for a transaction that went with the primary: it is in nobody's cookie",
            confirm: "strict",
            writes: expected(seconds(4) + ELECTION, "nothing is acknowledged alone; then an election"),
            no_waiting: true,
            ..fault(|scene| Box::pin(processes::kill_unconfirmed(scene)))
        },
        Fault {
            name: "stale_candidate".to_owned(),
            promise: "only clicks that were acknowledged alone can be lost, when none but a stale candidate is left",
            writes: expected(ELECTION, both_gone),
            reads: expected(seconds(10), "those near the candidates go to the next region"),
            own_clicks: expected(seconds(30), "until the count has moved past their lost click"),
            may_lose_alone: true,
            ..fault(|scene| Box::pin(processes::bring_back_a_stale_one(scene)))
        },
        Fault {
            name: "stale_candidate_strict".to_owned(),
            promise: "with strict, no acknowledged click is lost even then",
            confirm: "strict",
            writes: expected(ELECTION + seconds(5), "nothing is acknowledged alone; then an election"),
            reads: expected(seconds(10), "those near the candidates go to the next region"),
            ..fault(|scene| Box::pin(processes::bring_back_a_stale_one(scene)))
        },
        Fault {
            name: "candidate_just_back".to_owned(),
            promise: "only clicks that were acknowledged alone can be lost, when the primary dies as the other candidate comes back",
            writes: expected(ELECTION, "as after a crash, at worst without a release"),
            reads: expected(seconds(10), "both candidates may be starting"),
            own_clicks: expected(seconds(30), "until the count has moved past their lost click"),
            may_lose_alone: true,
            ..fault(|scene| Box::pin(processes::die_as_the_other_comes_back(scene)))
        },
    ]);
}

fn network(faults: &mut Vec<Fault>, is_full: bool) {
    let cut_off = |cut| match cut {
        Cut::Refused => seconds(30),
        // It is noticed by TCP's keep-alive, after two and a half minutes (Go: 15 s, and nine probes 15 s apart).
        Cut::Silent => seconds(180),
    };
    // Not so by a candidate whose LiteFS had something on its way to the primary, if only HTTP/2's flow control: Linux repeats that,
    // and does not probe. Nor does the primary notice that its lease has run out. Both wait for the tenth repetition, the
    // first after the cut, at 1,023 times 200 to 230 ms.
    let noticed = |cut| match cut {
        Cut::Refused => (cut_off(cut), "until the cut is over, at worst; then an election"),
        Cut::Silent => (seconds(212), "TCP's keep-alive, or its repetition after the cut; then an election"),
    };
    for (kind, cut) in [("refused", Cut::Refused), ("silent", Cut::Silent)] {
        faults.extend([
            Fault {
                name: format!("primary_without_consul_{kind}"),
                promise: "of two primaries only the one that holds the lease acknowledges",
                writes: expected(seconds(35) + ELECTION, "the cut, and an election at most"),
                own_clicks: expected(seconds(35), "who enters at an instance that the new primary has lost"),
                ..fault(move |scene| Box::pin(network::cut_from_consul(scene, cut)))
            },
            Fault {
                name: format!("candidates_apart_{kind}"),
                promise: "the primary goes on alone, and says so",
                writes: expected(seconds(5), "the time that a candidate has to confirm"),
                reads: expected(seconds(12), "every instance reads its own copy"),
                own_clicks: expected(seconds(18), "the cut, where they enter at the other candidate"),
                ..fault(move |scene| Box::pin(network::cut_between_candidates(scene, cut, seconds(12))))
            },
            Fault {
                name: format!("primary_cut_off_{kind}"),
                promise: "a primary that nobody reaches acknowledges nothing",
                writes: expected(noticed(cut).0 + ELECTION, noticed(cut).1),
                reads: expected(seconds(12), "the edge tries the one that is cut off, and then another"),
                own_clicks: expected(
                    seconds(36),
                    "until the old primary, reached again, follows the new one",
                ),
                ..fault(move |scene| Box::pin(network::cut_off(scene, cut, cut_off(cut))))
            },
        ]);
    }
    // Three times as long as Consul keeps a session that is not renewed, or just longer.
    let away = if is_full { seconds(60) } else { seconds(25) };
    faults.push(Fault {
        name: "consul_down".to_owned(),
        promise: "reads go on, writes come back with Consul",
        writes: expected(away + ELECTION, "while Consul is away, and an election at most"),
        ..fault(move |scene| Box::pin(network::stop_consul(scene, away)))
    });
}

fn data(faults: &mut Vec<Fault>) {
    faults.extend([
        Fault {
            name: "future_cookie".to_owned(),
            promise: "a click replaces the cookie, and the visitor reads on",
            writes: expected(PLANNED, "clicks go by no cookie"),
            reads: expected(seconds(12), "LiteFS's proxy waits 5 s for the cookie's TXID, then answers 504"),
            reads_elsewhere: expected(seconds(12), "the same"),
            own_clicks: promised(seconds(12), "the same, until their next click is answered"),
            ..fault(|scene| Box::pin(data::set_future_cookies(scene)))
        },
        Fault {
            name: "long_read".to_owned(),
            promise: "one who reads for long on the other candidate costs its confirmation, not a click",
            writes: expected(seconds(5), "the time that a candidate has to confirm"),
            reads: expected(seconds(12), "every instance reads its own copy"),
            own_clicks: expected(
                seconds(15),
                "as long as the other candidate stands, where they enter there",
            ),
            ..fault(|scene| Box::pin(data::read_long(scene, seconds(10))))
        },
        Fault {
            name: "disk_full".to_owned(),
            promise: "a primary without room acknowledges nothing, and goes on once it has some",
            writes: expected(
                data::FULL + ELECTION,
                "as long as the disk is full, and an election if LiteFS ends of it",
            ),
            volume_size: Some(VOLUME),
            ..fault(|scene| Box::pin(data::fill_disk(scene)))
        },
    ]);
}

fn deploy(order: Order) -> Fault {
    let [a, b, c, d] = order.map(|place| ["sjc1", "sjc2", "ams1", "syd1"][place]);
    Fault {
        name: format!("deploy_{a}_{b}_{c}_{d}"),
        promise: "a new version with a migration is deployed, and nobody notices",
        writes: promised(PLANNED, "the role is handed over, clicks are held meanwhile"),
        reads: expected(PLANNED, OTHERS),
        reads_elsewhere: expected(PLANNED, OTHERS),
        noticed: Noticed::ByNobody,
        next_version: true,
        ..fault(move |scene| Box::pin(deploys::roll(scene, order)))
    }
}

fn by_chance(is_full: bool) -> Fault {
    let (faults, runs) = if is_full { (6, 2 * RUNS) } else { (2, 1) };
    Fault {
        name: "chance".to_owned(),
        promise: "whatever comes together, no confirmed click is lost and none counted twice",
        writes: expected(ELECTION * 2, "as after a crash, once or again"),
        reads: expected(seconds(20), "as in the faults that it is made of"),
        reads_elsewhere: expected(seconds(20), "the same"),
        own_clicks: expected(seconds(30), "the same"),
        may_lose_alone: true,
        runs,
        ..fault(move |scene| Box::pin(chance::strike(scene, faults)))
    }
}

/// The rest of a fault, which differs where it is told above.
fn fault(strike: impl for<'a> Fn(&'a Scene) -> Blow<'a> + Send + Sync + 'static) -> Fault {
    Fault {
        name: String::new(),
        promise: "",
        confirm: "available",
        writes: expected(PLANNED, ""),
        reads: expected(PLANNED, OTHERS),
        reads_elsewhere: expected(PLANNED, OWN),
        own_clicks: expected(seconds(6), WAITS),
        may_lose_alone: false,
        noticed: Noticed::ByAll,
        no_waiting: false,
        next_version: false,
        volume_size: None,
        runs: 1,
        strike: Box::new(strike),
    }
}

fn promised(at_most: Duration, why: &'static str) -> Limit {
    Limit { at_most, median: None, why, is_promised: true }
}

fn expected(at_most: Duration, why: &'static str) -> Limit {
    Limit { at_most, median: None, why, is_promised: false }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        check::{Pause, Verdict},
        fault::{broken_median, broken_promises},
    };

    #[test]
    fn every_fault_says_what_it_promises_and_why_it_pauses() {
        for fault in all(true) {
            let limits = [fault.writes, fault.reads, fault.reads_elsewhere, fault.own_clicks];
            let texts = limits.map(|limit| limit.why).into_iter().chain([fault.promise]);
            let texts: Vec<&str> = texts.collect();
            assert!(texts.iter().all(|text| !text.is_empty()), "{}: {texts:?}", fault.name);
        }
    }

    fn broken(name: &str, verdict: &Verdict) -> Vec<String> {
        broken_promises(&all(true).into_iter().find(|fault| fault.name == name).unwrap(), verdict)
    }

    #[test]
    fn clicks_acknowledged_alone_may_be_lost_only_with_the_one_that_has_them() {
        let lost = Verdict { lost_alone: 1, alone: 1, ..Verdict::default() };
        assert!(broken("stale_candidate", &lost).is_empty());
        assert_eq!(broken("alone_sigkill_litefs", &lost), ["1 clicks lost that were acknowledged alone"]);
        let names = all(true).into_iter().filter(|fault| fault.may_lose_alone).map(|fault| fault.name);
        assert_eq!(names.collect::<Vec<_>>(), ["stale_candidate", "candidate_just_back", "chance"]);
    }

    #[test]
    fn a_crash_is_noticed_only_where_the_candidates_are() {
        let failed = |region| Verdict { failed_reads_by_region: [(region, 1)].into(), ..Verdict::default() };
        assert!(broken("sigkill_litefs", &failed("sjc")).is_empty());
        assert_eq!(broken("sigkill_litefs", &failed("syd")).len(), 1);
        let waited = |time| Verdict {
            own_click_pauses: [("syd", Pause { time, ..Pause::default() })].into(),
            ..Verdict::default()
        };
        assert!(broken("sigkill_litefs", &waited(RELEASE)).is_empty());
        assert_eq!(broken("sigkill_litefs", &waited(RELEASE * 2)).len(), 1);
        assert_eq!(broken("future_cookie", &waited(seconds(13))).len(), 1);
    }

    #[test]
    fn crashes_have_to_be_over_soon_at_the_median() {
        let crash = all(true).into_iter().find(|fault| fault.name == "sigkill_litefs").unwrap();
        let runs = |pauses: [u64; 3]| {
            pauses.map(|pause| Verdict {
                write_pause: Pause { time: seconds(pause), ..Pause::default() },
                ..Verdict::default()
            })
        };
        assert_eq!(broken_median(&crash, &runs([4, 1, 2])), None);
        let slow = broken_median(&crash, &runs([4, 1, 3])).unwrap();
        assert!(slow.contains("3.0 s at the median"), "{slow}");
    }
}
