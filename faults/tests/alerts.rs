//! The recordings are of metrics that there are: a cluster of today tells the same ones. Needs root.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use devcluster::{Cluster, Options, instance::Instance};
use faults::{
    history::{Acknowledgement, Confirmation},
    load::REGIONS,
    recording::{ALL, FOLDER, Series, names, read, recorded},
    run::checkout,
    visitor::Visitor,
};
use tokio::time::{Instant, sleep};

/// What is a matter of a second, on a slow machine.
const SOON: Duration = Duration::from_mins(1);

async fn scrape(instance: &Instance) -> Vec<(Series, f64)> {
    let answer = reqwest::get(format!("{}/metrics", instance.url(8082))).await.unwrap();
    read(&answer.error_for_status().unwrap().text().await.unwrap()).unwrap()
}

fn value(metrics: &[(Series, f64)], name: &str) -> Option<f64> {
    metrics.iter().find(|((of, _), _)| of == name).map(|(_, value)| *value)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_today_tells_what_the_recordings_and_the_alerts_speak_of() {
    let cluster = Cluster::start(Options::default()).await.unwrap();
    let visitor = Visitor::new(&cluster, REGIONS[0], Instant::now()).unwrap();
    let deadline = Instant::now() + SOON;
    loop {
        match visitor.click(Some("once")).await {
            Ok(Acknowledgement { confirmation: Confirmation::Candidates, .. }) => break,
            other => assert!(Instant::now() < deadline, "not confirmed: {other:?}"),
        }
        sleep(Duration::from_millis(50)).await;
    }

    let mut all = Vec::new();
    for instance in cluster.instances() {
        all.push(scrape(instance).await);
    }
    let live: BTreeSet<Series> = all.iter().flatten().map(|(series, _)| series.clone()).collect();

    let names = names().unwrap();
    for name in &names {
        assert!(live.iter().any(|(of, _)| of == name), "an alert looks at {name}, which nobody tells");
    }
    let mine: BTreeSet<Series> = live.into_iter().filter(|(name, _)| names.contains(name)).collect();
    for recording in &ALL {
        let file = checkout().join(FOLDER).join("recordings").join(format!("{}.yml", recording.name));
        assert_eq!(recorded(&file).unwrap(), mine, "{}: record it anew", recording.name);
        is_small(&file);
    }

    // And with the values that they have when all is well.
    let (primary, replicas) = all.split_first().unwrap();
    assert_eq!(value(primary, "app_takes_clicks"), Some(1.0));
    assert_eq!(value(primary, "app_candidates"), Some(2.0));
    assert_eq!(value(primary, "app_lag_seconds"), None);
    for replica in replicas {
        assert_eq!(value(replica, "app_takes_clicks"), Some(0.0));
        assert_eq!(value(replica, "app_candidates"), None);
        assert!(value(replica, "app_lag_seconds").unwrap() < 10.0);
    }
    for instance in &all {
        let (free, size) =
            (value(instance, "app_volume_free_bytes"), value(instance, "app_volume_size_bytes"));
        assert!(free.unwrap() > 0.0 && free < size, "{free:?} of {size:?}");
    }
    // Visitors, who come through LiteFS's proxy, get none of it.
    let public = format!("{}/metrics", cluster.entry("sjc").unwrap());
    assert_eq!(reqwest::get(public).await.unwrap().status().as_u16(), 404);
}

fn is_small(file: &Path) {
    let size = fs::metadata(file).unwrap().len();
    assert!(size < 50_000, "{}: {size} bytes", file.display());
}
