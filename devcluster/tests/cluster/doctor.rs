//! `litefs-counter doctor` on a cluster that runs: from outside, and on a machine of it.

use std::process::{Command, Output, Stdio};

use devcluster::{Cluster, Options, built_programs};
use serde_json::Value;

use crate::support::{SOON, eventually, primary, start};

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_well_is_found_well_and_is_left_as_it_was() {
    let cluster = start().await;
    let before = positions(&cluster).await;
    for region in ["sjc", "syd"] {
        eventually("nothing wrong is found", SOON, async || {
            let (status, report) = from_outside(&cluster, region).await;
            if status == Some(0) { Ok(()) } else { Err(report.to_string()) }
        })
        .await;
    }
    for instance in cluster.instances() {
        let output = instance.run(&["litefs-counter", "doctor", "/etc", "--json"]).await.unwrap();
        let (status, report) = read(&output);
        assert_eq!(status, Some(0), "{}: {report}", instance.id());
    }
    assert_eq!(positions(&cluster).await, before);
}

/// With the real proxy, which says nothing about it.
#[tokio::test(flavor = "multi_thread")]
async fn a_path_in_place_of_the_database_s_name_is_seen_from_outside_and_on_the_machine() {
    let environment = vec![("DATABASE_FILENAME".to_owned(), "/litefs/sqlite.db".to_owned())];
    let cluster = Cluster::start(Options { environment, ..Options::default() }).await.unwrap();
    eventually("the cookie is missed", SOON, async || {
        let (status, report) = from_outside(&cluster, "syd").await;
        if (status, ids(&report)) == (Some(1), vec!["cookie-missing"]) {
            Ok(())
        } else {
            Err(report.to_string())
        }
    })
    .await;
    let machine = primary(&cluster).await;
    let output = machine.run(&["litefs-counter", "doctor", "/etc", "--json"]).await.unwrap();
    let (status, report) = read(&output);
    assert_eq!((status, ids(&report)), (Some(1), vec!["proxy-db-path"]), "{report}");
}

async fn from_outside(cluster: &Cluster, region: &str) -> (Option<i32>, Value) {
    let url = cluster.entry(region).unwrap();
    let repository = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let mut doctor = Command::new(built_programs().join("litefs-counter"));
    doctor.args(["doctor", repository, "--json", "--url", &url]).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || doctor.output()).await.unwrap().unwrap();
    read(&output)
}

fn read(output: &Output) -> (Option<i32>, Value) {
    let said = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&said);
    let report =
        report.unwrap_or_else(|error| panic!("{error}: {said}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), report)
}

fn ids(report: &Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().filter_map(|finding| finding["id"].as_str()).collect()
}

/// The transaction that each instance is at.
async fn positions(cluster: &Cluster) -> Vec<String> {
    cluster.status().await.iter().map(|status| format!("{}: {:?}", status.id, status.txid)).collect()
}
