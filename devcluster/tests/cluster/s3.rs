//! docs/backup.md's way to S3 and back, as it stands there, against a real S3 server.

use std::{fs, process::Command, sync::Arc, time::Duration};

use devcluster::{Cluster, instance::Instance};

use crate::support::{SOON, Visitor, eventually, everywhere, primary, repository, start};

/// What the guide leaves out.
const KEY: &str = "ours";
/// The one in the guide.
const ENDPOINT: &str = "127.0.0.1:7070";
const VOLUME: &str = "/var/lib/litefs";
/// What the bucket has.
const STORED: &str = "rclone lsf --recursive --files-only s3:backups";
/// rclone tries several times.
const SLOW: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs versitygw and rclone, as `cargo xtask test --full` installs them"]
async fn the_guide_brings_a_backup_to_s3_and_back() {
    let guide = fs::read_to_string(repository().join("docs/backup.md")).unwrap();
    let block = |word: &str| {
        let blocks = guide.split("```sh\n").skip(1).filter_map(|rest| Some(rest.split_once("```")?.0));
        blocks.into_iter().find(|block| block.contains(word)).unwrap_or_else(|| panic!("no block has {word}"))
    };
    let environment = block("export RCLONE_CONFIG_S3_TYPE").replace('…', KEY);
    let (job, back) = (block("rclone delete"), block("gunzip"));

    let cluster = start().await;
    let (primary, replica) = (primary(&cluster).await, cluster.instance("ams-1").unwrap());
    for instance in [primary, replica] {
        let files = [("environment", environment.as_str()), ("backup-to-s3", job)];
        for (name, text) in files {
            fs::write(instance.volume().join(name), text).unwrap();
        }
    }
    let count = click(&cluster, 20).await;
    serve_s3(replica).await;
    shell(replica, "rclone mkdir s3:backups").await.unwrap();
    shell(replica, &format!("sh {VOLUME}/backup-to-s3")).await.unwrap();
    let stored = shell(replica, STORED).await.unwrap();
    let name = stored.trim().rsplit('/').next().and_then(|file| file.strip_suffix(".db.gz"));
    let name = name.unwrap_or_else(|| panic!("not one backup: {stored}"));

    // What is counted after it goes with the restore.
    click(&cluster, 5).await;
    let of_the_guide = "2026-11-25T20-00-00Z";
    assert!(back.contains(of_the_guide), "{back}");
    // What one server has stored, the other has.
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(replica.volume().join("s3")).arg(primary.volume());
    assert!(copy.status().unwrap().success());
    serve_s3(primary).await;
    let said = shell(primary, &back.replace(of_the_guide, name)).await.unwrap();
    assert!(said.contains(&format!("Restored: count {count}.")), "{said}");
    everywhere(&cluster, count).await;

    // Whoever runs the job by a clock is told where nothing was stored.
    let stranger = "export RCLONE_CONFIG_S3_SECRET_ACCESS_KEY=another";
    let refused = shell(replica, &format!("{stranger}; sh {VOLUME}/backup-to-s3")).await;
    assert!(refused.as_ref().is_err_and(|said| said.contains("Forbidden")), "{refused:?}");
    assert_eq!(shell(replica, STORED).await.unwrap(), stored);
}

/// On the machine itself, as the guide's endpoint has it. A machine sees nothing of the host but its volume.
async fn serve_s3(instance: &Arc<Instance>) {
    let program = repository().join(".cache/tools/bin/versitygw");
    fs::copy(&program, instance.volume().join("versitygw"))
        .expect("`cargo xtask test --full` installs .cache/tools/bin/versitygw");
    let serve = format!(
        "mkdir -p s3; exec ./versitygw --access {KEY} --secret {KEY} --port {ENDPOINT} posix s3 >s3.log 2>&1 &"
    );
    instance.run(&["sh", "-c", &format!("cd {VOLUME}; {serve}")]).await.unwrap();
    let look = format!("exec 3<>/dev/tcp/{}", ENDPOINT.replace(':', "/"));
    eventually("the S3 server answers", SOON, async || {
        let looked = instance.run(&["bash", "-c", &look]).await.unwrap();
        let log = || fs::read_to_string(instance.volume().join("s3.log")).unwrap_or_default();
        if looked.status.success() { Ok(()) } else { Err(log()) }
    })
    .await;
}

/// In the guide's environment: what it says, or what it complains of.
async fn shell(instance: &Arc<Instance>, script: &str) -> Result<String, String> {
    let script = format!("set -e; . {VOLUME}/environment; {script}");
    let run = tokio::time::timeout(SLOW, instance.run(&["sh", "-c", &script])).await;
    let output = run.unwrap_or_else(|_| panic!("not within {SLOW:?}: {script}")).unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap());
    if output.status.success() { Ok(stdout) } else { Err(stderr) }
}

/// Returns the count then.
async fn click(cluster: &Cluster, times: usize) -> i64 {
    let mut visitor = Visitor::in_region(cluster, "sjc");
    let mut count = None;
    for _ in 0..times {
        count = visitor.click_with_key().await.unwrap()["count"].as_i64();
    }
    count.unwrap()
}
