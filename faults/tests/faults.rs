//! The faults of the catalogue's short form, each on a cluster of its own. Needs root.

use std::time::{SystemTime, UNIX_EPOCH};

use faults::{
    catalogue,
    fault::{Noticed, broken_promises, try_out},
    report,
};
use tokio::sync::RwLock;

/// Left to `cargo xtask faults`: each takes long, and is close to another one.
const LEFT_OUT: [&str; 4] =
    ["sigkill_both", "alone_sigkill_litefs", "node_lost", "primary_without_consul_refused"];

/// Held by all while they have a cluster, and by a fault that nobody may notice alone: two clusters on a small machine
/// are slower than one.
static MACHINE: RwLock<()> = RwLock::const_new(());

/// A test for each name.
macro_rules! tests {
    ($($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                keeps_its_promises(stringify!($name)).await;
            }
        )*

        #[test]
        fn every_fault_has_its_test() {
            let mut names = [&LEFT_OUT[..], &[$(stringify!($name)),*]].concat();
            let faults = catalogue::all(false);
            let mut expected: Vec<&str> = faults.iter().map(|fault| fault.name.as_str()).collect();
            names.sort_unstable();
            expected.sort_unstable();
            assert_eq!(names, expected);
        }
    };
}

tests! {
    sigkill_litefs
    sigkill_application
    sigkill_node
    alone_sigkill_both
    alone_sigkill_node
    sigkill_amid_promotions
    sigstop_30_s
    second_launch
    sigterm
    sigint
    handover
    promote_unannounced
    other_candidate_away
    both_candidates_down
    stale_candidate_strict
    primary_without_consul_silent
    candidates_apart_silent
    primary_cut_off_refused
    consul_down
    dead_unconfirmed
    future_cookie
    long_read
    disk_full
    deploy_sjc1_sjc2_ams1_syd1
    deploy_syd1_ams1_sjc2_sjc1
    chance
}

async fn keeps_its_promises(name: &str) {
    let fault = catalogue::all(false).into_iter().find(|fault| fault.name == name).unwrap();
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    println!("seed {seed}");
    let (_shared, _alone);
    if fault.noticed == Noticed::ByNobody {
        _alone = MACHINE.write().await;
    } else {
        _shared = MACHINE.read().await;
    }
    let outcome = try_out(&fault, seed).await.unwrap();
    println!("{}\n{}", report::head(), report::line(&fault, std::slice::from_ref(&outcome.verdict)));
    let broken = broken_promises(&fault, &outcome.verdict);
    assert!(broken.is_empty(), "{broken:#?}\n{:#?}\n{}", outcome.verdict, outcome.logs);
}
