//! `litefs-counter doctor` on a cluster that runs: from outside, and on a machine of it.

use std::process::{Command, Output, Stdio};

use devcluster::{Cluster, Options, built_programs};
use serde_json::Value;

use crate::support::{SOON, eventually, primary, start};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

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

/// LiteFS itself is the measure.
#[test]
fn what_is_said_to_be_refused_is_what_litefs_refuses() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["fly.toml", "Dockerfile"] {
        std::fs::copy(format!("{REPOSITORY}/{file}"), folder.path().join(file)).unwrap();
    }
    // One directory for both: LiteFS reads it, and ends before it mounts anything.
    let base = "fuse: { dir: /x }\ndata: { dir: /x }\nlease:\n  type: static\n";
    for more in [
        "",
        "mount-dir: /x\n",
        "candidate: true\n",
        "skip-sync: maybe\n",
        "skip-sync: yes\n",
        "  candidate: \"true\"\n",
        "  candidate: true\n",
        "  promote: \n",
        "  reconnect-delay: 10\n",
        "  reconnect-delay: 10s\n",
        "  consul: { ttl: 1m30s, lock-delay: \"0\" }\n",
        "  consul: { ttl: 0 }\n",
        "  consul: { kye: x }\n",
        "  databases: x\n",
        "  databases: [x]\n",
        "proxy:\n",
        "proxy: x\n",
        "proxy: { addr: 8080 }\n",
        "proxy: { max-lag: 1 s }\n",
        "tracing: { max-size: 1.5 }\n",
        "exec: x\n",
        "exec: [{ cmd: x, if-primary: true }]\n",
        "exec: [{ cmd: x, if-candidate: 1 }]\n",
    ] {
        let path = folder.path().join("litefs.yml");
        std::fs::write(&path, format!("{base}{more}")).unwrap();
        let litefs = Command::new(Options::default().litefs).args(["mount", "-config"]).arg(&path).output();
        let said = litefs.unwrap();
        let said = String::from_utf8_lossy(&said.stdout) + String::from_utf8_lossy(&said.stderr);
        let is_refused = said.contains("yaml: ");
        assert!(is_refused || said.contains("cannot be the same path"), "{more}: {said}");
        let mut doctor = Command::new(built_programs().join("litefs-counter"));
        doctor.arg("doctor").arg(folder.path()).arg("--json").stdin(Stdio::null());
        let (_, report) = read(&doctor.output().unwrap());
        let is_said =
            ids(&report).iter().any(|id| matches!(*id, "litefs-key-unknown" | "litefs-value-refused"));
        assert_eq!(is_said, is_refused, "{more}: {said}{report}");
    }
}

async fn from_outside(cluster: &Cluster, region: &str) -> (Option<i32>, Value) {
    let url = cluster.entry(region).unwrap();
    let mut doctor = Command::new(built_programs().join("litefs-counter"));
    doctor.args(["doctor", REPOSITORY, "--json", "--url", &url]).stdin(Stdio::null());
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
