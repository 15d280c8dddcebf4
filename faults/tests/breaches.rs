//! The application with one protection taken out, on a cluster. Each run has to show what the protection prevents.

use std::time::{SystemTime, UNIX_EPOCH};

use faults::breaches::{Violation, all, try_out};
use tokio::sync::RwLock;

/// A test for each name.
macro_rules! tests {
    ($($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                is_seen(stringify!($name)).await;
            }
        )*

        #[test]
        fn every_breach_has_its_test() {
            let breaches = all();
            let expected: Vec<&str> = breaches.iter().map(|breach| breach.name).collect();
            assert_eq!(vec![$(stringify!($name)),*], expected);
        }
    };
}

tests! {
    breach_keys
    breach_confirmation
    breach_handover
    breach_cookie
    breach_cookie_wait
}

/// Held by a breach whose clicks must not fail with the protection: two clusters on a small machine are slower than one.
static MACHINE: RwLock<()> = RwLock::const_new(());

async fn is_seen(name: &str) {
    let breach = all().into_iter().find(|breach| breach.name == name).unwrap();
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    println!("seed {seed}");
    let (_shared, _alone);
    if breach.shows == Violation::Noticed {
        _alone = MACHINE.write().await;
    } else {
        _shared = MACHINE.read().await;
    }
    if let Err(error) = try_out(&breach, seed).await {
        panic!("{error:#}");
    }
}
