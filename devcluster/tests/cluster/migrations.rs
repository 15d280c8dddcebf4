use std::sync::Arc;

use devcluster::{instance::Instance, network::Fault};
use reqwest::{Client, StatusCode};

use crate::support::{
    ELECTION, SOON, Visitor, eventually, everywhere, heir, is_primary, next_app, page_of, primary, start,
};

const MIGRATING: &str = "is primary. Deploying migrations.";

fn migrated(instance: &Arc<Instance>) -> usize {
    instance.log().matches(MIGRATING).count()
}

fn client() -> Client {
    Client::builder().timeout(SOON).build().unwrap()
}

async fn health(instance: &Arc<Instance>) -> Result<(StatusCode, String), String> {
    let answer = client().get(format!("{}/healthcheck", instance.url(8080))).send().await;
    let answer = answer.map_err(|error| error.to_string())?;
    Ok((answer.status(), answer.text().await.unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_run_once_and_on_the_primary() {
    let cluster = start().await;
    let primary = primary(&cluster).await;
    everywhere(&cluster, 0).await;

    for instance in cluster.instances() {
        let (id, region) = (instance.id(), instance.region());
        if id == primary.id() {
            assert_eq!(migrated(instance), 1, "{}", instance.log());
            assert!(instance.log().contains(&format!("Instance ({id}) in {region} {MIGRATING}")));
        } else {
            assert_eq!(migrated(instance), 0, "{}", instance.log());
            let skipped = format!(
                "Instance ({id}) in {region} is not primary (the primary instance is {}). Skipping migrations.",
                primary.id()
            );
            assert!(instance.log().contains(&skipped), "{}", instance.log());
        }
        assert!(instance.log().contains("Server listening at http://127.0.0.1:8081"), "{}", instance.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_version_waits_for_the_schema_and_migrates_once_it_is_primary() {
    let next = next_app();
    let cluster = start().await;
    let primary = primary(&cluster).await;
    let candidate = heir(&cluster).await;
    let replica = cluster.instance("syd-1").unwrap();
    let mut visitor = Visitor::in_region(&cluster, "syd");
    assert!(visitor.click("increment").await);
    everywhere(&cluster, 1).await;

    // A deploy takes the replica first: it is healthy, and its visitors are served by the primary.
    replica.stop().await.unwrap();
    replica.set_app(&next);
    replica.start().await.unwrap();
    eventually("the new version is healthy", SOON, async || match health(replica).await? {
        (StatusCode::OK, _) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let page = visitor.look().await;
    assert_eq!((page.instance.as_str(), page.count), (primary.id(), 1));
    assert!(visitor.click("increment").await);
    assert_eq!(visitor.look().await.count, 2);
    assert_eq!(migrated(replica), 0);

    // Then the candidate, which becomes primary and brings the schema.
    candidate.stop().await.unwrap();
    candidate.set_app(&next);
    candidate.start().await.unwrap();
    eventually("the new candidate follows", SOON, async || match health(candidate).await? {
        (StatusCode::OK, _) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    primary.kill().await;
    is_primary(candidate, ELECTION).await;
    assert_eq!(migrated(candidate), 1, "{}", candidate.log());

    eventually("Sydney serves its own pages", SOON, async || {
        let page = visitor.try_look().await?;
        if page.instance == "syd-1" { Ok(()) } else { Err(format!("{page:?}")) }
    })
    .await;
    assert!(visitor.click("increment").await);
    assert_eq!(visitor.look().await.count, 3);

    // The older versions go on with the newer schema: one that stayed, and one that starts again.
    let older = cluster.instance("ams-1").unwrap();
    eventually("Amsterdam, of the older version, shows the count", SOON, async || {
        let page = page_of(older).await?;
        if page.contains(">3</output>") { Ok(()) } else { Err(page) }
    })
    .await;
    primary.start().await.unwrap();
    eventually("the old primary is back as a replica", SOON, async || {
        let page = page_of(primary).await?;
        if page.contains(">3</output>") { Ok(()) } else { Err(page) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_replica_creates_no_database_and_is_served_by_the_primary_until_it_has_one() {
    let cluster = start().await;
    let mut visitor = Visitor::in_region(&cluster, "ams");
    assert!(visitor.click("increment").await);
    let (primary, replica) = (primary(&cluster).await, cluster.instance("ams-1").unwrap());

    // It reaches Consul, where it reads who is primary, but not the primary.
    replica.destroy().await.unwrap();
    cluster.network().cut_between(replica.address(), primary.address(), Fault::Silent);
    replica.start().await.unwrap();

    eventually("it hands its visitors to the primary", SOON, async || {
        let page = client().get(replica.url(8080)).send().await.map_err(|error| error.to_string())?;
        let replay = page.headers().get("fly-replay").map(|replay| replay.to_str().unwrap().to_owned());
        if replay == Some(format!("instance={};state=1", primary.id())) {
            Ok(())
        } else {
            Err(format!("{replay:?}"))
        }
    })
    .await;
    let page = visitor.look().await;
    assert_eq!((page.instance.as_str(), page.count), (primary.id(), 1));
    assert_eq!(health(replica).await.unwrap(), (StatusCode::OK, "OK\n".to_owned()));
    assert_eq!(databases_of(replica), 0, "the replica created a database of its own");
    assert_eq!(migrated(replica), 0);

    cluster.network().heal_between(replica.address(), primary.address());
    eventually("Amsterdam serves its own pages", ELECTION, async || {
        let page = visitor.try_look().await?;
        if page.instance == "ams-1" && page.count == 1 { Ok(()) } else { Err(format!("{page:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_replica_without_a_primary_says_that_it_has_nothing_to_show() {
    let cluster = start().await;
    let replica = cluster.instance("ams-1").unwrap();
    replica.destroy().await.unwrap();
    for candidate in cluster.instances().iter().filter(|instance| instance.region() == "sjc") {
        candidate.stop().await.unwrap();
    }

    replica.start().await.unwrap();

    let reason = "the database is not here yet or too old, and no primary is known to get it from\n";
    // Before LiteFS has been asked first it says that.
    eventually("it says why it is not healthy", SOON, async || match health(replica).await? {
        (StatusCode::SERVICE_UNAVAILABLE, said) if said == reason => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let page = client().get(replica.url(8080)).send().await.unwrap();
    assert_eq!(page.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(page.headers().contains_key("retry-after"));
    assert!(page.text().await.unwrap().contains("This instance has nothing to show yet"));
    assert_eq!(databases_of(replica), 0, "the replica created a database of its own");
}

fn databases_of(instance: &Arc<Instance>) -> usize {
    std::fs::read_dir(instance.volume().join("dbs")).map_or(0, Iterator::count)
}
