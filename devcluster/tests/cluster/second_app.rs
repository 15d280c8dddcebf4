use devcluster::{Cluster, Options};
use reqwest::{Client, StatusCode, redirect::Policy};

use crate::support::{SOON, Visitor, eventually, everywhere, second_app};

#[tokio::test(flavor = "multi_thread")]
async fn another_application_with_the_instance_module_finds_its_way() {
    let address = ("ADDRESS".to_owned(), "127.0.0.1:8081".to_owned());
    let cluster = Cluster::start(Options { environment: vec![address], ..Options::default() }).await.unwrap();
    assert!(Visitor::in_region(&cluster, "sjc").click("increment").await);
    everywhere(&cluster, 1).await;
    let replica = cluster.instance("ams-1").unwrap();
    replica.stop().await.unwrap();
    replica.set_app(second_app());
    // It is not the application that has `launch`.
    replica.set_entrypoint(&["litefs", "mount"]);
    replica.start().await.unwrap();
    let client = Client::builder().redirect(Policy::none()).timeout(SOON).build().unwrap();
    let get = async |path: &str| client.get(format!("{}{path}", replica.url(8080))).send().await;

    let primary = cluster.instance("sjc-1").unwrap();
    let txid = primary.run(&["cat", "/litefs/sqlite.db-pos"]).await.unwrap().stdout;
    let txid = String::from_utf8(txid).unwrap().split('/').next().unwrap().to_owned();
    eventually("it knows its role and its position", SOON, async || {
        let who = get("/").await.map_err(|error| error.to_string())?.text().await.unwrap();
        let expected = format!("ams-1 in ams: a replica; the primary is sjc-1, at transaction {txid}\n");
        if who == expected { Ok(()) } else { Err(who) }
    })
    .await;

    let instances = get("/instances").await.unwrap().text().await.unwrap();
    let mut lines: Vec<&str> = instances.lines().collect();
    lines.sort_unstable();
    let at = |id: &str, region: &str| format!("{id} in {region} at {id}.vm.litefs-counter.internal");
    assert_eq!(lines, [at("ams-1", "ams"), at("sjc-1", "sjc"), at("sjc-2", "sjc"), at("syd-1", "syd")]);

    assert_eq!(get("/on/ams-1").await.unwrap().text().await.unwrap(), "answered by ams-1\n");
    let elsewhere = get("/on/sjc-2").await.unwrap();
    assert_eq!(elsewhere.status(), StatusCode::CONFLICT);
    assert_eq!(elsewhere.headers()["fly-replay"], "instance=sjc-2;state=1");
}
